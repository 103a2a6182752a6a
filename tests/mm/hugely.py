# SPDX-License-Identifier: GPL-2.0-only
"""Machines with transparent huge pages, for the tests of khugepaged and of huge shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rmap.mm import bits
from rmap.mm.inject import FailPlan
from rmap.mm.pgtable import pmd_offset, pmd_trans_huge
from rmap.mm.profile import profile
from rmap.model import Machine, Process

PAGE = bits.PAGE_SIZE
HUGE = bits.HPAGE_PMD_SIZE
NR = bits.HPAGE_PMD_NR
#: Where the tests map: aligned for huge pages.
AT = 64 * HUGE


class Hugely:
    """A machine on which memory is huge where that is asked for; `p` is a process of it.

    `results` collects what khugepaged found and did, as ``SCAN_`` numbers.
    """

    def __init__(
        self, ram: int = 4096, swap: int = 2048, name: str = "4.18", **quirks: bool
    ) -> None:
        self.m = Machine(ram=ram, swap=swap, profile=profile(name, **quirks))
        self.k = self.m.kernel
        self.k.thp_enabled = bits.THP_MADVISE
        self.p = self.m.spawn("p")
        self.results: list[int] = []

    def map(self, huge: int = 1, pages: int | None = None, p: Process | None = None) -> int:
        """Map anonymous memory for so many huge pages, and write its number into each page."""
        p = p or self.p
        a = int(p.mmap(huge * HUGE, addr=AT))
        for i in range(huge * NR if pages is None else pages):
            p.write(a + i * PAGE, mark(i))
        return a

    def khugepaged(self, pages: int = 1 << 20) -> int:
        """Let khugepaged run once through everything; how many huge pages it made."""
        self.results.clear()
        with self.traced():
            return int(self.m.khugepaged(pages))

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Collect the results of khugepaged."""

        def note(name: str, arguments: tuple[Any, ...]) -> None:
            if name.startswith(("khugepaged_scan", "collapse_")):
                self.results.append(int(arguments[-1]))

        self.k.tracer = note
        try:
            yield
        finally:
            self.k.tracer = None

    @contextmanager
    def failing(self, plan: str) -> Iterator[FailPlan]:
        """Let allocations fail."""
        self.m.inject = FailPlan.from_text(plan)
        try:
            yield self.m.inject
        finally:
            self.m.inject = None

    def is_huge(self, p: Process, address: int) -> bool:
        """Whether a PMD maps the address."""
        pmd = pmd_offset(self.k, p.mm, address)
        return bool(pmd and pmd_trans_huge(self.k.pt[pmd]))

    def stat(self, name: str) -> int:
        """A statistic."""
        return int(self.m.mem_stats()[name])

    def rss(self, p: Process, counter: int) -> int:
        """One of the counters of a process."""
        return int(p.mm.rss_stat[counter])

    def sound(self) -> None:
        """Everything that can be recounted is as it should be."""
        assert self.m.check() == []
        assert not self.m.warnings


def mark(i: int) -> bytes:
    """What the tests write into page `i`."""
    return b"%05d" % i


def marks(p: Process, a: int, count: int = NR) -> list[bytes]:
    """What the first bytes of so many pages are."""
    return [p.read(a + i * PAGE, 5) for i in range(count)]

# SPDX-License-Identifier: GPL-2.0-only
"""Kernel samepage merging of a machine: ksmd, and what /sys/kernel/mm/ksm shows and sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.mm.bits import KSM_RUN_MERGE, KSM_RUN_STOP, KSM_RUN_UNMERGE
from rmap.mm.ksm import scan
from rmap.mm.ksm.stable import Ksm, ksm_of
from rmap.model.errors import check

if TYPE_CHECKING:
    from rmap.model.machine import Machine

#: What ksmd may be told to do.
RUN = {"stop": KSM_RUN_STOP, "run": KSM_RUN_MERGE, "unmerge": KSM_RUN_UNMERGE}
#: More than there are pages to look at.
EVERYTHING = 1 << 62


class KsmHandle:
    """KSM of a machine, as `Machine.ksm`. `ksm` is the kernel's object.

    ksmd runs when it is told to, by `scan`, and merges what processes have made mergeable by
    ``madvise(..., "mergeable")``.

    >>> from rmap.model import Machine
    >>> m = Machine(ram=64)
    >>> p = m.spawn("init")
    >>> a = p.mmap(8192)
    >>> p.write(a, b"x"), p.write(a + 4096, b"x"), p.madvise(a, 8192, "mergeable")
    (None, None, None)
    >>> [m.ksm.scan() for _ in range(3)], m.ksm.pages_shared, m.ksm.pages_sharing
    ([2, 2, 2], 1, 1)
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @property
    def ksm(self) -> Ksm:
        """The kernel's object."""
        return ksm_of(self.machine.kernel)

    def scan(self, pages: int | None = None) -> int:
        """Let ksmd look at so many pages, or at the rest of its round; returns at how many it did.

        The round ends there in any case: a page is merged in the second round that finds it
        unchanged, at the earliest.
        """
        with self.machine.kthread("ksmd") as k:
            return int(scan.ksm_scan_thread(k, EVERYTHING if pages is None else pages))

    # ------------------------------------------------------------ settings

    @property
    def run(self) -> str:
        """What ksmd does: ``"stop"``, ``"run"``, or ``"unmerge"``, which takes all apart.

        It runs at first, unlike that of a freshly booted kernel. Setting it raises
        `SyscallError` if there is no memory for taking everything apart; ksmd then stops.
        """
        return next(name for name, value in RUN.items() if value == self.ksm.run)

    @run.setter
    def run(self, what: str) -> None:
        if what not in RUN:
            raise ValueError(f"ksmd cannot {what!r}; known: {', '.join(RUN)}")
        with self.machine.kthread("ksm/run") as k:
            check(scan.run_store(k, RUN[what]), f"ksm/run {what}")

    @property
    def max_page_sharing(self) -> int:
        """At how many places one page may be merged; beyond that, another one of the same is made.

        Setting it raises `SyscallError` below 2, and while there are merged pages.
        """
        return int(self.ksm.max_page_sharing)

    @max_page_sharing.setter
    def max_page_sharing(self, limit: int) -> None:
        with self.machine.kthread("ksm/max_page_sharing") as k:
            check(scan.max_page_sharing_store(k, limit), f"ksm/max_page_sharing {limit}")

    @property
    def use_zero_pages(self) -> bool:
        """Whether pages of zeros become the zero page; settable."""
        return bool(self.ksm.use_zero_pages)

    @use_zero_pages.setter
    def use_zero_pages(self, wanted: bool) -> None:
        self.ksm.use_zero_pages = wanted

    @property
    def stable_node_chains_prune_millisecs(self) -> int:
        """How long a chain is not looked through for pages that are gone; settable.

        ksmd's time goes on by `sleep_millisecs` (20) with each `scan`.
        """
        return int(self.ksm.stable_node_chains_prune_millisecs)

    @stable_node_chains_prune_millisecs.setter
    def stable_node_chains_prune_millisecs(self, value: int) -> None:
        self.ksm.stable_node_chains_prune_millisecs = value

    # ------------------------------------------------------------ counters

    @property
    def pages_shared(self) -> int:
        """Merged pages."""
        return int(self.ksm.pages_shared)

    @property
    def pages_sharing(self) -> int:
        """Places beyond the first of each merged page: how many pages are saved."""
        return int(self.ksm.pages_sharing)

    @property
    def pages_unshared(self) -> int:
        """Pages that nothing equal was found for."""
        return int(self.ksm.pages_unshared)

    @property
    def pages_volatile(self) -> int:
        """Pages that change too fast."""
        return int(scan.pages_volatile(self.machine.kernel))

    @property
    def full_scans(self) -> int:
        """Rounds that are over."""
        return int(self.ksm.scan.seqnr)

    @property
    def stable_node_chains(self) -> int:
        """Contents that there is more than one merged page of."""
        return int(self.ksm.stable_node_chains)

    @property
    def stable_node_dups(self) -> int:
        """Merged pages of these."""
        return int(self.ksm.stable_node_dups)

    def counters(self) -> dict[str, int]:
        """Return all counters by their names in /sys/kernel/mm/ksm."""
        names = (
            "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans",
            "stable_node_chains", "stable_node_dups",
        )  # fmt: skip
        return {name: int(getattr(self, name)) for name in names}

    def __repr__(self) -> str:
        return f"<KSM: {self.pages_shared} pages for {self.pages_shared + self.pages_sharing}>"

# SPDX-License-Identifier: GPL-2.0-only
"""khugepaged of a machine, and its settings (/sys/kernel/mm/transparent_hugepage/khugepaged)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.mm.bits import (
    HPAGE_PMD_NR,
    SHMEM_HUGE_ADVISE,
    SHMEM_HUGE_ALWAYS,
    SHMEM_HUGE_NEVER,
    SHMEM_HUGE_WITHIN_SIZE,
)
from rmap.mm.huge import khugepaged
from rmap.mm.mm_types import Khugepaged

if TYPE_CHECKING:
    from rmap.model.machine import Machine

#: What the mount option huge= of a tmpfs may be.
MOUNT_HUGE = {
    "always": SHMEM_HUGE_ALWAYS,
    "within_size": SHMEM_HUGE_WITHIN_SIZE,
    "advise": SHMEM_HUGE_ADVISE,
    "never": SHMEM_HUGE_NEVER,
}


class KhugepagedHandle:
    """khugepaged, as `Machine.khugepaged`. It runs when it is called, and then for so many pages.

    It looks at processes that have had a huge page, or could have, once ``m.thp.enabled`` lets it.

    >>> from rmap.model import Machine
    >>> m = Machine(ram=4096)
    >>> p = m.spawn("init")
    >>> a = p.mmap(2 << 20, addr=2 << 20)
    >>> p.touch(a, 2 << 20)
    >>> m.thp.enabled = "always"
    >>> p.madvise(a, 2 << 20, "hugepage")
    >>> m.khugepaged(), m.mem_stats()["nr_anon_thps"]
    (1, 1)
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __call__(self, pages: int | None = None) -> int:
        """Let it look at so many pages (``pages_to_scan``); returns how many huge pages it made."""
        with self.machine.kthread("khugepaged") as k:
            wanted = self.state.pages_to_scan if pages is None else pages
            return int(khugepaged.khugepaged_do_scan(k, wanted))

    @property
    def state(self) -> Khugepaged:
        """The kernel's object, with all its settings and counters."""
        return self.machine.kernel.khugepaged

    @property
    def max_ptes_none(self) -> int:
        """How many pages of the 512 may be missing, to be filled with zeros."""
        return int(self.state.max_ptes_none)

    @max_ptes_none.setter
    def max_ptes_none(self, value: int) -> None:
        self.state.max_ptes_none = _ptes("max_ptes_none", value)

    @property
    def max_ptes_swap(self) -> int:
        """How many pages of the 512 may be in swap, to be brought in."""
        return int(self.state.max_ptes_swap)

    @max_ptes_swap.setter
    def max_ptes_swap(self, value: int) -> None:
        self.state.max_ptes_swap = _ptes("max_ptes_swap", value)

    @property
    def pages_collapsed(self) -> int:
        """How many huge pages it has made."""
        return int(self.state.pages_collapsed)

    @property
    def full_scans(self) -> int:
        """How often it has been through all processes."""
        return int(self.state.full_scans)

    def __repr__(self) -> str:
        return f"<khugepaged: {self.pages_collapsed} collapsed, {self.full_scans} full scans>"


def _ptes(setting: str, value: int) -> int:
    if not 0 <= value < HPAGE_PMD_NR:
        raise ValueError(f"{setting} is a number from 0 to {HPAGE_PMD_NR - 1}, not {value}")
    return value

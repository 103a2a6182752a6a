# SPDX-License-Identifier: GPL-2.0-only
"""Transparent huge pages: settings (/sys/kernel/mm/transparent_hugepage), and splitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.mm.bits import (
    SHMEM_HUGE_ADVISE,
    SHMEM_HUGE_ALWAYS,
    SHMEM_HUGE_DENY,
    SHMEM_HUGE_FORCE,
    SHMEM_HUGE_NEVER,
    SHMEM_HUGE_WITHIN_SIZE,
    THP_ALWAYS,
    THP_DEFRAG_ALWAYS,
    THP_DEFRAG_DEFER,
    THP_DEFRAG_DEFER_MADVISE,
    THP_DEFRAG_MADVISE,
    THP_DEFRAG_NEVER,
    THP_MADVISE,
    THP_NEVER,
)
from rmap.mm.huge import split_page
from rmap.mm.huge.pgtable import is_huge_zero_page
from rmap.mm.lru import put_page
from rmap.mm.mm_types import Kernel
from rmap.mm.page import (
    PageHuge,
    PageTransCompound,
    compound_head,
    get_page,
    lock_page,
    unlock_page,
)

if TYPE_CHECKING:
    from rmap.model.machine import Machine

ENABLED = {"always": THP_ALWAYS, "madvise": THP_MADVISE, "never": THP_NEVER}
DEFRAG = {
    "always": THP_DEFRAG_ALWAYS,
    "defer": THP_DEFRAG_DEFER,
    "defer+madvise": THP_DEFRAG_DEFER_MADVISE,
    "madvise": THP_DEFRAG_MADVISE,
    "never": THP_DEFRAG_NEVER,
}
SHMEM_ENABLED = {
    "always": SHMEM_HUGE_ALWAYS,
    "within_size": SHMEM_HUGE_WITHIN_SIZE,
    "advise": SHMEM_HUGE_ADVISE,
    "never": SHMEM_HUGE_NEVER,
    "deny": SHMEM_HUGE_DENY,
    "force": SHMEM_HUGE_FORCE,
}


class HugePageSettings:
    """Where memory is huge, and what is done for it. A new machine uses huge pages nowhere.

    >>> from rmap.model.machine import Machine
    >>> m = Machine(ram=2048)
    >>> m.thp.enabled = "always"
    >>> p = m.spawn("init")
    >>> p.write(p.mmap(2 << 20, addr=2 << 20), b"x")
    >>> m.mem_stats()["nr_anon_thps"], m.mem_stats()["nr_anon_mapped"]
    (1, 512)
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @property
    def enabled(self) -> str:
        """Where faults make anonymous memory huge: ``always``, ``madvise`` or ``never``.

        ``madvise`` is where MADV_HUGEPAGE was given. Setting another word: ``ValueError``.
        """
        return _word(ENABLED, self.machine.kernel.thp_enabled)

    @enabled.setter
    def enabled(self, word: str) -> None:
        self.machine.kernel.thp_enabled = _number("enabled", ENABLED, word)

    @property
    def defrag(self) -> str:
        """Where a fault reclaims and compacts to get a huge page, and does not take small ones.

        ``always``, ``defer`` (kswapd does it), ``defer+madvise``, ``madvise`` or ``never``.
        """
        return _word(DEFRAG, self.machine.kernel.thp_defrag)

    @defrag.setter
    def defrag(self, word: str) -> None:
        self.machine.kernel.thp_defrag = _number("defrag", DEFRAG, word)

    @property
    def shmem_enabled(self) -> str:
        """Which shared memory is huge that is on no mount: ``always``, ``within_size`` and so on.

        ``deny`` and ``force`` overrule the mounts as well.
        """
        return _word(SHMEM_ENABLED, self.machine.kernel.shmem_enabled)

    @shmem_enabled.setter
    def shmem_enabled(self, word: str) -> None:
        self.machine.kernel.shmem_enabled = _number("shmem_enabled", SHMEM_ENABLED, word)

    @property
    def use_zero_page(self) -> bool:
        """Whether a read of memory that was never written to maps the huge zero page."""
        return bool(self.machine.kernel.thp_use_zero_page)

    @use_zero_page.setter
    def use_zero_page(self, value: bool) -> None:
        self.machine.kernel.thp_use_zero_page = value

    def __repr__(self) -> str:
        return f"<transparent huge pages: {self.enabled}, defrag {self.defrag}>"


def may_be_split(k: Kernel, page: int) -> bool:
    """Whether a page is part of a transparent huge page, and not of the one of zeros."""
    if not PageTransCompound(k, page) or PageHuge(k, page):
        return False
    return not is_huge_zero_page(k, compound_head(k, page))


def split_huge_page(machine: Machine, page: int) -> bool:
    """Split a huge page, of which `page` is any part. See `Machine.split_huge_page`."""
    with machine.kthread("split") as k:
        if not 0 < page <= k.nr_pages or not may_be_split(k, page):
            raise ValueError(f"{page:#x} is no part of a transparent huge page (or of zeros)")
        get_page(k, page)
        lock_page(k, page)
        split = split_page.split_huge_page(k, page) == 0
        unlock_page(k, page)
        put_page(k, page)
    return split


def shrink_deferred(machine: Machine) -> int:
    """Split what is queued for it. See `Machine.shrink_deferred`."""
    with machine.kthread("kswapd") as k:
        waiting = split_page.deferred_split_count(k)
        if waiting == 0:
            return 0
        return max(int(split_page.deferred_split_scan(k, waiting)), 0)


def _word(words: dict[str, int], number: int) -> str:
    return next(word for word, value in words.items() if value == number)


def _number(setting: str, words: dict[str, int], word: str) -> int:
    if word not in words:
        raise ValueError(f"{setting} is one of {', '.join(words)}, not {word!r}")
    return words[word]

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Shrinkers: who else could give memory back, asked by reclaim (mm/vmscan.c: do_shrink_slab()).

Of the kernel's many there are those of huge pages: one splits them if parts of them are not used,
one if they reach beyond the end of their file, one frees the huge zero page.

No lock is held, but what an allocation may hold: mmap_sems and page locks.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import DEFAULT_SEEKS, HPAGE_PMD_NR, SHRINK_BATCH, SHRINK_STOP
    from rmap.mm.huge.pgtable import shrink_huge_zero_page_scan
    from rmap.mm.huge.shmem_shrink import shmem_unused_huge_count, shmem_unused_huge_shrink
    from rmap.mm.huge.split_page import deferred_split_count, deferred_split_scan
    from rmap.mm.mm_types import Kernel
    from rmap.scalar import i32, i64


class Shrinker:
    """struct shrinker: something that can be scanned for what may be freed.

    `nr_deferred` is what it should have scanned so far, and has not as it was too little at a time.
    """

    def __init__(self) -> None:
        self.nr_deferred = 0

    def count_objects(self, k: Kernel) -> i64:
        """How much there is to be scanned."""
        return 0

    def scan_objects(self, k: Kernel, nr_to_scan: i64) -> i64:
        """Scan so much; returns how much was freed, or ``SHRINK_STOP`` if it is no use to go on."""
        return SHRINK_STOP


class DeferredSplitShrinker(Shrinker):
    """deferred_split_shrinker: huge pages of which parts are not mapped any more."""

    def count_objects(self, k: Kernel) -> i64:
        """Huge pages on the queue."""
        return deferred_split_count(k)

    def scan_objects(self, k: Kernel, nr_to_scan: i64) -> i64:
        """Split some."""
        return deferred_split_scan(k, nr_to_scan)


class HugeZeroPageShrinker(Shrinker):
    """huge_zero_page_shrinker: the huge zero page, if no address space has it mapped."""

    def count_objects(self, k: Kernel) -> i64:
        """Its pages, if it can be freed."""
        return HPAGE_PMD_NR if k.huge_zero_refcount == 1 else 0

    def scan_objects(self, k: Kernel, nr_to_scan: i64) -> i64:
        """Free it."""
        return shrink_huge_zero_page_scan(k)


class UnusedHugeShrinker(Shrinker):
    """What the shrinker of a tmpfs does (s_op->free_cached_objects): files that end in huge pages.

    There is one for all mounts.
    """

    def count_objects(self, k: Kernel) -> i64:
        """Files on the list."""
        return shmem_unused_huge_count(k)

    def scan_objects(self, k: Kernel, nr_to_scan: i64) -> i64:
        """Split the huge pages at the ends of some."""
        return shmem_unused_huge_shrink(k, nr_to_scan)


def shrinkers_of(k: Kernel) -> list:
    """The shrinkers, in the order in which they are asked; others may be appended."""
    if not k.shrinkers:
        k.shrinkers = [HugeZeroPageShrinker(), DeferredSplitShrinker(), UnusedHugeShrinker()]
    return k.shrinkers


def shrink_slab(k: Kernel, priority: i32) -> i64:
    """Ask each shrinker for as great a part as of the LRU lists is scanned; what they freed.

    mm/vmscan.c (v4.18).
    """
    freed: i64 = 0
    shrinker: Shrinker
    for shrinker in shrinkers_of(k):
        freed += do_shrink_slab(k, shrinker, priority)
    return freed


def do_shrink_slab(k: Kernel, shrinker: Shrinker, priority: i32) -> i64:
    """Ask one shrinker; what it freed (mm/vmscan.c, v4.18).

    It works in large steps, or through all it has; what is too little for that is saved up. After
    a long time without pressure not everything is scanned at once.
    """
    freeable: i64 = shrinker.count_objects(k)
    if freeable == 0:
        return 0
    delta: i64 = (freeable >> priority) * 4 // DEFAULT_SEEKS
    total_scan: i64 = shrinker.nr_deferred + delta
    left: i64 = total_scan
    freed: i64 = 0
    nr_to_scan: i64
    result: i64
    if delta < freeable // 4:
        total_scan = min(total_scan, freeable // 2)
    total_scan = min(total_scan, 2 * freeable)
    while total_scan >= SHRINK_BATCH or total_scan >= freeable:
        nr_to_scan = min(SHRINK_BATCH, total_scan)
        result = shrinker.scan_objects(k, nr_to_scan)
        if result == SHRINK_STOP:
            break
        freed += result
        total_scan -= nr_to_scan
        left -= nr_to_scan
    shrinker.nr_deferred = max(left, 0)
    return freed

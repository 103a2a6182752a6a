# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Pages that wait for a flush before they are freed: struct mmu_gather (mm/memory.c, v4.18).

No lock is taken here but by what frees the pages: `release_pages`. Who gathers may hold
page-table locks, but holds none when pages are freed.
"""

from __future__ import annotations

from typing import Any

import cython
import numpy as np

from rmap.mm.mm_types import column

if not cython.compiled:
    from rmap.mm.bits import MAX_GATHER_PAGES, NR_MM_COUNTERS, ULONG_MAX, PG_swapcache
    from rmap.mm.lru import release_pages
    from rmap.mm.mm_types import Kernel, Mm
    from rmap.mm.mmu_notifier import mmu_notifier_invalidate_range
    from rmap.mm.swap import free_swap_cache
    from rmap.mm.tlb import (
        dec_tlb_flush_pending,
        flush_tlb_mm,
        flush_tlb_range,
        inc_tlb_flush_pending,
    )
    from rmap.scalar import flag, i32, i64, u64


class MmuGather:
    """struct mmu_gather: pages whose entries are gone, until the flush lets them be freed.

    ``[start, end)`` is what has to be flushed, empty if `end` is 0. `rss` is what the table that
    is being zapped takes from the mm's counters.
    """

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        self.fullmm = False
        self.start = 0
        self.end = 0
        self.pages = column(64, np.uintc)
        self.nr = 0
        self.rss = column(NR_MM_COUNTERS, np.longlong)

    def grow(self) -> i32:
        """Make room for more pages."""
        larger: Any = np.zeros(min(4 * len(self.pages), MAX_GATHER_PAGES), np.uintc)
        larger[: len(self.pages)] = self.pages
        self.pages = memoryview(larger)
        return 0


# ---------------------------------------------------------------- gathering


def tlb_gather_mmu(k: Kernel, mm: Mm, start: u64, end: u64) -> MmuGather:
    """Begin to take ``[start, end)`` away; 0 to ``ULONG_MAX`` for all of a dying mm."""
    tlb: MmuGather = MmuGather(mm)
    tlb.fullmm = start == 0 and end == ULONG_MAX
    inc_tlb_flush_pending(k, mm)
    return tlb


def tlb_finish_mmu(k: Kernel, tlb: MmuGather, start: u64, end: u64) -> i32:
    """Flush and free what was gathered.

    If another CPU gathers from the same mm, it may have emptied entries that this one found empty
    and did not note: then the whole range is flushed.
    """
    if tlb.mm.tlb_flush_pending > 1:
        tlb_adjust_range(tlb, start, end)
    tlb_flush_mmu(k, tlb)
    dec_tlb_flush_pending(k, tlb.mm)
    return 0


def tlb_adjust_range(tlb: MmuGather, start: u64, end: u64) -> i32:
    """Note that a range has to be flushed."""
    if tlb.end == 0:
        tlb.start = start
        tlb.end = end
        return 0
    if start < tlb.start:
        tlb.start = start
    if end > tlb.end:
        tlb.end = end
    return 0


def tlb_remove_page(tlb: MmuGather, page: u64) -> flag:
    """Keep a page to be freed after the flush; whether that was the last that could be kept."""
    if tlb.nr == len(tlb.pages):
        tlb.grow()
    tlb.pages[tlb.nr] = page
    tlb.nr += 1
    return tlb.nr == MAX_GATHER_PAGES


def tlb_flush_mmu_tlbonly(k: Kernel, tlb: MmuGather) -> i32:
    """Flush what was noted, here and in secondary MMUs."""
    if tlb.end == 0:
        return 0
    if tlb.fullmm:
        flush_tlb_mm(k, tlb.mm)
    else:
        flush_tlb_range(k, tlb.mm, tlb.start, tlb.end)
    mmu_notifier_invalidate_range(k, tlb.mm, tlb.start, tlb.end)
    tlb.start = 0
    tlb.end = 0
    return 0


def tlb_flush_mmu_free(k: Kernel, tlb: MmuGather) -> i32:
    """Drop the references of the pages kept; no CPU can reach them any more.

    free_pages_and_swap_cache(), mm/swap_state.c (v4.18).
    """
    i: i64
    page: u64
    for i in range(tlb.nr):
        page = tlb.pages[i]
        if k.pg_flags[page] & PG_swapcache:
            free_swap_cache(k, page)
    release_pages(k, tlb.pages, tlb.nr)
    tlb.nr = 0
    return 0


def tlb_flush_mmu(k: Kernel, tlb: MmuGather) -> i32:
    """Flush, then free."""
    tlb_flush_mmu_tlbonly(k, tlb)
    return tlb_flush_mmu_free(k, tlb)

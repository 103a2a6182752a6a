# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Swap as reclaim, faults and zapping use it (mm/swapfile.c, mm/swap_state.c, mm/page_io.c, v4.18).

Slots and their counts are in `rmap.mm.swap_slots`, the swap cache is in `rmap.mm.swap_cache`.

Locks: the page lock is held or tried for; si->lock and the i_pages lock are taken inside it, one
after the other. `free_swap_and_cache` is called under a page-table lock.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        SWAP_HAS_CACHE,
        PG_dirty,
        PG_uptodate,
        PG_writeback,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.lru import put_page
    from rmap.mm.memcg import mem_cgroup_try_charge_swap
    from rmap.mm.mm_types import Kernel, SwapInfo
    from rmap.mm.page import (
        PageCompound,
        PageFlag,
        PageKsm,
        PageLocked,
        PageSwapCache,
        PageTransCompound,
        SetPage,
        compound_head,
        page_mapped,
        page_private,
        page_trans_huge_mapcount,
        total_mapcount,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import non_swap_entry, swp_entry, swp_offset
    from rmap.mm.swap_cache import (
        add_to_swap_cache,
        delete_from_swap_cache,
        lookup_swap_cache,
        write_to_swap,
    )
    from rmap.mm.swap_slots import (
        get_swap_device,
        page_swapcount,
        put_swap_device,
        put_swap_page,
        swap_entry_put,
        swap_info,
        vm_swap_full,
    )
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- slots


def get_swap_page(k: Kernel, page: u64) -> u64:
    """Take a free slot for a page, with SWAP_HAS_CACHE set; its entry, 0 if swap is full.

    mm/swapfile.c:929 (v4.18): the area of the highest priority that has one, turn by turn where
    several have the same, and in it the first.
    """
    if k.inject is not None and k.inject.should_fail("swap_slot"):
        return 0
    offset: i64
    area: SwapInfo
    best: SwapInfo
    tried: set = set()
    while True:
        best = None
        for area in k.swap_areas:
            if area.pages == 0 or not area.writeok or area.type in tried:
                continue
            if best is None or (-area.prio, area.turn) < (-best.prio, best.turn):
                best = area
        if best is None:
            return 0
        best.turn += 1
        offset = _scan_swap_map(k, best)
        if offset:
            return swp_entry(best.type, offset)
        tried.add(best.type)


def _scan_swap_map(k: Kernel, area: SwapInfo) -> i64:
    """The first slot that is free, taken; 0 if there is none (scan_swap_map(), :618, v4.18).

    If swap is getting full, a slot that only a page of the swap cache still has is freed by the
    way: the page is in memory, and nothing else refers to the slot.
    """
    area.lock.lock()
    full: flag = vm_swap_full(k)
    offset: i64 = area.lowest
    while offset < area.pages and area.writeok:
        if full and area.swap_map[offset] == SWAP_HAS_CACHE:
            area.lock.unlock()
            _try_to_reclaim_swap(k, swp_entry(area.type, offset))
            area.lock.lock()
        if area.swap_map[offset] == 0:
            area.swap_map[offset] = SWAP_HAS_CACHE
            area.inuse += 1
            area.lowest = offset + 1
            area.lock.unlock()
            return offset
        offset += 1
    area.lowest = offset
    area.lock.unlock()
    return 0


def _try_to_reclaim_swap(k: Kernel, entry: u64) -> flag:
    """Free a slot that only the swap cache has; whether it was (__try_to_reclaim_swap(), :103)."""
    page: u64 = lookup_swap_cache(k, entry)
    freed: flag = False
    if not page:
        return False
    if trylock_page(k, page):
        freed = try_to_free_swap(k, page)
        unlock_page(k, page)
    put_page(k, page)
    return freed


def add_to_swap(k: Kernel, page: u64) -> flag:
    """Give a page a slot and put it in the swap cache, dirty; whether that worked.

    mm/swap_state.c:213 (v4.18). The page is locked and up to date.
    """
    if not PageLocked(k, page):
        BUG_PAGE("swap_state.c:218 add_to_swap: the page is not locked", page)
    if not PageFlag(k, page, PG_uptodate):
        BUG_PAGE("swap_state.c:219 add_to_swap of a page that is not up to date", page)
    if PageCompound(k, page):
        # Reclaim then splits it, and asks for each of its pages.
        return False
    entry: u64 = get_swap_page(k, page)
    if not entry:
        return False
    if mem_cgroup_try_charge_swap(k, page, entry) or add_to_swap_cache(k, page, entry):
        put_swap_page(k, page, entry)
        return False
    set_page_dirty(k, page)
    if k.tracer is not None:
        k.tracer("add_to_swap", (page, entry))
    return True


# ---------------------------------------------------------------- letting go


def try_to_free_swap(k: Kernel, page: u64) -> flag:
    """Free the slot of a page, if no entry refers to it; whether it was (mm/swapfile.c:1660).

    The page is locked. It is dirty then: its slot is gone.
    """
    if not PageLocked(k, page):
        BUG_PAGE("swapfile.c:1662 try_to_free_swap: the page is not locked", page)
    if not PageSwapCache(k, page) or PageFlag(k, page, PG_writeback):
        return False
    if page_swapcount(k, page):
        return False
    delete_from_swap_cache(k, page)
    SetPage(k, page, PG_dirty)
    return True


def free_swap_and_cache(k: Kernel, entry: u64) -> i32:
    """Drop an entry that a page table held, and the slot's page if it is of no more use.

    mm/swapfile.c:1700 (v4.18). 0 if it was an entry of no slot in use, else 1.
    """
    if non_swap_entry(entry):
        return 1
    area: SwapInfo = swap_info(k, entry)
    if area is None:
        return 0
    device: SwapInfo = get_swap_device(k, entry)
    page: u64 = 0
    if swap_entry_put(k, area, entry, 1) == SWAP_HAS_CACHE:
        page = lookup_swap_cache(k, entry)
    if device is not None:
        put_swap_device(k, device)
    if not page:
        return 1
    if trylock_page(k, page):
        if (
            PageSwapCache(k, page)
            and not PageFlag(k, page, PG_writeback)
            and (not page_mapped(k, page) or vm_swap_full(k))
            and area.swap_map[swp_offset(entry)] == SWAP_HAS_CACHE
        ):
            delete_from_swap_cache(k, page)
            SetPage(k, page, PG_dirty)
        unlock_page(k, page)
    put_page(k, page)
    return 1


def free_swap_cache(k: Kernel, page: u64) -> i32:
    """Free the slot of a page that is unmapped and about to be dropped (mm/swap_state.c:281)."""
    if PageSwapCache(k, page) and not page_mapped(k, page) and trylock_page(k, page):
        try_to_free_swap(k, page)
        unlock_page(k, page)
    return 0


def free_page_and_swap_cache(k: Kernel, page: u64) -> i32:
    """Drop the reference of a mapping that is gone (mm/swap_state.c:293)."""
    free_swap_cache(k, page)
    return put_page(k, page)


# ---------------------------------------------------------------- reuse, writing


def reuse_swap_page(k: Kernel, page: u64) -> i32:
    """Whether a write may go to this page instead of a copy, as nobody else has it.

    mm/swapfile.c:1619 (v4.18). Returns how many mappings and swap entries there are in all if it
    may (for a small page 1), else 0. The page is locked. Pins do not count in this version. A page
    that is reused leaves the swap cache, unless it is being written and the device can bear that
    it changes. `page` may be part of a huge page, of which no part may be shared then; those are
    never in the swap cache here.
    """
    if not PageLocked(k, page):
        BUG_PAGE("swapfile.c:1624 reuse_swap_page: the page is not locked", page)
    if PageKsm(k, page):
        return 0
    count: i32 = page_trans_huge_mapcount(k, page)
    total: i32 = count
    if PageTransCompound(k, page):
        total = total_mapcount(k, compound_head(k, page))
    if PageSwapCache(k, page):
        count += page_swapcount(k, page)
    if count == 1 and PageSwapCache(k, page):
        if not PageFlag(k, page, PG_writeback):
            delete_from_swap_cache(k, page)
            SetPage(k, page, PG_dirty)
        elif swap_info(k, page_private(k, page)).stable_writes:
            return 0
    if count > 1:
        return 0
    # Neither mapped nor swapped, it can only be the caller's.
    return total if total > 1 else 1


def swap_writepage(k: Kernel, page: u64) -> i32:
    """Write a locked page of the swap cache to its slot, and unlock it (mm/page_io.c:240, v4.18).

    If no entry refers to the slot any more it is freed instead.
    """
    if try_to_free_swap(k, page):
        return unlock_page(k, page)
    return write_to_swap(k, page)

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The swap cache: pages that stand for slots of swap (mm/swap_state.c, mm/page_io.c, v4.18).

A page in the cache has PG_swapcache, the slot's entry in page->private and a reference of the
cache's; its slot has SWAP_HAS_CACHE. page->mapping stays what it was, an anon_vma or nothing.

Locks: the page lock, then the i_pages lock of the area's address_space, then none. A slot's byte
is changed under si->lock before (add) or after (delete) that, never inside.

Reading and writing take no time. Areas marked `deferred` leave what is written in PG_writeback
until `end_swap_writes`, so that what happens to a page under writeback can be seen.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EEXIST,
        ENOMEM,
        GFP_HIGHUSER,
        NR_FILE_PAGES,
        NR_SWAPCACHE,
        PSWPIN,
        PSWPOUT,
        SWAP_HAS_CACHE,
        PG_swapbacked,
        PG_swapcache,
        PG_uptodate,
        PG_writeback,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.content import page_bytes, set_page_bytes
    from rmap.mm.lru import lru_cache_add, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.mm_types import AddressSpace, Kernel, MemCgroup, SwapInfo
    from rmap.mm.page import (
        ClearPage,
        PageFlag,
        PageLocked,
        PageSwapBacked,
        PageSwapCache,
        SetPage,
        get_page_unless_zero,
        lock_page,
        mod_node_page_state,
        page_private,
        page_ref_add,
        page_ref_sub,
        set_page_private,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.page_dirty import end_page_writeback, set_page_writeback
    from rmap.mm.pgtable import swp_offset, swp_type
    from rmap.mm.swap_slots import (
        get_swap_device,
        put_swap_device,
        put_swap_page,
        swap_count,
        swap_info,
        swapcache_prepare,
    )
    from rmap.scalar import i32, u64
    from rmap.sync.bits import FIELD_SWAP_MAP, OP_READ
    from rmap.sync.core import sched, sched_point


def swap_area(k: Kernel, entry: u64) -> SwapInfo:
    """The area of an entry that is known to be one of a slot. One that is gone is a bug."""
    area: SwapInfo = k.swap_areas[swp_type(entry)]
    if area.pages == 0:
        BUG("swap_state.c:309 the swap cache of an area is looked into that is gone")
    return area


# ---------------------------------------------------------------- membership


def add_to_swap_cache(k: Kernel, page: u64, entry: u64) -> i32:
    """Let a page stand for a slot, whose SWAP_HAS_CACHE the caller has set; 0 or -ENOMEM.

    mm/swap_state.c:122 (v4.18). The page is locked, PG_swapbacked and in no cache.
    """
    if not PageLocked(k, page):
        BUG_PAGE("swap_state.c:128 add_to_swap_cache: the page is not locked", page)
    if PageSwapCache(k, page):
        BUG_PAGE("swap_state.c:129 add_to_swap_cache of a page that is in it", page)
    if not PageSwapBacked(k, page):
        BUG_PAGE("swap_state.c:130 add_to_swap_cache of a page that is not PG_swapbacked", page)
    if k.inject is not None and k.inject.should_fail("swap_cache"):
        return -ENOMEM
    area: SwapInfo = swap_area(k, entry)
    space: AddressSpace = area.address_space
    page_ref_add(k, page, 1)
    SetPage(k, page, PG_swapcache)
    space.i_pages_lock.lock()
    set_page_private(k, page, entry)
    if area.cache[swp_offset(entry)]:
        BUG_PAGE("swap_state.c:159 two pages stand for one slot of swap", page)
    area.cache[swp_offset(entry)] = page
    space.nrpages += 1
    mod_node_page_state(k, NR_FILE_PAGES, 1)
    mod_node_page_state(k, NR_SWAPCACHE, 1)
    space.i_pages_lock.unlock()
    return 0


def remove_from_swap_cache(k: Kernel, page: u64) -> i32:
    """Take a page out of the cache under the i_pages lock (__delete_from_swap_cache(), :182).

    The cache's reference stays, which is the caller's business, and SWAP_HAS_CACHE.
    """
    if not PageLocked(k, page):
        BUG_PAGE("swap_state.c:189 delete_from_swap_cache: the page is not locked", page)
    if not PageSwapCache(k, page):
        BUG_PAGE("swap_state.c:190 delete_from_swap_cache of a page that is not in it", page)
    if PageFlag(k, page, PG_writeback):
        BUG_PAGE("swap_state.c:191 delete_from_swap_cache of a page under writeback", page)
    entry: u64 = page_private(k, page)
    area: SwapInfo = swap_area(k, entry)
    if area.cache[swp_offset(entry)] != page:
        BUG_PAGE("swap_state.c:198 another page stands for this page's slot", page)
    area.cache[swp_offset(entry)] = 0
    set_page_private(k, page, 0)
    ClearPage(k, page, PG_swapcache)
    area.address_space.nrpages -= 1
    mod_node_page_state(k, NR_FILE_PAGES, -1)
    mod_node_page_state(k, NR_SWAPCACHE, -1)
    return 0


def delete_from_swap_cache(k: Kernel, page: u64) -> i32:
    """Take a locked page out of the cache; its slot is free then if no entry refers to it.

    mm/swap_state.c:262 (v4.18). page->mapping and page->index stay.
    """
    entry: u64 = page_private(k, page)
    space: AddressSpace = swap_area(k, entry).address_space
    space.i_pages_lock.lock()
    remove_from_swap_cache(k, page)
    space.i_pages_lock.unlock()
    put_swap_page(k, page, entry)
    return page_ref_sub(k, page, 1)


def lookup_swap_cache(k: Kernel, entry: u64) -> u64:
    """The page that stands for a slot, with a reference; 0 if there is none (:309)."""
    area: SwapInfo = get_swap_device(k, entry)
    if area is None:
        return 0
    page: u64
    while True:
        if sched.exploring:
            sched_point(OP_READ, FIELD_SWAP_MAP, entry)
        page = swap_area(k, entry).cache[swp_offset(entry)]
        if not page:
            break
        if not get_page_unless_zero(k, page):
            continue
        if area.cache[swp_offset(entry)] == page:
            break
        put_page(k, page)
    put_swap_device(k, area)
    return page


# ---------------------------------------------------------------- reading


def read_swap_cache(k: Kernel, entry: u64, memcg: MemCgroup | None) -> u64:
    """The page that stands for a slot, read if need be: up to date, unlocked, with a reference.

    read_swap_cache_async(), mm/swap_state.c:368 (v4.18), without readahead. 0 without memory, or
    if the slot is not in use any more. A page read is charged to `memcg`, if that is not ``None``;
    in v4.18 it is charged only by whoever maps it.
    """
    area: SwapInfo = get_swap_device(k, entry)
    page: u64 = 0
    error: i32 = -EEXIST
    while area is not None and error == -EEXIST:
        page = lookup_swap_cache(k, entry)
        if page or not swap_count(k, entry):
            break
        page = alloc_page(k, GFP_HIGHUSER)
        if not page:
            break
        error = _read_into_cache(k, page, entry, memcg)
        if error == 0:
            swap_readpage(k, page)
        else:
            put_page(k, page)
            page = 0
    if area is not None:
        put_swap_device(k, area)
    return page


def _read_into_cache(k: Kernel, page: u64, entry: u64, memcg: MemCgroup | None) -> i32:
    """Make a new page the one that stands for a slot, locked; 0 or -errno."""
    error: i32 = swapcache_prepare(k, entry)
    if error:
        return error
    lock_page(k, page)
    SetPage(k, page, PG_swapbacked)
    error = add_to_swap_cache(k, page, entry)
    if error == 0 and memcg is not None:
        error = mem_cgroup_try_charge(k, page, memcg, GFP_HIGHUSER)
        if error:
            delete_from_swap_cache(k, page)
            unlock_page(k, page)
            return error
    if error:
        unlock_page(k, page)
        put_swap_page(k, page, entry)
        return error
    lru_cache_add(k, page)
    return 0


def swap_readpage(k: Kernel, page: u64) -> i32:
    """Fill a locked page from the slot in page->private, and unlock it (mm/page_io.c:355).

    The page is in the swap cache, or is a new one that a fault reads from a synchronous device.
    """
    if not PageLocked(k, page):
        BUG_PAGE("page_io.c:364 swap_readpage: the page is not locked", page)
    if PageFlag(k, page, PG_uptodate):
        BUG_PAGE("page_io.c:365 swap_readpage of a page that is up to date", page)
    entry: u64 = page_private(k, page)
    area: SwapInfo = swap_area(k, entry)
    if not PageSwapCache(k, page) and not area.synchronous:
        BUG_PAGE("page_io.c:363 swap_readpage of a page that is not in the swap cache", page)
    data: bytes = area.slots.get(swp_offset(entry), b"")
    set_page_bytes(k, page, data)
    SetPage(k, page, PG_uptodate)
    k.vm_stat[PSWPIN] += 1
    return unlock_page(k, page)


# ---------------------------------------------------------------- writing


def write_to_swap(k: Kernel, page: u64) -> i32:
    """Write a locked page to its slot and unlock it (__swap_writepage(), mm/page_io.c:281)."""
    entry: u64 = page_private(k, page)
    area: SwapInfo = swap_info(k, entry)
    if area is None or not area.swap_map[swp_offset(entry)] & SWAP_HAS_CACHE:
        BUG_PAGE("page_io.c:288 a page is written to a slot that is not its own", page)
    k.vm_stat[PSWPOUT] += 1
    set_page_writeback(k, page)
    unlock_page(k, page)
    if area.deferred:
        area.pending.append(page)
        return 0
    return _end_swap_bio_write(k, area, page)


def _end_swap_bio_write(k: Kernel, area: SwapInfo, page: u64) -> i32:
    """The end of a write: what the page holds now is what the slot holds (mm/page_io.c:50)."""
    area.slots[swp_offset(page_private(k, page))] = page_bytes(k, page)
    return end_page_writeback(k, page)


def end_swap_writes(k: Kernel, area: SwapInfo) -> i32:
    """Finish the writes that a `deferred` area has begun; returns how many."""
    count: i32 = len(area.pending)
    page: u64
    for page in area.pending:
        _end_swap_bio_write(k, area, page)
    area.pending.clear()
    return count

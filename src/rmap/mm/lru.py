# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The LRU, and the end of a page (mm/swap.c; isolate and put back, mm/vmscan.c; v4.18).

k.lru_lock is taken, inside which nothing is; callers may hold a page-table lock.

The kernel collects additions and moves in per-CPU batches (pagevecs), each entry with a reference
to its page. Here everything is done at once, as if lru_add_drain() followed each call: no page
has a reference that is only a batch's.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        LRU_ACTIVE,
        LRU_FILE,
        LRU_INACTIVE_FILE,
        LRU_UNEVICTABLE,
        NR_MLOCK,
        PGACTIVATE,
        PGDEACTIVATE,
        PGLAZYFREE,
        PGROTATED,
        SWAP_CLUSTER_MAX,
        UNEVICTABLE_PGCLEARED,
        UNEVICTABLE_PGCULLED,
        UNEVICTABLE_PGMLOCKED,
        UNEVICTABLE_PGRESCUED,
        VM_LOCKED,
        VM_SPECIAL,
        PG_active,
        PG_dirty,
        PG_head,
        PG_huge,
        PG_idle,
        PG_isolated,
        PG_locked,
        PG_lru,
        PG_mlocked,
        PG_referenced,
        PG_swapbacked,
        PG_swapcache,
        PG_tail,
        PG_unevictable,
        PG_zone_device,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.huge.deferred import forget_deferred_split
    from rmap.mm.hugetlb.pool import free_huge_page
    from rmap.mm.memcg import mem_cgroup_uncharge
    from rmap.mm.mm_inline import (
        add_page_to_lru_list,
        add_page_to_lru_list_tail,
        del_page_from_lru_list,
        mem_cgroup_page_lruvec,
        page_is_file_cache,
        page_lru,
        page_lru_base_type,
        page_off_lru,
        update_page_reclaim_stat,
    )
    from rmap.mm.mm_types import AddressSpace, DevicePagemap, Kernel, LruVec, Vma
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageFlag,
        SetPage,
        TestClearPage,
        TestSetPage,
        compound_head,
        get_page,
        hpage_nr_pages,
        page_mapping,
        put_page_testzero,
        set_page_mapping,
    )
    from rmap.mm.page_alloc import free_compound_page, free_unref_page
    from rmap.scalar import flag, i32, i64, u32, u64
    from rmap.sync.bits import FIELD_PAGE_FLAGS, FIELD_REFCOUNT, OP_RMW
    from rmap.sync.core import sched, sched_point


# ---------------------------------------------------------------- the end of a page


def put_page(k: Kernel, page: u64) -> i32:
    """Drop a reference; without any left the page is taken off the LRU, uncharged and freed."""
    if k.pg_flags[page] & (PG_head | PG_tail | PG_zone_device):
        return _put_compound_page(k, page)
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, page)
    references: i32 = k.pg_refcount[page] - 1
    if references < 0:
        BUG_PAGE("mm.h:441 put_page of a page without references", page)
    k.pg_refcount[page] = references
    if references == 0:
        put_single_page(k, page)
    return 0


def put_single_page(k: Kernel, page: u64) -> i32:
    """Free a page whose references are gone (__put_single_page(), mm/swap.c:72, v4.18)."""
    if k.pg_flags[page] & (PG_lru | PG_mlocked):
        _page_cache_release(k, page)
    if k.pg_memcg[page]:
        mem_cgroup_uncharge(k, page)
    return free_unref_page(k, page)


def _page_cache_release(k: Kernel, page: u64) -> i32:
    """Take a page that is to be freed off its list (__page_cache_release(), mm/swap.c:58)."""
    if k.pg_flags[page] & PG_lru:
        k.lru_lock.lock()
        _del_freed_page(k, page)
        k.lru_lock.unlock()
    # Since mlock is counted, a page of an exiting process may get here with it; in v4.18 the last
    # unmap has cleared it, or the page is a bad page.
    if k.profile.mlock_counts and k.pg_flags[page] & PG_mlocked:
        k.pg_flags[page] ^= PG_mlocked
        k.vm_stat[NR_MLOCK] -= hpage_nr_pages(k, page)
        k.vm_stat[UNEVICTABLE_PGCLEARED] += 1
    return 0


def _del_freed_page(k: Kernel, page: u64) -> i32:
    """Unlink a page without references from its list. k.lru_lock is held."""
    k.pg_flags[page] ^= PG_lru
    return del_page_from_lru_list(k, page, mem_cgroup_page_lruvec(k, page), page_off_lru(k, page))


def _put_compound_page(k: Kernel, page: u64) -> i32:
    """put_page() of a compound page, or of device memory (__put_compound_page())."""
    head: u64 = compound_head(k, page)
    if k.pg_flags[head] & PG_zone_device:
        return put_zone_device_page(k, page)
    if not put_page_testzero(k, head):
        return 0
    return destroy_compound_page(k, head)


def destroy_compound_page(k: Kernel, head: u64) -> i32:
    """Free a compound page whose references are gone, as its kind wants it (its destructor)."""
    if k.pg_flags[head] & PG_huge:
        return free_huge_page(k, head)
    _page_cache_release(k, head)
    forget_deferred_split(k, head)
    mem_cgroup_uncharge(k, head)
    return free_compound_page(k, head)


def put_zone_device_page(k: Kernel, page: u64) -> i32:
    """Drop a reference to a page in memory of a device; its last but one is the device's.

    put_zone_device_private_or_public_page(), kernel/memremap.c (v4.18).
    """
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, page)
    if k.pg_refcount[page] <= 1:
        BUG_PAGE("memremap.c put_page of a device's page that is free", page)
    k.pg_refcount[page] -= 1
    if k.pg_refcount[page] > 1:
        return 0
    ClearPage(k, page, PG_active)
    if TestClearPage(k, page, PG_mlocked):
        # As of any page that is freed with it, which munlock has not found on the device.
        k.vm_stat[NR_MLOCK] -= 1
        k.vm_stat[UNEVICTABLE_PGCLEARED] += 1
    set_page_mapping(k, page, 0)
    mem_cgroup_uncharge(k, page)
    pagemap: DevicePagemap = page_pagemap(k, page)
    if pagemap is None:
        BUG_PAGE("memremap.c put_page of a device's page that no device has", page)
    return pagemap.page_free(k, page)


def page_pagemap(k: Kernel, page: u64) -> DevicePagemap:
    """The memory of a device that a page is of (page->pgmap); ``None`` for RAM."""
    pagemap: DevicePagemap
    for pagemap in k.device_pagemaps:
        if pagemap.start <= page and page <= pagemap.end:
            return pagemap
    return None


def release_pages(k: Kernel, pages: Any, count: i64) -> i32:
    """Drop a reference to each of the first `count` of an array of pages.

    mm/swap.c:738 (v4.18). `pages` is a contiguous array of u32. k.lru_lock is held over runs of
    pages that are freed, and let go after every 32 of them.
    """
    locked: flag = False
    batch: i32 = 0
    freed: i64 = 0
    i: i64
    page: u64
    for i in range(count):
        page = pages[i]
        if locked and batch == SWAP_CLUSTER_MAX:
            k.lru_lock.unlock()
            locked = False
        if k.pg_flags[page] & (PG_head | PG_tail | PG_zone_device):
            if locked:
                k.lru_lock.unlock()
                locked = False
            _put_compound_page(k, page)
            continue
        if not put_page_testzero(k, page):
            continue
        if k.pg_flags[page] & PG_lru:
            if not locked:
                k.lru_lock.lock()
                locked = True
                batch = 0
            batch += 1
            _del_freed_page(k, page)
        pages[freed] = page
        freed += 1
    if locked:
        k.lru_lock.unlock()
    for i in range(freed):
        put_single_page(k, pages[i])
    return 0


# ---------------------------------------------------------------- coming to the LRU


def page_evictable(k: Kernel, page: u64) -> flag:
    """Whether reclaim may take the page: neither mlocked nor of an unevictable file."""
    if PageFlag(k, page, PG_mlocked):
        return False
    if PageAnon(k, page):
        return True
    mapping: AddressSpace = page_mapping(k, page)
    return mapping is None or not mapping.unevictable


def lru_cache_add(k: Kernel, page: u64) -> i32:
    """Put a page on the list that its flags and its being evictable say (mm/swap.c:435)."""
    if k.pg_flags[page] & (PG_active | PG_unevictable) == PG_active | PG_unevictable:
        BUG_PAGE("swap.c:437 lru_cache_add of an active page that is unevictable", page)
    if k.pg_flags[page] & PG_lru:
        BUG_PAGE("swap.c:438 lru_cache_add of a page that is on a list", page)
    k.lru_lock.lock()
    _lru_add(k, page, mem_cgroup_page_lruvec(k, page))
    k.lru_lock.unlock()
    return 0


def _lru_add(k: Kernel, page: u64, lruvec: LruVec) -> i32:
    """Choose the list and link the page in (__pagevec_lru_add_fn(), mm/swap.c:878, v4.18).

    PG_lru is set before evictability is looked at: munlock clears PG_mlocked and then looks for
    PG_lru, so that one of the two sees the other, and no evictable page is stranded.
    """
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    flags: u32 = k.pg_flags[page]
    k.pg_flags[page] = (flags | PG_lru) & ~PG_unevictable
    lru: i32
    file: i32
    if page_evictable(k, page):
        lru = page_lru(k, page)
        file = 1 if lru >= LRU_FILE else 0
        update_page_reclaim_stat(lruvec, file, 1 if flags & PG_active else 0)
        if flags & PG_unevictable:
            k.vm_stat[UNEVICTABLE_PGRESCUED] += 1
    else:
        lru = LRU_UNEVICTABLE
        ClearPage(k, page, PG_active)
        SetPage(k, page, PG_unevictable)
        if k.profile.mlock_counts:
            k.pg_lru_prev[page] = 1 if flags & PG_mlocked else 0
        if not flags & PG_unevictable:
            k.vm_stat[UNEVICTABLE_PGCULLED] += 1
    return add_page_to_lru_list(k, page, lruvec, lru)


def lru_cache_add_active_or_unevictable(k: Kernel, page: u64, vma: Vma) -> i32:
    """Put a new anonymous page on the LRU; in a VM_LOCKED VMA it is mlocked (mm/swap.c:464).

    With quirk ``new_anon_inactive`` it is not active, and is found in use if it is used again.
    """
    if k.pg_flags[page] & PG_lru:
        BUG_PAGE("swap.c:467 a new page is on an LRU list", page)
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) != VM_LOCKED:
        if not k.profile.new_anon_inactive:
            SetPage(k, page, PG_active)
    elif not TestSetPage(k, page, PG_mlocked):
        k.vm_stat[NR_MLOCK] += hpage_nr_pages(k, page)
        k.vm_stat[UNEVICTABLE_PGMLOCKED] += 1
    return lru_cache_add(k, page)


def lru_add_page_tail(k: Kernel, page: u64, tail: u64, lruvec: LruVec, pages: list | None) -> i32:
    """Give a tail that has just been split off `page`, the head, its place (mm/swap.c:822, v4.18).

    k.lru_lock is held. Beside the head, if that is on a list: it was counted there with all its
    tails. If somebody has isolated the head he gets the tails as well, in `pages`, with a reference
    each; or, if he did not ask for them, they go to the list where they belong, at its old end.
    """
    k.lru_lock.assert_held()
    flags: u32 = k.pg_flags[page]
    if k.pg_flags[tail] & (PG_lru | PG_head | PG_tail):
        BUG_PAGE("swap.c:829 lru_add_page_tail of a page that is on a list, or compound", tail)
    if pages is None:
        SetPage(k, tail, PG_lru)
    if flags & PG_lru:
        _link_before(k, page, tail, lruvec)
    elif pages is not None:
        get_page(k, tail)
        SetPage(k, tail, PG_isolated)
        pages.append(tail)
    else:
        # Its head was not counted as a huge page yet.
        add_page_to_lru_list_tail(k, tail, lruvec, page_lru(k, tail))
    if not flags & PG_unevictable:
        update_page_reclaim_stat(lruvec, 0, 1 if flags & PG_active else 0)
    return 0


def _link_before(k: Kernel, page: u64, tail: u64, lruvec: LruVec) -> i32:
    """Link a page in as the next newer one of another; sizes stay."""
    lru: i32 = page_lru(k, page)
    if lru == LRU_UNEVICTABLE and k.profile.mlock_counts:
        # There are no links, and in their place how often it is mlocked: by PTEs, never.
        k.pg_lru_prev[tail] = 0
        return 0
    newer: u64 = k.pg_lru_prev[page]
    k.pg_lru_next[tail] = page
    k.pg_lru_prev[tail] = newer
    k.pg_lru_prev[page] = tail
    if newer:
        k.pg_lru_next[newer] = tail
    else:
        lruvec.head[lru] = tail
    return 0


# ---------------------------------------------------------------- isolating


def isolate_lru_page(k: Kernel, page: u64) -> i32:
    """Take a page off its list, with a reference; -EBUSY if it is on none (mm/vmscan.c:1603).

    What is isolated belongs to whoever did it, until `putback_lru_page`.
    """
    if k.pg_refcount[compound_head(k, page)] == 0:
        BUG_PAGE("vmscan.c:1607 isolating a page without references", page)
    if not PageFlag(k, page, PG_lru):
        return -EBUSY
    result: i32 = -EBUSY
    k.lru_lock.lock()
    if k.pg_flags[page] & PG_lru:
        get_page(k, page)
        ClearPage(k, page, PG_lru)
        SetPage(k, page, PG_isolated)
        del_page_from_lru_list(k, page, mem_cgroup_page_lruvec(k, page), page_lru(k, page))
        result = 0
    k.lru_lock.unlock()
    return result


def putback_lru_page(k: Kernel, page: u64) -> i32:
    """Put an isolated page back, on the list where it belongs now; drops the reference."""
    ClearPage(k, page, PG_isolated)
    lru_cache_add(k, page)
    return put_page(k, page)


# ---------------------------------------------------------------- moving between lists


def activate_page(k: Kernel, page: u64) -> i32:
    """Move an inactive page to the active list (mm/swap.c:272, v4.18)."""
    movable: u32 = PG_lru | PG_active | PG_unevictable
    page = compound_head(k, page)
    if k.pg_flags[page] & movable != PG_lru:
        return 0
    k.lru_lock.lock()
    lruvec: LruVec = mem_cgroup_page_lruvec(k, page)
    lru: i32 = page_lru_base_type(k, page)
    if k.pg_flags[page] & movable == PG_lru:
        del_page_from_lru_list(k, page, lruvec, lru)
        SetPage(k, page, PG_active)
        add_page_to_lru_list(k, page, lruvec, lru + LRU_ACTIVE)
        k.vm_stat[PGACTIVATE] += 1
        update_page_reclaim_stat(lruvec, page_is_file_cache(k, page), 1)
    k.lru_lock.unlock()
    return 0


def deactivate_page(k: Kernel, page: u64) -> i32:
    """Move an active page to the inactive list, as MADV_COLD does (mm/swap.c, v5.4)."""
    movable: u32 = PG_lru | PG_active | PG_unevictable
    if k.pg_flags[page] & movable != PG_lru | PG_active:
        return 0
    k.lru_lock.lock()
    lruvec: LruVec = mem_cgroup_page_lruvec(k, page)
    lru: i32 = page_lru_base_type(k, page)
    if k.pg_flags[page] & movable == PG_lru | PG_active:
        del_page_from_lru_list(k, page, lruvec, lru + LRU_ACTIVE)
        ClearPage(k, page, PG_active)
        ClearPage(k, page, PG_referenced)
        add_page_to_lru_list(k, page, lruvec, lru)
        k.vm_stat[PGDEACTIVATE] += hpage_nr_pages(k, page)
        update_page_reclaim_stat(lruvec, page_is_file_cache(k, page), 0)
    k.lru_lock.unlock()
    return 0


def mark_page_accessed(k: Kernel, page: u64) -> i32:
    """Note a use that no page table shows: referenced first, then active (mm/swap.c:371)."""
    page = compound_head(k, page)
    if not PageFlag(k, page, PG_referenced):
        SetPage(k, page, PG_referenced)
    elif not k.pg_flags[page] & (PG_active | PG_unevictable):
        activate_page(k, page)
        ClearPage(k, page, PG_referenced)
    if k.pg_flags[page] & PG_idle:
        ClearPage(k, page, PG_idle)
    return 0


def _may_be_lazy(k: Kernel, page: u64) -> flag:
    """Whether a page is of the kind that MADV_FREE may drop."""
    flags: u32 = PG_lru | PG_swapbacked | PG_swapcache | PG_unevictable
    return k.pg_flags[page] & flags == PG_lru | PG_swapbacked and PageAnon(k, page)


def mark_page_lazyfree(k: Kernel, page: u64) -> i32:
    """Make a clean anonymous page one to be dropped without swap (mm/swap.c:617, v4.18).

    It moves to the inactive file list, and what tells it from others is that PG_swapbacked is off.
    """
    if not _may_be_lazy(k, page):
        return 0
    k.lru_lock.lock()
    lruvec: LruVec = mem_cgroup_page_lruvec(k, page)
    if _may_be_lazy(k, page):
        del_page_from_lru_list(k, page, lruvec, page_lru(k, page))
        ClearPage(k, page, PG_active)
        ClearPage(k, page, PG_referenced)
        ClearPage(k, page, PG_swapbacked)
        add_page_to_lru_list(k, page, lruvec, LRU_INACTIVE_FILE)
        k.vm_stat[PGLAZYFREE] += hpage_nr_pages(k, page)
        lruvec.memcg.stat[PGLAZYFREE] += hpage_nr_pages(k, page)
        update_page_reclaim_stat(lruvec, 1, 0)
    k.lru_lock.unlock()
    return 0


def rotate_reclaimable_page(k: Kernel, page: u64) -> i32:
    """Make a page that was written for reclaim the next one it looks at (mm/swap.c:232)."""
    wrong: u32 = PG_locked | PG_dirty | PG_unevictable
    if k.pg_flags[page] & (wrong | PG_lru) != PG_lru:
        return 0
    k.lru_lock.lock()
    lruvec: LruVec = mem_cgroup_page_lruvec(k, page)
    if k.pg_flags[page] & (PG_lru | PG_unevictable) == PG_lru:
        del_page_from_lru_list(k, page, lruvec, page_lru(k, page))
        ClearPage(k, page, PG_active)
        add_page_to_lru_list_tail(k, page, lruvec, page_lru(k, page))
        k.vm_stat[PGROTATED] += 1
    k.lru_lock.unlock()
    return 0

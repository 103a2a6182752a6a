# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Reclaiming isolated pages, one after the other (shrink_page_list(), mm/vmscan.c, v4.18).

Locks, outermost first: the page lock, only ever tried for; the rmap lock for read, page-table
locks, what swap and dirty accounting take; the i_pages lock around the last look at a page's
references. No LRU lock is held.

Two orders matter. A page is unmapped without flushing TLBs, so they are flushed before it is
written (`try_to_unmap_flush_dirty`, or a CPU could still write to it) and before it is freed
(`try_to_unmap_flush`, or a CPU could still read and write what is somebody else's then). And its
references are frozen before it is looked at once more whether it is dirty: whoever has a reference
may dirty it, and whoever dirtied it had one.

What pages that are reclaimed leave behind to be recognised by (workingset shadow entries) is not
modelled.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        AOP_WRITEPAGE_ACTIVATE,
        GFP_IO,
        GFP_KERNEL,
        PAGE_ACTIVATE,
        PAGE_CLEAN,
        PAGE_KEEP,
        PAGE_SUCCESS,
        PAGEREF_ACTIVATE,
        PAGEREF_KEEP,
        PAGEREF_RECLAIM,
        PAGEREF_RECLAIM_CLEAN,
        PGACTIVATE,
        PGLAZYFREED,
        SHRINK_ACTIVATE,
        SHRINK_FREE,
        SHRINK_KEEP,
        SHRINK_KEEP_LOCKED,
        THP_SWPOUT_FALLBACK,
        TTU_BATCH_FLUSH,
        VM_EXEC,
        VM_LOCKED,
        PG_active,
        PG_dirty,
        PG_isolated,
        PG_lru,
        PG_mlocked,
        PG_reclaim,
        PG_referenced,
        PG_unevictable,
        PG_writeback,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.huge.split_page import can_split_huge_page, split_huge_page_to_list
    from rmap.mm.lru import page_evictable
    from rmap.mm.memcg import mem_cgroup_uncharge
    from rmap.mm.mm_inline import page_is_file_cache
    from rmap.mm.mm_types import AddressSpace, Kernel, MemCgroup
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageDirty,
        PageFlag,
        PageSwapBacked,
        PageSwapCache,
        PageTransHuge,
        PageWriteback,
        SetPage,
        TestClearPage,
        compound_mapcount,
        page_count,
        page_mapped,
        page_mapping,
        page_memcg,
        page_private,
        page_ref_freeze,
        page_ref_unfreeze,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import free_unref_page
    from rmap.mm.page_cache import delete_from_page_cache_locked
    from rmap.mm.page_referenced import PageReferencedArg, page_referenced
    from rmap.mm.shmem import shmem_writepage
    from rmap.mm.swap import add_to_swap, swap_writepage, try_to_free_swap
    from rmap.mm.swap_cache import remove_from_swap_cache
    from rmap.mm.swap_slots import put_swap_page, vm_swap_full
    from rmap.mm.tlb import try_to_unmap_flush, try_to_unmap_flush_dirty
    from rmap.mm.unmap import try_to_unmap
    from rmap.mm.writeback import clear_page_dirty_for_io, file_writepage
    from rmap.scalar import flag, i32, i64, u64


class ReclaimResult:
    """What became of the pages that reclaim looked at, in pages (struct reclaim_stat and more).

    `scanned` counts looks, of which each ended in one of: `reclaimed`; `activated`; `kept`
    inactive, of these `referenced` for having been used. `unmap_fail` of the activated could not
    be unmapped; `lazyfreed` of the reclaimed were MADV_FREE's; `swapped` and `written` are pages
    written to swap and to files. `dirty`, `unqueued_dirty`, `writeback`, `immediate` and
    `congested` are what the pages were like. `deactivated` and `rotated` are of the active lists.
    """

    def __init__(self) -> None:
        self.scanned = 0
        self.reclaimed = 0
        self.activated = 0
        self.kept = 0
        self.referenced = 0
        self.unmap_fail = 0
        self.lazyfreed = 0
        self.swapped = 0
        self.written = 0
        self.dirty = 0
        self.unqueued_dirty = 0
        self.writeback = 0
        self.immediate = 0
        self.congested = 0
        self.deactivated = 0
        self.rotated = 0

    def __repr__(self) -> str:
        names = ("scanned", "reclaimed", "activated", "kept", "unmap_fail", "lazyfreed", "swapped")
        return f"ReclaimResult({', '.join(f'{name}={getattr(self, name)}' for name in names)})"


class ScanControl:
    """struct scan_control: on whose behalf is reclaimed, what is allowed, and what came of it.

    `target_mem_cgroup` is ``None`` for global reclaim. `dirty_pages` and `under_writeback` are the
    node's PGDAT_DIRTY and PGDAT_WRITEBACK, by which kswapd knows that it meets the same pages
    again.
    """

    def __init__(self, nr_to_reclaim: i64, memcg: MemCgroup | None) -> None:
        self.nr_to_reclaim = nr_to_reclaim
        self.target_mem_cgroup = memcg
        self.gfp_mask = GFP_KERNEL | GFP_IO
        self.priority = 0
        self.may_writepage = True
        self.may_unmap = True
        self.may_swap = True
        self.kswapd = False
        self.dirty_pages = False
        self.under_writeback = False
        self.nr_scanned = 0
        self.nr_reclaimed = 0
        self.nr_taken = 0
        self.nr_file_taken = 0
        self.result = ReclaimResult()
        self.referenced = PageReferencedArg()


# ---------------------------------------------------------------- the loop


def shrink_page_list(
    k: Kernel, pages: list, sc: ScanControl, ttu_flags: i32, force_reclaim: flag
) -> i64:
    """Reclaim what can be of isolated pages; returns how many. `pages` keeps the others.

    mm/vmscan.c:1093 (v4.18). `force_reclaim` does not ask whether they are in use.
    """
    kept: list = []
    freed: list = []
    stat: ReclaimResult = sc.result
    # From its end; what a huge page is split into comes next.
    queue: list = pages[::-1]
    page: u64
    verdict: i32
    while queue:
        page = queue.pop()
        stat.scanned += 1
        verdict = SHRINK_KEEP
        if trylock_page(k, page):
            verdict = _shrink_page(k, page, queue, sc, ttu_flags, force_reclaim)
        if k.tracer is not None:
            k.tracer("shrink_page", (page, verdict))
        if verdict == SHRINK_FREE:
            freed.append(page)
            continue
        if verdict == SHRINK_ACTIVATE:
            _activate_locked(k, page, stat)
        else:
            stat.kept += 1
        if verdict != SHRINK_KEEP:
            unlock_page(k, page)
        if k.pg_flags[page] & (PG_lru | PG_unevictable):
            BUG_PAGE("vmscan.c:1487 an isolated page is on an LRU list, or unevictable", page)
        kept.append(page)
    for page in freed:
        mem_cgroup_uncharge(k, page)
    try_to_unmap_flush(k)
    for page in freed:
        ClearPage(k, page, PG_isolated)
        free_unref_page(k, page)
    stat.reclaimed += len(freed)
    pages[:] = kept
    return len(freed)


def _activate_locked(k: Kernel, page: u64, stat: ReclaimResult) -> i32:
    """Make a page active that cannot be reclaimed; its slot may be of better use elsewhere."""
    stat.activated += 1
    if PageSwapCache(k, page) and (vm_swap_full(k) or PageFlag(k, page, PG_mlocked)):
        try_to_free_swap(k, page)
    if k.pg_flags[page] & PG_active:
        BUG_PAGE("vmscan.c:1474 an isolated inactive page is active", page)
    if not PageFlag(k, page, PG_mlocked):
        SetPage(k, page, PG_active)
        k.vm_stat[PGACTIVATE] += 1
        page_memcg(k, page).stat[PGACTIVATE] += 1
    return 0


def _shrink_page(
    k: Kernel, page: u64, queue: list, sc: ScanControl, ttu_flags: i32, force_reclaim: flag
) -> i32:
    """Take one locked page as far as it goes; what is to become of it, one of ``SHRINK_``.

    A huge page is split on the way, and its tails come to `queue`.
    """
    if k.pg_flags[page] & PG_active:
        BUG_PAGE("vmscan.c:1128 an isolated inactive page is active", page)
    sc.nr_scanned += 1
    if not page_evictable(k, page):
        return SHRINK_ACTIVATE
    if not sc.may_unmap and page_mapped(k, page):
        return SHRINK_KEEP_LOCKED
    lazyfree: flag = PageAnon(k, page) and not PageSwapBacked(k, page)
    if (page_mapped(k, page) or PageSwapCache(k, page)) and not lazyfree:
        # Such pages are more work, and count double against the caches of other kinds.
        sc.nr_scanned += 1
    _note_dirty_writeback(k, page, sc.result)
    if PageWriteback(k, page):
        return _meet_writeback(k, page, sc)
    references: i32 = PAGEREF_RECLAIM
    if not force_reclaim:
        references = page_check_references(k, page, sc)
    if references == PAGEREF_ACTIVATE:
        return SHRINK_ACTIVATE
    if references == PAGEREF_KEEP:
        sc.result.referenced += 1
        return SHRINK_KEEP_LOCKED
    if PageAnon(k, page) and PageSwapBacked(k, page):
        if not PageSwapCache(k, page):
            if not sc.gfp_mask & GFP_IO:
                return SHRINK_KEEP_LOCKED
            if not _add_to_swap(k, page, queue):
                return SHRINK_ACTIVATE
    elif PageTransHuge(k, page) and split_huge_page_to_list(k, page, queue):
        # Of a file, or lazily freed.
        return SHRINK_KEEP_LOCKED
    if page_mapped(k, page) and not try_to_unmap(k, page, ttu_flags | TTU_BATCH_FLUSH):
        sc.result.unmap_fail += 1
        return SHRINK_ACTIVATE
    if PageDirty(k, page):
        verdict: i32 = _write_dirty(k, page, sc, references)
        if verdict != SHRINK_FREE:
            return verdict
    return _free_page(k, page, sc)


def _add_to_swap(k: Kernel, page: u64, queue: list) -> flag:
    """Give an anonymous page a slot (mm/vmscan.c:1245, v4.18); whether that worked.

    A huge page is split, as it never gets slots for all of its parts at once, being swapped to a
    device that seeks. So no huge page is unmapped here, for which TTU_SPLIT_HUGE_PMD would be.
    """
    if PageTransHuge(k, page):
        if not can_split_huge_page(k, page):
            return False
        # Where no PMD maps it, parts may be free that need no slot: split without asking for any.
        if not compound_mapcount(k, page) and split_huge_page_to_list(k, page, queue):
            return False
    if add_to_swap(k, page):
        return True
    if not PageTransHuge(k, page) or split_huge_page_to_list(k, page, queue):
        return False
    k.vm_stat[THP_SWPOUT_FALLBACK] += 1
    return add_to_swap(k, page)


def _note_dirty_writeback(k: Kernel, page: u64, stat: ReclaimResult) -> i32:
    """Count a file page that is dirty or being written (page_check_dirty_writeback(), :1053)."""
    # Anonymous memory has no flusher threads that could be behind with it.
    if not page_is_file_cache(k, page) or PageAnon(k, page):
        return 0
    writeback: flag = PageWriteback(k, page)
    dirty: flag = PageDirty(k, page)
    if dirty or writeback:
        stat.dirty += 1
    if dirty and not writeback:
        stat.unqueued_dirty += 1
    if writeback and PageFlag(k, page, PG_reclaim):
        stat.congested += 1
    return 0


def _meet_writeback(k: Kernel, page: u64, sc: ScanControl) -> i32:
    """A page that is being written is no use now (mm/vmscan.c:1169, v4.18).

    It is marked, so that it comes to the end of its list when it is written. To wait for it is
    what only cgroups of the first version do.
    """
    if sc.kswapd and PageFlag(k, page, PG_reclaim) and sc.under_writeback:
        sc.result.immediate += 1
        return SHRINK_ACTIVATE
    SetPage(k, page, PG_reclaim)
    sc.result.writeback += 1
    return SHRINK_ACTIVATE


# ---------------------------------------------------------------- in use?


def page_check_references(k: Kernel, page: u64, sc: ScanControl) -> i32:
    """Whether a page is in use: one of ``PAGEREF_`` (mm/vmscan.c:1002, v4.18).

    A page of a file that is used through a page table once goes round the inactive list again;
    used twice, or by a program that it is part of, it is active. Anonymous memory starts out
    active, so one use is enough.
    """
    used: i32 = page_referenced(k, page, True, sc.target_mem_cgroup, sc.referenced)
    was_referenced: flag = TestClearPage(k, page, PG_referenced)
    vm_flags: u64 = sc.referenced.vm_flags
    if vm_flags & VM_LOCKED:
        # mlock lost a race: let try_to_unmap() find the VMA and mark the page.
        return PAGEREF_RECLAIM
    if used:
        if PageSwapBacked(k, page):
            return PAGEREF_ACTIVATE
        SetPage(k, page, PG_referenced)
        if was_referenced or used > 1:
            return PAGEREF_ACTIVATE
        if vm_flags & VM_EXEC:
            return PAGEREF_ACTIVATE
        return PAGEREF_KEEP
    if was_referenced and not PageSwapBacked(k, page):
        return PAGEREF_RECLAIM_CLEAN
    return PAGEREF_RECLAIM


# ---------------------------------------------------------------- writing


def _write_dirty(k: Kernel, page: u64, sc: ScanControl, references: i32) -> i32:
    """Write a dirty page that is unmapped; ``SHRINK_FREE`` if it is clean now (:1316, v4.18)."""
    if page_is_file_cache(k, page) and not (
        sc.kswapd and PageFlag(k, page, PG_reclaim) and sc.dirty_pages
    ):
        # Files are written by the flusher threads; only kswapd helps, and only if they are behind.
        SetPage(k, page, PG_reclaim)
        return SHRINK_ACTIVATE
    if references == PAGEREF_RECLAIM_CLEAN:
        return SHRINK_KEEP_LOCKED
    if not sc.gfp_mask & GFP_IO or not sc.may_writepage:
        return SHRINK_KEEP_LOCKED
    # A CPU may have kept a writable translation, and must not write any more when the write starts.
    try_to_unmap_flush_dirty(k)
    result: i32 = pageout(k, page, page_mapping(k, page), sc)
    if result == PAGE_KEEP:
        return SHRINK_KEEP_LOCKED
    if result == PAGE_ACTIVATE:
        return SHRINK_ACTIVATE
    if result == PAGE_CLEAN:
        return SHRINK_FREE
    if PageWriteback(k, page) or PageDirty(k, page):
        return SHRINK_KEEP
    # The write is over already, and the page may go, if nobody took the lock or dirtied it.
    if not trylock_page(k, page):
        return SHRINK_KEEP
    if PageDirty(k, page) or PageWriteback(k, page):
        return SHRINK_KEEP_LOCKED
    return SHRINK_FREE


def pageout(k: Kernel, page: u64, mapping: AddressSpace, sc: ScanControl) -> i32:
    """Start writing a dirty page: one of ``PAGE_`` (mm/vmscan.c:722, v4.18).

    PAGE_SUCCESS means that the page is unlocked.
    """
    # Isolated and cached; whoever else has a reference would keep it from being freed.
    if page_count(k, page) != 2:
        return PAGE_KEEP
    if mapping is None:
        return PAGE_KEEP
    if not clear_page_dirty_for_io(k, page):
        return PAGE_CLEAN
    SetPage(k, page, PG_reclaim)
    if PageSwapCache(k, page):
        swap_writepage(k, page)
        sc.result.swapped += 1
    elif mapping.shmem:
        if shmem_writepage(k, page) == AOP_WRITEPAGE_ACTIVATE:
            ClearPage(k, page, PG_reclaim)
            return PAGE_ACTIVATE
        sc.result.swapped += 1
    else:
        file_writepage(k, page, mapping)
        sc.result.written += 1
    if not PageFlag(k, page, PG_writeback):
        ClearPage(k, page, PG_reclaim)
    return PAGE_SUCCESS


# ---------------------------------------------------------------- freeing


def _free_page(k: Kernel, page: u64, sc: ScanControl) -> i32:
    """Take a clean, unmapped page out of its cache, if nobody else has it: freed or kept locked.

    With its references frozen nobody finds it any more, and the page lock is given back.
    """
    mapping: AddressSpace
    if PageAnon(k, page) and not PageSwapBacked(k, page):
        if not page_ref_freeze(k, page, 1):
            return SHRINK_KEEP_LOCKED
        if PageDirty(k, page):
            page_ref_unfreeze(k, page, 1)
            return SHRINK_KEEP_LOCKED
        k.vm_stat[PGLAZYFREED] += 1
        page_memcg(k, page).stat[PGLAZYFREED] += 1
        sc.result.lazyfreed += 1
    else:
        mapping = page_mapping(k, page)
        if mapping is None or not remove_mapping(k, page, mapping):
            return SHRINK_KEEP_LOCKED
    unlock_page(k, page)
    return SHRINK_FREE


def remove_mapping(k: Kernel, page: u64, mapping: AddressSpace) -> flag:
    """Take a page out of the page cache or the swap cache, if only cache and caller have it.

    __remove_mapping(), mm/vmscan.c:836 (v4.18). Its references are 0 then, if it was.
    """
    mapping.i_pages_lock.lock()
    if not page_ref_freeze(k, page, 2):
        mapping.i_pages_lock.unlock()
        return False
    if PageFlag(k, page, PG_dirty):
        page_ref_unfreeze(k, page, 2)
        mapping.i_pages_lock.unlock()
        return False
    entry: u64
    if PageSwapCache(k, page):
        entry = page_private(k, page)
        remove_from_swap_cache(k, page)
        mapping.i_pages_lock.unlock()
        put_swap_page(k, page, entry)
    else:
        delete_from_page_cache_locked(k, page, mapping, 0)
        mapping.i_pages_lock.unlock()
    return True

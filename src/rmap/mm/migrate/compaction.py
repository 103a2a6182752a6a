# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Compaction: pages in use are moved to one end of memory, so that the other becomes free.

mm/compaction.c (v4.18). Two scanners approach each other: the one from the beginning isolates
pages that can be moved, the one from the end isolates free pages for them to go to. No lock is held
but k.lru_lock while a page is isolated; migration takes what `migrate` says.

Compound pages are never moved, nor is the zero page, or anything that is on no LRU list.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        COMPACT_CLUSTER_MAX,
        COMPACT_COMPLETE,
        COMPACT_CONTENDED,
        COMPACT_CONTINUE,
        COMPACT_DEFERRED,
        COMPACT_MAX_DEFER_SHIFT,
        COMPACT_PARTIAL_SKIPPED,
        COMPACT_SKIPPED,
        COMPACT_SUCCESS,
        COMPACTFAIL,
        COMPACTFREE_SCANNED,
        COMPACTISOLATED,
        COMPACTMIGRATE_SCANNED,
        COMPACTSTALL,
        COMPACTSUCCESS,
        ENOMEM,
        FREE_BLOCK_LISTED,
        HPAGE_PMD_NR,
        HPAGE_PMD_ORDER,
        MIGRATE_ASYNC,
        MIGRATE_SYNC,
        MIGRATE_SYNC_LIGHT,
        MR_COMPACTION,
        PAGE_ALLOC_COSTLY_ORDER,
        PGMIGRATE_SUCCESS,
        PG_buddy,
        PG_dirty,
        PG_head,
        PG_lru,
        PG_tail,
        PG_writeback,
    )
    from rmap.mm.lru import put_page
    from rmap.mm.migrate.migrate import (
        MigrationTarget,
        isolate_for_migration,
        migrate_pages,
        putback_movable_pages,
    )
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.page import (
        get_page_unless_zero,
        page_count,
        page_mapcount,
        page_mapping,
    )
    from rmap.mm.page_alloc import isolate_free_page, run_available
    from rmap.scalar import flag, i32, i64, u64

#: The order of who wants no run in particular, but all memory compacted.
EVERYTHING = cython.declare(cython.int, -1)


class CompactControl(MigrationTarget):
    """struct compact_control: how far an attempt has come. It also gives out the free pages.

    `order` is of the run that is wanted, or -1. `migrate_pfn` and `free_pfn` are where the two
    scanners are: the latter's block begins there. `whole_zone`: it began where memory does.
    """

    def __init__(self, order: i32, mode: i32) -> None:
        self.order = order
        self.mode = mode
        self.migrate_pfn = 0
        self.free_pfn = 0
        self.whole_zone = False
        self.freepages = []
        self.migratepages = []
        self.moved = 0

    def new_page(self, k: Kernel, page: u64) -> u64:
        """compaction_alloc(): a free page behind the scanner of free pages."""
        if k.inject is not None and k.inject.should_fail("migration_target"):
            return 0
        if not self.freepages:
            isolate_freepages(k, self)
        if not self.freepages:
            return 0
        return self.freepages.pop()

    def put_new_page(self, k: Kernel, page: u64) -> i32:
        """compaction_free(): another page may go there."""
        self.freepages.append(page)
        return 0


# ---------------------------------------------------------------- pages to move


def isolate_migratepages(k: Kernel, cc: CompactControl) -> flag:
    """Isolate up to 32 pages of the next block that has any; whether there are some to move."""
    block_end: u64
    while cc.migrate_pfn < cc.free_pfn and not cc.migratepages:
        block_end = ((cc.migrate_pfn >> HPAGE_PMD_ORDER) + 1) << HPAGE_PMD_ORDER
        if block_end > cc.free_pfn:
            # The scanners meet in the middle of a block, or at the end of memory.
            block_end = cc.free_pfn
        _isolate_block(k, cc, block_end)
    return len(cc.migratepages) != 0


def _isolate_block(k: Kernel, cc: CompactControl, block_end: u64) -> i32:
    """isolate_migratepages_block(): go through a block until 32 pages are isolated."""
    page: u64
    while cc.migrate_pfn < block_end and len(cc.migratepages) < COMPACT_CLUSTER_MAX:
        page = cc.migrate_pfn
        cc.migrate_pfn += 1
        k.vm_stat[COMPACTMIGRATE_SCANNED] += 1
        if _movable(k, cc, page) and get_page_unless_zero(k, page):
            if isolate_for_migration(k, page) == 0:
                cc.migratepages.append(page)
                k.vm_stat[COMPACTISOLATED] += 1
            put_page(k, page)
    return 0


def _movable(k: Kernel, cc: CompactControl, page: u64) -> flag:
    """Whether moving the page is worth trying, as far as is seen without any lock."""
    flags: u64 = k.pg_flags[page]
    if flags & (PG_buddy | PG_head | PG_tail) or not flags & PG_lru:
        return False
    mapping: AddressSpace = page_mapping(k, page)
    # Somebody who maps it not has an anonymous page: it cannot be moved.
    if mapping is None and page_count(k, page) > page_mapcount(k, page):
        return False
    if cc.mode == MIGRATE_ASYNC:
        # Nothing that would have to be waited for, or written first.
        if flags & PG_writeback:
            return False
        if flags & PG_dirty and mapping is not None and mapping.writes_to_migrate:
            return False
    return True


# ---------------------------------------------------------------- pages to move to


def isolate_freepages(k: Kernel, cc: CompactControl) -> i32:
    """Isolate free pages, from the end of memory downwards, for the pages that are to move.

    A block that is free as a whole stays so: it is what compaction is for. In a block that is
    taken from, pages are taken from its end.
    """
    page: u64
    free: u64
    start: u64
    while len(cc.freepages) < len(cc.migratepages) and cc.free_pfn > cc.migrate_pfn:
        start = (cc.free_pfn - 1) >> HPAGE_PMD_ORDER << HPAGE_PMD_ORDER
        free = k.block_free[start >> HPAGE_PMD_ORDER] & ~FREE_BLOCK_LISTED
        if start < cc.migrate_pfn:
            start = cc.migrate_pfn
        if free == HPAGE_PMD_NR:
            cc.free_pfn = start
            continue
        while cc.free_pfn > start and len(cc.freepages) < len(cc.migratepages):
            cc.free_pfn -= 1
            page = cc.free_pfn
            k.vm_stat[COMPACTFREE_SCANNED] += 1
            if isolate_free_page(k, page):
                cc.freepages.insert(0, page)
    return 0


# ---------------------------------------------------------------- one attempt


def compaction_suitable(k: Kernel, order: i32) -> i32:
    """Whether compaction can make a run: SUCCESS if one is there, SKIPPED if too little is free.

    Twice the run has to be free beside the watermark: pages are taken before others come free.
    The kernel also asks for the index of fragmentation, which a single zone of free pages without
    orders has not.
    """
    one: i64 = 1
    mark: i64 = k.watermark_low if order > PAGE_ALLOC_COSTLY_ORDER else k.watermark_min
    if run_available(k, order):
        return COMPACT_SUCCESS
    if k.nr_free < mark + (one << (order + 1)):
        return COMPACT_SKIPPED
    return COMPACT_CONTINUE


def _finished(k: Kernel, cc: CompactControl) -> i32:
    """compact_finished(): whether the scanners have met, or the run is there."""
    if cc.migrate_pfn >= cc.free_pfn:
        # The next attempt starts anew.
        k.compact_migrate_pfn = 0
        k.compact_free_pfn = 0
        return COMPACT_COMPLETE if cc.whole_zone else COMPACT_PARTIAL_SKIPPED
    if cc.order != EVERYTHING and run_available(k, cc.order):
        return COMPACT_SUCCESS
    return COMPACT_CONTINUE


def compact_zone(k: Kernel, cc: CompactControl) -> i32:
    """Move pages until the run that is wanted is free, or the scanners meet: ``COMPACT_``.

    mm/compaction.c:1521 (v4.18). An attempt goes on where the last one has ended, unless all of
    memory is to be compacted.
    """
    ret: i32
    if cc.order != EVERYTHING:
        ret = compaction_suitable(k, cc.order)
        if ret != COMPACT_CONTINUE:
            return ret
    _set_out(k, cc)
    ret = _finished(k, cc)
    while ret == COMPACT_CONTINUE:
        if isolate_migratepages(k, cc) and not _migrate_isolated(k, cc):
            ret = COMPACT_CONTENDED
            break
        k.compact_migrate_pfn = cc.migrate_pfn
        k.compact_free_pfn = cc.free_pfn
        ret = _finished(k, cc)
    _release_freepages(k, cc)
    if k.tracer is not None:
        k.tracer("compact_zone", (cc.order, cc.mode, cc.moved, ret))
    return ret


def _set_out(k: Kernel, cc: CompactControl) -> i32:
    """Decide where the scanners start."""
    cc.migrate_pfn = k.compact_migrate_pfn
    cc.free_pfn = k.compact_free_pfn
    if cc.order == EVERYTHING or not 0 < cc.migrate_pfn < cc.free_pfn <= k.nr_pages + 1:
        cc.migrate_pfn = 1
        cc.free_pfn = k.nr_pages + 1
    cc.whole_zone = cc.migrate_pfn == 1
    return 0


def _migrate_isolated(k: Kernel, cc: CompactControl) -> flag:
    """Move what is isolated; whether to go on: not without anywhere to go.

    What could not be moved goes back to where it was.
    """
    before: i64 = k.vm_stat[PGMIGRATE_SUCCESS]
    rc: i32 = migrate_pages(k, cc.migratepages, cc, cc.mode, MR_COMPACTION)
    cc.moved += k.vm_stat[PGMIGRATE_SUCCESS] - before
    if rc == 0:
        return True
    putback_movable_pages(k, cc.migratepages)
    return rc != -ENOMEM or cc.free_pfn <= cc.migrate_pfn


def _release_freepages(k: Kernel, cc: CompactControl) -> i32:
    """Give back the free pages that nothing was moved to; the scanner may meet them again."""
    page: u64
    for page in cc.freepages:
        if page >= k.compact_free_pfn and k.compact_free_pfn:
            k.compact_free_pfn = page + 1
        put_page(k, page)
    cc.freepages.clear()
    return 0


# ---------------------------------------------------------------- on whose behalf


def try_to_compact_pages(k: Kernel, order: i32, mode: i32) -> i32:
    """Compact for an allocation that cannot go on without: one of ``COMPACT_``.

    mm/compaction.c:1704 (v4.18). Failures put the next attempts off, for ever longer; those that
    wait for nothing are not counted. No page lock is waited for (PF_MEMALLOC).
    """
    if mode != MIGRATE_SYNC and compaction_deferred(k, order):
        return COMPACT_DEFERRED
    nested: flag = k.in_reclaim
    k.vm_stat[COMPACTSTALL] += 1
    k.in_reclaim = True
    ret: i32 = compact_zone(k, CompactControl(order, mode))
    k.in_reclaim = nested
    if ret == COMPACT_SUCCESS:
        k.vm_stat[COMPACTSUCCESS] += 1
        compaction_defer_reset(k, order)
    else:
        k.vm_stat[COMPACTFAIL] += 1
        if mode != MIGRATE_ASYNC and (ret == COMPACT_COMPLETE or ret == COMPACT_PARTIAL_SKIPPED):
            defer_compaction(k, order)
    return ret


def compact_node(k: Kernel) -> i64:
    """Compact all memory, whatever it takes, as a write to /proc/sys/vm/compact_memory does.

    Returns how many pages were moved.
    """
    cc: CompactControl = CompactControl(EVERYTHING, MIGRATE_SYNC)
    compact_zone(k, cc)
    return cc.moved


def direct_compact(k: Kernel, order: i32, wait: flag) -> flag:
    """What an allocation calls: whether it is worth looking for a run again."""
    return try_to_compact_pages(k, order, MIGRATE_SYNC_LIGHT if wait else MIGRATE_ASYNC) >= (
        COMPACT_CONTINUE
    )


# ---------------------------------------------------------------- putting off


def defer_compaction(k: Kernel, order: i32) -> i32:
    """Put off the next attempts, twice as many as the last time (at most 64)."""
    k.compact_considered = 0
    if k.compact_defer_shift < COMPACT_MAX_DEFER_SHIFT:
        k.compact_defer_shift += 1
    if not k.compact_order_failed or order < k.compact_order_failed:
        k.compact_order_failed = order
    return 0


def compaction_deferred(k: Kernel, order: i32) -> flag:
    """Whether this attempt is put off."""
    limit: i32 = 1 << k.compact_defer_shift
    if not k.compact_order_failed or order < k.compact_order_failed:
        return False
    if k.compact_considered < limit:
        k.compact_considered += 1
    return k.compact_considered < limit


def compaction_defer_reset(k: Kernel, order: i32) -> i32:
    """Forget failures, as it went well for a run of this size."""
    k.compact_considered = 0
    k.compact_defer_shift = 0
    if order >= k.compact_order_failed:
        k.compact_order_failed = order + 1
    return 0

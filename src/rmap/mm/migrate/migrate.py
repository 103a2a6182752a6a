# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Moving pages to other places while they are in use: migrate_pages() (mm/migrate.c, v4.18).

Locks, outermost first: the page lock of the page, then that of the new page (only tried), then the
rmap lock for read while mappings are taken away, and again while they are put back, with page-table
locks inside; between the two, what `move` takes. The anon_vma of an anonymous page is kept by a
reference, since in between no mapping keeps it.

A page whose references are not all accounted for stays where it is, and gets its mappings back.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import page_get_anon_vma, put_anon_vma
    from rmap.mm.bits import (
        EAGAIN,
        EBUSY,
        ENOMEM,
        ENOSYS,
        GFP_HIGHUSER,
        HPAGE_PMD_ORDER,
        MIGRATE_ASYNC,
        MIGRATE_SYNC,
        MR_MEMORY_FAILURE,
        NR_ISOLATED,
        PGMIGRATE_FAIL,
        PGMIGRATE_SUCCESS,
        TTU_IGNORE_ACCESS,
        TTU_IGNORE_MLOCK,
        TTU_MIGRATION,
        PG_active,
        PG_hwpoison,
        PG_isolated,
        PG_unevictable,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.huge.pgtable import prep_transhuge_page
    from rmap.mm.huge.split_page import split_huge_page_to_list
    from rmap.mm.hugetlb.pool import (
        alloc_huge_page_nodemask,
        isolate_huge_page,
        move_hugetlb_state,
        page_hstate,
        putback_active_hugepage,
    )
    from rmap.mm.lru import isolate_lru_page, put_page, putback_lru_page
    from rmap.mm.migrate.entries import remove_migration_ptes
    from rmap.mm.migrate.move import move_to_new_page
    from rmap.mm.mm_types import AnonVma, Kernel
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageHuge,
        PageKsm,
        PageTransHuge,
        PageWriteback,
        TestSetPage,
        compound_head,
        compound_order,
        hpage_nr_pages,
        lock_page,
        page_count,
        page_mapped,
        page_mapping_word,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page, alloc_pages
    from rmap.mm.page_dirty import wait_on_page_writeback
    from rmap.mm.unmap import try_to_unmap
    from rmap.scalar import flag, i32, i64, u64

#: How often a page is tried that others were using, and from which pass on its lock is waited for.
PASSES = cython.declare(cython.int, 10)
FIRST_FORCED = cython.declare(cython.int, 3)


class MigrationTarget:
    """Where pages go: new_page_t and free_page_t. This one takes any page of the right size."""

    def new_page(self, k: Kernel, page: u64) -> u64:
        """A page for what is on `page` now, with one reference; 0 if there is none."""
        if k.inject is not None and k.inject.should_fail("migration_target"):
            return 0
        if PageHuge(k, page):
            return alloc_huge_page_nodemask(k, page_hstate(k, page))
        if not PageTransHuge(k, page):
            return alloc_page(k, GFP_HIGHUSER)
        new: u64 = alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER)
        if new:
            prep_transhuge_page(k, new)
        return new

    def put_new_page(self, k: Kernel, page: u64) -> i32:
        """Take back a page that was not needed."""
        if PageHuge(k, page):
            return putback_active_hugepage(k, page)
        return put_page(k, page)


# ---------------------------------------------------------------- isolating


def isolate_for_migration(k: Kernel, page: u64) -> i32:
    """Take a page, or the huge page that it is part of, off the LRU; 0 or -EBUSY.

    With a reference, which migration or `putback_movable_pages` drops. The caller has one as well.
    hugetlb pages are on a list of their own.
    """
    head: u64 = compound_head(k, page)
    if PageHuge(k, head):
        return 0 if isolate_huge_page(k, head, []) else -EBUSY
    error: i32 = isolate_lru_page(k, head)
    if error == 0:
        k.vm_stat[NR_ISOLATED] += hpage_nr_pages(k, head)
    return error


def putback_movable_pages(k: Kernel, pages: list) -> i32:
    """Put pages back that were isolated and have not moved; empties the list."""
    page: u64
    for page in pages:
        _put_back(k, page)
    pages.clear()
    return 0


def _put_back(k: Kernel, page: u64) -> i32:
    if PageHuge(k, page):
        return putback_active_hugepage(k, page)
    k.vm_stat[NR_ISOLATED] -= hpage_nr_pages(k, page)
    return putback_lru_page(k, page)


# ---------------------------------------------------------------- many pages


def migrate_pages(k: Kernel, pages: list, target: MigrationTarget, mode: i32, reason: i32) -> i32:
    """Move isolated pages, each to where `target` says; how many did not move, or -ENOMEM.

    `mode` is one of ``MIGRATE_``: without waiting, waiting for page locks, or also for writeback.
    `pages` keeps those that are to be tried again, or were not come to: for the caller to put
    back. Others are back on the LRU already. In the first passes nothing is waited for, so that
    one page does not hold up the others.
    """
    failed: i32 = 0
    moved: i64 = 0
    retry: i32 = 1
    rc: i32 = 0
    number: i32 = 0
    at: i64
    page: u64
    while number < PASSES and retry:
        retry = 0
        at = 0
        while at < len(pages):
            page = pages[at]
            if PageHuge(k, page):
                rc = unmap_and_move_huge_page(k, page, target, number >= FIRST_FORCED, mode, reason)
            else:
                rc = unmap_and_move(k, page, target, number >= FIRST_FORCED, mode, reason)
            if rc == -ENOMEM:
                if _split_instead(k, page, pages):
                    continue
                failed += 1
                break
            if rc == -EAGAIN:
                retry += 1
                at += 1
                continue
            # Moved, or never to be: not on the list any more.
            del pages[at]
            if rc == 0:
                moved += 1
            else:
                failed += 1
        if rc == -ENOMEM:
            break
        number += 1
    if rc != -ENOMEM:
        failed += retry
        rc = failed
    k.vm_stat[PGMIGRATE_SUCCESS] += moved
    k.vm_stat[PGMIGRATE_FAIL] += failed
    if k.tracer is not None:
        k.tracer("migrate_pages", (mode, reason, moved, failed))
    return rc


def _split_instead(k: Kernel, page: u64, pages: list) -> flag:
    """Split a huge page for which there is no other; its parts join the list. Whether it was."""
    if PageHuge(k, page) or not PageTransHuge(k, page):
        return False
    lock_page(k, page)
    rc: i32 = split_huge_page_to_list(k, page, pages)
    unlock_page(k, page)
    return rc == 0


# ---------------------------------------------------------------- one page


def unmap_and_move(
    k: Kernel, page: u64, target: MigrationTarget, force: flag, mode: i32, reason: i32
) -> i32:
    """Move one page: 0, -EAGAIN to be tried again, -ENOMEM, or another -errno for good.

    Moved, the old page loses its isolation's reference, and with it is freed; failed for good, it
    is back on the LRU.
    """
    new: u64 = target.new_page(k, page)
    if not new:
        return -ENOMEM
    rc: i32 = 0
    if page_count(k, page) == 1:
        # Everybody else has dropped it in the meantime: nothing to move.
        ClearPage(k, page, PG_active)
        ClearPage(k, page, PG_unevictable)
        target.put_new_page(k, new)
    else:
        rc = _unmap_and_move(k, page, new, force, mode)
        if rc:
            target.put_new_page(k, new)
    if k.tracer is not None:
        k.tracer("unmap_and_move", (page, new, rc))
    if rc == -EAGAIN:
        return rc
    if rc:
        _put_back(k, page)
        return rc
    k.vm_stat[NR_ISOLATED] -= hpage_nr_pages(k, page)
    ClearPage(k, page, PG_isolated)
    put_page(k, page)
    if reason == MR_MEMORY_FAILURE:
        # It is free, and never to be used again.
        if not TestSetPage(k, page, PG_hwpoison):
            k.num_poisoned_pages += 1
    return rc


def _unmap_and_move(k: Kernel, page: u64, new: u64, force: flag, mode: i32) -> i32:
    """Lock both pages and move; the new one is on the LRU if that went well.

    Whoever reclaims memory waits for no page lock: it may hold one that another waiter wants.
    """
    if not trylock_page(k, page):
        if not force or mode == MIGRATE_ASYNC or k.in_reclaim:
            return -EAGAIN
        lock_page(k, page)
    rc: i32 = _move_locked(k, page, new, force, mode)
    unlock_page(k, page)
    if rc == 0:
        putback_lru_page(k, new)
    return rc


def _move_locked(k: Kernel, page: u64, new: u64, force: flag, mode: i32) -> i32:
    """Move a locked page: wait for its writeback, keep its anon_vma, unmap, move, map again."""
    if PageWriteback(k, page):
        if mode < MIGRATE_SYNC:
            return -EBUSY
        if not force:
            return -EAGAIN
        wait_on_page_writeback(k, page)
    # While nothing maps the page, its anon_vma could go away under it. Getting hold of it fails
    # for a page that nothing maps, which needs none.
    anon_vma: AnonVma = None
    if PageAnon(k, page) and not PageKsm(k, page):
        anon_vma = page_get_anon_vma(k, page)
    rc: i32 = -EAGAIN
    if trylock_page(k, new):
        rc = _move_unmapped(k, page, new, anon_vma, mode)
        unlock_page(k, new)
    if anon_vma is not None:
        put_anon_vma(k, anon_vma)
    return rc


def _move_unmapped(k: Kernel, page: u64, new: u64, anon_vma: AnonVma | None, mode: i32) -> i32:
    """Take the mappings away, move, and put them back, of whichever page is to be mapped now."""
    was_mapped: flag = False
    rc: i32 = -EAGAIN
    if not page_mapping_word(k, page):
        if PageAnon(k, page):
            BUG_PAGE("migrate.c __unmap_and_move: an anonymous page without a mapping", page)
    elif page_mapped(k, page):
        if PageAnon(k, page) and not PageKsm(k, page) and anon_vma is None:
            BUG_PAGE("migrate.c __unmap_and_move: nothing keeps the anon_vma", page)
        # Whether it worked is seen at the page; what it left out stays mapped.
        try_to_unmap(k, page, TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS)
        was_mapped = True
    if not page_mapped(k, page):
        rc = move_to_new_page(k, new, page, mode)
    if was_mapped:
        remove_migration_ptes(k, page, new if rc == 0 else page, False)
    return rc


# ---------------------------------------------------------------- hugetlb


def unmap_and_move_huge_page(
    k: Kernel, page: u64, target: MigrationTarget, force: flag, mode: i32, reason: i32
) -> i32:
    """Move one hugetlb page; as `unmap_and_move`, but for lists and reclaim (mm/migrate.c:1278).

    v4.18 moves pages of 2 MiB only.
    """
    if compound_order(k, page) != HPAGE_PMD_ORDER:
        putback_active_hugepage(k, page)
        return -ENOSYS
    new: u64 = target.new_page(k, page)
    if not new:
        return -ENOMEM
    rc: i32 = -EAGAIN
    locked: flag = trylock_page(k, page)
    if not locked and force and mode >= MIGRATE_SYNC:
        lock_page(k, page)
        locked = True
    if locked:
        rc = _move_hugetlb(k, page, new, mode)
        unlock_page(k, page)
    if k.tracer is not None:
        k.tracer("unmap_and_move_huge_page", (page, new, rc))
    if rc != -EAGAIN:
        putback_active_hugepage(k, page)
    if reason == MR_MEMORY_FAILURE and not TestSetPage(k, page, PG_hwpoison):
        # Whether it has moved or not.
        k.num_poisoned_pages += 1
    if rc:
        target.put_new_page(k, new)
        return rc
    return putback_active_hugepage(k, new)


def _move_hugetlb(k: Kernel, page: u64, new: u64, mode: i32) -> i32:
    """Move a locked hugetlb page, which keeps its place in the pool; 0 or -errno."""
    anon_vma: AnonVma = None
    if PageAnon(k, page):
        anon_vma = page_get_anon_vma(k, page)
    rc: i32 = -EAGAIN
    was_mapped: flag
    if trylock_page(k, new):
        was_mapped = page_mapped(k, page)
        if was_mapped:
            try_to_unmap(k, page, TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS)
        if not page_mapped(k, page):
            rc = move_to_new_page(k, new, page, mode)
        if was_mapped:
            remove_migration_ptes(k, page, new if rc == 0 else page, False)
        unlock_page(k, new)
    if anon_vma is not None:
        put_anon_vma(k, anon_vma)
    if rc == 0:
        move_hugetlb_state(k, page, new)
    return rc

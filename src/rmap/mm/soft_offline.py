# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Memory that will break: taking a page out of use while it can still be read (v4.18).

soft_offline_page() of mm/memory-failure.c. Locks: the page lock, to drop a page from its file or to
split a huge one; then none, and migration takes what it needs.

Nobody is killed and nothing is lost: the contents move to another page, or, of a clean page of a
file that nobody maps, are forgotten. If that cannot be, the page stays in use.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        EIO,
        ENXIO,
        MF_COUNT_INCREASED,
        MIGRATE_SYNC,
        MR_MEMORY_FAILURE,
    )
    from rmap.mm.huge.split_page import split_huge_page
    from rmap.mm.hugetlb.pool import dissolve_free_huge_page
    from rmap.mm.hwpoison import (
        get_hwpoison_page,
        invalidate_inode_page,
        is_free_buddy_page,
        test_set_page_hwpoison,
    )
    from rmap.mm.lru import put_page
    from rmap.mm.migrate.migrate import (
        MigrationTarget,
        isolate_for_migration,
        migrate_pages,
        putback_movable_pages,
    )
    from rmap.mm.mm_types import Kernel
    from rmap.mm.page import (
        PageAnon,
        PageHuge,
        PageHWPoison,
        PageLRU,
        PageTransHuge,
        compound_head,
        is_zone_device_page,
        lock_page,
        unlock_page,
    )
    from rmap.mm.page_dirty import wait_on_page_writeback
    from rmap.scalar import i32, u64


def soft_offline_page(k: Kernel, page: u64, flags: i32) -> i32:
    """Take a page out of use; 0, or a negative errno and it stays.

    `flags`: MF_COUNT_INCREASED hands a reference of the caller over. -EBUSY: it is known to be
    broken, or somebody holds it; -EIO: it is of a kind that cannot be moved, or did not move;
    -ENXIO: there is no such page. No lock is held by the caller.
    """
    if page == 0 or page >= len(k.pg_flags):
        return -ENXIO
    error: i32 = _soft_offline_page(k, page, flags)
    if k.tracer is not None:
        k.tracer("soft_offline_page", (page, flags, error))
    return error


def _soft_offline_page(k: Kernel, page: u64, flags: i32) -> i32:
    """The same for a page that there is."""
    if is_zone_device_page(k, page):
        if flags & MF_COUNT_INCREASED:
            put_page(k, page)
        return -EIO
    if PageHWPoison(k, page):
        if flags & MF_COUNT_INCREASED:
            put_page(k, page)
        return -EBUSY
    got: i32 = _get_any_page(k, page, flags)
    if got < 0:
        return got
    if got:
        return _soft_offline_in_use_page(k, page)
    # Free, it only has to be passed over from now on.
    head: u64 = compound_head(k, page)
    if not test_set_page_hwpoison(k, head) and PageHuge(k, head):
        dissolve_free_huge_page(k, page)
    return 0


def _get_any_page(k: Kernel, page: u64, flags: i32) -> i32:
    """Take a reference: 1, 0 if the page is free, or -EIO if nothing can be done with it.

    A page that is on no LRU list is looked at once more after the batches were drained (which they
    always are here), in case it is free then.
    """
    got: i32 = 1
    if not flags & MF_COUNT_INCREASED and not get_hwpoison_page(k, page):
        got = 0 if PageHuge(k, page) or is_free_buddy_page(k, page) else -EIO
    if got == 1 and not PageHuge(k, page) and not PageLRU(k, page):
        put_page(k, page)
        return 0 if is_free_buddy_page(k, page) else -EIO
    return got


def _soft_offline_in_use_page(k: Kernel, page: u64) -> i32:
    """Split a huge page that has a reference of ours, which is that of `page` then; go on."""
    head: u64 = compound_head(k, page)
    if PageTransHuge(k, head) and not PageHuge(k, page):
        lock_page(k, head)
        if not PageAnon(k, head) or split_huge_page(k, head):
            unlock_page(k, head)
            put_page(k, head)
            return -EBUSY
        unlock_page(k, head)
        get_hwpoison_page(k, page)
        put_page(k, head)
    if PageHuge(k, page):
        return _soft_offline_huge_page(k, page)
    return _soft_offline_small_page(k, page)


def _soft_offline_huge_page(k: Kernel, page: u64) -> i32:
    """Move what is on a page of a pool, and take that apart: soft_offline_huge_page().

    Our reference goes.
    """
    head: u64 = compound_head(k, page)
    lock_page(k, head)
    broken: i32 = PageHWPoison(k, head)
    unlock_page(k, head)
    error: i32 = -EBUSY if broken else isolate_for_migration(k, head)
    # The isolation has a reference of its own.
    put_page(k, head)
    if error:
        return error
    pages: list = [head]
    error = migrate_pages(k, pages, MigrationTarget(), MIGRATE_SYNC, MR_MEMORY_FAILURE)
    if error:
        putback_movable_pages(k, pages)
        return -EIO if error > 0 else error
    # If the pool can spare it; else it stays there, marked, and is given to nobody.
    dissolve_free_huge_page(k, page)
    return 0


def _soft_offline_small_page(k: Kernel, page: u64) -> i32:
    """Forget a page, or move what is on it: __soft_offline_page(). Our reference goes."""
    lock_page(k, page)
    wait_on_page_writeback(k, page)
    if PageHWPoison(k, page):
        # Broken by now: memory_failure() was faster.
        unlock_page(k, page)
        put_page(k, page)
        return -EBUSY
    dropped: i32 = invalidate_inode_page(k, page)
    unlock_page(k, page)
    if dropped:
        put_page(k, page)
        test_set_page_hwpoison(k, page)
        return 0
    error: i32 = isolate_for_migration(k, page)
    # The isolation has a reference of its own.
    put_page(k, page)
    if error:
        return error
    pages: list = [page]
    error = migrate_pages(k, pages, MigrationTarget(), MIGRATE_SYNC, MR_MEMORY_FAILURE)
    if error:
        putback_movable_pages(k, pages)
        if error > 0:
            error = -EIO
    return error

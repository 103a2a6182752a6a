# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Dirty pages and pages under writeback, and the statistics of both (mm/page-writeback.c, v4.18).

Locks, in the listing's order: mapping->private_lock, then memcg->move_lock, then the i_pages lock;
callers may hold the page lock and a page-table lock.
"""

from __future__ import annotations

from functools import partial

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        NR_FILE_DIRTY,
        NR_WRITEBACK,
        SWAPPER_SPACE,
        PG_dirty,
        PG_reclaim,
        PG_uptodate,
        PG_writeback,
    )
    from rmap.mm.bug import BUG, BUG_PAGE, WARN_ONCE
    from rmap.mm.lru import rotate_reclaimable_page
    from rmap.mm.memcg import lock_page_memcg, unlock_page_memcg
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.page import (
        ClearPage,
        PageDirty,
        PageFlag,
        PageLocked,
        PageSwapCache,
        TestClearPage,
        TestSetPage,
        compound_head,
        lock_page,
        mod_lruvec_page_state,
        page_mapping,
        unlock_page,
    )
    from rmap.scalar import flag, i32, u64
    from rmap.sync.bits import FIELD_PAGE_FLAGS
    from rmap.sync.core import wait_until


def mapping_cap_account_dirty(k: Kernel, mapping: AddressSpace) -> flag:
    """Whether dirty pages of the mapping are counted: of shmem, swap and hugetlbfs they are not."""
    return not mapping.shmem and mapping.handle < SWAPPER_SPACE and mapping.hstate is None


def set_page_dirty(k: Kernel, page: u64) -> flag:
    """Mark a page newer than its file or swap slot; whether it was clean before.

    mm/page-writeback.c:2546 (v4.18). Pages of files behave as those with buffers do; shmem and the
    swap cache have nothing to count and no lock to take.
    """
    mapping: AddressSpace = page_mapping(k, page)
    page = compound_head(k, page)
    if k.tracer is not None:
        k.tracer("set_page_dirty", (page,))
    if mapping is None:
        return not PageDirty(k, page) and not TestSetPage(k, page, PG_dirty)
    if PageFlag(k, page, PG_reclaim):
        ClearPage(k, page, PG_reclaim)
    if not mapping_cap_account_dirty(k, mapping):
        return not PageDirty(k, page) and not TestSetPage(k, page, PG_dirty)
    return _set_page_dirty_buffers(k, page, mapping)


def _set_page_dirty_buffers(k: Kernel, page: u64, mapping: AddressSpace) -> flag:
    """__set_page_dirty_buffers() (fs/buffer.c:630, v4.18)."""
    k.private_lock.lock()
    lock_page_memcg(k, page)
    newly_dirty: flag = not TestSetPage(k, page, PG_dirty)
    k.private_lock.unlock()
    if newly_dirty:
        mapping.i_pages_lock.lock()
        # Truncated meanwhile, the page is nobody's dirty page.
        if page_mapping(k, page) is mapping:
            if not k.pg_flags[page] & PG_uptodate:
                WARN_ONCE(k.warnings, "buffer.c:592 a page is dirtied that is not up to date")
            account_page_dirtied(k, page)
        mapping.i_pages_lock.unlock()
    unlock_page_memcg(k, page)
    return newly_dirty


def set_page_dirty_lock(k: Kernel, page: u64) -> flag:
    """`set_page_dirty` for callers without the page lock (mm/page-writeback.c:2592)."""
    lock_page(k, page)
    newly_dirty: flag = set_page_dirty(k, page)
    unlock_page(k, page)
    return newly_dirty


def account_page_dirtied(k: Kernel, page: u64) -> i32:
    """Count a file page that became dirty (mm/page-writeback.c:2413)."""
    return mod_lruvec_page_state(k, page, NR_FILE_DIRTY, 1)


def account_page_cleaned(k: Kernel, page: u64, mapping: AddressSpace) -> i32:
    """Count a dirty page that is not dirty any more without having been written (:2440)."""
    if mapping_cap_account_dirty(k, mapping):
        mod_lruvec_page_state(k, page, NR_FILE_DIRTY, -1)
    return 0


def cancel_dirty_page(k: Kernel, page: u64) -> i32:
    """Forget that a page is dirty, as its content is to be thrown away (:2618, v4.18)."""
    mapping: AddressSpace = page_mapping(k, page)
    if mapping is None or not mapping_cap_account_dirty(k, mapping):
        return ClearPage(k, page, PG_dirty)
    lock_page_memcg(k, page)
    if TestClearPage(k, page, PG_dirty):
        account_page_cleaned(k, page, mapping)
    return unlock_page_memcg(k, page)


# ---------------------------------------------------------------- writeback


def set_page_writeback(k: Kernel, page: u64) -> flag:
    """Mark a page as being written out; whether it was so before (:2747, v4.18)."""
    if not PageLocked(k, page):
        BUG_PAGE("page-flags.h:498 set_page_writeback: the page is not locked", page)
    lock_page_memcg(k, page)
    was: flag = TestSetPage(k, page, PG_writeback)
    if not was:
        mod_lruvec_page_state(k, page, NR_WRITEBACK, 1)
    unlock_page_memcg(k, page)
    if k.tracer is not None:
        k.tracer("set_page_writeback", (page,))
    return was


def end_page_writeback(k: Kernel, page: u64) -> i32:
    """End a page's writeback; what reclaim waits for is moved to its reach (mm/filemap.c:1225)."""
    if PageFlag(k, page, PG_reclaim):
        ClearPage(k, page, PG_reclaim)
        rotate_reclaimable_page(k, page)
    lock_page_memcg(k, page)
    if not TestClearPage(k, page, PG_writeback):
        BUG("filemap.c:1240 end_page_writeback of a page that is not under writeback")
    mod_lruvec_page_state(k, page, NR_WRITEBACK, -1)
    return unlock_page_memcg(k, page)


def _written(k: Kernel, page: u64) -> bool:
    return k.pg_flags[page] & PG_writeback == 0


def wait_on_page_writeback(k: Kernel, page: u64) -> i32:
    """Wait until a page has been written."""
    while PageFlag(k, page, PG_writeback):
        wait_until(FIELD_PAGE_FLAGS, page, partial(_written, k, page))
    return 0


def wait_for_stable_page(k: Kernel, page: u64) -> i32:
    """Wait for writeback if the device wants the page unchanged during it (:2857, v4.18)."""
    if not PageFlag(k, page, PG_writeback) or not PageSwapCache(k, page):
        return 0
    mapping: AddressSpace = page_mapping(k, page)
    for area in k.swap_areas:
        if area.address_space is mapping and area.stable_writes:
            wait_on_page_writeback(k, page)
    return 0

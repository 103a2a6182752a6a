# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Writing dirty pages of files to where they come from (mm/page-writeback.c, v4.18).

Locks, outermost first: the page lock, one page at a time; then what `page_mkclean` takes (the rmap
lock for read, page-table locks) and what accounting takes (memcg->move_lock, the i_pages lock).

Writing takes no time: `AddressSpace.backing` has the content when `file_writepage` returns. The
flusher threads run when they are woken, to the end of what they have to do.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import NR_FILE_DIRTY, PG_dirty, PG_writeback
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import page_bytes
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.page import (
        PageFlag,
        PageLocked,
        TestClearPage,
        get_page_unless_zero,
        lock_page,
        mod_lruvec_page_state,
        page_index,
        page_mapping,
        unlock_page,
    )
    from rmap.mm.page_dirty import (
        end_page_writeback,
        mapping_cap_account_dirty,
        set_page_dirty,
        set_page_writeback,
        wait_on_page_writeback,
    )
    from rmap.mm.page_mkclean import page_mkclean
    from rmap.scalar import flag, i64, u64


def clear_page_dirty_for_io(k: Kernel, page: u64) -> flag:
    """Make a locked page clean, as it is about to be written; whether it was dirty.

    mm/page-writeback.c:2662 (v4.18). First all shared mappings are made clean and read-only, and
    what they had dirtied is transferred to the page: from here on each write faults, and the page
    is dirty again before the write goes on.
    """
    if not PageLocked(k, page):
        BUG_PAGE("page-writeback.c:2667 clear_page_dirty_for_io: the page is not locked", page)
    mapping: AddressSpace = page_mapping(k, page)
    if mapping is None or not mapping_cap_account_dirty(k, mapping):
        return TestClearPage(k, page, PG_dirty)
    if page_mkclean(k, page) and k.profile.mkclean_dirties_page:
        set_page_dirty(k, page)
    if not TestClearPage(k, page, PG_dirty):
        return False
    mod_lruvec_page_state(k, page, NR_FILE_DIRTY, -1)
    return True


def file_writepage(k: Kernel, page: u64, mapping: AddressSpace) -> i64:
    """Write a locked, clean page of a file, and unlock it; returns 0 (a_ops->writepage).

    What lies beyond the file's end is not written: the page is about to be truncated.
    """
    index: u64 = page_index(k, page)
    set_page_writeback(k, page)
    unlock_page(k, page)
    if index < mapping.size_pages:
        mapping.backing[index] = page_bytes(k, page)
    end_page_writeback(k, page)
    return 0


def write_cache_pages(k: Kernel, mapping: AddressSpace) -> i64:
    """Write every dirty page of a file, by index; returns how many (mm/page-writeback.c:2135).

    The file is one of a disk: shmem writes its pages only when they are reclaimed, to swap.
    """
    written: i64 = 0
    page: u64
    item: i64
    for index in sorted(mapping.i_pages):
        item = mapping.i_pages.get(index, 0)
        if item <= 0 or not k.pg_flags[item] & PG_dirty:
            continue
        page = item
        if not get_page_unless_zero(k, page):
            continue
        lock_page(k, page)
        if _write_one(k, page, mapping):
            written += 1
        put_page(k, page)
    if k.tracer is not None:
        k.tracer("write_cache_pages", (mapping, written))
    return written


def _write_one(k: Kernel, page: u64, mapping: AddressSpace) -> flag:
    """Write a page that was dirty, unless it is not any more or left the file; unlocks it."""
    if page_mapping(k, page) is mapping and PageFlag(k, page, PG_dirty):
        wait_on_page_writeback(k, page)
        if PageFlag(k, page, PG_writeback):
            BUG_PAGE("page-writeback.c:2246 a page is written twice at once", page)
        if clear_page_dirty_for_io(k, page):
            file_writepage(k, page, mapping)
            return True
    unlock_page(k, page)
    return False


def wakeup_flusher_threads(k: Kernel) -> i64:
    """Have all dirty pages of all files written; returns how many (fs/fs-writeback.c:1958)."""
    written: i64 = 0
    mapping: AddressSpace
    for mapping in k.mappings:
        if mapping is not None and mapping_cap_account_dirty(k, mapping):
            written += write_cache_pages(k, mapping)
    return written

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Taking pages of files out of the page cache for good (mm/truncate.c; mm/shmem.c, v4.18).

Locks: the page lock, then mapping->i_mmap_rwsem for unmapping what a fault was faster with, then
i_pages_lock. The caller holds inode->i_rwsem, or is the last user of the file.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import HPAGE_PMD_NR, ULONG_MAX, PG_writeback
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import clear_page_content
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.page import (
        PageFlag,
        PageTail,
        hpage_nr_pages,
        lock_page,
        page_index,
        page_mapped,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_cache import (
        delete_from_page_cache,
        find_get_entry,
        find_lock_entry,
        page_in_mapping,
    )
    from rmap.mm.page_dirty import cancel_dirty_page, wait_on_page_writeback
    from rmap.mm.shmem import shmem_free_swap
    from rmap.mm.zap import unmap_mapping_pages
    from rmap.scalar import flag, i32, i64, u64


def truncate_inode_pages(k: Kernel, mapping: AddressSpace, start: u64) -> i32:
    """Take all pages from `start` on out of the cache; their contents are lost."""
    return truncate_inode_pages_range(k, mapping, start, ULONG_MAX)


def truncate_inode_pages_range(k: Kernel, mapping: AddressSpace, start: u64, end: u64) -> i32:
    """Take the pages from `start` to before `end` out of the cache; ``ULONG_MAX`` is all behind."""
    if mapping.shmem:
        return shmem_undo_range(k, mapping, start, end)
    index: u64
    item: i64
    for index in sorted(mapping.i_pages):
        if index < start or index >= end:
            continue
        item = find_lock_entry(k, mapping, index)
        if item <= 0:
            continue
        wait_on_page_writeback(k, item)
        truncate_inode_page(k, mapping, item)
        unlock_page(k, item)
        put_page(k, item)
    return 0


def truncate_inode_page(k: Kernel, mapping: AddressSpace, page: u64) -> i32:
    """Take one locked page out of the cache, unmapping it if a fault was faster than we.

    The page may be a huge one, given its head.
    """
    if page_mapped(k, page):
        unmap_mapping_pages(k, mapping, page_index(k, page), hpage_nr_pages(k, page), False)
    cancel_dirty_page(k, page)
    if k.tracer is not None:
        k.tracer("truncate_inode_page", (page, mapping))
    return delete_from_page_cache(k, page)


# ---------------------------------------------------------------- shared memory


def shmem_undo_range(k: Kernel, mapping: AddressSpace, start: u64, end: u64) -> i32:
    """Take pages and swap entries from `start` to before `end` out of a file of shared memory.

    First what can be had without waiting; then the rest, which for a truncation is looked for again
    until there is none. Of a huge page that reaches out of the range the part inside is zeroed,
    and stays: v4.18 splits no huge page here.
    """
    _undo_entries(k, mapping, start, end, False)
    while _undo_entries(k, mapping, start, end, True) and end == ULONG_MAX:
        pass
    return 0


def _undo_entries(k: Kernel, mapping: AddressSpace, start: u64, end: u64, wait: flag) -> flag:
    """Go once through what the cache has; whether anything was taken out."""
    found: flag = False
    index: u64
    for index in sorted(mapping.i_pages):
        if start <= index < end and _undo_index(k, mapping, index, end, wait):
            found = True
    return found


def _undo_index(k: Kernel, mapping: AddressSpace, index: u64, end: u64, wait: flag) -> flag:
    """Take out what the cache has at an index, a page or a swap entry; whether it went.

    With `wait` it is tried again if it was replaced by the other meanwhile.
    """
    item: i64
    went: i32 = -1
    while went < 0:
        item = find_get_entry(k, mapping, index)
        if item == 0:
            return False
        if item < 0:
            went = 1 if shmem_free_swap(k, mapping, index, item) == 0 else -1
        else:
            went = _undo_page(k, mapping, index, item, end, wait)
            put_page(k, item)
        if not wait:
            break
    return went > 0


def _undo_page(
    k: Kernel, mapping: AddressSpace, index: u64, page: u64, end: u64, wait: flag
) -> i32:
    """Take one page out, or a huge one if all of it lies in the range.

    1 if it went, 0 if it was zeroed, -1 if it could not be locked or is not the file's any more.
    """
    if wait:
        lock_page(k, page)
    elif not trylock_page(k, page):
        return -1
    if not page_in_mapping(k, page, mapping):
        unlock_page(k, page)
        return -1
    if PageTail(k, page) or _reaches_out(k, page, index, end):
        clear_page_content(k, page)
        unlock_page(k, page)
        return 0
    if PageFlag(k, page, PG_writeback):
        BUG_PAGE("shmem.c shmem_undo_range: the page is under writeback", page)
    truncate_inode_page(k, mapping, page)
    unlock_page(k, page)
    return 1


def _reaches_out(k: Kernel, page: u64, index: u64, end: u64) -> flag:
    """Whether a page is the head of a huge one in which the range ends."""
    return hpage_nr_pages(k, page) > 1 and index == end - end % HPAGE_PMD_NR

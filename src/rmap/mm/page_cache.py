# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The page cache: which page holds which page of a file (lower half of mm/filemap.c, v4.18).

Locks: ``mapping.i_pages_lock`` is taken by all of it, inside the page lock where that is held. A
page enters and leaves the cache with its page lock held, and the cache has a reference to it.

`AddressSpace.i_pages` maps an index to a page, or, where a page of shmem is in swap, to its swap
entry as a negative number: the kernel's exceptional entries. A huge page of shmem has 512 entries,
one for each of its pages, and a reference for each; what is locked and referred to is its head.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EEXIST,
        HPAGE_PMD_NR,
        MAPPING_HANDLE_SHIFT,
        NR_FILE_PAGES,
        NR_SHMEM,
        NR_SHMEM_THPS,
        THP_FILE_ALLOC,
        PG_dirty,
        PG_swapbacked,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.page import (
        PageFlag,
        PageLocked,
        compound_head,
        get_page_unless_zero,
        hpage_nr_pages,
        lock_page,
        mod_lruvec_page_state,
        mod_node_page_state,
        page_index,
        page_mapped,
        page_mapping_word,
        page_ref_add,
        page_ref_sub,
        page_to_pgoff,
        set_page_index,
        set_page_mapping,
        unlock_page,
    )
    from rmap.mm.page_dirty import account_page_cleaned
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.bits import OP_READ, RANK_I_PAGES
    from rmap.sync.core import sched, sched_point


# ---------------------------------------------------------------- entries


def swp_to_radix_entry(entry: u64) -> i64:
    """A swap entry as the page cache keeps it."""
    kept: i64 = entry
    return -kept


def radix_to_swp_entry(item: i64) -> u64:
    """The swap entry of what the page cache keeps; 0 if that is a page, or nothing."""
    if item < 0:
        return -item
    return 0


def page_cache_item(mapping: AddressSpace, index: u64) -> i64:
    """What the page cache has at an index: a page, a negated swap entry, or 0 for nothing."""
    item: i64 = mapping.i_pages.get(index, 0)
    return item


# ---------------------------------------------------------------- finding


def find_get_entry(k: Kernel, mapping: AddressSpace, index: u64) -> i64:
    """The same, with a reference to the page if it is one.

    The kernel looks under RCU only: it takes a reference unless the page is being freed, and then
    looks whether the page is still there.
    """
    item: i64
    head: u64
    while True:
        if sched.exploring:
            sched_point(OP_READ, RANK_I_PAGES, mapping.handle)
        item = page_cache_item(mapping, index)
        if item <= 0:
            return item
        head = compound_head(k, item)
        if not get_page_unless_zero(k, head):
            continue
        # The page may have been replaced, or a huge page split, before we had the reference.
        if compound_head(k, item) == head and page_cache_item(mapping, index) == item:
            return item
        put_page(k, head)


def find_get_page(k: Kernel, mapping: AddressSpace, index: u64) -> u64:
    """The page at an index, with a reference; 0 if there is none."""
    item: i64 = find_get_entry(k, mapping, index)
    return item if item > 0 else 0


def find_lock_entry(k: Kernel, mapping: AddressSpace, index: u64) -> i64:
    """What is at an index; a page with a reference and locked, and certainly still there.

    Files of hugetlbfs count in huge pages, and so does the index of their pages.
    """
    item: i64
    at: u64
    while True:
        item = find_get_entry(k, mapping, index)
        if item <= 0:
            return item
        lock_page(k, item)
        if page_in_mapping(k, item, mapping):
            at = page_to_pgoff(k, item) if mapping.hstate is None else page_index(k, item)
            if at != index:
                BUG_PAGE("filemap.c find_lock_entry: the page has another index", item)
            return item
        unlock_page(k, item)
        put_page(k, item)


def page_in_mapping(k: Kernel, page: u64, mapping: AddressSpace) -> flag:
    """Whether the page belongs to that file: page_mapping(page) == mapping."""
    head: u64 = compound_head(k, page)
    return page_mapping_word(k, head) == mapping.handle << MAPPING_HANDLE_SHIFT


# ---------------------------------------------------------------- entering and leaving


def add_to_page_cache_locked(
    k: Kernel, page: u64, mapping: AddressSpace, index: u64, expected: i64
) -> i32:
    """Enter a locked page in place of `expected` (0: nothing); -EEXIST if there is another thing.

    The cache takes a reference, 512 to a huge page, whose place is aligned, and must be empty.
    shmem_add_to_page_cache() and __add_to_page_cache_locked().
    """
    if not PageLocked(k, page):
        BUG_PAGE("filemap.c __add_to_page_cache_locked: the page is not locked", page)
    if mapping.shmem != PageFlag(k, page, PG_swapbacked):
        BUG_PAGE("filemap.c __add_to_page_cache_locked: swap-backed and shmem disagree", page)
    nr: i32 = hpage_nr_pages(k, page)
    i: u64
    page_ref_add(k, page, nr)
    mapping.i_pages_lock.lock()
    if not _may_enter(k, mapping, index, nr, expected):
        mapping.i_pages_lock.unlock()
        page_ref_sub(k, page, nr)
        return -EEXIST
    set_page_mapping(k, page, mapping.handle << MAPPING_HANDLE_SHIFT)
    set_page_index(k, page, index)
    for i in range(nr):
        mapping.i_pages[index + i] = page + i
    mapping.nrpages += nr
    mod_lruvec_page_state(k, page, NR_FILE_PAGES, nr)
    if mapping.shmem:
        mod_lruvec_page_state(k, page, NR_SHMEM, nr)
    if nr > 1:
        mod_node_page_state(k, NR_SHMEM_THPS, 1)
        k.vm_stat[THP_FILE_ALLOC] += 1
    mapping.i_pages_lock.unlock()
    return 0


def _may_enter(k: Kernel, mapping: AddressSpace, index: u64, nr: i32, expected: i64) -> flag:
    """Whether what is in the place of a page, or anywhere in that of a huge one, is as expected."""
    if nr == 1:
        return page_cache_item(mapping, index) == expected
    if index % HPAGE_PMD_NR:
        BUG("shmem.c shmem_add_to_page_cache: the place of a huge page is not aligned")
    return not page_cache_has_any(mapping, index)


def page_cache_has_any(mapping: AddressSpace, index: u64) -> flag:
    """Whether there is anything in the 512 places from an index on."""
    i: u64
    for i in range(index, index + HPAGE_PMD_NR):
        if i in mapping.i_pages:
            return True
    return False


def delete_from_page_cache_locked(k: Kernel, page: u64, mapping: AddressSpace, item: i64) -> i32:
    """Take a locked page out, leaving `item` in its place (0: nothing). i_pages_lock is held.

    The cache's reference (512 of a huge page) becomes the caller's. A page that is still mapped is
    a bug: its mappings could not be found any more. __delete_from_page_cache(), mm/filemap.c.
    """
    mapping.i_pages_lock.assert_held()
    if not PageLocked(k, page):
        BUG_PAGE("filemap.c __delete_from_page_cache: the page is not locked", page)
    if page_mapped(k, page):
        BUG_PAGE("filemap.c unaccount_page_cache_page: the page is mapped", page)
    index: u64 = page_index(k, page)
    nr: i32 = hpage_nr_pages(k, page)
    i: u64
    mod_lruvec_page_state(k, page, NR_FILE_PAGES, -nr)
    if PageFlag(k, page, PG_swapbacked):
        mod_lruvec_page_state(k, page, NR_SHMEM, -nr)
        if nr > 1:
            mod_node_page_state(k, NR_SHMEM_THPS, -1)
    if PageFlag(k, page, PG_dirty):
        account_page_cleaned(k, page, mapping)
    if item:
        mapping.i_pages[index] = item
    else:
        for i in range(index, index + nr):
            del mapping.i_pages[i]
    mapping.nrpages -= nr
    return set_page_mapping(k, page, 0)


def delete_from_page_cache(k: Kernel, page: u64) -> i32:
    """Take a locked page out of its file's cache, and drop the cache's reference, or all 512."""
    word: u64 = page_mapping_word(k, page)
    mapping: AddressSpace = k.mappings[word >> MAPPING_HANDLE_SHIFT]
    mapping.i_pages_lock.lock()
    delete_from_page_cache_locked(k, page, mapping, 0)
    mapping.i_pages_lock.unlock()
    if hpage_nr_pages(k, page) > 1:
        return page_ref_sub(k, page, HPAGE_PMD_NR)
    return put_page(k, page)

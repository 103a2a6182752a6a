# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""One page becomes another: place in its cache, identity, flags, contents (mm/migrate.c, v4.18).

Locks, outermost first: the page locks of both pages, which the caller holds; then the i_pages lock
of the page cache or of the swap cache. Nothing maps the old page, and its references are counted:
one that is neither the caller's nor the cache's makes the move fail, for whoever has it would go
on with the old page.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EAGAIN,
        EBUSY,
        MIGRATE_SYNC,
        MIGRATE_SYNC_NO_COPY,
        PAGE_MAPPING_FLAGS,
        PG_active,
        PG_dirty,
        PG_error,
        PG_idle,
        PG_referenced,
        PG_swapbacked,
        PG_swapcache,
        PG_unevictable,
        PG_uptodate,
        PG_young,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import copy_page_content
    from rmap.mm.ksm.stable import ksm_migrate_page
    from rmap.mm.memcg import mem_cgroup_migrate
    from rmap.mm.migrate.entries import remove_migration_ptes
    from rmap.mm.mm_types import AddressSpace, Kernel, SwapInfo
    from rmap.mm.page import (
        ClearPage,
        PageDirty,
        PageFlag,
        PageHuge,
        PageKsm,
        PageLocked,
        PageSwapBacked,
        PageSwapCache,
        PageWriteback,
        SetPage,
        TestClearPage,
        compound_order,
        hpage_nr_pages,
        is_zone_device_page,
        lock_page,
        page_count,
        page_index,
        page_mapping,
        page_mapping_word,
        page_private,
        page_ref_add,
        page_ref_freeze,
        page_ref_unfreeze,
        set_page_index,
        set_page_mapping,
        set_page_private,
    )
    from rmap.mm.page_cache import page_cache_item
    from rmap.mm.pgtable import swp_offset, swp_type
    from rmap.mm.writeback import clear_page_dirty_for_io, file_writepage
    from rmap.scalar import flag, i32, i64, u32, u64


def move_to_new_page(k: Kernel, new: u64, page: u64, mode: i32) -> i32:
    """Let `new` be what `page` was; 0, -EAGAIN to try again, or another -errno.

    Both are locked, and nothing maps `page`. A page of a file forgets its file afterwards; an
    anonymous one goes on naming its anon_vma until it is freed.
    """
    if not PageLocked(k, page) or not PageLocked(k, new):
        BUG_PAGE("migrate.c move_to_new_page: a page is not locked", page)
    mapping: AddressSpace = page_mapping(k, page)
    rc: i32
    if mapping is not None and mapping.writes_to_migrate:
        rc = fallback_migrate_page(k, mapping, new, page, mode)
    else:
        rc = migrate_page(k, mapping, new, page, mode)
    if rc == 0 and not page_mapping_word(k, page) & PAGE_MAPPING_FLAGS:
        set_page_mapping(k, page, 0)
    if k.tracer is not None:
        k.tracer("move_to_new_page", (page, new, rc))
    return rc


def migrate_page(k: Kernel, mapping: AddressSpace | None, new: u64, page: u64, mode: i32) -> i32:
    """Move a page that has nothing but its contents; 0 or -EAGAIN."""
    if PageWriteback(k, page):
        BUG_PAGE("migrate.c migrate_page: the page is being written", page)
    rc: i32 = migrate_page_move_mapping(k, mapping, new, page)
    if rc:
        return rc
    if mode != MIGRATE_SYNC_NO_COPY:
        _copy_contents(k, new, page)
    return migrate_page_states(k, new, page)


def fallback_migrate_page(k: Kernel, mapping: AddressSpace, new: u64, page: u64, mode: i32) -> i32:
    """Move a page of a file system that knows nothing of migration: only a clean one.

    A dirty one is written instead, by those who may wait, and is clean the next time.
    """
    if not PageDirty(k, page):
        return migrate_page(k, mapping, new, page, mode)
    if mode < MIGRATE_SYNC:
        return -EBUSY
    return _writeout(k, mapping, page)


def _writeout(k: Kernel, mapping: AddressSpace, page: u64) -> i32:
    """Write a dirty page, which cannot be moved this time; always -EAGAIN.

    Its mappings come back first: the write gives up the page lock, and the entries need that.
    """
    if not clear_page_dirty_for_io(k, page):
        return -EAGAIN
    remove_migration_ptes(k, page, page, False)
    file_writepage(k, page, mapping)
    lock_page(k, page)
    return -EAGAIN


# ---------------------------------------------------------------- identity and references


def migrate_page_move_mapping(k: Kernel, mapping: AddressSpace | None, new: u64, page: u64) -> i32:
    """Put `new` where `page` is found; 0, or -EAGAIN if others have references to it.

    `mapping` is its file, the swap cache's, or ``None`` for an anonymous page in no cache. The
    references are frozen while the cache is changed, so nobody takes one in between.
    """
    # A page in memory of a device has one more, that of the device.
    expected: i32 = 1 + (1 if is_zone_device_page(k, page) else 0)
    nr: i32 = _entries_in_cache(k, page)
    if mapping is None:
        if page_count(k, page) != expected:
            return -EAGAIN
        _copy_identity(k, new, page)
        return 0
    expected += nr
    mapping.i_pages_lock.lock()
    if not _is_in(k, mapping, page) or not page_ref_freeze(k, page, expected):
        mapping.i_pages_lock.unlock()
        return -EAGAIN
    _copy_identity(k, new, page)
    page_ref_add(k, new, nr)
    if PageSwapCache(k, page):
        SetPage(k, new, PG_swapcache)
        set_page_private(k, new, page_private(k, page))
    # While nobody can see either of them: else the new page could pass for a clean one.
    if PageDirty(k, page):
        ClearPage(k, page, PG_dirty)
        SetPage(k, new, PG_dirty)
    _replace_in(k, mapping, new, page)
    page_ref_unfreeze(k, page, expected - nr)
    mapping.i_pages_lock.unlock()
    return 0


def _copy_identity(k: Kernel, new: u64, page: u64) -> i32:
    """Index first, then the mapping, and what kind of page it is."""
    set_page_index(k, new, page_index(k, page))
    set_page_mapping(k, new, page_mapping_word(k, page))
    if PageSwapBacked(k, page):
        SetPage(k, new, PG_swapbacked)
    return 0


def _is_in(k: Kernel, mapping: AddressSpace, page: u64) -> flag:
    """Whether the page is where it says, in the page cache or the swap cache. Under its lock."""
    entry: u64
    area: SwapInfo
    if PageSwapCache(k, page):
        entry = page_private(k, page)
        area = k.swap_areas[swp_type(entry)]
        return area.cache[swp_offset(entry)] == page
    item: i64 = page_cache_item(mapping, page_index(k, page))
    return item > 0 and item == page


def _entries_in_cache(k: Kernel, page: u64) -> i32:
    """How many entries a cache has for the page, and references: a hugetlb page has one."""
    return 1 if PageHuge(k, page) else hpage_nr_pages(k, page)


def _replace_in(k: Kernel, mapping: AddressSpace, new: u64, page: u64) -> i32:
    """Let the cache have `new` for `page`, a huge page with all its parts. Under its lock."""
    nr: u64 = _entries_in_cache(k, page)
    i: u64
    entry: u64
    area: SwapInfo
    index: u64 = page_index(k, page)
    if PageSwapCache(k, page):
        entry = page_private(k, page)
        area = k.swap_areas[swp_type(entry)]
        for i in range(nr):
            area.cache[swp_offset(entry) + i] = new + i
        return 0
    for i in range(nr):
        mapping.i_pages[index + i] = new + i
    return 0


# ---------------------------------------------------------------- contents and flags


def _copy_contents(k: Kernel, new: u64, page: u64) -> i32:
    """copy_highpage(), or copy_huge_page()."""
    one: u64 = 1
    i: u64
    for i in range(one << compound_order(k, page)):
        copy_page_content(k, new + i, page + i)
    return 0


def migrate_page_states(k: Kernel, new: u64, page: u64) -> i32:
    """Copy what the page is known for, and let the old one forget it; returns 0.

    Not PG_mlocked: the last unmap has cleared it, and whoever maps the new page mlocks that.
    """
    bit: u32
    for bit in (PG_error, PG_referenced, PG_uptodate, PG_dirty, PG_young, PG_idle):
        if PageFlag(k, page, bit):
            SetPage(k, new, bit)
    if TestClearPage(k, page, PG_active):
        if PageFlag(k, page, PG_unevictable):
            BUG_PAGE("migrate.c migrate_page_states: a page is active and unevictable", page)
        SetPage(k, new, PG_active)
    elif TestClearPage(k, page, PG_unevictable):
        SetPage(k, new, PG_unevictable)
    # Whoever looks for a merged page relies on the order: first its node, then the swap cache.
    if PageKsm(k, new):
        ksm_migrate_page(k, new, page)
    if PageSwapCache(k, page):
        ClearPage(k, page, PG_swapcache)
    if not PageHuge(k, page):
        set_page_private(k, page, 0)
    mem_cgroup_migrate(k, page, new)
    return 0

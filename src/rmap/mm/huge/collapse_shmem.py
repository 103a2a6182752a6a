# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""khugepaged makes one huge page of the pages of a file of shared memory (mm/khugepaged.c, v4.18).

Locks, outermost first: the page locks, of the new page and of each old one, which are tried for;
mapping->i_mmap_rwsem for unmapping and for retracting page tables, inside of which mmap_sem is
tried for, then page-table locks; mapping->i_pages_lock.

The new page takes the place of the old ones in the page cache one by one, locked and with all its
references frozen, as theirs are: whoever looks one of them up meanwhile tries until the end of it.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        GFP_KERNEL,
        HPAGE_PMD_NR,
        HPAGE_PMD_SIZE,
        MAPPING_HANDLE_SHIFT,
        NR_FILE_PAGES,
        NR_SHMEM,
        NR_SHMEM_THPS,
        PAGE_SHIFT,
        PMD_MASK,
        PTRS_PER_PTE,
        SCAN_ALLOC_HUGE_PAGE_FAIL,
        SCAN_CGROUP_CHARGE_FAIL,
        SCAN_DEL_PAGE_LRU,
        SCAN_FAIL,
        SCAN_PAGE_COMPOUND,
        SCAN_PAGE_COUNT,
        SCAN_PAGE_LOCK,
        SCAN_SUCCEED,
        SCAN_TRUNCATED,
        SGP_NOHUGE,
        PG_active,
        PG_isolated,
        PG_swapbacked,
        PG_unevictable,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.content import copy_page_content
    from rmap.mm.huge.collapse import khugepaged_alloc_page
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.lru import isolate_lru_page, lru_cache_add, put_page, putback_lru_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.mm_types import AddressSpace, IntervalNode, Kernel, Mm, Vma
    from rmap.mm.page import (
        ClearPage,
        PageLocked,
        PageTransCompound,
        SetPage,
        get_page,
        mod_lruvec_page_state,
        mod_node_page_state,
        page_index,
        page_mapped,
        page_ref_freeze,
        page_ref_unfreeze,
        set_page_index,
        set_page_mapping,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_cache import page_cache_has_any, page_cache_item, page_in_mapping
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        is_hwpoison_entry,
        pte_free_row,
        pte_lock,
        pte_offset,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_walk import mm_find_pmd
    from rmap.mm.shmem import shmem_getpage
    from rmap.mm.tlb import pmdp_collapse_flush
    from rmap.mm.zap import unmap_mapping_pages
    from rmap.scalar import i32, i64, u64


class CollapseShmem:
    """One attempt: the file and the first index, the huge page, and how far it is.

    `pages` are the old pages taken out of the cache, in order; `holes` counts what was empty.
    """

    def __init__(self, mapping: AddressSpace, start: u64) -> None:
        self.mapping = mapping
        self.start = start
        self.page = 0
        self.index = start
        self.pages = []
        self.holes = 0


def collapse_shmem(k: Kernel, mm: Mm, mapping: AddressSpace, start: u64) -> i32:
    """Make the 512 pages of a file from `start` on, which is aligned, one huge page.

    Returns SCAN_SUCCEED, or why it could not be. The page is charged to the cgroup of `mm`, who is
    one of those that map the file. No lock is held.
    """
    if start % HPAGE_PMD_NR:
        BUG("khugepaged.c collapse_shmem: the place is not aligned")
    c: CollapseShmem = CollapseShmem(mapping, start)
    c.page = khugepaged_alloc_page(k)
    if not c.page:
        return _collapsed(k, c, SCAN_ALLOC_HUGE_PAGE_FAIL)
    if mem_cgroup_try_charge(k, c.page, mm.memcg, GFP_KERNEL):
        put_page(k, c.page)
        return _collapsed(k, c, SCAN_CGROUP_CHARGE_FAIL)
    set_page_index(k, c.page, start)
    set_page_mapping(k, c.page, mapping.handle << MAPPING_HANDLE_SHIFT)
    SetPage(k, c.page, PG_swapbacked)
    trylock_page(k, c.page)
    if not page_ref_freeze(k, c.page, 1):
        BUG_PAGE("khugepaged.c collapse_shmem: somebody else has the new page", c.page)
    result: i32 = _replace_pages(k, c)
    if result == SCAN_SUCCEED:
        _finish(k, c)
    else:
        _roll_back(k, c)
    return _collapsed(k, c, result)


def _collapsed(k: Kernel, c: CollapseShmem, result: i32) -> i32:
    """End the attempt."""
    if result == SCAN_SUCCEED:
        k.khugepaged.pages_collapsed += 1
    if k.tracer is not None:
        k.tracer("collapse_shmem", (c.mapping, c.start, c.page, result))
    return result


# ---------------------------------------------------------------- the page cache


def _replace_pages(k: Kernel, c: CollapseShmem) -> i32:
    """Put the new page everywhere in the place of what is there; SCAN_SUCCEED if that went well."""
    result: i32 = SCAN_SUCCEED
    item: i64
    c.mapping.i_pages_lock.lock()
    while result == SCAN_SUCCEED and c.index < c.start + HPAGE_PMD_NR:
        item = page_cache_item(c.mapping, c.index)
        if item == 0:
            result = _fill_hole(k, c)
        else:
            result = _replace_page(k, c, item)
        if result == SCAN_SUCCEED:
            c.index += 1
    c.mapping.i_pages_lock.unlock()
    return result


def _fill_hole(k: Kernel, c: CollapseShmem) -> i32:
    """Put a piece of the new page where nothing is. i_pages_lock is held.

    v4.18 fills a file again that was emptied since it was scanned.
    """
    if c.index == c.start and k.profile.collapse_shmem_repairs:
        if not page_cache_has_any(c.mapping, c.start):
            return SCAN_TRUNCATED
    c.mapping.i_pages[c.index] = c.page + (c.index - c.start)
    c.mapping.nrpages += 1
    c.holes += 1
    return SCAN_SUCCEED


def _replace_page(k: Kernel, c: CollapseShmem, item: i64) -> i32:
    """Lock a page, isolate and unmap it, freeze it, and put a piece of the new page in its place.

    i_pages_lock is held at the call and at return, and given up in between. A page that stays is
    released.
    """
    page: i64 = item
    result: i32 = SCAN_SUCCEED
    if item < 0:
        # In swap: bring it in.
        c.mapping.i_pages_lock.unlock()
        page = shmem_getpage(k, c.mapping, c.index, SGP_NOHUGE, k.memcgs[0], None)
        c.mapping.i_pages_lock.lock()
        if page <= 0:
            return SCAN_FAIL
    elif not trylock_page(k, item):
        return SCAN_PAGE_LOCK
    else:
        get_page(k, item)
    if not PageLocked(k, page):
        BUG_PAGE("khugepaged.c collapse_shmem: the page is not locked", page)
    if PageTransCompound(k, page):
        if not k.profile.collapse_shmem_repairs:
            BUG_PAGE("khugepaged.c collapse_shmem: part of a huge page", page)
        result = SCAN_PAGE_COMPOUND
    elif not page_in_mapping(k, page, c.mapping):
        result = SCAN_TRUNCATED
    else:
        result = _freeze_page(k, c, page)
    if result != SCAN_SUCCEED:
        unlock_page(k, page)
        put_page(k, page)
    return result


def _freeze_page(k: Kernel, c: CollapseShmem, page: u64) -> i32:
    """Isolate, unmap and freeze a locked page, and take it out. i_pages_lock as above."""
    c.mapping.i_pages_lock.unlock()
    if isolate_lru_page(k, page):
        c.mapping.i_pages_lock.lock()
        return SCAN_DEL_PAGE_LRU
    if page_mapped(k, page):
        unmap_mapping_pages(k, c.mapping, c.index, 1, False)
    c.mapping.i_pages_lock.lock()
    if page_cache_item(c.mapping, c.index) != page or page_mapped(k, page):
        BUG_PAGE("khugepaged.c collapse_shmem: the page was replaced or mapped, locked", page)
    # Ours, the cache's and that of the isolation: nobody else may have one.
    if not page_ref_freeze(k, page, 3):
        c.mapping.i_pages_lock.unlock()
        putback_lru_page(k, page)
        c.mapping.i_pages_lock.lock()
        return SCAN_PAGE_COUNT
    c.pages.append(page)
    c.mapping.i_pages[c.index] = c.page + (c.index - c.start)
    return SCAN_SUCCEED


# ---------------------------------------------------------------- the end of it


def _finish(k: Kernel, c: CollapseShmem) -> i32:
    """Copy and free the old pages, let page tables go, and let the new page be found."""
    new: u64 = c.page
    old: u64
    for old in c.pages:
        copy_page_content(k, new + (page_index(k, old) - c.start), old)
        mod_lruvec_page_state(k, old, NR_FILE_PAGES, -1)
        mod_lruvec_page_state(k, old, NR_SHMEM, -1)
        unlock_page(k, old)
        page_ref_unfreeze(k, old, 1)
        set_page_mapping(k, old, 0)
        ClearPage(k, old, PG_active)
        ClearPage(k, old, PG_unevictable)
        ClearPage(k, old, PG_isolated)
        put_page(k, old)
    c.pages.clear()
    mod_node_page_state(k, NR_SHMEM_THPS, 1)
    mod_lruvec_page_state(k, new, NR_FILE_PAGES, HPAGE_PMD_NR)
    mod_lruvec_page_state(k, new, NR_SHMEM, HPAGE_PMD_NR)
    retract_page_tables(k, c.mapping, c.start)
    set_page_dirty(k, new)
    SetPage(k, new, PG_uptodate)
    # All references are the cache's.
    page_ref_unfreeze(k, new, HPAGE_PMD_NR)
    lru_cache_add(k, new)
    return unlock_page(k, new)


def _roll_back(k: Kernel, c: CollapseShmem) -> i32:
    """Put the old pages and the holes back where they were, and free the new page.

    v4.18 leaves the holes counted in nrpages.
    """
    new: u64 = c.page
    index: u64
    old: u64
    if k.profile.collapse_shmem_repairs:
        c.mapping.nrpages -= c.holes
    c.mapping.i_pages_lock.lock()
    for index in range(c.start, c.index):
        old = c.pages[0] if c.pages else 0
        if not old or index < page_index(k, old):
            del c.mapping.i_pages[index]
            c.holes -= 1
            continue
        c.pages.pop(0)
        page_ref_unfreeze(k, old, 2)
        c.mapping.i_pages[index] = old
        c.mapping.i_pages_lock.unlock()
        putback_lru_page(k, old)
        unlock_page(k, old)
        c.mapping.i_pages_lock.lock()
    if c.holes or c.pages:
        BUG("khugepaged.c collapse_shmem: holes or pages are left over")
    c.mapping.i_pages_lock.unlock()
    page_ref_unfreeze(k, new, 1)
    unlock_page(k, new)
    set_page_mapping(k, new, 0)
    return put_page(k, new)


def retract_page_tables(k: Kernel, mapping: AddressSpace, start: u64) -> i32:
    """Free the page tables of who maps all 512 pages, so that the next fault maps them by a PMD.

    Not those of a VMA with private pages, nor of a process whose mmap_sem is not to be had: these
    will map the huge page by PTEs.
    """
    mapping.i_mmap_rwsem.down_write()
    node: IntervalNode = interval_tree_iter_first(mapping.i_mmap, start, start)
    while node is not None:
        _retract(k, node.vma, start)
        node = interval_tree_iter_next(node, start, start)
    return mapping.i_mmap_rwsem.up_write()


def _retract(k: Kernel, vma: Vma, start: u64) -> i32:
    """Free one VMA's table; nothing is mapped by it any more. i_mmap_rwsem is held for write."""
    mm: Mm = vma.vm_mm
    if vma.anon_vma is not None:
        return 0
    address: u64 = vma.vm_start + ((start - vma.vm_pgoff) << PAGE_SHIFT)
    if address & ~PMD_MASK or vma.vm_end < address + HPAGE_PMD_SIZE:
        return 0
    pmd: u64 = mm_find_pmd(k, mm, address)
    if not pmd or not mm.mmap_sem.down_write_trylock():
        return 0
    table: u64 = pte_offset(k, pmd, address) // PTRS_PER_PTE
    pte_lock(k, pmd)
    pmdp_collapse_flush(k, vma, address, pmd)
    pte_unlock(k, pmd)
    mm.mmap_sem.up_write()
    _forget_poison(k, mm, address, table)
    pte_free_row(k, mm, table)
    if k.tracer is not None:
        k.tracer("retract_page_tables", (vma, address))
    return 0


def _forget_poison(k: Kernel, mm: Mm, address: u64, table: u64) -> i32:
    """Empty the entries of broken pages, which the kernel drops with the table that it frees.

    The broken page has left its file, and the huge page has zeroes in its place: the process that
    was to get SIGBUS reads these. Up to 5.16, where such a page stays in its file and stops this.
    """
    pte: u64
    i: u64
    first: u64 = table * PTRS_PER_PTE
    for i in range(PTRS_PER_PTE):
        pte = ptep_get(k, first + i)
        if pte and not pte_present(pte) and is_hwpoison_entry(pte_to_swp_entry(pte)):
            set_pte_at(k, mm, address + (i << PAGE_SHIFT), first + i, 0)
    return 0

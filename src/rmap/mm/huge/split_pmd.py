# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Splitting a PMD that maps a huge page into 512 entries; the page stays huge.

Parts of mm/huge_memory.c and include/linux/swapops.h of v4.18. Locks: the lock of the PMD's table,
which `split_huge_pmd` and `split_huge_pmd_address` take; inside of it what the LRU and the memcg
need. Callers hold mmap_sem, or the rmap lock of the page.

An anonymous page keeps all its mappings; they only are counted otherwise (`PageDoubleMap`). With
`freeze` they become migration entries, which is how a huge page is taken out of page tables that is
going to be split itself. A page of a file is just unmapped: faults find it again.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_SPECIAL,
        _PAGE_SWP_EXCLUSIVE,
        EBUSY,
        HPAGE_PMD_NR,
        HPAGE_PMD_SIZE,
        NR_ANON_THPS,
        PAGE_SIZE,
        PMD_MASK,
        PTRS_PER_PTE,
        SWP_HWPOISON,
        SWP_MIGRATION_READ,
        SWP_MIGRATION_WRITE,
        THP_SPLIT_PMD,
        PG_anon_exclusive,
        PG_dirty,
        PG_double_map,
        PG_mlocked,
        PG_referenced,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.huge.pgtable import (
        is_huge_zero_pmd,
        pgtable_trans_huge_withdraw,
        pmd_populate,
    )
    from rmap.mm.lru import put_page
    from rmap.mm.memory import maybe_mkwrite
    from rmap.mm.mlock_page import clear_page_mlock, munlock_vma_page_counted
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range,
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_only_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import (
        PageAnon,
        PageDirty,
        PageDoubleMap,
        PageFlag,
        PageLocked,
        SetPage,
        TestClearPage,
        TestSetPage,
        compound_mapcount,
        compound_mapcount_add_negative,
        mapcount_add_negative,
        mapcount_inc_and_test,
        mod_node_page_state,
        page_count,
        page_ref_add,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.page_vma_mapped import PageVmaMappedWalk
    from rmap.mm.pgtable import (
        assert_pte_locked,
        is_pmd_migration_entry,
        is_swap_pmd,
        is_write_migration_entry,
        pfn_pte,
        pmd_offset,
        pmd_trans_huge,
        pte_dirty,
        pte_lock,
        pte_mkold,
        pte_mksoft_dirty,
        pte_mkyoung,
        pte_none,
        pte_pfn,
        pte_soft_dirty,
        pte_swp_mksoft_dirty,
        pte_swp_soft_dirty,
        pte_to_swp_entry,
        pte_unlock,
        pte_write,
        pte_wrprotect,
        pte_young,
        ptep_get,
        set_pte_at,
        swp_entry,
        swp_entry_to_pte,
        swp_offset,
    )
    from rmap.mm.rmap_counts import page_remove_rmap, page_try_share_anon_rmap
    from rmap.mm.tlb import pmdp_huge_clear_flush, pmdp_invalidate
    from rmap.mm.vma import add_mm_counter, mm_counter_huge_file, vma_is_anonymous
    from rmap.scalar import flag, i32, u64
    from rmap.sync.core import sched


# ---------------------------------------------------------------- special entries
#
# Since 5.19 the entry of a page that was exclusive says so: one that permits writing always does,
# another by a bit.


def make_migration_entry(k: Kernel, page: u64, write: flag) -> u64:
    """The swp_entry_t of a page that is being moved, and is locked (include/linux/swapops.h)."""
    if not PageLocked(k, page):
        BUG_PAGE("swapops.h make_migration_entry: the page is not locked", page)
    return swp_entry(SWP_MIGRATION_WRITE if write else SWP_MIGRATION_READ, page)


def make_hwpoison_entry(k: Kernel, page: u64) -> u64:
    """The swp_entry_t of a page whose memory is broken, and is locked."""
    if not PageLocked(k, page):
        BUG_PAGE("swapops.h make_hwpoison_entry: the page is not locked", page)
    return swp_entry(SWP_HWPOISON, page)


def set_pmd_migration_entry(k: Kernel, pvmw: PageVmaMappedWalk, page: u64) -> i32:
    """Replace the PMD that maps a huge page by a migration entry (mm/huge_memory.c, v4.18).

    v4.18 tells secondary MMUs once more what try_to_unmap_one() has told them already. Returns 0,
    or -EBUSY (since 5.19) if the page is this process's alone and may be pinned: the PMD stays.
    """
    vma: Vma = pvmw.vma
    mm: Mm = vma.vm_mm
    address: u64 = pvmw.address
    if not k.profile.pmd_migration_notifies_once:
        mmu_notifier_invalidate_range_start(k, mm, address, address + HPAGE_PMD_SIZE)
    pmdval: u64 = pmdp_invalidate(k, vma, address, pvmw.pmd)
    exclusive: flag = k.profile.anon_exclusive and PageFlag(k, page, PG_anon_exclusive)
    if exclusive and page_try_share_anon_rmap(k, page) < 0:
        set_pte_at(k, mm, address, pvmw.pmd, pmdval)
        if not k.profile.pmd_migration_notifies_once:
            mmu_notifier_invalidate_range_end(k, mm, address, address + HPAGE_PMD_SIZE)
        return -EBUSY
    if pte_dirty(pmdval):
        set_page_dirty(k, page)
    swp_pmd: u64 = swp_entry_to_pte(make_migration_entry(k, page, pte_write(pmdval)))
    if exclusive and not pte_write(pmdval):
        swp_pmd |= _PAGE_SWP_EXCLUSIVE
    if pte_soft_dirty(pmdval):
        swp_pmd = pte_swp_mksoft_dirty(swp_pmd)
    set_pte_at(k, mm, address, pvmw.pmd, swp_pmd)
    page_remove_rmap(k, page, True)
    if k.profile.mlock_counts:
        munlock_vma_page_counted(k, page, vma, True)
    put_page(k, page)
    if not k.profile.pmd_migration_notifies_once:
        mmu_notifier_invalidate_range_end(k, mm, address, address + HPAGE_PMD_SIZE)
    return 0


# ---------------------------------------------------------------- where to split


def split_huge_pmd_address(k: Kernel, vma: Vma, address: u64, freeze: flag, page: u64) -> i32:
    """Split the PMD that maps a huge page at an address; most often there is none.

    mm/huge_memory.c:2379 (v4.18). A table is left alone, and so is the PMD of another page than
    `page` if that is given, though secondary MMUs hear of it.
    """
    pmd: u64 = pmd_offset(k, vma.vm_mm, address)
    if not pmd:
        return 0
    return __split_huge_pmd(k, vma, pmd, address, freeze, page)


def split_huge_pmd(k: Kernel, vma: Vma, pmd: u64, address: u64) -> i32:
    """Split a PMD if it maps a huge page or waits for one (include/linux/huge_mm.h:128)."""
    pmde: u64 = ptep_get(k, pmd)
    if is_swap_pmd(pmde) or pmd_trans_huge(pmde):
        return __split_huge_pmd(k, vma, pmd, address, False, 0)
    return 0


def __split_huge_pmd(k: Kernel, vma: Vma, pmd: u64, address: u64, freeze: flag, page: u64) -> i32:
    """Split a PMD under its lock, if there still is something to split.

    mm/huge_memory.c:2339 (v4.18). To freeze, the page has to be named, lest it be another one.
    """
    mm: Mm = vma.vm_mm
    start: u64 = address & PMD_MASK
    mmu_notifier_invalidate_range_start(k, mm, start, start + HPAGE_PMD_SIZE)
    pte_lock(k, pmd)
    if freeze and not page:
        BUG("huge_memory.c:2350 __split_huge_pmd: a freeze of no page in particular")
    pmde: u64 = ptep_get(k, pmd)
    if pmd_trans_huge(pmde):
        if not page or pte_pfn(pmde) == page:
            # What PTEs map is never mlocked. (Since mlock is counted, that is done below.)
            if k.pg_flags[pte_pfn(pmde)] & PG_mlocked and not k.profile.mlock_counts:
                clear_page_mlock(k, pte_pfn(pmde))
            _split_huge_pmd_locked(k, vma, pmd, start, freeze)
    elif not page and is_pmd_migration_entry(pmde):
        _split_huge_pmd_locked(k, vma, pmd, start, freeze)
    pte_unlock(k, pmd)
    # That the entries changed was said under the lock wherever it matters.
    mmu_notifier_invalidate_range_only_end(k, mm, start, start + HPAGE_PMD_SIZE)
    return 0


def _split_huge_pmd_locked(k: Kernel, vma: Vma, pmd: u64, start: u64, freeze: flag) -> i32:
    """Replace a PMD by a table, or by nothing (mm/huge_memory.c:2192, v4.18)."""
    assert_pte_locked(k, pmd)
    if vma.vm_start > start or vma.vm_end < start + HPAGE_PMD_SIZE:
        BUG("huge_memory.c:2206 __split_huge_pmd_locked: the PMD reaches beyond the VMA")
    k.vm_stat[THP_SPLIT_PMD] += 1
    if not vma_is_anonymous(vma):
        _unmap_file_pmd(k, vma, pmd, start)
    elif is_huge_zero_pmd(k, k.pt[pmd]):
        _split_zero_pmd(k, vma, pmd, start)
    else:
        _split_anon_pmd(k, vma, pmd, start, freeze)
    if k.tracer is not None:
        k.tracer("__split_huge_pmd", (vma, start, freeze))
    return 0


def _unmap_file_pmd(k: Kernel, vma: Vma, pmd: u64, start: u64) -> i32:
    """Unmap a huge page of a file: what the PMD knew goes to the page (huge_memory.c:2213)."""
    mm: Mm = vma.vm_mm
    page: u64
    if is_swap_pmd(k.pt[pmd]):
        # A page that waits for its move was unmapped already.
        if not k.profile.split_spares_migrating:
            BUG("pgtable-generic.c pmdp_huge_clear_flush: not a PMD that maps a page")
        page = swp_offset(pte_to_swp_entry(k.pt[pmd]))
        set_pte_at(k, mm, start, pmd, 0)
        return add_mm_counter(k, mm, mm_counter_huge_file(k, page), -HPAGE_PMD_NR)
    old: u64 = pmdp_huge_clear_flush(k, vma, start, pmd)
    mmu_notifier_invalidate_range(k, mm, start, start + HPAGE_PMD_SIZE)
    page = pte_pfn(old)
    if not PageDirty(k, page) and pte_dirty(old):
        set_page_dirty(k, page)
    if pte_young(old):
        SetPage(k, page, PG_referenced)
    page_remove_rmap(k, page, True)
    if k.profile.mlock_counts:
        munlock_vma_page_counted(k, page, vma, True)
    add_mm_counter(k, mm, mm_counter_huge_file(k, page), -HPAGE_PMD_NR)
    return put_page(k, page)


def _split_zero_pmd(k: Kernel, vma: Vma, pmd: u64, start: u64) -> i32:
    """Map the small zero page 512 times in place of the huge one (mm/huge_memory.c:2162).

    Both read as zeros and neither can be written to, so nobody need hear of it at once.
    """
    mm: Mm = vma.vm_mm
    pmdp_huge_clear_flush(k, vma, start, pmd)
    row: u64 = pgtable_trans_huge_withdraw(k, mm, pmd)
    entry: u64 = pfn_pte(k.zero_page, vma.vm_page_prot) | _PAGE_SPECIAL
    i: u64
    for i in range(HPAGE_PMD_NR):
        set_pte_at(k, mm, start + i * PAGE_SIZE, row * PTRS_PER_PTE + i, entry)
    return pmd_populate(k, mm, pmd, row)


# ---------------------------------------------------------------- anonymous pages


class SplitPmd:
    """What a PMD said that is being split: the page, and what is to become of each entry."""

    def __init__(self, page: u64, migrating: bool) -> None:
        self.page = page
        self.migrating = migrating
        self.write = False
        self.young = False
        self.soft_dirty = False
        self.exclusive = False


def _split_anon_pmd(k: Kernel, vma: Vma, pmd: u64, start: u64, freeze: flag) -> i32:
    """Map the 512 parts of an anonymous huge page one by one (mm/huge_memory.c:2238-2331).

    The PMD is made unusable first, and replaced only when the table is complete: at no moment can
    a CPU have both kinds of translation, which some processors would answer with an exception.
    """
    mm: Mm = vma.vm_mm
    old: u64 = pmdp_invalidate(k, vma, start, pmd)
    split: SplitPmd = _what_it_said(k, old)
    page: u64 = split.page
    # v4.18 counts the parts of a page that waits for its move, too, although nothing maps it.
    counts: flag = not split.migrating or not k.profile.split_spares_migrating
    if split.exclusive and freeze and page_try_share_anon_rmap(k, page) < 0:
        # It may be pinned: split it only, and let who wanted to freeze it find it mapped.
        freeze = False
    if counts:
        if not page_count(k, page):
            BUG_PAGE("huge_memory.c:2263 __split_huge_pmd_locked: a page without references", page)
        page_ref_add(k, page, HPAGE_PMD_NR - 1)
    row: u64 = pgtable_trans_huge_withdraw(k, mm, pmd)
    _fill_table(k, vma, row, start, split, freeze or split.migrating, counts)
    if counts:
        _count_split(k, page)
    pmd_populate(k, mm, pmd, row)
    if k.profile.mlock_counts and not split.migrating:
        munlock_vma_page_counted(k, page, vma, True)
    if freeze:
        _drop_frozen(k, page)
    return 0


def _what_it_said(k: Kernel, old: u64) -> SplitPmd:
    """Read a PMD of an anonymous huge page; that it was written through goes to the page."""
    split: SplitPmd
    if is_pmd_migration_entry(old):
        split = SplitPmd(swp_offset(pte_to_swp_entry(old)), True)
        split.write = is_write_migration_entry(pte_to_swp_entry(old))
        split.soft_dirty = pte_swp_soft_dirty(old)
        split.exclusive = old & _PAGE_SWP_EXCLUSIVE != 0
        return split
    split = SplitPmd(pte_pfn(old), False)
    if pte_dirty(old):
        SetPage(k, split.page, PG_dirty)
    split.write = pte_write(old)
    split.young = pte_young(old)
    split.soft_dirty = pte_soft_dirty(old)
    split.exclusive = k.profile.anon_exclusive and PageFlag(k, split.page, PG_anon_exclusive)
    return split


def _fill_table(
    k: Kernel, vma: Vma, row: u64, start: u64, split: SplitPmd, swap: flag, counts: flag
) -> i32:
    """Fill the table with entries that map the parts, or (`swap`) with migration entries."""
    mm: Mm = vma.vm_mm
    page: u64
    ptep: u64
    entry: u64
    i: u64
    # Where a migration gave PMDs and PTEs back, NR_ANON_MAPPED has such parts twice for good. (Two
    # CPUs that split two PMDs of a page at once would take each other's counts for such.)
    alone: flag = not sched.exploring and not PageDoubleMap(k, split.page)
    for i in range(HPAGE_PMD_NR):
        page = split.page + i
        ptep = row * PTRS_PER_PTE + i
        if swap:
            entry = swp_entry_to_pte(make_migration_entry(k, page, split.write))
            if split.exclusive and not split.write:
                entry |= _PAGE_SWP_EXCLUSIVE
            if split.soft_dirty:
                entry = pte_swp_mksoft_dirty(entry)
        else:
            entry = maybe_mkwrite(pfn_pte(page, vma.vm_page_prot), vma)
            if not split.write:
                entry = pte_wrprotect(entry)
            entry = pte_mkyoung(entry) if split.young else pte_mkold(entry)
            if split.soft_dirty:
                entry = pte_mksoft_dirty(entry)
            if split.exclusive:
                SetPage(k, page, PG_anon_exclusive)
        if not pte_none(ptep_get(k, ptep)):
            BUG("huge_memory.c:2296 __split_huge_pmd_locked: a table set aside is not empty")
        set_pte_at(k, mm, start + i * PAGE_SIZE, ptep, entry)
        if counts and not mapcount_inc_and_test(k, page) and alone:
            k.anon_mapped_twice += 1
    return 0


def _count_split(k: Kernel, page: u64) -> i32:
    """Count a mapping of the whole as 512 of the parts (mm/huge_memory.c:2302-2319).

    While other PMDs map the page, each part has one count in their name: an unmapped PTE cannot
    bring it to zero then. PG_double_map says that these are there.
    """
    i: u64
    if compound_mapcount(k, page) > 1 and not TestSetPage(k, page + 1, PG_double_map):
        for i in range(HPAGE_PMD_NR):
            mapcount_inc_and_test(k, page + i)
    if compound_mapcount_add_negative(k, page):
        mod_node_page_state(k, NR_ANON_THPS, -1)
        if TestClearPage(k, page + 1, PG_double_map):
            for i in range(HPAGE_PMD_NR):
                mapcount_add_negative(k, page + i)
    return 0


def _drop_frozen(k: Kernel, page: u64) -> i32:
    """Take the mappings of the parts away again, whose entries say migration by now."""
    i: u64
    if not PageAnon(k, page):
        BUG_PAGE("huge_memory.c:2326 __split_huge_pmd_locked: a freeze of a page of a file", page)
    for i in range(HPAGE_PMD_NR):
        page_remove_rmap(k, page + i, False)
        put_page(k, page + i)
    return 0

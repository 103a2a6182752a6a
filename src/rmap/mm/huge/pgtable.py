# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""PMDs that map huge pages: their locks, the tables kept for them, where a huge page may be.

Parts of mm/huge_memory.c, mm/pgtable-generic.c and include/linux/huge_mm.h of v4.18. Locks: that of
the table of PMDs, which `pmd_trans_huge_lock` takes, and which the others want held where they say
so.

Splitting a PMD must not fail, so for each PMD that maps an anonymous huge page a table of PTEs is
set aside beforehand. It counts as one of the address space's tables.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        _PAGE_RW,
        _PAGE_USER,
        GFP_TRANSHUGE,
        GFP_TRANSHUGE_KSWAPD,
        GFP_TRANSHUGE_LIGHT,
        HPAGE_PMD_NR,
        HPAGE_PMD_ORDER,
        HPAGE_PMD_SIZE,
        PAGE_SHIFT,
        PMD_MASK,
        PTRS_PER_PTE,
        THP_ALWAYS,
        THP_DEFRAG_ALWAYS,
        THP_DEFRAG_DEFER,
        THP_DEFRAG_DEFER_MADVISE,
        THP_DEFRAG_MADVISE,
        THP_MADVISE,
        THP_ZERO_PAGE_ALLOC,
        THP_ZERO_PAGE_ALLOC_FAILED,
        VM_HUGEPAGE,
        VM_NOHUGEPAGE,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.lru import put_page
    from rmap.mm.memory import init_zero_pfn
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.page import compound_order
    from rmap.mm.page_alloc import alloc_pages
    from rmap.mm.pgtable import (
        assert_pte_locked,
        is_swap_pmd,
        pmd_trans_huge,
        pte_free_row,
        pte_lock,
        pte_none,
        pte_pfn,
        pte_unlock,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.vma import is_vma_temporary_stack
    from rmap.scalar import flag, i32, i64, u64

# References to the huge zero page besides those of the address spaces: the cache's own.
ZERO_CACHED = cython.declare(cython.int, 1)


# ---------------------------------------------------------------- entries and their lock


def mk_huge_pmd(page: u64, prot: u64) -> u64:
    """The PMD that maps a huge page with given protection bits."""
    return page << PAGE_SHIFT | prot | _PAGE_PSE


def pmd_protnone(pmd: u64) -> flag:
    """Whether a PMD maps a page that may not be accessed."""
    return pmd & (_PAGE_PRESENT | _PAGE_PROTNONE) == _PAGE_PROTNONE


def pmd_trans_huge_lock(k: Kernel, pmd: u64) -> flag:
    """Take the lock of the PMD's table, if the PMD maps a huge page or waits for one.

    __pmd_trans_huge_lock(), mm/huge_memory.c:1786 (v4.18). Otherwise nothing is held.
    """
    pte_lock(k, pmd)
    pmde: u64 = ptep_get(k, pmd)
    if is_swap_pmd(pmde) or pmd_trans_huge(pmde):
        return True
    pte_unlock(k, pmd)
    return False


def pmd_trans_unstable(k: Kernel, pmd: u64) -> flag:
    """Whether a PMD has no table below it that could be worked on.

    With mmap_sem held for read, another thread may change an empty PMD to one that maps a huge
    page, or the other way round, at any moment; but a table stays a table.
    """
    pmde: u64 = k.pt[pmd]
    return not pmde & _PAGE_PRESENT or pmde & _PAGE_PSE != 0


# ---------------------------------------------------------------- tables set aside


def pgtable_trans_huge_deposit(k: Kernel, mm: Mm, pmd: u64, row: u64) -> i32:
    """Set a table aside for the PMD; the lock of the PMD's table is held.

    mm/pgtable-generic.c (v4.18).
    """
    assert_pte_locked(k, pmd)
    table: u64 = pmd // PTRS_PER_PTE
    rows: list = k.pmd_huge_pte.get(table)
    if rows is None:
        rows = []
        k.pmd_huge_pte[table] = rows
    rows.append(row)
    return 0


def pgtable_trans_huge_withdraw(k: Kernel, mm: Mm, pmd: u64) -> u64:
    """Take the table that was set aside first; the lock of the PMD's table is held."""
    assert_pte_locked(k, pmd)
    table: u64 = pmd // PTRS_PER_PTE
    rows: list = k.pmd_huge_pte.get(table)
    if rows is None:
        BUG("pgtable-generic.c pgtable_trans_huge_withdraw: no table was set aside")
    row: u64 = rows.pop(0)
    if not rows:
        del k.pmd_huge_pte[table]
    return row


def zap_deposited_table(k: Kernel, mm: Mm, pmd: u64) -> i32:
    """Free a table that was set aside (mm/huge_memory.c:1689, v4.18)."""
    return pte_free_row(k, mm, pgtable_trans_huge_withdraw(k, mm, pmd))


def pmd_populate(k: Kernel, mm: Mm, pmd: u64, row: u64) -> i32:
    """Hang a table below a PMD; the lock of the PMD's table is held."""
    return set_pte_at(k, mm, 0, pmd, row << PAGE_SHIFT | _PAGE_PRESENT | _PAGE_RW | _PAGE_USER)


# ---------------------------------------------------------------- where a huge page may be


def transparent_hugepage_enabled(k: Kernel, vma: Vma) -> flag:
    """Whether faults in a VMA look for huge pages (include/linux/huge_mm.h:93, v4.18)."""
    if vma.vm_flags & VM_NOHUGEPAGE:
        return False
    if is_vma_temporary_stack(vma):
        return False
    if k.thp_enabled == THP_ALWAYS:
        return True
    return k.thp_enabled == THP_MADVISE and vma.vm_flags & VM_HUGEPAGE != 0


def transhuge_vma_suitable(vma: Vma, address: u64) -> flag:
    """Whether a PMD at the address can map a huge page of the VMA's file (mm/memory.c, v4.18).

    Addresses and indices must be aligned alike, and the VMA must have the whole range.
    """
    within: u64 = HPAGE_PMD_NR - 1
    if (vma.vm_start >> PAGE_SHIFT) & within != vma.vm_pgoff & within:
        return False
    return transhuge_range_fits(vma, address)


def transhuge_range_fits(vma: Vma, address: u64) -> flag:
    """Whether the 2 MiB around an address all lie in the VMA."""
    start: u64 = address & PMD_MASK
    return start >= vma.vm_start and start + HPAGE_PMD_SIZE <= vma.vm_end


# ---------------------------------------------------------------- memory for huge pages


def alloc_hugepage_direct_gfpmask(k: Kernel, vma: Vma) -> u64:
    """How hard a fault tries to get a huge page, by ``thp_defrag`` (mm/huge_memory.c:628, v4.18).

    Without direct reclaim the fault takes what lies ready, or falls back to small pages.
    """
    advised: flag = vma.vm_flags & VM_HUGEPAGE != 0
    if k.thp_defrag == THP_DEFRAG_ALWAYS:
        return GFP_TRANSHUGE
    if k.thp_defrag == THP_DEFRAG_DEFER:
        return GFP_TRANSHUGE_KSWAPD
    if k.thp_defrag == THP_DEFRAG_DEFER_MADVISE:
        return GFP_TRANSHUGE if advised else GFP_TRANSHUGE_KSWAPD
    if k.thp_defrag == THP_DEFRAG_MADVISE and advised:
        return GFP_TRANSHUGE
    return GFP_TRANSHUGE_LIGHT


def alloc_transhuge_page(k: Kernel, gfp: u64) -> u64:
    """Take a transparent huge page, zeroed; 0 if there is none, or by injection ("huge_page").

    alloc_hugepage_vma() and prep_transhuge_page().
    """
    if k.inject is not None and k.inject.should_fail("huge_page"):
        return 0
    page: u64 = alloc_pages(k, gfp, HPAGE_PMD_ORDER)
    if page:
        prep_transhuge_page(k, page)
        k.pg_flags[page] |= PG_uptodate
    return page


def prep_transhuge_page(k: Kernel, page: u64) -> i32:
    """Make a new compound page a transparent huge page (mm/huge_memory.c:511, v4.18).

    Its being none of hugetlb's is all that tells: freeing it takes it off the list of pages that
    are to be split, on which it is not yet.
    """
    if compound_order(k, page) != HPAGE_PMD_ORDER or page in k.deferred_split_queue:
        BUG_PAGE("huge_memory.c:511 prep_transhuge_page: not a new page of 2 MiB", page)
    return 0


# ---------------------------------------------------------------- the huge zero page


def is_huge_zero_page(k: Kernel, page: u64) -> flag:
    """Whether a page is the head of the huge zero page."""
    return page != 0 and page == k.huge_zero_page


def is_huge_zero_pmd(k: Kernel, pmd: u64) -> flag:
    """Whether a PMD maps the huge zero page."""
    return k.huge_zero_page != 0 and pmd_trans_huge(pmd) and pte_pfn(pmd) == k.huge_zero_page


def mm_get_huge_zero_page(k: Kernel, mm: Mm) -> u64:
    """The huge zero page, made if there is none, with a reference of the address space.

    mm/huge_memory.c:117 (v4.18). Returns 0 if it cannot be made. An address space takes one
    reference, however often it maps the page; mappings take none.
    """
    if mm.has_huge_zero_page:
        return k.huge_zero_page
    if not k.huge_zero_page:
        # What a split of its PMD maps instead has to be there, too.
        page: u64 = alloc_transhuge_page(k, GFP_TRANSHUGE) if init_zero_pfn(k) else 0
        if not page:
            k.vm_stat[THP_ZERO_PAGE_ALLOC_FAILED] += 1
            return 0
        k.vm_stat[THP_ZERO_PAGE_ALLOC] += 1
        k.huge_zero_page = page
        k.huge_zero_refcount = ZERO_CACHED
    k.huge_zero_refcount += 1
    mm.has_huge_zero_page = True
    return k.huge_zero_page


def mm_put_huge_zero_page(k: Kernel, mm: Mm) -> i32:
    """Drop the reference of an address space that has ended (mm/huge_memory.c:131, v4.18)."""
    if mm.has_huge_zero_page:
        mm.has_huge_zero_page = False
        k.huge_zero_refcount -= 1
        if k.huge_zero_refcount < ZERO_CACHED:
            BUG("huge_memory.c:94 put_huge_zero_page: more references dropped than taken")
    return 0


def shrink_huge_zero_page_scan(k: Kernel) -> i64:
    """Free the huge zero page if no address space uses it; how many pages that gave.

    A shrinker of reclaim (mm/huge_memory.c:146, v4.18).
    """
    if not k.huge_zero_page or k.huge_zero_refcount != ZERO_CACHED:
        return 0
    page: u64 = k.huge_zero_page
    k.huge_zero_page = 0
    k.huge_zero_refcount = 0
    put_page(k, page)
    return HPAGE_PMD_NR


def set_huge_zero_page(
    k: Kernel, row: u64, mm: Mm, vma: Vma, address: u64, pmd: u64, zero: u64
) -> flag:
    """Map the huge zero page, unless something is there; whether it was mapped.

    mm/huge_memory.c:660 (v4.18). The lock of the PMD's table is held; `row` is the table that is
    set aside. No count knows of the mapping.
    """
    if not pte_none(ptep_get(k, pmd)):
        return False
    pgtable_trans_huge_deposit(k, mm, pmd, row)
    set_pte_at(k, mm, address & PMD_MASK, pmd, mk_huge_pmd(zero, vma.vm_page_prot))
    return True

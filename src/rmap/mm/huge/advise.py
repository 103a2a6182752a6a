# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Advice about memory that huge pages hold (mm/huge_memory.c, v4.18; mm/madvise.c, v4.18 and v5.4).

Locks: mmap_sem is held for read. That of a page table is taken, or held by the caller and given
back for a while; page locks are only tried for under it. What splitting takes is taken without it.

An advice about all of a huge page goes to that as a whole; one about parts of it splits it, if
nobody else has it, for the parts that are not given up.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        HPAGE_PMD_SIZE,
        PG_dirty,
        PG_referenced,
        PG_unevictable,
        PG_young,
    )
    from rmap.mm.huge.pgtable import is_huge_zero_pmd, pmd_trans_huge_lock
    from rmap.mm.huge.split_page import split_huge_page
    from rmap.mm.lru import (
        deactivate_page,
        isolate_lru_page,
        mark_page_lazyfree,
        put_page,
        putback_lru_page,
    )
    from rmap.mm.mm_types import Kernel, Vma
    from rmap.mm.mmu_gather import MmuGather, tlb_adjust_range
    from rmap.mm.page import (
        ClearPage,
        PageFlag,
        TestClearPage,
        get_page,
        lock_page,
        page_mapcount,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.pgtable import (
        pmd_present,
        pte_dirty,
        pte_lock,
        pte_mkclean,
        pte_mkold,
        pte_pfn,
        pte_unlock,
        pte_young,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.tlb import pmdp_invalidate
    from rmap.scalar import flag, i32, u64


# ---------------------------------------------------------------- mapped by PTEs


def split_own_huge_page(k: Kernel, first: u64, page: u64) -> flag:
    """Split a huge page of which an entry maps `page`, if that is its only mapping; whether it was.

    The lock of the table at `first` is held, given back to split, and taken again.
    """
    if page_mapcount(k, page) != 1:
        return False
    get_page(k, page)
    if not trylock_page(k, page):
        put_page(k, page)
        return False
    pte_unlock(k, first)
    split: flag = split_huge_page(k, page) == 0
    unlock_page(k, page)
    put_page(k, page)
    pte_lock(k, first)
    return split


# ---------------------------------------------------------------- mapped by a PMD


def madvise_free_huge_pmd(
    k: Kernel, tlb: MmuGather, vma: Vma, pmd: u64, address: u64, end: u64
) -> flag:
    """Make a huge page clean, so that reclaim may drop it (mm/huge_memory.c:1550, v4.18).

    False if the caller is to look again: at a table now, maybe. Nothing is done to a page that
    others map, as it could not be dropped before all of them gave it up.
    """
    if not pmd_trans_huge_lock(k, pmd):
        return False
    orig_pmd: u64 = ptep_get(k, pmd)
    page: u64 = pte_pfn(orig_pmd)
    if is_huge_zero_pmd(k, orig_pmd) or not pmd_present(orig_pmd):
        pte_unlock(k, pmd)
        return False
    if page_mapcount(k, page) != 1 or not trylock_page(k, page):
        pte_unlock(k, pmd)
        return False
    if end - address != HPAGE_PMD_SIZE:
        get_page(k, page)
        pte_unlock(k, pmd)
        split_huge_page(k, page)
        unlock_page(k, page)
        put_page(k, page)
        return False
    ClearPage(k, page, PG_dirty)
    unlock_page(k, page)
    if pte_young(orig_pmd) or pte_dirty(orig_pmd):
        pmdp_invalidate(k, vma, address, pmd)
        set_pte_at(k, vma.vm_mm, address, pmd, pte_mkclean(pte_mkold(orig_pmd)))
        tlb_adjust_range(tlb, address, end)
    mark_page_lazyfree(k, page)
    pte_unlock(k, pmd)
    return True


def cold_huge_pmd(
    k: Kernel, tlb: MmuGather, vma: Vma, pmd: u64, address: u64, end: u64, pages: list | None
) -> flag:
    """Make a huge page the first that reclaim looks at, or isolate it into `pages` (v5.4).

    madvise_cold_or_pageout_pte_range(). False if the page was split, as not all of it was meant:
    then the entries of the table are to be looked at.
    """
    if not pmd_trans_huge_lock(k, pmd):
        return True
    orig_pmd: u64 = ptep_get(k, pmd)
    page: u64 = pte_pfn(orig_pmd)
    whole: flag = end - address == HPAGE_PMD_SIZE
    if is_huge_zero_pmd(k, orig_pmd) or not pmd_present(orig_pmd):
        pte_unlock(k, pmd)
        return True
    if (k.profile.cold_spares_shared or not whole) and page_mapcount(k, page) != 1:
        pte_unlock(k, pmd)
        return True
    if not whole:
        get_page(k, page)
        pte_unlock(k, pmd)
        return not _split_waiting(k, page)
    if pte_young(orig_pmd):
        pmdp_invalidate(k, vma, address, pmd)
        set_pte_at(k, vma.vm_mm, address, pmd, pte_mkold(orig_pmd))
        tlb_adjust_range(tlb, address, end)
    cool_page(k, page, pages)
    pte_unlock(k, pmd)
    return True


def _split_waiting(k: Kernel, page: u64) -> flag:
    """Split a huge page to which a reference was taken; whether that worked."""
    lock_page(k, page)
    split: flag = split_huge_page(k, page) == 0
    unlock_page(k, page)
    put_page(k, page)
    return split


def cool_page(k: Kernel, page: u64, pages: list | None) -> i32:
    """Forget the uses of a page, and move it to the inactive list or isolate it for reclaim."""
    TestClearPage(k, page, PG_young)
    ClearPage(k, page, PG_referenced)
    if pages is None:
        return deactivate_page(k, page)
    if isolate_lru_page(k, page) == 0:
        if PageFlag(k, page, PG_unevictable):
            putback_lru_page(k, page)
        else:
            pages.insert(0, page)
    return 0

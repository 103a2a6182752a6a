# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Write-protect and clean all shared mappings of a page of a file: page_mkclean().

mm/rmap.c:883-988 (v4.18). Locks, outermost first: the page lock (the caller's), i_mmap_rwsem for
read, page-table locks one at a time. Afterwards the next write to the page faults, so that its file
hears of it.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import PAGE_SIZE, PMD_MASK, PVMW_SYNC, VM_SHARED
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.mm_types import Kernel, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import PageLocked, compound_order, page_mapped, page_mapping
    from rmap.mm.page_vma_mapped import PageVmaMappedWalk, page_vma_mapped_walk
    from rmap.mm.pgtable import (
        pte_dirty,
        pte_mkclean,
        pte_write,
        pte_wrprotect,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk
    from rmap.mm.tlb import pmdp_huge_clear_flush, pmdp_invalidate, ptep_clear_flush
    from rmap.scalar import flag, i32, u64


class PageMkcleanControl(RmapWalkControl):
    """The walk of `page_mkclean`: `cleaned` counts the entries that it changed."""

    def __init__(self) -> None:
        self.cleaned = 0
        self.pvmw = PageVmaMappedWalk(0, None, 0)

    def rmap_one(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Clean one VMA."""
        return page_mkclean_one(k, page, vma, address, self)

    def invalid_vma(self, k: Kernel, vma: Vma) -> flag:
        """invalid_mkclean_vma(): what a private VMA wrote never gets to the file (L957).

        Locks: needs i_mmap_rwsem, by the walk, which keeps the VMA; takes none.
        """
        if vma.vm_flags & VM_SHARED:  # L959
            return False
        return True


def page_mkclean_one(k: Kernel, page: u64, vma: Vma, address: u64, rwc: PageMkcleanControl) -> flag:
    """Clean the mappings of one VMA (mm/rmap.c:883, v4.18); always goes on.

    PVMW_SYNC, as a dirty entry that is missed is data that is lost. No ``invalidate_range`` in
    between: the entries still point to the same page.

    Locks: needs i_mmap_rwsem and the page lock, by the walk; takes page-table locks, one at a time.
    """
    start: u64 = address
    one: u64 = PAGE_SIZE
    end: u64 = start + (one << compound_order(k, page))
    if end > vma.vm_end:
        end = vma.vm_end
    mmu_notifier_invalidate_range_start(k, vma.vm_mm, start, end)  # L900
    pvmw: PageVmaMappedWalk = rwc.pvmw
    pvmw.start(page, vma, address, PVMW_SYNC)
    ret: flag
    while page_vma_mapped_walk(k, pvmw):
        if pvmw.pte:  # L908
            ret = _clean_pte(k, vma, pvmw.address, pvmw.pte)
        else:
            ret = _clean_pmd(k, vma, pvmw.address, pvmw.pmd)
        if ret:  # L949
            rwc.cleaned += 1
    if k.tracer is not None:
        k.tracer("page_mkclean_one", (page, vma, start, rwc.cleaned))
    mmu_notifier_invalidate_range_end(k, vma.vm_mm, start, end)
    return True


def _clean_pte(k: Kernel, vma: Vma, address: u64, pte: u64) -> flag:
    """Make an entry clean and read-only; whether it was not both. Its accessed bit stays."""
    entry: u64 = ptep_get(k, pte)
    if not pte_dirty(entry) and not pte_write(entry):  # L911
        return False
    entry = ptep_clear_flush(k, vma, address, pte)  # L915
    entry = pte_wrprotect(entry)
    entry = pte_mkclean(entry)
    set_pte_at(k, vma.vm_mm, address, pte, entry)
    return True


def _clean_pmd(k: Kernel, vma: Vma, address: u64, pmd: u64) -> flag:
    """The same for a PMD that maps a huge page; for a moment there is none in v4.18."""
    entry: u64 = ptep_get(k, pmd)
    if not pte_dirty(entry) and not pte_write(entry):  # L925
        return False
    if k.profile.mkclean_keeps_pmd:
        entry = pmdp_invalidate(k, vma, address & PMD_MASK, pmd)
    else:
        entry = pmdp_huge_clear_flush(k, vma, address, pmd)
    entry = pte_wrprotect(entry)
    entry = pte_mkclean(entry)
    set_pte_at(k, vma.vm_mm, address & PMD_MASK, pmd, entry)
    return True


def page_mkclean(k: Kernel, page: u64) -> i32:
    """Clean and write-protect every shared mapping of a page, which is locked; how many it were.

    mm/rmap.c:965 (v4.18). Before a page is written out: if this is not 0 it is dirty, whatever its
    flag says. Of a page in the swap cache nothing is cleaned, as its VMAs are private.

    Locks: needs the page lock; takes i_mmap_rwsem for read, and page-table locks inside of it.
    """
    if not PageLocked(k, page):  # L975
        BUG_PAGE("rmap.c:975 page_mkclean: the page is not locked", page)
    if not page_mapped(k, page):  # L977
        return 0
    if page_mapping(k, page) is None:  # L981
        return 0
    rwc: PageMkcleanControl = PageMkcleanControl()
    rmap_walk(k, page, rwc)
    return rwc.cleaned

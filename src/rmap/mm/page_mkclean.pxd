# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.inline cimport compound_order, page_mapped, PageLocked, pte_dirty, pte_write
from rmap.mm.inline cimport ptep_get, set_pte_at
from rmap.mm.mm_types cimport AddressSpace, Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page cimport page_mapping
from rmap.mm.page_vma_mapped cimport PageVmaMappedWalk, page_vma_mapped_walk
from rmap.mm.pgtable cimport pte_mkclean, pte_wrprotect
from rmap.mm.rmap_walk cimport RmapWalkControl, rmap_walk
from rmap.mm.tlb cimport pmdp_huge_clear_flush, pmdp_invalidate, ptep_clear_flush

cdef class PageMkcleanControl(RmapWalkControl):
    cdef public i32 cleaned
    cdef PageVmaMappedWalk pvmw

cpdef flag page_mkclean_one(
    Kernel k, u64 page, Vma vma, u64 address, PageMkcleanControl rwc
) except? -1
cpdef i32 page_mkclean(Kernel k, u64 page) except? -1
cdef flag _clean_pte(Kernel k, Vma vma, u64 address, u64 pte) except? -1
cdef flag _clean_pmd(Kernel k, Vma vma, u64 address, u64 pmd) except? -1

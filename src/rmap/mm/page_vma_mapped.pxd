# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.hugetlb.pgtable cimport huge_pte_offset
from rmap.mm.inline cimport compound_order, hpage_nr_pages, is_device_private_entry
from rmap.mm.inline cimport is_migration_entry, is_pmd_migration_entry, is_swap_pte, PageHuge
from rmap.mm.inline cimport pmd_offset, pmd_present, pmd_trans_huge, pte_lock, pte_none, pte_offset
from rmap.mm.inline cimport pte_pfn, pte_present, pte_to_swp_entry, pte_unlock, ptep_get, ptl_of
from rmap.mm.inline cimport swp_offset, vma_page_address
from rmap.mm.mm_types cimport Kernel, Vma

cdef class PageVmaMappedWalk:
    cdef public u64 page
    cdef public Vma vma
    cdef public u64 address
    cdef public i32 flags
    cdef public u64 pmd
    cdef public u64 pte
    cdef public u64 ptl
    cdef public u64 nr_pages
    cdef public flag mapped
    cdef i32 start(self, u64 page, Vma vma, u64 address, i32 flags) except -1

cpdef flag page_vma_mapped_walk(Kernel k, PageVmaMappedWalk pvmw) except? -1
cpdef i32 page_vma_mapped_walk_done(Kernel k, PageVmaMappedWalk pvmw) except -1
cpdef i32 page_mapped_in_vma(Kernel k, u64 page, Vma vma) except? -1

cdef i32 _hit(Kernel k, PageVmaMappedWalk pvmw) except -1
cdef i32 _not_found(Kernel k, PageVmaMappedWalk pvmw) except -1
cdef i32 _walk_hugetlb(Kernel k, PageVmaMappedWalk pvmw) except -1
cdef i32 _walk_table(Kernel k, PageVmaMappedWalk pvmw) except -1
cdef i32 _no_table(Kernel k, PageVmaMappedWalk pvmw) except -1
cdef u64 _end(Kernel k, PageVmaMappedWalk pvmw) except? 0
cdef i32 _check_pmd(Kernel k, PageVmaMappedWalk pvmw) except -1
cdef i32 _next_pte(Kernel k, PageVmaMappedWalk pvmw) except -1
cdef flag map_pte(Kernel k, PageVmaMappedWalk pvmw) except? -1
cdef flag check_pte(Kernel k, PageVmaMappedWalk pvmw) except? -1
cdef flag _names_device(u64 pte) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG
from rmap.mm.huge.collapse cimport collapse_huge_page, hugepage_vma_check, pte_is_young
from rmap.mm.huge.collapse_shmem cimport collapse_shmem
from rmap.mm.huge.mm_slot cimport hugepage_end, hugepage_start, khugepaged_test_exit
from rmap.mm.huge.shmem_huge cimport shmem_huge_enabled
from rmap.mm.memory cimport is_zero_pfn, vm_normal_page
from rmap.mm.mm_types cimport AddressSpace, File, Kernel, Khugepaged, Mm, Vma
from rmap.mm.mmap cimport fput
from rmap.mm.page cimport PageAnon, PageCompound, PageFlag, PageLocked, PageSwapCache
from rmap.mm.page cimport PageTransCompound, page_count, page_mapcount
from rmap.mm.page_cache cimport page_cache_item
from rmap.mm.pgtable cimport is_swap_pte, pte_lock, pte_none, pte_offset, pte_pfn, pte_present
from rmap.mm.pgtable cimport pte_unlock, pte_write, ptep_get
from rmap.mm.rmap_walk cimport mm_find_pmd
from rmap.mm.vma cimport find_vma, linear_page_index, userfaultfd_armed
from rmap.mm.vma_adjust cimport get_file

cdef class Scan:
    cdef public Mm mm
    cdef public Vma vma
    cdef public u64 address
    cdef public i32 unmapped, none_or_zero, referenced
    cdef public flag writable
    cdef public flag released

cdef class Round:
    cdef public i64 pages
    cdef public i64 progress
    cdef public flag released
    cdef public flag failed

cpdef i32 khugepaged_scan_pmd(Kernel k, Scan scan) except -1
cdef i32 _scan_table(Kernel k, Scan scan, u64 first) except -1
cdef i32 _scan_pte(Kernel k, Scan scan, u64 pte, u64 address) except -1
cdef i32 _scan_page(Kernel k, u64 page) except -1
cpdef i32 khugepaged_scan_shmem(Kernel k, Mm mm, AddressSpace mapping, u64 start) except -1
cdef i32 _scan_cached(Kernel k, u64 page) except -1
cpdef i64 khugepaged_do_scan(Kernel k, i64 pages) except -1
cpdef i32 khugepaged_scan_mm_slot(Kernel k, Round round) except -1
cdef i32 _leave_mm(Khugepaged state, Mm mm, flag done) except -1
cdef flag _scan_vma(Kernel k, Round round, Mm mm, Vma vma) except? -1
cdef i32 _scan_at(Kernel k, Round round, Mm mm, Vma vma, u64 address) except -1

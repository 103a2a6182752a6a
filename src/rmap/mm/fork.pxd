# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.anon_vma cimport anon_vma_fork, anon_vma_prepare
from rmap.mm.bug cimport BUG, WARN
from rmap.mm.copy cimport copy_page_range
from rmap.mm.huge.mm_slot cimport khugepaged_exit, khugepaged_fork
from rmap.mm.huge.pgtable cimport mm_put_huge_zero_page
from rmap.mm.hugetlb.reserve cimport reset_vma_resv_huge_pages
from rmap.mm.interval_tree cimport interval_tree_insert_after
from rmap.mm.ksm.slots cimport ksm_exit, ksm_fork
from rmap.mm.mm_types cimport AddressSpace, Kernel, MemCgroup, Mm, Vma
from rmap.mm.mmap cimport exit_mmap
from rmap.mm.pgtable cimport pte_alloc_row, pte_free_row
from rmap.mm.tlb cimport flush_tlb_mm
from rmap.mm.vma cimport get_mm_rss, vm_area_dup, vma_link_list, vma_pages
from rmap.mm.vma_adjust cimport get_file

cpdef Mm mm_alloc(Kernel k, str name, MemCgroup memcg)
cpdef Mm dup_mm(Kernel k, Mm oldmm)
cpdef i32 dup_mmap(Kernel k, Mm mm, Mm oldmm) except? -1
cdef i32 _dup_vma(Kernel k, Mm mm, Vma mpnt) except? -1
cdef i32 dup_userfaultfd(Vma vma) except -1
cdef i32 _dup_anon_vma(Kernel k, Vma vma, Vma mpnt) except? -1
cdef i32 _dup_file(Vma vma, Vma mpnt) except -1
cpdef i32 mmput(Kernel k, Mm mm) except -1
cdef i32 mmdrop(Kernel k, Mm mm) except -1
cdef i32 check_mm(Kernel k, Mm mm) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.fault cimport handle_mm_fault
from rmap.mm.gup cimport follow_page
from rmap.mm.ksm.slots cimport ksm_enter
from rmap.mm.ksm.stable cimport ksm_test_exit
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.page cimport PageKsm
from rmap.mm.pgtable cimport pmd_offset, pte_none, ptep_get
from rmap.mm.vma cimport find_vma

cpdef u64 ksm_follow_page(Kernel k, Vma vma, u64 address, u64 flags) except? 0
cpdef i32 break_ksm(Kernel k, Vma vma, u64 address) except? -1
cpdef i32 unmerge_ksm_pages(Kernel k, Vma vma, u64 start, u64 end) except? -1
cpdef Vma find_mergeable_vma(Kernel k, Mm mm, u64 address)
cpdef i64 ksm_madvise(Kernel k, Vma vma, u64 start, u64 end, i32 advice) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i64, u64
from rmap.mm.hugetlb.pgtable cimport huge_pte_offset
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size
from rmap.mm.mm_types cimport Kernel, Vma
from rmap.mm.page cimport PageAnon, PageFlag, get_page
from rmap.mm.pgtable cimport pte_lock, pte_none, pte_pfn, pte_present, pte_unlock, pte_write
from rmap.mm.pgtable cimport ptep_get

cpdef i64 follow_hugetlb_page(Kernel k, Vma vma, u64 address, u64 flags) except? -1
cdef i64 _page_of_huge_entry(Kernel k, u64 pte, u64 flags) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.mm_types cimport AddressSpace, IntervalNode, Kernel, Mm, Vma
from rmap.mm.pgtable cimport assert_pte_locked, is_migration_entry, is_swap_pte, pfn_pte
from rmap.mm.pgtable cimport pmd_alloc, pte_lock, pte_mkyoung, pte_none, pte_to_swp_entry
from rmap.mm.pgtable cimport pte_unlock, ptep_get, ptep_get_and_clear, pud_alloc, pud_offset
from rmap.mm.pgtable cimport swp_type
from rmap.mm.tlb cimport flush_tlb_range
from rmap.mm.vma cimport find_vma

cpdef u64 huge_pte_offset(Kernel k, Mm mm, u64 address, u64 size) except? 0
cpdef u64 make_huge_pte(Vma vma, u64 page, flag writable) except? 0
cpdef flag is_hugetlb_entry_migration(u64 pte) except? -1
cpdef flag is_hugetlb_entry_hwpoisoned(u64 pte) except? -1
cpdef u64 huge_ptep_clear_flush(Kernel k, Vma vma, u64 address, u64 ptep, u64 size) except? 0
cpdef u64 huge_pte_alloc(Kernel k, Mm mm, u64 address, u64 size) except? 0
cpdef flag vma_shareable(Vma vma, u64 address) except? -1
cpdef u64 page_table_shareable(Vma svma, Vma vma, u64 address, u64 idx) except? 0
cpdef u64 huge_pmd_share(Kernel k, Mm mm, u64 address, u64 pud) except? 0
cdef u64 _find_table(Kernel k, AddressSpace mapping, Vma vma, u64 address, u64 idx) except? 0
cdef i32 _share_row(Kernel k, Mm mm, u64 pud, u64 row) except? -1
cpdef flag huge_pmd_unshare(Kernel k, Vma vma, u64 address, u64 ptep) except? -1

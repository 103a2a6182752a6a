# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG
from rmap.mm.hugetlb.pgtable cimport huge_pmd_unshare, huge_pte_offset
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size, hugetlb_count_add
from rmap.mm.hugetlb.pool cimport pages_per_huge_page
from rmap.mm.hugetlb.reserve cimport is_vma_resv_set, set_vma_unmapped
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.mm_types cimport AddressSpace, Hstate, IntervalNode, Kernel, Mm, Vma
from rmap.mm.mmu_gather cimport MmuGather, tlb_adjust_range, tlb_finish_mmu, tlb_flush_mmu
from rmap.mm.mmu_gather cimport tlb_flush_mmu_tlbonly, tlb_gather_mmu, tlb_remove_page
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport pte_dirty, pte_lock, pte_none, pte_pfn, pte_present, pte_unlock
from rmap.mm.pgtable cimport ptep_get, ptep_get_and_clear
from rmap.mm.rmap_counts cimport page_remove_rmap

cpdef i32 unmap_hugepage_range_in(
    Kernel k, MmuGather tlb, Vma vma, u64 start, u64 end, u64 ref_page
) except? -1
cdef i32 _unmap_one(
    Kernel k, MmuGather tlb, Vma vma, Hstate h, u64 address, u64 ref_page
) except? -1
cpdef i32 unmap_hugepage_range_final(
    Kernel k, MmuGather tlb, Vma vma, u64 start, u64 end
) except? -1
cpdef i32 unmap_hugepage_range(Kernel k, Vma vma, u64 start, u64 end, u64 ref_page) except? -1
cpdef i32 unmap_ref_private(Kernel k, Vma vma, u64 page, u64 address) except? -1

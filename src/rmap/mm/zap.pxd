# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.mm.anon_vma cimport unlink_anon_vmas
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.huge.change cimport zap_huge_pmd
from rmap.mm.huge.pgtable cimport pmd_trans_unstable
from rmap.mm.huge.split_pmd cimport __split_huge_pmd
from rmap.mm.hugetlb.unmap cimport unmap_hugepage_range_final
from rmap.mm.i_mmap cimport unlink_file_vma
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.lru cimport mark_page_accessed, put_page
from rmap.mm.memory cimport print_bad_pte, vm_normal_page
from rmap.mm.mlock_page cimport munlock_vma_page_counted
from rmap.mm.inline cimport compound_head, is_device_private_entry, is_migration_entry, mm_counter
from rmap.mm.inline cimport mm_counter_file, mmu_notifier_invalidate_range_start, page_mapping_word
from rmap.mm.inline cimport PageAnon, PageLocked, pmd_offset, pte_lock, pte_none, pte_offset
from rmap.mm.inline cimport pte_to_swp_entry, pte_unlock, ptep_get_and_clear, swp_offset
from rmap.mm.inline cimport update_hiwater_rss
from rmap.mm.mm_types cimport AddressSpace, IntervalNode, Kernel, Mm, Vma
from rmap.mm.mmu_gather cimport MmuGather, tlb_adjust_range, tlb_finish_mmu, tlb_flush_mmu_free
from rmap.mm.mmu_gather cimport tlb_flush_mmu_tlbonly, tlb_gather_mmu, tlb_remove_page
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport free_pgd_range
from rmap.mm.pgtable cimport non_swap_entry
from rmap.mm.rmap_counts cimport page_remove_rmap
from rmap.mm.swap cimport free_swap_and_cache
from rmap.mm.tlb cimport flush_tlb_batched_pending, flush_tlb_range
from rmap.mm.vma cimport add_mm_counter
from rmap.mm.vma cimport vma_pages

cdef class ZapDetails:
    cdef public AddressSpace check_mapping

cpdef i32 unmap_vmas(Kernel k, MmuGather tlb, Vma vma, u64 start, u64 end) except -1
cpdef i32 zap_page_range(Kernel k, Vma vma, u64 start, u64 size) except -1
cpdef i32 zap_page_range_single(
    Kernel k, Vma vma, u64 start, u64 size, ZapDetails details
) except -1
cdef i32 unmap_single_vma(
    Kernel k, MmuGather tlb, Vma vma, u64 start, u64 end, ZapDetails details
) except -1
cdef i32 unmap_page_range(
    Kernel k, MmuGather tlb, Vma vma, u64 address, u64 end, ZapDetails details
) except -1
cdef i32 zap_pmd(
    Kernel k, MmuGather tlb, Vma vma, u64 pmd, u64 address, u64 end, ZapDetails details
) except -1
cdef u64 zap_pte_range(
    Kernel k, MmuGather tlb, Vma vma, u64 pmd, u64 address, u64 end, ZapDetails details
) except? 0
cdef i32 zap_present_pte(
    Kernel k, MmuGather tlb, Vma vma, u64 address, u64 ptep, u64 pte, ZapDetails details
) except -1
cdef flag _page_wanted(Kernel k, ZapDetails details, u64 page) except? -1
cdef flag _entry_wanted(Kernel k, ZapDetails details, u64 entry) except? -1
cdef i32 zap_absent_pte(
    Kernel k, MmuGather tlb, Vma vma, u64 address, u64 ptep, u64 pte, ZapDetails details
) except -1
cpdef i32 unmap_mapping_pages(
    Kernel k, AddressSpace mapping, u64 start, u64 nr, flag even_cows
) except -1
cdef i32 unmap_mapping_vma(
    Kernel k, Vma vma, u64 start, u64 last, ZapDetails details
) except -1
cpdef i32 free_pgtables(Kernel k, MmuGather tlb, Vma vma, u64 floor, u64 ceiling) except -1

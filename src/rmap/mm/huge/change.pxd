# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG, BUG_PAGE, WARN
from rmap.mm.huge.pgtable cimport is_huge_zero_pmd, mm_get_huge_zero_page
from rmap.mm.huge.pgtable cimport pgtable_trans_huge_deposit, pgtable_trans_huge_withdraw
from rmap.mm.huge.pgtable cimport pmd_protnone, pmd_trans_huge_lock, set_huge_zero_page
from rmap.mm.huge.pgtable cimport zap_deposited_table
from rmap.mm.huge.split_pmd cimport __split_huge_pmd
from rmap.mm.inline cimport ClearPage, get_page, is_pmd_migration_entry, is_swap_pmd, PageAnon
from rmap.mm.inline cimport PageFlag, pmd_present, pmd_trans_huge, pte_dirty, pte_lock, pte_none
from rmap.mm.inline cimport pte_pfn, pte_to_swp_entry, pte_unlock, pte_write, ptep_get
from rmap.mm.inline cimport ptep_get_and_clear, ptl_of, set_pte_at, swp_offset
from rmap.mm.mlock_page cimport munlock_vma_page_counted
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmu_gather cimport MmuGather, tlb_adjust_range, tlb_flush_mmu, tlb_remove_page
from rmap.mm.page cimport PageHead, page_mapcount, page_maybe_dma_pinned
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport is_write_migration_entry, pte_alloc_row
from rmap.mm.pgtable cimport pte_free_row, pte_mkold, pte_mkwrite
from rmap.mm.pgtable cimport pte_modify, pte_swp_mksoft_dirty, pte_swp_soft_dirty, pte_wrprotect
from rmap.mm.pgtable cimport ptep_set_wrprotect, swp_entry, swp_entry_to_pte
from rmap.mm.rmap_counts cimport page_dup_rmap, page_remove_rmap
from rmap.mm.tlb cimport flush_tlb_range, pmdp_invalidate
from rmap.mm.vma cimport add_mm_counter, mm_counter_huge_file, vma_is_anonymous

cpdef u64 migration_pmd_read(Kernel k, u64 pmd, flag keeps_exclusive) except? 0
cpdef i32 copy_huge_pmd(
    Kernel k, Vma dst_vma, Vma src_vma, u64 dst_pmd, u64 src_pmd, u64 address
) except? -1
cdef flag _needs_own_copy(Kernel k, u64 page) except? -1
cdef i32 _copy_migration_pmd(
    Kernel k, Mm mm, Mm src_mm, u64 dst_pmd, u64 src_pmd, u64 row, u64 address
) except -1
cdef i32 _share_huge_page(
    Kernel k, Mm mm, Mm src_mm, u64 dst_pmd, u64 src_pmd, u64 row, u64 address
) except -1
cpdef flag zap_huge_pmd(Kernel k, MmuGather tlb, Vma vma, u64 pmd, u64 address) except? -1
cpdef i32 move_huge_pmd(
    Kernel k, Vma vma, u64 old_addr, u64 new_addr, u64 old_end, u64 old_pmd, u64 new_pmd
) except -1
cpdef i32 change_huge_pmd(
    Kernel k, Vma vma, u64 pmd, u64 address, u64 newprot, i32 cp_flags
) except -1
cpdef flag can_change_pmd_writable(Kernel k, Vma vma, u64 pmd) except? -1

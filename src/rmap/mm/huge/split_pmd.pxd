# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.sync.core cimport sched
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.huge.pgtable cimport is_huge_zero_pmd, pgtable_trans_huge_withdraw, pmd_populate
from rmap.mm.inline cimport compound_mapcount, is_pmd_migration_entry, is_swap_pmd
from rmap.mm.inline cimport mapcount_add_negative, mapcount_inc_and_test, mod_node_page_state
from rmap.mm.inline cimport PageAnon, PageDirty, PageFlag, PageLocked, pmd_offset, pmd_trans_huge
from rmap.mm.inline cimport pte_dirty, pte_lock, pte_none, pte_pfn, pte_soft_dirty
from rmap.mm.inline cimport pte_to_swp_entry, pte_unlock, pte_write, pte_young, ptep_get
from rmap.mm.inline cimport pfn_pte, set_pte_at, SetPage, swp_offset, TestClearPage, TestSetPage
from rmap.mm.lru cimport put_page
from rmap.mm.memory cimport maybe_mkwrite
from rmap.mm.mlock_page cimport clear_page_mlock, munlock_vma_page_counted
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_only_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page cimport compound_mapcount_add_negative, page_count, page_ref_add
from rmap.mm.page cimport PageDoubleMap
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.page_vma_mapped cimport PageVmaMappedWalk
from rmap.mm.pgtable cimport assert_pte_locked, is_write_migration_entry, pte_mkold
from rmap.mm.pgtable cimport pte_mksoft_dirty, pte_mkyoung, pte_swp_mksoft_dirty
from rmap.mm.pgtable cimport pte_swp_soft_dirty, pte_wrprotect, swp_entry, swp_entry_to_pte
from rmap.mm.rmap_counts cimport page_remove_rmap, page_try_share_anon_rmap
from rmap.mm.tlb cimport pmdp_huge_clear_flush, pmdp_invalidate
from rmap.mm.vma cimport add_mm_counter, mm_counter_huge_file, vma_is_anonymous

cdef class SplitPmd:
    cdef u64 page
    cdef flag migrating
    cdef flag write
    cdef flag young
    cdef flag soft_dirty
    cdef flag exclusive

cpdef u64 make_migration_entry(Kernel k, u64 page, flag write) except? 0
cpdef u64 make_hwpoison_entry(Kernel k, u64 page) except? 0
cpdef i32 set_pmd_migration_entry(Kernel k, PageVmaMappedWalk pvmw, u64 page) except? -1
cpdef i32 split_huge_pmd_address(Kernel k, Vma vma, u64 address, flag freeze, u64 page) except -1
cpdef i32 split_huge_pmd(Kernel k, Vma vma, u64 pmd, u64 address) except -1
cpdef i32 __split_huge_pmd(
    Kernel k, Vma vma, u64 pmd, u64 address, flag freeze, u64 page
) except -1
cdef i32 _split_huge_pmd_locked(Kernel k, Vma vma, u64 pmd, u64 start, flag freeze) except -1
cdef i32 _unmap_file_pmd(Kernel k, Vma vma, u64 pmd, u64 start) except -1
cdef i32 _split_zero_pmd(Kernel k, Vma vma, u64 pmd, u64 start) except -1
cdef i32 _split_anon_pmd(Kernel k, Vma vma, u64 pmd, u64 start, flag freeze) except -1
cdef SplitPmd _what_it_said(Kernel k, u64 old)
cdef i32 _fill_table(
    Kernel k, Vma vma, u64 row, u64 start, SplitPmd split, flag swap, flag counts
) except -1
cdef i32 _count_split(Kernel k, u64 page) except -1
cdef i32 _drop_frozen(Kernel k, u64 page) except -1

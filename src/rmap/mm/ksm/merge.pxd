# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.mm.anon_vma cimport get_anon_vma, put_anon_vma
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.content cimport page_bytes
from rmap.mm.huge.split_page cimport split_huge_page
from rmap.mm.ksm.stable cimport Ksm, RmapItem, StableNode, is_page_sharing_candidate, ksm_of
from rmap.mm.ksm.stable cimport page_stable_node, remove_rmap_item_from_tree
from rmap.mm.ksm.stable cimport set_page_stable_node, stable_tree_append
from rmap.mm.ksm.tree cimport memcmp_pages, stable_tree_insert, stable_tree_search
from rmap.mm.ksm.unmerge cimport break_ksm, find_mergeable_vma, ksm_follow_page
from rmap.mm.lru cimport mark_page_accessed, put_page
from rmap.mm.memory cimport init_zero_pfn, is_zero_pfn
from rmap.mm.mlock_page cimport mlock_vma_page, mlock_vma_page_counted, munlock_vma_page_counted
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start, set_pte_at_notify
from rmap.mm.munlock cimport munlock_vma_page
from rmap.mm.page cimport PageAnon, PageDirty, PageFlag, PageMlocked, PageSwapCache
from rmap.mm.page cimport PageTransCompound, SetPage, compound_head, get_page, lock_page, page_count
from rmap.mm.page cimport page_mapcount, page_mapped, trylock_page, unlock_page
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.page_vma_mapped cimport PageVmaMappedWalk, page_vma_mapped_walk
from rmap.mm.page_vma_mapped cimport page_vma_mapped_walk_done
from rmap.mm.pgtable cimport pfn_pte, pte_dirty, pte_lock, pte_offset, pte_unlock, pte_write
from rmap.mm.pgtable cimport ptep_get, set_pte_at
from rmap.mm.rmap_counts cimport page_add_anon_rmap, page_remove_rmap, page_try_share_anon_rmap
from rmap.mm.rmap_walk cimport mm_find_pmd, page_address_in_vma
from rmap.mm.swap cimport try_to_free_swap
from rmap.mm.tlb cimport mm_tlb_flush_pending, ptep_clear_flush
from rmap.mm.vma cimport dec_mm_counter

cdef class OrigPte:
    cdef public u64 pte

cdef class UnstableMatch:
    cdef public RmapItem rmap_item
    cdef public u64 page

cpdef i32 write_protect_page(Kernel k, Vma vma, u64 page, OrigPte orig_pte) except? -1
cdef i32 _protect_entry(Kernel k, Vma vma, u64 page, u64 ptep, u64 address) except? -1
cpdef i32 replace_page(Kernel k, Vma vma, u64 page, u64 kpage, u64 orig_pte) except? -1
cdef i32 _replace_entry(
    Kernel k, Vma vma, u64 page, u64 kpage, u64 ptep, u64 address
) except -1
cpdef i32 try_to_merge_one_page(Kernel k, Vma vma, u64 page, u64 kpage) except? -1
cdef i32 _merge_locked(Kernel k, Vma vma, u64 page, u64 kpage) except? -1
cdef u64 _move_mlock(Kernel k, u64 page, u64 kpage) except? 0
cpdef i32 try_to_merge_with_ksm_page(
    Kernel k, RmapItem rmap_item, u64 page, u64 kpage
) except? -1
cpdef i32 break_cow(Kernel k, RmapItem rmap_item) except -1
cdef u64 try_to_merge_two_pages(
    Kernel k, RmapItem rmap_item, u64 page, RmapItem tree_rmap_item, u64 tree_page
) except? 0
cpdef u32 calc_checksum(Kernel k, u64 page) except? 0
cdef u64 get_mergeable_page(Kernel k, RmapItem rmap_item) except? 0
cdef flag unstable_tree_search_insert(
    Kernel k, RmapItem rmap_item, u64 page, UnstableMatch match
) except? -1
cpdef i32 cmp_and_merge_page(Kernel k, u64 page, RmapItem rmap_item) except -1
cdef flag _merge_with_zero_page(Kernel k, u64 page, RmapItem rmap_item) except? -1
cdef i32 _merge_unstable(Kernel k, u64 page, RmapItem rmap_item) except -1
cdef i32 _enter_merged(
    Kernel k, u64 kpage, RmapItem rmap_item, RmapItem tree_rmap_item
) except -1

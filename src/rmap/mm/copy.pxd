# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.content cimport copy_page_content
from rmap.mm.huge.change cimport copy_huge_pmd
from rmap.mm.hugetlb.copy cimport copy_hugetlb_page_range
from rmap.mm.lru cimport lru_cache_add_active_or_unevictable, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport maybe_mkwrite, vm_normal_page
from rmap.mm.inline cimport ClearPage, get_page, is_device_private_entry, is_migration_entry
from rmap.mm.inline cimport mm_counter, mm_counter_file, mmu_notifier_invalidate_range_start
from rmap.mm.inline cimport PageAnon, PageFlag, PageLocked, pfn_pte, pmd_offset, pte_lock
from rmap.mm.inline cimport pte_mkdirty, pte_none, pte_offset, pte_swp_mksoft_dirty
from rmap.mm.inline cimport pte_to_swp_entry, pte_unlock, set_pte_at, SetPage, swp_entry_to_pte
from rmap.mm.inline cimport swp_offset, swp_type
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.page cimport page_maybe_dma_pinned
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.pgtable cimport is_write_migration_entry, non_swap_entry, pmd_alloc
from rmap.mm.pgtable cimport pte_alloc
from rmap.mm.pgtable cimport pte_swp_soft_dirty
from rmap.mm.pgtable cimport ptep_set_wrprotect
from rmap.mm.pgtable cimport swp_entry
from rmap.mm.rmap_counts cimport page_add_new_anon_rmap, page_dup_rmap
from rmap.mm.swap_slots cimport add_swap_count_continuation, swap_duplicate
from rmap.mm.vma cimport add_mm_counter, is_cow_mapping

cdef class PageCopy:
    cdef Vma dst_vma, src_vma
    cdef Mm dst_mm, src_mm
    cdef flag cow, shared, exclusive, pins
    cdef i64[::1] rss
    cdef u64 entry
    cdef u64 prealloc

cpdef flag vma_needs_copy(Vma src_vma) except? -1
cpdef i32 copy_page_range(Kernel k, Vma dst_vma, Vma src_vma) except? -1
cdef i32 _copy_tables(Kernel k, PageCopy copy, u64 address, u64 end) except? -1
cdef i32 copy_pte_range(Kernel k, PageCopy copy, u64 src_pmd, u64 address, u64 end) except? -1
cdef u64 _copy_locked(
    Kernel k, PageCopy copy, u64 dst_pte, u64 src_pte, u64 address, u64 end
) except? 0
cdef i32 _get_memory(Kernel k, PageCopy copy) except? -1
cdef i32 copy_nonpresent_pte(
    Kernel k, PageCopy copy, u64 dst_pte, u64 src_pte, u64 pte, u64 address
) except -1
cdef i32 _list_after(Kernel k, Mm mm, Mm before) except -1
cdef i32 copy_present_pte(
    Kernel k, PageCopy copy, u64 dst_pte, u64 src_pte, u64 pte, u64 address
) except -1
cdef i32 _share_small_page(Kernel k, PageCopy copy, u64 page) except -1
cdef flag page_needs_cow_for_dma(Kernel k, PageCopy copy, u64 page) except? -1
cdef i32 _copy_present_page(
    Kernel k, PageCopy copy, u64 page, u64 dst_pte, u64 address
) except -1

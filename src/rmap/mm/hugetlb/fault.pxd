# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport anon_vma_prepare
from rmap.mm.content cimport clear_page_content, copy_page_content
from rmap.mm.hugetlb.file cimport find_lock_huge_page, huge_add_to_page_cache, hugetlb_fault_mutex
from rmap.mm.hugetlb.pgtable cimport huge_pte_alloc, huge_pte_offset, huge_ptep_clear_flush
from rmap.mm.hugetlb.pgtable cimport is_hugetlb_entry_hwpoisoned, is_hugetlb_entry_migration
from rmap.mm.hugetlb.pgtable cimport make_huge_pte
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size, hugetlb_count_add
from rmap.mm.hugetlb.pool cimport pages_per_huge_page, set_page_huge_active
from rmap.mm.hugetlb.pool cimport vma_hugecache_offset
from rmap.mm.hugetlb.reserve cimport alloc_huge_page, is_vma_resv_set, restore_reserve_on_error
from rmap.mm.hugetlb.reserve cimport vma_end_reservation, vma_needs_reservation
from rmap.mm.hugetlb.unmap cimport unmap_ref_private
from rmap.mm.lru cimport put_page
from rmap.mm.memory cimport ptep_set_access_flags, wait_on_page_locked
from rmap.mm.migrate.entries cimport migration_entry_wait
from rmap.mm.mm_types cimport AddressSpace, Hstate, Kernel, Vma, Mm
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page cimport ClearPage, PageAnon, PageHWPoison, SetPage, get_page, lock_page
from rmap.mm.page cimport page_mapcount, trylock_page, unlock_page
from rmap.mm.pgtable cimport pte_lock, pte_mkdirty, pte_mkyoung, pte_none, pte_pfn, pte_present
from rmap.mm.pgtable cimport pte_unlock, pte_write, ptep_get, set_pte_at
from rmap.mm.rmap_counts cimport hugepage_add_new_anon_rmap, page_dup_rmap, page_move_anon_rmap
from rmap.mm.rmap_counts cimport page_remove_rmap
from rmap.sync.locks cimport RwSem

cdef class HugeFault:
    cdef public Vma vma
    cdef public Mm mm
    cdef public Hstate h
    cdef public u64 size, address, flags
    cdef public AddressSpace mapping
    cdef public u64 idx, ptep, entry, pagecache_page
    cdef public i32 result
    cdef flag wants_own(self) except? -1

cpdef i32 hugetlb_fault(Kernel k, Vma vma, u64 address, u64 flags) except? -1
cdef i32 _get_copies_ready(Kernel k, HugeFault f) except? -1
cdef u64 _fault_present(Kernel k, HugeFault f) except? 0
cdef i32 _use_present(Kernel k, HugeFault f) except? -1
cpdef i32 hugetlb_no_page(Kernel k, HugeFault f) except? -1
cdef i32 _map_page(Kernel k, HugeFault f, u64 page, flag anon_rmap) except? -1
cdef i32 _back_out(Kernel k, HugeFault f, u64 page, i32 ret) except? -1
cdef i32 _clear_huge_page(Kernel k, u64 page, Hstate h) except? -1
cpdef i32 hugetlb_cow(Kernel k, HugeFault f) except? -1
cdef flag _retake(Kernel k, HugeFault f) except? -1
cdef i32 _reuse(Kernel k, HugeFault f, u64 page) except? -1
cdef i32 _copy(Kernel k, HugeFault f, u64 old, u64 new) except? -1
cdef u64 _copied_entry(HugeFault f, u64 new) except? 0
cpdef i32 copy_huge_page(Kernel k, u64 new, u64 old, Hstate h) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport assert_held
from rmap.mm.anon_vma cimport page_lock_anon_vma_read
from rmap.mm.bug cimport BUG_PAGE, WARN_ONCE
from rmap.mm.huge.split_pmd cimport make_hwpoison_entry, make_migration_entry
from rmap.mm.huge.split_pmd cimport set_pmd_migration_entry, split_huge_pmd_address
from rmap.mm.hugetlb.pgtable cimport huge_pmd_unshare, huge_ptep_clear_flush, vma_shareable
from rmap.mm.hugetlb.pool cimport hugetlb_count_add
from rmap.mm.lru cimport put_page
from rmap.mm.mlock_page cimport mlock_vma_page, mlock_vma_page_counted, munlock_vma_page_counted
from rmap.mm.inline cimport compound_head, compound_order, dec_mm_counter, inc_mm_counter
from rmap.mm.inline cimport is_device_private_page, is_zone_device_page, mm_counter, mm_counter_file
from rmap.mm.inline cimport mmu_notifier_invalidate_range, mmu_notifier_invalidate_range_start
from rmap.mm.inline cimport page_count, page_mapped, page_private, PageAnon, PageCompound, PageDirty
from rmap.mm.inline cimport PageDoubleMap, PageFlag, PageHuge, PageHWPoison, PageKsm, PageLocked
from rmap.mm.inline cimport PageSwapBacked, PageSwapCache, PageTransCompound, pte_dirty, pte_pfn
from rmap.mm.inline cimport pte_soft_dirty, pte_swp_mksoft_dirty, pte_unused, pte_write
from rmap.mm.inline cimport ptep_clear_flush, ptep_clear_flush_young_notify, ptep_get
from rmap.mm.inline cimport ptep_get_and_clear, set_pte_at, SetPage, should_defer_flush
from rmap.mm.inline cimport swp_entry_to_pte, total_mapcount, update_hiwater_rss, userfaultfd_armed
from rmap.mm.mm_types cimport AnonVma, Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.page cimport PageLRU
from rmap.mm.page cimport page_mapcount
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.page_vma_mapped cimport PageVmaMappedWalk
from rmap.mm.page_vma_mapped cimport page_vma_mapped_walk, page_vma_mapped_walk_done
from rmap.mm.pgtable cimport swp_entry
from rmap.mm.rmap_counts cimport page_remove_rmap, page_try_share_anon_rmap
from rmap.mm.rmap_walk cimport RmapWalkControl, rmap_walk, rmap_walk_locked
from rmap.mm.swap_slots cimport swap_duplicate, swap_free
from rmap.mm.tlb cimport flush_tlb_range
from rmap.mm.tlb cimport set_tlb_ubc_flush_pending
from rmap.mm.vma cimport is_vma_temporary_stack

cdef class TryToUnmapControl(RmapWalkControl):
    cdef public i32 flags
    cdef public flag skip_temporary_stacks
    cdef PageVmaMappedWalk pvmw

cdef class TryToMunlockControl(TryToUnmapControl):
    pass

cpdef flag try_to_unmap_one(
    Kernel k, u64 page, Vma vma, u64 address, TryToUnmapControl rwc
) except? -1
cdef flag _unmap_entry(
    Kernel k, PageVmaMappedWalk pvmw, u64 page, Vma vma, i32 flags
) except? -1
cdef flag _mlock_refuses(Kernel k, u64 page, Vma vma) except? -1
cdef flag _replace_entry(
    Kernel k, PageVmaMappedWalk pvmw, u64 page, u64 subpage, Vma vma, u64 pteval, i32 flags
) except? -1
cdef i32 _leave_poison(
    Kernel k, PageVmaMappedWalk pvmw, u64 page, u64 subpage, Mm mm
) except -1
cdef flag _leave_migration(
    Kernel k, PageVmaMappedWalk pvmw, u64 page, u64 subpage, Vma vma, u64 pteval
) except? -1
cdef flag _leave_swap(
    Kernel k, PageVmaMappedWalk pvmw, u64 page, u64 subpage, Vma vma, u64 pteval
) except? -1
cdef flag _drop_lazyfree(
    Kernel k, PageVmaMappedWalk pvmw, u64 page, Mm mm, u64 pteval
) except? -1
cdef i32 _remember_swapped(Kernel k, Mm mm) except -1
cdef i32 _discard(Kernel k, u64 page, u64 subpage, Vma vma) except -1
cdef flag _migrate_device_entry(
    Kernel k, PageVmaMappedWalk pvmw, u64 page, Vma vma
) except? -1
cpdef i32 arch_unmap_one(Kernel k, Mm mm, Vma vma, u64 address, u64 pte) except? -1

cpdef flag try_to_unmap(Kernel k, u64 page, i32 flags) except? -1
cdef flag _try_to_unmap(Kernel k, u64 page, TryToUnmapControl rwc) except? -1
cpdef i32 try_to_munlock(Kernel k, u64 page) except -1
cpdef i64 try_to_unmap_range(Kernel k, const u64[::1] pages, i32 flags) except? -1
cdef u64 _mapped_size(Kernel k, u64 page) except? 0
cdef flag _unshare_table(Kernel k, PageVmaMappedWalk pvmw, Vma vma) except? -1

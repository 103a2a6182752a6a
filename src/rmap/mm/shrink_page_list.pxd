# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.huge.split_page cimport can_split_huge_page, split_huge_page_to_list
from rmap.mm.lru cimport page_evictable
from rmap.mm.memcg cimport mem_cgroup_uncharge
from rmap.mm.inline cimport ClearPage, compound_mapcount, page_count, page_is_file_cache
from rmap.mm.inline cimport page_mapped, page_private, PageAnon, PageDirty, PageFlag, PageSwapBacked
from rmap.mm.inline cimport PageSwapCache, PageTransHuge, SetPage, TestClearPage
from rmap.mm.mm_types cimport AddressSpace, Kernel, MemCgroup
from rmap.mm.page cimport PageWriteback
from rmap.mm.page cimport page_mapping, page_memcg, page_ref_freeze
from rmap.mm.page cimport page_ref_unfreeze, trylock_page, unlock_page
from rmap.mm.page_alloc cimport free_unref_page
from rmap.mm.page_cache cimport delete_from_page_cache_locked
from rmap.mm.page_referenced cimport PageReferencedArg, page_referenced
from rmap.mm.shmem cimport shmem_writepage
from rmap.mm.swap cimport add_to_swap, swap_writepage, try_to_free_swap
from rmap.mm.swap_cache cimport remove_from_swap_cache
from rmap.mm.swap_slots cimport put_swap_page, vm_swap_full
from rmap.mm.tlb cimport try_to_unmap_flush, try_to_unmap_flush_dirty
from rmap.mm.unmap cimport try_to_unmap
from rmap.mm.writeback cimport clear_page_dirty_for_io, file_writepage

cdef class ReclaimResult:
    cdef public i64 scanned, reclaimed, activated, kept, referenced
    cdef public i64 unmap_fail, lazyfreed, swapped, written
    cdef public i64 dirty, unqueued_dirty, writeback, immediate, congested
    cdef public i64 deactivated, rotated

cdef class ScanControl:
    cdef public i64 nr_to_reclaim
    cdef public MemCgroup target_mem_cgroup
    cdef public u64 gfp_mask
    cdef public i32 priority
    cdef public flag may_writepage, may_unmap, may_swap
    cdef public flag kswapd
    cdef public flag dirty_pages, under_writeback
    cdef public i64 nr_scanned, nr_reclaimed, nr_taken, nr_file_taken
    cdef public ReclaimResult result
    cdef public PageReferencedArg referenced

cpdef i64 shrink_page_list(
    Kernel k, list pages, ScanControl sc, i32 ttu_flags, flag force_reclaim
) except -1
cdef i32 _activate_locked(Kernel k, u64 page, ReclaimResult stat) except -1
cdef i32 _shrink_page(
    Kernel k, u64 page, list queue, ScanControl sc, i32 ttu_flags, flag force_reclaim
) except -1
cdef flag _add_to_swap(Kernel k, u64 page, list queue) except? -1
cdef i32 _note_dirty_writeback(Kernel k, u64 page, ReclaimResult stat) except -1
cdef i32 _meet_writeback(Kernel k, u64 page, ScanControl sc) except -1
cpdef i32 page_check_references(Kernel k, u64 page, ScanControl sc) except -1
cdef i32 _write_dirty(Kernel k, u64 page, ScanControl sc, i32 references) except -1
cpdef i32 pageout(Kernel k, u64 page, AddressSpace mapping, ScanControl sc) except -1
cdef i32 _free_page(Kernel k, u64 page, ScanControl sc) except -1
cpdef flag remove_mapping(Kernel k, u64 page, AddressSpace mapping) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.inline cimport add_page_to_lru_list, ClearPage, del_page_from_lru_list
from rmap.mm.inline cimport hpage_nr_pages, mem_cgroup_page_lruvec, page_is_file_cache, page_lru
from rmap.mm.inline cimport page_mapped, page_off_lru, put_page_testzero, SetPage
from rmap.mm.lru cimport destroy_compound_page, page_evictable, put_single_page
from rmap.mm.lru cimport putback_lru_page
from rmap.mm.memcg cimport mem_cgroup_is_descendant
from rmap.mm.migrate.compaction cimport direct_compact
from rmap.mm.mm_types cimport Kernel, LruVec, MemCgroup, Reclaimer
from rmap.mm.page cimport get_page_unless_zero
from rmap.mm.page_referenced cimport page_referenced
from rmap.mm.shrink_page_list cimport ReclaimResult, ScanControl, shrink_page_list
from rmap.mm.shrinker cimport shrink_slab
from rmap.mm.swap_slots cimport get_nr_swap_pages, total_swap_pages
from rmap.mm.writeback cimport wakeup_flusher_threads

cdef class VmscanReclaimer(Reclaimer):
    cpdef i64 try_to_free_pages(self, Kernel k, MemCgroup memcg, i64 wanted) except? -1

cpdef i64 isolate_lru_pages(
    Kernel k, i64 nr_to_scan, LruVec lruvec, i32 lru, ScanControl sc, list result
) except -1
cdef flag _put_on_list(Kernel k, u64 page) except? -1
cpdef i32 putback_inactive_pages(Kernel k, list pages) except -1
cdef i32 _free_list(Kernel k, list pages) except -1
cpdef i64 shrink_inactive_list(
    Kernel k, i64 nr_to_scan, LruVec lruvec, ScanControl sc, i32 lru
) except -1
cpdef i64 shrink_active_list(
    Kernel k, i64 nr_to_scan, LruVec lruvec, ScanControl sc, i32 lru
) except -1
cdef i64 _move_to_lru(Kernel k, list pages) except -1
cpdef flag inactive_list_is_low(Kernel k, LruVec lruvec, i32 file) except? -1
cpdef i64 shrink_list(
    Kernel k, i32 lru, i64 nr_to_scan, LruVec lruvec, ScanControl sc
) except -1
cdef i32 _scan_balance(Kernel k, LruVec lruvec, ScanControl sc) except -1
cdef i64 _fraction(Kernel k, LruVec lruvec, i32 file) except -1
cpdef list get_scan_count(Kernel k, LruVec lruvec, ScanControl sc)
cpdef i32 shrink_node_memcg(Kernel k, MemCgroup memcg, ScanControl sc) except -1
cdef flag _adjust(list counts, list targets) except? -1
cpdef i32 shrink_node(Kernel k, ScanControl sc) except -1
cpdef i64 do_try_to_free_pages(Kernel k, ScanControl sc) except -1
cpdef ReclaimResult reclaim(Kernel k, MemCgroup memcg, i64 nr_pages)
cpdef ReclaimResult kswapd(Kernel k)
cdef i32 _age_active_anon(Kernel k, ScanControl sc) except -1
cdef i32 _age_list(Kernel k, i64 nr_pages, LruVec lruvec, ScanControl sc, i32 lru) except -1
cpdef i64 age_active_lists(Kernel k, MemCgroup memcg, i64 nr_pages) except -1
cpdef i64 reclaim_pages(Kernel k, list pages) except -1
cpdef i64 reclaim_clean_pages_from_list(Kernel k, list pages) except -1

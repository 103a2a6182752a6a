# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.mm_types cimport Kernel, LruVec, MemCgroup
from rmap.mm.page cimport hpage_nr_pages

cpdef flag page_is_file_cache(Kernel k, u64 page) except? -1
cpdef i32 page_lru_base_type(Kernel k, u64 page) except -1
cpdef i32 page_lru(Kernel k, u64 page) except -1
cpdef i32 page_off_lru(Kernel k, u64 page) except -1
cpdef LruVec mem_cgroup_page_lruvec(Kernel k, u64 page)
cpdef i32 update_lru_size(Kernel k, LruVec lruvec, i32 lru, i64 nr_pages) except -1
cpdef i32 add_page_to_lru_list(Kernel k, u64 page, LruVec lruvec, i32 lru) except -1
cpdef i32 add_page_to_lru_list_tail(Kernel k, u64 page, LruVec lruvec, i32 lru) except -1
cpdef i32 del_page_from_lru_list(Kernel k, u64 page, LruVec lruvec, i32 lru) except -1
cpdef i32 update_page_reclaim_stat(LruVec lruvec, i32 file, i32 rotated) except -1

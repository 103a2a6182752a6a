# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.inline cimport add_page_to_lru_list, ClearPage, compound_head
from rmap.mm.inline cimport del_page_from_lru_list, get_page, hpage_nr_pages
from rmap.mm.inline cimport mem_cgroup_page_lruvec, page_is_file_cache, page_lru
from rmap.mm.inline cimport page_lru_base_type, page_off_lru, PageAnon, PageFlag
from rmap.mm.inline cimport put_page_testzero, SetPage, TestClearPage, TestSetPage
from rmap.mm.inline cimport update_page_reclaim_stat
from rmap.mm.huge.deferred cimport forget_deferred_split
from rmap.mm.hugetlb.pool cimport free_huge_page
from rmap.mm.memcg cimport mem_cgroup_uncharge
from rmap.mm.mm_inline cimport add_page_to_lru_list_tail
from rmap.mm.mm_types cimport AddressSpace, DevicePagemap, Kernel, LruVec, Vma
from rmap.mm.page cimport page_mapping, set_page_mapping
from rmap.mm.page_alloc cimport free_compound_page, free_unref_page

cpdef i32 put_page(Kernel k, u64 page) except -1
cpdef i32 put_single_page(Kernel k, u64 page) except -1
cdef i32 _page_cache_release(Kernel k, u64 page) except -1
cdef i32 _put_compound_page(Kernel k, u64 page) except -1
cpdef i32 put_zone_device_page(Kernel k, u64 page) except -1
cpdef DevicePagemap page_pagemap(Kernel k, u64 page)
cpdef i32 destroy_compound_page(Kernel k, u64 head) except -1
cdef i32 _del_freed_page(Kernel k, u64 page) except -1
cpdef i32 release_pages(Kernel k, u32[::1] pages, i64 count) except -1
cpdef flag page_evictable(Kernel k, u64 page) except? -1
cpdef i32 lru_cache_add(Kernel k, u64 page) except -1
cdef i32 _lru_add(Kernel k, u64 page, LruVec lruvec) except -1
cpdef i32 lru_cache_add_active_or_unevictable(Kernel k, u64 page, Vma vma) except -1
cpdef i32 lru_add_page_tail(Kernel k, u64 page, u64 tail, LruVec lruvec, list pages) except -1
cdef i32 _link_before(Kernel k, u64 page, u64 tail, LruVec lruvec) except -1
cpdef i32 isolate_lru_page(Kernel k, u64 page) except? -1
cpdef i32 putback_lru_page(Kernel k, u64 page) except -1
cpdef i32 activate_page(Kernel k, u64 page) except -1
cpdef i32 deactivate_page(Kernel k, u64 page) except -1
cpdef i32 mark_page_accessed(Kernel k, u64 page) except -1
cdef flag _may_be_lazy(Kernel k, u64 page) except? -1
cpdef i32 mark_page_lazyfree(Kernel k, u64 page) except -1
cpdef i32 rotate_reclaimable_page(Kernel k, u64 page) except -1

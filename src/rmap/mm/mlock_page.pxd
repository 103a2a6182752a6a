# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.inline cimport add_page_to_lru_list, ClearPage, compound_head
from rmap.mm.inline cimport del_page_from_lru_list, get_page, hpage_nr_pages
from rmap.mm.inline cimport mem_cgroup_page_lruvec, page_lru, PageCompound, PageDoubleMap
from rmap.mm.inline cimport PageLocked, PageTail, SetPage, TestClearPage, TestSetPage
from rmap.mm.lru cimport isolate_lru_page, page_evictable, put_page, putback_lru_page
from rmap.mm.mm_types cimport Kernel, LruVec, Vma

cpdef i32 mlock_vma_page(Kernel k, u64 page) except -1
cpdef i32 clear_page_mlock(Kernel k, u64 page) except -1
cpdef i32 mlock_vma_page_counted(Kernel k, u64 page, Vma vma, flag compound) except -1
cpdef i32 munlock_vma_page_counted(Kernel k, u64 page, Vma vma, flag compound) except -1
cpdef i32 page_mlock_count(Kernel k, u64 page) except -1
cpdef i32 mlock_page(Kernel k, u64 page) except -1
cdef i32 _mlock_on_lru(Kernel k, u64 page, LruVec lruvec) except -1
cpdef i32 munlock_page(Kernel k, u64 page) except -1
cdef flag _still_locked(Kernel k, u64 page) except? -1
cdef i32 _munlock_last(Kernel k, u64 page, flag isolated) except -1
cdef i32 _rescue(Kernel k, u64 page, LruVec lruvec) except -1

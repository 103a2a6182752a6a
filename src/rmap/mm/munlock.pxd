# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.lru cimport putback_lru_page
from rmap.mm.mm_inline cimport del_page_from_lru_list, mem_cgroup_page_lruvec, page_lru
from rmap.mm.mm_types cimport Kernel
from rmap.mm.page cimport ClearPage, PageFlag, PageLocked, PageMlocked, PageTail, SetPage
from rmap.mm.page cimport TestClearPage, get_page, hpage_nr_pages, page_mapcount
from rmap.mm.unmap cimport try_to_munlock

cpdef i64 munlock_vma_page(Kernel k, u64 page) except? -1
cpdef flag munlock_isolate_lru_page(Kernel k, u64 page, flag getpage) except? -1
cpdef i32 munlock_isolated_page(Kernel k, u64 page) except -1

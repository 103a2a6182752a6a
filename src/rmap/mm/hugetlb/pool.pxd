# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.mm_types cimport Hstate, Kernel, Mm, Vma
from rmap.mm.page cimport ClearPage, PageFlag, PageHuge, SetPage, TestClearPage, compound_head
from rmap.mm.page cimport compound_order, get_page_unless_zero, page_count, page_mapcount
from rmap.mm.page cimport put_page_testzero, set_page_mapping
from rmap.mm.page_alloc cimport alloc_pages, free_compound_page

cpdef u64 huge_page_size(Hstate h) except? 0
cpdef i32 huge_page_shift(Hstate h) except? -1
cpdef u64 pages_per_huge_page(Hstate h) except? 0
cpdef flag hstate_is_gigantic(Hstate h) except? -1
cpdef Hstate page_hstate(Kernel k, u64 page)
cpdef Hstate size_to_hstate(Kernel k, i32 order)
cpdef Hstate hstate_vma(Vma vma)
cpdef u64 vma_hugecache_offset(Hstate h, Vma vma, u64 address) except? 0
cpdef i64 persistent_huge_pages(Hstate h) except? -1
cpdef i64 available_huge_pages(Hstate h) except? -1
cpdef i32 hugetlb_count_add(Mm mm, i64 pages) except? -1
cpdef i32 enqueue_huge_page(Kernel k, Hstate h, u64 page) except? -1
cpdef u64 dequeue_huge_page(Kernel k, Hstate h) except? 0
cpdef i32 prep_new_huge_page(Kernel k, Hstate h, u64 page) except? -1
cpdef u64 alloc_fresh_huge_page(Kernel k, Hstate h) except? 0
cpdef i32 update_and_free_page(Kernel k, Hstate h, u64 page) except? -1
cpdef flag free_pool_huge_page(Kernel k, Hstate h, flag acct_surplus) except? -1
cpdef i32 free_huge_page(Kernel k, u64 page) except? -1
cpdef i32 put_huge_page(Kernel k, u64 page) except? -1
cpdef u64 alloc_surplus_huge_page(Kernel k, Hstate h) except? 0
cpdef u64 alloc_migrate_huge_page(Kernel k, Hstate h) except? 0
cpdef u64 alloc_huge_page_nodemask(Kernel k, Hstate h) except? 0
cpdef i32 hugetlb_acct_memory(Kernel k, Hstate h, i64 delta) except? -1
cpdef i32 gather_surplus_pages(Kernel k, Hstate h, i64 delta) except? -1
cpdef i32 return_unused_surplus_pages(Kernel k, Hstate h, i64 unused) except? -1
cpdef i64 set_max_huge_pages(Kernel k, Hstate h, i64 count) except? -1
cdef i32 _shrink(Kernel k, Hstate h, i64 count) except? -1
cpdef i32 dissolve_free_huge_page(Kernel k, u64 page) except? -1
cpdef i32 set_page_huge_active(Kernel k, u64 page) except? -1
cpdef flag page_huge_active(Kernel k, u64 page) except? -1
cpdef flag isolate_huge_page(Kernel k, u64 page, list pages) except? -1
cpdef i32 putback_active_hugepage(Kernel k, u64 page) except? -1
cpdef i32 move_hugetlb_state(Kernel k, u64 old, u64 new) except? -1

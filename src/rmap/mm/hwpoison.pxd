# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u32, u64
from rmap.mm.truncate cimport truncate_inode_page
from rmap.mm.hugetlb.file cimport remove_huge_page
from rmap.mm.hugetlb.pool cimport dissolve_free_huge_page, hugetlb_acct_memory
from rmap.mm.hugetlb.reserve cimport hugetlb_unreserve_pages
from rmap.mm.inline cimport ClearPage, compound_head, PageAnon, PageHuge, PageTransHuge, SetPage
from rmap.mm.inline cimport TestClearPage, TestSetPage, page_index, page_mapped
from rmap.mm.lru cimport isolate_lru_page, put_page
from rmap.mm.memcg cimport mem_cgroup_uncharge
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport get_page_unless_zero, lock_page, page_count, page_mapping
from rmap.mm.page cimport page_ref_unfreeze, unlock_page
from rmap.mm.page_alloc cimport is_free_page
from rmap.mm.shrink_page_list cimport remove_mapping
from rmap.mm.swap_cache cimport delete_from_swap_cache

cpdef flag test_set_page_hwpoison(Kernel k, u64 page) except? -1
cpdef flag test_clear_page_hwpoison(Kernel k, u64 page) except? -1
cpdef flag get_hwpoison_page(Kernel k, u64 page) except? -1
cpdef i32 keep(Kernel k, u64 page) except -1
cpdef i32 let_go(Kernel k, u64 page) except -1
cpdef flag is_free_buddy_page(Kernel k, u64 page) except? -1
cpdef i32 action_result(Kernel k, u64 page, i32 kind, i32 result) except -1
cpdef i32 delete_from_lru_cache(Kernel k, u64 page) except? -1
cpdef i32 truncate_error_page(Kernel k, u64 page, AddressSpace mapping) except -1
cpdef flag invalidate_inode_page(Kernel k, u64 page) except? -1
cdef i32 _me_kernel(Kernel k, u64 page) except -1
cdef i32 _me_unknown(Kernel k, u64 page) except -1
cdef i32 _me_pagecache_clean(Kernel k, u64 page) except -1
cdef i32 _me_pagecache_dirty(Kernel k, u64 page) except -1
cdef i32 _me_swapcache_dirty(Kernel k, u64 page) except -1
cdef i32 _me_swapcache_clean(Kernel k, u64 page) except -1
cdef i32 _me_huge_page(Kernel k, u64 page) except -1
cdef i32 _kind_of(u32 flags) noexcept
cdef i32 _act(Kernel k, u64 page, i32 kind) except -1
cpdef i32 identify_page_state(Kernel k, u64 page, u32 page_flags) except? -1
cdef i32 page_action(Kernel k, u64 page, i32 kind) except? -1

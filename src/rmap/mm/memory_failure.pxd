# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u32, u64
from rmap.mm.collect_procs cimport collect_procs, kill_procs
from rmap.mm.huge.split_page cimport split_huge_page
from rmap.mm.hugetlb.pool cimport dissolve_free_huge_page
from rmap.mm.hwpoison cimport action_result, get_hwpoison_page, identify_page_state
from rmap.mm.hwpoison cimport is_free_buddy_page, keep, let_go, test_clear_page_hwpoison
from rmap.mm.hwpoison cimport test_set_page_hwpoison
from rmap.mm.inline cimport compound_head, PageAnon, PageCompound, PageDirty, PageHuge
from rmap.mm.inline cimport compound_order, PageHWPoison, PageKsm
from rmap.mm.inline cimport page_mapped, page_mapping_word, PageSwapCache, PageTransHuge, SetPage
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport PageLRU, lock_page, page_count, page_mapping, unlock_page
from rmap.mm.page_dirty cimport mapping_cap_account_dirty, wait_on_page_writeback
from rmap.mm.page_mkclean cimport page_mkclean
from rmap.mm.unmap cimport try_to_unmap

cpdef i32 memory_failure(Kernel k, u64 page, i32 flags) except? -1
cdef i32 _memory_failure(Kernel k, u64 page, i32 flags) except? -1
cpdef i32 memory_failure_hugetlb(Kernel k, u64 page, i32 flags) except? -1
cdef i32 _free_huge_page_breaks(Kernel k, u64 page, u64 head) except? -1
cdef flag _split_thp(Kernel k, u64 page) except? -1
cdef i32 _broken_page_in_use(Kernel k, u64 page, i32 flags) except? -1
cpdef flag hwpoison_user_mappings(Kernel k, u64 page, i32 flags) except? -1
cpdef i32 unpoison_memory(Kernel k, u64 page) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.mm.bug cimport BUG_PAGE, WARN_ONCE
from rmap.mm.huge.deferred cimport deferred_split_huge_page
from rmap.mm.memcg cimport lock_page_memcg, unlock_page_memcg
from rmap.mm.mlock_page cimport clear_page_mlock
from rmap.mm.inline cimport ClearPage, compound_head, hpage_nr_pages, linear_page_index
from rmap.mm.inline cimport mapcount_add_negative, mapcount_inc_and_test, mapcount_set
from rmap.mm.inline cimport mod_node_page_state, page_to_pgoff, PageAnon, PageHead, PageHuge
from rmap.mm.inline cimport PageKsm, PageLocked, PageMlocked, PageSwapBacked, PageTransCompound
from rmap.mm.inline cimport PageTransHuge, set_page_index, set_page_mapping, SetPage, TestClearPage
from rmap.mm.mm_types cimport AnonVma, Kernel, Vma
from rmap.mm.page cimport compound_mapcount_add_negative, compound_mapcount_inc_and_test
from rmap.mm.page cimport compound_mapcount_set
from rmap.mm.page cimport mod_lruvec_page_state, page_anon_vma, page_mapping
from rmap.mm.page cimport page_maybe_dma_pinned

cdef u32 anon_mapping(AnonVma anon_vma) except? 0
cpdef i32 page_move_anon_rmap(Kernel k, u64 page, Vma vma) except -1
cdef i32 __page_set_anon_rmap(Kernel k, u64 page, Vma vma, u64 address, flag exclusive) except -1
cdef i32 __page_check_anon_rmap(Kernel k, u64 page, Vma vma, u64 address) except -1
cpdef i32 page_add_anon_rmap(Kernel k, u64 page, Vma vma, u64 address, flag compound) except -1
cpdef i32 do_page_add_anon_rmap(Kernel k, u64 page, Vma vma, u64 address, i32 flags) except -1
cpdef i32 page_add_new_anon_rmap(
    Kernel k, u64 page, Vma vma, u64 address, flag compound
) except -1
cpdef i32 page_add_file_rmap(Kernel k, u64 page, flag compound) except -1
cdef i64 _add_huge_file_rmap(Kernel k, u64 page) except? -1
cdef i32 page_remove_file_rmap(Kernel k, u64 page, flag compound) except -1
cdef i64 _remove_huge_file_rmap(Kernel k, u64 page) except? -1
cdef i32 page_remove_anon_compound_rmap(Kernel k, u64 page) except -1
cpdef i32 page_remove_rmap(Kernel k, u64 page, flag compound) except -1
cpdef i32 page_dup_rmap(Kernel k, u64 page, flag compound) except -1
cpdef i32 page_try_share_anon_rmap(Kernel k, u64 page) except? -1
cdef i32 __hugepage_set_anon_rmap(
    Kernel k, u64 page, Vma vma, u64 address, flag exclusive
) except -1
cpdef i32 hugepage_add_anon_rmap(Kernel k, u64 page, Vma vma, u64 address) except -1
cpdef i32 hugepage_add_new_anon_rmap(Kernel k, u64 page, Vma vma, u64 address) except -1

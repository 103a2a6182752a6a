# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.fault cimport handle_mm_fault
from rmap.mm.huge.pgtable cimport is_huge_zero_page, pmd_protnone
from rmap.mm.huge.split_page cimport split_huge_page
from rmap.mm.huge.split_pmd cimport split_huge_pmd
from rmap.mm.hugetlb.gup cimport follow_hugetlb_page
from rmap.mm.lru cimport mark_page_accessed, put_page
from rmap.mm.migrate.entries cimport migration_entry_wait, pmd_migration_entry_wait
from rmap.mm.memory cimport is_zero_pfn, ptep_set_access_flags, vm_normal_page
from rmap.mm.mlock_page cimport mlock_vma_page
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.page cimport PageAnon, PageCompound, PageDirty, PageDoubleMap, PageFlag, PageHead
from rmap.mm.page cimport PageTransCompound, compound_mapcount, get_page, page_add_pins
from rmap.mm.page cimport page_mapping_word, lock_page, trylock_page, unlock_page
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport is_migration_entry, is_pmd_migration_entry, is_swap_pte
from rmap.mm.pgtable cimport pte_to_swp_entry
from rmap.mm.pgtable cimport pmd_offset, pmd_trans_huge, pte_dirty, pte_lock, pte_lookup
from rmap.mm.pgtable cimport pte_mkdirty, pte_mkyoung, pte_pfn, pte_present, pte_unlock
from rmap.mm.pgtable cimport pte_write, ptep_get
from rmap.mm.stack cimport find_extend_vma
from rmap.mm.vma cimport find_vma, is_cow_mapping

cdef class GupState:
    cdef public flag nonblocking
    cdef public flag locked
    cdef public list pages
    cdef public u64 flags
    cdef public i64 page_mask

cpdef i64 follow_page(Kernel k, Vma vma, u64 address, u64 flags) except? -1
cdef i64 _split_and_follow(Kernel k, Vma vma, u64 address, u64 pmd, u64 flags) except? -1
cpdef i64 follow_page_mask(Kernel k, Vma vma, u64 address, GupState state) except? -1
cpdef i64 follow_trans_huge_pmd(
    Kernel k, Vma vma, u64 address, u64 pmd, u64 flags
) except? -1
cdef flag can_follow_write_pmd(Kernel k, Vma vma, u64 pmd, u64 flags) except? -1
cdef i32 _mlock_huge(Kernel k, u64 head) except -1
cpdef i64 follow_page_pte(Kernel k, Vma vma, u64 address, u64 flags) except? -1
cdef flag _is_moving(u64 pte) except? -1
cdef i64 _page_of_entry(Kernel k, Vma vma, u64 address, u64 pte, u64 flags) except? -1
cdef flag gup_must_unshare(Kernel k, u64 page, u64 flags) except? -1
cdef flag can_follow_write_pte(
    Kernel k, Vma vma, u64 address, u64 pte, u64 flags
) except? -1
cdef i32 _mlock_followed(Kernel k, u64 page) except -1
cpdef i32 check_vma_flags(Vma vma, u64 flags) except? -1
cdef i32 faultin_page(
    Kernel k, Vma vma, u64 address, flag unshare, GupState state
) except? -1
cpdef i64 find_get_user_pages(
    Kernel k, Mm mm, u64 start, u64 count, GupState state
) except? -1
cdef i64 _get_one(Kernel k, Vma vma, u64 address, GupState state) except? -1
cdef Vma _find_extend_vma(Kernel k, Mm mm, u64 address)
cpdef list get_user_pages(Kernel k, Mm mm, u64 start, u64 count, bint write)
cdef list _get_pages(Kernel k, Mm mm, u64 start, u64 count, u64 flags)
cpdef flag check_user_page_hwpoison(Kernel k, Mm mm, u64 address) except? -1
cpdef i32 put_user_page(Kernel k, u64 page) except -1
cpdef i32 put_user_pages(Kernel k, list pages) except -1
cpdef i32 pin_references(Kernel k, u64 page) except -1
cpdef list pin_user_pages(Kernel k, Mm mm, u64 start, u64 count, bint write)
cpdef i32 unpin_user_page(Kernel k, u64 page) except -1
cpdef i64 populate_vma_page_range(Kernel k, Vma vma, u64 start, u64 end) except? -1
cdef i64 _populate(Kernel k, Vma vma, u64 start, u64 end, GupState state) except? -1
cpdef i32 __mm_populate(
    Kernel k, Mm mm, u64 start, u64 length, bint ignore_errors
) except? -1
cpdef i32 mm_populate(Kernel k, Mm mm, u64 start, u64 length) except? -1

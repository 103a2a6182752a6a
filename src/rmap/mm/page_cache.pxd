# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport PageFlag, PageLocked, compound_head, get_page_unless_zero
from rmap.mm.page cimport hpage_nr_pages, lock_page, mod_lruvec_page_state, mod_node_page_state
from rmap.mm.page cimport page_index, page_mapped, page_mapping_word, page_ref_add, page_ref_sub
from rmap.mm.page cimport page_to_pgoff, set_page_index, set_page_mapping, unlock_page
from rmap.mm.page_dirty cimport account_page_cleaned

cpdef i64 swp_to_radix_entry(u64 entry) noexcept
cpdef u64 radix_to_swp_entry(i64 item) noexcept
cpdef i64 page_cache_item(AddressSpace mapping, u64 index) except? 0
cpdef i64 find_get_entry(Kernel k, AddressSpace mapping, u64 index) except? 0
cpdef u64 find_get_page(Kernel k, AddressSpace mapping, u64 index) except? 0
cpdef i64 find_lock_entry(Kernel k, AddressSpace mapping, u64 index) except? 0
cpdef flag page_in_mapping(Kernel k, u64 page, AddressSpace mapping) except? -1
cpdef i32 add_to_page_cache_locked(
    Kernel k, u64 page, AddressSpace mapping, u64 index, i64 expected
) except? -1
cdef flag _may_enter(
    Kernel k, AddressSpace mapping, u64 index, i32 nr, i64 expected
) except? -1
cpdef flag page_cache_has_any(AddressSpace mapping, u64 index) except? -1
cpdef i32 delete_from_page_cache_locked(
    Kernel k, u64 page, AddressSpace mapping, i64 item
) except -1
cpdef i32 delete_from_page_cache(Kernel k, u64 page) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport PageFlag, PageLocked, get_page, get_page_unless_zero, lock_page
from rmap.mm.page cimport mod_lruvec_page_state, page_index, page_mapped, page_mapping_word
from rmap.mm.page cimport set_page_index, set_page_mapping, unlock_page
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
cpdef i32 delete_from_page_cache_locked(
    Kernel k, u64 page, AddressSpace mapping, i64 item
) except -1
cpdef i32 delete_from_page_cache(Kernel k, u64 page) except -1

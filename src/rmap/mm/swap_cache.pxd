# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport i32, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.content cimport page_bytes, set_page_bytes
from rmap.mm.lru cimport lru_cache_add, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.inline cimport ClearPage, mod_node_page_state, page_private, PageFlag, PageLocked
from rmap.mm.inline cimport PageSwapBacked, PageSwapCache, SetPage, swp_offset, swp_type
from rmap.mm.mm_types cimport AddressSpace, Kernel, MemCgroup, SwapInfo
from rmap.mm.page cimport get_page_unless_zero, lock_page
from rmap.mm.page cimport page_ref_add, page_ref_sub, set_page_private, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.page_dirty cimport end_page_writeback, set_page_writeback
from rmap.mm.swap_slots cimport get_swap_device, put_swap_device, put_swap_page, swap_count
from rmap.mm.swap_slots cimport swap_info, swapcache_prepare

cpdef SwapInfo swap_area(Kernel k, u64 entry)
cpdef i32 add_to_swap_cache(Kernel k, u64 page, u64 entry) except? -1
cpdef i32 remove_from_swap_cache(Kernel k, u64 page) except -1
cpdef i32 delete_from_swap_cache(Kernel k, u64 page) except -1
cpdef u64 lookup_swap_cache(Kernel k, u64 entry) except? 0
cpdef u64 read_swap_cache(Kernel k, u64 entry, MemCgroup memcg) except? 0
cdef i32 _read_into_cache(Kernel k, u64 page, u64 entry, MemCgroup memcg) except? -1
cpdef i32 swap_readpage(Kernel k, u64 page) except -1
cpdef i32 write_to_swap(Kernel k, u64 page) except -1
cdef i32 _end_swap_bio_write(Kernel k, SwapInfo area, u64 page) except -1
cpdef i32 end_swap_writes(Kernel k, SwapInfo area) except -1

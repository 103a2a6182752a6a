# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.inline cimport compound_head, page_mapped, PageCompound, PageFlag, PageKsm
from rmap.mm.inline cimport PageLocked, PageSwapCache, PageTransCompound, SetPage, swp_offset
from rmap.mm.inline cimport total_mapcount
from rmap.mm.lru cimport put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge_swap
from rmap.mm.mm_types cimport Kernel, SwapInfo
from rmap.mm.page cimport page_private, page_trans_huge_mapcount, trylock_page, unlock_page
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport non_swap_entry, swp_entry
from rmap.mm.swap_cache cimport add_to_swap_cache, delete_from_swap_cache, lookup_swap_cache
from rmap.mm.swap_cache cimport write_to_swap
from rmap.mm.swap_slots cimport get_swap_device, put_swap_device
from rmap.mm.swap_slots cimport page_swapcount, put_swap_page, swap_entry_put, swap_info
from rmap.mm.swap_slots cimport vm_swap_full

cpdef u64 get_swap_page(Kernel k, u64 page) except? 0
cdef i64 _scan_swap_map(Kernel k, SwapInfo area) except -1
cdef flag _try_to_reclaim_swap(Kernel k, u64 entry) except? -1
cpdef flag add_to_swap(Kernel k, u64 page) except? -1
cpdef flag try_to_free_swap(Kernel k, u64 page) except? -1
cpdef i32 free_swap_and_cache(Kernel k, u64 entry) except -1
cpdef i32 free_swap_cache(Kernel k, u64 page) except -1
cpdef i32 free_page_and_swap_cache(Kernel k, u64 page) except -1
cpdef i32 reuse_swap_page(Kernel k, u64 page) except -1
cpdef i32 swap_writepage(Kernel k, u64 page) except -1

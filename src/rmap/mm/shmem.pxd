# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.huge.shmem_huge cimport shmem_alloc_hugepage, shmem_wants_huge
from rmap.mm.lru cimport lru_cache_add, mark_page_accessed, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge, mem_cgroup_try_charge_swap
from rmap.mm.memory cimport VmFault
from rmap.mm.mm_types cimport AddressSpace, Kernel, MemCgroup, SwapInfo
from rmap.mm.page cimport ClearPage, PageFlag, PageHead, PageLocked, PageSwapCache, SetPage
from rmap.mm.page cimport lock_page, mod_lruvec_page_state, page_index, page_mapped, page_mapping
from rmap.mm.page cimport page_private, set_page_mapping, trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.page_cache cimport add_to_page_cache_locked, delete_from_page_cache
from rmap.mm.page_cache cimport find_lock_entry, page_cache_item
from rmap.mm.page_cache cimport radix_to_swp_entry, swp_to_radix_entry
from rmap.mm.page_dirty cimport set_page_dirty, wait_on_page_writeback
from rmap.mm.swap cimport free_swap_and_cache, get_swap_page, swap_writepage
from rmap.mm.swap_cache cimport add_to_swap_cache, delete_from_swap_cache
from rmap.mm.swap_cache cimport lookup_swap_cache, read_swap_cache
from rmap.mm.swap_slots cimport get_swap_device, put_swap_device, put_swap_page, swap_free
from rmap.mm.swap_slots cimport swap_shmem_alloc
from rmap.mm.uffd cimport handle_userfault, userfaultfd_missing

cpdef i32 shmem_fault(Kernel k, VmFault vmf) except -1
cpdef i64 shmem_getpage(
    Kernel k, AddressSpace mapping, u64 index, i32 sgp, MemCgroup memcg, VmFault vmf
) except? -1
cdef i64 _add_new_page(
    Kernel k, AddressSpace mapping, u64 index, i32 sgp, i32 sgp_huge, MemCgroup memcg
) except? -1
cdef i32 _enter_new_page(
    Kernel k, AddressSpace mapping, u64 index, u64 page, i32 sgp, MemCgroup memcg
) except? -1
cpdef i32 shmem_note_end(Kernel k, AddressSpace mapping) except -1
cdef i64 _swap_in(
    Kernel k, AddressSpace mapping, u64 index, i64 item, MemCgroup memcg, VmFault vmf
) except? -1
cdef i64 _swap_in_kept(
    Kernel k, AddressSpace mapping, u64 index, i64 item, MemCgroup memcg, VmFault vmf
) except? -1
cpdef i32 shmem_writepage(Kernel k, u64 page) except -1
cdef flag _move_to_swap(Kernel k, u64 page, AddressSpace mapping) except? -1
cpdef i32 shmem_delete_from_page_cache(
    Kernel k, u64 page, AddressSpace mapping, i64 item
) except -1
cpdef i32 shmem_unuse(Kernel k, u64 entry, u64 page) except? -1
cdef i32 _unuse_mapping(Kernel k, AddressSpace mapping, u64 entry, u64 page) except? -1
cpdef i32 shmem_free_swap(Kernel k, AddressSpace mapping, u64 index, i64 item) except? -1

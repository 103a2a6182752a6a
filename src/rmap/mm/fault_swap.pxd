# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport copy_page_content
from rmap.mm.fault_wp cimport do_wp_page
from rmap.mm.ksm.stable cimport Ksm, StableNode, ksm_of, page_stable_node
from rmap.mm.lru cimport activate_page, lru_cache_add, lru_cache_add_active_or_unevictable
from rmap.mm.lru cimport page_pagemap, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport VmFault, lock_page_or_retry, maybe_mkwrite, print_bad_pte
from rmap.mm.migrate.entries cimport migration_entry_wait
from rmap.mm.mlock_page cimport mlock_vma_page_counted
from rmap.mm.inline cimport dec_mm_counter, inc_mm_counter, is_device_private_entry
from rmap.mm.inline cimport is_migration_entry, linear_page_index, page_count, page_index
from rmap.mm.inline cimport page_private, PageFlag, PageHWPoison, PageKsm, PageMlocked
from rmap.mm.inline cimport PageSwapCache, pfn_pte, pte_lock, pte_mkdirty, pte_to_swp_entry
from rmap.mm.inline cimport pte_unlock, ptep_get, set_pte_at, SetPage, swp_offset, swp_type
from rmap.mm.mm_types cimport AnonVma, DevicePagemap, Kernel, Mm, SwapInfo, Vma
from rmap.mm.page cimport PageWriteback, page_anon_vma
from rmap.mm.page cimport set_page_private
from rmap.mm.page cimport trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.pgtable cimport is_hwpoison_entry
from rmap.mm.pgtable cimport non_swap_entry, pte_mksoft_dirty
from rmap.mm.pgtable cimport pte_swp_soft_dirty
from rmap.mm.rmap_counts cimport do_page_add_anon_rmap, page_add_new_anon_rmap
from rmap.mm.swap cimport reuse_swap_page, try_to_free_swap
from rmap.mm.swap_cache cimport lookup_swap_cache, read_swap_cache, swap_readpage
from rmap.mm.swap_slots cimport get_swap_device, put_swap_device, swap_count, swap_free
from rmap.mm.swap_slots cimport vm_swap_full

cdef class SwapFault:
    cdef public u64 entry, page, swapcache
    cdef public i32 ret

cpdef i32 do_swap_page(Kernel k, VmFault vmf) except -1
cdef i32 _swap_in(Kernel k, VmFault vmf, u64 entry) except -1
cdef i32 do_non_swap_entry(Kernel k, VmFault vmf, u64 entry) except -1
cdef i32 device_private_entry_fault(Kernel k, VmFault vmf, u64 page) except -1
cdef flag _find_page(Kernel k, VmFault vmf, SwapFault s) except? -1
cdef u64 _read_alone(Kernel k, u64 entry) except? 0
cpdef u64 ksm_might_need_to_copy(Kernel k, u64 page, Vma vma, u64 address) except? 0
cdef i32 _map_page(Kernel k, VmFault vmf, SwapFault s) except -1
cdef i32 _map_exclusive(Kernel k, VmFault vmf, SwapFault s) except -1
cdef flag _certainly_exclusive(Kernel k, VmFault vmf, SwapFault s) except? -1
cdef flag _should_free_swap(Kernel k, VmFault vmf, SwapFault s) except? -1
cdef i32 _finish(Kernel k, VmFault vmf, SwapFault s) except -1
cdef i32 _give_up(Kernel k, SwapFault s) except -1

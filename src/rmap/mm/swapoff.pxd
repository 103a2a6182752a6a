# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.fault_swap cimport ksm_might_need_to_copy
from rmap.mm.fork cimport mmput
from rmap.mm.inline cimport dec_mm_counter, get_page, inc_mm_counter, is_swap_pte, PageDirty
from rmap.mm.inline cimport PageSwapCache, pfn_pte, pmd_offset, pte_lock, pte_offset
from rmap.mm.inline cimport pte_to_swp_entry, pte_unlock, ptep_get, set_pte_at, SetPage
from rmap.mm.lru cimport activate_page, lru_cache_add_active_or_unevictable, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.mlock_page cimport mlock_vma_page_counted
from rmap.mm.mm_types cimport Kernel, Mm, SwapInfo, Vma
from rmap.mm.page cimport lock_page, page_anon_vma
from rmap.mm.page cimport page_private, unlock_page
from rmap.mm.page_dirty cimport wait_on_page_writeback
from rmap.mm.pgtable cimport pte_mkold
from rmap.mm.pgtable cimport swp_entry
from rmap.mm.rmap_counts cimport do_page_add_anon_rmap, page_add_new_anon_rmap
from rmap.mm.rmap_walk cimport page_address_in_vma
from rmap.mm.shmem cimport shmem_unuse
from rmap.mm.swap cimport swap_writepage
from rmap.mm.swap_cache cimport delete_from_swap_cache, read_swap_cache
from rmap.mm.swap_slots cimport free_swap_count_continuations, swap_count, swap_free
from rmap.mm.swap_slots cimport wait_for_swap_users

cpdef i32 swapoff(Kernel k, i32 kind) except? -1
cpdef i64 find_next_to_unuse(Kernel k, SwapInfo area, i64 last) except -1
cpdef i32 try_to_unuse(Kernel k, SwapInfo area) except? -1
cdef i32 _unuse_slot(Kernel k, SwapInfo area, i64 offset) except? -1
cdef i32 _unuse_mms(Kernel k, SwapInfo area, u64 entry, u64 page) except? -1
cdef i32 _leave_area(Kernel k, SwapInfo area, u64 entry, u64 page) except -1
cpdef i32 unuse_mm(Kernel k, Mm mm, u64 entry, u64 page) except? -1
cpdef i32 unuse_vma(Kernel k, Vma vma, u64 entry, u64 page) except? -1
cpdef i32 unuse_pte(
    Kernel k, Vma vma, u64 ptep, u64 address, u64 entry, u64 page
) except? -1
cdef i32 _replace_pte(
    Kernel k, Vma vma, u64 ptep, u64 address, u64 entry, u64 page, flag copied
) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.inline cimport is_swap_pte, page_mapped, PageTransCompound, pmd_offset, pte_lock
from rmap.mm.inline cimport pte_none, pte_offset, pte_present, pte_to_swp_entry, pte_unlock
from rmap.mm.inline cimport ptep_get
from rmap.mm.lru cimport isolate_lru_page, put_page, putback_lru_page
from rmap.mm.memcg cimport mem_cgroup_move_account, page_counter_uncharge, try_charge
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.mm_types cimport Kernel, MemCgroup, Mm, SwapInfo, Vma
from rmap.mm.page cimport get_page_unless_zero
from rmap.mm.page_cache cimport find_get_page
from rmap.mm.pgtable cimport non_swap_entry
from rmap.mm.swap_cache cimport lookup_swap_cache
from rmap.mm.vma cimport linear_page_index

cdef class MoveCharge:
    cdef public MemCgroup source, target
    cdef public i64 precharge, moved

cpdef i64 mem_cgroup_move_task(Kernel k, Mm mm, MemCgroup target) except? -1
cdef i32 _walk(Kernel k, Mm mm, MoveCharge mc, flag counting) except -1
cdef i32 _move_pte(
    Kernel k, Vma vma, u64 address, u64 pte, MoveCharge mc, flag counting
) except -1
cdef u64 _target_page(Kernel k, Vma vma, u64 address, u64 pte) except? 0
cdef i32 _move_page(Kernel k, u64 page, MoveCharge mc) except -1
cdef i32 _move_swap_account(Kernel k, u64 entry, MoveCharge mc) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.huge.pgtable cimport is_huge_zero_pmd, pmd_trans_huge_lock
from rmap.mm.inline cimport compound_head, get_page, hpage_nr_pages, is_device_private_entry
from rmap.mm.inline cimport is_swap_pte, is_zone_device_page, page_mapped, PageTransCompound
from rmap.mm.inline cimport pmd_offset, pte_lock, pte_none, pte_offset, pte_pfn, pte_present
from rmap.mm.inline cimport pte_to_swp_entry, pte_unlock, ptep_get
from rmap.mm.lru cimport isolate_lru_page, put_page, putback_lru_page
from rmap.mm.memcg cimport mem_cgroup_move_account, page_counter_uncharge, try_charge
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.mm_types cimport Kernel, MemCgroup, Mm, SwapInfo, Vma
from rmap.mm.page cimport get_page_unless_zero
from rmap.mm.page_cache cimport find_get_page
from rmap.mm.pgtable cimport is_swap_pmd, non_swap_entry, swp_offset
from rmap.mm.swap_cache cimport lookup_swap_cache
from rmap.mm.vma cimport linear_page_index

cdef class MoveCharge:
    cdef public MemCgroup source, target
    cdef public i64 precharge, moved, moved_swap

cpdef i64 mem_cgroup_move_task(Kernel k, Mm mm, MemCgroup target) except? -1
cdef i32 _walk(Kernel k, Mm mm, MoveCharge mc, flag counting) except -1
cdef i32 _walk_table(
    Kernel k, Vma vma, u64 pmd, u64 address, u64 end, MoveCharge mc, flag counting
) except -1
cdef i32 _move_pmd(Kernel k, u64 pmde, MoveCharge mc, flag counting) except -1
cdef i32 _move_pte(
    Kernel k, Vma vma, u64 address, u64 pte, MoveCharge mc, flag counting
) except -1
cdef u64 _target_page(Kernel k, Vma vma, u64 address, u64 pte) except? 0
cdef i32 _move_page(Kernel k, u64 page, MoveCharge mc) except -1
cdef i32 _move_swap_account(Kernel k, u64 entry, MoveCharge mc, flag counting) except -1

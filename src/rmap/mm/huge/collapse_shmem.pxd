# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, i64, u64
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.content cimport copy_page_content
from rmap.mm.huge.collapse cimport khugepaged_alloc_page
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.lru cimport isolate_lru_page, lru_cache_add, put_page, putback_lru_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.mm_types cimport AddressSpace, IntervalNode, Kernel, Mm, Vma
from rmap.mm.page cimport ClearPage, PageLocked, PageTransCompound, SetPage, get_page
from rmap.mm.page cimport mod_lruvec_page_state, mod_node_page_state, page_index, page_mapped
from rmap.mm.page cimport page_ref_freeze, page_ref_unfreeze, set_page_index, set_page_mapping
from rmap.mm.page cimport trylock_page, unlock_page
from rmap.mm.page_cache cimport page_cache_has_any, page_cache_item, page_in_mapping
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport is_hwpoison_entry, pte_free_row, pte_lock, pte_offset, pte_present
from rmap.mm.pgtable cimport pte_to_swp_entry, pte_unlock, ptep_get, set_pte_at
from rmap.mm.rmap_walk cimport mm_find_pmd
from rmap.mm.shmem cimport shmem_getpage
from rmap.mm.tlb cimport pmdp_collapse_flush
from rmap.mm.zap cimport unmap_mapping_pages

cdef class CollapseShmem:
    cdef public AddressSpace mapping
    cdef public u64 start
    cdef public u64 page
    cdef public u64 index
    cdef public list pages
    cdef public i64 holes

cpdef i32 collapse_shmem(Kernel k, Mm mm, AddressSpace mapping, u64 start) except -1
cdef i32 _collapsed(Kernel k, CollapseShmem c, i32 result) except -1
cdef i32 _replace_pages(Kernel k, CollapseShmem c) except -1
cdef i32 _fill_hole(Kernel k, CollapseShmem c) except -1
cdef i32 _replace_page(Kernel k, CollapseShmem c, i64 item) except -1
cdef i32 _freeze_page(Kernel k, CollapseShmem c, u64 page) except -1
cdef i32 _finish(Kernel k, CollapseShmem c) except -1
cdef i32 _roll_back(Kernel k, CollapseShmem c) except -1
cpdef i32 retract_page_tables(Kernel k, AddressSpace mapping, u64 start) except -1
cdef i32 _retract(Kernel k, Vma vma, u64 start) except -1
cdef i32 _forget_poison(Kernel k, Mm mm, u64 address, u64 table) except -1

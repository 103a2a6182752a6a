# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.anon_vma cimport anon_vma_lock_write, anon_vma_unlock_write
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.content cimport clear_page_content, copy_page_content
from rmap.mm.fault_swap cimport do_swap_page
from rmap.mm.huge.mm_slot cimport hugepage_end, hugepage_start, khugepaged_test_exit
from rmap.mm.huge.pgtable cimport (
    alloc_transhuge_page, mk_huge_pmd, pgtable_trans_huge_deposit, pmd_populate,
)
from rmap.mm.lru cimport isolate_lru_page, lru_cache_add_active_or_unevictable, put_page
from rmap.mm.lru cimport putback_lru_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport VmFault, is_zero_pfn, maybe_mkwrite, vm_normal_page
from rmap.mm.mlock_page cimport munlock_vma_page_counted
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport (
    mmu_notifier_invalidate_range_end, mmu_notifier_invalidate_range_start,
    mmu_notifier_test_young,
)
from rmap.mm.page cimport PageAnon, PageCompound, PageFlag, PageSwapCache, SetPage
from rmap.mm.page cimport mod_node_page_state, page_count, page_mapcount, trylock_page, unlock_page
from rmap.mm.pgtable cimport (
    is_swap_pte, pte_lock, pte_mkdirty, pte_none, pte_offset, pte_pfn, pte_present, pte_unlock,
    pte_write, pte_young, ptep_get, set_pte_at,
)
from rmap.mm.rmap_counts cimport page_add_new_anon_rmap, page_remove_rmap
from rmap.mm.rmap_walk cimport mm_find_pmd
from rmap.mm.swap cimport free_page_and_swap_cache, reuse_swap_page
from rmap.mm.tlb cimport pmdp_collapse_flush
from rmap.mm.vma cimport (
    add_mm_counter, find_vma, is_vma_temporary_stack, linear_page_index, userfaultfd_armed,
)

cdef class Collapse:
    cdef public Mm mm
    cdef public u64 address
    cdef public i32 referenced
    cdef public Vma vma
    cdef public u64 pmd
    cdef public u64 page
    cdef public i32 result

cpdef flag hugepage_vma_check(Kernel k, Vma vma) except? -1
cpdef i32 hugepage_vma_revalidate(Kernel k, Collapse c) except -1
cpdef u64 khugepaged_alloc_page(Kernel k) except? 0
cpdef i32 collapse_huge_page(Kernel k, Mm mm, u64 address, i32 referenced) except -1
cdef i32 _collapsed(Kernel k, Collapse c, i32 result) except -1
cdef i32 _prepare(Kernel k, Collapse c) except -1
cdef flag _collapse_swapin(Kernel k, Collapse c) except? -1
cdef i32 _collapse(Kernel k, Collapse c) except -1
cdef i32 _map_huge(Kernel k, Collapse c, u64 row) except -1
cdef flag _is_none_or_zero(Kernel k, u64 pte) except? -1
cdef flag _collapse_isolate(Kernel k, Collapse c, u64 first) except? -1
cpdef flag pte_is_young(Kernel k, Mm mm, u64 address, u64 pte, u64 page) except? -1
cdef u64 _page_to_isolate(Kernel k, Collapse c, u64 pte, u64 address) except? 0
cdef i32 _release_pte_page(Kernel k, u64 page) except -1
cdef i32 _release_ptes(Kernel k, u64 first, u64 stop) except -1
cdef i32 _collapse_copy(Kernel k, Collapse c, u64 first) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.anon_vma cimport anon_vma_prepare
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.content cimport copy_page_content
from rmap.mm.lru cimport lru_cache_add_active_or_unevictable, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport VmFault, is_zero_pfn, maybe_mkwrite, ptep_set_access_flags
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.mlock_page cimport munlock_vma_page_counted
from rmap.mm.inline cimport compound_head, dec_mm_counter, get_page, inc_mm_counter, mm_counter_file
from rmap.mm.inline cimport mmu_notifier_invalidate_range_start, page_count, PageAnon, PageFlag
from rmap.mm.inline cimport PageKsm, PageLocked, PageMlocked, PageSwapCache, pfn_pte, pte_lock
from rmap.mm.inline cimport pte_mkdirty, pte_mkyoung, pte_pfn, pte_unlock, ptep_get, SetPage
from rmap.mm.mm_types cimport AddressSpace, Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_only_end
from rmap.mm.mmu_notifier cimport ptep_clear_flush_notify, set_pte_at_notify
from rmap.mm.munlock cimport munlock_vma_page
from rmap.mm.page cimport lock_page, page_mapping
from rmap.mm.page cimport trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.rmap_counts cimport page_add_new_anon_rmap, page_move_anon_rmap, page_remove_rmap
from rmap.mm.swap cimport free_swap_cache, reuse_swap_page, try_to_free_swap

cpdef i32 do_wp_page(Kernel k, VmFault vmf) except -1
cdef i32 wp_page_anon(Kernel k, VmFault vmf) except -1
cdef i32 do_wp_page_exclusive(Kernel k, VmFault vmf) except -1
cdef flag _page_is_ours(Kernel k, Vma vma, u64 page) except? -1
cdef i32 wp_page_reuse(Kernel k, VmFault vmf) except -1
cdef i32 wp_page_copy(Kernel k, VmFault vmf) except -1
cdef u64 _alloc_copy(Kernel k, VmFault vmf, u64 old_page) except? 0
cdef i32 _replace_page(Kernel k, VmFault vmf, u64 old_page, u64 new_page) except -1
cdef i32 _after_copy(Kernel k, Vma vma, u64 old_page) except -1
cdef i32 wp_page_shared(Kernel k, VmFault vmf) except -1
cdef i32 finish_mkwrite_fault(Kernel k, VmFault vmf) except -1
cpdef i32 do_page_mkwrite(Kernel k, VmFault vmf) except -1
cpdef i32 fault_dirty_shared_page(Kernel k, Vma vma, u64 page) except -1

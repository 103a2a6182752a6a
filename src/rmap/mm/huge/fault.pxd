# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.anon_vma cimport anon_vma_prepare
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.content cimport copy_page_content
from rmap.mm.huge.mm_slot cimport khugepaged_enter
from rmap.mm.huge.pgtable cimport alloc_hugepage_direct_gfpmask, alloc_transhuge_page
from rmap.mm.huge.pgtable cimport is_huge_zero_pmd, mk_huge_pmd, mm_get_huge_zero_page
from rmap.mm.huge.pgtable cimport pgtable_trans_huge_deposit, pgtable_trans_huge_withdraw
from rmap.mm.huge.pgtable cimport pmd_populate, set_huge_zero_page, transhuge_range_fits
from rmap.mm.huge.pgtable cimport transparent_hugepage_enabled
from rmap.mm.huge.split_pmd cimport __split_huge_pmd, split_huge_pmd
from rmap.mm.inline cimport get_page, PageFlag, PageSwapCache, pfn_pte, pte_lock, pte_none, pte_pfn
from rmap.mm.inline cimport pte_unlock, ptep_get, set_pte_at, SetPage
from rmap.mm.lru cimport lru_cache_add_active_or_unevictable, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport VmFault
from rmap.mm.memory cimport maybe_mkwrite, ptep_set_access_flags, wait_on_page_locked
from rmap.mm.mlock_page cimport munlock_vma_page_counted
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_only_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page cimport PageHead, get_page_unless_zero, lock_page, page_count
from rmap.mm.page cimport trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.pgtable cimport pte_alloc_row, pte_free_row, pte_mkdirty, pte_mkyoung, pte_modify
from rmap.mm.rmap_counts cimport page_add_new_anon_rmap, page_move_anon_rmap, page_remove_rmap
from rmap.mm.swap cimport reuse_swap_page, try_to_free_swap
from rmap.mm.tlb cimport pmdp_huge_clear_flush
from rmap.mm.uffd cimport handle_userfault, userfaultfd_missing
from rmap.mm.vma cimport add_mm_counter, vma_is_anonymous

cpdef i32 do_huge_pmd_anonymous_page(Kernel k, VmFault vmf) except? -1
cdef i32 _map_huge_zero_page(Kernel k, VmFault vmf) except? -1
cdef i32 _map_new_huge_page(Kernel k, VmFault vmf, u64 page) except? -1
cdef i32 _map_whole(Kernel k, Vma vma, u64 start, u64 pmd, u64 page) except -1
cdef i32 _remove_whole(Kernel k, Vma vma, u64 page) except -1
cpdef i32 huge_pmd_set_accessed(Kernel k, VmFault vmf, u64 orig_pmd) except -1
cdef flag _set_access_flags(Kernel k, VmFault vmf, u64 entry, flag dirty) except? -1
cpdef i32 do_huge_pmd_numa_page(Kernel k, VmFault vmf, u64 pmd) except -1
cpdef i32 wp_huge_pmd(Kernel k, VmFault vmf, u64 orig_pmd) except? -1
cpdef i32 do_huge_pmd_wp_page(Kernel k, VmFault vmf, u64 orig_pmd) except? -1
cdef flag _lock_huge_page(Kernel k, VmFault vmf, u64 orig_pmd, u64 page) except? -1
cdef i32 _reuse_huge_page(Kernel k, VmFault vmf, u64 orig_pmd, u64 page) except? -1
cdef i32 _make_writable(Kernel k, VmFault vmf, u64 orig_pmd) except -1
cpdef i32 do_huge_pmd_wp_page_exclusive(Kernel k, VmFault vmf, u64 orig_pmd) except? -1
cdef flag _huge_page_is_ours(Kernel k, Vma vma, u64 page) except? -1
cdef i32 _copy_huge_page(Kernel k, VmFault vmf, u64 orig_pmd, u64 page, u64 new) except? -1
cpdef i32 copy_huge_content(Kernel k, u64 dst, u64 src) except -1
cpdef u64 pmdp_huge_clear_flush_notify(Kernel k, Vma vma, u64 start, u64 pmd) except? 0
cpdef i32 do_huge_pmd_wp_page_fallback(Kernel k, VmFault vmf, u64 orig_pmd, u64 page) except? -1
cdef list _alloc_copies(Kernel k, Mm mm)
cdef i32 _put_copies(Kernel k, list pages) except -1
cdef i32 _map_copies(Kernel k, Vma vma, u64 start, u64 pmd, list pages) except -1

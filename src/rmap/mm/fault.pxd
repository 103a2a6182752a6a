# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, u64
from rmap.mm.anon_vma cimport anon_vma_prepare
from rmap.mm.bug cimport BUG
from rmap.mm.fault_file cimport do_fault
from rmap.mm.fault_swap cimport do_swap_page
from rmap.mm.fault_wp cimport do_wp_page
from rmap.mm.huge.fault cimport do_huge_pmd_anonymous_page, do_huge_pmd_numa_page
from rmap.mm.huge.fault cimport huge_pmd_set_accessed, wp_huge_pmd
from rmap.mm.huge.pgtable cimport pmd_protnone, transparent_hugepage_enabled
from rmap.mm.hugetlb.fault cimport hugetlb_fault
from rmap.mm.lru cimport lru_cache_add_active_or_unevictable, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport VmFault, init_zero_pfn, ptep_set_access_flags
from rmap.mm.migrate.entries cimport pmd_migration_entry_wait
from rmap.mm.inline cimport inc_mm_counter, is_swap_pmd, pfn_pte, pte_lock, pte_mkdirty, pte_mkwrite
from rmap.mm.inline cimport pte_mkyoung, pte_none, pte_offset, pte_present, pte_unlock, pte_write
from rmap.mm.inline cimport ptep_get, set_pte_at
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.pgtable cimport pmd_alloc
from rmap.mm.pgtable cimport pte_alloc_map
from rmap.mm.pgtable cimport pte_modify
from rmap.mm.rmap_counts cimport page_add_new_anon_rmap
from rmap.mm.uffd cimport handle_userfault, userfaultfd_missing
from rmap.mm.vma cimport vma_is_anonymous

cpdef i32 handle_mm_fault(Kernel k, Vma vma, u64 address, u64 flags) except -1
cpdef i32 handle_fault(Kernel k, VmFault vmf) except -1
cdef i32 handle_huge_fault(Kernel k, VmFault vmf, u64 pmde) except -1
cdef i32 handle_pte_fault(Kernel k, VmFault vmf) except -1
cdef i32 handle_present_pte(Kernel k, VmFault vmf) except -1
cdef i32 do_numa_page(Kernel k, VmFault vmf) except -1
cdef i32 do_anonymous_page(Kernel k, VmFault vmf) except -1
cdef i32 _map_zero_page(Kernel k, VmFault vmf) except -1
cdef i32 _map_anonymous_page(Kernel k, VmFault vmf, u64 page) except -1

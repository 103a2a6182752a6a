# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport anon_vma_prepare
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport copy_page_content
from rmap.mm.fault_wp cimport do_page_mkwrite, fault_dirty_shared_page
from rmap.mm.filemap cimport vma_fault
from rmap.mm.huge.pgtable cimport mk_huge_pmd, transhuge_vma_suitable
from rmap.mm.lru cimport lru_cache_add_active_or_unevictable, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport VmFault, maybe_mkwrite
from rmap.mm.mlock_page cimport mlock_vma_page_counted
from rmap.mm.mm_types cimport AddressSpace, Kernel, Mm, Vma
from rmap.mm.page cimport PageFlag, PageHWPoison, PageLocked, PageTransCompound, SetPage
from rmap.mm.page cimport compound_head, get_page_unless_zero, lock_page, trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.page_cache cimport page_cache_item, page_in_mapping
from rmap.mm.pgtable cimport pfn_pte, pmd_trans_huge, pte_alloc_map, pte_lock, pte_mkdirty
from rmap.mm.pgtable cimport pte_none, pte_unlock, ptep_get, set_pte_at
from rmap.mm.rmap_counts cimport page_add_file_rmap, page_add_new_anon_rmap
from rmap.mm.vma cimport add_mm_counter, inc_mm_counter, mm_counter_file
from rmap.mm.vma cimport mm_counter_huge_file, vma_pages

cpdef i32 do_fault(Kernel k, VmFault vmf) except -1
cdef flag _failed(i32 ret) noexcept
cdef i32 do_read_fault(Kernel k, VmFault vmf) except -1
cdef i32 do_cow_fault(Kernel k, VmFault vmf) except -1
cdef i32 do_shared_fault(Kernel k, VmFault vmf) except -1
cdef i32 file_fault(Kernel k, VmFault vmf) except -1
cdef i32 finish_fault(Kernel k, VmFault vmf) except -1
cdef i32 alloc_set_pte(Kernel k, VmFault vmf, u64 page) except -1
cpdef i32 do_set_pmd(Kernel k, VmFault vmf, u64 page) except -1
cdef i32 do_fault_around(Kernel k, VmFault vmf) except -1
cdef i32 filemap_map_pages(Kernel k, VmFault vmf, u64 start, u64 end) except -1
cdef flag _map_cached_page(
    Kernel k, VmFault vmf, AddressSpace mapping, u64 index, u64 page
) except? -1

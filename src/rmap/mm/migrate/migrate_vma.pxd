# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport anon_vma_prepare
from rmap.mm.huge.pgtable cimport is_huge_zero_pmd
from rmap.mm.huge.split_page cimport split_huge_page
from rmap.mm.huge.split_pmd cimport make_migration_entry, split_huge_pmd
from rmap.mm.lru cimport isolate_lru_page, lru_cache_add_active_or_unevictable, put_page
from rmap.mm.lru cimport putback_lru_page
from rmap.mm.memcg cimport mem_cgroup_try_charge, mem_cgroup_uncharge
from rmap.mm.memory cimport is_zero_pfn, vm_normal_page
from rmap.mm.migrate.entries cimport make_device_private_entry, remove_migration_pte
from rmap.mm.migrate.entries cimport remove_migration_ptes
from rmap.mm.migrate.move cimport migrate_page
from rmap.mm.mlock_page cimport munlock_vma_page_counted
from rmap.mm.mm_types cimport AddressSpace, Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start, ptep_clear_flush_notify
from rmap.mm.page cimport PageCompound, PageFlag, PageTransCompound, get_page
from rmap.mm.page cimport is_device_private_page, is_zone_device_page, page_count
from rmap.mm.page cimport page_mapcount, page_mapped, page_mapping, page_mapping_word
from rmap.mm.page cimport trylock_page, unlock_page
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport is_device_private_entry, pfn_pte, pmd_offset, pmd_trans_huge
from rmap.mm.pgtable cimport pte_alloc, pte_dirty, pte_lock, pte_mkdirty, pte_mkwrite, pte_none
from rmap.mm.pgtable cimport pte_offset, pte_pfn, pte_present, pte_soft_dirty
from rmap.mm.pgtable cimport pte_swp_mksoft_dirty, pte_to_swp_entry, pte_unlock, pte_write
from rmap.mm.pgtable cimport ptep_get, ptep_get_and_clear, set_pte_at, swp_entry_to_pte
from rmap.mm.pgtable cimport swp_offset, swp_type
from rmap.mm.rmap_counts cimport page_add_new_anon_rmap, page_remove_rmap
from rmap.mm.rmap_counts cimport page_try_share_anon_rmap
from rmap.mm.tlb cimport flush_tlb_range
from rmap.mm.unmap cimport try_to_unmap
from rmap.mm.vma cimport inc_mm_counter, vma_is_anonymous

cdef class MigrateVmaOps:
    cdef public i64 prepared
    cpdef i32 alloc_and_copy(self, Kernel k, MigrateVma m) except -1
    cpdef i32 finalize_and_map(self, Kernel k, MigrateVma m) except -1

cdef class MigrateVma:
    cdef public Vma vma
    cdef public u64 start, end
    cdef public list src, dst
    cdef public i64 cpages, npages
    cpdef u64 page(self, i64 i) except? 0
    cpdef flag migrates(self, i64 i) except? -1
    cpdef i32 add(self, u64 word) except -1
    cpdef i32 keep(self, i64 i) except -1
    cpdef i32 forget(self, i64 i) except -1

cpdef i32 migrate_vma(
    Kernel k, MigrateVmaOps ops, Vma vma, u64 start, u64 end
) except? -1
cpdef i32 migrate_vma_collect(Kernel k, MigrateVma m) except -1
cpdef flag migrate_vma_check_page(Kernel k, u64 page) except? -1
cpdef i32 migrate_vma_prepare(Kernel k, MigrateVma m) except -1
cpdef i32 migrate_vma_unmap(Kernel k, MigrateVma m) except -1
cpdef i32 migrate_vma_pages(Kernel k, MigrateVma m) except -1
cpdef flag migrate_vma_insert_page(
    Kernel k, MigrateVma m, u64 address, u64 new
) except? -1
cpdef i32 migrate_vma_finalize(Kernel k, MigrateVma m) except -1
cdef i32 _collect_hole(MigrateVma m, u64 address, u64 end, u64 word) except -1
cdef flag _make_small(Kernel k, Vma vma, u64 pmd, u64 address) except? -1
cdef i32 _collect_table(Kernel k, MigrateVma m, u64 pmd, u64 address, u64 end) except -1
cdef i64 _collect_pte(Kernel k, MigrateVma m, u64 address, u64 ptep) except? -1
cdef flag _replace_pte(
    Kernel k, MigrateVma m, u64 address, u64 ptep, u64 page, flag write
) except? -1
cdef i32 _put_back(Kernel k, u64 page) except -1
cdef i32 _let_stay(Kernel k, MigrateVma m, i64 i, u64 page, flag replaced) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.lru cimport put_page
from rmap.mm.memory cimport maybe_mkwrite, wait_on_page_locked
from rmap.mm.mlock_page cimport clear_page_mlock, mlock_vma_page, mlock_vma_page_counted
from rmap.mm.mm_types cimport Kernel, Vma
from rmap.mm.page cimport PageAnon, PageDoubleMap, PageHuge, PageKsm, PageLocked, PageMlocked
from rmap.mm.page cimport PageTransCompound, PageTransHuge, compound_head, get_page
from rmap.mm.page cimport get_page_unless_zero, is_device_private_page, page_index
from rmap.mm.page_vma_mapped cimport PageVmaMappedWalk, page_vma_mapped_walk
from rmap.mm.pgtable cimport is_migration_entry, is_pmd_migration_entry, is_swap_pte
from rmap.mm.pgtable cimport is_write_migration_entry, pfn_pte, pte_lock, pte_mkold
from rmap.mm.pgtable cimport pte_mksoft_dirty, pte_swp_soft_dirty, pte_to_swp_entry, pte_unlock
from rmap.mm.pgtable cimport pte_write, ptep_get, set_pte_at, swp_entry, swp_entry_to_pte
from rmap.mm.pgtable cimport swp_offset
from rmap.mm.rmap_counts cimport do_page_add_anon_rmap, hugepage_add_anon_rmap
from rmap.mm.rmap_counts cimport page_add_anon_rmap, page_add_file_rmap, page_dup_rmap
from rmap.mm.rmap_walk cimport RmapWalkControl, rmap_walk, rmap_walk_locked
from rmap.mm.vma cimport linear_page_index

cdef class RemoveMigration(RmapWalkControl):
    cdef public u64 old

cpdef u64 migration_entry_to_page(Kernel k, u64 entry) except? 0
cpdef u64 make_device_private_entry(u64 page, flag write) except? 0
cpdef i32 migration_entry_wait(Kernel k, u64 ptep) except -1
cpdef i32 pmd_migration_entry_wait(Kernel k, u64 pmd) except -1
cpdef i32 remove_migration_ptes(Kernel k, u64 old, u64 new, flag locked) except -1
cpdef flag remove_migration_pte(
    Kernel k, u64 page, Vma vma, u64 address, u64 old
) except? -1
cpdef i32 remove_migration_pmd(Kernel k, PageVmaMappedWalk pvmw, u64 new) except -1
cdef i32 _wait(Kernel k, u64 slot, u64 value, flag waits) except -1
cdef i32 _restore_pte(Kernel k, PageVmaMappedWalk pvmw, u64 page, u64 new) except -1
cdef i32 _restore_hugetlb(Kernel k, PageVmaMappedWalk pvmw, u64 new) except -1
cdef u64 _restored(Kernel k, u64 slot, u64 new, Vma vma) except? 0
cdef i32 _was_exclusive(Kernel k, u64 value) except -1
cdef i32 _add_anon(
    Kernel k, u64 new, Vma vma, u64 address, flag compound, i32 exclusive
) except -1

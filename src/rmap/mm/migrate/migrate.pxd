# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport page_get_anon_vma, put_anon_vma
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.huge.pgtable cimport prep_transhuge_page
from rmap.mm.huge.split_page cimport split_huge_page_to_list
from rmap.mm.hugetlb.pool cimport alloc_huge_page_nodemask, isolate_huge_page
from rmap.mm.hugetlb.pool cimport move_hugetlb_state, page_hstate, putback_active_hugepage
from rmap.mm.lru cimport isolate_lru_page, put_page, putback_lru_page
from rmap.mm.migrate.entries cimport remove_migration_ptes
from rmap.mm.migrate.move cimport move_to_new_page
from rmap.mm.mm_types cimport AnonVma, Kernel
from rmap.mm.page cimport ClearPage, PageAnon, PageHuge, PageKsm, PageTransHuge, PageWriteback
from rmap.mm.page cimport TestSetPage, compound_head, compound_order, hpage_nr_pages
from rmap.mm.page cimport lock_page, page_count
from rmap.mm.page cimport page_mapped, page_mapping_word, trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page, alloc_pages
from rmap.mm.page_dirty cimport wait_on_page_writeback
from rmap.mm.unmap cimport try_to_unmap

cdef class MigrationTarget:
    cpdef u64 new_page(self, Kernel k, u64 page) except? 0
    cpdef i32 put_new_page(self, Kernel k, u64 page) except -1

cpdef i32 isolate_for_migration(Kernel k, u64 page) except? -1
cpdef i32 putback_movable_pages(Kernel k, list pages) except -1
cpdef i32 migrate_pages(
    Kernel k, list pages, MigrationTarget target, i32 mode, i32 reason
) except? -1
cpdef i32 unmap_and_move(
    Kernel k, u64 page, MigrationTarget target, flag force, i32 mode, i32 reason
) except? -1
cdef i32 _put_back(Kernel k, u64 page) except -1
cdef flag _split_instead(Kernel k, u64 page, list pages) except? -1
cdef i32 _unmap_and_move(Kernel k, u64 page, u64 new, flag force, i32 mode) except? -1
cdef i32 _move_locked(Kernel k, u64 page, u64 new, flag force, i32 mode) except? -1
cdef i32 _move_unmapped(
    Kernel k, u64 page, u64 new, AnonVma anon_vma, i32 mode
) except? -1
cpdef i32 unmap_and_move_huge_page(
    Kernel k, u64 page, MigrationTarget target, flag force, i32 mode, i32 reason
) except? -1
cdef i32 _move_hugetlb(Kernel k, u64 page, u64 new, i32 mode) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport page_lock_anon_vma_read
from rmap.mm.inline cimport ClearPage, page_mapped, page_rmapping, PageAnon, PageFlag, PageKsm
from rmap.mm.inline cimport SetPage
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AnonVma, Kernel, Vma
from rmap.mm.mmu_notifier cimport pmdp_clear_young_notify, ptep_clear_young_notify
from rmap.mm.page cimport get_page_unless_zero
from rmap.mm.page cimport trylock_page, unlock_page
from rmap.mm.page_vma_mapped cimport PageVmaMappedWalk, page_vma_mapped_walk
from rmap.mm.rmap_walk cimport RmapWalkControl, rmap_walk

cdef class PageIdleControl(RmapWalkControl):
    cdef PageVmaMappedWalk pvmw

cpdef u64 page_idle_get_page(Kernel k, u64 pfn) except? 0
cpdef flag page_idle_clear_pte_refs_one(
    Kernel k, u64 page, Vma vma, u64 address, PageIdleControl rwc
) except? -1
cpdef i32 page_idle_clear_pte_refs(Kernel k, u64 page) except -1
cpdef flag page_idle_bitmap_read(Kernel k, u64 pfn) except? -1
cpdef flag page_idle_bitmap_write(Kernel k, u64 pfn) except? -1
cpdef i64 page_idle_mark_all(Kernel k) except -1

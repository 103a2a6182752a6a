# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport sched
from rmap.sync.locks cimport RwSem
from rmap.mm.anon_vma cimport page_lock_anon_vma_read
from rmap.mm.inline cimport ClearPage, PageAnon, PageKsm, TestClearPage, flush_tlb_page
from rmap.mm.inline cimport page_mapped, page_rmapping, PageTransCompound, pmd_offset, pte_offset
from rmap.mm.inline cimport pte_pfn, pte_present, ptep_clear_flush_young_notify, ptl_of
from rmap.mm.inline cimport total_mapcount
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.mlock_page cimport mlock_vma_page_counted
from rmap.mm.mm_types cimport AnonVma, IntervalNode, Kernel, MemCgroup, Vma
from rmap.mm.mmu_notifier cimport pmdp_clear_flush_young_notify
from rmap.mm.page cimport trylock_page, unlock_page
from rmap.mm.page_vma_mapped cimport PageVmaMappedWalk
from rmap.mm.page_vma_mapped cimport page_vma_mapped_walk, page_vma_mapped_walk_done
from rmap.mm.rmap_walk cimport RmapWalkControl, rmap_walk
from rmap.mm.vma cimport mm_match_cgroup

cdef class PageReferencedArg(RmapWalkControl):
    cdef public i32 mapcount
    cdef public i32 referenced
    cdef public u64 vm_flags
    cdef public MemCgroup memcg
    cdef PageVmaMappedWalk pvmw

cpdef flag page_referenced_one(
    Kernel k, u64 page, Vma vma, u64 address, PageReferencedArg pra
) except? -1
cdef flag _never_mlocked(Kernel k, PageVmaMappedWalk pvmw) except? -1
cpdef i32 page_referenced(
    Kernel k, u64 page, flag is_locked, MemCgroup memcg, PageReferencedArg pra
) except? -1
cpdef i64 page_referenced_range(Kernel k, const u64[::1] pages, MemCgroup memcg=*) except? -1
cdef i32 _referenced_plainly(Kernel k, u64 page, PageReferencedArg pra) except? -1
cdef flag _vma_referenced_plainly(
    Kernel k, u64 page, u64 index, Vma vma, PageReferencedArg pra
) except? -1

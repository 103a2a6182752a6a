# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport anon_vma_lock_read, anon_vma_unlock_read
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.inline cimport hpage_nr_pages, page_mapping_word, page_rmapping, page_to_pgoff
from rmap.mm.inline cimport PageAnon, PageKsm, PageLocked, pmd_offset, pmd_present
from rmap.mm.inline cimport pmd_trans_huge, ptep_get, vma_address, vma_page_address
from rmap.mm.ksm.stable cimport RmapItem, StableNode, page_stable_node
from rmap.mm.mm_types cimport AddressSpace, AnonVma, AnonVmaChain, IntervalNode, IntervalRoot
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.page cimport page_anon_vma
from rmap.mm.page cimport page_mapping

cdef class RmapWalkControl:
    cpdef flag rmap_one(self, Kernel k, u64 page, Vma vma, u64 address) except? -1
    cpdef flag done(self, Kernel k, u64 page) except? -1
    cpdef AnonVma anon_lock(self, Kernel k, u64 page)
    cpdef flag invalid_vma(self, Kernel k, Vma vma) except? -1
    cpdef flag visit(self, Kernel k, u64 page, Vma vma, u64 address) except? -1

cpdef u64 page_address_in_vma(Kernel k, u64 page, Vma vma) except? 0
cpdef u64 mm_find_pmd(Kernel k, Mm mm, u64 address) except? 0
cpdef i32 rmap_walk(Kernel k, u64 page, RmapWalkControl rwc) except -1
cpdef i32 rmap_walk_locked(Kernel k, u64 page, RmapWalkControl rwc) except -1
cpdef i32 rmap_walk_anon(Kernel k, u64 page, RmapWalkControl rwc, flag locked) except -1
cpdef i32 rmap_walk_file(Kernel k, u64 page, RmapWalkControl rwc, flag locked) except -1
cpdef i32 rmap_walk_ksm(Kernel k, u64 page, RmapWalkControl rwc) except -1
cdef flag _walk_item(
    Kernel k, u64 page, RmapItem rmap_item, flag forks, RmapWalkControl rwc
) except? -1
cdef AnonVma rmap_walk_anon_lock(Kernel k, u64 page, RmapWalkControl rwc)
cdef i32 _walk_tree(Kernel k, u64 page, RmapWalkControl rwc, IntervalRoot tree) except -1

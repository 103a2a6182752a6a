# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.fork cimport mmdrop
from rmap.mm.ksm.merge cimport cmp_and_merge_page
from rmap.mm.ksm.slots cimport forget_slot, next_slot
from rmap.mm.ksm.stable cimport Ksm, KsmScan, MmSlot, RmapItem, alloc_rmap_item, free_rmap_item
from rmap.mm.ksm.stable cimport ksm_of, ksm_test_exit
from rmap.mm.ksm.stable cimport remove_rmap_item_from_tree, remove_unstable_items
from rmap.mm.ksm.tree cimport remove_all_stable_nodes
from rmap.mm.ksm.unmerge cimport ksm_follow_page, unmerge_ksm_pages
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.page cimport PageAnon
from rmap.mm.pgtable cimport pmd_offset, pte_none, ptep_get
from rmap.mm.vma cimport find_vma

cdef class ScanStep:
    cdef public RmapItem rmap_item
    cdef public u64 page

cpdef RmapItem get_next_rmap_item(Kernel k, MmSlot slot, u64 address)
cpdef i32 remove_trailing_rmap_items(Kernel k, MmSlot slot, i64 first) except -1
cpdef i32 scan_get_next_rmap_item(Kernel k, ScanStep step) except -1
cdef i32 _begin_slot(KsmScan scan) except -1
cdef flag _scan_slot(Kernel k, MmSlot slot, ScanStep step) except? -1
cdef flag _scan_vma(Kernel k, MmSlot slot, Vma vma, ScanStep step) except? -1
cpdef i64 ksm_do_scan(Kernel k, i64 scan_npages) except? -1
cpdef i64 ksm_scan_thread(Kernel k, i64 pages_to_scan) except? -1
cpdef i32 unmerge_and_remove_all_rmap_items(Kernel k) except? -1
cdef i32 _unmerge_slot(Kernel k, MmSlot slot) except? -1
cpdef i32 run_store(Kernel k, i32 run) except? -1
cpdef i32 max_page_sharing_store(Kernel k, i32 limit) except? -1
cpdef i64 pages_volatile(Kernel k) except? -1

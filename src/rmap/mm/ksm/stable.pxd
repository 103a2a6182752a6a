# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport sched, sched_point
from rmap.sync.locks cimport SpinLock
from rmap.mm.anon_vma cimport put_anon_vma
from rmap.mm.bug cimport BUG, BUG_PAGE, WARN_ONCE
from rmap.mm.content cimport page_bytes
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AnonVma, Kernel, Mm
from rmap.mm.page cimport PageKsm, PageLocked, PageSwapCache, get_page, get_page_unless_zero
from rmap.mm.page cimport lock_page, page_mapped, page_mapping_word, page_rmapping
from rmap.mm.page cimport set_page_mapping, unlock_page

cdef class RmapItem:
    cdef public Mm mm
    cdef public u64 address
    cdef public AnonVma anon_vma
    cdef public StableNode head
    cdef public u32 oldchecksum

cdef class StableNode:
    cdef public u64 handle
    cdef public u64 kpfn
    cdef public dict hlist
    cdef public i32 rmap_hlist_len
    cdef public list dups
    cdef public StableNode chain
    cdef public bytes held
    cdef public i64 chain_prune_time
    cdef public set unlisted

cdef class MmSlot:
    cdef public Mm mm
    cdef public list rmap_list

cdef class KsmScan:
    cdef public MmSlot mm_slot
    cdef public u64 address
    cdef public i64 cursor
    cdef public u64 seqnr

cdef class Ksm:
    cdef public list stable_nodes, stable_node_free
    cdef public list stable_tree, unstable_tree
    cdef public i64 unstable_at
    cdef public list mm_slots
    cdef public dict slots_hash
    cdef public KsmScan scan
    cdef public SpinLock thread_mutex, mmlist_lock
    cdef public i32 run
    cdef public i32 max_page_sharing
    cdef public flag use_zero_pages
    cdef public i64 stable_node_chains_prune_millisecs, sleep_millisecs, now
    cdef public i64 pages_shared, pages_sharing, pages_unshared, rmap_items
    cdef public i64 stable_node_chains, stable_node_dups

cpdef Ksm ksm_of(Kernel k)
cpdef flag ksm_test_exit(Mm mm) except? -1
cpdef RmapItem alloc_rmap_item(Kernel k, Mm mm, u64 address)
cpdef i32 free_rmap_item(Kernel k, RmapItem rmap_item) except -1
cpdef StableNode alloc_stable_node(Kernel k)
cpdef i32 free_stable_node(Kernel k, StableNode node) except -1
cpdef StableNode page_stable_node(Kernel k, u64 page)
cpdef u32 stable_node_mapping(StableNode node) except? 0
cpdef i32 set_page_stable_node(Kernel k, u64 page, StableNode node) except -1
cdef u64 _read_kpfn(StableNode node) except? 0
cpdef u64 get_ksm_page(Kernel k, StableNode node, flag lock_it) except? 0
cdef u64 _get_if_still(Kernel k, u64 page, u32 expected) except? 0
cpdef i32 ksm_migrate_page(Kernel k, u64 newpage, u64 oldpage) except -1
cpdef flag is_stable_node_chain(StableNode node) except? -1
cpdef i64 stable_tree_position(Ksm ksm, StableNode node) except? -1
cpdef i32 stable_node_chain_add_dup(Kernel k, StableNode dup, StableNode chain) except -1
cdef i32 stable_node_dup_del(Kernel k, StableNode dup) except -1
cpdef StableNode alloc_stable_node_chain(Kernel k, StableNode dup)
cpdef i32 free_stable_node_chain(Kernel k, StableNode chain) except -1
cpdef flag is_page_sharing_candidate(Kernel k, StableNode node, i32 more) except? -1
cpdef i32 stable_tree_append(
    Kernel k, RmapItem rmap_item, StableNode node, flag bypass
) except -1
cdef i32 _leave_node(Kernel k, StableNode node, RmapItem rmap_item, flag last) except -1
cpdef i32 remove_node_from_stable_tree(Kernel k, StableNode node) except -1
cpdef i32 remove_unstable_items(Kernel k, list items) except -1
cdef i32 _erase_unstable(Ksm ksm, RmapItem rmap_item) except -1
cpdef i32 remove_rmap_item_from_tree(Kernel k, RmapItem rmap_item) except -1

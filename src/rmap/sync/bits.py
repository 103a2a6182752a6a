# SPDX-License-Identifier: GPL-2.0-only
"""Lock ranks, and the names of what a scheduling point announces.

Ranks are the lock order of the listing's header, outermost first: whoever holds a lock may take
only one of a higher rank. Locks of one rank may nest where the kernel nests them and says how
(`NESTABLE`): two mmap_sems at fork, two page-table locks at fork and mremap, two page locks at
migration.
"""

from __future__ import annotations

RANK_KSM_THREAD = 0
RANK_INODE = 1
RANK_MMAP_SEM = 2
# A file of hugetlbfs is mapped with its inode locked, and huge pages are made one by one.
RANK_HUGETLB_INODE = 3
RANK_HUGETLB_FAULT = 4
RANK_PAGE_LOCK = 5
RANK_HUGETLB_I_MMAP = 6
RANK_I_MMAP = 7
RANK_ANON_VMA = 8
# memory_failure() takes the task list between an rmap lock and the page-table lock.
RANK_TASKLIST = 9
RANK_PAGE_TABLE = 10
RANK_PTL = 11
RANK_SWAP = 12
RANK_MMLIST = 13
RANK_PRIVATE = 14
RANK_MEMCG_MOVE = 15
# The header has it beside the swap locks. It is also taken inside memcg->move_lock, by the removal
# of the last mapping of an mlocked page of a file, and outside the i_pages lock, by splits.
RANK_LRU = 16
RANK_I_PAGES = 17
RANK_SPLIT_QUEUE = 18
# Of the lists of address spaces that khugepaged goes through; nothing is taken inside.
RANK_MM_SLOT = 19
# The last reference to a huge page may be dropped under any of the others.
RANK_HUGETLB = 20
RANK_RESV_MAP = 21
# Taken inside mmap_sem, with nothing inside of it.
RANK_KSM_MMLIST = 22

# How a lock is held, or is asked for.
READ_MODE = 0
WRITE_MODE = 1
# Of assert_held(): either mode will do.
ANY_MODE = 2

# What happens at a scheduling point.
OP_READ = 0
OP_WRITE = 1
OP_RMW = 2
OP_ACQUIRE = 3
OP_TRY = 4
OP_RELEASE = 5
OP_ALLOC = 6
OP_FREE = 7

# What it happens to. A lock announces its rank; these name the fields that are no locks.
FIELD_MAPPING = 32
FIELD_MAPCOUNT = 33
FIELD_REFCOUNT = 34
FIELD_PAGE_FLAGS = 35
FIELD_INDEX = 36
FIELD_PTE = 37
FIELD_VMA_ANON_VMA = 38
FIELD_ANON_VMA = 39
FIELD_ANON_VMA_REFCOUNT = 40
FIELD_TLB = 41
FIELD_TLB_BATCHED = 42
FIELD_SWAP_MAP = 43
FIELD_CONTENT = 44
FIELD_USERFAULT = 45
FIELD_STABLE_NODE = 46

NAMES = {
    RANK_KSM_THREAD: "ksm_thread_mutex",
    RANK_INODE: "inode->i_mutex",
    RANK_MMAP_SEM: "mm->mmap_sem",
    RANK_HUGETLB_INODE: "hugetlbfs inode->i_rwsem",
    RANK_HUGETLB_FAULT: "hugetlb_fault_mutex",
    RANK_PAGE_LOCK: "PG_locked",
    RANK_HUGETLB_I_MMAP: "hugetlbfs i_mmap_rwsem",
    RANK_I_MMAP: "mapping->i_mmap_rwsem",
    RANK_ANON_VMA: "anon_vma->rwsem",
    RANK_TASKLIST: "tasklist_lock",
    RANK_PAGE_TABLE: "mm->page_table_lock",
    RANK_PTL: "pte_lock",
    RANK_SWAP: "swap_lock",
    RANK_MMLIST: "mmlist_lock",
    RANK_PRIVATE: "mapping->private_lock",
    RANK_MEMCG_MOVE: "memcg->move_lock",
    RANK_LRU: "zone_lru_lock",
    RANK_I_PAGES: "i_pages lock",
    RANK_SPLIT_QUEUE: "split_queue_lock",
    RANK_MM_SLOT: "khugepaged_mm_lock",
    RANK_HUGETLB: "hugetlb_lock",
    RANK_RESV_MAP: "resv_map->lock",
    RANK_KSM_MMLIST: "ksm_mmlist_lock",
    FIELD_MAPPING: "page->mapping",
    FIELD_MAPCOUNT: "page->_mapcount",
    FIELD_REFCOUNT: "page->_refcount",
    FIELD_PAGE_FLAGS: "page->flags",
    FIELD_INDEX: "page->index",
    FIELD_PTE: "pte",
    FIELD_VMA_ANON_VMA: "vma->anon_vma",
    FIELD_ANON_VMA: "anon_vma",
    FIELD_ANON_VMA_REFCOUNT: "anon_vma->refcount",
    FIELD_TLB: "tlb",
    FIELD_TLB_BATCHED: "mm->tlb_flush_batched",
    FIELD_SWAP_MAP: "swap_map",
    FIELD_CONTENT: "content",
    FIELD_USERFAULT: "userfault",
    FIELD_STABLE_NODE: "stable_node->kpfn",
}
NESTABLE = frozenset({RANK_MMAP_SEM, RANK_PTL, RANK_PAGE_LOCK})

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The structures of the model, under the kernel's names (include/linux/mm_types.h, v4.18).

What there is one of for every page is a column of `Kernel`, indexed by page frame number: a page
*is* its frame number, and 0 is no page. What there are thousands of is an object. The attributes
and their C types stand in ``mm_types.pxd``, which reads like the kernel's header.

A pointer to a page-table entry is an index into ``Kernel.pt``; 0 is NULL. A table is a row of 512
entries, and the page frame number in an entry that is not a leaf is the row of the next table.
"""

from __future__ import annotations

from typing import Any

import cython
import numpy as np

if not cython.compiled:
    from rmap.mm.bits import (
        HUGETLB_FAULT_MUTEXES,
        NR_FREE_PAGES,
        NR_LRU_LISTS,
        NR_MM_COUNTERS,
        NR_VM_STATS,
        SHMEM_HUGE_NEVER,
        THP_DEFRAG_MADVISE,
        THP_NEVER,
        VM_FAULT_SIGBUS,
    )
    from rmap.mm.profile import KernelProfile
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.bits import (
        RANK_ANON_VMA,
        RANK_HUGETLB,
        RANK_HUGETLB_FAULT,
        RANK_HUGETLB_I_MMAP,
        RANK_HUGETLB_INODE,
        RANK_I_MMAP,
        RANK_I_PAGES,
        RANK_INODE,
        RANK_LRU,
        RANK_MEMCG_MOVE,
        RANK_MM_SLOT,
        RANK_MMAP_SEM,
        RANK_MMLIST,
        RANK_PAGE_TABLE,
        RANK_PRIVATE,
        RANK_RESV_MAP,
        RANK_SPLIT_QUEUE,
        RANK_SWAP,
        RANK_TASKLIST,
    )
    from rmap.sync.core import Context
    from rmap.sync.locks import RwSem, SpinLock

#: The columns of the memory map: the fields of struct page.
PAGE_COLUMNS = (
    "pg_flags",
    "pg_mapping",
    "pg_index",
    "pg_mapcount",
    "pg_refcount",
    "pg_private",
    "pg_lru_next",
    "pg_lru_prev",
    "pg_memcg",
)
#: Tables in a new machine's pool; it grows by doubling.
FIRST_TABLES = 64


def column(count: int, dtype: type, fill: int = 0) -> memoryview:
    """Make a column of `count` numbers: uncompiled, a memoryview gives and takes plain ints."""
    values: Any = np.full(count, fill, dtype) if fill else np.zeros(count, dtype)
    return memoryview(values)


class IntervalNode:
    """A node of an interval tree (struct rb_node and rb_subtree_last).

    Its interval is that of `vma` in pages of the file or of the anonymous index space, read
    through the VMA at every comparison; `cached_start` and `cached_last` are what it was when the
    node was linked (CONFIG_DEBUG_VM_RB), so that a change under a linked node shows.
    """

    def __init__(self, vma: Vma) -> None:
        self.vma = vma
        self.rb_left: IntervalNode = None
        self.rb_right: IntervalNode = None
        self.rb_parent: IntervalNode = None
        self.rb_red = False
        self.rb_linked = False
        self.rb_subtree_last = 0
        self.cached_start = 0
        self.cached_last = 0


class IntervalRoot:
    """The root of an interval tree, with its leftmost node (struct rb_root_cached)."""

    def __init__(self) -> None:
        self.rb_node: IntervalNode = None
        self.rb_leftmost: IntervalNode = None


class AnonVma:
    """struct anon_vma (include/linux/rmap.h:28): a set of VMAs that may map the same pages.

    The object is a slot of a type-stable slab: freed, it stays an anon_vma, and the next
    allocation makes it another one. `incarnation` counts those, for checkers only.
    `degree` is what v4.18 counts; `num_children` and `num_active_vmas`, its two terms, are kept
    beside it for the rule of v6.0.
    """

    def __init__(self, handle: u64) -> None:
        self.handle = handle
        self.root = self
        self.parent = self
        self.rwsem = RwSem(RANK_ANON_VMA, handle)
        self.refcount = 0
        self.degree = 0
        self.num_children = 0
        self.num_active_vmas = 0
        self.rb_root = IntervalRoot()
        self.incarnation = 0

    def __repr__(self) -> str:
        return f"<anon_vma {self.handle}>"


class AnonVmaChain(IntervalNode):
    """struct anon_vma_chain: an edge between a VMA and an anon_vma; the node in the latter's tree.

    It is on ``vma.anon_vma_chain`` (newest first, as list_add() leaves it).
    """

    def __init__(self, vma: Vma) -> None:
        super().__init__(vma)
        self.anon_vma: AnonVma = None


class AddressSpace:
    """struct address_space: the page cache of one file, and the VMAs that map it.

    `i_pages` maps index to page. `backing` is what is on disk: index to content (`bytes`); a
    shmem file keeps swap entries in `i_pages` instead of writing back. `huge` is the option huge=
    of the mount that a shmem file is on, `shrinkable` that it may have a huge page at its end which
    reaches beyond it (that it is on sbinfo->shrinklist).
    A file of hugetlbfs has an `hstate`, the size of its pages, by which its offsets in `i_pages`
    count, and in `resv_map` what of it is reserved; its locks have places of their own in the
    lock order.
    reaches beyond it (that it is on sbinfo->shrinklist). `wb_err` is a negative errno that the
    next fsync() returns, of contents that were lost.
        `writes_to_migrate`: the file system cannot move dirty pages, so they are written first.
    """

    def __init__(
        self, handle: u64, name: str, *, shmem: bool = False, hstate: Hstate | None = None
    ) -> None:
        self.handle = handle
        self.name = name
        self.host: File = None
        self.i_pages = {}
        self.i_pages_lock = SpinLock(RANK_I_PAGES, handle)
        self.i_mmap = IntervalRoot()
        huge: bool = hstate is not None
        self.i_mmap_rwsem = RwSem(RANK_HUGETLB_I_MMAP if huge else RANK_I_MMAP, handle)
        self.i_rwsem = RwSem(RANK_HUGETLB_INODE if huge else RANK_INODE, handle)
        self.hstate = hstate
        self.resv_map: ResvMap = None
        self.i_mmap_writable = 0
        self.nrpages = 0
        self.shmem = shmem
        self.unevictable = False
        self.writenotify = False
        self.writes_to_migrate = False
        self.size_pages = 0
        self.huge = SHMEM_HUGE_NEVER
        self.shrinkable = False
        self.backing = {}
        self.wb_err = 0

    def __repr__(self) -> str:
        return f"<address_space {self.name}>"


class Hstate:
    """struct hstate: the pool of huge pages of one size, of 2**`order` pages each.

    `nr_huge_pages` are in the pool, `free_huge_pages` of them free, `resv_huge_pages` promised
    to mappings that have not touched them yet, `surplus_huge_pages` beyond the size that the pool
    was set to, `max_huge_pages`; so many surplus pages as `nr_overcommit_huge_pages` may be made
    when they are needed. Free pages are on `hugepage_freelist`, the others, but such as have been
    isolated, on `hugepage_activelist` (as keys, in order). `broken_promises` counts how often a
    promise was left without a page, for checkers only.
    """

    def __init__(self, name: str, order: i32) -> None:
        self.name = name
        self.order = order
        self.max_huge_pages = 0
        self.nr_huge_pages = 0
        self.free_huge_pages = 0
        self.resv_huge_pages = 0
        self.surplus_huge_pages = 0
        self.nr_overcommit_huge_pages = 0
        self.broken_promises = 0
        self.hugepage_freelist = []
        self.hugepage_activelist = {}

    def __repr__(self) -> str:
        return f"<hstate {self.name}>"


class ResvMap:
    """struct resv_map: regions of huge pages, by offset in a file or in a private mapping.

    `regions` are pairs of first and last-but-one offset, in order and apart from one another. In
    a file's map they are what is reserved or in use; in a private mapping's, what of its
    reservations is used up. `adds_in_progress` were asked for by region_chg() and not yet made,
    and `region_cache_count` descriptors are kept for them, so that making them cannot fail.
    """

    def __init__(self, ident: u64) -> None:
        self.refs = 1
        self.lock = SpinLock(RANK_RESV_MAP, ident)
        self.regions = []
        self.adds_in_progress = 0
        self.region_cache_count = 1


class File:
    """struct file, as far as mappings go. `anonymous` is a file made for MAP_SHARED memory."""

    def __init__(self, name: str, inode: u64, mapping: AddressSpace) -> None:
        self.name = name
        self.inode = inode
        self.f_mapping = mapping
        self.f_count = 1
        self.anonymous = False

    def __repr__(self) -> str:
        return f"<file {self.name}>"


class Vma:
    """struct vm_area_struct. Anonymous memory has no `vm_file` (vma_is_anonymous).

    A private mapping of hugetlbfs has in `resv_map` which of its reservations are used up, and in
    `resv_flags` (``HPAGE_RESV_``) whether they are its own; the kernel keeps both in
    vm_private_data.
    """

    def __init__(self, mm: Mm, start: u64, end: u64, flags: u64, pgoff: u64) -> None:
        self.ident = 0
        self.vm_mm = mm
        self.vm_start = start
        self.vm_end = end
        self.vm_pgoff = pgoff
        self.vm_flags = flags
        self.vm_page_prot = 0
        self.vm_next: Vma = None
        self.vm_prev: Vma = None
        self.vm_file: File = None
        self.anon_vma: AnonVma = None
        self.anon_vma_chain: list = []
        self.shared = IntervalNode(self)
        self.vm_userfaultfd_ctx: Any = None
        self.resv_map: ResvMap = None
        self.resv_flags = 0
        self.name = ""

    def __repr__(self) -> str:
        return f"<vma {self.vm_start:#x}-{self.vm_end:#x}>"


class Mm:
    """struct mm_struct. `vmas` is the VMAs by address, which the kernel keeps in mm_rb.

    `mm_users` is who uses the address space, all of them together one of `mm_count`, who refer to
    this object. `flags` are ``MMF_``.
    """

    def __init__(self, kernel: Kernel, ident: u64, pgd: u64) -> None:
        self.ident = ident
        self.kernel = kernel
        self.pgd = pgd
        self.pmd_tag = 0
        self.pmd_table = 0
        self.mmap: Vma = None
        self.vmas: list = []
        self.map_count = 0
        self.mmap_sem = RwSem(RANK_MMAP_SEM, ident)
        self.page_table_lock = SpinLock(RANK_PAGE_TABLE, ident)
        self.rss_stat = column(NR_MM_COUNTERS, np.longlong)
        self.hiwater_rss = 0
        self.hugetlb_usage = 0
        self.locked_vm = 0
        self.total_vm = 0
        self.mm_users = 1
        self.mm_count = 1
        self.flags = 0
        self.on_mmlist = False
        self.tlb_flush_batched = False
        self.tlb_flush_pending = 0
        self.tlb_gen = 1
        self.cpu_bitmap = 0
        self.start_brk = 0
        self.brk = 0
        self.def_flags = 0
        self.memcg = kernel.memcgs[0]
        self.notifier: Any = None
        self.comm = ""
        self.nr_ptes = 0
        self.vm_hugepage = False
        self.has_huge_zero_page = False
        self.dead = False

    def __repr__(self) -> str:
        return f"<mm {self.ident} {self.comm}>"


class LruVec:
    """struct lruvec: the LRU lists of one memcg. Pages are linked through their lru columns.

    `recent_scanned` and `recent_rotated` are those of struct zone_reclaim_stat: for anonymous
    memory and for files, what reclaim looked at and what of it turned out to be in use.
    """

    def __init__(self, memcg: MemCgroup) -> None:
        self.memcg = memcg
        self.head = column(NR_LRU_LISTS, np.uintc)
        self.tail = column(NR_LRU_LISTS, np.uintc)
        self.size = column(NR_LRU_LISTS, np.longlong)
        self.recent_scanned = column(2, np.longlong)
        self.recent_rotated = column(2, np.longlong)


class MemCgroup:
    """struct mem_cgroup: pages charged (`usage`, `limit`, in pages; limit -1 is none)."""

    def __init__(self, ident: i32, name: str, parent: MemCgroup | None) -> None:
        self.ident = ident
        self.name = name
        self.parent = parent
        self.usage = 0
        self.limit = -1
        self.lruvec = LruVec(self)
        self.stat = column(NR_VM_STATS, np.longlong)
        self.moving_account = 0
        self.move_lock = SpinLock(RANK_MEMCG_MOVE, ident)
        self.move_lock_task: Context | None = None

    def __repr__(self) -> str:
        return f"<memcg {self.name}>"


class TlbBatch:
    """struct tlbflush_unmap_batch: flushes that reclaim owes (include/linux/mm_types_task.h)."""

    def __init__(self) -> None:
        self.cpumask = 0
        self.flush_required = False
        self.writable = False


class Task(Context):
    """struct task_struct, as far as it is used: whoever runs, with its address space.

    `mce_process` and `mce_early` are PF_MCE_PROCESS and PF_MCE_EARLY: whether the task has said
    when it wants to hear of broken memory, and that this is at once.
    """

    def __init__(self, name: str, pid: i32, mm: Mm | None, cpu: i32 = 0) -> None:
        super().__init__(name, cpu)
        self.pid = pid
        self.mm = mm
        self.tlb_ubc = TlbBatch()
        self.mce_process = False
        self.mce_early = False


class SwapInfo:
    """struct swap_info_struct: one swap area.

    `swap_map` has a byte a slot (count and SWAP_HAS_CACHE), `cache` the page of the swap cache
    for each slot (0 none), `slots` the contents that were written out (slot to `bytes`).
    `swap_cgroup` is whose memory a slot holds: the number of its memcg plus one. `continuation`
    holds what does not fit into the bytes of `swap_map` (slot to carry), `continuation_pages` the
    pages which that takes. The device: `stable_writes` forbids changing a page that is being
    written, `synchronous` makes faults bypass the swap cache, and with `deferred` writes are
    finished only by `end_swap_writes`, their pages waiting in `pending`. `users` and `dying` are
    those of get_swap_device(): swapoff waits for the former, and the latter lets in no more.
    """

    def __init__(self, type: i32, pages: i64) -> None:
        self.type = type
        self.pages = pages
        self.swap_map = column(pages, np.ubyte)
        self.cache = column(pages, np.uintc)
        self.slots = {}
        self.inuse = 0
        self.lowest = 1
        self.writeok = True
        self.stable_writes = False
        self.synchronous = False
        self.address_space: AddressSpace = None
        self.lock = SpinLock(RANK_SWAP, type + 1)
        self.continuation = {}
        self.continuation_pages = {}
        self.swap_cgroup = column(pages, np.ushort)
        self.prio = -1
        self.turn = 0
        self.deferred = False
        self.pending = []
        self.users = 0
        self.dying = False


class Khugepaged:
    """Settings and state of khugepaged (mm/khugepaged.c): what it is to look at, and how far it is.

    `mm_head` has the address spaces that it goes through, in the order in which they came;
    `scan_mm` is the one that it is at, and `scan_address` where in it.
    """

    def __init__(self) -> None:
        self.defrag = True
        self.pages_to_scan = 4096
        self.max_ptes_none = 511
        self.max_ptes_swap = 64
        self.pages_collapsed = 0
        self.full_scans = 0
        self.mm_head = []
        self.scan_mm: Mm = None
        self.scan_address = 0
        self.mm_lock = SpinLock(RANK_MM_SLOT, 0)


class Reclaimer:
    """What an allocation calls when memory is short; `rmap.mm.vmscan` has the real one."""

    def try_to_free_pages(self, k: Kernel, memcg: MemCgroup | None, wanted: i64) -> i64:
        """Free `wanted` pages, of `memcg` or of anybody; returns how many it freed."""
        return 0

    def compact(self, k: Kernel, order: i32, wait: flag) -> flag:
        """Move pages so that a run of 2**`order` becomes free; whether it is worth looking."""
        return False


class DevicePagemap:
    """struct dev_pagemap: memory of a device, in the memory map behind that of RAM (CONFIG_HMM).

    Its pages are `start` to `end`, both included. No CPU reaches them: entries of page tables name
    them by special swap entries, and whoever touches such an entry calls `fault`. A page that is
    free has one reference, which is the device's. `rmap.mm.migrate.device` has a real one.
    """

    def __init__(self, start: u64, end: u64) -> None:
        self.start = start
        self.end = end

    def page_free(self, k: Kernel, page: u64) -> i32:
        """Nobody but the device has a reference to the page any more."""
        return 0

    def fault(self, k: Kernel, vma: Vma, address: u64, page: u64) -> i32:
        """Bring a page back to where CPUs reach it; returns VM_FAULT_ bits, 0 to try again."""
        return VM_FAULT_SIGBUS


class Kernel:
    """All that is global in a kernel: memory map, page tables, slabs, lists, statistics.

    Parameters
    ----------
    nr_pages
        Size of RAM in pages; valid page frame numbers are 1 to `nr_pages`.
    profile
        Which kernel it is.

    The columns ``pg_*`` are the fields of struct page; ``numpy.asarray(k.pg_flags)`` is an array
    over the same memory, for code that looks at all pages at once.

    `early_kill` is the sysctl vm.memory_failure_early_kill. `poisoned` is for checkers: which page
    how many references were taken to for good, as its memory is broken. `mf_actions` and `kills`
    are what memory_failure() would say in the log, oldest first.
    """

    def __init__(self, nr_pages: u64, profile: KernelProfile) -> None:
        self.profile = profile
        self.reuse_rule = profile.reuse_rule
        self.nr_pages = nr_pages
        self._make_pages(nr_pages + 1)
        self._make_tables()
        self.vm_stat = column(NR_VM_STATS, np.longlong)
        self.vm_stat[NR_FREE_PAGES] = nr_pages
        self.free_head = 0
        self.free_next = 1
        self.free_last = nr_pages
        self.block_free = column((nr_pages >> 9) + 1, np.ushort)
        self.free_blocks = []
        self.device_pagemaps = []
        self.compact_migrate_pfn = 0
        self.compact_free_pfn = 0
        self.compact_considered = 0
        self.compact_defer_shift = 0
        self.compact_order_failed = 0
        self.nr_free = nr_pages
        self.watermark_high = 0
        self.watermark_low = 0
        self.watermark_min = 0
        self.kswapd_woken = False
        self.swappiness = 60
        self.zero_page = 0
        self.fault_around = 1
        self.content = {}
        self.anon_vmas: list = [None]
        self.anon_vma_free = []
        self.mappings: list = [None]
        self.files = []
        self.mms = []
        self.memcgs = []
        self.swap_areas = []
        self.mmlist = []
        self.tasks = []
        self.mmlist_lock = SpinLock(RANK_MMLIST, 0)
        self.swap_lock = SpinLock(RANK_SWAP, 0)
        self.lru_lock = SpinLock(RANK_LRU, 0)
        self.private_lock = SpinLock(RANK_PRIVATE, 0)
        self.tasklist_lock = RwSem(RANK_TASKLIST, 0)
        self.tlbs = []
        self.warnings = []
        self.inject: Any = None
        self.tracer: Any = None
        self.notifier_log: Any = None
        self.reclaimer = Reclaimer()
        self.shrinkers = []
        self.debug_vm = True
        self.in_reclaim = False
        self.serial = 0
        self._make_huge()
        self._make_hugetlb()
        self._make_poison()
        self.ksm: Any = None
        root: MemCgroup = MemCgroup(0, "/", None)
        self.memcgs.append(root)
        self.root_lruvec = root.lruvec

    def _make_poison(self) -> None:
        """No memory is broken."""
        self.early_kill = False
        self.num_poisoned_pages = 0
        self.poisoned = {}
        self.mf_actions = []
        self.kills = []

    def _make_pages(self, count: u64) -> None:
        """Make the memory map: every page free, as the allocator leaves it."""
        self.pg_flags = column(count, np.uintc)
        self.pg_mapping = column(count, np.uintc)
        self.pg_index = column(count, np.ulonglong)
        self.pg_mapcount = column(count, np.intc, -1)
        self.pg_refcount = column(count, np.intc)
        self.pg_private = column(count, np.uintc)
        self.pg_lru_next = column(count, np.uintc)
        self.pg_lru_prev = column(count, np.uintc)
        self.pg_memcg = column(count, np.ushort)

    def add_device_memory(self, pagemap: DevicePagemap, flags: u64) -> None:
        """Extend the memory map by the pages of a device, which begin where it ends.

        Every memoryview of a column that was kept is stale then.
        """
        for name in PAGE_COLUMNS:
            old: Any = np.asarray(getattr(self, name))
            fill = -1 if name == "pg_mapcount" else 0
            more: Any = np.full(pagemap.end - pagemap.start + 1, fill, old.dtype)
            joined: Any = np.concatenate((old, more))
            setattr(self, name, memoryview(joined))
        np.asarray(self.pg_flags)[pagemap.start :] = flags
        np.asarray(self.pg_refcount)[pagemap.start :] = 1
        self.device_pagemaps.append(pagemap)

    def _make_tables(self) -> None:
        """Make the pool of page tables; row 0 stays unused, so that 0 can be NULL."""
        self.pt = column(FIRST_TABLES * 512, np.ulonglong)
        self.pt_locked = column(FIRST_TABLES, np.ubyte)
        self.pt_free = []
        self.pt_next = 1

    def _make_huge(self) -> None:
        """Set up transparent huge pages, which a new kernel has, but uses nowhere.

        `pmd_huge_pte` has the page tables that are kept for the huge PMDs of a table of PMDs, in
        the order in which they came: row of that table to rows. `deferred_split_queue` is the huge
        pages to be split, oldest first: head to ``SPLIT_``. `anon_mapped_twice` is for checkers: by
        how many pages NR_ANON_MAPPED is too large for good, which v4.18 lets happen. So is
        `lost_pages`: broken ones that allocation came by and dropped, to be used by nobody.
        """
        self.thp_enabled = THP_NEVER
        self.thp_defrag = THP_DEFRAG_MADVISE
        self.thp_use_zero_page = True
        self.shmem_enabled = SHMEM_HUGE_NEVER
        self.huge_zero_page = 0
        self.huge_zero_refcount = 0
        self.pmd_huge_pte = {}
        self.deferred_split_queue = {}
        self.anon_mapped_twice = 0
        self.lost_pages = set()
        self.split_queue_lock = SpinLock(RANK_SPLIT_QUEUE, 0)
        self.khugepaged = Khugepaged()
        self.shmem_shrinklist = []

    def _make_hugetlb(self) -> None:
        """Set up pools of 2 MiB and 1 GiB pages, with nothing in them.

        `pmd_sharers` counts who else uses a table of PMDs: row to mms beyond the first. That some
        table ever was shared is noted for checkers.
        """
        self.hstates = [Hstate("2M", 9), Hstate("1G", 18)]
        self.hugetlb_lock = SpinLock(RANK_HUGETLB, 0)
        self.hugetlb_fault_mutexes = []
        for number in range(HUGETLB_FAULT_MUTEXES):
            self.hugetlb_fault_mutexes.append(RwSem(RANK_HUGETLB_FAULT, number))
        self.pmd_sharers = {}
        self.pmd_table_was_shared = False

    def grow_tables(self) -> None:
        """Double the pool of page tables. Every memoryview of it that was kept is stale then."""
        old = np.asarray(self.pt)
        self.pt = column(2 * len(old), np.ulonglong)
        np.asarray(self.pt)[: len(old)] = old
        locked = np.asarray(self.pt_locked)
        self.pt_locked = column(2 * len(locked), np.ubyte)
        np.asarray(self.pt_locked)[: len(locked)] = locked

    def next_serial(self) -> u64:
        """Return a number that no other object of this machine has."""
        self.serial += 1
        return self.serial

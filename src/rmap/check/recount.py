# SPDX-License-Identifier: GPL-2.0-only
"""A machine taken apart: every page-table entry, VMA, chain and tree, found from scratch.

Nothing here believes a counter, a list length or an index of the kernel. Page tables are read from
their roots down, trees from their roots by their child pointers alone, and what is found is laid
out in arrays by which the checks count again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rmap.check.entries import I64, U64, Bools, Entries, joined, read_tables
from rmap.mm.bits import (
    _PAGE_SPECIAL,
    COUNT_CONTINUED,
    LRU_UNEVICTABLE,
    MAX_SWAPFILES,
    NR_LRU_LISTS,
    PAGE_MAPPING_ANON,
    PAGE_MAPPING_FLAGS,
    PAGE_SHIFT,
    PTE_NONE_IGNORES,
    SWAP_HAS_CACHE,
    SWAP_MAP_MAX,
    SWP_DEVICE_WRITE,
    SWP_HWPOISON,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    SWP_OFFSET_MASK,
    SWP_TYPE_SHIFT,
    PG_double_map,
    PG_head,
    PG_huge,
    PG_lru,
    PG_tail,
    PG_unevictable,
)
from rmap.mm.ksm.stable import RmapItem, StableNode
from rmap.mm.mm_types import (
    AddressSpace,
    AnonVma,
    AnonVmaChain,
    IntervalNode,
    IntervalRoot,
    Kernel,
    LruVec,
    Mm,
    SwapInfo,
    Vma,
)


class Recount:
    """What a kernel's memory holds, found anew.

    Parameters
    ----------
    kernel
        Must be at rest: no operation under way.
    pins
        References that holders outside the kernel have: page frame number to how many. ``None``
        if they are not known; then a page may have more references than are found.
    """

    def __init__(self, kernel: Kernel, pins: Mapping[int, int] | None = None) -> None:
        self.kernel = kernel
        self.pins = pins
        self.mms: list[Mm] = list(kernel.mms)
        self.vmas: list[Vma] = [vma for mm in self.mms for vma in mm.vmas]
        tables = read_tables(kernel, self.mms)
        self.problems = tables.problems
        self.table_rows = tables.rows
        self.table_mms = tables.mms
        self.entries = tables.entries
        self.entries.vma = self._vmas_of(self.entries)

    # ------------------------------------------------------------ page tables

    def _vmas_of(self, entries: Entries) -> I64:
        """The VMA that covers each entry, -1 where none does."""
        if not self.vmas:
            return np.full(len(entries), -1, np.int64)
        starts = (self.vma_mm.astype(np.uint64) << np.uint64(48)) + self.vma_start
        wanted = (entries.mm.astype(np.uint64) << np.uint64(48)) + entries.address
        at = np.searchsorted(starts, wanted, side="right").astype(np.int64) - 1
        near = np.maximum(at, 0)
        inside = (at >= 0) & (self.vma_mm[near] == entries.mm)
        inside &= entries.address < self.vma_end[near]
        return np.where(inside, at, -1)

    @cached_property
    def vma_mm(self) -> I64:
        """Of each VMA, the place of its mm in `mms`."""
        counts = [len(mm.vmas) for mm in self.mms]
        return np.repeat(np.arange(len(self.mms), dtype=np.int64), counts)

    @cached_property
    def vma_start(self) -> U64:
        """First address of each VMA."""
        return np.array([vma.vm_start for vma in self.vmas], np.uint64)

    @cached_property
    def vma_end(self) -> U64:
        """Of each VMA, the address behind it."""
        return np.array([vma.vm_end for vma in self.vmas], np.uint64)

    @cached_property
    def vma_pgoff(self) -> U64:
        """vm_pgoff of each VMA."""
        return np.array([vma.vm_pgoff for vma in self.vmas], np.uint64)

    @cached_property
    def _present(self) -> Entries:
        return self.entries.where(self.entries.present)

    @cached_property
    def _special(self) -> Bools:
        """Whether each present entry is of what no reverse map knows: zero pages."""
        one = self._present.value & np.uint64(_PAGE_SPECIAL) != 0
        return one & (self._present.order == 0) | (self._present.pfn == self.huge_zero_page)

    @cached_property
    def mapped(self) -> Entries:
        """Entries that map a page that is reverse-mapped, small and huge ones."""
        return self._present.where(~self._special)

    @cached_property
    def special(self) -> Entries:
        """Present entries of what has no struct page to look at: the zero pages."""
        return self._present.where(self._special)

    @cached_property
    def _not_present(self) -> Entries:
        rest = self.entries.where(~self.entries.present)
        return rest.where(rest.value & ~np.uint64(PTE_NONE_IGNORES) != 0)

    @cached_property
    def swapped(self) -> Entries:
        """Entries that hold a slot of a swap area."""
        return self._not_present.where(self._not_present.swap_type < MAX_SWAPFILES)

    @cached_property
    def other(self) -> Entries:
        """Entries that hold something else: migration, device memory, a broken page."""
        return self._not_present.where(self._not_present.swap_type >= MAX_SWAPFILES)

    @cached_property
    def migrating(self) -> Entries:
        """Entries that wait for a page to be moved; `swap_offset` is the page."""
        kind = self.other.swap_type
        return self.other.where((kind == SWP_MIGRATION_READ) | (kind == SWP_MIGRATION_WRITE))

    @cached_property
    def on_device(self) -> Entries:
        """Entries of pages in a device's memory; `swap_offset` is the page."""
        return self.other.where(self.other.swap_type >= SWP_DEVICE_WRITE)

    @cached_property
    def poisoned(self) -> Entries:
        """Entries in the place of a page that broke; `swap_offset` is the page."""
        return self.other.where(self.other.swap_type == SWP_HWPOISON)

    @cached_property
    def held(self) -> Entries:
        """Entries that a walk over their page must find: `mapped`, `on_device`, `migrating`."""
        found = joined([self.mapped, self.on_device, self.migrating])
        found.vma = self._vmas_of(found)
        return found

    @cached_property
    def held_pages(self) -> I64:
        """The page of each of `held`."""
        others = (self.on_device.swap_offset, self.migrating.swap_offset)
        return np.concatenate((self.mapped.pfn, *others))

    @cached_property
    def held_pgoff(self) -> U64:
        """linear_page_index() of each of `held`; 0 where no VMA covers it."""
        vma = self.held.vma
        if not len(self.vmas):
            return np.zeros(len(vma), np.uint64)
        near = np.maximum(vma, 0)
        into = (self.held.address - self.vma_start[near]) >> np.uint64(PAGE_SHIFT)
        return np.where(vma >= 0, into + self.vma_pgoff[near], np.uint64(0))

    # ------------------------------------------------------------ pages

    @cached_property
    def mapping(self) -> npt.NDArray[np.uint32]:
        """page->mapping of every page frame, of the head for a tail."""
        return np.asarray(self.kernel.pg_mapping)[self.head]

    @cached_property
    def anon(self) -> Bools:
        """PageAnon of every page frame."""
        return self.mapping & np.uint32(PAGE_MAPPING_ANON) != 0

    @cached_property
    def plain_anon(self) -> Bools:
        """Of every page frame, whether it names an anon_vma (and not a KSM node)."""
        return self.mapping & np.uint32(PAGE_MAPPING_FLAGS) == PAGE_MAPPING_ANON

    @cached_property
    def head(self) -> I64:
        """compound_head() of every page frame: itself, but for tails."""
        frames = np.arange(len(self.kernel.pg_flags), dtype=np.int64)
        linked = np.asarray(self.kernel.pg_lru_next).astype(np.int64)
        return np.where(self.flagged(PG_tail) & (linked <= self.kernel.nr_pages), linked, frames)

    @cached_property
    def heads(self) -> list[int]:
        """The first pages of compound pages."""
        return np.flatnonzero(self.flagged(PG_head)).tolist()

    @cached_property
    def hugetlb(self) -> Bools:
        """PageHuge of every page frame."""
        return self.flagged(PG_huge)[self.head]

    @cached_property
    def huge_zero_page(self) -> int:
        """The huge zero page, -1 if there is none."""
        return int(self.kernel.huge_zero_page) or -1

    @cached_property
    def double_mapped(self) -> Bools:
        """PageDoubleMap of every head; the flag is in the page behind it."""
        behind = np.append(self.flagged(PG_double_map)[1:], False)
        return behind & self.flagged(PG_head)

    def order(self, head: int) -> int:
        """compound_order() of a head; 0 of one so near the end that it has no tail."""
        return int(self.kernel.pg_private[head + 1]) if head < self.kernel.nr_pages else 0

    @cached_property
    def pte_counts(self) -> I64:
        """How many small entries map each page frame, or have it in a device's memory."""
        pages = np.concatenate((self.mapped.small.pfn, self.on_device.swap_offset))
        return self._count(pages)

    @cached_property
    def pmd_counts(self) -> I64:
        """How many huge entries map each head of a transparent huge page."""
        huge = self.mapped.huge
        return self._count(huge.pfn[~self.hugetlb[huge.pfn]])

    @cached_property
    def hugetlb_counts(self) -> I64:
        """How many huge entries map each head of a hugetlb page; of a shared table, once."""
        huge = self.mapped.huge
        huge = huge.where(self.hugetlb[huge.pfn])
        _, first = np.unique(huge.ptep, return_index=True)
        return self._count(huge.pfn[first])

    @cached_property
    def map_counts(self) -> I64:
        """How many entries map each page frame, by itself or as part of a huge page."""
        whole = self.pmd_counts + self.hugetlb_counts
        return self.pte_counts + (whole[self.head] if whole.any() else 0)

    @cached_property
    def pgoff(self) -> U64:
        """page_to_pgoff() of every page frame: where in its file, or anonymous area, it is."""
        frames = np.arange(len(self.kernel.pg_flags), dtype=np.int64)
        index = np.asarray(self.kernel.pg_index)
        found = index[self.head] + (frames - self.head).astype(np.uint64)
        for head in np.flatnonzero(self.flagged(PG_huge) & self.flagged(PG_head)).tolist():
            order = self.order(head)
            first = index[head] << np.uint64(order)
            found[head : head + (1 << order)] = first + np.arange(1 << order, dtype=np.uint64)
        return found

    @cached_property
    def sizes(self) -> I64:
        """How many pages each page frame stands for: a head for all, its tails for none."""
        sizes = np.where(self.flagged(PG_tail), 0, 1)
        for head in self.heads:
            sizes[head] = 1 << self.order(head)
        return sizes

    def _count(self, pages: I64) -> I64:
        return np.bincount(pages, minlength=len(self.kernel.pg_flags))

    def flagged(self, bit: int) -> Bools:
        """Of every page frame, whether a page flag is set."""
        return np.asarray(self.kernel.pg_flags) & np.uint32(bit) != 0

    @cached_property
    def deposited(self) -> dict[int, list[int]]:
        """Tables kept for when a huge entry is split, by the row of the table that it is in."""
        return {int(row): list(kept) for row, kept in self.kernel.pmd_huge_pte.items() if kept}

    @cached_property
    def pmd_table_owners(self) -> dict[int, int]:
        """The mm of each table of PMDs, by its row."""
        level = 2
        rows, mms = self.table_rows[level].tolist(), self.table_mms[level].tolist()
        return dict(zip(rows, mms, strict=True))

    @cached_property
    def deposited_rows(self) -> list[int]:
        """All of these tables."""
        return [int(row) for kept in self.deposited.values() for row in kept]

    @cached_property
    def cached_pages(self) -> Counter[int]:
        """Pages in page caches: page frame number to how often it is in one."""
        return Counter(page for mapping in self.mappings for _, page in self.pages_of(mapping))

    def pages_of(self, mapping: AddressSpace) -> list[tuple[int, int]]:
        """Pages in the cache of a file, as pairs of index and page frame number."""
        slots = mapping.i_pages.items()
        return [(int(index), int(item)) for index, item in slots if item > 0]

    @cached_property
    def lru(self) -> list[tuple[LruVec, list[list[int]]]]:
        """The LRU lists of each cgroup: pages from the newest to the oldest, by list."""
        return [(group.lruvec, self._lists_of(group.lruvec)) for group in self.kernel.memcgs]

    def _lists_of(self, lruvec: LruVec) -> list[list[int]]:
        k = self.kernel
        lists: list[list[int]] = []
        for number in range(NR_LRU_LISTS):
            if number == LRU_UNEVICTABLE and k.profile.mlock_counts:
                both = self.flagged(PG_lru) & self.flagged(PG_unevictable)
                both &= np.asarray(k.pg_memcg) == lruvec.memcg.ident
                lists.append(np.flatnonzero(both).tolist())
                continue
            pages: list[int] = []
            page = int(lruvec.head[number])
            while page and len(pages) <= k.nr_pages:
                pages.append(page)
                page = int(k.pg_lru_next[page])
            lists.append(pages)
        return lists

    # ------------------------------------------------------------ swap

    @cached_property
    def areas(self) -> list[SwapInfo]:
        """Swap areas that are in use."""
        return [area for area in self.kernel.swap_areas if area.pages]

    @cached_property
    def swap_cache(self) -> dict[int, tuple[int, int]]:
        """Pages in the swap cache: page frame number to swap area and slot."""
        found = {}
        for area in self.areas:
            cache = np.asarray(area.cache)
            for slot in np.flatnonzero(cache).tolist():
                found[int(cache[slot])] = (int(area.type), slot)
        return found

    @cached_property
    def slot_users(self) -> Counter[tuple[int, int]]:
        """How many page-table entries hold each slot, by swap area and slot."""
        entries = self.swapped
        pairs = zip(entries.swap_type.tolist(), entries.swap_offset.tolist(), strict=True)
        return Counter(pairs)

    @cached_property
    def shmem_slots(self) -> Counter[tuple[int, int]]:
        """How often shared memory holds each slot in the place of a page."""
        return Counter(
            (-item >> SWP_TYPE_SHIFT, -item & SWP_OFFSET_MASK)
            for mapping in self.mappings
            for item in mapping.i_pages.values()
            if item < 0
        )

    @cached_property
    def continuation_pages(self) -> list[int]:
        """Pages that hold what does not fit into the bytes of a swap map."""
        lists = [pages for area in self.areas for pages in area.continuation_pages.values()]
        return [int(page) for pages in lists for page in pages]

    # ------------------------------------------------------------ objects

    @cached_property
    def mappings(self) -> list[AddressSpace]:
        """Address spaces of files that exist."""
        return [mapping for mapping in self.kernel.mappings if mapping is not None]

    @cached_property
    def live_anon_vmas(self) -> list[AnonVma]:
        """anon_vmas that are allocated: every slot of the slab that is not on its free list."""
        slots = [av for av in self.kernel.anon_vmas if av is not None]
        return [av for av in slots if int(av.handle) not in self.free_anon_vmas]

    @cached_property
    def free_anon_vmas(self) -> set[int]:
        """Handles of the slots on the slab's free list."""
        return {int(anon_vma.handle) for anon_vma in self.kernel.anon_vma_free}

    @cached_property
    def stable_nodes(self) -> list[StableNode]:
        """Nodes of merged pages, and chains of them: all that KSM has allocated."""
        ksm = self.kernel.ksm
        return [] if ksm is None else [node for node in ksm.stable_nodes if node is not None]

    @cached_property
    def merged_items(self) -> list[tuple[StableNode, RmapItem]]:
        """Every place that KSM merged, with the node that it hangs on."""
        return [(node, item) for node in self.stable_nodes for item in node.hlist]

    @cached_property
    def chains(self) -> list[tuple[Vma, AnonVmaChain]]:
        """Every edge that some VMA's chain holds, with that VMA."""
        return [(vma, avc) for vma in self.vmas for avc in vma.anon_vma_chain]

    @cached_property
    def trees(self) -> dict[int, list[IntervalNode]]:
        """Nodes of each anon_vma's tree, in order, by the anon_vma's handle."""
        slots = [av for av in self.kernel.anon_vmas if av is not None]
        return {int(av.handle): tree_nodes(av.rb_root) for av in slots}

    @cached_property
    def owners(self) -> dict[int, list[Vma]]:
        """VMAs by the handle of the anon_vma that they own."""
        found: dict[int, list[Vma]] = {}
        for vma in self.vmas:
            if vma.anon_vma is not None:
                found.setdefault(int(vma.anon_vma.handle), []).append(vma)
        return found


def slot_count(area: SwapInfo, slot: int) -> int:
    """How many entries refer to a slot, by its byte and the digits carried out of it."""
    count = int(area.swap_map[slot]) & ~(SWAP_HAS_CACHE | COUNT_CONTINUED)
    return count + int(area.continuation.get(slot, 0)) * (SWAP_MAP_MAX + 1)


def tree_nodes(root: IntervalRoot) -> list[IntervalNode]:
    """Return the nodes of an interval tree in order, by child pointers alone."""
    nodes: list[IntervalNode] = []
    stack: list[IntervalNode] = []
    node = root.rb_node
    while stack or node is not None:
        while node is not None:
            stack.append(node)
            node = node.rb_left
        node = stack.pop()
        nodes.append(node)
        node = node.rb_right
    return nodes


def name_vma(vma: Vma) -> str:
    """Name a VMA for people."""
    return f"{vma.vm_start:#x}-{vma.vm_end:#x} of mm {vma.vm_mm.ident} ({vma.vm_mm.comm})"

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

from rmap.mm.bits import (
    _PAGE_PRESENT,
    _PAGE_PROTNONE,
    _PAGE_PSE,
    _PAGE_SPECIAL,
    COUNT_CONTINUED,
    LRU_UNEVICTABLE,
    MAX_SWAPFILES,
    NR_LRU_LISTS,
    PAGE_MAPPING_ANON,
    PAGE_MAPPING_FLAGS,
    PAGE_SHIFT,
    PTE_NONE_IGNORES,
    PTE_PFN_MASK,
    SWAP_HAS_CACHE,
    SWAP_MAP_MAX,
    SWP_OFFSET_MASK,
    SWP_PTE_OFFSET_SHIFT,
    SWP_PTE_TYPE_MASK,
    SWP_PTE_TYPE_SHIFT,
    SWP_TYPE_SHIFT,
    PG_lru,
    PG_unevictable,
)
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

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Address bits below the entries of each level that holds tables: pgd, pud, pmd.
UPPER_LEVELS = (39, 30, 21)
TABLE = 512


class Entries:
    """Page-table entries of every mm that hold something, by mm and address.

    `mm` is the place in ``Recount.mms``, `ptep` the entry's place in ``Kernel.pt``, and `vma` that
    in ``Recount.vmas`` (-1 where none covers the address).
    """

    def __init__(self, mm: I64, address: U64, ptep: I64, value: U64) -> None:
        self.mm = mm
        self.address = address
        self.ptep = ptep
        self.value = value
        self.vma: I64 = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.value)

    def where(self, rows: Bools | I64) -> Entries:
        """Some of the entries."""
        part = Entries(self.mm[rows], self.address[rows], self.ptep[rows], self.value[rows])
        part.vma = self.vma[rows]
        return part

    @property
    def pfn(self) -> I64:
        """The page of each entry, if it is a present one."""
        return ((self.value & np.uint64(PTE_PFN_MASK)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)

    @property
    def swap_type(self) -> I64:
        """The swap area (or special type) of each entry, if it is a swap entry."""
        kind = self.value >> np.uint64(SWP_PTE_TYPE_SHIFT) & np.uint64(SWP_PTE_TYPE_MASK)
        return kind.astype(np.int64)

    @property
    def swap_offset(self) -> I64:
        """The slot (or page) of each entry, if it is a swap entry."""
        return (self.value >> np.uint64(SWP_PTE_OFFSET_SHIFT)).astype(np.int64)


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
        self.problems: list[str] = []
        self.table_rows: list[I64] = [np.array([mm.pgd for mm in self.mms], np.int64)]
        self.table_mms: list[I64] = [np.arange(len(self.mms), dtype=np.int64)]
        self.entries = self._read_tables()
        self.entries.vma = self._vmas_of(self.entries)

    # ------------------------------------------------------------ page tables

    def _read_tables(self) -> Entries:
        """Read every page table, from all roots down at once. Huge entries are none here yet."""
        pt = np.asarray(self.kernel.pt).reshape(-1, TABLE)
        rows, mm = self.table_rows[0], self.table_mms[0]
        base = np.zeros(len(rows), np.uint64)
        for shift in UPPER_LEVELS:
            values, mm, base, _ = _used(pt, rows, mm, base, shift)
            if (values & np.uint64(_PAGE_PRESENT) == 0).any() or (
                values & np.uint64(_PAGE_PSE)
            ).any():
                self.problems.append("an upper page table holds what is no table")
            rows = ((values & np.uint64(PTE_PFN_MASK)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
            self.table_rows.append(rows)
            self.table_mms.append(mm)
        values, mm, base, place = _used(pt, rows, mm, base, PAGE_SHIFT)
        return Entries(mm, base, place, values)

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
    def _present(self) -> Bools:
        return self.entries.value & np.uint64(_PAGE_PRESENT | _PAGE_PROTNONE) != 0

    @cached_property
    def mapped(self) -> Entries:
        """Entries that map a page that is reverse-mapped (vm_normal_page is not NULL)."""
        return self.entries.where(
            self._present & (self.entries.value & np.uint64(_PAGE_SPECIAL) == 0)
        )

    @cached_property
    def special(self) -> Entries:
        """Present entries of what has no struct page to look at: the zero page."""
        return self.entries.where(
            self._present & (self.entries.value & np.uint64(_PAGE_SPECIAL) != 0)
        )

    @cached_property
    def _not_present(self) -> Entries:
        return self.entries.where(
            ~self._present & (self.entries.value & ~np.uint64(PTE_NONE_IGNORES) != 0)
        )

    @cached_property
    def swapped(self) -> Entries:
        """Entries that hold a slot of a swap area."""
        return self._not_present.where(self._not_present.swap_type < MAX_SWAPFILES)

    @cached_property
    def other(self) -> Entries:
        """Entries that hold something else: migration, device memory, a broken page."""
        return self._not_present.where(self._not_present.swap_type >= MAX_SWAPFILES)

    @cached_property
    def mapped_pgoff(self) -> U64:
        """linear_page_index() of each of `mapped`; 0 where no VMA covers it."""
        vma = self.mapped.vma
        if not len(self.vmas):
            return np.zeros(len(vma), np.uint64)
        near = np.maximum(vma, 0)
        into = (self.mapped.address - self.vma_start[near]) >> np.uint64(PAGE_SHIFT)
        return np.where(vma >= 0, into + self.vma_pgoff[near], np.uint64(0))

    # ------------------------------------------------------------ pages

    @cached_property
    def mapping(self) -> npt.NDArray[np.uint32]:
        """page->mapping of every page frame."""
        return np.asarray(self.kernel.pg_mapping)

    @cached_property
    def anon(self) -> Bools:
        """PageAnon of every page frame."""
        return self.mapping & np.uint32(PAGE_MAPPING_ANON) != 0

    @cached_property
    def plain_anon(self) -> Bools:
        """Of every page frame, whether it names an anon_vma (and not a KSM node)."""
        return self.mapping & np.uint32(PAGE_MAPPING_FLAGS) == PAGE_MAPPING_ANON

    @cached_property
    def map_counts(self) -> I64:
        """How many entries map each page frame."""
        return np.bincount(self.mapped.pfn, minlength=self.kernel.nr_pages + 1)

    def flagged(self, bit: int) -> Bools:
        """Of every page frame, whether a page flag is set."""
        return np.asarray(self.kernel.pg_flags) & np.uint32(bit) != 0

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


def _used(pt: U64, rows: I64, mm: I64, base: U64, shift: int) -> tuple[U64, I64, U64, I64]:
    """Entries that are not empty in some tables: values, mm, first address, place in the pool."""
    tables = pt[rows]
    table, slot = np.nonzero(tables)
    address = base[table] + (slot.astype(np.uint64) << np.uint64(shift))
    return tables[table, slot], mm[table], address, rows[table] * TABLE + slot


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

# SPDX-License-Identifier: GPL-2.0-only
"""``MemoryImage``: what a machine's memory looked like at one moment.

An image never changes. Sources build one (`rmap.source`), files store one (`rmap.image.store`),
queries read one (`rmap.query`). Indexes are made on first use and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Pte
from rmap.image.reverse import ReverseMap
from rmap.image.schema import TABLES
from rmap.image.table import Table

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: Entries in swap format that name no swap slot: their ``pfn`` is another thing, or nothing.
NO_SLOT = Pte.MIGRATION | Pte.HWPOISON | Pte.DEVICE | Pte.GUARD


class MemoryImage:
    """The tables of one moment, and the ways through them.

    Parameters
    ----------
    tables
        Tables by name; those of :data:`rmap.image.schema.TABLES` that are missing are empty.

    Every table is an attribute: ``image.ptes["pfn"]`` is a numpy array.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        unknown = set(tables) - set(TABLES)
        if unknown:
            raise KeyError(f"no such table: {sorted(unknown)[0]}")
        self.tables: dict[str, Table] = {
            name: tables[name] if name in tables else Table.empty(schema)
            for name, schema in TABLES.items()
        }

    @property
    def machine(self) -> Table:
        """One row: the machine and the moment."""
        return self.tables["machine"]

    @property
    def ram(self) -> Table:
        """Ranges of physical memory."""
        return self.tables["ram"]

    @property
    def processes(self) -> Table:
        """Processes, readable or not."""
        return self.tables["processes"]

    @property
    def mms(self) -> Table:
        """Address spaces."""
        return self.tables["mms"]

    @property
    def vmas(self) -> Table:
        """Virtual memory areas by address space and address."""
        return self.tables["vmas"]

    @property
    def ptes(self) -> Table:
        """Page-table entries by address space and address."""
        return self.tables["ptes"]

    @property
    def pages(self) -> Table:
        """Page frames by number."""
        return self.tables["pages"]

    @property
    def files(self) -> Table:
        """Mapped files."""
        return self.tables["files"]

    @property
    def swap_slots(self) -> Table:
        """Swap slots in use, where the source sees them."""
        return self.tables["swap_slots"]

    @property
    def page_size(self) -> int:
        """Bytes in a base page."""
        return int(self.machine["page_size"][0])

    @cached_property
    def reverse(self) -> ReverseMap:
        """Page frame number to the entries that map it (as the kernel counts mappings)."""
        return ReverseMap(self.ptes)

    @cached_property
    def reverse_special(self) -> ReverseMap:
        """Page frame number to entries that the kernel does not count (zero page, PFN maps)."""
        return ReverseMap(self.ptes, having=Pte.SPECIAL, without=Pte(0))

    @cached_property
    def reverse_swap(self) -> ReverseMap:
        """Swap entry to the page-table entries that hold it."""
        return ReverseMap(self.ptes, having=Pte.SWAP, without=NO_SLOT)

    @cached_property
    def pte_offsets(self) -> I64:
        """``ptes`` rows of mm *m* are ``pte_offsets[m]`` to ``pte_offsets[m + 1]``."""
        return _offsets(self.ptes["mm"], len(self.mms))

    @cached_property
    def vma_offsets(self) -> I64:
        """``vmas`` rows of mm *m* are ``vma_offsets[m]`` to ``vma_offsets[m + 1]``."""
        return _offsets(self.vmas["mm"], len(self.mms))

    @cached_property
    def vma_offsets_in_ptes(self) -> I64:
        """Row of the first entry of ``ptes`` at or after the start of each VMA, ascending."""
        first = np.empty(len(self.vmas), np.int64)
        for mm in range(len(self.mms)):
            ptes = slice(self.pte_offsets[mm], self.pte_offsets[mm + 1])
            vmas = slice(self.vma_offsets[mm], self.vma_offsets[mm + 1])
            starts = self.vmas["start"][vmas]
            first[vmas] = ptes.start + np.searchsorted(self.ptes["address"][ptes], starts)
        return first

    @cached_property
    def vma_borders(self) -> npt.NDArray[np.bool_]:
        """Whether an entry of ``ptes`` is the first of its VMA, or the first after one."""
        border = np.zeros(len(self.ptes) + 1, np.bool_)  # the last stands for the end
        border[self.vma_offsets_in_ptes] = True
        for mm in range(len(self.mms)):
            ptes = slice(self.pte_offsets[mm], self.pte_offsets[mm + 1])
            ends = self.vmas["end"][self.vma_offsets[mm] : self.vma_offsets[mm + 1]]
            border[ptes.start + np.searchsorted(self.ptes["address"][ptes], ends)] = True
        return border[:-1]

    @cached_property
    def pte_vma(self) -> npt.NDArray[np.int32]:
        """The VMA of every row of ``ptes``, -1 where none covers the address."""
        # All rows ascend, so nothing has to be searched: each VMA has those up to the next one's.
        rows = np.append(self.vma_offsets_in_ptes, len(self.ptes))
        vmas = np.arange(-1, len(self.vmas), dtype=np.int32)
        nearest = np.repeat(vmas, np.diff(rows, prepend=0))
        return self._where_covered(nearest, slice(None))

    def vmas_of_ptes(self, rows: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the VMA that covers the address of some rows of ``ptes``, -1 where none does."""
        wanted = np.asarray(rows, np.int64)
        # Of VMAs without entries several begin at one row: the last of them is the nearest.
        at = np.searchsorted(self.vma_offsets_in_ptes, wanted, side="right") - 1
        return self._where_covered(at.astype(np.int32), wanted)

    def _where_covered(
        self, nearest: npt.NDArray[np.int32], rows: I64 | slice
    ) -> npt.NDArray[np.int32]:
        """Return the nearest VMA that begins before each row's address, -1 if it ends before."""
        if not len(self.vmas):
            return np.full(len(nearest), -1, np.int32)
        vma = np.maximum(nearest, 0)
        inside = (nearest >= 0) & (self.vmas["mm"][vma] == self.ptes["mm"][rows])
        inside &= self.ptes["address"][rows] < self.vmas["end"][vma]
        return np.where(inside, nearest, np.int32(-1))

    @cached_property
    def processes_of_mm(self) -> dict[int, list[int]]:
        """Rows of ``processes`` that use each mm, by ascending pid."""
        users: dict[int, list[int]] = {}
        for row, mm in enumerate(self.processes["mm"].tolist()):
            if mm >= 0:
                users.setdefault(mm, []).append(row)
        return users

    def find_vmas(self, mm: int, addresses: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the VMA that covers each address in address space ``mm``, -1 where none does."""
        first, last = int(self.vma_offsets[mm]), int(self.vma_offsets[mm + 1])
        wanted = np.asarray(addresses, np.uint64)
        if first == last:
            return np.full(len(wanted), -1, np.int32)
        at = np.searchsorted(self.vmas["start"][first:last], wanted, side="right") - 1
        inside = (at >= 0) & (wanted < self.vmas["end"][first:last][np.maximum(at, 0)])
        return np.where(inside, at + first, -1).astype(np.int32)

    def find_ptes(self, mm: int, start: int, end: int) -> slice:
        """Return the rows of ``ptes`` of ``mm`` that map any byte of ``[start, end)``."""
        first, last = int(self.pte_offsets[mm]), int(self.pte_offsets[mm + 1])
        addresses = self.ptes["address"][first:last]
        low = first + int(np.searchsorted(addresses, np.uint64(start), side="right"))
        high = first + int(np.searchsorted(addresses, np.uint64(end), side="left"))
        if low > first:  # the entry before may be a huge one that reaches into the range
            size = self.page_size << int(self.ptes["order"][low - 1])
            if int(self.ptes["address"][low - 1]) + size > start:
                low -= 1
        return slice(low, max(low, high))

    @cached_property
    def _page_runs(self) -> tuple[U64, I64]:
        """Where runs of consecutive page frames begin: first frame and row of each."""
        pfns = self.pages["pfn"]
        rows = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(np.diff(pfns) != 1) + 1))
        return pfns[rows], rows

    def find_pages(self, pfns: npt.ArrayLike) -> I64:
        """Return the row of ``pages`` of each pfn, -1 where the image has none."""
        wanted = np.asarray(pfns, np.uint64)
        have = self.pages["pfn"]
        if not len(have):
            return np.full(len(wanted), -1, np.int64)
        # RAM is a few long runs: to search them stays in the cache, to search all pages does not.
        first, rows = self._page_runs
        run = np.maximum(np.searchsorted(first, wanted, side="right") - 1, 0)
        into = np.minimum(wanted - first[run], np.uint64(len(have))).astype(np.int64)
        row = np.minimum(rows[run] + into, len(have) - 1)
        return np.where(have[row] == wanted, row, -1)


def _offsets(ids: npt.NDArray[np.int32], count: int) -> I64:
    """Return the start of each id's block in a sorted id column, and the end of the last."""
    return np.searchsorted(ids, np.arange(count + 1)).astype(np.int64)

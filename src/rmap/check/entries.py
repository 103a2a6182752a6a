# SPDX-License-Identifier: GPL-2.0-only
"""Every entry of every page table, small ones and huge ones, read from the roots down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rmap.mm.bits import (
    _PAGE_PRESENT,
    _PAGE_PROTNONE,
    _PAGE_PSE,
    PAGE_SHIFT,
    PMD_SHIFT,
    PTE_PFN_MASK,
    PUD_SHIFT,
    SWP_PTE_OFFSET_SHIFT,
    SWP_PTE_TYPE_MASK,
    SWP_PTE_TYPE_SHIFT,
)
from rmap.mm.mm_types import Kernel, Mm

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Address bits below the entries of each level that holds tables: pgd, pud, pmd.
UPPER_LEVELS = (39, PUD_SHIFT, PMD_SHIFT)
TABLE = 512


class Entries:
    """Page-table entries that hold something else than a table, of every mm, by mm and address.

    `mm` is the place in ``Recount.mms``, `ptep` the entry's place in ``Kernel.pt``, `order` says
    that the entry is for 2**order pages (0, 9, 18), and `vma` is the place in ``Recount.vmas``
    (-1 where none covers the address).
    """

    def __init__(self, mm: I64, address: U64, ptep: I64, value: U64, order: U8) -> None:
        self.mm = mm
        self.address = address
        self.ptep = ptep
        self.value = value
        self.order = order
        self.vma: I64 = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.value)

    def where(self, rows: Bools | I64) -> Entries:
        """Some of the entries."""
        part = Entries(
            self.mm[rows], self.address[rows], self.ptep[rows], self.value[rows], self.order[rows]
        )
        part.vma = self.vma[rows]
        return part

    @property
    def present(self) -> Bools:
        """Whether each entry maps something; a huge one also while the processor is kept off."""
        bits = np.where(
            self.order > 0,
            np.uint64(_PAGE_PRESENT | _PAGE_PROTNONE | _PAGE_PSE),
            np.uint64(_PAGE_PRESENT | _PAGE_PROTNONE),
        )
        return self.value & bits != 0

    @property
    def small(self) -> Entries:
        """Those for one page."""
        return self.where(self.order == 0)

    @property
    def huge(self) -> Entries:
        """Those for several pages."""
        return self.where(self.order > 0)

    @property
    def pages(self) -> I64:
        """For how many pages each entry is."""
        return np.left_shift(np.int64(1), self.order.astype(np.int64))

    @property
    def end(self) -> U64:
        """The address behind each entry's."""
        return self.address + (self.pages.astype(np.uint64) << np.uint64(PAGE_SHIFT))

    @property
    def pfn(self) -> I64:
        """The page of each entry, the first one of several, if it is a present one."""
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

    @property
    def each_page(self) -> tuple[I64, I64]:
        """Every page that the entries are for: the row of its entry, and its place in that."""
        sizes = self.pages
        row = np.repeat(np.arange(len(self), dtype=np.int64), sizes)
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return row, np.arange(len(row), dtype=np.int64) - first


@dataclass
class Tables:
    """What the page tables hold: rows of the tables by level with their mms, and the entries.

    `problems` names what no page table may hold.
    """

    entries: Entries
    rows: list[I64]
    mms: list[I64]
    problems: list[str] = field(default_factory=list)


def read_tables(kernel: Kernel, mms: Sequence[Mm]) -> Tables:
    """Read every page table, from all roots down at once."""
    pt = np.asarray(kernel.pt).reshape(-1, TABLE)
    rows, mm = np.array([one.pgd for one in mms], np.int64), np.arange(len(mms), dtype=np.int64)
    base = np.zeros(len(rows), np.uint64)
    tables = Tables(_none(), [rows], [mm])
    found: list[Entries] = []
    for shift in UPPER_LEVELS:
        values, mm, base, place = _used(pt, rows, mm, base, shift)
        leads = values & np.uint64(_PAGE_PRESENT | _PAGE_PSE) == np.uint64(_PAGE_PRESENT)
        if not leads.all():
            rest = ~leads
            order = np.full(int(rest.sum()), shift - PAGE_SHIFT, np.uint8)
            found.append(Entries(mm[rest], base[rest], place[rest], values[rest], order))
            if shift > PUD_SHIFT:
                tables.problems.append("a page table of the top level holds what is no table")
            values, mm, base = values[leads], mm[leads], base[leads]
        rows = ((values & np.uint64(PTE_PFN_MASK)) >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        tables.rows.append(rows)
        tables.mms.append(mm)
    values, mm, base, place = _used(pt, rows, mm, base, PAGE_SHIFT)
    found.append(Entries(mm, base, place, values, np.zeros(len(values), np.uint8)))
    tables.entries = _in_order(found)
    return tables


def _none() -> Entries:
    no = np.zeros(0, np.int64)
    return Entries(no, no.astype(np.uint64), no, no.astype(np.uint64), no.astype(np.uint8))


def joined(parts: Sequence[Entries]) -> Entries:
    """Several lists of entries as one; where they lie in VMAs is to be looked up anew."""
    return Entries(
        np.concatenate([part.mm for part in parts]),
        np.concatenate([part.address for part in parts]),
        np.concatenate([part.ptep for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.order for part in parts]),
    )


def _in_order(found: list[Entries]) -> Entries:
    """All entries of all levels, by mm and address."""
    both = joined(found)
    if len(found) == 1:
        return both
    rows = np.lexsort((both.address, both.mm))
    return Entries(
        both.mm[rows], both.address[rows], both.ptep[rows], both.value[rows], both.order[rows]
    )


def _used(pt: U64, rows: I64, mm: I64, base: U64, shift: int) -> tuple[U64, I64, U64, I64]:
    """Entries that are not empty in some tables: values, mm, first address, place in the pool."""
    tables = pt[rows]
    table, slot = np.nonzero(tables)
    address = base[table] + (slot.astype(np.uint64) << np.uint64(shift))
    return tables[table, slot], mm[table], address, rows[table] * TABLE + slot

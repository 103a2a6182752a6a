# SPDX-License-Identifier: GPL-2.0-only
"""Page tables of x86-64 out of a dump: every table once, whole tables at a time.

A table is 512 words. Going down level by level, all tables of a level are read and told apart in a
few array operations, so that nothing is done for a single entry. Each table is read once however
many share it (hugetlb shares tables of PMDs), and one that points back to a table above itself, as
damaged ones may, ends there: there are only so many levels.

Entries are those of arch/x86/include/asm/pgtable.h. An entry without the present bit maps a page
all the same if it has PROTNONE; its frame number is stored inverted then (since L1TF).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.source.dump.records import U64

if TYPE_CHECKING:
    from drgn import Program

PRESENT, RW, USER, ACCESSED, DIRTY, PSE, PROTNONE = (1 << bit for bit in (0, 1, 2, 5, 6, 7, 8))
SPECIAL, SOFT_DIRTY = 1 << 9, 1 << 11
PFN_MASK = 0x000F_FFFF_FFFF_F000
_ENTRIES = 512
_SHIFT = 12
_BITS = 9
#: A PMD that is invalidated for a moment keeps this alone.
_HUGE_LEVELS = (1, 2)


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries that hold something: the address that each maps, its value, its order, its table.

    `order` is 0, 9 or 18. `missing` are physical addresses of tables that are not in the dump.
    """

    address: U64
    value: U64
    order: np.ndarray[tuple[int], np.dtype[np.uint8]]
    table: U64
    missing: U64


class PageTables:
    """Reads page tables of one dump; remembers the tables that it has read."""

    def __init__(self, program: Program, levels: int) -> None:
        self.program = program
        self.levels = levels
        self._known: dict[int, U64 | None] = {}

    def table(self, physical: int) -> U64 | None:
        """The entries of a table, ``None`` if it is not in the dump."""
        import drgn

        if physical not in self._known:
            try:
                data = self.program.read(physical, _ENTRIES * 8, True)
                self._known[physical] = np.frombuffer(data, "<u8")
            except (drgn.FaultError, ValueError, OverflowError):
                self._known[physical] = None
        return self._known[physical]

    def entries(self, root: int) -> Entries:
        """All entries of the lower half of the address space below a root table."""
        tables, bases = np.array([root], "u8"), np.array([0], "u8")
        found: list[tuple[U64, U64, int, U64]] = []
        missing: list[int] = []
        for level in range(self.levels - 1, -1, -1):
            rows = [self.table(int(one)) for one in tables]
            missing += [int(one) for one, row in zip(tables, rows, strict=True) if row is None]
            there = np.array([row is not None for row in rows], bool)
            tables, bases = tables[there], bases[there]
            values = [row for row in rows if row is not None]
            if not values:
                break
            found_here, tables, bases = _level(np.stack(values), tables, bases, level, self.levels)
            found += found_here
        return _joined(found, missing)


def _level(
    values: U64, tables: U64, bases: U64, level: int, levels: int
) -> tuple[list[tuple[U64, U64, int, U64]], U64, U64]:
    """Tell the entries of one level apart: those that map something, and tables below."""
    shift = _SHIFT + _BITS * level
    half = _ENTRIES // 2 if level == levels - 1 else _ENTRIES
    row, slot = np.nonzero(values[:, :half])
    value = values[row, slot]
    address = bases[row] + (slot.astype("u8") << np.uint64(shift))
    if level == 0:
        return [(address, value, 0, tables[row])], tables[:0], bases[:0]
    present = value & np.uint64(PRESENT) != 0
    leaf = ~present
    if level in _HUGE_LEVELS:
        leaf |= value & np.uint64(PSE) != 0
    else:
        leaf[:] = False
    below = present & ~leaf
    maps = [(address[leaf], value[leaf], _BITS * level, tables[row[leaf]])] if leaf.any() else []
    return maps, value[below] & np.uint64(PFN_MASK), address[below]


def _joined(found: list[tuple[U64, U64, int, U64]], missing: list[int]) -> Entries:
    """Entries of all levels, by ascending address."""
    if not found:
        none = np.zeros(0, "u8")
        return Entries(none, none, np.zeros(0, "u1"), none, np.array(missing, "u8"))
    address = np.concatenate([one[0] for one in found])
    order = np.concatenate([np.full(len(one[0]), one[2], "u1") for one in found])
    sequence = np.argsort(address, kind="stable")
    return Entries(
        address[sequence],
        np.concatenate([one[1] for one in found])[sequence],
        order[sequence],
        np.concatenate([one[3] for one in found])[sequence],
        np.array(missing, "u8"),
    )

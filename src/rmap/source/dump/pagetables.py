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

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmap.source.dump.records import U64, Bools

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

    `order` is 0, 9 or 18. `missing` are physical addresses of tables that are not in the dump,
    `tables` those of all that are, and `level` how many levels there are below each. `strange` are
    those of tables that were not read: what lies there can be none, or was met before.
    """

    address: U64
    value: U64
    order: np.ndarray[tuple[int], np.dtype[np.uint8]]
    table: U64
    missing: U64
    tables: U64
    level: np.ndarray[tuple[int], np.dtype[np.uint8]]
    strange: U64


#: See `PageTables`.
Credible = Callable[[U64, int], Bools]


def no_entries(missing: U64 | None = None) -> Entries:
    """The entries of an address space that has none, or whose tables are not there."""
    none = np.zeros(0, "u8")
    lost = none if missing is None else missing
    return Entries(none, none, np.zeros(0, "u1"), none, lost, none, np.zeros(0, "u1"), none)


class PageTables:
    """Reads page tables of one dump; remembers the tables that it has read.

    Parameters
    ----------
    program, levels
        The dump, and how many levels its tables have.
    credible
        Says of physical addresses, and the level that they are on, which can be tables at all.
        Memory of something else read as a table leads to all memory that there is.
    """

    def __init__(self, program: Program, levels: int, credible: Credible | None = None) -> None:
        self.program = program
        self.levels = levels
        self.credible = credible
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
        read: list[tuple[U64, int]] = []
        strange: list[U64] = []
        seen = np.zeros(0, "u8")
        for level in range(self.levels - 1, -1, -1):
            good = ~np.isin(tables, seen) & _firsts(tables)
            if self.credible is not None:
                good &= self.credible(tables, level)
            strange.append(tables[~good])
            tables, bases = tables[good], bases[good]
            seen = np.union1d(seen, tables)
            rows = [self.table(int(one)) for one in tables]
            missing += [int(one) for one, row in zip(tables, rows, strict=True) if row is None]
            there = np.array([row is not None for row in rows], bool)
            tables, bases = tables[there], bases[there]
            read.append((tables, level))
            values = [row for row in rows if row is not None]
            if not values:
                break
            found_here, tables, bases = _level(np.stack(values), tables, bases, level, self.levels)
            found += found_here
        return _joined(found, missing, read, np.concatenate(strange))


def _firsts(tables: U64) -> Bools:
    """Which are the first of their value."""
    first = np.zeros(len(tables), bool)
    first[np.unique(tables, return_index=True)[1]] = True
    return first


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


def _joined(
    found: list[tuple[U64, U64, int, U64]], missing: list[int], read: list[tuple[U64, int]],
    strange: U64,
) -> Entries:  # fmt: skip
    """Entries of all levels, by ascending address."""
    tables = np.concatenate([one for one, _ in read])
    level = np.concatenate([np.full(len(one), number, "u1") for one, number in read])
    lost = np.array(missing, "u8")
    if not found:
        none = np.zeros(0, "u8")
        return Entries(none, none, np.zeros(0, "u1"), none, lost, tables, level, strange)
    address = np.concatenate([one[0] for one in found])
    order = np.concatenate([np.full(len(one[0]), one[2], "u1") for one in found])
    sequence = np.argsort(address, kind="stable")
    return Entries(
        address[sequence],
        np.concatenate([one[1] for one in found])[sequence],
        order[sequence],
        np.concatenate([one[3] for one in found])[sequence],
        lost,
        tables,
        level,
        strange,
    )

# SPDX-License-Identifier: GPL-2.0-only
"""The reverse map of an image: page frame number to the page-table entries that map it.

Entries come in a few sizes (a PTE maps one page, a PMD 512), each aligned to its own size. So
the index keeps one level for each size, and a page asks each of them for the one aligned block
that contains it. A PMD is one element however many pages it maps, and nothing is expanded.

A level is a set of compressed sparse rows: ``positions[offsets[b]:offsets[b + 1]]`` are the
entries of block *b*. Where entries are dense (a whole machine) *b* is the block number itself,
and finding it costs one addition; where they are sparse (swap entries, a few processes on a
large machine) *b* is its rank among the blocks that occur, found by binary search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.errors import ImageError
from rmap.image import counting
from rmap.image.arrays import distinct, positions, ranges
from rmap.image.flags import Pte
from rmap.image.table import Table

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

_MAX_ENTRIES = 1 << 32
#: A dense level spends 4 bytes a block; it is used up to this many blocks for each entry.
_DENSE_BLOCKS_PER_ENTRY = 8
_DENSE_BLOCKS_ALWAYS = 1 << 20


@dataclass(frozen=True, slots=True)
class Mappings:
    """The entries that map each of a list of pages, in compressed sparse rows.

    ``rows[offsets[i]:offsets[i + 1]]`` are the rows of the pte table that map page *i*,
    ascending, that is by address space and then address.
    """

    offsets: I64
    rows: I64

    def of(self, page: int) -> I64:
        """Rows of the pte table that map the page at position ``page``."""
        return self.rows[self.offsets[page] : self.offsets[page + 1]]

    @property
    def counts(self) -> I64:
        """Number of entries that map each page."""
        return np.diff(self.offsets)


class Level:
    """The entries of one order."""

    __slots__ = ("_base", "_distinct", "_offsets", "_positions", "_rows", "order")

    def __init__(self, order: int, pfns: U64, rows: U32 | None) -> None:
        self.order = order
        self._rows = rows  # position -> pte row; None: they are the same
        blocks = pfns >> np.uint64(order) if order else pfns
        self._base = blocks.min()
        span = int(blocks.max() - self._base) + 1
        self._distinct: U64 | None = None
        dense = max(_DENSE_BLOCKS_ALWAYS, _DENSE_BLOCKS_PER_ENTRY * len(blocks))
        if span <= min(dense, _MAX_ENTRIES):
            # The difference fits 32 bits, so it may be taken in 32 bits: no copy in 64.
            ranks = np.subtract(blocks, self._base, dtype=np.uint32, casting="unsafe")
        else:
            self._distinct = distinct(blocks)
            ranks = np.searchsorted(self._distinct, blocks).astype(np.uint32)
            span = len(self._distinct)
        self._offsets, self._positions = counting.group(ranks, span)

    def _bounds(self, pfns: U64) -> tuple[I64, I64]:
        """Return the first position and the number of entries of each page's block."""
        blocks = pfns >> np.uint64(self.order)
        if self._distinct is None:
            last = np.uint64(len(self._offsets) - 2)
            known = (blocks >= self._base) & (blocks - self._base <= last)
            rank = np.where(known, blocks - self._base, np.uint64(0)).astype(np.int64)
        else:
            rank = positions(self._distinct, blocks)
            known = rank >= 0
        first = self._offsets[rank].astype(np.int64)
        count = self._offsets[rank + 1].astype(np.int64) - first
        return first, np.where(known, count, 0)

    def bounds(self, pfns: U64) -> tuple[I64, I64]:
        """Return the first position and the number of entries of each page's block.

        Positions mean something to :meth:`rows` only.
        """
        return self._bounds(pfns)

    def rows(self, positions: I64) -> I64:
        """Return the rows of the pte table at some positions."""
        found = self._positions[positions]
        return (found if self._rows is None else self._rows[found]).astype(np.int64)

    def count(self, pfns: U64) -> I64:
        return self._bounds(pfns)[1]

    def lookup(self, pfns: U64) -> tuple[I64, I64]:
        """Return (counts, rows): rows concatenated in the order of ``pfns``."""
        first, counts = self._bounds(pfns)
        return counts, self.rows(ranges(first, counts))

    def blocks(self) -> tuple[U64, I64]:
        """Return the first pfn and the number of entries of each block that has any."""
        counts = np.diff(self._offsets).astype(np.int64)
        if self._distinct is not None:
            return self._distinct << np.uint64(self.order), counts
        filled = np.flatnonzero(counts)
        return (filled.astype(np.uint64) + self._base) << np.uint64(self.order), counts[filled]

    def grouped(self) -> tuple[U64, I64, U32]:
        """Return the first pfn of each block that has entries, offsets, and rows by block."""
        pfns, counts = self.blocks()
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        rows = self._positions if self._rows is None else self._rows[self._positions]
        return pfns, offsets, rows

    @property
    def nbytes(self) -> int:
        arrays = (self._offsets, self._positions, self._rows, self._distinct)
        return sum(array.nbytes for array in arrays if array is not None)


class ReverseMap:
    """Index of a pte table by page frame number (or by swap entry).

    Parameters
    ----------
    ptes
        A table of the schema ``PTES``.
    having, without
        Only entries with any of the bits ``having`` and none of the bits ``without`` are indexed.

    >>> from rmap.image.schema import PTES
    >>> ptes = Table(PTES, {"mm": [0, 1], "address": [0x1000, 0x1000], "pfn": [7, 7],
    ...                     "order": [0, 0], "flags": [1, 1]})
    >>> ReverseMap(ptes).count(np.array([7, 8], np.uint64)).tolist()
    [2, 0]
    """

    def __init__(
        self, ptes: Table, *, having: Pte = Pte.PRESENT, without: Pte = Pte.SPECIAL
    ) -> None:
        if len(ptes) >= _MAX_ENTRIES:
            raise ImageError(f"{len(ptes)} page-table entries are more than {_MAX_ENTRIES}")
        flags, orders = ptes["flags"], ptes["order"]
        wanted = (flags & np.uint32(having)) != 0
        if without:
            wanted &= (flags & np.uint32(without)) == 0
        self._levels: list[Level] = []
        # Counting orders widens them to 64 bits; nearly always there is but one, or two.
        present = np.flatnonzero(np.bincount(orders)).tolist() if orders.any() else [0]
        for order in present:
            chosen = wanted & (orders == order)
            if not chosen.any():
                continue
            if chosen.all():
                self._levels.append(Level(order, ptes["pfn"], None))
            else:
                rows = np.flatnonzero(chosen)
                self._levels.append(Level(order, ptes["pfn"][rows], rows.astype(np.uint32)))

    @property
    def nbytes(self) -> int:
        """Bytes held by the index."""
        return sum(level.nbytes for level in self._levels)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The index of each order that has entries, by ascending order."""
        return tuple(self._levels)

    def count(self, pfns: npt.ArrayLike) -> I64:
        """Return for each of ``pfns`` the number of entries that map it."""
        wanted = np.asarray(pfns, np.uint64)
        total = np.zeros(len(wanted), np.int64)
        for level in self._levels:
            total += level.count(wanted)
        return total

    def mappings(self, pfns: npt.ArrayLike) -> Mappings:
        """Return the entries that map each of ``pfns`` (in the given order, repeats allowed)."""
        wanted = np.asarray(pfns, np.uint64)
        found = [level.lookup(wanted) for level in self._levels]
        counts = np.zeros(len(wanted), np.int64)
        for level_counts, _ in found:
            counts += level_counts
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
        if not found:
            return Mappings(offsets, np.empty(0, np.int64))
        if len(found) == 1:
            return Mappings(offsets, found[0][1])
        pages = np.concatenate([np.repeat(np.arange(len(wanted)), c) for c, _ in found])
        rows = np.concatenate([r for _, r in found])
        return Mappings(offsets, rows[np.lexsort((rows, pages))])

    def blocks(self) -> list[tuple[int, U64, I64]]:
        """Return per order (order, first pfns ascending, number of entries of each block)."""
        return [(level.order, *level.blocks()) for level in self._levels]

    def grouped(self) -> list[tuple[int, U64, I64, U32]]:
        """Return per order (order, first pfns ascending, offsets, rows of the pte table).

        Entries of that order map block *i*, the ``2**order`` pages from ``first_pfns[i]`` on, from
        ``rows[offsets[i]:offsets[i + 1]]`` (ascending, at least one). A huge entry is one element
        here, so reductions over a whole machine cost one step an entry, not one a page.
        """
        return [(level.order, *level.grouped()) for level in self._levels]

    def mapped_pfns(self) -> U64:
        """Return every page frame number that some entry maps, ascending, each once."""
        parts = []
        for order, pfns, _ in self.blocks():
            span = np.arange(1 << order, dtype=np.uint64)
            parts.append(pfns if order == 0 else (pfns[:, None] + span).ravel())
        if not parts:
            return np.empty(0, np.uint64)
        return parts[0] if len(parts) == 1 else distinct(np.concatenate(parts))

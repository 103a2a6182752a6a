# SPDX-License-Identifier: GPL-2.0-only
"""Physical memory in cells: what each stretch is, and how widely it is shared.

A machine has millions of pages, a picture thousands of cells. A cell stands for ``cell_pages``
page frames that follow each other, a power of two; a row for ``COLUMNS`` cells. Rows in which
there is no RAM at all are left out, so that the holes below 4 GiB and between NUMA nodes cost
nothing.

A cell can show one colour and hold many kinds of pages. Showing what most of them are would hide
every scattered kind, shared libraries first, on a large machine. Here cells *take turns*
(:func:`take_turns`): a cell shows only what it does hold, and neighbours that hold the same mix
divide it up among them, so that in the whole picture each kind covers the area it has in memory,
to within a cell for a kind that lies alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.errors import QueryError
from rmap.image import MemoryImage
from rmap.image.arrays import ranges
from rmap.query import kinds

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

COLUMNS = 128
#: More rows than this do not fit on a screen.
MAX_ROWS = 96
#: Pages are classified this many at a time: the steps between need ~50 bytes a page.
_CHUNK = 1 << 22

#: Lowest number of mappings of each class of sharing; the first class is "not mapped".
DEGREES = (0, 1, 2, 4, 16, 64)
DEGREE_NAMES = ("not mapped", "mapped once", "2-3 times", "4-15 times", "16-63 times", "64 or more")
#: RAM of which the image has no page: it was asked for some processes only.
UNKNOWN = "not recorded"


@dataclass(frozen=True, slots=True)
class Layer:
    """One way to look at the cells.

    ``names[c]`` is category *c*, ``pages[c]`` its pages in all, ``counts[cell, c]`` its pages in
    each cell, and ``shown[cell]`` the category that the cell shows, -1 where it has no RAM.
    """

    names: tuple[str, ...]
    pages: I64
    counts: I64
    shown: I64


@dataclass(frozen=True, slots=True)
class PhysMap:
    """Physical memory in cells, row by row.

    ``row_pfns[r]`` is the first page frame number of row *r*; cell *i* is in row
    ``i // COLUMNS``. ``gaps`` are the stretches without RAM (start and end pfn) between rows.
    """

    page_size: int
    cell_pages: int
    row_pfns: U64
    ram_pages: int
    gaps: tuple[tuple[int, int], ...]
    kinds: Layer
    sharing: Layer
    #: ``int64[kinds, degrees]``: pages of each kind that are shared so widely.
    kind_degrees: I64

    @property
    def row_pages(self) -> int:
        """Page frame numbers in a row."""
        return COLUMNS * self.cell_pages


def physmap(image: MemoryImage) -> PhysMap:
    """Bin the pages of ``image`` into cells.

    Raises
    ------
    QueryError
        If the image knows no physical memory at all.

    >>> physmap(image).kinds.names[0]  # doctest: +SKIP
    'anon'
    """
    starts, ends = _ram(image)
    if not len(starts):
        raise QueryError("the image tells nothing of physical memory: no RAM ranges, no pages")
    cell_pages, rows = _choose_rows(starts, ends)
    row_pages = COLUMNS * cell_pages
    row_pfns = rows * np.uint64(row_pages)
    cells = (
        row_pfns[:, None] + np.arange(COLUMNS, dtype=np.uint64) * np.uint64(cell_pages)
    ).ravel()
    ram = _ram_below(cells + np.uint64(cell_pages), starts, ends) - _ram_below(cells, starts, ends)
    by_kind, by_degree, kind_degrees = _count(image, row_pfns, cell_pages)
    return PhysMap(
        image.page_size,
        cell_pages,
        row_pfns,
        int((ends - starts).sum()),
        _gaps(row_pfns, row_pages, starts, ends),
        _layer(kinds.KIND_NAMES, by_kind, ram),
        _layer(DEGREE_NAMES, by_degree, ram),
        kind_degrees,
    )


def _ram(image: MemoryImage) -> tuple[U64, U64]:
    """Return first and end pfn of every RAM range; of the known pages if no range is known."""
    if len(image.ram):
        return image.ram["start_pfn"], image.ram["end_pfn"]
    pfns = image.pages["pfn"]
    if not len(pfns):
        return pfns, pfns
    breaks = np.flatnonzero(np.diff(pfns) != 1) + 1
    first = np.concatenate((np.zeros(1, np.int64), breaks))
    last = np.concatenate((breaks, np.array([len(pfns)]))) - 1
    return pfns[first], pfns[last] + np.uint64(1)


def _choose_rows(starts: U64, ends: U64) -> tuple[int, U64]:
    """Return the smallest cell for which the rows that hold RAM are few enough, and these rows."""
    cell_pages = 1
    while True:
        shift = np.uint64((COLUMNS * cell_pages).bit_length() - 1)
        first, last = starts >> shift, (ends - np.uint64(1)) >> shift
        # Ranges ascend, so a row is new unless the range before reached into it already.
        first[1:] = np.maximum(first[1:], last[:-1] + np.uint64(1))
        counts = np.maximum(last.astype(np.int64) - first.astype(np.int64) + 1, 0)
        if int(counts.sum()) <= MAX_ROWS:
            return cell_pages, ranges(first.astype(np.int64), counts).astype(np.uint64)
        cell_pages *= 2


def _ram_below(pfns: U64, starts: U64, ends: U64) -> I64:
    """Return the number of RAM pages below each pfn."""
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(ends - starts)))
    at = np.searchsorted(starts, pfns, side="right")
    inside = np.minimum(pfns, ends[at - 1]) - starts[at - 1]
    return np.where(at > 0, total[at - 1] + inside, np.uint64(0)).astype(np.int64)


def _gaps(row_pfns: U64, row_pages: int, starts: U64, ends: U64) -> tuple[tuple[int, int], ...]:
    """Return the stretches without RAM that separate rows which are not neighbours."""
    after = np.flatnonzero(np.diff(row_pfns) > np.uint64(row_pages)) + 1
    following = np.searchsorted(starts, row_pfns[after])
    return tuple((int(ends[at - 1]), int(starts[at])) for at in following)


def _degrees(image: MemoryImage, pages: slice) -> npt.NDArray[np.uint8]:
    """Return the class of sharing of some rows of ``pages``.

    The kernel's count is taken where it is known: it includes processes that could not be read.
    """
    counts = image.pages["mapcount"][pages]
    unknown = counts < 0
    if unknown.any():
        counts = np.where(unknown, image.reverse.count(image.pages["pfn"][pages]), counts)
    return (np.searchsorted(DEGREES, counts, side="right") - 1).astype(np.uint8)


def _count(image: MemoryImage, row_pfns: U64, cell_pages: int) -> tuple[I64, I64, I64]:
    """Count the pages of each cell and kind, of each cell and degree, of each kind and degree."""
    cells = len(row_pfns) * COLUMNS
    by_kind = np.zeros((cells, len(kinds.KIND_NAMES)), np.int64)
    by_degree = np.zeros((cells, len(DEGREES)), np.int64)
    kind_degrees = np.zeros((len(kinds.KIND_NAMES), len(DEGREES)), np.int64)
    page_kinds = kinds.page_kinds(image)
    shift = np.uint64(cell_pages.bit_length() - 1)
    for start in range(0, len(image.pages), _CHUNK):
        pages = slice(start, start + _CHUNK)
        pfns = image.pages["pfn"][pages]
        row = np.searchsorted(row_pfns, pfns, side="right") - 1
        cell = row * COLUMNS + ((pfns - row_pfns[row]) >> shift).astype(np.int64)
        # Device memory may have page frames outside RAM; they are in no row, or beyond its end.
        drawn = np.flatnonzero((row >= 0) & (cell < (row + 1) * COLUMNS))
        cell = cell[drawn]
        kind = page_kinds[pages][drawn].astype(np.int64)
        degree = _degrees(image, pages)[drawn]
        _tally(by_kind, cell, kind)
        _tally(by_degree, cell, degree)
        _tally(kind_degrees, kind, degree)
    return by_kind, by_degree, kind_degrees


def _tally(table: I64, rows: I64, columns: npt.NDArray[np.integer[Any]]) -> None:
    """Add 1 to ``table[row, column]`` for every pair."""
    keys = rows * table.shape[1] + columns
    table += np.bincount(keys, minlength=table.size).reshape(table.shape)


def _layer(names: tuple[str, ...], counts: I64, ram: I64) -> Layer:
    """Complete a layer: pages of RAM that the image does not hold become a last category."""
    unknown = np.maximum(ram - counts.sum(axis=1), 0)
    counts = np.column_stack((counts, unknown))
    return Layer((*names, UNKNOWN), counts.sum(axis=0), counts, take_turns(counts))


def take_turns(counts: I64) -> I64:
    """Choose for each cell one of the categories it holds, so that areas come out right.

    Every category has an account. Each cell pays in the share that the category has in it; the
    richest category that the cell holds is shown, and pays one cell. So no category is ahead or
    behind by more than a few cells anywhere along the way.

    Parameters
    ----------
    counts
        ``int64[cells, categories]``: pages of each category in each cell.

    Returns
    -------
    ``int64[cells]``: the category shown, -1 for a cell that holds nothing.

    >>> take_turns(np.array([[3, 1], [3, 1], [3, 1], [3, 1], [0, 0]])).tolist()
    [0, 0, 1, 0, -1]
    """
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    account = np.zeros(counts.shape[1])
    shown = np.full(len(counts), -1, np.int64)
    for cell in np.flatnonzero(totals).tolist():
        account += shares[cell]
        shown[cell] = choice = int(np.argmax(np.where(counts[cell] > 0, account, -np.inf)))
        account[choice] -= 1
    return shown

# SPDX-License-Identifier: GPL-2.0-only
"""Places: what targets come to on an image, as columns.

A place is a stretch of pages that one thing explains: a page-table entry (512 pages for a PMD),
a run of page frames, a hole. Targets of any size so come to few places, and nothing is expanded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.errors import RmapError
from rmap.image.arrays import ranges

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


class State(IntEnum):
    """What is at a place."""

    PRESENT = 0  #: a page
    SWAPPED = 1  #: a swap entry
    MIGRATING = 2  #: an entry that stands in for a page that is being moved
    GUARD = 3  #: a guard region marker
    DEVICE = 4  #: memory of a device
    HOLE = 5  #: nothing: a VMA without an entry there, or a page of a file that nobody maps
    UNMAPPED = 6  #: an address outside every VMA
    NOT_RAM = 7  #: page frames that this machine does not have
    POISONED = 8  #: an entry in the place of a page whose memory broke


#: Names by code.
STATE_NAMES = tuple(state.name.lower().replace("_", " ") for state in State)


@dataclass(frozen=True, slots=True)
class Places:
    """Columns; a row is a place. Ascending by (``target``, ``position``, ``pfn``).

    ``position`` is where in the target the place is: the virtual address of a process target,
    the offset in the file of a file target, the physical address of the others; bytes.
    """

    target: I32  #: number of the target
    state: U8  #: :class:`State`
    position: U64  #: first byte, page aligned
    pages: I64  #: length
    pfn: U64  #: first page frame; the swap entry of a swapped page; 0 elsewhere
    pte: I64  #: row of ptes that was found there, -1 if the target is no process or has none
    vma: I32  #: VMA of a process target, -1 outside of any and for other targets

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Any) -> Places:
        """Return some of the places (an index array or a mask)."""
        return Places(*(getattr(self, column.name)[rows] for column in fields(Places)))


@dataclass(frozen=True, slots=True)
class Problem:
    """A target that has no answer, and why."""

    target: int
    error: RmapError


_TYPES = (np.int32, np.uint8, np.uint64, np.int64, np.uint64, np.int64, np.int32)


def make_places(target: Any, state: Any, position: Any, pages: Any, *, pfn: Any = 0, pte: Any = -1,
                vma: Any = -1) -> Places:  # fmt: skip
    """Make places of arrays and single values; a single value stands for the whole column."""
    columns = np.broadcast_arrays(target, state, position, pages, pfn, pte, vma)
    typed: list[Any] = [c.astype(t) for c, t in zip(columns, _TYPES, strict=True)]
    return Places(*typed)


def no_places() -> Places:
    """Return no places."""
    return make_places(*[np.empty(0)] * 4)


def concatenate(parts: list[Places]) -> Places:
    """Return all places of ``parts``, in their order."""
    if len(parts) <= 1:
        return parts[0] if parts else no_places()
    return Places(*(np.concatenate([getattr(p, c.name) for p in parts]) for c in fields(Places)))


def in_order(places: Places) -> Places:
    """Return the places by (target, position, pfn); cheap if they are so already."""
    target, position, pfn = places.target, places.position, places.pfn
    if len(places) > 1:
        less = target[1:] < target[:-1]
        same = target[1:] == target[:-1]
        less |= same & (position[1:] < position[:-1])
        less |= same & (position[1:] == position[:-1]) & (pfn[1:] < pfn[:-1])
        if less.any():
            return places.take(np.lexsort((pfn, position, target)))
    return places


def cut(starts: I64, ends: I64, cuts: I64) -> tuple[I64, I64, I64]:
    """Cut ranges at the points of ``cuts`` (ascending) that lie inside them.

    Returns
    -------
    (which, starts, ends) of the pieces, in order; ``which`` is the range each comes from.

    >>> [column.tolist() for column in cut(np.array([0]), np.array([9]), np.array([3, 9]))]
    [[0, 0], [0, 3], [3, 9]]
    """
    low = np.searchsorted(cuts, starts, side="right")
    inside = np.maximum(np.searchsorted(cuts, ends, side="left") - low, 0)
    which = np.repeat(np.arange(len(starts)), inside + 1)
    first = np.cumsum(inside + 1) - (inside + 1)
    piece_starts = np.empty(len(which), np.int64)
    piece_ends = np.empty(len(which), np.int64)
    is_first = np.zeros(len(which), np.bool_)
    is_first[first] = True
    is_last = np.zeros(len(which), np.bool_)
    is_last[first + inside] = True
    points = cuts[ranges(low, inside)]
    piece_starts[is_first], piece_starts[~is_first] = starts, points
    piece_ends[is_last], piece_ends[~is_last] = ends, points
    return which, piece_starts, piece_ends

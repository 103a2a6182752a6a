# SPDX-License-Identifier: GPL-2.0-only
"""Pages to runs: consecutive pages of which the same can be said become one row.

Folding runs again gives the same runs, so an answer can be made piece by piece: fold the pieces,
join them, fold what was joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.arrays import ranges
from rmap.image.flags import Kpf

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: In the columns ``kind`` and ``verdict``: there is none.
NONE = 255

_PLACE_IN_FOLIO = np.uint64(Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL)


@dataclass(frozen=True, slots=True)
class Pages:
    """Columns, one row a page or run; see `rmap.query.who.Run` for what they mean.

    Codes: ``state`` of `places.State`, ``kind`` of `kinds.Kind` and ``verdict`` of
    `verdict.Verdict`, both `NONE` where there is none. ``position`` is that of `places.Places`;
    ``framed`` is whether ``pfn`` is a page frame number; -1 stands for none in ``vma``,
    ``mapcount`` and ``refcount``.
    """

    target: npt.NDArray[np.int32]
    state: npt.NDArray[np.uint8]
    pages: I64
    position: U64
    vma: npt.NDArray[np.int32]
    pfn: U64
    last_pfn: U64
    contiguous: npt.NDArray[np.bool_]
    framed: npt.NDArray[np.bool_]
    kind: npt.NDArray[np.uint8]
    flags: U64
    mapcount: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    found: I64
    verdict: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, slots=True)
class MappingRows:
    """Mappings in compressed sparse rows: rows of ``ptes``, and the address meant in each."""

    offsets: I64
    pte: I64
    address: U64

    def of(self, index: int) -> range:
        """Positions of the mappings of one page or run."""
        return range(int(self.offsets[index]), int(self.offsets[index + 1]))


#: What has to be equal for a run to go on; the rest is looked at in its own way.
_EQUAL = ("target", "state", "vma", "framed", "kind", "mapcount", "refcount", "found", "verdict")


def fold(image: MemoryImage, pages: Pages, mappings: MappingRows) -> tuple[Pages, MappingRows]:
    """Fold rows that continue the row before them; each keeps the mappings of its first page."""
    if not len(pages):
        return pages, mappings
    goes_on = _goes_on(image, pages)
    goes_on[1:] &= _mappings_go_on(image, pages, mappings, goes_on)
    first = np.flatnonzero(~goes_on)
    last = np.append(first[1:], len(pages)) - 1
    jump = np.zeros(len(pages), np.bool_)
    jump[1:] = goes_on[1:] & (pages.pfn[1:] != pages.last_pfn[:-1] + np.uint64(1))
    broken = np.logical_or.reduceat(jump | ~pages.contiguous, first)
    columns = {field.name: getattr(pages, field.name)[first] for field in fields(Pages)}
    columns["pages"] = np.add.reduceat(pages.pages, first)
    columns["flags"] = np.bitwise_or.reduceat(pages.flags, first)
    columns["last_pfn"] = pages.last_pfn[last]
    columns["contiguous"] = ~broken
    counts = np.diff(mappings.offsets)[first]
    kept = ranges(mappings.offsets[first], counts)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    return Pages(**columns), MappingRows(offsets, mappings.pte[kept], mappings.address[kept])


def _goes_on(image: MemoryImage, pages: Pages) -> npt.NDArray[np.bool_]:
    """Whether each row continues the one before it, its mappings aside."""
    result = np.zeros(len(pages), np.bool_)
    same = np.ones(len(pages) - 1, np.bool_)
    for name in _EQUAL:
        column = getattr(pages, name)
        same &= column[1:] == column[:-1]
    flags = pages.flags & ~_PLACE_IN_FOLIO
    same &= flags[1:] == flags[:-1]
    before = pages.pages[:-1].astype(np.uint64) * np.uint64(image.page_size)
    same &= pages.position[1:] == pages.position[:-1] + before
    result[1:] = same
    return result


def _mappings_go_on(
    image: MemoryImage, pages: Pages, mappings: MappingRows, candidates: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Whether the mappings of each row but the first continue those of the row before."""
    counts = np.diff(mappings.offsets)
    equal = counts[1:] == counts[:-1]
    asked = np.flatnonzero(equal & candidates[1:] & (counts[1:] > 0)) + 1
    here = ranges(mappings.offsets[asked], counts[asked])
    owner = np.repeat(asked, counts[asked])
    there = here - counts[owner]
    ahead = pages.pages[owner - 1].astype(np.uint64) * np.uint64(image.page_size)
    good = mappings.address[here] == mappings.address[there] + ahead
    entry, entry_before = mappings.pte[here], mappings.pte[there]
    for column in (image.ptes["mm"], image.ptes["flags"], image.ptes["order"], image.pte_vma):
        good &= column[entry] == column[entry_before]
    equal[owner[~good] - 1] = False
    return equal


def join(parts: Sequence[tuple[Pages, MappingRows]]) -> tuple[Pages, MappingRows]:
    """Return the rows of all parts, in order."""
    if not parts:
        return _nothing()
    if len(parts) == 1:
        return parts[0]
    columns = {
        field.name: np.concatenate([getattr(pages, field.name) for pages, _ in parts])
        for field in fields(Pages)
    }
    counts = np.concatenate([np.diff(mappings.offsets) for _, mappings in parts])
    return Pages(**columns), MappingRows(
        np.concatenate((np.zeros(1, np.int64), np.cumsum(counts))),
        np.concatenate([mappings.pte for _, mappings in parts]),
        np.concatenate([mappings.address for _, mappings in parts]),
    )


def _nothing() -> tuple[Pages, MappingRows]:
    """Return no pages."""
    dtypes = ("i4", "u1", "i8", "u8", "i4", "u8", "u8", "?", "?", "u1", "u8", "i4", "i4", "i8",
              "u1")  # fmt: skip
    empty = Pages(*(np.empty(0, dtype) for dtype in dtypes))
    none = np.empty(0, np.int64)
    return empty, MappingRows(np.zeros(1, np.int64), none, np.empty(0, np.uint64))

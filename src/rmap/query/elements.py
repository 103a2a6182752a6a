# SPDX-License-Identifier: GPL-2.0-only
"""Places cut into elements: single pages with all that can be said of each, as columns.

What is no page and no swap entry (a hole, a guard region) stays one element however long it is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.arrays import positions, ranges
from rmap.image.flags import Pte
from rmap.query.folios import Folios
from rmap.query.kinds import classify
from rmap.query.places import I32, I64, U8, U64, Places, State
from rmap.query.verdict import Verdict, judge, somebody_unread

Bools = npt.NDArray[np.bool_]

#: Code of kind and verdict where there is none.
NONE = 255


@dataclass(frozen=True, slots=True)
class Elements:
    """Columns; a row is a page or an undivided stretch, in the order of the places.

    ``key`` is what the mappings are found by: a page frame number where ``framed``, a swap entry
    where ``state`` is SWAPPED. An element that is ``alone`` shows only the entry it was found by.
    """

    place: I64
    target: I32
    state: U8
    position: U64
    pages: I64
    vma: I32
    pte: I64
    key: U64
    framed: Bools
    alone: Bools
    kind: U8
    flags: U64
    mapcount: I32
    refcount: I32
    found: I64
    verdict: U8
    folio_pages: I32

    def __len__(self) -> int:
        return len(self.place)

    def take(self, rows: Any) -> Elements:
        """Return some of the elements."""
        return Elements(*(getattr(self, column.name)[rows] for column in fields(self)))


class Cutter:
    """Cuts places into elements, any stretch of them at a time."""

    def __init__(self, image: MemoryImage, places: Places) -> None:
        self.image = image
        self.places = places
        self._folios = Folios(image)
        flags = _pte_flags(image, places.pte)
        # From /proc a migration entry does not tell its page: then it has swap format.
        waiting = np.isin(places.state, (State.MIGRATING, State.POISONED))
        known = waiting & ((flags & np.uint32(Pte.SWAP)) == 0)
        self._framed = (places.state == State.PRESENT) | known
        self._alone = _alone(places, flags, self._framed)
        divided = self._framed | (places.state == State.SWAPPED)
        self._lengths = np.where(divided, places.pages, 1)
        self._ends = np.cumsum(self._lengths)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def cut(self, start: int, end: int) -> Elements:
        """Return elements ``start`` to ``end``."""
        first = int(np.searchsorted(self._ends, start, "right"))
        last = int(np.searchsorted(self._ends, end, "left")) + 1
        begins = self._ends[first:last] - self._lengths[first:last]
        low = np.maximum(begins, start)
        counts = np.minimum(self._ends[first:last], end) - low
        place = np.repeat(np.arange(first, first + len(counts)), counts)
        into = ranges(low - begins, counts).astype(np.uint64)
        here = self.places.take(place)
        framed = self._framed[place]
        divided = framed | (here.state == State.SWAPPED)
        key = here.pfn + np.where(framed, into, np.uint64(0))
        return Elements(
            place=place,
            target=here.target,
            state=here.state,
            position=here.position + into * np.uint64(self.image.page_size),
            pages=np.where(divided, 1, here.pages),
            vma=here.vma,
            pte=here.pte,
            key=key,
            framed=framed,
            alone=self._alone[place],
            **self._facts(key, framed, here.state == State.SWAPPED),
        )

    def _facts(self, key: U64, framed: Bools, swapped: Bools) -> dict[str, npt.NDArray[Any]]:
        """Return what the pages table and the reverse map tell of each element."""
        size = len(key)
        facts: dict[str, npt.NDArray[Any]] = {
            "kind": np.full(size, NONE, np.uint8),
            "flags": np.zeros(size, np.uint64),
            "mapcount": np.full(size, -1, np.int32),
            "refcount": np.full(size, -1, np.int32),
            "found": np.zeros(size, np.int64),
            "verdict": np.full(size, NONE, np.uint8),
            "folio_pages": np.zeros(size, np.int32),
        }
        if framed.any():
            at = slice(None) if framed.all() else np.flatnonzero(framed)
            for name, values in self._frame_facts(key[at]).items():
                facts[name][at] = values
        if swapped.any():
            at = np.flatnonzero(swapped)
            for name, values in _swap_facts(self.image, key[at]).items():
                facts[name][at] = values
        return facts

    def _frame_facts(self, pfns: U64) -> dict[str, npt.NDArray[Any]]:
        image, pages = self.image, self.image.pages
        found = image.reverse.count(pfns)
        rows = image.find_pages(pfns)
        known = rows >= 0
        if not known.any():
            return {"found": found, "verdict": np.full(len(pfns), Verdict.NOT_COMPARABLE)}
        at = np.maximum(rows, 0)
        flags = np.where(known, pages["flags"][at], np.uint64(0))
        kinds = classify(flags)
        facts = {
            "kind": np.where(known, kinds, NONE),
            "flags": flags,
            "mapcount": np.where(known, pages["mapcount"][at], -1),
            "found": found,
            "verdict": judge(image, rows, found, kinds),
            "folio_pages": self._folios.sizes(rows),
        }
        if "refcount" in pages:
            facts["refcount"] = np.where(known, pages["refcount"][at], -1)
        return facts


def _pte_flags(image: MemoryImage, rows: I64) -> npt.NDArray[np.uint32]:
    """Return the flags of some entries, 0 where the row is -1."""
    if not len(image.ptes):
        return np.zeros(len(rows), np.uint32)
    return np.where(rows >= 0, image.ptes["flags"][np.maximum(rows, 0)], np.uint32(0))


def _alone(places: Places, flags: npt.NDArray[np.uint32], framed: Bools) -> Bools:
    """Tell which places show only the entry they were found by.

    Half the machine may map the zero page, at thousands of addresses each: who asks for a process
    does not want them all at each of its own. They are to be had by ``pfn:``.
    """
    special = (flags & np.uint32(Pte.SPECIAL)) != 0
    keyed = (framed & ~special) | (places.state == State.SWAPPED)
    return (places.pte >= 0) & ~keyed


def _swap_facts(image: MemoryImage, entries: U64) -> dict[str, npt.NDArray[Any]]:
    """Return found and, where the image has the slot, the kernel's count of it."""
    found = image.reverse_swap.count(entries)
    slots = image.swap_slots
    if not len(slots):
        return {"found": found}
    at = positions(slots["entry"], entries)
    counted = np.where(at >= 0, slots["count"][np.maximum(at, 0)], -1)
    less = Verdict.UNATTRIBUTED if somebody_unread(image) else Verdict.DISAGREE
    verdict = np.where(found < counted, less, Verdict.DISAGREE)
    verdict = np.where(found == counted, Verdict.AGREE, verdict)
    verdict = np.where(counted < 0, Verdict.NOT_COMPARABLE, verdict)
    return {"found": found, "mapcount": counted, "verdict": verdict}

# SPDX-License-Identifier: GPL-2.0-only
"""What changed while it was read: two passes over the page tables, compared.

A machine does not stand still while it is read. So the page tables are read, then the kernel's
counts, then the page tables again. Where both readings of an entry agree, the count in between
belongs to it; the frames of all that differs are *changed*, and their counts are not comparable.
That holds for processes too that began or ended in between, with all they map.

What this cannot see: an entry that was taken away and put back between its two readings (the
kernel does that when it migrates a page to and fro), and a process that came and went within one
pass. Frames that such a process shared with others are given away by the bit "mapped exactly once"
of the others' entries, where there was one other.

The second pass is kept: it is the younger one, and what it says of unchanged frames is what the
first one said.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from rmap.source.proc.contents import Space
from rmap.source.proc.entries import (
    PM_EXCLUSIVE,
    PM_FRAME,
    PM_PRESENT,
    PM_SWAP,
    U64,
    Entries,
    frames_of,
)
from rmap.source.proc.kpage import distinct

_COMPARED = PM_PRESENT | PM_SWAP | PM_EXCLUSIVE | PM_FRAME


def changed_frames(before: Iterable[Space], after: Iterable[Space]) -> U64:
    """Return every frame, ascending, whose mappings are not the same in both passes."""
    old = {space.processes[0].pid: space.contents.entries for space in before}
    parts = []
    for space in after:
        entries = space.contents.entries
        first = old.pop(space.processes[0].pid, None)
        parts.extend([frames_of(entries)] if first is None else differing_frames(first, entries))
    parts.extend(frames_of(entries) for entries in old.values())
    return distinct(parts)


def differing_frames(first: Entries, second: Entries) -> list[U64]:
    """Return the frames of the entries that are not the same in both."""
    if np.array_equal(first.addresses, second.addresses):
        equal = _equal(first, second)
        if equal.all():
            return []
        return [frames_of(first.take(~equal)), frames_of(second.take(~equal))]
    _, at_first, at_second = np.intersect1d(
        first.addresses, second.addresses, assume_unique=True, return_indices=True
    )
    equal = _equal(first.take(at_first), second.take(at_second))
    return [
        frames_of(_without(first, at_first[equal])),
        frames_of(_without(second, at_second[equal])),
    ]


def _equal(first: Entries, second: Entries) -> npt.NDArray[np.bool_]:
    return ((first.words ^ second.words) & _COMPARED == 0) & (first.orders == second.orders)


def _without(entries: Entries, rows: npt.NDArray[np.intp]) -> Entries:
    keep = np.ones(len(entries), np.bool_)
    keep[rows] = False
    return entries.take(keep)

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

from rmap.image.arrays import distinct
from rmap.source.proc.entries import (
    PM_EXCLUSIVE,
    PM_FRAME,
    PM_PRESENT,
    PM_SWAP,
    U64,
    Entries,
    frames_of,
)

_COMPARED = PM_PRESENT | PM_SWAP | PM_EXCLUSIVE | PM_FRAME


class Changes:
    """Compares the second pass with the first, one address space after another.

    Parameters
    ----------
    before
        The first pass: (process id, entries of its address space, one a page). They are let go as
        they are compared, so that two whole passes are never held.
    """

    def __init__(self, before: Iterable[tuple[int, Entries]]) -> None:
        self._before = dict(before)
        self._frames: list[U64] = []

    def compare(self, pid: int, entries: Entries) -> None:
        """Note what differs between ``entries``, one a page, and the first reading of ``pid``."""
        first = self._before.pop(pid, None)
        if first is None:
            self._frames.append(frames_of(entries))
        else:
            self._frames.extend(differing_frames(first, entries))

    def frames(self) -> U64:
        """Return every frame whose mappings are not the same in both passes, ascending.

        What was not compared by now has vanished, and all its frames count.
        """
        gone = [frames_of(entries) for entries in self._before.values()]
        return distinct(np.concatenate([np.empty(0, np.uint64), *self._frames, *gone]))


def differing_frames(first: Entries, second: Entries) -> list[U64]:
    """Return the frames of the entries (one a page) that are not the same in both."""
    if np.array_equal(first.addresses, second.addresses):
        equal = _equal(first.words, second.words)
        if equal.all():
            return []
        return [frames_of(first.take(~equal)), frames_of(second.take(~equal))]
    _, at_first, at_second = np.intersect1d(
        first.addresses, second.addresses, assume_unique=True, return_indices=True
    )
    equal = _equal(first.words[at_first], second.words[at_second])
    return [
        frames_of(_without(first, at_first[equal])),
        frames_of(_without(second, at_second[equal])),
    ]


def _equal(first: U64, second: U64) -> npt.NDArray[np.bool_]:
    return np.asarray((first ^ second) & _COMPARED == 0)


def _without(entries: Entries, rows: npt.NDArray[np.intp]) -> Entries:
    keep = np.ones(len(entries), np.bool_)
    keep[rows] = False
    return entries.take(keep)

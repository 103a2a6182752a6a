# SPDX-License-Identifier: GPL-2.0-only
"""What changed while it was read: two passes over the page tables, compared.

A machine does not stand still while it is read. So the page tables are read, then the kernel's
counts, then the page tables again. Where both readings of an entry agree, the count in between
belongs to it; the frames of all that differs are *changed*, and their counts are not comparable.
That holds for processes too that began or ended in between, with all they map.

One thing escapes that comparison: an entry that was taken away and put back, as in a loop of mmap
and munmap, which gets the same address and often the same frame. So what would be a finding, a
frame with more mappings than the kernel counts, is looked at once more (`unsettled`): it is
changed too if the count has another value now, or if a process that maps it took a page fault
since the first pass, which is how an entry is put back. Processes that are stopped take none.

What remains unseen is a process that came and went within one pass: its mappings are counted and
not found. The second pass is kept: it is the younger one, and what it says of unchanged frames is
what the first one said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from rmap.image.arrays import distinct
from rmap.image.flags import Kpf
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
from rmap.source.proc.kernelconfig import keeps_page_mapcounts, kernel_config
from rmap.source.proc.kpage import KernelPages, read_frames
from rmap.source.proc.survey import faults_of

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


def unsettled(
    spaces: list[Space], pages: KernelPages, changed: U64, faults: Mapping[int, int]
) -> U64:
    """Return frames that are found more often than counted but may have changed, ascending.

    Parameters
    ----------
    spaces, pages, changed
        What was read last, the kernel's counts, and frames that need no look.
    faults
        Page faults of each process before the first pass.
    """
    rows = [pages.find(frames_of(space.contents.entries)) for space in spaces]
    suspects = _found_too_often(rows, pages, changed)
    if not len(suspects):
        return np.empty(0, np.uint64)
    moved = np.zeros(len(pages.pfns), np.bool_)
    moved[suspects] = read_frames(pages.pfns[suspects]).counts != pages.counts[suspects]
    suspected = np.zeros(len(pages.pfns), np.bool_)
    suspected[suspects] = True
    for space, own in zip(spaces, rows, strict=True):
        shared = own[(own >= 0) & suspected[own]]
        pids = [process.pid for process in space.processes]
        if len(shared) and any(faults_of(pid) != faults.get(pid) for pid in pids):
            moved[shared] = True
    return pages.pfns[moved & suspected]


def _found_too_often(
    rows: list[npt.NDArray[np.intp]], pages: KernelPages, changed: U64
) -> npt.NDArray[np.intp]:
    """Return the rows of ``pages`` with more mappings in ``rows`` than the kernel counts."""
    mapped = np.concatenate([np.empty(0, np.intp), *rows])
    if len(mapped) and mapped.min() < 0:
        mapped = mapped[mapped >= 0]
    found = np.bincount(mapped, minlength=len(pages.pfns))
    often = found > pages.counts
    known = pages.find(changed)
    often[known[known >= 0]] = False
    suspects = np.flatnonzero(often)
    # Of no interest: what the kernel does not count, and averages instead of counts.
    ignored = Kpf.ZERO_PAGE | Kpf.NOPAGE
    if not keeps_page_mapcounts(kernel_config()):
        ignored |= Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL
    return suspects[pages.flags[suspects] & np.uint64(ignored) == 0]

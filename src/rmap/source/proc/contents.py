# SPDX-License-Identifier: GPL-2.0-only
"""What the address spaces hold: one pass over ``maps`` and ``pagemap``, and comparing two.

A machine does not stand still while it is read. So the page tables are read, then the kernel's
counts, then the page tables again: where both readings agree, nothing changed in between that the
count could have missed; what differs is *changed* and not comparable. A process that vanished
before the second reading makes all it had mapped changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image.arrays import distinct
from rmap.source import Progress
from rmap.source.proc.files import Denied, Gone, read_file
from rmap.source.proc.maps import vma_ranges
from rmap.source.proc.pagemap import PMD_PAGES, Entries, Pagemap
from rmap.source.proc.survey import Process

U64 = npt.NDArray[np.uint64]

#: What of a word has to stay the same: present, swapped, and the frame or swap entry.
_COMPARED = np.uint64(3 << 62 | (1 << 55) - 1)
_PRESENT_BIT = np.uint64(63)


@dataclass(slots=True)
class Contents:
    """One address space: the text of ``maps``, the ranges in it, and the entries.

    ``words`` are as ``pagemap`` shows them, one a page, for comparing two passes; ``entries`` have
    huge mappings folded, after the second pass.
    """

    maps: bytes
    ranges: list[tuple[int, int]]
    words: Entries
    entries: Entries


def read_contents(process: Process, before: Contents | None, final: bool) -> Contents:
    """Read one address space. Raises `Gone` or `Denied`."""
    maps = read_file(process.pid, "maps", process.task)
    unchanged = before is not None and before.maps == maps
    ranges = before.ranges if before is not None and unchanged else vma_ranges(maps)
    with Pagemap(process.pid, process.task) as pagemap:
        words = pagemap.read(ranges)
        return Contents(maps, ranges, words, pagemap.fold_huge(words) if final else words)


def read_pass(
    leaders: Iterable[Process],
    progress: Progress,
    stage: str,
    before: Mapping[int, Contents] | None = None,
) -> dict[int, Contents]:
    """Read the address space of every process in ``leaders``, by pid.

    The second pass is given what the first one found ``before``. A process that has gone or
    refuses gets its ``state`` set, and has no contents.
    """
    earlier = before or {}
    readable = [process for process in leaders if process.readable]
    found = {}
    for number, process in enumerate(readable):
        progress(stage, number, len(readable))
        try:
            found[process.pid] = read_contents(
                process, earlier.get(process.pid), final=before is not None
            )
        except Gone:
            process.state = "vanished"
        except Denied:
            process.state = "denied"
    progress(stage, len(readable), len(readable))
    return found


def changed_frames(before: Mapping[int, Contents], after: Mapping[int, Contents]) -> U64:
    """Return every frame, ascending, whose mappings are not the same in both passes."""
    parts = []
    for pid in before.keys() | after.keys():
        first, second = before.get(pid), after.get(pid)
        if first is None or second is None:
            only = first or second
            assert only is not None
            parts.append(frames_of(only.words))
        else:
            parts.extend(_difference(first.words, second.words))
    return distinct(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def _difference(first: Entries, second: Entries) -> list[U64]:
    """Frames of the entries that are in one of the two only."""
    if np.array_equal(first.addresses, second.addresses) and _equal(first, second).all():
        return []
    _, at_first, at_second = np.intersect1d(
        first.addresses, second.addresses, assume_unique=True, return_indices=True
    )
    equal = _equal(_take(first, at_first), _take(second, at_second))
    parts = []
    for entries, places in ((first, at_first), (second, at_second)):
        kept = np.zeros(len(entries.addresses), np.bool_)
        kept[places] = equal
        parts.append(frames_of(_take(entries, ~kept)))
    return parts


def _equal(first: Entries, second: Entries) -> npt.NDArray[np.bool_]:
    return (first.words ^ second.words) & _COMPARED == 0


def _take(entries: Entries, rows: npt.NDArray[np.generic]) -> Entries:
    return Entries(entries.addresses[rows], entries.words[rows], entries.orders[rows])


def frames_of(entries: Entries) -> U64:
    """Return the frames of all present entries, every page of a huge one, in no order."""
    present = (entries.words >> _PRESENT_BIT).astype(np.bool_)
    pfns = entries.pfns[present]
    huge = entries.orders[present] > 0
    if not huge.any():
        return pfns
    blocks = pfns[huge][:, None] + np.arange(PMD_PAGES, dtype=np.uint64)
    return np.concatenate((pfns[~huge], blocks.ravel()))

# SPDX-License-Identifier: GPL-2.0-only
"""Reading ``/proc/PID/pagemap``: one word a page of address space.

A hole costs 2.5 ns a page to read, a present page 41 ns. PAGEMAP_SCAN skips holes at 0.06 ns a
page but costs as much as reading where there are pages. So ranges are read as they are, many into
one buffer, and only very large ones are scanned first.

Whether a PMD maps a block is asked of PAGEMAP_SCAN too, but only for blocks that could be one: as
many consecutive, aligned frames as a PMD maps, at an aligned address. Where the kernel cannot
tell, such a block stays one entry a page; every count is the same.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import numpy.typing as npt

from rmap.source.proc.entries import (
    PAGE_SHIFT,
    PM_ANY,
    PMD_PAGES,
    U64,
    Entries,
    fold,
    fold_candidates,
    no_entries,
)
from rmap.source.proc.files import Gone, path_of, process_errors
from rmap.source.proc.scan import (
    PAGE_IS_HUGE,
    PAGE_IS_PRESENT,
    PAGE_IS_SWAPPED,
    Regions,
    scan,
)

Ranges = list[tuple[int, int]]

#: Ranges longer than this are scanned for what is populated before they are read.
SCAN_PAGES = 1 << 18
#: Two ranges closer than this are read as one: a hole this long costs less than a system call.
JOIN_PAGES = 512
#: Words read before they are looked at: 1 MiB of them, so that they are still in the cache.
BUFFER_PAGES = 1 << 17
#: Blocks that may be huge are asked about together if no more than this many lie between them.
_GAP_BLOCKS = 16


class Pagemap:
    """One open ``/proc/PID/pagemap``.

    Raises `Gone` or `Denied` when opened or read. A ``buffer`` of words may be handed in, to be
    used by one reader after another.

    >>> with Pagemap(os.getpid()) as pagemap:  # doctest: +SKIP
    ...     pagemap.read([(0x400000, 0x500000)])
    """

    #: Whether this kernel has PAGEMAP_SCAN; found out by trying.
    can_scan: bool = True

    def __init__(self, pid: int, task: int | None = None, buffer: U64 | None = None) -> None:
        self._buffer = np.empty(BUFFER_PAGES, np.uint64) if buffer is None else buffer
        with process_errors():
            self._fd = os.open(path_of(pid, "pagemap", task), os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Pagemap:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, ranges: Ranges) -> Entries:
        """Return what the entries of ``ranges`` (ascending, disjoint addresses) hold.

        They are one a page, as ``pagemap`` shows them; see `fold_huge`.
        """
        found_pages, found_words = [], []
        for batch in batches(self._populated(join_ranges(ranges)), len(self._buffer)):
            pages, words = self._read_batch(batch)
            if len(pages):
                found_pages.append(pages)
                found_words.append(words)
        if not found_pages:
            return no_entries()
        pages, words = np.concatenate(found_pages), np.concatenate(found_words)
        pages <<= np.uint64(PAGE_SHIFT)
        return Entries(pages, words, np.zeros(len(pages), np.uint8))

    def fold_huge(self, entries: Entries) -> Entries:
        """Return ``entries`` with each block that one PMD maps as a single one of its order."""
        heads = fold_candidates(entries.addresses, entries.words)
        return fold(entries, heads[self._huge(entries.addresses[heads])]) if len(heads) else entries

    def _read_batch(self, batch: Ranges) -> tuple[U64, U64]:
        """Read ranges of pages that fit into the buffer; return what is not empty."""
        at, shifts, sizes = 0, [], []
        for first, last in batch:
            self._read_into(self._buffer[at : at + last - first], first)
            shifts.append(first - at)
            sizes.append(last - first)
            at += last - first
        words = self._buffer[:at]
        used = np.flatnonzero(words & PM_ANY)
        ends = np.searchsorted(used, np.cumsum(sizes))
        pages = used + np.repeat(shifts, np.diff(ends, prepend=0))
        return pages.astype(np.uint64), words[used]

    def _read_into(self, out: U64, page: int) -> None:
        rest = out.data.cast("B")
        offset = page * 8
        while len(rest):
            with process_errors():
                count = os.preadv(self._fd, [rest], offset)
            if not count:
                raise Gone("its memory is gone")
            rest = rest[count:]
            offset += count

    def _populated(self, ranges: Ranges) -> Ranges:
        """Replace long ranges of pages by their populated parts, where the kernel can tell."""
        parts: Ranges = []
        for first, last in ranges:
            regions = None
            if last - first > SCAN_PAGES:
                regions = self._scan(first, last, PAGE_IS_PRESENT | PAGE_IS_SWAPPED)
            if regions is None:
                parts.append((first, last))
            else:
                starts, ends = regions["start"] >> PAGE_SHIFT, regions["end"] >> PAGE_SHIFT
                parts.extend(zip(starts.tolist(), ends.tolist(), strict=True))
        return _join(parts)

    def _scan(self, first: int, last: int, categories: int) -> Regions | None:
        """Scan a range of pages; None if the kernel cannot."""
        if not Pagemap.can_scan:
            return None
        with process_errors():
            regions = scan(self._fd, first << PAGE_SHIFT, last << PAGE_SHIFT, categories)
        if regions is None:
            Pagemap.can_scan = False
        return regions

    def _huge(self, addresses: U64) -> npt.NDArray[np.bool_]:
        """Return which of the blocks at ``addresses`` (one at least) are mapped by a PMD."""
        block = PMD_PAGES << PAGE_SHIFT
        cuts = np.flatnonzero(np.diff(addresses) > np.uint64(_GAP_BLOCKS * block)) + 1
        huge = np.zeros(len(addresses), np.bool_)
        for first, last in itertools.pairwise([0, *cuts.tolist(), len(addresses)]):
            start, end = int(addresses[first]), int(addresses[last - 1]) + block
            regions = self._scan(start >> PAGE_SHIFT, end >> PAGE_SHIFT, PAGE_IS_HUGE)
            if regions is None:
                break
            huge[first:last] = _covered(addresses[first:last], regions)
        return huge


def _covered(addresses: U64, regions: Regions) -> npt.NDArray[np.bool_]:
    """Whether each address lies in one of the regions."""
    if not len(regions):
        return np.zeros(len(addresses), np.bool_)
    at = np.searchsorted(regions["start"], addresses, side="right") - 1
    return (at >= 0) & (addresses < regions["end"][np.maximum(at, 0)])


def join_ranges(ranges: Ranges) -> Ranges:
    """Turn ranges of addresses into ranges of pages, those close to each other joined.

    >>> join_ranges([(0x1000, 0x2000), (0x3000, 0x4000)])
    [(1, 4)]
    """
    return _join([(start >> PAGE_SHIFT, end >> PAGE_SHIFT) for start, end in ranges])


def _join(ranges: Ranges) -> Ranges:
    joined: Ranges = []
    for first, last in ranges:
        if joined and first - joined[-1][1] <= JOIN_PAGES:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return joined


def batches(ranges: Ranges, limit: int) -> list[Ranges]:
    """Split ranges into batches of no more than ``limit`` pages each, in order.

    >>> batches([(0, 3), (10, 14)], 5)
    [[(0, 3), (10, 12)], [(12, 14)]]
    """
    done: list[Ranges] = []
    room = 0
    for first, last in ranges:
        while first < last:
            if not room:
                done.append([])
                room = limit
            part = min(last - first, room)
            done[-1].append((first, first + part))
            first += part
            room -= part
    return done

# SPDX-License-Identifier: GPL-2.0-only
"""Segments cut by what lies in them: which parts are covered, by what, and which are not.

Every kind of target is the same question: a stretch of addresses (of frames, of file pages) is
asked for, and sorted intervals (page-table entries, RAM ranges, mapped file pages) cover parts of
it. :func:`cut` answers it for thousands of segments at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image.reverse import ranges

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Parts of segments, by segment and position.

    ``interval[i]`` covers ``[start[i], start[i] + length[i])`` of segment ``segment[i]``;
    an interval of -1 is a gap.
    """

    segment: I64
    interval: I64
    start: U64
    length: U64

    def take(self, rows: npt.NDArray[np.generic]) -> Pieces:
        """Return the pieces at ``rows`` (indices or a mask)."""
        return Pieces(self.segment[rows], self.interval[rows], self.start[rows], self.length[rows])


def cut(
    starts: U64,
    lengths: U64,
    first: I64,
    last: I64,
    interval_starts: U64,
    interval_lengths: U64,
    gaps: npt.NDArray[np.bool_],
) -> Pieces:
    """Cut segments into the parts that intervals cover and the gaps between them.

    Parameters
    ----------
    starts, lengths
        The segments.
    first, last
        Segment *s* can only be covered by the intervals ``first[s]`` up to, not with, ``last[s]``.
    interval_starts, interval_lengths
        The intervals, ascending within each segment. Where they overlap, each gives its piece.
    gaps
        Whether the gaps of each segment are wanted.

    >>> u64 = lambda *values: np.array(values, np.uint64)
    >>> one = np.array([0]), np.array([2])
    >>> pieces = cut(u64(10), u64(10), *one, u64(8, 15), u64(4, 2), np.array([True]))
    >>> list(zip(pieces.interval.tolist(), pieces.start.tolist(), pieces.length.tolist()))
    [(0, 10, 2), (-1, 12, 3), (1, 15, 2), (-1, 17, 3)]
    """
    counts = np.maximum(last - first, 0)
    segment = np.repeat(np.arange(len(starts)), counts)
    interval = ranges(first, counts)
    # Positions are relative to the segment: a signed difference says what lies before it.
    size = lengths.astype(np.int64)
    begin = (interval_starts[interval] - starts[segment]).view(np.int64)
    end = begin + interval_lengths[interval].astype(np.int64)
    begin = np.maximum(begin, 0)
    end = np.minimum(end, size[segment])
    inside = end > begin
    if not inside.all():
        segment, interval, begin, end = (a[inside] for a in (segment, interval, begin, end))
    if gaps.any():
        gap_segment, gap_begin, gap_end = _gaps(segment, begin, end, size, gaps)
        segment = np.concatenate((segment, gap_segment))
        begin = np.concatenate((begin, gap_begin))
        end = np.concatenate((end, gap_end))
        interval = np.concatenate((interval, np.full(len(gap_segment), -1, np.int64)))
        order = np.lexsort((begin, segment))
        segment, interval, begin, end = (a[order] for a in (segment, interval, begin, end))
    position = starts[segment] + begin.astype(np.uint64)
    return Pieces(segment, interval, position, (end - begin).astype(np.uint64))


def _gaps(
    segment: I64, begin: I64, end: I64, size: I64, wanted: npt.NDArray[np.bool_]
) -> tuple[I64, I64, I64]:
    """Return (segments, begins, ends) of what no piece covers; pieces are in order."""
    reach = _running_reach(segment, begin, end)
    before = np.zeros(len(segment), np.int64)
    continues = segment[1:] == segment[:-1]
    before[1:] = np.where(continues, reach[:-1], 0)
    inner = (begin > before) & wanted[segment]
    tail = np.zeros(len(size), np.int64)
    is_last = np.append(~continues, True)[: len(segment)]
    tail[segment[is_last]] = reach[is_last]
    outer = np.flatnonzero((size > tail) & wanted)
    return (
        np.concatenate((segment[inner], outer)),
        np.concatenate((before[inner], tail[outer])),
        np.concatenate((begin[inner], size[outer])),
    )


def _running_reach(segment: I64, begin: I64, end: I64) -> I64:
    """Return how far the pieces of a segment reach, up to and with each one."""
    overlaps = (segment[1:] == segment[:-1]) & (begin[1:] < end[:-1])
    if not overlaps.any():
        return end
    reach = end.copy()  # only a defective image has entries that overlap
    for which in np.unique(segment[1:][overlaps]).tolist():
        mine = slice(*np.searchsorted(segment, [which, which + 1]).tolist())
        reach[mine] = np.maximum.accumulate(end[mine])
    return reach

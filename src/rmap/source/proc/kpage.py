# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/kpagecount`` and ``/proc/kpageflags``: the kernel's own view of each page frame.

Read in sequence a frame costs about 75 ns in each of them, alone 330 ns; so frames are read in
runs, and a gap shorter than a system call is worth is read along.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.errors import MissingFeatureError, PrivilegeError
from rmap.image.arrays import positions
from rmap.image.flags import Kpf
from rmap.source.proc.ram import Ranges

U64 = npt.NDArray[np.uint64]

KPAGECOUNT = "/proc/kpagecount"
KPAGEFLAGS = "/proc/kpageflags"
#: A gap of this many frames is read along with what surrounds it.
GAP = 24
#: Frames a system call asks for.
_CHUNK = 1 << 16
#: A table of all frames is made to look them up if it is no larger than this many entries a frame.
_DENSE = 16
_DENSE_ALWAYS = 1 << 22


@dataclass(slots=True)
class KernelPages:
    """Frames, ascending, with the kernel's mapcount and KPF_ flags of each."""

    pfns: U64
    counts: npt.NDArray[np.int32]
    flags: U64
    _rows: npt.NDArray[np.int32] | None = field(default=None, repr=False)

    def find(self, pfns: U64) -> npt.NDArray[np.intp]:
        """Return the row of each of ``pfns``, -1 where there is none."""
        if not len(self.pfns):
            return np.full(len(pfns), -1, np.intp)
        span = int(self.pfns[-1]) + 1
        if span > max(_DENSE_ALWAYS, _DENSE * len(self.pfns)):
            return positions(self.pfns, pfns)
        if self._rows is None:
            self._rows = np.full(span + 1, -1, np.int32)  # one more, for what lies beyond
            self._rows[self.pfns] = np.arange(len(self.pfns), dtype=np.int32)
        return self._rows[np.minimum(pfns, np.uint64(span))].astype(np.intp)

    def flags_of(self, pfns: U64) -> U64:
        """Return the KPF_ flags of each of ``pfns``; KPF_NOPAGE where there is none."""
        rows = self.find(pfns)
        flags = self.flags[rows] if len(self.flags) else np.zeros(len(rows), np.uint64)
        flags[rows < 0] = np.uint64(Kpf.NOPAGE)
        return flags


def runs_of(pfns: U64) -> Ranges:
    """Return the runs of ascending frames, with short gaps closed.

    >>> runs_of(np.array([5, 6, 9, 100], np.uint64))
    [(5, 10), (100, 101)]
    """
    if not len(pfns):
        return []
    cuts = np.flatnonzero(np.diff(pfns) > np.uint64(GAP + 1))
    starts = pfns[np.concatenate(([0], cuts + 1))]
    ends = pfns[np.append(cuts, len(pfns) - 1)] + np.uint64(1)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def read_ranges(ranges: Ranges) -> KernelPages:
    """Read both files for every frame of ``ranges``, at the same time.

    Raises
    ------
    MissingFeatureError
        If the kernel has no such files (CONFIG_PROC_PAGE_MONITOR).
    PrivilegeError
        If they may not be read.
    """
    total = sum(end - start for start, end in ranges)
    counts = np.zeros(total, np.int32)
    flags = np.full(total, int(Kpf.NOPAGE), np.uint64)
    with ThreadPoolExecutor(2) as pool:  # the reads run outside the interpreter lock
        reads = [
            pool.submit(_read_into, KPAGECOUNT, ranges, counts),
            pool.submit(_read_into, KPAGEFLAGS, ranges, flags),
        ]
        for read in reads:
            read.result()
    pfns = np.empty(total, np.uint64)
    at = 0
    for start, end in ranges:
        pfns[at : at + end - start] = np.arange(start, end, dtype=np.uint64)
        at += end - start
    return KernelPages(pfns, counts, flags)


def read_frames(pfns: U64) -> KernelPages:
    """Read both files for the given ascending frames only."""
    pages = read_ranges(runs_of(pfns))
    if len(pages.pfns) == len(pfns):
        return pages
    rows = pages.find(pfns)
    return KernelPages(pfns, pages.counts[rows], pages.flags[rows])


def merged(pages: KernelPages, pfns: U64) -> KernelPages:
    """Return ``pages`` with those of the ascending ``pfns`` added (read now) that it lacks."""
    missing = pfns[pages.find(pfns) < 0]
    if not len(missing):
        return pages
    extra = read_frames(missing)
    both = np.concatenate((pages.pfns, extra.pfns))
    order = np.argsort(both, kind="stable")
    counts = np.concatenate((pages.counts, extra.counts))[order]
    return KernelPages(both[order], counts, np.concatenate((pages.flags, extra.flags))[order])


def _read_into(path: str, ranges: Ranges, out: npt.NDArray[Any]) -> None:
    """Fill ``out``; frames beyond the end of memory keep what they hold."""
    fd = _open(path)
    words = np.empty(_CHUNK, np.uint64)
    view = words.data.cast("B")
    try:
        at = 0
        for start, end in ranges:
            for first in range(start, end, _CHUNK):
                wanted = min(_CHUNK, end - first)
                got = os.preadv(fd, [view[: wanted * 8]], first * 8) // 8
                out[at : at + got] = words[:got]
                at += wanted
    finally:
        os.close(fd)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingFeatureError(
            f"this kernel has no {path}: it needs CONFIG_PROC_PAGE_MONITOR"
        ) from None
    except PermissionError:
        raise PrivilegeError(f"may not read {path}: run as root (CAP_SYS_ADMIN)") from None

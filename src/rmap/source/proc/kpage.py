# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/kpagecount`` and ``/proc/kpageflags``: the kernel's own view of each page frame.

Read in sequence a frame costs about 75 ns in each of them, alone 330 ns; so frames are read in
runs, and a gap shorter than a system call is worth is read along.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rmap.errors import MissingFeatureError, PrivilegeError
from rmap.image.flags import Kpf

U64 = npt.NDArray[np.uint64]
Ranges = list[tuple[int, int]]

#: A gap of this many frames is read along with what surrounds it.
_GAP = 8
#: Frames a system call asks for.
_CHUNK = 1 << 17
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class KernelPages:
    """Frames, ascending, with the kernel's mapcount and KPF_ flags of each."""

    pfns: U64
    counts: npt.NDArray[np.int32]
    flags: U64

    def rows(self, pfns: U64) -> npt.NDArray[np.int64]:
        """Return the row of each frame, -1 for one that is not here.

        RAM is a few runs of frames, so the run is looked for and not the frame.
        """
        if not len(self.pfns):
            return np.full(len(pfns), -1, np.int64)
        starts, first, limits = self._runs
        run = np.searchsorted(first, pfns, side="right") - 1
        row = starts[run] + (pfns - first[run]).astype(np.int64)
        return np.where((run >= 0) & (row < limits[run]), row, -1)

    @cached_property
    def _runs(self) -> tuple[npt.NDArray[np.int64], U64, npt.NDArray[np.int64]]:
        """First row, first frame and end row of each run of consecutive frames."""
        starts = np.append(0, np.flatnonzero(np.diff(self.pfns) != np.uint64(1)) + 1)
        return starts, self.pfns[starts], np.append(starts[1:], len(self.pfns))


def ram_ranges() -> Ranges:
    """Return the (first, end) frame numbers of RAM.

    From ``/proc/iomem``, which shows addresses only to CAP_SYS_ADMIN; else the populated spans of
    ``/proc/zoneinfo``, which may hold holes (frames there read as KPF_NOPAGE).
    """
    with open("/proc/iomem", encoding="ascii", errors="replace") as file:
        ranges = parse_iomem(file.read())
    if not ranges:
        with open("/proc/zoneinfo", encoding="ascii", errors="replace") as file:
            ranges = parse_zoneinfo(file.read())
    return ranges


def parse_iomem(text: str) -> Ranges:
    """Return the frames of the top-level ``System RAM`` lines that hold at least one whole frame.

    >>> parse_iomem("00001000-0009fbff : System RAM\\n  00002000-00002fff : inside\\n")
    [(1, 159)]
    """
    ranges = []
    for start, end in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) : System RAM$", text, re.MULTILINE):
        first = -(-int(start, 16) // _PAGE_SIZE)
        last = (int(end, 16) + 1) // _PAGE_SIZE
        if first < last:
            ranges.append((first, last))
    return ranges


def parse_zoneinfo(text: str) -> Ranges:
    """Return the spans of the zones that have pages.

    >>> parse_zoneinfo("Node 0, zone DMA\\n spanned 4095\\n present 3998\\n start_pfn: 1\\n")
    [(1, 4096)]
    """
    ranges = []
    for zone in re.split(r"^Node ", text, flags=re.MULTILINE)[1:]:
        spanned = re.search(r"^\s+spanned\s+(\d+)", zone, re.MULTILINE)
        start = re.search(r"^\s+start_pfn:\s+(\d+)", zone, re.MULTILINE)
        if spanned and start and int(spanned[1]):
            ranges.append((int(start[1]), int(start[1]) + int(spanned[1])))
    return sorted(ranges)


def runs_of(pfns: U64) -> Ranges:
    """Return the runs of ascending frames, with short gaps closed.

    >>> runs_of(np.array([5, 6, 9, 100], np.uint64))
    [(5, 10), (100, 101)]
    """
    if not len(pfns):
        return []
    cuts = np.flatnonzero(np.diff(pfns) > np.uint64(_GAP))
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
    counts, flags = np.zeros(total, np.uint64), np.full(total, int(Kpf.NOPAGE), np.uint64)
    with ThreadPoolExecutor(2) as pool:  # the reads run outside the interpreter lock
        reads = [
            pool.submit(_read_into, "/proc/kpagecount", ranges, counts),
            pool.submit(_read_into, "/proc/kpageflags", ranges, flags),
        ]
        for read in reads:
            read.result()
    pfns = np.empty(total, np.uint64)
    at = 0
    for start, end in ranges:
        pfns[at : at + end - start] = np.arange(start, end, dtype=np.uint64)
        at += end - start
    return KernelPages(pfns, counts.astype(np.int32), flags)


def read_frames(pfns: U64) -> KernelPages:
    """Read both files for the given ascending frames only."""
    pages = read_ranges(runs_of(pfns))
    wanted = np.searchsorted(pages.pfns, pfns)
    return KernelPages(pfns, pages.counts[wanted], pages.flags[wanted])


def _read_into(path: str, ranges: Ranges, out: U64) -> None:
    """Fill ``out``; frames beyond the end of memory keep what they hold."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingFeatureError(
            f"this kernel has no {path}: it needs CONFIG_PROC_PAGE_MONITOR"
        ) from None
    except PermissionError:
        raise PrivilegeError(f"may not read {path}: run as root (CAP_SYS_ADMIN)") from None
    try:
        at = 0
        for start, end in ranges:
            for first in range(start, end, _CHUNK):
                view = out[at : at + min(_CHUNK, end - first)]
                os.preadv(fd, [view.data.cast("B")], first * 8)
                at += min(_CHUNK, end - first)
    finally:
        os.close(fd)

# SPDX-License-Identifier: GPL-2.0-only
"""Targets to positions: what is at each of the places that were asked for.

All targets are resolved together. The answer is a list of :class:`Places` in the order of the
targets and, within each, by address, frame or offset. A place is a stretch of one or more pages
with one and the same answer: what a page-table entry maps, a stretch of frames, or a hole. It is
not yet cut into pages, so a process that maps 1 TiB by huge pages is a few thousand places.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from rmap.errors import PrivilegeError, RmapError, TargetError
from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte
from rmap.image.reverse import ranges
from rmap.query.intervals import Pieces, cut
from rmap.query.kinds import take
from rmap.query.targets import FileTarget, FrameTarget, PhysicalTarget, ProcessTarget, Target

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Identify = Callable[[str], "tuple[int, int] | None"]


class State(IntEnum):
    """What is at a place; the values are stable codes."""

    PRESENT = 0  #: a page
    SWAPPED = 1  #: a swap entry
    MIGRATING = 2  #: an entry that stands in for a page while it is moved (or is poisoned)
    GUARD = 3  #: a guard region marker
    DEVICE = 4  #: memory of a device
    HOLE = 5  #: a VMA is there, and nothing in it
    UNMAPPED = 6  #: no VMA is there; of a file: nobody maps it
    NOT_RAM = 7  #: no such page frame


STATE_NAMES: tuple[str, ...] = tuple(s.name.lower().replace("_", " ") for s in State)


@dataclass(frozen=True, slots=True)
class Places:
    """Columns, one row a place.

    ``pfn`` is the first frame of PRESENT places (and of MIGRATING ones where it is known), the
    swap entry of SWAPPED ones. ``mm``, ``pte`` and ``file`` are -1 and ``address`` and ``offset``
    0 where they do not apply: a process target has mm and address, a file target file and offset
    (in pages).
    """

    target: npt.NDArray[np.int32]
    state: npt.NDArray[np.uint8]
    pages: I64
    mm: npt.NDArray[np.int32]
    address: U64
    file: npt.NDArray[np.int32]
    offset: U64
    pfn: U64
    pte: I64

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: npt.NDArray[np.generic] | slice) -> Places:
        """Return the places at ``rows``."""
        return Places(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Problem:
    """A target without an answer, and why."""

    target: int
    error: RmapError


@dataclass(frozen=True, slots=True)
class Resolution:
    """The places of all targets, and the targets that have none because they are wrong."""

    places: Places
    problems: tuple[Problem, ...]


def resolve(
    image: MemoryImage,
    targets: Sequence[Target],
    *,
    identify: Identify | None = None,
    strict: bool = True,
) -> Resolution:
    """Find what is at each target.

    Parameters
    ----------
    targets
        Parsed targets (:func:`rmap.query.targets.parse_target`).
    identify
        Gives (device, inode) of a path as ``/proc/PID/maps`` shows them, None if there is no such
        file. A file is then recognised by its identity, however it was named when it was mapped.
        A path that it does not know, and every path if it is None, is looked up among the paths
        under which files are mapped, so deleted files can be named too.
    strict
        Raise the first problem. Otherwise a target that is wrong gives a :class:`Problem`, and
        the others their answers.

    Raises
    ------
    TargetError
        An unknown process, one without memory of its own, an unknown file, no page of RAM.
    PrivilegeError
        A process that could not be read.
    """
    problems: list[Problem] = []
    wanted: list[tuple[list[int], list[_Segment]]] = [([], []), ([], []), ([], [])]
    for index, target in enumerate(targets):
        try:
            which, segments = _segments(image, target, identify)
        except RmapError as error:
            if strict:
                raise
            problems.append(Problem(index, error))
            continue
        wanted[which][0].extend([index] * len(segments))
        wanted[which][1].extend(segments)
    parts = [
        _process_places(image, *wanted[0]),
        _frame_places(image, *wanted[1]),
        _file_places(image, *wanted[2]),
    ]
    joined = Places(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Places)))
    return Resolution(joined.take(np.argsort(joined.target, kind="stable")), tuple(problems))


@dataclass(frozen=True, slots=True)
class _Segment:
    """One stretch to look at: pages ``[start, end)`` of ``owner`` (an mm, a file; -1: RAM)."""

    owner: int
    start: int
    end: int
    gaps: bool


_PROCESS, _FRAME, _FILE = range(3)
_MAX_FRAMES = 1 << 52


def _segments(
    image: MemoryImage, target: Target, identify: Identify | None
) -> tuple[int, list[_Segment]]:
    """Return which kind of target it is, and its stretches of pages."""
    size = image.page_size
    if isinstance(target, ProcessTarget):
        mm = address_space(image, target.pid)
        return _PROCESS, [_in_pages(mm, target.start, target.end, size)]
    if isinstance(target, FileTarget):
        files = find_files(image, target.path, identify)
        return _FILE, [_in_pages(file, target.start, target.end, size) for file in files]
    if isinstance(target, PhysicalTarget):
        segment = _in_pages(-1, target.start, target.end, size)
    else:
        segment = _Segment(-1, target.start, min(target.end, _MAX_FRAMES), gaps=True)
        if target.start >= _MAX_FRAMES:
            raise TargetError(f"{target.start:#x} is beyond any page of RAM (PFNs have 52 bits)")
    _require_ram(image, target, segment)
    return _FRAME, [segment]


def _in_pages(owner: int, start: int | None, end: int | None, size: int) -> _Segment:
    if start is None or end is None:
        return _Segment(owner, 0, (1 << 64) // size, gaps=False)
    return _Segment(owner, start // size, -(-end // size), gaps=True)


def address_space(image: MemoryImage, pid: int) -> int:
    """Return the mm of a process.

    Raises
    ------
    TargetError
        No such process, or it has no memory of its own.
    PrivilegeError
        It could not be read.
    """
    pids = image.processes["pid"]
    row = int(np.searchsorted(pids, pid))
    if row == len(pids) or int(pids[row]) != pid:
        raise TargetError(f"no process {pid}; a file of that name is written ./{pid}")
    mm, status = int(image.processes["mm"][row]), str(image.processes["status"][row])
    if mm >= 0:
        return mm
    name = f"process {pid} ({image.processes['comm'][row]})"
    if status == "denied":
        raise PrivilegeError(f"{name} may not be read here, status {status}: ask about the pages")
    reasons = {
        "kernel": "is a kernel thread: it has no memory of its own",
        "zombie": "is a zombie: its memory is gone",
        "vanished": "ended while it was read",
        "self": "is rmap itself, which does not read its own memory",
    }
    raise TargetError(f"{name} {reasons.get(status, f'was not read, status {status}')}")


def find_files(image: MemoryImage, path: str, identify: Identify | None) -> list[int]:
    """Return the files (rows of ``image.files``) that ``path`` names; [] if nobody maps it.

    Raises
    ------
    TargetError
        If there is no such file and nobody maps one that had this path.
    """
    identity = identify(path) if identify is not None else None
    files = image.files
    if identity is not None:
        device, inode = identity
        same = (files["device"] == np.uint64(device)) & (files["inode"] == np.uint64(inode))
        return np.flatnonzero(same).tolist()
    found = np.flatnonzero((files["path"] == path) | (files["path"] == os.path.normpath(path)))
    if not len(found):
        where = "no such file, and no process maps one" if identify else "no process here maps it"
        raise TargetError(
            f"{path!r}: {where}; files are named by the path as /proc/PID/maps has it"
        )
    return found.tolist()


def _require_ram(image: MemoryImage, target: Target, segment: _Segment) -> None:
    """Raise TargetError if no frame of ``segment`` is RAM."""
    starts, ends = image.ram["start_pfn"], image.ram["end_pfn"]
    if not len(starts):
        return
    at = int(np.searchsorted(ends, np.uint64(segment.start), side="right"))
    if at < len(starts) and int(starts[at]) < segment.end:
        return
    what = f"{segment.start:#x}"
    if segment.end - segment.start > 1:
        what = f"none of {what}-{segment.end:#x}"
        verb = "is a page"
    else:
        verb = "is not a page"
    shift = image.page_size.bit_length() - 1
    advice = (
        "a physical address is asked for as phys:ADDR"
        if isinstance(target, FrameTarget)
        else f"{target.text} is byte {segment.start << shift:#x} and on"
    )
    span = f"{int(starts[0]):#x}-{int(ends[-1]):#x}"
    raise TargetError(f"{what} {verb} of RAM here (PFNs {span}); {advice}")


def _bounds(segments: list[_Segment]) -> tuple[I64, U64, U64, npt.NDArray[np.bool_]]:
    """Return columns of the segments: owner, first page, pages, whether gaps are wanted."""
    owner = np.array([s.owner for s in segments], np.int64)
    start = np.array([s.start for s in segments], np.uint64)
    pages = np.array([s.end - s.start for s in segments], np.uint64)
    return owner, start, pages, np.array([s.gaps for s in segments], np.bool_)


def _process_places(image: MemoryImage, index: list[int], segments: list[_Segment]) -> Places:
    """Return what the page tables hold in each segment, and the holes where they are wanted."""
    owner, start, pages, gaps = _bounds(segments)
    pieces = _cut_by_entries(image, owner, start, pages, gaps)
    pieces, states = _split_holes(image, owner, pieces)
    return _places_of_entries(image, index, owner, pieces, states)


def _cut_by_entries(
    image: MemoryImage, owner: I64, start: U64, pages: U64, gaps: npt.NDArray[np.bool_]
) -> Pieces:
    """Cut segments of address spaces by the page-table entries in them."""
    first, last = _entries_between(image, owner, start, pages)
    used = ranges(first, np.maximum(last - first, 0))  # what is asked for, not the whole table
    begin = image.ptes["address"][used] // np.uint64(image.page_size)
    length = np.uint64(1) << image.ptes["order"][used].astype(np.uint64)
    return _cut_by_rows(start, pages, first, last, used, begin, length, gaps)


def _cut_by_rows(
    start: U64,
    pages: U64,
    first: I64,
    last: I64,
    used: I64,
    begin: U64,
    length: U64,
    gaps: npt.NDArray[np.bool_],
) -> Pieces:
    """Cut segments by rows ``first`` to ``last`` of a table, which ``used`` lists in a row."""
    counts = np.maximum(last - first, 0)
    ends = np.cumsum(counts)
    pieces = cut(start, pages, ends - counts, ends, begin, length, gaps)
    interval = np.where(pieces.interval >= 0, take(used, pieces.interval, -1), -1)
    return Pieces(pieces.segment, interval, pieces.start, pieces.length)


def _entries_between(image: MemoryImage, owner: I64, start: U64, pages: U64) -> tuple[I64, I64]:
    """Return the rows of ``ptes`` that can reach into each segment, as (first, last)."""
    addresses, page = image.ptes["address"], np.uint64(image.page_size)
    first, last = np.empty(len(owner), np.int64), np.empty(len(owner), np.int64)
    for mm in np.unique(owner).tolist():
        mine = np.flatnonzero(owner == mm)
        low, high = int(image.pte_offsets[mm]), int(image.pte_offsets[mm + 1])
        block = addresses[low:high] // page
        # One row earlier: it may be a huge entry that begins before the segment.
        first[mine] = low + np.maximum(np.searchsorted(block, start[mine], "right") - 1, 0)
        last[mine] = low + np.searchsorted(block, start[mine] + pages[mine], "left")
    return first, last


def _split_holes(
    image: MemoryImage, owner: I64, pieces: Pieces
) -> tuple[Pieces, npt.NDArray[np.uint8]]:
    """Split gaps into holes in VMAs and stretches without VMA; entries stay as they are."""
    gap = np.flatnonzero(pieces.interval < 0)
    states = np.full(len(pieces.segment), State.PRESENT, np.uint8)
    if not len(gap):
        return pieces, states
    holes = pieces.take(gap)
    vmas, page = image.vmas, np.uint64(image.page_size)
    first, last = np.empty(len(gap), np.int64), np.empty(len(gap), np.int64)
    mms = owner[holes.segment]
    for mm in np.unique(mms).tolist():
        mine = np.flatnonzero(mms == mm)
        low, high = int(image.vma_offsets[mm]), int(image.vma_offsets[mm + 1])
        begin, end = holes.start[mine], holes.start[mine] + holes.length[mine]
        first[mine] = low + np.searchsorted(vmas["end"][low:high] // page, begin, "right")
        last[mine] = low + np.searchsorted(vmas["start"][low:high] // page, end, "left")
    used = ranges(first, np.maximum(last - first, 0))
    begin = vmas["start"][used] // page
    split = _cut_by_rows(
        holes.start, holes.length, first, last, used, begin, vmas["end"][used] // page - begin,
        np.ones(len(gap), np.bool_),
    )  # fmt: skip
    hole_states = np.where(split.interval >= 0, State.HOLE, State.UNMAPPED).astype(np.uint8)
    kept = pieces.take(pieces.interval >= 0)
    segment = np.concatenate((kept.segment, holes.segment[split.segment]))
    start = np.concatenate((kept.start, split.start))
    order = np.lexsort((start, segment))
    merged = Pieces(
        segment,
        np.concatenate((kept.interval, np.full(len(split.segment), -1, np.int64))),
        start,
        np.concatenate((kept.length, split.length)),
    )
    states = np.concatenate((np.full(len(kept.segment), State.PRESENT, np.uint8), hole_states))
    return merged.take(order), states[order]


def _places_of_entries(
    image: MemoryImage,
    index: list[int],
    owner: I64,
    pieces: Pieces,
    states: npt.NDArray[np.uint8],
) -> Places:
    ptes, page = image.ptes, np.uint64(image.page_size)
    entry = pieces.interval
    is_entry = entry >= 0
    state = np.where(is_entry, entry_states(take(ptes["flags"], entry, 0)), states)
    into = np.where(is_entry, pieces.start - take(ptes["address"], entry, 0) // page, 0)
    known = is_entry & (state != State.GUARD)
    in_frames = (state == State.PRESENT) | (state == State.MIGRATING)
    pfn = np.where(known, take(ptes["pfn"], entry, 0), 0)
    pfn += np.where(known & in_frames, into, 0).astype(np.uint64)
    none = np.full(len(entry), -1, np.int32)
    return Places(
        target=np.array(index, np.int32)[pieces.segment],
        state=state.astype(np.uint8),
        pages=pieces.length.astype(np.int64),
        mm=owner[pieces.segment].astype(np.int32),
        address=pieces.start * page,
        file=none,
        offset=np.zeros(len(entry), np.uint64),
        pfn=pfn.astype(np.uint64),
        pte=entry,
    )


def entry_states(flags: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Return the :class:`State` of page-table entries with these Pte flags."""
    states = np.full(len(flags), State.SWAPPED, np.uint8)
    for flag, state in (
        (Pte.PRESENT, State.PRESENT),
        (Pte.GUARD, State.GUARD),
        (Pte.DEVICE, State.DEVICE),
        (Pte.MIGRATION | Pte.HWPOISON, State.MIGRATING),
    ):
        states[(flags & np.uint32(flag)) != 0] = state
    # Of a present entry the same bits say something about the page, not about the entry.
    states[(flags & np.uint32(Pte.PRESENT)) != 0] = State.PRESENT
    return states


def _frame_places(image: MemoryImage, index: list[int], segments: list[_Segment]) -> Places:
    """Return stretches of frames, cut where RAM begins and ends."""
    _, start, pages, _ = _bounds(segments)
    ram_start, ram_end = image.ram["start_pfn"], image.ram["end_pfn"]
    if len(ram_start):
        first = np.searchsorted(ram_end, start, "right").astype(np.int64)
        last = np.searchsorted(ram_start, start + pages, "left").astype(np.int64)
        every = np.ones(len(start), np.bool_)
        pieces = cut(start, pages, first, last, ram_start, ram_end - ram_start, every)
    else:
        pieces = _known_frames(image, start, pages)
    count = len(pieces.segment)
    state = np.where(pieces.interval >= 0, State.PRESENT, State.NOT_RAM)
    return Places(
        target=np.array(index, np.int32)[pieces.segment],
        state=state.astype(np.uint8),
        pages=pieces.length.astype(np.int64),
        mm=np.full(count, -1, np.int32),
        address=np.zeros(count, np.uint64),
        file=np.full(count, -1, np.int32),
        offset=np.zeros(count, np.uint64),
        pfn=pieces.start,
        pte=np.full(count, -1, np.int64),
    )


def _known_frames(image: MemoryImage, start: U64, pages: U64) -> Pieces:
    """Cut segments by the frames that the image knows: where it does not state the RAM."""
    known = image.pages["pfn"]
    first = np.searchsorted(known, start, "left").astype(np.int64)
    last = np.searchsorted(known, start + pages, "left").astype(np.int64)
    every = np.ones(len(start), np.bool_)
    return cut(start, pages, first, last, known, np.ones(len(known), np.uint64), every)


def _file_places(image: MemoryImage, index: list[int], segments: list[_Segment]) -> Places:
    """Return the pages of files that somebody maps, each page of a file once."""
    owner, start, pages, gaps = _bounds(segments)
    vma, segment = _vmas_of_files(image, owner)
    mapped = _mapped_file_pages(image, vma, segment, start, pages)
    order = np.lexsort((mapped.pfn, mapped.offset, mapped.segment))
    columns = (mapped.segment[order], mapped.offset[order], mapped.pfn[order], mapped.pte[order])
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = np.any([c[1:] != c[:-1] for c in columns[:3]], axis=0)
    segment, offset, pfn, pte = (column[fresh] for column in columns)
    first = np.searchsorted(segment, np.arange(len(owner)), "left").astype(np.int64)
    last = np.searchsorted(segment, np.arange(len(owner)), "right").astype(np.int64)
    pieces = cut(start, pages, first, last, offset, np.ones(len(offset), np.uint64), gaps)
    count = len(pieces.segment)
    found = pieces.interval >= 0
    return Places(
        target=np.array(index, np.int32)[pieces.segment],
        state=np.where(found, State.PRESENT, State.UNMAPPED).astype(np.uint8),
        pages=pieces.length.astype(np.int64),
        mm=np.full(count, -1, np.int32),
        address=np.zeros(count, np.uint64),
        file=owner[pieces.segment].astype(np.int32),
        offset=pieces.start,
        pfn=take(pfn, pieces.interval, 0).astype(np.uint64),
        pte=take(pte, pieces.interval, -1).astype(np.int64),
    )


def _vmas_of_files(image: MemoryImage, files: I64) -> tuple[I64, I64]:
    """Return (vma, position in ``files``) of all VMAs that map the files."""
    by_file = np.argsort(image.vmas["file"], kind="stable")
    in_order = image.vmas["file"][by_file]
    first = np.searchsorted(in_order, files, "left").astype(np.int64)
    counts = np.searchsorted(in_order, files, "right").astype(np.int64) - first
    return by_file[ranges(first, counts)], np.repeat(np.arange(len(files)), counts)


@dataclass(frozen=True, slots=True)
class _FilePages:
    segment: I64
    offset: U64
    pfn: U64
    pte: I64


def _mapped_file_pages(
    image: MemoryImage, vma: I64, segment: I64, start: U64, pages: U64
) -> _FilePages:
    """Return every page of a file that an entry of one of its VMAs maps, once an entry."""
    vmas, ptes, page = image.vmas, image.ptes, np.uint64(image.page_size)
    base = vmas["start"][vma] // page
    size = vmas["end"][vma] // page - base
    pgoff = vmas["pgoff"][vma]
    low = np.maximum(start[segment], pgoff)
    # A range of a file may begin behind what a VMA maps of it.
    high = np.minimum(start[segment] + pages[segment], pgoff + size)
    some = high > low
    vma, segment, base, pgoff, low, high = (a[some] for a in (vma, segment, base, pgoff, low, high))
    at, length = base + (low - pgoff), high - low
    mms = vmas["mm"][vma].astype(np.int64)
    pieces = _cut_by_entries(image, mms, at, length, np.zeros(len(mms), np.bool_))
    pieces = pieces.take((ptes["flags"][pieces.interval] & np.uint32(Pte.PRESENT)) != 0)
    counts = pieces.length.astype(np.int64)
    step = ranges(np.zeros(len(counts), np.int64), counts).astype(np.uint64)
    piece = np.repeat(np.arange(len(counts)), counts)
    entry, which = pieces.interval[piece], pieces.segment[piece]
    position = pieces.start[piece] + step
    pfn = ptes["pfn"][entry] + (position - ptes["address"][entry] // page)
    offset = position - base[which] + pgoff[which]
    own = is_file_page(image, entry, pfn)
    return _FilePages(segment[which][own], offset[own], pfn[own], entry[own])


def is_file_page(image: MemoryImage, entry: I64, pfn: U64) -> npt.NDArray[np.bool_]:
    """Whether an entry in a VMA of a file maps the file's own page, not a private copy of it.

    The entry says so where the source can see it (Pte.FILE); otherwise the page itself does, which
    is anonymous once a private mapping was written to.
    """
    stated = (image.ptes["flags"][entry] & np.uint32(Pte.FILE)) != 0
    rows = image.find_pages(pfn)
    flags = take(image.pages["flags"], rows, 0)
    copied = (flags & np.uint64(Kpf.ANON | Kpf.KSM | Kpf.ZERO_PAGE)) != 0
    return stated | ((rows >= 0) & ~copied)

# SPDX-License-Identifier: GPL-2.0-only
"""Targets to places: what of an image is meant, and what is there.

All targets are resolved together: those of one address space or of one file by one search, so
that a list of thousands costs little more than its longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmap.errors import PrivilegeError, RmapError, TargetError
from rmap.image import MemoryImage
from rmap.image.arrays import ranges
from rmap.image.flags import Pte
from rmap.query.places import (
    I64,
    U8,
    Places,
    Problem,
    State,
    concatenate,
    cut,
    in_order,
    make_places,
    no_places,
)
from rmap.query.resolve_files import Identify, resolve_files
from rmap.query.targets import FileTarget, FrameTarget, PhysicalTarget, ProcessTarget, Target


@dataclass(frozen=True, slots=True)
class Resolved:
    """The places of a list of targets, and the targets that have no answer."""

    places: Places
    problems: tuple[Problem, ...]


def resolve(
    image: MemoryImage,
    targets: Sequence[Target],
    *,
    identify: Identify | None = None,
    strict: bool = True,
) -> Resolved:
    """Find out what is at each target.

    Parameters
    ----------
    targets
        As `rmap.query.targets` parses them.
    identify
        Gives (device, inode) of a path as ``/proc/PID/maps`` shows them, None or a TargetError
        if there is no such file. Without it, and for files that it does not know, the paths in
        the image are compared.
    strict
        Raise what is wrong with the first target that has no answer, instead of collecting it.

    Raises
    ------
    TargetError
        No such process, file or page frame in the image.
    PrivilegeError
        A process whose memory could not be read.
    """
    problems: list[Problem] = []
    numbered = list(enumerate(targets))
    parts = [
        _processes(image, [(n, t) for n, t in numbered if isinstance(t, ProcessTarget)], problems),
        _frames(
            image,
            [(n, t) for n, t in numbered if isinstance(t, FrameTarget | PhysicalTarget)],
            problems,
        ),
        resolve_files(
            image, [(n, t) for n, t in numbered if isinstance(t, FileTarget)], identify, problems
        ),
    ]
    problems.sort(key=lambda problem: problem.target)
    if problems and strict:
        raise problems[0].error
    return Resolved(in_order(concatenate([part for part in parts if len(part)])), tuple(problems))


def _processes(
    image: MemoryImage, targets: list[tuple[int, ProcessTarget]], problems: list[Problem]
) -> Places:
    by_mm: dict[int, list[tuple[int, ProcessTarget]]] = {}
    rows = {pid: row for row, pid in enumerate(image.processes["pid"].tolist())} if targets else {}
    for number, target in targets:
        row = rows.get(target.pid)
        mm = -1 if row is None else int(image.processes["mm"][row])
        if mm < 0:
            problems.append(Problem(number, _no_memory(image, target.pid, row)))
        else:
            by_mm.setdefault(mm, []).append((number, target))
    return concatenate([_address_space(image, mm, some) for mm, some in sorted(by_mm.items())])


def _no_memory(image: MemoryImage, pid: int, row: int | None) -> RmapError:
    """Say why the memory of a process is not in the image."""
    if row is None:
        return TargetError(
            f"no process {pid} in this image; give the pid of a process, not of one of its threads"
        )
    status = str(image.processes["status"][row])
    name = f"process {pid} ({image.processes['comm'][row]})"
    reasons = {
        "kernel": "is a kernel thread (status kernel): it has no memory of its own; ask for a "
        "process, or for pages by pfn:",
        "zombie": "has exited (status zombie): its memory is gone; ask for a living process",
        "vanished": "exited while it was read (status vanished): ask for a living process",
        "self": "is rmap itself (status self): it is not read; ask for another process",
    }
    if status in reasons:
        return TargetError(f"{name} {reasons[status]}")
    return PrivilegeError(
        f"the memory of {name} could not be read (status {status}); ask as a user who may, or for "
        "its pages by pfn: or by file"
    )


def _address_space(image: MemoryImage, mm: int, targets: list[tuple[int, ProcessTarget]]) -> Places:
    """Resolve targets that all lie in one address space."""
    size = image.page_size
    numbers = np.array([number for number, _ in targets], np.int64)
    whole = np.array([target.start is None for _, target in targets])
    starts = np.array([(t.start or 0) // size for _, t in targets], np.int64)
    ends = np.array([-(-(t.end or 1 << 64) // size) for _, t in targets], np.int64)
    which, rows = _entries(image, mm, starts, ends)
    first = (image.ptes["address"][rows] // np.uint64(size)).astype(np.int64)
    last = first + (np.int64(1) << image.ptes["order"][rows].astype(np.int64))
    begin, end = np.maximum(first, starts[which]), np.minimum(last, ends[which])
    state = _states(image, rows)
    within = np.where(state == State.PRESENT, begin - first, 0).astype(np.uint64)
    entries = make_places(
        numbers[which], state, begin.astype(np.uint64) * np.uint64(size), end - begin,
        pfn=image.ptes["pfn"][rows] + within, pte=rows, vma=image.vmas_of_ptes(rows),
    )  # fmt: skip
    holes = _holes(image, mm, (starts, ends), np.flatnonzero(~whole), (which, begin, end))
    if not len(holes):
        return entries
    return in_order(concatenate([entries, _renumber(holes, numbers)]))


def _renumber(places: Places, numbers: I64) -> Places:
    """Replace positions in a list of targets by the targets' numbers."""
    columns = {name: getattr(places, name) for name in Places.__slots__}
    return Places(**(columns | {"target": numbers[places.target].astype(np.int32)}))


def _entries(image: MemoryImage, mm: int, starts: I64, ends: I64) -> tuple[I64, I64]:
    """Return (range, pte row) for all entries of ``mm`` that reach into ranges of pages."""
    begin, stop = int(image.pte_offsets[mm]), int(image.pte_offsets[mm + 1])
    addresses = image.ptes["address"][begin:stop]
    size = np.uint64(image.page_size)
    low = np.searchsorted(addresses, starts.astype(np.uint64) * size)
    # The last page of a range, for its end may lie beyond 64 bits.
    high = np.searchsorted(addresses, (ends - 1).astype(np.uint64) * size, side="right")
    if stop > begin:  # the entry before may be a huge one that reaches into the range
        before = np.maximum(low - 1, 0)
        reach = (addresses[before] // size).astype(np.int64)
        reach += np.int64(1) << image.ptes["order"][begin + before].astype(np.int64)
        low -= (low > 0) & (reach > starts)
    counts = np.maximum(high - low, 0)
    return np.repeat(np.arange(len(starts)), counts), begin + ranges(low, counts)


def _states(image: MemoryImage, rows: I64) -> U8:
    """Tell pages, swap entries and the other entries apart; the last that holds wins."""
    flags = image.ptes["flags"][rows]
    states = np.full(len(rows), State.SWAPPED, np.uint8)
    for state, bits in (
        (State.MIGRATING, Pte.MIGRATION),
        (State.POISONED, Pte.HWPOISON),
        (State.DEVICE, Pte.DEVICE),
        (State.GUARD, Pte.GUARD),
        (State.PRESENT, Pte.PRESENT),
    ):
        states[(flags & np.uint32(bits)) != 0] = state
    return states


def _holes(
    image: MemoryImage,
    mm: int,
    asked: tuple[I64, I64],
    wanted: I64,
    entries: tuple[I64, I64, I64],
) -> Places:
    """Return what lies between the entries of some ranges; ``target`` is the range's position.

    ``asked`` are starts and ends of all ranges, ``wanted`` those to look into, ``entries`` the
    range, begin and end of every entry; all in pages.
    """
    which, begin, end = entries
    inside = np.isin(which, wanted)
    # A gap opens where a range or an entry ends, and closes where the next begins.
    owner = np.concatenate((wanted, which[inside]))
    opens = np.concatenate((asked[0][wanted], end[inside]))
    closes = np.concatenate((begin[inside], asked[1][wanted]))
    closing_owner = np.concatenate((which[inside], wanted))
    opens = opens[np.lexsort((opens, owner))]
    closes = closes[np.lexsort((closes, closing_owner))]
    owner = np.sort(owner)
    gap = opens < closes
    if not gap.any():
        return no_places()
    size = np.uint64(image.page_size)
    vmas = slice(image.vma_offsets[mm], image.vma_offsets[mm + 1])
    bounds = np.concatenate((image.vmas["start"][vmas], image.vmas["end"][vmas])) // size
    pieces, starts, ends = cut(opens[gap], closes[gap], np.unique(bounds).astype(np.int64))
    addresses = starts.astype(np.uint64) * size
    vma = image.find_vmas(mm, addresses)
    state = np.where(vma >= 0, State.HOLE, State.UNMAPPED)
    return make_places(owner[gap][pieces], state, addresses, ends - starts, vma=vma)


def _frames(
    image: MemoryImage,
    targets: list[tuple[int, FrameTarget | PhysicalTarget]],
    problems: list[Problem],
) -> Places:
    """Resolve page frames: those that there are, and those that there are not."""
    if not targets:
        return no_places()
    size = image.page_size
    numbers = np.array([number for number, _ in targets], np.int64)
    asked = [
        (t.start // size, -(-t.end // size)) if isinstance(t, PhysicalTarget) else (t.start, t.end)
        for _, t in targets
    ]
    # No machine has frames beyond 2**52; clipped there, all fits into 64 bits.
    limit = 1 << 52
    starts = np.array([min(start, limit - 1) for start, _ in asked], np.int64)
    ends = np.array([min(end, limit) for _, end in asked], np.int64)
    known_starts, known_ends = known_frames(image)
    cuts = np.unique(np.concatenate((known_starts, known_ends)))
    which, begin, end = cut(starts, ends, cuts)
    at = np.searchsorted(known_starts, begin, side="right") - 1
    known = np.zeros(len(begin), np.bool_)
    if len(known_ends):
        known = (at >= 0) & (begin < known_ends[at])
    answered = np.zeros(len(targets), np.bool_)
    answered[which[known]] = True
    for number in np.flatnonzero(~answered).tolist():
        problems.append(Problem(int(numbers[number]), _no_frame(image, targets[number][1])))
    state = np.where(known, State.PRESENT, State.NOT_RAM)
    pfns = np.where(known, begin, 0)
    places = make_places(numbers[which], state, begin * size, end - begin, pfn=pfns)
    return places.take(answered[which])


def known_frames(image: MemoryImage) -> tuple[I64, I64]:
    """Return starts and ends of all page frames that there are, ascending, joined where they meet.

    That is RAM, and what the pages table has beyond it (device memory that somebody maps).
    """
    pfns = image.pages["pfn"]
    breaks = np.flatnonzero(pfns[1:] - pfns[:-1] != 1)
    first = np.concatenate((pfns[:1], pfns[breaks + 1]))
    last = np.concatenate((pfns[breaks], pfns[-1:])) + np.uint64(1)
    starts = np.concatenate((image.ram["start_pfn"], first)).astype(np.int64)
    ends = np.concatenate((image.ram["end_pfn"], last)).astype(np.int64)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    if not len(starts):
        return starts, ends
    new = np.concatenate((np.ones(1, np.bool_), starts[1:] > ends[:-1]))
    return starts[new], ends[np.append(np.flatnonzero(new)[1:] - 1, len(ends) - 1)]


def _no_frame(image: MemoryImage, target: FrameTarget | PhysicalTarget) -> TargetError:
    """Say that a target is not RAM, and what is."""
    starts, ends = known_frames(image)
    if not len(starts):
        return TargetError(f"{target}: this image tells nothing of physical memory; make another")
    size, lowest, highest = image.page_size, int(starts[0]), int(ends[-1])
    here = f"(PFNs {lowest:#x}-{highest - 1:#x})"
    if isinstance(target, PhysicalTarget):
        return TargetError(
            f"{target.start:#x} is not an address in RAM here {here}: it may belong to a device; "
            "give one in System RAM of /proc/iomem"
        )
    hint = "give a page frame number in that range"
    if lowest <= target.start // size < highest:
        hint = f"if it is an address, write phys:{target.start:#x}"
    return TargetError(f"{target.start:#x} is not a page of RAM here {here}; {hint}")

# SPDX-License-Identifier: GPL-2.0-only
"""Who maps it: for each page of the targets, what it is and every mapping of it.

An answer is a list of *runs*. Consecutive pages of a target form one run while everything that is
shown of them continues: kind, flags, mapcount, refcount, found mappings, verdict, and each of the
mappings in the same VMA, with the same entry flags, one page further on. So all that is said of a
run holds for each of its pages, and a run of one page has nothing special. Frame numbers are free
to jump (``contiguous`` says whether they do), since those of a process nearly always do.

Two flags are no part of that: COMPOUND_HEAD and COMPOUND_TAIL only tell a page's place in its
folio; a run shows those that occur in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.arrays import positions, ranges
from rmap.image.flags import Pte, permissions
from rmap.image.reverse import ReverseMap
from rmap.query.fold import NONE, MappingRows, Pages, fold, join
from rmap.query.kinds import KIND_NAMES, classify
from rmap.query.places import STATE_NAMES, Places, Problem, State
from rmap.query.resolve import resolve
from rmap.query.resolve_files import Identify
from rmap.query.targets import FileTarget, ProcessTarget, Target
from rmap.query.verdict import VERDICT_NAMES, compare, judge

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: Pages and mappings that are looked at in one go: ~200 bytes each.
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping of a page (of the first page of a run).

    ``pids`` are the processes that use the address space, ascending; ``name`` is the file's path,
    or what the kernel calls the VMA, or ``''``; ``flags`` are Pte bits; ``order`` is 0 for a PTE,
    9 for a PMD. Without VMA (a defect) ``vma_start`` is None.
    """

    pids: tuple[int, ...]
    comm: str
    address: int
    vma_start: int | None
    vma_end: int | None
    permissions: str
    name: str
    flags: int
    order: int


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive pages of one target of which the same can be said; see the module.

    ``address`` is known for process targets, ``path`` and ``offset`` (bytes) for file targets.
    ``pfn`` is the first frame, ``last_pfn`` the last; for swapped pages ``swap_entry`` (type |
    offset << 5) is known instead. ``mapcount`` is the kernel's count of mappings, of swapped
    pages that of the slot; ``found`` is what the image's page tables hold. What does not apply or
    is not known is None.
    """

    target: int
    text: str
    pages: int
    state: str
    address: int | None
    path: str | None
    offset: int | None
    pfn: int | None
    last_pfn: int | None
    contiguous: bool
    swap_entry: int | None
    kind: str | None
    flags: int | None
    mapcount: int | None
    refcount: int | None
    found: int
    verdict: str | None
    mappings: tuple[Mapping, ...]


@dataclass(frozen=True)
class WhoAnswer:
    """The runs of all targets in columns, and one by one when iterated.

    ``runs`` has a row a run; the mappings of its first page are rows ``mappings.offsets[i]`` to
    ``mappings.offsets[i + 1]`` of the other columns of ``mappings``.
    """

    image: MemoryImage
    targets: tuple[Target, ...]
    problems: tuple[Problem, ...]
    runs: Pages
    mappings: MappingRows

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return (self.run(i) for i in range(len(self)))

    def run(self, index: int) -> Run:
        """Return one run as a plain object."""
        runs = self.runs
        row = {field.name: getattr(runs, field.name)[index].item() for field in fields(runs)}
        state = State(row["state"])
        swapped = state is State.SWAPPED
        framed = row["framed"]
        kind, verdict, position = row["kind"], row["verdict"], row["position"]
        target = self.targets[row["target"]]
        path = target.path if isinstance(target, FileTarget) else None
        return Run(
            target=row["target"],
            text=target.text,
            pages=row["pages"],
            state=STATE_NAMES[state],
            address=position if isinstance(target, ProcessTarget) else None,
            path=path,
            offset=None if path is None else position,
            pfn=row["pfn"] if framed else None,
            last_pfn=row["last_pfn"] if framed else None,
            contiguous=row["contiguous"],
            swap_entry=row["pfn"] if swapped else None,
            kind=KIND_NAMES[kind] if kind != NONE else None,
            flags=row["flags"] if kind != NONE else None,
            mapcount=row["mapcount"] if row["mapcount"] >= 0 else None,
            refcount=row["refcount"] if row["refcount"] >= 0 else None,
            found=row["found"],
            verdict=VERDICT_NAMES[verdict] if verdict != NONE else None,
            mappings=tuple(self._mapping(i) for i in self.mappings.of(index)),
        )

    def _mapping(self, index: int) -> Mapping:
        rows = self.mappings
        return describe_mapping(self.image, int(rows.pte[index]), int(rows.address[index]))


def describe_mapping(image: MemoryImage, pte: int, address: int) -> Mapping:
    """Return one row of ``ptes`` as a plain object; ``address`` is the page meant in it."""
    mm = int(image.ptes["mm"][pte])
    vma = int(image.pte_vma[pte])
    users = image.processes_of_mm.get(mm, [])
    processes, vmas = image.processes, image.vmas
    return Mapping(
        pids=tuple(int(processes["pid"][row]) for row in users),
        comm=str(processes["comm"][users[0]]) if users else "",
        address=address,
        vma_start=int(vmas["start"][vma]) if vma >= 0 else None,
        vma_end=int(vmas["end"][vma]) if vma >= 0 else None,
        permissions=permissions(int(vmas["flags"][vma])) if vma >= 0 else "",
        name=(str(vmas["path"][vma]) or str(vmas["name"][vma])) if vma >= 0 else "",
        flags=int(image.ptes["flags"][pte]),
        order=int(image.ptes["order"][pte]),
    )


def who(
    image: MemoryImage,
    targets: Sequence[Target],
    *,
    identify: Identify | None = None,
    strict: bool = True,
) -> WhoAnswer:
    """Find what is at each target, and who else maps it.

    Parameters
    ----------
    targets, identify, strict
        As for :func:`rmap.query.resolve.resolve`.

    Raises
    ------
    TargetError, PrivilegeError
        For a target without an answer, if ``strict``.

    >>> for run in who(image, [parse_target("pfn:0x1000")]):  # doctest: +SKIP
    ...     print(run.kind, run.mapcount, [m.pids for m in run.mappings])
    anon 2 [(10,), (11,)]
    """
    resolution = resolve(image, targets, identify=identify, strict=strict)
    parts = [fold(image, *_look_up(image, places)) for places in _chunks(image, resolution.places)]
    pages, mappings = join(parts)
    if len(parts) > 1:  # a run may continue from one chunk to the next
        pages, mappings = fold(image, pages, mappings)
    return WhoAnswer(image, tuple(targets), resolution.problems, pages, mappings)


def _chunks(image: MemoryImage, places: Places) -> Iterator[Places]:
    """Cut places into pages, as many at a time as have about ``_CHUNK`` mappings."""
    # Holes and swap entries are one row however long; pages are looked at one by one.
    lengths = np.where(_is_stretch(places.state), 1, places.pages)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _CHUNK):
        pages = _cut_into_pages(image, places, lengths, ends, start, min(start + _CHUNK, total))
        weights = np.cumsum(1 + _count_mappings(image, pages))
        cuts = np.searchsorted(weights, np.arange(_CHUNK, int(weights[-1]) + _CHUNK, _CHUNK))
        bounds = np.unique(np.concatenate(([0], np.minimum(cuts + 1, len(weights)))))
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield pages.take(slice(low, high))


def _is_stretch(states: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether nothing is to be said of the single pages of a place."""
    return (states != State.PRESENT) & (states != State.MIGRATING)


def _cut_into_pages(
    image: MemoryImage, places: Places, lengths: I64, ends: I64, start: int, end: int
) -> Places:
    """Return pages ``start`` to ``end`` of all places, each as a place of one page."""
    first = int(np.searchsorted(ends, start, "right"))
    last = int(np.searchsorted(ends, end, "left")) + 1
    begins = ends[first:last] - lengths[first:last]
    low = np.maximum(begins, start)
    counts = np.minimum(ends[first:last], end) - low
    pages = places.take(np.repeat(np.arange(first, last), counts))
    step = ranges(low - begins, counts).astype(np.uint64)
    step[_is_stretch(pages.state)] = 0
    return replace(
        pages,
        position=pages.position + step * np.uint64(image.page_size),
        pages=np.where(_is_stretch(pages.state), pages.pages, 1),
        pfn=pages.pfn + step,
    )


def _frame_known(image: MemoryImage, pages: Places) -> npt.NDArray[np.bool_]:
    """Whether ``pfn`` is a page frame number. A migration entry from /proc hides its own."""
    hidden = (_entry_flags(image, pages) & np.uint32(Pte.SWAP)) != 0
    migrating = (pages.state == State.MIGRATING) & ~hidden
    return (pages.state == State.PRESENT) | migrating


def _entry_flags(image: MemoryImage, pages: Places) -> npt.NDArray[np.uint32]:
    """Pte bits of the entry that each place was found by, 0 where by none."""
    return _taken(image.ptes["flags"], pages.pte, 0)


def _taken(column: npt.NDArray[Any], rows: I64, missing: int) -> npt.NDArray[Any]:
    """Return the values of some rows of a column, ``missing`` for row -1."""
    if not len(column):
        return np.full(len(rows), missing, column.dtype)
    return np.where(rows >= 0, column[rows], column.dtype.type(missing))


def _own_only(image: MemoryImage, pages: Places) -> npt.NDArray[np.bool_]:
    """Whether a page shows only the entry it was found by.

    Half the machine may map the zero page, at thousands of places each; asked about a process, one
    does not want them all at each of its own.
    """
    special = (_entry_flags(image, pages) & np.uint32(Pte.SPECIAL)) != 0
    lone = np.isin(pages.state, (State.MIGRATING, State.DEVICE, State.GUARD))
    return (pages.pte >= 0) & (special | lone)


def _count_mappings(image: MemoryImage, pages: Places) -> I64:
    counts = np.zeros(len(pages), np.int64)
    for index, rows in _sources(image, pages):
        counts[rows] += index.count(pages.pfn[rows])
    return counts


def _sources(image: MemoryImage, pages: Places) -> list[tuple[ReverseMap, I64]]:
    """Return the indexes to ask, and the rows to ask each for."""
    listed = ~_own_only(image, pages)
    framed = np.flatnonzero(listed & _frame_known(image, pages))
    by_frame = np.flatnonzero(listed & _frame_known(image, pages) & (pages.pte < 0))
    swapped = np.flatnonzero(pages.state == State.SWAPPED)
    sources = [(image.reverse, framed)] if len(framed) else []
    if len(by_frame):
        sources.append((image.reverse_special, by_frame))
    if len(swapped):
        sources.append((image.reverse_swap, swapped))
    return sources


def _look_up(image: MemoryImage, places: Places) -> tuple[Pages, MappingRows]:
    """Return what there is to say of each place, and its mappings."""
    framed = _frame_known(image, places)
    rows = np.where(framed, image.find_pages(places.pfn), -1)
    mappings = _mappings(image, places)
    counted_found = np.zeros(len(places), np.int64)
    counted_found[framed] = image.reverse.count(places.pfn[framed])
    kind = np.full(len(places), NONE, np.uint8)
    verdict = np.full(len(places), NONE, np.uint8)
    known = np.flatnonzero(rows >= 0)
    kind[known] = classify(image.pages["flags"][rows[known]])
    verdict[known] = judge(image, rows[known], counted_found[known], kind[known])
    mapcount = _taken(image.pages["mapcount"], rows, -1)
    refcount = np.full(len(places), -1, np.int32)
    if "refcount" in image.pages:
        refcount = _taken(image.pages["refcount"], rows, -1)
    swapped = np.flatnonzero(places.state == State.SWAPPED)
    if len(swapped):
        counted_found[swapped] = image.reverse_swap.count(places.pfn[swapped])
        mapcount[swapped] = swap_counts(image, places.pfn[swapped])
        told = swapped[mapcount[swapped] >= 0]
        verdict[told] = compare(image, counted_found[told], mapcount[told].astype(np.int64))
    columns = Pages(
        target=places.target,
        state=places.state,
        pages=places.pages,
        position=places.position,
        vma=places.vma,
        pfn=places.pfn,
        last_pfn=places.pfn + np.where(framed, places.pages - 1, 0).astype(np.uint64),
        contiguous=np.ones(len(places), np.bool_),
        framed=framed,
        kind=kind,
        flags=_taken(image.pages["flags"], rows, 0),
        mapcount=mapcount,
        refcount=refcount,
        found=counted_found,
        verdict=verdict,
    )
    return columns, mappings


def swap_counts(image: MemoryImage, entries: U64) -> npt.NDArray[np.int32]:
    """Return the kernel's count of each swap entry, -1 where the image does not know it."""
    slots = image.swap_slots
    return _taken(slots["count"], positions(slots["entry"], entries), -1)


def _mappings(image: MemoryImage, places: Places) -> MappingRows:
    """Return all mappings of each place, by address space and address."""
    owners, rows = [], []
    own = np.flatnonzero(_own_only(image, places))
    owners.append(own)
    rows.append(places.pte[own])
    for index, asked in _sources(image, places):
        found = index.mappings(places.pfn[asked])
        owners.append(np.repeat(asked, found.counts))
        rows.append(found.rows)
    owner, pte = np.concatenate(owners), np.concatenate(rows)
    if sum(len(part) > 0 for part in rows) > 1:
        order = np.lexsort((pte, owner))
        owner, pte = owner[order], pte[order]
    offsets = np.searchsorted(owner, np.arange(len(places) + 1)).astype(np.int64)
    address = image.ptes["address"][pte]
    huge = np.flatnonzero(image.ptes["order"][pte])
    # What a huge entry maps here is as far into it as the frame is into its block.
    into = places.pfn[owner[huge]] - image.ptes["pfn"][pte[huge]]
    state = places.state[owner[huge]]
    into[(state != State.PRESENT) & (state != State.MIGRATING)] = 0
    address[huge] += into * np.uint64(image.page_size)
    return MappingRows(offsets, pte, address)

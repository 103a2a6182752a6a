# SPDX-License-Identifier: GPL-2.0-only
"""Who maps it: for each page of the targets, what it is and every mapping of it.

An answer is a list of *runs*. Consecutive pages of a target form one run while everything that is
shown of them continues: kind, flags, mapcount, refcount, found mappings, verdict, size of the
folio, and each of the mappings in the same VMA, with the same entry flags, one page further on.
So all that is said of a run holds for each of its pages. Frame numbers are free to jump
(``contiguous`` says whether they do), since those of a process nearly always do.

Two things are no part of that. COMPOUND_HEAD and COMPOUND_TAIL only tell a page's place in its
folio; a run shows those that occur in it. And where one page is met several times in a row, as
KSM does it, the repetition is one run (``same``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import permissions
from rmap.query.elements import NONE, Bools, Cutter, Elements
from rmap.query.fold import continues
from rmap.query.kinds import KIND_NAMES
from rmap.query.places import I32, I64, STATE_NAMES, U8, U64, Problem, State
from rmap.query.resolve import resolve
from rmap.query.resolve_files import Identify
from rmap.query.targets import FileTarget, ProcessTarget, Target
from rmap.query.verdict import VERDICT_NAMES

Columns = dict[str, npt.NDArray[Any]]

#: Elements looked at in one go: about 300 bytes each.
_CHUNK = 1 << 19
#: How many elements on either side decide about one.
_CONTEXT = 2


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping of a page (of the first page of a run).

    ``pids`` are the processes that use the address space, ascending; ``comm`` is the name of the
    first. ``name`` is the file's path, or what the kernel calls the VMA, or ``''``. ``flags`` are
    Pte bits; ``order`` is 0 for a PTE, 9 for a PMD. Outside of any VMA (a defect) ``vma_start``
    is None.
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
    pages that of the slot; ``found`` is what the image's page tables hold. ``folio_pages`` is
    the size of the folio that each page is part of. What does not apply or is not known is None.
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
    same: bool
    swap_entry: int | None
    kind: str | None
    flags: int | None
    mapcount: int | None
    refcount: int | None
    folio_pages: int | None
    found: int
    verdict: str | None
    mappings: tuple[Mapping, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs as columns.

    ``position`` is the first byte in the target: address, offset in the file, or physical
    address. ``key`` is the first page frame where ``framed``, or the swap entry; ``last_key`` the
    last. Codes: ``state`` of `places.State`, ``kind`` of `kinds.Kind`, ``verdict`` of
    `verdict.Verdict`, 255 for none; -1 stands for an unknown ``mapcount`` or ``refcount``, 0 for
    an unknown size of the folio. ``mappings`` is a number in :class:`MappingLists`.
    """

    target: I32
    state: U8
    position: U64
    pages: I64
    vma: I32
    key: U64
    last_key: U64
    framed: Bools
    contiguous: Bools
    same: Bools
    kind: U8
    flags: U64
    mapcount: I32
    refcount: I32
    folio_pages: I32
    found: I64
    verdict: U8
    mappings: I64

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, slots=True)
class MappingLists:
    """Lists of mappings, in compressed sparse rows; runs of the same page share one.

    List *i* is ``offsets[i]`` to ``offsets[i + 1]`` of ``pte`` (rows of ``image.ptes``,
    ascending) and ``address`` (where that entry maps the page).
    """

    offsets: I64
    pte: I64
    address: U64

    def of(self, number: int) -> range:
        """Positions of the mappings in one list."""
        return range(int(self.offsets[number]), int(self.offsets[number + 1]))


@dataclass(frozen=True)
class WhoAnswer:
    """The runs of all targets in columns, and one by one when iterated.

    ``problems`` are the targets that have no answer.
    """

    image: MemoryImage
    targets: tuple[Target, ...]
    problems: tuple[Problem, ...]
    runs: Runs
    mappings: MappingLists
    _described: dict[int, tuple[Mapping, ...]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return (self.run(i) for i in range(len(self)))

    def run(self, index: int) -> Run:
        """Return one run as a plain object."""
        row = {
            column.name: getattr(self.runs, column.name)[index].item() for column in fields(Runs)
        }
        target = self.targets[row["target"]]
        of_file = isinstance(target, FileTarget)
        framed, known = row["framed"], row["kind"] != NONE
        return Run(
            target=row["target"],
            text=target.text,
            pages=row["pages"],
            state=STATE_NAMES[row["state"]],
            address=row["position"] if isinstance(target, ProcessTarget) else None,
            path=target.path if isinstance(target, FileTarget) else None,
            offset=row["position"] if of_file else None,
            pfn=row["key"] if framed else None,
            last_pfn=row["last_key"] if framed else None,
            contiguous=row["contiguous"],
            same=row["same"],
            swap_entry=row["key"] if row["state"] == State.SWAPPED else None,
            kind=KIND_NAMES[row["kind"]] if known else None,
            flags=row["flags"] if known else None,
            mapcount=row["mapcount"] if row["mapcount"] >= 0 else None,
            refcount=row["refcount"] if row["refcount"] >= 0 else None,
            folio_pages=row["folio_pages"] or None,
            found=row["found"],
            verdict=VERDICT_NAMES[row["verdict"]] if row["verdict"] != NONE else None,
            mappings=self.mappings_of(index),
        )

    def mappings_of(self, index: int) -> tuple[Mapping, ...]:
        """Return the mappings of the first page of a run as plain objects."""
        number = int(self.runs.mappings[index])
        if number not in self._described:
            rows = self.mappings
            self._described[number] = tuple(
                describe_mapping(self.image, int(rows.pte[i]), int(rows.address[i]))
                for i in rows.of(number)
            )
        return self._described[number]


def describe_mapping(image: MemoryImage, pte: int, address: int) -> Mapping:
    """Return one row of ``ptes`` as a plain object; ``address`` is the page meant in it."""
    mm = int(image.ptes["mm"][pte])
    vma = int(image.vmas_of_ptes(np.array([pte]))[0])
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
    resolved = resolve(image, targets, identify=identify, strict=strict)
    first, totals = _fold(image, Cutter(image, resolved.places))
    numbers, lists = _mappings(image, first)
    names = {column.name for column in fields(Runs)} - set(totals) - {"mappings"}
    columns: Columns = {name: getattr(first, name) for name in names}
    runs = Runs(**columns, **totals, mappings=numbers)
    return WhoAnswer(image, tuple(targets), resolved.problems, runs, lists)


def _fold(image: MemoryImage, cutter: Cutter) -> tuple[Elements, Columns]:
    """Return the first element of each run, and what is summed up over the runs."""
    firsts: list[Elements] = []
    sums: list[Columns] = []
    begins: list[Bools] = []
    for start in range(0, max(len(cutter), 1), _CHUNK):
        first, totals, begin = _fold_chunk(image, cutter, start, min(start + _CHUNK, len(cutter)))
        firsts.append(first)
        sums.append(totals)
        begins.append(begin)
    joined = Elements(*(np.concatenate([getattr(f, c.name) for f in firsts])
                        for c in fields(Elements)))  # fmt: skip
    totals = {name: np.concatenate([some[name] for some in sums]) for name in sums[0]}
    # Chunks end where they end: what goes on from one to the next is summed up once more.
    starts = np.flatnonzero(np.concatenate(begins))
    return joined.take(starts), _sum_up(totals, starts)


def _fold_chunk(
    image: MemoryImage, cutter: Cutter, start: int, end: int
) -> tuple[Elements, Columns, Bools]:
    """Fold elements ``start`` to ``end``, seen together with their neighbours.

    Also tells of each run whether it begins here: the first may go on from before.
    """
    low, high = max(start - _CONTEXT, 0), min(end + _CONTEXT, len(cutter))
    elements = cutter.cut(low, high)
    ahead, same = continues(image, elements)
    here = slice(start - low, end - low)
    none = np.zeros(min(1, len(elements)), np.bool_)
    goes_on = np.concatenate((none, ahead | same))[here]
    repeats = np.concatenate((none, same))[here]
    key = elements.key
    jumps = np.concatenate((none, key[1:] != key[:-1] + np.uint64(1)))[here] & goes_on
    mine = elements.take(here)
    starts = ~goes_on
    starts[:1] = True
    at = np.flatnonzero(starts)
    totals = _sum_up(
        {
            "pages": mine.pages,
            "flags": mine.flags,
            "last_key": mine.key,
            "contiguous": ~jumps,
            "same": repeats,
        },
        at,
    )
    return mine.take(at), totals, ~goes_on[at]


def _sum_up(columns: Columns, starts: I64) -> Columns:
    """Sum up columns over the runs that begin at ``starts``."""
    if not len(starts):
        return columns
    last = np.append(starts[1:], len(columns["pages"])) - 1
    return {
        "pages": np.add.reduceat(columns["pages"], starts),
        "flags": np.bitwise_or.reduceat(columns["flags"], starts),
        "last_key": columns["last_key"][last],
        "contiguous": np.logical_and.reduceat(columns["contiguous"], starts),
        "same": np.logical_or.reduceat(columns["same"], starts),
    }


def _mappings(image: MemoryImage, first: Elements) -> tuple[I64, MappingLists]:
    """Return the number of the list of each run, and the lists."""
    keyed = ~first.alone
    frames = np.flatnonzero(first.framed & keyed)
    swapped = np.flatnonzero((first.state == State.SWAPPED) & keyed)
    alone = np.flatnonzero(first.alone)
    numbers = np.zeros(len(first), np.int64)  # list 0 is the empty one
    pfns, of_frames = np.unique(first.key[frames], return_inverse=True)
    entries, of_swapped = np.unique(first.key[swapped], return_inverse=True)
    numbers[frames] = 1 + of_frames
    numbers[swapped] = 1 + len(pfns) + of_swapped
    numbers[alone] = 1 + len(pfns) + len(entries) + np.arange(len(alone))
    owner, pte = frame_entries(image, pfns)
    swap = image.reverse_swap.mappings(entries)
    ptes = image.ptes
    into = (pfns[owner] - ptes["pfn"][pte]) * np.uint64(image.page_size)
    counts = np.concatenate((np.zeros(1, np.int64), np.bincount(owner, minlength=len(pfns)),
                             swap.counts, np.ones(len(alone), np.int64)))  # fmt: skip
    return numbers, MappingLists(
        np.concatenate((np.zeros(1, np.int64), np.cumsum(counts))),
        np.concatenate((pte, swap.rows, first.pte[alone])),
        np.concatenate(
            (ptes["address"][pte] + into, ptes["address"][swap.rows], first.position[alone])
        ),
    )


def frame_entries(image: MemoryImage, pfns: U64) -> tuple[I64, I64]:
    """Return (number of the page, pte row) of all entries that map some pages, in that order."""
    counted, special = image.reverse.mappings(pfns), image.reverse_special.mappings(pfns)
    owner = np.repeat(np.arange(len(pfns)), counted.counts)
    if not len(special.rows):
        return owner, counted.rows
    owner = np.concatenate((owner, np.repeat(np.arange(len(pfns)), special.counts)))
    rows = np.concatenate((counted.rows, special.rows))
    order = np.lexsort((rows, owner))
    return owner[order], rows[order]

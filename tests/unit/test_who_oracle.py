# SPDX-License-Identifier: GPL-2.0-only
"""`who` against dictionaries: the same answer, page by page, on random small machines.

Their entries have several sizes, share pages and swap slots, leave holes, and lie in VMAs of every
length. The oracle looks at one page at a time and knows no runs; then it is asked which runs there
have to be.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte
from rmap.query import who as who_module
from rmap.query.kinds import KIND_NAMES, classify
from rmap.query.places import Problem
from rmap.query.targets import (
    FileTarget,
    FrameTarget,
    PhysicalTarget,
    ProcessTarget,
    Target,
)
from rmap.query.who import Mapping, Run, WhoAnswer, describe_mapping, who
from tests.images import ANON, FILE, HEAD, KSM, PAGE, SHMEM, TAIL, ZERO, World, swap_entry

BASE = 0x40000000
SPAN = 24  # pages of an address space
FRAMES = 24
PLACE_IN_FOLIO = Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL
PAGE_FLAGS = st.sampled_from(
    [ANON] * 6 + [FILE] * 4 + [SHMEM, KSM, ZERO, ANON | HEAD, ANON | TAIL, ANON | TAIL, Kpf.HUGE]
)
PRESENT_FLAGS = st.sampled_from(
    [Pte.PRESENT] * 6 + [Pte.PRESENT | Pte.FILE] * 3 + [Pte.PRESENT | Pte.SPECIAL]
)
OTHER_FLAGS = st.sampled_from(
    [Pte.SWAP] * 4 + [Pte.SWAP | Pte.MIGRATION, Pte.GUARD, Pte.SWAP | Pte.GUARD, Pte.MIGRATION]
    + [Pte.SWAP | Pte.DEVICE, Pte.SWAP | Pte.HWPOISON]
)  # fmt: skip


@st.composite
def machines(draw: st.DrawFn) -> MemoryImage:
    """A machine of up to four address spaces on few pages, so that much is shared."""
    world = World(ram=[(0, 16), (20, FRAMES)])
    for number in range(draw(st.integers(0, 4))):
        if number and draw(st.booleans()):
            process = world_process(world, draw).fork(10 * (number + 1))
            for address in [a for mm, a in world.ptes if mm == process.mm]:
                if draw(st.integers(0, 7)) == 0:
                    process.unmap(address)
        else:
            process = world.process(10 * (number + 1), "abc"[number % 3])
            add_vmas(draw, process)
        if draw(st.integers(0, 3)) == 0:
            process.vfork(process.pid + 1)
    if draw(st.booleans()):
        world.process(1, "init", status=draw(st.sampled_from(["denied", "kernel", "self"])))
    describe(draw, world)
    scope = draw(st.sampled_from(["machine", "processes"]))
    return world.build(scope=scope, page_mapcount=draw(st.integers(0, 4)) > 0)


def world_process(world: World, draw: st.DrawFn) -> Any:
    from tests.images import Process

    row = draw(st.sampled_from([p for p in world.processes if p["mm"] >= 0]))
    return Process(world, row, row["mm"])


def add_vmas(draw: st.DrawFn, process: Any) -> None:
    """Lay out VMAs with gaps, files among them, and fill them."""
    cuts = sorted(draw(st.sets(st.integers(1, SPAN - 1), max_size=4)) | {0, SPAN})
    for start, end in itertools.pairwise(cuts):
        what = draw(st.sampled_from(["gap", "anon", "anon", "/a", "/b"]))
        if what == "gap":
            continue
        path = what if what.startswith("/") else ""
        process.vma(BASE + start * PAGE, end - start, draw(st.sampled_from(["rw-p", "r--s"])),
                    path=path, pgoff=draw(st.integers(0, 6)) if path else 0)  # fmt: skip
        fill(draw, process, start, end)


def fill(draw: st.DrawFn, process: Any, start: int, end: int) -> None:
    """Put entries of all sizes into a VMA; pages and swap slots like to follow each other."""
    at, pfn, slot = start, draw(st.integers(0, FRAMES - 1)), draw(st.integers(0, 7))
    while at < end:
        what = draw(st.sampled_from(["page"] * 6 + ["other", "hole"]))
        order = draw(st.sampled_from([0, 0, 0, 1, 2, 3])) if what == "page" else 0
        while at % (1 << order) or at + (1 << order) > end:
            order -= 1
        if what == "page":
            if draw(st.integers(0, 3)) == 0:
                pfn = draw(st.integers(0, FRAMES - 1))
            pfn = pfn % FRAMES >> order << order
            flags = draw(PRESENT_FLAGS) if draw(st.integers(0, 3)) == 0 else Pte.PRESENT
            process.pte(BASE + at * PAGE, pfn, order=order, flags=flags)
            pfn += draw(st.sampled_from([1, 1, 1, 0])) << order
        elif what == "other":
            flags = draw(OTHER_FLAGS)
            known = flags == Pte.MIGRATION
            process.pte(BASE + at * PAGE, pfn % FRAMES if known else swap_entry(slot % 8),
                        flags=flags)  # fmt: skip
            slot += draw(st.sampled_from([1, 1, 0]))
        at += 1 << order


def describe(draw: st.DrawFn, world: World) -> None:
    """Describe most pages, with counts that are mostly right, and some slots."""
    usual = draw(PAGE_FLAGS)
    for pfn in range(FRAMES):
        if draw(st.integers(0, 9)) == 0:
            continue
        flags = draw(PAGE_FLAGS) if draw(st.integers(0, 4)) == 0 else usual
        wrong = draw(st.integers(-1, 3)) if draw(st.integers(0, 6)) == 0 else None
        world.pages(pfn, 1, flags, mapcount=wrong, changed=draw(st.integers(0, 12)) == 0)
    for slot in sorted(draw(st.sets(st.integers(0, 7), max_size=4))):
        count = draw(st.integers(0, 3))
        world.swap_slots.append({"entry": swap_entry(slot), "count": count, "cache_pfn": -1})


def ranges_of(limit: int) -> st.SearchStrategy[tuple[int, int]]:
    ends = st.tuples(st.integers(0, limit), st.integers(0, limit))
    return ends.filter(lambda pair: pair[0] != pair[1]).map(lambda pair: (min(pair), max(pair)))


@st.composite
def targets(draw: st.DrawFn) -> Target:
    """A target, that may well not exist."""
    start, end = draw(ranges_of((SPAN + 6) * PAGE))
    frames = draw(ranges_of(FRAMES + 6))
    pid = draw(st.sampled_from([1, 10, 10, 11, 20, 30, 40, 99]))
    address = BASE - 2 * PAGE
    path = draw(st.sampled_from(["/a", "/b", "/c"]))
    return draw(
        st.sampled_from([
            ProcessTarget(pid),
            ProcessTarget(pid, address + start, address + end),
            FileTarget(path),
            FileTarget(path, start, end),
            FileTarget(path, start),
            FrameTarget(*frames),
            PhysicalTarget(frames[0] * PAGE + 5, frames[1] * PAGE + 5),
        ])
    )  # fmt: skip


@dataclass(frozen=True)
class Page:
    """What the oracle says of one page."""

    state: str
    position: int
    vma: int = -1
    key: int | None = None
    alone: bool = False
    kind: str | None = None
    flags: int | None = None
    mapcount: int | None = None
    found: int = 0
    folio_pages: int | None = None
    verdict: str | None = None
    mappings: tuple[Mapping, ...] = ()


class Oracle:
    """Answers page by page, from lists of plain rows."""

    def __init__(self, image: MemoryImage) -> None:
        self.image = image
        self.ptes = [image.ptes.row(i) for i in range(len(image.ptes))]
        self.vmas = [image.vmas.row(i) for i in range(len(image.vmas))]
        self.pages = {p["pfn"]: p for p in map(image.pages.row, range(len(image.pages)))}
        self.slots = {image.swap_slots.row(i)["entry"]: image.swap_slots.row(i)["count"]
                      for i in range(len(image.swap_slots))}  # fmt: skip
        statuses = set(image.processes["status"])
        self.unread = (
            bool(statuses & {"denied", "vanished", "self"})
            or image.machine["scope"][0] != "machine"
        )

    def pages_of(self, target: Target) -> list[Page] | None:
        """Every page of a target; None if there is no answer."""
        if isinstance(target, ProcessTarget):
            return self.process(target)
        if isinstance(target, FileTarget):
            return self.file(target)
        unit = PAGE if isinstance(target, PhysicalTarget) else 1
        frames = range(target.start // unit, -(-target.end // unit))
        known = [pfn in self.pages or self.in_ram(pfn) for pfn in frames]
        if not any(known):
            return None
        return [
            self.frame(pfn, pfn * PAGE, -1) if here else Page("not ram", pfn * PAGE)
            for pfn, here in zip(frames, known, strict=True)
        ]

    def in_ram(self, pfn: int) -> bool:
        ram = zip(self.image.ram["start_pfn"], self.image.ram["end_pfn"], strict=True)
        return any(start <= pfn < end for start, end in ram)

    def process(self, target: ProcessTarget) -> list[Page] | None:
        processes = self.image.processes
        rows = {p["pid"]: p for p in map(processes.row, range(len(processes)))}
        mm = rows[target.pid]["mm"] if target.pid in rows else -1
        if mm < 0:
            return None
        whole = target.start is None
        start, end = (BASE, BASE + SPAN * PAGE) if whole else (target.start, target.end)
        pages = [
            self.address(mm, at) for at in range(start // PAGE * PAGE, -(-end // PAGE) * PAGE, PAGE)
        ]
        return [p for p in pages if not whole or p.state not in ("hole", "unmapped")]

    def vma_at(self, mm: int, address: int) -> int:
        for row, vma in enumerate(self.vmas):
            if vma["mm"] == mm and vma["start"] <= address < vma["end"]:
                return row
        return -1

    def address(self, mm: int, address: int) -> Page:
        vma = self.vma_at(mm, address)
        for row, pte in enumerate(self.ptes):
            if pte["mm"] == mm and 0 <= address - pte["address"] < PAGE << pte["order"]:
                return self.entry(row, address, vma)
        return Page("hole" if vma >= 0 else "unmapped", address, vma)

    def entry(self, row: int, address: int, vma: int) -> Page:
        pte = self.ptes[row]
        flags, pfn = pte["flags"], pte["pfn"] + (address - pte["address"]) // PAGE
        own = (describe_mapping(self.image, row, address),)
        if flags & Pte.PRESENT:
            page = self.frame(pfn, address, vma)
            return replace(page, alone=True, mappings=own) if flags & Pte.SPECIAL else page
        if flags & Pte.GUARD:
            return Page("guard", address, vma, alone=True, mappings=own)
        if flags & Pte.DEVICE:
            return Page("device", address, vma, alone=True, mappings=own)
        if flags == Pte.MIGRATION:
            return replace(self.frame(pfn, address, vma), state="migrating")
        if flags & Pte.HWPOISON:
            return Page("poisoned", address, vma, alone=True, mappings=own)
        if flags & Pte.MIGRATION:
            return Page("migrating", address, vma, alone=True, mappings=own)
        return self.swapped(pte["pfn"], address, vma)

    def swapped(self, entry: int, address: int, vma: int) -> Page:
        holders = [row for row, pte in enumerate(self.ptes)
                   if pte["pfn"] == entry and pte["flags"] == Pte.SWAP]  # fmt: skip
        mappings = [describe_mapping(self.image, r, self.ptes[r]["address"]) for r in holders]
        counted = self.slots.get(entry)
        verdict = None
        if self.slots:
            verdict = self.compare(len(holders), counted)
        return Page("swapped", address, vma, entry, mapcount=counted, found=len(holders),
                    verdict=verdict, mappings=tuple(mappings))  # fmt: skip

    def compare(self, found: int, counted: int | None) -> str:
        if counted is None:
            return "not comparable"
        if found == counted:
            return "agree"
        return "unattributed" if found < counted and self.unread else "disagree"

    def frame(self, pfn: int, position: int, vma: int) -> Page:
        mappings, found = [], 0
        for row, pte in enumerate(self.ptes):
            into = pfn - pte["pfn"]
            if pte["flags"] & Pte.PRESENT and 0 <= into < 1 << pte["order"]:
                mappings.append(describe_mapping(self.image, row, pte["address"] + into * PAGE))
                found += not pte["flags"] & Pte.SPECIAL
        page = Page("present", position, vma, pfn, found=found, mappings=tuple(mappings))
        if pfn not in self.pages:
            return replace(page, verdict="not comparable")
        row = self.pages[pfn]
        kind = KIND_NAMES[int(classify([row["flags"]])[0])]
        counted = row["mapcount"] if row["mapcount"] >= 0 else None
        return replace(
            page,
            kind=kind,
            flags=row["flags"],
            mapcount=counted,
            folio_pages=self.folio(pfn),
            verdict=self.verdict(row, kind, found),
        )

    def verdict(self, row: dict[str, Any], kind: str, found: int) -> str:
        counted = row["mapcount"]
        large = row["flags"] & (PLACE_IN_FOLIO | Kpf.THP)
        if counted < 0 or (large and not self.image.machine["page_mapcount"][0]):
            return "not comparable"
        if kind == "hugetlb" and found > counted:
            return "not comparable"
        if kind == "zero":
            return "zero page"
        return "changed" if row["changed"] else self.compare(found, counted)

    def folio(self, pfn: int) -> int | None:
        def flags(at: int) -> int:
            return self.pages[at]["flags"] if at in self.pages else 0

        if not flags(pfn) & PLACE_IN_FOLIO:
            return 1
        head = pfn
        while flags(head) & Kpf.COMPOUND_TAIL:
            head -= 1
        if not flags(head) & Kpf.COMPOUND_HEAD:
            return None
        size = 1
        while flags(head + size) & Kpf.COMPOUND_TAIL:
            size += 1
        return size if size > 1 and size & (size - 1) == 0 else None

    def file(self, target: FileTarget) -> list[Page] | None:
        if target.path not in set(self.image.files["path"]):
            return None
        frames: set[tuple[int, int]] = set()
        for vma in self.vmas:
            if vma["path"] != target.path:
                continue
            for pte in self.ptes:
                if pte["mm"] == vma["mm"] and vma["start"] <= pte["address"] < vma["end"]:
                    offset = vma["pgoff"] + (pte["address"] - vma["start"]) // PAGE
                    if self.of_file(pte):
                        frames |= {(offset + i, pte["pfn"] + i) for i in range(1 << pte["order"])}
        last = max((offset for offset, _ in frames), default=-1)
        end = last + 1 if target.end is None else -(-target.end // PAGE)
        pages = []
        for offset in range(target.start // PAGE, end):
            here = [pfn for at, pfn in sorted(frames) if at == offset]
            pages += [self.frame(pfn, offset * PAGE, -1) for pfn in here]
            if not here and target.end is not None:
                pages.append(Page("hole", offset * PAGE))
        return pages

    def of_file(self, pte: dict[str, Any]) -> bool:
        if not pte["flags"] & Pte.PRESENT:
            return False
        if pte["pfn"] in self.pages:
            return not self.pages[pte["pfn"]]["flags"] & (Kpf.ANON | Kpf.ZERO_PAGE)
        return bool(pte["flags"] & Pte.FILE)


def moved(mappings: tuple[Mapping, ...], pages: int) -> tuple[Mapping, ...]:
    """The mappings that lie some pages further on."""
    return tuple(replace(m, address=m.address + pages * PAGE) for m in mappings)


def relation(one: Page, two: Page) -> str:
    """Whether a page continues another, is the same again, or neither."""

    def facts(page: Page) -> Page:
        flags = page.flags if page.flags is None else page.flags & ~PLACE_IN_FOLIO
        return replace(page, position=0, key=None, mappings=(), flags=flags)

    if facts(one) != facts(two) or two.position != one.position + PAGE:
        return "breaks"
    if not one.alone and one.key is not None and one.key == two.key:
        return "same"
    return "ahead" if moved(one.mappings, 1) == two.mappings else "breaks"


def run_starts(pages: list[Page]) -> list[int]:
    """Where runs have to begin."""
    relations = ["breaks"] + [relation(a, b) for a, b in itertools.pairwise(pages)]
    relations.append("breaks")
    starts = []
    for at in range(len(pages)):
        mixed = relations[at] == "ahead" and "same" in (relations[at - 1], relations[at + 1])
        if relations[at] == "breaks" or mixed:
            starts.append(at)
    return starts


def expect_answer(answer: WhoAnswer, wanted: list[Target]) -> None:
    """Compare an answer with the oracle's."""
    oracle = Oracle(answer.image)
    runs = list(answer)
    assert [run.target for run in runs] == sorted(run.target for run in runs)
    for number, target in enumerate(wanted):
        pages = oracle.pages_of(target)
        mine = [run for run in runs if run.target == number]
        assert (pages is None) == any(p.target == number for p in answer.problems)
        lengths = [run.pages for run in mine]
        assert sum(lengths) == len(pages or [])
        starts = [sum(lengths[:at]) for at in range(len(lengths))]
        assert starts == run_starts(pages or [])
        for start, run in zip(starts, mine, strict=True):
            expect_run(run, (pages or [])[start : start + run.pages], target)


def expect_run(run: Run, pages: list[Page], target: Target) -> None:
    """What a run says has to hold for each of its pages."""
    first = pages[0]
    assert run.text == target.text
    assert run.address == (first.position if isinstance(target, ProcessTarget) else None)
    assert run.offset == (first.position if isinstance(target, FileTarget) else None)
    assert run.path == (target.path if isinstance(target, FileTarget) else None)
    swapped = run.state == "swapped"
    assert (run.swap_entry if swapped else run.pfn) == first.key
    assert run.last_pfn == (None if swapped else pages[-1].key)
    if first.key is not None and not swapped:
        steps = [b.key - a.key for a, b in itertools.pairwise(pages)]
        assert run.contiguous == all(step == 1 for step in steps)
    if run.flags is not None:
        assert run.flags == union(page.flags or 0 for page in pages)
    for number, page in enumerate(pages):
        assert page.mappings == (run.mappings if run.same else moved(run.mappings, number))
        assert (run.state, run.kind, run.mapcount, run.found) == (
            page.state, page.kind, page.mapcount, page.found)  # fmt: skip
        assert (run.folio_pages, run.verdict) == (page.folio_pages, page.verdict)


def union(flags: Iterator[int]) -> int:
    together = 0
    for some in flags:
        together |= some
    return together


@given(machines(), st.lists(targets(), max_size=5))
@settings(max_examples=300)
def test_who_says_of_each_page_what_dictionaries_say(
    image: MemoryImage, wanted: list[Target]
) -> None:
    expect_answer(who(image, wanted, strict=False), wanted)


@given(machines(), st.lists(targets(), max_size=3), st.integers(1, 5))
def test_answers_made_in_pieces_are_the_same(
    image: MemoryImage, wanted: list[Target], piece: int
) -> None:
    usual = who_module._CHUNK
    who_module._CHUNK = piece
    try:
        answer = who(image, wanted, strict=False)
    finally:
        who_module._CHUNK = usual
    whole = who(image, wanted, strict=False)
    assert list(answer) == list(whole)
    assert [_told(p) for p in answer.problems] == [_told(p) for p in whole.problems]


def _told(problem: Problem) -> tuple[int, str]:
    return problem.target, str(problem.error)

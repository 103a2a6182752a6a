# SPDX-License-Identifier: GPL-2.0-only
"""`rmap report` and `rmap fsck` against dictionaries, on random small machines.

Machines have small and huge entries that overlap on the same pages, address spaces that several
processes share, swap, zero pages, unread processes, and counts that are sometimes wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte
from rmap.query.fsck import fsck
from rmap.query.groups import By
from rmap.query.report import report
from rmap.query.sizes import Split
from tests.images import ANON, FILE, KSM, PAGE, SHMEM, ZERO, Process, World, swap_entry

BASE = 0x40000000
PAGES = 1024 + 4  # two huge pages, and some small ones behind them, not all of them described
HUGETLB = Kpf.HUGE | Kpf.COMPOUND_HEAD
KINDS = ("anon", "file", "shmem", "hugetlb")
FLAGS = (ANON, FILE, SHMEM, KSM, HUGETLB)


@dataclass(frozen=True)
class Entry:
    """One entry, and where it lies."""

    mm: int
    address: int
    pfn: int
    order: int
    flags: int

    @property
    def pages(self) -> range:
        return range(self.pfn, self.pfn + (1 << self.order))

    @property
    def is_mapping(self) -> bool:
        return bool(self.flags & Pte.PRESENT) and not self.flags & Pte.SPECIAL

    @property
    def holds_page(self) -> bool:
        return bool(self.flags & (Pte.MIGRATION | Pte.DEVICE | Pte.HWPOISON))


def entries(image: MemoryImage) -> list[Entry]:
    rows = (image.ptes.row(at) for at in range(len(image.ptes)))
    return [Entry(**row) for row in rows]


ENTRY_FLAGS = st.sampled_from(
    [Pte.PRESENT] * 6
    + [Pte.PRESENT | Pte.FILE] * 2
    + [Pte.PRESENT | Pte.SPECIAL, Pte.SWAP, Pte.SWAP | Pte.MIGRATION, Pte.SWAP | Pte.GUARD]
    + [Pte.SWAP | Pte.HWPOISON]
)


@st.composite
def machines(draw: st.DrawFn) -> MemoryImage:
    """A machine of up to five address spaces, with kernel counts that are mostly right."""
    world = World()
    spaces = draw(st.integers(0, 5))
    for number in range(spaces):
        comm = draw(st.sampled_from(["a", "b", "c"]))
        process = world.process(10 * (number + 1), comm, cgroup=draw(st.sampled_from("xy")))
        process.vma(BASE, pages=4096)
        for extra in range(draw(st.integers(0, 2))):
            process.vfork(process.pid + 1 + extra).row["comm"] = draw(st.sampled_from("ab"))
        world.mms[number]["users"] += draw(st.sampled_from([0, 0, 0, 1]))
        for name in ("rss_anon", "rss_file", "rss_shmem", "swap"):
            world.mms[number][name] = draw(st.integers(-1, 3)) * PAGE
        for _ in range(draw(st.integers(0, 12))):
            add_entry(draw, process)
    if draw(st.booleans()):
        world.process(1, "init", status=draw(st.sampled_from(["denied", "kernel", "self"])))
    describe_pages(draw, world)
    for slot in draw(st.sets(st.integers(0, 24), max_size=4)):
        count = draw(st.integers(0, 3))
        world.swap_slots.append({"entry": swap_entry(slot), "count": count, "cache_pfn": -1})
    world.swap_slots.sort(key=lambda row: row["entry"])
    return world.build(
        scope="processes",
        consistency=draw(st.sampled_from(["passes", "exact"])),
        page_mapcount=draw(st.integers(0, 4)) > 0,
    )


def add_entry(draw: st.DrawFn, process: Process) -> None:
    """Add an entry: a swap slot, or a page of few, so that much is shared and overlaps."""
    order = draw(st.sampled_from([0] * 6 + [2, 9]))
    flags = draw(ENTRY_FLAGS)
    if flags & Pte.SWAP and not flags & Pte.MIGRATION:
        address = BASE + draw(st.integers(0, 20)) * PAGE
        process.pte(address, swap_entry(draw(st.integers(0, 24))), flags=flags)
        return
    pfns = [0, 512] if order == 9 else [*range(0, 24, 1 << order), *range(1024, 1032, 1 << order)]
    address = BASE + (draw(st.integers(0, 7 if order == 9 else 20 >> order)) << order) * PAGE
    process.pte(address, draw(st.sampled_from(pfns)), order=order, flags=flags)


def describe_pages(draw: st.DrawFn, world: World) -> None:
    """Give flags to pages and to whole huge pages; then let single counts be off or unknown."""
    for start in (0, 512):
        world.pages(start, 512, draw(st.sampled_from(FLAGS)))
    for pfn in draw(st.sets(st.integers(0, PAGES - 1), max_size=12) | st.just({0, 1, 2, 3, 4, 5})):
        world.pages(pfn, 1, draw(st.sampled_from([*FLAGS, ZERO])), changed=draw(st.booleans()))
    true = Counter[int]()
    for row in world.ptes.values():
        entry = Entry(**row)
        if entry.is_mapping:
            true.update(entry.pages)
    for pfn in draw(st.sets(st.sampled_from([*range(26), 511, 512, 600]), max_size=8)):
        if pfn in world.frames:
            wrong = draw(st.sampled_from([-1, 0, true[pfn] + 1, true[pfn] + 2, true[pfn] - 1]))
            world.frames[pfn]["mapcount"] = max(-1, wrong)


class Oracle:
    """The same questions, answered one page at a time."""

    def __init__(self, image: MemoryImage) -> None:
        self.image = image
        self.entries = entries(image)
        self.page = {row["pfn"]: row for row in map(image.pages.row, range(len(image.pages)))}
        self.mappers: dict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.is_mapping:
                for pfn in entry.pages:
                    self.mappers[pfn].append(entry)
        self.users: dict[int, list[int]] = defaultdict(list)
        rows = range(len(image.processes))
        self.processes = {row["pid"]: row for row in map(image.processes.row, rows)}
        for pid, row in self.processes.items():
            if row["mm"] >= 0:
                self.users[row["mm"]].append(pid)

    def mapcount(self, pfn: int) -> int:
        known = self.page.get(pfn, {"mapcount": -1})["mapcount"]
        return int(known) if known >= 0 else len(self.mappers[pfn])

    def kind(self, pfn: int, entry: Entry) -> str:
        if pfn not in self.page:
            return "file" if entry.flags & Pte.FILE else "anon"
        flags = self.page[pfn]["flags"]
        if flags & Kpf.HUGE:
            return "hugetlb"
        if flags & Kpf.ANON:
            return "anon"
        return "shmem" if flags & Kpf.SWAPBACKED else "file"

    def group(self, pids: set[int]) -> dict[str, Counter[str] | int]:
        """Sizes of a group of processes, PSS in the kernel's fixed point."""
        mms = {self.processes[pid]["mm"] for pid in pids}
        rss, pss, uss = Counter[str](), Counter[str](), Counter[str]()
        estimated = swap = swap_pss = 0
        for entry in (entry for entry in self.entries if entry.mm in mms):
            size = PAGE << entry.order
            if entry.is_mapping:
                kind = self.kind(entry.pfn, self.mappers[entry.pfn][0])
                rss[kind] += size
                for pfn in entry.pages:
                    pss[kind] += (PAGE << 12) // max(1, self.mapcount(pfn))
                    uss[kind] += PAGE * (self.mapcount(pfn) < 2)
                    estimated += PAGE * (self.page.get(pfn, {"mapcount": -1})["mapcount"] < 0)
            elif entry.holds_page:
                # Only a migration entry names its page.
                named = entry.pfn if entry.flags & Pte.MIGRATION else -1
                rss[self.kind(named, entry)] += size
                pss[self.kind(named, entry)] += size << 12
            elif entry.flags & Pte.SWAP and not entry.flags & Pte.GUARD:
                swap += size
                swap_pss += (size << 12) // max(1, self.references(entry.pfn))
        sizes = {"rss": rss, "pss": pss, "uss": uss, "guss": self.unique(pids, mms)}
        return sizes | {"estimated": estimated, "swap": swap, "swap_pss": swap_pss >> 12}

    def holders(self, slot: int) -> int:
        none = Pte.MIGRATION | Pte.HWPOISON | Pte.GUARD
        return sum(e.pfn == slot and e.flags & Pte.SWAP > 0 and not e.flags & none
                   for e in self.entries)  # fmt: skip

    def references(self, slot: int) -> int:
        slots = self.image.swap_slots
        counts = dict(zip(slots["entry"].tolist(), slots["count"].tolist(), strict=True))
        return int(counts.get(slot, self.holders(slot)))

    def unique(self, pids: set[int], mms: set[int]) -> Counter[str]:
        mine = {mm for mm in mms if set(self.users[mm]) <= pids
                and self.image.mms["users"][mm] <= len(self.users[mm])}  # fmt: skip
        guss = Counter[str]()
        for pfn, mappers in self.mappers.items():
            if {entry.mm for entry in mappers} <= mine and len(mappers) >= self.mapcount(pfn):
                guss[self.kind(pfn, mappers[0])] += PAGE
        return guss

    def mapped(self, pids: set[int]) -> set[int]:
        mms = {self.processes[pid]["mm"] for pid in pids}
        return {pfn for pfn, mappers in self.mappers.items() if any(e.mm in mms for e in mappers)}


def as_counter(split: Split) -> Counter[str]:
    return Counter({kind: getattr(split, kind) for kind in KINDS})


def rounded(sizes: Counter[str], shift: int = 0) -> tuple[Counter[str], int]:
    """Each kind rounded for itself, and the total of all but hugetlb."""
    total = sum(size for kind, size in sizes.items() if kind != "hugetlb")
    return Counter({kind: size >> shift for kind, size in sizes.items()}), total >> shift


@given(machines(), st.sampled_from(["process", "command", "cgroup"]), st.integers(1, 4), st.data())
def test_report_equals_the_oracle(
    image: MemoryImage, by: By, top: int, data: st.DataObject
) -> None:
    oracle = Oracle(image)
    readable = sorted(pid for pid, row in oracle.processes.items() if row["mm"] >= 0)
    chosen = data.draw(st.none() | st.sets(st.sampled_from(readable)) if readable else st.none())
    column = {"process": "pid", "command": "comm", "cgroup": "cgroup"}[by]
    expected: dict[str, set[int]] = defaultdict(set)
    for pid in readable if chosen is None else chosen:
        expected[str(oracle.processes[pid][column])].add(pid)

    answer = report(image, by=by, pids=chosen, top=top)

    assert {group.key: set(group.pids) for group in answer.groups} == expected
    for group in (*answer.groups, answer.total):
        sizes = oracle.group(set(group.pids))
        for name in ("rss", "pss", "uss", "guss"):
            split, wanted = getattr(group, name), sizes[name]
            assert isinstance(wanted, Counter)
            assert (as_counter(split), split.total) == rounded(wanted, 12 if name == "pss" else 0)
        for name in ("estimated", "swap", "swap_pss"):
            assert getattr(group, name) == sizes[name], name
    assert [g.pss.total for g in answer.groups] == sorted(
        (g.pss.total for g in answer.groups), reverse=True
    )
    assert answer.shared.keys == tuple(group.key for group in answer.groups[:top])
    sets = [oracle.mapped(expected[key]) for key in answer.shared.keys]
    named = set().union(*(expected[key] for key in answer.shared.keys))
    assert answer.shared.others == bool(set(readable) - named)
    if answer.shared.others:
        sets.append(oracle.mapped(set(readable) - named))
    assert answer.shared.size.tolist() == [[PAGE * len(a & b) for b in sets] for a in sets]


@given(machines())
def test_unattributed_equals_the_oracle(image: MemoryImage) -> None:
    oracle = Oracle(image)
    large = Kpf.THP | Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL
    averaged = not image.machine["page_mapcount"][0]
    missing = {
        pfn: page["mapcount"] - len(oracle.mappers.get(pfn, ()))
        for pfn, page in oracle.page.items()
        if not page["changed"] and not (averaged and page["flags"] & large)
    }
    missing = {pfn: count for pfn, count in missing.items() if count > 0}
    found = report(image).unattributed
    assert found.size == PAGE * len(missing)
    assert found.mappings == sum(missing.values())
    assert found.unfound == PAGE * sum(not oracle.mappers.get(pfn) for pfn in missing)
    assert found.anon + found.file + found.shmem + found.hugetlb == found.size


def judged(oracle: Oracle, pfn: int) -> str:
    """The verdict on a page in plain words; see `rmap.query.verdict`."""
    page = oracle.page.get(pfn)
    found = len(oracle.mappers.get(pfn, ()))
    if page is None or page["mapcount"] < 0:
        return "not comparable"
    flags, counted = page["flags"], page["mapcount"]
    large = flags & (Kpf.THP | Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL)
    if large and not oracle.image.machine["page_mapcount"][0]:
        return "not comparable"
    if flags & Kpf.HUGE and found > counted:
        return "not comparable"
    if flags & Kpf.ZERO_PAGE:
        return "zero page"
    if page["changed"]:
        return "changed"
    if found == counted:
        return "agree"
    return "disagree" if found > counted else "unattributed"  # scope: some processes


@given(machines())
def test_mapcount_check_equals_the_oracle(image: MemoryImage) -> None:
    oracle = Oracle(image)
    pfns = {pfn for pfn, page in oracle.page.items()
            if page["mapcount"] or page["flags"] & Kpf.ZERO_PAGE} | set(oracle.mappers)  # fmt: skip
    verdicts = {pfn: judged(oracle, pfn) for pfn in pfns}
    wrong = {pfn for pfn, verdict in verdicts.items() if verdict == "disagree"}
    (result,) = fsck(image, checks=["mapcount"], limit=5000).results
    tallied = Counter[str]()
    for tally in result.outcome.tallies:
        tallied[tally.verdict] += tally.count
    assert tallied == Counter(verdicts.values())
    assert {finding.facts["pfn"] for finding in result.outcome.findings} == wrong
    assert result.outcome.total == len(wrong)
    assert result.outcome.hidden == sum(
        oracle.page[pfn]["mapcount"] - len(oracle.mappers.get(pfn, ()))
        for pfn, verdict in verdicts.items()
        if verdict == "unattributed"
    )


@given(machines())
def test_overlap_check_equals_the_oracle(image: MemoryImage) -> None:
    listed = entries(image)
    wrong = {
        (entry.mm, entry.address)
        for entry in listed
        for other in listed
        if other.mm == entry.mm
        and other.address < entry.address < other.address + (PAGE << other.order)
    }
    (result,) = fsck(image, checks=["overlap"]).results
    found = [(f.mappers[0].pids[0] // 10 - 1, f.facts["address"]) for f in result.outcome.findings]
    assert sorted(found) == sorted(wrong)


@st.composite
def scattered(draw: st.DrawFn) -> MemoryImage:
    """Address spaces of small VMAs with gaps between them, and entries anywhere."""
    world = World()
    for pid in range(1, draw(st.integers(0, 3)) + 1):
        process = world.process(pid)
        bounds = sorted(draw(st.sets(st.integers(0, 20), max_size=8)))
        for start, end in zip(bounds[::2], bounds[1::2], strict=False):
            process.vma(start * PAGE, pages=end - start)
        for at in draw(st.sets(st.integers(0, 23), max_size=10)):
            process.pte(at * PAGE, 7)
        for at in draw(st.sets(st.integers(0, 5), max_size=2)):
            process.pte(at * 4 * PAGE, 8, order=2)
    return world.build(scope="processes", consistency="exact")


@given(scattered())
def test_stray_check_equals_the_oracle(image: MemoryImage) -> None:
    vmas = [image.vmas.row(at) for at in range(len(image.vmas))]
    wrong = {
        (entry.mm + 1, entry.address)
        for entry in entries(image)
        if not any(
            vma["mm"] == entry.mm
            and vma["start"] <= entry.address
            and entry.address + (PAGE << entry.order) <= vma["end"]
            for vma in vmas
        )
    }
    (result,) = fsck(image, checks=["stray"]).results
    if not vmas:
        assert result.outcome.skipped
        return
    found = {(f.mappers[0].pids[0], f.facts["address"]) for f in result.outcome.findings}
    assert found == wrong
    assert image.vmas_of_ptes(range(len(image.ptes))).tolist() == image.pte_vma.tolist()


@given(machines())
def test_counter_check_equals_the_oracle(image: MemoryImage) -> None:
    (result,) = fsck(image, checks=["rss"]).results
    if image.machine["consistency"][0] != "exact":
        assert result.outcome.skipped
        return
    oracle = Oracle(image)
    wrong = set()
    for mm in range(len(image.mms)):
        sizes = oracle.group({oracle.users[mm][0]})
        rss = sizes["rss"]
        assert isinstance(rss, Counter)
        poisoned = Counter(
            oracle.kind(-1, e) for e in oracle.entries if e.mm == mm and e.flags & Pte.HWPOISON
        )
        found = {f"rss_{k}": rss[k] - PAGE * poisoned[k] for k in KINDS[:3]}
        for name, size in {**found, "swap": sizes["swap"]}.items():
            if 0 <= image.mms[name][mm] != size:
                wrong.add((oracle.users[mm][0], name))
    assert {(f.facts["pid"], f.facts["counter"]) for f in result.outcome.findings} == wrong


@given(machines())
def test_swap_check_equals_the_oracle(image: MemoryImage) -> None:
    (result,) = fsck(image, checks=["swap"]).results
    slots = image.swap_slots
    if not len(slots):
        assert result.outcome.skipped
        return
    oracle = Oracle(image)
    counts = dict(zip(slots["entry"].tolist(), slots["count"].tolist(), strict=True))
    none = Pte.MIGRATION | Pte.HWPOISON | Pte.GUARD
    held = {e.pfn for e in oracle.entries if e.flags & Pte.SWAP and not e.flags & none}
    more = {slot for slot in held | set(counts) if oracle.holders(slot) > counts.get(slot, 0)}
    less = sum(max(0, count - oracle.holders(slot)) for slot, count in counts.items())
    assert {finding.facts["entry"] for finding in result.outcome.findings} == more
    assert result.outcome.hidden == less, "the image is of some processes only"

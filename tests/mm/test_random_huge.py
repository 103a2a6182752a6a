# SPDX-License-Identifier: GPL-2.0-only
"""Random operations on huge pages, shared and private: no byte is lost, and every count is right.

Beside the machine goes a plain account of what each page of the file, and each private page, must
hold; after every few operations all of it is compared, and everything is recounted.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hugely import AT, HUGE, NR, PAGE
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rmap.mm import bits
from rmap.mm.huge.split_page import split_huge_page
from rmap.mm.inject import FailPlan
from rmap.mm.lru import put_page
from rmap.mm.page import compound_head, get_page, lock_page, unlock_page
from rmap.mm.page_cache import page_cache_item
from rmap.mm.profile import profile
from rmap.model import Machine, Process

PAGES = 2 * NR
#: Where to look: around the borders of huge pages.
SPOTS = (0, 1, 5, 255, 510, 511, 512, 513, 700, 1022, 1023)
#: Kinds of mappings, and where each lies, so that some fit PMDs and some do not.
PLACES = {
    "shared": ("file", AT),
    "askew": ("file", AT + 8 * HUGE + PAGE),
    "private": ("fileprivate", AT + 16 * HUGE),
    "anon": ("anon", AT + 24 * HUGE),
}
REPAIRED = ("shmem_pmd_counts_shmem", "zap_dirties_huge_shmem", "collapse_shmem_repairs",
            "zap_drops_swapped_copies", "walk_crosses_tables")  # fmt: skip

#: To shrink an example takes minutes.
FAST = (Phase.explicit, Phase.reuse, Phase.generate)

Step = tuple[str, int, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("map", "map", "store", "store", "store", "write", "fork", "exit", "unmap", "truncate",
             "punch", "khugepaged", "khugepaged", "reclaim", "split", "protect", "lock", "unlock",
             "huge", "nohuge", "dontneed", "load", "fail", "pin")
        ),
        st.integers(0, 5),
        st.integers(0, 10),
        st.integers(0, 10),
    ),
    min_size=10,
    max_size=60,
)  # fmt: skip


class Account:
    """The machine, and what everything must hold: the file's pages, and each private page."""

    def __init__(self, name: str, huge: str) -> None:
        on = dict.fromkeys(REPAIRED, True)
        self.m = Machine(ram=6144, swap=8192, profile=profile(name, **on))
        self.m.thp.enabled = "always"
        self.f = self.m.file("f", PAGES, shmem=True, huge=huge)
        self.file: dict[int, bytes] = {}
        self.private: dict[tuple[int, str, int], bytes] = {}
        self.mapped: dict[int, set[str]] = {}
        self.written = 0
        self.fork_of(None)

    def fork_of(self, parent: Process | None) -> None:
        """One more process."""
        if parent is None:
            p = self.m.spawn("p")
            self.mapped[p.pid] = set()
            return
        p = parent.fork()
        self.mapped[p.pid] = set(self.mapped[parent.pid])
        for (pid, place, spot), data in list(self.private.items()):
            if pid == parent.pid:
                self.private[p.pid, place, spot] = data

    def process(self, number: int) -> Process:
        """One of the processes."""
        return list(self.m.processes.values())[number % len(self.m.processes)]

    def fresh(self) -> bytes:
        """Bytes that were never written before."""
        self.written += 1
        return b"%05d" % self.written

    def must(self, p: Process, place: str, spot: int) -> bytes:
        """What a page must hold."""
        own = self.private.get((p.pid, place, spot))
        if own is not None:
            return own
        return bytes(5) if place == "anon" else self.file.get(spot, bytes(5))

    def at(self, place: str, spot: int) -> int:
        """Where a page is mapped."""
        return PLACES[place][1] + spot * PAGE

    def reachable(self, place: str, spot: int) -> bool:
        """Whether a page may be touched at all."""
        return place == "anon" or spot < self.f.size // PAGE

    def compare(self) -> None:
        """Look at all of it."""
        for spot in SPOTS:
            if self.reachable("shared", spot):
                assert self.f.read(spot * PAGE, 5) == self.file.get(spot, bytes(5)), spot
        for p in self.m.processes.values():
            for place in sorted(self.mapped[p.pid]):
                for spot in SPOTS:
                    if self.reachable(place, spot):
                        found = p.read(self.at(place, spot), 5)
                        assert found == self.must(p, place, spot), (p, place, spot)

    def recount(self) -> None:
        """Recount everything."""
        assert self.m.check() == []
        assert not self.m.warnings


def take(w: Account, step: Step) -> None:
    """One step; what is not possible now is left out."""
    what, number, first, second = step
    p = w.process(number)
    place = list(PLACES)[first % len(PLACES)]
    spot = SPOTS[second]
    here = place in w.mapped[p.pid]
    act: dict[str, Callable[[], object]] = {
        "map": lambda: None if here else map_(w, p, place),
        "store": lambda: here and w.reachable(place, spot) and store(w, p, place, spot),
        "load": lambda: here and w.reachable(place, spot) and p.read(w.at(place, spot), 5),
        "write": lambda: w.reachable("shared", spot) and write(w, spot),
        "fork": lambda: len(w.m.processes) < 4 and w.fork_of(p),
        "exit": lambda: len(w.m.processes) > 1 and exit_(w, p),
        "unmap": lambda: here and unmap(w, p, place, spot),
        "truncate": lambda: truncate(w, spot),
        "punch": lambda: punch(w, SPOTS[first], spot),
        "khugepaged": lambda: w.m.khugepaged(4 * PAGES),
        "reclaim": lambda: w.m.reclaim(32 << number),
        "split": lambda: split(w, spot),
        "protect": lambda: here and protect(w, p, place, spot),
        "lock": lambda: here and lock(w, p, place, spot),
        "unlock": lambda: here and p.munlock(w.at(place, 0), PAGES * PAGE),
        "huge": lambda: here and p.madvise(w.at(place, 0), PAGES * PAGE, "hugepage"),
        "nohuge": lambda: here and p.madvise(w.at(place, 0), (spot + 1) * PAGE, "nohugepage"),
        "dontneed": lambda: here and dontneed(w, p, place, spot),
        "fail": lambda: failing(w, first, second),
        "pin": lambda: here and w.reachable(place, spot) and pin(w, p, place, spot),
    }
    act[what]()


def map_(w: Account, p: Process, place: str) -> None:
    """Map the file, or memory."""
    kind, at = PLACES[place]
    p.mmap(PAGES * PAGE, kind=kind, file=None if kind == "anon" else w.f, addr=at)
    w.mapped[p.pid].add(place)


def store(w: Account, p: Process, place: str, spot: int) -> None:
    """A store of a CPU."""
    data = w.fresh()
    p.write(w.at(place, spot), data)
    if place in ("shared", "askew"):
        w.file[spot] = data
    else:
        w.private[p.pid, place, spot] = data


def write(w: Account, spot: int) -> None:
    """write(2)."""
    w.file[spot] = w.fresh()
    w.f.write(spot * PAGE, w.file[spot])


def exit_(w: Account, p: Process) -> None:
    """The end of a process."""
    p.exit()
    del w.mapped[p.pid]
    for key in [key for key in w.private if key[0] == p.pid]:
        del w.private[key]


def unmap(w: Account, p: Process, place: str, spot: int) -> None:
    """Unmap a mapping: a part of it first, so that PMDs are split."""
    p.munmap(w.at(place, spot), PAGE)
    p.munmap(w.at(place, 0), PAGES * PAGE)
    w.mapped[p.pid].discard(place)
    for key in [key for key in w.private if key[:2] == (p.pid, place)]:
        del w.private[key]


def truncate(w: Account, spot: int) -> None:
    """Make the file longer or shorter; private copies beyond the end go as well."""
    w.f.truncate((spot + 1) * PAGE)
    for at in [at for at in w.file if at > spot]:
        del w.file[at]
    for key in [key for key in w.private if key[1] == "private" and key[2] > spot]:
        del w.private[key]


def punch(w: Account, one: int, other: int) -> None:
    """Punch a hole."""
    first, last = min(one, other), max(one, other)
    w.f.punch(first * PAGE, (last - first) * PAGE)
    for at in [at for at in w.file if first <= at < last]:
        del w.file[at]


def split(w: Account, spot: int) -> None:
    """Split the huge page of the file at a place, if it can be."""
    item = int(page_cache_item(w.f.mapping, spot))
    if item <= 0:
        return
    with w.m.kthread("split") as k:
        head = compound_head(k, item)
        if head == item and item + 1 == page_cache_item(w.f.mapping, spot + 1):
            get_page(k, head)
            lock_page(k, head)
            if k.pg_flags[head] & bits.PG_head:
                split_huge_page(k, head)
            unlock_page(k, head)
            put_page(k, head)


def locked(p: Process) -> bool:
    """Whether any memory of a process is locked."""
    return any(vma.vm_flags & bits.VM_LOCKED for vma in p.vmas)


def lock(w: Account, p: Process, place: str, spot: int) -> None:
    """Lock memory, which fills it: private mappings get copies of the file's pages."""
    last = min(spot, w.f.size // PAGE - 1)
    p.mlock(w.at(place, 0), (last + 1) * PAGE)
    for at in SPOTS:
        if place == "private" and at <= last:
            w.private[p.pid, place, at] = w.must(p, place, at)


def protect(w: Account, p: Process, place: str, spot: int) -> None:
    """Take the permission to write away, and give it back, which fills locked memory."""
    if locked(p):
        return
    p.mprotect(w.at(place, spot), PAGE, "r")
    p.mprotect(w.at(place, 0), PAGES * PAGE, "r")
    p.mprotect(w.at(place, 0), PAGES * PAGE, "rw")


def dontneed(w: Account, p: Process, place: str, spot: int) -> None:
    """Give private pages up; those of the file stay in the file."""
    if locked(p):
        return
    p.madvise(w.at(place, 0), (spot + 1) * PAGE, "dontneed")
    for key in [key for key in w.private if key[:2] == (p.pid, place) and key[2] <= spot]:
        del w.private[key]


def failing(w: Account, first: int, second: int) -> None:
    """khugepaged with an allocation that fails."""
    site = ("huge_page", "page", "memcg_charge", "swap_cache")[first % 4]
    w.m.inject = FailPlan.from_text(f"{site}:nth={second + 1}")
    w.m.khugepaged(4 * PAGES)
    w.m.inject = None


def pin(w: Account, p: Process, place: str, spot: int) -> None:
    """khugepaged, reclaim and a split while a device has a page."""
    with p.pin(w.at(place, spot), PAGE, write=False):
        w.m.khugepaged(4 * PAGES)
        split(w, spot)
        w.m.reclaim(64)


@pytest.mark.parametrize("name", ["4.18", "6.12"])
@pytest.mark.parametrize("huge", ["always", "advise"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=FAST)
@given(steps=STEPS)
def test_random_operations_lose_nothing(name: str, huge: str, steps: list[Step]) -> None:
    w = Account(name, huge)
    for number, step in enumerate(steps):
        take(w, step)
        if number % 8 == 7:
            w.recount()
    w.compare()
    w.recount()
    for p in list(w.m.processes.values()):
        p.exit()
    w.f.truncate(0)
    w.recount()
    assert w.m.mem_stats()["nr_shmem"] == w.m.mem_stats()["nr_anon_mapped"] == 0

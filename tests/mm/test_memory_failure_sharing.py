# SPDX-License-Identifier: GPL-2.0-only
"""Whoever shares with whom: a page that breaks is told to those who map it, and hurts no others."""

from __future__ import annotations

from dataclasses import dataclass, field

from faulting import ARENA, PAGE, Faulting
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.mm import bits
from rmap.model import BrokenMemory, BusError, Process

PAGES = 3
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "fork", "exit", "move", "pageout", "read"]),
        st.integers(0, 7),
        st.integers(0, PAGES - 1),
        st.booleans(),
    ),
    max_size=14,
)


@dataclass
class Owner:
    """A process, where each of its pages lies now, and what it stored in its private ones."""

    p: Process
    private: list[int]
    shared: list[int]
    stored: list[bytes] = field(default_factory=lambda: [b"\0"] * PAGES)


class Sharing(Faulting):
    """Processes of one family, with private memory and shared memory."""

    def __init__(self) -> None:
        super().__init__()
        self.m.early_kill = True
        private = self.map(PAGES)
        shared = self.p.mmap(PAGES * PAGE, kind="shared", addr=ARENA + 16 * PAGE)
        places = [range(at, at + PAGES * PAGE, PAGE) for at in (private, shared)]
        self.owners = [Owner(self.p, list(places[0]), list(places[1]))]
        self.shared = [b"\0"] * PAGES
        self.moves = 0

    def step(self, what: str, number: int, index: int, shared: bool) -> None:
        """One operation of one process."""
        o = self.owners[number % len(self.owners)]
        places = o.shared if shared else o.private
        if what == "write":
            value = bytes([65 + (number * PAGES + index) % 26])
            o.p.write(places[index], value)
            (self.shared if shared else o.stored)[index] = value
        elif what == "read":
            o.p.read(places[index], 1)
        elif what == "fork" and len(self.owners) < 5:
            child = o.p.fork(f"p{len(self.m.processes)}")
            self.owners.append(Owner(child, list(o.private), list(o.shared), list(o.stored)))
        elif what == "exit" and len(self.owners) > 1:
            self.owners.remove(o)
            o.p.exit()
        elif what == "move":
            self.moves += 1
            there = ARENA + (64 + 2 * self.moves) * PAGE
            places[index] = o.p.mremap(places[index], PAGE, PAGE, new_addr=there)
        elif what == "pageout":
            o.p.madvise(places[index], PAGE, "pageout")

    def have(self, page: int) -> set[tuple[int, int]]:
        """Who maps a page, and where, by a look into every page table."""
        return {
            (o.p.pid, at)
            for o in self.owners
            for at in (*o.private, *o.shared)
            if self.page(o.p, at) == page
        }

    def cover(self, index: int) -> set[tuple[int, int]]:
        """Whose VMAs cover a shared page."""
        return {(o.p.pid, o.shared[index]) for o in self.owners}


@given(STEPS, st.integers(0, 7), st.integers(0, PAGES - 1), st.booleans())
@settings(max_examples=150)
def test_those_who_map_it_are_told_and_all_others_read_what_was_stored(
    steps: list[tuple[str, int, int, bool]], number: int, index: int, shared: bool
) -> None:
    s = Sharing()
    for step in steps:
        s.step(*step)
    o = s.owners[number % len(s.owners)]
    at = (o.shared if shared else o.private)[index]
    if s.page(o.p, at) in (0, s.k.zero_page):
        s.step("write", number, index, shared)
    page = s.page(o.p, at)
    lost = s.have(page)
    expected = s.cover(index) if shared else lost
    failure = s.m.memory_failure(page)
    assert failure.error == 0
    named = {(kill.process.pid, kill.address) for kill in failure.kills}
    assert len(named) == len(failure.kills)
    if failure.kind.startswith("clean"):
        # Zeros that nobody wrote over: nothing is lost, and nobody is told.
        expected = set()
    if failure.kind == "clean_swapcache":
        # Swap has it: nobody loses even the page.
        lost = set()
    assert named == expected
    for other in s.owners:
        for i in range(PAGES):
            at = other.private[i]
            if (other.p.pid, at) in lost:
                assert broken(other.p, at)
            else:
                assert other.p.read(at, 1) == other.stored[i]
            at = other.shared[i]
            if (other.p.pid, at) in lost:
                assert broken(other.p, at)
            elif shared and i == index and lost:
                assert other.p.read(at, 1) == b"\0"
            else:
                assert other.p.read(at, 1) == s.shared[i]
    assert s.flags(page, bits.PG_hwpoison)
    assert s.sound()


def broken(p: Process, address: int) -> bool:
    """Whether an access meets broken memory."""
    try:
        p.read(address, 1)
    except BrokenMemory:
        return True
    except BusError:
        return False
    return False


# ---------------------------------------------------------------- huge pages

PARTS = [1, 2, 255, 256, 511]
HUGE_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "fork", "exit", "protect", "drop", "split", "collapse"]),
        st.integers(0, 5),
        st.sampled_from(PARTS),
    ),
    max_size=10,
)


class SharingHuge(Faulting):
    """Processes of one family, with a huge page that some of them have in parts."""

    def __init__(self) -> None:
        super().__init__(ram=8192)
        self.m.early_kill = True
        self.m.thp.enabled = "always"
        self.a = self.p.mmap(512 * PAGE, addr=ARENA)
        self.p.write(self.a, b"\1")
        self.owners = [self.p]
        self.stored: dict[tuple[int, int], bytes] = {}

    def step(self, what: str, number: int, part: int) -> None:
        """One operation of one process."""
        p = self.owners[number % len(self.owners)]
        at = self.a + part * PAGE
        if what == "write":
            value = bytes([65 + (number + part) % 26])
            p.write(at, value)
            self.stored[p.pid, part] = value
        elif what == "fork" and len(self.owners) < 4:
            child = p.fork(f"p{len(self.m.processes)}")
            self.owners.append(child)
            for (pid, i), value in list(self.stored.items()):
                if pid == p.pid:
                    self.stored[child.pid, i] = value
        elif what == "exit" and len(self.owners) > 1:
            self.owners.remove(p)
            p.exit()
        elif what == "protect":
            p.mprotect(at, PAGE, "r")
            p.mprotect(at, PAGE, "rw")
        elif what == "drop":
            p.madvise(at, PAGE, "dontneed")
            self.stored.pop((p.pid, part), None)
        elif what == "split":
            page = self.page(p, at)
            if self.k.pg_flags[page] & (bits.PG_head | bits.PG_tail):
                self.m.split_huge_page(page)
        elif what == "collapse":
            self.m.khugepaged()


@given(HUGE_STEPS, st.integers(0, 5), st.sampled_from(PARTS))
@settings(max_examples=25)
def test_of_a_huge_page_only_the_broken_part_is_lost_to_those_who_have_it(
    steps: list[tuple[str, int, int]], number: int, part: int
) -> None:
    s = SharingHuge()
    for step in steps:
        s.step(*step)
    o = s.owners[number % len(s.owners)]
    if s.page(o, s.a + part * PAGE) in (0, s.k.zero_page):
        s.step("write", number, part)
    page = s.page(o, s.a + part * PAGE)
    lost = {
        (p.pid, s.a + i * PAGE)
        for p in s.owners
        for i in PARTS
        if s.page(p, s.a + i * PAGE) == page
    }
    assert (o.pid, s.a + part * PAGE) in lost
    failure = s.m.memory_failure(page)
    assert failure.error == 0
    if failure.kind.startswith("dirty"):
        assert {(kill.process.pid, kill.address) for kill in failure.kills} == lost
    for p in s.owners:
        for i in PARTS:
            at = s.a + i * PAGE
            if (p.pid, at) in lost:
                assert broken(p, at)
            else:
                assert p.read(at, 1) == s.stored.get((p.pid, i), b"\0")
    assert s.sound()

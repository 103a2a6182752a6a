# SPDX-License-Identifier: GPL-2.0-only
"""Random programs whose memory moves all the time: what they read is what they have stored.

Migration, compaction and a device move pages under processes that store, fork, unmap and are
swapped out; allocations fail now and then. An oracle knows what each process has to read.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from faulting import ARENA, PAGE
from hypothesis import given, settings
from hypothesis import strategies as st
from migrating import Moving

from rmap.mm.inject import FailPlan
from rmap.model import Process, SyscallError
from rmap.model.movement import Device

#: Pages of each process.
PAGES = 6
#: With these, pages on a device can be shared, and come back.
FIXES = {"pvmw_finds_device_private": True, "device_private_subpage": True}
ACTS = (
    "store", "store", "load", "fork", "give", "pull", "pull", "push", "move", "move", "compact",
    "out", "forbid", "permit", "lock", "exit",
)  # fmt: skip


@dataclass
class World:
    """The machine, what each process has to read, and who lives."""

    f: Moving
    gpu: Device
    has: dict[Process, list[bytes]] = field(default_factory=dict)
    writable: dict[Process, list[bool]] = field(default_factory=dict)

    def step(self, act: str, who: int, at: int, count: int) -> None:
        """Do one thing, with whatever process and pages the numbers come to."""
        p = list(self.has)[who % len(self.has)]
        first = at % PAGES
        count = min(1 + count % 3, PAGES - first)
        a, length = ARENA + first * PAGE, count * PAGE
        getattr(self, f"do_{act}")(p, first, count, a, length)

    def do_store(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        for i in range(first, first + count):
            if self.writable[p][i]:
                text = b"%d.%d" % (i, len(self.has[p][i]) * 7 + i)
                p.write(ARENA + i * PAGE, text)
                self.has[p][i] = text + self.has[p][i][len(text) :]

    def do_load(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        for i in range(first, first + count):
            assert p.read(ARENA + i * PAGE, 8).rstrip(b"\0") == self.has[p][i]

    def do_fork(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        if len(self.has) < 4:
            child = p.fork()
            self.has[child] = list(self.has[p])
            self.writable[child] = list(self.writable[p])

    def do_give(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        p.munlock(a, length)
        p.madvise(a, length, "dontneed")
        self.has[p][first : first + count] = [b""] * count

    def do_pull(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        self.gpu.pull(p, a, length)

    def do_push(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        self.gpu.push(p, a, length)

    def do_move(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        mode = ("async", "light", "sync")[count - 1]
        self.f.m.migrate([page for page in p.pages(a, length) if page], mode)

    def do_compact(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        self.f.m.compact()

    def do_out(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        p.munlock(a, length)
        p.madvise(a, length, "pageout")
        self.f.m.reclaim(4)

    def do_forbid(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        p.mprotect(a, length, "r")
        self.writable[p][first : first + count] = [False] * count

    def do_permit(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        p.mprotect(a, length, "rw")
        self.writable[p][first : first + count] = [True] * count

    def do_lock(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        p.mlock(a, length)

    def do_exit(self, p: Process, first: int, count: int, a: int, length: int) -> None:
        if len(self.has) > 1:
            p.exit()
            del self.has[p]


STEPS = st.lists(
    st.tuples(st.sampled_from(ACTS), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    min_size=5,
    max_size=30,
)


def world(base: str) -> World:
    fixes = FIXES if base == "4.18" else {}
    f = Moving(ram=256, swap=64, base=base, **fixes)
    w = World(f, f.m.device(9))
    assert f.map(PAGES) == ARENA
    w.has[f.p] = [b""] * PAGES
    w.writable[f.p] = [True] * PAGES
    return w


def check(w: World) -> None:
    """Whether everybody reads what they should, and everything counts."""
    assert w.f.m.check() == []
    for p in w.has:
        w.do_load(p, 0, PAGES, ARENA, PAGES * PAGE)
    assert w.f.m.check() == []
    assert w.f.m.warnings == []


@pytest.mark.parametrize("base", ["4.18", "6.1", "6.12"])
def test_whatever_moves_nobody_sees_it(base: str) -> None:
    @settings(max_examples=25)
    @given(STEPS)
    def run(steps: list[tuple[str, int, int, int]]) -> None:
        w = world(base)
        for step in steps:
            w.step(*step)
            assert w.f.m.check() == []
        check(w)
        for p in list(w.has):
            p.exit()
        assert w.gpu.free == 9
        assert w.f.m.check() == []

    run()


@settings(max_examples=25)
@given(
    STEPS,
    st.sampled_from(
        ["migration_target", "device_page", "arch_unmap_one", "page", "anon_vma", "page_table"]
    ),
    st.integers(2, 5),
)
def test_whatever_fails_nothing_is_lost(
    steps: list[tuple[str, int, int, int]], site: str, every: int
) -> None:
    """While a page moves any allocation may fail: then it stays, with all that it has."""
    w = world("4.18")
    for step in steps:
        moving = step[0] in ("pull", "push", "move", "compact")
        w.f.m.inject = FailPlan.from_text(f"{site}:every={every}") if moving else None
        # What cannot be moved at all, for want of a page, is an error of the call.
        with suppress(SyscallError):
            w.step(*step)
        w.f.m.inject = None
        assert w.f.m.check() == []
    check(w)

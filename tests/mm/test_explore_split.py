# SPDX-License-Identifier: GPL-2.0-only
"""Splitting a huge page against what others do with it meanwhile, in orders drawn by lot.

Whatever the order, nothing is lost, nobody sees half a page, and all counts are what a recount
finds. To keep the runs short, most parts of the page are unmapped before they begin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from faulting import PAGE
from racing import Race, Uneven

from rmap.mm.bits import EBUSY, HPAGE_PMD_NR, MADV_DONTNEED
from rmap.mm.huge.split_page import deferred_split_scan, split_huge_page
from rmap.mm.lru import isolate_lru_page, put_page
from rmap.mm.madvise import do_madvise
from rmap.mm.mm_types import Task
from rmap.mm.mmap import vm_munmap
from rmap.mm.page import compound_order, get_page_unless_zero, lock_page, unlock_page
from rmap.mm.page_idle import page_idle_bitmap_read, page_idle_bitmap_write
from rmap.mm.page_referenced import PageReferencedArg, page_referenced
from rmap.mm.vmscan import reclaim_pages
from rmap.sync.explore import World, explore

RUNS = 12
AT = 1 << 30
HUGE = HPAGE_PMD_NR * PAGE


class HugeRace(Race):
    """A machine with a huge page, of which the process maps the first parts, by PTEs."""

    def __init__(self, parts: int = 8, base: str = "4.18", **quirks: bool) -> None:
        super().__init__(ram=2048, swap=1024, max_steps=200_000, base=base, **quirks)
        self.m.thp.enabled = "always"
        self.a = self.p.mmap(HUGE, addr=AT)
        for part in range(parts):
            self.p.write(self.part(part), b"part%d" % part)
        (self.head,) = self.p.pages(self.a, 1)
        assert compound_order(self.k, self.head) == 9
        if parts < HPAGE_PMD_NR:
            self.p.munmap(self.part(parts), HUGE - parts * PAGE)
        self.m.page_referenced([self.head])

    def part(self, number: int) -> int:
        """The address of a part."""
        return AT + number * PAGE

    def split(self) -> int:
        """Split it, as who has found it by its frame."""
        if not get_page_unless_zero(self.k, self.head):
            return -1
        lock_page(self.k, self.head)
        result = split_huge_page(self.k, self.head) if compound_order(self.k, self.head) else -1
        unlock_page(self.k, self.head)
        put_page(self.k, self.head)
        return result

    def splitter(self) -> None:
        """Let a CPU split it."""
        self.run("splitter", Task("splitter", 9, None, 0), self.kthread(self.split))

    def holds(self, parts: int = 8) -> None:
        """Every part has what was stored in it."""
        for part in range(parts):
            assert self.p.read(self.part(part), 5) == b"part%d" % part


def split_against_stores(base: str = "4.18") -> World:
    """A fault that meets a migration entry waits; a store goes to the part that it means."""
    f = HugeRace(base=base)
    f.p.cpu = 1
    f.splitter()
    f.run("writer", f.p.task, f.store(f.part(0), b"newly"), f.store(f.part(7), b"other"))

    def finish() -> None:
        assert f.p.read(f.part(0), 5) == b"newly"
        assert f.p.read(f.part(7), 5) == b"other"
        assert f.p.read(f.part(3), 5) == b"part3"

    return f.world(finish)


def split_against_a_relative(base: str = "4.18", fates: set[object] | None = None) -> World:
    """A child that shares the parts writes to one, and copies it. `fates`: what splits returned."""
    f = HugeRace(parts=4, base=base)
    child = f.p.fork()
    child.cpu = 1
    f.splitter()
    f.run("child", child.task, f.store(f.part(1), b"child"), f.load(f.part(2), 5))

    def finish() -> None:
        if fates is not None:
            fates.add(f.outcome["splitter"])
        assert f.outcome["child"] == b"part2"
        assert (f.p.read(f.part(1), 5), child.read(f.part(1), 5)) == (b"part1", b"child")
        f.holds(4)

    return f.world(finish)


def split_against_unmapping(base: str = "4.18") -> World:
    """Parts go while their entries wait for the page."""
    f = HugeRace(base=base)
    f.splitter()
    f.run(
        "owner",
        f.thread(f.p, 1),
        lambda task: do_madvise(f.k, f.p.mm, f.part(1), 2 * PAGE, MADV_DONTNEED),
        lambda task: vm_munmap(f.k, f.p.mm, f.part(6), 2 * PAGE),
    )

    def finish() -> None:
        assert f.p.read(f.part(1), 5) == bytes(5)
        assert f.p.read(f.part(0), 5) == b"part0"
        assert f.p.read(f.part(5), 5) == b"part5"

    return f.world(finish)


def split_against_walks(base: str = "4.18") -> World:
    """Aging and idle tracking walk the page without its lock."""
    f = HugeRace(base=base)
    f.splitter()

    def walks() -> None:
        page_referenced(f.k, f.head, False, None, PageReferencedArg())
        page_idle_bitmap_write(f.k, f.head)
        page_idle_bitmap_read(f.k, f.head + 1)
        page_idle_bitmap_read(f.k, f.head)

    f.run("walker", Task("walker", 10, None, 1), f.kthread(walks))
    return f.world(f.holds)


def split_against_reclaim(base: str = "4.18") -> World:
    """Reclaim has isolated the page, or finds it split."""
    f = HugeRace(parts=3, base=base)
    f.splitter()

    def reclaim() -> None:
        if get_page_unless_zero(f.k, f.head):
            isolated = isolate_lru_page(f.k, f.head) == 0
            put_page(f.k, f.head)
            if isolated:
                reclaim_pages(f.k, [f.head])

    f.run("kswapd", Task("kswapd", 10, None, 1), f.kthread(reclaim))
    return f.world(lambda: f.holds(3))


def two_shrinkers(base: str = "4.18") -> World:
    """Two CPUs are short of memory; one splits the page."""
    f = HugeRace(base=base)
    for cpu in (0, 1):
        task = Task(f"shrinker{cpu}", 9 + cpu, None, cpu)
        f.run(f"cpu{cpu}", task, f.kthread(lambda: deferred_split_scan(f.k, 4)))

    def finish() -> None:
        f.holds()
        assert compound_order(f.k, f.head) == 0
        assert not f.k.deferred_split_queue

    return f.world(finish)


WORLDS = [
    split_against_stores,
    split_against_a_relative,
    split_against_unmapping,
    split_against_walks,
    split_against_reclaim,
    two_shrinkers,
]


@pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_no_order_shows_half_a_page(make: Callable[..., World], base: str) -> None:
    result = explore(partial(make, base=base), Uneven(7, RUNS))
    assert result.findings == [], str(result.findings[0])[:4000]
    assert result.runs == RUNS


def test_the_races_are_real() -> None:
    """In some orders a fault's reference keeps the page whole, in others it is split."""
    fates: set[object] = set()

    def make() -> World:
        return split_against_a_relative(fates=fates)

    result = explore(make, Uneven(3, RUNS))
    assert result.findings == []
    assert fates == {0, -EBUSY}

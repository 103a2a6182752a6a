# SPDX-License-Identifier: GPL-2.0-only
"""Faults against faults, zap, swap and truncation on another CPU, in orders drawn by lot.

Each world is a machine whose CPUs do a few accesses or system calls at once. Whatever the order,
what is read afterwards must be what some order of whole operations would have left, and all that
the kernel counts must be what a recount finds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from faulting import PAGE
from racing import Race, Uneven

from rmap.mm import bits
from rmap.mm.access import touch_range
from rmap.mm.filemap import truncate
from rmap.mm.gup import get_user_pages, put_user_pages
from rmap.mm.lru import isolate_lru_page
from rmap.mm.madvise import do_madvise
from rmap.mm.mm_types import Task
from rmap.mm.swap_cache import read_swap_cache
from rmap.mm.uffd import UserfaultfdCtx
from rmap.mm.userfaultfd import mcopy_atomic, userfaultfd_register
from rmap.mm.vmscan import reclaim_pages
from rmap.model import BusError
from rmap.sync.core import Deadlock
from rmap.sync.explore import RandomWalk, World, explore

RUNS = 60


def cow_against_cow(**quirks: bool) -> World:
    """Parent and child write to the page they share."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"shared..")
    child = f.p.fork()
    child.cpu = 1
    f.run("parent", f.p.task, f.store(a, b"P"), f.load(a, 8))
    f.run("child", child.task, f.store(a + 1, b"C"), f.load(a, 8))

    def finish() -> None:
        assert f.outcome == {"parent": b"Phared..", "child": b"sCared.."}
        assert f.page(f.p, a) != f.page(child, a)

    return f.world(finish)


def cow_against_exit_of_the_mapping(**quirks: bool) -> World:
    """The child writes while the parent drops the page: a copy, or the page itself."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"shared")
    child = f.p.fork()
    child.cpu = 1
    f.run("parent", f.p.task, lambda task: do_madvise(f.k, f.p.mm, a, PAGE, bits.MADV_DONTNEED))
    f.run("child", child.task, f.store(a, b"S"), f.load(a, 6))

    def finish() -> None:
        assert f.outcome["child"] == b"Shared"
        assert f.p.read(a, 6) == bytes(6)
        assert f.named(f.page(child, a)) is child.vmas[0].anon_vma

    return f.world(finish)


def first_touch_twice(**quirks: bool) -> World:
    """Two threads write to the same page for the first time."""
    f = Race(**quirks)
    a = f.map(2)
    for cpu in (0, 1):
        f.run(f"t{cpu}", f.thread(f.p, cpu), f.store(a + cpu, b"x"), f.load(a, 2))

    def finish() -> None:
        assert f.p.read(a, 2) == b"xx"
        assert b"xx" in f.outcome.values()
        assert f.rss(f.p) == (0, 1, 0, 0)

    return f.world(finish)


def write_against_dontneed(**quirks: bool) -> World:
    """One thread writes twice while another one gives the page back: never anybody else's page."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"old")
    other = f.m.spawn("other")
    b = other.mmap(PAGE)
    f.run("writer", f.thread(f.p, 1), f.store(a, b"1"), f.store(a + 1, b"2"))
    f.run(
        "giver",
        f.thread(f.p, 0),
        lambda task: do_madvise(f.k, f.p.mm, a, PAGE, bits.MADV_DONTNEED),
    )

    def finish() -> None:
        # Whoever gets the page next finds nothing in it.
        other.write(b, b"\0")
        assert other.read(b, 3) == bytes(3)
        assert f.p.read(a, 3) in (b"12d", b"12\0", b"\x002\0", b"\0\0\0", b"1\0\0")

    return f.world(finish)


def swap_in_twice(**quirks: bool) -> World:
    """Parent and child bring the page they share back from swap, one of them to write."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"shared")
    child = f.p.fork()
    child.cpu = 1
    f.page_out(f.page(f.p, a))
    assert f.page(f.p, a) == f.page(child, a) == 0
    f.run("parent", f.p.task, f.load(a, 6))
    f.run("child", child.task, f.store(a, b"S"), f.load(a, 6))

    def finish() -> None:
        assert f.outcome == {"parent": b"shared", "child": b"Shared"}
        assert f.page(f.p, a) != f.page(child, a)

    return f.world(finish)


def write_against_swap_out(taken: set[int] | None = None, **quirks: bool) -> World:
    """A process writes while reclaim takes its page away: the write is not lost.

    How many pages reclaim has got goes into `taken`.
    """
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"before")
    page = f.page(f.p, a)
    f.m.page_referenced([page])
    f.m.age(8)
    f.p.cpu = 1

    def take() -> None:
        if isolate_lru_page(f.k, page) == 0:
            got = int(reclaim_pages(f.k, [page]))
            if taken is not None:
                taken.add(got)

    f.run("writer", f.p.task, f.store(a, b"A"), f.load(a, 6))
    f.run("kswapd", Task("kswapd", 9, None, 0), f.kthread(take))

    def finish() -> None:
        assert f.outcome["writer"] == b"Aefore"
        assert f.p.read(a, 6) == b"Aefore"

    return f.world(finish)


def swap_in_against_a_reader_of_swap(**quirks: bool) -> World:
    """A write brings a page in while somebody else reads the same slot into the swap cache."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"page")
    f.p.madvise(a, PAGE, "pageout")
    entry = f.pte(f.p, a) >> bits.SWP_PTE_OFFSET_SHIFT

    def read_ahead() -> None:
        page = read_swap_cache(f.k, entry, None)
        if page:
            put_user_pages(f.k, [page])

    f.run("writer", f.p.task, f.store(a, b"P"), f.load(a, 4))
    f.run("reader", Task("readahead", 9, None, 1), f.kthread(read_ahead))

    def finish() -> None:
        assert f.outcome["writer"] == b"Page"
        assert f.p.read(a, 4) == b"Page"

    return f.world(finish)


def fault_against_truncation(**quirks: bool) -> World:
    """A shared and a private mapping are touched while the file is cut off."""
    f = Race(**quirks)
    data = f.file(2, content=b"x" * PAGE * 2)
    shared = f.map(2, kind="file", file=data)
    q = f.m.spawn("q", cpu=1)
    private = q.mmap(2 * PAGE, kind="fileprivate", file=data)

    def touch(address: int, task: Task) -> object:
        try:
            return touch_range(f.k, task, address, address + 2 * PAGE, True)
        except BusError:
            return 0

    f.run("shared", f.p.task, partial(touch, shared))
    f.run("private", q.task, partial(touch, private))
    f.run("cut", Task("cut", 9, None, 0), f.kthread(lambda: truncate(f.k, data.file, 1)))

    def finish() -> None:
        # No page of what was cut off is mapped, private copies included.
        assert f.page(f.p, shared + PAGE) == 0
        assert f.page(q, private + PAGE) == 0
        assert sorted(data.cached) in ([], [0])

    return f.world(finish)


def shmem_hole_twice(**quirks: bool) -> World:
    """Two processes fill the same hole of shared memory."""
    f = Race(**quirks)
    a = f.map(1, kind="shared")
    child = f.p.fork()
    child.cpu = 1
    f.run("parent", f.p.task, f.store(a, b"p"))
    f.run("child", child.task, f.store(a + 1, b"c"))

    def finish() -> None:
        assert f.p.read(a, 2) == child.read(a, 2) == b"pc"

    return f.world(finish)


def pin_against_cow(**quirks: bool) -> World:
    """A page is pinned for writing while the child writes to it."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"x")
    child = f.p.fork()
    child.cpu = 1
    pinned: list[int] = []
    f.run("pin", f.p.task, lambda task: pinned.extend(get_user_pages(f.k, f.p.mm, a, 1, True)))
    f.run("child", child.task, f.store(a, b"c"))

    def finish() -> None:
        assert pinned == [f.page(f.p, a)]
        put_user_pages(f.k, pinned)
        assert (f.p.read(a, 1), child.read(a, 1)) == (b"x", b"c")

    return f.world(finish)


def wait_for_userfaultfd(**quirks: bool) -> World:
    """A read waits for the page that another CPU provides."""
    f = Race(**quirks)
    a = f.map(2)
    ctx = UserfaultfdCtx()
    with f.m.running(f.p) as k:
        assert userfaultfd_register(k, f.p.mm, a, 2 * PAGE, ctx) == 0
    f.run("reader", f.p.task, f.load(a, 5))
    f.run(
        "monitor",
        Task("monitor", 9, None, 1),
        f.kthread(lambda: mcopy_atomic(f.k, f.p.mm, a, b"given")),
    )

    def finish() -> None:
        assert f.outcome["reader"] == b"given"
        assert f.outcome["monitor"] == PAGE
        assert ctx.pending == []

    return f.world(finish)


WORLDS = [
    cow_against_cow,
    cow_against_exit_of_the_mapping,
    first_touch_twice,
    write_against_dontneed,
    swap_in_twice,
    write_against_swap_out,
    swap_in_against_a_reader_of_swap,
    fault_against_truncation,
    shmem_hole_twice,
    pin_against_cow,
    wait_for_userfaultfd,
]


@pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_no_order_of_two_cpus_breaks_anything(make: Callable[..., World], base: str) -> None:
    result = explore(partial(make, base=base), Uneven(7, RUNS))
    assert result.runs == RUNS
    assert result.findings == [], str(result.findings[0])


def test_reclaim_gets_a_page_before_it_is_written_to_or_does_not() -> None:
    taken: set[int] = set()
    explore(partial(write_against_swap_out, taken), Uneven(7, RUNS))
    assert taken == {0, 1}


def test_a_fault_that_nobody_resolves_waits_for_ever() -> None:
    f = Race()
    a = f.map(1)
    with f.m.running(f.p) as k:
        assert userfaultfd_register(k, f.p.mm, a, PAGE, UserfaultfdCtx()) == 0
    f.run("reader", f.p.task, f.load(a, 1))
    (finding,) = explore(lambda: World(f.cpus), RandomWalk(1, 1)).findings
    assert isinstance(finding.run.error, Deadlock)
    assert "userfault" in finding.error

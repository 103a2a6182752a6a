# SPDX-License-Identifier: GPL-2.0-only
"""Reclaim, writeback and swapoff against what processes do meanwhile, in orders drawn by lot.

Whatever the order, no store is lost, no page is freed that somebody can still reach, and all that
the kernel counts is what a recount finds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from faulting import PAGE
from racing import Race, Uneven

from rmap.mm import bits
from rmap.mm.filemap import truncate
from rmap.mm.lru import isolate_lru_page, mark_page_accessed, put_page
from rmap.mm.madvise import do_madvise
from rmap.mm.memcg import mem_cgroup_create
from rmap.mm.memcg_move import mem_cgroup_move_task
from rmap.mm.mlock import do_mlock, do_munlock
from rmap.mm.mm_types import Task
from rmap.mm.mmap import vm_munmap
from rmap.mm.page import get_page_unless_zero
from rmap.mm.page_idle import page_idle_bitmap_read, page_idle_bitmap_write
from rmap.mm.shrink_page_list import ScanControl, shrink_page_list
from rmap.mm.swap_cache import end_swap_writes
from rmap.mm.swapoff import swapoff
from rmap.mm.vmscan import reclaim, reclaim_pages, shrink_active_list
from rmap.mm.writeback import write_cache_pages
from rmap.sync.explore import World, explore

RUNS = 80


def take(f: Race, page: int) -> None:
    """Reclaim one page, if it can be had."""
    if get_page_unless_zero(f.k, page):
        if isolate_lru_page(f.k, page) == 0:
            put_page(f.k, page)
            reclaim_pages(f.k, [page])
        else:
            put_page(f.k, page)


def kswapd(f: Race) -> Task:
    return Task("kswapd", 9, None, 0)


def reclaim_against_a_store(**quirks: bool) -> World:
    """A process on another CPU, which has the page in its TLB, writes while it is swapped out."""
    f = Race(**quirks)
    f.p.cpu = 1
    a = f.map(2)
    f.p.write(a, b"before")
    page = f.page(f.p, a)
    f.m.page_referenced([page])
    f.run("kswapd", kswapd(f), f.kthread(partial(take, f, page)))
    f.run("writer", f.p.task, f.store(a, b"after!"), f.load(a, 6))

    def finish() -> None:
        assert f.outcome["writer"] == b"after!"
        assert f.p.read(a, 6) == b"after!"

    return f.world(finish)


def reclaim_against_two_users(**quirks: bool) -> World:
    """Parent and child share the page that is reclaimed: one reads it, the other writes."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"shared")
    child = f.p.fork()
    child.cpu = 1
    page = f.page(f.p, a)
    f.m.page_referenced([page])
    f.run("kswapd", kswapd(f), f.kthread(partial(take, f, page)))
    f.run("parent", f.p.task, f.load(a, 6))
    f.run("child", child.task, f.store(a, b"S"), f.load(a, 6))

    def finish() -> None:
        assert f.outcome["parent"] == b"shared"
        assert f.outcome["child"] == b"Shared"
        assert (f.p.read(a, 6), child.read(a, 6)) == (b"shared", b"Shared")

    return f.world(finish)


def reclaim_against_exit(**quirks: bool) -> World:
    """The pages go while their process unmaps them."""
    f = Race(**quirks)
    a = f.map(3)
    f.p.write(a, b"x" * PAGE * 3)
    pages = f.p.pages(a, 3 * PAGE)
    f.m.page_referenced(pages)
    f.run("kswapd", kswapd(f), *(f.kthread(partial(take, f, page)) for page in pages))
    f.run("exit", f.p.task, lambda task: vm_munmap(f.k, f.p.mm, a, 3 * PAGE))

    def finish() -> None:
        f.m.reclaim(8)
        assert f.k.swap_areas[0].inuse == 0

    return f.world(finish)


def two_reclaimers(**quirks: bool) -> World:
    """Two CPUs reclaim from the same lists."""
    f = Race(**quirks)
    a = f.map(4)
    f.p.write(a, b"".join(b"%d" % i + bytes(PAGE - 1) for i in range(4)))
    f.m.page_referenced(f.p.pages(a, 4 * PAGE))
    f.m.age(8)
    for cpu in (0, 1):
        task = Task(f"reclaim{cpu}", 9 + cpu, None, cpu)
        f.run(f"cpu{cpu}", task, f.kthread(lambda: reclaim(f.k, None, 4)))

    def finish() -> None:
        for i in range(4):
            assert f.p.read(a + i * PAGE, 1) == b"%d" % i
        assert f.stat("NR_ISOLATED") == 0

    return f.world(finish)


def lazyfree_against_a_store(**quirks: bool) -> World:
    """A store after MADV_FREE takes the page back, whenever reclaim comes by."""
    f = Race(**quirks)
    f.p.cpu = 1
    a = f.map(1)
    f.p.write(a, b"old")
    f.p.madvise(a, PAGE, "free")
    page = f.page(f.p, a)
    f.run("kswapd", kswapd(f), f.kthread(partial(take, f, page)))
    f.run("writer", f.p.task, f.store(a, b"new"), f.load(a, 3))

    def finish() -> None:
        assert f.outcome["writer"] == b"new"
        assert f.p.read(a, 3) == b"new"

    return f.world(finish)


def aging_against_use(**quirks: bool) -> World:
    """Active pages are moved to the inactive list while they are used, activated and unmapped."""
    f = Race(**quirks)
    a = f.map(3)
    f.p.write(a, b"x" * PAGE * 3)
    pages = f.p.pages(a, 3 * PAGE)
    lruvec = f.k.root_lruvec
    sc = ScanControl(4, None)
    f.run(
        "kswapd",
        kswapd(f),
        f.kthread(lambda: shrink_active_list(f.k, 4, lruvec, sc, bits.LRU_ACTIVE_ANON)),
    )
    f.run(
        "user",
        f.thread(f.p, 1),
        f.kthread(lambda: mark_page_accessed(f.k, pages[0])),
        f.store(a, b"y"),
        lambda task: do_madvise(f.k, f.p.mm, a + PAGE, PAGE, bits.MADV_DONTNEED),
    )

    def finish() -> None:
        assert f.p.read(a, 1) == b"y"
        assert f.p.read(a + PAGE, 1) == b"\0"

    return f.world(finish)


def writeback_against_a_store(**quirks: bool) -> World:
    """What is stored while the file is written is in the file, or the page is dirty again."""
    f = Race(**quirks)
    data = f.file(2)
    a = f.map(2, kind="file", file=data)
    f.p.write(a, b"one")
    mapping = data.file.f_mapping
    f.run("flusher", kswapd(f), f.kthread(lambda: write_cache_pages(f.k, mapping)))
    f.run("writer", f.thread(f.p, 1), f.store(a, b"two"), f.store(a + PAGE, b"new"))

    def finish() -> None:
        for index, expected in ((0, b"two"), (1, b"new")):
            page = data.cached[index]
            dirty = f.flags(page, bits.PG_dirty)
            assert dirty or mapping.backing[index] == expected
        f.m.writeback()
        assert (mapping.backing[0], mapping.backing[1]) == (b"two", b"new")

    return f.world(finish)


def reclaim_of_a_file_against_a_store(**quirks: bool) -> World:
    """A clean page of a file is taken while another CPU writes to it through a mapping."""
    f = Race(**quirks)
    data = f.file(1, content=b"on disk")
    a = f.map(1, kind="file", file=data)
    f.p.read(a, 1)
    page = f.page(f.p, a)
    f.m.page_referenced([page])
    f.k.pg_flags[page] &= ~bits.PG_referenced
    f.run("kswapd", kswapd(f), f.kthread(partial(take, f, page)))
    f.run("writer", f.thread(f.p, 1), f.store(a, b"IN"), f.load(a, 7))

    def finish() -> None:
        assert f.outcome["writer"] == b"IN disk"
        f.m.writeback()
        assert data.file.f_mapping.backing[0] == b"IN disk"

    return f.world(finish)


def swap_writes_end_late(**quirks: bool) -> World:
    """A page is faulted in, written to and dropped while its write to swap goes on."""
    f = Race(**quirks)
    area = f.k.swap_areas[0]
    area.deferred = True
    a = f.map(1)
    f.p.write(a, b"first")
    page = f.page(f.p, a)
    f.m.page_referenced([page])
    with f.m.kthread("kswapd"):
        take(f, page)
    f.run("disk", kswapd(f), f.kthread(lambda: end_swap_writes(f.k, area)))
    f.run("user", f.thread(f.p, 1), f.store(a, b"next!"), f.load(a, 5))

    def finish() -> None:
        assert f.outcome["user"] == b"next!"
        assert f.p.read(a, 5) == b"next!"

    return f.world(finish)


def swapoff_against_everybody(*, pinned: bool = True, **quirks: bool) -> World:
    """Swap is taken away while a process reads, another writes, and a third goes."""
    f = Race(swap_device_pinned=pinned, **quirks)
    a = f.map(2)
    f.p.write(a, b"0" + bytes(PAGE - 1) + b"1")
    child, third = f.p.fork(), f.p.fork()
    child.cpu = 1
    for page in f.p.pages(a, 2 * PAGE):
        f.page_out(page)
    assert f.p.pages(a, 2 * PAGE) == [0, 0]
    f.run("swapoff", kswapd(f), f.kthread(lambda: swapoff(f.k, 0)))
    f.run("reader", f.p.task, f.load(a, 1))
    f.run("writer", child.task, f.store(a, b"w"), f.load(a + PAGE, 1))
    f.run("goner", third.task, lambda task: vm_munmap(f.k, third.mm, a, PAGE))

    def finish() -> None:
        assert f.outcome["swapoff"] == 0
        assert (f.outcome["reader"], f.outcome["writer"]) == (b"0", b"1")
        assert (f.p.read(a, 1), child.read(a, 1), third.read(a + PAGE, 1)) == (b"0", b"w", b"1")

    return f.world(finish)


def idle_tracking_against_use(**quirks: bool) -> World:
    """Pages are marked idle and looked at while they are used and reclaimed."""
    f = Race(**quirks)
    a = f.map(2)
    f.p.write(a, b"x" * PAGE * 2)
    pages = f.p.pages(a, 2 * PAGE)
    f.run(
        "tracker",
        kswapd(f),
        *(f.kthread(partial(page_idle_bitmap_write, f.k, page)) for page in pages),
        *(f.kthread(partial(page_idle_bitmap_read, f.k, page)) for page in pages),
    )
    f.run("user", f.thread(f.p, 1), f.store(a, b"y"), f.load(a + PAGE, 1))
    f.run("reclaim", Task("reclaim", 10, None, 0), f.kthread(partial(take, f, pages[1])))

    def finish() -> None:
        assert f.p.read(a, 1) == b"y"
        assert f.p.read(a + PAGE, 1) == b"x"

    return f.world(finish)


def charges_move_under_a_locked_mapping(**quirks: bool) -> World:
    """Statistics of a cgroup are changed by who maps and unmaps while its charges move."""
    f = Race(**quirks)
    one = f.m.cgroup("one")
    two = mem_cgroup_create(f.k, "two", f.k.memcgs[0], -1)
    p = f.m.spawn("q", cgroup=one)
    data = f.file(2, content=b"y" * PAGE * 2)
    a = p.mmap(2 * PAGE, kind="file", file=data)
    p.read(a, 1)
    with f.m.running(p):
        assert do_mlock(f.k, p.mm, a, 2 * PAGE) == 0
    f.run("mover", kswapd(f), f.kthread(lambda: mem_cgroup_move_task(f.k, p.mm, two)))
    f.run(
        "user",
        f.thread(p, 1),
        f.store(a, b"z"),
        # This unmaps a page that is mlocked: PG_mlocked goes while the statistics are locked.
        lambda task: truncate(f.k, data.file, 1),
        lambda task: do_munlock(f.k, p.mm, a, 2 * PAGE),
        lambda task: vm_munmap(f.k, p.mm, a, 2 * PAGE),
    )

    def finish() -> None:
        for item in (bits.NR_FILE_MAPPED, bits.NR_FILE_DIRTY, bits.NR_FILE_PAGES):
            assert sum(memcg.stat[item] for memcg in f.k.memcgs) == f.k.vm_stat[item]
            assert min(memcg.stat[item] for memcg in f.k.memcgs) >= 0
        assert one.memcg.moving_account == 0

    return f.world(finish)


WORLDS = [
    reclaim_against_a_store,
    reclaim_against_two_users,
    reclaim_against_exit,
    two_reclaimers,
    lazyfree_against_a_store,
    aging_against_use,
    writeback_against_a_store,
    reclaim_of_a_file_against_a_store,
    swap_writes_end_late,
    swapoff_against_everybody,
    idle_tracking_against_use,
    charges_move_under_a_locked_mapping,
]


@pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_no_order_loses_anything(make: Callable[..., World], base: str) -> None:
    result = explore(partial(make, base=base), Uneven(11, RUNS))
    assert result.findings == [], str(result.findings[0])
    assert result.runs == RUNS


def test_until_5_3_a_fault_may_find_its_swap_area_gone() -> None:
    """The entry was read, and then everything was brought back and the area given up."""
    result = explore(partial(swapoff_against_everybody, pinned=False), Uneven(2, 400))
    errors = {finding.error.split(" (")[0] for finding in result.findings}
    assert errors
    assert errors <= {
        "KernelBug: swap_state.c:309 the swap cache of an area is looked into that is gone",
        "KernelBug: swapfile.c:1405 the slots of a swap area are counted that is gone",
    }


def test_reclaim_really_races() -> None:
    """The page is taken in some orders, and kept in others: the worlds above are no formality."""
    fates: set[str] = set()

    def world() -> World:
        f = Race()
        f.p.cpu = 1
        a = f.map(1)
        f.p.write(a, b"x")
        page = f.page(f.p, a)
        f.m.page_referenced([page])
        isolated: list[int] = []
        with f.m.kthread("kswapd"):
            assert isolate_lru_page(f.k, page) == 0
            isolated.append(page)
        sc = ScanControl(1, None)
        f.k.pg_flags[page] &= ~bits.PG_active
        f.run(
            "kswapd",
            kswapd(f),
            f.kthread(lambda: shrink_page_list(f.k, isolated, sc, 0, False)),
        )
        f.run("user", f.p.task, f.store(a, b"y"))

        def finish() -> None:
            stat = sc.result
            fates.add(
                "taken"
                if stat.reclaimed
                else "in use"
                if stat.activated and not stat.unmap_fail
                else "not unmapped"
                if stat.unmap_fail
                else "kept"
            )
            assert f.p.read(a, 1) == b"y"

        return World(f.cpus, finish)

    result = explore(world, Uneven(3, 300))
    assert result.findings == [], str(result.findings[0])
    assert {"taken", "in use"} <= fates

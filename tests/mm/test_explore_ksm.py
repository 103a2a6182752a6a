# SPDX-License-Identifier: GPL-2.0-only
"""ksmd against writes, exit, fork, reclaim and advice on another CPU, in orders drawn by lot.

Whatever the order, what is read is what was stored, and the walk of a merged page finds who maps it
as far as ksmd has come by.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from faulting import ARENA, PAGE
from racing import Race, Uneven

from rmap.mm import bits
from rmap.mm.clear_refs import clear_refs_write
from rmap.mm.exit import exit_mm
from rmap.mm.fork import dup_mm, mmput
from rmap.mm.ksm.scan import ksm_scan_thread, run_store
from rmap.mm.lru import isolate_lru_page, put_page
from rmap.mm.madvise import do_madvise
from rmap.mm.migrate.migrate import (
    MigrationTarget,
    isolate_for_migration,
    migrate_pages,
    putback_movable_pages,
)
from rmap.mm.mm_types import Mm, Task
from rmap.mm.page import PageKsm, get_page_unless_zero
from rmap.mm.page_referenced import PageReferencedArg, page_referenced
from rmap.mm.vmscan import reclaim_pages
from rmap.model import Process
from rmap.sync.explore import World, explore

RUNS = 60


class Ksmd(Race):
    """A machine with two processes that offer a page each, of the same contents, and ksmd."""

    def __init__(self, rounds: int = 1, **quirks: bool) -> None:
        super().__init__(**quirks)
        self.a = ARENA
        self.q = self.m.spawn("q", cpu=1)
        for process in (self.p, self.q):
            process.mmap(PAGE, addr=ARENA)
            process.write(ARENA, b"same")
            process.madvise(ARENA, PAGE, "mergeable")
        for _ in range(rounds):
            self.m.ksm.scan()

    def ksmd(self, *acts: Callable[[], object]) -> None:
        """Let ksmd go over everything, and then do other things."""
        task = Task("ksmd", 9, None, 0)
        scan = self.kthread(lambda: ksm_scan_thread(self.k, 1 << 20))
        self.run("ksmd", task, scan, *(self.kthread(act) for act in acts))

    def settle(self) -> None:
        """Afterwards ksmd has two more rounds in peace, and the walk finds everybody."""
        for _ in range(3):
            self.m.ksm.scan()
        for process in self.m.processes.values():
            for page in process.pages(ARENA, 1):
                if page and PageKsm(self.k, page):
                    found = {one.process for one in self.m.who_maps(page)}
                    assert found == {
                        one
                        for one in self.m.processes.values()
                        if one.vmas and one.pages(ARENA, 1) == [page]
                    }


def merge_against_write(**quirks: bool) -> World:
    """A write comes while the page is being merged: it goes to nobody else, and is not lost."""
    f = Ksmd(**quirks)
    f.run("writer", f.q.task, f.store(f.a, b"Q"), f.load(f.a, 4))
    f.ksmd()

    def finish() -> None:
        assert f.outcome["writer"] == b"Qame"
        assert f.p.read(f.a, 4) == b"same"
        assert f.q.read(f.a, 4) == b"Qame"
        f.settle()

    return f.world(finish)


def merge_against_two_writes(**quirks: bool) -> World:
    """Both sides write, to what may be merged already."""
    f = Ksmd(**quirks)
    f.run("p", f.p.task, f.store(f.a, b"P"), f.load(f.a, 4))
    f.run("q", f.q.task, f.store(f.a, b"Q"), f.load(f.a, 4))
    f.ksmd()

    def finish() -> None:
        assert (f.outcome["p"], f.outcome["q"]) == (b"Pame", b"Qame")
        f.settle()
        assert f.p.read(f.a, 4) == b"Pame"

    return f.world(finish)


def merge_against_exit(**quirks: bool) -> World:
    """A process exits while its page is being merged; later ksmd gives up what it kept of it."""
    f = Ksmd(**quirks)
    f.run("exit", f.q.task, lambda task: exit_mm(f.k, task))
    f.ksmd()

    def finish() -> None:
        assert f.p.read(f.a, 4) == b"same"
        assert not f.q.task.mm
        f.m.processes.pop(f.q.pid)
        f.settle()
        assert len(f.k.ksm.mm_slots) == 1
        assert f.k.ksm.rmap_items == 1

    return f.world(finish)


def merge_against_fork(**quirks: bool) -> World:
    """A process forks while its page is being merged."""
    f = Ksmd(**quirks)
    children: list[Mm] = []
    f.run("fork", f.q.task, lambda task: children.append(dup_mm(f.k, f.q.mm)))
    f.ksmd()

    def finish() -> None:
        (child,) = children
        process = f.m.adopt(child, "child", f.q.pid, 1)
        f.settle()
        assert process.read(f.a, 4) == b"same"
        process.write(f.a, b"C")
        assert (f.p.read(f.a, 4), f.q.read(f.a, 4)) == (b"same", b"same")
        process.exit()
        f.settle()

    return f.world(finish)


def merge_against_reclaim(**quirks: bool) -> World:
    """Reclaim has one of the pages isolated, and takes it out of page tables."""
    f = Ksmd(**quirks)
    page = f.page(f.q, f.a)
    f.m.page_referenced([page])

    def take() -> None:
        if isolate_lru_page(f.k, page) == 0:
            reclaim_pages(f.k, [page])

    f.run("kswapd", Task("kswapd", 8, None, 1), f.kthread(take))
    f.ksmd()

    def finish() -> None:
        assert (f.p.read(f.a, 4), f.q.read(f.a, 4)) == (b"same", b"same")
        f.settle()

    return f.world(finish)


def merge_against_aging(**quirks: bool) -> World:
    """Reclaim asks who used the two pages, without their locks, while ksmd makes them one.

    Whichever it takes them for, it comes to VMAs, and does no more there than clear a bit.
    """
    f = Ksmd(**quirks)
    pages = f.page(f.p, f.a), f.page(f.q, f.a)

    def ask() -> None:
        for page in pages:
            if get_page_unless_zero(f.k, page):
                page_referenced(f.k, page, False, None, PageReferencedArg())
                put_page(f.k, page)

    f.run("kswapd", Task("kswapd", 8, None, 1), f.kthread(ask))
    f.ksmd()

    def finish() -> None:
        assert (f.p.read(f.a, 4), f.q.read(f.a, 4)) == (b"same", b"same")
        f.settle()

    return f.world(finish)


def reclaim_of_a_merged_page_against_writes(**quirks: bool) -> World:
    """A page is unmapped from all its places while one of them writes and ksmd comes by."""
    f = Ksmd(rounds=2, **quirks)
    page = f.page(f.q, f.a)
    assert f.page(f.p, f.a) == page
    f.m.page_referenced([page])

    def take() -> None:
        if isolate_lru_page(f.k, page) == 0:
            reclaim_pages(f.k, [page])

    f.run("kswapd", Task("kswapd", 8, None, 0), f.kthread(take))
    f.run("writer", f.q.task, f.store(f.a, b"Q"), f.load(f.a, 4))
    f.ksmd()

    def finish() -> None:
        assert f.outcome["writer"] == b"Qame"
        assert f.p.read(f.a, 4) == b"same"
        f.settle()

    return f.world(finish)


def move(f: Ksmd, page: int) -> Callable[[], object]:
    """Let a page move to another frame, if it can."""

    def moving() -> None:
        if get_page_unless_zero(f.k, page):
            pages: list[int] = []
            if isolate_for_migration(f.k, page) == 0:
                pages.append(page)
            put_page(f.k, page)
            migrate_pages(f.k, pages, MigrationTarget(), bits.MIGRATE_SYNC, bits.MR_SYSCALL)
            putback_movable_pages(f.k, pages)

    return moving


def merge_against_migration(**quirks: bool) -> World:
    """One of the pages moves while it is being merged."""
    f = Ksmd(**quirks)
    f.run("move", Task("move", 8, None, 1), f.kthread(move(f, f.page(f.q, f.a))))
    f.ksmd()

    def finish() -> None:
        assert (f.p.read(f.a, 4), f.q.read(f.a, 4)) == (b"same", b"same")
        f.settle()

    return f.world(finish)


def merged_page_moves_under_ksmd_and_a_write(**quirks: bool) -> World:
    """A merged page moves while another page is merged into it, and one of its places writes."""
    f = Ksmd(rounds=2, **quirks)
    r: Process = f.m.spawn("r", cpu=1)
    r.mmap(PAGE, addr=ARENA)
    r.write(ARENA, b"same")
    r.madvise(ARENA, PAGE, "mergeable")
    f.run("move", Task("move", 8, None, 1), f.kthread(move(f, f.page(f.q, f.a))))
    f.run("writer", f.q.task, f.store(f.a, b"Q"), f.load(f.a, 4))
    f.ksmd()

    def finish() -> None:
        assert f.outcome["writer"] == b"Qame"
        assert (f.p.read(f.a, 4), r.read(f.a, 4)) == (b"same", b"same")
        f.settle()

    return f.world(finish)


def merge_against_dontneed(**quirks: bool) -> World:
    """The page is given back while it is being merged."""
    f = Ksmd(**quirks)
    f.run("giver", f.q.task, lambda t: do_madvise(f.k, f.q.mm, f.a, PAGE, bits.MADV_DONTNEED))
    f.ksmd()

    def finish() -> None:
        assert f.p.read(f.a, 4) == b"same"
        assert f.q.read(f.a, 4) == bytes(4)
        f.settle()

    return f.world(finish)


def merge_against_lazyfree_and_soft_dirty(**quirks: bool) -> World:
    """What D23 was about: entries are made clean and read-only, and a write comes late."""
    f = Ksmd(**quirks)
    f.q.clear_refs("soft-dirty")
    f.q.write(f.a, b"same")
    f.run(
        "free",
        Task("free", 8, f.q.mm, 1),
        lambda t: do_madvise(f.k, f.q.mm, f.a, PAGE, bits.MADV_FREE),
    )
    f.run(
        "criu",
        Task("criu", 7, None, 0),
        f.kthread(lambda: clear_refs_write(f.k, f.q.mm, bits.CLEAR_REFS_SOFT_DIRTY)),
    )
    f.run("writer", f.q.task, f.store(f.a, b"Q"), f.load(f.a, 4))
    f.ksmd()

    def finish() -> None:
        assert f.outcome["writer"] == b"Qame"
        assert f.p.read(f.a, 4) == b"same"
        assert f.q.read(f.a, 4) == b"Qame"
        f.settle()

    return f.world(finish)


def unmerge_against_exit_is_expected(**quirks: bool) -> World:
    """The next one without a warning."""
    return unmerge_against_writes_and_exit(ksm_expects_exit=True, **quirks)


def unmerge_against_writes_and_exit(**quirks: bool) -> World:
    """Everything is taken apart while one writes and another exits."""
    f = Ksmd(rounds=2, **quirks)
    r: Process = f.m.spawn("r", cpu=1)
    r.mmap(PAGE, addr=ARENA)
    r.write(ARENA, b"same")
    r.madvise(ARENA, PAGE, "mergeable")
    for _ in range(2):
        f.m.ksm.scan()
    f.run("writer", f.q.task, f.store(f.a, b"Q"), f.load(f.a, 4))
    f.run("exit", r.task, lambda task: exit_mm(f.k, task))
    f.run(
        "sysfs",
        Task("sysfs", 9, None, 0),
        f.kthread(lambda: run_store(f.k, bits.KSM_RUN_UNMERGE)),
    )

    def finish() -> None:
        f.m.processes.pop(r.pid)
        assert f.outcome["writer"] == b"Qame"
        assert f.outcome["sysfs"] == 0
        assert f.p.read(f.a, 4) == b"same"
        assert f.k.ksm.rmap_items == 0
        for process in (f.p, f.q):
            assert not PageKsm(f.k, f.page(process, f.a))

    return f.world(finish)


WORLDS = [
    merge_against_write,
    merge_against_two_writes,
    merge_against_exit,
    merge_against_fork,
    merge_against_reclaim,
    merge_against_aging,
    reclaim_of_a_merged_page_against_writes,
    merge_against_migration,
    merged_page_moves_under_ksmd_and_a_write,
    merge_against_dontneed,
    merge_against_lazyfree_and_soft_dirty,
    unmerge_against_exit_is_expected,
]


@pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_no_order_loses_anything(make: Callable[..., World], base: str) -> None:
    result = explore(partial(make, base=base), Uneven(7, RUNS))
    assert result.runs == RUNS
    assert result.findings == [], str(result.findings[0])


def test_unmerging_meets_a_page_that_an_exiting_process_maps_yet() -> None:
    """ksmd has dropped the items of a process that has no users, and whose pages are yet to go.

    v4.18 warned of what can happen; 9a63236f1ad8 (5.4) lets it.
    """
    result = explore(unmerge_against_writes_and_exit, Uneven(1, RUNS))
    (finding,) = result.findings
    assert "ksm.c remove_stable_node: the page is mapped" in finding.error


def test_nothing_but_mmput_is_left_of_a_child_that_nobody_adopts() -> None:
    """The child of `merge_against_fork`, if it is thrown away by hand."""
    f = Ksmd(rounds=2)
    child = dup_mm(f.k, f.q.mm)
    assert child.mm_count == 2
    mmput(f.k, child)
    assert child.mm_count == 0
    assert len(f.k.ksm.mm_slots) == 2

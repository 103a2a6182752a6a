# SPDX-License-Identifier: GPL-2.0-only
"""Memory that breaks while others use it, in orders drawn by lot.

Whoever had the page is told, now or when he comes to it; whoever got a copy in time has it; and a
page that is broken is never in a page table when all is over.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from faulting import PAGE, Faulting
from racing import Race, Uneven

from rmap.mm import bits
from rmap.mm.exit import exit_mm
from rmap.mm.filemap import truncate
from rmap.mm.fork import dup_mm
from rmap.mm.madvise import do_madvise
from rmap.mm.memory_failure import memory_failure, unpoison_memory
from rmap.mm.mm_types import Mm, Task
from rmap.mm.mremap import do_mremap
from rmap.model import BrokenMemory, BusError
from rmap.sync.bits import RANK_KSM_THREAD
from rmap.sync.explore import World, explore
from rmap.sync.locks import SpinLock

RUNS = 60


def caught(act: Callable[[Task], object]) -> Callable[[Task], object]:
    """The same act; broken memory is its outcome, not its end."""

    def step(task: Task) -> object:
        try:
            return act(task)
        except BusError as error:
            return type(error).__name__

    return step


def breaks(f: Race, page: int) -> None:
    """Let a page break on a CPU of its own."""
    f.run("scrubber", Task("scrubber", 9, None, 1), f.kthread(lambda: memory_failure(f.k, page, 0)))


def told(f: Faulting) -> set[str]:
    """Who was sent a signal."""
    return {str(kill.task.name) for kill in f.k.kills}


def against_cow(**quirks: bool) -> World:
    """The child writes: to a copy that it made before, or it meets the poison."""
    f = Race(**quirks)
    f.m.early_kill = True
    a = f.map(1)
    f.p.write(a, b"shared")
    child = f.p.fork("child")
    child.cpu = 0
    page = f.page(f.p, a)
    breaks(f, page)
    f.run("child", child.task, caught(f.store(a, b"C")), caught(f.load(a, 6)))

    def finish() -> None:
        assert f.outcome["child"] in (b"Chared", "BrokenMemory")
        # A copy made in the middle of it is a good one, and nobody was the worse for the news.
        assert "p" in told(f)
        assert told(f) <= {"p", "child"}
        if f.outcome["child"] == "BrokenMemory":
            assert told(f) == {"p", "child"}
        assert f.page(f.p, a) == 0
        with pytest.raises(BrokenMemory):
            f.p.read(a, 1)

    return f.world(finish)


def against_exit(**quirks: bool) -> World:
    """The last process that has it goes: then the page is free, or kept."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    breaks(f, page)
    f.run("exit", f.p.task, lambda task: exit_mm(f.k, task))

    def finish() -> None:
        free = f.counts(page) == (0, 0)
        assert free or f.counts(page) == (0, 1)
        assert f.flags(page, bits.PG_hwpoison)
        f.k.tasks.remove(f.p.task)
        del f.m.processes[f.p.pid]

    return f.world(finish)


def against_fork(**quirks: bool) -> World:
    """A child that comes in the middle has the page, or the poison, and never the broken page."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    made: list[Mm] = []
    breaks(f, page)
    f.run("fork", f.p.task, lambda task: made.append(dup_mm(f.k, task.mm)))

    def finish() -> None:
        child = f.m.adopt(made[0], "child", 1)
        for p in (f.p, child):
            with pytest.raises(BrokenMemory):
                p.read(a, 1)
        assert f.counts(page) == (0, 1)

    return f.world(finish)


def against_mremap(seen: set[bool] | None = None, **quirks: bool) -> World:
    """The page moves to another address: it is found at the old one, at the new one, or missed.

    For a moment it is in neither entry, and try_to_unmap() looks without a lock: then it comes to
    nothing (v4.18 has no TTU_SYNC).
    """
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    seen = set() if seen is None else seen
    there = a + 64 * PAGE
    move = bits.MREMAP_MAYMOVE | bits.MREMAP_FIXED
    breaks(f, page)
    f.run("mremap", f.p.task, lambda task: do_mremap(f.k, task.mm, a, PAGE, PAGE, move, there))

    def finish() -> None:
        missed = f.page(f.p, there) == page
        seen.add(missed)
        if missed:
            assert f.outcome["scrubber"] == -bits.EBUSY
        else:
            assert f.outcome["scrubber"] == 0
            with pytest.raises(BrokenMemory):
                f.p.read(there, 1)

    return f.world(finish)


def against_reclaim(**quirks: bool) -> World:
    """Reclaim swaps it out: then its contents are safe, or they are lost, and that is known."""
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"kept")
    page = f.page(f.p, a)
    breaks(f, page)
    f.run("kswapd", Task("kswapd", 8, None, 0), f.kthread(lambda: f.page_out(page)))

    def finish() -> None:
        with suppress(BrokenMemory):
            assert f.p.read(a, 4) == b"kept"
        assert f.page(f.p, a) != page

    return f.world(finish)


def against_truncation(**quirks: bool) -> World:
    """The file is cut off before the page: nothing is left of it either way."""
    f = Race(**quirks)
    file = f.file(shmem=False, content=b"disk")
    a = f.map(2, kind="file", file=file)
    f.p.read(a, 1)
    page = f.page(f.p, a)
    breaks(f, page)
    f.run("truncate", Task("truncate", 8, None, 0),
          f.kthread(lambda: truncate(f.k, file.file, 0)))  # fmt: skip

    def finish() -> None:
        with pytest.raises(BusError):
            f.p.read(a, 1)
        assert file.cached == {}

    return f.world(finish)


def against_a_write_to_a_clean_file(**quirks: bool) -> World:
    """Nothing is lost of a clean page, unless it is written to in time to be lost."""
    f = Race(**quirks)
    f.m.early_kill = True
    file = f.file(content=b"disk")
    a = f.map(2, kind="file", file=file)
    f.p.read(a, 1)
    page = f.page(f.p, a)
    breaks(f, page)
    f.run("writer", f.p.task, caught(f.store(a, b"D")), caught(f.load(a, 4)))

    def finish() -> None:
        assert f.outcome["writer"] in (b"Disk", "BrokenMemory")
        assert f.page(f.p, a) != page
        if f.k.kills:
            with pytest.raises(BrokenMemory):
                f.p.read(a, 1)
        else:
            assert f.p.read(a, 4) == b"Disk"

    return f.world(finish)


def against_unpoisoning(excluded: bool = False, **quirks: bool) -> World:
    """Taken back before memory_failure() has it locked, while nobody else has it.

    `excluded`: each of the two has a mutex while it is at it.
    """
    f = Race(**quirks)
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    mutex = SpinLock(RANK_KSM_THREAD, 1)

    def alone(act: Callable[[], int]) -> int:
        if not excluded:
            return act()
        mutex.lock()
        result = act()
        mutex.unlock()
        return result

    fails = f.kthread(lambda: alone(lambda: memory_failure(f.k, page, 0)))
    taken_back = f.kthread(lambda: alone(lambda: unpoison_memory(f.k, page)))
    f.run("scrubber", Task("scrubber", 9, None, 1), fails)
    f.run("dontneed", f.p.task, lambda task: do_madvise(f.k, task.mm, a, PAGE, bits.MADV_DONTNEED),
          taken_back)  # fmt: skip
    return f.world(lambda: None)


WORLDS = [
    against_cow,
    against_exit,
    against_fork,
    against_mremap,
    against_reclaim,
    against_truncation,
    against_a_write_to_a_clean_file,
]


@pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_no_order_leaves_broken_memory_in_use(make: Callable[..., World], base: str) -> None:
    result = explore(partial(make, base=base), Uneven(7, RUNS))
    assert result.runs == RUNS
    assert result.findings == [], str(result.findings[0])


def test_a_page_between_two_addresses_is_missed_now_and_then() -> None:
    seen: set[bool] = set()
    explore(partial(against_mremap, seen), Uneven(7, RUNS))
    assert seen == {False, True}


def test_unpoisoning_takes_a_reference_that_is_not_there_to_be_taken() -> None:
    """Until 5.17 nothing kept the two apart: both give the same reference back.

    Fixed by 91d005479e06, which lets them have a mutex in common.
    """
    result = explore(against_unpoisoning, Uneven(7, RUNS))
    assert any("without references" in finding.error for finding in result.findings)
    repaired = explore(partial(against_unpoisoning, excluded=True), Uneven(7, RUNS))
    assert repaired.findings == [], str(repaired.findings[0])

# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages while another CPU does something to them, in orders drawn by lot.

Whatever the order, what is read afterwards must be what some order of whole operations would have
left, and all that the kernel counts must be what a recount finds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from faulting import PAGE
from huge import HUGE
from racing import Race, Uneven

from rmap.mm import bits
from rmap.mm.fork import dup_mm, mmput
from rmap.mm.lru import put_page
from rmap.mm.madvise import do_madvise
from rmap.mm.migrate.entries import remove_migration_ptes
from rmap.mm.mm_types import Mm
from rmap.mm.page import get_page, lock_page, unlock_page
from rmap.mm.pgtable import pmd_offset, pmd_trans_huge, pte_lock, pte_pfn, pte_unlock
from rmap.mm.unmap import try_to_unmap
from rmap.model import Process
from rmap.sync.explore import World, explore

RUNS = 12
AT = 64 * HUGE * PAGE
MIGRATE = bits.TTU_MIGRATION | bits.TTU_IGNORE_MLOCK | bits.TTU_IGNORE_ACCESS


class HugeRace(Race):
    """A machine whose CPUs run at once, and whose memory is huge."""

    def __init__(self, **quirks: bool) -> None:
        super().__init__(ram=8 * HUGE, max_steps=60_000, **quirks)
        self.m.thp.enabled = "always"
        self.a = int(self.p.mmap(HUGE * PAGE, addr=AT))

    def head(self, p: Process) -> int:
        """The huge page that a PMD of the process maps, or 0."""
        pmd = self.k.pt[pmd_offset(self.k, p.mm, AT)]
        return int(pte_pfn(pmd)) if pmd_trans_huge(pmd) else 0


def first_touch_twice(**quirks: bool) -> World:
    """Two threads write to different pages for the first time."""
    f = HugeRace(**quirks)
    for cpu in (0, 1):
        at = f.a + 7 * cpu * PAGE
        f.run(f"t{cpu}", f.thread(f.p, cpu), f.store(at, b"x"), f.load(at, 1))

    def finish() -> None:
        assert f.outcome == {"t0": b"x", "t1": b"x"}
        assert (f.p.read(f.a, 1), f.p.read(f.a + 7 * PAGE, 1)) == (b"x", b"x")
        assert f.head(f.p)
        assert f.rss(f.p)[1] == HUGE

    return f.world(finish)


def first_read_against_first_write(**quirks: bool) -> World:
    """One thread finds zeros, the huge zero page or its successor; the other one's store stays."""
    f = HugeRace(**quirks)
    f.run("reader", f.thread(f.p, 0), f.load(f.a, 1))
    f.run("writer", f.thread(f.p, 1), f.store(f.a + PAGE, b"w"), f.load(f.a, 1))

    def finish() -> None:
        assert f.outcome == {"reader": b"\0", "writer": b"\0"}
        assert f.p.read(f.a + PAGE, 1) == b"w"

    return f.world(finish)


def cow_against_cow(**quirks: bool) -> World:
    """Parent and child write to the huge page they share."""
    f = HugeRace(**quirks)
    f.p.write(f.a + PAGE, b"shared..")
    child = f.p.fork()
    child.cpu = 1
    f.run("parent", f.p.task, f.store(f.a + PAGE, b"P"), f.load(f.a + PAGE, 8))
    f.run("child", child.task, f.store(f.a + PAGE + 1, b"C"), f.load(f.a + PAGE, 8))

    def finish() -> None:
        assert f.outcome == {"parent": b"Phared..", "child": b"sCared.."}

    return f.world(finish)


def write_against_dontneed_of_other_parts(**quirks: bool) -> World:
    """A thread writes while another one gives other parts of the huge page back."""
    f = HugeRace(**quirks)
    f.p.write(f.a, b"gone")
    f.p.write(f.a + 9 * PAGE, b"old")
    f.run("writer", f.thread(f.p, 1), f.store(f.a + 9 * PAGE, b"n"), f.load(f.a + 9 * PAGE, 3))
    f.run(
        "giver",
        f.thread(f.p, 0),
        lambda task: do_madvise(f.k, f.p.mm, f.a, 8 * PAGE, bits.MADV_DONTNEED),
    )

    def finish() -> None:
        assert f.outcome["writer"] == b"nld"
        assert (f.p.read(f.a, 4), f.p.read(f.a + 9 * PAGE, 3)) == (bytes(4), b"nld")
        assert f.head(f.p) == 0

    return f.world(finish)


def write_against_a_move_that_is_given_up(**quirks: bool) -> World:
    """A thread writes while somebody puts a migration entry in the place of the PMD, and back."""
    f = HugeRace(**quirks)
    f.p.write(f.a, b"old")
    head = f.head(f.p)

    def move() -> None:
        get_page(f.k, head)
        lock_page(f.k, head)
        try_to_unmap(f.k, head, MIGRATE)
        remove_migration_ptes(f.k, head, head, False)
        unlock_page(f.k, head)
        put_page(f.k, head)

    f.run("writer", f.thread(f.p, 1), f.store(f.a, b"n"), f.load(f.a, 3))
    f.run("mover", f.m.spawn("kthread").task, f.kthread(move))

    def finish() -> None:
        assert f.outcome["writer"] == b"nld"
        assert f.head(f.p) == head

    return f.world(finish)


def write_against_fork(**quirks: bool) -> World:
    """A thread writes while another one forks: the child has it or has it not, and keeps that."""
    f = HugeRace(**quirks)
    f.p.write(f.a, b"old")
    children: list[Mm] = []
    f.run("writer", f.thread(f.p, 1), f.store(f.a, b"1"), f.store(f.a + 1, b"2"))
    f.run("forker", f.thread(f.p, 0), lambda task: children.append(dup_mm(f.k, f.p.mm)))

    def finish() -> None:
        (mm,) = children
        pmd = f.k.pt[pmd_offset(f.k, mm, f.a)]
        seen = f.k.content.get(int(pte_pfn(pmd)), b"") if pmd_trans_huge(pmd) else b"old"
        assert seen in (b"old", b"1ld", b"12d")
        assert f.p.read(f.a, 3) == b"12d"
        with f.m.kthread("exit") as k:
            mmput(k, mm)

    return f.world(finish)


def access_against_a_page_lock(*, write: bool, **quirks: bool) -> World:
    """An access that needs the page lock, while somebody has it, and changes the PMD meanwhile."""
    f = HugeRace(**quirks)
    f.p.write(f.a, b"old")
    head = f.head(f.p)
    child = f.p.fork()
    child.cpu = 1
    slot = pmd_offset(f.k, f.p.mm, f.a)

    def hold() -> None:
        get_page(f.k, head)
        lock_page(f.k, head)
        # Aging does so, without the page lock even.
        pte_lock(f.k, slot)
        f.k.pt[slot] &= ~bits._PAGE_ACCESSED
        pte_unlock(f.k, slot)
        unlock_page(f.k, head)
        put_page(f.k, head)

    if not write:
        f.k.pt[slot] = f.k.pt[slot] & ~1 | bits._PAGE_PROTNONE
    act = f.store(f.a, b"n") if write else f.load(f.a, 1)
    f.run("user", f.p.task, act, f.load(f.a, 3))
    f.run("holder", f.m.spawn("kthread").task, f.kthread(hold))

    def finish() -> None:
        assert f.outcome["user"] == (b"nld" if write else b"old")
        assert child.read(f.a, 3) == b"old"

    return f.world(finish)


def write_against_a_page_lock(**quirks: bool) -> World:
    """A write to a shared huge page, which somebody has locked."""
    return access_against_a_page_lock(write=True, **quirks)


def hint_against_a_page_lock(**quirks: bool) -> World:
    """A read through a PMD that forbids it as a hint, of a page that somebody has locked."""
    return access_against_a_page_lock(write=False, **quirks)


WORLDS: list[Callable[..., World]] = [
    first_touch_twice,
    first_read_against_first_write,
    cow_against_cow,
    write_against_dontneed_of_other_parts,
    write_against_a_move_that_is_given_up,
    write_against_fork,
    write_against_a_page_lock,
    hint_against_a_page_lock,
]


@pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_no_order_of_two_cpus_breaks_a_huge_page(make: Callable[..., World], base: str) -> None:
    result = explore(partial(make, base=base), Uneven(7, RUNS))
    assert result.runs == RUNS
    assert result.findings == [], str(result.findings[0])

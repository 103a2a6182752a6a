# SPDX-License-Identifier: GPL-2.0-only
"""Merged pages meet huge pages, migration, compaction, broken memory and the zero page's mlock."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE
from merging import Merging
from test_rmap_walk import Visitor

from rmap.mm import bits
from rmap.mm.bug import KernelBug
from rmap.mm.lru import isolate_lru_page, putback_lru_page
from rmap.mm.page import (
    PageTransCompound,
    lock_page,
    trylock_page,
    unlock_page,
)
from rmap.mm.rmap_walk import rmap_walk, rmap_walk_locked
from rmap.mm.unmap import try_to_munlock
from rmap.model import Process

PROFILES = ("4.18", "6.1", "6.12")
HUGE = 512


@pytest.fixture(params=PROFILES)
def f(request: pytest.FixtureRequest) -> Merging:
    return Merging(base=request.param)


# ---------------------------------------------------------------- huge pages


def huge(base: str, *contents: tuple[int, bytes]) -> tuple[Merging, Process]:
    """A process with one huge page, mergeable, some of whose parts hold something."""
    f = Merging(ram=4096, base=base)
    f.m.thp.enabled = "always"
    p = f.m.spawn("huge")
    p.mmap(HUGE * PAGE, addr=ARENA)
    for i, content in contents:
        p.write(f.at(i), content)
    assert PageTransCompound(f.k, f.of(p))
    p.madvise(ARENA, HUGE * PAGE, "mergeable")
    return f, p


@pytest.mark.parametrize("base", PROFILES)
def test_a_huge_page_is_split_before_a_part_of_it_is_merged(base: str) -> None:
    f, p = huge(base, *((i, b"%d" % i) for i in range(HUGE)))
    f.rounds(3)
    # Nothing equal was found: it is whole still.
    assert f.counted() == (0, 0, HUGE, 0)
    assert PageTransCompound(f.k, f.of(p))
    q = f.m.spawn("small")
    q.mmap(PAGE, addr=ARENA)
    q.write(ARENA, b"7")
    q.madvise(ARENA, PAGE, "mergeable")
    f.rounds(3)
    assert f.of(q) == f.of(p, 7)
    assert not PageTransCompound(f.k, f.of(p))
    assert f.counted()[:2] == (1, 1)
    assert p.read(f.at(8), 1) == b"8"
    assert f.sound()
    assert f.gone()


def test_two_parts_of_one_huge_page_are_merged_after_it_is_split() -> None:
    """ksmd has a reference to both, by which the split fails; with one it works."""
    contents = [(i, b"%d" % i) for i in range(HUGE)]
    contents[9] = 9, b"5"
    f, p = huge("4.18", *contents)
    f.rounds(2)
    assert not PageTransCompound(f.k, f.of(p))
    assert f.of(p, 5) != f.of(p, 9)
    f.rounds(2)
    assert f.of(p, 5) == f.of(p, 9)
    assert f.counted()[:2] == (1, 1)
    assert f.sound()
    assert f.gone()


def test_a_huge_page_that_is_pinned_is_not_split_and_not_merged() -> None:
    f, p = huge("4.18", (3, b"x"))
    q = f.m.spawn("small")
    q.mmap(PAGE, addr=ARENA)
    q.write(ARENA, b"x")
    q.madvise(ARENA, PAGE, "mergeable")
    with p.pin(f.at(3), PAGE):
        f.rounds(3)
        assert PageTransCompound(f.k, f.of(p))
        assert f.of(q) != f.of(p, 3)
        assert f.sound()
    f.rounds(3)
    assert f.of(q) == f.of(p, 3)
    assert f.sound()
    assert f.gone()


# ---------------------------------------------------------------- moving


def test_a_merged_page_moves_and_its_places_with_it(f: Merging) -> None:
    p, q = f.offer(b"same", name="P"), f.offer(b"same", name="Q")
    f.rounds()
    d = q.fork("D")
    old = f.of(p)
    node = f.node(old)
    f.m.migrate([old])
    new = f.of(p)
    assert new not in (0, old)
    assert f.of(q) == f.of(d) == new
    assert f.node(new) is node
    assert node.kpfn == new
    assert f.k.pg_mapping[old] == 0
    assert f.counts(new) == (3, 3)
    assert set(f.walked(new)) == {("P", 0), ("Q", 0), ("D", 0)}
    d.write(ARENA, b"D")
    assert (p.read(ARENA, 4), d.read(ARENA, 4)) == (b"same", b"Dame")
    r = f.offer(b"same", name="R")
    f.rounds()
    assert f.of(r) == new
    assert f.sound()
    assert f.gone()


def test_a_place_that_no_walk_finds_keeps_the_page_from_moving() -> None:
    f = Merging()
    p, _q = f.offer(b"same", name="P"), f.offer(b"same", name="Q")
    f.rounds()
    child = p.fork("child")
    p.write(ARENA, b"mine")
    f.m.ksm.scan(1)
    page = f.of(child)
    assert ("child", 0) not in f.walked(page)
    f.m.migrate([page])
    assert f.of(child) == page
    assert child.read(ARENA, 4) == b"same"
    f.rounds(1)
    f.m.migrate([page])
    assert f.of(child) not in (0, page)
    assert child.read(ARENA, 4) == b"same"
    assert f.sound()
    assert f.gone()


# ---------------------------------------------------------------- others


def test_broken_memory_under_a_merged_page_cannot_be_dealt_with() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page = f.of(p)
    f.m.memory_failure(page)
    # Nobody is told, and nothing unmapped: v4.18 gives merged pages up.
    assert f.of(p) == f.of(q) == page
    assert f.flags(page, bits.PG_hwpoison)


def test_munlock_looks_for_who_else_has_locked_a_merged_page() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    p.mlock(ARENA, PAGE)
    q.mlock(ARENA, PAGE)
    f.rounds()
    page = f.of(p)
    assert f.of(q) == page
    assert f.flags(page, bits.PG_mlocked)
    p.munlock(ARENA, PAGE)
    assert f.flags(page, bits.PG_mlocked)
    assert f.sound()
    q.munlock(ARENA, PAGE)
    assert not f.flags(page, bits.PG_mlocked)
    assert f.sound()
    assert f.gone()


def test_try_to_munlock_walks_merged_pages_too() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page = f.of(p)
    q.vmas[0].vm_flags |= bits.VM_LOCKED
    with f.m.kthread("munlock") as k:
        lock_page(k, page)
        assert isolate_lru_page(k, page) == 0
        try_to_munlock(k, page)
        assert f.flags(page, bits.PG_mlocked)
        unlock_page(k, page)
        putback_lru_page(k, page)


def test_a_locked_page_of_zeros_leaves_the_zero_page_mlocked() -> None:
    """v4.18 moves the mark to whatever takes the page's place; where mlock is counted, nothing."""
    for counted in (False, True):
        f = Merging(mlock_counts=counted)
        f.m.ksm.use_zero_pages = True
        p = f.offer(b"\0")
        p.mlock(ARENA, PAGE)
        f.rounds()
        assert f.pte(p, ARENA) & bits._PAGE_SPECIAL
        wrong = not counted
        assert f.flags(f.k.zero_page, bits.PG_mlocked) is wrong
        assert f.stat("NR_MLOCK") == wrong
        p.munlock(ARENA, PAGE)
        p.exit()
        # Nobody takes it off again.
        assert f.stat("NR_MLOCK") == wrong
        assert f.m.check() == []


def test_a_merged_page_is_never_walked_with_the_lock_held() -> None:
    f = Merging()
    p, _q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page = f.of(p)
    assert trylock_page(f.k, page)
    with pytest.raises(KernelBug, match=r"rmap.c:1875"):
        rmap_walk_locked(f.k, page, Visitor())
    unlock_page(f.k, page)


def test_a_walk_ends_where_it_is_told_to_in_either_pass() -> None:
    f = Merging()
    p, q = f.offer(b"same", name="P"), f.offer(b"same", name="Q")
    f.rounds()
    p.fork("C")
    q.fork("D")
    page = f.of(p)
    lock_page(f.k, page)
    order = ["Q", "P", "D", "C"]
    for count in range(1, 5):
        for how in ("stop_at", "done_at", "invalid"):
            visitor = Asked(f, **{how: count})
            rmap_walk(f.k, page, visitor)
            seen = order[:count] if how != "invalid" else order[: count - 1] + order[count:]
            assert visitor.told == seen, how
    unlock_page(f.k, page)
    assert all(root.rwsem.count == 0 for root in f.k.anon_vmas[1:])


class Asked(Visitor):
    """Answers no at the n-th VMA: when asked to go on, whether it is done, whether it is valid."""

    def __init__(self, f: Merging, stop_at: int = 0, done_at: int = 0, invalid: int = 0) -> None:
        super().__init__()
        self.f = f
        self.stop_at, self.done_at, self.invalid = stop_at, done_at, invalid
        self.met = 0
        self.told: list[str] = []

    def invalid_vma(self, k, vma):
        self.met += 1
        return self.met == self.invalid

    def rmap_one(self, k, page, vma, address):
        self.told.append(self.f.m.process_of(vma.vm_mm).name)
        return len(self.told) != self.stop_at

    def done(self, k, page):
        return len(self.told) == self.done_at

# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages locked in memory: only while PMDs map them, and until somebody forgets it."""

from __future__ import annotations

import pytest

from rmap.mm.bits import HPAGE_PMD_NR, VM_LOCKED, PG_mlocked
from rmap.mm.page import compound_order
from rmap.mm.page_referenced import PageReferencedArg, page_referenced
from rmap.model import Machine, Process

PAGE = 4096
HUGE = HPAGE_PMD_NR * PAGE
AT = 1 << 30
BASES = ["4.18", "6.1", "6.12"]


def locked(base: str, swap: int = 1024) -> tuple[Machine, Process, int]:
    """A process with a huge page that it has locked in memory; its head."""
    m = Machine(ram=8192, swap=swap, profile=base)
    m.thp.enabled = "always"
    p = m.spawn("p")
    p.mmap(HUGE, addr=AT)
    p.write(AT, b"first")
    p.mlock(AT, HUGE)
    (head,) = p.pages(AT, 1)
    assert compound_order(m.kernel, head) == 9
    return m, p, head


def mlocked(m: Machine) -> int:
    return m.mem_stats()["nr_mlock"]


def sound(m: Machine) -> None:
    assert m.check() == []
    assert m.warnings == []


@pytest.mark.parametrize("base", BASES)
def test_a_huge_page_is_locked_and_unlocked_as_one(base: str) -> None:
    m, p, head = locked(base)
    assert (mlocked(m), m.mem_stats()["nr_unevictable"]) == (HPAGE_PMD_NR, HPAGE_PMD_NR)
    sound(m)
    m.reclaim(HPAGE_PMD_NR)
    assert p.pages(AT, 1) == [head]
    p.munlock(AT, HUGE)
    assert (mlocked(m), m.mem_stats()["nr_unevictable"]) == (0, 0)
    sound(m)


@pytest.mark.parametrize("base", BASES)
def test_locked_before_it_is_touched_it_comes_huge(base: str) -> None:
    m = Machine(ram=8192, swap=0, profile=base)
    m.thp.enabled = "always"
    p = m.spawn("p")
    p.mmap(HUGE, addr=AT)
    p.mlock(AT, HUGE)
    (head,) = p.pages(AT, 1)
    assert compound_order(m.kernel, head) == 9
    assert mlocked(m) == HPAGE_PMD_NR
    sound(m)


@pytest.mark.parametrize("base", BASES)
def test_unlocking_a_part_splits_the_pmd_and_none_of_it_stays_locked(base: str) -> None:
    """What PTEs map of a huge page is never mlocked, though its VMA is."""
    m, p, head = locked(base)
    p.munlock(AT + 10 * PAGE, PAGE)
    assert mlocked(m) == 0
    assert compound_order(m.kernel, head) == 9
    sound(m)
    # Its own split makes it 512 pages, all but one of which are locked.
    assert m.split_huge_page(head)
    assert mlocked(m) == HPAGE_PMD_NR - 1
    sound(m)
    p.munlock(AT, HUGE)
    assert mlocked(m) == 0
    sound(m)


@pytest.mark.parametrize("base", BASES)
def test_a_locked_huge_page_that_is_split_stays_locked(base: str) -> None:
    m, p, head = locked(base)
    assert m.split_huge_page(head)
    assert mlocked(m) == HPAGE_PMD_NR
    assert all(m.kernel.pg_flags[head + i] & PG_mlocked for i in range(HPAGE_PMD_NR))
    sound(m)
    m.reclaim(HPAGE_PMD_NR)
    assert p.pages(AT, HUGE) == list(range(head, head + HPAGE_PMD_NR))
    p.munlock(AT, 100 * PAGE)
    assert mlocked(m) == HPAGE_PMD_NR - 100
    sound(m)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("how", ["exit", "munmap", "part"])
def test_what_is_unmapped_is_not_locked(base: str, how: str) -> None:
    m, p, _head = locked(base)
    if how == "exit":
        p.exit()
    elif how == "munmap":
        p.munmap(AT, HUGE)
    else:
        p.munmap(AT + 5 * PAGE, PAGE)
        assert p.read(AT, 5) == b"first"
    assert mlocked(m) == 0
    sound(m)


@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_munlock_forgets_that_a_relative_locks_the_page(base: str) -> None:
    """A child that can only read it locks what its parent has locked, and shares.

    v4.18 keeps one mark, which the parent's munlock takes off: of a huge page no walk puts it back.
    Since 5.18 both are counted.
    """
    m, p, head = locked(base)
    child = p.fork()
    child.mprotect(AT, HUGE, "r")
    child.mlock(AT, HUGE)
    assert child.pages(AT, 1) == [head]
    assert mlocked(m) == HPAGE_PMD_NR
    p.munlock(AT, HUGE)
    assert mlocked(m) == (HPAGE_PMD_NR if base == "6.1" else 0)
    sound(m)
    if base == "6.1":
        return
    # Reclaim splits it, and finds out part by part.
    m.page_referenced([head])
    m.age(HPAGE_PMD_NR)
    m.reclaim(HPAGE_PMD_NR)
    assert child.pages(AT, HUGE) == list(range(head, head + HPAGE_PMD_NR))
    assert mlocked(m) == HPAGE_PMD_NR
    sound(m)


@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_a_write_of_a_relative_copies_and_leaves_the_lock(base: str) -> None:
    m, p, head = locked(base)
    child = p.fork()
    child.write(AT + 3 * PAGE, b"child")
    assert child.pages(AT + 3 * PAGE, 1) != [head + 3]
    assert mlocked(m) == HPAGE_PMD_NR
    p.write(AT, b"again")
    sound(m)
    child.exit()
    p.munlock(AT, HUGE)
    assert mlocked(m) == 0
    sound(m)


@pytest.mark.parametrize("base", ["4.18", "6.1"])
def test_ptes_of_a_locked_vma_hold_a_huge_page_for_aging_until_5_18(base: str) -> None:
    """Aging of v4.18 stops at the VMA; later kernels ask the entries, as these lock nothing."""
    m, p, head = locked(base)
    p.munlock(AT + 10 * PAGE, PAGE)
    p.read(AT, 1)
    k = m.kernel
    pra = PageReferencedArg()
    with m.kthread("kswapd"):
        used = page_referenced(k, head, False, None, pra)
    assert pra.vm_flags & VM_LOCKED
    assert used == (0 if base == "4.18" else 3), "the VMA is three by now"
    assert mlocked(m) == 0
    # Either way reclaim cannot take what is locked: it splits the page, and marks the parts.
    m.page_referenced([head])
    m.age(HPAGE_PMD_NR)
    m.reclaim(HPAGE_PMD_NR)
    assert p.pages(AT, PAGE) == [head]
    sound(m)

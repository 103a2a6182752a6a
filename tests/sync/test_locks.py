# SPDX-License-Identifier: GPL-2.0-only
"""Locks, their order, and what is called a violation of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.sync.bits import (
    ANY_MODE,
    NESTABLE,
    RANK_ANON_VMA,
    RANK_I_MMAP,
    RANK_I_PAGES,
    RANK_LRU,
    RANK_MMAP_SEM,
    RANK_PAGE_TABLE,
    RANK_PTL,
    RANK_SWAP,
)
from rmap.sync.core import (
    Context,
    Deadlock,
    LockViolation,
    assert_held,
    assert_nothing_held,
    rcu_read_lock,
    rcu_read_unlock,
    scheduler,
)
from rmap.sync.locks import RwSem, SpinLock


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    sched = scheduler()
    before = sched.current
    sched.current = Context("test")
    sched.checking = True
    yield
    sched.checking = False
    sched.current = before


def test_readers_share_and_a_writer_is_alone():
    sem = RwSem(RANK_MMAP_SEM, 1)
    other = RwSem(RANK_MMAP_SEM, 2)
    sem.down_read()
    assert sem.down_read_trylock()
    assert not sem.down_write_trylock()
    sem.up_read()
    sem.up_read()
    assert sem.down_write_trylock()
    assert not sem.down_read_trylock()
    assert not sem.down_write_trylock()
    assert sem.is_locked()
    assert not other.is_locked()
    sem.up_write()
    assert_nothing_held()


def test_a_writer_may_become_a_reader():
    sem = RwSem(RANK_MMAP_SEM, 1)
    sem.down_write()
    sem.assert_held_write()
    sem.downgrade_write()
    with pytest.raises(LockViolation, match="for write"):
        sem.assert_held_write()
    sem.assert_held_any()
    assert sem.down_read_trylock()
    sem.up_read()
    sem.up_read()


def test_a_spinlock_is_taken_once():
    lock = SpinLock(RANK_LRU, 0)
    lock.lock()
    lock.assert_held()
    assert not lock.trylock()
    lock.unlock()
    assert lock.trylock()
    lock.unlock()
    with pytest.raises(LockViolation, match="needs zone_lru_lock"):
        lock.assert_held()


def in_another_task(call: Callable[[], object]) -> object:
    """Do something as a task that holds nothing."""
    sched = scheduler()
    mine = sched.current
    sched.current = Context("other")
    try:
        return call()
    finally:
        sched.current = mine


@pytest.mark.parametrize("ask", ["down_read", "down_write", "lock"])
def test_to_wait_alone_is_to_wait_for_ever(ask):
    lock = SpinLock(RANK_LRU, 3) if ask == "lock" else RwSem(RANK_I_MMAP, 3)
    (lock.lock if ask == "lock" else lock.down_write)()
    with pytest.raises(Deadlock, match=r"other waits for .* 0x3, which is never free"):
        in_another_task(getattr(lock, ask))


def test_locks_are_taken_from_the_outside_in():
    inner, outer = SpinLock(RANK_PAGE_TABLE, 1), RwSem(RANK_ANON_VMA, 2)
    outer.down_write()
    inner.lock()
    inner.unlock()
    outer.up_write()
    inner.lock()
    with pytest.raises(LockViolation, match=r"takes anon_vma->rwsem 0x2 inside mm->page_table"):
        outer.down_read()


def test_a_trylock_cannot_deadlock_and_may_come_in_any_order():
    inner, outer = SpinLock(RANK_PTL, 1), RwSem(RANK_ANON_VMA, 2)
    inner.lock()
    assert outer.down_read_trylock()
    outer.up_read()
    inner.unlock()


def test_the_same_lock_twice_is_a_violation_even_where_its_rank_nests():
    sem = RwSem(RANK_MMAP_SEM, 1)
    sem.down_read()
    with pytest.raises(LockViolation, match="a second time"):
        sem.down_read()


def test_only_the_holder_gives_back_and_in_the_mode_it_has():
    sem = RwSem(RANK_I_MMAP, 1)
    sem.down_read()
    with pytest.raises(LockViolation, match="does not hold so"):
        in_another_task(sem.up_read)
    with pytest.raises(LockViolation, match="does not hold so"):
        sem.up_write()
    sem.up_read()
    with pytest.raises(LockViolation, match="it holds nothing"):
        sem.up_read()


def test_a_lock_or_an_rcu_section_left_at_the_end_is_a_violation():
    lock = SpinLock(RANK_SWAP, 1)
    lock.lock()
    with pytest.raises(LockViolation, match="with locks held; it holds swap_lock 0x1"):
        assert_nothing_held()
    lock.unlock()
    rcu_read_lock()
    with pytest.raises(LockViolation, match="RCU"):
        assert_nothing_held()
    rcu_read_unlock()
    assert_nothing_held()
    with pytest.raises(LockViolation, match="not in"):
        rcu_read_unlock()


def test_unchecked_nothing_is_noted():
    scheduler().checking = False
    inner, outer = SpinLock(RANK_I_PAGES, 1), RwSem(RANK_ANON_VMA, 2)
    inner.lock()
    outer.down_write()
    assert scheduler().current.held == []
    assert_held(RANK_PTL, 1, ANY_MODE)
    outer.up_write()
    inner.unlock()


@given(st.lists(st.tuples(st.integers(1, 16), st.integers(0, 2)), min_size=1, max_size=6))
def test_an_order_is_accepted_just_if_no_rank_descends(wanted):
    """Against the definition: strictly ascending, but for equal nestable ranks of other locks."""
    scheduler().current = Context("test")
    allowed = True
    for at, (rank, ident) in enumerate(wanted):
        for before in wanted[:at]:
            nests = before[0] == rank and rank in NESTABLE and before[1] != ident
            allowed = allowed and (before[0] < rank or nests)
    locks = [SpinLock(rank, ident) for rank, ident in wanted]
    try:
        for lock in locks:
            lock.lock()
    except LockViolation:
        assert not allowed
    else:
        assert allowed

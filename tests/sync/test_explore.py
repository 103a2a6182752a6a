# SPDX-License-Identifier: GPL-2.0-only
"""The explorer: what it runs, what it finds, and that a finding can be run again."""

from __future__ import annotations

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.sync.bits import (
    FIELD_CONTENT,
    FIELD_MAPCOUNT,
    FIELD_PTE,
    FIELD_REFCOUNT,
    OP_ALLOC,
    OP_FREE,
    OP_READ,
    OP_RMW,
    OP_WRITE,
    RANK_PTL,
    RANK_SWAP,
)
from rmap.sync.core import Context, sched_point, scheduler
from rmap.sync.explore import (
    Cpu,
    EveryTrace,
    Exhaustive,
    NotReproducible,
    RandomWalk,
    Step,
    World,
    commute,
    explore,
    ladder,
    parse_schedule,
    replay,
    schedule_text,
)
from rmap.sync.locks import RwSem, SpinLock


class Counter:
    """Two CPUs add to a number, `locked` or by a load and a store that others can come between."""

    def __init__(self, *, locked: bool) -> None:
        self.value = 0
        self.lock = SpinLock(RANK_SWAP, 0) if locked else None

    def add(self) -> None:
        if self.lock:
            self.lock.lock()
        sched_point(OP_READ, FIELD_MAPCOUNT, 1)
        value = self.value
        sched_point(OP_WRITE, FIELD_MAPCOUNT, 1)
        self.value = value + 1
        if self.lock:
            self.lock.unlock()

    def finish(self) -> None:
        assert self.value == 2, "an update was lost"


def counting(*, locked: bool = False) -> World:
    counter = Counter(locked=locked)
    return World([Cpu("a", counter.add), Cpu("b", counter.add)], counter.finish)


def locked_counting() -> World:
    return counting(locked=True)


@pytest.mark.parametrize(("steps_a", "steps_b"), [(1, 1), (2, 3), (4, 4)])
def test_it_runs_every_interleaving_once(steps_a, steps_b):
    seen = []

    def world() -> World:
        order: list[str] = []
        seen.append(order)

        def go(name: str, steps: int) -> None:
            for _ in range(steps):
                sched_point(OP_READ, FIELD_PTE, 1)
                order.append(name)

        return World([Cpu("a", lambda: go("a", steps_a)), Cpu("b", lambda: go("b", steps_b))])

    result = explore(world)
    assert result.complete
    assert result.runs == math.comb(steps_a + steps_b, steps_a)
    assert len({tuple(order) for order in seen}) == result.runs
    assert result.steps == result.runs * (steps_a + steps_b)


def test_a_lost_update_is_found_and_drawn():
    result = explore(counting)
    (finding,) = result.findings
    assert (result.runs, finding.count) == (6, 4)
    assert finding.error == "AssertionError: an update was lost"
    assert finding.run.schedule == "a b a b"
    assert ladder(finding.run).splitlines() == [
        "a                          b",
        "read page->_mapcount 0x1",
        "                           read page->_mapcount 0x1",
        "write page->_mapcount 0x1",
        "                           write page->_mapcount 0x1",
        "AssertionError: an update was lost",
    ]


def test_a_lock_helps():
    result = explore(locked_counting)
    assert result.complete
    assert result.findings == []


def test_the_deadlock_of_two_locks_is_found():
    def world() -> World:
        one, two = SpinLock(RANK_PTL, 1), SpinLock(RANK_PTL, 2)

        def nest(outer: SpinLock, inner: SpinLock) -> None:
            outer.lock()
            inner.lock()
            inner.unlock()
            outer.unlock()

        return World([Cpu("a", lambda: nest(one, two)), Cpu("b", lambda: nest(two, one))])

    (finding,) = explore(world).findings
    assert finding.error == (
        "Deadlock: nobody can go on: a (lock pte_lock 0x2), b (lock pte_lock 0x1)"
    )
    assert str(replay(world, finding.run.schedule).error) in finding.error


def test_a_writer_waits_for_readers_and_not_for_ever():
    def world() -> World:
        sem = RwSem(RANK_SWAP, 0)
        inside: list[str] = []

        def read() -> None:
            sem.down_read()
            inside.append("r")
            sched_point(OP_READ, FIELD_PTE, 1)
            inside.remove("r")
            sem.up_read()

        def write() -> None:
            sem.down_write()
            assert not inside
            sched_point(OP_WRITE, FIELD_PTE, 1)
            assert not inside
            sem.up_write()

        return World([Cpu("r1", read), Cpu("r2", read), Cpu("w", write)])

    result = explore(world)
    assert result.complete
    assert result.findings == []


def test_each_cpu_runs_as_its_own_task():
    tasks = []

    def world() -> World:
        mine = [Context("one"), Context("two")]

        def go(context: Context) -> None:
            for _ in range(2):
                sched_point(OP_READ, FIELD_PTE, 1)
                tasks.append(scheduler().current is context)

        return World([Cpu(c.name, lambda c=c: go(c), c) for c in mine])

    before = scheduler().current
    explore(world)
    assert all(tasks)
    assert scheduler().current is before
    assert not scheduler().exploring
    assert scheduler().switch is None


def test_a_lock_that_a_cpu_keeps_is_a_finding():
    def world() -> World:
        lock = SpinLock(RANK_SWAP, 7)
        return World([Cpu("a", lock.lock)])

    sched = scheduler()
    sched.checking = True
    try:
        (finding,) = explore(world).findings
    finally:
        sched.checking = False
    assert "a: ends its operation with locks held; it holds swap_lock 0x7" in finding.error


def test_what_is_no_assertion_is_not_swallowed():
    def world() -> World:
        return World(
            [Cpu("a", lambda: [][1]), Cpu("b", lambda: sched_point(OP_READ, FIELD_PTE, 1))]
        )

    with pytest.raises(IndexError):
        explore(world)
    assert not scheduler().exploring


def test_a_run_that_never_ends_is_a_finding():
    def world() -> World:
        def spin() -> None:
            while True:
                sched_point(OP_READ, FIELD_PTE, 1)

        return World([Cpu("a", spin)])

    (finding,) = explore(world, max_runs=1).findings
    assert "did not end within 10000 steps" in finding.error


def test_a_world_that_depends_on_more_than_the_schedule_is_refused():
    lengths = iter([2, 3, 4, 5])

    def world() -> World:
        steps = next(lengths)

        def go() -> None:
            for n in range(steps):
                sched_point(OP_READ, FIELD_PTE, steps + n)

        return World([Cpu("a", go), Cpu("b", go)])

    with pytest.raises(NotReproducible):
        explore(world)


def test_cut_off_it_does_not_claim_to_be_complete():
    result = explore(counting, Exhaustive(), max_runs=5)
    assert (result.runs, result.complete) == (5, False)
    assert explore(counting, Exhaustive(), max_runs=6).complete


def test_lots_find_it_as_well_and_do_not_claim_to_be_complete():
    result = explore(counting, RandomWalk(seed=1, runs=50))
    assert (result.runs, result.complete) == (50, False)
    assert result.findings
    again = explore(counting, RandomWalk(seed=1, runs=50))
    assert again.findings[0].run.schedule == result.findings[0].run.schedule


def test_schedules_are_text():
    names = ["walker"] * 3 + ["exit"] + ["walker"]
    assert schedule_text(names) == "walker*3 exit walker"
    assert parse_schedule("walker*3 exit walker") == names
    for wrong in ("a**2", "a*0", "a*x", "*2"):
        with pytest.raises(ValueError, match="schedule"):
            parse_schedule(wrong)


def test_a_schedule_of_another_world_is_refused():
    with pytest.raises(NotReproducible, match="c cannot go on"):
        replay(counting, "a c")
    assert replay(counting, "a*2").error is None, "past its end the first goes on"


def test_names_are_words_and_differ():
    with pytest.raises(ValueError, match="one word"):
        Cpu("cpu 0", print)
    with pytest.raises(ValueError, match="two CPUs"):
        World([Cpu("a", print), Cpu("a", print)])


# ---------------------------------------------------------------- every trace


@pytest.mark.parametrize(("same", "runs"), [(False, 1), (True, 20)])
def test_what_commutes_is_run_in_one_order(same: bool, runs: int) -> None:
    """Three stores each: to different things one run is enough, to the same one all are needed."""

    def world() -> World:
        def stores(ident: int) -> None:
            for _ in range(3):
                sched_point(OP_WRITE, FIELD_CONTENT, ident)

        return World([Cpu("a", partial(stores, 1)), Cpu("b", partial(stores, 1 if same else 2))])

    result = explore(world, EveryTrace())
    assert (result.runs, result.complete) == (runs, True)


def test_reads_commute_and_so_do_not_allocations() -> None:
    a = Step("a", OP_READ, FIELD_CONTENT, 1)
    assert commute(a, Step("b", OP_READ, FIELD_CONTENT, 1))
    assert not commute(a, Step("b", OP_WRITE, FIELD_CONTENT, 1))
    assert not commute(a, Step("a", OP_READ, FIELD_CONTENT, 2))
    assert not commute(
        Step("a", OP_ALLOC, FIELD_REFCOUNT, 1), Step("b", OP_FREE, FIELD_REFCOUNT, 2)
    )


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=4), max_size=3))
def test_fewer_runs_end_in_all_the_same_ways(programs: list[list[tuple[int, int]]]) -> None:
    """Whatever the programs read and write, every outcome of all schedules is found."""
    ends: set[tuple[object, ...]] = set()

    def world() -> World:
        memory = [0, 0]
        seen: dict[int, list[int]] = {number: [] for number in range(len(programs))}

        def run(number: int) -> None:
            for op, ident in programs[number]:
                sched_point((OP_READ, OP_WRITE, OP_RMW)[op], FIELD_CONTENT, ident)
                if op == 0:
                    seen[number].append(memory[ident])
                elif op == 1:
                    memory[ident] = number + 1
                else:
                    memory[ident] += 10

        def finish() -> None:
            ends.add((tuple(memory), *map(tuple, seen.values())))

        cpus = [Cpu(f"c{number}", partial(run, number)) for number in range(len(programs))]
        return World(cpus, finish)

    few = explore(world, EveryTrace())
    found, ends = ends, set()
    every = explore(world, max_runs=3000)
    assert few.complete
    assert few.runs <= every.runs or not every.complete
    assert found == ends or (not every.complete and found >= ends)


def test_a_deadlock_is_found_among_traces_as_well() -> None:
    def world() -> World:
        one, two = SpinLock(RANK_PTL, 1), SpinLock(RANK_PTL, 2)

        def nest(outer: SpinLock, inner: SpinLock) -> None:
            outer.lock()
            inner.lock()
            inner.unlock()
            outer.unlock()

        return World([Cpu("a", lambda: nest(one, two)), Cpu("b", lambda: nest(two, one))])

    (finding,) = explore(world, EveryTrace()).findings
    assert "nobody can go on" in finding.error
    assert finding.count == 1

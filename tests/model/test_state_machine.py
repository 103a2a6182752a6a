# SPDX-License-Identifier: GPL-2.0-only
"""Every operation in any order, each step compared with the oracle and recounted from scratch.

Hypothesis draws the operations and shrinks what goes wrong; `tests.model.soak` does the same by
the million. The world, its oracle and what is compared are in `tests.model.world`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rmap.mm.profile import profile
from tests.model.layout import BASE, CELLS, HUGE_WINDOW, OFFSETS, STACK, WINDOW, room
from tests.model.looking import Wrong
from tests.model.soak import (
    CROWD,
    FAILURES,
    FIXED,
    FIXES,
    WEIGHTS,
    Failure,
    replay,
    soak,
    sort_of,
    walk,
)
from tests.model.world import Op, World

#: The same without the repair of CVE-2022-42703.
VULNERABLE = profile("4.18", **dict.fromkeys(FIXES, True) | {"separate_reuse_counters": False})

PAGES = st.one_of(
    st.integers(0, WINDOW - 1),
    st.integers(CELLS, CELLS + HUGE_WINDOW - 1),
    st.sampled_from([(STACK - BASE) // 4096 + n for n in range(2)]),
)
PLACES = st.one_of(st.integers(0, WINDOW - 1), st.integers(CELLS, CELLS + HUGE_WINDOW - 1))
LENGTHS = st.one_of(st.integers(1, 8), st.just(len(OFFSETS)))
ARGS = st.integers(0, 4799)


def some(draw: Callable[[st.SearchStrategy[int]], int], world: World) -> int:
    """A process that lives."""
    return draw(st.sampled_from(sorted(world.alive)))


class Machine(RuleBasedStateMachine):
    """One rule an operation, all of them of processes that live."""

    world: World

    @initialize(
        pages=st.integers(2, 16), at=st.integers(0, 8), ram=st.sampled_from((96, 200, 400, 2000)),
        swap=st.sampled_from((16, 128)),
    )  # fmt: skip
    def begin(self, pages: int, at: int, ram: int, swap: int) -> None:
        self.world = World(FIXED, ram, swap, watched=at % 2 == 1)
        self.world.do(Op("mmap", 1, at, pages))
        if ram == 2000:
            self.world.do(Op("thp", 0, 0, 1, at))
            self.world.do(Op("mmap", 1, CELLS, HUGE_WINDOW, at))

    def do(self, name: str, data: st.DataObject, page: int, pages: int = 1, arg: int = 0) -> None:
        pages = min(pages, room(page))
        self.world.do(Op(name, some(data.draw, self.world), page, pages, arg))

    def next_number(self) -> int:
        return max(self.world.born) + 1

    @precondition(lambda self: len(self.world.alive) < CROWD)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        self.world.do(Op("fork", some(data.draw, self.world), self.next_number()))

    @precondition(lambda self: len(self.world.alive) < CROWD)
    @rule(arg=ARGS)
    def spawn(self, arg: int) -> None:
        self.world.do(Op("spawn", 0, self.next_number(), 1, arg))

    @precondition(lambda self: len(self.world.alive) > 1)
    @rule(data=st.data(), name=st.sampled_from(("exit", "exit", "exec")))
    def end(self, data: st.DataObject, name: str) -> None:
        self.do(name, data, 0)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data(), page=PLACES, pages=LENGTHS, arg=ARGS)
    def mmap(self, data: st.DataObject, page: int, pages: int, arg: int) -> None:
        self.do("mmap", data, page, pages, arg)

    @precondition(lambda self: self.world.alive)
    @rule(
        data=st.data(),
        name=st.sampled_from(
            ("munmap", "mprotect", "mprotect", "mremap", "madvise", "mlock", "munlock")
        ),
        page=PAGES, pages=LENGTHS, arg=ARGS,
    )  # fmt: skip
    def change(self, data: st.DataObject, name: str, page: int, pages: int, arg: int) -> None:
        self.do(name, data, page, pages, arg)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data(), name=st.sampled_from(("brk", "stack")), arg=ARGS)
    def grow(self, data: st.DataObject, name: str, arg: int) -> None:
        self.do(name, data, 0, 1, arg)

    @precondition(lambda self: self.world.alive)
    @rule(
        data=st.data(), name=st.sampled_from(("write", "write", "read")), page=PAGES, pages=LENGTHS
    )  # fmt: skip
    def access(self, data: st.DataObject, name: str, page: int, pages: int) -> None:
        self.do(name, data, page, pages)

    @precondition(lambda self: self.world.alive)
    @rule(
        data=st.data(), name=st.sampled_from(("pin", "userfault", "idle")), page=PAGES,
        pages=LENGTHS, arg=ARGS,
    )  # fmt: skip
    def look(self, data: st.DataObject, name: str, page: int, pages: int, arg: int) -> None:
        self.do(name, data, page, pages, arg)

    @rule(
        name=st.sampled_from(
            ("reclaim", "reclaim", "age", "swapoff", "writeback", "file_write", "file_read",
             "truncate", "unpin", "fail", "ksm", "ksm", "break", "mend", "offline",
             "migrate", "compact")
        ),
        page=st.integers(0, WINDOW - 1), arg=ARGS,
    )  # fmt: skip
    def kernel(self, name: str, page: int, arg: int) -> None:
        self.world.do(Op(name, 0, page, 1, arg))

    @precondition(lambda self: self.world.alive)
    @rule(
        data=st.data(),
        name=st.sampled_from(("thp", "collapse", "split", "shrink", "migrate", "device")),
        page=PLACES, pages=LENGTHS, arg=ARGS,
    )  # fmt: skip
    def huge(self, data: st.DataObject, name: str, page: int, pages: int, arg: int) -> None:
        self.do(name, data, page, pages, arg)

    @invariant()
    def is_what_it_must_be(self) -> None:
        if hasattr(self, "world"):
            self.world.verify()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# ---------------------------------------------------------------- many short walks


def test_walks_of_the_soak_find_nothing() -> None:
    done, failure = soak(FIXED, seed=20_000, steps=6_000)
    assert failure is None, str(failure)
    assert done >= 6_000


def test_a_walk_is_its_seed() -> None:
    assert walk(5) == walk(5)
    assert walk(5) != walk(6)
    assert {op.name for seed in range(200) for op in walk(seed)} == {"boot", *WEIGHTS}


def test_every_operation_has_an_action() -> None:
    assert set(WEIGHTS) == {name[3:] for name in dir(World) if name.startswith("do_")}


# ---------------------------------------------------------------- CVE-2022-42703


def shares_wrongly(error: BaseException | None) -> bool:
    return isinstance(error, Wrong) and "same-chain" in str(error)


def test_cve_2022_42703_is_found_in_seconds_and_shrinks_to_ten_operations() -> None:
    start = time.monotonic()
    done, failure = soak(VULNERABLE, seed=0, steps=50_000)
    assert failure is not None
    assert shares_wrongly(failure.error), failure
    assert len(failure.shrunk) <= 13, failure
    assert {op.name for op in failure.shrunk} >= {"fork", "exit", "write"}
    assert shares_wrongly(replay(failure.shrunk, VULNERABLE))
    assert replay(failure.shrunk, FIXED) is None
    assert done < 50_000
    assert time.monotonic() - start < 120


def test_the_sequence_that_was_published_shows_it() -> None:
    """Ten operations, and the two that make the page and its area."""
    ops = [
        Op("mmap", 1, 0, 4),
        Op("write", 1, 0),
        Op("fork", 1, 2),
        Op("fork", 2, 3),
        Op("exit", 2),
        Op("fork", 3, 4),
        Op("mprotect", 3, 2, 2, 2),
        Op("mprotect", 4, 2, 2, 2),
        Op("fork", 4, 5),
        Op("exit", 3),
        Op("fork", 5, 6),
    ]
    assert shares_wrongly(replay(ops, VULNERABLE))
    assert replay(ops, FIXED) is None


def test_a_failure_is_told_with_its_seed_and_operations() -> None:
    failure = Failure(7, [Op("exit", 1)], Wrong("degree: anon_vma 2"), [Op("exit", 1)])
    assert sort_of(failure.error) == "Wrong degree"
    assert str(failure).startswith("seed 7: Wrong: degree: anon_vma 2\n1 operations:")
    assert Wrong in FAILURES

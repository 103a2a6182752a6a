# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Who runs, what it holds, and where it may be switched away from.

The one `Scheduler` of the process, `sched`, has two switches. `checking` keeps for every context
the list of locks it holds, and calls whatever breaks the order or the discipline a
`LockViolation`. `exploring` turns every access that another CPU can observe into a call of
`switch`, by which an explorer runs simulated CPUs as greenlets in any order it likes.
"""

from __future__ import annotations

from typing import Any

import cython

from rmap.sync.bits import NAMES, NESTABLE

if not cython.compiled:
    from rmap.scalar import flag, i32, u64
    from rmap.sync.bits import ANY_MODE, OP_ACQUIRE, READ_MODE, WRITE_MODE


class LockViolation(AssertionError):
    """A lock was taken out of order, twice, not at all, or never given back."""


class Deadlock(AssertionError):
    """A lock was asked for that nobody else will ever give back."""


class Context:
    """Something that runs: a task on a simulated CPU, with the locks it holds, oldest first."""

    def __init__(self, name: str, cpu: i32 = 0) -> None:
        self.name = name
        self.cpu = cpu
        self.held = []
        self.rcu_depth = 0

    def __repr__(self) -> str:
        return f"Context({self.name!r}, cpu={self.cpu})"


class Scheduler:
    """The switches, and the context that runs now.

    `switch(op, kind, ident, free)` is called at every scheduling point while `exploring`: `free`
    is ``None``, or a function that says whether the caller could go on now.
    """

    def __init__(self) -> None:
        self.checking = False
        self.exploring = False
        self.current = Context("main")
        self.switch: Any = None


sched = Scheduler()


def scheduler() -> Scheduler:
    """Return the one scheduler (compiled, the module's own name for it is not Python's)."""
    return sched


def sched_point(op: i32, kind: i32, ident: u64) -> i32:
    """Announce an access that another CPU can observe, before it happens."""
    if sched.exploring:
        sched.switch(op, kind, ident, None)
    return 0


def wait_until(kind: i32, ident: u64, free: object) -> i32:
    """Go on when `free()`: at once, if an explorer finds it so, or when others have made it so.

    One point of scheduling, at which the lock can be had when it is left. Raises `Deadlock` if no
    explorer runs other CPUs: alone on the machine nobody would ever end the wait.
    """
    if sched.exploring:
        sched.switch(OP_ACQUIRE, kind, ident, free)
        return 0
    raise Deadlock(f"{sched.current.name} waits for {describe(kind, ident)}, which is never free")


def describe(kind: i32, ident: u64) -> str:
    """Name a lock or field for people."""
    return f"{NAMES.get(kind, kind)} {ident:#x}"


def violation(text: str) -> i32:
    """Report a broken rule of locking. Raises `LockViolation`."""
    held = ", ".join(describe(rank, ident) for rank, ident, _ in sched.current.held) or "nothing"
    raise LockViolation(f"{sched.current.name}: {text}; it holds {held}")


def lock_acquired(rank: i32, ident: u64, mode: i32, tried: flag) -> i32:
    """Note that the current context got a lock.

    A lock that was only tried for cannot have waited, so its order cannot deadlock and is not
    checked. Raises `LockViolation`.
    """
    held: list = sched.current.held
    if not tried:
        for other_rank, other, _ in held:
            if other_rank == rank and other == ident:
                violation(f"takes {describe(rank, ident)} a second time")
            if other_rank > rank or (other_rank == rank and rank not in NESTABLE):
                violation(f"takes {describe(rank, ident)} inside {describe(other_rank, other)}")
    held.append((rank, ident, mode))
    return 0


def lock_released(rank: i32, ident: u64, mode: i32) -> i32:
    """Note that the current context gave a lock back. Raises `LockViolation`."""
    held: list = sched.current.held
    entry: tuple = (rank, ident, mode)
    if entry not in held:
        violation(f"releases {describe(rank, ident)}, which it does not hold so")
    for i in range(len(held) - 1, -1, -1):
        if held[i] == entry:
            del held[i]
            break
    return 0


def assert_held(rank: i32, ident: u64, mode: i32) -> i32:
    """Insist that the current context holds a lock; for `WRITE_MODE`, that it holds it so.

    Raises `LockViolation`; does nothing unless `checking`.
    """
    if not sched.checking:
        return 0
    for other_rank, other, held_mode in sched.current.held:
        if other_rank == rank and other == ident and mode in (ANY_MODE, READ_MODE, held_mode):
            return 0
    how: str = " for write" if mode == WRITE_MODE else ""
    violation(f"needs {describe(rank, ident)}{how}")
    return 0


def rcu_read_lock() -> i32:
    """Enter an RCU read section: type-stable memory stays what it is until it ends."""
    sched.current.rcu_depth += 1
    return 0


def rcu_read_unlock() -> i32:
    """Leave an RCU read section. Raises `LockViolation` if there is none."""
    if sched.current.rcu_depth <= 0:
        violation("leaves an RCU read section that it is not in")
    sched.current.rcu_depth -= 1
    return 0


def assert_nothing_held() -> None:
    """Insist that the current context holds no lock and is in no RCU section.

    Raises `LockViolation`. Called after every operation of a checked machine.
    """
    if sched.current.held:
        violation("ends its operation with locks held")
    if sched.current.rcu_depth:
        violation("ends its operation inside an RCU read section")

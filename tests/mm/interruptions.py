# SPDX-License-Identifier: GPL-2.0-only
"""Lets another CPU act at chosen moments of what one CPU does: one interleaving, by hand.

The explorer finds every order of two programs; this is for a test that wants to show one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rmap.mm.mm_types import Task
from rmap.sync.core import Deadlock, describe, scheduler

#: An access, ``(op, kind)``, or its n-th occurrence, ``(op, kind, n)``.
Moment = tuple[int, int] | tuple[int, int, int]


@contextmanager
def interrupted(*plan: tuple[Moment, Callable[[], object]]) -> Iterator[None]:
    """Do each action of `plan` right before its moment, as a task of another CPU, in this order.

    An action may leave locks held, for a later one to give back. Fails if a moment never came.
    """
    sched = scheduler()
    other = Task("other", 99, None, 1)
    left = list(plan)
    seen = 0

    def switch(op: int, kind: int, ident: int, free: Callable[[], bool] | None) -> None:
        nonlocal seen
        while left:
            (wanted_op, wanted_kind, *nth), action = left[0]
            if (op, kind) != (wanted_op, wanted_kind):
                break
            seen += 1
            if seen < (nth[0] if nth else 1):
                break
            del left[0]
            seen = 0
            mine = sched.current
            sched.current, sched.exploring = other, False
            try:
                action()
            finally:
                sched.current, sched.exploring = mine, True
            break
        if free is not None and not free():
            raise Deadlock(f"nobody gives back {describe(kind, ident)}")

    sched.switch, sched.exploring = switch, True
    try:
        yield
    finally:
        sched.switch, sched.exploring = None, False
    assert not left, f"{len(left)} moments never came, the first {left[0][0]}"
    assert not other.held

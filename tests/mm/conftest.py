# SPDX-License-Identifier: GPL-2.0-only
"""Every test of the model runs with locks checked, and ends with none held."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rmap.mm.mm_types import Task
from rmap.sync.core import assert_nothing_held, scheduler


@pytest.fixture(autouse=True)
def locks_checked() -> Iterator[None]:
    """A task of its own for the test, whose locks are checked.

    A test that provokes a `KernelBug` may leave locks held, as the kernel would: it replaces
    ``scheduler().current`` or empties its `held`.
    """
    sched = scheduler()
    before = sched.current
    sched.current = Task("test", 1, None)
    sched.checking = True
    try:
        yield
        assert_nothing_held()
    finally:
        sched.checking = False
        sched.current = before

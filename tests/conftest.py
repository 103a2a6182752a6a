# SPDX-License-Identifier: GPL-2.0-only
"""What all tests share: locks are checked, the `live` mark, and how Hypothesis runs."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator

import pytest
from goldens import Golden
from hypothesis import settings

from rmap.mm.mm_types import Task
from rmap.sync.core import assert_nothing_held, scheduler

# Deadlines measure the machine, which may be busy. A failure prints the line that replays it.
settings.register_profile("rmap", deadline=None, print_blob=True)
settings.load_profile("rmap")

PFN_MASK = (1 << 55) - 1


def pfns_hidden() -> str:
    """Why page frame numbers cannot be read here; empty if they can.

    Without CAP_SYS_ADMIN the kernel lets one read the pagemap and shows every PFN as zero, so a
    page that is certainly there is asked for.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[0] = 1
    anchor = ctypes.c_char.from_buffer(page)
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    except OSError as error:
        return f"cannot open /proc/self/pagemap: {error.strerror}"
    try:
        offset = ctypes.addressof(anchor) // mmap.PAGESIZE * 8
        (entry,) = struct.unpack("=Q", os.pread(fd, 8, offset))
    finally:
        os.close(fd)
        del anchor
        page.close()
    return "" if entry & PFN_MASK else "the kernel shows PFNs as zero: needs CAP_SYS_ADMIN"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `live` where the machine may not be read, and say why."""
    live = [item for item in items if item.get_closest_marker("live")]
    reason = pfns_hidden() if live else ""
    if reason:
        for item in live:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The switch that takes what commands print now as what they should print."""
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")


@pytest.fixture(autouse=True)
def locks_checked() -> Iterator[None]:
    """Whatever a test does to a machine, its locks are checked, and none may be left held.

    That is so with what it does itself, as a task of its own. Operations of a `Machine` and CPUs of
    an explorer are tasks of theirs, each of which ends with the same check. A test that provokes a
    `KernelBug` may leave locks held, as the kernel would: it replaces ``scheduler().current`` or
    empties its `held`.
    """
    sched = scheduler()
    before = sched.current, sched.checking
    sched.current = Task("test", 1, None)
    sched.checking = True
    try:
        yield
        assert_nothing_held()
    finally:
        sched.current, sched.checking = before


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Golden files to compare with."""
    return Golden(update=request.config.getoption("--update-golden"))

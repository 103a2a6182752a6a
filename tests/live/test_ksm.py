# SPDX-License-Identifier: GPL-2.0-only
"""KSM: one page at many addresses of many processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from . import kernel, settings
from .expect import expect
from .world import Process, Region, World, wait_until

pytestmark = pytest.mark.live

MADV_MERGEABLE = 12
_MERGE_SECONDS = 10.0


@pytest.fixture(autouse=True)
def ksm() -> Iterator[None]:
    """Let ksmd merge as fast as it can."""
    with ExitStack() as stack:
        if (settings.KSM / "smart_scan").exists():
            stack.enter_context(settings.changed(settings.KSM / "smart_scan", "0"))
        stack.enter_context(settings.changed(settings.KSM / "sleep_millisecs", "1"))
        stack.enter_context(settings.changed(settings.KSM / "pages_to_scan", "1000"))
        stack.enter_context(settings.changed(settings.KSM / "run", "1"))
        yield


def merge(*places: tuple[Process, Region]) -> None:
    """Have all pages of ``places`` merged into ``len(set of contents)`` pages by ksmd."""
    for process, region in places:
        process.advise(region, MADV_MERGEABLE)

    def merged() -> bool:
        return all(
            kernel.kpageflags(frame) & kernel.KPF_KSM
            for process, region in places
            for frame in kernel.pfns(process, region)
        )

    wait_until(merged, "ksmd does not merge", _MERGE_SECONDS)


def test_equal_pages_of_strangers_become_one(world: World) -> None:
    one, other = world.process(), world.process()
    mine, theirs = one.map_anon(12), other.map_anon(12)
    for process, region in ((one, mine), (other, theirs)):
        process.write(region[0:8], 0x5A)
        for i in range(8, 12):
            process.write(region[i], 0x60 + i)
    merge((one, mine), (other, theirs))

    expect(
        world,
        world.snapshot(),
        [
            (process, region[i])
            for process, region in ((one, mine), (other, theirs))
            for i in range(8)
        ],
        [(one, mine[8:12]), (other, theirs[8:12])],
    )


def test_merged_pages_are_forked_and_written(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(6)
    parent.write(heap, 0x5B)
    merge((parent, heap))
    child = parent.fork()
    child.write(heap[1], 0x11)
    parent.unmap(heap[4:6])

    expect(
        world,
        world.snapshot(),
        [(child, heap[1])],
        [(parent, heap[i]) for i in range(4)] + [(child, heap[i]) for i in (0, 2, 3, 4, 5)],
    )

# SPDX-License-Identifier: GPL-2.0-only
"""Swapped memory: entries that processes share, and pages that come back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rmap.image import MemoryImage
from rmap.image.flags import Pte

from . import kernel, settings
from .expect import Run, arena_entries, expect, places_of, show
from .world import PAGE, Process, Region, World, wait_until

pytestmark = pytest.mark.live

MADV_PAGEOUT = 21
SWAP_BYTES = 16 << 20
_ENTRY = (1 << 55) - 1


@pytest.fixture(autouse=True)
def swap() -> Iterator[None]:
    """A swap file, until after the world has ended."""
    with settings.swap_file(SWAP_BYTES):
        yield


def swap_out(process: Process, region: Region) -> None:
    """Have all of ``region`` swapped out (its pages must be mapped by ``process`` only)."""

    def gone() -> bool:
        process.advise(region, MADV_PAGEOUT)
        return kernel.swapped(process, region) == region.pages

    try:
        wait_until(gone, "MADV_PAGEOUT leaves pages in memory")
    except OSError as error:
        pytest.skip(f"this kernel has no MADV_PAGEOUT: {error.strerror}")


def expect_swapped(world: World, image: MemoryImage, *runs: Run) -> None:
    """Assert that the swap entries of the arena stand exactly where ``runs`` say."""
    wanted_anywhere = set()
    for run in runs:
        process, region = run[0]
        for i, word in enumerate(kernel.pagemap(process, region)):
            assert word & kernel.SWAPPED
            wanted = {(p.pid, r.start + i * PAGE) for p, r in run}
            found = places_of(image, image.reverse_swap, word & _ENTRY)
            assert found == wanted, f"entry {word:#x}: found {show(found)}, not {show(wanted)}"
            wanted_anywhere |= wanted
    swapped = {
        (pid, entry["address"])
        for pid, _, entry in arena_entries(world, image)
        if entry["flags"] & Pte.SWAP
    }
    assert swapped == wanted_anywhere


def test_swapped_pages_have_one_place_each(world: World) -> None:
    process = world.process()
    heap = process.map_anon(24)
    process.write(heap)
    swap_out(process, heap[4:20])

    image = world.snapshot()

    expect(world, image, [(process, heap[0:4])], [(process, heap[20:24])])
    expect_swapped(world, image, [(process, heap[4:20])])
    mm = image.mms["pid"].tolist().index(process.pid)
    assert image.mms["swap"][mm] == kernel.status_kb(process.pid, "VmSwap") * 1024


def test_a_fork_shares_swap_entries(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(16)
    parent.write(heap)
    swap_out(parent, heap)
    child = parent.fork()
    parent.unmap(heap[12:16])

    image = world.snapshot()

    expect(world, image)
    expect_swapped(
        world, image, [(parent, heap[0:12]), (child, heap[0:12])], [(child, heap[12:16])]
    )


def test_pages_come_back_one_process_at_a_time(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(12)
    parent.write(heap)
    swap_out(parent, heap)
    child = parent.fork()
    parent.read(heap[0:8])
    child.read(heap[0:4])
    child.write(heap[2:4])

    image = world.snapshot()

    # The page that one of them has back and the other has not is mapped once, and its swap entry
    # stands once.
    expect(
        world,
        image,
        [(parent, heap[0:2]), (child, heap[0:2])],
        [(parent, heap[2:8])],
        [(child, heap[2:4])],
    )
    expect_swapped(world, image, [(child, heap[4:8])], [(parent, heap[8:12]), (child, heap[8:12])])

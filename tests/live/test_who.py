# SPDX-License-Identifier: GPL-2.0-only
"""``who`` asked about real processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rmap.cli.common import identify
from rmap.image import MemoryImage
from rmap.query.targets import parse_target
from rmap.query.who import who

from . import kernel
from .expect import Places
from .world import PAGE, Process, Region, World

pytestmark = pytest.mark.live


@dataclass(frozen=True)
class Family:
    """A parent, its child and a stranger, and what they map."""

    parent: Process
    child: Process
    stranger: Process
    heap: Region  #: 8 pages; the first two are the child's own
    low: Region  #: pages 0-7 of the file, in parent
    high: Region  #: pages 4-11 of the file, in stranger
    file: Path


@pytest.fixture
def family(world: World, data_file: Path) -> Family:
    """Three processes that share some of what they map."""
    parent, stranger = world.process(), world.process()
    heap = parent.map_anon(8)
    parent.write(heap)
    low, high = parent.map_file(data_file, 8), stranger.map_file(data_file, 8, page=4)
    parent.read(low)
    stranger.read(high)
    child = parent.fork()
    child.write(heap[0:2])
    return Family(parent, child, stranger, heap, low, high, data_file)


def answer(image: MemoryImage, target: str) -> list[tuple[str | None, Places]]:
    """Verdict and places of each page: runs end also where only the flags of pages differ."""
    return [
        (run.verdict, {(pid, m.address + i * PAGE) for m in run.mappings for pid in m.pids})
        for run in who(image, [parse_target(target)], identify=identify)
        for i in range(run.pages)
    ]


def agreed(*places: tuple[Process, Region]) -> list[tuple[str, Places]]:
    """Pages that are at all of ``places``, page by page, found as often as the kernel counts."""
    return [
        ("agree", {(process.pid, region.addresses[i]) for process, region in places})
        for i in range(places[0][1].pages)
    ]


def test_who_has_an_address(world: World, family: Family) -> None:
    image = world.snapshot()
    mine, shared = family.heap[1], family.heap[5]

    assert answer(image, f"{family.parent.pid}:{mine.start:#x}") == agreed((family.parent, mine))
    assert answer(image, f"{family.child.pid}:{shared.start + 123:#x}") == agreed(
        (family.parent, shared), (family.child, shared)
    )


def test_who_has_a_range_of_addresses(world: World, family: Family) -> None:
    heap, parent, child = family.heap, family.parent, family.child

    found = answer(world.snapshot(), f"{parent.pid}:{heap.start:#x}+{heap.size}")

    assert found == agreed((parent, heap[0:2])) + agreed((parent, heap[2:8]), (child, heap[2:8]))


def test_who_names_all_processes_of_an_address_space(world: World, family: Family) -> None:
    twin = family.child.clone_vm()
    page = family.heap[4]

    found = answer(world.snapshot(), f"{twin.pid}:{page.start:#x}")

    assert found == agreed((family.parent, page), (family.child, page), (twin, page))


def test_who_has_a_frame(world: World, family: Family) -> None:
    image = world.snapshot()
    page = family.heap[3]
    frame = kernel.pfn(family.parent, page.start)
    expected = agreed((family.parent, page), (family.child, page))

    assert answer(image, f"pfn:{frame:#x}") == expected
    assert answer(image, f"phys:{frame * PAGE + 77:#x}") == expected


def test_who_has_a_file(world: World, family: Family) -> None:
    low, high = (family.parent, family.low), (family.stranger, family.high)
    link = family.file.with_name("another name")
    link.hardlink_to(family.file)
    image = world.snapshot()

    expected = [
        *agreed((low[0], low[1][0:4])),
        *agreed((low[0], low[1][4:8]), (high[0], high[1][0:4])),
        *agreed((high[0], high[1][4:8])),
    ]

    assert answer(image, str(family.file)) == expected
    assert answer(image, f"{link}@0+{12 * PAGE}") == expected
    assert answer(image, f"{link}@{6 * PAGE},{9 * PAGE}") == expected[6:9]


def test_who_has_a_file_that_is_deleted(world: World, family: Family) -> None:
    family.file.unlink()

    found = answer(world.snapshot(), f"{family.file}@{6 * PAGE}+1")

    assert found == agreed((family.parent, family.low[6]), (family.stranger, family.high[2]))

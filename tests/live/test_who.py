# SPDX-License-Identifier: GPL-2.0-only
"""``who`` asked about real processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

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


def answer(image: MemoryImage, target: str) -> list[tuple[int, str | None, Places]]:
    """(pages, verdict, places of the first page) of each run."""
    return [
        (run.pages, run.verdict, {(m.pids[0], m.address) for m in run.mappings})
        for run in who(image, [parse_target(target)])
    ]


def test_who_has_an_address(world: World, family: Family) -> None:
    image = world.snapshot()
    mine, shared = family.heap.addresses[1], family.heap.addresses[5]

    assert answer(image, f"{family.parent.pid}:{mine:#x}") == [
        (1, "agree", {(family.parent.pid, mine)})
    ]
    assert answer(image, f"{family.child.pid}:{shared + 123:#x}") == [
        (1, "agree", {(family.parent.pid, shared), (family.child.pid, shared)})
    ]


def test_who_folds_a_range_into_runs(world: World, family: Family) -> None:
    start, parent, child = family.heap.start, family.parent.pid, family.child.pid

    found = answer(world.snapshot(), f"{parent}:{start:#x}+{family.heap.size}")

    assert found == [
        (2, "agree", {(parent, start)}),
        (6, "agree", {(parent, start + 2 * PAGE), (child, start + 2 * PAGE)}),
    ]


def test_who_has_a_frame(world: World, family: Family) -> None:
    image = world.snapshot()
    address = family.heap.addresses[3]
    frame = kernel.pfn(family.parent, address)
    places = {(family.parent.pid, address), (family.child.pid, address)}

    assert answer(image, f"pfn:{frame:#x}") == [(1, "agree", places)]
    assert answer(image, f"phys:{frame * PAGE + 77:#x}") == [(1, "agree", places)]


def test_who_has_a_file(world: World, family: Family) -> None:
    parent, stranger = family.parent.pid, family.stranger.pid
    low, high = family.low.start, family.high.start

    runs = answer(world.snapshot(), f"{family.file}@0+{12 * PAGE}")

    assert runs == [
        (4, "agree", {(parent, low)}),
        (4, "agree", {(parent, low + 4 * PAGE), (stranger, high)}),
        (4, "agree", {(stranger, high + 4 * PAGE)}),
    ]

# SPDX-License-Identifier: GPL-2.0-only
"""The whole machine: what a snapshot of everything says about the processes of a story."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from rmap.image import read_image, write_image
from rmap.source.proc import snapshot

from . import kernel
from .expect import expect
from .world import World

pytestmark = pytest.mark.live


def test_a_story_in_a_snapshot_of_everything(world: World, data_file: Path, tmp_path: Path) -> None:
    parent, stranger = world.process(), world.process()
    heap = parent.map_anon(16)
    parent.write(heap)
    buffer = parent.map(8, mmap.MAP_SHARED, fd=parent.memfd(b"buffer", 8))
    parent.write(buffer)
    child = parent.fork()
    child.write(heap[0:4])
    child.write(buffer[6:8])
    low, high = parent.map_file(data_file, 8), stranger.map_file(data_file, 8, page=4)
    parent.read(low)
    stranger.read(high)

    image = snapshot()

    story = (
        [(parent, heap[0:4])],
        [(child, heap[0:4])],
        [(parent, heap[4:16]), (child, heap[4:16])],
        [(parent, buffer[0:6])],
        [(parent, buffer[6:8]), (child, buffer[6:8])],
        [(parent, low[0:4])],
        [(parent, low[4:8]), (stranger, high[0:4])],
        [(stranger, high[4:8])],
    )
    expect(world, image, *story)
    assert image.machine["scope"].tolist() == ["machine"]
    path = tmp_path / "machine.rmap"
    write_image(image, path)
    expect(world, read_image(path), *story)


def test_all_page_frames_are_in_a_snapshot_of_everything(world: World) -> None:
    process = world.process()
    heap = process.map_anon(4)
    process.write(heap)
    frames = kernel.pfns(process, heap)

    image = snapshot()

    ram = image.ram
    pages = int((ram["end_pfn"] - ram["start_pfn"]).sum())
    assert len(image.pages) == pages
    for frame in frames:
        inside = (ram["start_pfn"] <= frame) & (np.uint64(frame) < ram["end_pfn"])
        assert inside.sum() == 1

# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots of a machine that does not hold still: processes that fork, write, unmap and exit."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from rmap.errors import TargetError
from rmap.image import MemoryImage
from rmap.image.flags import Kpf
from rmap.source.proc import snapshot

from .world import Process, World, churn

pytestmark = pytest.mark.live

CHURN_MILLISECONDS = 2000
SNAPSHOT_SECONDS = 20.0


def children(processes: list[Process]) -> list[int]:
    """Pids of the children that ``processes`` have at the moment."""
    paths = [Path(f"/proc/{p.pid}/task/{p.pid}/children") for p in processes]
    return [int(pid) for path in paths if path.exists() for pid in path.read_text().split()]


def found_too_often(image: MemoryImage) -> list[int]:
    """Pages that have more mappings in the image than the kernel counts, though none changed."""
    pages = image.pages
    steady = ~pages["changed"] & (pages["mapcount"] >= 0)
    if not image.machine["page_mapcount"][0]:
        steady &= (pages["flags"] & np.uint64(Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL)) == 0
    found = image.reverse.count(pages["pfn"])
    return [int(frame) for frame in pages["pfn"][steady & (found > pages["mapcount"])]]


def test_the_whole_machine_while_processes_come_and_go(world: World, data_file: Path) -> None:
    images: list[MemoryImage] = []
    with churn(world, data_file, CHURN_MILLISECONDS):
        end = time.monotonic() + CHURN_MILLISECONDS / 1000
        while time.monotonic() < end:
            begin = time.monotonic()
            images.append(snapshot())
            assert time.monotonic() - begin < SNAPSHOT_SECONDS

    for image in images:
        assert found_too_often(image) == []


def test_the_churning_processes_alone(world: World, data_file: Path) -> None:
    seen = 0
    with churn(world, data_file, CHURN_MILLISECONDS) as workers:
        end = time.monotonic() + CHURN_MILLISECONDS / 1000
        while time.monotonic() < end:
            pids = [worker.pid for worker in workers] + children(workers)
            try:
                image = snapshot(pids, ram=False)
            except TargetError:
                continue  # one of the children was gone before it was looked at
            assert set(image.processes["pid"].tolist()) == set(pids)
            assert found_too_often(image) == []
            seen += 1

    assert seen > 2


def test_freezing_the_churning_processes(world: World, data_file: Path) -> None:
    with churn(world, data_file, CHURN_MILLISECONDS) as workers:
        pids = [worker.pid for worker in workers]
        for _ in range(10):
            image = snapshot(pids, freeze=pids, ram=False)
            assert image.machine["consistency"].tolist() == ["frozen"]
            assert found_too_often(image) == []
            assert all(worker.state != "T" for worker in workers)

# SPDX-License-Identifier: GPL-2.0-only
"""``fsck`` of the running machine: whatever it does, nothing is wrong with it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rmap.query.fsck import fsck
from rmap.source.proc import snapshot

from .world import World, churn

pytestmark = pytest.mark.live

CHURN_MILLISECONDS = 2000


def test_nothing_is_wrong_with_a_machine_at_rest(world: World, data_file: Path) -> None:
    parent = world.process()
    heap, file = parent.map_anon(16), parent.map_file(data_file, 8, private=True)
    parent.write(heap)
    parent.read(file)
    child = parent.fork()
    child.write(heap[0:4])
    child.write(file[0:4])
    child.clone_vm()

    result = fsck(snapshot())

    assert result.total == 0, result


def test_nothing_is_wrong_with_a_machine_in_motion(world: World, data_file: Path) -> None:
    with churn(world, data_file, CHURN_MILLISECONDS) as workers:
        end = time.monotonic() + CHURN_MILLISECONDS / 1000
        while time.monotonic() < end:
            everything = fsck(snapshot())
            assert everything.total == 0, everything
            family = fsck(snapshot([worker.pid for worker in workers], ram=False))
            assert family.total == 0, family

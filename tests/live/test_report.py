# SPDX-License-Identifier: GPL-2.0-only
"""The report on real processes. That its RSS, PSS and USS are the kernel's, `expect` asserts in
every story; here is what the kernel has no number for.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rmap.query.report import report
from rmap.source.proc import snapshot

from . import kernel
from .expect import expect
from .world import PAGE, Process, Region, World, wait_until

pytestmark = pytest.mark.live


def unique_to(group: list[Process]) -> int:
    """Bytes of the pages that only ``group`` maps, counted page by page from the pagemaps."""
    found: Counter[int] = Counter()
    for process in group:
        for start, end, _ in kernel.smaps(process):
            if start < 1 << 63:
                words = kernel.pagemap(process, Region(start, (end - start) // PAGE))
                found.update(word & kernel.PFN for word in words if word & kernel.PRESENT)
    return sum(PAGE for frame, times in found.items() if kernel.kpagecount(frame) == times)


def test_what_only_a_family_maps(world: World, data_file: Path) -> None:
    parent, stranger = world.process(), world.process()
    heap = parent.map_anon(32)
    parent.write(heap)
    ours, theirs = parent.map_file(data_file, 8), stranger.map_file(data_file, 4)
    parent.read(ours)
    stranger.read(theirs)
    child = parent.fork()
    child.write(heap[0:8])
    for process, name in ((parent, b"family"), (child, b"family"), (stranger, b"stranger")):
        process.call("name", text=name)

    groups = {group.key: group for group in report(world.snapshot(), by="command").groups}

    assert groups["family"].pids == (parent.pid, child.pid)
    assert groups["family"].guss.total == unique_to([parent, child])
    assert groups["stranger"].guss.total == unique_to([stranger])
    # 32 pages of the parent, 8 copies of the child; what else a puppet has is its own matter.
    alone = unique_to([parent]) + unique_to([child])
    assert groups["family"].guss.total - alone >= (32 - 8) * PAGE


def test_sizes_of_everybody_add_up_to_the_machine(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(64)
    parent.write(heap)
    child = parent.fork()
    child.write(heap[0:16])

    image = snapshot()
    answer = report(image)

    keys = {group.key for group in answer.groups}
    assert {str(parent.pid), str(child.pid)} <= keys
    assert answer.whole_machine
    # Each process rounds down by less than a byte.
    apart = sum(group.pss.total for group in answer.groups)
    assert answer.total.pss.total - len(keys) <= apart <= answer.total.pss.total
    # What all processes together map alone: each page once, however often it is mapped.
    assert 64 * PAGE < answer.total.guss.total <= len(image.reverse.mapped_pfns()) * PAGE


def test_sizes_of_processes_stopped_in_the_midst_of_their_work(
    world: World, data_file: Path
) -> None:
    workers = [world.process(), world.process()]
    for worker in workers:
        worker.start_churn(1000, worker.open(data_file))
    for worker in workers:
        worker.stop()
    wait_until(lambda: not any(children(worker) for worker in workers), "children do not end")

    expect(world, world.snapshot(freeze=workers))

    for worker in workers:
        worker.resume()
        assert worker.finish_churn() > 0


def children(process: Process) -> list[int]:
    """Pids of the children of ``process`` that have not exited yet."""
    path = process.proc / "task" / str(process.pid) / "children"
    if not path.exists():
        pytest.skip("this kernel does not list children")
    return [int(pid) for pid in path.read_text().split()]

# SPDX-License-Identifier: GPL-2.0-only
"""Processes: shared address spaces, threads, stopped and dead ones, and hostile names."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rmap.errors import TargetError
from rmap.image import MemoryImage
from rmap.source.proc import snapshot

from .expect import expect
from .world import Process, World, wait_until

pytestmark = pytest.mark.live


def row_of(image: MemoryImage, process: Process) -> dict[str, Any]:
    """Row of a process in the table of processes."""
    return image.processes.row(image.processes["pid"].tolist().index(process.pid))


def test_processes_that_share_an_address_space_count_once(world: World) -> None:
    first = world.process()
    heap = first.map_anon(8)
    first.write(heap)
    second = first.clone_vm()
    child = first.fork()
    child.write(heap[0:2])

    image = world.snapshot()

    expect(
        world,
        image,
        [(first, heap[0:2])],
        [(child, heap[0:2])],
        [(first, heap[2:8]), (child, heap[2:8])],
    )
    assert row_of(image, first)["mm"] == row_of(image, second)["mm"]
    assert row_of(image, first)["mm"] != row_of(image, child)["mm"]
    assert image.mms["users"][row_of(image, first)["mm"]] == 2


def test_a_parent_held_by_vfork_counts_once(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(8)
    parent.write(heap)
    child = parent.clone_vm("vfork")

    image = world.snapshot()

    expect(world, image, [(parent, heap)])
    assert row_of(image, parent)["mm"] == row_of(image, child)["mm"]
    child.kill()
    child.wait()
    expect(world, world.snapshot(), [(parent, heap)])


def test_a_sharer_is_enough_to_see_the_memory(world: World) -> None:
    first = world.process()
    heap = first.map_anon(4)
    first.write(heap)
    second = first.clone_vm()

    image = snapshot([second.pid], ram=False)

    assert image.mms["pid"].tolist() == [second.pid]
    expect(world, image, [(second, heap)])


def test_threads_count_once(world: World) -> None:
    process = world.process()
    heap = process.map_anon(8)
    process.write(heap)
    for _ in range(3):
        process.call("thread")

    image = world.snapshot()

    expect(world, image, [(process, heap)])
    assert row_of(image, process)["threads"] == 4


def test_a_process_lives_on_without_its_first_thread(world: World) -> None:
    process = world.process()
    heap = process.map_anon(8)
    process.write(heap)
    process.leave_leader()
    child = process.fork()
    child.write(heap[0:2])

    # /proc/PID/maps of such a process is empty; its memory is seen through the other threads.
    expect(
        world,
        world.snapshot(),
        [(process, heap[0:2])],
        [(child, heap[0:2])],
        [(process, heap[2:8]), (child, heap[2:8])],
    )


def test_a_stopped_process_is_seen_and_stays_stopped(world: World) -> None:
    process = world.process()
    heap = process.map_anon(4)
    process.write(heap)
    process.stop()

    image = world.snapshot(freeze=[process])

    assert process.state == "T"
    process.resume()
    expect(world, image, [(process, heap)])


def test_frozen_processes_go_on_afterwards(world: World) -> None:
    one, other = world.process(), world.process()
    heap = one.map_anon(4)
    one.write(heap)

    image = world.snapshot(freeze=[one, other])

    wait_until(lambda: {one.state, other.state} <= set("SR"), "they stay stopped")
    assert image.machine["consistency"].tolist() == ["frozen"]
    expect(world, image, [(one, heap)])


@pytest.mark.parametrize(
    "name",
    [b"a\nb", b"x) R 1 1", b"\x1b[31mred", b"(((", b"back\\n", b"\xff\xfe", b" ", b"Pid:\t1"],
    ids=ascii,
)
def test_a_process_with_a_hostile_name(world: World, name: bytes) -> None:
    process = world.process()
    process.call("name", text=name)
    heap = process.map_anon(2)
    process.write(heap)

    image = world.snapshot()

    expect(world, image, [(process, heap)])
    row = row_of(image, process)
    assert row["comm"] == name.decode("utf-8", "backslashreplace")
    assert row["ppid"] == world.root.pid
    assert row["uid"] == os.getuid()
    assert row["threads"] == 1
    assert row["status"] == "ok"


def test_a_zombie_is_named_and_a_process_that_is_gone_is_refused(world: World) -> None:
    parent = world.process()
    parent.call("keep_zombies")
    heap = parent.map_anon(4)
    parent.write(heap)
    dead, gone = parent.fork(), world.process()
    dead.exit()
    gone.exit()
    wait_until(lambda: not gone.proc.exists(), "it is not reaped")

    image = snapshot([parent.pid, dead.pid], ram=False)

    expect(world, image, [(parent, heap)])
    assert row_of(image, dead)["status"] == "zombie"
    assert row_of(image, dead)["mm"] == -1
    with pytest.raises(TargetError, match=str(gone.pid)):
        snapshot([parent.pid, gone.pid], ram=False)


def test_frozen_processes_go_on_after_an_error(world: World) -> None:
    process = world.process()

    def interrupt(stage: str, done: int, total: int) -> None:
        assert process.state == "T"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshot([process.pid], freeze=[process.pid], ram=False, progress=interrupt)

    wait_until(lambda: process.state in "SR", "it stays stopped")
    process.map_anon(1)  # it does what it is told


def test_the_reader_leaves_itself_out(world: World) -> None:
    world.process()

    image = snapshot()

    assert row_of(image, world.processes[0])["status"] == "ok"
    me = image.processes["pid"].tolist().index(os.getpid())
    assert image.processes.row(me)["status"] == "self"
    assert image.processes["mm"][me] == -1

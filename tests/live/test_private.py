# SPDX-License-Identifier: GPL-2.0-only
"""Private anonymous memory: fork, copy on write, and what takes pages away again."""

from __future__ import annotations

import numpy as np
import pytest

from rmap.image.flags import Pte, Vm

from . import kernel
from .expect import arena_entries, expect, mapped_at
from .world import PROT_NONE, World

pytestmark = pytest.mark.live

MADV_DONTNEED = 4
MADV_DONTFORK = 10
MADV_WIPEONFORK = 18
MADV_GUARD_INSTALL = 102


def test_fork_shares_until_someone_writes_or_unmaps(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(16)
    parent.write(heap)
    child = parent.fork()
    child.write(heap[0:4])
    parent.unmap(heap[12:16])

    image = world.snapshot()

    assert mapped_at(image, parent, heap.start + 5 * 4096) == {
        (parent.pid, heap.start + 5 * 4096),
        (child.pid, heap.start + 5 * 4096),
    }
    expect(
        world,
        image,
        [(parent, heap[0:4])],
        [(child, heap[0:4])],
        [(parent, heap[4:12]), (child, heap[4:12])],
        [(child, heap[12:16])],
    )


def test_descendants_keep_the_pages_of_a_parent_that_is_gone(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(8)
    parent.write(heap)
    child = parent.fork()
    child.write(heap[6:8])
    grandchild = child.fork()
    child.call("outlive_parent")
    parent.exit()
    grandchild.write(heap[0:2])

    expect(
        world,
        world.snapshot(),
        [(child, heap[0:2])],
        [(grandchild, heap[0:2])],
        [(child, heap[2:8]), (grandchild, heap[2:8])],
    )


def test_many_children_map_one_page(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(2)
    parent.write(heap)
    children = [parent.fork() for _ in range(20)]

    expect(world, world.snapshot(), [(process, heap) for process in (parent, *children)])


def test_a_mapping_moved_in_the_child_is_found_at_its_new_address(world: World) -> None:
    parent = world.process()
    heap = parent.map_anon(6)
    parent.write(heap)
    child = parent.fork()
    moved = child.move(heap[0:3])
    child.write(moved[2])

    expect(
        world,
        world.snapshot(),
        [(parent, heap[0:2]), (child, moved[0:2])],
        [(parent, heap[2])],
        [(child, moved[2])],
        [(parent, heap[3:6]), (child, heap[3:6])],
    )


def test_pages_never_touched_or_given_back_are_not_mapped(world: World) -> None:
    process = world.process()
    heap = process.map_anon(12)
    process.write(heap[4:12])
    process.advise(heap[8:12], MADV_DONTNEED)

    expect(world, world.snapshot(), [(process, heap[4:8])])


def test_what_madvise_keeps_from_the_child(world: World) -> None:
    parent = world.process()
    kept, wiped, shared = (parent.map_anon(4) for _ in range(3))
    for region in (kept, wiped, shared):
        parent.write(region)
    parent.advise(kept, MADV_DONTFORK)
    parent.advise(wiped, MADV_WIPEONFORK)
    child = parent.fork()

    expect(
        world,
        world.snapshot(),
        [(parent, kept)],
        [(parent, wiped)],
        [(parent, shared), (child, shared)],
    )


def test_the_zero_page_is_seen_and_not_counted(world: World) -> None:
    process = world.process()
    heap = process.map_anon(4)
    process.read(heap)
    process.write(heap[3])
    (zero,) = set(kernel.pfns(process, heap[0:3]))
    assert kernel.kpageflags(zero) & kernel.KPF_ZERO_PAGE

    image = world.snapshot()

    expect(world, image, [(process, heap[3])])
    assert image.reverse.count(np.array([zero], np.uint64)).tolist() == [0]
    seen = image.reverse_special.mappings(np.array([zero], np.uint64)).rows
    assert {int(address) for address in image.ptes["address"][seen]} >= set(heap[0:3].addresses)


def test_protected_and_locked_pages_are_mapped_like_others(world: World) -> None:
    parent = world.process()
    guarded, locked = parent.map_anon(8), parent.map_anon(8)
    parent.write(guarded)
    parent.write(locked)
    parent.protect(guarded[2:6], PROT_NONE)
    child = parent.fork()
    parent.lock(locked)  # breaks the sharing: the pages of a writable mapping are faulted in

    image = world.snapshot()

    expect(
        world,
        image,
        [(parent, guarded), (child, guarded)],
        [(parent, locked)],
        [(child, locked)],
    )
    mm = image.mms["pid"].tolist().index(parent.pid)
    assert image.mms["locked"][mm] == kernel.status_kb(parent.pid, "VmLck") * 1024 == locked.size
    flags = image.vmas["flags"][image.find_vmas(mm, [locked.start, guarded.start + 3 * 4096])]
    assert not int(flags[1]) & (Vm.READ | Vm.WRITE | Vm.EXEC)


def test_a_guard_region_maps_nothing(world: World) -> None:
    process = world.process()
    heap = process.map_anon(8)
    process.write(heap)
    try:
        process.advise(heap[2:5], MADV_GUARD_INSTALL)
    except OSError as error:
        pytest.skip(f"this kernel has no guard regions: {error.strerror}")
    if not kernel.pagemap(process, heap[2])[0] & kernel.GUARD:
        pytest.skip("this kernel's pagemap does not tell guard regions from swap entries")

    image = world.snapshot()

    expect(world, image, [(process, heap[0:2])], [(process, heap[5:8])])
    markers = [entry for _, _, entry in arena_entries(world, image) if entry["flags"] & Pte.GUARD]
    assert {entry["address"] for entry in markers} <= set(heap[2:5].addresses)

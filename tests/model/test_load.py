# SPDX-License-Identifier: GPL-2.0-only
"""A machine that is made of an image: the same where it knows, safe where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmap.check import leftovers
from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte, Vm
from rmap.mm import bits
from rmap.model import BrokenMemory, Machine, Process
from tests.images import ANON, FILE, HEAD, SHMEM, TAIL, ZERO, World, swap_entry
from tests.model.huge_scene import HugeScene
from tests.model.scene import PAGE, Scene
from tests.model.soak import FIXED, walk
from tests.model.world import World as RandomWorld

#: Columns that a loaded machine has for itself, or that are of the moment.
OWN_COLUMNS = {
    # A tree that is built again has the same order, and another shape.
    *(
        ("tree_nodes", column)
        for column in ("node", "parent", "left", "right", "red", "subtree_last")
    ),
    ("machine", "duration_ns"),
    ("mms", "users"),
    ("anon_vmas", "handle"),
}


def differences(one: MemoryImage, other: MemoryImage) -> list[str]:
    """Columns in which two images of models differ."""
    found = []
    for name, table in one.tables.items():
        second = other.tables[name]
        if len(table) != len(second):
            found.append(f"{name}: {len(table)} and {len(second)} rows")
            continue
        for column in table.column_names:
            if (name, column) not in OWN_COLUMNS and not np.array_equal(
                table[column], second[column]
            ):
                found.append(f"{name}.{column}")
    return found


def without_handles(image: MemoryImage) -> MemoryImage:
    """The image with page->mapping as rows of anon_vmas: a loaded slab has other slots."""
    pages = image.pages
    columns = {name: pages[name] for name in pages.column_names}
    columns["mapping"] = np.where(pages["anon_vma"] >= 0, np.uint64(1), np.uint64(0))
    # A free page keeps what it was last, and so does one that no list links.
    columns["index"] = np.where(pages["refcount"] > 0, pages["index"], np.uint64(0))
    return MemoryImage(image.tables | {"pages": type(pages)(pages.schema, columns)})


# ---------------------------------------------------------------- of a model


def load_again(machine: Machine) -> Machine:
    """The machine that the image of another makes."""
    again = Machine.from_image(machine.snapshot(), cpus=2)
    assert again.check() == []
    return again


def test_a_model_becomes_what_it_was() -> None:
    scene = Scene()
    again = load_again(scene.machine)
    assert again.loaded is not None
    assert (again.loaded.known, again.loaded.misfits, again.loaded.left_out) == (True, 0, {})
    before, after = scene.machine.snapshot(), again.snapshot()
    # The image has one page more, which stands for the zero page of images that know none.
    last = int(before.ram["end_pfn"][0])
    after = MemoryImage(
        after.tables
        | {"ram": before.ram, "pages": after.pages.take(after.pages["pfn"] < np.uint64(last))}
    )
    wrong = differences(without_handles(before), without_handles(after))
    # Which pages somebody looked at on the LRU is no part of a page.
    assert wrong == []


def test_a_loaded_machine_goes_on_as_the_first_would() -> None:
    scene = Scene()
    again = load_again(scene.machine)
    child = again.processes[scene.child.pid]
    parent = again.processes[scene.parent.pid]
    page = parent.pages(scene.anon + PAGE, PAGE)[0]
    assert {m.process for m in again.who_maps(page)} == {parent, child}
    grandchild = child.fork("grandchild")
    grandchild.write(scene.anon + PAGE, b"z")
    assert len(again.who_maps(page)) == 2
    parent.munmap(scene.anon, 8 * PAGE)
    child.mprotect(scene.anon, 2 * PAGE, "r")
    assert again.check() == []
    for process in list(again.processes.values()):
        process.exit()
    assert again.check() == []
    assert leftovers(again.kernel, again.pins) == []


@pytest.mark.parametrize("seed", range(12))
def test_whatever_random_operations_leave_can_be_loaded(seed: int) -> None:
    world = RandomWorld(FIXED)
    for op in walk(seed)[1:]:
        world.do(op)
    again = load_again(world.machine)
    for process in list(again.processes.values()):
        process.fork()
    again.reclaim(64)
    assert again.check() == []
    for process in list(again.processes.values()):
        process.exit()
    assert leftovers(again.kernel, again.pins) == []


# ---------------------------------------------------------------- of a real machine


def real(**machine: Any) -> tuple[World, MemoryImage]:
    """A shell that forked, a library that both map, shared memory, and swap, as /proc tells."""
    world = World()
    world.ram = [(0x10, 0x400)]
    shell = world.process(100, "bash", cgroup="/user/shell")
    heap = shell.vma(0x40_0000, pages=6, name="[heap]")
    heap.map(0x40_0000, 0x20, 0x21, 0x22)
    heap.swap(0x40_3000, 7)
    text = shell.vma(0x7000_0000, 4, "r-xp", path="/lib/libc.so")
    text.map(0x7000_0000, 0x30, 0x31)
    data = shell.vma(0x7000_4000, 2, "rw-p", path="/lib/libc.so", pgoff=4)
    data.map(0x7000_4000, 0x40, flags=Pte.PRESENT)
    shared = shell.vma(0x7100_0000, 2, "rw-s", path="/dev/shm/x")
    shared.map(0x7100_0000, 0x50)
    child = shell.fork(101)
    child.row["cgroup"] = "/user/shell"
    child.remap(0x40_1000, 0x28)
    world.pages(0x20, 9, ANON)
    world.pages(0x40, 1, ANON)
    world.pages(0x30, 2, FILE)
    world.pages(0x50, 1, SHMEM)
    return world, world.build(**machine)


def test_an_image_of_proc_becomes_a_sound_machine() -> None:
    _, image = real()
    m = Machine.from_image(image, swap=64)
    assert m.check() == []
    assert m.loaded is not None
    assert not m.loaded.known
    assert sorted(m.processes) == [100, 101]
    assert m.processes[101].name == "bash"
    assert m.kernel.vm_stat[bits.NR_ANON_MAPPED] == 5
    assert m.kernel.vm_stat[bits.NR_FILE_MAPPED] == 3


def test_families_are_found_by_what_is_shared() -> None:
    _, image = real()
    m = Machine.from_image(image)
    shell, child = m.processes[100], m.processes[101]
    assert [m.process.pid for m in m.who_maps(0x20)] == [100, 101]
    assert [m.process.pid for m in m.who_maps(0x28)] == [101]
    mine, its = shell.vma_at(0x40_0000), child.vma_at(0x40_0000)
    assert mine is not None
    assert its is not None
    assert mine.anon_vma is its.anon_vma
    assert mine.vm_pgoff == its.vm_pgoff == 0x400
    data = shell.vma_at(0x7000_4000)
    assert data is not None
    assert data.vm_pgoff == 4


def test_what_would_reclaiming_this_do() -> None:
    """Everything can go: to swap, or to the file it came from; both processes lose it."""
    _, image = real()
    m = Machine.from_image(image, swap=64)
    result = m.reclaim(1000)
    assert result.swapped == 6  # five anonymous pages, one of shared memory
    assert m.check() == []
    shell, child = m.processes[100], m.processes[101]
    assert shell.mm.rss_stat[bits.MM_SWAPENTS] == 5
    assert child.mm.rss_stat[bits.MM_SWAPENTS] == 5
    assert m.kernel.vm_stat[bits.NR_FILE_MAPPED] == 0


def test_without_swap_only_files_can_go() -> None:
    _, image = real()
    m = Machine.from_image(image)
    m.reclaim(1000)
    assert m.kernel.vm_stat[bits.NR_ANON_MAPPED] == 5
    assert m.kernel.vm_stat[bits.NR_FILE_MAPPED] == 1  # shared memory has no other place


def test_cgroups_are_those_of_the_processes() -> None:
    _, image = real()
    m = Machine.from_image(image, swap=64)
    shell = m.cgroup("/user/shell")
    assert shell.usage == 8
    assert m.cgroup("/user").usage == 8
    assert m.reclaim(2, m.cgroup("/user")).reclaimed >= 2


def test_a_page_that_somebody_unread_maps_as_well_is_kept() -> None:
    world, _ = real()
    world.pages(0x20, 1, ANON, mapcount=5)
    m = Machine.from_image(world.build(), swap=64)
    assert m.loaded is not None
    assert m.loaded.unattributed == 1
    assert m.pins == {0x20: 3}
    assert m.check() == []
    m.reclaim(1000)
    assert m.kernel.pg_refcount[0x20] >= 3
    assert m.check() == []


def test_huge_entries_are_taken_apart() -> None:
    world = World()
    process = world.process(7, "big")
    vma = process.vma(0x4000_0000, 512)
    vma.map_huge(0x4000_0000, 0x200)
    world.folio(0x200, 9, ANON)
    m = Machine.from_image(world.build(), swap=1024)
    assert m.loaded is not None
    assert (m.loaded.entries, m.loaded.huge) == (512, 1)
    assert m.check() == []
    assert m.processes[7].pages(0x4000_0000, 512 * PAGE) == list(range(0x200, 0x400))
    assert HEAD
    assert TAIL


def test_what_cannot_be_right_is_left_out_and_counted() -> None:
    world = World()
    process = world.process(7, "odd")
    vma = process.vma(0x40_0000, 8)
    vma.map(0x40_0000, 0x20)
    vma.map(0x40_1000, 0x21)
    vma.map(0x40_2000, 0x3, flags=Pte.PRESENT | Pte.SPECIAL)
    process.pte(0x40_3000, 0x25, flags=Pte.SWAP | Pte.MIGRATION)
    process.pte(0x90_0000, 0x22)
    world.pages(0x20, 1, ANON)
    world.pages(0x21, 1, ANON | Kpf.KSM)
    world.pages(0x22, 1, ANON)
    world.pages(0x3, 1, ZERO)
    m = Machine.from_image(world.build(validate=True))
    assert m.loaded is not None
    assert m.loaded.left_out == {"outside of every VMA": 1, "waits, or is broken": 1, "ksm": 1}
    assert m.loaded.entries == 2
    assert m.kernel.zero_page == 0x3
    assert m.check() == []
    m.processes[7].write(0x40_2000, b"x")
    assert m.processes[7].pages(0x40_2000, 1)[0] not in (0, 3)
    assert m.check() == []


def test_swap_slots_are_shared_as_entries_share_them() -> None:
    world = World()
    process = world.process(7, "p")
    process.vma(0x40_0000, 4).swap(0x40_0000, 3, 9)
    child = process.fork(8)
    child.unmap(0x40_1000)
    m = Machine.from_image(world.build())
    area = m.kernel.swap_areas[0]
    assert (area.swap_map[3], area.swap_map[9], area.inuse) == (2, 1, 2)
    assert m.check() == []
    m.processes[7].read(0x40_0000, 1)
    m.processes[8].exit()
    assert m.check() == []
    assert swap_entry(3) == 3 << 5


def test_a_slot_of_many_holders_is_counted() -> None:
    world = World()
    for pid in range(1, 81):
        process = world.process(pid, "p")
        process.vma(0x40_0000, 1).swap(0x40_0000, 5)
    m = Machine.from_image(world.build())
    assert m.check() == []
    for process in list(m.processes.values()):
        process.exit()
    assert m.kernel.swap_areas[0].inuse == 0
    assert m.check() == []


def test_writable_and_dirty_are_chosen_safely() -> None:
    _, image = real()
    m = Machine.from_image(image)
    shell = m.processes[100]
    assert not shell.pte(0x40_0000) & bits._PAGE_RW  # both have it
    assert shell.pte(0x40_1000) & bits._PAGE_RW  # the child wrote to another
    assert shell.pte(0x40_1000) & bits._PAGE_DIRTY
    assert not shell.pte(0x7000_0000) & bits._PAGE_RW
    assert shell.pte(0x7100_0000) & bits._PAGE_RW


def test_an_empty_image_is_an_empty_machine() -> None:
    m = Machine.from_image(World().build())
    assert m.processes == {}
    assert m.check() == []
    p = m.spawn("first")
    p.write(p.mmap(PAGE), b"x")
    assert m.check() == []


def test_flags_of_vmas_stay() -> None:
    world = World()
    process = world.process(7, "p")
    process.vma(0x40_0000, 1, flags=Vm.LOCKED | Vm.DONTCOPY | Vm.UFFD_MISSING)
    m = Machine.from_image(world.build())
    vma = m.processes[7].vma_at(0x40_0000)
    assert vma is not None
    kept = bits.VM_LOCKED | bits.VM_DONTCOPY
    assert vma.vm_flags & (kept | bits.VM_UFFD_MISSING) == kept
    assert m.check() == []


# ---------------------------------------------------------------- huge and broken pages of a model


def round_trip(machine: Machine) -> list[str]:
    """What differs between an image and that of the machine it makes."""
    again = Machine.from_image(machine.snapshot(), cpus=2, profile=machine.kernel.profile)
    assert again.check() == []
    assert again.loaded is not None
    assert (again.loaded.misfits, again.loaded.left_out, again.loaded.huge) == (0, {}, 0)
    before, after = machine.snapshot(), again.snapshot()
    last = before.ram["end_pfn"][0]
    pages = after.pages.take(after.pages["pfn"] < last)
    after = MemoryImage(after.tables | {"ram": before.ram, "pages": pages})
    return differences(without_handles(before), without_handles(after))


@pytest.mark.parametrize("profile", ["4.18", "6.1"])
def test_huge_pages_become_what_they_were(profile: str) -> None:
    scene = HugeScene(profile)
    again = load_again(scene.machine)
    stats, loaded = scene.machine.mem_stats(), again.mem_stats()
    for name in ("nr_anon_thps", "nr_anon_mapped", "nr_shmem_thps", "nr_shmem_pmdmapped"):
        assert loaded[name] == stats[name] > 0
    # Its pages are on no list, as nobody made them by a fault; in the copy they are on one.
    wrong = [column for column in round_trip(scene.machine) if column != "pages.flags"]
    assert wrong == []


def huge_machine() -> tuple[Machine, Process]:
    """A machine with a huge page that two map, one of them in parts, and broken memory."""
    machine = Machine(ram=4096, cpus=2, swap=64, profile=FIXED)
    machine.thp.enabled = "always"
    process = machine.spawn("huge")
    start = process.mmap(3 << 21, addr=1 << 30)
    process.touch(start, 2 << 21)
    process.read(start + (2 << 21), 1)
    child = process.fork("child")
    child.munmap(start + (1 << 21), 5 * PAGE)
    broken = process.mmap(PAGE, addr=1 << 28)
    process.write(broken, b"x")
    machine.memory_failure(process.pages(broken, PAGE)[0])
    machine.memory_failure(4000)
    return machine, process


def test_huge_and_broken_pages_become_what_they_were() -> None:
    machine, _ = huge_machine()
    assert machine.mem_stats()["nr_anon_thps"] == 2
    # A broken page does not say any more whose it was, and zero pages not that they are up to date.
    forgotten = {"pages.flags", "pages.mapping", "pages.index", "pages.anon_vma"}
    assert set(round_trip(machine)) <= forgotten


def test_a_loaded_huge_page_can_be_split_and_broken_memory_is_kept() -> None:
    machine, process = huge_machine()
    again = load_again(machine)
    same = again.processes[process.pid]
    with pytest.raises(BrokenMemory):
        same.read(1 << 28, 1)
    same.munmap(1 << 30, PAGE)
    page = same.pages((1 << 30) + PAGE, PAGE)[0]
    assert again.split_huge_page(page)
    assert again.check() == []
    for one in list(again.processes.values()):
        one.exit()
    assert leftovers(again.kernel) == []

# SPDX-License-Identifier: GPL-2.0-only
"""Large folios: mapped by one PMD, by PTEs, in part, and by hugetlb."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np
import pytest

from . import kernel, settings
from .expect import arena_entries, expect, is_large
from .world import PAGE, READ_WRITE, Process, Region, World

pytestmark = pytest.mark.live

HUGE = 2 << 20
HUGE_PAGES = HUGE // PAGE
FOLIO_64K = 64 << 10
MADV_HUGEPAGE = 14
MAP_HUGETLB = 0x40000
PRIVATE_HUGETLB = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB
SHARED_HUGETLB = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_HUGETLB


@pytest.fixture(autouse=True)
def pages_of_2_mib() -> None:
    path = settings.THP / "hpage_pmd_size"
    if not path.exists() or int(settings.value_of(path)) != HUGE:
        pytest.skip("this kernel has no transparent huge pages of 2 MiB")


def huge_memory(process: Process, folios: int) -> Region:
    """Memory that is certainly made of THPs, each mapped by a PMD."""
    region = process.map_anon(folios * HUGE_PAGES, align=HUGE)
    process.advise(region, MADV_HUGEPAGE)
    process.write(region)
    if kernel.smaps_of(process, region)["AnonHugePages"] * 1024 != region.size:
        pytest.skip("the kernel had no huge pages to give")
    return region


@pytest.fixture
def thp() -> Iterator[None]:
    """THP for those who ask."""
    with settings.changed(settings.THP_ENABLED, "madvise"):
        yield


@pytest.fixture
def hugetlb() -> Iterator[None]:
    """A few hugetlb pages, until after the world has ended."""
    with settings.huge_pages(4):
        yield


@pytest.mark.usefixtures("thp")
def test_forked_huge_pages_are_shared_as_a_whole(world: World) -> None:
    parent = world.process()
    heap = huge_memory(parent, 2)
    child = parent.fork()

    expect(world, world.snapshot(), [(parent, heap), (child, heap)])


@pytest.mark.usefixtures("thp")
def test_one_page_of_a_huge_one_is_written_by_the_child(world: World) -> None:
    parent = world.process()
    heap = huge_memory(parent, 1)
    child = parent.fork()
    child.write(heap[7])
    if kernel.pfn(child, heap.start) != kernel.pfn(parent, heap.start):
        pytest.skip("this kernel copies the whole huge page")

    # One folio, mapped by a PMD in the parent and by 511 PTEs in the child.
    expect(
        world,
        world.snapshot(),
        [(parent, heap[7])],
        [(child, heap[7])],
        [(parent, heap[:7]), (child, heap[:7])],
        [(parent, heap[8:]), (child, heap[8:])],
    )


@pytest.mark.usefixtures("thp")
def test_a_huge_page_is_unmapped_in_part(world: World) -> None:
    parent = world.process()
    heap = huge_memory(parent, 1)
    child = parent.fork()
    parent.unmap(heap[100:300])

    expect(
        world,
        world.snapshot(),
        [(parent, heap[:100]), (child, heap[:100])],
        [(child, heap[100:300])],
        [(parent, heap[300:]), (child, heap[300:])],
    )


@pytest.mark.usefixtures("thp")
def test_a_huge_page_is_split_by_mprotect_and_moved(world: World) -> None:
    process = world.process()
    heap = huge_memory(process, 1)
    process.protect(heap[0:10], mmap.PROT_READ)
    moved = process.move(heap[20:40])

    expect(
        world,
        world.snapshot(),
        [(process, heap[:20])],
        [(process, moved)],
        [(process, heap[40:])],
    )


@pytest.mark.usefixtures("thp")
def test_a_huge_page_mapped_by_small_entries_is_no_huge_entry(world: World) -> None:
    process = world.process()
    heap = huge_memory(process, 1)
    process.protect(heap[5], mmap.PROT_READ)
    process.protect(heap[5], READ_WRITE)
    assert kernel.smaps_of(process, heap)["AnonHugePages"] == 0

    # 512 frames in sequence, each in an entry of its own: only the page table tells.
    image = world.snapshot()

    expect(world, image, [(process, heap)])
    assert {entry["order"] for _, _, entry in arena_entries(world, image)} == {0}


@pytest.mark.usefixtures("thp")
def test_the_huge_zero_page_is_not_counted(world: World) -> None:
    process = world.process()
    heap = process.map_anon(HUGE_PAGES, align=HUGE)
    process.advise(heap, MADV_HUGEPAGE)
    with settings.changed(settings.THP_ZERO_PAGE, "1"):
        process.read(heap)
    zero = kernel.pfns(process, heap)
    if len(set(zero)) != HUGE_PAGES:
        pytest.skip("the kernel gave small zero pages")
    assert kernel.kpageflags(zero[3]) & kernel.KPF_ZERO_PAGE

    image = world.snapshot()

    expect(world, image)
    assert not image.reverse.count(np.array(zero, np.uint64)).any()
    assert (image.reverse_special.count(np.array(zero, np.uint64)) == 1).all()


@pytest.mark.usefixtures("thp")
def test_folios_of_64_kib_forked_and_partly_copied(world: World) -> None:
    with settings.changed(settings.THP_64K, "madvise"):
        parent = world.process()
        heap = parent.map_anon(32, align=FOLIO_64K)
        parent.advise(heap, MADV_HUGEPAGE)
        parent.write(heap)
        if not all(is_large(frame) for frame in kernel.pfns(parent, heap)):
            pytest.skip("the kernel had no folios of 64 KiB to give")
        child = parent.fork()
        child.write(heap[3:5])
        parent.unmap(heap[14:18])

    expect(
        world,
        world.snapshot(),
        [(parent, heap[:3]), (child, heap[:3])],
        [(parent, heap[3:5])],
        [(child, heap[3:5])],
        [(parent, heap[5:14]), (child, heap[5:14])],
        [(child, heap[14:18])],
        [(parent, heap[18:]), (child, heap[18:])],
    )


@pytest.mark.usefixtures("hugetlb")
def test_private_hugetlb_pages_forked_and_copied(world: World) -> None:
    parent = world.process()
    heap = parent.map(2 * HUGE_PAGES, PRIVATE_HUGETLB)
    parent.write(heap)
    child = parent.fork()
    child.write(heap[0])
    assert kernel.kpageflags(kernel.pfn(child, heap.start)) & kernel.KPF_HUGE

    expect(
        world,
        world.snapshot(),
        [(parent, heap[:HUGE_PAGES])],
        [(child, heap[:HUGE_PAGES])],
        [(parent, heap[HUGE_PAGES:]), (child, heap[HUGE_PAGES:])],
    )


@pytest.mark.usefixtures("hugetlb")
def test_shared_hugetlb_pages(world: World) -> None:
    parent = world.process()
    memory = parent.map(2 * HUGE_PAGES, SHARED_HUGETLB)
    parent.write(memory)
    child = parent.fork()
    child.read(memory[HUGE_PAGES:])
    child.unmap(memory[:HUGE_PAGES])

    expect(
        world,
        world.snapshot(),
        [(parent, memory[:HUGE_PAGES])],
        [(parent, memory[HUGE_PAGES:]), (child, memory[HUGE_PAGES:])],
    )

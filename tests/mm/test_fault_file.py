# SPDX-License-Identifier: GPL-2.0-only
"""Files and shared memory: reading, writing, private copies, and what a read fault permits."""

from __future__ import annotations

from itertools import product

import pytest
from faulting import ARENA, PAGE, READ, WRITE, Faulting
from kernels import Failing

from rmap.mm import bits
from rmap.mm.page import lock_page, unlock_page
from rmap.model import BusError, OutOfMemory


def test_a_read_maps_the_page_of_the_cache() -> None:
    f = Faulting()
    data = f.file(content=b"on disk")
    a = f.map(2, kind="fileprivate", file=data)
    assert f.p.read(a, 7) == b"on disk"
    page = f.page(f.p, a)
    assert data.cached == {0: page}
    assert f.counts(page) == (1, 2)  # the cache has a reference as well
    assert f.told(f.p, a) == READ
    assert f.rss(f.p) == (1, 0, 0, 0)
    assert (f.stat("NR_FILE_MAPPED"), f.stat("NR_FILE_PAGES"), f.stat("PGMAJFAULT")) == (1, 1, 1)
    assert f.p.vmas[0].anon_vma is None
    other = f.m.spawn("other")
    b = other.mmap(PAGE, kind="fileprivate", file=data)
    assert other.read(b, 7) == b"on disk"
    assert f.counts(page) == (2, 3)
    assert f.stat("PGMAJFAULT") == 1
    assert f.sound()


def test_a_private_write_copies_and_never_maps_the_files_page() -> None:
    f = Faulting()
    data = f.file(content=b"on disk")
    a = f.map(1, kind="fileprivate", file=data)
    f.p.write(a, b"IN")
    mine = f.page(f.p, a)
    assert f.named(mine) is f.p.vmas[0].anon_vma
    assert f.counts(data.cached[0]) == (0, 1)
    assert f.told(f.p, a) == WRITE
    assert f.rss(f.p) == (0, 1, 0, 0)
    assert (f.p.read(a, 7), data.read(0, 7)) == (b"IN disk", b"on disk")
    assert f.sound()


def test_a_private_write_after_a_read_moves_the_page_from_file_to_anonymous_rss() -> None:
    f = Faulting()
    data = f.file(content=b"on disk")
    a = f.map(1, kind="fileprivate", file=data)
    f.p.read(a, 1)
    assert f.rss(f.p) == (1, 0, 0, 0)
    f.p.write(a, b"IN")
    assert f.rss(f.p) == (0, 1, 0, 0)
    assert f.counts(data.cached[0]) == (0, 1)
    assert f.stat("NR_FILE_MAPPED") == 0
    assert (f.p.read(a, 7), data.read(0, 7)) == (b"IN disk", b"on disk")
    assert f.sound()


def test_the_first_write_through_each_entry_of_a_disks_file_is_noticed() -> None:
    f = Faulting()
    data = f.file(content=b"clean")
    a = f.map(1, kind="file", file=data)
    f.p.read(a, 1)
    page = f.page(f.p, a)
    # Writing is permitted, but by the kernel, which wants to know of it.
    assert f.told(f.p, a) == READ
    assert not f.flags(page, bits.PG_dirty)
    f.p.write(a, b"dirty")
    assert f.told(f.p, a) == WRITE
    assert f.flags(page, bits.PG_dirty)
    assert f.stat("NR_FILE_DIRTY") == 1
    assert data.disk(0) == b"clean"
    assert data.writeback() == 1
    assert data.disk(0) == b"dirty"
    assert f.told(f.p, a) == READ
    f.p.write(a, b"D")
    assert (data.read(0, 5), data.disk(0)) == (b"Dirty", b"dirty")
    assert f.sound()


def test_a_write_fault_on_a_disks_file_makes_the_page_dirty_before_the_entry() -> None:
    f = Faulting()
    data = f.file(content=b"clean")
    a = f.map(1, kind="file", file=data)
    order: list[str] = []

    def look(name: str, arguments: tuple[object, ...]) -> None:
        if name in ("set_page_dirty", "alloc_set_pte"):
            order.append(name)

    f.k.tracer = look
    f.p.write(a, b"dirty")
    f.k.tracer = None
    assert order == ["set_page_dirty", "alloc_set_pte", "set_page_dirty"]
    assert f.told(f.p, a) == WRITE
    assert f.sound()


def test_a_read_of_shared_memory_permits_writing_at_once() -> None:
    f = Faulting()
    a = f.map(2, kind="shared")
    assert f.p.read(a, 3) == bytes(3)
    # Nobody keeps account of what is dirty in shared memory.
    assert f.told(f.p, a) == READ | bits._PAGE_RW
    page = f.page(f.p, a)
    assert f.counts(page) == (1, 2)
    assert f.flags(page, bits.PG_swapbacked | bits.PG_lru | bits.PG_uptodate)
    assert f.rss(f.p) == (0, 0, 0, 1)
    faults = f.stat("PGFAULT")
    f.p.write(a, b"shm")
    assert f.stat("PGFAULT") == faults
    assert f.told(f.p, a) == WRITE
    assert f.sound()


def test_shared_memory_is_shared_with_children_which_fault_for_themselves() -> None:
    f = Faulting()
    a = f.map(2, kind="shared")
    f.p.write(a, b"parent")
    child = f.p.fork()
    assert f.page(child, a) == 0
    child.write(a, b"C")
    child.write(a + PAGE, b"new")
    assert (f.p.read(a, 6), f.p.read(a + PAGE, 3)) == (b"Carent", b"new")
    assert f.page(f.p, a) == f.page(child, a)
    assert f.counts(f.page(f.p, a)) == (2, 3)
    child.exit()
    f.p.exit()
    # The object goes with its last mapping.
    assert f.stat("NR_SHMEM") == 0
    assert f.sound()


def test_a_shared_mapping_without_write_permission_stays_read_only() -> None:
    f = Faulting()
    data = f.file(shmem=True)
    a = f.map(1, kind="file", file=data, prot="r")
    f.p.read(a, 1)
    assert f.told(f.p, a) == READ
    f.p.mprotect(a, PAGE, "rw")
    f.p.write(a, b"w")
    assert f.told(f.p, a) == WRITE
    assert data.read(0, 1) == b"w"
    assert f.sound()


@pytest.mark.parametrize("shmem", [False, True])
@pytest.mark.parametrize("kind", ["file", "fileprivate"])
def test_beyond_the_end_of_the_file_is_a_bus_error(shmem: bool, kind: str) -> None:
    f = Faulting()
    data = f.file(2, shmem=shmem)
    a = f.map(4, kind=kind, file=data)
    f.p.touch(a, 2 * PAGE)
    for write in (False, True):
        with pytest.raises(BusError) as caught:
            f.p.touch(a, 4 * PAGE, write)
        assert caught.value.address == a + 2 * PAGE
    assert f.sound()


@pytest.mark.parametrize("shmem", [False, True])
@pytest.mark.parametrize("kind", ["file", "fileprivate"])
@pytest.mark.parametrize("site", ["page", "page_table", "anon_vma", "memcg_charge"])
def test_without_memory_a_file_fault_leaves_everything_as_it_was(
    shmem: bool, kind: str, site: str
) -> None:
    failures = 0
    for nth, index, write in product((1, 2, 3), (0, 1), (False, True)):
        f = Faulting(ram=64)
        data = f.file(shmem=shmem)
        data.write(0, b"cached")
        a = f.map(4, kind=kind, file=data)
        f.k.inject = Failing(nth, site)
        failed = False
        try:
            f.p.touch(a + index * PAGE, PAGE, write)
        except OutOfMemory:
            failed = True
        assert failed == (f.k.inject.asked >= nth)
        failures += failed
        f.k.inject = None
        assert not failed or not f.page(f.p, a + index * PAGE)
        assert f.sound()
        assert f.p.read(a, 6) == b"cached"
    # Only private copies need an anon_vma.
    assert failures or (site, kind) == ("anon_vma", "file")


# ---------------------------------------------------------------- fault-around


def cached_file(f: Faulting, pages: int = 32) -> tuple[object, int]:
    """A file with all pages cached, mapped at the arena's beginning."""
    data = f.m.file("cached", pages)
    data.read(0, pages * PAGE)
    return data, f.map(pages, kind="fileprivate", file=data)


def mapped(f: Faulting, a: int, pages: int) -> list[int]:
    """Which of a range of pages are mapped."""
    return [n for n, page in enumerate(f.p.pages(a, pages * PAGE)) if page]


def test_fault_around_is_off_until_it_is_asked_for() -> None:
    f = Faulting()
    _, a = cached_file(f)
    f.p.read(a + 20 * PAGE, 1)
    assert mapped(f, a, 32) == [20]


def test_fault_around_maps_the_aligned_neighbours_that_are_cached() -> None:
    f = Faulting()
    f.k.fault_around = 16
    _, a = cached_file(f)
    assert f.p.read(a + 20 * PAGE, 1) == b"\0"
    assert mapped(f, a, 32) == list(range(16, 32))
    assert f.stat("PGFAULT") == 1
    assert f.rss(f.p) == (16, 0, 0, 0)
    assert {f.counts(page) for page in f.p.pages(a + 16 * PAGE, 16 * PAGE)} == {(1, 2)}
    # A write gets a copy of its one page, as ever.
    f.p.write(a, b"x")
    assert mapped(f, a, 32) == [0, *range(16, 32)]
    assert f.sound()


def test_fault_around_stays_within_the_vma_and_leaves_alone_what_is_there() -> None:
    f = Faulting()
    f.k.fault_around = 16
    data = f.m.file("cached", 32)
    data.read(0, 32 * PAGE)
    a = f.p.mmap(5 * PAGE, kind="fileprivate", file=data, pgoff=9, addr=ARENA + 18 * PAGE)
    f.p.write(a + PAGE, b"mine")
    mine = f.page(f.p, a + PAGE)
    f.p.read(a + 3 * PAGE, 1)
    assert mapped(f, a, 5) == [0, 1, 2, 3, 4]
    assert f.page(f.p, a + PAGE) == mine
    cached = data.cached
    pages = f.p.pages(a, 5 * PAGE)
    assert pages[0] == cached[9]
    assert pages[2:] == [cached[11], cached[12], cached[13]]
    assert f.sound()


def test_fault_around_maps_no_page_that_is_locked_or_beyond_the_end() -> None:
    f = Faulting()
    f.k.fault_around = 16
    data = f.m.file("cached", 8)
    data.read(0, 8 * PAGE)
    a = f.map(16, kind="fileprivate", file=data)
    lock_page(f.k, data.cached[3])
    f.p.read(a, 1)
    unlock_page(f.k, data.cached[3])
    assert mapped(f, a, 16) == [0, 1, 2, 4, 5, 6, 7]
    assert f.sound()


def test_fault_around_reads_what_was_asked_for_though_only_neighbours_are_cached() -> None:
    f = Faulting()
    f.k.fault_around = 16
    data = f.file(content=b"0".ljust(PAGE, b"\0") + b"1")
    data.read(0, 1)
    a = f.map(8, kind="fileprivate", file=data)
    assert f.p.read(a + PAGE, 1) == b"1"
    assert mapped(f, a, 8) == [0, 1]
    assert f.sound()

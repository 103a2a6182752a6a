# SPDX-License-Identifier: GPL-2.0-only
"""Files: the page cache, read and write, truncation; shared memory between cache and swap."""

from __future__ import annotations

import pytest
from faulting import PAGE, Faulting
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import Failing

from rmap.mm import bits
from rmap.mm.bug import KernelBug
from rmap.mm.filemap import page_cache_read
from rmap.mm.page import PageSwapCache, lock_page, page_private, unlock_page
from rmap.mm.page_cache import (
    add_to_page_cache_locked,
    delete_from_page_cache,
    find_get_page,
    find_lock_entry,
    page_cache_item,
    radix_to_swp_entry,
    swp_to_radix_entry,
)
from rmap.mm.shmem import shmem_getpage, shmem_unuse, shmem_writepage
from rmap.mm.swap_slots import swap_count
from rmap.model import BusError, FileHandle, SyscallError

STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 4 * PAGE - 1), st.binary(min_size=1, max_size=9000)),
    st.tuples(st.just("read"), st.integers(0, 4 * PAGE), st.integers(0, 9000)),
    st.tuples(st.just("truncate"), st.integers(0, 4), st.none()),
    st.tuples(st.just("writeback"), st.none(), st.none()),
    st.tuples(st.just("store"), st.integers(0, 4 * PAGE - 1), st.integers(1, 255)),
)


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.lists(STEP, max_size=12))
def test_a_file_holds_what_was_written_to_it_last(shmem: bool, steps: list[tuple]) -> None:
    f = Faulting()
    data = f.file(4, shmem=shmem)
    a = f.map(4, kind="file", file=data)
    whole = bytearray(4 * PAGE)
    for what, where, value in steps:
        if what == "write":
            try:
                written = data.write(where, value)
            except SyscallError:
                written = 0
            assert written == max(0, min(len(value), len(whole) - where))
            whole[where : where + written] = value[:written]
        elif what == "read":
            assert data.read(where, value) == bytes(whole[where : where + value])
        elif what == "truncate":
            data.truncate(where * PAGE)
            del whole[where * PAGE :]
            whole.extend(bytes(where * PAGE - len(whole)))
        elif what == "writeback":
            data.writeback()
        elif where < len(whole):
            f.p.write(a + where, bytes([value]))
            whole[where] = value
        else:
            with pytest.raises(BusError):
                f.p.write(a + where, bytes([value]))
    assert data.read(0, 5 * PAGE) == bytes(whole)
    assert f.sound()


def test_a_page_is_read_once_and_has_the_caches_reference() -> None:
    f = Faulting()
    data = f.file(content=b"abc")
    assert data.read(1, 5) == b"bc\0\0\0"
    page = data.cached[0]
    assert f.counts(page) == (0, 1)
    assert f.flags(page, bits.PG_uptodate | bits.PG_lru | bits.PG_referenced)
    assert not f.flags(page, bits.PG_active)
    data.read(0, 1)
    # The second use makes it one worth keeping.
    assert f.flags(page, bits.PG_active)
    assert f.stat("NR_FILE_PAGES") == 1
    assert data.read(8 * PAGE - 1, 100) == b"\0"
    assert data.read(8 * PAGE, 100) == b""
    assert f.sound()


def test_a_write_makes_pages_dirty_and_stops_at_the_end() -> None:
    f = Faulting()
    data = f.file(2, content=b"0123456789")
    assert data.write(4, b"xy") == 2
    assert data.read(0, 10) == b"0123xy6789"
    assert data.disk(0) == b"0123456789"
    assert f.stat("NR_FILE_DIRTY") == 1
    assert data.write(2 * PAGE - 3, b"abcdef") == 3
    with pytest.raises(SyscallError) as caught:
        data.write(2 * PAGE, b"x")
    assert caught.value.errno == bits.ENOSPC
    assert data.write(0, b"") == 0
    assert data.writeback() == 2
    assert (data.disk(0), data.disk(1)[-3:]) == (b"0123xy6789", b"abc")
    assert f.sound()


@pytest.mark.parametrize("shmem", [False, True])
def test_reading_and_writing_without_memory(shmem: bool) -> None:
    f = Faulting()
    data = f.file(shmem=shmem)
    for site in ("page", "memcg_charge"):
        f.k.inject = Failing(1, site)
        with pytest.raises(SyscallError) as caught:
            data.write(0, b"x")
        assert caught.value.errno == bits.ENOMEM
        if shmem:
            assert data.read(0, 1) == b"\0"  # a hole takes no page
        else:
            with pytest.raises(SyscallError):
                data.read(0, 1)
    f.k.inject = None
    assert data.cached == {}
    assert data.write(0, b"x") == 1
    assert f.sound()


# ---------------------------------------------------------------- the page cache itself


def test_pages_enter_and_leave_the_cache_locked() -> None:
    f = Faulting()
    data = f.file()
    other = f.file()
    with f.m.kthread("test") as k:
        assert page_cache_read(k, data.mapping, 3, k.memcgs[0]) == 0
        page = find_get_page(k, data.mapping, 3)
        assert page == data.cached[3]
        assert find_get_page(k, data.mapping, 4) == 0
        # Somebody else was faster: that is as good as having read it.
        assert page_cache_read(k, data.mapping, 3, k.memcgs[0]) == 0
        with pytest.raises(KernelBug, match="not locked"):
            add_to_page_cache_locked(k, page, other.mapping, 0, 0)
        with pytest.raises(KernelBug, match="not locked"):
            delete_from_page_cache(k, page)
        # That bug was met with the lock of the cache held.
        data.mapping.i_pages_lock.unlock()
        assert find_lock_entry(k, data.mapping, 3) == page
        assert f.counts(page) == (0, 3)
        assert add_to_page_cache_locked(k, page, data.mapping, 3, 0) == -bits.EEXIST
        delete_from_page_cache(k, page)
        unlock_page(k, page)
        assert f.counts(page) == (0, 2)
        assert page_cache_item(data.mapping, 3) == 0
        assert find_lock_entry(k, data.mapping, 3) == 0
    f.k.pg_refcount[page] = 1


def test_a_mapped_page_may_not_leave_the_cache() -> None:
    f = Faulting()
    data = f.file()
    a = f.map(1, kind="file", file=data)
    f.p.read(a, 1)
    page = f.page(f.p, a)
    with f.m.kthread("test") as k:
        lock_page(k, page)
        with pytest.raises(KernelBug, match="mapped"):
            delete_from_page_cache(k, page)
        data.mapping.i_pages_lock.unlock()
        unlock_page(k, page)


@given(st.integers(1, 2**57 - 1), st.integers(0, 26))
def test_a_swap_entry_is_told_from_a_page(offset: int, kind: int) -> None:
    entry = kind << 57 | offset
    item = swp_to_radix_entry(entry)
    assert item < 0
    assert radix_to_swp_entry(item) == entry
    assert radix_to_swp_entry(5) == 0


# ---------------------------------------------------------------- truncation


def test_truncation_takes_pages_from_everybody_private_copies_too() -> None:
    f = Faulting()
    data = f.file(4, content=b"".join(bytes([n]) * PAGE for n in (1, 2, 3, 4)))
    a = f.map(4, kind="fileprivate", file=data)
    b = f.p.mmap(4 * PAGE, kind="file", file=data)
    f.p.touch(b, 4 * PAGE)
    f.p.write(a + 3 * PAGE, b"mine")
    f.p.touch(a, 4 * PAGE, write=False)
    gone = [data.cached[2], data.cached[3], f.page(f.p, a + 3 * PAGE)]
    data.truncate(2 * PAGE)
    assert sorted(data.cached) == [0, 1]
    assert [f.counts(page) for page in gone] == [(0, 0)] * 3
    assert f.stat("NR_FILE_DIRTY") == 2
    for start in (a, b):
        f.p.read(start + PAGE, 1)
        with pytest.raises(BusError):
            f.p.read(start + 2 * PAGE, 1)
    data.truncate(4 * PAGE)
    # What was cut off is not there again.
    assert f.p.read(a + 3 * PAGE, 4) == bytes(4)
    assert data.read(2 * PAGE, 4) == bytes(4)
    assert f.sound()


def test_truncation_frees_what_shared_memory_has_in_swap() -> None:
    f = Faulting()
    data = f.file(4, shmem=True)
    data.write(PAGE, b"x")
    assert f.m.reclaim(64).reclaimed >= 1
    assert data.cached == {}
    assert f.k.swap_areas[0].inuse == 1
    data.truncate(0)
    assert f.k.swap_areas[0].inuse == 0
    assert data.mapping.i_pages == {}
    assert f.sound()


# ---------------------------------------------------------------- shared memory and swap


def in_swap(f: Faulting) -> tuple[FileHandle, int]:
    """A shmem file with one page, which is in swap; and the entry."""
    data = f.file(4, shmem=True)
    data.write(PAGE + 7, b"shm")
    f.m.reclaim(64)
    entry = radix_to_swp_entry(page_cache_item(data.mapping, 1))
    assert entry
    assert swap_count(f.k, entry) == 1
    assert (f.stat("NR_SHMEM"), f.stat("NR_FILE_PAGES")) == (0, 0)
    assert f.sound()
    return data, int(entry)


def test_shared_memory_goes_to_swap_and_comes_back() -> None:
    f = Faulting()
    data, entry = in_swap(f)
    a = f.map(4, kind="file", file=data)
    assert f.p.read(a + PAGE + 7, 3) == b"shm"
    page = data.cached[1]
    assert f.page(f.p, a + PAGE) == page
    assert f.counts(page) == (1, 2)
    assert f.flags(page, bits.PG_dirty | bits.PG_swapbacked | bits.PG_lru)
    assert not PageSwapCache(f.k, page)
    assert swap_count(f.k, entry) == 0
    assert f.k.swap_areas[0].inuse == 0
    assert (f.stat("NR_SHMEM"), f.stat("PGMAJFAULT")) == (1, 1)
    assert f.sound()


def test_reads_and_writes_bring_it_back_as_well() -> None:
    f = Faulting()
    data, _ = in_swap(f)
    assert data.read(PAGE + 7, 3) == b"shm"
    f.m.age(64)
    f.m.reclaim(64)
    if 1 in data.cached:  # it was used, and gets a second chance
        f.m.reclaim(64)
    assert data.cached == {}
    data.write(PAGE + 7, b"S")
    assert data.read(PAGE + 7, 3) == b"Shm"
    assert f.sound()


def test_a_mapped_page_is_unmapped_by_reclaim_and_its_dirt_is_kept() -> None:
    f = Faulting()
    a = f.map(2, kind="shared")
    f.p.write(a, b"mapped")
    child = f.p.fork()
    child.read(a, 1)
    assert f.counts(f.page(f.p, a)) == (2, 3)
    for _ in range(4):
        f.m.age(64)
        f.m.reclaim(64)
    assert (f.page(f.p, a), f.page(child, a)) == (0, 0)
    assert f.k.swap_areas[0].inuse == 1
    assert child.read(a, 6) == f.p.read(a, 6) == b"mapped"
    assert f.rss(f.p) == f.rss(child) == (0, 0, 0, 1)
    assert f.sound()


def test_swapoff_brings_it_back() -> None:
    f = Faulting()
    data, _ = in_swap(f)
    f.m.swapoff()
    assert list(data.cached) == [1]
    assert data.read(PAGE + 7, 3) == b"shm"
    assert f.sound()


def test_a_page_that_no_file_has_any_more_is_left_to_swapoff() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"anon")
    page = f.page(f.p, a)
    f.set_pte(f.p, a, f.pte(f.p, a) & ~bits._PAGE_ACCESSED)
    assert f.m.try_to_unmap(page)
    with f.m.kthread("swapoff") as k:
        lock_page(k, page)
        k.pg_refcount[page] += 1
        assert shmem_unuse(k, page_private(k, page), page) == 0
    assert f.counts(page) == (0, 1)
    assert f.p.read(a, 4) == b"anon"
    assert f.sound()


def test_without_swap_a_page_stays_and_is_said_to_be_worth_keeping() -> None:
    f = Faulting(swap=0)
    data = f.file(4, shmem=True)
    data.write(0, b"x")
    page = data.cached[0]
    with f.m.kthread("writepage") as k:
        lock_page(k, page)
        assert shmem_writepage(k, page) == bits.AOP_WRITEPAGE_ACTIVATE
        unlock_page(k, page)
    assert data.cached == {0: page}
    assert f.sound()


def test_swap_may_fail_on_the_way_out_and_on_the_way_in() -> None:
    f = Faulting()
    data = f.file(4, shmem=True)
    data.write(0, b"keep")
    page = data.cached[0]
    for site in ("swap_slot", "swap_cache"):
        f.k.inject = Failing(1, site)
        with f.m.kthread("writepage") as k:
            lock_page(k, page)
            assert shmem_writepage(k, page) == bits.AOP_WRITEPAGE_ACTIVATE
            unlock_page(k, page)
        f.k.inject = None
        assert data.cached == {0: page}
        assert f.k.swap_areas[0].inuse == 0
        assert f.sound()
    f.m.reclaim(64)
    f.m.reclaim(64)
    assert data.cached == {}
    for site in ("page", "swap_cache", "memcg_charge"):
        f.k.inject = Failing(1, site)
        with f.m.kthread("read") as k:
            got = shmem_getpage(k, data.mapping, 0, bits.SGP_READ, k.memcgs[0], None)
        assert got == -bits.ENOMEM, site
        f.k.inject = None
        assert page_cache_item(data.mapping, 0) < 0
        assert f.sound()
    assert data.read(0, 4) == b"keep"
    assert f.sound()

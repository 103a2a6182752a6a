# SPDX-License-Identifier: GPL-2.0-only
"""Dirty pages of files: how they become so, how they are counted, written, and kept clean."""

from __future__ import annotations

import pytest
from handmade import WRITE, cache, crashed
from handmade import make_file as bare_file
from kernels import make_kernel
from pressure import Process, elsewhere, lists_are_sound, machine

from rmap.mm.bits import (
    NR_FILE_DIRTY,
    NR_WRITEBACK,
    PG_dirty,
    PG_reclaim,
    PG_uptodate,
    PG_writeback,
)
from rmap.mm.bug import KernelBug
from rmap.mm.content import page_bytes
from rmap.mm.filemap import file_read, file_write, make_file, truncate
from rmap.mm.lru import isolate_lru_page, put_page, putback_lru_page
from rmap.mm.memcg import mem_cgroup_create
from rmap.mm.mm_types import File, Kernel
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.page_dirty import (
    cancel_dirty_page,
    end_page_writeback,
    set_page_dirty,
    set_page_dirty_lock,
    set_page_writeback,
    wait_for_stable_page,
    wait_on_page_writeback,
)
from rmap.mm.pgtable import pte_dirty, pte_write
from rmap.mm.writeback import (
    clear_page_dirty_for_io,
    file_writepage,
    wakeup_flusher_threads,
    write_cache_pages,
)
from rmap.sync.core import Deadlock


def dirty(k: Kernel, file: File, index: int) -> bool:
    page = file.f_mapping.i_pages[index]
    return bool(k.pg_flags[page] & PG_dirty)


def test_only_pages_of_disk_files_are_counted_dirty() -> None:
    k = make_kernel()
    for shmem, count in ((True, 0), (False, 1)):
        page = cache(k, bare_file(k, shmem=shmem), 0)
        assert set_page_dirty(k, page)
        assert not set_page_dirty(k, page)
        assert k.pg_flags[page] & PG_dirty
        assert k.vm_stat[NR_FILE_DIRTY] == k.memcgs[0].stat[NR_FILE_DIRTY] == count
    cancel_dirty_page(k, page)
    cancel_dirty_page(k, page)
    assert k.vm_stat[NR_FILE_DIRTY] == 0
    assert set_page_dirty_lock(k, page)
    # A page that belongs to no file has nowhere to be counted.
    k.pg_mapping[page] = 0
    k.pg_flags[page] &= ~PG_dirty
    assert set_page_dirty(k, page)
    assert k.vm_stat[NR_FILE_DIRTY] == 1
    cancel_dirty_page(k, page)
    assert not k.pg_flags[page] & PG_dirty


def test_dirtying_a_page_that_was_never_read_is_warned_of() -> None:
    k = make_kernel()
    page = cache(k, bare_file(k), 0)
    k.pg_flags[page] ^= PG_uptodate
    set_page_dirty(k, page)
    assert [warning.check for warning in k.warnings] == [
        "buffer.c:592 a page is dirtied that is not up to date"
    ]


def test_dirtying_a_page_takes_the_mark_of_reclaim_off() -> None:
    k = make_kernel()
    page = cache(k, bare_file(k), 0)
    k.pg_flags[page] |= PG_reclaim
    set_page_dirty(k, page)
    assert not k.pg_flags[page] & PG_reclaim


def test_writeback_is_counted_and_ends_once() -> None:
    k = make_kernel()
    page = cache(k, bare_file(k), 0)
    with pytest.raises(KernelBug, match="not locked"):
        set_page_writeback(k, page)
    lock_page(k, page)
    assert not set_page_writeback(k, page)
    assert set_page_writeback(k, page)
    assert k.vm_stat[NR_WRITEBACK] == 1
    with pytest.raises(Deadlock):
        wait_on_page_writeback(k, page)
    # Nobody changes a page of a file here while it is written, so nobody waits for that.
    wait_for_stable_page(k, page)
    end_page_writeback(k, page)
    wait_on_page_writeback(k, page)
    assert k.vm_stat[NR_WRITEBACK] == 0
    with pytest.raises(KernelBug, match="not under writeback"):
        end_page_writeback(k, page)
    unlock_page(k, page)
    crashed()


# ---------------------------------------------------------------- with processes


def test_a_written_page_is_clean_until_the_next_store() -> None:
    k = machine()
    file = make_file(k, "f", 8, False)
    p = Process(k)
    q = Process(k, cpu=1)
    for one in (p, q):
        one.mmap(0, 8, shared=True, file=file)
    p.store(0, b"from p")
    q.store(0, b"from q")
    page = p.pfn(0)
    assert dirty(k, file, 0)
    assert k.vm_stat[NR_FILE_DIRTY] == 1
    assert write_cache_pages(k, file.f_mapping) == 1
    assert file.f_mapping.backing[0] == b"from q"
    assert not dirty(k, file, 0)
    assert k.vm_stat[NR_FILE_DIRTY] == k.vm_stat[NR_WRITEBACK] == 0
    for one in (p, q):
        assert not pte_write(one.pte(0))
        assert not pte_dirty(one.pte(0))
        assert one.pfn(0) == page
    assert write_cache_pages(k, file.f_mapping) == 0
    # The translations of both CPUs were flushed, so this faults, and is seen.
    p.store(0, b"again!")
    assert dirty(k, file, 0)
    assert q.load(0, 6) == b"again!"
    assert wakeup_flusher_threads(k) == 1
    assert file.f_mapping.backing[0] == b"again!"
    lists_are_sound(k)


def test_pages_are_written_in_the_order_of_the_file() -> None:
    k = machine()
    file = make_file(k, "f", 8, False)
    p = Process(k)
    p.mmap(0, 8, shared=True, file=file)
    for page in (5, 1, 7, 2):
        p.store(page, b"%d" % page)
    p.load(0)
    written: list[int] = []
    k.tracer = lambda name, what: (
        written.append(k.pg_index[what[0]]) if name == "rmap_walk" else None
    )
    assert write_cache_pages(k, file.f_mapping) == 4
    k.tracer = None
    assert written == [1, 2, 5, 7]
    assert file.f_mapping.backing == {1: b"1", 2: b"2", 5: b"5", 7: b"7"}


def test_private_copies_are_nobody_elses_business() -> None:
    k = machine()
    file = make_file(k, "f", 4, False)
    file_write(k, file, 0, b"of the file")
    p = Process(k)
    p.mmap(0, 4, file=file)
    p.store(0, b"p's own")
    assert write_cache_pages(k, file.f_mapping) == 1
    assert file.f_mapping.backing[0] == b"of the file"
    assert pte_write(p.pte(0))
    p.check()
    assert file_read(k, file, 0, 11) == b"of the file"


def test_a_dirty_bit_that_only_a_page_table_has_is_found() -> None:
    """What the mapping dirtied without a fault is transferred before the page is called clean."""
    k = machine()
    file = make_file(k, "f", 4, False)
    p = Process(k)
    p.mmap(0, 4, shared=True, file=file)
    p.store(0, b"seen")
    page = p.pfn(0)
    lock_page(k, page)
    cancel_dirty_page(k, page)
    assert clear_page_dirty_for_io(k, page)
    assert not clear_page_dirty_for_io(k, page)
    assert k.vm_stat[NR_FILE_DIRTY] == 0
    unlock_page(k, page)
    with pytest.raises(KernelBug, match="not locked"):
        clear_page_dirty_for_io(k, page)
    assert not pte_write(p.pte(0))
    assert WRITE


def test_shmem_is_not_written_back() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 4, shared=True)
    p.store(0, b"in memory")
    assert wakeup_flusher_threads(k) == 0
    page = p.pfn(0)
    lock_page(k, page)
    # Nothing is cleaned in page tables for a mapping whose dirty pages nobody counts.
    assert clear_page_dirty_for_io(k, page)
    assert pte_write(p.pte(0))
    set_page_dirty(k, page)
    unlock_page(k, page)


def test_what_lies_beyond_the_end_of_a_file_is_not_written() -> None:
    k = machine()
    file = make_file(k, "f", 4, False)
    file_write(k, file, 3 * 4096, b"tail")
    page = file.f_mapping.i_pages[3]
    file.f_mapping.size_pages = 2
    lock_page(k, page)
    assert clear_page_dirty_for_io(k, page)
    file_writepage(k, page, file.f_mapping)
    assert 3 not in file.f_mapping.backing
    file.f_mapping.size_pages = 4
    truncate(k, file, 0)
    assert k.nr_free == k.nr_pages - 1


def test_a_page_that_is_truncated_before_it_can_be_locked_is_left_alone() -> None:
    k = machine()
    file = make_file(k, "f", 4, False)
    file_write(k, file, 0, b"gone")
    page = file.f_mapping.i_pages[0]
    # Somebody takes a reference, and the truncation happens while the writer waits for the lock.
    k.pg_refcount[page] += 1
    truncate(k, file, 0)
    file.f_mapping.i_pages[0] = page
    k.pg_flags[page] |= PG_dirty
    assert write_cache_pages(k, file.f_mapping) == 0
    assert not file.f_mapping.backing
    assert page_bytes(k, page) == b"gone"
    del file.f_mapping.i_pages[0]
    put_page(k, page)


def test_pages_written_for_reclaim_come_to_the_end_of_the_list() -> None:
    k = machine()
    file = make_file(k, "f", 4, False)
    file_write(k, file, 0, b"a" * 4096 * 3)
    first, second, third = (file.f_mapping.i_pages[i] for i in range(3))
    lru = k.memcgs[0].lruvec
    assert lru.tail[2] == first
    k.pg_flags[third] |= PG_reclaim
    assert wakeup_flusher_threads(k) == 3
    assert lru.tail[2] == third
    assert not k.pg_flags[third] & (PG_reclaim | PG_writeback)
    assert lru.head[2] == second
    lists_are_sound(k)


def test_dirty_pages_are_counted_in_the_cgroup_too() -> None:
    k = machine()
    job = mem_cgroup_create(k, "job", k.memcgs[0], -1)
    file = make_file(k, "f", 4, False)
    p = Process(k, memcg=job)
    p.mmap(0, 4, shared=True, file=file)
    p.store(0, b"x")
    assert job.stat[NR_FILE_DIRTY] == 1
    with elsewhere():
        write_cache_pages(k, file.f_mapping)
    assert job.stat[NR_FILE_DIRTY] == job.stat[NR_WRITEBACK] == 0
    page = p.pfn(0)
    assert isolate_lru_page(k, page) == 0
    putback_lru_page(k, page)
    lists_are_sound(k)

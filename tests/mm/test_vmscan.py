# SPDX-License-Identifier: GPL-2.0-only
"""Which pages reclaim looks at, and that nothing gets lost however little memory there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pressure import (
    Process,
    lists_are_sound,
    machine,
    squeeze,
    swap_is_sound,
)
from reclaiming import anon, cold, mapped_file, shrink

from rmap.mm.bits import (
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    MADV_COLD,
    MADV_DONTNEED,
    MADV_PAGEOUT,
    NR_FREE_PAGES,
    NR_ISOLATED,
    NR_SWAPCACHE,
    PGSCAN,
    PGSTEAL,
    PROT_EXEC,
    PROT_READ,
    SHRINK_ACTIVATE,
    PG_mlocked,
    PG_referenced,
)
from rmap.mm.filemap import file_read, file_write, make_file
from rmap.mm.lru import deactivate_page, isolate_lru_page, put_page, putback_lru_page
from rmap.mm.memcg import mem_cgroup_create
from rmap.mm.mm_types import Kernel
from rmap.mm.page import get_page
from rmap.mm.pgtable import pte_young
from rmap.mm.shrink_page_list import ScanControl
from rmap.mm.swap_cache import end_swap_writes
from rmap.mm.vmscan import (
    age_active_lists,
    get_scan_count,
    inactive_list_is_low,
    isolate_lru_pages,
    kswapd,
    reclaim,
    reclaim_clean_pages_from_list,
    reclaim_pages,
    shrink_active_list,
)
from rmap.sync.core import LockViolation

# ---------------------------------------------------------------- lists


def test_the_oldest_pages_are_looked_at_first() -> None:
    k = machine()
    p = anon(k, 8)
    lruvec = k.memcgs[0].lruvec
    assert lruvec.tail[LRU_INACTIVE_ANON] == p.pfn(0)
    sc = ScanControl(3, None)
    taken: list[int] = []
    with pytest.raises(LockViolation):
        isolate_lru_pages(k, 3, lruvec, LRU_INACTIVE_ANON, sc, taken)
    k.lru_lock.lock()
    assert isolate_lru_pages(k, 3, lruvec, LRU_INACTIVE_ANON, sc, taken) == 3
    k.lru_lock.unlock()
    assert taken == [p.pfn(i) for i in range(3)]
    assert k.vm_stat[NR_ISOLATED] == 3
    assert lruvec.recent_scanned[0] >= 3
    k.vm_stat[NR_ISOLATED] = 0
    for page in taken:
        putback_lru_page(k, page)
    assert lruvec.head[LRU_INACTIVE_ANON] == p.pfn(2)
    # What may not be unmapped goes round without being taken.
    sc.may_unmap = False
    taken.clear()
    k.lru_lock.lock()
    assert isolate_lru_pages(k, 2, lruvec, LRU_INACTIVE_ANON, sc, taken) == 0
    k.lru_lock.unlock()
    assert lruvec.head[LRU_INACTIVE_ANON] == p.pfn(4)
    lists_are_sound(k)


def test_active_pages_age_whether_used_or_not_but_programs_stay() -> None:
    k = machine()
    p = anon(k, 4, cold=False)
    _, q = mapped_file(k, prot=PROT_READ | PROT_EXEC)
    _, r = mapped_file(k)
    lruvec = k.memcgs[0].lruvec
    assert lruvec.size[LRU_ACTIVE_ANON] == 4
    for one in (q, r):
        for page in range(4):
            k.pg_flags[one.pfn(page)] |= PG_referenced
            one.load(page)
            shrink(k, one.pfn(page))
    for one in (q, r):
        for page in range(4):
            one.load(page)
    sc = ScanControl(32, None)
    assert shrink_active_list(k, 32, lruvec, sc, LRU_ACTIVE_ANON) == 4
    assert lruvec.size[LRU_INACTIVE_ANON] == 4
    assert sc.result.rotated == 4
    assert [pte_young(p.pte(page)) for page in range(4)] == [False] * 4
    active_file = lruvec.size[3]
    assert active_file > 0
    sc = ScanControl(32, None)
    moved = shrink_active_list(k, 32, lruvec, sc, 3)
    kept = lruvec.size[3]
    assert moved + kept == active_file
    # Whatever stays is part of a program that was run.
    programs = {q.pfn(page) for page in range(4)}
    page = lruvec.head[3]
    while page:
        assert page in programs
        page = k.pg_lru_next[page]
    lists_are_sound(k)


def test_pages_that_became_unevictable_are_put_where_they_belong() -> None:
    k = machine()
    p = anon(k, 4, cold=False)
    page = p.pfn(1)
    k.pg_flags[page] |= PG_mlocked
    age_active_lists(k, None, 32)
    assert k.memcgs[0].lruvec.size[4] == 1
    assert k.memcgs[0].lruvec.size[LRU_INACTIVE_ANON] == 3
    page = p.pfn(0)
    k.pg_flags[page] |= PG_mlocked
    reclaim(k, None, 8)
    assert k.memcgs[0].lruvec.size[4] == 2
    assert p.present(0, 4) == 2
    lists_are_sound(k)


def test_the_inactive_list_is_low_below_half_or_less_the_more_memory_there_is() -> None:
    k = machine()
    lruvec = k.memcgs[0].lruvec

    def low(inactive: int, active: int, file: int = 0) -> bool:
        base = LRU_INACTIVE_FILE if file else LRU_INACTIVE_ANON
        lruvec.size[base], lruvec.size[base + 1] = inactive, active
        return inactive_list_is_low(k, lruvec, file)

    assert not low(10, 10)
    assert low(9, 10)
    assert low(9, 10, 1)
    # At 10 GiB the ratio is 10: a tenth may be inactive.
    giga = 1 << 18
    assert not low(giga, 9 * giga)
    assert low(giga * 9 // 10, 9 * giga + giga // 10)
    k.swap_areas[0].writeok = False
    # Without swap nobody wants to know of anonymous memory.
    assert not low(0, 10)
    assert low(0, 10, 1)


def scan_counts(k: Kernel, priority: int, memcg: bool = False) -> list[int]:
    group = k.memcgs[0]
    sc = ScanControl(32, group if memcg else None)
    sc.priority = priority
    return list(get_scan_count(k, group.lruvec, sc))


def test_how_much_of_each_list_is_scanned() -> None:
    k = machine()
    lruvec = k.memcgs[0].lruvec
    for lru, size in enumerate((4096, 8192, 1024, 4096)):
        lruvec.size[lru] = size
    # Nothing is known of either kind: swappiness 60 of 200 for anonymous memory.
    lruvec.recent_scanned[0] = lruvec.recent_scanned[1] = 0
    lruvec.recent_rotated[0] = lruvec.recent_rotated[1] = 0
    assert scan_counts(k, 2) == [
        1024 * 60 // 201,
        2048 * 60 // 201,
        256 * 140 // 201,
        1024 * 140 // 201,
    ]
    # Files that turn out to be used are left in peace.
    lruvec.recent_scanned[0] = lruvec.recent_scanned[1] = 100
    lruvec.recent_rotated[1] = 100
    weights = 60 * 101 // 1, 140 * 101 // 101
    assert scan_counts(k, 0, memcg=True) == [4096, 8192, 1024, 4096]
    assert scan_counts(k, 2)[0] == 1024 * weights[0] // (sum(weights) + 1)
    k.swappiness = 0
    assert scan_counts(k, 2, memcg=True)[:2] == [0, 0]
    k.swappiness = 60
    # With enough inactive file pages there is no need of swapping.
    lruvec.size[LRU_INACTIVE_FILE] = 8192
    assert scan_counts(k, 2) == [0, 0, 2048, 1024]
    k.swap_areas[0].writeok = False
    lruvec.size[LRU_INACTIVE_FILE] = 1024
    assert scan_counts(k, 2) == [0, 0, 256, 1024]
    for lru in range(4):
        lruvec.size[lru] = 0


def test_with_hardly_any_files_left_anonymous_memory_is_scanned() -> None:
    k = machine()
    lruvec = k.memcgs[0].lruvec
    lruvec.size[LRU_INACTIVE_ANON] = 4096
    k.watermark_high = k.nr_free
    assert scan_counts(k, 2) == [1024, 0, 0, 0]
    lruvec.size[LRU_INACTIVE_ANON] = 0


# ---------------------------------------------------------------- under pressure


def test_more_memory_than_there_is() -> None:
    k = machine(pages=64)
    p = Process(k)
    p.mmap(0, 200)
    p.fill(0, 200)
    assert p.swapped(0, 200) >= 200 - 64
    p.check()
    assert k.vm_stat[NR_FREE_PAGES] == k.nr_free
    assert k.vm_stat[PGSCAN] >= k.vm_stat[PGSTEAL] >= 200 - 64
    assert k.vm_stat[NR_ISOLATED] == 0
    lists_are_sound(k)
    swap_is_sound(k, p)
    p.exit()
    assert k.nr_free == 63
    assert k.swap_areas[0].inuse == 0


def test_file_pages_go_before_anonymous_ones() -> None:
    k = machine()
    p = anon(k, 32, cold=False)
    file, q = mapped_file(k, 96)
    q.madvise(0, 96, MADV_COLD)
    counts = reclaim(k, None, 32)
    assert counts.reclaimed >= 32
    assert p.swapped(0, 32) == 0
    assert file.f_mapping.nrpages <= 64


def test_dirty_files_are_written_and_then_freed() -> None:
    k = machine()
    file = make_file(k, "f", 64, False)
    file_write(k, file, 0, b"".join(b"%04d" % i + bytes(4092) for i in range(64)))
    assert squeeze(k) == 64
    assert file.f_mapping.nrpages == 0
    assert [file_read(k, file, 4096 * i, 4) for i in range(64)] == [b"%04d" % i for i in range(64)]
    lists_are_sound(k)


def test_kswapd_runs_until_the_high_watermark_is_met() -> None:
    k = machine(pages=128)
    k.watermark_min, k.watermark_low, k.watermark_high = 8, 16, 24
    p = Process(k)
    p.mmap(0, 112)
    p.fill(0, 111)
    assert not k.kswapd_woken
    assert kswapd(k).scanned == 0
    p.store(111, b"last")
    assert k.kswapd_woken
    assert k.nr_free <= 16
    counts = kswapd(k)
    assert k.nr_free > 24
    assert counts.reclaimed > 0
    assert not k.kswapd_woken
    assert not k.in_reclaim
    p.check()


def test_reclaim_does_not_start_again_inside_itself() -> None:
    k = machine(pages=32)
    k.watermark_min = k.watermark_low = 4
    p = Process(k)
    p.mmap(0, 64)
    # Swapping out may need a continuation page: that comes from the reserve.
    p.fill(0, 64)
    assert not k.in_reclaim
    p.check()


def test_a_cgroup_is_squeezed_and_others_are_not_asked() -> None:
    k = machine()
    job = mem_cgroup_create(k, "job", k.memcgs[0], -1)
    p = Process(k, memcg=job)
    p.mmap(0, 16)
    p.fill(0, 16)
    q = anon(k, 16, cold=False)
    child = p.split()
    child.mm.memcg = k.memcgs[0]
    page = cold(k, p)
    child.load(0)
    # What a process outside does with the page is not asked for the cgroup; unmapping minds it.
    verdict, counts = shrink(k, page, ScanControl(1, job))
    assert (verdict, counts.unmap_fail) == (SHRINK_ACTIVATE, 1)
    deactivate_page(k, page)
    child.load(0)
    verdict, counts = shrink(k, page)
    assert (verdict, counts.unmap_fail) == (SHRINK_ACTIVATE, 0)
    assert squeeze(k, job) == 16
    assert job.usage == 0
    assert q.present(0, 16) == 16
    p.check()
    child.check()


# ---------------------------------------------------------------- pages that somebody chose


def test_pageout_reclaims_what_it_is_told_and_puts_the_rest_back() -> None:
    k = machine()
    p = anon(k, 8, cold=False)
    assert p.madvise(0, 4, MADV_PAGEOUT) == 0
    assert (p.swapped(0, 4), p.present(4, 4)) == (4, 4)
    pages = [p.pfn(4), p.pfn(5)]
    get_page(k, pages[1])
    p.madvise(4, 2, MADV_COLD)
    for page in pages:
        assert isolate_lru_page(k, page) == 0
    assert reclaim_pages(k, pages) == 1
    assert pages == []
    assert p.swapped(4, 2) == 2
    p.check()
    put_page(k, p.pfn(5))
    lists_are_sound(k)


def test_clean_pages_make_way_for_an_allocation_in_one_piece() -> None:
    k = machine()
    file, q = mapped_file(k, 3)
    file_write(k, file, 4096, b"dirty")
    p = anon(k, 2)
    pages = [file.f_mapping.i_pages[i] for i in range(3)] + [p.pfn(0)]
    for page in pages:
        isolate_lru_page(k, page)
    # They are in use, which is not asked.
    q.load(0)
    left = [pages[1], pages[3]]
    assert reclaim_clean_pages_from_list(k, pages) == 2
    assert pages == left
    for page in pages:
        putback_lru_page(k, page)
    assert q.load(0, 7) == b"file 00"
    lists_are_sound(k)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["w", "w", "w", "r", "f", "e", "s", "c", "a", "o", "z", "d"]),
        st.integers(0, 4),
        st.integers(0, 11),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_under_pressure(steps: list[tuple[str, int, int]]) -> None:
    """Processes that share pages in little memory: each reads what it stored."""
    k = machine(pages=40, swap=200)
    file = make_file(k, "f", 12, False)
    first = Process(k)
    first.mmap(0, 8)
    first.mmap(8, 2, shared=True)
    first.mmap(10, 2, shared=True, file=file)
    running = [first]
    shared: dict[int, bytes] = {}
    for number, (what, which, page) in enumerate(steps):
        p = running[which % len(running)]
        if what in "rw" and page >= 8:
            # Shared memory that comes back waits for its write to end, and nobody else runs here.
            end_swap_writes(k, k.swap_areas[0])
        if what == "w":
            p.store(page, b"%03d" % number)
            if page >= 8:
                shared[page] = p.stored.pop(page)
        elif what == "r":
            p.load(page)
        elif what == "f" and len(running) < 5:
            running.append(p.split(which % 2))
        elif what == "e" and len(running) > 1:
            running.remove(p)
            p.exit()
        elif what == "s":
            squeeze(k, rounds=1)
        elif what == "c":
            p.madvise(0, 8, MADV_COLD)
        elif what == "a":
            age_active_lists(k, None, 8)
        elif what == "o":
            p.madvise(page % 8, 1, MADV_PAGEOUT)
        elif what == "z":
            k.swap_areas[0].deferred = not k.swap_areas[0].deferred
            end_swap_writes(k, k.swap_areas[0])
        elif what == "d":
            p.madvise(page % 8, 1, MADV_DONTNEED)
            p.stored.pop(page % 8, None)
        lists_are_sound(k)
        swap_is_sound(k, *running)
    end_swap_writes(k, k.swap_areas[0])
    for p in running:
        p.check()
        for page, data in shared.items():
            assert p.load(page, 3) == data
        p.exit()
    # What lost its last entry while it was being written is left to reclaim.
    k.swap_areas[0].deferred = False
    squeeze(k)
    assert k.nr_free == 39
    assert k.swap_areas[0].inuse == k.vm_stat[NR_SWAPCACHE] == 0
    assert not k.warnings

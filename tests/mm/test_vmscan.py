# SPDX-License-Identifier: GPL-2.0-only
"""Reclaim: what becomes of each page, which pages are looked at, and that nothing gets lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pressure import (
    Process,
    lists_are_sound,
    locked_elsewhere,
    machine,
    squeeze,
    swap_is_sound,
)

from rmap.mm.bits import (
    DEF_PRIORITY,
    GFP_IO,
    GFP_KERNEL,
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    MADV_COLD,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_PAGEOUT,
    MM_ANONPAGES,
    MM_FILEPAGES,
    NR_FREE_PAGES,
    NR_ISOLATED,
    NR_MLOCK,
    PGLAZYFREED,
    PGSCAN,
    PGSTEAL,
    PROT_EXEC,
    PROT_READ,
    SHRINK_ACTIVATE,
    SHRINK_FREE,
    SHRINK_KEEP,
    SHRINK_KEEP_LOCKED,
    TLB_FLUSH_REMOTE,
    VM_LOCKED,
    PG_active,
    PG_dirty,
    PG_isolated,
    PG_locked,
    PG_mlocked,
    PG_reclaim,
    PG_referenced,
    PG_swapbacked,
    PG_unevictable,
    PG_writeback,
)
from rmap.mm.bug import KernelBug
from rmap.mm.filemap import file_read, file_write, make_file
from rmap.mm.lru import deactivate_page, isolate_lru_page, put_page, putback_lru_page
from rmap.mm.memcg import mem_cgroup_create
from rmap.mm.mm_types import File, Kernel
from rmap.mm.page import get_page, page_mapcount, unlock_page
from rmap.mm.page_alloc import alloc_pages
from rmap.mm.pgtable import pte_none, pte_young
from rmap.mm.shrink_page_list import ReclaimResult, ScanControl, shrink_page_list
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


def anon(k: Kernel, pages: int = 4, *, cold: bool = True) -> Process:
    """A process with anonymous pages, by default on the inactive list and not used lately."""
    p = Process(k)
    p.mmap(0, pages)
    p.fill(0, pages)
    if cold:
        p.madvise(0, pages, MADV_COLD)
    return p


def mapped_file(k: Kernel, pages: int = 4, prot: int = PROT_READ) -> tuple[File, Process]:
    """A clean file that a process has read through a mapping."""
    file = make_file(k, "f", pages, False)
    for index in range(pages):
        file.f_mapping.backing[index] = b"file %02d" % index
    p = Process(k)
    p.mmap(0, pages, prot, shared=True, file=file)
    for index in range(pages):
        assert p.load(index, 7) == b"file %02d" % index
    return file, p


def shrink(
    k: Kernel, page: int, sc: ScanControl | None = None, *, force: bool = False
) -> tuple[int, ReclaimResult]:
    """Isolate one page, reclaim it if possible, put it back if not: the verdict, the counts."""
    sc = sc or ScanControl(1, None)
    verdicts: list[int] = []

    def tracer(name: str, what: tuple) -> None:  # type: ignore[type-arg]
        if name == "shrink_page":
            verdicts.append(what[1])

    assert isolate_lru_page(k, page) == 0
    pages = [page]
    before, k.tracer = k.tracer, tracer
    freed = shrink_page_list(k, pages, sc, 0, force)
    k.tracer = before
    assert freed == (verdicts[0] == SHRINK_FREE)
    if pages:
        assert k.pg_refcount[page] >= 1
        putback_lru_page(k, page)
    assert not k.pg_flags[page] & PG_isolated
    lists_are_sound(k)
    return verdicts[0], sc.result


def cold(k: Kernel, p: Process, page: int = 0) -> int:
    """The frame at a page, made inactive and old."""
    p.madvise(page, 1, MADV_COLD)
    pfn = p.pfn(page)
    deactivate_page(k, pfn)
    return pfn


# ---------------------------------------------------------------- one page


def test_an_anonymous_page_goes_to_swap() -> None:
    k = machine()
    p = anon(k)
    verdict, counts = shrink(k, p.pfn(0))
    assert verdict == SHRINK_FREE
    assert (counts.scanned, counts.reclaimed, counts.swapped) == (1, 1, 1)
    assert "reclaimed=1" in repr(counts)
    assert p.slot(0) == 1
    p.check()


def test_a_page_that_somebody_has_locked_is_passed_over() -> None:
    k = machine()
    p = anon(k)
    with locked_elsewhere(k, p.pfn(0)):
        verdict, counts = shrink(k, p.pfn(0))
    assert verdict == SHRINK_KEEP
    assert counts.kept == 1


def test_a_page_in_use_is_activated() -> None:
    k = machine()
    p = anon(k)
    p.load(0)
    verdict, counts = shrink(k, p.pfn(0))
    assert verdict == SHRINK_ACTIVATE
    assert counts.activated == 1
    assert counts.unmap_fail == 0
    assert k.pg_flags[p.pfn(0)] & PG_active
    # Asking has taken the accessed bit.
    assert not pte_young(p.pte(0))
    assert shrink(k, cold(k, p))[0] == SHRINK_FREE


def test_a_page_of_a_file_gets_a_second_chance_before_it_is_active() -> None:
    k = machine()
    _, p = mapped_file(k)
    page = p.pfn(0)
    k.pg_flags[page] &= ~PG_referenced
    verdict, counts = shrink(k, page)
    assert verdict == SHRINK_KEEP_LOCKED
    assert (counts.kept, counts.referenced) == (1, 1)
    assert k.pg_flags[page] & (PG_referenced | PG_active) == PG_referenced
    p.load(0)
    assert shrink(k, page)[0] == SHRINK_ACTIVATE
    deactivate_page(k, page)
    assert shrink(k, page)[0] == SHRINK_FREE
    assert p.mm.rss_stat[MM_FILEPAGES] == 3
    assert pte_none(p.pte(0))
    assert p.load(0, 7) == b"file 00"


def test_programs_and_pages_that_two_use_are_active_at_once() -> None:
    k = machine()
    _, p = mapped_file(k, prot=PROT_READ | PROT_EXEC)
    page = p.pfn(0)
    k.pg_flags[page] &= ~PG_referenced
    assert shrink(k, page)[0] == SHRINK_ACTIVATE
    file, p = mapped_file(k)
    q = Process(k, cpu=1)
    q.mmap(0, 4, PROT_READ, shared=True, file=file)
    q.load(1)
    page = p.pfn(1)
    k.pg_flags[page] &= ~PG_referenced
    assert shrink(k, page)[0] == SHRINK_ACTIVATE


def test_who_is_forced_does_not_ask() -> None:
    k = machine()
    p = anon(k)
    p.load(0)
    # try_to_unmap() looks as well, unless told not to.
    verdict, counts = shrink(k, p.pfn(0), force=True)
    assert verdict == SHRINK_ACTIVATE
    assert counts.unmap_fail == 1
    deactivate_page(k, p.pfn(0))
    assert shrink(k, p.pfn(0), force=True)[0] == SHRINK_FREE


def test_what_may_not_be_done_is_not_done() -> None:
    k = machine()
    p = anon(k)
    page = p.pfn(0)
    sc = ScanControl(1, None)
    sc.may_unmap = False
    assert shrink(k, page, sc)[0] == SHRINK_KEEP_LOCKED
    sc = ScanControl(1, None)
    sc.gfp_mask &= ~GFP_IO
    assert shrink(k, page, sc)[0] == SHRINK_KEEP_LOCKED
    assert p.pfn(0) == page
    sc = ScanControl(1, None)
    sc.may_writepage = False
    assert shrink(k, page, sc)[0] == SHRINK_KEEP_LOCKED
    # That one was unmapped and is in the swap cache, but not written.
    assert p.slot(0) == 0x41
    assert shrink(k, page)[0] == SHRINK_FREE
    p.check()


def test_without_swap_anonymous_memory_stays() -> None:
    k = machine(swap=0)
    p = anon(k)
    assert shrink(k, p.pfn(0))[0] == SHRINK_ACTIVATE
    k = machine(swap=2)
    p = anon(k)
    assert [shrink(k, p.pfn(i))[0] for i in range(3)] == [SHRINK_FREE, SHRINK_FREE, SHRINK_ACTIVATE]


def test_a_pinned_page_is_unmapped_but_kept() -> None:
    k = machine()
    p = anon(k)
    page = p.pfn(0)
    get_page(k, page)
    assert shrink(k, page)[0] == SHRINK_KEEP_LOCKED
    assert page_mapcount(k, page) == 0
    assert p.slot(0) == 0x41
    # Not even written: who has a reference may still change it.
    assert not k.swap_areas[0].slots
    p.check()
    assert p.pfn(0) == page
    put_page(k, page)
    assert shrink(k, cold(k, p))[0] == SHRINK_FREE


def test_a_page_that_is_dirtied_while_it_is_written_is_kept() -> None:
    k = machine()
    p = anon(k)
    page = p.pfn(0)
    area = k.swap_areas[0]
    area.deferred = True
    verdict, counts = shrink(k, page)
    assert verdict == SHRINK_KEEP
    assert k.pg_flags[page] & (PG_writeback | PG_reclaim) == PG_writeback | PG_reclaim
    # Met again while it is written, it is put out of the way.
    verdict, counts = shrink(k, page)
    assert verdict == SHRINK_ACTIVATE
    assert counts.writeback == 1
    p.store(0, b"newer")
    assert p.pfn(0) == page
    assert end_swap_writes(k, area) == 1
    # It was mapped again meanwhile, so the slot is not what it holds.
    area.deferred = False
    assert shrink(k, cold(k, p))[0] == SHRINK_FREE
    p.check()


def test_kswapd_notices_that_it_meets_the_same_pages_under_writeback() -> None:
    k = machine()
    p = anon(k)
    k.swap_areas[0].deferred = True
    page = p.pfn(0)
    shrink(k, page)
    sc = ScanControl(1, None)
    sc.kswapd = sc.under_writeback = True
    assert shrink(k, page, sc)[0] == SHRINK_ACTIVATE
    assert (sc.result.immediate, sc.result.writeback) == (1, 0)
    end_swap_writes(k, k.swap_areas[0])


def test_dirty_pages_of_files_are_left_to_the_flusher_threads() -> None:
    k = machine()
    file = make_file(k, "f", 4, False)
    file_write(k, file, 0, b"dirty")
    page = file.f_mapping.i_pages[0]
    k.pg_flags[page] &= ~PG_referenced
    verdict, counts = shrink(k, page)
    assert verdict == SHRINK_ACTIVATE
    assert (counts.dirty, counts.unqueued_dirty) == (1, 1)
    assert k.pg_flags[page] & PG_reclaim
    assert not file.f_mapping.backing
    # Only kswapd writes one, if it has met it before and the flushers are behind.
    deactivate_page(k, page)
    k.pg_flags[page] |= PG_reclaim
    sc = ScanControl(1, None)
    sc.kswapd = sc.dirty_pages = True
    verdict, counts = shrink(k, page, sc)
    assert verdict == SHRINK_FREE
    assert counts.written == 1
    assert file.f_mapping.backing == {0: b"dirty"}
    assert file_read(k, file, 0, 5) == b"dirty"


def test_a_dirty_page_that_was_referenced_is_not_written_for_now() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 4, shared=True)
    p.fill(0, 1)
    page = cold(k, p)
    # Of shmem, which is SwapBacked: not PAGEREF_RECLAIM_CLEAN, and it goes.
    k.pg_flags[page] |= PG_referenced
    assert shrink(k, page)[0] == SHRINK_FREE
    file = make_file(k, "f", 4, False)
    file_write(k, file, 0, b"dirty")
    page = file.f_mapping.i_pages[0]
    k.pg_flags[page] |= PG_referenced | PG_reclaim
    sc = ScanControl(1, None)
    sc.kswapd = sc.dirty_pages = True
    assert shrink(k, page, sc)[0] == SHRINK_KEEP_LOCKED
    p.check()


def test_shared_memory_moves_from_the_page_cache_to_swap() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 2, shared=True)
    p.fill(0, 2)
    mapping = p.vma(0).vm_file.f_mapping
    verdict, counts = shrink(k, cold(k, p))
    assert verdict == SHRINK_FREE
    assert counts.swapped == 1
    assert mapping.i_pages[0] < 0
    assert pte_none(p.pte(0))
    p.check()
    # Without swap it stays where it is.
    k = machine(swap=0)
    p = Process(k)
    p.mmap(0, 2, shared=True)
    p.fill(0, 2)
    page = cold(k, p)
    assert shrink(k, page)[0] == SHRINK_ACTIVATE
    assert k.pg_flags[page] & (PG_dirty | PG_reclaim) == PG_dirty
    assert p.vma(0).vm_file.f_mapping.i_pages[0] == page
    p.check()


def test_locked_memory_that_was_not_marked_is_found_and_marked() -> None:
    """mlock_vma_page() lost a race: the walk of page_referenced() finds the VMA."""
    k = machine()
    p = anon(k)
    page = p.pfn(0)
    p.vma(0).vm_flags |= VM_LOCKED
    assert not k.pg_flags[page] & PG_mlocked
    verdict, counts = shrink(k, page)
    assert verdict == SHRINK_ACTIVATE
    assert counts.unmap_fail == 1
    assert k.pg_flags[page] & (PG_mlocked | PG_unevictable) == PG_mlocked | PG_unevictable
    assert k.vm_stat[NR_MLOCK] == 1
    assert p.pfn(0) == page
    # Its slot was given up at once, as it is not going to swap.
    assert k.swap_areas[0].inuse == 0
    p.vma(0).vm_flags &= ~VM_LOCKED


# ---------------------------------------------------------------- MADV_FREE


def test_a_lazily_freed_page_is_dropped() -> None:
    k = machine()
    p = anon(k, 1, cold=False)
    page = p.pfn(0)
    p.madvise(0, 1, MADV_FREE)
    assert not k.pg_flags[page] & (PG_swapbacked | PG_dirty)
    verdict, counts = shrink(k, page)
    assert verdict == SHRINK_FREE
    assert (counts.lazyfreed, counts.swapped) == (1, 0)
    assert k.vm_stat[PGLAZYFREED] == 1
    assert pte_none(p.pte(0))
    assert p.mm.rss_stat[MM_ANONPAGES] == 0
    assert k.swap_areas[0].inuse == 0
    assert p.load(0, 4) == bytes(4)


def test_a_lazily_freed_page_that_is_written_again_is_kept() -> None:
    k = machine()
    p = anon(k, 1, cold=False)
    page = p.pfn(0)
    p.madvise(0, 1, MADV_FREE)
    p.store(0, b"kept")
    # As if the store had been long ago.
    sc = ScanControl(1, None)
    verdict, counts = shrink(k, page, sc)
    if verdict == SHRINK_KEEP_LOCKED:
        verdict, counts = shrink(k, page)
    assert verdict == SHRINK_ACTIVATE
    assert counts.unmap_fail == 1
    assert k.pg_flags[page] & (PG_swapbacked | PG_dirty) == PG_swapbacked | PG_dirty
    assert p.pfn(0) == page
    p.check()
    assert shrink(k, cold(k, p))[0] == SHRINK_FREE
    p.check()


def test_a_pinned_lazily_freed_page_is_unmapped_and_its_content_lost_until_5_18() -> None:
    for fixed in (False, True):
        k = machine(lazyfree_checks_references=fixed)
        p = anon(k, 1, cold=False)
        page = p.pfn(0)
        p.madvise(0, 1, MADV_FREE)
        get_page(k, page)
        verdict, counts = shrink(k, page)
        # The pin keeps the page, but in v4.18 not its mapping: what a device reads into it now
        # nobody will see.
        assert verdict == (SHRINK_ACTIVATE if fixed else SHRINK_KEEP_LOCKED)
        assert counts.unmap_fail == int(fixed)
        assert pte_none(p.pte(0)) != fixed
        put_page(k, page)


# ---------------------------------------------------------------- TLBs


def shrink_all(k: Kernel, p: Process, pages: int) -> int:
    """Reclaim the first pages of a process in one batch; how many flushes of other CPUs it took."""
    frames = [p.pfn(page) for page in range(pages)]
    for frame in frames:
        assert isolate_lru_page(k, frame) == 0
    before = k.vm_stat[TLB_FLUSH_REMOTE]
    assert shrink_page_list(k, frames, ScanControl(pages, None), 0, False) == pages
    return int(k.vm_stat[TLB_FLUSH_REMOTE] - before)


def test_clean_pages_need_one_flush_together_and_dirty_ones_each_their_own() -> None:
    k = machine()
    p = Process(k, cpu=1)
    p.mmap(0, 8)
    p.fill(0, 8)
    p.madvise(0, 8, MADV_COLD)
    # The last of them, still remembered by CPU 1, keeps its address space loaded there.
    p.load(7)
    assert shrink_all(k, p, 7) == 7
    p.check()
    # They were only read since, and what is in swap is what they hold.
    p.madvise(0, 7, MADV_COLD)
    p.load(7)
    assert shrink_all(k, p, 7) == 1
    p.check()


def test_a_cpu_that_kept_a_writable_translation_cannot_write_to_a_freed_page() -> None:
    k = machine(pages=24)
    p = Process(k, cpu=1)
    p.mmap(0, 8)
    q = Process(k, cpu=0)
    q.mmap(0, 32)
    for turn in range(6):
        p.fill(0, 8, b"p%d-" % turn)
        q.fill(0, 32, b"q%d-" % turn)
        p.store(turn, b"late %d" % turn)
        p.check()
        q.check()
    swap_is_sound(k, p, q)


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


def test_a_huge_page_is_met_with_a_bug_and_not_with_nonsense() -> None:
    k = machine(pages=2048)
    head = alloc_pages(k, GFP_KERNEL, 9)
    k.pg_flags[head] |= PG_swapbacked
    sc = ScanControl(1, None)
    sc.priority = DEF_PRIORITY
    with pytest.raises(KernelBug, match="huge page"):
        shrink_page_list(k, [head], sc, 0, True)
    assert k.pg_flags[head] & PG_locked
    unlock_page(k, head)


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
    assert k.nr_free == 39 - file.f_mapping.nrpages
    assert not k.warnings

# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of one page when reclaim looks at it, and why."""

from __future__ import annotations

from pressure import (
    Process,
    locked_elsewhere,
    machine,
    swap_is_sound,
)
from reclaiming import anon, cold, mapped_file, shrink

from rmap.mm.bits import (
    GFP_IO,
    MADV_COLD,
    MADV_FREE,
    MM_ANONPAGES,
    MM_FILEPAGES,
    NR_MLOCK,
    PGLAZYFREED,
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
    PG_mlocked,
    PG_reclaim,
    PG_referenced,
    PG_swapbacked,
    PG_unevictable,
    PG_writeback,
)
from rmap.mm.filemap import file_read, file_write, make_file
from rmap.mm.lru import deactivate_page, isolate_lru_page, put_page
from rmap.mm.mm_types import Kernel
from rmap.mm.page import get_page, page_mapcount
from rmap.mm.pgtable import pte_none, pte_young
from rmap.mm.shrink_page_list import ScanControl, shrink_page_list
from rmap.mm.swap_cache import end_swap_writes

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
    assert k.vm_stat[TLB_FLUSH_REMOTE] > 0
    swap_is_sound(k, p, q)

# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages under reclaim: taken whole, counted by their parts, and split to be swapped."""

from __future__ import annotations

import pytest
from handmade import CLEAN, DIRTY, WRITE, fork, pte_of, split_by_hand, touch_huge, unmap_part, world
from kernels import Failing, make_mm, map_pages
from pressure import lists_are_sound
from reclaiming import shrink
from unmapping import rss

from rmap.mm.bits import (
    DEF_PRIORITY,
    GFP_HIGHUSER,
    GFP_IO,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    NR_ANON_MAPPED,
    NR_ISOLATED,
    PGDEACTIVATE,
    PGLAZYFREE,
    PGSCAN,
    PGSTEAL,
    SHRINK_ACTIVATE,
    SHRINK_KEEP_LOCKED,
    SHRINK_STOP,
    THP_SPLIT_PAGE,
    THP_SPLIT_PMD,
    THP_SWPOUT_FALLBACK,
    PG_active,
    PG_dirty,
    PG_swapbacked,
    PG_tail,
)
from rmap.mm.bug import KernelBug
from rmap.mm.content import page_write
from rmap.mm.huge.pgtable import mm_get_huge_zero_page, mm_put_huge_zero_page
from rmap.mm.lru import (
    activate_page,
    deactivate_page,
    isolate_lru_page,
    lru_cache_add,
    mark_page_lazyfree,
    put_page,
    putback_lru_page,
)
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import compound_order, get_page, lock_page, unlock_page
from rmap.mm.page_alloc import alloc_pages
from rmap.mm.pgtable import is_swap_pte, pmd_offset, pte_pfn, pte_to_swp_entry, swp_offset
from rmap.mm.shrink_page_list import ScanControl, shrink_page_list
from rmap.mm.shrinker import Shrinker, do_shrink_slab, shrink_slab, shrinkers_of
from rmap.mm.swap import reuse_swap_page
from rmap.mm.swap_slots import swapon
from rmap.mm.vmscan import (
    VmscanReclaimer,
    age_active_lists,
    reclaim,
    reclaim_clean_pages_from_list,
    reclaim_pages,
    shrink_active_list,
    shrink_inactive_list,
)

#: Of entries that were not used lately.
OLD = CLEAN | DIRTY | WRITE


def huge(swap: int = 1024, bits: int = OLD, **quirks: bool) -> tuple[Kernel, Vma, int]:
    """A process with an old anonymous huge page that a PMD maps, and swap."""
    k = world(4096, **quirks)
    if swap:
        swapon(k, swap + 1, -1)
    k.reclaimer = VmscanReclaimer()
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    return k, vma, touch_huge(k, vma, bits)


def swapped(k: Kernel, vma: Vma) -> list[int]:
    """Which parts of the VMA are swap entries."""
    return [i for i in range(HPAGE_PMD_NR) if is_swap_pte(pte_of(k, vma, i))]


def shrink_huge(k: Kernel, page: int, sc: ScanControl | None = None) -> tuple[list[int], int]:
    """Reclaim one isolated page: what is left of it, put back, and how much was freed."""
    assert isolate_lru_page(k, page) == 0
    pages = [page]
    freed = shrink_page_list(k, pages, sc or ScanControl(1, None), 0, False)
    for left in list(pages):
        putback_lru_page(k, left)
    lists_are_sound(k)
    return pages, freed


# ---------------------------------------------------------------- one page


def test_a_huge_page_is_split_and_swapped_part_by_part() -> None:
    k, vma, head = huge()
    page_write(k, head + 5, 0, b"five")
    free = k.nr_free
    sc = ScanControl(1, None)
    assert shrink_huge(k, head, sc) == ([], HPAGE_PMD_NR)
    assert swapped(k, vma) == list(range(HPAGE_PMD_NR))
    assert rss(vma) == (0, HPAGE_PMD_NR, 0, 0)
    assert k.nr_free == free + HPAGE_PMD_NR
    assert k.vm_stat[NR_ANON_MAPPED] == 0
    assert (k.vm_stat[THP_SPLIT_PAGE], k.vm_stat[THP_SWPOUT_FALLBACK]) == (1, 1)
    assert (sc.result.scanned, sc.result.reclaimed, sc.result.swapped) == (512, 512, 512)
    slot = swp_offset(pte_to_swp_entry(pte_of(k, vma, 5)))
    assert k.swap_areas[0].slots[slot].startswith(b"five")
    # The head first, then its tails in order, as they lie in memory.
    assert [swp_offset(pte_to_swp_entry(pte_of(k, vma, i))) for i in (0, 1, 511)] == [1, 2, 512]


def test_parts_that_nothing_maps_need_no_slot() -> None:
    k, vma, head = huge(swap=520)
    split_by_hand(k, vma, head)
    for part in range(20, HPAGE_PMD_NR):
        unmap_part(k, vma, part)
    assert shrink_huge(k, head)[1] == 20
    assert swapped(k, vma) == list(range(20))
    assert k.swap_areas[0].inuse == 20
    assert k.vm_stat[THP_SWPOUT_FALLBACK] == 0, "it was split before a slot was asked for"
    assert not k.deferred_split_queue


def test_a_huge_page_in_use_is_activated_whole() -> None:
    k, vma, head = huge()
    k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)] |= 1 << 5
    verdict, counts = shrink(k, head)
    assert (verdict, counts.activated) == (SHRINK_ACTIVATE, 1)
    assert compound_order(k, head) == HPAGE_PMD_ORDER
    assert k.root_lruvec.size[LRU_ACTIVE_ANON] == HPAGE_PMD_NR


def test_a_pinned_huge_page_stays_whole_and_mapped() -> None:
    k, _, head = huge()
    get_page(k, head)
    verdict, counts = shrink(k, head)
    assert (verdict, counts.unmap_fail) == (SHRINK_ACTIVATE, 0)
    assert compound_order(k, head) == HPAGE_PMD_ORDER
    assert k.vm_stat[THP_SPLIT_PMD] == 0
    put_page(k, head)


def test_without_io_it_is_left_alone() -> None:
    k, _, head = huge()
    sc = ScanControl(1, None)
    sc.gfp_mask &= ~GFP_IO
    assert shrink(k, head, sc)[0] == SHRINK_KEEP_LOCKED
    assert compound_order(k, head) == HPAGE_PMD_ORDER


def test_without_swap_it_is_split_in_vain() -> None:
    """There is no slot for the whole, so it is split, and none for any part."""
    k, vma, head = huge(swap=0)
    left, freed = shrink_huge(k, head)
    assert (freed, sorted(left)) == (0, list(range(head, head + HPAGE_PMD_NR)))
    assert all(k.pg_flags[page] & PG_active for page in left)
    assert [pte_pfn(pte_of(k, vma, i)) for i in (0, 511)] == [head, head + 511]


def test_swap_that_is_too_small_takes_what_it_can() -> None:
    k, vma, head = huge(swap=100)
    left, freed = shrink_huge(k, head)
    assert freed == 100
    assert len(left) == HPAGE_PMD_NR - 100
    assert swapped(k, vma) == list(range(100))
    assert rss(vma)[:2] == (412, 100)


def test_a_failing_slot_activates_that_part_only() -> None:
    k, vma, head = huge()
    k.inject = Failing(3, "swap_slot", once=True)
    left, freed = shrink_huge(k, head)
    assert (left, freed) == ([head + 2], HPAGE_PMD_NR - 1)
    assert pte_pfn(pte_of(k, vma, 2)) == head + 2


def test_a_lazily_freed_huge_page_is_split_and_dropped() -> None:
    k, vma, head = huge(bits=CLEAN | WRITE)
    mark_page_lazyfree(k, head)
    assert k.vm_stat[PGLAZYFREE] == HPAGE_PMD_NR
    sc = ScanControl(1, None)
    assert shrink_huge(k, head, sc) == ([], HPAGE_PMD_NR)
    assert sc.result.lazyfreed == HPAGE_PMD_NR
    assert rss(vma) == (0, 0, 0, 0)
    assert k.swap_areas[0].inuse == 0


def test_a_lazily_freed_huge_page_that_is_pinned_is_kept() -> None:
    k, _, head = huge(bits=CLEAN | WRITE)
    mark_page_lazyfree(k, head)
    get_page(k, head)
    assert shrink(k, head)[0] == SHRINK_KEEP_LOCKED
    put_page(k, head)


def test_writing_to_a_part_of_it_takes_only_that_part_back() -> None:
    """MADV_FREE, then a store: the PMD is dirty, so all of the page is."""
    k, vma, head = huge(bits=CLEAN | WRITE)
    mark_page_lazyfree(k, head)
    k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)] |= DIRTY
    left, freed = shrink_huge(k, head)
    # The split moved the dirty bit to the page, and so to every part of it.
    assert freed == 0
    assert all(k.pg_flags[page] & (PG_swapbacked | PG_dirty) for page in left)
    assert rss(vma)[0] == HPAGE_PMD_NR


# ---------------------------------------------------------------- lists


def test_a_huge_page_counts_with_all_its_parts() -> None:
    k, vma, _ = huge()
    second = map_pages(k, make_mm(k, "q"), HPAGE_PMD_NR, HPAGE_PMD_NR)
    touch_huge(k, second, OLD)
    assert k.root_lruvec.size[LRU_INACTIVE_ANON] == 2 * HPAGE_PMD_NR
    sc = ScanControl(32, None)
    sc.priority = DEF_PRIORITY
    assert shrink_inactive_list(k, 32, k.root_lruvec, sc, LRU_INACTIVE_ANON) == HPAGE_PMD_NR
    assert (k.vm_stat[PGSCAN], k.vm_stat[PGSTEAL]) == (HPAGE_PMD_NR, HPAGE_PMD_NR)
    assert (sc.nr_taken, k.vm_stat[NR_ISOLATED]) == (HPAGE_PMD_NR, 0)
    # One was enough: the other one stays.
    assert (len(swapped(k, vma)), len(swapped(k, second))) == (HPAGE_PMD_NR, 0)
    lists_are_sound(k)


def test_a_huge_page_is_deactivated_whole() -> None:
    k, _, head = huge()
    activate_page(k, head + 3)
    assert k.root_lruvec.size[LRU_ACTIVE_ANON] == HPAGE_PMD_NR
    assert age_active_lists(k, None, 1) == HPAGE_PMD_NR
    assert k.root_lruvec.size[LRU_INACTIVE_ANON] == k.vm_stat[PGDEACTIVATE] == HPAGE_PMD_NR
    activate_page(k, head)
    deactivate_page(k, head)
    assert k.vm_stat[PGDEACTIVATE] == 2 * HPAGE_PMD_NR
    assert k.vm_stat[NR_ISOLATED] == 0
    lists_are_sound(k)


def test_a_huge_page_whose_last_reference_goes_while_isolated_is_freed_whole() -> None:
    k, _, head = huge()
    activate_page(k, head)
    other = int(alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER))
    k.pg_flags[other] |= PG_swapbacked | PG_active
    lru_cache_add(k, other)
    free = k.nr_free

    def tracer(name: str, what: tuple[object, ...]) -> None:
        if name == "page_referenced_one":
            k.pg_refcount[other] -= 1

    k.tracer = tracer
    sc = ScanControl(1, None)
    taken = 2 * HPAGE_PMD_NR
    assert shrink_active_list(k, taken, k.root_lruvec, sc, LRU_ACTIVE_ANON) == HPAGE_PMD_NR
    k.tracer = None
    assert k.nr_free == free + HPAGE_PMD_NR
    assert not k.pg_flags[other + 1] & PG_tail
    lists_are_sound(k)


def test_reclaim_of_a_list_of_pages_takes_huge_ones_too() -> None:
    k, vma, head = huge()
    assert isolate_lru_page(k, head) == 0
    pages = [head]
    assert reclaim_pages(k, pages) == HPAGE_PMD_NR
    assert pages == []
    assert len(swapped(k, vma)) == HPAGE_PMD_NR


def test_clean_lazily_freed_huge_pages_make_way_for_an_allocation_in_one_piece() -> None:
    k, vma, head = huge(bits=CLEAN | WRITE)
    mark_page_lazyfree(k, head)
    assert isolate_lru_page(k, head) == 0
    pages = [head]
    assert reclaim_clean_pages_from_list(k, pages) == HPAGE_PMD_NR
    assert (pages, rss(vma)) == ([], (0, 0, 0, 0))


# ---------------------------------------------------------------- shrinkers


class Counting(Shrinker):
    """A shrinker that has so much, and frees one of each eight that it scans."""

    def __init__(self, there: int, most: int = 1000) -> None:
        super().__init__()
        self.there = there
        self.most = most
        self.asked: list[int] = []

    def count_objects(self, k: Kernel) -> int:
        return self.there

    def scan_objects(self, k: Kernel, nr_to_scan: int) -> int:
        if len(self.asked) >= self.most:
            return SHRINK_STOP
        self.asked.append(nr_to_scan)
        return nr_to_scan // 8


def test_a_shrinker_is_asked_for_more_the_more_urgent_it_is() -> None:
    k = world()
    few = Counting(0)
    assert do_shrink_slab(k, few, 0) == 0
    # 2 * 4096 / 2**12 is too little for a step: it is saved up.
    many = Counting(4096)
    assert do_shrink_slab(k, many, 12) == 0
    assert many.nr_deferred == 2
    # Half of what there is at most, as this is not urgent.
    many.nr_deferred = 10_000
    assert do_shrink_slab(k, many, 12) == 2048 // 8
    assert many.asked == [128] * 16
    assert many.nr_deferred == 10_002 - 2048
    urgent = Counting(10)
    assert do_shrink_slab(k, urgent, 0) == 20 // 8
    assert (urgent.asked, urgent.nr_deferred) == ([20], 0)
    stopped = Counting(4096, most=1)
    assert do_shrink_slab(k, stopped, 0) == 128 // 8
    assert stopped.nr_deferred == 8192 - 128


def test_memory_pressure_splits_what_is_queued() -> None:
    k, vma, head = huge(swap=0)
    split_by_hand(k, vma, head)
    for part in range(100):
        unmap_part(k, vma, part)
    free = k.nr_free
    # Of one page, a part is asked for only when it is urgent; without swap it always gets so.
    assert reclaim(k, None, 32).reclaimed == 0
    assert k.nr_free == free + 100
    assert not k.deferred_split_queue
    assert compound_order(k, head) == 0


def test_a_cgroup_under_pressure_leaves_the_queue_alone() -> None:
    k, vma, head = huge(swap=0)
    split_by_hand(k, vma, head)
    unmap_part(k, vma, 0)
    reclaim(k, k.memcgs[0], 32)
    assert len(k.deferred_split_queue) == 1
    names = [type(shrinker).__name__ for shrinker in shrinkers_of(k)]
    assert names[:2] == ["HugeZeroPageShrinker", "DeferredSplitShrinker"]


def test_the_huge_zero_page_is_freed_when_nobody_uses_it() -> None:
    k = world(4096)
    mm = make_mm(k)
    assert mm_get_huge_zero_page(k, mm)
    assert shrink_slab(k, 0) == 0
    mm_put_huge_zero_page(k, mm)
    assert shrink_slab(k, 12) == 0
    assert shrink_slab(k, 0) == HPAGE_PMD_NR
    assert k.huge_zero_page == 0


# ---------------------------------------------------------------- write faults


def test_a_huge_page_is_reused_if_no_part_of_it_is_shared() -> None:
    k, vma, head = huge()
    with pytest.raises(KernelBug, match="not locked"):
        reuse_swap_page(k, head)

    def reuse(page: int) -> int:
        lock_page(k, page)
        count = reuse_swap_page(k, page)
        unlock_page(k, page)
        return count

    assert reuse(head) == 1
    split_by_hand(k, vma, head)
    assert reuse(head + 7) == HPAGE_PMD_NR, "not one mapping in all"
    child = fork(k, vma, "c")
    assert reuse(head + 7) == 0
    for part in range(1, HPAGE_PMD_NR):
        unmap_part(k, child, part)
    assert reuse(head + 7) == 0, "another part is still shared"
    unmap_part(k, child, 0)
    assert reuse(head + 7) == HPAGE_PMD_NR

# SPDX-License-Identifier: GPL-2.0-only
"""Advice about memory in huge pages, and locking it in memory."""

from __future__ import annotations

import pytest
from handmade import (
    CLEAN,
    DIRTY,
    USED,
    YOUNG,
    crashed,
    fork,
    fork_huge,
    pte_of,
    split_by_hand,
    touch,
    touch_huge,
    unmap_part,
    world,
)
from kernels import make_mm, map_pages, writing
from pressure import lists_are_sound, locked_elsewhere
from unmapping import rss

from rmap.mm.bits import (
    HPAGE_PMD_NR,
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    LRU_UNEVICTABLE,
    MADV_COLD,
    MADV_FREE,
    MADV_PAGEOUT,
    MADV_WILLNEED,
    NR_MLOCK,
    PAGE_SIZE,
    PGLAZYFREE,
    THP_SPLIT_PAGE,
    UNEVICTABLE_PGMUNLOCKED,
    VM_LOCKED,
    PG_dirty,
    PG_mlocked,
    PG_swapbacked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.huge.pgtable import mm_get_huge_zero_page, pgtable_trans_huge_deposit
from rmap.mm.lru import activate_page, put_page
from rmap.mm.madvise import do_madvise
from rmap.mm.mlock import mlock_vma_pages_range, munlock_vma_pages_all
from rmap.mm.mlock_page import mlock_vma_page, page_mlock_count
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import compound_order, get_page, lock_page, unlock_page
from rmap.mm.pgtable import (
    pfn_pte,
    pmd_alloc,
    pmd_offset,
    pte_alloc_row,
    pte_dirty,
    pte_lock,
    pte_none,
    pte_pfn,
    pte_unlock,
    pte_young,
    set_pte_at,
    swp_entry,
    swp_entry_to_pte,
)
from rmap.mm.swap_slots import swapon
from rmap.mm.vmscan import VmscanReclaimer


def huge(bits: int = USED, swap: int = 1024, **quirks: bool) -> tuple[Kernel, Vma, int]:
    """A process with an anonymous huge page that a PMD maps."""
    k = world(4096, **quirks)
    swapon(k, swap + 1, -1)
    k.reclaimer = VmscanReclaimer()
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    return k, vma, touch_huge(k, vma, bits)


def advise(k: Kernel, vma: Vma, advice: int, first: int = 0, pages: int = HPAGE_PMD_NR) -> int:
    """madvise() of some pages of a VMA."""
    start = vma.vm_start + first * PAGE_SIZE
    return do_madvise(k, vma.vm_mm, start, pages * PAGE_SIZE, advice)


def pmd_of(k: Kernel, vma: Vma) -> int:
    """The PMD of a VMA's start, by value."""
    return int(k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)])


def is_huge(k: Kernel, head: int) -> bool:
    return compound_order(k, head) == 9


# ---------------------------------------------------------------- MADV_FREE


def test_a_whole_huge_page_is_given_up_as_a_whole() -> None:
    k, vma, head = huge()
    k.pg_flags[head] |= PG_dirty
    assert advise(k, vma, MADV_FREE) == 0
    assert is_huge(k, head)
    assert not pte_young(pmd_of(k, vma))
    assert not pte_dirty(pmd_of(k, vma))
    assert not k.pg_flags[head] & (PG_dirty | PG_swapbacked)
    assert k.root_lruvec.size[LRU_INACTIVE_FILE] == k.vm_stat[PGLAZYFREE] == HPAGE_PMD_NR
    assert rss(vma)[0] == HPAGE_PMD_NR
    lists_are_sound(k)
    # What is clean already needs no flush.
    assert advise(k, vma, MADV_FREE) == 0


def test_a_part_of_a_huge_page_is_given_up_after_a_split() -> None:
    k, vma, head = huge()
    assert advise(k, vma, MADV_FREE, 10, 20) == 0
    assert not is_huge(k, head)
    lazy = [i for i in range(HPAGE_PMD_NR) if not k.pg_flags[head + i] & PG_swapbacked]
    assert lazy == list(range(10, 30))
    assert k.root_lruvec.size[LRU_INACTIVE_FILE] == 20
    lists_are_sound(k)


@pytest.mark.parametrize("advice", [MADV_FREE, MADV_COLD])
def test_what_ptes_map_is_split_if_it_is_ours_alone(advice: int) -> None:
    k, vma, head = huge()
    activate_page(k, head)
    split_by_hand(k, vma, head)
    unmap_part(k, vma, 3)
    assert advise(k, vma, advice, 0, 6) == 0
    assert not is_huge(k, head)
    target = LRU_INACTIVE_FILE if advice == MADV_FREE else LRU_INACTIVE_ANON
    # The part that nothing maps is free, not on a list.
    assert k.root_lruvec.size[target] == 5
    assert k.root_lruvec.size[LRU_ACTIVE_ANON] == HPAGE_PMD_NR - 6
    lists_are_sound(k)


@pytest.mark.parametrize("advice", [MADV_FREE, MADV_COLD, MADV_PAGEOUT])
def test_what_others_map_stays_whole(advice: int) -> None:
    k, vma, head = huge()
    fork_huge(k, vma, "c")
    assert advise(k, vma, advice, 0, 6) == 0
    assert is_huge(k, head)
    assert pte_dirty(pmd_of(k, vma))
    split_by_hand(k, vma, head)
    assert advise(k, vma, advice, 0, 6) == 0
    assert is_huge(k, head)
    assert k.pg_flags[head] & PG_swapbacked


@pytest.mark.parametrize("advice", [MADV_FREE, MADV_COLD])
def test_what_is_locked_or_pinned_stays_whole(advice: int) -> None:
    k, vma, head = huge()
    split_by_hand(k, vma, head)
    with locked_elsewhere(k, head):
        assert advise(k, vma, advice, 0, 6) == 0
    get_page(k, head)
    assert advise(k, vma, advice, 0, 6) == 0
    put_page(k, head)
    assert is_huge(k, head)
    assert k.vm_stat[THP_SPLIT_PAGE] == 0


def test_a_huge_page_that_is_locked_is_not_given_up() -> None:
    k, vma, head = huge()
    with locked_elsewhere(k, head):
        assert advise(k, vma, MADV_FREE) == 0
    assert k.pg_flags[head] & PG_swapbacked
    get_page(k, head)
    assert advise(k, vma, MADV_FREE, 0, 6) == 0
    assert (is_huge(k, head), k.vm_stat[THP_SPLIT_PAGE]) == (True, 0)
    put_page(k, head)


# ---------------------------------------------------------------- MADV_COLD, MADV_PAGEOUT


def test_a_whole_huge_page_is_cold_as_a_whole() -> None:
    k, vma, head = huge()
    activate_page(k, head)
    assert advise(k, vma, MADV_COLD) == 0
    assert is_huge(k, head)
    assert not pte_young(pmd_of(k, vma))
    assert pte_dirty(pmd_of(k, vma))
    assert k.root_lruvec.size[LRU_INACTIVE_ANON] == HPAGE_PMD_NR
    lists_are_sound(k)
    assert advise(k, vma, MADV_COLD) == 0


def test_a_part_of_a_huge_page_is_cold_after_a_split() -> None:
    k, vma, head = huge()
    activate_page(k, head)
    assert advise(k, vma, MADV_COLD, 500, 12) == 0
    assert k.root_lruvec.size[LRU_INACTIVE_ANON] == 12
    assert k.root_lruvec.size[LRU_ACTIVE_ANON] == 500
    lists_are_sound(k)


def test_a_huge_page_is_paged_out() -> None:
    k, vma, head = huge()
    assert advise(k, vma, MADV_PAGEOUT) == 0
    assert not is_huge(k, head)
    assert rss(vma)[:2] == (0, HPAGE_PMD_NR)
    assert advise(k, vma, MADV_PAGEOUT) == 0


def test_a_part_of_a_huge_page_is_paged_out() -> None:
    k, vma, _ = huge()
    assert advise(k, vma, MADV_PAGEOUT, 7, 3) == 0
    assert rss(vma)[:2] == (HPAGE_PMD_NR - 3, 3)
    k, vma, head = huge()
    get_page(k, head)
    assert advise(k, vma, MADV_PAGEOUT, 7, 3) == 0
    assert rss(vma)[:2] == (HPAGE_PMD_NR, 0)
    put_page(k, head)


@pytest.mark.parametrize("spared", [False, True])
def test_until_5_10_a_shared_huge_page_is_paged_out_for_all(spared: bool) -> None:
    k, vma, _ = huge(bits=CLEAN | DIRTY, cold_spares_shared=spared)
    child = fork_huge(k, vma, "c")
    assert advise(k, vma, MADV_PAGEOUT) == 0
    gone = 0 if spared else HPAGE_PMD_NR
    assert rss(vma)[1] == rss(child)[1] == gone


def test_an_unevictable_huge_page_goes_back() -> None:
    k, vma, head = huge()
    lock_page(k, head)
    mlock_vma_page(k, head)
    unlock_page(k, head)
    assert advise(k, vma, MADV_PAGEOUT) == 0
    assert is_huge(k, head)
    assert k.root_lruvec.size[LRU_UNEVICTABLE] == HPAGE_PMD_NR
    lists_are_sound(k)


# ---------------------------------------------------------------- nothing to advise about


def zero(k: Kernel, vma: Vma) -> None:
    """Map the huge zero page."""
    page = mm_get_huge_zero_page(k, vma.vm_mm)
    row = pte_alloc_row(k, vma.vm_mm)
    pmd = pmd_alloc(k, vma.vm_mm, vma.vm_start)
    pte_lock(k, pmd)
    pgtable_trans_huge_deposit(k, vma.vm_mm, pmd, row)
    set_pte_at(k, vma.vm_mm, vma.vm_start, pmd, pfn_pte(page, CLEAN | YOUNG | 1 << 7))
    pte_unlock(k, pmd)


@pytest.mark.parametrize("advice", [MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED])
@pytest.mark.parametrize("pages", [HPAGE_PMD_NR, 4])
def test_the_huge_zero_page_is_no_memory_to_give_up(advice: int, pages: int) -> None:
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    zero(k, vma)
    before = pmd_of(k, vma)
    assert advise(k, vma, advice, 0, pages) == 0
    assert pmd_of(k, vma) == before


@pytest.mark.parametrize("advice", [MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED])
def test_a_huge_page_on_its_way_is_left_alone(advice: int) -> None:
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    pmd = pmd_alloc(k, vma.vm_mm, vma.vm_start)
    k.pt[pmd] = swp_entry_to_pte(swp_entry(29, 512))
    assert advise(k, vma, advice) == 0
    assert k.pt[pmd] == swp_entry_to_pte(swp_entry(29, 512))


def test_what_is_in_swap_is_read_ahead_where_there_is_a_table() -> None:
    k, vma, _ = huge()
    assert advise(k, vma, MADV_PAGEOUT, 7, 3) == 0
    assert advise(k, vma, MADV_WILLNEED) == 0
    assert sum(1 for page in k.swap_areas[0].cache if page) == 3


# ---------------------------------------------------------------- mlock


def mlocked(k: Kernel, vma: Vma, head: int) -> None:
    """Lock the VMA in memory, and with it the huge page that its PMD maps."""
    vma.vm_flags |= VM_LOCKED
    lock_page(k, head)
    mlock_vma_page(k, head)
    unlock_page(k, head)


def munlock(k: Kernel, vma: Vma) -> None:
    with writing(vma.vm_mm):
        munlock_vma_pages_all(k, vma)


def test_a_huge_page_is_munlocked_in_one_go() -> None:
    k, vma, head = huge()
    mlocked(k, vma, head)
    assert k.vm_stat[NR_MLOCK] == k.root_lruvec.size[LRU_UNEVICTABLE] == HPAGE_PMD_NR
    munlock(k, vma)
    assert k.vm_stat[NR_MLOCK] == 0
    assert k.vm_stat[UNEVICTABLE_PGMUNLOCKED] == 1
    assert not k.pg_flags[head] & PG_mlocked
    assert k.root_lruvec.size[LRU_INACTIVE_ANON] == HPAGE_PMD_NR
    assert k.pg_refcount[head] == 1
    lists_are_sound(k)
    # Not mlocked, it is gone through part by part, for nothing.
    vma.vm_flags |= VM_LOCKED
    munlock(k, vma)
    assert k.pg_refcount[head] == 1


def test_ptes_of_a_huge_page_are_passed_over() -> None:
    k, vma, head = huge()
    mlocked(k, vma, head)
    split_by_hand(k, vma, head)
    assert k.vm_stat[NR_MLOCK] == 0, "a PMD that is split takes the mark off"
    munlock(k, vma)
    assert k.pg_refcount[head] == HPAGE_PMD_NR
    lists_are_sound(k)


def test_a_tail_of_an_mlocked_page_is_never_met() -> None:
    k, vma, head = huge()
    mlocked(k, vma, head)
    vma.vm_start += PAGE_SIZE
    with pytest.raises(KernelBug, match="a tail of a page that is mlocked"):
        munlock(k, vma)
    crashed()


@pytest.mark.parametrize("name", ["4.18", "5.18"])
def test_munlock_forgets_that_another_vma_locks_the_huge_page(name: str) -> None:
    """v4.18 marks no huge page when it finds that another VM_LOCKED VMA maps it; counts do."""
    k, vma, head = huge(mlock_counts=name == "5.18")
    child = fork_huge(k, vma, "c")
    if name == "4.18":
        mlocked(k, vma, head)
        child.vm_flags |= VM_LOCKED
        munlock(k, vma)
        assert not k.pg_flags[head] & PG_mlocked
        assert k.vm_stat[NR_MLOCK] == 0
        return
    for owner in (vma, child):
        mlock_vma_pages_range(k, owner, owner.vm_start, owner.vm_end, owner.vm_flags | VM_LOCKED)
    assert (page_mlock_count(k, head), k.vm_stat[NR_MLOCK]) == (2, HPAGE_PMD_NR)
    mlock_vma_pages_range(k, vma, vma.vm_start, vma.vm_end, vma.vm_flags & ~VM_LOCKED)
    assert k.pg_flags[head] & PG_mlocked
    assert (page_mlock_count(k, head), k.vm_stat[NR_MLOCK]) == (1, HPAGE_PMD_NR)
    mlock_vma_pages_range(k, child, vma.vm_start, vma.vm_end, child.vm_flags & ~VM_LOCKED)
    assert k.vm_stat[NR_MLOCK] == 0
    lists_are_sound(k)


def test_zero_and_moving_huge_pages_are_not_locked() -> None:
    for quirk in (False, True):
        k = world(4096, mlock_counts=quirk)
        vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
        zero(k, vma)
        pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
        for value in (k.pt[pmd], swp_entry_to_pte(swp_entry(29, 512))):
            k.pt[pmd] = value
            if quirk:
                mlock_vma_pages_range(k, vma, vma.vm_start, vma.vm_end, vma.vm_flags | VM_LOCKED)
            else:
                munlock(k, vma)
            assert k.vm_stat[NR_MLOCK] == 0


def test_small_pages_beside_parts_of_huge_ones_are_munlocked() -> None:
    """One table: a part of a huge page, then small pages, then another part."""
    k, vma, head = huge()
    split_by_hand(k, vma, head)
    child = fork(k, vma, "c")
    for part in range(3):
        unmap_part(k, child, 1 + part)
    small = [touch(k, child, 1 + part) for part in range(3)]
    for page in small:
        lock_page(k, page)
        mlock_vma_page(k, page)
        unlock_page(k, page)
    child.vm_flags |= VM_LOCKED
    assert k.vm_stat[NR_MLOCK] == 3
    munlock(k, child)
    assert k.vm_stat[NR_MLOCK] == 0
    assert [pte_pfn(pte_of(k, child, i)) for i in range(5)] == [head, *small, head + 4]
    assert not pte_none(pte_of(k, vma, 1))
    lists_are_sound(k)

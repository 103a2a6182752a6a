# SPDX-License-Identifier: GPL-2.0-only
"""Splitting PMDs that map huge pages, and the tables that are set aside for it."""

from __future__ import annotations

import pytest
from handmade import CLEAN, DIRTY, USED, WRITE, YOUNG, crashed, pte_of, touch_huge, world
from kernels import make_mm, map_pages
from unmapping import rss

from rmap.mm.bits import (
    _PAGE_PSE,
    _PAGE_SOFT_DIRTY,
    _PAGE_SPECIAL,
    _PAGE_SWP_EXCLUSIVE,
    HPAGE_PMD_NR,
    HPAGE_PMD_SIZE,
    MM_ANONPAGES,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    NR_MLOCK,
    NR_PAGETABLE,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    THP_SPLIT_PMD,
    PG_anon_exclusive,
    PG_mlocked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.huge.pgtable import (
    mm_get_huge_zero_page,
    mm_put_huge_zero_page,
    pgtable_trans_huge_deposit,
    pgtable_trans_huge_withdraw,
    pmd_trans_huge_lock,
    set_huge_zero_page,
    shrink_huge_zero_page_scan,
    transhuge_range_fits,
    transhuge_vma_suitable,
    zap_deposited_table,
)
from rmap.mm.huge.split_pmd import (
    __split_huge_pmd,
    set_pmd_migration_entry,
    split_huge_pmd,
    split_huge_pmd_address,
)
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import (
    PageDirty,
    PageDoubleMap,
    compound_mapcount,
    get_page,
    lock_page,
    page_add_pins,
    page_count,
    page_mapcount,
    total_mapcount,
    unlock_page,
)
from rmap.mm.page_vma_mapped import PageVmaMappedWalk
from rmap.mm.pgtable import (
    pmd_alloc,
    pmd_offset,
    pmd_trans_huge,
    pte_alloc_row,
    pte_lock,
    pte_pfn,
    pte_unlock,
    swp_entry,
    swp_entry_to_pte,
)
from rmap.mm.rmap_counts import page_dup_rmap, page_remove_rmap


def huge_world(bits: int = USED, **quirks: bool) -> tuple[Kernel, Vma, int]:
    """A process with an anonymous huge page that a PMD maps."""
    k = world(4096, **quirks)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    return k, vma, touch_huge(k, vma, bits)


def pmd_of(k: Kernel, vma: Vma) -> int:
    """The place of the PMD of a VMA's start."""
    return int(pmd_offset(k, vma.vm_mm, vma.vm_start))


def share(k: Kernel, vma: Vma, head: int) -> Vma:
    """A child that maps the huge page by a PMD of its own; both can only read it."""
    child = map_pages(k, make_mm(k, "child"), HPAGE_PMD_NR, HPAGE_PMD_NR)
    child.anon_vma = vma.anon_vma
    pmd = pmd_alloc(k, child.vm_mm, child.vm_start)
    row = pte_alloc_row(k, child.vm_mm)
    k.pt[pmd_of(k, vma)] &= ~WRITE
    pte_lock(k, pmd)
    get_page(k, head)
    page_dup_rmap(k, head, True)
    pgtable_trans_huge_deposit(k, child.vm_mm, pmd, row)
    k.pt[pmd] = k.pt[pmd_of(k, vma)] & ~YOUNG
    child.vm_mm.rss_stat[MM_ANONPAGES] += HPAGE_PMD_NR
    pte_unlock(k, pmd)
    return child


def exit_whole(k: Kernel, vma: Vma, head: int) -> None:
    """Take a process's PMD away, as its exit does."""
    pmd = pmd_of(k, vma)
    pte_lock(k, pmd)
    k.pt[pmd] = 0
    page_remove_rmap(k, head, True)
    zap_deposited_table(k, vma.vm_mm, pmd)
    k.pg_refcount[head] -= 1
    pte_unlock(k, pmd)


# ---------------------------------------------------------------- the story of one huge page


def test_a_huge_page_is_shared_split_in_one_process_and_left_by_the_other() -> None:
    """PMD and PTE mappings at once, with every number at every step."""
    k, parent, head = huge_world()
    assert (compound_mapcount(k, head), k.pg_mapcount[head], page_count(k, head)) == (1, -1, 1)
    child = share(k, parent, head)
    assert (compound_mapcount(k, head), page_count(k, head)) == (2, 2)
    assert rss(child)[0] == HPAGE_PMD_NR

    split_huge_pmd(k, child, pmd_of(k, child), child.vm_start)
    assert page_count(k, head) == 513
    assert {k.pg_mapcount[head + i] for i in range(HPAGE_PMD_NR)} == {1}
    assert (compound_mapcount(k, head), PageDoubleMap(k, head)) == (1, True)
    assert (page_mapcount(k, head + 7), total_mapcount(k, head)) == (2, 513)
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (1, 512)
    assert rss(child)[0] == HPAGE_PMD_NR

    exit_whole(k, parent, head)
    assert (compound_mapcount(k, head), PageDoubleMap(k, head)) == (0, False)
    assert {k.pg_mapcount[head + i] for i in range(HPAGE_PMD_NR)} == {0}
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (0, 512)
    assert (page_count(k, head), total_mapcount(k, head)) == (512, 512)
    assert list(k.deferred_split_queue) == []

    page_remove_rmap(k, head + 7, False)
    assert k.vm_stat[NR_ANON_MAPPED] == 511
    assert list(k.deferred_split_queue) == [head]


def test_splitting_the_last_pmd_leaves_no_trace_of_the_whole() -> None:
    k, vma, head = huge_world()
    tables = k.vm_stat[NR_PAGETABLE]
    split_huge_pmd_address(k, vma, vma.vm_start + HPAGE_PMD_SIZE // 2, False, 0)
    assert (compound_mapcount(k, head), page_count(k, head)) == (0, 512)
    assert {page_mapcount(k, head + i) for i in range(HPAGE_PMD_NR)} == {1}
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (0, 512)
    assert [pte_pfn(pte_of(k, vma, i)) - head for i in (0, 100, 511)] == [0, 100, 511]
    assert (k.vm_stat[NR_PAGETABLE], k.pmd_huge_pte) == (tables, {}), "the table lay ready"
    assert k.vm_stat[THP_SPLIT_PMD] == 1
    # And once more is not.
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    split_huge_pmd_address(k, vma, vma.vm_start, False, head)
    assert k.vm_stat[THP_SPLIT_PMD] == 1


@pytest.mark.parametrize("bits", [CLEAN, CLEAN | YOUNG, CLEAN | WRITE, CLEAN | _PAGE_SOFT_DIRTY])
def test_what_the_pmd_knew_is_in_every_entry_but_dirtiness_which_the_page_has(bits: int) -> None:
    k, vma, head = huge_world(bits | DIRTY)
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    for i in (0, 1, 511):
        kept = pte_of(k, vma, i) & (YOUNG | WRITE | DIRTY | _PAGE_SOFT_DIRTY | _PAGE_PSE)
        assert kept == bits & ~CLEAN
    assert PageDirty(k, head)


def test_a_clean_pmd_leaves_the_page_clean() -> None:
    k, vma, head = huge_world(CLEAN)
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    assert not PageDirty(k, head)


def test_what_ptes_map_is_mlocked_no_more() -> None:
    k, vma, head = huge_world()
    k.pg_flags[head] |= PG_mlocked
    k.vm_stat[NR_MLOCK] += HPAGE_PMD_NR
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    assert (k.pg_flags[head] & PG_mlocked, k.vm_stat[NR_MLOCK]) == (0, 0)


def test_the_pmd_of_another_page_is_left_alone() -> None:
    k, vma, head = huge_world()
    k.notifier_log = []
    split_huge_pmd_address(k, vma, vma.vm_start, False, head + 512)
    assert compound_mapcount(k, head) == 1
    assert [name for name, *_ in k.notifier_log] == [
        "invalidate_range_start",
        "invalidate_range_only_end",
    ]


def test_cpus_forget_the_whole_before_there_are_parts() -> None:
    k, vma, _ = huge_world()
    before = vma.vm_mm.tlb_gen
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    assert vma.vm_mm.tlb_gen == before + 1


def test_a_border_through_a_pmd_is_a_bug() -> None:
    k, vma, _ = huge_world()
    vma.vm_start += 4096
    with pytest.raises(KernelBug, match="reaches beyond the VMA"):
        split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    crashed()


# ---------------------------------------------------------------- freezing, and migration entries


@pytest.mark.parametrize("bits", [CLEAN, USED, CLEAN | _PAGE_SOFT_DIRTY])
def test_a_frozen_pmd_becomes_512_migration_entries(bits: int) -> None:
    k, vma, head = huge_world(bits)
    get_page(k, head)
    lock_page(k, head)
    split_huge_pmd_address(k, vma, vma.vm_start, True, head)
    kind = SWP_MIGRATION_WRITE if bits & WRITE else SWP_MIGRATION_READ
    soft_dirty = 1 << 1 if bits & _PAGE_SOFT_DIRTY else 0
    for i in (0, 511):
        assert pte_of(k, vma, i) == swp_entry_to_pte(swp_entry(kind, head + i)) | soft_dirty
    assert (total_mapcount(k, head), page_count(k, head)) == (0, 1)
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (0, 0)
    assert rss(vma)[0] == HPAGE_PMD_NR
    unlock_page(k, head)


def test_to_freeze_nothing_in_particular_is_a_bug() -> None:
    k, vma, _ = huge_world()
    with pytest.raises(KernelBug, match="a freeze of no page"):
        __split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start, True, 0)
    crashed()


def migrating(**quirks: bool) -> tuple[Kernel, Vma, int]:
    """A process whose huge page is about to be moved."""
    k, vma, head = huge_world(**quirks)
    get_page(k, head)
    lock_page(k, head)
    pvmw = PageVmaMappedWalk(head, vma, vma.vm_start)
    pvmw.pmd = pmd_of(k, vma)
    assert pmd_trans_huge_lock(k, pvmw.pmd)
    assert set_pmd_migration_entry(k, pvmw, head) == 0
    pte_unlock(k, pvmw.pmd)
    return k, vma, head


def test_v4_18_counts_the_parts_of_a_page_that_waits() -> None:
    """Nothing maps it, so it ends below nothing."""
    k, vma, _ = migrating()
    with pytest.raises(KernelBug, match="compound_mapcount goes below zero"):
        split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    crashed()


def test_a_pmd_that_waits_is_split_into_entries_that_wait() -> None:
    k, vma, head = migrating(split_spares_migrating=True)
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    for i in (0, 511):
        assert pte_of(k, vma, i) == swp_entry_to_pte(swp_entry(SWP_MIGRATION_WRITE, head + i))
    assert (total_mapcount(k, head), page_count(k, head)) == (0, 1)
    assert rss(vma)[0] == HPAGE_PMD_NR
    unlock_page(k, head)


def test_parts_are_as_exclusive_as_the_whole_was() -> None:
    k, vma, head = huge_world(CLEAN, anon_exclusive=True)
    assert k.pg_flags[head] & PG_anon_exclusive
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    assert all(k.pg_flags[head + i] & PG_anon_exclusive for i in range(HPAGE_PMD_NR))


def test_entries_of_a_frozen_page_keep_that_it_was_exclusive() -> None:
    k, vma, head = huge_world(CLEAN, anon_exclusive=True)
    get_page(k, head)
    lock_page(k, head)
    split_huge_pmd_address(k, vma, vma.vm_start, True, head)
    assert pte_of(k, vma, 7) & _PAGE_SWP_EXCLUSIVE
    assert not k.pg_flags[head] & PG_anon_exclusive
    unlock_page(k, head)


def test_a_page_that_may_be_pinned_is_split_and_not_frozen() -> None:
    k, vma, head = huge_world(anon_exclusive=True)
    get_page(k, head)
    page_add_pins(k, head, 1)
    lock_page(k, head)
    split_huge_pmd_address(k, vma, vma.vm_start, True, head)
    assert pte_pfn(pte_of(k, vma, 7)) == head + 7
    assert k.pg_flags[head + 7] & PG_anon_exclusive
    unlock_page(k, head)


# ---------------------------------------------------------------- tables that are set aside


def test_tables_are_taken_in_the_order_in_which_they_were_set_aside() -> None:
    k = world()
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    pmd = pmd_alloc(k, vma.vm_mm, vma.vm_start)
    pte_lock(k, pmd)
    for row in (11, 12, 13):
        pgtable_trans_huge_deposit(k, vma.vm_mm, pmd, row)
    assert [pgtable_trans_huge_withdraw(k, vma.vm_mm, pmd) for _ in range(3)] == [11, 12, 13]
    with pytest.raises(KernelBug, match="no table was set aside"):
        pgtable_trans_huge_withdraw(k, vma.vm_mm, pmd)
    pte_unlock(k, pmd)


def test_the_lock_is_kept_only_where_a_huge_page_is() -> None:
    k, vma, _ = huge_world()
    pmd = pmd_of(k, vma)
    assert pmd_trans_huge_lock(k, pmd)
    pte_unlock(k, pmd)
    assert not pmd_trans_huge_lock(k, pmd + 1)


def test_where_a_pmd_can_map_a_page_of_a_file() -> None:
    k = world()
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR - 1, 2 * HPAGE_PMD_NR)
    vma.vm_pgoff = HPAGE_PMD_NR - 1
    first, second = vma.vm_start, HPAGE_PMD_SIZE
    assert (transhuge_range_fits(vma, first), transhuge_range_fits(vma, second)) == (False, True)
    assert (transhuge_vma_suitable(vma, first), transhuge_vma_suitable(vma, second)) == (
        False,
        True,
    )
    vma.vm_pgoff += 1
    assert not transhuge_vma_suitable(vma, second), "the file is not aligned as the address is"


# ---------------------------------------------------------------- the huge zero page


def zero_world() -> tuple[Kernel, Vma]:
    """A process that has read from memory it never wrote to."""
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    zero = mm_get_huge_zero_page(k, vma.vm_mm)
    pmd = pmd_alloc(k, vma.vm_mm, vma.vm_start)
    row = pte_alloc_row(k, vma.vm_mm)
    pte_lock(k, pmd)
    assert set_huge_zero_page(k, row, vma.vm_mm, vma, vma.vm_start, pmd, zero)
    assert not set_huge_zero_page(k, row, vma.vm_mm, vma, vma.vm_start, pmd, zero), "taken"
    pte_unlock(k, pmd)
    return k, vma


def test_the_huge_zero_page_splits_into_small_zero_pages() -> None:
    k, vma = zero_world()
    split_huge_pmd(k, vma, pmd_of(k, vma), vma.vm_start)
    for i in (0, 511):
        entry = pte_of(k, vma, i)
        assert (pte_pfn(entry), entry & _PAGE_SPECIAL) == (k.zero_page, _PAGE_SPECIAL)
    assert rss(vma) == (0, 0, 0, 0)
    assert page_count(k, k.huge_zero_page) == 1


def test_the_huge_zero_page_goes_when_nobody_needs_it() -> None:
    k, vma = zero_world()
    free = k.nr_free
    assert pmd_trans_huge(k.pt[pmd_of(k, vma)])
    assert mm_get_huge_zero_page(k, vma.vm_mm) == k.huge_zero_page, "no second reference"
    assert shrink_huge_zero_page_scan(k) == 0
    mm_put_huge_zero_page(k, vma.vm_mm)
    assert shrink_huge_zero_page_scan(k) == HPAGE_PMD_NR
    assert (k.nr_free, k.huge_zero_page) == (free + HPAGE_PMD_NR, 0)
    assert shrink_huge_zero_page_scan(k) == 0

# SPDX-License-Identifier: GPL-2.0-only
"""Where in one VMA a page hangs: every kind of entry, peeks and locks, huge pages."""

from __future__ import annotations

import pytest
from handmade import (
    BASE,
    CLEAN,
    USED,
    YOUNG,
    address_of,
    at,
    family,
    poke,
    process,
    touch,
    touch_huge,
    world,
)
from kernels import make_mm, map_pages

from rmap.mm.bits import (
    _PAGE_PROTNONE,
    _PAGE_PSE,
    GFP_HIGHUSER,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    HPAGE_PUD_ORDER,
    PAGE_SHIFT,
    PAGE_SIZE,
    PTRS_PER_PTE,
    PVMW_MIGRATION,
    PVMW_SYNC,
    RMAP_VMAS_MAPPED,
    SWP_DEVICE_READ,
    SWP_HWPOISON,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    PG_head,
    PG_huge,
)
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page_alloc import alloc_pages
from rmap.mm.page_vma_mapped import (
    PageVmaMappedWalk,
    page_mapped_in_vma,
    page_vma_mapped_walk,
    page_vma_mapped_walk_done,
)
from rmap.mm.pgtable import (
    assert_pte_locked,
    pfn_pte,
    pmd_alloc,
    pmd_offset,
    pte_lookup,
    pud_alloc,
    swp_entry,
    swp_entry_to_pte,
)
from rmap.sync.bits import OP_ACQUIRE, RANK_PTL
from rmap.sync.core import scheduler


def walk(k: Kernel, page: int, vma: Vma, flags: int = 0) -> list[int]:
    """All places of a page in a VMA, in pages from its start; no lock is left."""
    pvmw = PageVmaMappedWalk(page, vma, vma.vm_start, flags)
    found = []
    while page_vma_mapped_walk(k, pvmw):
        assert_pte_locked(k, pvmw.pte or pvmw.pmd)
        found.append((pvmw.address - vma.vm_start) >> PAGE_SHIFT)
    assert scheduler().current.held == []
    return found


def test_a_mapping_is_found_with_its_lock_held_and_no_second_one() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma, 2)
    pvmw = PageVmaMappedWalk(page, vma, address_of(vma, 2))
    assert page_vma_mapped_walk(k, pvmw)
    assert pvmw.pte == pte_lookup(k, vma.vm_mm, address_of(vma, 2))
    assert pvmw.pmd == pmd_offset(k, vma.vm_mm, address_of(vma, 2))
    assert pvmw.ptl
    assert_pte_locked(k, pvmw.pte)
    assert not page_vma_mapped_walk(k, pvmw)
    assert pvmw.ptl == 0
    assert k.vm_stat[RMAP_VMAS_MAPPED] == 1


def test_a_walk_that_is_left_early_gives_its_lock_back() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    pvmw = PageVmaMappedWalk(page, vma, vma.vm_start)
    page_vma_mapped_walk_done(k, pvmw)
    assert page_vma_mapped_walk(k, pvmw)
    page_vma_mapped_walk_done(k, pvmw)
    assert scheduler().current.held == []


def test_nothing_is_found_where_there_are_no_tables() -> None:
    k = world()
    vma = process(k)
    other = touch(k, process(k, comm="q"))
    assert walk(k, other, vma) == []
    assert walk(k, other, vma, PVMW_SYNC) == []
    # The upper tables are there, the last one is not.
    pmd_alloc(k, vma.vm_mm, vma.vm_start)
    assert walk(k, other, vma) == []


@pytest.mark.parametrize("flags", [0, PVMW_SYNC])
def test_other_entries_are_not_taken_for_the_page(flags: int) -> None:
    k = world()
    page, vmas = family(k, 1)
    other = touch(k, vmas[0], 1)
    for pte in (
        0,
        pfn_pte(other, USED),
        pfn_pte(page - 1, USED),
        swp_entry_to_pte(swp_entry(0, page)),
        swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, page)),
        swp_entry_to_pte(swp_entry(SWP_HWPOISON, page)),
    ):
        poke(k, vmas[1], pte)
        assert walk(k, page, vmas[1], flags) == []
    for pte in (pfn_pte(page, CLEAN), pfn_pte(page, _PAGE_PROTNONE | YOUNG)):
        poke(k, vmas[1], pte)
        assert walk(k, page, vmas[1], flags) == [0]


@pytest.mark.parametrize("sync", [0, PVMW_SYNC])
def test_a_walk_for_migration_finds_the_entries_that_wait_and_no_others(sync: int) -> None:
    k = world()
    vma = process(k)
    page, other = touch(k, vma), touch(k, vma, 1)
    flags = PVMW_MIGRATION | sync
    for pte in (
        pfn_pte(page, USED),
        0,
        swp_entry_to_pte(swp_entry(0, page)),
        swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, other)),
    ):
        poke(k, vma, pte)
        assert walk(k, page, vma, flags) == []
    for kind in (SWP_MIGRATION_READ, SWP_MIGRATION_WRITE):
        poke(k, vma, swp_entry_to_pte(swp_entry(kind, page)))
        assert walk(k, page, vma, flags) == [0]


def test_a_peek_without_the_lock_passes_over_device_memory() -> None:
    """The lock taken first, it is found: the defect that v4.20 repaired."""
    k = world()
    vma = process(k)
    page = touch(k, vma)
    poke(k, vma, swp_entry_to_pte(swp_entry(SWP_DEVICE_READ, page)))
    assert walk(k, page, vma) == []
    assert walk(k, page, vma, PVMW_SYNC) == [0]


def test_page_mapped_in_vma_asks_the_page_tables() -> None:
    k = world()
    page, vmas = family(k, 1)
    assert [page_mapped_in_vma(k, page, vma) for vma in vmas] == [1, 1]
    poke(k, vmas[1], 0)
    assert [page_mapped_in_vma(k, page, vma) for vma in vmas] == [1, 0]
    elsewhere = map_pages(k, vmas[0].vm_mm, BASE + 64, 4)
    assert page_mapped_in_vma(k, page, elsewhere) == 0, "its index lies before that VMA"
    assert k.vm_stat[RMAP_VMAS_MAPPED] == 0, "which is no walk of the reverse map"


# ---------------------------------------------------------------- huge pages


def huge_world(first: int = HPAGE_PMD_NR, pages: int = HPAGE_PMD_NR) -> tuple[Kernel, Vma, int]:
    """A VMA with an anonymous huge page at its start, which a PMD maps."""
    k = world(4096)
    vma = map_pages(k, make_mm(k), first, pages)
    return k, vma, touch_huge(k, vma)


def split_pmd(k: Kernel, vma: Vma, head: int) -> None:
    """Map the huge page by PTEs, without counting."""
    k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)] = 0
    for i in range(HPAGE_PMD_NR):
        poke(k, vma, pfn_pte(head + i, USED), i)


def test_a_pmd_that_maps_the_page_is_found_once() -> None:
    k, vma, head = huge_world()
    pvmw = PageVmaMappedWalk(head, vma, vma.vm_start)
    assert page_vma_mapped_walk(k, pvmw)
    assert (pvmw.pmd, pvmw.pte) == (pmd_offset(k, vma.vm_mm, vma.vm_start), 0)
    assert_pte_locked(k, pvmw.pmd)
    assert not page_vma_mapped_walk(k, pvmw)
    assert walk(k, head, vma, PVMW_MIGRATION) == []
    other = int(alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER))
    assert walk(k, other, vma) == []


def test_a_pmd_that_waits_for_migration_is_found_if_asked_for() -> None:
    k, vma, head = huge_world()
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    k.pt[pmd] = swp_entry_to_pte(swp_entry(SWP_MIGRATION_WRITE, head))
    assert walk(k, head, vma) == []
    assert walk(k, head, vma, PVMW_MIGRATION) == [0]
    other = int(alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER))
    assert walk(k, other, vma, PVMW_MIGRATION) == []
    k.pt[pmd] = swp_entry_to_pte(swp_entry(0, head))
    assert walk(k, head, vma, PVMW_MIGRATION) == []


def test_a_pmd_that_is_split_while_its_lock_is_waited_for_is_walked_by_ptes() -> None:
    k, vma, head = huge_world()
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    huge = k.pt[pmd]
    split_pmd(k, vma, head)
    table = k.pt[pmd]
    k.pt[pmd] = huge
    sched = scheduler()
    pvmw = PageVmaMappedWalk(head, vma, vma.vm_start)
    sched.switch, sched.exploring = LockTaken(k, pmd, table), True
    try:
        assert page_vma_mapped_walk(k, pvmw)
    finally:
        sched.switch, sched.exploring = None, False
    assert pvmw.pte == at(k, vma)
    page_vma_mapped_walk_done(k, pvmw)


class LockTaken:
    """A CPU that stores a table into a PMD just before another gets its lock."""

    def __init__(self, k: Kernel, pmd: int, table: int) -> None:
        self.k = k
        self.pmd = pmd
        self.table = table

    def __call__(self, op: int, kind: int, ident: int, free: object) -> None:
        if (op, kind) == (OP_ACQUIRE, RANK_PTL):
            self.k.pt[self.pmd] = self.table


def test_ptes_of_a_huge_page_are_all_found_and_holes_passed_over() -> None:
    k, vma, head = huge_world()
    split_pmd(k, vma, head)
    assert walk(k, head, vma) == list(range(HPAGE_PMD_NR))
    assert k.vm_stat[RMAP_VMAS_MAPPED] == 1
    for gone in (0, 7, 8, 511):
        poke(k, vma, 0, gone)
    poke(k, vma, pfn_pte(1, USED), 9)
    expected = [i for i in range(HPAGE_PMD_NR) if i not in (0, 7, 8, 9, 511)]
    assert walk(k, head, vma) == expected
    assert walk(k, head, vma, PVMW_SYNC) == expected


def test_a_huge_page_that_was_moved_is_followed_across_a_table() -> None:
    """mremap put it 2 MiB minus 3 pages off: its PTEs lie in two tables."""
    k, origin, head = huge_world()
    k.pt[pmd_offset(k, origin.vm_mm, origin.vm_start)] = 0
    moved = map_pages(k, origin.vm_mm, 3 * HPAGE_PMD_NR - 3, HPAGE_PMD_NR)
    moved.vm_pgoff = origin.vm_pgoff
    for i in range(HPAGE_PMD_NR):
        poke(k, moved, pfn_pte(head + i, USED), i)
    assert walk(k, head, moved) == list(range(HPAGE_PMD_NR))
    # The second table may be missing, or may be no table.
    pmd = pmd_offset(k, moved.vm_mm, address_of(moved, 3))
    table = k.pt[pmd]
    k.pt[pmd] = 0
    assert walk(k, head, moved) == [0, 1, 2]
    k.pt[pmd] = pfn_pte(1024, USED | _PAGE_PSE)
    assert walk(k, head, moved) == [0, 1, 2]
    k.pt[pmd] = table


def test_only_the_part_that_lies_in_the_vma_is_walked() -> None:
    k, vma, head = huge_world()
    split_pmd(k, vma, head)
    vma.vm_end -= 100 * PAGE_SIZE
    vma.vm_start += 10 * PAGE_SIZE
    vma.vm_pgoff += 10
    assert walk(k, head, vma) == list(range(402))
    assert page_mapped_in_vma(k, head, vma) == 1


def test_a_table_that_goes_away_under_a_walk_is_a_bug() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    # Present to the kernel but to no CPU: what PROT_NONE is for entries, no table ever is.
    k.pt[pmd] = _PAGE_PROTNONE
    with pytest.raises(KernelBug, match="went away"):
        walk(k, page, vma)


def test_a_hugetlb_page_hangs_at_a_pmd_that_passes_for_a_pte() -> None:
    k, vma, head = huge_world()
    for page in range(head, head + HPAGE_PMD_NR):
        k.pg_flags[page] |= PG_huge
    pvmw = PageVmaMappedWalk(head, vma, vma.vm_start)
    assert page_vma_mapped_walk(k, pvmw)
    assert pvmw.pte == pmd_offset(k, vma.vm_mm, vma.vm_start)
    assert not page_vma_mapped_walk(k, pvmw)
    k.pt[pvmw.pte] = 0
    assert walk(k, head, vma) == []
    far = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    assert walk(k, head, far) == []


def test_a_hugetlb_page_of_1_gib_hangs_at_a_pud() -> None:
    k = world(1024)
    vma = map_pages(k, make_mm(k), 1 << HPAGE_PUD_ORDER, 1 << HPAGE_PUD_ORDER)
    head = HPAGE_PMD_NR
    k.pg_flags[head] |= PG_head | PG_huge
    k.pg_private[head + 1] = HPAGE_PUD_ORDER
    pud = pud_alloc(k, vma.vm_mm, vma.vm_start)
    assert walk(k, head, vma) == []
    k.pt[pud] = pfn_pte(head, USED | _PAGE_PSE)
    pvmw = PageVmaMappedWalk(head, vma, vma.vm_start)
    assert page_vma_mapped_walk(k, pvmw)
    assert (pvmw.pte, pvmw.ptl) == (pud, pud // PTRS_PER_PTE + 1)
    assert not page_vma_mapped_walk(k, pvmw)
    # A leaf is no table, whoever asks for one.
    assert pmd_offset(k, vma.vm_mm, vma.vm_start) == 0
    assert pmd_alloc(k, vma.vm_mm, vma.vm_start) == 0

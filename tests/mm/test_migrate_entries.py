# SPDX-License-Identifier: GPL-2.0-only
"""Migration entries by hand: put back what try_to_unmap() took, and wait at what stands there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from handmade import (
    CLEAN,
    DIRTY,
    USED,
    WRITE,
    address_of,
    at,
    cache,
    family,
    make_file,
    map_cached,
    map_file,
    poke,
    process,
    pte_of,
    touch,
    touch_huge,
    world,
)
from kernels import make_mm, map_pages
from unmapping import isolate, release, rss

from rmap.mm.bits import (
    _PAGE_PSE,
    _PAGE_RW,
    _PAGE_SOFT_DIRTY,
    _PAGE_SWP_EXCLUSIVE,
    HPAGE_PMD_NR,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    NR_FILE_MAPPED,
    NR_MLOCK,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    TTU_IGNORE_ACCESS,
    TTU_IGNORE_MLOCK,
    TTU_MIGRATION,
    VM_LOCKED,
    VM_WRITE,
    PG_anon_exclusive,
    PG_mlocked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.migrate.entries import (
    migration_entry_to_page,
    migration_entry_wait,
    pmd_migration_entry_wait,
    remove_migration_ptes,
)
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import lock_page, page_mapcount, unlock_page
from rmap.mm.pgtable import pfn_pte, pmd_offset, pte_mkold, swp_entry, swp_entry_to_pte
from rmap.mm.unmap import try_to_unmap
from rmap.mm.vma import vma_set_page_prot
from rmap.sync.core import Deadlock

MIGRATE = TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS


@pytest.fixture
def k() -> Kernel:
    return world()


def away_and_back(k: Kernel, page: int, between: Callable[[], object] = lambda: None) -> None:
    """Replace a page's mappings by migration entries, do something, and put them back."""
    isolate(k, page)
    assert try_to_unmap(k, page, MIGRATE)
    between()
    remove_migration_ptes(k, page, page, False)
    release(k, page)


def restored(page: int, vma: Vma) -> int:
    """The entry as it comes back where it may not be written to: old and clean."""
    return int(pte_mkold(pfn_pte(page, vma.vm_page_prot)))


def kind_of(k: Kernel, vma: Vma, page: int) -> int:
    """Which type of migration entry names the page in a VMA."""
    for kind in (SWP_MIGRATION_READ, SWP_MIGRATION_WRITE):
        if pte_of(k, vma) & ~0x1FF == swp_entry_to_pte(swp_entry(kind, page)):
            return kind
    raise AssertionError(f"no migration entry: {pte_of(k, vma):#x}")


def test_a_page_that_stays_where_it_is_gets_its_mappings_back(k: Kernel) -> None:
    page, vmas = family(k, 2)
    poke(k, vmas[0], pfn_pte(page, USED))
    mapped = k.vm_stat[NR_ANON_MAPPED]

    def between() -> None:
        kinds = [kind_of(k, vma, page) for vma in vmas]
        assert kinds == [SWP_MIGRATION_WRITE, SWP_MIGRATION_READ, SWP_MIGRATION_READ]
        # Nothing maps it, nothing but the isolation has a reference; it still counts as resident.
        assert (page_mapcount(k, page), k.pg_refcount[page]) == (0, 1)
        assert k.vm_stat[NR_ANON_MAPPED] == mapped - 1
        assert [rss(vma) for vma in vmas] == [(1, 0, 0, 0)] * 3

    for vma in vmas:
        vma_set_page_prot(k, vma)
    away_and_back(k, page, between)
    # Old and clean: the page itself knows now that it is dirty.
    assert pte_of(k, vmas[0]) == restored(page, vmas[0]) | WRITE
    assert pte_of(k, vmas[1]) == pte_of(k, vmas[2]) == restored(page, vmas[1])
    assert (page_mapcount(k, page), k.pg_refcount[page]) == (3, 3)
    assert k.vm_stat[NR_ANON_MAPPED] == mapped
    assert [rss(vma) for vma in vmas] == [(1, 0, 0, 0)] * 3


def test_soft_dirty_goes_there_and_back(k: Kernel) -> None:
    page, (vma,) = family(k, 0)
    poke(k, vma, pfn_pte(page, USED | _PAGE_SOFT_DIRTY))
    away_and_back(k, page)
    assert pte_of(k, vma) & _PAGE_SOFT_DIRTY
    poke(k, vma, pfn_pte(page, USED))
    away_and_back(k, page)
    assert not pte_of(k, vma) & _PAGE_SOFT_DIRTY


def test_what_mprotect_forbids_meanwhile_is_not_given_back(k: Kernel) -> None:
    """The entry says writable, the VMA does not any more: its protection now is what counts."""
    page, (vma,) = family(k, 0)
    poke(k, vma, pfn_pte(page, USED))

    def forbid() -> None:
        vma.vm_flags &= ~VM_WRITE
        vma_set_page_prot(k, vma)

    away_and_back(k, page, forbid)
    assert pte_of(k, vma) == restored(page, vma)
    assert not pte_of(k, vma) & _PAGE_RW


def test_a_page_of_a_file_comes_back_to_all_who_map_it(k: Kernel) -> None:
    file = make_file(k)
    page = cache(k, file, 1)
    vmas = [map_file(k, file, "p"), map_file(k, file, "q", pgoff=1)]
    for vma in vmas:
        map_cached(k, page, vma, USED)
    away_and_back(k, page)
    assert (page_mapcount(k, page), k.pg_refcount[page]) == (2, 3)
    assert k.vm_stat[NR_FILE_MAPPED] == 1
    for vma, number in zip(vmas, (1, 0), strict=True):
        assert pte_of(k, vma, number) & ~0xFFF & ~(1 << 63) == page << 12
        assert pte_of(k, vma, number) & _PAGE_RW
        assert rss(vma) == (0, 0, 1, 0)


def test_a_vma_that_was_locked_meanwhile_mlocks_the_page(k: Kernel) -> None:
    page, (vma,) = family(k, 0)

    def lock() -> None:
        vma.vm_flags |= VM_LOCKED

    away_and_back(k, page, lock)
    assert k.pg_flags[page] & PG_mlocked
    assert k.vm_stat[NR_MLOCK] == 1


def test_who_is_gone_meanwhile_is_not_missed_and_who_came_is_found(k: Kernel) -> None:
    """The walk is over the VMAs of now: entries that were copied are found, lost ones not."""
    page, (parent, child) = family(k, 1)
    moving = swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, page))
    poke(k, parent, pfn_pte(page, CLEAN))

    def swap_places() -> None:
        poke(k, parent, 0)
        parent.vm_mm.rss_stat[1] -= 1
        assert pte_of(k, child) == moving

    away_and_back(k, page, swap_places)
    assert pte_of(k, parent) == 0
    assert (page_mapcount(k, page), k.pg_refcount[page]) == (1, 1)


def test_other_pages_entries_are_left_alone(k: Kernel) -> None:
    page, (vma,) = family(k, 0)
    other = touch(k, vma, 1)
    isolate(k, other)
    assert try_to_unmap(k, other, MIGRATE)
    foreign = swp_entry_to_pte(swp_entry(SWP_MIGRATION_WRITE, other))
    assert pte_of(k, vma, 1) == foreign
    away_and_back(k, page, lambda: poke(k, vma, foreign, 0))
    assert pte_of(k, vma, 0) == foreign
    poke(k, vma, 0, 0)
    remove_migration_ptes(k, other, other, False)
    release(k, other)
    assert pte_of(k, vma, 1) & DIRTY == 0


def test_the_caller_may_hold_the_rmap_lock(k: Kernel) -> None:
    page, (vma,) = family(k, 0)
    isolate(k, page)
    assert try_to_unmap(k, page, MIGRATE)
    with pytest.raises(AssertionError):
        remove_migration_ptes(k, page, page, True)
    vma.anon_vma.root.rwsem.down_write()
    remove_migration_ptes(k, page, page, True)
    vma.anon_vma.root.rwsem.up_write()
    release(k, page)
    assert page_mapcount(k, page) == 1


def test_an_entry_of_a_page_that_is_not_locked_is_a_bug(k: Kernel) -> None:
    page, _ = family(k, 0)
    with pytest.raises(KernelBug, match="migration_entry_to_page"):
        migration_entry_to_page(k, swp_entry(SWP_MIGRATION_READ, page))
    with pytest.raises(KernelBug, match="remove_migration_ptes"):
        remove_migration_ptes(k, page, page, False)


# ---------------------------------------------------------------- exclusive pages (5.19)


@pytest.mark.parametrize("bits", [CLEAN, USED])
def test_since_5_19_the_entry_remembers_that_the_page_was_exclusive(bits: int) -> None:
    k = world(anon_exclusive=True)
    page, (vma,) = family(k, 0)
    poke(k, vma, pfn_pte(page, bits))
    assert k.pg_flags[page] & PG_anon_exclusive

    def between() -> None:
        assert not k.pg_flags[page] & PG_anon_exclusive
        assert bool(pte_of(k, vma) & _PAGE_SWP_EXCLUSIVE) == (bits == CLEAN)

    away_and_back(k, page, between)
    assert k.pg_flags[page] & PG_anon_exclusive
    # One that was shared does not become exclusive by that.
    k.pg_flags[page] &= ~PG_anon_exclusive
    poke(k, vma, pfn_pte(page, CLEAN))
    away_and_back(k, page)
    assert not k.pg_flags[page] & PG_anon_exclusive


def test_since_5_19_a_pinned_page_keeps_its_entry() -> None:
    k = world(anon_exclusive=True)
    page, (vma,) = family(k, 0)
    before = pte_of(k, vma)
    k.pg_refcount[page] += 1 << 10
    isolate(k, page)
    assert not try_to_unmap(k, page, MIGRATE)
    assert pte_of(k, vma) == before
    release(k, page)


# ---------------------------------------------------------------- huge pages


def huge() -> tuple[Kernel, Vma, int]:
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    head = touch_huge(k, vma)
    k.pg_refcount[head] += 1
    lock_page(k, head)
    return k, vma, head


def test_a_pmd_comes_back_as_a_pmd() -> None:
    k, vma, head = huge()
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    vma_set_page_prot(k, vma)
    assert try_to_unmap(k, head, MIGRATE)
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (0, 0)
    remove_migration_ptes(k, head, head, False)
    assert k.pt[pmd] == restored(head, vma) | _PAGE_PSE | _PAGE_RW
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (1, HPAGE_PMD_NR)
    assert (k.pg_lru_prev[head + 1], k.pg_refcount[head]) == (1, 2)
    assert rss(vma) == (HPAGE_PMD_NR, 0, 0, 0)
    unlock_page(k, head)


def split_by_hand(k: Kernel, vma: Vma, head: int) -> None:
    """Let PTEs map a huge page, as after the split of its PMD."""
    k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)] = 0
    for i in range(HPAGE_PMD_NR):
        poke(k, vma, pfn_pte(head + i, USED), i)
        k.pg_mapcount[head + i] = 0
    k.pg_lru_prev[head + 1] = 0
    k.vm_stat[NR_ANON_THPS] -= 1
    k.pg_refcount[head] += HPAGE_PMD_NR - 1


def test_each_part_of_a_huge_page_that_ptes_map_comes_back_to_its_place() -> None:
    k, vma, head = huge()
    split_by_hand(k, vma, head)
    poke(k, vma, 0, 7)
    k.pg_mapcount[head + 7] = -1
    k.pg_refcount[head] -= 1
    k.vm_stat[NR_ANON_MAPPED] -= 1
    assert try_to_unmap(k, head, MIGRATE)
    assert k.vm_stat[NR_ANON_MAPPED] == 0
    remove_migration_ptes(k, head, head, False)
    for i in range(HPAGE_PMD_NR):
        pte = pte_of(k, vma, i)
        assert (pte & ~(1 << 63)) >> 12 == (0 if i == 7 else head + i)
        assert k.pg_mapcount[head + i] == (-1 if i == 7 else 0)
    assert k.vm_stat[NR_ANON_MAPPED] == HPAGE_PMD_NR - 1
    assert k.pg_refcount[head] == HPAGE_PMD_NR
    unlock_page(k, head)


@pytest.mark.parametrize("repaired", [False, True])
def test_a_huge_page_stays_mlocked_with_ptes_mapping_it_until_4_19(repaired: bool) -> None:
    k = world(4096, thp_migration_munlocks=repaired)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR)
    head = touch_huge(k, vma)
    k.pg_refcount[head] += 1
    lock_page(k, head)
    split_by_hand(k, vma, head)
    k.pg_flags[head] |= PG_mlocked
    k.vm_stat[NR_MLOCK] += HPAGE_PMD_NR
    k.vm_stat[NR_ANON_MAPPED] = HPAGE_PMD_NR + 1
    poke(k, vma, swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, head + 3)), 3)
    k.pg_mapcount[head + 3] = -1
    k.pg_refcount[head] -= 1
    remove_migration_ptes(k, head, head, False)
    assert k.vm_stat[NR_MLOCK] == (0 if repaired else HPAGE_PMD_NR)
    unlock_page(k, head)


# ---------------------------------------------------------------- waiting


def test_a_fault_waits_as_long_as_the_page_is_locked(k: Kernel) -> None:
    page, (vma,) = family(k, 0)
    ptep = at(k, vma)
    # Nothing to wait for: the page is there.
    migration_entry_wait(k, ptep)
    isolate(k, page)
    assert try_to_unmap(k, page, MIGRATE)
    with pytest.raises(Deadlock, match="PG_locked"):
        migration_entry_wait(k, ptep)
    assert k.pg_refcount[page] == 2, "who waits has a reference"
    k.pg_refcount[page] -= 1
    remove_migration_ptes(k, page, page, False)
    release(k, page)
    migration_entry_wait(k, ptep)
    assert k.pg_refcount[page] == 1
    assert address_of(vma, 0) == vma.vm_start


def test_a_fault_waits_for_a_huge_page_at_its_pmd() -> None:
    k, vma, head = huge()
    pmd = pmd_offset(k, vma.vm_mm, vma.vm_start)
    pmd_migration_entry_wait(k, pmd)
    assert try_to_unmap(k, head, MIGRATE)
    with pytest.raises(Deadlock, match="PG_locked"):
        pmd_migration_entry_wait(k, pmd)
    assert k.pg_refcount[head] == 2
    k.pg_refcount[head] -= 1
    remove_migration_ptes(k, head, head, False)
    unlock_page(k, head)


def test_nobody_waits_for_a_page_without_references(k: Kernel) -> None:
    """The migration is about to end; the fault is taken again, and finds the new page."""
    page, (vma,) = family(k, 0)
    isolate(k, page)
    assert try_to_unmap(k, page, MIGRATE)
    k.pg_refcount[page] = 0
    migration_entry_wait(k, at(k, vma))
    assert k.pg_refcount[page] == 0
    k.pg_refcount[page] = 1
    remove_migration_ptes(k, page, page, False)
    release(k, page)


def test_process_of_the_world_is_untouched(k: Kernel) -> None:
    """A VMA that covers the page's place but does not map it is passed over."""
    page, (vma,) = family(k, 0)
    bystander = process(k, comm="q")
    away_and_back(k, page)
    assert pte_of(k, bystander) == 0
    assert page_mapcount(k, page) == 1
    assert vma.vm_mm is not bystander.vm_mm

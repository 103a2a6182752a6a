# SPDX-License-Identifier: GPL-2.0-only
"""What rmap does with huge pages that real faults, forks and splits have made."""

from __future__ import annotations

import pytest
from handmade import crashed
from huge import HUGE, check_all, counts, frame, head_at, huge_kernel, huge_space, load, rss, store
from hugely import Hugely
from kernels import Failing
from spaces import Space
from test_huge_change import slot, somebody_else
from test_shmem_huge import Shmem

from rmap.mm.bits import (
    _PAGE_ACCESSED,
    _PAGE_DIRTY,
    _PAGE_PSE,
    _PAGE_RW,
    MADV_DONTNEED,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    TTU_IGNORE_ACCESS,
    TTU_IGNORE_MLOCK,
    TTU_MIGRATION,
    PG_anon_exclusive,
    PG_dirty,
    PG_referenced,
)
from rmap.mm.bug import KernelBug
from rmap.mm.huge.split_pmd import split_huge_pmd
from rmap.mm.lru import put_page
from rmap.mm.migrate.entries import remove_migration_ptes
from rmap.mm.mm_types import Kernel
from rmap.mm.page import (
    PageDoubleMap,
    compound_mapcount,
    get_page,
    lock_page,
    page_anon_vma,
    page_count,
    page_mapcount,
    total_mapcount,
    unlock_page,
)
from rmap.mm.page_mkclean import page_mkclean
from rmap.mm.page_referenced import PageReferencedArg, page_referenced
from rmap.mm.pgtable import (
    is_pmd_migration_entry,
    pfn_pte,
    pmd_offset,
    pmd_trans_huge,
    set_pte_at,
)
from rmap.mm.unmap import try_to_unmap

MIGRATE = TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS


@pytest.fixture
def k() -> Kernel:
    return huge_kernel()


def family(k: Kernel) -> tuple[Space, Space, int]:
    """A parent and a child that map a huge page by PMDs."""
    parent = huge_space(k)
    store(parent, 9, b"ninth")
    return parent, parent.fork(), head_at(parent)


def referenced(k: Kernel, head: int) -> int:
    """How many VMAs have used a huge page, which forgets it."""
    get_page(k, head)
    lock_page(k, head)
    found = page_referenced(k, head, 1, None, PageReferencedArg())
    unlock_page(k, head)
    put_page(k, head)
    return int(found)


# ---------------------------------------------------------------- aging


def test_a_huge_page_is_aged_by_the_pmds_that_map_it(k: Kernel) -> None:
    parent, child, head = family(k)
    for space in (parent, child):
        k.pt[slot(space)] |= _PAGE_ACCESSED
    gens = parent.mm.tlb_gen, child.mm.tlb_gen
    assert referenced(k, head) == 2
    assert (parent.mm.tlb_gen, child.mm.tlb_gen) == (gens[0] + 1, gens[1] + 1)
    assert [k.pt[slot(space)] & _PAGE_ACCESSED for space in (parent, child)] == [0, 0]
    assert referenced(k, head) == 0
    check_all(k, parent, child)


def test_a_huge_page_counts_once_for_each_vma_however_it_maps_it(k: Kernel) -> None:
    parent, child, head = family(k)
    k.pt[slot(parent)] |= _PAGE_ACCESSED
    k.pt[slot(child)] |= _PAGE_ACCESSED
    split_huge_pmd(k, child.vma(0), slot(child), child.at(0))
    assert all(child.pte(i) & _PAGE_ACCESSED for i in range(HUGE))
    assert referenced(k, head) == 2
    assert not any(child.pte(i) & _PAGE_ACCESSED for i in range(HUGE))
    check_all(k, parent, child)


def test_parts_that_moved_within_their_table_are_aged_where_they_are(k: Kernel) -> None:
    space = huge_space(k)
    store(space, 9, b"ninth")
    head = head_at(space)
    assert space.mremap(0, HUGE, 2 * HUGE + 3) > 0
    for i in range(HUGE):
        assert frame(space, 2 * HUGE + 3 + i) == head + i
    space.read(2 * HUGE + 3 + 500)
    assert referenced(k, head) == 1
    assert referenced(k, head) == 0
    check_all(k, space)


# ---------------------------------------------------------------- cleaning


def test_a_pmd_of_shared_memory_is_cleaned_as_a_whole() -> None:
    s = Shmem()
    q = s.m.spawn("q")
    a, b = s.shared(), s.shared(q)
    s.p.write(a, b"x")
    q.read(b, 1)
    head = s.head()
    k = s.k
    assert s.is_huge(s.p, a)
    assert s.is_huge(q, b)
    with s.m.kthread("writeback"):
        lock_page(k, head)
        cleaned = page_mkclean(k, head)
        again = page_mkclean(k, head)
        unlock_page(k, head)
    # The reader's PMD may be written through as well, so it counts, dirty or not.
    assert (cleaned, again) == (2, 0)
    for process, address in ((s.p, a), (q, b)):
        pmd = k.pt[pmd_offset(k, process.mm, address)]
        assert (pmd_trans_huge(pmd), pmd & (_PAGE_DIRTY | _PAGE_RW)) == (True, 0)
    s.sound()


# ---------------------------------------------------------------- migration entries


def test_pmds_wait_while_a_huge_page_moves_and_come_back(k: Kernel) -> None:
    parent, child, head = family(k)
    get_page(k, head)
    lock_page(k, head)
    assert try_to_unmap(k, head, MIGRATE)
    assert all(is_pmd_migration_entry(k.pt[slot(space)]) for space in (parent, child))
    assert (counts(k), total_mapcount(k, head), page_count(k, head)) == ((0, 0), 0, 1)
    assert rss(parent) == rss(child) == (0, HUGE, 0, 0)
    remove_migration_ptes(k, head, head, False)
    unlock_page(k, head)
    put_page(k, head)
    assert (compound_mapcount(k, head), counts(k)) == (2, (1, HUGE))
    assert (load(parent, 9), load(child, 9)) == (b"ninth", b"ninth")
    check_all(k, parent, child)


def test_both_ways_of_mapping_wait_and_come_back(k: Kernel) -> None:
    """v4.18 does not mark the page as mapped both ways again: counts are right all the same."""
    _, child, head = family(k)
    split_huge_pmd(k, child.vma(0), slot(child), child.at(0))
    assert PageDoubleMap(k, head)
    get_page(k, head)
    lock_page(k, head)
    assert try_to_unmap(k, head, MIGRATE)
    assert total_mapcount(k, head) == 0
    assert not PageDoubleMap(k, head), "the last PMD took the base counts with it"
    remove_migration_ptes(k, head, head, False)
    unlock_page(k, head)
    put_page(k, head)
    assert not PageDoubleMap(k, head)
    assert (compound_mapcount(k, head), page_mapcount(k, head + 3)) == (1, 2)
    assert total_mapcount(k, head) == HUGE + 1
    # Both the PMD and the first PTE of each part have counted the pages as mapped.
    assert (k.vm_stat[NR_ANON_THPS], k.vm_stat[NR_ANON_MAPPED]) == (1, 2 * HUGE)


@pytest.mark.parametrize("repaired", [False, True])
def test_a_pmd_of_shared_memory_that_waits_is_dropped_when_it_is_split(repaired: bool) -> None:
    s = Shmem(split_spares_migrating=repaired)
    k, a = s.k, s.shared()
    s.p.write(a, b"x")
    head = s.head()
    rss = list(s.p.mm.rss_stat)
    with somebody_else():
        get_page(k, head)
        lock_page(k, head)
        assert try_to_unmap(k, head, MIGRATE)
    (vma,) = s.p.vmas
    pmd = pmd_offset(k, s.p.mm, a)
    assert is_pmd_migration_entry(k.pt[pmd])
    if not repaired:
        with pytest.raises(KernelBug, match="not a PMD that maps a page"):
            split_huge_pmd(k, vma, pmd, a)
        with somebody_else():
            crashed()
        return crashed()
    split_huge_pmd(k, vma, pmd, a)
    assert (k.pt[pmd], sum(rss) - sum(s.p.mm.rss_stat)) == (0, HUGE)
    with somebody_else():
        unlock_page(k, head)
        put_page(k, head)
    assert s.p.read(a, 1) == b"x"
    return s.sound()


def test_a_pmd_of_shared_memory_is_dropped_when_it_is_split() -> None:
    """What it knew goes to the page, and a fault finds that again."""
    s = Shmem()
    k, a = s.k, s.shared()
    s.p.write(a, b"x")
    head = s.head()
    k.pg_flags[head] &= ~(PG_dirty | PG_referenced)
    (vma,) = s.p.vmas
    split_huge_pmd(k, vma, pmd_offset(k, s.p.mm, a), a)
    assert k.pt[pmd_offset(k, s.p.mm, a)] == 0
    assert k.pg_flags[head] & (PG_dirty | PG_referenced) == PG_dirty | PG_referenced
    assert (page_mapcount(k, head), s.stat("nr_file_mapped")) == (0, 0)
    assert s.p.read(a, 1) == b"x"
    s.sound()


def test_the_architecture_may_refuse_one_part(k: Kernel) -> None:
    space = huge_space(k)
    store(space, 9, b"ninth")
    head = head_at(space)
    split_huge_pmd(k, space.vma(0), slot(space), space.at(0))
    get_page(k, head)
    lock_page(k, head)
    k.inject = Failing(4, "arch_unmap_one", once=True)
    # Only the head's count is looked at for the result, which is a defect of this version.
    assert try_to_unmap(k, head, MIGRATE)
    k.inject = None
    assert total_mapcount(k, head) == HUGE - 3
    assert frame(space, 3) == head + 3
    remove_migration_ptes(k, head, head, False)
    unlock_page(k, head)
    put_page(k, head)
    assert total_mapcount(k, head) == HUGE
    check_all(k, space)


def test_a_pmd_that_maps_a_small_page_is_a_bug(k: Kernel) -> None:
    space = huge_space(k)
    k.thp_enabled = 0
    space.write(0)
    page = space.pfn(0)
    get_page(k, page)
    lock_page(k, page)
    set_pte_at(k, space.mm, space.at(0), slot(space), pfn_pte(page, 1 | _PAGE_PSE))
    with pytest.raises(KernelBug, match=r"rmap.c:1376"):
        try_to_unmap(k, page, MIGRATE)
    crashed()


@pytest.mark.parametrize("pinned", [False, True])
def test_since_5_19_a_pinned_huge_page_is_not_taken_away(pinned: bool) -> None:
    k = huge_kernel(name="6.1")
    space = huge_space(k)
    store(space, 9, b"ninth")
    head = head_at(space)
    get_page(k, head)
    if pinned:
        k.pg_private[head + 2] = 1
    lock_page(k, head)
    assert bool(try_to_unmap(k, head, MIGRATE)) is not pinned
    assert bool(k.pg_flags[head] & PG_anon_exclusive) is pinned
    remove_migration_ptes(k, head, head, False)
    unlock_page(k, head)
    k.pg_private[head + 2] = 0
    put_page(k, head)
    assert (head_at(space), k.pg_flags[head] & PG_anon_exclusive) == (head, PG_anon_exclusive)
    check_all(k, space)


# ---------------------------------------------------------------- whom a huge page names


def test_a_copied_huge_page_names_the_vma_that_wrote_it(k: Kernel) -> None:
    parent, child, head = family(k)
    store(child, 3, b"own")
    new = head_at(child)
    assert page_anon_vma(k, new) is child.vma(0).anon_vma
    assert page_anon_vma(k, head) is parent.vma(0).anon_vma
    assert k.pg_index[new] == child.at(0) >> 12
    check_all(k, parent, child)


def test_parts_unmapped_in_the_child_are_not_queued_while_the_parent_maps_them(k: Kernel) -> None:
    parent, child, head = family(k)
    assert child.madvise(0, 8, MADV_DONTNEED) == 0
    assert len(k.deferred_split_queue) == 0
    assert counts(k) == (1, HUGE)
    assert parent.munmap(0, HUGE) == 0
    assert list(k.deferred_split_queue) == [head]
    assert counts(k) == (0, HUGE - 8)
    check_all(k, parent, child)


def test_settings_of_a_machine_are_words() -> None:
    m = Hugely().m
    assert (m.thp.enabled, m.thp.defrag, m.thp.shmem_enabled) == ("madvise", "madvise", "never")
    m.thp.enabled = "always"
    m.thp.defrag = "defer+madvise"
    m.thp.shmem_enabled = "within_size"
    m.thp.use_zero_page = False
    assert (m.thp.enabled, m.thp.defrag, m.thp.shmem_enabled, m.thp.use_zero_page) == (
        "always",
        "defer+madvise",
        "within_size",
        False,
    )
    assert str(m.thp) == "<transparent huge pages: always, defrag defer+madvise>"
    with pytest.raises(ValueError, match="enabled is one of always, madvise, never, not 'huge'"):
        m.thp.enabled = "huge"

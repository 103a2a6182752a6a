# SPDX-License-Identifier: GPL-2.0-only
"""Who used a page lately: counted by VMA, forgotten by asking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from handmade import (
    CLEAN,
    USED,
    YOUNG,
    address_of,
    at,
    cache,
    crashed,
    family,
    fork,
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
from hypothesis import given
from hypothesis import strategies as st
from kernels import RW, make_mm, map_pages

from rmap.mm.bits import (
    _PAGE_PROTNONE,
    HPAGE_PMD_NR,
    NR_MLOCK,
    NR_VM_STATS,
    PAGE_MAPPING_KSM,
    PAGE_SIZE,
    RMAP_VMAS_VISITED,
    RMAP_WALKS,
    VM_LOCKED,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WRITE,
    PG_idle,
    PG_young,
)
from rmap.mm.memcg import mem_cgroup_create
from rmap.mm.mm_types import Kernel, Mm, Task, Vma
from rmap.mm.mmu_notifier import MmuNotifier, mmu_notifier_register
from rmap.mm.page import PageLocked, PageMlocked, lock_page, page_mapcount, unlock_page
from rmap.mm.page_referenced import (
    PageReferencedArg,
    page_referenced,
    page_referenced_one,
    page_referenced_range,
)
from rmap.mm.pgtable import pfn_pte, pmd_offset, pte_young, swp_entry, swp_entry_to_pte
from rmap.mm.rmap_counts import page_remove_rmap
from rmap.mm.tlb import switch_mm, tlb_entries, tlb_fill
from rmap.sync.core import Deadlock, scheduler


def referenced(k: Kernel, page: int, **options: object) -> tuple[int, int]:
    """page_referenced() without the page lock: its result, and the flags of who used the page."""
    pra = PageReferencedArg()
    memcg = options.get("memcg")
    count = page_referenced(k, page, bool(options.get("is_locked")), memcg, pra)
    return count, pra.vm_flags


@pytest.mark.parametrize("children", [0, 1, 9])
def test_every_process_that_used_the_page_counts_once(children: int) -> None:
    k = world()
    page, vmas = family(k, children)
    assert referenced(k, page)[0] == children + 1
    assert not any(pte_young(pte_of(k, vma)) for vma in vmas)
    assert referenced(k, page) == (0, 0)
    poke(k, vmas[-1], pte_of(k, vmas[-1]) | YOUNG)
    assert referenced(k, page) == (1, vmas[-1].vm_flags)


def test_nothing_is_asked_of_pages_that_nothing_maps_or_that_name_nothing() -> None:
    k = world()
    page, _ = family(k, 0)
    page_remove_rmap(k, page, False)
    assert referenced(k, page) == (0, 0)
    k.pg_mapcount[page] = 0
    k.pg_mapping[page] = PAGE_MAPPING_KSM
    assert referenced(k, page) == (0, 0), "a KSM page whose node is not there yet"
    assert k.vm_stat[RMAP_WALKS] == 0


def test_the_walk_ends_when_all_mappings_have_been_seen() -> None:
    k = world()
    parent = process(k)
    page = touch(k, parent)
    # Three more VMAs in the tree do not map the page.
    for name in "abc":
        child = fork(k, parent, name)
        poke(k, child, 0)
        page_remove_rmap(k, page, False)
    assert page_mapcount(k, page) == 1
    before = k.vm_stat[RMAP_VMAS_VISITED]
    assert referenced(k, page)[0] == 1
    assert k.vm_stat[RMAP_VMAS_VISITED] - before == 1


def test_a_mapping_that_is_locked_in_memory_ends_the_walk() -> None:
    """The flag alone says so; what was counted before it stays, what comes behind is not looked at.

    (mm/rmap.c:767.) Reclaim takes that as: try to unmap it, which then marks the page mlocked.
    """
    k = world()
    page, vmas = family(k, 3)
    vmas[1].vm_flags |= VM_LOCKED
    count, vm_flags = referenced(k, page)
    assert count == 1
    assert vm_flags == RW | VM_LOCKED
    assert [bool(pte_young(pte_of(k, vma))) for vma in vmas] == [False, True, True, True]


@pytest.mark.parametrize("counted", [False, True])
def test_aging_counts_an_mlock_that_was_missed_where_mlocks_are_counted(counted: bool) -> None:
    k = world(mlock_counts=counted)
    page, vmas = family(k, 1)
    vmas[1].vm_flags |= VM_LOCKED
    assert referenced(k, page)[1] & VM_LOCKED
    assert (PageMlocked(k, page), k.vm_stat[NR_MLOCK]) == (counted, int(counted))


def test_sequential_readers_do_not_count_but_are_forgotten_as_well() -> None:
    k = world()
    page, vmas = family(k, 2)
    vmas[0].vm_flags |= VM_SEQ_READ
    vmas[2].vm_flags |= VM_SEQ_READ
    assert referenced(k, page) == (1, RW)
    assert not any(pte_young(pte_of(k, vma)) for vma in vmas)


def test_reclaim_for_a_memcg_looks_only_at_its_own_processes() -> None:
    k = world()
    page, vmas = family(k, 4)
    outer = mem_cgroup_create(k, "outer", k.memcgs[0], -1)
    inner = mem_cgroup_create(k, "inner", outer, -1)
    other = mem_cgroup_create(k, "other", k.memcgs[0], -1)
    for vma, memcg in zip(vmas[1:], (outer, inner, other, inner), strict=True):
        vma.vm_mm.memcg = memcg
    assert referenced(k, page, memcg=outer)[0] == 3
    assert [bool(pte_young(pte_of(k, vma))) for vma in vmas] == [True, False, False, True, False]
    assert referenced(k, page, memcg=inner)[0] == 0
    assert referenced(k, page)[0] == 2


def test_an_object_that_served_one_call_serves_the_next() -> None:
    k = world()
    page, vmas = family(k, 1)
    memcg = mem_cgroup_create(k, "m", k.memcgs[0], -1)
    vmas[1].vm_mm.memcg = memcg
    pra = PageReferencedArg()
    assert page_referenced(k, page, False, memcg, pra) == 1
    assert page_referenced(k, page, False, None, pra) == 1
    assert (pra.mapcount, pra.vm_flags) == (0, RW)
    assert page_referenced(k, page, False, None, pra) == 0
    assert pra.vm_flags == 0


# ---------------------------------------------------------------- idle tracking


def test_a_reference_ends_idleness() -> None:
    k = world()
    page, _ = family(k, 0)
    k.pg_flags[page] |= PG_idle
    assert referenced(k, page)[0] == 1
    assert not k.pg_flags[page] & PG_idle
    k.pg_flags[page] |= PG_idle
    assert referenced(k, page)[0] == 0
    assert k.pg_flags[page] & PG_idle


def test_the_bit_that_idle_tracking_took_counts_once() -> None:
    k = world()
    page, vmas = family(k, 1)
    referenced(k, page)
    k.pg_flags[page] |= PG_young
    assert referenced(k, page) == (1, vmas[0].vm_flags)
    assert not k.pg_flags[page] & PG_young
    assert referenced(k, page)[0] == 0


# ---------------------------------------------------------------- files


def test_a_page_of_a_file_is_locked_for_the_time_or_taken_for_used() -> None:
    k = world()
    file = make_file(k)
    page = cache(k, file, 2)
    for name in "pq":
        map_cached(k, page, map_file(k, file, name), CLEAN | YOUNG)
    map_cached(k, page, map_file(k, file, "r"), CLEAN)

    lock_page(k, page)
    assert referenced(k, page) == (1, 0), "somebody has it: no walk"
    assert k.vm_stat[RMAP_WALKS] == 0
    assert referenced(k, page, is_locked=True) == (2, RW | VM_SHARED)
    assert PageLocked(k, page)
    unlock_page(k, page)
    assert referenced(k, page) == (0, 0)
    assert k.vm_stat[RMAP_WALKS] == 2
    assert not PageLocked(k, page)


def test_flags_of_all_who_used_the_page_are_gathered() -> None:
    k = world()
    file = make_file(k)
    page = cache(k, file, 0)
    for name, flags in (("p", VM_READ), ("q", VM_READ | VM_SHARED), ("r", VM_WRITE)):
        bits = CLEAN if name == "r" else CLEAN | YOUNG
        map_cached(k, page, map_file(k, file, name, flags=flags), bits)
    assert referenced(k, page) == (2, VM_READ | VM_SHARED)


# ---------------------------------------------------------------- other processors


def test_cpus_set_the_bit_again_since_their_translation_is_gone() -> None:
    k = world()
    page, vmas = family(k, 0)
    mm = vmas[0].vm_mm
    switch_mm(k, Task("t", 9, None, 1), mm)
    tlb_fill(k, 1, mm, vmas[0].vm_start, pte_of(k, vmas[0]))
    assert referenced(k, page)[0] == 1
    assert tlb_entries(k) == []


class Guest(MmuNotifier):
    """A guest that uses everything."""

    def clear_flush_young(self, k: Kernel, mm: Mm, start: int, end: int) -> bool:
        return True


def test_what_a_guest_uses_is_used() -> None:
    k = world()
    page, vmas = family(k, 0)
    k.notifier_log = []
    mmu_notifier_register(k, vmas[0].vm_mm, Guest())
    assert [referenced(k, page)[0] for _ in range(3)] == [1, 1, 1]
    a = vmas[0].vm_start
    assert k.notifier_log[0] == ("clear_flush_young", vmas[0].vm_mm.ident, a, a + PAGE_SIZE)
    assert len(k.notifier_log) == 3


def test_it_is_traced() -> None:
    k = world()
    page, vmas = family(k, 0)
    traced: list[tuple[str, tuple[object, ...]]] = []
    k.tracer = lambda name, arguments: traced.append((name, arguments))
    referenced(k, page)
    assert traced[-1] == ("page_referenced_one", (page, vmas[0], vmas[0].vm_start, 1))


# ---------------------------------------------------------------- huge pages


def test_a_huge_page_is_aged_by_its_pmd_or_counts_once_for_many_ptes() -> None:
    k = world(4096)
    vma = map_pages(k, make_mm(k), HPAGE_PMD_NR, HPAGE_PMD_NR, RW | VM_SEQ_READ)
    head = touch_huge(k, vma)
    # The exception for sequential reads is not made for PMDs.
    assert referenced(k, head) == (1, RW | VM_SEQ_READ)
    assert referenced(k, head) == (0, 0)

    vma.vm_flags = RW
    k.pt[pmd_offset(k, vma.vm_mm, vma.vm_start)] = 0
    k.pg_lru_prev[head + 1] = 0
    for i in range(HPAGE_PMD_NR):
        poke(k, vma, pfn_pte(head + i, USED), i)
        k.pg_mapcount[head + i] = 0
    assert referenced(k, head) == (1, RW)
    assert not any(pte_young(pte_of(k, vma, i)) for i in range(HPAGE_PMD_NR))


def test_one_vma_can_be_asked_alone() -> None:
    k = world()
    page, vmas = family(k, 1)
    pra = PageReferencedArg()
    pra.mapcount = 2
    assert page_referenced_one(k, page, vmas[0], address_of(vmas[0], 0), pra)
    assert (pra.mapcount, pra.referenced) == (1, 1)
    assert not page_referenced_one(k, page, vmas[1], address_of(vmas[1], 0), pra)
    assert (pra.mapcount, pra.referenced) == (0, 2)


# ---------------------------------------------------------------- many pages


def test_many_pages_are_asked_in_one_call() -> None:
    k = world()
    vma = process(k, 8)
    pages = [touch(k, vma, i) for i in range(8)]
    free = 200
    for i in (1, 3):
        poke(k, vma, pfn_pte(pages[i], CLEAN), i)
    asked = np.array([*pages, free], dtype=np.uint64)
    assert page_referenced_range(k, asked) == 6
    assert page_referenced_range(k, asked) == 0
    poke(k, vma, pfn_pte(pages[1], CLEAN | YOUNG), 1)
    memcg = mem_cgroup_create(k, "m", k.memcgs[0], -1)
    assert page_referenced_range(k, asked, memcg) == 0
    assert page_referenced_range(k, asked[:2], None) == 1
    asked.flags.writeable = False
    assert page_referenced_range(k, asked[:0]) == 0


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6))
def test_the_sum_over_pages_is_what_the_entries_say(young: list[list[bool]]) -> None:
    """Three processes share some pages, and used them or not."""
    k = world()
    parent = process(k, 6)
    pages = [touch(k, parent, i) for i in range(len(young))]
    vmas = [parent, fork(k, parent, "a"), fork(k, parent, "b")]
    for i, used in enumerate(young):
        for vma, bit in zip(vmas, used, strict=True):
            poke(k, vma, pfn_pte(pages[i], CLEAN | (YOUNG if bit else 0)), i)
    expected = sum(sum(used) for used in young)
    assert page_referenced_range(k, np.array(pages, dtype=np.uint64)) == expected
    assert page_referenced_range(k, np.array(pages, dtype=np.uint64)) == 0


#: What a mapping can be like, as far as aging cares; most are quite ordinary.
SHAPES = ("young", "old", "young", "gone", "swapped", "other", "prot none")


@dataclass(frozen=True)
class Shape:
    """A world to age: for each process its VMA's flags, and what each page's mapping is like."""

    vmas: tuple[int, ...]
    mappings: tuple[tuple[str, ...], ...]
    idle: int
    ksm: int
    guest: int
    keeps_tlb: bool


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    processes = draw(st.integers(1, 4))
    pages = draw(st.integers(1, 4))
    flags = st.sampled_from((RW, RW, RW, RW | VM_LOCKED, RW | VM_SEQ_READ))
    mappings = st.tuples(*[st.sampled_from(SHAPES)] * pages)
    return Shape(
        tuple(draw(flags) for _ in range(processes)),
        tuple(draw(mappings) for _ in range(processes)),
        draw(st.integers(-2, pages - 1)),
        draw(st.integers(-4, pages - 1)),
        draw(st.integers(-2, processes - 1)),
        draw(st.booleans()),
    )


def build(shape: Shape) -> tuple[Kernel, list[Vma], list[int]]:
    """A world of that shape, always the same: its VMAs and pages."""
    k = world(clear_young_keeps_tlb=shape.keeps_tlb)
    count = len(shape.mappings[0])
    parent = process(k, 4)
    pages = [touch(k, parent, i, CLEAN) for i in range(count)]
    vmas = [parent, *(fork(k, parent, f"c{i}") for i in range(len(shape.vmas) - 1))]
    for cpu, vma in enumerate(vmas[:2]):
        switch_mm(k, Task("t", 9, None, cpu), vma.vm_mm)
    for vma, flags, mappings in zip(vmas, shape.vmas, shape.mappings, strict=True):
        vma.vm_flags = flags
        for i, kind in enumerate(mappings):
            entry = {
                "young": pfn_pte(pages[i], CLEAN | YOUNG),
                "old": pfn_pte(pages[i], CLEAN),
                "swapped": swp_entry_to_pte(swp_entry(0, 7)),
                "other": pfn_pte(pages[i - 1], CLEAN | YOUNG),
                "prot none": pfn_pte(pages[i], _PAGE_PROTNONE | YOUNG),
            }.get(kind, 0)
            poke(k, vma, entry, i)
    if shape.idle >= 0:
        k.pg_flags[pages[shape.idle]] |= PG_idle | PG_young
    if shape.ksm >= 0:
        k.pg_mapping[pages[shape.ksm]] = PAGE_MAPPING_KSM
    if shape.guest >= 0:
        mmu_notifier_register(k, vmas[shape.guest].vm_mm, Guest())
    return k, vmas, pages


@given(shapes(), st.booleans())
def test_the_short_way_over_many_pages_comes_to_what_the_calls_come_to(
    shape: Shape, for_memcg: bool
) -> None:
    """Nobody looks on: one loop. Locks are checked, or calls traced: page_referenced() itself."""
    results = []
    for checking in (True, False):
        k, vmas, pages = build(shape)
        asked = np.array(pages, dtype=np.uint64)
        memcg = k.memcgs[0] if for_memcg else None
        scheduler().checking = checking
        try:
            sums = [page_referenced_range(k, asked, memcg) for _ in range(2)]
        finally:
            scheduler().checking = True
        tables = [pte_of(k, vma, i) for vma in vmas for i in range(4)]
        flushes = [vma.vm_mm.tlb_gen for vma in vmas]
        statistics = [int(k.vm_stat[item]) for item in range(NR_VM_STATS)]
        flags = [k.pg_flags[page] for page in pages]
        locks = [vma.anon_vma.rwsem.count for vma in vmas]
        results.append((sums, tables, flushes, statistics, flags, locks))
    assert results[0] == results[1]


def test_the_short_way_waits_for_no_lock() -> None:
    """Another CPU has the lock that the calls would wait for: they say so."""
    k = world()
    page, vmas = family(k, 1)
    asked = np.array([page], dtype=np.uint64)
    scheduler().checking = False
    try:
        k.pt_locked[at(k, vmas[1]) // 512] = 1
        with pytest.raises(Deadlock, match="pte_lock"):
            page_referenced_range(k, asked)
        k.pt_locked[at(k, vmas[1]) // 512] = 0
        root = vmas[0].anon_vma.rwsem
        assert root.count == 1, "held by the one who waits for ever"
        root.count = -1
        with pytest.raises(Deadlock, match="anon_vma->rwsem"):
            page_referenced_range(k, asked)
        root.count = 0
        k.pg_mapcount[page] = -1
        assert page_referenced_range(k, asked) == 0
    finally:
        scheduler().checking = True
        crashed()

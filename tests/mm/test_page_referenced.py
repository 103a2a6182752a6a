# SPDX-License-Identifier: GPL-2.0-only
"""Who used a page lately: counted by VMA, forgotten by asking."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import (
    CLEAN,
    USED,
    YOUNG,
    address_of,
    cache,
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
    HPAGE_PMD_NR,
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
from rmap.mm.mm_types import Kernel, Mm, Task
from rmap.mm.mmu_notifier import MmuNotifier, mmu_notifier_register
from rmap.mm.page import PageLocked, lock_page, page_mapcount, unlock_page
from rmap.mm.page_referenced import (
    PageReferencedArg,
    page_referenced,
    page_referenced_one,
    page_referenced_range,
)
from rmap.mm.pgtable import pfn_pte, pmd_offset, pte_young
from rmap.mm.rmap_counts import page_remove_rmap
from rmap.mm.tlb import switch_mm, tlb_entries, tlb_fill


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

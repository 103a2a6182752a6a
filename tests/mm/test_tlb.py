# SPDX-License-Identifier: GPL-2.0-only
"""CPUs hold translations until they are flushed: which flush reaches which of them."""

from __future__ import annotations

import pytest
from handmade import BASE, CLEAN, DIRTY, WRITE, YOUNG, at, process, touch, world
from kernels import make_kernel, make_mm, map_pages

from rmap.mm.bits import (
    _PAGE_PROTNONE,
    PAGE_SIZE,
    TLB_FLUSH_LOCAL,
    TLB_FLUSH_REMOTE,
    TTU_BATCH_FLUSH,
)
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import Kernel, Mm, Task
from rmap.mm.pgtable import pfn_pte, pte_lock, pte_unlock
from rmap.mm.tlb import (
    Tlb,
    current_task,
    dec_tlb_flush_pending,
    flush_tlb_batched_pending,
    flush_tlb_mm,
    flush_tlb_page,
    flush_tlb_range,
    inc_tlb_flush_pending,
    leave_mm,
    make_cpus,
    pmdp_clear_flush_young,
    pmdp_huge_clear_flush,
    pmdp_invalidate,
    ptep_clear_flush,
    ptep_clear_flush_young,
    ptep_test_and_clear_young,
    set_tlb_ubc_flush_pending,
    should_defer_flush,
    switch_mm,
    tlb_entries,
    tlb_fill,
    tlb_lookup,
    try_to_unmap_flush,
    try_to_unmap_flush_dirty,
)
from rmap.sync.core import Context, scheduler

A = BASE * PAGE_SIZE
B = A + PAGE_SIZE


def run_on(k: Kernel, cpu: int, mm: Mm) -> Task:
    """Let a CPU run a thread of an address space."""
    task = Task(f"cpu{cpu}", cpu + 10, None, cpu)
    switch_mm(k, task, mm)
    return task


def test_a_translation_is_found_until_it_is_flushed() -> None:
    k = world()
    mm = make_mm(k)
    run_on(k, 1, mm)
    assert tlb_lookup(k, 1, mm, A) == 0
    tlb_fill(k, 1, mm, A, 0x1025)
    tlb_fill(k, 1, mm, B, 0x2025)
    assert tlb_lookup(k, 1, mm, A + 123) == 0x1025
    assert sorted(tlb_entries(k)) == [(1, mm, A, 0x1025), (1, mm, B, 0x2025)]

    flush_tlb_page(k, map_pages(k, mm, BASE, 4), A)
    assert tlb_lookup(k, 1, mm, A) == 0
    assert tlb_lookup(k, 1, mm, B) == 0x2025
    flush_tlb_mm(k, mm)
    assert tlb_entries(k) == []


def test_only_cpus_that_run_the_address_space_are_interrupted() -> None:
    k = world(cpus=4)
    p, q = make_mm(k, "p"), make_mm(k, "q")
    run_on(k, 0, p)
    run_on(k, 2, p)
    run_on(k, 3, q)
    assert p.cpu_bitmap == 0b0101
    for cpu, mm in ((0, p), (2, p), (3, q)):
        tlb_fill(k, cpu, mm, A, 0x1025)
    flush_tlb_mm(k, p)
    assert (k.vm_stat[TLB_FLUSH_LOCAL], k.vm_stat[TLB_FLUSH_REMOTE]) == (1, 1)
    assert tlb_entries(k) == [(3, q, A, 0x1025)]


def test_an_address_space_that_is_switched_away_catches_up_when_it_comes_back() -> None:
    k = world()
    p, q = make_mm(k, "p"), make_mm(k, "q")
    task = run_on(k, 0, p)
    tlb_fill(k, 0, p, A, 0x1025)
    switch_mm(k, task, q)
    assert (p.cpu_bitmap, q.cpu_bitmap) == (0, 1)

    # Nothing changed meanwhile: the entry is still there.
    switch_mm(k, task, p)
    assert tlb_lookup(k, 0, p, A) == 0x1025

    switch_mm(k, task, q)
    assert tlb_entries(k) == [(0, p, A, 0x1025)]
    flush_tlb_page(k, map_pages(k, p, BASE, 4), B)
    assert k.vm_stat[TLB_FLUSH_LOCAL] + k.vm_stat[TLB_FLUSH_REMOTE] == 0
    assert tlb_entries(k) == []
    switch_mm(k, task, p)
    assert tlb_lookup(k, 0, p, A) == 0


def test_a_cpu_keeps_six_address_spaces_apart_and_forgets_the_oldest() -> None:
    k = world()
    mms = [make_mm(k, f"p{i}") for i in range(7)]
    task = Task("t", 1, None, 0)
    for page, mm in enumerate(mms[:6]):
        switch_mm(k, task, mm)
        tlb_fill(k, 0, mm, A + page * PAGE_SIZE, 0x1025)
    switch_mm(k, task, mms[0])
    assert tlb_lookup(k, 0, mms[0], A) == 0x1025
    # Another one's entry for the same address is not taken for this one's.
    assert tlb_lookup(k, 0, mms[0], B) == 0
    switch_mm(k, task, mms[6])
    switch_mm(k, task, mms[0])
    assert tlb_lookup(k, 0, mms[0], A) == 0


def test_a_cache_is_bounded_and_a_newer_entry_displaces_an_older_one() -> None:
    k = make_kernel()
    make_cpus(k, 1, 4)
    mm = make_mm(k)
    run_on(k, 0, mm)
    for page in range(8):
        tlb_fill(k, 0, mm, A + page * PAGE_SIZE, 0x1025)
    assert [address for _, _, address, _ in tlb_entries(k)] == [
        A + page * PAGE_SIZE for page in (4, 5, 6, 7)
    ]
    # A flush of what is not there leaves the one in its place alone.
    flush_tlb_page(k, map_pages(k, mm, BASE, 8), A)
    assert len(tlb_entries(k)) == 4


@pytest.mark.parametrize("entries", [0, 3, -4])
def test_a_cache_has_a_power_of_two_of_entries(entries: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Tlb(0, entries)


@pytest.mark.parametrize("count", [0, 65])
def test_a_mask_has_room_for_64_cpus(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 64 CPUs"):
        make_cpus(make_kernel(), count)


def test_a_small_range_is_flushed_page_by_page_and_a_large_one_at_once() -> None:
    k = world()
    mm = make_mm(k)
    run_on(k, 0, mm)
    for page in range(64):
        tlb_fill(k, 0, mm, A + page * PAGE_SIZE, 0x1025)
    flush_tlb_range(k, mm, A, A + 33 * PAGE_SIZE)
    assert len(tlb_entries(k)) == 64 - 33
    flush_tlb_range(k, mm, A, A + 34 * PAGE_SIZE)
    assert tlb_entries(k) == []


def test_a_cpu_that_missed_a_flush_drops_everything_at_the_next() -> None:
    k = world()
    mm = make_mm(k)
    run_on(k, 1, mm)
    tlb_fill(k, 1, mm, A, 0x1025)
    # Deferred: counted, but not sent yet.
    set_tlb_ubc_flush_pending(k, mm, False)
    assert tlb_lookup(k, 1, mm, A) == 0x1025
    flush_tlb_page(k, map_pages(k, mm, BASE, 4), B)
    assert tlb_lookup(k, 1, mm, A) == 0


def test_a_cpu_may_not_use_an_address_space_that_it_was_not_given() -> None:
    k = world()
    mm = make_mm(k)
    with pytest.raises(KernelBug, match="switch_mm"):
        tlb_lookup(k, 0, mm, A)
    task = run_on(k, 0, mm)
    switch_mm(k, task, None)
    assert mm.cpu_bitmap == 1, "a kernel thread leaves it loaded"
    leave_mm(k, 0)
    leave_mm(k, 0)
    assert mm.cpu_bitmap == 0
    with pytest.raises(KernelBug, match="switch_mm"):
        tlb_fill(k, 0, mm, A, 0x1025)


def test_a_bare_context_becomes_a_task_that_holds_what_it_held() -> None:
    k = world()
    sched = scheduler()
    sched.current = Context("boot")
    sched.current.held.append((1, 2, 3))
    task = current_task(k)
    assert (task.name, task.pid, task.mm, task.held) == ("boot", 0, None, [(1, 2, 3)])
    assert current_task(k) is task is sched.current
    task.held.clear()


# ---------------------------------------------------------------- entries and their flushes


def test_clearing_an_entry_flushes_what_could_be_remembered() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    run_on(k, 1, vma.vm_mm)
    tlb_fill(k, 1, vma.vm_mm, A, pfn_pte(page, CLEAN))
    ptep = at(k, vma)
    pte_lock(k, ptep)
    assert ptep_clear_flush(k, vma, A, ptep) == pfn_pte(page, CLEAN | YOUNG | DIRTY | WRITE)
    assert k.pt[ptep] == 0
    assert tlb_entries(k) == []

    # PROT_NONE: only while the flush for that is still to come.
    gen = vma.vm_mm.tlb_gen
    k.pt[ptep] = pfn_pte(page, _PAGE_PROTNONE)
    ptep_clear_flush(k, vma, A, ptep)
    assert vma.vm_mm.tlb_gen == gen
    inc_tlb_flush_pending(k, vma.vm_mm)
    k.pt[ptep] = pfn_pte(page, _PAGE_PROTNONE)
    ptep_clear_flush(k, vma, A, ptep)
    assert vma.vm_mm.tlb_gen == gen + 1
    dec_tlb_flush_pending(k, vma.vm_mm)
    assert vma.vm_mm.tlb_flush_pending == 0
    pte_unlock(k, ptep)


@pytest.mark.parametrize("keeps", [False, True])
def test_aging_an_entry_makes_cpus_walk_the_table_again_but_not_on_x86(keeps: bool) -> None:
    k = world(clear_young_keeps_tlb=keeps)
    vma = process(k)
    page = touch(k, vma)
    run_on(k, 0, vma.vm_mm)
    ptep = at(k, vma)
    tlb_fill(k, 0, vma.vm_mm, A, k.pt[ptep])
    assert ptep_clear_flush_young(k, vma, A, ptep)
    assert k.pt[ptep] == pfn_pte(page, CLEAN | DIRTY | WRITE)
    assert bool(tlb_lookup(k, 0, vma.vm_mm, A)) == keeps
    gen = vma.vm_mm.tlb_gen
    assert not ptep_clear_flush_young(k, vma, A, ptep)
    assert not ptep_test_and_clear_young(k, vma, A, ptep)
    assert vma.vm_mm.tlb_gen == gen, "an old entry costs no flush"


def test_the_pmd_of_a_huge_page_is_flushed_with_its_whole_range() -> None:
    k = world()
    start = 0x4000_0000
    mm = make_mm(k)
    vma = map_pages(k, mm, start // PAGE_SIZE, 512)
    run_on(k, 0, mm)
    pmd = at(k, vma)
    bits = CLEAN | YOUNG

    def fill() -> None:
        k.pt[pmd] = pfn_pte(512, bits)
        tlb_fill(k, 0, mm, start + 7 * PAGE_SIZE, k.pt[pmd])

    fill()
    assert pmdp_clear_flush_young(k, vma, start, pmd)
    assert tlb_entries(k) == []
    assert not pmdp_clear_flush_young(k, vma, start, pmd)
    fill()
    assert pmdp_huge_clear_flush(k, vma, start + PAGE_SIZE, pmd) == pfn_pte(512, bits)
    assert (k.pt[pmd], tlb_entries(k)) == (0, [])
    fill()
    assert pmdp_invalidate(k, vma, start, pmd) == pfn_pte(512, bits)
    assert (k.pt[pmd], tlb_entries(k)) == (pfn_pte(512, bits & ~1), [])
    with pytest.raises(KernelBug, match="first address"):
        pmdp_clear_flush_young(k, vma, start + PAGE_SIZE, pmd)


# ---------------------------------------------------------------- batches (L581-672)


def test_a_flush_is_deferred_only_if_it_would_interrupt_another_cpu() -> None:
    k = world()
    mm = make_mm(k)
    assert not should_defer_flush(k, mm, TTU_BATCH_FLUSH)
    run_on(k, 0, mm)  # where the test itself runs
    assert not should_defer_flush(k, mm, TTU_BATCH_FLUSH)
    run_on(k, 1, mm)
    assert should_defer_flush(k, mm, TTU_BATCH_FLUSH)
    assert not should_defer_flush(k, mm, 0)


def test_a_batch_is_flushed_once_for_many_address_spaces() -> None:
    k = world(cpus=4)
    p, q = make_mm(k, "p"), make_mm(k, "q")
    run_on(k, 1, p)
    run_on(k, 2, q)
    for cpu, mm in ((1, p), (2, q)):
        tlb_fill(k, cpu, mm, A, 0x1025)
        set_tlb_ubc_flush_pending(k, mm, False)
        set_tlb_ubc_flush_pending(k, mm, False)
    batch = current_task(k).tlb_ubc
    assert (batch.cpumask, batch.flush_required, batch.writable) == (0b0110, True, False)
    assert p.tlb_flush_batched
    assert len(tlb_entries(k)) == 2

    try_to_unmap_flush_dirty(k)
    assert len(tlb_entries(k)) == 2, "nothing was dirty, so no IO can be overtaken"
    try_to_unmap_flush(k)
    assert tlb_entries(k) == []
    assert (batch.cpumask, batch.flush_required) == (0, False)
    assert k.vm_stat[TLB_FLUSH_REMOTE] == 2
    try_to_unmap_flush(k)
    assert k.vm_stat[TLB_FLUSH_REMOTE] == 2, "nothing is owed any more"


def test_a_batch_with_a_dirty_entry_is_flushed_before_io() -> None:
    k = world()
    mm = make_mm(k)
    run_on(k, 0, mm)
    run_on(k, 1, mm)
    tlb_fill(k, 1, mm, A, 0x1067)
    set_tlb_ubc_flush_pending(k, mm, True)
    try_to_unmap_flush_dirty(k)
    assert tlb_entries(k) == []
    assert not current_task(k).tlb_ubc.writable
    assert (k.vm_stat[TLB_FLUSH_LOCAL], k.vm_stat[TLB_FLUSH_REMOTE]) == (1, 1)


@pytest.mark.parametrize("protected", [True, False])
def test_whoever_relies_on_an_empty_entry_flushes_what_reclaim_left(protected: bool) -> None:
    """3ea277194daa: without it mprotect leaves a writable translation behind (v4.3 to v4.12)."""
    k = world(flush_batched_pending=protected)
    mm = make_mm(k)
    run_on(k, 1, mm)
    tlb_fill(k, 1, mm, A, 0x1067)
    set_tlb_ubc_flush_pending(k, mm, True)
    flush_tlb_batched_pending(k, mm)
    assert bool(tlb_lookup(k, 1, mm, A)) != protected
    assert mm.tlb_flush_batched != protected
    gen = mm.tlb_gen
    flush_tlb_batched_pending(k, mm)
    assert mm.tlb_gen == gen

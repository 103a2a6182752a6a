# SPDX-License-Identifier: GPL-2.0-only
"""Taking pages out of page tables: what refuses, what is left, who is told."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from handmade import (
    CLEAN,
    DIRTY,
    USED,
    WRITE,
    YOUNG,
    address_of,
    cache,
    family,
    make_file,
    map_cached,
    map_file,
    poke,
    process,
    pte_of,
    remap,
    touch,
    world,
)
from interruptions import interrupted
from kernels import RW, Failing
from unmapping import (
    check_mlocked,
    in_swap_cache,
    isolate,
    release,
    rss,
    shared_by,
    swap_world,
    unmap,
)

from rmap.mm.bits import (
    _PAGE_SOFT_DIRTY,
    _PAGE_SWP_EXCLUSIVE,
    _PAGE_UNUSED,
    GUP_PIN_COUNTING_BIAS,
    HPAGE_PMD_NR,
    MM_SWAPENTS,
    NR_ANON_MAPPED,
    NR_FILE_MAPPED,
    NR_MLOCK,
    PAGE_SIZE,
    RMAP_VMAS_VISITED,
    TLB_FLUSH_REMOTE,
    TTU_BATCH_FLUSH,
    TTU_IGNORE_ACCESS,
    TTU_IGNORE_MLOCK,
    TTU_MUNLOCK,
    TTU_RMAP_LOCKED,
    VM_LOCKED,
    VM_SHARED,
    VM_UFFD_MISSING,
    PG_anon_exclusive,
    PG_dirty,
)
from rmap.mm.bug import KernelBug
from rmap.mm.lru import mark_page_lazyfree, put_page
from rmap.mm.mm_types import Kernel, Task, Vma
from rmap.mm.page import (
    PageDirty,
    PageMlocked,
    PageSwapBacked,
    lock_page,
    page_count,
    page_mapcount,
    page_private,
    unlock_page,
)
from rmap.mm.pgtable import pfn_pte, pte_to_swp_entry, swp_entry_to_pte
from rmap.mm.swap import add_to_swap
from rmap.mm.swap_slots import page_swapcount, swap_free, swapon
from rmap.mm.tlb import current_task, switch_mm, tlb_entries, tlb_fill, try_to_unmap_flush
from rmap.mm.unmap import (
    TryToMunlockControl,
    TryToUnmapControl,
    arch_unmap_one,
    try_to_munlock,
    try_to_unmap,
    try_to_unmap_one,
    try_to_unmap_range,
)
from rmap.sync.bits import OP_ACQUIRE, RANK_MMLIST
from rmap.sync.core import LockViolation


@pytest.fixture
def k() -> Iterator[Kernel]:
    """A kernel with swap; in the end its mlocked pages are counted again."""
    kernel = swap_world()
    yield kernel
    check_mlocked(kernel)


# ---------------------------------------------------------------- to swap


def test_a_shared_page_goes_to_swap_with_the_numbers_it_should(k: Kernel) -> None:
    """Reference by reference and count by count: mappings 2, isolation 1, swap cache 1."""
    page, (v, vc) = family(k, 1)
    for vma in (v, vc):
        poke(k, vma, pfn_pte(page, CLEAN | DIRTY))
    isolate(k, page)
    assert page_count(k, page) == 3
    assert add_to_swap(k, page)
    assert page_count(k, page) == 4
    entry = page_private(k, page)
    assert (page_swapcount(k, page), PageDirty(k, page)) == (0, True)
    k.pg_flags[page] ^= PG_dirty

    k.notifier_log = []
    assert try_to_unmap(k, page, 0)
    assert (page_mapcount(k, page), page_count(k, page)) == (0, 2)
    assert page_swapcount(k, page) == 2
    assert PageDirty(k, page), "the entries' dirty bit has gone to the page"
    assert rss(v) == rss(vc) == (0, 1, 0, 0)
    assert k.vm_stat[NR_ANON_MAPPED] == 0
    assert pte_of(k, v) == pte_of(k, vc) == swp_entry_to_pte(entry)
    assert [v.vm_mm.hiwater_rss, vc.vm_mm.hiwater_rss] == [1, 1]
    assert k.mmlist == [vc.vm_mm, v.vm_mm], "newest first"
    a = v.vm_start
    assert k.notifier_log == [
        (name, vma.vm_mm.ident, a, a + PAGE_SIZE)
        for vma in (v, vc)
        for name in (
            "invalidate_range_start",
            "clear_flush_young",
            "invalidate_range",
            "invalidate_range_end",
        )
    ]
    release(k, page)


def test_the_walk_ends_when_nothing_maps_the_page_any_more(k: Kernel) -> None:
    page, vmas, _ = shared_by(k, 3)
    for vma in vmas[2:]:
        poke(k, vma, 0)
        k.pg_mapcount[page] -= 1
        put_page(k, page)
    before = k.vm_stat[RMAP_VMAS_VISITED]
    assert unmap(k, page)
    assert k.vm_stat[RMAP_VMAS_VISITED] - before == 2


def test_soft_dirty_is_kept_beside_the_swap_entry(k: Kernel) -> None:
    page, (v, _), entry = shared_by(k)
    poke(k, v, pfn_pte(page, CLEAN | _PAGE_SOFT_DIRTY))
    assert unmap(k, page)
    assert pte_of(k, v) == swp_entry_to_pte(entry) | 1 << 1
    assert pte_to_swp_entry(pte_of(k, v)) == entry


def test_an_mm_is_listed_once_for_swapoff(k: Kernel) -> None:
    vma = process(k)
    for number in range(3):
        page = touch(k, vma, number, CLEAN)
        in_swap_cache(k, page)
        assert unmap(k, page)
    assert k.mmlist == [vma.vm_mm]
    assert vma.vm_mm.hiwater_rss == 1


def test_another_cpu_lists_the_mm_between_the_two_looks(k: Kernel) -> None:
    """Two CPUs unmap pages of one mm, each under the lock of another page table."""
    vma = process(k, 2 * HPAGE_PMD_NR)
    page, other = (touch(k, vma, number, CLEAN) for number in (0, HPAGE_PMD_NR + 1))
    in_swap_cache(k, page)
    in_swap_cache(k, other)
    with interrupted(((OP_ACQUIRE, RANK_MMLIST), partial(unmap, k, other))):
        assert unmap(k, page)
    assert (page_mapcount(k, page), page_mapcount(k, other)) == (0, 0)
    assert k.mmlist == [vma.vm_mm]


def test_a_mapping_that_was_used_keeps_the_page_and_ends_the_attempt(k: Kernel) -> None:
    page, (v, vc, vd), entry = shared_by(k, 2)
    poke(k, vc, pfn_pte(page, CLEAN | YOUNG | DIRTY))
    assert not unmap(k, page, 0)
    assert pte_of(k, v) == swp_entry_to_pte(entry), "stays unmapped"
    assert pte_of(k, vc) == pfn_pte(page, CLEAN | DIRTY), "only the accessed bit went"
    assert pte_of(k, vd) == pfn_pte(page, CLEAN), "not reached"
    assert (page_mapcount(k, page), page_swapcount(k, page)) == (2, 1)
    # Next time it is old.
    lock_page(k, page)
    assert try_to_unmap(k, page, 0)
    unlock_page(k, page)


def test_no_swap_count_to_be_had_puts_the_entry_back(k: Kernel) -> None:
    page, (v, _), _ = shared_by(k)
    before = pfn_pte(page, CLEAN | YOUNG | DIRTY)
    poke(k, v, before)
    k.inject = Failing(1, "swap_duplicate")
    assert not unmap(k, page)
    assert pte_of(k, v) == before
    assert (rss(v), page_mapcount(k, page), page_swapcount(k, page)) == ((1, 0, 0, 0), 2, 0)
    assert k.mmlist == []
    k.inject = None


@pytest.mark.parametrize("repaired", [False, True])
def test_a_refusing_architecture_leaks_the_swap_count_until_that_is_repaired(
    repaired: bool,
) -> None:
    k = world(arch_unmap_failure_frees_swap=repaired)
    swapon(k, 64, -1)
    page, (v, _), _ = shared_by(k)
    k.inject = Failing(1, "arch_unmap_one")
    assert not unmap(k, page)
    assert pte_of(k, v) == pfn_pte(page, CLEAN)
    assert (rss(v), page_mapcount(k, page)) == ((1, 0, 0, 0), 2)
    assert page_swapcount(k, page) == (0 if repaired else 1)
    k.inject = None
    assert arch_unmap_one(k, v.vm_mm, v, v.vm_start, 0) == 0


@pytest.mark.parametrize("repaired", [False, True])
def test_a_swap_backed_page_without_a_slot_loses_its_mapping_with_a_warning(
    repaired: bool,
) -> None:
    """The entry is empty, mapcount and rss still count it: a defect, and its repair."""
    k = world(warn_path_restores_pte=repaired)
    page, (v, _) = family(k, 1)
    poke(k, v, pfn_pte(page, CLEAN))
    k.notifier_log = []
    assert not unmap(k, page)
    assert [warning.check[:11] for warning in k.warnings] == ["rmap.c:1535"]
    assert pte_of(k, v) == (pfn_pte(page, CLEAN) if repaired else 0)
    assert (page_mapcount(k, page), rss(v)) == (2, (1, 0, 0, 0))
    assert [name for name, *_ in k.notifier_log] == [
        "invalidate_range_start",
        "invalidate_range",
        "invalidate_range_end",
    ]
    lock_page(k, page)
    try_to_unmap(k, page, TTU_IGNORE_ACCESS)
    unlock_page(k, page)
    assert len(k.warnings) == 1


def test_an_exclusive_page_says_so_in_its_swap_entry_unless_it_is_pinned() -> None:
    k = world(anon_exclusive=True)
    swapon(k, 64, -1)
    vma = process(k)
    page = touch(k, vma)
    entry = in_swap_cache(k, page)
    k.pg_refcount[page] += GUP_PIN_COUNTING_BIAS
    assert not unmap(k, page)
    assert (pte_of(k, vma), page_swapcount(k, page)) == (pfn_pte(page, USED), 0)
    k.pg_refcount[page] -= GUP_PIN_COUNTING_BIAS
    lock_page(k, page)
    assert try_to_unmap(k, page, TTU_IGNORE_ACCESS)
    unlock_page(k, page)
    assert pte_of(k, vma) == swp_entry_to_pte(entry) | _PAGE_SWP_EXCLUSIVE
    assert not k.pg_flags[page] & PG_anon_exclusive


# ---------------------------------------------------------------- lazily freed pages


def lazy(k: Kernel, bits: int = CLEAN) -> tuple[int, Vma]:
    """A page that MADV_FREE gave up."""
    vma = process(k)
    page = touch(k, vma, 0, bits)
    mark_page_lazyfree(k, page)
    assert not PageSwapBacked(k, page)
    return page, vma


def test_a_lazily_freed_page_is_dropped_while_it_is_clean(k: Kernel) -> None:
    page, vma = lazy(k)
    k.notifier_log = []
    assert unmap(k, page, 0)
    assert (pte_of(k, vma), rss(vma), page_mapcount(k, page)) == (0, (0, 0, 0, 0), 0)
    assert page_count(k, page) == 1, "the caller's"
    assert [name for name, *_ in k.notifier_log][2] == "invalidate_range"


def test_a_lazily_freed_page_that_was_written_to_is_an_ordinary_page_again(k: Kernel) -> None:
    page, vma = lazy(k, CLEAN | DIRTY)
    k.notifier_log = []
    assert not unmap(k, page, 0)
    assert pte_of(k, vma) == pfn_pte(page, CLEAN | DIRTY)
    assert (PageSwapBacked(k, page), PageDirty(k, page), rss(vma)) == (True, True, (1, 0, 0, 0))
    assert [name for name, *_ in k.notifier_log] == [
        "invalidate_range_start",
        "clear_flush_young",
        "invalidate_range_end",
    ]


@pytest.mark.parametrize("repaired", [False, True])
def test_a_lazily_freed_page_that_a_device_writes_to_is_lost_until_that_is_repaired(
    repaired: bool,
) -> None:
    """6c8e2a256915: get_user_pages() has a reference, and no entry knows of the write yet."""
    k = world(lazyfree_checks_references=repaired)
    page, vma = lazy(k)
    k.pg_refcount[page] += 1
    assert unmap(k, page, 0) != repaired
    assert bool(pte_of(k, vma)) == repaired
    assert PageSwapBacked(k, page) == repaired


def test_without_further_references_the_repair_changes_nothing() -> None:
    k = world(lazyfree_checks_references=True)
    page, vma = lazy(k)
    assert unmap(k, page, 0)
    assert pte_of(k, vma) == 0


def test_sharers_of_a_lazily_freed_page_keep_it_once_one_has_written(k: Kernel) -> None:
    page, (v, vc) = family(k, 1)
    mark_page_lazyfree(k, page)
    poke(k, v, pfn_pte(page, CLEAN))
    poke(k, vc, pfn_pte(page, CLEAN | DIRTY))
    assert not unmap(k, page, 0)
    assert (pte_of(k, v), rss(v)) == (0, (0, 0, 0, 0)), "it gave the page up, and reads zeroes"
    assert (pte_of(k, vc), rss(vc)) == (pfn_pte(page, CLEAN | DIRTY), (1, 0, 0, 0))


# ---------------------------------------------------------------- locked in memory


def test_a_locked_mapping_refuses_and_marks_the_page(k: Kernel) -> None:
    page, (v, vc), entry = shared_by(k)
    vc.vm_flags |= VM_LOCKED
    assert not unmap(k, page, 0)
    assert (PageMlocked(k, page), k.vm_stat[NR_MLOCK]) == (True, 1)
    assert pte_of(k, v) == swp_entry_to_pte(entry)
    assert pte_of(k, vc) == pfn_pte(page, CLEAN)
    lock_page(k, page)
    assert try_to_unmap(k, page, TTU_IGNORE_MLOCK)
    unlock_page(k, page)
    assert not PageMlocked(k, page), "nothing maps it any more"
    assert k.vm_stat[NR_MLOCK] == 0


def test_counted_mlocks_are_counted_where_one_was_missed_and_where_one_goes() -> None:
    k = world(mlock_counts=True)
    swapon(k, 64, -1)
    page, (v, vc), _ = shared_by(k)
    vc.vm_flags |= VM_LOCKED
    assert not unmap(k, page, 0)
    assert (PageMlocked(k, page), k.vm_stat[NR_MLOCK]) == (True, 1)
    lock_page(k, page)
    assert try_to_unmap(k, page, TTU_IGNORE_MLOCK)
    unlock_page(k, page)
    assert (PageMlocked(k, page), k.vm_stat[NR_MLOCK]) == (False, 0)
    assert rss(v) == rss(vc) == (0, 1, 0, 0)


def test_munlock_finds_another_who_still_locks_the_page(k: Kernel) -> None:
    page, (v, vc, vd) = family(k, 2)
    vd.vm_flags |= VM_LOCKED
    isolate(k, page)
    k.notifier_log = []
    try_to_munlock(k, page)
    assert (PageMlocked(k, page), k.vm_stat[NR_MLOCK]) == (True, 1)
    assert page_mapcount(k, page) == 3
    assert all(pte_of(k, vma) & 1 for vma in (v, vc, vd))
    assert [ident for _, ident, _, _ in k.notifier_log] == [vd.vm_mm.ident] * 2, "only there"
    release(k, page)


def test_munlock_finds_nobody(k: Kernel) -> None:
    page, (v, vc) = family(k, 1)
    isolate(k, page)
    try_to_munlock(k, page)
    assert not PageMlocked(k, page)
    # A locked VMA that does not map the page.
    vc.vm_flags |= VM_LOCKED
    poke(k, vc, 0)
    try_to_munlock(k, page)
    assert not PageMlocked(k, page)
    assert pte_of(k, v) == pfn_pte(page, USED & ~WRITE)
    release(k, page)


def test_munlock_that_need_not_respect_mlock_looks_at_everybody(k: Kernel) -> None:
    """With TTU_MUNLOCK alone, what is not VM_LOCKED is passed over before it is looked at; a VMA
    that was unlocked in between is passed over at its entry.
    """
    page, (v, _) = family(k, 1)
    control = TryToUnmapControl(TTU_MUNLOCK)
    isolate(k, page)
    assert try_to_unmap_one(k, page, v, v.vm_start, control)
    v.vm_flags |= VM_LOCKED
    k.notifier_log = UnlocksAtFirstCall(v)
    assert try_to_unmap_one(k, page, v, v.vm_start, control)
    assert not PageMlocked(k, page)
    assert pte_of(k, v) & 1
    release(k, page)


class UnlocksAtFirstCall(list[tuple[str, int, int, int]]):
    """Stands for another CPU that munlocks the VMA right after the walk looked at its flags."""

    def __init__(self, vma: Vma) -> None:
        super().__init__()
        self.vma = vma

    def append(self, call: tuple[str, int, int, int]) -> None:
        super().append(call)
        self.vma.vm_flags &= ~VM_LOCKED


def test_munlock_asks_for_a_page_that_is_locked_and_isolated(k: Kernel) -> None:
    page, _ = family(k, 1)
    with pytest.raises(KernelBug, match=r"rmap.c:1716"):
        try_to_munlock(k, page)
    lock_page(k, page)
    with pytest.raises(KernelBug, match=r"rmap.c:1716"):
        try_to_munlock(k, page)
    unlock_page(k, page)


def test_munlock_is_done_when_nothing_maps_the_page(k: Kernel) -> None:
    page, _ = family(k, 1)
    control = TryToMunlockControl(TTU_MUNLOCK)
    assert not control.done(k, page)
    k.pg_mapcount[page] = -1
    assert control.done(k, page)


# ---------------------------------------------------------------- flushes


def running(k: Kernel, cpu: int, vma: Vma, page: int = 0) -> None:
    """Let a CPU run the process and remember an entry."""
    switch_mm(k, Task(f"cpu{cpu}", cpu + 10, None, cpu), vma.vm_mm)
    tlb_fill(k, cpu, vma.vm_mm, address_of(vma, page), pte_of(k, vma, page))


def test_reclaim_defers_the_flush_of_other_cpus_to_the_end_of_its_batch(k: Kernel) -> None:
    page, (v, vc), _ = shared_by(k)
    poke(k, v, pfn_pte(page, CLEAN | DIRTY | WRITE))
    running(k, 1, v)
    isolate(k, page)
    assert try_to_unmap(k, page, TTU_BATCH_FLUSH)
    batch = current_task(k).tlb_ubc
    assert (batch.cpumask, batch.flush_required, batch.writable) == (0b10, True, True)
    assert (v.vm_mm.tlb_flush_batched, vc.vm_mm.tlb_flush_batched) == (True, False)
    assert len(tlb_entries(k)) == 1, "the CPU may still write: no IO before the flush"
    try_to_unmap_flush(k)
    assert tlb_entries(k) == []
    release(k, page)


def test_without_a_batch_every_entry_is_flushed_at_once(k: Kernel) -> None:
    page, (v, _), _ = shared_by(k)
    running(k, 1, v)
    assert unmap(k, page, 0)
    assert tlb_entries(k) == []
    assert k.vm_stat[TLB_FLUSH_REMOTE] == 1
    assert not current_task(k).tlb_ubc.flush_required


def test_a_clean_entry_in_a_batch_holds_up_no_io(k: Kernel) -> None:
    page, (v, _), _ = shared_by(k)
    running(k, 1, v)
    assert unmap(k, page, TTU_BATCH_FLUSH)
    batch = current_task(k).tlb_ubc
    assert (batch.flush_required, batch.writable) == (True, False)
    try_to_unmap_flush(k)


# ---------------------------------------------------------------- what is not needed any more


@pytest.mark.parametrize("anonymous", [True, False])
def test_what_a_guest_does_not_need_is_dropped(k: Kernel, anonymous: bool) -> None:
    if anonymous:
        vma = process(k)
        page = touch(k, vma)
    else:
        file = make_file(k)
        vma = map_file(k, file)
        page = cache(k, file, 0)
        map_cached(k, page, vma)
    poke(k, vma, pfn_pte(page, CLEAN | _PAGE_UNUSED))
    k.notifier_log = []
    assert unmap(k, page, 0)
    assert (pte_of(k, vma), rss(vma), k.warnings) == (0, (0, 0, 0, 0), [])
    assert k.notifier_log[2][0] == "invalidate_range"


def test_what_a_guest_does_not_need_is_kept_while_a_userfaultfd_watches(k: Kernel) -> None:
    vma = process(k)
    page = touch(k, vma)
    entry = in_swap_cache(k, page)
    vma.vm_flags |= VM_UFFD_MISSING
    poke(k, vma, pfn_pte(page, CLEAN | _PAGE_UNUSED))
    assert unmap(k, page, 0)
    assert pte_of(k, vma) == swp_entry_to_pte(entry)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("shmem", [False, True])
def test_a_page_of_a_file_leaves_empty_entries(k: Kernel, shmem: bool) -> None:
    file = make_file(k, shmem=shmem)
    page = cache(k, file, 2)
    p, q = map_file(k, file, "p"), map_file(k, file, "q", flags=RW | VM_SHARED, pgoff=2)
    map_cached(k, page, p, CLEAN | DIRTY)
    map_cached(k, page, q)
    assert rss(p) == ((0, 0, 0, 1) if shmem else (0, 0, 1, 0))
    k.notifier_log = []
    assert unmap(k, page, 0)
    assert (pte_of(k, p, 2), pte_of(k, q)) == (0, 0)
    assert rss(p) == rss(q) == (0, 0, 0, 0)
    assert p.vm_mm.hiwater_rss == 1
    assert (PageDirty(k, page), k.vm_stat[NR_FILE_MAPPED]) == (True, 0)
    assert page_count(k, page) == 2, "the cache's and the caller's"
    # The page lock keeps others from mapping another page here, so no call in between.
    assert "invalidate_range" not in [name for name, *_ in k.notifier_log]


# ---------------------------------------------------------------- how it is called


def test_the_page_has_to_be_locked(k: Kernel) -> None:
    page, _ = family(k, 1)
    with pytest.raises(LockViolation, match="needs PG_locked"):
        try_to_unmap(k, page, 0)


def test_whoever_holds_the_rmap_lock_says_so(k: Kernel) -> None:
    page, vmas, _ = shared_by(k, 2)
    root = vmas[0].anon_vma.root
    isolate(k, page)
    root.rwsem.down_write()
    assert try_to_unmap(k, page, TTU_RMAP_LOCKED)
    assert root.rwsem.count == -1
    root.rwsem.up_write()
    release(k, page)


def test_a_mapping_that_the_walk_does_not_find_leaves_the_page_mapped(k: Kernel) -> None:
    """Counted, but with no entry where it should be: as while exec moves a stack."""
    page, (v, vc), _ = shared_by(k)
    poke(k, vc, 0)
    assert not unmap(k, page, 0)
    assert page_mapcount(k, page) == 1
    assert rss(v) == (0, 1, 0, 0)


def test_calls_are_traced(k: Kernel) -> None:
    page, (v, vc), _ = shared_by(k)
    traced: list[tuple[str, tuple[object, ...]]] = []
    k.tracer = lambda name, arguments: traced.append((name, arguments))
    assert unmap(k, page, 0)
    names = [name for name, _ in traced]
    assert names.count("try_to_unmap_one") == 2
    assert ("try_to_unmap_one", (page, v, v.vm_start, True)) in traced
    assert traced[-1] == ("try_to_unmap", (page, 0, True))
    assert vc.vm_mm.on_mmlist


# ---------------------------------------------------------------- many pages


def test_many_pages_are_unmapped_in_one_call(k: Kernel) -> None:
    file = make_file(k)
    vma = map_file(k, file, pages=8)
    pages = [cache(k, file, i) for i in range(8)]
    for page in pages:
        map_cached(k, page, vma, CLEAN | YOUNG)
        lock_page(k, page)
    asked = np.array(pages, dtype=np.uint64)
    asked.flags.writeable = False
    assert try_to_unmap_range(k, asked[:3], TTU_IGNORE_ACCESS) == 3
    assert [bool(pte_of(k, vma, i)) for i in range(8)] == [i >= 3 for i in range(8)]
    assert try_to_unmap_range(k, asked, 0) == 3, "the others were used; these nothing maps"
    assert try_to_unmap_range(k, asked, 0) == 8
    assert rss(vma) == (0, 0, 0, 0)
    assert all(page_count(k, page) == 1 for page in pages)
    for page in pages:
        unlock_page(k, page)
    with pytest.raises(LockViolation, match="needs PG_locked"):
        try_to_unmap_range(k, asked, 0)


def test_a_batch_of_many_pages_is_flushed_once_before_any_of_them_is_freed(k: Kernel) -> None:
    vma = process(k, 8)
    pages = []
    for i in range(8):
        pages.append(touch(k, vma, i, CLEAN))
        mark_page_lazyfree(k, pages[i])
        isolate(k, pages[i])
    for i in range(8):
        running(k, 1, vma, i)
    before = k.nr_free
    assert try_to_unmap_range(k, np.array(pages, dtype=np.uint64), TTU_BATCH_FLUSH) == 8
    assert (len(tlb_entries(k)), k.nr_free) == (8, before)
    try_to_unmap_flush(k)
    for page in pages:
        release(k, page)
    assert (len(tlb_entries(k)), k.nr_free) == (0, before + 8)
    assert k.vm_stat[TLB_FLUSH_REMOTE] == 1


def test_pages_may_go_and_come_back_through_the_same_slot(k: Kernel) -> None:
    """Unmapped to swap, mapped again, unmapped again: counts return to what they were."""
    page, (v, vc), entry = shared_by(k)
    assert unmap(k, page, 0)
    for vma in (v, vc):
        remap(k, page, vma)
        vma.vm_mm.rss_stat[MM_SWAPENTS] -= 1
        swap_free(k, entry)
    assert (page_mapcount(k, page), page_swapcount(k, page)) == (2, 0)
    assert rss(v) == rss(vc) == (1, 0, 0, 0)
    lock_page(k, page)
    assert try_to_unmap(k, page, 0)
    unlock_page(k, page)
    assert (page_mapcount(k, page), page_swapcount(k, page)) == (0, 2)
    assert k.mmlist == [vc.vm_mm, v.vm_mm]

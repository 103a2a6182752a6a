# SPDX-License-Identifier: GPL-2.0-only
"""fork, munmap, mremap, mprotect, get_user_pages and CPUs, where PMDs map huge pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from handmade import crashed
from huge import (
    HUGE,
    check_all,
    counts,
    frame,
    free_pages,
    head_at,
    huge_kernel,
    huge_space,
    load,
    pmd_at,
    rss,
    store,
)
from kernels import Failing
from spaces import RW, Space

from rmap.mm.access import read_bytes, touch_range, write_bytes
from rmap.mm.bits import (
    _PAGE_ACCESSED,
    _PAGE_DIRTY,
    _PAGE_PROTNONE,
    _PAGE_PSE,
    _PAGE_RW,
    _PAGE_SOFT_DIRTY,
    EAGAIN,
    EBUSY,
    EMLINK,
    ENOMEM,
    FOLL_FORCE,
    FOLL_GET,
    FOLL_MLOCK,
    FOLL_PIN,
    FOLL_SPLIT,
    FOLL_WRITE,
    HPAGE_PMD_SIZE,
    MADV_DONTNEED,
    MM_CP_TRY_CHANGE_WRITABLE,
    NR_MLOCK,
    NR_PAGETABLE,
    PAGE_SIZE,
    PROT_NONE,
    PROT_READ,
    THP_SPLIT_PMD,
    VM_LOCKED,
    PG_anon_exclusive,
    PG_mlocked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.gup import (
    follow_page,
    get_user_pages,
    mm_populate,
    pin_user_pages,
    put_user_pages,
    unpin_user_page,
)
from rmap.mm.huge.change import change_huge_pmd, copy_huge_pmd, move_huge_pmd
from rmap.mm.huge.pgtable import pmd_trans_huge_lock
from rmap.mm.huge.split_pmd import set_pmd_migration_entry, split_huge_pmd
from rmap.mm.lru import put_page
from rmap.mm.mm_types import Kernel, Task
from rmap.mm.page import (
    PageDoubleMap,
    compound_mapcount,
    get_page,
    lock_page,
    page_count,
    page_mapcount,
    page_maybe_dma_pinned,
    total_mapcount,
    unlock_page,
)
from rmap.mm.page_vma_mapped import PageVmaMappedWalk
from rmap.mm.pgtable import (
    is_pmd_migration_entry,
    is_write_migration_entry,
    pmd_alloc,
    pmd_offset,
    pmd_trans_huge,
    pte_to_swp_entry,
    pte_unlock,
)
from rmap.mm.tlb import tlb_entries, tlb_lookup
from rmap.sync.core import scheduler

#: Who moves pages.
MOVER = Task("mover", 2, None)


@pytest.fixture
def k() -> Kernel:
    return huge_kernel()


def touched(k: Kernel, pages: int = HUGE) -> Space:
    """A process whose huge pages have content: each says its number."""
    space = huge_space(k, pages)
    for page in range(0, pages, HUGE):
        store(space, page, b"first")
        store(space, page + 9, b"ninth")
    return space


def slot(space: Space, page: int = 0) -> int:
    """The place of a page's PMD."""
    return int(pmd_offset(space.k, space.mm, space.at(page)))


@contextmanager
def somebody_else() -> Iterator[None]:
    """Another task runs; what it locks is not held by the test."""
    sched = scheduler()
    current, sched.current = sched.current, MOVER
    yield
    sched.current = current


def start_migration(space: Space, head: int) -> None:
    """Somebody locks a huge page, and puts a migration entry in the place of its PMD."""
    k = space.k
    with somebody_else():
        get_page(k, head)
        lock_page(k, head)
        pvmw = PageVmaMappedWalk(head, space.vma(0), space.at(0))
        pvmw.pmd = slot(space)
        assert pmd_trans_huge_lock(k, pvmw.pmd)
        assert set_pmd_migration_entry(k, pvmw, head) == 0
        pte_unlock(k, pvmw.pmd)


def end_migration(k: Kernel, head: int) -> None:
    """Nobody needs the page any more."""
    with somebody_else():
        unlock_page(k, head)
        put_page(k, head)
    check_all(k)
    assert k.nr_free == k.nr_pages


def waits(space: Space, write: bool) -> bool:
    """Whether the PMD waits for a page, to be written to afterwards or not."""
    pmd = pmd_at(space)
    entry = pte_to_swp_entry(pmd)
    return bool(is_pmd_migration_entry(pmd)) and bool(is_write_migration_entry(entry)) is write


# ---------------------------------------------------------------- fork


def test_fork_shares_the_pmd_and_forbids_both_to_write(k: Kernel) -> None:
    parent = touched(k)
    head = head_at(parent)
    child = parent.fork()
    assert (compound_mapcount(k, head), page_count(k, head)) == (2, 2)
    assert {pmd_at(space) & _PAGE_RW for space in (parent, child)} == {0}
    assert pmd_at(child) & _PAGE_ACCESSED == 0
    assert (counts(k), rss(child)) == ((1, HUGE), (0, HUGE, 0, 0))
    assert (load(child, 0), load(child, 9)) == (b"first", b"ninth")
    check_all(k, parent, child)


def test_fork_fails_without_a_table_to_set_aside(k: Kernel) -> None:
    parent = touched(k)
    child = Space(k)
    child.mmap(0, HUGE)
    pmd = pmd_alloc(k, child.mm, child.at(0))
    k.inject = Failing(1, "page_table")
    vmas = child.vma(0), parent.vma(0)
    assert copy_huge_pmd(k, *vmas, pmd, slot(parent), parent.at(0)) == -ENOMEM
    k.inject = None
    # And a PMD that has become a table is told from both.
    split_huge_pmd(k, parent.vma(0), slot(parent), parent.at(0))
    tables = k.vm_stat[NR_PAGETABLE]
    assert copy_huge_pmd(k, *vmas, pmd, slot(parent), parent.at(0)) == -EAGAIN
    assert k.vm_stat[NR_PAGETABLE] == tables
    check_all(k, parent, child)


def test_a_part_of_a_pmd_in_a_vma_is_a_bug_to_fork(k: Kernel) -> None:
    parent = touched(k)
    parent.vma(0).vm_end -= PAGE_SIZE
    with pytest.raises(KernelBug, match="a part of a huge page's PMD"):
        parent.fork()
    crashed()


def test_fork_during_migration_lets_the_child_wait_too(k: Kernel) -> None:
    parent = touched(k)
    head = head_at(parent)
    start_migration(parent, head)
    assert waits(parent, write=True)
    child = parent.fork()
    assert waits(parent, write=False)
    assert waits(child, write=False)
    assert (rss(child), page_count(k, head)) == ((0, HUGE, 0, 0), 1)
    parent.exit()
    child.exit()
    end_migration(k, head)


@pytest.mark.parametrize("name", ["6.1", "6.12"])
def test_a_pinned_huge_page_stays_the_parents(name: str) -> None:
    k = huge_kernel(name=name)
    parent = touched(k)
    pages = pin_user_pages(k, parent.mm, parent.at(9), 1, True)
    head = head_at(parent)
    assert pages == [head + 9]
    assert page_maybe_dma_pinned(k, head + 3)
    assert page_count(k, head) == 2, "pins of huge pages are counted by themselves"
    child = parent.fork()
    assert head_at(parent) == 0, "split: the parts are copied one by one"
    assert frame(parent, 9) == head + 9
    assert frame(child, 9) != head + 9
    assert load(child, 9) == b"ninth"
    store(parent, 9, b"device")
    assert frame(parent, 9) == head + 9
    assert load(child, 9) == b"ninth"
    unpin_user_page(k, pages[0])
    assert not page_maybe_dma_pinned(k, head)
    check_all(k, parent, child)


# ---------------------------------------------------------------- munmap, MADV_DONTNEED, exit


def test_a_huge_page_is_unmapped_and_freed_whole(k: Kernel) -> None:
    space = touched(k)
    gen = space.mm.tlb_gen
    assert space.munmap(0, HUGE) == 0
    assert (counts(k), rss(space), free_pages(k)) == ((0, 0), (0, 0, 0, 0), k.nr_pages)
    assert space.mm.tlb_gen > gen
    check_all(k, space)


def test_dontneed_of_a_part_splits_the_pmd_and_keeps_the_page(k: Kernel) -> None:
    space = touched(k)
    head = head_at(space)
    free = k.nr_free
    assert space.madvise(0, 8, MADV_DONTNEED) == 0
    assert (head_at(space), k.vm_stat[THP_SPLIT_PMD]) == (0, 1)
    assert (counts(k), rss(space)) == ((0, HUGE - 8), (0, HUGE - 8, 0, 0))
    assert (k.nr_free, page_count(k, head)) == (free, HUGE - 8)
    assert list(k.deferred_split_queue) == [head]
    assert (frame(space, 0), load(space, 9)) == (0, b"ninth")
    check_all(k, space)


def test_a_pmd_of_zeros_goes_without_being_counted(k: Kernel) -> None:
    space = huge_space(k)
    space.read(0)
    assert space.munmap(0, HUGE) == 0
    assert (pmd_at(space), rss(space)) == (0, (0, 0, 0, 0))
    check_all(k, space)


# ---------------------------------------------------------------- the life of a huge page


def test_the_numbers_of_a_shared_huge_page_through_system_calls(k: Kernel) -> None:
    """Fault, fork, a split in the child, the parent's exit, munmap of one page."""
    parent = touched(k)
    head = head_at(parent)
    child = parent.fork()
    assert child.mprotect(0, HUGE // 2, PROT_READ) == 0
    assert (page_count(k, head), compound_mapcount(k, head)) == (513, 1)
    assert {k.pg_mapcount[head + i] for i in range(HUGE)} == {1}
    assert (page_mapcount(k, head), total_mapcount(k, head)) == (2, 513)
    assert (counts(k), PageDoubleMap(k, head)) == ((1, HUGE), True)
    parent.exit()
    assert {k.pg_mapcount[head + i] for i in range(HUGE)} == {0}
    assert (counts(k), PageDoubleMap(k, head)) == ((0, HUGE), False)
    assert (page_count(k, head), total_mapcount(k, head)) == (512, 512)
    assert len(k.deferred_split_queue) == 0
    assert child.munmap(40, 1) == 0
    assert (k.pg_mapcount[head + 40], counts(k)) == (-1, (0, 511))
    assert list(k.deferred_split_queue) == [head]
    assert (page_count(k, head), rss(child)) == (511, (0, 511, 0, 0))
    check_all(k, child)


# ---------------------------------------------------------------- borders of VMAs


@pytest.mark.parametrize("page", [1, 256, 511])
def test_a_new_border_of_a_vma_splits_the_pmd_below_it(k: Kernel, page: int) -> None:
    space = touched(k)
    assert space.mprotect(0, page, PROT_READ) == 0
    assert (head_at(space), k.vm_stat[THP_SPLIT_PMD]) == (0, 1)
    assert (load(space, 0), load(space, 9)) == (b"first", b"ninth")
    check_all(k, space)


def test_a_border_between_huge_pages_splits_nothing(k: Kernel) -> None:
    space = touched(k, 2 * HUGE)
    assert space.mprotect(0, HUGE, PROT_READ) == 0
    assert (bool(head_at(space)), k.vm_stat[THP_SPLIT_PMD]) == (True, 0)
    check_all(k, space)


def test_a_border_that_moves_into_the_next_vma_splits_there(k: Kernel) -> None:
    space = touched(k, 2 * HUGE)
    assert space.mprotect(0, HUGE, PROT_READ) == 0
    # The first VMA grows into the second one, whose PMD reaches over the new border.
    assert space.mprotect(HUGE, 3, PROT_READ) == 0
    assert (bool(head_at(space, 0)), head_at(space, HUGE)) == (True, 0)
    assert len(space.mm.vmas) == 2
    check_all(k, space)


# ---------------------------------------------------------------- mprotect


def test_a_whole_pmd_is_protected_as_one(k: Kernel) -> None:
    space = touched(k)
    head = head_at(space)
    gen = space.mm.tlb_gen
    assert space.mprotect(0, HUGE, PROT_READ) == 0
    assert (head_at(space), pmd_at(space) & (_PAGE_RW | 1 | _PAGE_PSE)) == (head, 1 | _PAGE_PSE)
    assert space.mm.tlb_gen > gen
    assert space.mprotect(0, HUGE, PROT_NONE) == 0
    assert pmd_at(space) & (1 | _PAGE_PROTNONE) == _PAGE_PROTNONE
    assert pmd_trans_huge(pmd_at(space))
    assert space.fault(0, False) == -1
    assert space.mprotect(0, HUGE, RW) == 0
    assert pmd_at(space) & _PAGE_RW == 0, "the next write finds out whether it may"
    store(space, 0, b"again")
    assert (head_at(space), load(space, 0), load(space, 9)) == (head, b"again", b"ninth")
    check_all(k, space)


def test_mprotect_takes_the_right_to_write_from_a_pmd_that_waits(k: Kernel) -> None:
    space = touched(k)
    head = head_at(space)
    start_migration(space, head)
    assert space.mprotect(0, HUGE, PROT_READ) == 0
    assert waits(space, write=False)
    space.exit()
    end_migration(k, head)


def test_what_is_no_huge_page_is_not_changed_as_one(k: Kernel) -> None:
    space = touched(k)
    split_huge_pmd(k, space.vma(0), slot(space), space.at(0))
    assert change_huge_pmd(k, space.vma(0), slot(space), space.at(0), 0, 0) == 0
    check_all(k, space)


@pytest.mark.parametrize(("name", "writable"), [("4.18", False), ("6.1", False), ("6.12", True)])
def test_mprotect_may_know_that_a_write_fault_would_find_nothing_to_do(
    name: str, writable: bool
) -> None:
    k = huge_kernel(name=name)
    space = touched(k)
    assert space.mprotect(0, HUGE, PROT_READ) == 0
    assert space.mprotect(0, HUGE, RW) == 0
    assert bool(pmd_at(space) & _PAGE_RW) is writable
    child = space.fork()
    assert child.mprotect(0, HUGE, PROT_READ) == 0
    assert child.mprotect(0, HUGE, RW) == 0
    assert not pmd_at(child) & _PAGE_RW, "it is shared"
    check_all(k, space, child)


def test_a_private_pmd_that_would_become_writable_is_a_bug(k: Kernel) -> None:
    space = touched(k)
    with pytest.raises(KernelBug, match="writable without a fault"):
        change_huge_pmd(
            k, space.vma(0), slot(space), space.at(0), _PAGE_RW, MM_CP_TRY_CHANGE_WRITABLE
        )
    crashed()


# ---------------------------------------------------------------- mremap


@pytest.mark.parametrize("name", ["4.18", "6.1"])
@pytest.mark.parametrize("to", [2 * HUGE, HUGE * HUGE])
def test_a_pmd_moves_as_a_whole(name: str, to: int) -> None:
    """The second place is below another table of PMDs, which gets the table set aside."""
    k = huge_kernel(name=name)
    space = touched(k)
    head = head_at(space)
    gen = space.mm.tlb_gen
    assert space.mremap(0, HUGE, to) == space.at(to)
    assert (head_at(space, to), pmd_at(space, 0)) == (head, 0)
    assert pmd_at(space, to) & _PAGE_SOFT_DIRTY
    assert (load(space, to), load(space, to + 9)) == (b"first", b"ninth")
    assert (counts(k), rss(space)) == ((1, HUGE), (0, HUGE, 0, 0))
    assert space.mm.tlb_gen > gen
    store(space, to, b"moved")
    assert space.mprotect(to, 1, PROT_READ) == 0, "the table is where it is needed"
    check_all(k, space)


def test_a_clean_pmd_is_flushed_for_when_all_is_moved(k: Kernel) -> None:
    space = touched(k)
    k.pt[slot(space)] &= ~_PAGE_DIRTY
    gen = space.mm.tlb_gen
    assert space.mremap(0, HUGE, 2 * HUGE) > 0
    assert space.mm.tlb_gen > gen
    check_all(k, space)


@pytest.mark.parametrize(("page", "to"), [(0, 2 * HUGE + 1), (1, 2 * HUGE + 1)])
def test_what_does_not_fit_a_pmd_is_split_and_moved_by_parts(k: Kernel, page: int, to: int) -> None:
    space = touched(k)
    count = HUGE - page
    assert space.mremap(page, count, to) == space.at(to)
    assert k.vm_stat[THP_SPLIT_PMD] == 1
    assert load(space, to + 9 - page) == b"ninth"
    assert (counts(k), rss(space)) == ((0, HUGE), (0, HUGE, 0, 0))
    check_all(k, space)


def test_pages_moved_to_another_alignment_are_copied_as_small_ones(k: Kernel) -> None:
    """Such a page is found by rmap wherever its parts lie now."""
    space = touched(k)
    head = head_at(space)
    assert space.mremap(0, HUGE, 2 * HUGE + 1) > 0
    child = space.fork()
    assert total_mapcount(k, head) == 2 * HUGE
    store(child, 2 * HUGE + 10, b"own")
    assert (load(space, 2 * HUGE + 10), total_mapcount(k, head)) == (b"ninth", 2 * HUGE - 1)
    check_all(k, space, child)


def test_mremap_without_memory_for_tables_puts_everything_back(k: Kernel) -> None:
    space = touched(k)
    head = head_at(space)
    k.inject = Failing(1, "page_table")
    assert space.mremap(0, HUGE, HUGE * HUGE * HUGE) == -ENOMEM
    k.inject = None
    assert (head_at(space), load(space, 9)) == (head, b"ninth")
    check_all(k, space)


def test_something_at_the_new_place_is_warned_of(k: Kernel) -> None:
    space = touched(k, 2 * HUGE)
    where = space.at(0), space.at(HUGE), space.at(HUGE)
    assert move_huge_pmd(k, space.vma(0), *where, slot(space), slot(space, HUGE)) == 0
    assert "something is at the new place" in str(k.warnings)
    split_huge_pmd(k, space.vma(0), slot(space), space.at(0))
    there = space.at(4 * HUGE)
    new = pmd_alloc(k, space.mm, there)
    moved = move_huge_pmd(k, space.vma(0), space.at(0), there, space.at(HUGE), slot(space), new)
    assert moved == 0, "there is no huge page any more"


def test_the_source_of_dontunmap_has_huge_pages_again() -> None:
    k = huge_kernel(name="6.1")
    space = touched(k)
    head = head_at(space)
    assert space.mremap(0, HUGE, 2 * HUGE, dontunmap=True) > 0
    assert (head_at(space, 2 * HUGE), pmd_at(space, 0)) == (head, 0)
    store(space, 0, b"new")
    assert head_at(space) not in (0, head)
    assert load(space, 2 * HUGE) == b"first"
    check_all(k, space)


# ---------------------------------------------------------------- get_user_pages


def test_parts_of_a_huge_page_are_got_one_by_one(k: Kernel) -> None:
    space = touched(k, 2 * HUGE)
    head = head_at(space)
    pages = get_user_pages(k, space.mm, space.at(510), 4, True)
    other = head_at(space, HUGE)
    assert pages == [head + 510, head + 511, other, other + 1]
    assert (page_count(k, head), page_count(k, other)) == (3, 3)
    assert counts(k) == (2, 2 * HUGE)
    put_user_pages(k, pages)
    check_all(k, space)


def test_populating_goes_from_huge_page_to_huge_page(k: Kernel) -> None:
    space = huge_space(k, 2 * HUGE)
    faults = []
    k.tracer = lambda name, arguments: faults.append(name)
    mm_populate(k, space.mm, space.at(3), (2 * HUGE - 6) * PAGE_SIZE)
    assert faults.count("handle_mm_fault") == 2
    k.tracer = None
    assert counts(k) == (2, 2 * HUGE)
    check_all(k, space)


def looked_up(space: Space, page: int, flags: int) -> int:
    """follow_page() under mmap_sem."""
    space.mm.mmap_sem.down_read()
    found = follow_page(space.k, space.vma(page), space.at(page), flags)
    space.mm.mmap_sem.up_read()
    return int(found)


def test_a_pmd_is_followed_only_as_far_as_it_permits(k: Kernel) -> None:
    space = touched(k)
    head = head_at(space)
    assert looked_up(space, 5, FOLL_WRITE) == head + 5
    child = space.fork()
    assert looked_up(space, 5, 0) == head + 5
    assert looked_up(space, 5, FOLL_WRITE) == 0
    assert space.mprotect(0, HUGE, PROT_NONE) == 0
    assert looked_up(space, 5, 0) == 0
    assert looked_up(space, 5, FOLL_FORCE) == head + 5
    assert looked_up(child, HUGE - 1, FOLL_GET) == head + 511
    put_page(k, head + 511)
    check_all(k, space, child)


def test_a_page_is_split_to_be_followed_if_that_is_asked_for(k: Kernel) -> None:
    space = touched(k)
    head = head_at(space)
    get_page(k, head)
    assert looked_up(space, 5, FOLL_SPLIT) == -EBUSY, "somebody else has a reference"
    put_page(k, head)
    assert looked_up(space, 5, FOLL_SPLIT) == head + 5
    assert (head_at(space), page_count(k, head + 5), counts(k)) == (0, 1, (0, HUGE))
    assert load(space, 9) == b"ninth"
    check_all(k, space)


def test_zeros_are_split_to_be_followed(k: Kernel) -> None:
    space = huge_space(k)
    space.read(0)
    assert looked_up(space, 5, FOLL_SPLIT) == k.zero_page
    assert head_at(space) == 0
    check_all(k, space)


def test_a_shared_huge_page_is_unshared_before_it_is_pinned_for_reading() -> None:
    k = huge_kernel(name="6.1")
    space = touched(k)
    head = head_at(space)
    child = space.fork()
    assert looked_up(child, 5, FOLL_PIN) == -EMLINK
    pages = pin_user_pages(k, child.mm, child.at(9), 1, False)
    assert pages[0] not in range(head, head + HUGE)
    assert k.pg_flags[pages[0]] & PG_anon_exclusive
    store(child, 9, b"seen")
    assert frame(child, 9) == pages[0]
    unpin_user_page(k, pages[0])
    check_all(k, space, child)


def test_populating_locked_memory_mlocks_huge_pages_whole(k: Kernel) -> None:
    space = huge_space(k)
    space.vma(0).vm_flags |= VM_LOCKED
    mm_populate(k, space.mm, space.at(0), HPAGE_PMD_SIZE)
    head = head_at(space)
    assert (k.pg_flags[head] & PG_mlocked, k.vm_stat[NR_MLOCK]) == (PG_mlocked, HUGE)
    # Not one that somebody else maps as well.
    k.vm_stat[NR_MLOCK] -= HUGE
    k.pg_flags[head] &= ~PG_mlocked
    child = space.fork()
    space.mm.mmap_sem.down_read()
    follow_page(k, space.vma(0), space.at(0), FOLL_MLOCK)
    space.mm.mmap_sem.up_read()
    assert not k.pg_flags[head] & PG_mlocked
    space.vma(0).vm_flags &= ~VM_LOCKED
    child.exit()
    space.exit()


# ---------------------------------------------------------------- CPUs


def cpu_task(space: Space) -> Task:
    """A task of the process on a CPU."""
    return Task("t", 1, space.mm, 0)


def test_a_cpu_reads_and_writes_through_a_pmd(k: Kernel) -> None:
    space = huge_space(k)
    task = cpu_task(space)
    write_bytes(k, task, space.at(3) + 5, b"over the border" * 400)
    assert head_at(space)
    assert read_bytes(k, task, space.at(3) + 5, 15) == b"over the border"
    assert read_bytes(k, task, space.at(4) - 1, 3) == (b"over the border" * 400)[4090:4093]
    # What it remembers is pages of 4 KiB, each with its own frame.
    entry = tlb_lookup(k, 0, space.mm, space.at(4))
    assert entry & _PAGE_PSE == 0
    assert (entry >> 12) & 0xFFFFF == head_at(space) + 4
    check_all(k)


def test_a_walk_marks_the_pmd_and_a_store_marks_it_dirty(k: Kernel) -> None:
    space = touched(k)
    task = cpu_task(space)
    k.pt[slot(space)] &= ~(_PAGE_ACCESSED | _PAGE_DIRTY)
    touch_range(k, task, space.at(0), space.at(4), False)
    assert pmd_at(space) & (_PAGE_ACCESSED | _PAGE_DIRTY) == _PAGE_ACCESSED
    touch_range(k, task, space.at(1), space.at(2), True)
    assert pmd_at(space) & (_PAGE_ACCESSED | _PAGE_DIRTY) == _PAGE_ACCESSED | _PAGE_DIRTY
    assert len(tlb_entries(k)) == 4
    assert space.mprotect(0, HUGE, PROT_READ) == 0
    assert tlb_entries(k) == []
    check_all(k)

# SPDX-License-Identifier: GPL-2.0-only
"""madvise: flags of VMAs, pages given up at once or later, and pages moved in the LRU."""

from __future__ import annotations

from functools import partial

import pytest
from interruptions import interrupted
from kernels import Failing, make_kernel
from spaces import Space

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.bits import (
    _PAGE_ACCESSED,
    _PAGE_DIRTY,
    EAGAIN,
    EINVAL,
    ENOMEM,
    LRU_ACTIVE_ANON,
    LRU_INACTIVE_ANON,
    LRU_INACTIVE_FILE,
    MADV_COLD,
    MADV_DODUMP,
    MADV_DOFORK,
    MADV_DONTDUMP,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_HUGEPAGE,
    MADV_KEEPONFORK,
    MADV_MERGEABLE,
    MADV_NOHUGEPAGE,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_UNMERGEABLE,
    MADV_WILLNEED,
    MADV_WIPEONFORK,
    MAX_MAP_COUNT,
    MM_ANONPAGES,
    MM_SWAPENTS,
    PAGE_SIZE,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_IO,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_WIPEONFORK,
    PG_active,
    PG_dirty,
    PG_referenced,
    PG_swapbacked,
)
from rmap.mm.content import page_read, page_write
from rmap.mm.filemap import make_file
from rmap.mm.madvise import do_madvise
from rmap.mm.mm_types import Task
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.pgtable import is_swap_pte, pte_lookup, pte_to_swp_entry
from rmap.mm.swap_cache import lookup_swap_cache
from rmap.mm.swap_slots import swapon
from rmap.mm.tlb import make_cpus, switch_mm, tlb_fill, tlb_lookup
from rmap.mm.vmscan import VmscanReclaimer
from rmap.sync.bits import OP_ACQUIRE, OP_RELEASE, RANK_MMAP_SEM, RANK_PTL


def make_space(**quirks: bool) -> Space:
    k = make_kernel(512, **quirks)
    make_cpus(k, 2)
    k.reclaimer = VmscanReclaimer()
    swapon(k, 64)
    return Space(k)


@pytest.fixture
def space() -> Space:
    return make_space()


def set_entry_bits(space: Space, page: int, clear: int = 0, add: int = 0) -> None:
    """Do to an entry what a processor, or aging, does."""
    ptep = pte_lookup(space.k, space.mm, space.at(page))
    space.k.pt[ptep] = space.k.pt[ptep] & ~clear | add


def lru_size(space: Space, lru: int) -> int:
    return space.k.memcgs[0].lruvec.size[lru]


# ---------------------------------------------------------------- flags


@pytest.mark.parametrize(
    ("advice", "flags", "back"),
    [
        (MADV_SEQUENTIAL, VM_SEQ_READ, MADV_NORMAL),
        (MADV_RANDOM, VM_RAND_READ, MADV_NORMAL),
        (MADV_DONTFORK, VM_DONTCOPY, MADV_DOFORK),
        (MADV_WIPEONFORK, VM_WIPEONFORK, MADV_KEEPONFORK),
        (MADV_DONTDUMP, VM_DONTDUMP, MADV_DODUMP),
        (MADV_MERGEABLE, VM_MERGEABLE, MADV_UNMERGEABLE),
    ],
)
def test_an_advice_splits_and_its_opposite_merges(space, advice, flags, back):
    space.mmap(0, 12)
    space.write(0, 12)
    assert space.madvise(4, 4, advice) == 0
    assert space.layout() == ["0-4 rw-p 0", "4-8 rw-p 4", "8-12 rw-p 8"]
    assert [v.vm_flags & flags for v in space.mm.vmas] == [0, flags, 0]
    # Once more changes nothing, and half of it grows into the neighbour.
    assert space.madvise(4, 4, advice) == 0
    assert space.madvise(2, 4, advice) == 0
    assert space.layout() == ["0-2 rw-p 0", "2-8 rw-p 2", "8-12 rw-p 8"]
    assert space.madvise(0, 12, back) == 0
    assert space.layout() == ["0-12 rw-p 0"]
    assert check_kernel(space.k, {}) == []


def test_advices_that_replace_each_other(space):
    space.mmap(0, 4)
    space.madvise(0, 4, MADV_RANDOM)
    space.madvise(0, 4, MADV_SEQUENTIAL)
    assert space.vma(0).vm_flags & (VM_SEQ_READ | VM_RAND_READ) == VM_SEQ_READ
    space.madvise(0, 4, MADV_HUGEPAGE)
    assert space.vma(0).vm_flags & (VM_HUGEPAGE | VM_NOHUGEPAGE) == VM_HUGEPAGE
    space.madvise(0, 4, MADV_NOHUGEPAGE)
    assert space.vma(0).vm_flags & (VM_HUGEPAGE | VM_NOHUGEPAGE) == VM_NOHUGEPAGE


def test_holes_are_passed_over_and_reported(space):
    space.mmap(2, 2)
    space.mmap(6, 2)
    assert space.madvise(0, 10, MADV_DONTFORK) == -ENOMEM
    assert all(v.vm_flags & VM_DONTCOPY for v in space.mm.vmas)
    assert space.madvise(3, 4, MADV_DOFORK) == -ENOMEM
    assert space.layout() == ["2-3 rw-p 2", "3-4 rw-p 3", "6-7 rw-p 6", "7-8 rw-p 7"]
    assert space.madvise(4, 2, MADV_DOFORK) == -ENOMEM
    assert space.madvise(100, 2, MADV_DOFORK) == -ENOMEM


def test_nonsense_is_refused(space):
    k, mm = space.k, space.mm
    file = make_file(k, "F", 4, True)
    space.mmap(0, 4)
    space.mmap(8, 4, shared=True, file=file)
    assert space.madvise(0, 1, 99) == -EINVAL
    assert do_madvise(k, mm, space.at(0) + 1, PAGE_SIZE, MADV_NORMAL) == -EINVAL
    assert do_madvise(k, mm, space.at(0), 0, MADV_NORMAL) == 0
    assert do_madvise(k, mm, space.at(0), bits.ULONG_MAX, MADV_NORMAL) == -EINVAL
    assert space.madvise(8, 4, MADV_WIPEONFORK) == -EINVAL
    assert space.madvise(8, 4, MADV_FREE) == -EINVAL
    # KSM does not mind what it has nothing to do with.
    assert space.madvise(8, 4, MADV_MERGEABLE) == 0
    assert not space.vma(8).vm_flags & VM_MERGEABLE
    space.vma(0).vm_flags |= VM_IO
    assert space.madvise(0, 4, MADV_DOFORK) == -EINVAL
    assert space.madvise(0, 4, MADV_DODUMP) == -EINVAL


def test_no_more_vmas_than_an_mm_may_have(space):
    space.mmap(0, 8)
    space.mm.map_count = MAX_MAP_COUNT
    assert space.madvise(2, 2, MADV_DONTFORK) == -ENOMEM
    space.mm.map_count = 1
    space.k.inject = Failing(1, "vma")
    assert space.madvise(2, 2, MADV_DONTFORK) == -EAGAIN


# ---------------------------------------------------------------- MADV_DONTNEED


def test_dontneed_gives_pages_up_at_once(space):
    space.mmap(0, 8)
    space.write(0, 8)
    free = space.k.nr_free
    assert space.madvise(2, 4, MADV_DONTNEED) == 0
    assert space.k.nr_free == free + 4
    assert space.mm.rss_stat[MM_ANONPAGES] == 4
    space.mlock(0, 1)
    assert space.madvise(0, 8, MADV_DONTNEED) == -EINVAL
    assert check_kernel(space.k, {}) == []


# ---------------------------------------------------------------- MADV_FREE


def test_free_makes_pages_clean_old_and_lazy(space):
    """kernel-facts 8.15."""
    k = space.k
    space.mmap(0, 2)
    space.write(0, 2)
    page = space.pfn(0)
    k.pg_flags[page] |= PG_dirty
    assert space.madvise(0, 1, MADV_FREE) == 0
    assert not space.pte(0) & (_PAGE_ACCESSED | _PAGE_DIRTY)
    assert not k.pg_flags[page] & (PG_dirty | PG_swapbacked | PG_active)
    assert lru_size(space, LRU_INACTIVE_FILE) == 1
    assert space.pte(1) & _PAGE_DIRTY
    assert check_kernel(k, {}) == []


def test_a_page_that_others_map_is_only_freed_if_it_was_never_written_out(space):
    k = space.k
    space.mmap(0, 2)
    space.write(0, 2)
    plain, dirty = space.pfn(0), space.pfn(1)
    k.pg_flags[dirty] |= PG_dirty
    child = space.fork()
    space.madvise(0, 2, MADV_FREE)
    assert not k.pg_flags[plain] & PG_swapbacked
    assert k.pg_flags[dirty] & PG_swapbacked
    assert space.pte(1) & _PAGE_DIRTY
    child.exit()


def test_a_page_that_is_locked_just_then_is_left(space):
    k = space.k
    space.mmap(0, 1)
    space.write(0)
    page = space.pfn(0)
    k.pg_flags[page] |= PG_dirty
    with interrupted(
        ((OP_ACQUIRE, RANK_PTL), partial(lock_page, k, page)),
        ((OP_RELEASE, RANK_MMAP_SEM), partial(unlock_page, k, page)),
    ):
        space.madvise(0, 1, MADV_FREE)
    assert k.pg_flags[page] & (PG_dirty | PG_swapbacked) == PG_dirty | PG_swapbacked


def test_swapped_pages_are_dropped_with_their_slots(space):
    k = space.k
    space.mmap(0, 4)
    space.write(0, 4)
    space.madvise(0, 4, MADV_PAGEOUT)
    assert space.mm.rss_stat[MM_SWAPENTS] == 4
    assert k.swap_areas[0].inuse == 4
    space.madvise(1, 2, MADV_FREE)
    assert space.mm.rss_stat[MM_SWAPENTS] == 2
    assert k.swap_areas[0].inuse == 2
    assert [space.pte(page) for page in (1, 2)] == [0, 0]
    assert check_kernel(k, {}) == []


def test_a_page_in_the_swap_cache_loses_its_slot(space):
    k = space.k
    space.mmap(0, 1)
    space.write(0)
    space.madvise(0, 1, MADV_PAGEOUT)
    space.read(0)
    page = space.pfn(0)
    assert k.swap_areas[0].inuse == 1
    space.madvise(0, 1, MADV_FREE)
    assert k.swap_areas[0].inuse == 0
    assert not k.pg_flags[page] & PG_swapbacked
    assert check_kernel(k, {}) == []


def test_processors_forget_that_they_may_write_without_saying_so(space):
    """A processor that had the entry dirty would not set the bit again: it is flushed."""
    k = space.k
    space.mmap(0, 1)
    space.write(0)
    switch_mm(k, Task("t", 9, space.mm, 1), space.mm)
    tlb_fill(k, 1, space.mm, space.at(0), space.pte(0))
    space.madvise(0, 1, MADV_FREE)
    assert tlb_lookup(k, 1, space.mm, space.at(0)) == 0


# ---------------------------------------------------------------- MADV_COLD, MADV_PAGEOUT


def test_cold_pages_go_to_the_inactive_list(space):
    k = space.k
    space.mmap(0, 4)
    space.write(0, 4)
    page = space.pfn(1)
    k.pg_flags[page] |= PG_referenced
    assert lru_size(space, LRU_ACTIVE_ANON) == 4
    assert space.madvise(1, 2, MADV_COLD) == 0
    assert lru_size(space, LRU_ACTIVE_ANON) == 2
    assert lru_size(space, LRU_INACTIVE_ANON) == 2
    assert not space.pte(1) & _PAGE_ACCESSED
    assert space.pte(1) & _PAGE_DIRTY
    assert not k.pg_flags[page] & PG_referenced
    assert check_kernel(k, {}) == []


def test_pageout_swaps_out(space):
    k = space.k
    space.mmap(0, 4)
    space.write(0, 4)
    page_write(k, space.pfn(2), 0, b"kept")
    assert space.madvise(0, 4, MADV_PAGEOUT) == 0
    assert all(is_swap_pte(space.pte(page)) for page in range(4))
    assert space.mm.rss_stat[MM_ANONPAGES] == 0
    space.read(2)
    assert page_read(k, space.pfn(2), 0, 4) == b"kept"
    assert check_kernel(k, {}) == []


@pytest.mark.parametrize("spares", [False, True])
def test_whether_pageout_takes_what_others_map(spares):
    space = make_space(cold_spares_shared=spares)
    space.mmap(0, 2)
    space.write(0, 2)
    child = space.fork()
    child.write(1)
    space.madvise(0, 2, MADV_PAGEOUT)
    assert (space.pfn(0) != 0) is spares
    assert (child.pfn(0) != 0) is spares
    assert space.pfn(1) == 0
    child.exit()
    assert check_kernel(space.k, {}) == []


def test_locked_memory_stays(space):
    space.mmap(0, 2)
    space.mlock(0, 2)
    assert space.madvise(0, 2, MADV_COLD) == -EINVAL
    assert space.madvise(0, 2, MADV_PAGEOUT) == -EINVAL
    assert space.pfn(0)


# ---------------------------------------------------------------- MADV_WILLNEED


def test_willneed_reads_swap_into_the_swap_cache(space):
    k = space.k
    space.mmap(0, 2)
    space.write(0, 2)
    space.madvise(0, 2, MADV_PAGEOUT)
    entry = pte_to_swp_entry(space.pte(0))
    assert space.madvise(0, 2, MADV_WILLNEED) == 0
    page = lookup_swap_cache(k, entry)
    assert page
    # Not mapped by that: the cache's reference and ours.
    assert (k.pg_refcount[page], k.pg_mapcount[page]) == (2, -1)
    k.pg_refcount[page] -= 1
    assert check_kernel(k, {}) == []


def test_willneed_reads_a_file_into_its_cache(space):
    file = make_file(space.k, "F", 6, False)
    space.mmap(0, 8, file=file, pgoff=1)
    assert space.madvise(1, 7, MADV_WILLNEED) == 0
    assert sorted(file.f_mapping.i_pages) == [2, 3, 4, 5]
    assert space.pfn(1) == 0
    assert check_kernel(space.k, {}) == []


# ---------------------------------------------------------------- locks


def test_what_changes_no_vma_needs_mmap_sem_for_read_only(space):
    """Another thread may fault meanwhile."""
    space.mmap(0, 2)
    space.write(0, 2)
    mm = space.mm
    seen: list[int] = []

    def other() -> None:
        assert mm.mmap_sem.down_read_trylock()
        mm.mmap_sem.up_read()
        seen.append(mm.mmap_sem.count)

    with interrupted(((OP_ACQUIRE, RANK_PTL), other)):
        assert space.madvise(0, 2, MADV_FREE) == 0
    assert seen == [1]


def test_a_write_meanwhile_keeps_the_page(space):
    """After the entry was emptied and before it is put back nobody can write through it."""
    space.mmap(0, 1)
    space.write(0)
    space.madvise(0, 1, MADV_FREE)
    page = space.pfn(0)
    set_entry_bits(space, 0, add=_PAGE_DIRTY)
    space.madvise(0, 1, MADV_COLD)
    assert space.pte(0) & _PAGE_DIRTY
    assert space.pfn(0) == page

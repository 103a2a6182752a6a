# SPDX-License-Identifier: GPL-2.0-only
"""mremap: what moves, what stays, and what another CPU can see of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from kernels import Failing, make_kernel
from spaces import Space

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.bits import (
    EFAULT,
    EINVAL,
    ENOMEM,
    MADV_MERGEABLE,
    MAP_FIXED,
    MAP_LOCKED,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    NR_MLOCK,
    PAGE_SHIFT,
    PAGE_SIZE,
    PROT_READ,
    VM_ACCOUNT,
    VM_LOCKED,
)
from rmap.mm.filemap import make_file, truncate
from rmap.mm.lru import put_page
from rmap.mm.mm_types import Kernel, Task, Vma
from rmap.mm.mremap import do_mremap, move_page_tables
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.page_vma_mapped import page_mapped_in_vma
from rmap.mm.pgtable import pte_lookup, pte_soft_dirty
from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk
from rmap.mm.tlb import make_cpus, switch_mm, tlb_fill, tlb_lookup
from rmap.mm.vma_merge import VmaCopy, copy_vma
from rmap.sync.bits import OP_RELEASE, RANK_PTL
from rmap.sync.explore import Cpu, RandomWalk, Step, Strategy, World, explore

LATER = {
    "mremap_dontunmap": True,
    "dontunmap_unlinks_anon_vma": True,
    "unlink_clears_anon_vma": True,
}


def make_space(**quirks: bool) -> Space:
    k = make_kernel(512, **quirks)
    make_cpus(k, 2)
    return Space(k)


@pytest.fixture
def space() -> Space:
    return make_space()


class Mappers(RmapWalkControl):
    """A walk that collects the VMAs that map the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Vma] = []

    def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
        if page_mapped_in_vma(k, page, vma):
            self.found.append(vma)
        return True


def mappers(k: Kernel, page: int) -> list[Vma]:
    """Who maps a page, by a walk under the page lock."""
    control = Mappers()
    lock_page(k, page)
    rmap_walk(k, page, control)
    unlock_page(k, page)
    return control.found


def is_account(space: Space, page: int) -> bool:
    return bool(space.vma(page).vm_flags & VM_ACCOUNT)


# ---------------------------------------------------------------- moving


def test_a_moved_page_keeps_its_index_and_anon_vma(space):
    """kernel-facts 8.16."""
    k = space.k
    space.mmap(0, 4)
    space.write(0, 4)
    root = space.vma(0).anon_vma
    frames = [space.pfn(page) for page in range(4)]
    indexes = [k.pg_index[frame] for frame in frames]
    assert space.mremap(0, 4, 100) == space.at(100)
    assert space.layout() == ["100-104 rw-p 0"]
    assert [space.pfn(page) for page in range(100, 104)] == frames
    assert [k.pg_index[frame] for frame in frames] == indexes
    assert space.vma(100).anon_vma is root
    assert (root.degree, root.refcount) == (2, 1)
    assert [space.pte(page) for page in range(4)] == [0, 0, 0, 0]
    assert mappers(k, frames[2]) == [space.vma(100)]
    assert check_kernel(k, {}) == []


def test_unfaulted_memory_is_indexed_by_its_new_address(space):
    space.mmap(0, 4)
    space.mmap(104, 4)
    space.mremap(0, 4, 100)
    assert space.layout() == ["100-108 rw-p 100"]


def test_faulted_memory_merges_where_its_index_goes_on(space):
    space.mmap(0, 8)
    space.write(0, 8)
    space.mremap(4, 4, 100)
    assert space.layout() == ["0-4 rw-p 0", "100-104 rw-p 4"]
    space.mremap(100, 4, 4)
    assert space.layout() == ["0-8 rw-p 0"]
    assert space.vma(0).anon_vma.degree == 2
    assert check_kernel(space.k, {}) == []


def test_a_part_moves_and_the_rest_stays(space):
    space.mmap(0, 12)
    space.write(0, 12)
    space.mremap(4, 4, 100)
    assert space.layout() == ["0-4 rw-p 0", "8-12 rw-p 8", "100-104 rw-p 4"]
    assert all(is_account(space, page) for page in (0, 8, 100))
    assert space.vma(0).anon_vma.degree == 4
    space.mremap(0, 2, 200)
    space.mremap(10, 2, 300)
    assert all(is_account(space, page) for page in (2, 8, 200, 300))
    assert space.mm.total_vm == 12
    assert check_kernel(space.k, {}) == []


def test_what_is_at_the_new_place_goes(space):
    space.mmap(0, 4)
    space.write(0, 4)
    space.mmap(98, 4, PROT_READ)
    space.mremap(0, 4, 100)
    assert space.layout() == ["98-100 r--p 98", "100-104 rw-p 0"]


def test_it_can_shrink_or_grow_on_the_way(space):
    space.mmap(0, 8)
    space.write(0, 8)
    third = space.pfn(2)
    space.mremap(0, 6, 100, 3)
    assert space.layout() == ["6-8 rw-p 6", "100-103 rw-p 0"]
    assert space.pfn(102) == third
    space.mremap(100, 3, 200, 6)
    assert space.layout() == ["6-8 rw-p 6", "200-206 rw-p 0"]
    assert (space.pfn(202), space.pfn(203)) == (third, 0)
    assert check_kernel(space.k, {}) == []


def test_moved_entries_are_soft_dirty_and_otherwise_the_same(space):
    space.mmap(0, 2)
    space.read(0)
    before = space.pte(0)
    assert not pte_soft_dirty(before)
    space.mremap(0, 2, 100)
    assert space.pte(100) == before | bits._PAGE_SOFT_DIRTY


def test_ranges_across_page_tables_move_whole(space):
    space.mmap(500, 600)
    for page in range(500, 1100, 7):
        space.write(page)
    frames = [space.pfn(page) for page in range(500, 1100)]
    # Not aligned to each other, so extents end at the tables of either place.
    space.mremap(500, 600, 5003)
    assert [space.pfn(page) for page in range(5003, 5603)] == frames
    assert check_kernel(space.k, {}) == []


def test_files_keep_their_offset(space):
    file = make_file(space.k, "F", 16, True)
    space.mmap(0, 8, shared=True, file=file, pgoff=3)
    space.write(0, 8)
    space.mremap(2, 4, 100)
    assert space.layout() == ["0-2 rw-s 3", "6-8 rw-s 9", "100-104 rw-s 5"]
    assert space.pfn(101) == file.f_mapping.i_pages[6]
    assert file.f_count == 4
    assert check_kernel(space.k, {}) == []


def test_old_length_0_maps_shared_memory_twice(space):
    file = make_file(space.k, "F", 16, True)
    space.mmap(0, 8, shared=True, file=file, pgoff=3)
    assert space.mremap(2, 0, 100, 4) == space.at(100)
    assert space.layout() == ["0-8 rw-s 3", "100-104 rw-s 5"]
    space.mmap(20, 4)
    assert space.mremap(20, 0, 200, 4) == -EINVAL


def test_nonsense_is_refused(space):
    k, mm = space.k, space.mm
    space.mmap(0, 4)
    at = space.at(0)
    fixed = MREMAP_MAYMOVE | MREMAP_FIXED
    assert do_mremap(k, mm, at, PAGE_SIZE, PAGE_SIZE, 64, 0) == -EINVAL
    assert do_mremap(k, mm, at, PAGE_SIZE, PAGE_SIZE, MREMAP_FIXED, space.at(9)) == -EINVAL
    assert do_mremap(k, mm, at + 1, PAGE_SIZE, PAGE_SIZE, 0, 0) == -EINVAL
    assert do_mremap(k, mm, at, PAGE_SIZE, 0, 0, 0) == -EINVAL
    assert do_mremap(k, mm, at, PAGE_SIZE, PAGE_SIZE, fixed, space.at(9) + 1) == -EINVAL
    assert do_mremap(k, mm, at, PAGE_SIZE, PAGE_SIZE, fixed, bits.TASK_SIZE) == -EINVAL
    assert space.mremap(0, 4, 2) == -EINVAL
    assert space.mremap(50, 4, 100) == -EFAULT
    assert space.mremap(0, 5, 100) == -EFAULT
    # v4.18 knows no MREMAP_DONTUNMAP.
    assert space.mremap(0, 4, 100, dontunmap=True) == -EINVAL
    assert space.layout() == ["0-4 rw-p 0"]


def test_in_418_the_new_place_is_lost_even_if_there_is_no_old_one(space):
    space.mmap(100, 4)
    assert space.mremap(0, 4, 100) == -EFAULT
    assert space.layout() == []
    later = make_space(mremap_looks_at_source_first=True)
    later.mmap(100, 4)
    assert later.mremap(0, 4, 100) == -EFAULT
    assert later.layout() == ["100-104 rw-p 100"]


# ---------------------------------------------------------------- growing and shrinking in place


def test_it_grows_in_place_if_nothing_is_behind(space):
    space.mmap(0, 4)
    space.write(0, 4)
    assert space.resize(0, 4, 8) == space.at(0)
    assert space.layout() == ["0-8 rw-p 0"]
    space.mmap(10, 2, PROT_READ)
    assert space.resize(0, 8, 10, 0) == space.at(0)
    assert space.resize(0, 10, 11, 0) == -ENOMEM
    # A part in the middle cannot grow in place either.
    assert space.resize(2, 2, 4, 0) == -ENOMEM
    assert space.mm.total_vm == 12
    assert check_kernel(space.k, {}) == []


def test_it_moves_to_where_there_is_room(space):
    space.mmap(0, 4)
    space.write(0, 4)
    space.mmap(4, 2, PROT_READ)
    first = space.pfn(0)
    where = space.resize(0, 4, 8)
    assert where == bits.MMAP_BASE - 8 * PAGE_SIZE
    assert space.pfn(space.page(where)) == first
    assert space.layout()[0] == "4-6 r--p 4"


def test_shrinking_unmaps_the_end(space):
    space.mmap(0, 8)
    space.write(0, 8)
    assert space.resize(0, 8, 3, 0) == space.at(0)
    assert space.layout() == ["0-3 rw-p 0"]
    assert space.resize(0, 3, 3, 0) == space.at(0)
    assert space.mm.rss_stat[bits.MM_ANONPAGES] == 3


@pytest.mark.parametrize("merges", [False, True])
def test_growing_up_to_a_twin(merges):
    """v4.18 leaves two VMAs that could be one; from 6.0 they are."""
    space = make_space(mremap_expand_merges=merges)
    space.mmap(0, 8)
    space.munmap(4, 2)
    assert space.layout() == ["0-4 rw-p 0", "6-8 rw-p 6"]
    assert space.resize(0, 4, 6) == space.at(0)
    assert space.layout() == (["0-8 rw-p 0"] if merges else ["0-6 rw-p 0", "6-8 rw-p 6"])
    assert check_kernel(space.k, {}) == []


def test_locked_memory_that_grows_is_brought_in(space):
    space.mmap(0, 2, flags=MAP_FIXED | MAP_LOCKED)
    space.resize(0, 2, 4)
    assert space.pfn(3)
    assert space.mm.locked_vm == 4
    space.mremap(0, 4, 100, 6)
    assert space.pfn(105)
    assert space.mm.locked_vm == 6
    assert space.k.vm_stat[NR_MLOCK] == 6
    assert space.vma(100).vm_flags & VM_LOCKED
    assert check_kernel(space.k, {}) == []


# ---------------------------------------------------------------- failures


def test_without_tables_for_all_of_it_everything_is_moved_back(space):
    k = space.k
    space.mmap(500, 24)
    space.write(500, 24)
    frames = [space.pfn(page) for page in range(500, 524)]
    free = k.nr_free
    # The table for the first part of the new place is there; the one for the second is not.
    k.inject = Failing(2, "page_table")
    assert space.mremap(500, 24, 5 * 512 - 12) == -ENOMEM
    k.inject = None
    assert space.layout() == ["500-524 rw-p 500"]
    assert [space.pfn(page) for page in range(500, 524)] == frames
    assert is_account(space, 500)
    assert (space.mm.total_vm, k.nr_free) == (24, free)
    assert check_kernel(k, {}) == []


@pytest.mark.parametrize("site", ["vma", "anon_vma_chain"])
def test_without_memory_for_the_copy_nothing_moves(space, site):
    space.mmap(0, 4)
    space.write(0, 4)
    space.k.inject = Failing(1, site)
    assert space.mremap(0, 4, 100) == -ENOMEM
    space.k.inject = None
    assert space.layout() == ["0-4 rw-p 0"]
    assert check_kernel(space.k, {}) == []


def test_a_source_that_cannot_be_split_stays_without_its_promise(space):
    """The move is done, and unmapping the old range fails: only the accounts are set right."""
    space.mmap(0, 12)
    space.write(0, 12)
    space.k.inject = Failing(2, "vma", once=True)
    assert space.mremap(4, 4, 100) == space.at(100)
    space.k.inject = None
    assert space.layout() == ["0-12 rw-p 0", "100-104 rw-p 4"]
    assert [is_account(space, 0), is_account(space, 100)] == [False, True]
    assert space.pfn(4) == 0


# ---------------------------------------------------------------- what others see


def test_locks_are_needed_if_the_copy_comes_first_in_the_walk(space):
    k, mm = space.k, space.mm
    space.mmap(0, 12)
    space.write(0, 12)
    space.mremap(4, 4, 100)
    mm.mmap_sem.down_write()
    # Back between the two: it becomes part of the first, which a walk meets before it.
    copy = VmaCopy(space.vma(100))
    new = copy_vma(k, copy, space.at(4), 4 << PAGE_SHIFT, space.vma(100).vm_pgoff)
    assert new is space.vma(0)
    assert copy.need_rmap_locks
    # To where nothing is: a new VMA, behind the old one in the tree.
    copy = VmaCopy(space.vma(100))
    copy_vma(k, copy, space.at(300), 4 << PAGE_SHIFT, space.vma(100).vm_pgoff)
    assert not copy.need_rmap_locks
    mm.mmap_sem.up_write()


class HandOver(Strategy):
    """One run: a CPU goes on until it has taken some step so often, then the others if they can."""

    def __init__(self, first: str, op: int, kind: int, count: int) -> None:
        self.until = (first, op, kind)
        self.count = count
        self.runs = 0

    def begin(self) -> bool:
        self.runs += 1
        return self.runs == 1

    def choose(self, enabled: Sequence[Step]) -> int:
        wanted = [(step.cpu == self.until[0]) == (self.count > 0) for step in enabled]
        chosen = wanted.index(True) if any(wanted) else 0
        if enabled[chosen][:3] == self.until:
            self.count -= 1
        return chosen


def mover_and_walker(locks: bool) -> World:
    """A page is about to move to a VMA that walks meet first, and a walk looks for it."""
    space = make_space(rmap_locks_in_mremap=locks)
    k, mm = space.k, space.mm
    space.mmap(0, 12)
    space.write(0, 12)
    space.mremap(4, 4, 1024)
    page = space.pfn(1025)
    mm.mmap_sem.down_write()
    copy = VmaCopy(space.vma(1024))
    new = copy_vma(k, copy, space.at(4), 4 << PAGE_SHIFT, copy.vma.vm_pgoff)
    mm.mmap_sem.up_write()
    assert copy.need_rmap_locks

    def move() -> None:
        move_page_tables(
            k, copy.vma, space.at(1025), new, space.at(5), PAGE_SIZE, copy.need_rmap_locks
        )

    def walk() -> None:
        assert mappers(k, page), "the walk missed the page"

    return World(
        [Cpu("mover", move, Task("mover", 1, mm)), Cpu("walker", walk, Task("walker", 2, None, 1))]
    )


@pytest.mark.parametrize("locks", [True, False])
def test_a_walk_never_misses_a_page_that_moves(locks):
    """The walk has looked at the new place when the page comes there, and then looks at the old
    one, from which it has gone; unless the mover had to wait for the walk (D15)."""
    once = HandOver("walker", OP_RELEASE, RANK_PTL, 1)
    result = explore(partial(mover_and_walker, locks), once)
    assert result.runs == 1
    missed = ["AssertionError: the walk missed the page"]
    assert [found.error for found in result.findings] == ([] if locks else missed)


def test_in_whatever_order():
    result = explore(partial(mover_and_walker, True), RandomWalk(1, 100))
    assert result.findings == []


def mover_and_truncater(fixed: bool, dirty: bool) -> World:
    """A page of a file moves, and is truncated; a processor has read or written it before."""
    space = make_space(mremap_flushes_under_lock=fixed)
    k, mm = space.k, space.mm
    file = make_file(k, "F", 4, True)
    space.mmap(0, 1, shared=True, file=file)
    if dirty:
        space.write(0)
    else:
        space.read(0)
    page = space.pfn(0)
    switch_mm(k, Task("reader", 9, mm, 1), mm)
    tlb_fill(k, 1, mm, space.at(0), space.pte(0))

    def move() -> None:
        assert space.mremap(0, 1, 1024) == space.at(1024)

    def cut() -> None:
        truncate(k, file, 0)
        assert k.pg_refcount[page] == 0
        assert not tlb_lookup(k, 1, mm, space.at(0)), "a freed page can still be read"

    return World(
        [Cpu("mover", move, Task("mover", 1, mm)), Cpu("cutter", cut, Task("cut", 2, None))]
    )


@pytest.mark.parametrize(
    ("fixed", "dirty", "stale"),
    [(False, False, True), (False, True, False), (True, False, False), (True, True, False)],
)
def test_a_page_that_is_freed_through_its_new_address(fixed, dirty, stale):
    """CVE-2018-18281: the file is truncated once the page-table locks are dropped, and in v4.18 a
    processor goes on reading the freed page through the old address until the flush. For dirty
    pages that came in time, since page_mkclean() needed it."""
    once = HandOver("mover", OP_RELEASE, RANK_PTL, 2)
    result = explore(partial(mover_and_truncater, fixed, dirty), once)
    assert result.runs == 1
    found = ["AssertionError: a freed page can still be read"]
    assert [finding.error for finding in result.findings] == (found if stale else [])


def test_ksm_pages_are_taken_apart_before_they_move(space):
    """At their new address KSM would not find them."""
    k = space.k
    space.mmap(0, 2)
    space.write(0, 2)
    space.madvise(0, 2, MADV_MERGEABLE)
    page = space.pfn(0)
    word = k.pg_mapping[page]
    k.pg_mapping[page] = bits.PAGE_MAPPING_KSM
    ptep = pte_lookup(k, space.mm, space.at(0))
    k.pt[ptep] &= ~bits._PAGE_RW
    k.pg_refcount[page] += 1
    space.mremap(0, 2, 100)
    assert space.pfn(100) not in (0, page)
    assert k.pg_mapcount[page] == -1
    k.pg_mapping[page] = word
    put_page(k, page)
    assert check_kernel(k, {}) == []


# ---------------------------------------------------------------- MREMAP_DONTUNMAP


def test_dontunmap_leaves_the_old_range_empty():
    space = make_space(**LATER)
    space.mmap(0, 4)
    space.write(0, 4)
    first = space.pfn(0)
    root = space.vma(0).anon_vma
    assert space.mremap(0, 4, 100, dontunmap=True) == space.at(100)
    assert space.layout() == ["0-4 rw-p 0", "100-104 rw-p 0"]
    assert (space.pfn(0), space.pfn(100)) == (0, first)
    assert space.vma(0).anon_vma is None
    assert (root.degree, space.mm.total_vm) == (2, 8)
    assert is_account(space, 0)
    space.write(0)
    assert space.pfn(0) != first
    assert check_kernel(space.k, {}) == []


def test_dontunmap_cannot_resize_and_takes_an_address_as_a_wish():
    space = make_space(**LATER)
    space.mmap(0, 4)
    flags = MREMAP_MAYMOVE | MREMAP_DONTUNMAP
    k, mm, length = space.k, space.mm, 4 << PAGE_SHIFT
    assert do_mremap(k, mm, space.at(0), length, 2 * length, flags, 0) == -EINVAL
    assert do_mremap(k, mm, space.at(0), length, length, MREMAP_DONTUNMAP, 0) == -EINVAL
    wish = do_mremap(k, mm, space.at(0), length, length, flags, space.at(50))
    assert wish == space.at(50)
    other = do_mremap(k, mm, space.at(0), length, length, flags, space.at(50))
    assert other == bits.MMAP_BASE - length


@pytest.mark.parametrize("splits", [False, True])
def test_what_a_locked_source_becomes(splits):
    """Moved in part: all of it is unlocked, or with the later repair only the part."""
    space = make_space(**LATER, dontunmap_splits_source=splits)
    space.mmap(0, 8)
    space.mlock(0, 8)
    space.mremap(2, 2, 100, dontunmap=True)
    locked = [bool(v.vm_flags & VM_LOCKED) for v in space.mm.vmas]
    if splits:
        assert space.layout() == ["0-2 rw-p 0", "2-4 rw-p 2", "4-8 rw-p 4", "100-102 rw-p 2"]
        assert locked == [True, False, True, True]
        assert space.vma(2).anon_vma is None
    else:
        assert space.layout() == ["0-8 rw-p 0", "100-102 rw-p 2"]
        assert locked == [False, True]
    assert space.mm.locked_vm == 8


@pytest.mark.parametrize("splits", [False, True])
def test_where_a_source_is_indexed_that_was_moved_before(splits):
    space = make_space(**LATER, dontunmap_splits_source=splits)
    space.mmap(0, 4)
    space.write(0, 4)
    space.mremap(0, 4, 50)
    assert space.layout() == ["50-54 rw-p 0"]
    space.mremap(50, 4, 100, dontunmap=True)
    assert space.layout() == [f"50-54 rw-p {50 if splits else 0}", "100-104 rw-p 0"]


@pytest.mark.parametrize("apart", [False, True])
def test_whether_a_copy_beside_its_source_becomes_part_of_it(apart):
    space = make_space(**LATER, dontunmap_splits_source=apart)
    space.mmap(0, 8)
    space.mremap(2, 2, 8, dontunmap=True)
    assert space.layout() == (["0-8 rw-p 0", "8-10 rw-p 8"] if apart else ["0-10 rw-p 0"])
    assert check_kernel(space.k, {}) == []

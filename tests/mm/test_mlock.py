# SPDX-License-Identifier: GPL-2.0-only
"""mlock and munlock: which pages are unevictable, and who finds out when they are no more."""

from __future__ import annotations

import pytest
from kernels import Failing, make_kernel
from spaces import Space

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.bits import (
    EINVAL,
    ENOMEM,
    LRU_UNEVICTABLE,
    NR_MLOCK,
    PAGE_SHIFT,
    PAGEVEC_SIZE,
    PROT_NONE,
    PROT_READ,
    RMAP_WALKS,
    UNEVICTABLE_PGMUNLOCKED,
    UNEVICTABLE_PGRESCUED,
    UNEVICTABLE_PGSTRANDED,
    VM_LOCKED,
    VM_LOCKONFAULT,
    PG_mlocked,
    PG_unevictable,
)
from rmap.mm.filemap import make_file
from rmap.mm.lru import isolate_lru_page, putback_lru_page
from rmap.mm.mlock import do_mlock, do_munlock
from rmap.mm.tlb import make_cpus


def make_space(**quirks: bool) -> Space:
    k = make_kernel(512, **quirks)
    make_cpus(k, 1)
    return Space(k)


@pytest.fixture
def space() -> Space:
    return make_space()


def unevictable(space: Space) -> int:
    return space.k.memcgs[0].lruvec.size[LRU_UNEVICTABLE]


def is_mlocked(space: Space, page: int) -> bool:
    flags = space.k.pg_flags[space.pfn(page)]
    assert bool(flags & PG_mlocked) == bool(flags & PG_unevictable)
    return bool(flags & PG_mlocked)


# ---------------------------------------------------------------- one process


def test_mlock_brings_in_and_pins_to_the_unevictable_list(space):
    space.mmap(0, 8)
    space.write(0, 4)
    assert space.mlock(2, 4) == 0
    assert space.layout() == ["0-2 rw-p 0", "2-6 rw-p 2", "6-8 rw-p 6"]
    assert [is_mlocked(space, page) for page in range(6)] == [False] * 2 + [True] * 4
    assert (space.mm.locked_vm, space.k.vm_stat[NR_MLOCK], unevictable(space)) == (4, 4, 4)
    assert space.munlock(2, 4) == 0
    assert space.layout() == ["0-8 rw-p 0"]
    assert (space.mm.locked_vm, space.k.vm_stat[NR_MLOCK], unevictable(space)) == (0, 0, 0)
    assert space.k.vm_stat[UNEVICTABLE_PGRESCUED] == 4
    assert check_kernel(space.k, {}) == []


def test_munlock_takes_pages_in_batches(space):
    pages = 2 * PAGEVEC_SIZE + 3
    # From the end of one page table into the next.
    space.mmap(500, pages)
    space.mlock(500, pages)
    assert unevictable(space) == pages
    walks = space.k.vm_stat[RMAP_WALKS]
    space.munlock(500, pages)
    assert unevictable(space) == 0
    assert space.k.vm_stat[UNEVICTABLE_PGMUNLOCKED] == pages
    # Mapped once means mapped by us: nobody has to be asked.
    assert space.k.vm_stat[RMAP_WALKS] == walks
    assert check_kernel(space.k, {}) == []


def test_locking_twice_counts_once(space):
    space.mmap(0, 8)
    space.mlock(0, 4)
    space.mlock(2, 6)
    assert space.layout() == ["0-8 rw-p 0"]
    assert (space.mm.locked_vm, space.k.vm_stat[NR_MLOCK]) == (8, 8)
    space.munlock(4, 8)
    assert space.mm.locked_vm == 4
    space.munlock(0, 4)
    assert space.mm.locked_vm == 0


def test_a_hole_ends_it(space):
    space.mmap(0, 2)
    space.mmap(4, 2)
    assert space.mlock(0, 6) == -ENOMEM
    assert [bool(v.vm_flags & VM_LOCKED) for v in space.mm.vmas] == [True, False]
    # Nothing is brought in, as the call has failed.
    assert space.pfn(0) == 0
    assert space.mlock(2, 2) == -ENOMEM
    assert do_mlock(space.k, space.mm, space.at(0), bits.ULONG_MAX) == -EINVAL
    assert do_munlock(space.k, space.mm, space.at(0), bits.ULONG_MAX) == -EINVAL
    assert do_mlock(space.k, space.mm, space.at(0), 0) == 0


def test_addresses_are_rounded_outwards(space):
    space.mmap(0, 8)
    assert do_mlock(space.k, space.mm, space.at(2) + 4000, 200) == 0
    assert space.layout() == ["0-2 rw-p 0", "2-4 rw-p 2", "4-8 rw-p 4"]


def test_what_cannot_be_read_cannot_be_brought_in(space):
    space.mmap(0, 2, PROT_NONE)
    assert space.mlock(0, 2) == -ENOMEM
    assert space.vma(0).vm_flags & VM_LOCKED


def test_lock_on_fault_brings_nothing_in(space):
    space.mmap(0, 4)
    flags = VM_LOCKED | VM_LOCKONFAULT
    assert do_mlock(space.k, space.mm, space.at(0), 4 << PAGE_SHIFT, flags) == 0
    assert space.pfn(0) == 0
    space.write(1)
    assert is_mlocked(space, 1)
    assert space.mm.locked_vm == 4
    space.munlock(0, 4)
    assert not space.vma(0).vm_flags & flags
    assert not is_mlocked(space, 1)


def test_private_file_pages_are_copied_as_they_are_locked(space):
    file = make_file(space.k, "F", 4, True)
    space.mmap(0, 2, file=file)
    space.mmap(4, 2, PROT_READ, file=file)
    space.mlock(0, 2)
    space.mlock(4, 2)
    cached = [file.f_mapping.i_pages[i] for i in range(2)]
    assert [space.pfn(0), space.pfn(1)] != cached
    assert [space.pfn(4), space.pfn(5)] == cached
    assert all(is_mlocked(space, page) for page in (0, 1, 4, 5))
    assert check_kernel(space.k, {}) == []


def test_the_zero_page_is_never_locked(space):
    space.mmap(0, 4)
    space.read(0, 4)
    # A write fault comes for each anyhow, as the mapping is writable.
    space.mlock(0, 4)
    assert space.k.vm_stat[NR_MLOCK] == 4
    other = Space(space.k)
    other.mmap(0, 4, PROT_READ)
    other.mlock(0, 4)
    assert space.k.vm_stat[NR_MLOCK] == 4
    other.munlock(0, 4)
    other.exit()
    assert check_kernel(space.k, {}) == []


def test_munmap_and_exit_unlock(space):
    space.mmap(0, 8)
    space.mlock(0, 8)
    space.munmap(2, 2)
    assert (space.mm.locked_vm, space.k.vm_stat[NR_MLOCK]) == (6, 6)
    space.exit()
    assert space.k.vm_stat[NR_MLOCK] == 0
    assert check_kernel(space.k, {}) == []


def test_without_memory_to_split_nothing_is_locked(space):
    space.mmap(0, 8)
    space.k.inject = Failing(1, "vma")
    assert space.mlock(2, 2) == -ENOMEM
    space.k.inject = None
    assert (space.layout(), space.mm.locked_vm) == (["0-8 rw-p 0"], 0)


# ---------------------------------------------------------------- several processes


def shared(space: Space) -> Space:
    """Another process that maps the same shared page, both locked."""
    file = make_file(space.k, "F", 2, True)
    other = Space(space.k)
    for each in (space, other):
        each.mmap(0, 1, shared=True, file=file)
        each.mlock(0, 1)
    assert space.pfn(0) == other.pfn(0)
    return other


def test_the_first_of_two_munlocks_finds_the_other(space):
    """kernel-facts 8.13: PG_mlocked is cleared, and set again by the walk."""
    other = shared(space)
    k = space.k
    assert k.vm_stat[NR_MLOCK] == 1
    walks = k.vm_stat[RMAP_WALKS]
    space.munlock(0, 1)
    assert k.vm_stat[RMAP_WALKS] == walks + 1
    assert (k.vm_stat[NR_MLOCK], unevictable(space)) == (1, 1)
    assert is_mlocked(other, 0)
    other.munlock(0, 1)
    assert (k.vm_stat[NR_MLOCK], unevictable(space)) == (0, 0)
    assert check_kernel(k, {}) == []


def test_a_child_does_not_inherit_locks(space):
    space.mmap(0, 4)
    space.mlock(0, 4)
    child = space.fork()
    assert not child.vma(0).vm_flags & VM_LOCKED
    assert child.mm.locked_vm == 0
    space.munlock(0, 4)
    assert space.k.vm_stat[NR_MLOCK] == 0
    child.mlock(0, 2)
    # What it locked it had to copy, being writable.
    assert child.pfn(0) != space.pfn(0)
    assert child.pfn(3) == space.pfn(3)
    child.exit()
    assert check_kernel(space.k, {}) == []


def test_a_page_that_somebody_has_isolated_is_left_to_him(space):
    """Munlock cannot put it on the right list: whoever puts it back will."""
    k = space.k
    space.mmap(0, 1)
    space.mlock(0, 1)
    page = space.pfn(0)
    assert isolate_lru_page(k, page) == 0
    space.munlock(0, 1)
    assert k.vm_stat[NR_MLOCK] == 0
    assert k.vm_stat[UNEVICTABLE_PGSTRANDED] == 1
    putback_lru_page(k, page)
    assert unevictable(space) == 0
    assert check_kernel(k, {}) == []


# ---------------------------------------------------------------- v5.18


def test_counted_locks_need_no_walk():
    space = make_space(mlock_counts=True)
    other = shared(space)
    k = space.k
    walks = k.vm_stat[RMAP_WALKS]
    space.munlock(0, 1)
    assert (k.vm_stat[NR_MLOCK], unevictable(space)) == (1, 1)
    other.munlock(0, 1)
    assert (k.vm_stat[NR_MLOCK], unevictable(space)) == (0, 0)
    assert k.vm_stat[RMAP_WALKS] == walks
    assert check_kernel(k, {}) == []


def test_counted_locks_are_counted_once_a_vma():
    space = make_space(mlock_counts=True)
    space.mmap(0, 4)
    space.mlock(0, 4)
    flags = VM_LOCKED | VM_LOCKONFAULT
    do_mlock(space.k, space.mm, space.at(0), 4 << PAGE_SHIFT, flags)
    assert space.vma(0).vm_flags & flags == flags
    space.munlock(0, 4)
    assert space.k.vm_stat[NR_MLOCK] == 0
    space.mlock(0, 4)
    space.munmap(0, 2)
    assert (space.mm.locked_vm, space.k.vm_stat[NR_MLOCK]) == (2, 2)
    space.exit()
    assert space.k.vm_stat[NR_MLOCK] == 0
    assert check_kernel(space.k, {}) == []

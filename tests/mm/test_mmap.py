# SPDX-License-Identifier: GPL-2.0-only
"""mmap, munmap, brk, stacks, and the end of an address space."""

from __future__ import annotations

import pytest
from kernels import Failing, make_kernel
from spaces import RW, Space

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.bits import (
    EEXIST,
    EINVAL,
    ENOMEM,
    EPERM,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAX_MAP_COUNT,
    MMAP_BASE,
    NR_MLOCK,
    PAGE_SHIFT,
    PAGE_SIZE,
    PROT_NONE,
    PROT_READ,
    RLIMIT_STACK,
    STACK_GUARD_GAP,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_LOCKED,
    VM_NORESERVE,
    VM_SOFTDIRTY,
)
from rmap.mm.filemap import make_file
from rmap.mm.mmap import do_mmap, do_munmap, sys_brk, vm_mmap_pgoff, vm_munmap
from rmap.mm.stack import expand_stack, find_extend_vma
from rmap.mm.tlb import make_cpus

ANON = bits.MAP_PRIVATE | bits.MAP_ANONYMOUS


@pytest.fixture
def space() -> Space:
    k = make_kernel(512)
    make_cpus(k, 1)
    return Space(k)


def anywhere(space: Space, pages: int, wish: int = 0, flags: int = 0) -> int:
    """mmap() at an address of the kernel's choice."""
    length = pages << PAGE_SHIFT
    return vm_mmap_pgoff(space.k, space.mm, wish, length, RW, ANON | flags, None, 0)


# ---------------------------------------------------------------- where


def test_mappings_go_down_from_the_base(space):
    first = anywhere(space, 4)
    assert first == MMAP_BASE - 4 * PAGE_SIZE
    # The next one is below, and becomes one with it.
    assert anywhere(space, 2) == first - 2 * PAGE_SIZE
    assert space.mm.map_count == 1


def test_the_highest_hole_that_is_large_enough_is_taken(space):
    base = anywhere(space, 12)
    vm_munmap(space.k, space.mm, base + 2 * PAGE_SIZE, 2 * PAGE_SIZE)
    vm_munmap(space.k, space.mm, base + 8 * PAGE_SIZE, 2 * PAGE_SIZE)
    assert anywhere(space, 3) == base - 3 * PAGE_SIZE
    assert anywhere(space, 2) == base + 8 * PAGE_SIZE
    assert anywhere(space, 1) == base + 3 * PAGE_SIZE


def test_a_wish_is_granted_if_it_is_free(space):
    wish = space.at(5)
    assert anywhere(space, 2, wish + 7) == wish
    assert anywhere(space, 2, wish) == MMAP_BASE - 2 * PAGE_SIZE
    # Page 0 is nobody's: a wish below the lowest address is moved up.
    assert anywhere(space, 1, PAGE_SIZE + 5) == bits.MMAP_MIN_ADDR


def test_without_room_below_the_base_it_looks_above(space):
    k, mm = space.k, space.mm
    # All below the base but the first page, which nobody may have.
    assert vm_mmap_pgoff(k, mm, 0, MMAP_BASE - PAGE_SIZE, RW, ANON, None, 0) == -EPERM
    third = TASK_SIZE // 3 & bits.PAGE_MASK
    assert vm_mmap_pgoff(k, mm, third, MMAP_BASE - third, RW, ANON, None, 0) == third
    assert vm_mmap_pgoff(k, mm, 0, third, RW, ANON, None, 0) == -ENOMEM
    low = bits.MMAP_MIN_ADDR
    assert vm_mmap_pgoff(k, mm, 0, third - low, RW, ANON, None, 0) == low
    # What is left below is too small for this, so the room above the base has to do.
    assert anywhere(space, 16) == MMAP_BASE


@pytest.mark.parametrize(
    ("addr", "length", "flags", "error"),
    [
        (0, 0, ANON, EINVAL),
        (0, bits.ULONG_MAX, ANON, ENOMEM),
        (0, TASK_SIZE + PAGE_SIZE, ANON, ENOMEM),
        (TASK_SIZE - PAGE_SIZE, 2 * PAGE_SIZE, ANON | MAP_FIXED, ENOMEM),
        (12345, PAGE_SIZE, ANON | MAP_FIXED, EINVAL),
        (PAGE_SIZE, PAGE_SIZE, ANON | MAP_FIXED, EPERM),
        (1 << 32, PAGE_SIZE, bits.MAP_ANONYMOUS, EINVAL),
        (1 << 32, PAGE_SIZE, bits.MAP_SHARED | bits.MAP_ANONYMOUS | MAP_GROWSDOWN, EINVAL),
    ],
)
def test_what_cannot_be_is_refused(space, addr, length, flags, error):
    assert vm_mmap_pgoff(space.k, space.mm, addr, length, RW, flags, None, 0) == -error
    assert space.layout() == []


def test_a_file_has_an_end_of_offsets_and_no_stack(space):
    file = make_file(space.k, "F", 4, True)
    last = bits.ULONG_MAX
    assert space.mmap(0, 2, file=file, pgoff=last) == -bits.EOVERFLOW
    assert space.mmap(0, 2, file=file, flags=MAP_FIXED | MAP_GROWSDOWN) == -EINVAL
    assert file.f_count == 1


# ---------------------------------------------------------------- what


def test_a_fixed_mapping_replaces_what_is_there(space):
    space.mmap(0, 12)
    space.write(0, 12)
    space.mmap(4, 4, PROT_READ)
    assert space.layout() == ["0-4 rw-p 0", "4-8 r--p 4", "8-12 rw-p 8"]
    assert space.mm.rss_stat[bits.MM_ANONPAGES] == 8
    assert space.mmap(6, 4, flags=MAP_FIXED_NOREPLACE) == -EEXIST
    assert space.mmap(20, 4, flags=MAP_FIXED_NOREPLACE) == space.at(20)
    assert check_kernel(space.k, {}) == []


def test_memory_is_promised_where_it_is_private_and_writable(space):
    file = make_file(space.k, "F", 4, True)
    space.mmap(0, 1)
    space.mmap(2, 1, PROT_READ)
    space.mmap(4, 1, flags=MAP_FIXED | MAP_NORESERVE)
    space.mmap(6, 1, shared=True)
    space.mmap(8, 1, file=file)
    space.mmap(10, 1, shared=True, file=file)
    promised = [bool(v.vm_flags & VM_ACCOUNT) for v in space.mm.vmas]
    assert promised == [True, False, False, False, True, False]
    assert space.vma(4).vm_flags & VM_NORESERVE
    assert all(v.vm_flags & VM_SOFTDIRTY for v in space.mm.vmas)


def test_shared_anonymous_memory_is_a_file_of_its_own(space):
    k = space.k
    space.mmap(0, 4, shared=True)
    space.mmap(4, 4, shared=True)
    file = space.vma(0).vm_file
    assert file.anonymous
    assert file is not space.vma(4).vm_file
    assert file.f_mapping.size_pages == 4
    space.write(0, 4)
    child = space.fork()
    child.read(0, 4)
    assert child.pfn(2) == space.pfn(2)
    free = k.nr_free
    space.munmap(0, 4)
    assert child.pfn(2)
    # The pages live as long as somebody maps the file.
    assert file in k.files
    child.munmap(0, 2)
    child.munmap(2, 2)
    assert file not in k.files
    assert k.nr_free >= free + 4
    assert check_kernel(k, {}) == []


def test_populated_and_locked_mappings_are_brought_in(space):
    space.mmap(0, 4, flags=MAP_FIXED | MAP_POPULATE)
    space.mmap(8, 4, flags=MAP_FIXED | MAP_LOCKED)
    assert all(space.pfn(page) for page in (0, 1, 2, 3, 8, 9, 10, 11))
    assert space.mm.locked_vm == 4
    assert space.k.vm_stat[NR_MLOCK] == 4
    space.munmap(8, 4)
    assert space.mm.locked_vm == 0
    assert space.k.vm_stat[NR_MLOCK] == 0
    # What may not be accessed cannot be brought in, and mmap() does not mind.
    assert space.mmap(16, 2, PROT_NONE, flags=MAP_FIXED | MAP_POPULATE) == space.at(16)


def test_an_mm_has_a_limit_of_vmas(space):
    space.mmap(0, 8)
    space.mm.map_count = MAX_MAP_COUNT
    assert space.munmap(2, 2) == -ENOMEM
    assert space.mprotect(2, 2, PROT_READ) == -ENOMEM
    # At one end is fine: that makes none more in the end.
    assert space.munmap(6, 2) == 0
    space.mm.map_count = MAX_MAP_COUNT + 1
    assert space.mmap(20, 1) == -ENOMEM
    space.mm.map_count = len(space.mm.vmas)


def test_without_memory_for_the_vma_nothing_is_mapped(space):
    file = make_file(space.k, "F", 4, True)
    space.mmap(0, 4)
    space.write(0, 4)
    space.k.inject = Failing(1, "vma")
    assert space.mmap(8, 4, PROT_READ) == -ENOMEM
    assert space.mmap(8, 4, file=file) == -ENOMEM
    # A replacement that fails has unmapped what was there.
    assert space.mmap(0, 4, PROT_READ) == -ENOMEM
    space.k.inject = None
    assert space.layout() == []
    assert file.f_count == 1
    assert check_kernel(space.k, {}) == []


def test_mmap_and_munmap_need_mmap_sem(space):
    with pytest.raises(AssertionError, match="mmap_sem"):
        do_mmap(space.k, space.mm, space.at(0), PAGE_SIZE, RW, ANON | MAP_FIXED, None, 0)
    with pytest.raises(AssertionError, match="mmap_sem"):
        do_munmap(space.k, space.mm, space.at(0), PAGE_SIZE)


# ---------------------------------------------------------------- munmap


def test_munmap_cuts_out_of_the_middle(space):
    space.mmap(0, 16)
    space.write(0, 16)
    root = space.vma(0).anon_vma
    space.munmap(4, 8)
    assert space.layout() == ["0-4 rw-p 0", "12-16 rw-p 12"]
    assert root.degree == 3
    assert space.mm.total_vm == 8
    assert space.mm.rss_stat[bits.MM_ANONPAGES] == 8
    space.munmap(0, 100)
    assert space.layout() == []
    assert space.k.anon_vma_free == [root]
    assert (space.k.nr_free, space.mm.nr_ptes) == (512, 1)


def test_munmap_of_nothing_is_fine_and_of_nonsense_is_not(space):
    k, mm = space.k, space.mm
    space.mmap(10, 2)
    assert space.munmap(0, 10) == 0
    assert space.munmap(12, 10) == 0
    assert vm_munmap(k, mm, space.at(0) + 1, PAGE_SIZE) == -EINVAL
    assert vm_munmap(k, mm, space.at(0), 0) == -EINVAL
    assert vm_munmap(k, mm, space.at(0), TASK_SIZE) == -EINVAL
    assert space.layout() == ["10-12 rw-p 10"]


def test_page_tables_go_with_the_last_of_their_vmas(space):
    tables = 512
    space.mmap(0, 1)
    space.mmap(2, 1)
    space.mmap(2 * tables, 1)
    for page in (0, 2, 2 * tables):
        space.write(page)
    # The top, one PUD, one PMD, and two tables of entries.
    assert space.mm.nr_ptes == 5
    space.munmap(0, 1)
    assert space.mm.nr_ptes == 5
    space.munmap(2, 1)
    assert space.mm.nr_ptes == 4
    space.munmap(2 * tables, 1)
    assert space.mm.nr_ptes == 1


# ---------------------------------------------------------------- brk


def test_the_heap_grows_and_shrinks(space):
    k, mm = space.k, space.mm
    mm.start_brk = mm.brk = space.at(0) + 100
    assert sys_brk(k, mm, space.at(3) + 5) == space.at(3) + 5
    assert space.layout() == ["1-4 rw-p 1"]
    assert sys_brk(k, mm, space.at(6)) == space.at(6)
    assert space.layout() == ["1-6 rw-p 1"]
    space.write(1, 5)
    assert sys_brk(k, mm, space.at(2)) == space.at(2)
    assert space.layout() == ["1-2 rw-p 1"]
    assert mm.rss_stat[bits.MM_ANONPAGES] == 1
    # Within the same page nothing has to be mapped.
    assert sys_brk(k, mm, space.at(1) + 1) == space.at(1) + 1
    assert sys_brk(k, mm, 0) == space.at(1) + 1


def test_the_heap_stops_at_a_mapping_with_a_page_between(space):
    k, mm = space.k, space.mm
    mm.start_brk = mm.brk = space.at(0)
    space.mmap(6, 1)
    assert sys_brk(k, mm, space.at(6)) == space.at(0)
    assert sys_brk(k, mm, space.at(5)) == space.at(5)
    k.inject = Failing(1, "anon_vma_chain")
    assert sys_brk(k, mm, space.at(4)) == space.at(4)


def test_a_locked_heap_is_brought_in(space):
    mm = space.mm
    mm.start_brk = mm.brk = space.at(0)
    mm.def_flags = VM_LOCKED
    sys_brk(space.k, mm, space.at(3))
    assert all(space.pfn(page) for page in range(3))
    assert mm.locked_vm == 3


# ---------------------------------------------------------------- stacks


def grow(space: Space, page: int) -> int:
    """What a fault below a stack does first."""
    space.mm.mmap_sem.down_read()
    error = expand_stack(space.k, space.vma(1000), space.at(page))
    space.mm.mmap_sem.up_read()
    return error


def test_a_stack_grows_with_mmap_sem_for_read(space):
    space.mmap(1000, 4, flags=MAP_FIXED | MAP_GROWSDOWN)
    space.write(1001)
    page = space.pfn(1001)
    index = space.k.pg_index[page]
    assert grow(space, 990) == 0
    assert space.layout() == ["990-1004 rw-p 990"]
    assert space.mm.total_vm == 14
    assert space.k.pg_index[page] == index
    assert grow(space, 995) == 0
    assert space.vma(1000).vm_start == space.at(990)
    space.write(990)
    assert check_kernel(space.k, {}) == []


def test_an_unfaulted_stack_gets_its_anon_vma_to_be_locked_by(space):
    space.mmap(1000, 4, flags=MAP_FIXED | MAP_GROWSDOWN)
    assert grow(space, 999) == 0
    assert space.vma(999).anon_vma is not None
    space.k.inject = Failing(1, "anon_vma")
    other = Space(space.k)
    other.mmap(1000, 4, flags=MAP_FIXED | MAP_GROWSDOWN)
    assert grow(other, 999) == -ENOMEM


def test_a_stack_keeps_away_from_what_is_below_it(space):
    gap = STACK_GUARD_GAP >> PAGE_SHIFT
    space.mmap(1000, 4, flags=MAP_FIXED | MAP_GROWSDOWN)
    space.mmap(600, 4)
    assert grow(space, 604 + gap - 1) == -ENOMEM
    assert grow(space, 604 + gap) == 0
    # What may not be accessed makes no difference; nor does another stack.
    space.mprotect(600, 4, PROT_NONE)
    assert grow(space, 604) == 0


def test_a_stack_has_a_limit(space):
    pages = RLIMIT_STACK >> PAGE_SHIFT
    space.mmap(1000, 4, flags=MAP_FIXED | MAP_GROWSDOWN)
    assert grow(space, 1004 - pages - 1) == -ENOMEM
    assert grow(space, 1004 - pages) == 0


def test_mappings_keep_away_from_a_stack(space):
    top = anywhere(space, 4, flags=MAP_GROWSDOWN)
    assert anywhere(space, 1) == top - STACK_GUARD_GAP - PAGE_SIZE
    assert anywhere(space, 1, top - 2 * PAGE_SIZE) != top - 2 * PAGE_SIZE


def test_only_a_stack_is_extended(space):
    space.mmap(1000, 4, flags=MAP_FIXED | MAP_GROWSDOWN)
    space.mmap(2000, 4)
    space.mm.mmap_sem.down_read()
    assert find_extend_vma(space.k, space.mm, space.at(998)) is space.vma(1000)
    assert find_extend_vma(space.k, space.mm, space.at(1998)) is None
    assert find_extend_vma(space.k, space.mm, space.at(2001)) is space.vma(2001)
    assert find_extend_vma(space.k, space.mm, space.at(3000)) is None
    space.mm.mmap_sem.up_read()


def test_a_locked_stack_counts_as_it_grows(space):
    space.mmap(1000, 4, flags=MAP_FIXED | MAP_GROWSDOWN | MAP_LOCKED)
    grow(space, 998)
    assert space.mm.locked_vm == 6


# ---------------------------------------------------------------- exit


def test_exit_gives_everything_back(space):
    k = space.k
    space.mmap(0, 8)
    space.mmap(8, 4, shared=True)
    space.mmap(16, 4, flags=MAP_FIXED | MAP_LOCKED)
    space.write(0, 12)
    child = space.fork()
    child.write(2, 4)
    space.exit()
    assert check_kernel(k, {}) == []
    child.exit()
    assert k.nr_free == 512
    assert k.vm_stat[bits.NR_PAGETABLE] == 0
    assert len(k.anon_vma_free) == len(k.anon_vmas) - 1
    assert k.vm_stat[NR_MLOCK] == 0
    assert not k.warnings

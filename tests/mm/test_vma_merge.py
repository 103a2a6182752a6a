# SPDX-License-Identifier: GPL-2.0-only
"""Splitting and merging: the eight cases, who survives, and what happens to anon_vmas."""

from __future__ import annotations

import pytest
from kernels import Failing, make_kernel, writing
from spaces import RW, Space

from rmap.check import check_kernel
from rmap.mm.bits import ENOMEM, PROT_NONE, PROT_READ, VM_READ, VM_WRITE
from rmap.mm.filemap import make_file
from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.mm_types import AnonVma, Vma
from rmap.mm.tlb import make_cpus
from rmap.mm.vma import vm_area_alloc
from rmap.mm.vma_adjust import insert_vm_struct, split_vma_at


@pytest.fixture
def space() -> Space:
    k = make_kernel(512)
    make_cpus(k, 1)
    return Space(k)


def walk_order(anon_vma: AnonVma) -> list[Vma]:
    """The VMAs of an anon_vma's tree, in order."""
    found = []
    node = interval_tree_iter_first(anon_vma.rb_root, 0, 1 << 63)
    while node is not None:
        found.append(node.vma)
        node = interval_tree_iter_next(node, 0, 1 << 63)
    return found


def sound(space: Space) -> bool:
    """Whether all that is counted is counted right, and nothing was worth a warning."""
    assert check_kernel(space.k, {}) == []
    return not space.k.warnings


# ---------------------------------------------------------------- the eight cases


def test_case_1_a_mapping_fills_the_hole_between_two(space):
    space.mmap(0, 4)
    space.mmap(8, 4)
    left = space.vma(0)
    space.mmap(4, 4)
    assert space.layout() == ["0-12 rw-p 0"]
    assert space.vma(8) is left
    assert sound(space)


def test_case_2_a_mapping_is_appended(space):
    space.mmap(0, 4)
    left = space.vma(0)
    space.mmap(4, 4)
    assert space.layout() == ["0-8 rw-p 0"]
    assert space.vma(4) is left


def test_case_3_a_mapping_is_put_in_front(space):
    space.mmap(4, 4)
    right = space.vma(4)
    space.mmap(0, 4)
    assert space.layout() == ["0-8 rw-p 0"]
    assert space.vma(0) is right


def test_case_4_the_next_one_takes_the_end(space):
    space.mmap(0, 8)
    space.mmap(8, 4, PROT_READ)
    left, right = space.vma(0), space.vma(8)
    right.vm_flags = left.vm_flags & ~VM_WRITE
    space.mprotect(4, 4, PROT_READ)
    assert space.layout() == ["0-4 rw-p 0", "4-12 r--p 4"]
    assert [space.vma(0), space.vma(4)] == [left, right]
    assert sound(space)


def test_cases_5_and_7_the_previous_one_takes_the_front_or_all(space):
    space.mmap(0, 12)
    space.write(1)
    space.mprotect(4, 8, PROT_READ)
    left, right = space.vma(0), space.vma(4)
    assert left.anon_vma.degree == 3
    space.mprotect(4, 4, RW)
    assert space.layout() == ["0-8 rw-p 0", "8-12 r--p 8"]
    assert [space.vma(0), space.vma(8)] == [left, right]
    assert left.anon_vma.degree == 3
    space.mprotect(8, 2, PROT_NONE)
    space.mprotect(8, 2, RW)
    assert space.layout() == ["0-10 rw-p 0", "10-12 r--p 10"]
    assert space.vma(8) is left
    assert sound(space)


def test_case_6_the_previous_one_takes_both(space):
    space.mmap(0, 12)
    space.write(0, 12)
    space.mprotect(4, 4, PROT_READ)
    left = space.vma(0)
    assert left.anon_vma.degree == 4
    space.mprotect(4, 4, RW)
    assert space.layout() == ["0-12 rw-p 0"]
    assert space.vma(4) is left
    assert left.anon_vma.degree == 2
    assert sound(space)


def test_case_8_the_next_one_takes_all(space):
    space.mmap(0, 12)
    space.write(0, 12)
    space.mprotect(0, 4, PROT_NONE)
    space.mprotect(4, 4, PROT_READ)
    right = space.vma(8)
    space.mprotect(4, 4, RW)
    assert space.layout() == ["0-4 ---p 0", "4-12 rw-p 4"]
    assert space.vma(4) is right
    assert right.anon_vma.degree == 3
    assert sound(space)


# ---------------------------------------------------------------- anon_vmas


def test_mprotect_in_the_middle_splits_twice_and_back(space):
    """kernel-facts 8.7."""
    space.mmap(0, 4)
    space.write(1)
    root = space.vma(0).anon_vma
    assert (root.degree, root.refcount) == (2, 1)
    space.mprotect(1, 2, PROT_READ)
    assert (root.degree, root.refcount) == (4, 1)
    assert walk_order(root) == [space.vma(0), space.vma(1), space.vma(3)]
    space.mprotect(1, 2, RW)
    assert (root.degree, root.refcount) == (2, 1)
    assert walk_order(root) == [space.vma(0)]
    assert sound(space)


def test_an_unfaulted_neighbour_adopts_the_anon_vma(space):
    """kernel-facts 8.8: or else it could not be merged after its first fault."""
    space.mmap(0, 8)
    space.mprotect(4, 4, PROT_READ)
    space.write(0)
    root = space.vma(0).anon_vma
    assert space.vma(4).anon_vma is None
    space.vma(4).vm_flags |= VM_WRITE
    space.write(4)
    assert space.vma(4).anon_vma is root
    assert root.degree == 3
    assert len(space.vma(4).anon_vma_chain) == 1


def test_a_neighbour_that_was_forked_is_not_adopted(space):
    space.mmap(0, 4)
    space.write(0)
    child = space.fork()
    child.mmap(4, 4, PROT_READ)
    child.mprotect(4, 4, RW)
    child.write(4)
    assert child.vma(4).anon_vma is not child.vma(0).anon_vma
    assert child.layout() == ["0-4 rw-p 0", "4-8 rw-p 4"]
    assert child.vma(4).anon_vma.root is child.vma(4).anon_vma


def test_filling_a_hole_imports_the_next_ones_anon_vma(space):
    """The one way by which an unfaulted VMA and a faulted one become one: __vma_adjust()."""
    space.mmap(0, 4)
    space.mmap(8, 4)
    space.write(8)
    root = space.vma(8).anon_vma
    space.mmap(4, 4)
    assert space.layout() == ["0-12 rw-p 0"]
    assert space.vma(0).anon_vma is root
    assert (root.degree, len(space.vma(0).anon_vma_chain)) == (2, 1)
    assert sound(space)


def test_an_unfaulted_previous_one_does_not_take_a_faulted_one(space):
    """An empty chain is not one of length one (mm/mmap.c:973)."""
    space.mmap(0, 4)
    space.mmap(4, 4, PROT_READ)
    space.mprotect(4, 4, RW)
    assert space.layout() == ["0-8 rw-p 0"]
    space.mprotect(4, 4, PROT_READ)
    space.vma(4).vm_flags |= VM_WRITE
    space.write(4)
    space.vma(4).vm_flags &= ~VM_WRITE
    space.mprotect(4, 4, RW)
    assert space.layout() == ["0-4 rw-p 0", "4-8 rw-p 4"]


def test_case_6_takes_the_anon_vma_of_the_third(space):
    """Neither the first nor the middle one was faulted: what is imported comes from behind."""
    space.mmap(0, 12)
    space.mprotect(4, 4, PROT_READ)
    space.write(8)
    root = space.vma(8).anon_vma
    assert space.vma(0).anon_vma is None
    space.mprotect(4, 4, RW)
    assert space.layout() == ["0-12 rw-p 0"]
    assert space.vma(0).anon_vma is root
    assert root.degree == 2
    assert sound(space)


def test_two_anon_vmas_keep_their_vmas_apart(space):
    space.mmap(0, 4)
    space.mmap(8, 4)
    space.write(0)
    space.write(8)
    left, right = space.vma(0), space.vma(8)
    space.mmap(4, 4)
    assert space.layout() == ["0-8 rw-p 0", "8-12 rw-p 8"]
    assert left.anon_vma is not right.anon_vma


def test_in_61_the_next_one_is_asked_first():
    k = make_kernel(512, mmap_fill_asks_next_first=True)
    make_cpus(k, 1)
    space = Space(k)
    space.mmap(0, 4)
    space.mmap(8, 4)
    space.write(0)
    space.write(8)
    space.mmap(4, 4)
    assert space.layout() == ["0-4 rw-p 0", "4-12 rw-p 4"]
    # An unfaulted one and a faulted one are not joined through the hole any more.
    other = Space(k)
    other.mmap(0, 4)
    other.mmap(8, 4)
    other.write(8)
    other.mmap(4, 4)
    assert other.layout() == ["0-4 rw-p 0", "4-12 rw-p 4"]
    assert sound(space)


def test_a_childs_vma_merges_with_what_has_the_same_chain(space):
    space.mmap(0, 8)
    space.write(0, 8)
    child = space.fork()
    child.write(0, 8)
    before = child.vma(0).anon_vma.degree
    child.mprotect(0, 4, PROT_READ)
    assert child.vma(0).anon_vma.degree == before + 1
    assert len(child.vma(0).anon_vma_chain) == len(child.vma(4).anon_vma_chain) == 2
    child.mprotect(0, 4, RW)
    assert child.layout() == ["0-8 rw-p 0"]
    assert child.vma(0).anon_vma.degree == before
    assert sound(space)


# ---------------------------------------------------------------- files


def test_file_mappings_merge_where_the_file_goes_on(space):
    file = make_file(space.k, "F", 16, True)
    other = make_file(space.k, "G", 16, True)
    space.mmap(0, 4, shared=True, file=file)
    space.mmap(4, 4, shared=True, file=file, pgoff=4)
    assert space.layout() == ["0-8 rw-s 0"]
    space.mmap(8, 2, shared=True, file=file, pgoff=9)
    space.mmap(10, 2, shared=True, file=other, pgoff=11)
    space.mmap(12, 2, file=other, pgoff=13)
    assert space.layout() == ["0-8 rw-s 0", "8-10 rw-s 9", "10-12 rw-s 11", "12-14 rw-p 13"]
    # One reference is the test's; i_mmap_writable counts shared VMAs.
    assert (file.f_count, file.f_mapping.i_mmap_writable) == (3, 2)
    assert (other.f_count, other.f_mapping.i_mmap_writable) == (3, 1)
    space.munmap(2, 2)
    assert (file.f_count, file.f_mapping.i_mmap_writable) == (4, 3)
    space.mmap(2, 2, shared=True, file=file, pgoff=2)
    assert (file.f_count, file.f_mapping.i_mmap_writable) == (3, 2)
    assert sound(space)


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(("site", "first"), [("vma", 1), ("anon_vma_chain", 1)])
def test_a_split_without_memory_changes_nothing(space, site, first):
    space.mmap(0, 8)
    space.write(0, 8)
    root = space.vma(0).anon_vma
    space.k.inject = Failing(first, site)
    assert space.mprotect(2, 2, PROT_READ) == -ENOMEM
    assert space.munmap(2, 2) == -ENOMEM
    space.k.inject = None
    assert space.layout() == ["0-8 rw-p 0"]
    assert root.degree == 2
    assert sound(space)


def test_a_split_that_fails_half_way_leaves_the_first_half(space):
    space.mmap(0, 8)
    space.write(0, 8)
    space.k.inject = Failing(2, "vma")
    assert space.mprotect(2, 2, PROT_READ) == -ENOMEM
    space.k.inject = None
    assert space.layout() == ["0-2 rw-p 0", "2-8 rw-p 2"]
    assert space.vma(0).vm_flags == space.vma(2).vm_flags
    assert sound(space)


def test_a_merge_without_memory_is_no_merge(space):
    """The clone for the importer fails: the mapping is made all the same, as a VMA of its own."""
    space.mmap(0, 4)
    space.mmap(8, 4)
    space.write(8)
    space.k.inject = Failing(1, "anon_vma_chain")
    space.mmap(4, 4)
    space.k.inject = None
    assert space.layout() == ["0-4 rw-p 0", "4-8 rw-p 4", "8-12 rw-p 8"]
    assert space.vma(0).anon_vma is None
    assert sound(space)


def test_a_vma_that_overlaps_is_refused(space):
    space.mmap(0, 4)
    k, mm = space.k, space.mm
    vma = vm_area_alloc(k, mm, space.at(2), space.at(6), VM_READ, 0)
    with writing(mm):
        assert insert_vm_struct(k, mm, vma) == -ENOMEM
        vma.vm_start = space.at(4)
        assert insert_vm_struct(k, mm, vma) == 0
    assert vma.vm_pgoff == space.at(4) >> 12
    mm.total_vm += 2
    assert sound(space)


def test_splitting_needs_mmap_sem(space):
    space.mmap(0, 4)
    space.write(0)
    with pytest.raises(AssertionError, match=r"needs mm->mmap_sem .* for write"):
        split_vma_at(space.k, space.mm, space.vma(0), space.at(2), 0)

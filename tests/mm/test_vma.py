# SPDX-License-Identifier: GPL-2.0-only
"""Addresses within VMAs, the list of an mm, protections, who may merge, counters."""

from __future__ import annotations

from itertools import pairwise

import pytest
from handmade import hugetlb_file
from hypothesis import given
from hypothesis import strategies as st
from kernels import RW, Failing, make_kernel, make_mm, map_pages, prepare, writing

from rmap.mm.bits import (
    _PAGE_ACCESSED,
    _PAGE_NX,
    _PAGE_PRESENT,
    _PAGE_PROTNONE,
    _PAGE_RW,
    _PAGE_USER,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    PAGE_MAPPING_ANON,
    PAGE_SHIFT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_UFFD_MISSING,
    VM_WRITE,
    PG_head,
    PG_swapbacked,
    PG_tail,
)
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import AddressSpace, AnonVma, File, MemCgroup, Vma
from rmap.mm.vma import (
    add_mm_counter,
    anon_vma_compatible,
    can_vma_merge_after,
    can_vma_merge_before,
    dec_mm_counter,
    find_mergeable_anon_vma,
    find_vma,
    find_vma_intersection,
    find_vma_prev,
    get_mm_counter,
    get_mm_rss,
    inc_mm_counter,
    is_cow_mapping,
    is_mergeable_anon_vma,
    is_mergeable_vma,
    is_vma_temporary_stack,
    linear_page_index,
    mm_counter,
    mm_match_cgroup,
    update_hiwater_rss,
    userfaultfd_armed,
    vm_area_alloc,
    vm_area_dup,
    vm_get_page_prot,
    vma_address,
    vma_is_anonymous,
    vma_link_list,
    vma_page_address,
    vma_pages,
    vma_set_page_prot,
    vma_unlink_list,
    vma_wants_writenotify,
)
from rmap.sync.core import LockViolation


def make_file(*, writenotify: bool = False) -> File:
    mapping = AddressSpace(1, "file")
    mapping.writenotify = writenotify
    return File("file", 7, mapping)


# ---------------------------------------------------------------- addresses


@given(
    start=st.integers(0, (1 << 35) - 1),
    pages=st.integers(1, 1 << 20),
    pgoff=st.integers(0, 1 << 45),
    at=st.integers(0, (1 << 20) - 1),
)
def test_index_and_address_are_inverse_within_the_vma(start, pages, pgoff, at):
    k = make_kernel(16)
    vma = Vma(make_mm(k), start << PAGE_SHIFT, (start + pages) << PAGE_SHIFT, RW, pgoff)
    assert vma_pages(vma) == pages
    address = vma.vm_start + (at % pages << PAGE_SHIFT)
    k.pg_index[3] = linear_page_index(k, vma, address)
    assert vma_page_address(k, 3, vma) == address
    assert vma_address(k, 3, vma) == address


@given(
    start=st.integers(0, (1 << 35) - 1),
    pgoff=st.integers(0, 2**64 - 1),
    index=st.integers(0, 2**64 - 1),
)
def test_an_address_outside_is_computed_modulo_the_word(start, pgoff, index):
    k = make_kernel(16)
    vma = Vma(make_mm(k), start << PAGE_SHIFT, (start + 1) << PAGE_SHIFT, RW, pgoff)
    k.pg_index[3] = index
    expected = ((start << PAGE_SHIFT) + ((index - pgoff) << PAGE_SHIFT)) % 2**64
    assert vma_page_address(k, 3, vma) == expected


@pytest.mark.parametrize("index", [15, 20])
def test_a_walk_must_not_find_a_page_outside(index):
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    k.pg_index[3] = index
    with pytest.raises(KernelBug, match="outside the VMA"):
        vma_address(k, 3, vma)


def test_a_huge_page_that_starts_before_the_vma_is_clipped():
    k = make_kernel(2048)
    vma = map_pages(k, make_mm(k), 0x500, 0x200)
    k.pg_flags[512] |= PG_head
    for tail in range(513, 1024):
        k.pg_flags[tail] |= PG_tail
        k.pg_lru_next[tail] = 512
    k.pg_index[512] = 0x400
    assert vma_address(k, 512, vma) == vma.vm_start
    assert vma_page_address(k, 512 + 0x100, vma) == vma.vm_start


def test_a_hugetlb_vma_counts_in_huge_pages():
    k = make_kernel()
    vma = Vma(make_mm(k), 4 << 21, 8 << 21, RW | VM_HUGETLB, 512)
    vma.vm_file = hugetlb_file(k)
    assert linear_page_index(k, vma, 6 << 21) == 3


def test_a_hugetlb_vma_counts_in_pages_of_its_own_size():
    k = make_kernel()
    vma = Vma(make_mm(k), 4 << 30, 8 << 30, RW | VM_HUGETLB, 2 << 18)
    vma.vm_file = hugetlb_file(k, 1)
    assert linear_page_index(k, vma, 6 << 30) == 4


def test_what_flags_say_of_a_vma():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    assert vma_is_anonymous(vma)
    assert is_cow_mapping(RW)
    assert not is_cow_mapping(RW | VM_SHARED)
    assert not is_cow_mapping(RW & ~VM_MAYWRITE)
    assert not userfaultfd_armed(vma)
    vma.vm_flags |= VM_UFFD_MISSING
    assert userfaultfd_armed(vma)
    vma.vm_file = make_file()
    assert not vma_is_anonymous(vma)


def test_a_temporary_stack_has_all_three_marks():
    k = make_kernel()
    marks = VM_GROWSDOWN | VM_SEQ_READ | VM_RAND_READ
    vma = map_pages(k, make_mm(k), 16, 4, RW | marks)
    assert is_vma_temporary_stack(vma)
    for mark in (VM_GROWSDOWN, VM_SEQ_READ, VM_RAND_READ):
        vma.vm_flags = RW | marks & ~mark
        assert not is_vma_temporary_stack(vma)


# ---------------------------------------------------------------- the list


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 5)), max_size=40))
def test_the_list_is_sorted_linked_and_counted(steps):
    k = make_kernel(16)
    mm = make_mm(k)
    model: dict[int, Vma] = {}
    for add, first, pages in steps:
        taken = {p for v in model.values() for p in range(v.vm_start >> 12, v.vm_end >> 12)}
        with writing(mm):
            if add and not taken & set(range(first, first + pages)):
                vma = vm_area_alloc(k, mm, first << 12, (first + pages) << 12, RW, first)
                vma_link_list(k, mm, vma)
                model[first] = vma
            elif not add and first in model:
                vma_unlink_list(k, mm, model.pop(first))
        expected = [model[at] for at in sorted(model)]
        assert mm.vmas == expected
        assert mm.map_count == len(expected)
        assert mm.mmap is (expected[0] if expected else None)
        for one, two in pairwise(expected):
            assert one.vm_next is two
            assert two.vm_prev is one
        for page in range(40):
            at = page << 12
            after = [v for v in expected if v.vm_end > at]
            assert find_vma(k, mm, at) is (after[0] if after else None)
            before = [v for v in expected if v.vm_end <= at]
            assert find_vma_prev(k, mm, at) is (before[-1] if before else None)
            hit = [v for v in after if v.vm_start < at + 0x3000]
            assert find_vma_intersection(k, mm, at, at + 0x3000) is (hit[0] if hit else None)


def test_vmas_must_not_overlap():
    k = make_kernel()
    mm = make_mm(k)
    map_pages(k, mm, 16, 4)
    overlap = vm_area_alloc(k, mm, 19 << 12, 21 << 12, RW, 19)
    with pytest.raises(KernelBug, match="overlap"), writing(mm):
        vma_link_list(k, mm, overlap)
    mm.mmap_sem.up_write()


def test_a_vma_that_is_not_in_the_list_cannot_be_taken_out():
    k = make_kernel()
    mm = make_mm(k)
    map_pages(k, mm, 16, 4)
    with pytest.raises(KernelBug, match="not in the list"), writing(mm):
        vma_unlink_list(k, mm, vm_area_alloc(k, mm, 16 << 12, 18 << 12, RW, 16))
    mm.mmap_sem.up_write()


def test_the_list_changes_under_mmap_sem():
    k = make_kernel()
    mm = make_mm(k)
    with pytest.raises(LockViolation, match="needs mm->mmap_sem"):
        vma_link_list(k, mm, vm_area_alloc(k, mm, 0, 4096, RW, 0))


def test_a_copy_has_the_anon_vma_and_no_chain():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    root = prepare(k, vma)
    new = vm_area_dup(k, vma)
    assert (new.anon_vma, new.anon_vma_chain) == (root, [])
    assert new.ident != vma.ident
    assert new.shared.vma is new
    k.inject = Failing(1, "vma")
    assert vm_area_dup(k, vma) is None
    assert vm_area_alloc(k, vma.vm_mm, 0, 4096, RW, 0) is None


# ---------------------------------------------------------------- protections


@pytest.mark.parametrize(
    ("vm_flags", "bits"),
    [
        (0, _PAGE_PROTNONE),
        (VM_SHARED, _PAGE_PROTNONE),
        (VM_READ, _PAGE_PRESENT | _PAGE_USER | _PAGE_NX),
        (VM_READ | VM_WRITE, _PAGE_PRESENT | _PAGE_USER | _PAGE_NX),
        (VM_READ | VM_WRITE | VM_SHARED, _PAGE_PRESENT | _PAGE_USER | _PAGE_NX | _PAGE_RW),
        (VM_READ | VM_EXEC, _PAGE_PRESENT | _PAGE_USER),
        (VM_WRITE | VM_EXEC | VM_SHARED, _PAGE_PRESENT | _PAGE_USER | _PAGE_RW),
    ],
)
def test_protection_bits(vm_flags, bits):
    assert vm_get_page_prot(vm_flags) == bits | _PAGE_ACCESSED


def test_shared_pages_of_a_file_that_is_written_back_start_out_read_only():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4, RW | VM_SHARED)
    vma.vm_file = make_file(writenotify=True)
    assert vma_wants_writenotify(vma)
    vma_set_page_prot(k, vma)
    assert not vma.vm_page_prot & _PAGE_RW
    vma.vm_file = make_file()
    vma_set_page_prot(k, vma)
    assert vma.vm_page_prot & _PAGE_RW
    vma.vm_file = make_file(writenotify=True)
    for flags in (RW, RW & ~VM_WRITE | VM_SHARED, RW | VM_SHARED | VM_PFNMAP):
        vma.vm_flags = flags
        assert not vma_wants_writenotify(vma)


# ---------------------------------------------------------------- who may merge


def test_only_soft_dirty_may_differ_between_vmas_that_merge():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    assert is_mergeable_vma(k, vma, RW | VM_SOFTDIRTY, None, None)
    assert not is_mergeable_vma(k, vma, RW | VM_LOCKED, None, None)
    assert not is_mergeable_vma(k, vma, RW, make_file(), None)
    assert not is_mergeable_vma(k, vma, RW, None, "ctx")


def test_anon_vmas_that_merge():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    one, other = AnonVma(1), AnonVma(2)
    assert is_mergeable_anon_vma(one, one, vma)
    assert is_mergeable_anon_vma(None, None, vma)
    assert not is_mergeable_anon_vma(one, other, None)
    assert is_mergeable_anon_vma(one, None, None)
    assert not is_mergeable_anon_vma(one, None, vma), "an empty chain is not one of length one"
    prepare(k, vma)
    assert is_mergeable_anon_vma(None, vma.anon_vma, vma)
    vma.anon_vma_chain.append(vma.anon_vma_chain[0])
    assert not is_mergeable_anon_vma(None, vma.anon_vma, vma), "it was forked"


def test_a_range_merges_where_its_index_goes_on():
    k = make_kernel()
    vma = map_pages(k, make_mm(k), 16, 4)
    assert can_vma_merge_before(k, vma, RW, None, None, 16, None)
    assert can_vma_merge_after(k, vma, RW, None, None, 20, None)
    assert not can_vma_merge_before(k, vma, RW, None, None, 17, None)
    assert not can_vma_merge_after(k, vma, RW, None, None, 21, None)
    assert not can_vma_merge_after(k, vma, RW, AnonVma(1), None, 20, None)
    assert not can_vma_merge_before(k, vma, RW | VM_LOCKED, None, None, 16, None)


def test_neighbours_that_mprotect_could_make_one_share():
    k = make_kernel()
    mm = make_mm(k)
    before = map_pages(k, mm, 12, 4, RW & ~VM_WRITE)
    vma = map_pages(k, mm, 16, 4)
    after = map_pages(k, mm, 20, 4, RW | VM_EXEC)
    assert anon_vma_compatible(k, before, vma)
    assert find_mergeable_anon_vma(k, vma) is None
    root = prepare(k, before)
    assert find_mergeable_anon_vma(k, vma) is root
    after.anon_vma = AnonVma(9)
    after.anon_vma_chain = [before.anon_vma_chain[0]]
    assert find_mergeable_anon_vma(k, vma) is after.anon_vma, "the one behind is asked first"
    after.vm_flags |= VM_LOCKED
    assert find_mergeable_anon_vma(k, vma) is root
    before.vm_pgoff += 1
    assert find_mergeable_anon_vma(k, vma) is None


# ---------------------------------------------------------------- counters


def test_rss_counts_by_kind_of_page():
    k = make_kernel()
    mm = make_mm(k)
    k.pg_mapping[1] = 4 | PAGE_MAPPING_ANON
    k.pg_flags[2] |= PG_swapbacked
    assert [mm_counter(k, page) for page in (1, 2, 3)] == [
        MM_ANONPAGES,
        MM_SHMEMPAGES,
        MM_FILEPAGES,
    ]
    inc_mm_counter(k, mm, MM_ANONPAGES)
    add_mm_counter(k, mm, MM_FILEPAGES, 5)
    add_mm_counter(k, mm, MM_SHMEMPAGES, 2)
    dec_mm_counter(k, mm, MM_FILEPAGES)
    assert get_mm_counter(k, mm, MM_FILEPAGES) == 4
    assert get_mm_rss(k, mm) == 7
    update_hiwater_rss(k, mm)
    dec_mm_counter(k, mm, MM_ANONPAGES)
    update_hiwater_rss(k, mm)
    assert mm.hiwater_rss == 7


def test_an_mm_matches_its_memcg_and_those_above():
    k = make_kernel()
    mm = make_mm(k)
    top, other = MemCgroup(1, "a", k.memcgs[0]), MemCgroup(2, "b", k.memcgs[0])
    mm.memcg = MemCgroup(3, "a/c", top)
    assert mm_match_cgroup(mm, top)
    assert mm_match_cgroup(mm, k.memcgs[0])
    assert not mm_match_cgroup(mm, other)

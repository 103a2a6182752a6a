# SPDX-License-Identifier: GPL-2.0-only
"""mprotect: what becomes of entries, flushes, promises of memory, and entries of moved pages."""

from __future__ import annotations

import pytest
from interruptions import interrupted
from kernels import make_kernel
from spaces import RW, Space

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.bits import (
    _PAGE_ACCESSED,
    _PAGE_DIRTY,
    _PAGE_NX,
    _PAGE_PRESENT,
    _PAGE_PROTNONE,
    _PAGE_RW,
    _PAGE_USER,
    EACCES,
    EINVAL,
    ENOMEM,
    PAGE_SHIFT,
    PAGE_SIZE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    SWP_DEVICE_READ,
    SWP_DEVICE_WRITE,
    SWP_MIGRATION_READ,
    SWP_MIGRATION_WRITE,
    VM_ACCOUNT,
    VM_MAYWRITE,
)
from rmap.mm.filemap import make_file
from rmap.mm.mm_types import Task
from rmap.mm.mprotect import do_mprotect
from rmap.mm.pgtable import (
    pte_lookup,
    pte_swp_mksoft_dirty,
    pte_swp_soft_dirty,
    pte_to_swp_entry,
    swp_entry,
    swp_entry_to_pte,
    swp_type,
)
from rmap.mm.tlb import make_cpus, set_tlb_ubc_flush_pending, switch_mm, tlb_fill, tlb_lookup
from rmap.sync.bits import FIELD_PTE, OP_RMW
from rmap.sync.core import scheduler

BITS = _PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_PROTNONE | _PAGE_NX
READABLE = _PAGE_PRESENT | _PAGE_USER | _PAGE_NX


def make_space(name: str = "4.18", **quirks: bool) -> Space:
    k = make_kernel(512, name, **quirks)
    make_cpus(k, 2)
    return Space(k)


@pytest.fixture
def space() -> Space:
    return make_space()


def is_account(space: Space, page: int) -> bool:
    return bool(space.vma(page).vm_flags & VM_ACCOUNT)


# ---------------------------------------------------------------- entries


def test_entries_lose_and_get_back_permissions_but_keep_the_page(space):
    space.mmap(0, 4)
    space.write(0, 4)
    frames = [space.pfn(page) for page in range(4)]
    space.mprotect(0, 4, PROT_READ)
    assert {space.pte(page) & BITS for page in range(4)} == {READABLE}
    space.mprotect(0, 4, PROT_NONE)
    # Not present for the processor, but for everybody else.
    assert {space.pte(page) & BITS for page in range(4)} == {_PAGE_PROTNONE}
    assert [space.pfn(page) for page in range(4)] == frames
    assert space.mm.rss_stat[bits.MM_ANONPAGES] == 4
    space.mprotect(0, 4, PROT_READ | PROT_EXEC)
    assert {space.pte(page) & BITS for page in range(4)} == {READABLE & ~_PAGE_NX}
    assert all(space.pte(page) & _PAGE_DIRTY for page in range(4))
    assert check_kernel(space.k, {}) == []


def test_a_private_entry_becomes_writable_by_a_fault_only(space):
    space.mmap(0, 2)
    space.write(0, 2)
    before = space.pfn(0)
    space.mprotect(0, 2, PROT_READ)
    space.mprotect(0, 2, RW)
    assert not space.pte(0) & _PAGE_RW
    assert space.vma(0).vm_page_prot & _PAGE_RW == 0
    space.write(0)
    assert space.pte(0) & _PAGE_RW
    assert space.pfn(0) == before


def test_only_the_range_changes(space):
    space.mmap(0, 3 * 512)
    for page in (0, 511, 512, 1023, 1024):
        space.write(page)
    space.mprotect(511, 2, PROT_READ)
    writable = [page for page in (0, 511, 512, 1023, 1024) if space.pte(page) & _PAGE_RW]
    assert writable == [0, 1023, 1024]


def test_shared_entries_become_writable_at_once_if_no_file_listens(space):
    file = make_file(space.k, "F", 4, True)
    space.mmap(0, 2, shared=True, file=file)
    space.write(0)
    space.read(1)
    space.mprotect(0, 2, PROT_READ)
    space.mprotect(0, 2, RW)
    assert space.pte(0) & _PAGE_RW
    assert space.pte(1) & _PAGE_RW


def test_a_file_that_listens_is_not_passed_over(space):
    """Only an entry that is dirty becomes writable: the file knows of that page already."""
    file = make_file(space.k, "F", 4, False)
    space.mmap(0, 2, shared=True, file=file)
    space.write(0)
    space.read(1)
    space.mprotect(0, 2, PROT_READ)
    space.mprotect(0, 2, RW)
    assert space.pte(0) & (_PAGE_RW | _PAGE_DIRTY) == _PAGE_RW | _PAGE_DIRTY
    assert not space.pte(1) & _PAGE_RW


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SWP_MIGRATION_WRITE, SWP_MIGRATION_READ),
        (SWP_MIGRATION_READ, SWP_MIGRATION_READ),
        (SWP_DEVICE_WRITE, SWP_DEVICE_READ),
        (SWP_DEVICE_READ, SWP_DEVICE_READ),
        (3, 3),
    ],
)
def test_entries_of_pages_elsewhere_forget_that_they_were_writable(space, before, after):
    space.mmap(0, 2)
    space.write(0, 2)
    space.mprotect(0, 2, PROT_READ)
    ptep = pte_lookup(space.k, space.mm, space.at(0))
    kept = space.k.pt[ptep]
    space.k.pt[ptep] = pte_swp_mksoft_dirty(swp_entry_to_pte(swp_entry(before, 77)))
    space.mprotect(0, 2, PROT_NONE)
    entry = pte_to_swp_entry(space.k.pt[ptep])
    assert (swp_type(entry), entry & bits.SWP_OFFSET_MASK) == (after, 77)
    assert pte_swp_soft_dirty(space.k.pt[ptep])
    space.k.pt[ptep] = kept


def test_a_dirty_bit_that_a_processor_sets_meanwhile_is_not_lost(space):
    """The entry is emptied before it is looked at, so nothing can be set after the look."""
    space.mmap(0, 1)
    space.write(0)
    ptep = pte_lookup(space.k, space.mm, space.at(0))
    space.k.pt[ptep] &= ~(_PAGE_DIRTY | _PAGE_ACCESSED)

    def processor() -> None:
        space.k.pt[ptep] |= _PAGE_DIRTY | _PAGE_ACCESSED

    with interrupted(((OP_RMW, FIELD_PTE), processor)):
        space.mprotect(0, 1, PROT_READ)
    assert space.pte(0) & (_PAGE_DIRTY | _PAGE_ACCESSED) == _PAGE_DIRTY | _PAGE_ACCESSED


# ---------------------------------------------------------------- flushes


def run_on(space: Space, cpu: int) -> Task:
    """Let a CPU run the process."""
    task = Task(f"t{cpu}", 10 + cpu, space.mm, cpu)
    switch_mm(space.k, task, space.mm)
    return task


def test_other_processors_lose_their_translations(space):
    k = space.k
    space.mmap(0, 2)
    space.write(0, 2)
    run_on(space, 1)
    tlb_fill(k, 1, space.mm, space.at(0), space.pte(0))
    assert tlb_lookup(k, 1, space.mm, space.at(0)) & _PAGE_RW
    space.mprotect(0, 2, PROT_READ)
    assert tlb_lookup(k, 1, space.mm, space.at(0)) == 0


def test_nothing_mapped_nothing_flushed(space):
    space.mmap(0, 2)
    run_on(space, 1)
    before = space.k.vm_stat[bits.TLB_FLUSH_REMOTE]
    space.mprotect(0, 2, PROT_READ)
    assert space.k.vm_stat[bits.TLB_FLUSH_REMOTE] == before


@pytest.mark.parametrize("fixed", [True, False])
def test_what_reclaim_left_unflushed_is_flushed_first(fixed):
    """mprotect finds the entry empty and has nothing to flush: without the repair of 4.13 the
    processor goes on writing through the translation that reclaim will flush later (D19)."""
    space = make_space(flush_batched_pending=fixed)
    k = space.k
    space.mmap(0, 1)
    space.write(0)
    run_on(space, 1)
    tlb_fill(k, 1, space.mm, space.at(0), space.pte(0))
    # Reclaim, half way: the entry is empty, and a flush is owed.
    ptep = pte_lookup(k, space.mm, space.at(0))
    kept = k.pt[ptep]
    k.pt[ptep] = 0
    set_tlb_ubc_flush_pending(k, space.mm, True)
    space.mprotect(0, 1, PROT_READ)
    stale = tlb_lookup(k, 1, space.mm, space.at(0))
    assert (stale == 0) is fixed
    k.pt[ptep] = kept
    scheduler().current.tlb_ubc.flush_required = False


# ---------------------------------------------------------------- ranges


def test_the_first_hole_ends_it(space):
    space.mmap(0, 4)
    space.mmap(6, 4)
    assert space.mprotect(2, 8, PROT_READ) == -ENOMEM
    assert space.layout() == ["0-2 rw-p 0", "2-4 r--p 2", "6-10 rw-p 6"]
    assert space.mprotect(4, 3, PROT_READ) == -ENOMEM
    assert space.mprotect(100, 1, PROT_READ) == -ENOMEM


def test_nonsense_is_refused(space):
    k, mm = space.k, space.mm
    space.mmap(0, 4)
    assert do_mprotect(k, mm, space.at(0) + 1, PAGE_SIZE, PROT_READ) == -EINVAL
    assert do_mprotect(k, mm, space.at(0), 0, PROT_READ) == 0
    assert do_mprotect(k, mm, space.at(0), bits.ULONG_MAX, PROT_READ) == -ENOMEM
    assert do_mprotect(k, mm, space.at(0), bits.TASK_SIZE + PAGE_SIZE, PROT_READ) == -ENOMEM
    space.vma(0).vm_flags &= ~VM_MAYWRITE
    space.mprotect(0, 4, PROT_READ)
    assert space.mprotect(0, 4, RW) == -EACCES
    assert space.layout() == ["0-4 r--p 0"]


def test_a_length_is_rounded_up(space):
    space.mmap(0, 4)
    assert do_mprotect(space.k, space.mm, space.at(1), PAGE_SIZE + 1, PROT_READ) == 0
    assert space.layout() == ["0-1 rw-p 0", "1-3 r--p 1", "3-4 rw-p 3"]


# ---------------------------------------------------------------- promises of memory


def test_a_promise_is_made_with_the_right_to_write_and_kept(space):
    space.mmap(0, 4, PROT_READ)
    assert not is_account(space, 0)
    space.mprotect(0, 2, RW)
    assert [is_account(space, 0), is_account(space, 2)] == [True, False]
    space.mprotect(0, 2, PROT_READ)
    assert is_account(space, 0)
    # So the two halves differ, and stay apart.
    assert space.layout() == ["0-2 r--p 0", "2-4 r--p 2"]


def test_in_67_a_promise_about_nothing_is_taken_back():
    space = make_space(mprotect_drops_account=True)
    space.mmap(0, 4, PROT_READ)
    space.mprotect(0, 2, RW)
    space.mprotect(0, 2, PROT_READ)
    assert space.layout() == ["0-4 r--p 0"]
    space.mprotect(0, 2, RW)
    space.write(0)
    space.mprotect(0, 2, PROT_READ)
    assert is_account(space, 0)


# ---------------------------------------------------------------- later kernels


def test_in_60_exclusive_dirty_entries_become_writable_at_once():
    space = make_space(anon_exclusive=True, mprotect_writes_exclusive=True)
    space.mmap(0, 4)
    space.write(0, 2)
    space.read(2)
    ptep = pte_lookup(space.k, space.mm, space.at(1))
    space.mprotect(0, 4, PROT_READ)
    space.k.pt[ptep] &= ~_PAGE_DIRTY
    space.mprotect(0, 4, RW)
    writable = [bool(space.pte(page) & _PAGE_RW) for page in range(3)]
    assert writable == [True, False, False]


def test_in_62_clean_ones_as_well():
    space = make_space(
        anon_exclusive=True, mprotect_writes_exclusive=True, mprotect_writes_clean=True
    )
    space.mmap(0, 4)
    space.write(0, 2)
    space.read(2)
    child = space.fork()
    space.write(0)
    space.mprotect(0, 4, PROT_READ)
    ptep = pte_lookup(space.k, space.mm, space.at(0))
    space.k.pt[ptep] &= ~_PAGE_DIRTY
    space.mprotect(0, 4, RW)
    # Page 1 is shared with the child, page 2 is the zero page.
    writable = [bool(space.pte(page) & _PAGE_RW) for page in range(3)]
    assert writable == [True, False, False]
    child.exit()


def test_locked_memory_is_copied_before_it_can_fault(space):
    """A private file page that becomes writable and is locked: the copy is made right away."""
    file = make_file(space.k, "F", 4, True)
    space.mmap(0, 2, PROT_READ, file=file)
    space.mlock(0, 2)
    cached = [file.f_mapping.i_pages[i] for i in range(2)]
    assert [space.pfn(page) for page in range(2)] == cached
    space.mprotect(0, 2, RW)
    assert all(space.pfn(page) not in cached for page in range(2))
    assert all(space.pte(page) & _PAGE_RW for page in range(2))
    assert check_kernel(space.k, {}) == []


def test_secondary_mmus_are_told_once_and_only_if_something_is_mapped(space):
    space.k.notifier_log = log = []
    space.mmap(0, 1024)
    space.mprotect(0, 1024, PROT_READ)
    assert log == []
    space.mprotect(0, 1024, RW)
    space.write(600)
    del log[:]
    space.mprotect(0, 1024, PROT_READ)
    starts = [entry for entry in log if "start" in str(entry[0])]
    assert len(starts) == 1
    assert starts[0][-2:] == (512 + (space.at(0) >> PAGE_SHIFT) << PAGE_SHIFT, space.at(1024))

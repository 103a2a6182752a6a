# SPDX-License-Identifier: GPL-2.0-only
"""Exec: a stack that is filled in one place and moved to another, and what exit leaves."""

from __future__ import annotations

import pytest
from kernels import Failing, make_kernel
from spaces import Space

from rmap.check import check_kernel, leftovers
from rmap.mm.bits import (
    ENOMEM,
    MM_ANONPAGES,
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    VM_GROWSDOWN,
    VM_STACK_INCOMPLETE_SETUP,
    VM_WRITE,
)
from rmap.mm.content import page_read
from rmap.mm.execve import (
    bprm_mm_init,
    copy_strings,
    do_execve,
    exec_mmap,
    setup_arg_pages,
)
from rmap.mm.exit import exit_mm
from rmap.mm.mm_types import Kernel, Mm, Task
from rmap.mm.pgtable import pte_lookup, pte_pfn, pte_present
from rmap.mm.rmap_walk import page_address_in_vma
from rmap.mm.tlb import make_cpus, switch_mm
from rmap.mm.vma import is_vma_temporary_stack, linear_page_index

LONG = bytes(range(256)) * 40


def world() -> tuple[Kernel, Task, Space]:
    """A kernel and a task that has touched some memory."""
    k = make_kernel(256)
    make_cpus(k, 2)
    p = Space(k)
    p.mmap(0, 8)
    p.write(0, 3)
    task = Task("old", 1, None)
    switch_mm(k, task, p.mm)
    return k, task, p


def stack_pages(k: Kernel, mm: Mm) -> dict[int, int]:
    """What the stack maps: address to page."""
    (vma,) = mm.vmas
    found = {}
    for address in range(vma.vm_start, vma.vm_end, PAGE_SIZE):
        ptep = pte_lookup(k, mm, address)
        if ptep and pte_present(k.pt[ptep]):
            found[address] = pte_pfn(k.pt[ptep])
    return found


def contents(k: Kernel, mm: Mm) -> bytes:
    """The bytes of the stack's pages, in the order of their addresses."""
    pages = stack_pages(k, mm)
    return b"".join(page_read(k, pages[address], 0, PAGE_SIZE) for address in sorted(pages))


@pytest.mark.parametrize("shift", [0, 1 << PAGE_SHIFT, 2 << PAGE_SHIFT, 0x40_1000, 1 << 30])
def test_the_arguments_are_found_where_the_stack_is_in_the_end(shift):
    k, task, p = world()
    assert do_execve(k, task, "new", LONG, shift) == 0
    assert p.mm.dead
    assert task.mm is not p.mm
    assert task.mm.comm == "new"
    (stack,) = task.mm.vmas
    assert stack.vm_end == TASK_SIZE - shift
    assert stack.vm_flags & VM_STACK_INCOMPLETE_SETUP == 0
    assert stack.vm_flags & (VM_GROWSDOWN | VM_WRITE) == VM_GROWSDOWN | VM_WRITE
    assert contents(k, task.mm).strip(b"\0") == (LONG + b"new").strip(b"\0")
    assert task.mm.rss_stat[MM_ANONPAGES] == 3
    assert stack.vm_end - stack.vm_start == 3 * PAGE_SIZE + (128 << 10)
    assert task.mm.total_vm == (stack.vm_end - stack.vm_start) >> PAGE_SHIFT
    assert check_kernel(k) == []


def test_the_index_of_the_pages_stays_what_it_was_in_the_temporary_place():
    k, task, _ = world()
    assert do_execve(k, task, "new", b"", 0x40_1000) == 0
    (stack,) = task.mm.vmas
    ((address, page),) = stack_pages(k, task.mm).items()
    assert address == TASK_SIZE - 0x40_1000 - PAGE_SIZE
    assert k.pg_index[page] == (TASK_SIZE - PAGE_SIZE) >> PAGE_SHIFT
    assert k.pg_index[page] == linear_page_index(k, stack, address)
    assert page_address_in_vma(k, page, stack) == address


def test_the_tables_of_the_old_place_are_given_back():
    k, task, _ = world()
    assert do_execve(k, task, "new", b"", 1 << 30) == 0
    assert task.mm.nr_ptes == 4, "one of each level"
    assert pte_lookup(k, task.mm, TASK_SIZE - PAGE_SIZE) == 0


def test_until_it_is_in_place_the_stack_is_marked_as_temporary():
    k, task, p = world()
    bprm = bprm_mm_init(k, "new", p.mm)
    assert copy_strings(k, bprm, LONG) == 0
    assert is_vma_temporary_stack(bprm.vma)
    exec_mmap(k, task, bprm.mm)
    marked = []
    k.tracer = lambda name, args: marked.append((name, is_vma_temporary_stack(bprm.vma)))
    assert setup_arg_pages(k, bprm, TASK_SIZE - 0x40_1000) == 0
    k.tracer = None
    assert ("move_page_tables", True) in marked
    assert ("shift_arg_pages", True) in marked
    assert not is_vma_temporary_stack(bprm.vma)


def test_too_many_arguments_leave_the_task_as_it_was():
    k, task, p = world()
    assert do_execve(k, task, "new", bytes(3 << 20)) == -ENOMEM
    assert task.mm is p.mm
    assert len(k.mms) == 1
    assert check_kernel(k) == []


def test_without_memory_the_task_goes_on_or_can_be_killed():
    """Every allocation fails in turn, with all that follow it."""
    survived = killed = 0
    while True:
        k, task, p = world()
        k.inject = Failing(survived + killed + 1)
        error = do_execve(k, task, "new", LONG, 0x40_1000)
        k.inject = None
        if not error:
            break
        if task.mm is p.mm:
            survived += 1
            assert len(k.mms) == 1
            p.write(4)
            assert check_kernel(k) == []
        else:
            # Half moved, its stack covers both places; all that can be done is to end it.
            killed += 1
            assert p.mm.dead
        exit_mm(k, task)
        assert leftovers(k) == []
        assert k.warnings == []
    assert survived >= 8
    assert killed >= 1


def test_exit_takes_the_address_space_along_with_its_last_user():
    k, task, p = world()
    p.mm.mm_users += 1
    exit_mm(k, task)
    assert task.mm is None
    assert not p.mm.dead
    exit_mm(k, task)
    p.exit()
    assert p.mm.dead
    assert leftovers(k) == []


def test_a_child_that_execs_leaves_the_parent_alone():
    """What a shell does all day."""
    k, _task, p = world()
    child = p.fork()
    other = Task("child", 2, None, 1)
    switch_mm(k, other, child.mm)
    assert do_execve(k, other, "ls", b"-l") == 0
    assert child.mm.dead
    p.write(0, 3)
    assert p.vma(0).anon_vma.degree == 2
    assert check_kernel(k) == []

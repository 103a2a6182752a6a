# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Who has to be told that a page's memory is broken, and telling them (mm/memory-failure.c, v4.18).

Locks, outermost first: the page lock, which the caller holds; the rmap lock of the page's anon_vma
or file for read; inside it tasklist_lock for read; and inside that page-table locks, one at a time.

A task is told at once if it cannot go on without the page, if it asked for that, or if the sysctl
says so for everybody. All others are told when they touch the page. What is sent is only noted, in
`Kernel.kills`: whether a process survives a SIGBUS is its handler's business.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import page_lock_anon_vma_read, page_unlock_anon_vma_read
    from rmap.mm.bits import (
        BUS_MCEERR_AO,
        BUS_MCEERR_AR,
        MF_ACTION_REQUIRED,
        PAGE_NOT_IN_VMA,
        PAGE_SHIFT,
        SIGBUS,
        SIGKILL,
    )
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.mm_types import (
        AddressSpace,
        AnonVma,
        IntervalNode,
        IntervalRoot,
        Kernel,
        Task,
        Vma,
    )
    from rmap.mm.page import (
        PageAnon,
        compound_head,
        compound_order,
        page_mapping,
        page_mapping_word,
        page_to_pgoff,
    )
    from rmap.mm.page_vma_mapped import page_mapped_in_vma
    from rmap.mm.rmap_walk import page_address_in_vma
    from rmap.mm.tlb import current_task
    from rmap.scalar import flag, i32, u64


class ToKill:
    """struct to_kill: a task that has the page, and where, if that is known (`addr_valid`)."""

    def __init__(self, task: Task, address: u64, addr_valid: flag) -> None:
        self.task = task
        self.address = address
        self.addr_valid = addr_valid


class Kill:
    """A signal that was sent: to whom, SIGBUS with one of ``BUS_MCEERR_`` or SIGKILL, and where.

    `addr_lsb` is the size of what is lost, as a power of two of bytes.
    """

    def __init__(self, task: Task, signal: i32, code: i32, address: u64, addr_lsb: i32) -> None:
        self.task = task
        self.signal = signal
        self.code = code
        self.address = address
        self.addr_lsb = addr_lsb


# ---------------------------------------------------------------- finding them


def task_early_kill(k: Kernel, task: Task, force_early: flag) -> flag:
    """Whether a task is to be told before it touches the page."""
    if task.mm is None:
        return False
    if force_early or (task.mce_process and task.mce_early):
        return True
    return k.early_kill


def collect_procs(k: Kernel, page: u64, force_early: flag) -> list:
    """Find the tasks to tell, as `ToKill`, before the page is unmapped.

    The page is locked. Without memory to note them nobody is found, and all learn it when they
    touch the page.
    """
    found: list = []
    if not page_mapping_word(k, page):
        return found
    if k.inject is not None and k.inject.should_fail("to_kill"):
        return found
    if PageAnon(k, page):
        _collect_procs_anon(k, page, found, force_early)
    else:
        _collect_procs_file(k, page, found, force_early)
    return found


def _collect_procs_anon(k: Kernel, page: u64, found: list, force_early: flag) -> i32:
    """Look through the VMAs of the page's anon_vma, once for each task: who really maps it."""
    anon_vma: AnonVma = page_lock_anon_vma_read(k, page)
    task: Task
    if anon_vma is None:
        # Nothing maps it any more.
        return 0
    k.tasklist_lock.down_read()
    for task in k.tasks:
        if task_early_kill(k, task, force_early):
            _collect_vmas(k, page, task, anon_vma.rb_root, found, True)
    k.tasklist_lock.up_read()
    return page_unlock_anon_vma_read(anon_vma)


def _collect_procs_file(k: Kernel, page: u64, found: list, force_early: flag) -> i32:
    """Look through the VMAs of the page's file.

    Whoever asked to be told early wants to know of the file's loss, whether its page table has
    the page or not.
    """
    mapping: AddressSpace = page_mapping(k, page)
    task: Task
    mapping.i_mmap_rwsem.down_read()
    k.tasklist_lock.down_read()
    for task in k.tasks:
        if task_early_kill(k, task, force_early):
            _collect_vmas(k, page, task, mapping.i_mmap, found, False)
    k.tasklist_lock.up_read()
    mapping.i_mmap_rwsem.up_read()
    return 0


def _collect_vmas(
    k: Kernel, page: u64, task: Task, tree: IntervalRoot, found: list, mapped: flag
) -> i32:
    """Note each VMA of a task that covers the page, or that maps it if `mapped` is asked for."""
    pgoff: u64 = page_to_pgoff(k, page)
    vma: Vma
    node: IntervalNode = interval_tree_iter_first(tree, pgoff, pgoff)
    while node is not None:
        vma = node.vma
        if not mapped or page_mapped_in_vma(k, page, vma):
            if vma.vm_mm is task.mm:
                _add_to_kill(k, task, page, vma, found)
        node = interval_tree_iter_next(node, pgoff, pgoff)
    return 0


def _add_to_kill(k: Kernel, task: Task, page: u64, vma: Vma, found: list) -> i32:
    """Note a task and its address, if there is memory for that (the first note was prepared)."""
    address: u64 = page_address_in_vma(k, page, vma)
    if found and k.inject is not None and k.inject.should_fail("to_kill"):
        return 0
    found.append(ToKill(task, address, address != PAGE_NOT_IN_VMA))
    return 0


# ---------------------------------------------------------------- telling them


def kill_procs(k: Kernel, found: list, forcekill: flag, fail: flag, page: u64, flags: i32) -> i32:
    """Send the signals, with no lock but the page's held.

    Without `forcekill` nothing is lost: the page could be read again. One whose page could not be
    unmapped (`fail`), or whose address is not known, must not run on: SIGKILL.
    """
    kill: ToKill
    if not forcekill:
        return 0
    for kill in found:
        if fail or not kill.addr_valid:
            send_signal(k, kill.task, SIGKILL, 0, 0, 0)
        else:
            kill_proc(k, kill.task, kill.address, page, flags)
    return 0


def kill_proc(k: Kernel, task: Task, address: u64, page: u64, flags: i32) -> i32:
    """Send SIGBUS: "action required" if the running task needs the page, else "optional"."""
    lsb: i32 = compound_order(k, compound_head(k, page)) + PAGE_SHIFT
    code: i32 = BUS_MCEERR_AO
    if flags & MF_ACTION_REQUIRED and task.mm is current_task(k).mm:
        code = BUS_MCEERR_AR
    return send_signal(k, task, SIGBUS, code, address, lsb)


def send_signal(k: Kernel, task: Task, signal: i32, code: i32, address: u64, addr_lsb: i32) -> i32:
    """Note that a signal was sent."""
    k.kills.append(Kill(task, signal, code, address, addr_lsb))
    if k.tracer is not None:
        k.tracer("kill_proc", (task, signal, code, address))
    return 0

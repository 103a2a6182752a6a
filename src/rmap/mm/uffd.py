# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Faults that somebody in user space resolves: the waiting half of fs/userfaultfd.c (v4.18).

Locks: `handle_userfault` is called with mmap_sem held for read and no page-table lock, and gives
mmap_sem up before it waits, so that whoever resolves the fault can take it. What registers ranges
and fills pages in stands in `rmap.mm.userfaultfd`.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        FAULT_FLAG_ALLOW_RETRY,
        FAULT_FLAG_RETRY_NOWAIT,
        VM_FAULT_MAJOR,
        VM_FAULT_NOPAGE,
        VM_FAULT_RETRY,
        VM_FAULT_SIGBUS,
        VM_FAULT_UFFD,
        VM_UFFD_MISSING,
        VM_UFFD_WP,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.memory import VmFault
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.pgtable import pmd_offset, pte_lookup, pte_none, pte_write, ptep_get
    from rmap.scalar import flag, i32, u64
    from rmap.sync.bits import FIELD_USERFAULT
    from rmap.sync.core import sched, wait_until


class UserfaultPending(Exception):
    """A fault waits for userfaultfd, and nobody runs who would resolve it: resolve it, try again.

    `address` is that of the page that is asked for.
    """

    def __init__(self, address: int) -> None:
        self.address = address
        super().__init__(f"the page at {address:#x} is userfaultfd's to provide")


class UserfaultfdWaitQueue:
    """struct userfaultfd_wait_queue: one fault that waits to be resolved."""

    def __init__(self, address: u64, flags: u64) -> None:
        self.address = address
        self.flags = flags
        self.waken = False

    def is_waken(self) -> bool:
        """Whether the fault may be tried again."""
        return self.waken


class UserfaultfdCtx:
    """struct userfaultfd_ctx: who is asked for the missing pages of some VMAs of one mm.

    Override `deliver` to resolve faults at once. With `sigbus` (UFFD_FEATURE_SIGBUS) a missing
    page is an error instead, which nobody is asked about.
    """

    def __init__(self) -> None:
        self.mm: Mm = None
        self.sigbus = False
        self.released = False
        self.pending: list = []

    def deliver(self, k: Kernel, address: u64, flags: u64) -> flag:
        """Hear of a fault, with no lock held; whether it has been resolved."""
        return False


def userfaultfd_missing(vma: Vma) -> flag:
    """Whether somebody is asked for the pages that the VMA misses."""
    return vma.vm_flags & VM_UFFD_MISSING != 0


def handle_userfault(k: Kernel, vmf: VmFault, reason: u64) -> i32:
    """Ask for a page and wait for it; returns VM_FAULT_ bits.

    VM_FAULT_RETRY means that mmap_sem is not held any more. VM_FAULT_UFFD beside it: nobody
    resolved the fault, and with no other CPU running nobody ever would; whoever caused the fault
    has to be told.
    """
    mm: Mm = vmf.vma.vm_mm
    mm.mmap_sem.assert_held_any()
    ctx: UserfaultfdCtx = vmf.vma.vm_userfaultfd_ctx
    if ctx is None or ctx.sigbus:
        return VM_FAULT_SIGBUS
    if ctx.mm is not mm:
        BUG("userfaultfd.c handle_userfault: the VMA is of another address space")
    if ctx.released:
        return VM_FAULT_NOPAGE
    if not vmf.flags & FAULT_FLAG_ALLOW_RETRY:
        # The caller cannot do without mmap_sem, so the fault cannot wait.
        return VM_FAULT_SIGBUS
    if vmf.flags & FAULT_FLAG_RETRY_NOWAIT:
        return VM_FAULT_RETRY
    uwq: UserfaultfdWaitQueue = UserfaultfdWaitQueue(vmf.address, vmf.flags)
    ctx.pending.append(uwq)
    # Only now look once more: whoever fills the page in after that finds the waiter in the list.
    must_wait: flag = userfaultfd_must_wait(k, mm, vmf.address, reason)
    mm.mmap_sem.up_read()
    ret: i32 = VM_FAULT_RETRY
    if must_wait:
        ret |= _wait(k, ctx, uwq)
    ctx.pending.remove(uwq)
    return ret


def _wait(k: Kernel, ctx: UserfaultfdCtx, uwq: UserfaultfdWaitQueue) -> i32:
    """Wait until the fault was resolved; returns what to add to the fault's result."""
    if ctx.deliver(k, uwq.address, uwq.flags):
        uwq.waken = True
    if not uwq.waken and not sched.exploring:
        return VM_FAULT_MAJOR | VM_FAULT_UFFD
    while not uwq.waken and not ctx.released:
        wait_until(FIELD_USERFAULT, uwq.address, uwq.is_waken)
    return VM_FAULT_MAJOR


def userfaultfd_must_wait(k: Kernel, mm: Mm, address: u64, reason: u64) -> flag:
    """Whether the fault is still there, by a look at the tables that takes no lock."""
    ptep: u64 = pte_lookup(k, mm, address)
    if not ptep:
        # A huge page that is there, or on its way, is as good as resolved.
        pmd: u64 = pmd_offset(k, mm, address)
        return not pmd or pte_none(k.pt[pmd])
    pte: u64 = ptep_get(k, ptep)
    return pte_none(pte) or (reason & VM_UFFD_WP != 0 and not pte_write(pte))


def wake_userfault(k: Kernel, ctx: UserfaultfdCtx, start: u64, end: u64) -> i32:
    """Let faults in ``[start, end)`` be tried again."""
    uwq: UserfaultfdWaitQueue
    for uwq in ctx.pending:
        if start <= uwq.address < end:
            uwq.waken = True
    return 0

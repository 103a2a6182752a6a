# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Loads and stores of a simulated CPU: TLB, page walk, fault, retry (arch/x86/mm/fault.c, v4.18).

Locks: none by the processor; a fault takes mm->mmap_sem for read, and what `handle_mm_fault`
takes. The caller holds nothing.

A CPU that remembers a translation uses it, whatever the page tables say by now. It walks them if
it does not, or to set the dirty bit before the first store through an entry: that walk faults if
the entry no longer permits the store. So a flush that the kernel forgot is met here as it is met in
a machine: as an access to a page that is somebody else's.
"""

from __future__ import annotations

import cython

from rmap.mm.uffd import UserfaultPending

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        _PAGE_DIRTY,
        _PAGE_PRESENT,
        _PAGE_PSE,
        _PAGE_RW,
        _PAGE_USER,
        FAULT_FLAG_ALLOW_RETRY,
        FAULT_FLAG_TRIED,
        FAULT_FLAG_USER,
        FAULT_FLAG_WRITE,
        PAGE_MASK,
        PAGE_SIZE,
        TASK_SIZE,
        VM_ACCESS_FLAGS,
        VM_FAULT_ERROR,
        VM_FAULT_HWPOISON,
        VM_FAULT_HWPOISON_LARGE,
        VM_FAULT_OOM,
        VM_FAULT_RETRY,
        VM_FAULT_SIGBUS,
        VM_FAULT_UFFD,
        VM_GROWSDOWN,
        VM_WRITE,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.content import load, store
    from rmap.mm.fault import handle_fault
    from rmap.mm.memory import VmFault
    from rmap.mm.mm_types import Kernel, Mm, Task, Vma
    from rmap.mm.pgtable import leaf_lookup, leaf_part, pte_lookup, pte_pfn
    from rmap.mm.stack import expand_stack
    from rmap.mm.tlb import switch_mm, tlb_announce_fill, tlb_holds, tlb_insert, tlb_lookup
    from rmap.mm.vma import vma_slot
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.bits import FIELD_CONTENT, FIELD_PTE, OP_READ, OP_RMW, OP_WRITE
    from rmap.sync.core import sched, sched_point

# Faults in a row that one access may take: more means that none of them gets it further.
MAX_FAULTS = cython.declare(cython.int, 1000)


class AccessError(Exception):
    """An access that the kernel answers with a signal: `address`, and whether it was a `write`."""

    what = "is not possible"

    def __init__(self, address: int, write: bool) -> None:
        self.address = address
        self.write = write
        super().__init__(f"a {'write' if write else 'read'} at {address:#x} {self.what}")


class Segfault(AccessError):
    """SIGSEGV: nothing is mapped there, or nothing that permits the access."""

    what = "is not permitted"


class BusError(AccessError):
    """SIGBUS: it is permitted, and the page cannot be had: beyond a file's end, or broken."""

    what = "finds no page"


class BrokenMemory(BusError):
    """SIGBUS with BUS_MCEERR_AR: the memory that it needs is broken, and what was in it lost."""

    what = "needs memory that is broken"


class OutOfMemory(AccessError):
    """There is no memory for the page. The kernel would kill somebody, and let this one retry."""

    what = "finds no memory"


class Cpu:
    """A task on its CPU, with what it has at hand for its next fault: the VMA of the last one."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.mm: Mm = task.mm
        self.vmf: VmFault = None
        self.slot = 0

    def translate(self, k: Kernel, address: u64, write: flag) -> u64:
        """The page that an access reaches, with the fault or faults that it takes.

        Raises `Segfault`, `BusError`, `OutOfMemory` or `UserfaultPending`.
        """
        pte: u64 = tlb_lookup(k, self.task.cpu, self.mm, address)
        wanted: u64 = _PAGE_RW | _PAGE_DIRTY if write else 0
        if pte and pte & wanted == wanted:
            return pte_pfn(pte)
        page: u64 = self.walk(k, address, write)
        faults: i32 = 0
        while not page:
            if faults == MAX_FAULTS:
                BUG("fault.c: an access faults again and again")
            faults += 1
            self.fault(k, address, write)
            page = self.walk(k, address, write)
        return page

    def walk(self, k: Kernel, address: u64, write: flag) -> u64:
        """Walk the page tables as the processor does; 0 if that ends in a fault.

        The accessed bit, and the dirty bit for a store, are set in one atomic step with the look
        at the entry, and in the same step what was found is remembered: a flush that another CPU
        asks for comes before all of that or after it.
        """
        ptep: u64 = pte_lookup(k, self.mm, address)
        wanted: u64 = _PAGE_PRESENT | _PAGE_USER
        marks: u64 = _PAGE_ACCESSED
        if write:
            wanted |= _PAGE_RW
            marks |= _PAGE_DIRTY
        while sched.exploring and ptep:
            tlb_announce_fill(self.task.cpu)
            sched_point(OP_RMW, FIELD_PTE, ptep)
            if pte_lookup(k, self.mm, address) == ptep:
                break
            # The table itself has gone meanwhile.
            ptep = pte_lookup(k, self.mm, address)
        if not ptep:
            return self.walk_huge(k, address, write)
        pte: u64 = k.pt[ptep]
        if pte & wanted != wanted:
            return 0
        pte |= marks
        k.pt[ptep] = pte
        tlb_insert(k, self.task.cpu, self.mm, address, pte)
        return pte_pfn(pte)

    def walk_huge(self, k: Kernel, address: u64, write: flag) -> u64:
        """End a walk at a PMD or PUD, if that maps a huge page; 0 if it ends in a fault.

        The entry's own bits are marked. What is remembered is the 4 KiB around the address, as by
        processors that break huge translations up.
        """
        leaf: u64 = leaf_lookup(k, self.mm, address)
        wanted: u64 = _PAGE_USER
        marks: u64 = _PAGE_ACCESSED
        if write:
            wanted |= _PAGE_RW
            marks |= _PAGE_DIRTY
        while sched.exploring and leaf:
            tlb_announce_fill(self.task.cpu)
            sched_point(OP_RMW, FIELD_PTE, leaf)
            if leaf_lookup(k, self.mm, address) == leaf:
                break
            leaf = leaf_lookup(k, self.mm, address)
        if not leaf or k.pt[leaf] & wanted != wanted:
            return 0
        k.pt[leaf] |= marks
        pte: u64 = (k.pt[leaf] & ~_PAGE_PSE) + leaf_part(k, self.mm, address, leaf)
        tlb_insert(k, self.task.cpu, self.mm, address, pte)
        return pte_pfn(pte)

    def fault(self, k: Kernel, address: u64, write: flag) -> i32:
        """Let the kernel handle a fault: __do_page_fault(). Raises what becomes a signal."""
        flags: u64 = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_USER
        if write:
            flags |= FAULT_FLAG_WRITE
        ret: i32 = VM_FAULT_RETRY
        while ret & VM_FAULT_RETRY:
            self.mm.mmap_sem.down_read()
            if not self.find(k, address, write):
                self.mm.mmap_sem.up_read()
                raise Segfault(address, write)
            self.vmf.aim(k, address, flags)
            ret = handle_fault(k, self.vmf)
            if ret & VM_FAULT_UFFD:
                raise UserfaultPending(address & PAGE_MASK)
            if not ret & VM_FAULT_RETRY:
                break
            # mmap_sem was given up: look for the VMA again, and next time wait with it held.
            flags = (flags & ~FAULT_FLAG_ALLOW_RETRY) | FAULT_FLAG_TRIED
        self.mm.mmap_sem.up_read()
        if ret & VM_FAULT_ERROR:
            fail(address, write, ret)
        return ret

    def find(self, k: Kernel, address: u64, write: flag) -> flag:
        """Make the VMA of an address the next fault's, growing a stack; whether it permits it."""
        if address >= TASK_SIZE:
            return False
        mm: Mm = self.mm
        count: i64 = len(mm.vmas)
        vma: Vma = None
        # The VMA of the last fault, if it is still where it was in the list.
        if self.vmf is not None and self.slot < count and mm.vmas[self.slot] is self.vmf.vma:
            vma = self.vmf.vma
        if vma is None or address < vma.vm_start or address >= vma.vm_end:
            self.slot = vma_slot(mm, address)
            if self.slot == count:
                return False
            vma = mm.vmas[self.slot]
            self.vmf = VmFault(vma, address, 0)
        if vma.vm_start > address:
            if not vma.vm_flags & VM_GROWSDOWN or expand_stack(k, vma, address):
                return False
        # On x86 whatever may be accessed at all may be read.
        return vma.vm_flags & (VM_WRITE if write else VM_ACCESS_FLAGS) != 0


def fail(address: u64, write: flag, ret: i32) -> i32:
    """Raise what a fault's error becomes: mm_fault_error()."""
    if ret & VM_FAULT_OOM:
        raise OutOfMemory(address, write)
    if ret & (VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE):
        raise BrokenMemory(address, write)
    if ret & VM_FAULT_SIGBUS:
        raise BusError(address, write)
    raise Segfault(address, write)


def cpu_of(k: Kernel, task: Task) -> Cpu:
    """The task on its CPU, which runs the task's address space from now on."""
    switch_mm(k, task, task.mm)
    return Cpu(task)


# ---------------------------------------------------------------- accesses


def cpu_access(k: Kernel, task: Task, address: u64, write: flag) -> u64:
    """Access one address; returns the page that was reached. Contents stay.

    Raises `Segfault`, `BusError`, `OutOfMemory` or `UserfaultPending`.
    """
    return cpu_of(k, task).translate(k, address, write)


def touch_range(k: Kernel, task: Task, start: u64, end: u64, write: flag) -> i64:
    """Access each page that has a byte in ``[start, end)``, lowest first; contents stay.

    Returns how many pages that were. Raises as `cpu_access` does: pages before the address of the
    error were accessed.
    """
    cpu: Cpu = cpu_of(k, task)
    count: i64 = 0
    address: u64 = start
    while address < end:
        cpu.translate(k, address, write)
        address = (address & PAGE_MASK) + PAGE_SIZE
        count += 1
    return count


def read_bytes(k: Kernel, task: Task, address: u64, length: i64) -> bytes:
    """Load `length` bytes. Raises as `cpu_access` does."""
    cpu: Cpu = cpu_of(k, task)
    parts: list = []
    page: u64
    inside: i64
    count: i64
    while length > 0:
        inside = address & ~PAGE_MASK
        count = min(PAGE_SIZE - inside, length)
        page = _reach(k, cpu, address, False)
        parts.append(load(k, page, inside, count))
        address += count
        length -= count
    return b"".join(parts)


def write_bytes(k: Kernel, task: Task, address: u64, data: bytes) -> i32:
    """Store bytes. Raises as `cpu_access` does; pages before the address of the error have them."""
    cpu: Cpu = cpu_of(k, task)
    page: u64
    inside: i64
    count: i64
    done: i64 = 0
    while done < len(data):
        inside = address & ~PAGE_MASK
        count = min(PAGE_SIZE - inside, len(data) - done)
        page = _reach(k, cpu, address, True)
        store(k, page, inside, data[done : done + count])
        address += count
        done += count
    return 0


def _reach(k: Kernel, cpu: Cpu, address: u64, write: flag) -> u64:
    """The page of an access whose content is loaded or stored right after this returns.

    An instruction ends before the CPU follows a flush. So when another CPU was let run, the
    translation must still be there, or the access begins anew.
    """
    page: u64 = cpu.translate(k, address, write)
    while sched.exploring:
        sched_point(OP_WRITE if write else OP_READ, FIELD_CONTENT, page)
        if tlb_holds(k, cpu.task.cpu, cpu.mm, address, page, write):
            break
        page = cpu.translate(k, address, write)
    return page

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Translation caches of the simulated CPUs, and the flushes that the kernel owes them.

arch/x86/mm/tlb.c, mm/pgtable-generic.c and mm/rmap.c:574-681 of v4.18. No lock is taken here;
flush_tlb_batched_pending() and whatever has ``ptep`` in its name run under the page-table lock of
the entry.

A CPU holds real entries: what a page-table entry was when it was last walked. It goes on using
them until they are flushed or displaced, so a flush that is missing shows as an access through a
translation that is no more. An address space counts its flushes (`Mm.tlb_gen`); each CPU keeps up
to six apart (ASIDs) and remembers up to which flush it has followed each. A CPU that runs another
address space is not in the mask, is not interrupted, and catches up when it switches back.
"""

from __future__ import annotations

import cython
import numpy as np

from rmap.mm.mm_types import column

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        HPAGE_PMD_SIZE,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        TLB_ENTRIES,
        TLB_FLUSH_LOCAL,
        TLB_FLUSH_REMOTE,
        TLB_NR_DYN_ASIDS,
        TLB_SINGLE_PAGE_FLUSH_CEILING,
        TTU_BATCH_FLUSH,
        ULONG_MAX,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.mm_types import Kernel, Mm, Task, TlbBatch, Vma
    from rmap.mm.pgtable import pte_dirty, pte_pfn, ptep_get_and_clear
    from rmap.scalar import flag, i32, u64
    from rmap.sync.bits import FIELD_PTE, FIELD_TLB, FIELD_TLB_BATCHED, OP_READ, OP_RMW, OP_WRITE
    from rmap.sync.core import Context, sched, sched_point


# ---------------------------------------------------------------- the cache of one CPU


class Tlb:
    """What one CPU remembers of page tables (struct tlb_state, and the hardware's cache).

    Direct-mapped: the page of an address has one place, where a newer one displaces it. An entry
    is alive while its tag is that of its address space's slot (``ctx_tag``); a slot that gets a
    new tag is flushed at once, however many entries it had.
    """

    def __init__(self, cpu: i32, entries: i32 = TLB_ENTRIES) -> None:
        """Make an empty cache; `entries` is a power of two. Raises `ValueError` otherwise."""
        if entries <= 0 or entries & (entries - 1):
            raise ValueError(f"a TLB has a power of two of entries, not {entries}")
        self.cpu = cpu
        self.mask = entries - 1
        self.tags = column(entries, np.ulonglong)
        self.vpns = column(entries, np.ulonglong)
        self.ptes = column(entries, np.ulonglong)
        self.loaded_mm: Mm = None
        self.loaded_asid = 0
        self.ctx_id = column(TLB_NR_DYN_ASIDS, np.ulonglong)
        self.ctx_tlb_gen = column(TLB_NR_DYN_ASIDS, np.ulonglong)
        self.ctx_tag = column(TLB_NR_DYN_ASIDS, np.ulonglong)
        self.next_asid = 0
        self.next_tag = 1

    def __repr__(self) -> str:
        return f"<tlb of cpu {self.cpu}: {len(self.live_entries())} entries>"

    def choose_new_asid(self, mm: Mm) -> i32:
        """Load an address space: its slot if it still has one, else the next in turn.

        arch/x86/mm/tlb.c (v4.18). Flushes that were not sent here are made up for.
        """
        asid: i32
        for asid in range(TLB_NR_DYN_ASIDS):
            if self.ctx_id[asid] == mm.ident:
                if self.ctx_tlb_gen[asid] < mm.tlb_gen:
                    self.flush_asid(asid)
                    self.ctx_tlb_gen[asid] = mm.tlb_gen
                self.loaded_asid = asid
                return 0
        asid = self.next_asid
        self.next_asid = (asid + 1) % TLB_NR_DYN_ASIDS
        self.flush_asid(asid)
        self.ctx_id[asid] = mm.ident
        self.ctx_tlb_gen[asid] = mm.tlb_gen
        self.loaded_asid = asid
        return 0

    def flush_asid(self, asid: i32) -> i32:
        """Forget all entries of a slot."""
        self.ctx_tag[asid] = self.next_tag
        self.next_tag += 1
        return 0

    def flush_one(self, vpn: u64) -> i32:
        """Forget the entry of one page of the loaded address space (INVLPG)."""
        slot: u64 = vpn & self.mask
        if self.vpns[slot] == vpn and self.tags[slot] == self.ctx_tag[self.loaded_asid]:
            self.tags[slot] = 0
        return 0

    def live_entries(self) -> list[tuple[int, int, int]]:
        """All entries the CPU would use: ``Mm.ident``, address, page-table entry."""
        owners = {self.ctx_tag[asid]: asid for asid in range(TLB_NR_DYN_ASIDS)}
        found = []
        for slot in range(self.mask + 1):
            asid = owners.get(self.tags[slot]) if self.tags[slot] else None
            if asid is not None:
                found.append((self.ctx_id[asid], self.vpns[slot] << PAGE_SHIFT, self.ptes[slot]))
        return found

    def followed(self, ident: int) -> int:
        """Up to which flush (`Mm.tlb_gen`) the CPU has followed an address space; 0: not known."""
        for asid in range(TLB_NR_DYN_ASIDS):
            if self.ctx_id[asid] == ident:
                return self.ctx_tlb_gen[asid]
        return 0


def tlb_entries(k: Kernel) -> list[tuple[int, Mm, int, int]]:
    """All entries that some CPU may still use: CPU, address space, address, page-table entry.

    Entries of an address space that the CPU does not run and whose flushes it has not followed
    are left out: it drops them before it would use them.
    """
    mms = {mm.ident: mm for mm in k.mms}
    found = []
    for tlb in k.tlbs:
        for ident, address, pte in tlb.live_entries():
            mm = mms.get(ident)
            if mm is None or (mm is not tlb.loaded_mm and tlb.followed(ident) < mm.tlb_gen):
                continue
            found.append((tlb.cpu, mm, address, pte))
    return found


# ---------------------------------------------------------------- CPUs and tasks


def make_cpus(k: Kernel, count: i32, entries: i32 = TLB_ENTRIES) -> i32:
    """Give the machine `count` CPUs (up to 64) with empty caches of so many entries each.

    Raises `ValueError` for a number that a mask of CPUs cannot hold.
    """
    if count < 1 or count > 64:
        raise ValueError(f"a machine has 1 to 64 CPUs, not {count}")
    k.tlbs = [Tlb(cpu, entries) for cpu in range(count)]
    return 0


def current_task(k: Kernel) -> Task:
    """The task that runs (``current``); a bare context is made one of a kernel thread."""
    running: Context = sched.current
    task: Task
    if isinstance(running, Task):
        task = running
        return task
    task = Task(running.name, 0, None, running.cpu)
    task.held = running.held
    task.rcu_depth = running.rcu_depth
    sched.current = task
    return task


def _cpu_ident(cpu: i32) -> u64:
    """Which cache an access is to, told apart from the numbers of address spaces."""
    number: u64 = cpu
    one: u64 = 1
    return number | one << 32


def switch_mm(k: Kernel, task: Task, mm: Mm | None) -> i32:
    """Let the task's CPU run an address space; ``None`` (a kernel thread) leaves the old one.

    switch_mm_irqs_off(), arch/x86/mm/tlb.c (v4.18). First stop flushes for the old one, then
    start them for the new one, and only then read how far it has come: one sent in between would
    otherwise be lost.
    """
    task.mm = mm
    if mm is None:
        return 0
    tlb: Tlb = k.tlbs[task.cpu]
    old: Mm = tlb.loaded_mm
    if old is mm:
        return 0
    if old is not None:
        leave_mm(k, task.cpu)
    one: u64 = 1
    if sched.exploring:
        sched_point(OP_RMW, FIELD_TLB, mm.ident)
    mm.cpu_bitmap |= one << task.cpu
    if sched.exploring:
        sched_point(OP_READ, FIELD_TLB, mm.ident)
    tlb.choose_new_asid(mm)
    tlb.loaded_mm = mm
    return 0


def leave_mm(k: Kernel, cpu: i32) -> i32:
    """Let a CPU run no address space; what it remembers of the last one stays."""
    tlb: Tlb = k.tlbs[cpu]
    old: Mm = tlb.loaded_mm
    one: u64 = 1
    if old is None:
        return 0
    if sched.exploring:
        sched_point(OP_RMW, FIELD_TLB, old.ident)
    if old.cpu_bitmap & one << cpu:
        old.cpu_bitmap ^= one << cpu
    tlb.loaded_mm = None
    return 0


def _tlb_of(k: Kernel, cpu: i32, mm: Mm) -> Tlb:
    """The cache of a CPU, which runs that address space. Raises `KernelBug` if it does not."""
    tlb: Tlb = k.tlbs[cpu]
    if tlb.loaded_mm is not mm:
        BUG("a CPU uses an address space that switch_mm() has not given it")
    return tlb


def tlb_lookup(k: Kernel, cpu: i32, mm: Mm, address: u64) -> u64:
    """What the CPU remembers as the entry of an address; 0 if it has to walk the tables.

    Raises `KernelBug` if the CPU runs another address space.
    """
    if sched.exploring:
        sched_point(OP_READ, FIELD_TLB, _cpu_ident(cpu))
    tlb: Tlb = _tlb_of(k, cpu, mm)
    vpn: u64 = address >> PAGE_SHIFT
    slot: u64 = vpn & tlb.mask
    if tlb.vpns[slot] == vpn and tlb.tags[slot] == tlb.ctx_tag[tlb.loaded_asid]:
        return tlb.ptes[slot]
    return 0


def tlb_fill(k: Kernel, cpu: i32, mm: Mm, address: u64, pte: u64) -> i32:
    """Let the CPU remember the entry of an address, displacing what had its place.

    Raises `KernelBug` if the CPU runs another address space.
    """
    tlb_announce_fill(cpu)
    return tlb_insert(k, cpu, mm, address, pte)


def tlb_announce_fill(cpu: i32) -> i32:
    """The scheduling point of a fill, for a caller that calls `tlb_insert` in a later step."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_TLB, _cpu_ident(cpu))
    return 0


def tlb_insert(k: Kernel, cpu: i32, mm: Mm, address: u64, pte: u64) -> i32:
    """`tlb_fill` without its scheduling point: in one step with the look at the entry.

    A CPU follows a flush between two instructions, never between a walk and its fill.
    """
    tlb: Tlb = _tlb_of(k, cpu, mm)
    vpn: u64 = address >> PAGE_SHIFT
    slot: u64 = vpn & tlb.mask
    tlb.tags[slot] = tlb.ctx_tag[tlb.loaded_asid]
    tlb.vpns[slot] = vpn
    tlb.ptes[slot] = pte
    return 0


def tlb_holds(k: Kernel, cpu: i32, mm: Mm, address: u64, page: u64, write: flag) -> flag:
    """Whether the CPU still reaches that page at the address, to write if so; no scheduling point.

    A translation without the dirty bit is not one to write through.
    """
    tlb: Tlb = k.tlbs[cpu]
    vpn: u64 = address >> PAGE_SHIFT
    slot: u64 = vpn & tlb.mask
    if tlb.loaded_mm is not mm or tlb.vpns[slot] != vpn:
        return False
    if tlb.tags[slot] != tlb.ctx_tag[tlb.loaded_asid] or pte_pfn(tlb.ptes[slot]) != page:
        return False
    return not write or pte_dirty(tlb.ptes[slot])


# ---------------------------------------------------------------- flushing


def flush_tlb_mm(k: Kernel, mm: Mm) -> i32:
    """Let every CPU forget all of an address space."""
    new_gen: u64 = inc_mm_tlb_gen(mm)
    if mm.cpu_bitmap:
        _flush_tlb_cpus(k, mm.cpu_bitmap, mm, 0, ULONG_MAX, new_gen)
    return 0


def flush_tlb_range(k: Kernel, mm: Mm, start: u64, end: u64) -> i32:
    """Let every CPU forget ``[start, end)`` of an address space; all of it, if that is less work.

    flush_tlb_mm_range(), arch/x86/mm/tlb.c (v4.18).
    """
    if end - start > PAGE_SIZE * TLB_SINGLE_PAGE_FLUSH_CEILING:
        return flush_tlb_mm(k, mm)
    new_gen: u64 = inc_mm_tlb_gen(mm)
    if mm.cpu_bitmap:
        _flush_tlb_cpus(k, mm.cpu_bitmap, mm, start, end, new_gen)
    return 0


def flush_tlb_page(k: Kernel, vma: Vma, address: u64) -> i32:
    """Let every CPU forget one page of the VMA's address space."""
    mm: Mm = vma.vm_mm
    new_gen: u64 = inc_mm_tlb_gen(mm)
    if mm.cpu_bitmap:
        _flush_tlb_cpus(k, mm.cpu_bitmap, mm, address, address + PAGE_SIZE, new_gen)
    return 0


def inc_mm_tlb_gen(mm: Mm) -> u64:
    """Count one more flush of an address space; returns its number."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_TLB, mm.ident)
    mm.tlb_gen += 1
    return mm.tlb_gen


def _flush_tlb_cpus(k: Kernel, cpus: u64, mm: Mm | None, start: u64, end: u64, new_gen: u64) -> i32:
    """Flush on this CPU, then on the others of the mask by interrupts. ``mm`` None: any."""
    one: u64 = 1
    cpu: i32 = sched.current.cpu
    if cpus >> cpu & 1:
        k.vm_stat[TLB_FLUSH_LOCAL] += 1
        _flush_tlb_func(k, k.tlbs[cpu], mm, start, end, new_gen)
        cpus ^= one << cpu
    cpu = 0
    while cpus:
        if cpus & 1:
            k.vm_stat[TLB_FLUSH_REMOTE] += 1
            _flush_tlb_func(k, k.tlbs[cpu], mm, start, end, new_gen)
        cpus >>= 1
        cpu += 1
    return 0


def _flush_tlb_func(k: Kernel, tlb: Tlb, mm: Mm | None, start: u64, end: u64, new_gen: u64) -> i32:
    """What one CPU does when it is told to flush (arch/x86/mm/tlb.c, v4.18).

    Page by page only if it is the one flush that this CPU has not followed yet; otherwise
    everything, which makes up for the others as well.
    """
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_TLB, _cpu_ident(tlb.cpu))
    loaded: Mm = tlb.loaded_mm
    if loaded is None or (mm is not None and mm is not loaded):
        # It has switched away since, and catches up when it comes back.
        return 0
    asid: i32 = tlb.loaded_asid
    local_gen: u64 = tlb.ctx_tlb_gen[asid]
    mm_gen: u64 = loaded.tlb_gen
    if local_gen == mm_gen:
        return 0
    vpn: u64
    if end != ULONG_MAX and new_gen == local_gen + 1 and new_gen == mm_gen:
        vpn = start >> PAGE_SHIFT
        while vpn << PAGE_SHIFT < end:
            tlb.flush_one(vpn)
            vpn += 1
    else:
        tlb.flush_asid(asid)
    tlb.ctx_tlb_gen[asid] = mm_gen
    return 0


# ---------------------------------------------------------------- entries and their flushes


def inc_tlb_flush_pending(k: Kernel, mm: Mm) -> i32:
    """Announce that entries change whose flush comes later (include/linux/mm_types.h)."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_TLB_BATCHED, mm.ident)
    mm.tlb_flush_pending += 1
    return 0


def dec_tlb_flush_pending(k: Kernel, mm: Mm) -> i32:
    """The flush that `inc_tlb_flush_pending` announced has been made."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_TLB_BATCHED, mm.ident)
    mm.tlb_flush_pending -= 1
    return 0


def mm_tlb_flush_pending(mm: Mm) -> flag:
    """Whether somebody has changed entries whose flush is still to come."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_TLB_BATCHED, mm.ident)
    return mm.tlb_flush_pending > 0


def ptep_clear_flush(k: Kernel, vma: Vma, address: u64, ptep: u64) -> u64:
    """Empty an entry, flush its page if a CPU can remember it, and return what it was.

    mm/pgtable-generic.c (v4.18). Of a PROT_NONE entry a CPU can remember only what it was
    before, while the flush for that is still to come.
    """
    mm: Mm = vma.vm_mm
    pte: u64 = ptep_get_and_clear(k, mm, address, ptep)
    if pte & _PAGE_PRESENT or (pte & _PAGE_PROTNONE and mm.tlb_flush_pending):
        flush_tlb_page(k, vma, address)
    return pte


def ptep_test_and_clear_young(k: Kernel, vma: Vma, address: u64, ptep: u64) -> flag:
    """Clear the accessed bit of an entry; whether it was set. No flush."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PTE, ptep)
    pte: u64 = k.pt[ptep]
    if not pte & _PAGE_ACCESSED:
        return False
    k.pt[ptep] = pte ^ _PAGE_ACCESSED
    return True


def ptep_clear_flush_young(k: Kernel, vma: Vma, address: u64, ptep: u64) -> flag:
    """Clear the accessed bit of an entry, and flush its page if it was set; whether it was.

    mm/pgtable-generic.c (v4.18). x86 has a version that saves the flush, at the price that a
    CPU which remembers the entry does not set the bit again: the quirk ``clear_young_keeps_tlb``.
    """
    young: flag = ptep_test_and_clear_young(k, vma, address, ptep)
    if young and not k.profile.clear_young_keeps_tlb:
        flush_tlb_page(k, vma, address)
    return young


def pmdp_huge_clear_flush(k: Kernel, vma: Vma, address: u64, pmdp: u64) -> u64:
    """Empty the PMD of a huge page, flush its range, and return what it was."""
    start: u64 = address & PMD_MASK
    pmd: u64 = ptep_get_and_clear(k, vma.vm_mm, start, pmdp)
    flush_tlb_range(k, vma.vm_mm, start, start + HPAGE_PMD_SIZE)
    return pmd


def pmdp_collapse_flush(k: Kernel, vma: Vma, address: u64, pmdp: u64) -> u64:
    """Empty a PMD that has a table below it, which is to be replaced; returns what it was.

    mm/pgtable-generic.c (v4.18). What CPUs remember are the translations of the PTEs.
    """
    pmd: u64 = ptep_get_and_clear(k, vma.vm_mm, address, pmdp)
    flush_tlb_range(k, vma.vm_mm, address, address + HPAGE_PMD_SIZE)
    return pmd


def pmdp_clear_flush_young(k: Kernel, vma: Vma, address: u64, pmdp: u64) -> flag:
    """Clear the accessed bit of a huge page's PMD, flush its range if it was set; whether it was.

    arch/x86/mm/pgtable.c (v4.18). An address inside of the huge page is a bug.
    """
    if address & ~PMD_MASK:
        BUG("pmdp_clear_flush_young: not the first address of a huge page")
    young: flag = ptep_test_and_clear_young(k, vma, address, pmdp)
    if young:
        flush_tlb_range(k, vma.vm_mm, address, address + HPAGE_PMD_SIZE)
    return young


def pmdp_invalidate(k: Kernel, vma: Vma, address: u64, pmdp: u64) -> u64:
    """Forbid CPUs to use the PMD of a huge page, which stays one; returns what it was.

    mm/pgtable-generic.c (v4.18).
    """
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PTE, pmdp)
    pmd: u64 = k.pt[pmdp]
    k.pt[pmdp] = pmd & ~(_PAGE_PRESENT | _PAGE_PROTNONE)
    flush_tlb_range(k, vma.vm_mm, address, address + HPAGE_PMD_SIZE)
    return pmd


# ---------------------------------------------------------------- batches (mm/rmap.c:574-681)


def try_to_unmap_flush(k: Kernel) -> i32:
    """Make the flushes that reclaim owes, before any page of the batch is freed.

    mm/rmap.c:581 (v4.18).

    Locks: none; it waits for other CPUs, so interrupts are on. The batch is the task's own.
    """
    tlb_ubc: TlbBatch = current_task(k).tlb_ubc
    if not tlb_ubc.flush_required:  # L585
        return 0
    _flush_tlb_cpus(k, tlb_ubc.cpumask, None, 0, ULONG_MAX, 0)  # L588
    tlb_ubc.cpumask = 0
    tlb_ubc.flush_required = False
    tlb_ubc.writable = False
    return 0


def try_to_unmap_flush_dirty(k: Kernel) -> i32:
    """Make them if a page of the batch may still be written to, before IO on it starts.

    mm/rmap.c:594 (v4.18).

    Locks: none, as try_to_unmap_flush().
    """
    if current_task(k).tlb_ubc.writable:  # L598
        try_to_unmap_flush(k)
    return 0


def set_tlb_ubc_flush_pending(k: Kernel, mm: Mm, writable: flag) -> i32:
    """Owe the flush of an entry that was just emptied (mm/rmap.c:602, v4.18).

    Locks: needs the page-table lock under which the entry was emptied.
    """
    tlb_ubc: TlbBatch = current_task(k).tlb_ubc
    inc_mm_tlb_gen(mm)
    tlb_ubc.cpumask |= mm.cpu_bitmap
    tlb_ubc.flush_required = True
    # After the entry was emptied: whoever sees it empty has to see that a flush is owed.
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_TLB_BATCHED, mm.ident)
    mm.tlb_flush_batched = True  # L614
    if writable:  # L621
        # A dirty entry is taken to be writable: no IO before the flush.
        tlb_ubc.writable = True
    return 0


def should_defer_flush(k: Kernel, mm: Mm, flags: u64) -> flag:
    """Whether a flush is worth deferring: only if it would interrupt another CPU.

    mm/rmap.c:629 (v4.18).

    Locks: needs the page-table lock of the entry that is to be emptied.
    """
    if not flags & TTU_BATCH_FLUSH:  # L633
        return False
    one: u64 = 1
    here: u64 = one << sched.current.cpu
    if sched.exploring:
        sched_point(OP_READ, FIELD_TLB, mm.ident)
    should_defer: flag = False
    if mm.cpu_bitmap & ~here:  # L637
        should_defer = True
    return should_defer


def flush_tlb_batched_pending(k: Kernel, mm: Mm) -> i32:
    """Flush what reclaim emptied and did not flush, before a change relies on its being gone.

    mm/rmap.c:659 (v4.18). Called under a page-table lock by zap, mprotect, mremap and MADV_FREE.
    Without the quirk ``flush_batched_pending`` it does nothing, as before v4.13.

    Locks: needs the page-table lock of the entries that are about to be changed.
    """
    if not k.profile.flush_batched_pending:
        return 0
    if sched.exploring:
        sched_point(OP_READ, FIELD_TLB_BATCHED, mm.ident)
    if mm.tlb_flush_batched:  # L661
        flush_tlb_mm(k, mm)
        # Not before the flush: another CPU that saw it cleared would rely on the flush.
        if sched.exploring:
            sched_point(OP_WRITE, FIELD_TLB_BATCHED, mm.ident)
        mm.tlb_flush_batched = False
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""mprotect (mm/mprotect.c, v4.18).

Locks: `do_mprotect` takes mm->mmap_sem for write; inside it page-table locks, one at a time. The
TLB is flushed after the last of them was dropped: until then a CPU may still write by its old
translation, which is why nobody else may take a page for clean meanwhile (mm_tlb_flush_pending).

An entry of a private mapping never becomes writable here, since it may have to be copied: the next
write faults, and finds out. Later kernels know which pages are not shared (`anon_exclusive`).
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_DIRTY,
        _PAGE_NX,
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        _PAGE_RW,
        _PAGE_SOFT_DIRTY,
        _PAGE_SWP_EXCLUSIVE,
        _PAGE_USER,
        EACCES,
        EINVAL,
        ENOMEM,
        HPAGE_PMD_NR,
        MM_CP_DIRTY_ACCT,
        MM_CP_TRY_CHANGE_WRITABLE,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        PUD_SHIFT,
        PUD_SIZE,
        SWP_DEVICE_READ,
        SWP_DEVICE_WRITE,
        SWP_MIGRATION_READ,
        TASK_SIZE,
        VM_ACCESS_FLAGS,
        VM_ACCOUNT,
        VM_HUGETLB,
        VM_LOCKED,
        VM_NORESERVE,
        VM_SHARED,
        VM_SOFTDIRTY,
        VM_WRITE,
        PG_anon_exclusive,
    )
    from rmap.mm.bug import WARN
    from rmap.mm.gup import populate_vma_page_range
    from rmap.mm.huge.change import change_huge_pmd
    from rmap.mm.huge.pgtable import pmd_trans_unstable
    from rmap.mm.huge.split_pmd import __split_huge_pmd
    from rmap.mm.hugetlb.protect import hugetlb_change_protection
    from rmap.mm.memory import vm_normal_page
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmap import calc_vm_prot_bits, page_align
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import PageAnon, PageFlag
    from rmap.mm.pgtable import (
        is_device_private_entry,
        is_migration_entry,
        is_swap_pte,
        is_write_migration_entry,
        pmd_offset,
        pte_lock,
        pte_offset,
        pte_swp_mksoft_dirty,
        pte_swp_soft_dirty,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get_and_clear,
        set_pte_at,
        swp_entry,
        swp_entry_to_pte,
        swp_offset,
        swp_type,
    )
    from rmap.mm.tlb import (
        dec_tlb_flush_pending,
        flush_tlb_batched_pending,
        flush_tlb_range,
        inc_tlb_flush_pending,
    )
    from rmap.mm.vma import find_vma, vma_is_anonymous, vma_set_page_prot, vma_wants_writenotify
    from rmap.mm.vma_adjust import VmaPointer, split_vma
    from rmap.mm.vma_merge import vma_merge
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.core import sched


# ---------------------------------------------------------------- entries


def change_protection(
    k: Kernel, vma: Vma, start: u64, end: u64, newprot: u64, cp_flags: i32
) -> i64:
    """Give all entries of a range of a VMA other protection bits (mm/mprotect.c:309, v4.18).

    Returns how many entries there were. mmap_sem is held for write, or for read if nothing but
    PROT_NONE is given.
    """
    mm: Mm = vma.vm_mm
    pages: i64 = 0
    address: u64 = start
    stop: u64
    if vma.vm_flags & VM_HUGETLB:
        return hugetlb_change_protection(k, vma, start, end, newprot)
    inc_tlb_flush_pending(k, mm)
    while address < end:
        stop = ((address >> PUD_SHIFT) << PUD_SHIFT) + PUD_SIZE
        if stop > end:
            stop = end
        pages += _change_pmd_range(k, vma, address, stop, newprot, cp_flags)
        address = stop
    # Entries that were absent are in no TLB, unless reclaim owes a flush: that was made.
    if pages:
        flush_tlb_range(k, mm, start, end)
    dec_tlb_flush_pending(k, mm)
    return pages


def _change_pmd_range(
    k: Kernel, vma: Vma, address: u64, end: u64, newprot: u64, cp_flags: i32
) -> i64:
    """Change the entries below one PUD (mm/mprotect.c:164, v4.18)."""
    mm: Mm = vma.vm_mm
    pages: i64 = 0
    told: flag = False
    first: u64 = 0
    pmd: u64 = pmd_offset(k, mm, address)
    stop: u64
    huge: i32
    if not pmd:
        return 0
    while address < end:
        stop = (address & PMD_MASK) + PMD_SIZE
        if stop > end:
            stop = end
        if k.pt[pmd]:
            # Secondary MMUs are told only if there is something to tell.
            if not told:
                told = True
                first = address
                mmu_notifier_invalidate_range_start(k, mm, first, end)
            huge = 0
            if k.pt[pmd] & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT:
                huge = _change_huge(k, vma, pmd, address, stop, newprot, cp_flags)
            if huge:
                pages += huge if huge == HPAGE_PMD_NR else 0
            elif not pmd_trans_unstable(k, pmd):
                pages += _change_pte_range(k, vma, pmd, address, stop, newprot, cp_flags)
        pmd += 1
        address = stop
    if told:
        mmu_notifier_invalidate_range_end(k, mm, first, end)
    return pages


def _change_huge(
    k: Kernel, vma: Vma, pmd: u64, address: u64, end: u64, newprot: u64, cp_flags: i32
) -> i32:
    """Change a PMD that maps a huge page, or split it if not all of it is to change.

    Returns what `change_huge_pmd` does; 0 also if it was split.
    """
    if end - address != PMD_SIZE:
        __split_huge_pmd(k, vma, pmd, address, False, 0)
        return 0
    return change_huge_pmd(k, vma, pmd, address, newprot, cp_flags)


def _change_pte_range(
    k: Kernel, vma: Vma, pmd: u64, address: u64, end: u64, newprot: u64, cp_flags: i32
) -> i64:
    """Change the entries of one table, under its lock (mm/mprotect.c:37, v4.18)."""
    first: u64 = pte_offset(k, pmd, address)
    last: u64 = first + ((end - address) >> PAGE_SHIFT)
    pages: i64 = 0
    ptep: u64
    pte: u64
    # What pte_modify() replaces: the rest belongs to the page.
    changed: u64 = _PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_PROTNONE | _PAGE_NX
    prot: u64 = newprot & changed
    dirty: u64 = _PAGE_DIRTY | _PAGE_SOFT_DIRTY
    if not vma.vm_flags & VM_SOFTDIRTY:
        dirty = _PAGE_DIRTY
    pte_lock(k, first)
    flush_tlb_batched_pending(k, vma.vm_mm)
    for ptep in range(first, last):
        pte = k.pt[ptep]
        if not pte & (_PAGE_PRESENT | _PAGE_PROTNONE):
            if pte and is_swap_pte(pte):
                pages += _change_swap_pte(k, vma, address, ptep, pte)
            address += PAGE_SIZE
            continue
        if sched.exploring:
            # A CPU may set the dirty bit until the moment that this empties the entry.
            pte = ptep_get_and_clear(k, vma.vm_mm, address, ptep)
        pte = (pte & ~changed) | prot
        if cp_flags & MM_CP_DIRTY_ACCT:
            # A write fault would only find out what is known: the page was written to.
            if pte & dirty == dirty:
                pte |= _PAGE_RW
        elif cp_flags & MM_CP_TRY_CHANGE_WRITABLE:
            if not pte & _PAGE_RW and can_change_pte_writable(k, vma, address, pte):
                pte |= _PAGE_RW
        if sched.exploring:
            set_pte_at(k, vma.vm_mm, address, ptep, pte)
        else:
            k.pt[ptep] = pte
        pages += 1
        address += PAGE_SIZE
    pte_unlock(k, first)
    return pages


def _change_swap_pte(k: Kernel, vma: Vma, address: u64, ptep: u64, pte: u64) -> i64:
    """Take the right to write from an entry of a page that is elsewhere; 1 if it had it.

    Whether it may have it again is found out by the fault on the page that comes back.
    """
    entry: u64 = pte_to_swp_entry(pte)
    new: u64
    if is_migration_entry(entry) and is_write_migration_entry(entry):
        new = swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, swp_offset(entry)))
        if k.profile.anon_exclusive and PageAnon(k, swp_offset(entry)):
            # That the page is this process's alone the write entry said by itself.
            new |= _PAGE_SWP_EXCLUSIVE
    elif is_device_private_entry(entry) and swp_type(entry) == SWP_DEVICE_WRITE:
        new = swp_entry_to_pte(swp_entry(SWP_DEVICE_READ, swp_offset(entry)))
    else:
        return 0
    if pte_swp_soft_dirty(pte):
        new = pte_swp_mksoft_dirty(new)
    set_pte_at(k, vma.vm_mm, address, ptep, new)
    return 1


def can_change_pte_writable(k: Kernel, vma: Vma, address: u64, pte: u64) -> flag:
    """Whether a write fault would make the entry writable, and do nothing else (v6.0).

    In a private mapping that is so for exclusive anonymous pages; in a shared one, whose file wants
    to hear of writes, for a page that is dirty, which it has heard of.
    """
    if pte & _PAGE_PROTNONE:
        return False
    if not pte & _PAGE_DIRTY and (vma.vm_flags & VM_SHARED or not k.profile.mprotect_writes_clean):
        return False
    if vma.vm_flags & VM_SHARED:
        return True
    page: u64 = vm_normal_page(k, vma, address, pte)
    return page != 0 and PageAnon(k, page) and PageFlag(k, page, PG_anon_exclusive)


# ---------------------------------------------------------------- ranges


def mprotect_fixup(
    k: Kernel, vma: Vma, prev: VmaPointer, start: u64, end: u64, newflags: u64
) -> i32:
    """Give a part of a VMA another protection (mm/mprotect.c:349, v4.18).

    `prev` is the VMA before `start`, and becomes the one that the part is in now. Returns 0 or
    -ENOMEM.
    """
    mm: Mm = vma.vm_mm
    oldflags: u64 = vma.vm_flags
    error: i32
    if newflags == oldflags:
        prev.vma = vma
        return 0
    newflags = _account(k, vma, newflags)
    pgoff: u64 = vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT)
    merged: Vma = vma_merge(
        k,
        mm,
        prev.vma,
        start,
        end,
        newflags,
        vma.anon_vma,
        vma.vm_file,
        pgoff,
        vma.vm_userfaultfd_ctx,
    )
    if merged is not None:
        vma = merged
        if (vma.vm_flags ^ newflags) & ~VM_SOFTDIRTY:
            WARN(k.warnings, "mprotect.c:402 mprotect_fixup: merged with other flags")
    prev.vma = vma
    if merged is None:
        if start != vma.vm_start:
            error = split_vma(k, mm, vma, start, 1)
            if error:
                return error
        if end != vma.vm_end:
            error = split_vma(k, mm, vma, end, 0)
            if error:
                return error
    vma.vm_flags = newflags
    cp_flags: i32 = _cp_flags(k, vma)
    vma_set_page_prot(k, vma)
    change_protection(k, vma, start, end, vma.vm_page_prot, cp_flags)
    if oldflags & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and newflags & VM_WRITE:
        # Locked memory is not to fault: copy what a write would have to.
        populate_vma_page_range(k, vma, start, end)
    return 0


def _account(k: Kernel, vma: Vma, newflags: u64) -> u64:
    """The new flags, with VM_ACCOUNT where memory is promised by making it writable.

    The promise is not taken back, as pages may have been written to; only `mprotect_drops_account`
    does so where there are none.
    """
    unaccounted: u64 = VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE
    if newflags & VM_WRITE:
        if not vma.vm_flags & unaccounted:
            newflags |= VM_ACCOUNT
    elif k.profile.mprotect_drops_account:
        if vma.vm_flags & VM_ACCOUNT and vma_is_anonymous(vma) and vma.anon_vma is None:
            newflags &= ~VM_ACCOUNT
    return newflags


def _cp_flags(k: Kernel, vma: Vma) -> i32:
    """How change_protection() may make entries writable that the VMA's protection does not."""
    if not k.profile.mprotect_writes_exclusive:
        return MM_CP_DIRTY_ACCT if vma_wants_writenotify(vma) else 0
    if vma.vm_flags & VM_SHARED:
        return MM_CP_TRY_CHANGE_WRITABLE if vma_wants_writenotify(vma) else 0
    return MM_CP_TRY_CHANGE_WRITABLE if vma.vm_flags & VM_WRITE else 0


def do_mprotect(k: Kernel, mm: Mm, start: u64, length: u64, prot: u64) -> i32:
    """The system call mprotect() (do_mprotect_pkey(), mm/mprotect.c:437, v4.18).

    Returns 0 or a negative errno: -ENOMEM at the first hole, with what is before it done.
    """
    if start & (PAGE_SIZE - 1):
        return -EINVAL
    if length == 0:
        return 0
    length = page_align(length)
    if length == 0 or length > TASK_SIZE or start > TASK_SIZE:
        return -ENOMEM
    mm.mmap_sem.down_write()
    error: i32 = _protect_range(k, mm, start, start + length, calc_vm_prot_bits(prot))
    mm.mmap_sem.up_write()
    return error


def _protect_range(k: Kernel, mm: Mm, start: u64, end: u64, prot_flags: u64) -> i32:
    """Change one VMA after the other, up to the first hole."""
    vma: Vma = find_vma(k, mm, start)
    if vma is None or vma.vm_start > start:
        return -ENOMEM
    prev: VmaPointer = VmaPointer(vma if start > vma.vm_start else vma.vm_prev)
    newflags: u64
    stop: u64
    error: i32
    while True:
        newflags = (vma.vm_flags & ~VM_ACCESS_FLAGS) | prot_flags
        # VM_MAYREAD and its like stand four bits above what they permit.
        if newflags & ~(newflags >> 4) & VM_ACCESS_FLAGS:
            return -EACCES
        stop = vma.vm_end if vma.vm_end < end else end
        error = mprotect_fixup(k, vma, prev, start, stop, newflags)
        if error:
            return error
        start = stop
        if start < prev.vma.vm_end:
            start = prev.vma.vm_end
        if start >= end:
            return 0
        vma = prev.vma.vm_next
        if vma is None or vma.vm_start != start:
            return -ENOMEM

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Which address spaces khugepaged is to look at (the list of mm/khugepaged.c, v4.18).

Locks: khugepaged_mm_lock, innermost, around the list. An address space that khugepaged is in stays
on the list; its last user waits for it with mmap_sem for write.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        HPAGE_PMD_SIZE,
        PMD_MASK,
        THP_ALWAYS,
        THP_MADVISE,
        VM_HUGEPAGE,
        VM_HUGETLB,
        VM_NOHUGEPAGE,
        VM_SPECIAL,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.mm_types import Kernel, Khugepaged, Mm, Vma
    from rmap.scalar import flag, i32, u64


def hugepage_start(vma: Vma) -> u64:
    """Where the first aligned stretch of 2 MiB of a VMA begins, be it in the VMA or behind it."""
    return (vma.vm_start + HPAGE_PMD_SIZE - 1) & PMD_MASK


def hugepage_end(vma: Vma) -> u64:
    """Where the last aligned stretch of 2 MiB of a VMA ends, be it in the VMA or before it."""
    return vma.vm_end & PMD_MASK


def khugepaged_test_exit(mm: Mm) -> flag:
    """Whether the address space has no user any more."""
    return mm.mm_users == 0


def khugepaged_enter(k: Kernel, vma: Vma, vm_flags: u64) -> i32:
    """Let khugepaged look at an address space, if the VMA may have huge pages; 0 or -ENOMEM."""
    if vma.vm_mm.vm_hugepage or k.thp_enabled < THP_MADVISE or vm_flags & VM_NOHUGEPAGE:
        return 0
    if k.thp_enabled == THP_ALWAYS or vm_flags & VM_HUGEPAGE:
        return khugepaged_enter_mm(k, vma.vm_mm)
    return 0


def khugepaged_enter_mm(k: Kernel, mm: Mm) -> i32:
    """Put an address space on the list, once; 0 or -ENOMEM. __khugepaged_enter()."""
    if k.inject is not None and k.inject.should_fail("mm_slot"):
        return -ENOMEM
    if khugepaged_test_exit(mm):
        BUG("khugepaged.c __khugepaged_enter: the mm has no users")
    if mm.vm_hugepage:
        return 0
    mm.vm_hugepage = True
    state: Khugepaged = k.khugepaged
    state.mm_lock.lock()
    state.mm_head.append(mm)
    state.mm_lock.unlock()
    return 0


def khugepaged_enter_vma_merge(k: Kernel, vma: Vma, vm_flags: u64) -> i32:
    """The same for an anonymous VMA that has grown, or has got other flags.

    One into which nothing was faulted yet comes by its first fault. v4.18 passes over files here.
    """
    if vma.anon_vma is None or vma.vm_file is not None or vm_flags & (VM_SPECIAL | VM_HUGETLB):
        return 0
    if hugepage_start(vma) < hugepage_end(vma):
        return khugepaged_enter(k, vma, vm_flags)
    return 0


def khugepaged_fork(k: Kernel, mm: Mm, oldmm: Mm) -> i32:
    """Let khugepaged look at a child, if it looks at the parent; 0 or -ENOMEM."""
    if oldmm.vm_hugepage:
        return khugepaged_enter_mm(k, mm)
    return 0


def khugepaged_exit(k: Kernel, mm: Mm) -> i32:
    """Take an address space without users off the list, or wait until khugepaged is out of it.

    One that khugepaged is at stays listed: the next scan finds that it has died.
    """
    if not mm.vm_hugepage:
        return 0
    state: Khugepaged = k.khugepaged
    free: flag = False
    state.mm_lock.lock()
    if state.scan_mm is not mm:
        state.mm_head.remove(mm)
        free = True
    state.mm_lock.unlock()
    if free:
        mm.vm_hugepage = False
        return 0
    # khugepaged holds mmap_sem while it works in there, and looks for users when it has it.
    mm.mmap_sem.down_write()
    return mm.mmap_sem.up_write()

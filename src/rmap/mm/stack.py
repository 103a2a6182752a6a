# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Stacks that grow when they are touched below their end (mm/mmap.c, v4.18).

Locks, outermost first: mm->mmap_sem (the caller's, and only for read: a fault grows the stack), the
rwsem of the root anon_vma, which keeps two faults from growing it at once and walks from seeing it
half changed, mm->page_table_lock.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import (
        anon_vma_interval_tree_post_update_vma,
        anon_vma_interval_tree_pre_update_vma,
        anon_vma_lock_write,
        anon_vma_prepare,
        anon_vma_unlock_write,
    )
    from rmap.mm.bits import (
        ENOMEM,
        EPERM,
        MMAP_MIN_ADDR,
        PAGE_MASK,
        PAGE_SHIFT,
        RLIMIT_STACK,
        STACK_GUARD_GAP,
        VM_ACCESS_FLAGS,
        VM_GROWSDOWN,
        VM_LOCKED,
    )
    from rmap.mm.huge.mm_slot import khugepaged_enter_vma_merge
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.vma import find_vma
    from rmap.scalar import i32, u64


def acct_stack_growth(vma: Vma, size: u64) -> i32:
    """Whether a stack may become `size` bytes large: 0 or -ENOMEM (mm/mmap.c:2240, v4.18)."""
    return -ENOMEM if size > RLIMIT_STACK else 0


def expand_downwards(k: Kernel, vma: Vma, address: u64) -> i32:
    """Let a stack begin at the page of a lower address (mm/mmap.c:2366, v4.18).

    Returns 0, also if another thread has done it meanwhile, or a negative errno. mmap_sem is held
    at least for read. The pages of the stack keep their index: start and offset move together.
    """
    mm: Mm = vma.vm_mm
    prev: Vma = vma.vm_prev
    mm.mmap_sem.assert_held_any()
    address &= PAGE_MASK
    if address < MMAP_MIN_ADDR:
        return -EPERM
    if prev is not None and not prev.vm_flags & VM_GROWSDOWN and prev.vm_flags & VM_ACCESS_FLAGS:
        if address < prev.vm_end + STACK_GUARD_GAP:
            return -ENOMEM
    # Without an anon_vma there would be no lock.
    if anon_vma_prepare(k, vma):
        return -ENOMEM
    anon_vma_lock_write(vma.anon_vma)
    error: i32 = 0
    if address < vma.vm_start:
        error = _grow(k, mm, vma, address)
    anon_vma_unlock_write(vma.anon_vma)
    khugepaged_enter_vma_merge(k, vma, vma.vm_flags)
    return error


def _grow(k: Kernel, mm: Mm, vma: Vma, address: u64) -> i32:
    """Move the start, with the root's lock held; 0 or -ENOMEM."""
    pages: u64 = (vma.vm_start - address) >> PAGE_SHIFT
    if pages > vma.vm_pgoff:
        return -ENOMEM
    error: i32 = acct_stack_growth(vma, vma.vm_end - address)
    if error:
        return error
    mm.page_table_lock.lock()
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm += pages
    mm.total_vm += pages
    anon_vma_interval_tree_pre_update_vma(k, vma)
    vma.vm_start = address
    vma.vm_pgoff -= pages
    anon_vma_interval_tree_post_update_vma(k, vma)
    mm.page_table_lock.unlock()
    if k.tracer is not None:
        k.tracer("expand_downwards", (vma, address))
    return 0


def expand_stack(k: Kernel, vma: Vma, address: u64) -> i32:
    """Grow a stack down to an address (mm/mmap.c:2467, v4.18). Returns 0 or a negative errno."""
    return expand_downwards(k, vma, address)


def find_extend_vma(k: Kernel, mm: Mm, address: u64) -> Vma | None:
    """The VMA of an address, grown for it if it is a stack; ``None`` if there is none.

    mm/mmap.c:2477 (v4.18).
    """
    vma: Vma = find_vma(k, mm, address & PAGE_MASK)
    if vma is None or vma.vm_start <= address:
        return vma
    if not vma.vm_flags & VM_GROWSDOWN or expand_stack(k, vma, address):
        return None
    return vma

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Taking merged pages apart again (mm/ksm.c, v4.18), as advice and mremap do.

Locks: mm->mmap_sem is held by the caller, for write; faults take what they need.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        FAULT_FLAG_REMOTE,
        FAULT_FLAG_WRITE,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        VM_FAULT_OOM,
        VM_FAULT_SIGBUS,
        VM_FAULT_SIGSEGV,
        VM_FAULT_WRITE,
    )
    from rmap.mm.fault import handle_mm_fault
    from rmap.mm.lru import put_page
    from rmap.mm.memory import vm_normal_page
    from rmap.mm.mm_types import Kernel, Vma
    from rmap.mm.page import PageKsm, get_page
    from rmap.mm.pgtable import pte_lock, pte_lookup, pte_present, pte_unlock
    from rmap.scalar import flag, i32, u64


def break_ksm(k: Kernel, vma: Vma, address: u64, ptep: u64) -> i32:
    """Give an address a page of its own if a KSM page is there (mm/ksm.c:448, v4.18).

    By a write fault, as often as it takes. `ptep` is the address's entry. Returns 0 or -ENOMEM.
    """
    ended: i32 = VM_FAULT_WRITE | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_OOM
    result: i32 = 0
    page: u64
    ksm: flag
    while not result & ended:
        page = 0
        pte_lock(k, ptep)
        if pte_present(k.pt[ptep]):
            page = vm_normal_page(k, vma, address, k.pt[ptep])
        if page:
            get_page(k, page)
        pte_unlock(k, ptep)
        if not page:
            break
        ksm = PageKsm(k, page)
        result = VM_FAULT_WRITE
        if ksm:
            result = handle_mm_fault(k, vma, address, FAULT_FLAG_WRITE | FAULT_FLAG_REMOTE)
        put_page(k, page)
    return -ENOMEM if result & VM_FAULT_OOM else 0


def unmerge_ksm_pages(k: Kernel, vma: Vma, start: u64, end: u64) -> i32:
    """Give a range pages of its own instead of merged ones (mm/ksm.c:823, v4.18).

    Returns 0 or -ENOMEM, with part of the range done.
    """
    ptep: u64
    error: i32
    while start < end:
        ptep = pte_lookup(k, vma.vm_mm, start)
        if not ptep:
            start = (start & PMD_MASK) + PMD_SIZE
            continue
        error = break_ksm(k, vma, start, ptep)
        if error:
            return error
        start += PAGE_SIZE
    return 0

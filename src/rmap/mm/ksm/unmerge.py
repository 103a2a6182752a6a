# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Taking merged pages apart, and the advice to merge or not to merge (mm/ksm.c, v4.18).

Locks: mm->mmap_sem is held by the caller, at least for read, and for write in ksm_madvise(); faults
take what they need.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        FAULT_FLAG_REMOTE,
        FAULT_FLAG_WRITE,
        FOLL_FORCE,
        FOLL_GET,
        FOLL_MIGRATION,
        MADV_MERGEABLE,
        MMF_VM_MERGEABLE,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        VM_DONTEXPAND,
        VM_FAULT_OOM,
        VM_FAULT_SIGBUS,
        VM_FAULT_SIGSEGV,
        VM_FAULT_WRITE,
        VM_HUGETLB,
        VM_IO,
        VM_MAYSHARE,
        VM_MERGEABLE,
        VM_MIXEDMAP,
        VM_PFNMAP,
        VM_SHARED,
    )
    from rmap.mm.fault import handle_mm_fault
    from rmap.mm.gup import follow_page
    from rmap.mm.ksm.slots import ksm_enter
    from rmap.mm.ksm.stable import ksm_test_exit
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.page import PageKsm
    from rmap.mm.pgtable import pmd_offset, pte_none, ptep_get
    from rmap.mm.vma import find_vma
    from rmap.scalar import flag, i32, i64, u64


def ksm_follow_page(k: Kernel, vma: Vma, address: u64, flags: u64) -> u64:
    """The page that an address maps, with a reference, whatever the VMA permits; 0 for none.

    `flags`: FOLL_MIGRATION waits for a page that is being moved.
    """
    page: i64 = follow_page(k, vma, address, FOLL_GET | FOLL_FORCE | flags)
    return page if page > 0 else 0


def break_ksm(k: Kernel, vma: Vma, address: u64) -> i32:
    """Give an address a page of its own if a merged page is there (mm/ksm.c:448, v4.18).

    By a write fault, as often as it takes; what is being moved is waited for. A merged page that
    is swapped out stays what it is. Returns 0 or -ENOMEM.
    """
    ended: i32 = VM_FAULT_WRITE | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_OOM
    result: i32 = 0
    page: u64
    ksm: flag
    vma.vm_mm.mmap_sem.assert_held_any()
    while not result & ended:
        page = ksm_follow_page(k, vma, address, FOLL_MIGRATION)
        if not page:
            break
        ksm = PageKsm(k, page)
        result = VM_FAULT_WRITE
        if ksm:
            result = handle_mm_fault(k, vma, address, FAULT_FLAG_WRITE | FAULT_FLAG_REMOTE)
        put_page(k, page)
        if ksm and k.tracer is not None:
            k.tracer("break_ksm", (page, vma, address))
    return -ENOMEM if result & VM_FAULT_OOM else 0


def unmerge_ksm_pages(k: Kernel, vma: Vma, start: u64, end: u64) -> i32:
    """Give a range pages of its own instead of merged ones (mm/ksm.c:823, v4.18).

    Returns 0 or -ENOMEM, with part of the range done.
    """
    pmd: u64
    error: i32
    while start < end:
        if ksm_test_exit(vma.vm_mm):
            break
        pmd = pmd_offset(k, vma.vm_mm, start)
        if not pmd or pte_none(ptep_get(k, pmd)):
            start = (start & PMD_MASK) + PMD_SIZE
            continue
        error = break_ksm(k, vma, start)
        if error:
            return error
        start += PAGE_SIZE
    return 0


def find_mergeable_vma(k: Kernel, mm: Mm, address: u64) -> Vma | None:
    """The VMA of an address if its pages may be merged; mmap_sem is held."""
    mm.mmap_sem.assert_held_any()
    if ksm_test_exit(mm):
        return None
    vma: Vma = find_vma(k, mm, address)
    if vma is None or vma.vm_start > address:
        return None
    if not vma.vm_flags & VM_MERGEABLE or vma.anon_vma is None:
        return None
    return vma


def ksm_madvise(k: Kernel, vma: Vma, start: u64, end: u64, advice: i32) -> i64:
    """Take MADV_MERGEABLE or MADV_UNMERGEABLE (mm/ksm.c:2384, v4.18).

    Returns the flags that the range gets, or -ENOMEM. The first makes the address space one that
    ksmd goes over; the second takes apart what is merged in the range.
    """
    mm: Mm = vma.vm_mm
    flags: i64 = vma.vm_flags
    never: u64 = VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO | VM_DONTEXPAND
    error: i32
    mm.mmap_sem.assert_held_write()
    if advice == MADV_MERGEABLE:
        if vma.vm_flags & (never | VM_MERGEABLE | VM_HUGETLB | VM_MIXEDMAP):
            return flags
        if not mm.flags & MMF_VM_MERGEABLE:
            error = ksm_enter(k, mm)
            if error:
                return error
        return flags | VM_MERGEABLE
    if vma.vm_flags & VM_MERGEABLE and vma.anon_vma is not None:
        error = unmerge_ksm_pages(k, vma, start, end)
        if error:
            return error
    return flags & ~VM_MERGEABLE

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""A write to /proc/PID/clear_refs: see what a process uses, or writes to, from now on.

fs/proc/task_mmu.c (v4.18). Locks: mm->mmap_sem for read, and for write before it where flags of
VMAs change; page-table locks one at a time. The flush comes at the end, so that meanwhile a CPU may
write through an entry that forbids it already (mm_tlb_flush_pending).
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_RW,
        _PAGE_SOFT_DIRTY,
        _PAGE_SWP_SOFT_DIRTY,
        CLEAR_REFS_ALL,
        CLEAR_REFS_ANON,
        CLEAR_REFS_MAPPED,
        CLEAR_REFS_SOFT_DIRTY,
        EINVAL,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        ULONG_MAX,
        VM_PFNMAP,
        VM_SOFTDIRTY,
        PG_referenced,
        PG_young,
    )
    from rmap.mm.memory import vm_normal_page
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmu_gather import (
        MmuGather,
        tlb_adjust_range,
        tlb_finish_mmu,
        tlb_gather_mmu,
    )
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import ClearPage
    from rmap.mm.pgtable import (
        is_swap_pmd,
        is_swap_pte,
        pmd_offset,
        pmd_trans_huge,
        pte_lock,
        pte_none,
        pte_offset,
        pte_pfn,
        pte_present,
        pte_unlock,
        ptep_get,
        ptep_get_and_clear,
        set_pte_at,
    )
    from rmap.mm.tlb import ptep_test_and_clear_young
    from rmap.mm.vma import vma_set_page_prot
    from rmap.scalar import flag, i32, u64


def clear_refs_write(k: Kernel, mm: Mm, kind: i32) -> i32:
    """Forget the uses of all pages (CLEAR_REFS_ALL, _ANON, _MAPPED), or that they were written to.

    The last is CLEAR_REFS_SOFT_DIRTY: entries become read-only, and the next write leaves its mark.
    Returns 0 or -EINVAL.
    """
    if kind < CLEAR_REFS_ALL or kind > CLEAR_REFS_SOFT_DIRTY:
        return -EINVAL
    soft: flag = kind == CLEAR_REFS_SOFT_DIRTY
    mm.mmap_sem.down_read()
    tlb: MmuGather = tlb_gather_mmu(k, mm, 0, ULONG_MAX)
    if soft:
        _forget_vmas(k, mm)
        mmu_notifier_invalidate_range_start(k, mm, 0, ULONG_MAX)
    vma: Vma = mm.mmap
    while vma is not None:
        if _is_meant(vma, kind):
            _clear_vma(k, vma, soft)
        vma = vma.vm_next
    if soft:
        mmu_notifier_invalidate_range_end(k, mm, 0, ULONG_MAX)
    tlb_adjust_range(tlb, 0, ULONG_MAX)
    tlb_finish_mmu(k, tlb, 0, ULONG_MAX)
    mm.mmap_sem.up_read()
    return 0


def _forget_vmas(k: Kernel, mm: Mm) -> i32:
    """Take VM_SOFTDIRTY, which says that all of a VMA is new, off all VMAs.

    mmap_sem is given up and taken for write if there is any such, and is held for read at the end.
    """
    vma: Vma = mm.mmap
    while vma is not None and not vma.vm_flags & VM_SOFTDIRTY:
        vma = vma.vm_next
    if vma is None:
        return 0
    mm.mmap_sem.up_read()
    mm.mmap_sem.down_write()
    vma = mm.mmap
    while vma is not None:
        vma.vm_flags &= ~VM_SOFTDIRTY
        vma_set_page_prot(k, vma)
        vma = vma.vm_next
    return mm.mmap_sem.downgrade_write()


def _is_meant(vma: Vma, kind: i32) -> flag:
    """Whether a VMA's pages are to be looked at: clear_refs_test_walk()."""
    if vma.vm_flags & VM_PFNMAP:
        return False
    if kind == CLEAR_REFS_ANON:
        return vma.vm_file is None
    return kind != CLEAR_REFS_MAPPED or vma.vm_file is not None


def _clear_vma(k: Kernel, vma: Vma, soft: flag) -> i32:
    """Look at all entries of a VMA, table by table."""
    address: u64 = vma.vm_start
    end: u64
    pmd: u64
    while address < vma.vm_end:
        end = (address & PMD_MASK) + PMD_SIZE
        if end > vma.vm_end:
            end = vma.vm_end
        pmd = pmd_offset(k, vma.vm_mm, address)
        if pmd and not pte_none(ptep_get(k, pmd)):
            _clear_pmd(k, vma, pmd, address, end, soft)
        address = end
    return 0


def _clear_pmd(k: Kernel, vma: Vma, pmd: u64, address: u64, end: u64, soft: flag) -> i32:
    """Look at what a PMD leads to: clear_refs_pte_range()."""
    pmde: u64 = ptep_get(k, pmd)
    if pmd_trans_huge(pmde) or is_swap_pmd(pmde):
        pte_lock(k, pmd)
        _clear_one(k, vma, pmd, address, soft)
        return pte_unlock(k, pmd)
    ptep: u64 = pte_offset(k, pmd, address)
    first: u64 = ptep
    pte_lock(k, first)
    while address < end:
        _clear_one(k, vma, ptep, address, soft)
        ptep += 1
        address += PAGE_SIZE
    return pte_unlock(k, first)


def _clear_one(k: Kernel, vma: Vma, ptep: u64, address: u64, soft: flag) -> i32:
    """Forget what one entry tells, of a small page or of a huge one; its table is locked."""
    pte: u64 = ptep_get(k, ptep)
    page: u64
    if soft:
        if pte_present(pte):
            pte = ptep_get_and_clear(k, vma.vm_mm, address, ptep)
            set_pte_at(k, vma.vm_mm, address, ptep, pte & ~(_PAGE_RW | _PAGE_SOFT_DIRTY))
        elif is_swap_pte(pte):
            set_pte_at(k, vma.vm_mm, address, ptep, pte & ~_PAGE_SWP_SOFT_DIRTY)
        return 0
    if not pte_present(pte):
        return 0
    page = pte_pfn(pte) if pmd_trans_huge(pte) else vm_normal_page(k, vma, address, pte)
    if page:
        ptep_test_and_clear_young(k, vma, address, ptep)
        ClearPage(k, page, PG_young)
        ClearPage(k, page, PG_referenced)
    return 0

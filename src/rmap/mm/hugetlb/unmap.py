# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Taking huge pages out of page tables (mm/hugetlb.c, v4.18).

Locks: whoever unmaps holds mapping->i_mmap_rwsem for write, so that no table is shared anew with
one that is being emptied; inside it the page-table locks, one at a time. Pages are freed by the
`MmuGather`, after the flush and outside of page-table locks.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        HPAGE_RESV_OWNER,
        PAGE_SHIFT,
        PUD_MASK,
        PUD_SIZE,
        VM_MAYSHARE,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.hugetlb.pgtable import huge_pmd_unshare, huge_pte_offset
    from rmap.mm.hugetlb.pool import (
        hstate_vma,
        huge_page_size,
        hugetlb_count_add,
        pages_per_huge_page,
    )
    from rmap.mm.hugetlb.reserve import is_vma_resv_set, set_vma_unmapped
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.mm_types import AddressSpace, Hstate, IntervalNode, Kernel, Mm, Vma
    from rmap.mm.mmu_gather import (
        MmuGather,
        tlb_adjust_range,
        tlb_finish_mmu,
        tlb_flush_mmu,
        tlb_flush_mmu_tlbonly,
        tlb_gather_mmu,
        tlb_remove_page,
    )
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        pte_dirty,
        pte_lock,
        pte_none,
        pte_pfn,
        pte_present,
        pte_unlock,
        ptep_get,
        ptep_get_and_clear,
    )
    from rmap.mm.rmap_counts import page_remove_rmap
    from rmap.scalar import flag, i32, i64, u64

# What became of one entry: nothing was there, a page was unmapped, or a whole table.
EMPTY = cython.declare(cython.int, 0)
UNMAPPED = cython.declare(cython.int, 1)
UNSHARED = cython.declare(cython.int, 2)


def unmap_hugepage_range_in(
    k: Kernel, tlb: MmuGather, vma: Vma, start: u64, end: u64, ref_page: u64
) -> i32:
    """Unmap a range of a VMA: __unmap_hugepage_range(). The caller flushes.

    With `ref_page` only that page, the first time it is met; the VMA is marked as one that has
    lost a page. i_mmap_rwsem is held for write.
    """
    mm: Mm = vma.vm_mm
    h: Hstate = hstate_vma(vma)
    size: u64 = huge_page_size(h)
    if start & (size - 1) or end & (size - 1):
        BUG("hugetlb.c:3379 __unmap_hugepage_range: not a range of huge pages")
    vma.vm_file.f_mapping.i_mmap_rwsem.assert_held_write()
    mmu_notifier_invalidate_range_start(k, mm, start, end)
    address: u64 = start
    force_flush: flag = False
    done: i32
    while address < end:
        done = _unmap_one(k, tlb, vma, h, address, ref_page)
        if done == UNSHARED:
            # All that the table covered has gone at once.
            if k.profile.hugetlb_unshare_flushes:
                tlb_adjust_range(tlb, address & PUD_MASK, (address & PUD_MASK) + PUD_SIZE)
                force_flush = True
            address = (address & PUD_MASK) + PUD_SIZE
            continue
        if done == UNMAPPED and ref_page:
            break
        address += size
    mmu_notifier_invalidate_range_end(k, mm, start, end)
    if force_flush:
        # Before i_mmap_rwsem is dropped, and the table may become somebody else's.
        tlb_flush_mmu_tlbonly(k, tlb)
    return 0


def _unmap_one(k: Kernel, tlb: MmuGather, vma: Vma, h: Hstate, address: u64, ref_page: u64) -> i32:
    """Empty the entry of one huge page; what it came to."""
    mm: Mm = vma.vm_mm
    size: u64 = huge_page_size(h)
    ptep: u64 = huge_pte_offset(k, mm, address, size)
    if not ptep:
        return EMPTY
    pte_lock(k, ptep)
    if huge_pmd_unshare(k, vma, address, ptep):
        pte_unlock(k, ptep)
        return UNSHARED
    pte: u64 = ptep_get(k, ptep)
    if pte_none(pte):
        pte_unlock(k, ptep)
        return EMPTY
    if not pte_present(pte):
        # Being moved, or broken: unmapped already, with its reference dropped.
        ptep_get_and_clear(k, mm, address, ptep)
        pte_unlock(k, ptep)
        return EMPTY
    page: u64 = pte_pfn(pte)
    if ref_page and page != ref_page:
        pte_unlock(k, ptep)
        return EMPTY
    if ref_page:
        set_vma_unmapped(vma)
    pte = ptep_get_and_clear(k, mm, address, ptep)
    tlb_adjust_range(tlb, address, address + size)
    if pte_dirty(pte):
        set_page_dirty(k, page)
    pages: i64 = pages_per_huge_page(h)
    hugetlb_count_add(mm, -pages)
    page_remove_rmap(k, page, True)
    pte_unlock(k, ptep)
    if tlb_remove_page(tlb, page):
        tlb_flush_mmu(k, tlb)
    return UNMAPPED


def unmap_hugepage_range_final(k: Kernel, tlb: MmuGather, vma: Vma, start: u64, end: u64) -> i32:
    """Unmap a VMA that goes away, and let nobody share its tables any more, by taking i_mmap_rwsem.

    unmap_single_vma() and __unmap_hugepage_range_final().
    """
    mapping: AddressSpace = vma.vm_file.f_mapping
    mapping.i_mmap_rwsem.down_write()
    unmap_hugepage_range_in(k, tlb, vma, start, end, 0)
    # The VMA stays in the tree of its file until its tables are freed.
    vma.vm_flags &= ~VM_MAYSHARE
    mapping.i_mmap_rwsem.up_write()
    return 0


def unmap_hugepage_range(k: Kernel, vma: Vma, start: u64, end: u64, ref_page: u64) -> i32:
    """Unmap a range of a VMA that stays, and flush. i_mmap_rwsem is held for write."""
    tlb: MmuGather = tlb_gather_mmu(k, vma.vm_mm, start, end)
    unmap_hugepage_range_in(k, tlb, vma, start, end, ref_page)
    return tlb_finish_mmu(k, tlb, start, end)


def unmap_ref_private(k: Kernel, vma: Vma, page: u64, address: u64) -> i32:
    """Take a page away from a family's children, so that its owner need not copy it.

    The owner was promised its pages, and there is none for a copy. A child that comes back to the
    address is killed. Takes i_mmap_rwsem for write.
    """
    h: Hstate = hstate_vma(vma)
    pgoff: u64 = ((address - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff
    mapping: AddressSpace = vma.vm_file.f_mapping
    mapping.i_mmap_rwsem.down_write()
    node: IntervalNode = interval_tree_iter_first(mapping.i_mmap, pgoff, pgoff)
    other: Vma
    while node is not None:
        other = node.vma
        # Shared mappings have promises of their own, which are their file's.
        if other is not vma and not other.vm_flags & VM_MAYSHARE:
            if not is_vma_resv_set(other, HPAGE_RESV_OWNER):
                unmap_hugepage_range(k, other, address, address + huge_page_size(h), page)
        node = interval_tree_iter_next(node, pgoff, pgoff)
    mapping.i_mmap_rwsem.up_write()
    if k.tracer is not None:
        k.tracer("unmap_ref_private", (page, vma, address))
    return 0

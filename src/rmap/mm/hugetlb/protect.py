# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Changing the protection of huge pages (mm/hugetlb.c, v4.18).

Locks: mmap_sem is held for write by the caller; mapping->i_mmap_rwsem is taken for write, and the
page-table locks inside it.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import PUD_MASK, PUD_SIZE, SWP_MIGRATION_READ
    from rmap.mm.hugetlb.pgtable import (
        huge_pmd_unshare,
        huge_pte_offset,
        is_hugetlb_entry_migration,
    )
    from rmap.mm.hugetlb.pool import hstate_vma, huge_page_size, pages_per_huge_page
    from rmap.mm.mm_types import AddressSpace, Hstate, Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.pgtable import (
        is_write_migration_entry,
        pte_lock,
        pte_modify,
        pte_none,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        ptep_get_and_clear,
        set_pte_at,
        swp_entry,
        swp_entry_to_pte,
        swp_offset,
    )
    from rmap.mm.tlb import flush_tlb_range
    from rmap.scalar import i32, i64, u64

# What was found at one place: nothing to change, an entry, or a table that others have as well.
NOTHING = cython.declare(cython.int, 0)
CHANGED = cython.declare(cython.int, 1)
UNSHARED = cython.declare(cython.int, 2)


def hugetlb_change_protection(k: Kernel, vma: Vma, start: u64, end: u64, newprot: u64) -> i64:
    """Give all entries of a range other protection bits; returns how many small pages that were.

    A table that others share is left to them: faults make what is needed here.
    """
    mm: Mm = vma.vm_mm
    h: Hstate = hstate_vma(vma)
    size: u64 = huge_page_size(h)
    mapping: AddressSpace = vma.vm_file.f_mapping
    address: u64 = start
    pages: i64 = 0
    done: i32
    mmu_notifier_invalidate_range_start(k, mm, start, end)
    mapping.i_mmap_rwsem.down_write()
    while address < end:
        done = _change_one(k, vma, address, size, newprot)
        if done != NOTHING:
            pages += 1
        if done == UNSHARED:
            address = (address & PUD_MASK) + PUD_SIZE
        else:
            address += size
    # Before i_mmap_rwsem is dropped: a table that was given up may be reused after that.
    flush_tlb_range(k, mm, start, end)
    mapping.i_mmap_rwsem.up_write()
    mmu_notifier_invalidate_range_end(k, mm, start, end)
    return pages * pages_per_huge_page(h)


def _change_one(k: Kernel, vma: Vma, address: u64, size: u64, newprot: u64) -> i32:
    """Change the entry of one huge page, under the lock of its table; what it came to."""
    mm: Mm = vma.vm_mm
    ptep: u64 = huge_pte_offset(k, mm, address, size)
    if not ptep:
        return NOTHING
    done: i32 = NOTHING
    pte_lock(k, ptep)
    if huge_pmd_unshare(k, vma, address, ptep):
        pte_unlock(k, ptep)
        return UNSHARED
    pte: u64 = ptep_get(k, ptep)
    entry: u64
    if is_hugetlb_entry_migration(pte):
        entry = pte_to_swp_entry(pte)
        if is_write_migration_entry(entry):
            # What may be written to is the VMA's business, once the page has arrived.
            entry = swp_entry(SWP_MIGRATION_READ, swp_offset(entry))
            set_pte_at(k, mm, address, ptep, swp_entry_to_pte(entry))
            done = CHANGED
    elif not pte_none(pte) and pte_present(pte):
        pte = ptep_get_and_clear(k, mm, address, ptep)
        set_pte_at(k, mm, address, ptep, pte_modify(pte, newprot))
        done = CHANGED
    pte_unlock(k, ptep)
    return done

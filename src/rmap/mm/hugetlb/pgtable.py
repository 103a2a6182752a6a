# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Page-table entries of huge pages, and tables that several processes share (mm/hugetlb.c, v4.18).

An entry for 2 MiB is a PMD, for 1 GiB a PUD, with _PAGE_PSE; both are called `pte` here, and are
locked by the lock of the table that they are in. (The kernel takes mm->page_table_lock for a PUD.)

Locks: `huge_pte_alloc` takes mapping->i_mmap_rwsem for write where a table may be shared, and a
page-table lock inside it. `huge_pmd_unshare` wants the lock of the table held, and with it
i_mmap_rwsem, or the table could be shared anew meanwhile.

A table of PMDs is shared by mappings of one file that cover all of its 1 GiB alike. Its pages are
mapped once, however many processes have it: neither their mapcount nor their references tell.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_DIRTY,
        _PAGE_PRESENT,
        _PAGE_PSE,
        _PAGE_RW,
        _PAGE_SOFT_DIRTY,
        _PAGE_USER,
        PAGE_SHIFT,
        PMD_SHIFT,
        PMD_SIZE,
        PTE_PFN_MASK,
        PTRS_PER_PTE,
        PUD_MASK,
        PUD_SIZE,
        SWP_HWPOISON,
        VM_LOCKED_MASK,
        VM_MAYSHARE,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.hugetlb.pool import hstate_vma, huge_page_size
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.mm_types import AddressSpace, IntervalNode, Kernel, Mm, Vma
    from rmap.mm.pgtable import (
        assert_pte_locked,
        is_migration_entry,
        is_swap_pte,
        pfn_pte,
        pmd_alloc,
        pte_lock,
        pte_mkyoung,
        pte_none,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        ptep_get_and_clear,
        pud_alloc,
        pud_offset,
        swp_type,
    )
    from rmap.mm.tlb import flush_tlb_range
    from rmap.mm.vma import find_vma
    from rmap.scalar import flag, i32, u64


# ---------------------------------------------------------------- entries


def huge_pte_offset(k: Kernel, mm: Mm, address: u64, size: u64) -> u64:
    """The entry that maps, or would map, a huge page at an address; 0 if its table is missing.

    An entry that is empty, a leaf, or no present one is found; a table in its place is not.
    """
    pud: u64 = pud_offset(k, mm, address)
    if not pud:
        return 0
    value: u64 = ptep_get(k, pud)
    if size != PUD_SIZE and pte_none(value):
        return 0
    if value & _PAGE_PSE or not value & _PAGE_PRESENT:
        return pud
    pmd: u64 = ((value & PTE_PFN_MASK) >> PAGE_SHIFT) * PTRS_PER_PTE + (address >> PMD_SHIFT & 511)
    value = ptep_get(k, pmd)
    if size != PMD_SIZE and pte_none(value):
        return 0
    if value & _PAGE_PSE or not value & _PAGE_PRESENT:
        return pmd
    return 0


def make_huge_pte(vma: Vma, page: u64, writable: flag) -> u64:
    """The entry that maps a huge page: young, and dirty too if it is writable."""
    entry: u64 = pte_mkyoung(pfn_pte(page, vma.vm_page_prot)) | _PAGE_PSE
    if writable:
        return entry | _PAGE_RW | _PAGE_DIRTY | _PAGE_SOFT_DIRTY
    return entry & ~_PAGE_RW


def is_hugetlb_entry_migration(pte: u64) -> flag:
    """Whether the entry waits for a page that is being moved."""
    return is_swap_pte(pte) and is_migration_entry(pte_to_swp_entry(pte))


def is_hugetlb_entry_hwpoisoned(pte: u64) -> flag:
    """Whether the entry says that the page's memory is broken."""
    return is_swap_pte(pte) and swp_type(pte_to_swp_entry(pte)) == SWP_HWPOISON


def huge_ptep_clear_flush(k: Kernel, vma: Vma, address: u64, ptep: u64, size: u64) -> u64:
    """Empty an entry, flush all of the page, and return what it was. Its table is locked.

    The processor has one translation for the page, which one INVLPG takes away; the caches here
    have one for each small page that was touched.
    """
    pte: u64 = ptep_get_and_clear(k, vma.vm_mm, address, ptep)
    if pte & _PAGE_PRESENT:
        flush_tlb_range(k, vma.vm_mm, address, address + size)
    return pte


# ---------------------------------------------------------------- tables


def huge_pte_alloc(k: Kernel, mm: Mm, address: u64, size: u64) -> u64:
    """The entry for a huge page at an address, making or sharing tables; 0 if that fails."""
    pud: u64 = pud_alloc(k, mm, address)
    if not pud or size == PUD_SIZE:
        return pud
    if size != PMD_SIZE:
        BUG("hugetlb.c:4777 huge_pte_alloc: no huge pages have that size")
    if pte_none(ptep_get(k, pud)):
        return huge_pmd_share(k, mm, address, pud)
    return pmd_alloc(k, mm, address)


def vma_shareable(vma: Vma, address: u64) -> flag:
    """Whether the VMA is shared and has all that a table of PMDs covers at the address."""
    base: u64 = address & PUD_MASK
    if not vma.vm_flags & VM_MAYSHARE:
        return False
    return vma.vm_start <= base and base + PUD_SIZE <= vma.vm_end


def page_table_shareable(svma: Vma, vma: Vma, address: u64, idx: u64) -> u64:
    """Where `svma` has what `vma` has at an address, if the tables there may be one; else 0."""
    saddr: u64 = ((idx - svma.vm_pgoff) << PAGE_SHIFT) + svma.vm_start
    base: u64 = saddr & PUD_MASK
    # That one of them is mlocked does not matter.
    if (vma.vm_flags ^ svma.vm_flags) & ~VM_LOCKED_MASK:
        return 0
    if address >> PMD_SHIFT & 511 != saddr >> PMD_SHIFT & 511:
        return 0
    if base < svma.vm_start or svma.vm_end < base + PUD_SIZE:
        return 0
    return saddr


def huge_pmd_share(k: Kernel, mm: Mm, address: u64, pud: u64) -> u64:
    """The entry of an address below a PUD that is empty: in a table of somebody else, if possible.

    Returns 0 without memory. The new table is seen to by the same lock as the search, so that two
    faults at once do not make two.
    """
    vma: Vma = find_vma(k, mm, address)
    if not vma_shareable(vma, address):
        return pmd_alloc(k, mm, address)
    mapping: AddressSpace = vma.vm_file.f_mapping
    idx: u64 = ((address - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff
    mapping.i_mmap_rwsem.down_write()
    spte: u64 = _find_table(k, mapping, vma, address, idx)
    if spte:
        pte_lock(k, spte)
        if pte_none(ptep_get(k, pud)):
            _share_row(k, mm, pud, spte // PTRS_PER_PTE)
        pte_unlock(k, spte)
    pte: u64 = pmd_alloc(k, mm, address)
    mapping.i_mmap_rwsem.up_write()
    return pte


def _find_table(k: Kernel, mapping: AddressSpace, vma: Vma, address: u64, idx: u64) -> u64:
    """The entry of a page of the file in a table that may be shared; 0 if nobody has one."""
    node: IntervalNode = interval_tree_iter_first(mapping.i_mmap, idx, idx)
    svma: Vma
    saddr: u64
    spte: u64
    while node is not None:
        svma = node.vma
        if svma is not vma:
            saddr = page_table_shareable(svma, vma, address, idx)
            if saddr:
                spte = huge_pte_offset(k, svma.vm_mm, saddr, huge_page_size(hstate_vma(svma)))
                if spte:
                    return spte
        node = interval_tree_iter_next(node, idx, idx)
    return 0


def _share_row(k: Kernel, mm: Mm, pud: u64, row: u64) -> i32:
    """Let a PUD point to a table that others have as well, and count that."""
    k.pmd_sharers[row] = k.pmd_sharers.get(row, 0) + 1
    k.pmd_table_was_shared = True
    k.pt[pud] = row << PAGE_SHIFT | _PAGE_PRESENT | _PAGE_RW | _PAGE_USER
    mm.nr_ptes += 1
    if k.tracer is not None:
        k.tracer("huge_pmd_share", (mm, row))
    return 0


def huge_pmd_unshare(k: Kernel, vma: Vma, address: u64, ptep: u64) -> flag:
    """If others have the table of an entry as well, take it away from this mm; whether they do.

    Then all of its 1 GiB is unmapped here, and nothing of it flushed yet; the pages stay mapped as
    they are, for the others. The table's lock is held, and i_mmap_rwsem.
    """
    assert_pte_locked(k, ptep)
    row: u64 = ptep // PTRS_PER_PTE
    others: u64 = k.pmd_sharers.get(row, 0)
    if not others:
        return False
    vma.vm_file.f_mapping.i_mmap_rwsem.assert_held_any()
    mm: Mm = vma.vm_mm
    pud: u64 = pud_offset(k, mm, address)
    ptep_get_and_clear(k, mm, address & PUD_MASK, pud)
    mm.pmd_tag = 0
    mm.nr_ptes -= 1
    if others == 1:
        del k.pmd_sharers[row]
    else:
        k.pmd_sharers[row] = others - 1
    if k.tracer is not None:
        k.tracer("huge_pmd_unshare", (mm, row))
    return True

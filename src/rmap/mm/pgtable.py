# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""x86-64 page tables: entries with their real bits, tables of 512, swap and migration entries.

arch/x86/include/asm/pgtable.h and include/linux/swapops.h of v4.18 (before the L1TF change, so an
entry that is not present is not inverted). A pointer to an entry is an index into ``Kernel.pt``,
and 0 is NULL; each table of entries has a lock of its own (split page-table locks), named by its
row in the pool.
"""

from __future__ import annotations

from functools import partial

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        _PAGE_DEVMAP,
        _PAGE_DIRTY,
        _PAGE_NX,
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        _PAGE_RW,
        _PAGE_SOFT_DIRTY,
        _PAGE_SPECIAL,
        _PAGE_SWP_SOFT_DIRTY,
        _PAGE_UNUSED,
        _PAGE_USER,
        MAX_SWAPFILES,
        NR_PAGETABLE,
        PAGE_MASK,
        PAGE_SHIFT,
        PGDIR_SHIFT,
        PMD_MASK,
        PMD_SHIFT,
        PTE_NONE_IGNORES,
        PTE_PFN_MASK,
        PTRS_PER_PTE,
        PUD_MASK,
        PUD_SHIFT,
        SWP_DEVICE_READ,
        SWP_DEVICE_WRITE,
        SWP_HWPOISON,
        SWP_MIGRATION_READ,
        SWP_MIGRATION_WRITE,
        SWP_OFFSET_MASK,
        SWP_PTE_OFFSET_SHIFT,
        SWP_PTE_TYPE_MASK,
        SWP_PTE_TYPE_SHIFT,
        SWP_TYPE_SHIFT,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.mm_types import Kernel, Mm
    from rmap.scalar import flag, i32, u64
    from rmap.sync.bits import (
        FIELD_PTE,
        OP_READ,
        OP_RELEASE,
        OP_RMW,
        OP_WRITE,
        RANK_PTL,
        WRITE_MODE,
    )
    from rmap.sync.core import (
        assert_held,
        lock_acquired,
        lock_released,
        sched,
        sched_point,
        wait_until,
    )


# ---------------------------------------------------------------- entries


def pte_none(pte: u64) -> flag:
    """Whether the entry is empty; stray accessed and dirty bits do not count."""
    return pte & ~PTE_NONE_IGNORES == 0


def pte_present(pte: u64) -> flag:
    """Whether the entry maps a page, be it one that may not be accessed (PROT_NONE)."""
    return pte & (_PAGE_PRESENT | _PAGE_PROTNONE) != 0


def is_swap_pte(pte: u64) -> flag:
    """Whether the entry holds a swp_entry_t."""
    return not pte_none(pte) and not pte_present(pte)


def pte_young(pte: u64) -> flag:
    """Whether the processor has used the entry since it was made old."""
    return pte & _PAGE_ACCESSED != 0


def pte_dirty(pte: u64) -> flag:
    """Whether the processor has written through the entry since it was made clean."""
    return pte & _PAGE_DIRTY != 0


def pte_write(pte: u64) -> flag:
    """Whether the entry permits writing."""
    return pte & _PAGE_RW != 0


def pte_special(pte: u64) -> flag:
    """Whether what is mapped has no struct page to look at, as the zero page."""
    return pte & _PAGE_SPECIAL != 0


def pte_soft_dirty(pte: u64) -> flag:
    """Whether the page was written to since soft-dirty was cleared."""
    return pte & _PAGE_SOFT_DIRTY != 0


def pte_unused(pte: u64) -> flag:
    """Whether a guest said that it needs the contents no more (s390; here set by hand)."""
    return pte & _PAGE_UNUSED != 0


def pte_pfn(pte: u64) -> u64:
    """The page that a present entry maps."""
    return (pte & PTE_PFN_MASK) >> PAGE_SHIFT


def pfn_pte(pfn: u64, prot: u64) -> u64:
    """mk_pte(): the entry that maps a page with given protection bits."""
    return pfn << PAGE_SHIFT | prot


def pte_mkyoung(pte: u64) -> u64:
    """The entry with its accessed bit set."""
    return pte | _PAGE_ACCESSED


def pte_mkold(pte: u64) -> u64:
    """The entry with its accessed bit clear."""
    return pte & ~_PAGE_ACCESSED


def pte_mkdirty(pte: u64) -> u64:
    """The entry with its dirty and soft-dirty bits set."""
    return pte | _PAGE_DIRTY | _PAGE_SOFT_DIRTY


def pte_mkclean(pte: u64) -> u64:
    """The entry with its dirty bit clear; soft-dirty stays."""
    return pte & ~_PAGE_DIRTY


def pte_mkwrite(pte: u64) -> u64:
    """The entry with writing permitted."""
    return pte | _PAGE_RW


def pte_wrprotect(pte: u64) -> u64:
    """The entry with writing forbidden."""
    return pte & ~_PAGE_RW


def pte_mksoft_dirty(pte: u64) -> u64:
    """The entry with its soft-dirty bit set."""
    return pte | _PAGE_SOFT_DIRTY


def pte_modify(pte: u64, prot: u64) -> u64:
    """The entry with other protection bits: page, accessed, dirty and the like are kept."""
    changed: u64 = _PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_PROTNONE | _PAGE_NX
    return (pte & ~changed) | (prot & changed)


def pmd_present(pmd: u64) -> flag:
    """Whether a PMD is a table or a huge page, also one under pmdp_invalidate()."""
    return pmd & (_PAGE_PRESENT | _PAGE_PROTNONE | _PAGE_PSE) != 0


def pmd_trans_huge(pmd: u64) -> flag:
    """Whether a PMD maps a huge page."""
    return pmd & _PAGE_PSE != 0 and pmd & _PAGE_DEVMAP == 0


def is_swap_pmd(pmd: u64) -> flag:
    """Whether a PMD holds a swp_entry_t."""
    return not pte_none(pmd) and not pmd_present(pmd)


def is_pmd_migration_entry(pmd: u64) -> flag:
    """Whether a PMD waits for a huge page that is being moved."""
    return is_swap_pmd(pmd) and is_migration_entry(pte_to_swp_entry(pmd))


# ---------------------------------------------------------------- swap entries


def swp_entry(type: i32, offset: u64) -> u64:
    """Make a swp_entry_t of a swap area (or special type) and a slot (or page)."""
    kind: u64 = type
    return kind << SWP_TYPE_SHIFT | (offset & SWP_OFFSET_MASK)


def swp_type(entry: u64) -> i32:
    """The swap area of a swp_entry_t, or ``SWP_HWPOISON`` and the like."""
    return entry >> SWP_TYPE_SHIFT


def swp_offset(entry: u64) -> u64:
    """The slot of a swp_entry_t; for migration and its like, the page frame number."""
    return entry & SWP_OFFSET_MASK


def non_swap_entry(entry: u64) -> flag:
    """Whether the entry is no swap slot but of a special type."""
    return swp_type(entry) >= MAX_SWAPFILES


def swp_entry_to_pte(entry: u64) -> u64:
    """The page-table form of a swp_entry_t (v4.18.0: type in bits 9-13, offset from 14 on)."""
    kind: u64 = swp_type(entry)
    return kind << SWP_PTE_TYPE_SHIFT | swp_offset(entry) << SWP_PTE_OFFSET_SHIFT


def pte_to_swp_entry(pte: u64) -> u64:
    """The swp_entry_t that an entry holds, without the bits beside it."""
    kind: u64 = pte >> SWP_PTE_TYPE_SHIFT & SWP_PTE_TYPE_MASK
    return kind << SWP_TYPE_SHIFT | pte >> SWP_PTE_OFFSET_SHIFT


def pte_swp_mksoft_dirty(pte: u64) -> u64:
    """The swap entry with its soft-dirty bit set."""
    return pte | _PAGE_SWP_SOFT_DIRTY


def pte_swp_soft_dirty(pte: u64) -> flag:
    """Whether the swap entry's soft-dirty bit is set."""
    return pte & _PAGE_SWP_SOFT_DIRTY != 0


def is_migration_entry(entry: u64) -> flag:
    """Whether the page is being moved elsewhere."""
    kind: i32 = swp_type(entry)
    return kind == SWP_MIGRATION_READ or kind == SWP_MIGRATION_WRITE


def is_write_migration_entry(entry: u64) -> flag:
    """Whether the mapping will be writable again after the move."""
    return swp_type(entry) == SWP_MIGRATION_WRITE


def is_device_private_entry(entry: u64) -> flag:
    """Whether the page lies in memory of a device."""
    kind: i32 = swp_type(entry)
    return kind == SWP_DEVICE_READ or kind == SWP_DEVICE_WRITE


def is_hwpoison_entry(entry: u64) -> flag:
    """Whether the page was lost to a memory error."""
    return swp_type(entry) == SWP_HWPOISON


# ---------------------------------------------------------------- tables


def pte_alloc_row(k: Kernel, mm: Mm) -> u64:
    """Take a table from the pool, empty; 0 if the allocation fails."""
    if k.inject is not None and k.inject.should_fail("page_table"):
        return 0
    row: u64
    if k.pt_free:
        row = k.pt_free.pop()
    else:
        row = k.pt_next
        while (row + 1) * PTRS_PER_PTE > len(k.pt):
            k.grow_tables()
        k.pt_next += 1
    k.vm_stat[NR_PAGETABLE] += 1
    mm.nr_ptes += 1
    return row


def pte_free_row(k: Kernel, mm: Mm, row: u64) -> i32:
    """Give a table back, which must be empty and unlocked."""
    i: u64
    mm.pmd_tag = 0
    base: u64 = row * PTRS_PER_PTE
    if k.pt_locked[row]:
        BUG("a page table is freed while it is locked")
    if k.pmd_huge_pte and row in k.pmd_huge_pte:
        BUG("mm.h pgtable_pmd_page_dtor: tables are set aside for a table of PMDs that is freed")
    if k.debug_vm:
        for i in range(base, base + PTRS_PER_PTE):
            if k.pt[i]:
                BUG("a page table is freed with entries in it")
    k.pt_free.append(row)
    k.vm_stat[NR_PAGETABLE] -= 1
    mm.nr_ptes -= 1
    return 0


def _descend(k: Kernel, entry: u64) -> u64:
    """The first entry of the table that an entry points to; 0 if there is none, or it is a leaf."""
    value: u64 = k.pt[entry]
    if value & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT:
        return 0
    return ((value & PTE_PFN_MASK) >> PAGE_SHIFT) * PTRS_PER_PTE


def _descend_alloc(k: Kernel, mm: Mm, entry: u64) -> u64:
    """The same, making the table if there is none; 0 if that fails."""
    base: u64 = _descend(k, entry)
    if base:
        return base
    if k.pt[entry] & _PAGE_PSE:
        # A huge page has the place of the table.
        return 0
    row: u64 = pte_alloc_row(k, mm)
    if not row:
        return 0
    k.pt[entry] = row << PAGE_SHIFT | _PAGE_PRESENT | _PAGE_RW | _PAGE_USER
    return row * PTRS_PER_PTE


def pmd_offset(k: Kernel, mm: Mm, address: u64) -> u64:
    """The PMD entry that covers an address; 0 where an upper table is missing.

    As a processor does, an mm remembers the table of PMDs that it came to last, until one of its
    tables is freed: it saves two loads, each of which waits for the one before.
    """
    if mm.pmd_tag == (address >> PUD_SHIFT) + 1:
        return mm.pmd_table + (address >> PMD_SHIFT & 511)
    base: u64 = _descend(k, mm.pgd * PTRS_PER_PTE + (address >> PGDIR_SHIFT & 511))
    if not base:
        return 0
    base = _descend(k, base + (address >> PUD_SHIFT & 511))
    if not base:
        return 0
    mm.pmd_tag = (address >> PUD_SHIFT) + 1
    mm.pmd_table = base
    return base + (address >> PMD_SHIFT & 511)


def pud_offset(k: Kernel, mm: Mm, address: u64) -> u64:
    """The PUD entry that covers an address; 0 where the table is missing."""
    base: u64 = _descend(k, mm.pgd * PTRS_PER_PTE + (address >> PGDIR_SHIFT & 511))
    if not base:
        return 0
    return base + (address >> PUD_SHIFT & 511)


def pud_alloc(k: Kernel, mm: Mm, address: u64) -> u64:
    """The PUD entry that covers an address, making its table; 0 if that fails."""
    base: u64 = _descend_alloc(k, mm, mm.pgd * PTRS_PER_PTE + (address >> PGDIR_SHIFT & 511))
    if not base:
        return 0
    return base + (address >> PUD_SHIFT & 511)


def pmd_alloc(k: Kernel, mm: Mm, address: u64) -> u64:
    """The PMD entry that covers an address, making the tables above it; 0 if that fails."""
    base: u64 = _descend_alloc(k, mm, mm.pgd * PTRS_PER_PTE + (address >> PGDIR_SHIFT & 511))
    if not base:
        return 0
    base = _descend_alloc(k, mm, base + (address >> PUD_SHIFT & 511))
    if not base:
        return 0
    return base + (address >> PMD_SHIFT & 511)


def pte_offset(k: Kernel, pmd: u64, address: u64) -> u64:
    """The entry of an address in the table below a PMD; 0 if there is no table (or a huge page)."""
    value: u64 = k.pt[pmd]
    if not value & _PAGE_PRESENT or value & _PAGE_PSE:
        return 0
    return ((value & PTE_PFN_MASK) >> PAGE_SHIFT) * PTRS_PER_PTE + (address >> PAGE_SHIFT & 511)


def pte_lookup(k: Kernel, mm: Mm, address: u64) -> u64:
    """The entry of an address, 0 where a table is missing."""
    pmd: u64 = pmd_offset(k, mm, address)
    if not pmd:
        return 0
    return pte_offset(k, pmd, address)


def leaf_lookup(k: Kernel, mm: Mm, address: u64) -> u64:
    """The entry of a huge page, PMD or PUD, that covers an address for a processor; 0 for none."""
    slot: u64 = pud_offset(k, mm, address)
    huge: u64 = _PAGE_PRESENT | _PAGE_PSE
    if slot and k.pt[slot] & huge != huge:
        slot = pmd_offset(k, mm, address)
        if slot and k.pt[slot] & huge != huge:
            slot = 0
    return slot


def leaf_part(k: Kernel, mm: Mm, address: u64, leaf: u64) -> u64:
    """Where in the huge page of that entry the address lies, in bytes, down to a small page."""
    if leaf == pmd_offset(k, mm, address):
        return address & ~PMD_MASK & PAGE_MASK
    return address & ~PUD_MASK & PAGE_MASK


def pte_alloc(k: Kernel, mm: Mm, address: u64) -> u64:
    """The entry of an address, making the tables above it; 0 if that fails."""
    pmd: u64 = pmd_alloc(k, mm, address)
    if not pmd:
        return 0
    return pte_alloc_map(k, mm, pmd, address)


def pte_alloc_map(k: Kernel, mm: Mm, pmd: u64, address: u64) -> u64:
    """The entry of an address below a PMD, making the table if need be; 0 if that fails.

    0 also if a huge page is there by now, or waited for: then there is no table to be made.
    """
    if k.pt[pmd] & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT and k.pt[pmd] & ~PTE_NONE_IGNORES:
        return 0
    base: u64 = _descend_alloc(k, mm, pmd)
    if not base:
        return 0
    return base + (address >> PAGE_SHIFT & 511)


def free_pgd_range(k: Kernel, mm: Mm, start: u64, end: u64, floor: u64, ceiling: u64) -> i32:
    """Free the tables of ``[start, end)`` that reach not below `floor` nor above `ceiling`.

    A ceiling of 0 is the end of the address space. mm/memory.c:482 (v4.18).
    """
    top: u64 = mm.pgd * PTRS_PER_PTE
    _free_level(k, mm, top, PGDIR_SHIFT, 0, start, end, floor, ceiling)
    return 0


def _free_level(
    k: Kernel,
    mm: Mm,
    base: u64,
    shift: i32,
    origin: u64,
    start: u64,
    end: u64,
    floor: u64,
    ceiling: u64,
) -> i32:
    """Free what hangs below the table at `base`, which begins at address `origin`."""
    one: u64 = 1
    span: u64 = one << shift
    address: u64 = start >> shift << shift
    below: u64
    slot: u64
    while address < end:
        slot = base + (address >> shift & 511)
        below = _descend(k, slot)
        if below and not k.pt[slot] & _PAGE_PSE:
            if shift > PMD_SHIFT:
                _free_level(
                    k,
                    mm,
                    below,
                    shift - 9,
                    address,
                    start if start > address else address,
                    end if end < address + span else address + span,
                    floor,
                    ceiling,
                )
            # The table covers the whole span, so it goes only if the neighbours leave it alone.
            if address >= floor and (ceiling == 0 or address + span <= ceiling):
                k.pt[slot] = 0
                pte_free_row(k, mm, below // PTRS_PER_PTE)
        address += span
    return 0


# ---------------------------------------------------------------- locks and accesses


def ptl_of(pte: u64) -> u64:
    """The row of an entry's table, by which its lock is named."""
    return pte // PTRS_PER_PTE


def _table_unlocked(k: Kernel, row: u64) -> bool:
    return k.pt_locked[row] == 0


def _wait_for_table(k: Kernel, row: u64) -> i32:
    """Wait until nobody has the lock of a table."""
    return wait_until(RANK_PTL, row, partial(_table_unlocked, k, row))


def pte_lock(k: Kernel, pte: u64) -> i32:
    """spin_lock(ptl) of the table that the entry is in."""
    row: u64 = pte // PTRS_PER_PTE
    if sched.exploring or k.pt_locked[row]:
        _wait_for_table(k, row)
    k.pt_locked[row] = 1
    if sched.checking:
        lock_acquired(RANK_PTL, row, WRITE_MODE, False)
    return 0


def pte_unlock(k: Kernel, pte: u64) -> i32:
    """spin_unlock(ptl)."""
    row: u64 = pte // PTRS_PER_PTE
    if sched.exploring:
        sched_point(OP_RELEASE, RANK_PTL, row)
    if sched.checking:
        lock_released(RANK_PTL, row, WRITE_MODE)
    k.pt_locked[row] = 0
    return 0


def assert_pte_locked(k: Kernel, pte: u64) -> i32:
    """Insist that the current context holds the lock of the entry's table."""
    return assert_held(RANK_PTL, pte // PTRS_PER_PTE, WRITE_MODE)


def ptep_get(k: Kernel, pte: u64) -> u64:
    """READ_ONCE(*pte)."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_PTE, pte)
    return k.pt[pte]


def set_pte_at(k: Kernel, mm: Mm, address: u64, ptep: u64, pte: u64) -> i32:
    """Store an entry. The lock of its table is held."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_PTE, ptep)
    k.pt[ptep] = pte
    return 0


def ptep_get_and_clear(k: Kernel, mm: Mm, address: u64, ptep: u64) -> u64:
    """Empty an entry and return what it was, in one atomic step; no TLB is flushed."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PTE, ptep)
    pte: u64 = k.pt[ptep]
    k.pt[ptep] = 0
    return pte


def ptep_set_wrprotect(k: Kernel, mm: Mm, address: u64, ptep: u64) -> i32:
    """Forbid writing through an entry, in one atomic step: what the processor sets is not lost."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PTE, ptep)
    k.pt[ptep] &= ~_PAGE_RW
    return 0

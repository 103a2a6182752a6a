# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""mincore: which pages of a range an access would find in memory (mm/mincore.c, v4.18).

Locks: mm->mmap_sem for read; inside it the page-table lock of one table at a time, and inside of
that nothing: page caches are looked at as lookups do, without a lock.

It tells of caches, not only of mappings: in v4.18 of the page cache of any file that is mapped.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EINVAL,
        ENOMEM,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        TASK_SIZE,
        VM_HUGETLB,
        PG_uptodate,
    )
    from rmap.mm.hugetlb.pgtable import huge_pte_offset
    from rmap.mm.hugetlb.pool import hstate_vma, huge_page_size
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AddressSpace, Hstate, Kernel, Mm, Vma
    from rmap.mm.page import PageFlag
    from rmap.mm.page_cache import find_get_entry
    from rmap.mm.pgtable import (
        non_swap_entry,
        pmd_offset,
        pmd_trans_huge,
        pte_lock,
        pte_none,
        pte_offset,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
    )
    from rmap.mm.swap_cache import lookup_swap_cache
    from rmap.mm.vma import find_vma, linear_page_index
    from rmap.scalar import flag, i32, i64, u64


def do_mincore(k: Kernel, mm: Mm, start: u64, length: u64, vec: bytearray) -> i32:
    """The system call mincore(): fill `vec` with a byte for each page, 1 if it is in memory.

    Returns 0, or -EINVAL for a start that is no page's, or -ENOMEM where nothing is mapped; what
    lies before that is filled in then. mm->mmap_sem is taken.
    """
    if start & (PAGE_SIZE - 1):
        return -EINVAL
    if start > TASK_SIZE or length > TASK_SIZE - start:
        return -ENOMEM
    end: u64 = start + length
    address: u64 = start
    stop: u64
    vma: Vma
    error: i32 = 0
    mm.mmap_sem.down_read()
    while address < end:
        vma = find_vma(k, mm, address)
        if vma is None or address < vma.vm_start:
            error = -ENOMEM
            break
        stop = end if end < vma.vm_end else vma.vm_end
        if vma.vm_flags & VM_HUGETLB:
            _look_at_hugetlb(k, vma, address, stop, start, vec)
        else:
            _look_at_range(k, vma, address, stop, start, vec)
        address = (stop + PAGE_SIZE - 1) >> PAGE_SHIFT << PAGE_SHIFT
    mm.mmap_sem.up_read()
    return error


def _look_at_hugetlb(
    k: Kernel, vma: Vma, address: u64, end: u64, start: u64, vec: bytearray
) -> i32:
    """Pages of hugetlb are in memory if they are mapped, or wait to be (mincore_hugetlb())."""
    h: Hstate = hstate_vma(vma)
    ptep: u64
    while address < end:
        ptep = huge_pte_offset(k, vma.vm_mm, address, huge_page_size(h))
        if ptep and not pte_none(ptep_get(k, ptep)):
            vec[(address - start) >> PAGE_SHIFT] = 1
        address += PAGE_SIZE
    return 0


def _look_at_range(k: Kernel, vma: Vma, address: u64, end: u64, start: u64, vec: bytearray) -> i32:
    """Look at a part of a VMA, table by table."""
    pmd: u64
    stop: u64
    while address < end:
        stop = (address & PMD_MASK) + PMD_SIZE
        if stop > end:
            stop = end
        pmd = pmd_offset(k, vma.vm_mm, address)
        if pmd and pmd_trans_huge(k.pt[pmd]):
            pte_lock(k, pmd)
            if pmd_trans_huge(ptep_get(k, pmd)):
                # A PMD that maps a huge page says it of all its parts.
                _fill(address, stop, start, vec)
                pte_unlock(k, pmd)
                address = stop
                continue
            pte_unlock(k, pmd)
        _look_at_table(k, vma, pmd, address, stop, start, vec)
        address = stop
    return 0


def _fill(address: u64, end: u64, start: u64, vec: bytearray) -> i32:
    """Say of a range that it is in memory."""
    while address < end:
        vec[(address - start) >> PAGE_SHIFT] = 1
        address += PAGE_SIZE
    return 0


def _look_at_table(
    k: Kernel, vma: Vma, pmd: u64, address: u64, end: u64, start: u64, vec: bytearray
) -> i32:
    """Look at the entries of one table, if there is one, and at caches for what they lack."""
    ptep: u64 = pte_offset(k, pmd, address) if pmd else 0
    first: u64 = ptep
    if ptep:
        pte_lock(k, first)
    while address < end:
        if _in_memory(k, vma, address, ptep_get(k, ptep) if ptep else 0):
            vec[(address - start) >> PAGE_SHIFT] = 1
        address += PAGE_SIZE
        if ptep:
            ptep += 1
    if first:
        pte_unlock(k, first)
    return 0


def _in_memory(k: Kernel, vma: Vma, address: u64, pte: u64) -> flag:
    """Whether an access would have to wait for nothing (mincore_pte_range())."""
    entry: u64
    if pte_none(pte):
        if vma.vm_file is None:
            return False
        return _cached(k, vma.vm_file.f_mapping, linear_page_index(k, vma, address))
    if pte_present(pte):
        return True
    entry = pte_to_swp_entry(pte)
    if non_swap_entry(entry):
        # On its way, a device's, or broken: nothing has to be read, in any case.
        return True
    return _uptodate(k, lookup_swap_cache(k, entry))


def _cached(k: Kernel, mapping: AddressSpace, index: u64) -> flag:
    """Whether a file's page is in the page cache, or, of shmem, in the swap cache."""
    item: i64 = find_get_entry(k, mapping, index)
    if item < 0:
        item = lookup_swap_cache(k, -item)
    return _uptodate(k, item)


def _uptodate(k: Kernel, page: u64) -> flag:
    """Whether there is a page, and it holds what it should. Its reference is dropped."""
    if not page:
        return False
    uptodate: flag = PageFlag(k, page, PG_uptodate)
    put_page(k, page)
    return uptodate

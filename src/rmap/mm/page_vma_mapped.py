# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Where, in one VMA, does this page hang? page_vma_mapped_walk().

mm/page_vma_mapped.c of v4.18. The page-table lock is taken where something is found, and held until
the next call or until `page_vma_mapped_walk_done`; the caller may hold an rmap lock, and no other
page-table lock.

>>> from rmap.mm.mm_types import Kernel, Mm, Vma
>>> from rmap.mm.pgtable import pfn_pte, pte_alloc, set_pte_at
>>> from rmap.mm.profile import profile
>>> k = Kernel(16, profile("4.18"))
>>> mm = Mm(k, 1, 1)
>>> k.pt_next = 2
>>> vma = Vma(mm, 0x1000, 0x5000, 0, 1)
>>> set_pte_at(k, mm, 0x3000, pte_alloc(k, mm, 0x3000), pfn_pte(7, 0x25))
0
>>> pvmw = PageVmaMappedWalk(7, vma, 0x3000)
>>> page_vma_mapped_walk(k, pvmw), hex(pvmw.address)
(True, '0x3000')
>>> page_vma_mapped_walk(k, pvmw)
False
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        PTRS_PER_PTE,
        PVMW_MIGRATION,
        PVMW_SYNC,
        RMAP_VMAS_MAPPED,
        ULONG_MAX,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.hugetlb.pgtable import huge_pte_offset
    from rmap.mm.mm_types import Kernel, Vma
    from rmap.mm.page import PageHuge, compound_order, hpage_nr_pages
    from rmap.mm.pgtable import (
        is_device_private_entry,
        is_migration_entry,
        is_pmd_migration_entry,
        is_swap_pte,
        pmd_offset,
        pmd_present,
        pmd_trans_huge,
        pte_lock,
        pte_none,
        pte_offset,
        pte_pfn,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        ptl_of,
        swp_offset,
    )
    from rmap.mm.vma import vma_page_address
    from rmap.scalar import flag, i32, u64

# What a step of the walk came to: no mapping (any more), one, or another table to look into.
NOTHING = cython.declare(cython.int, 0)
FOUND = cython.declare(cython.int, 1)
TABLE = cython.declare(cython.int, 2)


class PageVmaMappedWalk:
    """struct page_vma_mapped_walk: which page in which VMA, and how far the walk has come.

    `address` is where to begin, and after a hit where it is. `pte` is the entry found; where it
    is 0 and `pmd` is not, a PMD maps the page whole. `ptl` is the row whose lock is held, plus
    one. `flags`: ``PVMW_SYNC`` takes the lock before it looks at all, ``PVMW_MIGRATION`` looks
    for migration entries. `nr_pages`: how many there are to find, 512 for a huge page. `mapped`:
    something was found in this VMA.
    """

    def __init__(self, page: u64, vma: Vma | None, address: u64, flags: i32 = 0) -> None:
        self.start(page, vma, address, flags)

    def start(self, page: u64, vma: Vma, address: u64, flags: i32) -> i32:
        """Begin a walk: an object that has finished one can be used for the next."""
        self.page = page
        self.vma = vma
        self.address = address
        self.flags = flags
        self.pmd = 0
        self.pte = 0
        self.ptl = 0
        self.nr_pages = 1
        self.mapped = False
        return 0


def page_vma_mapped_walk(k: Kernel, pvmw: PageVmaMappedWalk) -> flag:
    """Find the next place where the VMA maps the page; whether there is one.

    mm/page_vma_mapped.c (v4.18). After a hit the page-table lock is held; after the last one
    nothing is.
    """
    step: i32
    if pvmw.pte:
        if pvmw.nr_pages == 1:
            # A VMA maps a small page once.
            return _not_found(k, pvmw) == FOUND
        step = _next_pte(k, pvmw)
    elif pvmw.pmd:
        # And a huge page whole at most once.
        return _not_found(k, pvmw) == FOUND
    else:
        pvmw.nr_pages = hpage_nr_pages(k, pvmw.page)
        if pvmw.nr_pages > 1 and PageHuge(k, pvmw.page):
            step = _walk_hugetlb(k, pvmw)
        else:
            step = _walk_table(k, pvmw)
    while step == TABLE:
        step = _walk_table(k, pvmw)
    return step == FOUND


def page_vma_mapped_walk_done(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """End a walk before it has ended by itself: drop the lock that the last hit left held."""
    if pvmw.ptl:
        pte_unlock(k, (pvmw.ptl - 1) * PTRS_PER_PTE)
        pvmw.ptl = 0
    return 0


def page_mapped_in_vma(k: Kernel, page: u64, vma: Vma) -> i32:
    """Whether the VMA really maps the page (mm/page_vma_mapped.c, v4.18); 1 or 0."""
    start: u64 = vma_page_address(k, page, vma)
    end: u64 = (start + PAGE_SIZE * (hpage_nr_pages(k, page) - 1)) & ULONG_MAX
    if start >= vma.vm_end or end < vma.vm_start:
        return 0
    if start < vma.vm_start:
        start = vma.vm_start
    pvmw: PageVmaMappedWalk = PageVmaMappedWalk(page, vma, start, PVMW_SYNC)
    # No walk of the reverse map, so it is not counted as one's hit.
    pvmw.mapped = True
    if not page_vma_mapped_walk(k, pvmw):
        return 0
    page_vma_mapped_walk_done(k, pvmw)
    return 1


def _hit(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """Count the VMA as one that maps the page."""
    if not pvmw.mapped:
        pvmw.mapped = True
        k.vm_stat[RMAP_VMAS_MAPPED] += 1
    return FOUND


def _not_found(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """End the walk."""
    page_vma_mapped_walk_done(k, pvmw)
    return NOTHING


def _walk_hugetlb(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """Look at the one entry that can map a hugetlb page: a PMD or PUD, called `pte` here."""
    one: u64 = 1
    size: u64 = one << (compound_order(k, pvmw.page) + PAGE_SHIFT)
    pvmw.pte = huge_pte_offset(k, pvmw.vma.vm_mm, pvmw.address, size)
    if not pvmw.pte:
        return NOTHING
    pte_lock(k, pvmw.pte)
    pvmw.ptl = ptl_of(pvmw.pte) + 1
    if not check_pte(k, pvmw):
        return _not_found(k, pvmw)
    pvmw.nr_pages = 1
    return _hit(k, pvmw)


def _walk_table(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """Go down to the table that covers the address, and through it; stop at a hit."""
    step: i32
    pvmw.pmd = pmd_offset(k, pvmw.vma.vm_mm, pvmw.address)
    if not pvmw.pmd:
        return _no_table(k, pvmw)
    pmde: u64 = ptep_get(k, pvmw.pmd)
    if pmd_trans_huge(pmde) or is_pmd_migration_entry(pmde):
        step = _check_pmd(k, pvmw)
        if step != TABLE:
            return step
    elif not pmd_present(pmde):
        # Without a look under the lock even for PVMW_SYNC: in v4.18 a huge page whose PMD is just
        # being taken away may be missed while it still counts as mapped.
        if k.profile.ttu_sync and pvmw.flags & PVMW_SYNC and pvmw.nr_pages > 1:
            pte_lock(k, pvmw.pmd)
            pte_unlock(k, pvmw.pmd)
        return _no_table(k, pvmw)
    if map_pte(k, pvmw) and check_pte(k, pvmw):
        return _hit(k, pvmw)
    return _next_pte(k, pvmw)


def _no_table(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """Where there is no page table: a huge page that is not aligned may reach into the next one.

    v4.18 does not think of that, and ends the walk.
    """
    if pvmw.nr_pages == 1 or not k.profile.walk_crosses_tables:
        return NOTHING
    pvmw.address = (pvmw.address & PMD_MASK) + PMD_SIZE
    return TABLE if pvmw.address < _end(k, pvmw) else NOTHING


def _end(k: Kernel, pvmw: PageVmaMappedWalk) -> u64:
    """Where the VMA or the page ends."""
    end: u64 = vma_page_address(k, pvmw.page, pvmw.vma) + pvmw.nr_pages * PAGE_SIZE
    return end if end < pvmw.vma.vm_end else pvmw.vma.vm_end


def _check_pmd(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """Look at a PMD that is no table, under its lock; it may have become one by then."""
    pte_lock(k, pvmw.pmd)
    pvmw.ptl = ptl_of(pvmw.pmd) + 1
    pmde: u64 = ptep_get(k, pvmw.pmd)
    entry: u64
    migration: flag = pvmw.flags & PVMW_MIGRATION != 0
    if pmd_trans_huge(pmde):
        if migration or pte_pfn(pmde) != pvmw.page:
            return _not_found(k, pvmw)
        return _hit(k, pvmw)
    if not pmd_present(pmde):
        entry = pte_to_swp_entry(pmde)
        if not migration or not is_migration_entry(entry) or swp_offset(entry) != pvmw.page:
            return _not_found(k, pvmw)
        return _hit(k, pvmw)
    page_vma_mapped_walk_done(k, pvmw)
    return TABLE


def map_pte(k: Kernel, pvmw: PageVmaMappedWalk) -> flag:
    """Set `pte`, and take its lock if it looks worth it; whether it was taken.

    The look is without the lock unless ``PVMW_SYNC``. It passes over entries of device memory,
    which check_pte() would take: a defect that v4.20 repaired.
    """
    pvmw.pte = pte_offset(k, pvmw.pmd, pvmw.address)
    if not pvmw.pte:
        BUG_PAGE("map_pte: the table went away under an rmap walk", pvmw.page)
    pte: u64
    if not pvmw.flags & PVMW_SYNC:
        pte = ptep_get(k, pvmw.pte)
        if pvmw.flags & PVMW_MIGRATION:
            if not is_swap_pte(pte):
                return False
        elif not pte_present(pte):
            if not k.profile.pvmw_finds_device_private or not _names_device(pte):
                return False
    pte_lock(k, pvmw.pte)
    pvmw.ptl = ptl_of(pvmw.pte) + 1
    return True


def _names_device(pte: u64) -> flag:
    """Whether the entry is the special swap entry of a page in memory of a device."""
    return is_swap_pte(pte) and is_device_private_entry(pte_to_swp_entry(pte))


def check_pte(k: Kernel, pvmw: PageVmaMappedWalk) -> flag:
    """Whether the entry, under its lock, maps the page or any part of a huge one."""
    pte: u64 = ptep_get(k, pvmw.pte)
    entry: u64
    pfn: u64
    if pvmw.flags & PVMW_MIGRATION:
        if not is_swap_pte(pte):
            return False
        entry = pte_to_swp_entry(pte)
        if not is_migration_entry(entry):
            return False
        pfn = swp_offset(entry)
    elif pte_present(pte):
        pfn = pte_pfn(pte)
    else:
        if not is_swap_pte(pte):
            return False
        entry = pte_to_swp_entry(pte)
        if not is_device_private_entry(entry):
            return False
        pfn = swp_offset(entry)
    if pfn < pvmw.page:
        return False
    return pfn - pvmw.page < pvmw.nr_pages


def _next_pte(k: Kernel, pvmw: PageVmaMappedWalk) -> i32:
    """Go on behind `pte`: only a huge page that PTEs map can be found more than once."""
    if pvmw.nr_pages == 1:
        return _not_found(k, pvmw)
    end: u64 = _end(k, pvmw)
    while True:
        pvmw.address += PAGE_SIZE
        if pvmw.address >= end:
            return _not_found(k, pvmw)
        if not pvmw.address & ~PMD_MASK:
            page_vma_mapped_walk_done(k, pvmw)
            pvmw.pte = 0
            return TABLE
        pvmw.pte += 1
        if pte_none(ptep_get(k, pvmw.pte)):
            continue
        if not pvmw.ptl:
            pte_lock(k, pvmw.pte)
            pvmw.ptl = ptl_of(pvmw.pte) + 1
        if check_pte(k, pvmw):
            return _hit(k, pvmw)

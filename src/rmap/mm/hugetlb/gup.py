# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Looking up small pages of huge ones for get_user_pages() (mm/hugetlb.c, v4.18).

Locks: mmap_sem is the caller's; the page-table lock is taken for the look.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EMLINK,
        FOLL_GET,
        FOLL_PIN,
        FOLL_WRITE,
        PAGE_SHIFT,
        PG_anon_exclusive,
    )
    from rmap.mm.hugetlb.pgtable import huge_pte_offset
    from rmap.mm.hugetlb.pool import hstate_vma, huge_page_size
    from rmap.mm.mm_types import Kernel, Vma
    from rmap.mm.page import PageAnon, PageFlag, get_page
    from rmap.mm.pgtable import (
        pte_lock,
        pte_none,
        pte_pfn,
        pte_present,
        pte_unlock,
        pte_write,
        ptep_get,
    )
    from rmap.scalar import i64, u64


def follow_hugetlb_page(k: Kernel, vma: Vma, address: u64, flags: u64) -> i64:
    """The small page that an address of a hugetlb VMA maps, if it may be used as `flags` say.

    0 if a fault has to come first, -EMLINK if one that makes the page this process's alone. With
    FOLL_GET the huge page has a reference more.
    """
    size: u64 = huge_page_size(hstate_vma(vma))
    ptep: u64 = huge_pte_offset(k, vma.vm_mm, address & ~(size - 1), size)
    if not ptep:
        return 0
    pte_lock(k, ptep)
    page: i64 = _page_of_huge_entry(k, ptep_get(k, ptep), flags)
    if page > 0:
        page += (address & (size - 1)) >> PAGE_SHIFT
        if flags & FOLL_GET:
            get_page(k, page)
    pte_unlock(k, ptep)
    return page


def _page_of_huge_entry(k: Kernel, pte: u64, flags: u64) -> i64:
    """The same for an entry, with the lock of its table held: the head of what it maps."""
    if pte_none(pte) or not pte_present(pte):
        return 0
    if flags & FOLL_WRITE and not pte_write(pte):
        return 0
    page: u64 = pte_pfn(pte)
    if k.profile.anon_exclusive and flags & (FOLL_WRITE | FOLL_PIN) == FOLL_PIN:
        if not pte_write(pte) and PageAnon(k, page) and not PageFlag(k, page, PG_anon_exclusive):
            return -EMLINK
    return page

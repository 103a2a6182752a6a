# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""What the parts of mm/memory.c (v4.18) share: struct vm_fault, vm_normal_page(), the zero page.

Locks: `lock_page_or_retry` takes the page lock inside mmap_sem, and may give mmap_sem up instead.
"""

from __future__ import annotations

from functools import partial

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_RW,
        _PAGE_SPECIAL,
        FAULT_FLAG_ALLOW_RETRY,
        FAULT_FLAG_RETRY_NOWAIT,
        GFP_KERNEL,
        PAGE_MASK,
        PAGE_SHIFT,
        PTE_PFN_MASK,
        VM_MIXEDMAP,
        VM_PFNMAP,
        VM_WRITE,
        PG_locked,
        PG_reserved,
        PG_uptodate,
    )
    from rmap.mm.bug import WARN
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.page import SetPage, compound_head, lock_page, trylock_page
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.pgtable import set_pte_at
    from rmap.mm.vma import linear_page_index
    from rmap.scalar import flag, i32, u64
    from rmap.sync.bits import RANK_PAGE_LOCK
    from rmap.sync.core import wait_until


class VmFault:
    """struct vm_fault (include/linux/mm.h): one fault on its way through the handlers.

    `pte` is the entry, 0 while there is none or no table for it; `orig_pte` what it held when it
    was looked at. `page` is the page of the file or the one that is copied, `cow_page` the copy.
    `fault_type` collects what a file adds to the result.
    """

    def __init__(self, vma: Vma, address: u64, flags: u64) -> None:
        self.vma = vma
        self.flags = flags
        self.address = address & PAGE_MASK
        self.pgoff = 0
        self.pmd = 0
        self.pte = 0
        self.orig_pte = 0
        self.page = 0
        self.cow_page = 0
        self.fault_type = 0

    def aim(self, k: Kernel, address: u64, flags: u64) -> i32:
        """Make it the fault of another address of the same VMA."""
        self.address = address & PAGE_MASK
        self.flags = flags
        self.pgoff = linear_page_index(k, self.vma, self.address)
        self.pmd = 0
        self.pte = 0
        self.orig_pte = 0
        self.page = 0
        self.cow_page = 0
        self.fault_type = 0
        return 0


# ---------------------------------------------------------------- the zero page


def init_zero_pfn(k: Kernel) -> u64:
    """Set the zero page aside, as boot does; returns it, 0 if there is no page left.

    It is reserved: nothing counts its mappings, nothing frees it, and nothing may write to it.
    """
    if k.zero_page:
        return k.zero_page
    page: u64 = alloc_page(k, GFP_KERNEL)
    if page:
        SetPage(k, page, PG_reserved | PG_uptodate)
        k.zero_page = page
    return page


def is_zero_pfn(k: Kernel, pfn: u64) -> flag:
    """Whether a frame number is that of the zero page."""
    return pfn != 0 and pfn == k.zero_page


# ---------------------------------------------------------------- pages and entries


def print_bad_pte(k: Kernel, vma: Vma, address: u64, pte: u64, page: u64) -> i32:
    """Report an entry that cannot be ("Bad page map"); the kernel goes on, and so does this."""
    WARN(k.warnings, f"memory.c print_bad_pte: entry {pte:#x} at {address:#x}, page {page:#x}")
    return 0


def vm_normal_page(k: Kernel, vma: Vma, address: u64, pte: u64) -> u64:
    """The page that a present entry maps, if it is one that rmap and rss know; 0 if it is not.

    The zero page and frames of a device have no such page.
    """
    # Asked for every entry that is unmapped or copied: no calls on the way that all but few go.
    pfn: u64 = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    if pte & _PAGE_SPECIAL:
        if vma.vm_flags & (VM_PFNMAP | VM_MIXEDMAP) or is_zero_pfn(k, pfn):
            return 0
        print_bad_pte(k, vma, address, pte, 0)
        return 0
    if pfn == 0 or pfn > k.nr_pages:
        print_bad_pte(k, vma, address, pte, 0)
        return 0
    return pfn


def maybe_mkwrite(pte: u64, vma: Vma) -> u64:
    """The entry made writable, if the VMA is: a forced write may not leave it so."""
    if vma.vm_flags & VM_WRITE:
        return pte | _PAGE_RW
    return pte


def ptep_set_access_flags(
    k: Kernel, vma: Vma, address: u64, ptep: u64, entry: u64, dirty: flag
) -> flag:
    """Give an entry more permissions; whether it changed (arch/x86/mm/pgtable.c, v4.18).

    No flush: a CPU that remembers less takes a fault, and then looks again. Without `dirty`
    nothing is stored, since the processor sets the accessed bit by itself.
    """
    changed: flag = k.pt[ptep] != entry
    if changed and dirty:
        set_pte_at(k, vma.vm_mm, address, ptep, entry)
    return changed


# ---------------------------------------------------------------- waiting for a page


def _page_unlocked(k: Kernel, page: u64) -> bool:
    return k.pg_flags[page] & PG_locked == 0


def wait_on_page_locked(k: Kernel, page: u64) -> i32:
    """Wait until nobody holds the page lock, without taking it."""
    head: u64 = compound_head(k, page)
    while k.pg_flags[head] & PG_locked:
        wait_until(RANK_PAGE_LOCK, head, partial(_page_unlocked, k, head))
    return 0


def lock_page_or_retry(k: Kernel, page: u64, mm: Mm, flags: u64) -> flag:
    """Lock a page in a fault; false if mmap_sem was given up instead, and the fault starts anew.

    __lock_page_or_retry(), mm/filemap.c (v4.18). With FAULT_FLAG_RETRY_NOWAIT nothing is waited
    for and mmap_sem is kept.
    """
    if trylock_page(k, page):
        return True
    if flags & FAULT_FLAG_ALLOW_RETRY:
        if flags & FAULT_FLAG_RETRY_NOWAIT:
            return False
        mm.mmap_sem.up_read()
        wait_on_page_locked(k, page)
        return False
    lock_page(k, page)
    return True

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Idle page tracking: the bitmap of /sys/kernel/mm/page_idle (mm/page_idle.c, v4.18).

A page is marked idle, and the accessed bits of its mappings are cleared; what is used again is
idle no more. An accessed bit that this takes away leaves PG_young behind, so that reclaim does not
mistake the page for one that nobody uses.

Locks, outermost first: the page lock, if it is a page of a file (only tried for); the rmap lock for
read; page-table locks. k.lru_lock is held for a moment before, to get hold of the page.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import page_lock_anon_vma_read
    from rmap.mm.bits import PG_idle, PG_lru, PG_tail, PG_young
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AnonVma, Kernel, Vma
    from rmap.mm.mmu_notifier import pmdp_clear_young_notify, ptep_clear_young_notify
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageFlag,
        PageKsm,
        SetPage,
        get_page_unless_zero,
        page_mapped,
        page_rmapping,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_vma_mapped import PageVmaMappedWalk, page_vma_mapped_walk
    from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk
    from rmap.scalar import flag, i32, i64, u64


class PageIdleControl(RmapWalkControl):
    """The walk that clears accessed bits without flushing any TLB."""

    def __init__(self) -> None:
        self.pvmw = PageVmaMappedWalk(0, None, 0)

    def rmap_one(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Clear those of one VMA."""
        return page_idle_clear_pte_refs_one(k, page, vma, address, self)

    def anon_lock(self, k: Kernel, page: u64) -> AnonVma | None:
        """Lock without the page lock, if the page is still mapped."""
        return page_lock_anon_vma_read(k, page)


def page_idle_get_page(k: Kernel, pfn: u64) -> u64:
    """The page of a frame number with a reference, if it is one of the LRU; else 0 (:32)."""
    page: u64 = 0
    if pfn == 0 or pfn > k.nr_pages:
        return 0
    if k.pg_flags[pfn] & (PG_lru | PG_tail) != PG_lru:
        return 0
    if not get_page_unless_zero(k, pfn):
        return 0
    k.lru_lock.lock()
    if k.pg_flags[pfn] & PG_lru:
        page = pfn
    k.lru_lock.unlock()
    if not page:
        put_page(k, pfn)
    return page


def page_idle_clear_pte_refs_one(
    k: Kernel, page: u64, vma: Vma, address: u64, rwc: PageIdleControl
) -> flag:
    """Clear the accessed bits of one VMA, and remember them in the page (mm/page_idle.c:54)."""
    pvmw: PageVmaMappedWalk = rwc.pvmw
    referenced: flag = False
    pvmw.start(page, vma, address, 0)
    while page_vma_mapped_walk(k, pvmw):
        if pvmw.pte:
            if ptep_clear_young_notify(k, vma, pvmw.address, pvmw.pte):
                referenced = True
        elif pmdp_clear_young_notify(k, vma, pvmw.address, pvmw.pmd):
            referenced = True
    if referenced:
        ClearPage(k, page, PG_idle)
        SetPage(k, page, PG_young)
    return True


def page_idle_clear_pte_refs(k: Kernel, page: u64) -> i32:
    """Clear the accessed bits of all mappings of a page (mm/page_idle.c:94, v4.18)."""
    if not page_mapped(k, page) or not page_rmapping(k, page):
        return 0
    need_lock: flag = not PageAnon(k, page) or PageKsm(k, page)
    if need_lock and not trylock_page(k, page):
        return 0
    rmap_walk(k, page, PageIdleControl())
    if need_lock:
        unlock_page(k, page)
    return 0


def page_idle_bitmap_read(k: Kernel, pfn: u64) -> flag:
    """Whether a page that was marked idle has not been used since (mm/page_idle.c:123).

    The kernel's file has 64 pages a word; each of its bits is this.
    """
    page: u64 = page_idle_get_page(k, pfn)
    if not page:
        return False
    idle: flag = False
    if PageFlag(k, page, PG_idle):
        # It may have been used through a page table that nobody has looked at yet.
        page_idle_clear_pte_refs(k, page)
        idle = PageFlag(k, page, PG_idle)
    put_page(k, page)
    return idle


def page_idle_bitmap_write(k: Kernel, pfn: u64) -> flag:
    """Mark a page idle; whether it is one that can be, on the LRU (mm/page_idle.c:172)."""
    page: u64 = page_idle_get_page(k, pfn)
    if not page:
        return False
    page_idle_clear_pte_refs(k, page)
    SetPage(k, page, PG_idle)
    put_page(k, page)
    return True


def page_idle_mark_all(k: Kernel) -> i64:
    """Mark every page of the LRU idle; returns how many."""
    marked: i64 = 0
    pfn: u64
    for pfn in range(1, k.nr_pages + 1):
        if page_idle_bitmap_write(k, pfn):
            marked += 1
    return marked

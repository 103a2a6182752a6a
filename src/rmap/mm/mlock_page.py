# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Marking single pages mlocked (mm/mlock.c).

v4.18: PG_mlocked means that some VM_LOCKED VMA is believed to map the page. `mlock_vma_page` sets
it, `clear_page_mlock` is called when the last mapping goes; munlock has to look at all mappings
(`try_to_munlock`) to know whether it is still wanted.

v5.18 (quirk ``mlock_counts``): a page on the unevictable list counts the VMAs that lock it, in the
word that would link it there. Whoever maps the page calls `mlock_vma_page_counted` after the rmap
has been added, whoever unmaps it `munlock_vma_page_counted` after it has been removed; both do
nothing unless the VMA is VM_LOCKED and not VM_SPECIAL. A new anonymous page is counted by
`lru_cache_add_active_or_unevictable` instead. The count is right or too low, never too high.

k.lru_lock is taken, under which nothing is; callers may hold a page-table lock.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        LRU_UNEVICTABLE,
        NR_MLOCK,
        UNEVICTABLE_PGCLEARED,
        UNEVICTABLE_PGCULLED,
        UNEVICTABLE_PGMLOCKED,
        UNEVICTABLE_PGMUNLOCKED,
        UNEVICTABLE_PGRESCUED,
        UNEVICTABLE_PGSTRANDED,
        VM_LOCKED,
        VM_SPECIAL,
        PG_active,
        PG_lru,
        PG_mlocked,
        PG_unevictable,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.lru import isolate_lru_page, page_evictable, put_page, putback_lru_page
    from rmap.mm.mm_inline import (
        add_page_to_lru_list,
        del_page_from_lru_list,
        mem_cgroup_page_lruvec,
        page_lru,
    )
    from rmap.mm.mm_types import Kernel, LruVec, Vma
    from rmap.mm.page import (
        ClearPage,
        PageCompound,
        PageDoubleMap,
        PageLocked,
        PageTail,
        SetPage,
        TestClearPage,
        TestSetPage,
        compound_head,
        get_page,
        hpage_nr_pages,
    )
    from rmap.scalar import flag, i32, u64


# ---------------------------------------------------------------- v4.18


def mlock_vma_page(k: Kernel, page: u64) -> i32:
    """Mark a page mlocked and move it to the unevictable list (mm/mlock.c:86, v4.18).

    The page is locked. It need not be on the LRU: whoever isolated it puts it back rightly.
    """
    if not PageLocked(k, page):
        BUG_PAGE("mlock.c:89 mlock_vma_page: the page is not locked", page)
    if PageTail(k, page):
        BUG_PAGE("mlock.c:91 mlock_vma_page of a tail page", page)
    if PageCompound(k, page) and PageDoubleMap(k, page):
        BUG_PAGE("mlock.c:92 mlock_vma_page of a huge page that is mapped by PTEs", page)
    if k.tracer is not None:
        k.tracer("mlock_vma_page", (page,))
    if not TestSetPage(k, page, PG_mlocked):
        k.vm_stat[NR_MLOCK] += hpage_nr_pages(k, page)
        k.vm_stat[UNEVICTABLE_PGMLOCKED] += 1
        if isolate_lru_page(k, page) == 0:
            putback_lru_page(k, page)
    return 0


def clear_page_mlock(k: Kernel, page: u64) -> i32:
    """Take the mark off a page that nothing maps any more (mm/mlock.c:59, v4.18)."""
    if not TestClearPage(k, page, PG_mlocked):
        return 0
    k.vm_stat[NR_MLOCK] -= hpage_nr_pages(k, page)
    k.vm_stat[UNEVICTABLE_PGCLEARED] += 1
    if isolate_lru_page(k, page) == 0:
        putback_lru_page(k, page)
    elif k.pg_flags[page] & PG_unevictable:
        k.vm_stat[UNEVICTABLE_PGSTRANDED] += 1
    return 0


# ---------------------------------------------------------------- v5.18


def mlock_vma_page_counted(k: Kernel, page: u64, vma: Vma, compound: flag) -> i32:
    """Count a VMA's new mapping of a page, if the VMA is VM_LOCKED (mm/internal.h, v5.18).

    A huge page mapped by PTEs is not mlocked: `compound` says that the PMD maps it.
    """
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) != VM_LOCKED:
        return 0
    if not compound and PageCompound(k, page):
        return 0
    return mlock_page(k, page)


def munlock_vma_page_counted(k: Kernel, page: u64, vma: Vma, compound: flag) -> i32:
    """Count a VMA's mapping of a page that has gone, if the VMA is VM_LOCKED (v5.18)."""
    if vma.vm_flags & (VM_LOCKED | VM_SPECIAL) != VM_LOCKED:
        return 0
    if not compound and PageCompound(k, page):
        return 0
    return munlock_page(k, page)


def page_mlock_count(k: Kernel, page: u64) -> i32:
    """How many VMAs lock the page, as far as is known; 0 unless it is unevictable."""
    page = compound_head(k, page)
    if k.pg_flags[page] & (PG_lru | PG_unevictable) != PG_lru | PG_unevictable:
        return 0
    return k.pg_lru_prev[page]


def mlock_page(k: Kernel, page: u64) -> i32:
    """Count one more VMA that locks the page (mlock_page(), __mlock_page(), mm/mlock.c, v5.18).

    The page must have a reference; the batch that the kernel delays this in is none here.
    """
    if not TestSetPage(k, page, PG_mlocked):
        k.vm_stat[NR_MLOCK] += hpage_nr_pages(k, page)
        k.vm_stat[UNEVICTABLE_PGMLOCKED] += 1
    get_page(k, page)
    k.lru_lock.lock()
    # Off the LRU there is no place for a count. Whoever puts it back makes it one.
    if TestClearPage(k, page, PG_lru):
        _mlock_on_lru(k, page, mem_cgroup_page_lruvec(k, page))
        SetPage(k, page, PG_lru)
    k.lru_lock.unlock()
    return put_page(k, page)


def _mlock_on_lru(k: Kernel, page: u64, lruvec: LruVec) -> i32:
    unevictable: flag = k.pg_flags[page] & PG_unevictable != 0
    if page_evictable(k, page):
        # Another CPU has munlocked it in between.
        if unevictable:
            _rescue(k, page, lruvec)
        return 0
    if unevictable:
        if k.pg_flags[page] & PG_mlocked:
            k.pg_lru_prev[page] += 1
        return 0
    del_page_from_lru_list(k, page, lruvec, page_lru(k, page))
    ClearPage(k, page, PG_active)
    SetPage(k, page, PG_unevictable)
    add_page_to_lru_list(k, page, lruvec, LRU_UNEVICTABLE)
    k.pg_lru_prev[page] = 1 if k.pg_flags[page] & PG_mlocked else 0
    k.vm_stat[UNEVICTABLE_PGCULLED] += 1
    return 0


def munlock_page(k: Kernel, page: u64) -> i32:
    """Count one VMA less; without any, the page is evictable again (mm/mlock.c, v5.18)."""
    get_page(k, page)
    k.lru_lock.lock()
    isolated: flag = TestClearPage(k, page, PG_lru)
    if not (isolated and _still_locked(k, page)):
        _munlock_last(k, page, isolated)
    if isolated:
        SetPage(k, page, PG_lru)
    k.lru_lock.unlock()
    return put_page(k, page)


def _still_locked(k: Kernel, page: u64) -> flag:
    """Drop one from the count; whether others remain. A page without a count has none."""
    if not k.pg_flags[page] & PG_unevictable:
        return False
    if k.pg_lru_prev[page]:
        k.pg_lru_prev[page] -= 1
    return k.pg_lru_prev[page] != 0


def _munlock_last(k: Kernel, page: u64, isolated: flag) -> i32:
    """Clear PG_mlocked, as nobody is known to want it, and rescue the page from its list."""
    unevictable: flag = k.pg_flags[page] & PG_unevictable != 0
    if TestClearPage(k, page, PG_mlocked):
        k.vm_stat[NR_MLOCK] -= hpage_nr_pages(k, page)
        if isolated or not unevictable:
            k.vm_stat[UNEVICTABLE_PGMUNLOCKED] += 1
        else:
            k.vm_stat[UNEVICTABLE_PGSTRANDED] += 1
    # To be looked at only after PG_mlocked is cleared: see _lru_add() of rmap.mm.lru.
    if isolated and unevictable and page_evictable(k, page):
        _rescue(k, page, mem_cgroup_page_lruvec(k, page))
    return 0


def _rescue(k: Kernel, page: u64, lruvec: LruVec) -> i32:
    """Move a page from the unevictable list to where it belongs."""
    del_page_from_lru_list(k, page, lruvec, LRU_UNEVICTABLE)
    ClearPage(k, page, PG_unevictable)
    add_page_to_lru_list(k, page, lruvec, page_lru(k, page))
    k.vm_stat[UNEVICTABLE_PGRESCUED] += 1
    return 0

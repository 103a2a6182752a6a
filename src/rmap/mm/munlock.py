# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Taking PG_mlocked off one page (the lower half of mm/mlock.c, v4.18), as COW and munlock do.

Locks: the page lock is held; k.lru_lock is taken and dropped, then whatever the walk of
try_to_munlock() takes. No page-table lock may be held.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        NR_MLOCK,
        UNEVICTABLE_PGMUNLOCKED,
        UNEVICTABLE_PGSTRANDED,
        PG_isolated,
        PG_lru,
        PG_mlocked,
        PG_unevictable,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.lru import putback_lru_page
    from rmap.mm.mm_inline import del_page_from_lru_list, mem_cgroup_page_lruvec, page_lru
    from rmap.mm.mm_types import Kernel
    from rmap.mm.page import (
        ClearPage,
        PageFlag,
        PageLocked,
        PageMlocked,
        PageTail,
        SetPage,
        TestClearPage,
        get_page,
        hpage_nr_pages,
        page_mapcount,
    )
    from rmap.mm.unmap import try_to_munlock
    from rmap.scalar import flag, i32, i64, u64


def munlock_vma_page(k: Kernel, page: u64) -> i64:
    """Take the mark off a locked page, unless another VM_LOCKED VMA maps it.

    mm/mlock.c:176 (v4.18). Returns how many pages beyond this one that was for: the rest of a huge
    page. If the page cannot be isolated, whoever has it will see whether it is evictable.
    """
    if not PageLocked(k, page):
        BUG_PAGE("mlock.c:182 munlock_vma_page: the page is not locked", page)
    if PageTail(k, page):
        BUG_PAGE("mlock.c:184 munlock_vma_page of a tail page", page)
    k.lru_lock.lock()
    if not TestClearPage(k, page, PG_mlocked):
        k.lru_lock.unlock()
        return 0
    nr_pages: i64 = hpage_nr_pages(k, page)
    k.vm_stat[NR_MLOCK] -= nr_pages
    isolated: flag = munlock_isolate_lru_page(k, page, True)
    k.lru_lock.unlock()
    if k.tracer is not None:
        k.tracer("munlock_vma_page", (page, isolated))
    if isolated:
        munlock_isolated_page(k, page)
    elif PageFlag(k, page, PG_unevictable):
        k.vm_stat[UNEVICTABLE_PGSTRANDED] += 1
    else:
        k.vm_stat[UNEVICTABLE_PGMUNLOCKED] += 1
    return nr_pages - 1


def munlock_isolate_lru_page(k: Kernel, page: u64, getpage: flag) -> flag:
    """Take a page off its list, with a reference if `getpage`; whether it was on one.

    mm/mlock.c:105 (v4.18). k.lru_lock is held.
    """
    k.lru_lock.assert_held()
    if not PageFlag(k, page, PG_lru):
        return False
    if getpage:
        get_page(k, page)
    ClearPage(k, page, PG_lru)
    SetPage(k, page, PG_isolated)
    del_page_from_lru_list(k, page, mem_cgroup_page_lruvec(k, page), page_lru(k, page))
    return True


def munlock_isolated_page(k: Kernel, page: u64) -> i32:
    """Look whether anybody still wants an isolated page locked, and put it back.

    mm/mlock.c:128 (v4.18). The walk is spared if the one mapping can only be our own.
    """
    if page_mapcount(k, page) > 1:
        try_to_munlock(k, page)
    if not PageMlocked(k, page):
        k.vm_stat[UNEVICTABLE_PGMUNLOCKED] += 1
    return putback_lru_page(k, page)

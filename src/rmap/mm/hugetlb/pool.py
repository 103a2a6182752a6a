# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Pools of huge pages: how they grow and shrink, what is promised of them (mm/hugetlb.c, v4.18).

Locks: `Kernel.hugetlb_lock` is taken by whatever looks at a pool, inside any other lock but those
of reservation maps, which are never held together with it. It is dropped where memory is
allocated, and what was seen before is looked at again then.

Free pages have no reference. Nothing of these pages is charged to a memcg, counted in the
statistics of the node, or on an LRU list. There is one node, and no subpool limits a file.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        ENOMEM,
        GFP_HIGHUSER,
        GFP_NOWAIT,
        HPAGE_PMD_ORDER,
        HPAGE_PUD_ORDER,
        PAGE_SHIFT,
        PG_anon_exclusive,
        PG_dirty,
        PG_head,
        PG_huge,
        PG_hwpoison,
        PG_private,
        PG_referenced,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.mm_types import Hstate, Kernel, Mm, Vma
    from rmap.mm.page import (
        ClearPage,
        PageFlag,
        PageHuge,
        SetPage,
        TestClearPage,
        compound_head,
        compound_order,
        get_page_unless_zero,
        page_count,
        page_mapcount,
        put_page_testzero,
        set_page_mapping,
    )
    from rmap.mm.page_alloc import alloc_pages, free_compound_page
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- sizes


def huge_page_size(h: Hstate) -> u64:
    """Bytes of a page."""
    one: u64 = 1
    return one << (h.order + PAGE_SHIFT)


def huge_page_shift(h: Hstate) -> i32:
    """log2 of that."""
    return h.order + PAGE_SHIFT


def pages_per_huge_page(h: Hstate) -> u64:
    """Small pages of a page."""
    one: u64 = 1
    return one << h.order


def hstate_is_gigantic(h: Hstate) -> flag:
    """Whether the buddy system has no pages of that size: then none is made when it is needed."""
    return h.order > HPAGE_PMD_ORDER


def page_hstate(k: Kernel, page: u64) -> Hstate:
    """The pool that a huge page is of, by its size. Raises `KernelBug` for any other page."""
    head: u64 = compound_head(k, page)
    if not k.pg_flags[head] & PG_huge:
        BUG_PAGE("hugetlb.h:397 page_hstate of a page that is not huge", page)
    return size_to_hstate(k, compound_order(k, head))


def size_to_hstate(k: Kernel, order: i32) -> Hstate:
    """The pool of pages of 2**`order` small ones."""
    if order == HPAGE_PMD_ORDER:
        return k.hstates[0]
    if order != HPAGE_PUD_ORDER:
        BUG("hugetlb.c size_to_hstate: no huge pages have that size")
    return k.hstates[1]


def hstate_vma(vma: Vma) -> Hstate:
    """The pool that a hugetlb VMA has its pages from."""
    return vma.vm_file.f_mapping.hstate


def vma_hugecache_offset(h: Hstate, vma: Vma, address: u64) -> u64:
    """Offset in huge pages of an address of a hugetlb VMA in its file."""
    return ((address - vma.vm_start) >> huge_page_shift(h)) + (vma.vm_pgoff >> h.order)


def persistent_huge_pages(h: Hstate) -> i64:
    """What a pool has but for surplus pages."""
    return h.nr_huge_pages - h.surplus_huge_pages


def available_huge_pages(h: Hstate) -> i64:
    """Free pages that nobody was promised."""
    return h.free_huge_pages - h.resv_huge_pages


def hugetlb_count_add(mm: Mm, pages: i64) -> i32:
    """Count small pages that an address space has of huge ones, which rss does not."""
    mm.hugetlb_usage += pages
    return 0


# ---------------------------------------------------------------- in and out of a pool


def enqueue_huge_page(k: Kernel, h: Hstate, page: u64) -> i32:
    """Put a page without references on the free list. hugetlb_lock is held."""
    k.hugetlb_lock.assert_held()
    h.hugepage_activelist.pop(page, None)
    h.hugepage_freelist.insert(0, page)
    h.free_huge_pages += 1
    return 0


def dequeue_huge_page(k: Kernel, h: Hstate) -> u64:
    """Take the first free page that is not broken, with a reference; 0 if there is none.

    dequeue_huge_page_node_exact(). hugetlb_lock is held.
    """
    k.hugetlb_lock.assert_held()
    i: i64
    page: u64
    for i in range(len(h.hugepage_freelist)):
        page = h.hugepage_freelist[i]
        if k.pg_flags[page] & PG_hwpoison:
            continue
        del h.hugepage_freelist[i]
        h.hugepage_activelist[page] = True
        k.pg_refcount[page] = 1
        h.free_huge_pages -= 1
        return page
    return 0


def prep_new_huge_page(k: Kernel, h: Hstate, page: u64) -> i32:
    """Make a compound page that was just allocated one of a pool, still with its reference."""
    SetPage(k, page, PG_huge)
    k.hugetlb_lock.lock()
    h.nr_huge_pages += 1
    k.hugetlb_lock.unlock()
    return 0


def alloc_fresh_huge_page(k: Kernel, h: Hstate) -> u64:
    """Allocate a page for a pool, with a reference; 0 without memory. No lock may be held."""
    if k.inject is not None and k.inject.should_fail("hugetlb_page"):
        return 0
    # Gigantic pages are looked for among what is free: nothing is moved out of their way.
    gfp: u64 = GFP_NOWAIT if hstate_is_gigantic(h) else GFP_HIGHUSER
    page: u64 = alloc_pages(k, gfp, h.order)
    if page:
        prep_new_huge_page(k, h, page)
    return page


def update_and_free_page(k: Kernel, h: Hstate, page: u64) -> i32:
    """Give a page of a pool, without references and off its lists, back to the allocator.

    hugetlb_lock is held.
    """
    k.hugetlb_lock.assert_held()
    h.nr_huge_pages -= 1
    flags: u64 = PG_huge | PG_uptodate | PG_dirty | PG_referenced | PG_private
    k.pg_flags[page] &= ~flags
    if k.tracer is not None:
        k.tracer("update_and_free_page", (page,))
    return free_compound_page(k, page)


def free_pool_huge_page(k: Kernel, h: Hstate, acct_surplus: flag) -> flag:
    """Give a free page back; one that is counted as surplus if `acct_surplus`. Whether one was.

    hugetlb_lock is held.
    """
    if acct_surplus and not h.surplus_huge_pages:
        return False
    if not len(h.hugepage_freelist):
        return False
    page: u64 = h.hugepage_freelist.pop(0)
    h.free_huge_pages -= 1
    if acct_surplus:
        h.surplus_huge_pages -= 1
    update_and_free_page(k, h, page)
    return True


def free_huge_page(k: Kernel, page: u64) -> i32:
    """What put_page() does with the head of a huge page whose references are gone.

    Takes hugetlb_lock. The page goes back to its pool, with its reservation if it was allocated
    on one and nobody came to use it; or to the allocator, if the pool has too many.
    """
    h: Hstate = page_hstate(k, page)
    set_page_mapping(k, page, 0)
    if page_count(k, page):
        BUG_PAGE("hugetlb.c:1259 free_huge_page: the page has references", page)
    if page_mapcount(k, page):
        BUG_PAGE("hugetlb.c:1260 free_huge_page: the page is mapped", page)
    restore_reserve: flag = TestClearPage(k, page, PG_private)
    ClearPage(k, page, PG_anon_exclusive)
    if k.tracer is not None:
        k.tracer("free_huge_page", (page, restore_reserve))
    k.hugetlb_lock.lock()
    ClearPage(k, page + 1, PG_private)
    if restore_reserve:
        h.resv_huge_pages += 1
    if PageFlag(k, page + 2, PG_private):
        ClearPage(k, page + 2, PG_private)
        h.hugepage_activelist.pop(page, None)
        update_and_free_page(k, h, page)
    elif h.surplus_huge_pages:
        # Also one that brings a promise back: whoever has that may have to make do without.
        if restore_reserve:
            h.broken_promises += 1
        h.hugepage_activelist.pop(page, None)
        update_and_free_page(k, h, page)
        h.surplus_huge_pages -= 1
    else:
        enqueue_huge_page(k, h, page)
    k.hugetlb_lock.unlock()
    return 0


def put_huge_page(k: Kernel, page: u64) -> i32:
    """put_page() of the head of a huge page, for modules below the one that has put_page()."""
    if put_page_testzero(k, page):
        free_huge_page(k, page)
    return 0


# ---------------------------------------------------------------- beyond the pool's size


def alloc_surplus_huge_page(k: Kernel, h: Hstate) -> u64:
    """Allocate a page beyond the pool's size, if it may have more of these; 0 otherwise."""
    if hstate_is_gigantic(h):
        return 0
    k.hugetlb_lock.lock()
    full: flag = h.surplus_huge_pages >= h.nr_overcommit_huge_pages
    k.hugetlb_lock.unlock()
    if full:
        return 0
    page: u64 = alloc_fresh_huge_page(k, h)
    if not page:
        return 0
    k.hugetlb_lock.lock()
    full = h.surplus_huge_pages >= h.nr_overcommit_huge_pages
    if full:
        # Somebody else was faster: freed as what it is, one page too many.
        SetPage(k, page + 2, PG_private)
    else:
        h.surplus_huge_pages += 1
    k.hugetlb_lock.unlock()
    if full:
        put_huge_page(k, page)
        return 0
    return page


def alloc_migrate_huge_page(k: Kernel, h: Hstate) -> u64:
    """Allocate a page for another's contents, to be freed when it is not needed any more."""
    if hstate_is_gigantic(h):
        return 0
    page: u64 = alloc_fresh_huge_page(k, h)
    if page:
        SetPage(k, page + 2, PG_private)
    return page


def alloc_huge_page_nodemask(k: Kernel, h: Hstate) -> u64:
    """A page to migrate to: a free one that nobody was promised, else a temporary one; or 0.

    alloc_huge_page_node() is the same on one node.
    """
    page: u64 = 0
    k.hugetlb_lock.lock()
    if available_huge_pages(h) > 0:
        page = dequeue_huge_page(k, h)
    k.hugetlb_lock.unlock()
    if page:
        return page
    return alloc_migrate_huge_page(k, h)


# ---------------------------------------------------------------- promises


def hugetlb_acct_memory(k: Kernel, h: Hstate, delta: i64) -> i32:
    """Promise `delta` more pages (or fewer, if it is negative); 0 or -ENOMEM.

    A promise is kept whoever else takes pages, so the pages must be there: they are made if the
    pool may grow. Takes hugetlb_lock.
    """
    error: i32 = 0
    k.hugetlb_lock.lock()
    if delta > 0:
        error = gather_surplus_pages(k, h, delta)
        if not error and delta > h.free_huge_pages:
            return_unused_surplus_pages(k, h, delta)
            error = -ENOMEM
    elif delta < 0:
        return_unused_surplus_pages(k, h, -delta)
    k.hugetlb_lock.unlock()
    return error


def gather_surplus_pages(k: Kernel, h: Hstate, delta: i64) -> i32:
    """Promise `delta` pages, allocating what is missing; 0 or -ENOMEM.

    hugetlb_lock is held, and dropped in between.
    """
    k.hugetlb_lock.assert_held()
    surplus: list = []
    needed: i64 = h.resv_huge_pages + delta - h.free_huge_pages
    alloc_ok: flag = True
    page: u64
    while needed > len(surplus) and alloc_ok:
        k.hugetlb_lock.unlock()
        while len(surplus) < needed and alloc_ok:
            page = alloc_surplus_huge_page(k, h)
            if page:
                surplus.append(page)
            else:
                alloc_ok = False
        k.hugetlb_lock.lock()
        # Others may have promised, taken or given back pages meanwhile.
        needed = h.resv_huge_pages + delta - h.free_huge_pages
    error: i32 = -ENOMEM if needed > len(surplus) else 0
    if not error:
        h.resv_huge_pages += delta
    for page in surplus:
        if not error and needed > 0:
            needed -= 1
            if not put_page_testzero(k, page):
                BUG_PAGE("hugetlb.c:1817 gather_surplus_pages: the page is in use", page)
            enqueue_huge_page(k, h, page)
        else:
            k.hugetlb_lock.unlock()
            put_huge_page(k, page)
            k.hugetlb_lock.lock()
    return error


def return_unused_surplus_pages(k: Kernel, h: Hstate, unused: i64) -> i32:
    """Take a promise back, and free surplus pages that were kept for it. hugetlb_lock is held."""
    k.hugetlb_lock.assert_held()
    nr_pages: i64 = 0
    if not hstate_is_gigantic(h):
        nr_pages = min(unused, h.surplus_huge_pages)
    while nr_pages > 0:
        nr_pages -= 1
        # Page by page, so that nobody who gets the lock in between finds a promise without one.
        h.resv_huge_pages -= 1
        unused -= 1
        if not free_pool_huge_page(k, h, True):
            break
    h.resv_huge_pages -= unused
    return 0


# ---------------------------------------------------------------- the size of a pool


def set_max_huge_pages(k: Kernel, h: Hstate, count: i64) -> i64:
    """Let a pool have `count` pages (a write to nr_hugepages); returns how many it has then.

    It does not shrink below what is in use and what is promised; what is too much becomes
    surplus, and goes when it is freed. Takes hugetlb_lock.
    """
    page: u64
    k.hugetlb_lock.lock()
    while h.surplus_huge_pages and count > persistent_huge_pages(h):
        h.surplus_huge_pages -= 1
    while count > persistent_huge_pages(h):
        k.hugetlb_lock.unlock()
        page = alloc_fresh_huge_page(k, h)
        if page:
            put_huge_page(k, page)
        k.hugetlb_lock.lock()
        if not page:
            break
    if count < persistent_huge_pages(h):
        _shrink(k, h, count)
    h.max_huge_pages = persistent_huge_pages(h)
    k.hugetlb_lock.unlock()
    return h.max_huge_pages


def _shrink(k: Kernel, h: Hstate, count: i64) -> i32:
    """Free pages as far as they are not needed, and call the rest surplus."""
    least: i64 = h.resv_huge_pages + h.nr_huge_pages - h.free_huge_pages
    if least < count:
        least = count
    while least < persistent_huge_pages(h):
        if not free_pool_huge_page(k, h, False):
            break
    while count < persistent_huge_pages(h) and h.surplus_huge_pages < h.nr_huge_pages:
        h.surplus_huge_pages += 1
    return 0


def dissolve_free_huge_page(k: Kernel, page: u64) -> i32:
    """Take the free huge page that `page` is part of out of its pool; 0 or -EBUSY.

    Not if it is in use or was promised to somebody. That its memory is broken, which the head was
    marked with, is said of `page` itself afterwards. Takes hugetlb_lock.
    """
    error: i32 = -EBUSY
    head: u64 = compound_head(k, page)
    h: Hstate
    k.hugetlb_lock.lock()
    if PageHuge(k, page) and not page_count(k, page):
        h = page_hstate(k, page)
        if available_huge_pages(h) > 0:
            if PageFlag(k, head, PG_hwpoison) and page != head:
                SetPage(k, page, PG_hwpoison)
                ClearPage(k, head, PG_hwpoison)
            h.hugepage_freelist.remove(head)
            h.free_huge_pages -= 1
            h.max_huge_pages -= 1
            update_and_free_page(k, h, head)
            error = 0
    k.hugetlb_lock.unlock()
    return error


# ---------------------------------------------------------------- taking pages out of use


def set_page_huge_active(k: Kernel, page: u64) -> i32:
    """Say of the head of a huge page that it is in use, and may be isolated."""
    return SetPage(k, page + 1, PG_private)


def page_huge_active(k: Kernel, page: u64) -> flag:
    """Whether the page is part of a huge page in use."""
    if not k.pg_flags[page] & PG_head or not k.pg_flags[page] & PG_huge:
        return False
    return PageFlag(k, page + 1, PG_private)


def isolate_huge_page(k: Kernel, page: u64, pages: list) -> flag:
    """Take a page in use off its list, with a reference, and append it; whether it was there."""
    isolated: flag = False
    k.hugetlb_lock.lock()
    if page_huge_active(k, page) and get_page_unless_zero(k, page):
        isolated = True
        ClearPage(k, page + 1, PG_private)
        page_hstate(k, page).hugepage_activelist.pop(page, None)
        pages.append(page)
    k.hugetlb_lock.unlock()
    return isolated


def putback_active_hugepage(k: Kernel, page: u64) -> i32:
    """Put a page that was isolated back, and drop the reference."""
    k.hugetlb_lock.lock()
    SetPage(k, page + 1, PG_private)
    page_hstate(k, page).hugepage_activelist[page] = True
    k.hugetlb_lock.unlock()
    return put_huge_page(k, page)


def move_hugetlb_state(k: Kernel, old: u64, new: u64) -> i32:
    """After a migration: the page of the pool is the one that is in use, the other goes.

    mm/hugetlb.c (v4.18). If the new page was made for this, the pool has one page too many, which
    is to be the old one.
    """
    if PageFlag(k, new + 2, PG_private):
        SetPage(k, old + 2, PG_private)
        ClearPage(k, new + 2, PG_private)
    return 0

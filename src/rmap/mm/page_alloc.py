# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The page allocator: free pages, watermarks, what a freed page is checked for (mm/page_alloc.c).

Free pages are a stack through their lru words, so that the page freed last is taken first, as
from the per-CPU lists; pages that were never used lie beyond ``Kernel.free_next``. There is one
zone, and no buddy system: a run of pages comes from the unused region, or is looked for.

No lock is taken here. What is reclaimed on behalf of an allocation takes the locks that
`rmap.mm.vmscan` names.
"""

from __future__ import annotations

import math

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        GFP_ATOMIC,
        GFP_KERNEL,
        MAX_RECLAIM_RETRIES,
        NR_FREE_PAGES,
        PAGE_FLAGS_CHECK_AT_FREE,
        PAGE_MAPPING_FLAGS,
        PGALLOC,
        PGFREE,
        SWAP_CLUSTER_MAX,
        PG_buddy,
        PG_head,
        PG_hwpoison,
        PG_tail,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.mm_types import Kernel
    from rmap.mm.page import compound_order, set_page_mapping
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.bits import FIELD_REFCOUNT, OP_ALLOC, OP_FREE
    from rmap.sync.core import sched, sched_point


def setup_per_zone_wmarks(k: Kernel) -> i32:
    """Set the watermarks as the kernel does at boot, by the size of memory.

    mm/page_alloc.c: init_per_zone_wmark_min(), setup_per_zone_wmarks() (v4.18). A new `Kernel` has
    none, and gives out every page it has.
    """
    kbytes: i64 = math.isqrt(k.nr_pages * 4 * 16)
    k.watermark_min = min(max(kbytes, 128), 65536) // 4
    k.watermark_low = k.watermark_min + k.watermark_min // 4
    k.watermark_high = k.watermark_min + k.watermark_min // 2
    return 0


# ---------------------------------------------------------------- taking


def alloc_page(k: Kernel, gfp: u64) -> u64:
    """Take a page: zeroed, one reference, no mapping. 0 if there is none, or by injection.

    >>> from rmap.mm.mm_types import Kernel
    >>> from rmap.mm.profile import profile
    >>> k = Kernel(2, profile("4.18"))
    >>> alloc_page(k, 1), alloc_page(k, 1), alloc_page(k, 1)
    (1, 2, 0)
    """
    if k.inject is not None and k.inject.should_fail("page"):
        return 0
    if k.nr_free <= k.watermark_low and not _may_take(k, gfp, 1):
        return 0
    page: u64 = _rmqueue(k)
    while k.pg_flags[page] & PG_hwpoison:
        # A broken page that was freed is met here, and never given out again.
        if k.nr_free <= 0:
            return 0
        page = _rmqueue(k)
    if sched.exploring:
        sched_point(OP_ALLOC, FIELD_REFCOUNT, page)
    _prep_new_page(k, page)
    k.vm_stat[PGALLOC] += 1
    return page


def alloc_pages(k: Kernel, gfp: u64, order: i32) -> u64:
    """Take a compound page of 2**`order` pages, aligned; 0 if there is none, or by injection.

    `order` 0 is `alloc_page`. There is no compaction: free pages that are scattered do not help.
    """
    if order == 0:
        return alloc_page(k, gfp)
    if k.inject is not None and k.inject.should_fail("page"):
        return 0
    one: u64 = 1
    count: i64 = one << order
    if k.nr_free - count < k.watermark_low and not _may_take(k, gfp, count):
        return 0
    head: u64 = _take_run(k, one << order)
    if not head:
        return 0
    k.nr_free -= count
    k.vm_stat[NR_FREE_PAGES] -= count
    if sched.exploring:
        sched_point(OP_ALLOC, FIELD_REFCOUNT, head)
    page: u64
    for page in range(head, head + (one << order)):
        _prep_new_page(k, page)
    _prep_compound_page(k, head, order)
    k.vm_stat[PGALLOC] += count
    return head


def _may_take(k: Kernel, gfp: u64, count: i64) -> flag:
    """Whether `count` pages may be taken with few left, after reclaim if `gfp` permits any.

    mm/page_alloc.c: __alloc_pages_slowpath() (v4.18). kswapd is woken, which here means that the
    machine runs it before its next operation; reclaim's own allocations go down to the last page.
    """
    k.kswapd_woken = True
    floor: i64 = 0 if k.in_reclaim else k.watermark_min
    if gfp & GFP_ATOMIC:
        floor -= floor // 2
    if k.nr_free - count >= floor:
        return True
    if k.in_reclaim or not gfp & GFP_KERNEL:
        return False
    failures: i32 = 0
    while failures < MAX_RECLAIM_RETRIES:
        if k.reclaimer.try_to_free_pages(k, None, SWAP_CLUSTER_MAX) > 0:
            failures = 0
        else:
            failures += 1
        if k.nr_free - count >= floor:
            return True
    return False


def _rmqueue(k: Kernel) -> u64:
    """Unlink the page that comes next; there is one."""
    page: u64 = k.free_head
    if page:
        k.free_head = k.pg_lru_next[page]
    else:
        page = k.free_next
        k.free_next += 1
    k.nr_free -= 1
    k.vm_stat[NR_FREE_PAGES] -= 1
    return page


def _prep_new_page(k: Kernel, page: u64) -> i32:
    """Make a free page a page in use. One that something was stored in while free is a bug."""
    if k.pg_mapcount[page] != -1 or k.pg_mapping[page] or k.pg_refcount[page]:
        bad_page(k, page)
    k.pg_flags[page] = 0
    k.pg_refcount[page] = 1
    k.pg_private[page] = 0
    if k.content:
        k.content.pop(page, None)
    return 0


def _prep_compound_page(k: Kernel, head: u64, order: i32) -> i32:
    """Make a run of pages one compound page (prep_compound_page())."""
    one: u64 = 1
    page: u64
    k.pg_flags[head] |= PG_head
    for page in range(head + 1, head + (one << order)):
        k.pg_flags[page] |= PG_tail
        k.pg_refcount[page] = 0
        k.pg_lru_next[page] = head
    k.pg_private[head + 1] = order
    k.pg_lru_prev[head + 1] = 0
    return 0


def _take_run(k: Kernel, count: u64) -> u64:
    """Unlink `count` aligned pages in a row; 0 if there are none. They are still counted free."""
    start: u64 = (k.free_next + count - 1) // count * count
    fits: flag = start + count - 1 <= k.nr_pages
    stop: u64 = start if fits else k.nr_pages + 1
    while k.free_next < stop:
        _push_free(k, k.free_next)
        k.free_next += 1
    if fits:
        k.free_next = start + count
        return start
    i: u64
    start = count
    while start + count - 1 <= k.nr_pages:
        i = 0
        while i < count and k.pg_flags[start + i] & (PG_buddy | PG_hwpoison) == PG_buddy:
            i += 1
        if i == count:
            _unlink_run(k, start, count)
            return start
        start += count
    return 0


def _unlink_run(k: Kernel, start: u64, count: u64) -> i32:
    """Take the pages of a run out of the stack of free pages."""
    last: u64 = 0
    page: u64 = k.free_head
    while page:
        if page < start or page >= start + count:
            last = page
        elif last:
            k.pg_lru_next[last] = k.pg_lru_next[page]
        else:
            k.free_head = k.pg_lru_next[page]
        page = k.pg_lru_next[page]
    return 0


# ---------------------------------------------------------------- giving back


def free_unref_page(k: Kernel, page: u64) -> i32:
    """Give back a page that has no reference left. One in a wrong state is a `KernelBug`.

    Clears the mapping if it is tagged: this is where a page stops being anonymous, however long it
    has been unmapped (free_pages_prepare(), mm/page_alloc.c, v4.18). The caller has taken it off
    the LRU and uncharged it.
    """
    if sched.exploring:
        sched_point(OP_FREE, FIELD_REFCOUNT, page)
    if k.pg_mapping[page] & PAGE_MAPPING_FLAGS:
        set_page_mapping(k, page, 0)
    if (
        k.pg_mapcount[page] != -1
        or k.pg_mapping[page]
        or k.pg_refcount[page]
        or k.pg_memcg[page]
        or k.pg_flags[page] & (PAGE_FLAGS_CHECK_AT_FREE | PG_buddy | PG_head | PG_tail)
    ):
        bad_page(k, page)
    if k.tracer is not None:
        k.tracer("free_unref_page", (page,))
    if k.content:
        k.content.pop(page, None)
    _push_free(k, page)
    k.nr_free += 1
    k.vm_stat[NR_FREE_PAGES] += 1
    k.vm_stat[PGFREE] += 1
    return 0


def _push_free(k: Kernel, page: u64) -> i32:
    """Put a page on the stack of free pages; that its memory is broken is not forgotten."""
    k.pg_flags[page] = (k.pg_flags[page] & PG_hwpoison) | PG_buddy
    k.pg_lru_next[page] = k.free_head
    k.free_head = page
    return 0


def free_compound_page(k: Kernel, head: u64) -> i32:
    """Give back a compound page, given its head: it falls apart into its pages."""
    one: u64 = 1
    count: u64 = one << compound_order(k, head)
    page: u64
    if k.pg_lru_prev[head + 1]:
        BUG_PAGE("bad page: a compound page is freed that is mapped as a whole", head)
    k.pg_flags[head] &= ~PG_head
    for page in range(head + 1, head + count):
        k.pg_flags[page] &= PG_hwpoison
        k.pg_mapping[page] = 0
    for page in range(head, head + count):
        free_unref_page(k, page)
    return 0


def bad_page(k: Kernel, page: u64) -> i32:
    """Say what is wrong with a page that is freed or taken. Raises `KernelBug`."""
    what: str
    if k.pg_mapcount[page] != -1:
        what = "nonzero mapcount"
    elif k.pg_mapping[page]:
        what = "non-NULL mapping"
    elif k.pg_refcount[page]:
        what = "nonzero _refcount"
    elif k.pg_memcg[page]:
        what = "still charged to a cgroup"
    elif k.pg_flags[page] & PG_buddy:
        what = "free already"
    else:
        what = f"flags set that must not be: {k.pg_flags[page] & ~PG_buddy:#x}"
    return BUG_PAGE("bad page: " + what, page)

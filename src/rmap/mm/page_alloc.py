# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""The page allocator: free pages, watermarks, what a freed page is checked for (mm/page_alloc.c).

Free pages are a stack through their lru words, so that the page freed last is taken first, as
from the per-CPU lists; pages that were never used lie from ``Kernel.free_next`` to
``Kernel.free_last``. There is one zone, and no buddy system: a run of pages comes from the unused
region, or is looked for. For the size of a huge page nothing has to be looked for: each block of
512 pages knows how many of its pages are on the stack, and the blocks that have all of them there
are on a list.

No lock is taken here. What is reclaimed or moved on behalf of an allocation takes the locks that
`rmap.mm.vmscan` and `rmap.mm.migrate.migrate` name.
"""

from __future__ import annotations

import math
from typing import Any

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        FREE_BLOCK_LISTED,
        GFP_ATOMIC,
        GFP_KERNEL,
        HPAGE_PMD_NR,
        HPAGE_PMD_ORDER,
        MAX_RECLAIM_RETRIES,
        NR_FREE_PAGES,
        PAGE_ALLOC_COSTLY_ORDER,
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
        # A broken page that was freed is met here, and never given out again, were it mended.
        k.lost_pages.add(page)
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

    `order` 0 is `alloc_page`. If free pages are there but scattered, and `gfp` permits waiting,
    pages in use are moved, and others reclaimed, to make a run.
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
    if not head and gfp & GFP_KERNEL and not k.in_reclaim:
        head = _make_run(k, gfp, order)
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


def _make_run(k: Kernel, gfp: u64, order: i32) -> u64:
    """Compact and reclaim until there is a run; 0 if that leads nowhere.

    __alloc_pages_slowpath() (v4.18) for more than one page: compaction first, without waiting for
    anything; a large run is not worth more than one attempt at reclaim.
    """
    one: u64 = 1
    count: i64 = one << order
    wanted: i64 = count if count > SWAP_CLUSTER_MAX else SWAP_CLUSTER_MAX
    head: u64 = 0
    if k.reclaimer.compact(k, order, False):
        head = _take_if_enough(k, gfp, order)
    failures: i32 = 0
    freed: i64
    while not head:
        freed = k.reclaimer.try_to_free_pages(k, None, wanted)
        head = _take_if_enough(k, gfp, order)
        if not head and k.reclaimer.compact(k, order, True):
            head = _take_if_enough(k, gfp, order)
        failures += 1
        if order > PAGE_ALLOC_COSTLY_ORDER or not freed or failures == MAX_RECLAIM_RETRIES:
            break
    return head


def _take_if_enough(k: Kernel, gfp: u64, order: i32) -> u64:
    """Unlink a run if that leaves what the watermark asks for; 0 if not, or if there is none."""
    one: u64 = 1
    count: i64 = one << order
    if k.nr_free - count < k.watermark_min:
        return 0
    return _take_run(k, one << order)


def _rmqueue(k: Kernel) -> u64:
    """Unlink the page that comes next; there is one."""
    page: u64 = k.free_head
    below: u64
    if page:
        below = k.pg_lru_next[page]
        k.free_head = below
        if below:
            k.pg_lru_prev[below] = 0
        k.block_free[page >> HPAGE_PMD_ORDER] -= 1
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
    start: u64 = _unused_run(k, count)
    stop: u64 = start if start else k.free_last + 1
    while k.free_next < stop:
        _push_free(k, k.free_next)
        k.free_next += 1
    if start:
        k.free_next = start + count
        return start
    if count == HPAGE_PMD_NR:
        return _take_block(k)
    start = count
    while start + count - 1 <= k.nr_pages:
        if _all_free(k, start, count):
            _unlink_run(k, start, count)
            return start
        start += count
    return 0


def _unused_run(k: Kernel, count: u64) -> u64:
    """The first aligned run among the pages that were never used, none of them broken; 0 if none.

    It is left there.
    """
    start: u64 = (k.free_next + count - 1) // count * count
    page: u64
    broken: flag
    while start + count - 1 <= k.free_last:
        broken = False
        if k.num_poisoned_pages:
            for page in range(start, start + count):
                if k.pg_flags[page] & PG_hwpoison:
                    broken = True
        if not broken:
            return start
        start += count
    return 0


def run_available(k: Kernel, order: i32) -> flag:
    """Whether a run of 2**`order` pages is free; takes nothing."""
    one: u64 = 1
    count: u64 = one << order
    start: u64
    if _unused_run(k, count):
        return True
    if count == HPAGE_PMD_NR:
        for block in k.free_blocks:
            start = block
            if _all_free(k, start << HPAGE_PMD_ORDER, HPAGE_PMD_NR):
                return True
        return False
    start = count
    while start + count - 1 <= k.nr_pages:
        if _all_free(k, start, count):
            return True
        start += count
    return False


def _take_block(k: Kernel) -> u64:
    """Unlink a whole block, the one that became free last; 0 if there is none."""
    block: u64
    start: u64
    while k.free_blocks:
        block = k.free_blocks.pop()
        k.block_free[block] &= ~FREE_BLOCK_LISTED
        start = block << HPAGE_PMD_ORDER
        if _all_free(k, start, HPAGE_PMD_NR):
            _unlink_run(k, start, HPAGE_PMD_NR)
            return start
    return 0


def _all_free(k: Kernel, start: u64, count: u64) -> flag:
    """Whether all pages of an aligned run are on the stack, and none of them is broken."""
    last: u64 = (start + count - 1) >> HPAGE_PMD_ORDER
    least: u64 = count if count < HPAGE_PMD_NR else HPAGE_PMD_NR
    block: u64
    page: u64
    for block in range(start >> HPAGE_PMD_ORDER, last + 1):
        if k.block_free[block] & ~FREE_BLOCK_LISTED < least:
            return False
    for page in range(start, start + count):
        if k.pg_flags[page] & (PG_buddy | PG_hwpoison) != PG_buddy:
            return False
    return True


def _unlink_run(k: Kernel, start: u64, count: u64) -> i32:
    """Take the pages of a run out of the stack of free pages."""
    page: u64
    for page in range(start, start + count):
        _unlink_free(k, page)
    return 0


def _unlink_free(k: Kernel, page: u64) -> i32:
    """Take a page out of the stack of free pages, wherever in it it is."""
    above: u64 = k.pg_lru_prev[page]
    below: u64 = k.pg_lru_next[page]
    if above:
        k.pg_lru_next[above] = below
    else:
        k.free_head = below
    if below:
        k.pg_lru_prev[below] = above
    k.block_free[page >> HPAGE_PMD_ORDER] -= 1
    return 0


def isolate_free_page(k: Kernel, page: u64) -> flag:
    """Take this page, if it is free and whole; whether it was taken (__isolate_free_page()).

    What was never used can be taken from its end only. The page is then like one that was
    allocated: with one reference, and to be given back.
    """
    if k.pg_flags[page] & PG_hwpoison:
        return False
    if k.pg_flags[page] & PG_buddy:
        _unlink_free(k, page)
    elif page == k.free_last and page >= k.free_next:
        k.free_last -= 1
    else:
        return False
    k.nr_free -= 1
    k.vm_stat[NR_FREE_PAGES] -= 1
    if sched.exploring:
        sched_point(OP_ALLOC, FIELD_REFCOUNT, page)
    _prep_new_page(k, page)
    k.vm_stat[PGALLOC] += 1
    return True


def link_free_pages(k: Kernel, pages: Any) -> i32:
    """Make an array of frame numbers the stack, topmost first, of a machine that has none."""
    page: u64
    k.free_head = 0
    k.free_next = k.nr_pages + 1
    k.free_last = k.nr_pages
    for page in reversed(pages):
        _push_free(k, page)
    k.nr_free = len(pages)
    k.vm_stat[NR_FREE_PAGES] = len(pages)
    return 0


def is_free_page(k: Kernel, page: u64) -> flag:
    """Whether the page is the allocator's: on the stack of free pages, or never used yet."""
    if k.pg_refcount[page]:
        return False
    return k.pg_flags[page] & PG_buddy != 0 or k.free_next <= page <= k.free_last


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
    below: u64 = k.free_head
    k.pg_flags[page] = (k.pg_flags[page] & PG_hwpoison) | PG_buddy
    k.pg_lru_next[page] = below
    k.pg_lru_prev[page] = 0
    if below:
        k.pg_lru_prev[below] = page
    k.free_head = page
    block: u64 = page >> HPAGE_PMD_ORDER
    count: u64 = k.block_free[block]
    count += 1
    if count == HPAGE_PMD_NR:
        # Listed once, however often a page of it is taken and given back before it is asked for.
        count |= FREE_BLOCK_LISTED
        k.free_blocks.append(block)
    k.block_free[block] = count
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

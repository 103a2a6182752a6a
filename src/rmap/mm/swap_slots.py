# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Swap areas and the reference counts of their slots (mm/swapfile.c, v4.18).

A slot has a byte in the area's ``swap_map``: how many page tables (and forks of the entry) refer
to it, and `SWAP_HAS_CACHE` while a page of the swap cache stands for it. What shmem keeps is the
one value `SWAP_MAP_SHMEM`. Counts above `SWAP_MAP_MAX` carry into continuation pages, each with a
further digit for 4096 slots; a page that is not there yet is asked for without waiting.

Each change is made under the area's lock (si->lock), inside which nothing is taken; callers may
hold page-table locks. There are no per-CPU caches of slots (mm/swap_slots.c): a freed slot is free.
"""

from __future__ import annotations

from functools import partial

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        COUNT_CONTINUED,
        EEXIST,
        EINVAL,
        ENOENT,
        ENOMEM,
        EPERM,
        GFP_ATOMIC,
        MAX_SWAPFILES,
        PAGE_SHIFT,
        SWAP_CONT_MAX,
        SWAP_HAS_CACHE,
        SWAP_MAP_BAD,
        SWAP_MAP_MAX,
        SWAP_MAP_SHMEM,
        SWAPPER_SPACE,
    )
    from rmap.mm.bug import BUG, WARN
    from rmap.mm.lru import put_page
    from rmap.mm.memcg import mem_cgroup_uncharge_swap
    from rmap.mm.mm_types import AddressSpace, Kernel, SwapInfo
    from rmap.mm.page import page_private
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.pgtable import non_swap_entry, swp_entry, swp_offset, swp_type
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.bits import FIELD_SWAP_MAP, OP_READ, OP_RMW
    from rmap.sync.core import sched, sched_point, wait_until


# ---------------------------------------------------------------- areas


def swapon(k: Kernel, pages: i64, prio: i32 = -1) -> i32:
    """Add a swap area of `pages` slots, of which the first is its header; returns its type.

    A negative `prio` puts it behind all others, as without SWAP_FLAG_PREFER. -EPERM beyond 27
    areas.

    >>> from rmap.mm.mm_types import Kernel
    >>> from rmap.mm.profile import profile
    >>> k = Kernel(16, profile("4.18"))
    >>> swapon(k, 64), get_nr_swap_pages(k)
    (0, 63)
    """
    kind: i32 = 0
    area: SwapInfo
    least: i32 = -1
    for area in k.swap_areas:
        if area.pages and area.prio < least:
            least = area.prio
    while kind < len(k.swap_areas):
        area = k.swap_areas[kind]
        if area.pages == 0:
            break
        kind += 1
    if kind >= MAX_SWAPFILES:
        return -EPERM
    area = SwapInfo(kind, pages)
    handle: u64 = kind
    area.address_space = AddressSpace(SWAPPER_SPACE + handle, f"swap{kind}")
    area.swap_map[0] = SWAP_MAP_BAD
    area.prio = prio if prio >= 0 else least - 1
    k.swap_lock.lock()
    if kind == len(k.swap_areas):
        k.swap_areas.append(area)
    else:
        k.swap_areas[kind] = area
    k.swap_lock.unlock()
    return kind


def total_swap_pages(k: Kernel) -> i64:
    """Slots of all areas that are on."""
    area: SwapInfo
    total: i64 = 0
    for area in k.swap_areas:
        if area.pages and area.writeok:
            total += area.pages - 1
    return total


def get_nr_swap_pages(k: Kernel) -> i64:
    """Free slots of all areas that are on."""
    area: SwapInfo
    total: i64 = 0
    for area in k.swap_areas:
        if area.pages and area.writeok:
            total += area.pages - 1 - area.inuse
    return total


def get_swap_device(k: Kernel, entry: u64) -> SwapInfo | None:
    """The area of an entry, kept until `put_swap_device`; ``None`` if it is gone (v5.3).

    Without quirk ``swap_device_pinned`` nothing keeps it, and an area that is gone is returned:
    what looks for a slot in that is a bug.
    """
    area: SwapInfo = k.swap_areas[swp_type(entry)]
    if not k.profile.swap_device_pinned:
        return area
    if sched.exploring:
        sched_point(OP_RMW, FIELD_SWAP_MAP, entry)
    area = k.swap_areas[swp_type(entry)]
    if area.pages == 0 or area.dying:
        return None
    area.users += 1
    return area


def put_swap_device(k: Kernel, area: SwapInfo) -> i32:
    """Let go of a swap area."""
    if k.profile.swap_device_pinned:
        area.users -= 1
    return 0


def _unused(area: SwapInfo) -> bool:
    return area.users == 0


def wait_for_swap_users(k: Kernel, area: SwapInfo) -> i32:
    """Let nobody use an area any more, and wait for who does (swapoff, v5.3)."""
    if k.profile.swap_device_pinned:
        area.dying = True
        while area.users:
            wait_until(FIELD_SWAP_MAP, swp_entry(area.type, 0), partial(_unused, area))
    return 0


def vm_swap_full(k: Kernel) -> flag:
    """Whether less than half of swap is free, so that slots of pages in memory are worth freeing.

    include/linux/swap.h (v4.18). Without any swap it is not full.
    """
    return get_nr_swap_pages(k) * 2 < total_swap_pages(k)


def swap_info(k: Kernel, entry: u64) -> SwapInfo:
    """The area of an entry, or ``None`` for an entry of no slot that is in use.

    _swap_info_get(), mm/swapfile.c:1094 (v4.18), where such an entry is reported as well.
    """
    area: SwapInfo = None
    offset: i64 = swp_offset(entry)
    if entry == 0:
        return None
    if swp_type(entry) < len(k.swap_areas):
        area = k.swap_areas[swp_type(entry)]
    if area is None or area.pages == 0:
        WARN(k.warnings, "swapfile.c:1094 swap_info_get: an entry of no swap area")
        return None
    if offset >= area.pages:
        WARN(k.warnings, "swapfile.c:1112 swap_info_get: an entry beyond its swap area")
        return None
    if not area.swap_map[offset]:
        WARN(k.warnings, "swapfile.c:1109 swap_info_get: an entry of an unused slot")
        return None
    return area


# ---------------------------------------------------------------- counts


def page_swapcount(k: Kernel, page: u64) -> i32:
    """How many entries refer to the slot of a page in the swap cache, as its byte says.

    mm/swapfile.c:1357 (v4.18): with a continuation the number is wrong, but more than one.
    """
    entry: u64 = page_private(k, page)
    area: SwapInfo = swap_info(k, entry)
    if area is None:
        return 0
    area.lock.lock()
    count: i32 = area.swap_map[swp_offset(entry)] & ~SWAP_HAS_CACHE
    area.lock.unlock()
    return count


def swap_count(k: Kernel, entry: u64) -> i64:
    """How many entries refer to a slot, continuations counted; 1 for one that shmem keeps."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_SWAP_MAP, entry)
    area: SwapInfo = k.swap_areas[swp_type(entry)]
    offset: i64 = swp_offset(entry)
    if area.pages == 0:
        BUG("swapfile.c:1405 the slots of a swap area are counted that is gone")
    count: i64 = area.swap_map[offset] & ~SWAP_HAS_CACHE
    if count == SWAP_MAP_SHMEM:
        return 1
    carry: i64 = area.continuation.get(offset, 0)
    return (count & ~COUNT_CONTINUED) + carry * (SWAP_MAP_MAX + 1)


def swap_duplicate(k: Kernel, entry: u64) -> i32:
    """Count one more entry that refers to a slot (mm/swapfile.c:3385, v4.18).

    0, or -ENOMEM if there is no memory for the count, -EINVAL for what is no entry of a slot,
    -ENOENT for a slot that is not in use.
    """
    if k.inject is not None and k.inject.should_fail("swap_duplicate"):
        return -ENOMEM
    error: i32 = _swap_duplicate(k, entry, 1)
    while error == -ENOMEM:
        if add_swap_count_continuation(k, entry, GFP_ATOMIC):
            return -ENOMEM
        error = _swap_duplicate(k, entry, 1)
    return error


def swap_shmem_alloc(k: Kernel, entry: u64) -> i32:
    """Make a new slot one that shmem keeps (mm/swapfile.c:3370)."""
    return _swap_duplicate(k, entry, SWAP_MAP_SHMEM)


def swapcache_prepare(k: Kernel, entry: u64) -> i32:
    """Note that a page of the swap cache is about to stand for a slot (mm/swapfile.c:3398).

    -EEXIST if one does, -ENOENT if no entry refers to the slot any more.
    """
    return _swap_duplicate(k, entry, SWAP_HAS_CACHE)


def _swap_duplicate(k: Kernel, entry: u64, usage: i32) -> i32:
    """__swap_duplicate(), mm/swapfile.c:3297 (v4.18)."""
    if non_swap_entry(entry) or swp_type(entry) >= len(k.swap_areas):
        return -EINVAL
    area: SwapInfo = k.swap_areas[swp_type(entry)]
    offset: i64 = swp_offset(entry)
    if offset >= area.pages:
        return -EINVAL
    area.lock.lock()
    count: i32 = area.swap_map[offset] & ~SWAP_HAS_CACHE
    has_cache: i32 = area.swap_map[offset] & SWAP_HAS_CACHE
    error: i32 = 0
    if count == SWAP_MAP_BAD:
        error = -ENOENT
    elif usage == SWAP_HAS_CACHE:
        if has_cache:
            error = -EEXIST
        elif count:
            has_cache = SWAP_HAS_CACHE
        else:
            error = -ENOENT
    elif not count and not has_cache:
        error = -ENOENT
    elif count & ~COUNT_CONTINUED < SWAP_MAP_MAX:
        count += usage
    elif count & ~COUNT_CONTINUED > SWAP_MAP_MAX:
        error = -EINVAL
    elif _carry(area, offset, 1):
        count = COUNT_CONTINUED
    else:
        error = -ENOMEM
    if error == 0:
        area.swap_map[offset] = count | has_cache
    area.lock.unlock()
    return error


def swap_entry_put(k: Kernel, area: SwapInfo, entry: u64, usage: i32) -> i32:
    """Drop one use of a slot: 1, or `SWAP_HAS_CACHE`. Returns what its byte is then.

    __swap_entry_free() and swap_entry_free(), mm/swapfile.c:1134 (v4.18). At 0 the slot is free,
    its content gone.
    """
    offset: i64 = swp_offset(entry)
    area.lock.lock()
    count: i32 = area.swap_map[offset] & ~SWAP_HAS_CACHE
    has_cache: i32 = area.swap_map[offset] & SWAP_HAS_CACHE
    if usage == SWAP_HAS_CACHE:
        if not has_cache:
            BUG("swapfile.c:1146 a slot loses a page of the swap cache that it does not have")
        has_cache = 0
    elif count == SWAP_MAP_SHMEM:
        count = 0
    elif count & ~COUNT_CONTINUED <= SWAP_MAP_MAX:
        if count == COUNT_CONTINUED:
            count = SWAP_MAP_MAX | (COUNT_CONTINUED if _carry(area, offset, -1) else 0)
        elif count == 0:
            BUG("swapfile.c:1170 a slot loses an entry that it does not have")
        else:
            count -= 1
    left: i32 = count | has_cache
    area.swap_map[offset] = left
    if left == 0:
        _swap_range_free(k, area, entry, offset)
    area.lock.unlock()
    return left


def _swap_range_free(k: Kernel, area: SwapInfo, entry: u64, offset: i64) -> i32:
    """Give a slot back (mm/swapfile.c:704, v4.18)."""
    mem_cgroup_uncharge_swap(k, entry)
    area.inuse -= 1
    if offset < area.lowest:
        area.lowest = offset
    area.slots.pop(offset, None)
    return 0


def swap_free(k: Kernel, entry: u64) -> i32:
    """Count one entry less that refers to a slot (mm/swapfile.c:1222)."""
    area: SwapInfo = swap_info(k, entry)
    if area is not None:
        swap_entry_put(k, area, entry, 1)
    return 0


def put_swap_page(k: Kernel, page: u64, entry: u64) -> i32:
    """Note that no page of the swap cache stands for a slot any more (mm/swapfile.c:1298)."""
    area: SwapInfo = swap_info(k, entry)
    if area is not None:
        swap_entry_put(k, area, entry, SWAP_HAS_CACHE)
    return 0


# ---------------------------------------------------------------- counts above SWAP_MAP_MAX


def add_swap_count_continuation(k: Kernel, entry: u64, gfp: u64) -> i32:
    """Get the page for the next digit of a slot's count; 0 or -ENOMEM (mm/swapfile.c:3450).

    Called after -ENOMEM, when the byte was full; meanwhile another CPU may have brought the page.
    """
    page: u64 = alloc_page(k, gfp)
    area: SwapInfo = swap_info(k, entry)
    result: i32 = 0
    used: flag = False
    offset: i64 = swp_offset(entry)
    if area is not None:
        area.lock.lock()
        if area.swap_map[offset] & ~(SWAP_HAS_CACHE | COUNT_CONTINUED) == SWAP_MAP_MAX:
            if not page:
                result = -ENOMEM
            elif not _has_digits(area, offset, area.continuation.get(offset, 0) + 1):
                pages: list = area.continuation_pages.setdefault(offset >> PAGE_SHIFT, [])
                pages.append(page)
                used = True
        area.lock.unlock()
    if page and not used:
        put_page(k, page)
    return result


def _has_digits(area: SwapInfo, offset: i64, carry: i64) -> flag:
    """Whether the continuation pages of a slot have as many digits as a carry needs."""
    digits: i64 = len(area.continuation_pages.get(offset >> PAGE_SHIFT, ()))
    while carry > 0 and digits > 0:
        carry //= SWAP_CONT_MAX + 1
        digits -= 1
    return carry == 0


def _carry(area: SwapInfo, offset: i64, step: i32) -> flag:
    """Carry out of a slot's byte, or borrow (swap_count_continued(), mm/swapfile.c:3556).

    Of a carry: whether there is a digit for it. Of a borrow: whether any carry is left.
    """
    carry: i64 = area.continuation.get(offset, 0) + step
    if step > 0 and not _has_digits(area, offset, carry):
        return False
    if carry < 0:
        BUG("swapfile.c:3610 a count is borrowed from a slot without continuation")
    if carry:
        area.continuation[offset] = carry
    else:
        area.continuation.pop(offset)
    return carry > 0


def free_swap_count_continuations(k: Kernel, area: SwapInfo) -> i32:
    """Give back the continuation pages of an area that is switched off (mm/swapfile.c:3663)."""
    pages: list
    page: u64
    for pages in area.continuation_pages.values():
        for page in pages:
            put_page(k, page)
    area.continuation_pages.clear()
    return 0

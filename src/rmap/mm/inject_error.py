# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Memory errors on purpose: MADV_HWPOISON, MADV_SOFT_OFFLINE (mm/madvise.c, v4.18).

Locks: none is held by the caller. Getting a page takes mm->mmap_sem for read, and gives it back
before the page is said to be broken.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import EFAULT, MADV_SOFT_OFFLINE, MF_COUNT_INCREASED, PAGE_SIZE
    from rmap.mm.gup import get_user_pages
    from rmap.mm.lru import put_page
    from rmap.mm.memory_failure import memory_failure
    from rmap.mm.mm_types import Kernel, Mm
    from rmap.mm.page import PageHWPoison, compound_head, compound_order
    from rmap.mm.soft_offline import soft_offline_page
    from rmap.scalar import i32, u64


def madvise_inject_error(k: Kernel, mm: Mm, start: u64, end: u64, behavior: i32) -> i32:
    """Let the memory of every page of a range break, or be about to; 0 or a negative errno.

    Pages that are missing are faulted in first. A huge page is done with after one of its pages:
    the next one looked at is the one behind it.
    """
    one: u64 = PAGE_SIZE
    error: i32
    page: u64
    order: i32
    pages: list
    while start < end:
        pages = get_user_pages(k, mm, start, 1, False)
        if not pages:
            return -EFAULT
        page = pages[0]
        order = compound_order(k, compound_head(k, page))
        if PageHWPoison(k, page):
            put_page(k, page)
        else:
            if behavior == MADV_SOFT_OFFLINE:
                error = soft_offline_page(k, page, MF_COUNT_INCREASED)
            else:
                error = memory_failure(k, page, MF_COUNT_INCREASED)
            if error:
                return error
        start += one << order
    return 0

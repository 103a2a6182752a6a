# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Huge pages that are to be split when memory is short (mm/huge_memory.c, v4.18).

A huge page of which some parts are not mapped any more holds memory that nobody uses. To split it
at once would be wrong, as often the rest goes soon as well, and would need locks that whoever
unmaps cannot take. So it is noted here, for the shrinker of `rmap.mm.huge.split_page`.

k.split_queue_lock is taken, the innermost lock of all.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import SPLIT_QUEUED, THP_DEFERRED_SPLIT_PAGE
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.mm_types import Kernel
    from rmap.mm.page import PageTransHuge
    from rmap.scalar import flag, i32, u64


def deferred_split_huge_page(k: Kernel, page: u64) -> i32:
    """Queue a huge page, given its head, to be split when memory is short."""
    if not PageTransHuge(k, page):
        BUG_PAGE("huge_memory.c deferred_split_huge_page of a page that is not huge", page)
    k.split_queue_lock.lock()
    if page not in k.deferred_split_queue:
        k.deferred_split_queue[page] = SPLIT_QUEUED
        k.vm_stat[THP_DEFERRED_SPLIT_PAGE] += 1
    k.split_queue_lock.unlock()
    if k.tracer is not None:
        k.tracer("deferred_split_huge_page", (page,))
    return 0


def is_split_deferred(k: Kernel, page: u64) -> flag:
    """Whether a huge page is on the queue, or in the hands of whoever works on it."""
    return page in k.deferred_split_queue


def forget_deferred_split(k: Kernel, page: u64) -> i32:
    """free_transhuge_page(): a huge page that is being freed leaves the queue, if it is there."""
    k.split_queue_lock.lock()
    k.deferred_split_queue.pop(page, None)
    k.split_queue_lock.unlock()
    return 0

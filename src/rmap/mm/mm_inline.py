# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""LRU lists as lists: which one a page belongs on, linking, sizes (include/linux/mm_inline.h).

A list runs from the newest page (`head`) to the oldest (`tail`) through the pages' lru words. All
of these functions want k.lru_lock held.

Since v5.18 (quirk ``mlock_counts``) the unevictable list is a number only: its pages are not
linked, and the word that would link them counts the VMAs that lock the page.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        LRU_ACTIVE,
        LRU_INACTIVE_ANON,
        LRU_INACTIVE_FILE,
        LRU_UNEVICTABLE,
        NR_INACTIVE_ANON,
        PG_active,
        PG_swapbacked,
        PG_unevictable,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.mm_types import Kernel, LruVec, MemCgroup
    from rmap.mm.page import hpage_nr_pages
    from rmap.scalar import flag, i32, i64, u32, u64


def page_is_file_cache(k: Kernel, page: u64) -> flag:
    """Whether the page lives on the file lists: a file's, or anonymous and lazily freed."""
    return k.pg_flags[page] & PG_swapbacked == 0


def page_lru_base_type(k: Kernel, page: u64) -> i32:
    """The inactive list of the page's kind."""
    if k.pg_flags[page] & PG_swapbacked:
        return LRU_INACTIVE_ANON
    return LRU_INACTIVE_FILE


def page_lru(k: Kernel, page: u64) -> i32:
    """The list that the page's flags say it belongs on."""
    flags: u32 = k.pg_flags[page]
    if flags & PG_unevictable:
        return LRU_UNEVICTABLE
    lru: i32 = LRU_INACTIVE_ANON if flags & PG_swapbacked else LRU_INACTIVE_FILE
    return lru + LRU_ACTIVE if flags & PG_active else lru


def page_off_lru(k: Kernel, page: u64) -> i32:
    """The list that the page was on, whose flag it loses, as it is to be freed."""
    lru: i32 = page_lru(k, page)
    flags: u32 = k.pg_flags[page]
    if flags & (PG_unevictable | PG_active) == PG_unevictable | PG_active:
        BUG_PAGE("mm_inline.h:93 a page is active and unevictable", page)
    if flags & (PG_unevictable | PG_active):
        k.pg_flags[page] = flags & ~(PG_unevictable | PG_active)
    return lru


def mem_cgroup_page_lruvec(k: Kernel, page: u64) -> LruVec:
    """The lists of the page's cgroup."""
    if not k.pg_memcg[page]:
        return k.root_lruvec
    memcg: MemCgroup = k.memcgs[k.pg_memcg[page]]
    return memcg.lruvec


def update_lru_size(k: Kernel, lruvec: LruVec, lru: i32, nr_pages: i64) -> i32:
    """Count pages that come to a list, or with a negative number leave it."""
    lruvec.size[lru] += nr_pages
    k.vm_stat[NR_INACTIVE_ANON + lru] += nr_pages
    return 0


def add_page_to_lru_list(k: Kernel, page: u64, lruvec: LruVec, lru: i32) -> i32:
    """Link a page in as the newest of a list."""
    update_lru_size(k, lruvec, lru, hpage_nr_pages(k, page))
    if lru == LRU_UNEVICTABLE and k.profile.mlock_counts:
        return 0
    newest: u64 = lruvec.head[lru]
    k.pg_lru_next[page] = newest
    k.pg_lru_prev[page] = 0
    if newest:
        k.pg_lru_prev[newest] = page
    else:
        lruvec.tail[lru] = page
    lruvec.head[lru] = page
    return 0


def add_page_to_lru_list_tail(k: Kernel, page: u64, lruvec: LruVec, lru: i32) -> i32:
    """Link a page in as the oldest of a list, the first that reclaim will look at."""
    update_lru_size(k, lruvec, lru, hpage_nr_pages(k, page))
    if lru == LRU_UNEVICTABLE and k.profile.mlock_counts:
        return 0
    oldest: u64 = lruvec.tail[lru]
    k.pg_lru_next[page] = 0
    k.pg_lru_prev[page] = oldest
    if oldest:
        k.pg_lru_next[oldest] = page
    else:
        lruvec.head[lru] = page
    lruvec.tail[lru] = page
    return 0


def del_page_from_lru_list(k: Kernel, page: u64, lruvec: LruVec, lru: i32) -> i32:
    """Unlink a page from a list. A page that is not linked there is a bug."""
    nr_pages: i64 = hpage_nr_pages(k, page)
    update_lru_size(k, lruvec, lru, -nr_pages)
    if lru == LRU_UNEVICTABLE and k.profile.mlock_counts:
        return 0
    newer: u64 = k.pg_lru_prev[page]
    older: u64 = k.pg_lru_next[page]
    if (k.pg_lru_next[newer] if newer else lruvec.head[lru]) != page:
        BUG_PAGE("list_debug.c:51 list_del corruption: the page is on another LRU list", page)
    if newer:
        k.pg_lru_next[newer] = older
    else:
        lruvec.head[lru] = older
    if older:
        k.pg_lru_prev[older] = newer
    else:
        lruvec.tail[lru] = newer
    return 0


def update_page_reclaim_stat(lruvec: LruVec, file: i32, rotated: i32) -> i32:
    """Note that reclaim's balance should know of a page looked at, and perhaps found in use."""
    lruvec.recent_scanned[file] += 1
    lruvec.recent_rotated[file] += rotated
    return 0

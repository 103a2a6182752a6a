# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Getting back the part of a huge page that lies beyond the end of its file (mm/shmem.c, v4.18).

Locks: the page lock, which is only tried for, and what splitting takes. The list of files is
`Kernel.shmem_shrinklist`; a file comes on it when its end comes to lie in a huge page.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import HPAGE_PMD_NR, SHRINK_STOP
    from rmap.mm.huge.split_page import split_huge_page
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.mmap import fput
    from rmap.mm.page import PageHead, trylock_page, unlock_page
    from rmap.mm.page_cache import find_get_page
    from rmap.mm.vma_adjust import get_file
    from rmap.scalar import flag, i64, u64


def shmem_unused_huge_count(k: Kernel) -> i64:
    """How many files may have something to give back."""
    return len(k.shmem_shrinklist)


def shmem_unused_huge_shrink(k: Kernel, nr_to_scan: i64) -> i64:
    """Split the huge pages in which so many files end; returns how many were, or SHRINK_STOP.

    What lies beyond the end leaves the page cache with the split. A file whose page cannot be
    split now stays on the list.
    """
    if not k.shmem_shrinklist:
        return SHRINK_STOP
    batch: list = k.shmem_shrinklist[:nr_to_scan]
    del k.shmem_shrinklist[:nr_to_scan]
    kept: list = []
    mapping: AddressSpace
    split: i64 = 0
    for mapping in batch:
        get_file(mapping.host)
        if mapping.size_pages % HPAGE_PMD_NR == 0:
            mapping.shrinkable = False
        elif _split_end(k, mapping):
            split += 1
        if mapping.shrinkable:
            kept.append(mapping)
    k.shmem_shrinklist.extend(kept)
    for mapping in batch:
        fput(k, mapping.host)
    return split


def _split_end(k: Kernel, mapping: AddressSpace) -> flag:
    """Split the huge page in which a file ends; whether it was. If there is none, forget it."""
    end: u64 = mapping.size_pages
    page: u64 = find_get_page(k, mapping, end - end % HPAGE_PMD_NR)
    done: flag = False
    if page and PageHead(k, page):
        if trylock_page(k, page):
            done = split_huge_page(k, page) == 0
            unlock_page(k, page)
        mapping.shrinkable = not done
    else:
        mapping.shrinkable = False
    if page:
        put_page(k, page)
    return done

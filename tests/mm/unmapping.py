# SPDX-License-Identifier: GPL-2.0-only
"""What reclaim does around try_to_unmap(): isolating, locking, swap cache; for the tests of it."""

from __future__ import annotations

import numpy as np
from handmade import (
    CLEAN,
    family,
    poke,
    world,
)

from rmap.mm.bits import (
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    MM_SWAPENTS,
    NR_MLOCK,
    TTU_IGNORE_ACCESS,
    PG_mlocked,
)
from rmap.mm.lru import isolate_lru_page, putback_lru_page
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import (
    lock_page,
    page_private,
    unlock_page,
)
from rmap.mm.pgtable import pfn_pte
from rmap.mm.swap import add_to_swap
from rmap.mm.swap_slots import swapon
from rmap.mm.unmap import (
    try_to_unmap,
)


def swap_world() -> Kernel:
    """A kernel with swap."""
    kernel = world(512)
    swapon(kernel, 64, -1)
    return kernel


def check_mlocked(k: Kernel) -> None:
    """NR_MLOCK is how many pages have PG_mlocked."""
    flags = np.asarray(k.pg_flags)
    assert k.vm_stat[NR_MLOCK] == np.count_nonzero(flags & PG_mlocked)


def isolate(k: Kernel, page: int) -> None:
    """Take a page off the LRU, with a reference, as reclaim does; and lock it."""
    assert isolate_lru_page(k, page) == 0
    lock_page(k, page)


def release(k: Kernel, page: int) -> None:
    """Unlock it, and put it back, which drops the reference."""
    unlock_page(k, page)
    putback_lru_page(k, page)


def unmap(k: Kernel, page: int, flags: int = TTU_IGNORE_ACCESS) -> bool:
    """try_to_unmap() as reclaim calls it; the page stays isolated and is unlocked."""
    isolate(k, page)
    result = try_to_unmap(k, page, flags)
    unlock_page(k, page)
    return bool(result)


def in_swap_cache(k: Kernel, page: int) -> int:
    """Put a page into the swap cache; returns its entry."""
    lock_page(k, page)
    assert add_to_swap(k, page)
    unlock_page(k, page)
    return int(page_private(k, page))


def rss(vma: Vma) -> tuple[int, int, int, int]:
    """Anonymous pages, swap entries, pages of files, of shared memory."""
    stat = vma.vm_mm.rss_stat
    members = (MM_ANONPAGES, MM_SWAPENTS, MM_FILEPAGES, MM_SHMEMPAGES)
    anon, swap, file, shmem = (stat[member] for member in members)
    return anon, swap, file, shmem


def shared_by(k: Kernel, children: int = 1) -> tuple[int, list[Vma], int]:
    """A page in the swap cache that a family maps, old everywhere; and its swap entry."""
    page, vmas = family(k, children)
    for vma in vmas:
        poke(k, vma, pfn_pte(page, CLEAN))
    return page, vmas, in_swap_cache(k, page)

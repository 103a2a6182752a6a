# SPDX-License-Identifier: GPL-2.0-only
"""A machine under memory pressure: processes that keep bytes, swap, and reclaim that works.

On top of `spaces.Space`: each process runs on a CPU, through whose TLB it reads and writes. What a
process stored is kept beside it, so that a test can ask whether it is all still there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from kernels import make_kernel
from spaces import Space

from rmap.mm.access import read_bytes, write_bytes
from rmap.mm.bits import (
    HPAGE_PMD_NR,
    PAGE_SHIFT,
    SWAP_HAS_CACHE,
    SWAP_MAP_BAD,
    SWAP_MAP_SHMEM,
    PG_head,
    PG_lru,
    PG_unevictable,
)
from rmap.mm.fork import dup_mm, mm_alloc
from rmap.mm.memory import init_zero_pfn
from rmap.mm.mm_inline import page_lru
from rmap.mm.mm_types import Kernel, MemCgroup, Mm, SwapInfo, Task
from rmap.mm.page import hpage_nr_pages, lock_page, unlock_page
from rmap.mm.pgtable import is_swap_pte, pte_present, pte_to_swp_entry, swp_offset
from rmap.mm.swap_slots import swapon
from rmap.mm.tlb import make_cpus
from rmap.mm.vmscan import VmscanReclaimer, reclaim
from rmap.sync.core import scheduler

OTHER = Task("other", 2, None, 1)


def machine(pages: int = 256, swap: int = 256, cpus: int = 2, **quirks: bool) -> Kernel:
    """A kernel that can reclaim, with a swap area of so many slots (and its header)."""
    k = make_kernel(pages, **quirks)
    make_cpus(k, cpus)
    assert init_zero_pfn(k)
    if swap:
        assert swapon(k, swap + 1) == 0
    k.reclaimer = VmscanReclaimer()
    return k


class Process(Space):
    """An address space that runs, with what it believes to have stored."""

    def __init__(
        self, k: Kernel, cpu: int = 0, memcg: MemCgroup | None = None, mm: Mm | None = None
    ) -> None:
        mm = mm_alloc(k, "p", memcg or k.memcgs[0]) if mm is None else mm
        super().__init__(k, mm)
        self.task = Task("p", 1, self.mm, cpu)
        self.stored: dict[int, bytes] = {}

    def store(self, page: int, data: bytes) -> None:
        """Write to the start of a page."""
        write_bytes(self.k, self.task, self.at(page), data)
        self.stored[page] = data

    def fill(self, first: int, count: int, word: bytes = b"w") -> None:
        """Store a different word in each of some pages."""
        for page in range(first, first + count):
            self.store(page, word + str(page).encode())

    def load(self, page: int, length: int = 8) -> bytes:
        """Read the start of a page."""
        return read_bytes(self.k, self.task, self.at(page), length)

    def check(self) -> None:
        """Everything that was stored is still there."""
        for page, data in self.stored.items():
            assert self.load(page, len(data)) == data, page

    def split(self, cpu: int = 1) -> Process:
        """Fork; the child runs on another CPU."""
        mm = dup_mm(self.k, self.mm)
        assert mm is not None
        child = Process(self.k, cpu, mm=mm)
        child.stored = dict(self.stored)
        return child

    def entry(self, page: int) -> int:
        """The swap entry at a page, 0 if there is none."""
        pte = self.pte(page)
        return pte_to_swp_entry(pte) if is_swap_pte(pte) else 0

    def slot(self, page: int) -> int:
        """The byte of swap_map of the slot at a page."""
        area: SwapInfo = self.k.swap_areas[0]
        return int(area.swap_map[swp_offset(self.entry(page))])

    def swapped(self, first: int, count: int) -> int:
        """How many of some pages are swap entries."""
        return sum(is_swap_pte(self.pte(page)) for page in range(first, first + count))

    def present(self, first: int, count: int) -> int:
        """How many of some pages are mapped."""
        return sum(pte_present(self.pte(page)) for page in range(first, first + count))


@contextmanager
def elsewhere() -> Iterator[None]:
    """What is done inside is done by another task, which has locks of its own."""
    sched = scheduler()
    before = sched.current
    sched.current = OTHER
    yield
    sched.current = before


@contextmanager
def locked_elsewhere(k: Kernel, page: int) -> Iterator[None]:
    """Somebody else has the page locked meanwhile."""
    with elsewhere():
        lock_page(k, page)
    yield
    with elsewhere():
        unlock_page(k, page)


def squeeze(k: Kernel, memcg: MemCgroup | None = None, rounds: int = 4) -> int:
    """Reclaim whatever can be; returns how many pages."""
    return sum(reclaim(k, memcg, k.nr_pages).reclaimed for _ in range(rounds))


def lists_are_sound(k: Kernel) -> None:
    """Each LRU list links what its size says, each page where its flags say, and all of them."""
    on_lists = 0
    for memcg in k.memcgs:
        for lru in range(5):
            if lru == 4 and k.profile.mlock_counts:
                on_lists += memcg.lruvec.size[lru]
                continue
            page, previous, count = memcg.lruvec.head[lru], 0, 0
            while page:
                assert k.pg_lru_prev[page] == previous
                assert k.pg_flags[page] & PG_lru
                assert bool(k.pg_flags[page] & PG_unevictable) == (lru == 4)
                assert page_lru(k, page) == lru
                assert k.pg_memcg[page] == memcg.ident
                previous, count = page, count + hpage_nr_pages(k, page)
                page = k.pg_lru_next[page]
            assert memcg.lruvec.tail[lru] == previous
            assert memcg.lruvec.size[lru] == count
            on_lists += count
    flags = np.asarray(k.pg_flags)[np.asarray(k.pg_flags) & PG_lru != 0]
    huge = np.count_nonzero(flags & PG_head)
    assert on_lists == len(flags) + huge * (HPAGE_PMD_NR - 1)
    assert sum(k.vm_stat[1:6]) == on_lists


def swap_is_sound(k: Kernel, *spaces: Space) -> None:
    """Each slot counts the entries that page tables and shmem have of it, and its page."""
    expected = np.zeros(k.swap_areas[0].pages, np.int64)
    for space in spaces:
        for vma in space.mm.vmas:
            for address in range(vma.vm_start, vma.vm_end, 1 << PAGE_SHIFT):
                pte = space.pte(space.page(address))
                if is_swap_pte(pte):
                    expected[swp_offset(pte_to_swp_entry(pte))] += 1
    area: SwapInfo = k.swap_areas[0]
    for offset in range(1, area.pages):
        byte = area.swap_map[offset]
        if byte & ~SWAP_HAS_CACHE not in (SWAP_MAP_SHMEM, SWAP_MAP_BAD):
            assert byte & ~SWAP_HAS_CACHE == expected[offset], offset
        assert bool(byte & SWAP_HAS_CACHE) == bool(area.cache[offset])
        assert byte or offset not in area.slots
    assert area.inuse == sum(1 for byte in area.swap_map[1:] if byte)

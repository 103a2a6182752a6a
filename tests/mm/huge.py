# SPDX-License-Identifier: GPL-2.0-only
"""Address spaces with transparent huge pages, for the tests of what is done to them."""

from __future__ import annotations

from kernels import make_kernel
from spaces import Space

from rmap.check import check_kernel
from rmap.mm.bits import (
    HPAGE_PMD_NR,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    THP_ALWAYS,
    THP_DEFRAG_NEVER,
)
from rmap.mm.content import page_read, page_write
from rmap.mm.mm_types import Kernel
from rmap.mm.page import page_count
from rmap.mm.pgtable import pmd_offset, pmd_trans_huge, pte_pfn
from rmap.mm.tlb import make_cpus

HUGE = HPAGE_PMD_NR


def huge_kernel(pages: int = 16 * HUGE, name: str = "4.18", **quirks: bool) -> Kernel:
    """A kernel whose faults take huge pages wherever they may, but do nothing to get them."""
    k = make_kernel(pages, name, **quirks)
    make_cpus(k, 2)
    k.thp_enabled = THP_ALWAYS
    k.thp_defrag = THP_DEFRAG_NEVER
    return k


def huge_space(k: Kernel, pages: int = HUGE) -> Space:
    """A process with anonymous memory that begins at a border of 2 MiB, and is not touched yet."""
    space = Space(k)
    assert space.mmap(0, pages) == space.at(0)
    return space


def pmd_at(space: Space, page: int = 0) -> int:
    """The PMD of a page, by value; 0 if an upper table is missing."""
    slot = pmd_offset(space.k, space.mm, space.at(page))
    return int(space.k.pt[slot]) if slot else 0


def head_at(space: Space, page: int = 0) -> int:
    """The head of the huge page that a PMD maps at a page, 0 if none does."""
    pmd = pmd_at(space, page)
    return int(pte_pfn(pmd)) if pmd_trans_huge(pmd) else 0


def frame(space: Space, page: int) -> int:
    """The frame that is mapped at a page, be it by a PMD or by a PTE; 0 if none is."""
    head = head_at(space, page)
    return head + page % HUGE if head else int(space.pfn(page))


def store(space: Space, page: int, data: bytes) -> None:
    """Fault for a write, and write."""
    space.write(page)
    page_write(space.k, frame(space, page), 0, data)


def load(space: Space, page: int, length: int = 8) -> bytes:
    """What a page begins with, without zeros at its end."""
    return bytes(page_read(space.k, frame(space, page), 0, length)).rstrip(b"\0")


def counts(k: Kernel) -> tuple[int, int]:
    """Huge pages that PMDs map, and anonymous pages that anything maps."""
    return int(k.vm_stat[NR_ANON_THPS]), int(k.vm_stat[NR_ANON_MAPPED])


def rss(space: Space) -> tuple[int, ...]:
    """Pages of files, anonymous pages, swap entries, pages of shared memory."""
    return tuple(int(n) for n in space.mm.rss_stat)


def free_pages(k: Kernel) -> int:
    """Free pages, with those of the zero pages, which stay."""
    kept = (1 if k.zero_page else 0) + (HUGE if k.huge_zero_page else 0)
    return int(k.nr_free) + kept


def check_all(k: Kernel, *spaces: Space) -> None:
    """Everything is counted right; after the exit of all spaces, everything is free."""
    assert check_kernel(k, {}) == []
    assert k.warnings == []
    if spaces:
        for space in spaces:
            space.exit()
        assert check_kernel(k, {}) == []
        assert free_pages(k) == k.nr_pages
        assert k.pmd_huge_pte == {}
        assert len(k.deferred_split_queue) == 0
        if k.huge_zero_page:
            assert page_count(k, k.huge_zero_page) == 1 == k.huge_zero_refcount

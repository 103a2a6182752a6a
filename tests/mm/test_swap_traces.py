# SPDX-License-Identifier: GPL-2.0-only
"""Swap-out and swap-in step by step, by the numbers: references, slot bytes, rss, anon_vmas."""

from __future__ import annotations

from typing import Any

from pressure import (
    Process,
    lists_are_sound,
    machine,
    squeeze,
    swap_is_sound,
)

from rmap.mm.bits import (
    MADV_COLD,
    MADV_PAGEOUT,
    MM_ANONPAGES,
    MM_SWAPENTS,
    NR_ANON_MAPPED,
    NR_SWAPCACHE,
    PG_dirty,
    PG_reclaim,
)
from rmap.mm.lru import isolate_lru_page, put_page, putback_lru_page
from rmap.mm.mm_types import Kernel
from rmap.mm.page import (
    PageSwapCache,
    page_anon_vma,
    page_mapcount,
    page_private,
)
from rmap.mm.pgtable import pte_write, swp_offset, swp_type
from rmap.mm.shrink_page_list import ScanControl, shrink_page_list
from rmap.mm.swap_cache import (
    end_swap_writes,
    lookup_swap_cache,
)


def byte(k: Kernel, entry: int) -> int:
    return int(k.swap_areas[swp_type(entry)].swap_map[swp_offset(entry)])


def shared_page(k: Kernel) -> tuple[Process, Process, int]:
    """A process and its child that share a page, as after fork."""
    p = Process(k)
    p.mmap(0, 4)
    p.store(0, b"shared")
    child = p.split()
    return p, child, p.pfn(0)


def make_old(p: Process, page: int) -> None:
    """Clear the accessed bit of an entry, as aging has."""
    p.madvise(page, 1, MADV_COLD)


def test_swapping_out_a_shared_page() -> None:
    """kernel-facts of the reclaim path: references, slot byte, rss, and what is left."""
    k = machine()
    p, child, page = shared_page(k)
    anon_vma = page_anon_vma(k, page)
    make_old(p, 0)
    assert (page_mapcount(k, page), k.pg_refcount[page]) == (2, 2)
    assert isolate_lru_page(k, page) == 0
    assert k.pg_refcount[page] == 3
    seen = []

    def tracer(name: str, what: tuple[Any, ...]) -> None:
        if name == "add_to_swap":
            seen.append((k.pg_refcount[page], byte(k, what[1]), bool(k.pg_flags[page] & PG_dirty)))
        elif name == "try_to_unmap_one":
            entry = page_private(k, page)
            seen.append((page_mapcount(k, page), k.pg_refcount[page], byte(k, entry)))

    k.tracer = tracer
    mapped = k.vm_stat[NR_ANON_MAPPED]
    pages = [page]
    assert shrink_page_list(k, pages, ScanControl(1, None), 0, False) == 1
    k.tracer = None
    assert pages == []
    assert seen == [(4, 0x40, True), (1, 3, 0x41), (0, 2, 0x42)]
    assert k.vm_stat[NR_ANON_MAPPED] == mapped - 1
    assert p.slot(0) == child.slot(0) == 2
    for one in (p, child):
        assert (one.mm.rss_stat[MM_ANONPAGES], one.mm.rss_stat[MM_SWAPENTS]) == (0, 1)
    assert k.mmlist.count(p.mm) == k.mmlist.count(child.mm) == 1
    # The page is gone, and names no anon_vma any more.
    assert k.pg_refcount[page] == k.pg_mapping[page] == 0
    assert anon_vma is not None
    swap_is_sound(k, p, child)
    p.check()
    child.check()


def test_a_mapping_that_was_used_keeps_the_page_and_the_other_is_a_swap_entry_already() -> None:
    k = machine()
    p, child, page = shared_page(k)
    make_old(p, 0)

    def tracer(name: str, what: tuple[Any, ...]) -> None:
        # While the parent's is being unmapped, the child uses its own.
        if name == "try_to_unmap_one" and what[1].vm_mm is p.mm:
            child.load(0)

    isolate_lru_page(k, page)
    k.tracer = tracer
    pages = [page]
    sc = ScanControl(1, None)
    assert shrink_page_list(k, pages, sc, 0, False) == 0
    k.tracer = None
    assert pages == [page]
    assert (sc.result.unmap_fail, sc.result.activated) == (1, 1)
    assert p.slot(0) == 0x41
    assert child.pfn(0) == page
    putback_lru_page(k, page)
    # The parent finds the page in the swap cache.
    p.check()
    assert p.pfn(0) == page
    swap_is_sound(k, p, child)
    lists_are_sound(k)


def out(k: Kernel) -> tuple[Process, Process]:
    """A process and its child, whose page is in swap."""
    p, child, _ = shared_page(k)
    squeeze(k)
    assert p.slot(0) == child.slot(0) == 2
    return p, child


def test_swapping_in_for_reading() -> None:
    k = machine()
    p, child = out(k)
    mapped = k.vm_stat[NR_ANON_MAPPED]
    assert child.load(0, 6) == b"shared"
    page = child.pfn(0)
    assert p.slot(0) == 0x41
    assert not pte_write(child.pte(0))
    assert page_mapcount(k, page) == 1
    assert k.pg_refcount[page] == 2
    assert k.vm_stat[NR_ANON_MAPPED] == mapped + 1
    # Others may have the entry, so the page is named after the root, which all descend from.
    assert page_anon_vma(k, page) is p.vma(0).anon_vma
    swap_is_sound(k, p, child)


def test_swapping_in_for_writing_what_another_still_has_in_swap_copies() -> None:
    k = machine()
    p, child = out(k)
    child.store(0, b"child's")
    page = child.pfn(0)
    assert page_anon_vma(k, page) is child.vma(0).anon_vma
    assert p.slot(0) == 0x41
    cached = lookup_swap_cache(k, p.entry(0))
    assert cached not in (0, page)
    assert page_mapcount(k, cached) == 0
    put_page(k, cached)
    p.check()
    child.check()
    assert p.pfn(0) == cached
    swap_is_sound(k, p, child)


def test_swapping_in_for_writing_as_the_only_user_reuses_the_page() -> None:
    k = machine()
    p, child = out(k)
    p.exit()
    assert child.slot(0) == 1
    child.store(0, b"mine")
    page = child.pfn(0)
    assert page_anon_vma(k, page) is child.vma(0).anon_vma
    assert not PageSwapCache(k, page)
    assert k.pg_refcount[page] == 1
    assert k.swap_areas[0].inuse == 0
    child.check()


def test_a_synchronous_device_is_read_past_the_swap_cache() -> None:
    k = machine()
    k.swap_areas[0].synchronous = True
    p = Process(k)
    p.mmap(0, 4)
    p.fill(0, 4)
    assert squeeze(k) == 4
    p.check()
    assert k.vm_stat[NR_SWAPCACHE] == k.swap_areas[0].inuse == 0
    lists_are_sound(k)


def test_what_is_written_to_swap_is_what_the_page_held_when_no_cpu_could_write_any_more() -> None:
    """A stale writable translation must be flushed before the write starts."""
    k = machine()
    p = Process(k, cpu=1)
    p.mmap(0, 2)
    p.store(0, b"first")
    p.madvise(0, 1, MADV_PAGEOUT)
    assert p.slot(0) == 1
    # This CPU's translation was flushed: the store faults, and is not lost.
    p.store(0, b"second")
    squeeze(k)
    assert p.slot(0) == 1
    p.check()


def test_a_page_that_is_written_is_not_marked_for_reclaim_for_ever() -> None:
    k = machine()
    k.swap_areas[0].deferred = True
    p = Process(k)
    p.mmap(0, 2)
    p.fill(0, 2)
    assert squeeze(k) == 0
    pages = list(k.swap_areas[0].pending)
    assert all(k.pg_flags[page] & PG_reclaim for page in pages)
    assert end_swap_writes(k, k.swap_areas[0]) == 2
    assert not any(k.pg_flags[page] & PG_reclaim for page in pages)
    assert squeeze(k) == 2
    p.check()
    lists_are_sound(k)

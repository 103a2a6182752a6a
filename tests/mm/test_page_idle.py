# SPDX-License-Identifier: GPL-2.0-only
"""Idle page tracking: what is marked idle, what stops being so, and what reclaim still learns."""

from __future__ import annotations

from pressure import Process, locked_elsewhere, machine

from rmap.mm.bits import PG_idle, PG_young
from rmap.mm.filemap import file_read, file_write, make_file
from rmap.mm.page_idle import (
    page_idle_bitmap_read,
    page_idle_bitmap_write,
    page_idle_get_page,
    page_idle_mark_all,
)
from rmap.mm.page_referenced import PageReferencedArg, page_referenced
from rmap.mm.pgtable import pte_young
from rmap.mm.tlb import flush_tlb_mm


def test_a_page_is_idle_until_it_is_used() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 4)
    p.fill(0, 2)
    page, other = p.pfn(0), p.pfn(1)
    assert not page_idle_bitmap_read(k, page)
    assert page_idle_bitmap_write(k, page)
    assert not pte_young(p.pte(0))
    assert pte_young(p.pte(1))
    assert page_idle_bitmap_read(k, page)
    assert not page_idle_bitmap_read(k, other)
    # Clearing the bit flushes nothing: a CPU that still remembers the translation uses it unseen.
    p.load(0)
    assert page_idle_bitmap_read(k, page)
    flush_tlb_mm(k, p.mm)
    p.load(0)
    assert k.pg_flags[page] & PG_idle
    assert not page_idle_bitmap_read(k, page)
    assert k.pg_refcount[page] == 1


def test_reclaim_is_told_of_uses_that_tracking_has_taken() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 4)
    p.fill(0, 1)
    page = p.pfn(0)
    page_idle_bitmap_write(k, page)
    assert k.pg_flags[page] & PG_young
    assert page_referenced(k, page, False, None, PageReferencedArg()) == 1
    assert not k.pg_flags[page] & PG_young
    assert page_referenced(k, page, False, None, PageReferencedArg()) == 0
    # And to tracking it is no use what reclaim has seen: that page is not idle.
    page_idle_bitmap_write(k, page)
    flush_tlb_mm(k, p.mm)
    p.load(0)
    assert page_referenced(k, page, False, None, PageReferencedArg()) == 1
    assert not page_idle_bitmap_read(k, page)


def test_one_user_of_several_is_enough() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 4)
    p.fill(0, 1)
    child = p.split()
    page = p.pfn(0)
    page_idle_bitmap_write(k, page)
    assert page_idle_bitmap_read(k, page)
    child.load(0)
    assert not page_idle_bitmap_read(k, page)


def test_pages_of_files_are_tracked_by_use_and_by_page_table() -> None:
    k = machine()
    file = make_file(k, "f", 4, False)
    file_write(k, file, 0, b"x")
    page = file.f_mapping.i_pages[0]
    page_idle_bitmap_write(k, page)
    assert page_idle_bitmap_read(k, page)
    file_read(k, file, 0, 1)
    assert not page_idle_bitmap_read(k, page)
    p = Process(k)
    p.mmap(0, 4, shared=True, file=file)
    p.load(0)
    page_idle_bitmap_write(k, page)
    assert page_idle_bitmap_read(k, page)
    flush_tlb_mm(k, p.mm)
    p.load(0)
    # A file's page needs its lock for the walk; who has it keeps the answer what it was.
    with locked_elsewhere(k, page):
        assert page_idle_bitmap_read(k, page)
    assert not page_idle_bitmap_read(k, page)


def test_only_pages_of_the_lru_can_be_idle() -> None:
    k = machine()
    p = Process(k)
    p.mmap(0, 4)
    p.fill(0, 3)
    assert page_idle_mark_all(k) == 3
    assert not page_idle_bitmap_write(k, k.zero_page)
    for pfn in (0, k.nr_pages, k.nr_pages + 5):
        assert page_idle_get_page(k, pfn) == 0
        assert not page_idle_bitmap_read(k, pfn)
    p.exit()
    assert page_idle_mark_all(k) == 0

# SPDX-License-Identifier: GPL-2.0-only
"""Taking pages out of page tables: what is freed, when, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from faulting import ARENA, PAGE, Faulting

from rmap.mm import bits
from rmap.mm.mm_types import Kernel, Mm
from rmap.mm.mmu_notifier import MmuNotifier, mmu_notifier_register
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.pgtable import pte_lookup, pte_pfn, swp_entry, swp_entry_to_pte
from rmap.mm.tlb import set_tlb_ubc_flush_pending, tlb_entries
from rmap.mm.zap import unmap_mapping_pages, zap_page_range


def remembered(f: Faulting, page: int) -> list[int]:
    """The CPUs that may still reach a page."""
    return [cpu for cpu, _, _, pte in tlb_entries(f.k) if pte_pfn(pte) == page]


class Watch(MmuNotifier):
    """Notes at each flush what references the pages have, and who can still reach them."""

    def __init__(self, f: Faulting, pages: list[int]) -> None:
        super().__init__()
        self.f = f
        self.pages = pages
        self.seen: list[tuple[list[int], list[int]]] = []

    def invalidate_range(self, k: Kernel, mm: Mm, start: int, end: int) -> int:
        references = [int(k.pg_refcount[page]) for page in self.pages]
        reached = [cpu for page in self.pages for cpu in remembered(self.f, page)]
        self.seen.append((references, reached))
        return 0


def test_pages_are_freed_only_when_no_cpu_can_reach_them() -> None:
    f = Faulting()
    a = f.map(3)
    f.p.touch(a, 3 * PAGE)
    pages = f.p.pages(a, 3 * PAGE)
    assert [remembered(f, page) for page in pages] == [[0]] * 3
    watch = Watch(f, pages)
    mmu_notifier_register(f.k, f.p.mm, watch)
    f.p.madvise(a, 3 * PAGE, "dontneed")
    # At the flush every page still has its reference, and the CPU has forgotten it just now.
    assert ([1, 1, 1], []) in watch.seen
    assert [f.counts(page) for page in pages] == [(0, 0)] * 3
    assert f.rss(f.p) == (0, 0, 0, 0)
    assert f.p.read(a, 3 * PAGE) == bytes(3 * PAGE)
    assert f.sound()


def test_more_pages_than_can_be_kept_are_freed_in_batches() -> None:
    f = Faulting(ram=2 * bits.MAX_GATHER_PAGES + 2000)
    pages = bits.MAX_GATHER_PAGES + 1500
    a = f.map(pages)
    f.p.touch(a, pages * PAGE)
    free = f.k.nr_free
    rounds: list[int] = []
    mmu_notifier_register(f.k, f.p.mm, Watch(f, []))
    f.k.notifier_log = []
    f.p.munmap(a, pages * PAGE)
    rounds = [end - start for name, _, start, end in f.k.notifier_log if name == "invalidate_range"]
    assert rounds[0] == bits.MAX_GATHER_PAGES * PAGE
    assert sum(rounds) == pages * PAGE
    assert f.k.nr_free == free + pages
    assert f.rss(f.p) == (0, 0, 0, 0)
    assert f.sound()


def test_the_dirty_bit_of_a_file_mapping_goes_to_the_page_and_the_young_bit_to_the_lru() -> None:
    f = Faulting()
    data = f.file(content=b"a")
    a = f.map(1, kind="file", file=data)
    f.p.write(a, b"b")
    page = f.page(f.p, a)
    f.k.pg_flags[page] &= ~(bits.PG_dirty | bits.PG_referenced)
    f.k.vm_stat[bits.NR_FILE_DIRTY] -= 1
    f.p.munmap(a, PAGE)
    assert f.flags(page, bits.PG_dirty | bits.PG_referenced)
    assert f.counts(page) == (0, 1)
    assert data.writeback() == 1
    assert data.disk(0) == b"b"
    assert f.sound()


def test_what_is_read_once_in_order_is_not_worth_keeping() -> None:
    f = Faulting()
    data = f.file()
    a = f.map(2, kind="file", file=data)
    f.p.madvise(a, 2 * PAGE, "sequential")
    f.p.read(a, 1)
    page = f.page(f.p, a)
    f.k.pg_flags[page] &= ~bits.PG_referenced
    f.p.munmap(a, 2 * PAGE)
    assert not f.flags(page, bits.PG_referenced)


def test_swap_entries_give_their_slots_back_and_the_zero_page_nothing() -> None:
    f = Faulting()
    a = f.map(4)
    f.p.write(a, b"x")
    f.p.write(a + PAGE, b"y")
    f.p.read(a + 2 * PAGE, 1)
    f.p.madvise(a, PAGE, "pageout")
    assert f.rss(f.p) == (0, 1, 1, 0)
    assert f.k.swap_areas[0].inuse == 1
    f.p.madvise(a, 4 * PAGE, "dontneed")
    assert f.rss(f.p) == (0, 0, 0, 0)
    assert f.k.swap_areas[0].inuse == 0
    assert f.counts(f.k.zero_page) == (0, 1)
    assert f.p.read(a, 2) == bytes(2)
    assert f.sound()


def test_a_page_in_the_swap_cache_leaves_it_with_its_last_mapping() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    f.p.madvise(a, PAGE, "pageout")
    f.p.read(a, 1)
    page = f.page(f.p, a)
    assert f.counts(page) == (1, 2)
    f.p.munmap(a, PAGE)
    assert f.counts(page) == (0, 0)
    assert f.k.swap_areas[0].inuse == 0
    assert f.sound()


def test_a_migration_entry_takes_its_page_from_the_counters_and_nothing_else() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    page = f.page(f.p, a)
    f.set_pte(f.p, a, swp_entry_to_pte(swp_entry(bits.SWP_MIGRATION_READ, page)))
    lock_page(f.k, page)
    (vma,) = f.p.vmas
    with f.m.running(f.p) as k:
        f.p.mm.mmap_sem.down_read()
        zap_page_range(k, vma, a, PAGE)
        f.p.mm.mmap_sem.up_read()
    unlock_page(f.k, page)
    assert f.rss(f.p) == (0, 1, 0, 0)
    # Whoever moves the page has its reference, and finds no entry to restore.
    assert f.counts(page) == (1, 1)
    assert f.pte(f.p, a) == 0


def test_a_flush_that_reclaim_owes_is_made_before_an_empty_entry_is_believed() -> None:
    f = Faulting()
    a = f.map(2)
    f.p.touch(a, 2 * PAGE)
    page = f.page(f.p, a)
    entry = f.pte(f.p, a)
    # Reclaim has emptied the entry and put the flush off.
    with f.m.kthread("reclaim") as k:
        f.set_pte(f.p, a, 0)
        set_tlb_ubc_flush_pending(k, f.p.mm, True)
    assert remembered(f, page) == [0]
    f.p.madvise(a + PAGE, PAGE, "dontneed")
    assert remembered(f, page) == []
    assert not f.p.mm.tlb_flush_batched
    f.set_pte(f.p, a, entry)


# ---------------------------------------------------------------- pages of a file


@pytest.mark.parametrize("even_cows", [False, True])
def test_unmapping_a_file_spares_private_copies_unless_they_are_to_go(even_cows: bool) -> None:
    f = Faulting()
    data = f.file(content=b"disk")
    a = f.map(3, kind="fileprivate", file=data)
    b = f.p.mmap(3 * PAGE, kind="file", file=data)
    f.p.write(a, b"mine")
    f.p.read(a + PAGE, 1)
    f.p.touch(b, 3 * PAGE)
    # An anon_vma may have the number that the file's mapping has. They are not the same.
    f.k.anon_vmas.append(f.k.anon_vmas[1])
    mine = f.page(f.p, a)
    with f.m.kthread("unmap") as k:
        unmap_mapping_pages(k, data.mapping, 0, 2, even_cows)
    assert f.page(f.p, a) == (0 if even_cows else mine)
    assert f.page(f.p, a + PAGE) == 0
    assert [bool(page) for page in f.p.pages(b, 3 * PAGE)] == [False, False, True]
    assert f.rss(f.p) == (1, 0 if even_cows else 1, 0, 0)
    f.k.anon_vmas.pop()
    assert f.p.read(a, 4) == (b"disk" if even_cows else b"mine")
    assert f.sound()


def test_unmapping_a_file_leaves_swap_entries_alone() -> None:
    f = Faulting()
    data = f.file()
    a = f.map(1, kind="fileprivate", file=data)
    f.p.write(a, b"mine")
    f.p.madvise(a, PAGE, "pageout")
    entry = f.pte(f.p, a)
    with f.m.kthread("unmap") as k:
        unmap_mapping_pages(k, data.mapping, 0, 0, True)
    assert f.pte(f.p, a) == entry
    assert f.p.read(a, 4) == b"mine"
    assert f.sound()


def test_only_the_pages_asked_for_are_unmapped_in_every_mapping_at_its_own_place() -> None:
    f = Faulting()
    data = f.file(16)
    places = [(0, 16), (5, 4), (8, 8), (3, 1)]
    starts = []
    for pgoff, pages in places:
        start = f.p.mmap(pages * PAGE, kind="file", file=data, pgoff=pgoff)
        f.p.touch(start, pages * PAGE)
        starts.append(start)
    with f.m.kthread("unmap") as k:
        unmap_mapping_pages(k, data.mapping, 6, 4, False)
    for (pgoff, pages), start in zip(places, starts, strict=True):
        there = [pgoff + n for n in range(pages) if f.page(f.p, start + n * PAGE)]
        assert there == [n for n in range(pgoff, pgoff + pages) if not 6 <= n < 10]
    assert f.sound()


# ---------------------------------------------------------------- page tables


def test_tables_go_with_the_last_mapping_that_needs_them() -> None:
    f = Faulting()
    tables = f.stat("NR_PAGETABLE")
    a = f.map(4)
    b = f.p.mmap(4 * PAGE, addr=ARENA + 8 * PAGE)
    c = f.p.mmap(4 * PAGE, addr=ARENA + 510 * PAGE)
    for start in (a, b, c):
        f.p.touch(start, 4 * PAGE)
    # One PUD, one PMD table, and two of entries: the last mapping lies across a border.
    assert f.stat("NR_PAGETABLE") == tables + 4
    f.p.munmap(b, 4 * PAGE)
    assert f.stat("NR_PAGETABLE") == tables + 4
    f.p.munmap(c, 4 * PAGE)
    assert f.stat("NR_PAGETABLE") == tables + 3
    f.p.munmap(a, 4 * PAGE)
    assert f.stat("NR_PAGETABLE") == tables
    assert f.sound()


def test_zapping_an_empty_expanse_takes_no_tables_and_little_time() -> None:
    f = Faulting()
    a = f.p.mmap(1 << 40, addr=1 << 44)
    far = a + (1 << 39)
    f.p.write(far, b"x")
    with f.m.running(f.p) as k:
        f.p.mm.mmap_sem.down_read()
        zap_page_range(k, f.p.vmas[0], a, 1 << 40)
        f.p.mm.mmap_sem.up_read()
    assert f.rss(f.p) == (0, 0, 0, 0)
    assert pte_lookup(f.k, f.p.mm, a) == 0
    f.p.munmap(a, 1 << 40)
    assert f.sound()


def test_exit_gives_everything_back() -> None:
    f = Faulting()
    data = f.file(content=b"x")
    shmem = f.file(shmem=True)
    f.p.read(f.p.mmap(PAGE), 1)
    free, stats = f.k.nr_free, np.array(f.k.vm_stat)
    q = f.m.spawn("q")
    for how in ({}, {"kind": "shared"}, {"kind": "fileprivate", "file": data}):
        start = q.mmap(6 * PAGE, **how)
        q.touch(start, 3 * PAGE)
        q.touch(start, 6 * PAGE, write=False)
    q.touch(q.mmap(4 * PAGE, kind="file", file=shmem), 4 * PAGE)
    child = q.fork()
    child.exit()
    q.exit()
    data.truncate(0)
    shmem.truncate(0)
    assert f.k.nr_free == free
    for name in ("NR_ANON_MAPPED", "NR_FILE_MAPPED", "NR_SHMEM", "NR_FILE_PAGES", "NR_PAGETABLE"):
        item = getattr(bits, name)
        assert f.k.vm_stat[item] == stats[item], name
    assert f.sound()

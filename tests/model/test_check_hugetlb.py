# SPDX-License-Identifier: GPL-2.0-only
"""Pools, reservations and mappings of huge pages, made by hand and broken on purpose.

Like `tests.model.test_check`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.anon_vma import __anon_vma_prepare as anon_vma_prepare
from rmap.mm.hugetlb.pool import dequeue_huge_page, set_max_huge_pages
from rmap.mm.mm_types import File, ResvMap, Vma
from rmap.mm.pgtable import pmd_alloc, pud_alloc
from rmap.mm.profile import profile
from rmap.model import Machine, Process
from tests.model.huge_scene import BASE, HUGE, LEAF, TABLE


class HugetlbScene:
    """A pool of eight pages; a parent with a private mapping, and a file that a child maps too.

    The private mapping was promised three pages and uses one of them, which the child shares. The
    file was promised two pages and has one in its cache, mapped by both.
    """

    def __init__(self) -> None:
        kind = profile("4.18", hugetlb_usage_starts_at_zero=True)
        self.machine = Machine(ram=8192, cpus=2, swap=0, profile=kind)
        self.k = k = self.machine.kernel
        self.pool = k.hstates[0]
        with self.machine.kthread("pool"):
            assert set_max_huge_pages(k, self.pool, 8) == 8
        self.files = [self.machine.file(name, 4 * 512) for name in ("private", "shared")]
        self.parent = self.machine.spawn("parent")
        self.private = self.map(self.files[0].file, BASE, 3, "fileprivate")
        self.shared = self.map(self.files[1].file, BASE + 8 * HUGE, 2, "file")
        vma = self.vma(self.parent, self.private)
        vma.resv_map, vma.resv_flags = ResvMap(1), bits.HPAGE_RESV_OWNER
        vma.resv_map.regions = [(0, 1)]
        with self.machine.running(self.parent):
            self.parent.mm.mmap_sem.down_read()
            anon_vma_prepare(k, vma)
            self.parent.mm.mmap_sem.up_read()
        self.child = self.parent.fork("child")
        for file in self.files:
            file.mapping.hstate = self.pool
        for address in (self.private, self.shared):
            for process in (self.parent, self.child):
                self.vma(process, address).vm_flags |= bits.VM_HUGETLB
        forked = self.vma(self.child, self.private)
        forked.resv_map, forked.resv_flags = None, 0
        self.own, self.cached = self.take(), self.take()
        k.pg_mapping[self.own] = vma.anon_vma.root.handle << 2 | 1
        mapping = self.files[1].mapping
        mapping.resv_map = ResvMap(2)
        mapping.resv_map.regions = [(0, 2)]
        mapping.i_pages[0], mapping.nrpages = self.cached, 1
        k.pg_mapping[self.cached] = mapping.handle << 2
        k.pg_refcount[self.cached] = 1
        k.pg_refcount[self.own] = 0
        self.pool.resv_huge_pages = 2 + 1
        for process in (self.parent, self.child):
            self.enter(process, self.private, self.own)
            self.enter(process, self.shared, self.cached)

    def map(self, file: File, address: int, pages: int, kind: str) -> int:
        """A VMA of the parent."""
        handle = next(one for one in self.files if one.file is file)
        self.parent.mmap(pages * HUGE, "rw", kind, handle, addr=address)
        return address

    def vma(self, process: Process, address: int) -> Vma:
        vma = process.vma_at(address)
        assert vma is not None
        return vma

    def take(self) -> int:
        """A page of the pool, with a reference."""
        with self.machine.kthread("take") as k:
            k.hugetlb_lock.lock()
            page = dequeue_huge_page(k, self.pool)
            k.hugetlb_lock.unlock()
        assert page
        return int(page)

    def enter(self, process: Process, address: int, page: int) -> None:
        """Map a huge page, as fork does."""
        k = self.k
        k.pt[pmd_alloc(k, process.mm, address)] = page << bits.PAGE_SHIFT | LEAF
        k.pg_lru_prev[page + 1] += 1
        k.pg_refcount[page] += 1
        process.mm.hugetlb_usage += 512


Damage = Callable[[HugetlbScene], None]
DAMAGES: list[tuple[str, Damage]] = []


def breaks(invariant: str) -> Callable[[Damage], Damage]:
    """Say which invariant a damage violates."""

    def register(damage: Damage) -> Damage:
        DAMAGES.append((invariant, damage))
        return damage

    return register


@breaks("hugetlb-pool")
def a_page_of_the_pool_is_not_counted(s: HugetlbScene) -> None:
    s.pool.nr_huge_pages -= 1


@breaks("hugetlb-pool")
def a_page_in_use_is_free_too(s: HugetlbScene) -> None:
    s.pool.hugepage_freelist.append(s.own)
    s.pool.free_huge_pages += 1


@breaks("hugetlb-pool")
def a_free_page_is_lost(s: HugetlbScene) -> None:
    s.pool.hugepage_freelist.pop()
    s.pool.free_huge_pages -= 1


@breaks("hugetlb-pool")
def a_page_in_use_is_not_listed(s: HugetlbScene) -> None:
    del s.pool.hugepage_activelist[s.own]


@breaks("hugetlb-pool")
def a_free_page_is_listed_as_active(s: HugetlbScene) -> None:
    s.pool.hugepage_activelist[s.pool.hugepage_freelist[0]] = True


@breaks("hugetlb-pool")
def a_surplus_page_is_not_counted_as_such(s: HugetlbScene) -> None:
    s.pool.max_huge_pages -= 1


@breaks("hugetlb-pool")
def a_free_page_is_mapped(s: HugetlbScene) -> None:
    free = s.pool.hugepage_freelist[0]
    s.k.pt[pmd_alloc(s.k, s.parent.mm, s.private + HUGE)] = free << bits.PAGE_SHIFT | LEAF


@breaks("hugetlb-reserves")
def a_promise_is_forgotten(s: HugetlbScene) -> None:
    s.pool.resv_huge_pages -= 1


@breaks("hugetlb-reserves")
def a_page_that_was_promised_counts_as_promised_still(s: HugetlbScene) -> None:
    s.vma(s.parent, s.private).resv_map.regions = []


@breaks("hugetlb-reserves")
def more_is_promised_than_there_is(s: HugetlbScene) -> None:
    s.vma(s.parent, s.private).vm_end += 9 * HUGE
    s.pool.resv_huge_pages += 9


@breaks("hugetlb-reserves")
def a_region_is_neither_added_nor_given_up(s: HugetlbScene) -> None:
    s.files[1].mapping.resv_map.adds_in_progress = 1


@breaks("hugetlb-usage")
def a_huge_page_is_not_counted_in_its_mm(s: HugetlbScene) -> None:
    s.child.mm.hugetlb_usage -= 512


@breaks("rss")
def a_huge_page_counts_in_rss(s: HugetlbScene) -> None:
    s.parent.mm.rss_stat[bits.MM_ANONPAGES] += 512


@breaks("vmstat")
def a_huge_page_counts_as_an_anonymous_one(s: HugetlbScene) -> None:
    s.k.vm_stat[bits.NR_ANON_MAPPED] += 512


@breaks("compound-mapcount")
def a_mapping_of_a_huge_page_is_not_counted(s: HugetlbScene) -> None:
    s.k.pg_lru_prev[s.own + 1] -= 1


@breaks("mapcount")
def a_mapping_of_a_huge_page_counts_as_a_small_one(s: HugetlbScene) -> None:
    s.k.pg_mapcount[s.own] += 1


@breaks("refcount")
def a_mapping_of_a_huge_page_has_no_reference(s: HugetlbScene) -> None:
    s.k.pg_refcount[s.cached] -= 1


@breaks("reachable")
def a_huge_page_has_an_index_in_small_pages(s: HugetlbScene) -> None:
    s.k.pg_index[s.own] = 512


@breaks("copy-on-write")
def a_private_huge_page_is_writable_though_shared(s: HugetlbScene) -> None:
    s.k.pt[pmd_alloc(s.k, s.child.mm, s.private)] |= bits._PAGE_RW


@breaks("tables")
def a_table_is_shared_and_nobody_knows(s: HugetlbScene) -> None:
    share(s)
    s.k.pmd_sharers.clear()


@breaks("pmd-sharing")
def a_sharer_of_a_table_is_not_counted(s: HugetlbScene) -> None:
    share(s)
    s.k.pmd_sharers.clear()


@breaks("pmd-sharing")
def a_table_counts_a_sharer_that_has_left(s: HugetlbScene) -> None:
    s.k.pmd_sharers[pmd_alloc(s.k, s.child.mm, s.private) // TABLE] = 1


def share(s: HugetlbScene) -> None:
    """Let the child use the parent's table of PMDs, and give its own back."""
    k = s.k
    mine = pmd_alloc(k, s.child.mm, s.private) // TABLE
    row = pmd_alloc(k, s.parent.mm, s.private) // TABLE
    pud = pud_alloc(k, s.child.mm, s.private)
    for number in range(TABLE):
        k.pt[mine * TABLE + number] = 0
    k.pt_free.append(mine)
    k.vm_stat[bits.NR_PAGETABLE] -= 1
    k.pt[pud] = row << bits.PAGE_SHIFT | k.pt[pud] % (1 << bits.PAGE_SHIFT)
    s.child.mm.pmd_tag = 0
    k.pmd_sharers[row] = 1
    k.pmd_table_was_shared = True
    for page in (s.own, s.cached):
        k.pg_lru_prev[page + 1] -= 1
        k.pg_refcount[page] -= 1


def test_the_world_is_sound() -> None:
    assert HugetlbScene().machine.check() == []


def test_a_page_in_a_shared_table_is_mapped_once() -> None:
    scene = HugetlbScene()
    share(scene)
    assert check_kernel(scene.k, {}) == []


@pytest.mark.parametrize(
    ("invariant", "damage"), [pytest.param(name, run, id=run.__name__) for name, run in DAMAGES]
)
def test_damage_is_found(invariant: str, damage: Damage) -> None:
    scene = HugetlbScene()
    damage(scene)
    found = {violation.invariant for violation in scene.machine.check()}
    assert invariant in found

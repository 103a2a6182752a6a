# SPDX-License-Identifier: GPL-2.0-only
"""Small stories of memory, with every number that the kernel must have at each turn.

Each was worked out by hand from the kernel's source (v4.18). `map` is page_mapcount, `ref` is
_refcount with no batches pending; an anon_vma is told as its degree and its references.

Two stories are with the tests of what they are about, and of one a part:

* 8.11, migration of the page of 8.2: ``tests/mm/test_migrate_pages.py``, ``test_8_11_*``
* 8.16, where mremap needs the rmap locks: ``tests/mm/test_mremap.py``,
  ``test_locks_are_needed_if_the_copy_comes_first_in_the_walk``
* 8.18, KSM: ``tests/mm/test_ksm_merge.py``, ``test_8_18_equal_pages_of_two_processes_become_one``
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rmap.mm import bits
from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.lru import isolate_lru_page, putback_lru_page
from rmap.mm.mm_types import AnonVma, Kernel, Vma
from rmap.mm.page import (
    PageDoubleMap,
    compound_mapcount,
    lock_page,
    page_mapcount,
    total_mapcount,
    unlock_page,
)
from rmap.mm.page_mkclean import page_mkclean
from rmap.mm.pgtable import (
    is_migration_entry,
    is_swap_pte,
    pte_dirty,
    pte_lookup,
    pte_none,
    pte_pfn,
    pte_to_swp_entry,
    pte_write,
    pte_young,
)
from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk
from rmap.mm.swap import add_to_swap, swap_writepage
from rmap.mm.tlb import try_to_unmap_flush
from rmap.mm.unmap import try_to_unmap
from rmap.mm.vma import is_vma_temporary_stack
from rmap.model import Machine, Process

PAGE = 4096
HUGE = bits.HPAGE_PMD_NR


class Story:
    """A machine and what is told of it. Statistics are told as changes since the beginning."""

    def __init__(self, ram: int = 512) -> None:
        self.machine = Machine(ram=ram, cpus=2, swap=64)
        self.k = self.machine.kernel
        self.p = self.machine.spawn("P")
        self.before = list(self.k.vm_stat)

    def stat(self, item: int) -> int:
        return self.k.vm_stat[item] - self.before[item]

    def counts(self, page: int) -> tuple[int, int]:
        """map and ref."""
        return page_mapcount(self.k, page), self.k.pg_refcount[page]

    def named(self, page: int) -> AnonVma:
        """The anon_vma that page->mapping names."""
        word = self.k.pg_mapping[page]
        assert word & bits.PAGE_MAPPING_FLAGS == bits.PAGE_MAPPING_ANON
        return self.k.anon_vmas[word >> bits.MAPPING_HANDLE_SHIFT]

    def slot(self, page: int) -> int:
        """The swap slot of a page in the swap cache."""
        return int(self.k.pg_private[page]) >> 5

    def byte(self, slot: int) -> int:
        """The slot's byte in the swap map."""
        return int(self.k.swap_areas[0].swap_map[slot])


def vma(process: Process, address: int) -> Vma:
    found = process.vma_at(address)
    assert found is not None
    return found


def page_of(process: Process, address: int) -> int:
    return process.pages(address, 1)[0]


def chain(of: Vma) -> list[AnonVma]:
    return [avc.anon_vma for avc in of.anon_vma_chain]


def tree(av: AnonVma) -> list[Vma]:
    """VMAs in walk order."""
    found = []
    node = interval_tree_iter_first(av.rb_root, 0, bits.ULONG_MAX)
    while node is not None:
        found.append(node.vma)
        node = interval_tree_iter_next(node, 0, bits.ULONG_MAX)
    return found


def degrees(av: AnonVma) -> tuple[int, int]:
    """Degree and references."""
    return av.degree, av.refcount


def anon_pages(process: Process) -> int:
    return process.mm.rss_stat[bits.MM_ANONPAGES]


@pytest.fixture
def s() -> Story:
    return Story()


def first_write(s: Story) -> tuple[int, int, AnonVma]:
    """8.1: P maps four pages and writes to the first. Address, page X, anon_vma R."""
    a = s.p.mmap(4 * PAGE)
    s.p.write(a, b"x")
    return a, page_of(s.p, a), vma(s.p, a).anon_vma


def after_fork(s: Story) -> tuple[int, int, AnonVma, Process, AnonVma]:
    """8.2: and forks C, which gets an anon_vma A of its own."""
    a, x, r = first_write(s)
    c = s.p.fork("C")
    return a, x, r, c, vma(c, a).anon_vma


# ---------------------------------------------------------------- faults and forks


def test_8_1_first_write_fault(s: Story) -> None:
    a = s.p.mmap(4 * PAGE)
    s.p.read(a, 1)  # the zero page, of which rmap knows nothing
    assert vma(s.p, a).anon_vma is None
    assert anon_pages(s.p) == 0
    s.p.write(a, b"x")
    x, v = page_of(s.p, a), vma(s.p, a)
    r = v.anon_vma
    assert degrees(r) == (2, 1)
    assert r.root is r and r.parent is r  # noqa: PT018  one fact
    assert chain(v) == [r]
    assert tree(r) == [v]
    assert s.named(x) is r
    assert s.k.pg_index[x] == v.vm_pgoff
    assert s.counts(x) == (1, 1)
    assert s.k.pg_flags[x] & (bits.PG_swapbacked | bits.PG_active) == (
        bits.PG_swapbacked | bits.PG_active
    )
    pte = s.p.pte(a)
    assert (pte_write(pte), pte_dirty(pte), pte_young(pte)) == (True, True, True)
    assert (anon_pages(s.p), s.stat(bits.NR_ANON_MAPPED)) == (1, 1)
    s.p.write(a + PAGE, b"y")
    assert degrees(r) == (2, 1)
    assert (anon_pages(s.p), s.stat(bits.NR_ANON_MAPPED)) == (2, 2)


def test_8_2_fork(s: Story) -> None:
    a, x, r, c, av = after_fork(s)
    assert degrees(av) == (1, 1)
    assert av.parent is r
    assert degrees(r) == (3, 2)
    assert chain(vma(c, a)) == [av, r]
    assert tree(r) == [vma(s.p, a), vma(c, a)]
    assert s.counts(x) == (2, 2)
    assert not pte_write(s.p.pte(a))
    assert not pte_write(c.pte(a))
    assert not pte_young(c.pte(a))
    assert anon_pages(c) == 1
    assert s.stat(bits.NR_ANON_MAPPED) == 1


def test_8_3_the_child_writes(s: Story) -> None:
    a, x, r, c, av = after_fork(s)
    c.write(a, b"y")
    y = page_of(c, a)
    assert s.named(y) is av
    assert s.k.pg_index[y] == s.k.pg_index[x]
    assert s.counts(y) == (1, 1)
    assert s.counts(x) == (1, 1)
    assert s.stat(bits.NR_ANON_MAPPED) == 2
    assert anon_pages(c) == 1
    walk = s.machine.walk(x)
    assert (walk.visited, [m.vma for m in walk.mappings]) == (2, [vma(s.p, a)])
    walk = s.machine.walk(y)
    assert (walk.visited, [m.vma for m in walk.mappings]) == (1, [vma(c, a)])
    s.p.write(a, b"z")
    assert page_of(s.p, a) == x
    assert s.named(x) is r
    assert pte_write(s.p.pte(a))


def test_8_4_the_parent_exits_before_the_child_writes(s: Story) -> None:
    a, x, r, c, av = after_fork(s)
    s.p.exit()
    assert s.counts(x) == (1, 1)
    assert degrees(r) == (2, 2)
    assert tree(r) == [vma(c, a)]
    c.write(a, b"y")
    assert page_of(c, a) == x
    assert s.named(x) is av
    assert degrees(r) == (2, 2)  # no page names it, and it is the root


def test_8_5_the_last_one_exits(s: Story) -> None:
    _a, _x, r, c, av = after_fork(s)
    s.p.exit()
    c.exit()
    assert (r.refcount, r.degree, av.refcount, av.degree) == (0, 0, 0, 0)
    assert {int(one.handle) for one in s.k.anon_vma_free} == {int(r.handle), int(av.handle)}
    assert s.machine.warnings == []


def test_8_6_the_child_exits_first(s: Story) -> None:
    a, x, r, c, av = after_fork(s)
    c.exit()
    assert (av.refcount, av.degree) == (0, 0)
    assert degrees(r) == (2, 1)
    assert tree(r) == [vma(s.p, a)]
    assert s.counts(x) == (1, 1)


# ---------------------------------------------------------------- VMAs


def test_8_7_mprotect_in_the_middle(s: Story) -> None:
    a, x, r = first_write(s)
    degree: list[int] = []

    def look(name: str, args: tuple[Any, ...]) -> None:
        if name in ("anon_vma_clone", "unlink_anon_vmas"):
            degree.append(int(r.degree))

    s.machine.trace(look)
    s.p.mprotect(a + PAGE, PAGE, "r")
    assert degree == [3, 4]  # as each of the two splits has copied the chain
    parts = [vma(s.p, a), vma(s.p, a + PAGE), vma(s.p, a + 2 * PAGE)]
    assert degrees(r) == (4, 1)
    assert tree(r) == parts
    assert [one.vm_pgoff - parts[0].vm_pgoff for one in parts] == [0, 1, 2]
    assert [m.vma for m in s.machine.who_maps(x)] == [parts[0]]
    degree.clear()
    s.p.mprotect(a + PAGE, PAGE, "rw")
    assert degree == [4, 3]  # as each of the two VMAs that go is about to leave
    assert degrees(r) == (2, 1)
    assert tree(r) == [vma(s.p, a)]


def test_8_8_an_unfaulted_neighbour(s: Story) -> None:
    a = s.p.mmap(4 * PAGE)
    s.p.mprotect(a + 2 * PAGE, 2 * PAGE, "rwx")
    s.p.write(a, b"x")
    r = vma(s.p, a).anon_vma
    assert vma(s.p, a + 2 * PAGE).anon_vma is None
    s.p.write(a + 2 * PAGE, b"y")
    w = vma(s.p, a + 2 * PAGE)
    assert w.anon_vma is r
    assert degrees(r) == (3, 1)
    assert chain(w) == [r]


def test_8_8_a_neighbour_that_was_forked_shares_nothing(s: Story) -> None:
    a = s.p.mmap(4 * PAGE)
    s.p.mprotect(a + 2 * PAGE, 2 * PAGE, "rwx")
    s.p.write(a, b"x")
    c = s.p.fork("C")
    c.write(a + 2 * PAGE, b"y")
    assert len(chain(vma(c, a))) == 2
    w = vma(c, a + 2 * PAGE)
    assert w.anon_vma.root is w.anon_vma
    assert degrees(w.anon_vma) == (2, 1)


# ---------------------------------------------------------------- swap


def swap_out(s: Story, page: int) -> None:
    """Isolate a page, give it a slot and unmap it, looking at each step."""
    assert isolate_lru_page(s.k, page) == 0
    assert s.counts(page)[1] == 3
    lock_page(s.k, page)
    assert add_to_swap(s.k, page)
    assert s.counts(page)[1] == 4
    assert s.byte(s.slot(page)) == 0x40
    assert s.k.pg_flags[page] & bits.PG_dirty


def test_8_9_swap_out_of_a_shared_page(s: Story) -> None:
    _a, x, r, c, _av = after_fork(s)
    s.machine.page_referenced([x])
    with s.machine.kthread("reclaim"):
        swap_out(s, x)
        slot = s.slot(x)
        between: list[tuple[object, ...]] = []

        def look(name: str, args: tuple[Any, ...]) -> None:
            if name == "try_to_unmap_one":
                rss = [
                    (int(p.mm.rss_stat[bits.MM_ANONPAGES]), int(p.mm.rss_stat[bits.MM_SWAPENTS]))
                    for p in (s.p, c)
                ]
                between.append((s.byte(slot), s.counts(x), *rss))

        s.machine.trace(look)
        assert try_to_unmap(s.k, x, bits.TTU_BATCH_FLUSH)
        s.machine.trace(None)
        assert between == [
            (0x41, (1, 3), (0, 1), (1, 0)),  # the parent's VMA comes first
            (0x42, (0, 2), (0, 1), (0, 1)),
        ]
        assert s.byte(slot) == 0x42
        assert s.counts(x) == (0, 2)
        assert (anon_pages(s.p), anon_pages(c)) == (0, 0)
        for process in (s.p, c):
            assert process.mm.rss_stat[bits.MM_SWAPENTS] == 1
        assert s.stat(bits.NR_ANON_MAPPED) == 0
        assert s.named(x) is r
        try_to_unmap_flush(s.k)
        s.k.pg_flags[x] &= ~bits.PG_dirty
        swap_writepage(s.k, x)
        putback_lru_page(s.k, x)
    assert s.machine.reclaim(1).reclaimed >= 1
    assert s.k.pg_refcount[x] == 0
    assert s.byte(slot) == 0x02
    assert s.k.pg_mapping[x] == 0


def test_8_9_a_young_entry_stops_the_walk_in_the_middle(s: Story) -> None:
    a, x, _r, c, _av = after_fork(s)
    s.machine.page_referenced([x])
    c.read(a, 1)
    with s.machine.kthread("reclaim"):
        swap_out(s, x)
        assert not try_to_unmap(s.k, x, 0)
        unlock_page(s.k, x)
        putback_lru_page(s.k, x)
    assert (anon_pages(s.p), anon_pages(c)) == (0, 1)
    assert s.byte(s.slot(x)) == 0x41
    s.p.read(a, 1)
    assert page_of(s.p, a) == x  # found in the swap cache


def swapped(s: Story) -> tuple[int, int, AnonVma, Process, AnonVma]:
    """8.2, then swapped out. The slot stands in the place of the page."""
    a, x, r, c, av = after_fork(s)
    s.machine.page_referenced([x])
    s.p.madvise(a, PAGE, "pageout")
    for _ in range(4):
        if not s.k.pg_refcount[x]:
            break
        s.machine.reclaim(1)
    assert s.k.pg_refcount[x] == 0
    (slot,) = [n for n in range(1, 64) if s.byte(n)]
    assert s.byte(slot) == 0x02
    return a, slot, r, c, av


def test_8_10_swap_in_by_a_read(s: Story) -> None:
    a, slot, r, c, _av = swapped(s)
    c.read(a, 1)
    z = page_of(c, a)
    assert s.named(z) is r
    assert s.k.pg_index[z] == vma(c, a).vm_pgoff
    assert s.counts(z) == (1, 2)
    assert s.byte(slot) == 0x41
    assert s.stat(bits.NR_ANON_MAPPED) == 1
    assert not pte_write(c.pte(a))


def test_8_10_swap_in_by_a_write_copies_what_is_shared(s: Story) -> None:
    a, slot, _r, c, av = swapped(s)
    c.write(a, b"y")
    y = page_of(c, a)
    z = s.k.swap_areas[0].cache[slot]
    assert s.named(y) is av
    assert z not in (0, y)
    assert s.counts(z)[0] == 0
    assert s.byte(slot) == 0x41


def test_8_10_the_only_user_writes_to_the_page_itself(s: Story) -> None:
    a, slot, _r, c, av = swapped(s)
    s.p.exit()
    assert s.byte(slot) == 0x01
    c.write(a, b"y")
    z = page_of(c, a)
    assert s.named(z) is av
    assert s.counts(z) == (1, 1)
    assert s.byte(slot) == 0
    assert pte_write(c.pte(a))


# ---------------------------------------------------------------- mlock, writeback, MADV_FREE


def test_8_13_munlock_finds_another_that_locks_the_page(s: Story) -> None:
    f = s.machine.file("f", 1)
    q = s.machine.spawn("Q")
    a = s.p.mmap(PAGE, "rw", "file", f)
    b = q.mmap(PAGE, "rw", "file", f)
    s.p.mlock(a, PAGE)
    q.mlock(b, PAGE)
    x = page_of(s.p, a)
    assert s.stat(bits.NR_MLOCK) == 1
    s.p.munlock(a, PAGE)
    assert s.stat(bits.NR_MLOCK) == 1
    both = bits.PG_mlocked | bits.PG_unevictable | bits.PG_lru
    assert s.k.pg_flags[x] & both == both
    q.munlock(b, PAGE)
    assert s.stat(bits.NR_MLOCK) == 0
    assert s.k.pg_flags[x] & both == bits.PG_lru


def test_8_14_page_mkclean(s: Story) -> None:
    f = s.machine.file("f", 1)
    q, r = s.machine.spawn("Q"), s.machine.spawn("S")
    a = s.p.mmap(PAGE, "rw", "file", f)
    b = q.mmap(PAGE, "rw", "file", f)
    c = r.mmap(PAGE, "rw", "fileprivate", f)
    s.p.write(a, b"x")
    q.write(b, b"y")
    r.read(c, 1)
    x = page_of(s.p, a)
    assert page_of(r, c) == x
    at = s.p.pte(a)
    s.k.notifier_log = []
    with s.machine.kthread("flush"):
        lock_page(s.k, x)
        assert page_mkclean(s.k, x) == 2
        assert page_mkclean(s.k, x) == 0
        unlock_page(s.k, x)
    assert pte_dirty(at)
    for process, address in ((s.p, a), (q, b)):
        assert not pte_dirty(process.pte(address))
        assert not pte_write(process.pte(address))
    told = {int(process.mm.ident) for process in (s.p, q)}
    for name in ("invalidate_range_start", "invalidate_range_end"):
        assert {entry[1] for entry in s.k.notifier_log if entry[0] == name} == told


def test_8_15_madv_free_of_a_clean_page(s: Story) -> None:
    a, x, _ = first_write(s)
    s.p.madvise(a, PAGE, "free")
    pte = s.p.pte(a)
    assert (pte_young(pte), pte_dirty(pte)) == (False, False)
    flags = s.k.pg_flags[x]
    assert flags & (bits.PG_dirty | bits.PG_swapbacked | bits.PG_active) == 0
    assert s.stat(bits.NR_INACTIVE_FILE) == 1
    result = s.machine.reclaim(1)
    assert result.lazyfreed == 1
    assert pte_none(s.p.pte(a))
    assert (anon_pages(s.p), s.k.pg_refcount[x]) == (0, 0)
    assert s.p.read(a, 1) == b"\0"


def test_8_15_a_write_after_madv_free_brings_the_page_back(s: Story) -> None:
    a, x, _ = first_write(s)
    s.p.madvise(a, PAGE, "free")
    s.p.write(a, b"y")
    s.machine.page_referenced([x])
    with s.machine.kthread("reclaim"):
        assert isolate_lru_page(s.k, x) == 0
        lock_page(s.k, x)
        assert not try_to_unmap(s.k, x, 0)
        unlock_page(s.k, x)
        putback_lru_page(s.k, x)
    assert s.k.pg_flags[x] & bits.PG_swapbacked
    assert s.k.pg_flags[x] & bits.PG_dirty
    assert s.p.read(a, 1) == b"y"


def test_8_15_a_page_that_is_still_shared_can_be_freed_lazily(s: Story) -> None:
    """Who called may read zeroes by then; the other one's entry is dirty, and keeps the page."""
    a, x, _r, c, _av = after_fork(s)
    assert s.counts(x)[0] == 2
    assert not s.k.pg_flags[x] & bits.PG_dirty
    s.p.madvise(a, PAGE, "free")
    assert not s.k.pg_flags[x] & bits.PG_swapbacked
    assert not pte_dirty(s.p.pte(a))
    assert pte_dirty(c.pte(a))
    with s.machine.kthread("reclaim"):
        assert isolate_lru_page(s.k, x) == 0
        lock_page(s.k, x)
        assert not try_to_unmap(s.k, x, bits.TTU_IGNORE_ACCESS)
        unlock_page(s.k, x)
        putback_lru_page(s.k, x)
    assert s.k.pg_flags[x] & bits.PG_swapbacked
    assert s.k.pg_flags[x] & bits.PG_dirty
    assert pte_none(s.p.pte(a))
    assert (s.counts(x)[0], anon_pages(s.p), anon_pages(c)) == (1, 0, 1)
    assert (s.p.read(a, 1), c.read(a, 1)) == (b"\0", b"x")


# ---------------------------------------------------------------- huge pages


def huge_stats(s: Story) -> tuple[int, int]:
    """NR_ANON_THPS and NR_ANON_MAPPED."""
    return s.stat(bits.NR_ANON_THPS), s.stat(bits.NR_ANON_MAPPED)


def of_parts(s: Story, head: int) -> set[int]:
    """_mapcount of the parts of a huge page, as it is stored."""
    return {int(s.k.pg_mapcount[head + i]) for i in range(HUGE)}


def test_8_12_the_life_of_a_huge_page() -> None:
    s = Story(ram=4 * HUGE)
    s.machine.thp.enabled = "always"
    a = s.p.mmap(HUGE * PAGE, addr=1 << 30)
    s.p.write(a, b"x")
    head = page_of(s.p, a)
    assert (compound_mapcount(s.k, head), of_parts(s, head)) == (1, {-1})
    assert s.counts(head) == (1, 1)
    assert anon_pages(s.p) == HUGE
    assert huge_stats(s) == (1, HUGE)
    c = s.p.fork("C")
    assert (compound_mapcount(s.k, head), s.counts(head)[1]) == (2, 2)
    assert anon_pages(c) == HUGE
    # C splits its PMD: 512 entries, each with a reference, instead of one.
    c.mprotect(a, PAGE, "r")
    assert s.counts(head)[1] == 1 + HUGE
    assert (compound_mapcount(s.k, head), of_parts(s, head)) == (1, {1})
    assert PageDoubleMap(s.k, head)
    assert (page_mapcount(s.k, head + 7), total_mapcount(s.k, head)) == (2, 1 + HUGE)
    assert huge_stats(s) == (1, HUGE)
    s.p.exit()
    assert (compound_mapcount(s.k, head), of_parts(s, head)) == (0, {0})
    assert not PageDoubleMap(s.k, head)
    assert huge_stats(s) == (0, HUGE)
    assert len(s.k.deferred_split_queue) == 0
    assert (s.counts(head)[1], total_mapcount(s.k, head)) == (HUGE, HUGE)
    c.munmap(a + 40 * PAGE, PAGE)
    assert s.k.pg_mapcount[head + 40] == -1
    assert huge_stats(s) == (0, HUGE - 1)
    assert list(s.k.deferred_split_queue) == [head]
    assert s.counts(head)[1] == HUGE - 1
    split_with_a_pin(s, c, a, head)


def split_with_a_pin(s: Story, c: Process, a: int, head: int) -> None:
    """The end of 8.12: the caller's reference is the only one that is no mapping."""
    frozen: list[tuple[object, ...]] = []

    def look(name: str, args: tuple[Any, ...]) -> None:
        if name == "try_to_unmap" and args[1] & bits.TTU_SPLIT_FREEZE:
            ptes = [int(c.pte(a + i * PAGE)) for i in range(HUGE)]
            waiting = [
                is_swap_pte(pte) and is_migration_entry(pte_to_swp_entry(pte)) for pte in ptes
            ]
            frozen.append((sum(waiting), s.stat(bits.NR_ANON_MAPPED), s.counts(head)[1]))
            frozen.append((total_mapcount(s.k, head), anon_pages(c)))

    s.machine.trace(look)
    assert s.machine.split_huge_page(head)
    s.machine.trace(None)
    assert frozen == [(HUGE - 1, 0, 1), (0, HUGE - 1)]
    assert huge_stats(s) == (0, HUGE - 1)
    assert s.counts(head) == s.counts(head + 511) == (1, 1)
    assert s.k.pg_refcount[head + 40] == 0
    assert anon_pages(c) == HUGE - 1
    assert len(s.k.deferred_split_queue) == 0
    assert s.machine.check() == []


# ---------------------------------------------------------------- mremap, exec


def test_8_16_mremap_upwards(s: Story) -> None:
    a, x, r = first_write(s)
    index = s.k.pg_index[x]
    seen: list[tuple[int, bool]] = []

    def look(name: str, args: tuple[Any, ...]) -> None:
        if name == "move_page_tables":
            seen.append((len(tree(r)), args[4]))

    s.machine.trace(look)
    b = s.p.mremap(a, 4 * PAGE, 4 * PAGE, new_addr=a + 16 * PAGE)
    s.machine.trace(None)
    w = vma(s.p, b)
    assert b == a + 16 * PAGE
    assert w.anon_vma is r
    assert tree(r) == [w]
    assert page_of(s.p, b) == x
    assert s.k.pg_index[x] == index == w.vm_pgoff
    assert degrees(r) == (2, 1)
    assert seen == [(2, False)]  # both VMAs were in the tree, and no rmap lock was needed


class Listening(list[tuple[str, int, int, int]]):
    """A log of notifier calls that lets somebody look at the machine at each of them."""

    def __init__(self, hear: Callable[[], None]) -> None:
        super().__init__()
        self.hear = hear

    def append(self, entry: tuple[str, int, int, int]) -> None:
        super().append(entry)
        if entry[0] == "invalidate_range_start":
            self.hear()


def test_8_17_reclaim_misses_a_stack_that_exec_moves_and_migration_passes_it_over(s: Story) -> None:
    seen: list[int] = []

    def look() -> None:
        mm = s.k.mms[-1]
        stack = mm.vmas[0]
        covers_both = stack.vm_end - stack.vm_start > PAGE
        if not is_vma_temporary_stack(stack) or not covers_both or seen:
            return
        # The VMA covers the new place already, the entry is at the old one.
        old = stack.vm_end - PAGE
        page = int(pte_pfn(s.k.pt[pte_lookup(s.k, mm, old)]))
        seen.append(page)
        with s.machine.kthread("walk"):
            visitor = Counting()
            rmap_walk(s.k, page, visitor)
            assert visitor.met == [(stack, stack.vm_start)]
            assert visitor.met[0][1] != old
            lock_page(s.k, page)
            assert add_to_swap(s.k, page)
            assert not try_to_unmap(s.k, page, 0)
            assert s.counts(page)[0] == 1
            assert not try_to_unmap(s.k, page, bits.TTU_MIGRATION | bits.TTU_IGNORE_ACCESS)
            assert s.counts(page)[0] == 1
            unlock_page(s.k, page)

    s.k.notifier_log = Listening(look)
    s.p.exec("program")
    (page,) = seen
    (stack,) = s.p.vmas
    assert not is_vma_temporary_stack(stack)
    (mapping,) = s.machine.who_maps(page)
    assert mapping.vma is stack
    assert s.machine.check() == []


class Counting(RmapWalkControl):
    """A walk that notes which VMAs it comes to, and where in them it looks."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[tuple[Vma, int]] = []

    def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
        self.met.append((vma, address))
        return True

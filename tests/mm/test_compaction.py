# SPDX-License-Identifier: GPL-2.0-only
"""Compaction: free memory that is scattered becomes free memory in one piece."""

from __future__ import annotations

import numpy as np
import pytest
from faulting import ARENA, PAGE
from hypothesis import given, settings
from hypothesis import strategies as st
from migrating import Moving

from rmap.mm import bits
from rmap.mm.bits import GFP_KERNEL, GFP_NOWAIT, HPAGE_PMD_NR, HPAGE_PMD_ORDER
from rmap.mm.inject import FailPlan
from rmap.mm.lru import put_page
from rmap.mm.migrate.compaction import (
    CompactControl,
    compact_zone,
    compaction_defer_reset,
    compaction_deferred,
    compaction_suitable,
    defer_compaction,
    try_to_compact_pages,
)
from rmap.mm.page_alloc import alloc_pages, run_available
from rmap.mm.pgtable import is_swap_pte, pte_to_swp_entry, swp_offset
from rmap.model import Process

RAM = 4096
#: Pages that are touched, which leaves the watermarks alone.
FILLED = RAM - 256


def scattered(f: Moving, every: int = 4, pages: int = FILLED) -> int:
    """Fill memory, then give back all pages but every `every`th: no two blocks are free."""
    a = f.map(pages)
    f.p.touch(a, pages * PAGE)
    for i in range(0, pages, every):
        f.p.write(a + i * PAGE, b"%d" % i)
        f.p.madvise(a + (i + 1) * PAGE, (every - 1) * PAGE, "dontneed")
    return a


def intact(p: Process, a: int, every: int = 4, pages: int = FILLED) -> bool:
    """Whether what was stored is read, at every page that is left."""
    return all(p.read(a + i * PAGE, 5).rstrip(b"\0") == b"%d" % i for i in range(0, pages, every))


@pytest.fixture
def f() -> Moving:
    return Moving(ram=RAM)


def test_compaction_makes_whole_blocks_free(f: Moving) -> None:
    a = scattered(f)
    free = int(f.k.nr_free)
    assert not run_available(f.k, HPAGE_PMD_ORDER)
    result = f.m.compact()
    # 1008 pages are in use, which are 2 of 8 blocks.
    assert result.free_blocks >= 5
    assert result.moved > 700
    assert f.k.nr_free == free
    in_use = np.flatnonzero(np.asarray(f.k.pg_flags) & bits.PG_lru)
    assert int(np.median(in_use)) > RAM // 2, "they have gone to the end"
    assert intact(f.p, a)
    assert f.sound()
    # A second time there is nothing to do.
    assert f.m.compact().moved < 100


def test_an_allocation_compacts_when_it_needs_a_run(f: Moving) -> None:
    scattered(f)
    assert alloc_pages(f.k, GFP_NOWAIT, HPAGE_PMD_ORDER) == 0
    with f.m.kthread("alloc") as k:
        head = alloc_pages(k, GFP_KERNEL, HPAGE_PMD_ORDER)
    assert head
    assert f.stat("COMPACTSUCCESS") == 1
    assert f.stat("PSWPOUT") == f.stat("ALLOCSTALL") == 0, "nothing had to be reclaimed"
    moved = f.stat("PGMIGRATE_SUCCESS")
    assert 0 < moved < 1000, "it stops as soon as there is a run"
    put_page(f.k, head)
    assert f.sound()


def test_compaction_goes_on_where_it_ended(f: Moving) -> None:
    scattered(f)
    first = CompactControl(HPAGE_PMD_ORDER, bits.MIGRATE_SYNC)
    with f.m.kthread("compact") as k:
        assert compact_zone(k, first) == bits.COMPACT_SUCCESS
        head = alloc_pages(k, GFP_KERNEL, HPAGE_PMD_ORDER)
        second = CompactControl(HPAGE_PMD_ORDER, bits.MIGRATE_SYNC)
        assert compact_zone(k, second) == bits.COMPACT_SUCCESS
    assert first.whole_zone
    assert not second.whole_zone
    assert second.migrate_pfn > first.migrate_pfn
    put_page(f.k, head)


def test_without_enough_free_memory_it_is_not_tried(f: Moving) -> None:
    a = f.map(RAM - 1100)
    f.p.touch(a, (RAM - 1100) * PAGE)
    b = f.p.mmap(600 * PAGE)
    for i in range(600):
        f.p.touch(b + i * PAGE, PAGE)
    assert f.k.nr_free < 2 * HPAGE_PMD_NR
    assert not run_available(f.k, HPAGE_PMD_ORDER)
    assert compaction_suitable(f.k, HPAGE_PMD_ORDER) == bits.COMPACT_SKIPPED
    with f.m.kthread("compact") as k:
        assert try_to_compact_pages(k, HPAGE_PMD_ORDER, bits.MIGRATE_ASYNC) == bits.COMPACT_SKIPPED
    assert f.stat("COMPACTFAIL") == 1
    assert f.stat("COMPACTMIGRATE_SCANNED") == 0


def test_pinned_pages_are_in_the_way(f: Moving) -> None:
    a = scattered(f, every=256)
    pins = [f.p.pin(a + i * PAGE, PAGE) for i in range(0, FILLED, 256)]
    with f.m.kthread("compact") as k:
        cc = CompactControl(HPAGE_PMD_ORDER, bits.MIGRATE_SYNC)
        assert compact_zone(k, cc) == bits.COMPACT_COMPLETE
    assert cc.moved == 0
    for pin in pins:
        pin.release()
    with f.m.kthread("compact") as k:
        cc = CompactControl(HPAGE_PMD_ORDER, bits.MIGRATE_SYNC)
        assert compact_zone(k, cc) == bits.COMPACT_SUCCESS
    assert intact(f.p, a, every=256)


def test_failures_put_the_next_attempts_off(f: Moving) -> None:
    k = f.k
    assert not compaction_deferred(k, 9)
    skipped = []
    for _ in range(8):
        defer_compaction(k, 9)
        skipped.append(0)
        while compaction_deferred(k, 9):
            skipped[-1] += 1
    assert skipped == [1, 3, 7, 15, 31, 63, 63, 63]
    defer_compaction(k, 9)
    assert not compaction_deferred(k, 3), "a smaller run may be had"
    defer_compaction(k, 2)
    assert compaction_deferred(k, 3)
    compaction_defer_reset(k, 3)
    assert not compaction_deferred(k, 3)


def test_an_attempt_that_found_nothing_is_not_made_again_at_once(f: Moving) -> None:
    a = scattered(f, every=256)
    pins = [f.p.pin(a + i * PAGE, PAGE) for i in range(0, FILLED, 256)]
    with f.m.kthread("alloc") as k:
        light = bits.MIGRATE_SYNC_LIGHT
        assert try_to_compact_pages(k, HPAGE_PMD_ORDER, light) == bits.COMPACT_COMPLETE
        assert try_to_compact_pages(k, HPAGE_PMD_ORDER, light) == bits.COMPACT_DEFERRED
    for pin in pins:
        pin.release()


def test_pages_that_are_written_wait_for_a_compaction_that_waits(f: Moving) -> None:
    area = f.k.swap_areas[0]
    area.deferred = True
    a = f.map(8)
    f.p.touch(a, 8 * PAGE)
    f.p.madvise(a, 8 * PAGE, "pageout")
    under_way = list(area.pending)
    assert len(under_way) == 8
    with f.m.kthread("compact") as k:
        cc = CompactControl(-1, bits.MIGRATE_ASYNC)
        compact_zone(k, cc)
    assert [page for page in under_way if f.flags(page, bits.PG_writeback)] == under_way


@pytest.mark.parametrize("plan", ["migration_target:every=3", "arch_unmap_one:every=5"])
def test_failures_in_the_middle_leave_nothing_behind(f: Moving, plan: str) -> None:
    a = scattered(f)
    f.m.inject = FailPlan.from_text(plan)
    f.m.compact()
    f.m.inject = None
    assert f.stat("NR_ISOLATED") == 0
    assert intact(f.p, a)
    assert f.sound()
    f.m.compact()
    assert run_available(f.k, HPAGE_PMD_ORDER)
    assert f.sound()


def test_huge_pages_stay_and_are_gone_around(f: Moving) -> None:
    a = scattered(f)
    f.m.compact()
    head = alloc_pages(f.k, GFP_KERNEL, HPAGE_PMD_ORDER)
    f.m.compact()
    assert f.flags(head, bits.PG_head)
    put_page(f.k, head)
    assert intact(f.p, a)
    assert f.sound()


def contents_of(f: Moving, p: Process, a: int, pages: int) -> bytes:
    """What a process would read, found without letting it fault anything in."""
    child = bytearray()
    for i in range(pages):
        pte = p.pte(a + i * PAGE)
        page = p.pages(a + i * PAGE, PAGE)[0]
        if page:
            child += f.k.content.get(page, b"").ljust(PAGE, b"\0")
        elif is_swap_pte(pte):
            slot = swp_offset(pte_to_swp_entry(pte))
            area = f.k.swap_areas[0]
            cached = area.cache[slot]
            data = f.k.content.get(cached, b"") if cached else area.slots.get(slot, b"")
            child += data.ljust(PAGE, b"\0")
        else:
            child += b"?" * PAGE
    return bytes(child)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_is_mapped_compaction_changes_nothing_that_a_process_can_see(
    data: st.DataObject,
) -> None:
    """Processes, forks, files, shared memory, swap, mlock; recounted and read before and after."""
    f = Moving(ram=1024, swap=128)
    draw = data.draw
    processes = [f.p]
    file = f.file(16, b"file" * 100)
    kinds = ("anon", "shared", "file", "fileprivate")
    where: list[tuple[Process, int, int]] = []
    for number in range(draw(st.integers(2, 6))):
        p = draw(st.sampled_from(processes))
        kind = draw(st.sampled_from(kinds))
        pages = draw(st.integers(1, 12))
        options = {"file": file} if kind.startswith("file") else {}
        a = p.mmap(pages * PAGE, kind=kind, addr=ARENA + (number << 24), **options)
        for i in range(pages):
            if draw(st.booleans()):
                p.write(a + i * PAGE, b"%d.%d" % (number, i))
        where.append((p, a, pages))
        if draw(st.booleans()):
            child = p.fork()
            processes.append(child)
            where += [(child, b, n) for q, b, n in where if q is p]
        if draw(st.booleans()):
            p.madvise(a, pages * PAGE, "pageout" if draw(st.booleans()) else "cold")
            f.m.reclaim(8)
    for p, a, _ in where:
        if draw(st.booleans()):
            p.madvise(a, PAGE, "dontneed")
        if draw(st.booleans()):
            p.mlock(a, PAGE)
    assert f.m.check() == []

    def seen() -> list[object]:
        ptes = [
            [(q.pte(b + i * PAGE) & (bits._PAGE_PRESENT | bits._PAGE_RW)) for i in range(n)]
            for q, b, n in where
        ]
        rss = [list(q.mm.rss_stat) for q in processes]
        counts = sorted(
            (int(f.k.pg_mapcount[page]), int(f.k.pg_refcount[page]))
            for page in range(1, 1025)
            if f.k.pg_refcount[page]
        )
        return [ptes, rss, counts, {n: v for n, v in f.m.mem_stats().items() if n[:3] == "nr_"}]

    before = seen()
    contents = [contents_of(f, p, a, n) for p, a, n in where]
    mode = draw(st.sampled_from(["async", "light", "sync"]))
    pages = [page for q, b, n in where for page in q.pages(b, n * PAGE) if page]
    result = f.m.migrate(pages, mode)
    assert f.m.check() == []
    assert seen() == before
    assert not set(result.moved) & set(result.stayed)
    f.m.compact()
    assert f.m.check() == []
    assert seen() == before
    assert f.m.warnings == []
    assert [contents_of(f, p, a, n) for p, a, n in where] == contents

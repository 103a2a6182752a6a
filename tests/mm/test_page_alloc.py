# SPDX-License-Identifier: GPL-2.0-only
"""Taking and giving back pages: the order, the checks, what happens when there are none left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import Failing, make_kernel

from rmap.mm.bits import (
    GFP_ATOMIC,
    GFP_KERNEL,
    GFP_NOWAIT,
    NR_FREE_PAGES,
    PAGE_MAPPING_ANON,
    PGALLOC,
    PGFREE,
    PG_active,
    PG_dirty,
    PG_hwpoison,
    PG_swapbacked,
)
from rmap.mm.bug import KernelBug
from rmap.mm.lru import put_page
from rmap.mm.mm_types import Kernel, MemCgroup, Reclaimer
from rmap.mm.page import PageTail, compound_head, compound_order, get_page
from rmap.mm.page_alloc import (
    alloc_page,
    alloc_pages,
    free_unref_page,
    isolate_free_page,
    setup_per_zone_wmarks,
)


class Hoard(Reclaimer):
    """Reclaim that gives back pages it was handed, some at a time, and counts how often."""

    def __init__(self, pages: list[int], at_a_time: int = 1) -> None:
        self.pages = pages
        self.at_a_time = at_a_time
        self.calls = 0

    def try_to_free_pages(self, k: Kernel, memcg: MemCgroup | None, wanted: int) -> int:
        self.calls += 1
        freed = 0
        while self.pages and freed < self.at_a_time:
            put_page(k, self.pages.pop())
            freed += 1
        return freed


def test_pages_are_given_out_until_there_are_none() -> None:
    k = make_kernel(4)
    taken = [alloc_page(k, GFP_KERNEL) for _ in range(5)]
    assert taken == [1, 2, 3, 4, 0]
    assert k.nr_free == k.vm_stat[NR_FREE_PAGES] == 0
    for page in taken[:4]:
        assert k.pg_refcount[page] == 1
        assert k.pg_mapcount[page] == -1
        assert k.pg_mapping[page] == k.pg_flags[page] == k.pg_private[page] == 0
    assert k.vm_stat[PGALLOC] == 4


def test_the_page_that_was_freed_last_is_taken_first() -> None:
    k = make_kernel(8)
    pages = [alloc_page(k, GFP_KERNEL) for _ in range(4)]
    for page in pages:
        put_page(k, page)
    assert [alloc_page(k, GFP_KERNEL) for _ in range(5)] == [4, 3, 2, 1, 5]
    assert k.vm_stat[PGFREE] == 4


def test_a_freed_page_comes_back_empty() -> None:
    k = make_kernel(1)
    page = alloc_page(k, GFP_KERNEL)
    k.pg_flags[page] |= PG_dirty | PG_swapbacked
    k.pg_mapping[page] = 7 << 2 | PAGE_MAPPING_ANON
    k.pg_private[page] = 3
    k.content[page] = b"secret"
    put_page(k, page)
    # This is where a page stops being anonymous.
    assert k.pg_mapping[page] == 0
    assert not k.content
    # A CPU that still has a translation writes to the free page.
    k.content[page] = b"stray"
    assert alloc_page(k, GFP_KERNEL) == page
    assert k.pg_flags[page] == k.pg_private[page] == 0
    assert page not in k.content


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("pg_mapcount", 0, "nonzero mapcount"),
        ("pg_mapping", 1 << 2, "non-NULL mapping"),
        ("pg_memcg", 1, "still charged"),
        ("pg_flags", PG_active, "flags set"),
    ],
)
def test_a_page_in_a_wrong_state_is_a_bad_page(column: str, value: int, what: str) -> None:
    k = make_kernel(4)
    page = alloc_page(k, GFP_KERNEL)
    k.pg_refcount[page] = 0
    getattr(k, column)[page] = value
    with pytest.raises(KernelBug, match=f"bad page: {what}") as caught:
        free_unref_page(k, page)
    assert caught.value.page == page


def test_a_page_with_references_or_freed_already_is_a_bad_page() -> None:
    k = make_kernel(4)
    page = alloc_page(k, GFP_KERNEL)
    with pytest.raises(KernelBug, match="nonzero _refcount"):
        free_unref_page(k, page)
    put_page(k, page)
    with pytest.raises(KernelBug, match="free already"):
        free_unref_page(k, page)
    with pytest.raises(KernelBug, match="without references"):
        put_page(k, page)
    with pytest.raises(KernelBug, match="without references"):
        get_page(k, page)


def test_what_is_stored_in_a_free_page_is_found_when_it_is_taken() -> None:
    k = make_kernel(4)
    page = alloc_page(k, GFP_KERNEL)
    put_page(k, page)
    k.pg_mapcount[page] = 0
    with pytest.raises(KernelBug, match="nonzero mapcount"):
        alloc_page(k, GFP_KERNEL)


def test_a_broken_page_is_never_given_out_again() -> None:
    k = make_kernel(3)
    pages = [alloc_page(k, GFP_KERNEL) for _ in range(3)]
    k.pg_flags[pages[1]] |= PG_hwpoison
    for page in pages:
        put_page(k, page)
    assert {alloc_page(k, GFP_KERNEL), alloc_page(k, GFP_KERNEL)} == {pages[0], pages[2]}
    assert alloc_page(k, GFP_KERNEL) == 0
    # The very last page may be it.
    k = make_kernel(1)
    page = alloc_page(k, GFP_KERNEL)
    k.pg_flags[page] |= PG_hwpoison
    put_page(k, page)
    assert alloc_page(k, GFP_KERNEL) == 0


def test_an_allocation_can_be_made_to_fail() -> None:
    k = make_kernel(8)
    k.inject = Failing(2, "page", once=True)
    assert [bool(alloc_page(k, GFP_KERNEL)) for _ in range(3)] == [True, False, True]
    k.inject = Failing(1, "page")
    assert alloc_pages(k, GFP_KERNEL, 1) == 0


# ---------------------------------------------------------------- watermarks


def test_watermarks_are_those_of_the_kernel() -> None:
    # min_free_kbytes of a machine of 64 MiB is 1024, of 4 GiB 8192.
    k = make_kernel(16384)
    setup_per_zone_wmarks(k)
    assert (k.watermark_min, k.watermark_low, k.watermark_high) == (256, 320, 384)
    k = make_kernel(1 << 20)
    setup_per_zone_wmarks(k)
    assert k.watermark_min == 2048


def test_short_of_memory_an_allocation_reclaims_and_kswapd_is_woken() -> None:
    k = make_kernel(16)
    k.watermark_low, k.watermark_min = 8, 4
    pages = [alloc_page(k, GFP_KERNEL) for _ in range(8)]
    assert not k.kswapd_woken
    pages.append(alloc_page(k, GFP_KERNEL))
    assert k.kswapd_woken
    hoard = Hoard(pages[:4])
    k.reclaimer = hoard
    for _ in range(3):
        assert alloc_page(k, GFP_KERNEL)
    assert hoard.calls == 0
    # At the low mark of free pages each page taken has to be freed before.
    assert alloc_page(k, GFP_KERNEL)
    assert hoard.calls == 1
    assert k.nr_free == 4


def test_who_may_not_wait_does_not_reclaim() -> None:
    k = make_kernel(16)
    k.watermark_low, k.watermark_min = 8, 4
    pages = [alloc_page(k, GFP_KERNEL) for _ in range(12)]
    hoard = Hoard(pages)
    k.reclaimer = hoard
    assert alloc_page(k, GFP_NOWAIT) == 0
    # An atomic allocation digs into the reserve, and reclaim itself to the ground of it.
    assert alloc_page(k, GFP_ATOMIC)
    assert alloc_page(k, GFP_ATOMIC)
    assert alloc_page(k, GFP_ATOMIC) == 0
    k.in_reclaim = True
    assert alloc_page(k, GFP_NOWAIT)
    assert alloc_page(k, GFP_NOWAIT)
    assert alloc_page(k, GFP_NOWAIT) == 0
    assert hoard.calls == 0


def test_an_allocation_gives_up_when_reclaim_has_failed_sixteen_times_in_a_row() -> None:
    k = make_kernel(8)
    k.watermark_low = k.watermark_min = 6
    pages = [alloc_page(k, GFP_KERNEL), alloc_page(k, GFP_KERNEL)]
    hoard = Hoard([])
    k.reclaimer = hoard
    assert alloc_page(k, GFP_KERNEL) == 0
    assert hoard.calls == 16
    assert pages == [1, 2]


# ---------------------------------------------------------------- runs


def test_a_run_is_aligned_and_is_one_page() -> None:
    k = make_kernel(64)
    single = alloc_page(k, GFP_KERNEL)
    head = alloc_pages(k, GFP_KERNEL, 3)
    assert (single, head) == (1, 8)
    assert compound_order(k, head) == 3
    assert k.pg_refcount[head] == 1
    for page in range(head + 1, head + 8):
        assert PageTail(k, page)
        assert compound_head(k, page) == head
        assert k.pg_refcount[page] == 0
    # The pages that alignment left out are free, and are taken before those never used.
    assert k.nr_free == 64 - 9
    assert alloc_page(k, GFP_KERNEL) == 7
    get_page(k, head + 3)
    put_page(k, head + 5)
    put_page(k, head)
    assert k.nr_free == 64 - 2
    assert not PageTail(k, head + 1)


def test_a_run_is_found_among_freed_pages() -> None:
    k = make_kernel(32)
    pages = [alloc_page(k, GFP_KERNEL) for _ in range(32)]
    for page in pages:
        if page not in (5, 12, 13, 30):
            put_page(k, page)
    # 4-7 and 12-15 have pages in use, 28-31 too; 16 to 27 is free.
    assert alloc_pages(k, GFP_KERNEL, 2) == 8
    assert alloc_pages(k, GFP_KERNEL, 3) == 16
    assert alloc_pages(k, GFP_KERNEL, 3) == 0
    rest = {alloc_page(k, GFP_KERNEL) for _ in range(k.nr_free)}
    assert rest == set(range(1, 33)) - {5, 12, 13, 30} - set(range(8, 12)) - set(range(16, 24))


def test_a_block_that_became_free_is_found_at_once() -> None:
    """Huge pages come from blocks that are free as a whole, the latest first."""
    k = make_kernel(4096)
    pages = {alloc_page(k, GFP_KERNEL) for _ in range(4096)}
    assert alloc_pages(k, GFP_KERNEL, 9) == 0
    for page in range(512, 3 * 512):
        put_page(k, page)
        assert len(k.free_blocks) == (page + 1) // 512 - 1
    # Taking a page of it and giving it back does not list a block twice.
    for _ in range(3):
        put_page(k, alloc_page(k, GFP_KERNEL))
    assert k.free_blocks == [1, 2]
    assert alloc_pages(k, GFP_KERNEL, 9) == 1024
    taken = alloc_page(k, GFP_KERNEL)
    assert alloc_pages(k, GFP_KERNEL, 9) == 0
    put_page(k, taken)
    assert alloc_pages(k, GFP_KERNEL, 9) == 512
    assert len(pages) == 4096


def test_a_block_with_a_broken_page_is_no_huge_page() -> None:
    k = make_kernel(1535)
    for page in [alloc_page(k, GFP_KERNEL) for _ in range(1535)]:
        if page >= 512:
            k.pg_flags[page] |= PG_hwpoison if page == 700 else 0
            put_page(k, page)
    assert alloc_pages(k, GFP_KERNEL, 9) == 1024
    assert alloc_pages(k, GFP_KERNEL, 9) == 0
    assert 700 not in {alloc_page(k, GFP_KERNEL) for _ in range(511)}


def test_a_run_of_several_blocks() -> None:
    k = make_kernel(4096)
    for page in [alloc_page(k, GFP_KERNEL) for _ in range(4096)]:
        put_page(k, page)
    assert alloc_pages(k, GFP_KERNEL, 10) == 1024
    assert alloc_pages(k, GFP_KERNEL, 11) == 2048
    assert alloc_pages(k, GFP_KERNEL, 10) == 0


def test_a_free_page_can_be_asked_for_by_its_number() -> None:
    k = make_kernel(8)
    pages = [alloc_page(k, GFP_KERNEL) for _ in range(4)]
    for page in pages[:3]:
        put_page(k, page)
    assert isolate_free_page(k, 2), "from the middle of the stack"
    assert not isolate_free_page(k, 2)
    assert not isolate_free_page(k, 4), "in use"
    # What was never used is taken from its end.
    assert not isolate_free_page(k, 7)
    assert isolate_free_page(k, 8)
    assert isolate_free_page(k, 7)
    k.pg_flags[1] |= PG_hwpoison
    assert not isolate_free_page(k, 1)
    k.pg_flags[1] ^= PG_hwpoison
    assert k.nr_free == k.vm_stat[NR_FREE_PAGES] == 4
    for page in (2, 8, 7):
        assert k.pg_refcount[page] == 1
        put_page(k, page)
    assert sorted(alloc_page(k, GFP_KERNEL) for _ in range(7)) == [1, 2, 3, 5, 6, 7, 8]
    assert alloc_page(k, GFP_KERNEL) == 0


class Compactor(Hoard):
    """Makes the missing pages of a run free when it is asked to compact."""

    def __init__(self, pages: list[int], reclaimable: list[int], succeeds: bool) -> None:
        super().__init__(reclaimable, 64)
        self.blocking = pages
        self.succeeds = succeeds
        self.asked: list[tuple[int, bool]] = []

    def compact(self, k: Kernel, order: int, wait: bool) -> bool:
        self.asked.append((order, wait))
        while self.succeeds and self.blocking:
            put_page(k, self.blocking.pop())
        return self.succeeds


@pytest.mark.parametrize("order", [2, 9])
def test_a_run_that_is_not_there_is_made(order: int) -> None:
    k = make_kernel(1024)
    for page in [alloc_page(k, GFP_KERNEL) for _ in range(1024)]:
        if page % 4:
            put_page(k, page)
    held = [page for page in range(4, 1024, 4) if page]
    k.reclaimer = compactor = Compactor(held, [], True)
    # Who may not wait gets what is there, and that is nothing.
    assert alloc_pages(k, GFP_NOWAIT, order) == 0
    assert compactor.asked == []
    assert alloc_pages(k, GFP_KERNEL, order)
    assert compactor.asked == [(order, False)]
    assert compactor.calls == 0


@pytest.mark.parametrize(("order", "attempts"), [(2, 3), (9, 1)])
def test_a_large_run_is_worth_one_attempt_at_reclaim(order: int, attempts: int) -> None:
    """As long as reclaim frees something, a small run is tried for; a huge page is not."""
    k = make_kernel(4096)
    pages = [alloc_page(k, GFP_KERNEL) for _ in range(4096)]
    for page in pages:
        if page % 4 == 3:
            put_page(k, page)
    rest = [page for page in pages if page % 4 == 2]
    k.reclaimer = compactor = Compactor([], rest[:128], False)
    free = int(k.nr_free)
    assert alloc_pages(k, GFP_KERNEL, order) == 0
    assert k.nr_free == free + min(attempts * 64, 128)
    assert compactor.asked == [(order, False)] + [(order, True)] * attempts
    k.in_reclaim = True
    assert alloc_pages(k, GFP_KERNEL, order) == 0, "reclaim does not reclaim"
    assert compactor.calls == attempts


def test_a_mapped_run_is_not_freed() -> None:
    k = make_kernel(16)
    head = alloc_pages(k, GFP_KERNEL, 1)
    k.pg_lru_prev[head + 1] = 1
    with pytest.raises(KernelBug, match="mapped as a whole"):
        put_page(k, head)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 99)), max_size=80))
def test_no_page_is_given_to_two(steps: list[tuple[bool, int, int]]) -> None:
    """Whatever is taken and given back, in use and free pages add up and are not the same."""
    k = make_kernel(40)
    held: list[tuple[int, int]] = []
    for take, order, which in steps:
        if take:
            head = alloc_pages(k, GFP_KERNEL, order)
            if head:
                held.append((head, order))
        elif held:
            put_page(k, held.pop(which % len(held))[0])
        in_use = [page for head, order in held for page in range(head, head + (1 << order))]
        assert len(in_use) == len(set(in_use))
        assert k.nr_free == 40 - len(in_use) == k.vm_stat[NR_FREE_PAGES]
        assert np.count_nonzero(np.asarray(k.pg_refcount)) == len(held)
        assert all(head % (1 << order) == 0 for head, order in held)

# SPDX-License-Identifier: GPL-2.0-only
"""Pools of huge pages: their size, what is promised of them, surplus pages, taking pages out."""

from __future__ import annotations

import pytest

from rmap.mm.bits import EBUSY, MAP_NORESERVE, PG_hwpoison
from rmap.mm.bug import KernelBug
from rmap.mm.hugetlb.pool import (
    alloc_huge_page_nodemask,
    alloc_surplus_huge_page,
    dissolve_free_huge_page,
    isolate_huge_page,
    page_hstate,
    put_huge_page,
    putback_active_hugepage,
    set_max_huge_pages,
    size_to_hstate,
)
from rmap.model import BusError, FailPlan, HugePages, Machine, SyscallError

HUGE = 2 << 20


def machine(pages: int = 4) -> Machine:
    m = Machine(ram=8192, cpus=2, swap=0)
    assert m.hugetlb.pool(pages) == pages
    return m


def test_a_pool_takes_its_pages_from_the_allocator_and_gives_them_back() -> None:
    m = Machine(ram=4096)
    before = m.kernel.nr_free
    assert m.hugetlb.pool(3) == 3
    assert m.hugetlb.pages() == HugePages(3, 3, 0, 0)
    assert m.kernel.nr_free == before - 3 * 512
    assert m.hugetlb.pool(1) == 1
    assert m.hugetlb.pool(0) == 0
    assert m.kernel.nr_free == before
    assert m.check() == []


def test_a_pool_has_what_memory_permits() -> None:
    m = Machine(ram=2048)
    assert m.hugetlb.pool(100) in (2, 3)
    assert m.check() == []
    m.hugetlb.pool(0)
    m.inject = FailPlan.nth(2, "hugetlb_page")
    assert m.hugetlb.pool(3) == 1


def test_pages_of_1_gib_are_looked_for_among_what_is_free() -> None:
    m = Machine(ram=3 << 18)
    assert m.hugetlb.pool(1, "1G") == 1
    assert m.hugetlb.pages("1G") == HugePages(1, 1, 0, 0)
    assert m.hugetlb.pool(0, "1G") == 0
    # One small page in the way of each is enough.
    p = m.spawn("init")
    a = p.mmap(4096)
    p.write(a, b"x")
    assert m.hugetlb.pool(5, "1G") <= 2
    with pytest.raises(ValueError, match="2M and 1G"):
        m.hugetlb.pool(1, "4K")


def test_promised_pages_are_nobody_elses() -> None:
    m = machine(3)
    p, q = m.spawn("p"), m.spawn("q")
    a = p.mmap(2 * HUGE, kind="hugetlb")
    assert m.hugetlb.pages() == HugePages(3, 3, 2, 0)
    with pytest.raises(SyscallError, match="mmap"):
        q.mmap(2 * HUGE, kind="hugetlb")
    # Without a promise, one may try; and come too late.
    b = q.mmap(2 * HUGE, kind="hugetlb", flags=MAP_NORESERVE)
    q.write(b, b"1")
    with pytest.raises(BusError):
        q.write(b + HUGE, b"2")
    p.write(a, b"1")
    p.write(a + HUGE, b"2")
    assert m.hugetlb.pages() == HugePages(3, 0, 0, 0)
    assert m.check() == []


def test_a_mapping_that_goes_gives_its_promise_back() -> None:
    m = machine(4)
    p = m.spawn("p")
    a = p.mmap(4 * HUGE, kind="hugetlb")
    p.write(a + HUGE, b"x")
    # Two of the parts have a page less to give back than they are long.
    p.munmap(a + 2 * HUGE, HUGE)
    assert m.hugetlb.pages() == HugePages(4, 3, 2, 0)
    p.munmap(a, 2 * HUGE)
    assert m.hugetlb.pages() == HugePages(4, 4, 1, 0)
    p.exit()
    assert m.hugetlb.pages() == HugePages(4, 4, 0, 0)
    assert m.check() == []


def test_surplus_pages_come_when_they_are_needed_and_go_when_they_are_not() -> None:
    m = machine(1)
    m.hugetlb.overcommit(2)
    p = m.spawn("p")
    a = p.mmap(3 * HUGE, kind="hugetlb")
    assert m.hugetlb.pages() == HugePages(3, 3, 3, 2)
    with pytest.raises(SyscallError):
        p.mmap(HUGE, kind="hugetlb")
    p.write(a, b"x")
    p.munmap(a, HUGE)
    assert m.hugetlb.pages() == HugePages(2, 2, 2, 1)
    p.exit()
    assert m.hugetlb.pages() == HugePages(1, 1, 0, 0)
    assert m.check() == []


def test_a_fault_without_a_promise_may_make_a_surplus_page() -> None:
    m = machine(0)
    m.hugetlb.overcommit(1)
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb", flags=MAP_NORESERVE)
    p.write(a, b"x")
    assert m.hugetlb.pages() == HugePages(1, 0, 0, 1)
    with pytest.raises(BusError):
        p.write(a + HUGE, b"x")
    p.exit()
    assert m.hugetlb.pages() == HugePages(0, 0, 0, 0)


def test_a_promise_that_cannot_be_kept_is_not_made() -> None:
    m = machine(1)
    m.hugetlb.overcommit(3)
    m.inject = FailPlan.nth(2, "hugetlb_page")
    p = m.spawn("p")
    with pytest.raises(SyscallError):
        p.mmap(3 * HUGE, kind="hugetlb")
    assert m.hugetlb.pages() == HugePages(1, 1, 0, 0)
    assert m.check() == []


def test_a_pool_shrinks_to_what_is_needed_and_calls_the_rest_surplus() -> None:
    m = machine(4)
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb")
    p.write(a, b"x")
    assert m.hugetlb.pool(0) == 0
    assert m.hugetlb.pages() == HugePages(2, 1, 1, 2)
    p.write(a + HUGE, b"x")
    # Surplus pages are of the pool again if it grows.
    assert m.hugetlb.pool(1) == 1
    assert m.hugetlb.pages() == HugePages(2, 0, 0, 1)
    p.exit()
    assert m.hugetlb.pages() == HugePages(1, 1, 0, 0)
    assert m.check() == []


def test_a_broken_page_is_given_to_nobody() -> None:
    m = machine(2)
    h = m.hugetlb.hstate()
    broken = h.hugepage_freelist[0]
    m.kernel.pg_flags[broken] |= PG_hwpoison
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb", flags=MAP_NORESERVE)
    p.write(a, b"x")
    assert p.pages(a, 1) != [broken]
    with pytest.raises(BusError):
        p.write(a + HUGE, b"x")


def test_a_free_page_is_dissolved_unless_somebody_was_promised_it() -> None:
    m = machine(2)
    h = m.hugetlb.hstate()
    page = h.hugepage_freelist[0]
    p = m.spawn("p")
    p.mmap(2 * HUGE, kind="hugetlb")
    with m.kthread("offline") as k:
        assert dissolve_free_huge_page(k, page) == -EBUSY
    p.exit()
    k.pg_flags[page] |= PG_hwpoison
    k.num_poisoned_pages = 1
    with m.kthread("offline") as k:
        assert dissolve_free_huge_page(k, page + 7) == 0
    assert (h.nr_huge_pages, h.max_huge_pages) == (1, 1)
    assert k.pg_flags[page + 7] & PG_hwpoison, "the part that is broken is marked, not the head"
    assert not k.pg_flags[page] & PG_hwpoison
    with m.kthread("offline") as k:
        assert dissolve_free_huge_page(k, page) == -EBUSY, "it is no huge page any more"
    assert m.check() == []


def test_a_page_in_use_is_isolated_and_put_back() -> None:
    m = machine(2)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlb")
    p.write(a, b"x")
    page = p.pages(a, 1)[0]
    taken: list[int] = []
    with m.kthread("mover") as k:
        assert isolate_huge_page(k, page, taken)
        assert not isolate_huge_page(k, page, taken)
        assert not isolate_huge_page(k, page + 1, taken)
        assert taken == [page]
        putback_active_hugepage(k, page)
    assert m.check() == []


def test_a_page_to_migrate_to_is_a_free_one_or_a_temporary_one() -> None:
    m = machine(1)
    h = m.hugetlb.hstate()
    with m.kthread("mover") as k:
        first = alloc_huge_page_nodemask(k, h)
        second = alloc_huge_page_nodemask(k, h)
        assert first
        assert second
        assert h.nr_huge_pages == 2
        put_huge_page(k, second)
        assert h.nr_huge_pages == 1
        put_huge_page(k, first)
        assert alloc_huge_page_nodemask(k, m.hugetlb.hstate("1G")) == 0
        assert alloc_surplus_huge_page(k, m.hugetlb.hstate("1G")) == 0
    assert m.check() == []


def test_who_makes_surplus_pages_at_the_same_time_may_be_one_too_many() -> None:
    m = machine(0)
    h = m.hugetlb.hstate()
    m.hugetlb.overcommit(1)

    class Taker(FailPlan):
        """While one page is allocated, another CPU takes the last that may be surplus."""

        def should_fail(self, site: str) -> bool:
            if site == "hugetlb_page":
                h.nr_overcommit_huge_pages = 0
            return False

    m.inject = Taker()
    with m.kthread("fault") as k:
        assert alloc_surplus_huge_page(k, h) == 0
    assert h.nr_huge_pages == 0
    m.inject = None
    assert m.check() == []


def test_what_no_pool_has_is_a_bug() -> None:
    m = machine(1)
    with pytest.raises(KernelBug, match="not huge"):
        page_hstate(m.kernel, 1)
    with pytest.raises(KernelBug, match="no huge pages have that size"):
        size_to_hstate(m.kernel, 4)
    with m.kthread("sysctl") as k:
        assert set_max_huge_pages(k, m.hugetlb.hstate(), 1) == 1

# SPDX-License-Identifier: GPL-2.0-only
"""No memory, and no huge pages, at every place where mappings of huge pages ask for any."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rmap.mm.bits import MAP_NORESERVE, VM_FAULT_OOM
from rmap.mm.hugetlb.fault import hugetlb_fault
from rmap.mm.hugetlb.reserve import region_add, region_chg, region_count, region_del
from rmap.mm.mm_types import ResvMap
from rmap.mm.profile import profile
from rmap.model import (
    BusError,
    FailPlan,
    HugePages,
    Machine,
    OutOfMemory,
    Process,
    SyscallError,
)

HUGE = 2 << 20
GIGA = 1 << 30
BASE = 1 << 40
FIXED = profile("4.18", hugetlb_usage_starts_at_zero=True, hugetlb_unshare_flushes=True)


def private(m: Machine) -> None:
    """Map, touch, fork, copy, and give up."""
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb")
    p.write(a, b"p")
    q = p.fork("q")
    q.write(a, b"q")
    p.write(a + HUGE, b"p")
    assert (p.read(a, 1), q.read(a, 1)) == (b"p", b"q")


def shared(m: Machine) -> None:
    """Share a file, its table, and a private copy of a page of it."""
    f = m.hugetlb.file("f", 512)
    p, q = m.spawn("p"), m.spawn("q")
    for process in (p, q):
        process.mmap(GIGA, kind="file", file=f, addr=BASE, flags=MAP_NORESERVE)
    p.write(BASE + HUGE, b"p")
    q.write(BASE, b"q")
    r = q.fork("r")
    copy = r.mmap(HUGE, kind="fileprivate", file=f)
    r.read(copy, 1)
    r.write(copy, b"r")
    f.punch_hole(HUGE, HUGE)
    assert (p.read(BASE, 1), r.read(copy, 1)) == (b"q", b"r")


def surplus(m: Machine) -> None:
    """Make pages when they are needed."""
    m.hugetlb.pool(0)
    m.hugetlb.overcommit(4)
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb")
    p.write(a, b"p")
    b = p.mmap(HUGE, kind="hugetlb", flags=MAP_NORESERVE)
    p.write(b, b"p")


@pytest.mark.parametrize("what", [private, shared, surplus])
def test_any_one_allocation_may_fail(what: Callable[[Machine], None]) -> None:
    counted = FailPlan()
    finished = False
    number = 0
    while not finished:
        number += 1
        m = Machine(ram=8192, cpus=2, swap=0, profile=FIXED)
        m.hugetlb.pool(4)
        m.inject = FailPlan.nth(number)
        try:
            what(m)
            finished = m.inject.failed == 0
        except (SyscallError, OutOfMemory, BusError, MemoryError):
            pass
        counted.calls.update(site for site, _ in m.inject.failures)
        m.inject = None
        assert m.check() == [], number
        for p in list(m.processes.values()):
            p.exit()
        for file in list(m.files.values()):
            file.unlink()  # type: ignore[attr-defined]  # all are of hugetlbfs
        m.hugetlb.overcommit(0)
        m.hugetlb.pool(0)
        assert m.hugetlb.pages() == HugePages(0, 0, 0, 0), number
        assert m.check() == [], number
    assert {"page_table", "hugetlb_region", "vma"} <= set(counted.calls)


def faulting(m: Machine, p: Process, address: int, flags: int) -> int:
    with m.running(p) as k:
        p.mm.mmap_sem.down_read()
        result = hugetlb_fault(k, p.vma_at(address), address, flags)
        p.mm.mmap_sem.up_read()
    return int(result)


@pytest.mark.parametrize("site", ["page_table", "anon_vma", "hugetlb_region"])
def test_a_fault_without_memory_keeps_what_was_promised(site: str) -> None:
    m = Machine(ram=8192, cpus=2, swap=0, profile=FIXED)
    m.hugetlb.pool(2)
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb")
    vma = p.vma_at(a)
    assert vma is not None
    vma.resv_map.region_cache_count = 0
    m.inject = FailPlan.nth(1, site)
    assert faulting(m, p, a, 1) == VM_FAULT_OOM
    assert m.inject.failed == 1
    assert m.hugetlb.pages() == HugePages(2, 2, 2, 0)
    assert m.check() == []
    p.write(a, b"now")
    assert m.check() == []


def test_a_promise_that_cannot_be_told_is_given_up() -> None:
    m = Machine(ram=8192, cpus=2, swap=0, profile=FIXED)
    m.hugetlb.pool(2)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlb")
    vma = p.vma_at(a)
    assert vma is not None

    class AnonVma(FailPlan):
        """No anon_vma; and then no memory to correct the map either."""

        def should_fail(self, site: str) -> bool:
            if site == "anon_vma":
                vma.resv_map.region_cache_count = 0
            return site in ("anon_vma", "hugetlb_region")

    m.inject = AnonVma()
    # The first answer of the map needs no memory.
    assert faulting(m, p, a, 1) == VM_FAULT_OOM
    m.inject = None
    assert m.hugetlb.pages() == HugePages(2, 2, 0, 0)
    assert m.check() == []
    # It may still have a page that nobody was promised.
    p.write(a, b"x")


def test_a_region_that_has_to_be_cut_needs_memory() -> None:
    m = Machine(ram=64)
    k = m.kernel
    resv = ResvMap(1)
    with m.kthread("test"):
        assert region_chg(k, resv, 0, 10) == 10
        assert region_add(k, resv, 0, 10) == 10
        assert region_chg(k, resv, 4, 12) == 2
        assert region_add(k, resv, 4, 12) == 2
        assert resv.regions == [(0, 12)]
        # A descriptor that no addition needs is taken first.
        assert region_del(k, resv, 3, 4) == 1
        assert resv.region_cache_count == 0
        m.inject = FailPlan.every(1, "hugetlb_region")
        assert region_del(k, resv, 6, 7) == -12
        assert region_chg(k, resv, 20, 21) == -12
        assert resv.regions == [(0, 3), (4, 12)]
        assert region_del(k, resv, 2, 6) == 3
        assert region_count(k, resv, 0, 100) == 8
        m.inject = None
        assert region_del(k, resv, 7, 8) == 1
        assert resv.regions == [(0, 2), (6, 7), (8, 12)]
    assert resv.adds_in_progress == 0


def test_a_hole_that_cannot_be_taken_out_of_the_map_stays_promised() -> None:
    m = Machine(ram=8192, cpus=2, swap=0, profile=FIXED)
    m.hugetlb.pool(4)
    f = m.hugetlb.file("f", 3)
    p = m.spawn("p")
    a = p.mmap(3 * HUGE, kind="file", file=f)
    p.touch(a, 3 * HUGE)
    f.mapping.resv_map.region_cache_count = 0
    m.inject = FailPlan.every(1, "hugetlb_region")
    f.punch_hole(HUGE, HUGE)
    m.inject = None
    assert m.hugetlb.pages() == HugePages(4, 2, 1, 0)
    assert m.check() == []
    p.write(a + HUGE, b"x")
    assert m.hugetlb.pages() == HugePages(4, 1, 0, 0)

# SPDX-License-Identifier: GPL-2.0-only
"""Broken memory in huge pages of a pool: all of the page is lost, and the pool is one smaller."""

from __future__ import annotations

import errno

import pytest
from faulting import PAGE, Faulting

from rmap.mm import bits
from rmap.model import BrokenMemory, HugePages, Process

HUGE = 512 * PAGE
A = 1 << 32


def pooled(pages: int = 4, **quirks: bool) -> Faulting:
    """A machine with a pool of so many huge pages."""
    f = Faulting(ram=8192, **quirks)
    f.m.early_kill = True
    assert f.m.hugetlb.pool(pages) == pages
    return f


def mapped(f: Faulting, kind: str = "hugetlb", pages: int = 1) -> int:
    """Map huge pages for the first process, and write into the first."""
    a = f.p.mmap(pages * HUGE, kind=kind, addr=A)
    f.p.write(a, b"head")
    f.p.write(a + 7 * PAGE, b"part")
    return a


def told(f: Faulting, page: int) -> list[tuple[Process, int, int]]:
    """Break a page; who was told of which address and size."""
    failure = f.m.memory_failure(page)
    assert failure.error == 0, failure
    return [(kill.process, kill.address, kill.size) for kill in failure.kills]


@pytest.mark.parametrize("part", [0, 7])
def test_a_private_page_is_lost_as_a_whole_and_taken_apart(part: int) -> None:
    f = pooled()
    a = mapped(f)
    head = f.page(f.p, a)
    page = head + part
    assert told(f, page) == [(f.p, a, HUGE)]
    assert f.k.mf_actions[-1] == (page, bits.MF_MSG_HUGE, bits.MF_RECOVERED)
    for at in (a, a + 7 * PAGE):
        with pytest.raises(BrokenMemory):
            f.p.read(at, 1)
    # Out of the pool; its parts are free but for the one that is broken.
    assert f.m.hugetlb.pages() == HugePages(total=3, free=3, reserved=0, surplus=0)
    assert f.flags(page, bits.PG_hwpoison)
    assert [n for n in range(512) if f.flags(head + n, bits.PG_hwpoison)] == [part]
    assert f.counts(page) == (0, 0)
    assert f.k.num_poisoned_pages == 1
    assert f.sound()
    f.p.munmap(a, HUGE)
    assert f.sound()


def test_a_page_that_fork_shares_is_lost_to_both() -> None:
    f = pooled()
    a = mapped(f)
    child = f.p.fork("child")
    assert told(f, f.page(f.p, a)) == [(f.p, a, HUGE), (child, a, HUGE)]
    for p in (f.p, child):
        with pytest.raises(BrokenMemory):
            p.write(a + 3 * PAGE, b"x")
    grandchild = child.fork("grandchild")
    with pytest.raises(BrokenMemory):
        grandchild.read(a, 1)
    assert f.sound()


def test_a_page_of_a_file_becomes_a_hole() -> None:
    f = pooled()
    file = f.m.hugetlb.file("huge", 2)
    a = f.p.mmap(2 * HUGE, kind="file", file=file, addr=A)
    f.p.write(a, b"lost")
    f.p.write(a + HUGE, b"kept")
    q = f.m.spawn("q")
    b = q.mmap(2 * HUGE, kind="file", file=file, addr=2 * A)
    q.read(b, 1)
    head = f.page(f.p, a)
    assert told(f, head + 9) == [(f.p, a, HUGE), (q, b, HUGE)]
    with pytest.raises(BrokenMemory):
        f.p.read(a, 1)
    assert f.p.read(a + HUGE, 4) == b"kept"
    assert file.read(0, 4) == bytes(4)
    # It stays out of the pool, with the reference that nobody gives back.
    assert f.counts(head) == (0, 1)
    assert f.flags(head, bits.PG_hwpoison)
    assert f.sound()


def test_a_free_page_of_the_pool_is_taken_apart_if_it_is_the_head_that_breaks() -> None:
    f = pooled()
    free = [int(page) for page in f.k.hstates[0].hugepage_freelist]
    failure = f.m.memory_failure(free[0])
    assert (failure.kind, failure.result) == ("free_huge", "delayed")
    assert f.m.hugetlb.pages().total == 3
    # Of a tail v4.18 takes its own mark for another's: the page stays, and is never given out.
    failure = f.m.memory_failure(free[1] + 5)
    assert (failure.kind, failure.error) == ("", 0)
    assert f.m.hugetlb.pages() == HugePages(total=3, free=3, reserved=0, surplus=0)
    assert f.flags(free[1], bits.PG_hwpoison)
    (found,) = f.m.check()
    assert "poisoned" in str(found), "and is counted as if another had counted it"


def test_a_page_that_is_promised_stays_in_the_pool() -> None:
    f = pooled(pages=1)
    a = f.p.mmap(HUGE, kind="hugetlb", addr=A)
    (free,) = f.k.hstates[0].hugepage_freelist
    f.m.memory_failure(int(free))
    assert f.m.hugetlb.pages() == HugePages(total=1, free=1, reserved=1, surplus=0)
    # Whoever was promised it does not get it.
    with pytest.raises(Exception, match=r"finds no|needs memory"):
        f.p.write(a, b"x")


@pytest.mark.parametrize(("pins", "result"), [(1, "recovered"), (2, "failed")])
def test_of_those_who_hold_a_page_one_is_overlooked(pins: int, result: str) -> None:
    """Our reference is dropped before others are counted, and once more in the count."""
    f = pooled()
    a = mapped(f)
    head = f.page(f.p, a)
    held = [f.p.pin(a, PAGE) for _ in range(pins)]
    failure = f.m.memory_failure(head)
    assert failure.result == result
    assert failure.error == (0 if result == "recovered" else -errno.EBUSY)
    with pytest.raises(BrokenMemory):
        f.p.read(a, 1)
    for pin in held:
        pin.release()
    # Back in the pool, which gives out no page that is marked.
    assert f.flags(head, bits.PG_hwpoison)
    assert f.m.hugetlb.pages() == HugePages(total=4, free=4, reserved=0, surplus=0)
    assert f.sound()


def test_soft_offline_of_a_free_page_of_the_pool() -> None:
    f = pooled()
    (*_, free) = f.k.hstates[0].hugepage_freelist
    f.m.soft_offline(int(free) + 3)
    assert f.m.hugetlb.pages().total == 3
    assert f.flags(int(free) + 3, bits.PG_hwpoison)
    assert not f.flags(int(free), bits.PG_hwpoison)
    assert f.sound()

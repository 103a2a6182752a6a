# SPDX-License-Identifier: GPL-2.0-only
"""Broken memory in huge pages that PMDs map, as processes meet it."""

from __future__ import annotations

import errno

import pytest
from faulting import PAGE, Faulting

from rmap.mm import bits
from rmap.model import BrokenMemory, Process, SyscallError

HUGE = 512 * PAGE
A = 1 << 32


def thp(f: Faulting, pages: int = 1) -> int:
    """Map huge pages for the first process, and write into each small one of the first."""
    f.m.thp.enabled = "always"
    a = f.p.mmap(pages * HUGE, addr=A)
    for i in range(512):
        f.p.write(a + i * PAGE, b"part %d" % i)
    assert f.stat("NR_ANON_THPS") == 1
    return a


def family(f: Faulting, **how: int) -> tuple[int, list[Process]]:
    """The same, shared with a child."""
    a = thp(f, **how)
    return a, [f.p, f.p.fork("child")]


@pytest.mark.parametrize("base", ["4.18", "6.1"])
@pytest.mark.parametrize("part", [0, 7, 511])
def test_only_the_broken_part_is_lost_and_all_who_had_it_are_told(part: int, base: str) -> None:
    f = Faulting(ram=4096, base=base)
    f.m.early_kill = True
    a, processes = family(f)
    at = a + part * PAGE
    page = f.page(f.p, at)
    failure = f.m.memory_failure(page)
    assert (failure.kind, failure.result) == ("dirty_lru", "recovered") if part else True
    for p in processes:
        with pytest.raises(BrokenMemory):
            p.read(at, 1)
        for i in range(0, 512, 73):
            if i != part:
                assert p.read(a + i * PAGE, 9).rstrip(b"\0") == b"part %d" % i
        assert f.rss(p)[1] == 511
    assert [(k.process, k.address, k.size) for k in failure.kills] == [
        (p, at, PAGE) for p in processes
    ]
    assert f.counts(page) == (0, 1)
    assert f.stat("NR_ANON_THPS") == 0
    assert f.sound()


def test_a_huge_page_that_is_pinned_is_not_split_and_stays_in_use() -> None:
    f = Faulting(ram=4096)
    a = thp(f)
    page = f.page(f.p, a + 9 * PAGE)
    with f.p.pin(a + 9 * PAGE, PAGE):
        failure = f.m.memory_failure(page, action_required=f.p)
        assert failure.error == -errno.EBUSY
        # Nobody has told the process of the page, which it needs and cannot be without.
        assert [(kill.signal, kill.code) for kill in failure.kills] == [("SIGBUS", "")]
        assert f.p.read(a + 9 * PAGE, 6) == b"part 9"
        with pytest.raises(SyscallError) as refused:
            f.m.soft_offline(page)
        assert refused.value.errno == errno.EBUSY
    assert f.k.num_poisoned_pages == 0
    assert f.sound()


def test_the_huge_zero_page_is_nobodys_to_break() -> None:
    f = Faulting(ram=4096)
    f.m.thp.enabled = "always"
    a = f.p.mmap(HUGE, addr=A)
    f.p.read(a, 1)
    assert f.k.huge_zero_page
    failure = f.m.memory_failure(f.k.huge_zero_page + 3)
    assert failure.error == -errno.EBUSY
    assert f.p.read(a + 3 * PAGE, 1) == b"\0"
    assert f.sound()


def test_a_huge_page_of_shared_memory_is_not_dealt_with() -> None:
    f = Faulting(ram=4096)
    file = f.m.file("huge", 512, shmem=True, huge="always")
    a = f.p.mmap(HUGE, kind="file", file=file, addr=A)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    failure = f.m.memory_failure(page + 5)
    assert (failure.kind, failure.result) == ("kernel_high_order", "ignored")
    assert failure.error == -errno.EBUSY
    assert f.p.read(a, 1) == b"x"


def test_soft_offline_moves_one_part_and_leaves_the_rest() -> None:
    f = Faulting(ram=4096)
    a, processes = family(f)
    before = f.p.pages(a, HUGE)
    f.m.soft_offline(before[5])
    after = f.p.pages(a, HUGE)
    assert [i for i in range(512) if before[i] != after[i]] == [5]
    for p in processes:
        assert p.read(a + 5 * PAGE, 6) == b"part 5"
        assert p.read(a + 6 * PAGE, 6) == b"part 6"
    assert f.flags(before[5], bits.PG_hwpoison)
    assert f.counts(before[5]) == (0, 0)
    assert f.sound()


def test_madv_hwpoison_breaks_one_part_of_each_huge_page() -> None:
    """It goes on by the size that the page had."""
    f = Faulting(ram=8192)
    a = thp(f, pages=2)
    f.p.write(a + HUGE, b"second")
    f.p.madvise(a + 3 * PAGE, HUGE, "hwpoison")
    assert f.k.num_poisoned_pages == 1
    with pytest.raises(BrokenMemory):
        f.p.read(a + 3 * PAGE, 1)
    assert f.p.read(a + 4 * PAGE, 6) == b"part 4"
    assert f.p.read(a + HUGE, 6) == b"second"
    assert f.sound()


def test_khugepaged_leaves_poisoned_entries_alone() -> None:
    f = Faulting(ram=4096)
    a = thp(f)
    f.m.memory_failure(f.page(f.p, a + 7 * PAGE))
    f.m.khugepaged(pages=4096)
    assert f.stat("NR_ANON_THPS") == 0
    with pytest.raises(BrokenMemory):
        f.p.read(a + 7 * PAGE, 1)
    # A PMD that is split for munmap has the entry's place too.
    f.p.munmap(a + 7 * PAGE, PAGE)
    assert f.sound()

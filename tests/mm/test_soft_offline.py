# SPDX-License-Identifier: GPL-2.0-only
"""Memory that is about to break: what is on it goes elsewhere, and nobody notices."""

from __future__ import annotations

import errno

import pytest
from faulting import PAGE, Faulting
from kernels import Failing

from rmap.mm import bits
from rmap.model import SyscallError


def refused(f: Faulting, page: int) -> int:
    """With which errno a page stays in use."""
    with pytest.raises(SyscallError) as error:
        f.m.soft_offline(page)
    assert error.value.errno is not None
    return error.value.errno


def out_of_use(f: Faulting, page: int) -> bool:
    """Whether a page is marked and free, and never given out again."""
    assert f.counts(page) == (0, 0)
    assert f.flags(page, bits.PG_hwpoison)
    p = f.m.spawn("greedy")
    left = f.k.nr_free - 8
    a = p.mmap(left * PAGE)
    p.touch(a, left * PAGE)
    assert page not in p.pages(a, left * PAGE)
    p.exit()
    return f.sound()


def test_what_two_processes_share_moves_and_they_share_it_still() -> None:
    f = Faulting(ram=64)
    f.m.early_kill = True
    a = f.map(2)
    f.p.write(a, b"shared")
    child = f.p.fork("child")
    page = f.page(f.p, a)
    f.m.soft_offline(page)
    new = f.page(f.p, a)
    assert new not in (0, page)
    assert f.page(child, a) == new
    assert (f.p.read(a, 6), child.read(a, 6)) == (b"shared", b"shared")
    assert f.k.kills == []
    assert f.k.num_poisoned_pages == 1
    # Known to be broken now; and unpoisoned, as good as any.
    assert refused(f, page) == errno.EBUSY
    assert f.m.unpoison(page)
    assert f.k.num_poisoned_pages == 0
    f.m.soft_offline(page)
    assert out_of_use(f, page)


def test_a_clean_page_of_a_file_is_dropped_if_nobody_maps_it_and_moves_if_somebody_does() -> None:
    f = Faulting(ram=64)
    file = f.file(content=b"disk" + bytes(PAGE - 4) + b"more")
    file.read(0, 2 * PAGE)
    a = f.map(1, kind="file", file=file)
    f.p.read(a, 1)
    mapped, unmapped = file.cached[0], file.cached[1]
    f.m.soft_offline(unmapped)
    assert 1 not in file.cached
    f.m.soft_offline(mapped)
    assert file.cached[0] == f.page(f.p, a) != mapped
    assert f.p.read(a, 4) == b"disk"
    assert file.read(PAGE, 4) == b"more"
    assert out_of_use(f, mapped)
    assert out_of_use(f, unmapped)


def test_a_dirty_page_of_a_file_moves_dirty() -> None:
    f = Faulting()
    file = f.file()
    a = f.map(1, kind="file", file=file)
    f.p.write(a, b"dirty")
    page = f.page(f.p, a)
    f.m.soft_offline(page)
    assert file.writeback() == 1
    assert file.disk(0) == b"dirty"
    assert f.sound()


def test_a_page_of_the_swap_cache_moves_with_its_slot() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    child = f.p.fork("child")
    f.p.madvise(a, PAGE, "pageout")
    f.p.read(a, 1)
    page = f.page(f.p, a)
    f.m.soft_offline(page)
    assert f.flags(f.page(f.p, a), bits.PG_swapcache)
    assert child.read(a, 1) == b"x"
    assert f.page(child, a) == f.page(f.p, a) != page
    assert f.sound()


def test_a_free_page_is_only_marked() -> None:
    f = Faulting(ram=64)
    f.m.soft_offline(60)
    assert out_of_use(f, 60)


def test_a_page_that_somebody_holds_stays() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    with f.p.pin(a, PAGE):
        assert refused(f, page) == errno.EIO
        assert f.page(f.p, a) == page
    assert f.k.num_poisoned_pages == 0
    assert f.sound()


def test_without_memory_the_page_stays() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    f.m.inject = Failing(1, "migration_target")
    assert refused(f, page) == errno.ENOMEM
    f.m.inject = None
    assert f.page(f.p, a) == page
    assert f.p.read(a, 1) == b"x"
    assert f.sound()


def test_pages_that_cannot_be_moved() -> None:
    f = Faulting()
    a = f.map(1)
    f.p.read(a, 1)
    assert refused(f, f.k.zero_page) == errno.EIO
    assert refused(f, 0) == errno.ENXIO
    f.p.write(a, b"x")
    page = f.page(f.p, a)
    f.k.pg_flags[page] |= bits.PG_zone_device
    assert refused(f, page) == errno.EIO
    f.k.pg_flags[page] &= ~bits.PG_zone_device
    assert f.sound()


def test_madv_soft_offline_takes_page_after_page() -> None:
    f = Faulting()
    a = f.map(3)
    for n in range(3):
        f.p.write(a + n * PAGE, b"%d" % n)
    before = f.p.pages(a, 3 * PAGE)
    f.p.madvise(a, 2 * PAGE, "soft_offline")
    after = f.p.pages(a, 3 * PAGE)
    assert not set(before[:2]) & set(after)
    assert after[2] == before[2]
    assert [f.p.read(a + n * PAGE, 1) for n in range(3)] == [b"0", b"1", b"2"]
    assert f.k.num_poisoned_pages == 2
    with f.p.pin(a, PAGE), pytest.raises(SyscallError):
        f.p.madvise(a, 2 * PAGE, "soft_offline")
    assert f.sound()

# SPDX-License-Identifier: GPL-2.0-only
"""Faults on huge pages of a pool: first access, copy on write, fork, and what may not be done."""

from __future__ import annotations

import errno
from functools import partial

import pytest
from interruptions import interrupted

from rmap.mm import bits
from rmap.mm.bits import VM_FAULT_SIGBUS
from rmap.mm.hugetlb.fault import hugetlb_fault
from rmap.mm.page import (
    PageAnon,
    compound_mapcount,
    lock_page,
    page_anon_vma,
    page_mapcount,
    unlock_page,
)
from rmap.mm.page_vma_mapped import PageVmaMappedWalk, page_vma_mapped_walk
from rmap.mm.profile import KernelProfile, profile
from rmap.model import BusError, HugePages, Machine, Process, Segfault, SyscallError
from rmap.sync.bits import OP_ACQUIRE, OP_RELEASE, RANK_HUGETLB_FAULT, RANK_PTL

HUGE = 2 << 20
FIXED = profile("4.18", hugetlb_usage_starts_at_zero=True)


def machine(pages: int = 4, kind: str | KernelProfile = FIXED) -> Machine:
    m = Machine(ram=8192, cpus=2, swap=0, profile=kind, invariants=True)
    assert m.hugetlb.pool(pages) == pages
    return m


def family(m: Machine, length: int = HUGE) -> tuple[Process, Process, int]:
    """A parent with private huge pages that it has written to, and its child."""
    p = m.spawn("parent")
    a = p.mmap(length, kind="hugetlb")
    for offset in range(0, length, HUGE):
        p.write(a + offset, b"parent")
    return p, p.fork("child"), a


def test_the_first_access_maps_a_whole_page_of_zeros() -> None:
    m = machine()
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb")
    assert a % HUGE == 0
    assert p.read(a + 5000, 4) == bytes(4)
    head = p.pages(a, 1)[0]
    assert head % 512 == 0
    assert p.pages(a + 511 * 4096, 1) == [head + 511]
    assert p.order(a) == 9
    assert (p.mm.hugetlb_usage, sum(p.mm.rss_stat)) == (512, 0)
    assert PageAnon(m.kernel, head)
    assert page_anon_vma(m.kernel, head) is p.vmas[0].anon_vma
    assert m.mem_stats()["nr_anon_mapped"] == 0


def test_a_read_page_becomes_writable_in_place() -> None:
    m = machine(1)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlb")
    p.read(a, 1)
    head = p.pages(a, 1)[0]
    assert not p.pte(a) & bits._PAGE_RW
    p.write(a + 9999, b"x")
    assert p.pages(a, 1)[0] == head
    assert p.pte(a) & bits._PAGE_DIRTY


def test_fork_shares_and_a_write_copies_all_of_the_page() -> None:
    m = machine(2)
    p, q, a = family(m)
    head = p.pages(a, 1)[0]
    assert q.pages(a, 1)[0] == head
    assert compound_mapcount(m.kernel, head) == 2
    assert [one.process for one in m.who_maps(head)] == [p, q]
    q.write(a + 4096 * 100, b"child")
    assert q.read(a, 6) == b"parent"
    assert p.read(a + 4096 * 100, 5) == bytes(5)
    assert q.pages(a, 1)[0] != head
    assert page_mapcount(m.kernel, head) == 1
    # Whoever is left alone with it writes to it as it is, and it is his from then on.
    p.write(a, b"again")
    assert p.pages(a, 1)[0] == head
    assert page_anon_vma(m.kernel, head) is p.vmas[0].anon_vma


def test_the_owner_takes_the_page_from_its_child_if_the_pool_is_empty() -> None:
    m = machine(1)
    p, q, a = family(m)
    head = p.pages(a, 1)[0]
    assert q.read(a, 6) == b"parent"
    p.write(a, b"mine!!")
    assert p.pages(a, 1)[0] == head
    assert p.read(a, 6) == b"mine!!"
    # The child is told, not given zeros.
    with pytest.raises(BusError):
        q.read(a, 1)
    assert q.mm.hugetlb_usage == 0


def test_a_child_without_a_promise_is_refused() -> None:
    m = machine(1)
    p, q, a = family(m)
    with pytest.raises(BusError):
        q.write(a, b"x")
    assert q.read(a, 6) == b"parent"
    p.exit()
    q.write(a, b"x")
    assert m.hugetlb.pages() == HugePages(1, 0, 0, 0)


def test_grandchildren_are_found_by_the_file_and_shared_mappings_left_alone() -> None:
    m = machine(2)
    f = m.hugetlb.file("f", 1)
    p, s = m.spawn("p"), m.spawn("s")
    b = s.mmap(HUGE, kind="file", file=f)
    s.write(b, b"shared")
    a = p.mmap(HUGE, kind="fileprivate", file=f)
    p.write(a, b"copied")
    q = p.fork("q")
    r = q.fork("r")
    assert m.hugetlb.pages().free == 0
    p.write(a, b"alone!")
    for process in (q, r):
        with pytest.raises(BusError):
            process.read(a, 1)
    assert s.read(b, 6) == b"shared"


def test_a_page_of_the_file_is_copied_on_the_promise_of_the_mapping() -> None:
    m = machine(2)
    f = m.hugetlb.file("f", 1)
    s, p = m.spawn("s"), m.spawn("p")
    s.write(s.mmap(HUGE, kind="file", file=f), b"file")
    a = p.mmap(HUGE, kind="fileprivate", file=f)
    assert m.hugetlb.pages() == HugePages(2, 1, 1, 0)
    assert p.read(a, 4) == b"file"
    assert m.hugetlb.pages() == HugePages(2, 1, 1, 0), "nothing is used up by mapping it"
    p.write(a, b"mine")
    assert m.hugetlb.pages() == HugePages(2, 0, 0, 0)
    assert f.read(0, 4) == b"file"


def test_a_mapping_made_in_one_go_is_populated() -> None:
    m = machine(2)
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb", populate=True, locked=True)
    assert all(p.pages(a, 2 * HUGE))
    assert p.mm.locked_vm == 0, "they cannot be locked more than they are"
    assert not p.vmas[0].vm_flags & bits.VM_LOCKED


def test_what_cuts_a_huge_page_is_refused() -> None:
    m = machine(4)
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, kind="hugetlb")
    p.write(a, b"x")
    with pytest.raises(SyscallError) as caught:
        p.munmap(a + 4096, 4096)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(SyscallError):
        p.mprotect(a, 4096, "r")
    with pytest.raises(SyscallError):
        p.mremap(a, HUGE, 2 * HUGE)
    with pytest.raises(SyscallError):
        p.madvise(a, HUGE, "dontneed")
    with pytest.raises(SyscallError):
        p.mmap(HUGE, kind="hugetlb", addr=a + 4096)
    f = m.hugetlb.file("f", 2)
    with pytest.raises(SyscallError):
        p.mmap(HUGE, kind="file", file=f, pgoff=1)
    g = m.file("small", 512)
    with pytest.raises(SyscallError):
        p.mmap(HUGE, kind="file", file=g, flags=bits.MAP_HUGETLB)
    with pytest.raises(SyscallError):
        p.mmap(HUGE, kind="anon", flags=bits.MAP_HUGETLB | 25 << bits.MAP_HUGE_SHIFT)
    with pytest.raises(SyscallError):
        f.write(0, b"x")
    assert f.writeback() == 0


def test_protection_is_that_of_whole_pages() -> None:
    m = machine(3)
    p = m.spawn("p")
    a = p.mmap(3 * HUGE, kind="hugetlbshared")
    for i in range(3):
        p.write(a + i * HUGE, b"%d" % i)
    p.mprotect(a + HUGE, HUGE, "r")
    with pytest.raises(Segfault):
        p.write(a + HUGE, b"x")
    p.write(a + 2 * HUGE, b"x")
    p.mprotect(a + HUGE, HUGE, "none")
    with pytest.raises(Segfault):
        p.read(a + HUGE, 1)
    p.mprotect(a, 3 * HUGE, "rw")
    p.write(a + HUGE, b"y")
    assert p.read(a + HUGE, 1) == b"y"


def test_pins_hold_the_whole_page() -> None:
    m = machine(2)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlb")
    pin = p.pin(a + 4096, 8192, write=True)
    head = p.pages(a, 1)[0]
    assert pin.pages == [head + 1, head + 2]
    assert m.kernel.pg_refcount[head] == 3
    p.munmap(a, HUGE)
    assert m.hugetlb.pages().free == 1
    pin.release()
    assert m.hugetlb.pages().free == 2


@pytest.mark.parametrize("kind", ["6.1", "6.12"])
def test_later_kernels_copy_a_pinned_page_for_the_child(kind: str) -> None:
    m = machine(3, kind)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlb")
    p.write(a, b"pinned")
    head = p.pages(a, 1)[0]
    with p.pin(a, 4096, write=True):
        q = p.fork("q")
        assert q.pages(a, 1)[0] != head
        assert q.read(a, 6) == b"pinned"
        p.write(a, b"still!")
        assert p.pages(a, 1)[0] == head
    r = p.fork("r")
    assert r.pages(a, 1)[0] == head
    # A page that others have is made the reader's own before a device may read it for long.
    with r.pin(a, 4096, write=False) as pin:
        assert pin.pages == r.pages(a, 1)
        assert r.pages(a, 1)[0] != head
        p.write(a, b"parent")
        assert r.read(a, 6) == b"still!"


def test_a_pinned_page_for_whose_copy_there_is_none_makes_fork_fail() -> None:
    m = machine(1, "6.1")
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlb")
    p.write(a, b"pinned")
    with p.pin(a, 4096, write=True), pytest.raises(SyscallError):
        p.fork("q")


def test_a_fault_waits_for_a_page_that_somebody_has_locked() -> None:
    m = machine(2)
    p, q, a = family(m)
    head = p.pages(a, 1)[0]
    with (
        m.running(p) as k,
        interrupted(
            ((OP_ACQUIRE, RANK_PTL), partial(lock_page, k, head)),
            ((OP_RELEASE, RANK_HUGETLB_FAULT), partial(unlock_page, k, head)),
        ),
    ):
        p.mm.mmap_sem.down_read()
        assert hugetlb_fault(k, p.vmas[0], a, bits.FAULT_FLAG_WRITE) == 0
        p.mm.mmap_sem.up_read()
    assert p.pages(a, 1)[0] == head, "nothing done: the access is tried again"
    assert not p.pte(a) & bits._PAGE_RW
    p.write(a, b"second")
    assert q.read(a, 6) == b"parent"


def test_a_fault_beyond_the_end_of_the_file_is_one() -> None:
    m = machine(4)
    f = m.hugetlb.file("f", 1)
    p = m.spawn("p")
    a = p.mmap(2 * HUGE, prot="r", kind="file", file=f)
    assert f.size == HUGE, "only a writable mapping makes it longer"
    assert p.read(a, 1) == b"\0"
    with m.running(p) as k:
        p.mm.mmap_sem.down_read()
        assert hugetlb_fault(k, p.vmas[0], a + HUGE, 0) == VM_FAULT_SIGBUS
        p.mm.mmap_sem.up_read()
    p.mmap(2 * HUGE, kind="file", file=f)
    assert f.size == 2 * HUGE


def test_1_gib_pages_are_mapped_by_puds() -> None:
    m = Machine(ram=(3 << 18) + 4096, cpus=2, swap=0, profile=FIXED)
    assert m.hugetlb.pool(2, "1G") == 2
    p = m.spawn("p")
    giga = 1 << 30
    a = p.mmap(giga, kind="hugetlb1G")
    assert a % giga == 0
    p.write(a + 300 * HUGE + 4096, b"far in")
    assert p.read(a + 300 * HUGE + 4096, 6) == b"far in"
    assert p.order(a) == 18
    head = p.pages(a, 1)[0]
    assert head % (1 << 18) == 0
    assert p.mm.hugetlb_usage == 1 << 18
    walk = PageVmaMappedWalk(head, p.vmas[0], a)
    with m.running(p) as k:
        assert page_vma_mapped_walk(k, walk)
        assert not page_vma_mapped_walk(k, walk)
    assert [one.address for one in m.who_maps(head)] == [a]
    q = p.fork("q")
    q.write(a, b"child")
    assert (q.read(a, 5), p.read(a, 5)) == (b"child", bytes(5))
    assert m.migrate([head]).moved == {}, "v4.18 does not move pages of that size"
    assert m.check() == []
    q.exit()
    with p.pin(a + 300 * 4096, 4096, write=True) as pin:
        assert pin.pages == [head + 300]
    p.exit()
    assert m.hugetlb.pages("1G") == HugePages(2, 2, 0, 0)
    assert m.check() == []

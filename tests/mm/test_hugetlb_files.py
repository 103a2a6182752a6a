# SPDX-License-Identifier: GPL-2.0-only
"""Files of huge pages, and tables of PMDs that those who map them alike have together."""

from __future__ import annotations

import pytest

from rmap.mm import bits
from rmap.mm.bits import MAP_NORESERVE
from rmap.mm.page import compound_mapcount
from rmap.mm.profile import profile
from rmap.mm.tlb import tlb_lookup
from rmap.model import BusError, HugePages, HugetlbFile, Machine, Process, SyscallError

HUGE = 2 << 20
GIGA = 1 << 30
BASE = 1 << 40
FIXED = profile("6.12")


def machine(pages: int = 4) -> Machine:
    m = Machine(ram=8192, cpus=2, swap=0, profile=FIXED, invariants=True)
    assert m.hugetlb.pool(pages) == pages
    return m


def sharers(m: Machine, count: int, size: int = GIGA) -> tuple[HugetlbFile, list[Process]]:
    """Processes that map a file of 1 GiB at the same address, each on another CPU."""
    f = m.hugetlb.file("f", size // HUGE)
    processes = [m.spawn(f"p{i}", cpu=i % 2) for i in range(count)]
    for p in processes:
        p.mmap(size, kind="file", file=f, addr=BASE, flags=MAP_NORESERVE)
    return f, processes


# ---------------------------------------------------------------- files


def test_what_a_file_was_promised_is_promised_once() -> None:
    m = machine(3)
    f = m.hugetlb.file("f", 2)
    p, q = m.spawn("p"), m.spawn("q")
    a = p.mmap(2 * HUGE, kind="file", file=f)
    b = q.mmap(2 * HUGE, kind="file", file=f)
    assert m.hugetlb.pages() == HugePages(3, 3, 2, 0)
    p.write(a, b"first")
    q.write(b + HUGE, b"second")
    assert p.read(a + HUGE, 6) == b"second"
    assert f.read(2, 3) == b"rst"
    assert f.read(2 * HUGE - 2, 10) == bytes(2)
    p.exit()
    q.exit()
    # The file keeps its pages, until its name is gone.
    assert m.hugetlb.pages() == HugePages(3, 1, 0, 0)
    f.unlink()
    assert m.hugetlb.pages() == HugePages(3, 3, 0, 0)


def test_a_file_without_a_name_lasts_as_long_as_its_mappings() -> None:
    m = machine(2)
    f = m.hugetlb.file("f", 1)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="file", file=f)
    f.unlink()
    p.write(a, b"x")
    q = p.fork("q")
    p.exit()
    assert q.read(a, 1) == b"x"
    q.exit()
    assert m.hugetlb.pages() == HugePages(2, 2, 0, 0)


def test_shared_anonymous_huge_pages_are_a_file_of_their_own() -> None:
    m = machine(2)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlbshared")
    q = p.fork("q")
    q.write(a, b"from q")
    assert p.read(a, 6) == b"from q"
    head = p.pages(a, 1)[0]
    assert compound_mapcount(m.kernel, head) == 2
    q.exit()
    p.exit()
    assert m.hugetlb.pages() == HugePages(2, 2, 0, 0)


def test_truncation_takes_private_copies_too() -> None:
    m = machine(4)
    f = m.hugetlb.file("f", 2)
    p, q = m.spawn("p"), m.spawn("q")
    a = p.mmap(2 * HUGE, kind="file", file=f)
    b = q.mmap(2 * HUGE, kind="fileprivate", file=f)
    p.write(a + HUGE, b"file")
    q.write(b + HUGE, b"copy")
    p.write(a, b"kept")
    with pytest.raises(SyscallError):
        f.truncate(HUGE + 4096)
    f.truncate(HUGE)
    for process, address in ((p, a), (q, b)):
        with pytest.raises(BusError):
            process.read(address + HUGE, 1)
    assert p.read(a, 4) == b"kept"
    f.truncate(2 * HUGE)
    assert p.read(a + HUGE, 4) == bytes(4)


def test_a_hole_is_zeros_again_and_has_no_promise() -> None:
    m = machine(4)
    f = m.hugetlb.file("f", 3)
    p = m.spawn("p")
    a = p.mmap(3 * HUGE, kind="file", file=f)
    for i in range(3):
        p.write(a + i * HUGE, b"x")
    f.punch_hole(HUGE // 2, 2 * HUGE)
    assert [p.read(a + i * HUGE, 1) for i in (0, 1, 2)] == [b"x", b"\0", b"x"]
    f.punch_hole(HUGE, HUGE)
    f.punch_hole(0, 100)
    assert m.hugetlb.pages() == HugePages(4, 2, 0, 0)
    m.hugetlb.pool(2)
    with pytest.raises(BusError):
        p.write(a + HUGE, b"y")


def test_a_mapping_without_promises_uses_those_of_others() -> None:
    m = machine(2)
    f = m.hugetlb.file("f", 1)
    p, q = m.spawn("p"), m.spawn("q")
    p.mmap(HUGE, kind="file", file=f)
    b = q.mmap(HUGE, kind="file", file=f, flags=MAP_NORESERVE)
    q.write(b, b"x")
    assert m.hugetlb.pages() == HugePages(2, 1, 0, 0)


# ---------------------------------------------------------------- shared tables


def test_mappings_alike_have_their_table_together() -> None:
    m = machine(3)
    _, (p, q, r) = sharers(m, 3)
    k = m.kernel
    p.write(BASE + HUGE, b"p")
    tables = int(k.vm_stat[bits.NR_PAGETABLE])
    q.read(BASE + HUGE, 1)
    r.read(BASE + HUGE, 1)
    assert list(k.pmd_sharers.values()) == [2]
    # Each has a PUD table and a PGD of its own still.
    assert k.vm_stat[bits.NR_PAGETABLE] == tables + 2
    head = p.pages(BASE + HUGE, 1)[0]
    assert compound_mapcount(k, head) == 1, "of the table, however many have it"
    assert [one.process for one in m.who_maps(head)] == [p, q, r]
    # A page that one of them touches is there for all, without a fault.
    faults = m.mem_stats()["pgfault"]
    q.write(BASE + 5 * HUGE, b"q")
    assert m.mem_stats()["pgfault"] == faults + 1
    assert r.read(BASE + 5 * HUGE, 1) == b"q"
    assert m.mem_stats()["pgfault"] == faults + 1
    for process in (q, p, r):
        process.exit()
    assert k.pmd_sharers == {}


def test_fork_shares_tables_too() -> None:
    m = machine(3)
    _, (p,) = sharers(m, 1)
    p.write(BASE, b"p")
    q = p.fork("q")
    assert list(m.kernel.pmd_sharers.values()) == [1]
    q.write(BASE, b"q")
    assert p.read(BASE, 1) == b"q"
    p.exit()
    assert m.kernel.pmd_sharers == {}
    assert q.read(BASE, 1) == b"q"


@pytest.mark.parametrize("how", ["smaller", "private", "read-only", "elsewhere"])
def test_mappings_that_differ_have_tables_of_their_own(how: str) -> None:
    m = machine(3)
    f, (p,) = sharers(m, 1)
    q = m.spawn("q", cpu=1)
    flags = MAP_NORESERVE
    if how == "smaller":
        q.mmap(GIGA - HUGE, kind="file", file=f, addr=BASE, flags=flags)
    elif how == "private":
        q.mmap(GIGA, kind="fileprivate", file=f, addr=BASE, flags=flags)
    elif how == "read-only":
        q.mmap(GIGA, prot="r", kind="file", file=f, addr=BASE, flags=flags)
    else:
        q.mmap(GIGA - HUGE, kind="file", file=f, addr=BASE + HUGE, pgoff=0, flags=flags)
    p.write(BASE + HUGE, b"p")
    there = BASE + HUGE * (2 if how == "elsewhere" else 1)
    assert q.read(there, 1) == b"p"
    assert m.kernel.pmd_sharers == {}
    assert compound_mapcount(m.kernel, p.pages(BASE + HUGE, 1)[0]) == 2


def test_who_unmaps_or_protects_a_part_leaves_the_table_to_the_others() -> None:
    m = machine(3)
    _, (p, q) = sharers(m, 2)
    p.write(BASE, b"p")
    p.write(BASE + 7 * HUGE, b"7")
    q.read(BASE, 1)
    q.munmap(BASE, HUGE)
    assert m.kernel.pmd_sharers == {}
    assert p.read(BASE, 1) == b"p"
    assert tlb_lookup(m.kernel, 1, q.mm, BASE + 7 * HUGE) == 0
    # The rest is faulted in again, into a table of its own.
    assert q.read(BASE + 7 * HUGE, 1) == b"7"
    assert compound_mapcount(m.kernel, p.pages(BASE + 7 * HUGE, 1)[0]) == 2
    r = p.fork("r")
    assert list(m.kernel.pmd_sharers.values()) == [1]
    r.mprotect(BASE, GIGA, "r")
    assert m.kernel.pmd_sharers == {}
    assert r.read(BASE, 1) == b"p"


def test_truncation_finds_all_who_have_a_table() -> None:
    m = machine(3)
    f, (p, q) = sharers(m, 2)
    p.write(BASE, b"p")
    q.read(BASE, 1)
    f.truncate(0)
    assert m.kernel.pmd_sharers == {}
    assert m.hugetlb.pages() == HugePages(3, 3, 0, 0)
    for process in (p, q):
        with pytest.raises(BusError):
            process.read(BASE, 1)


def test_migration_unshares_first_and_all_find_the_page_again() -> None:
    m = machine(3)
    _, (p, q) = sharers(m, 2)
    p.write(BASE, b"p")
    q.write(BASE, b"q")
    old = p.pages(BASE, 1)[0]
    new = m.migrate([old]).moved[old]
    q.write(BASE, b"r")
    assert p.read(BASE, 1) == b"r"
    assert p.pages(BASE, 1) == q.pages(BASE, 1) == [new]

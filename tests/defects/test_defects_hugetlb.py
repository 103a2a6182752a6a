# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages of a pool whose tables are shared, and their counts: D29 and what is like it.

D29 (2.6.20 to 4.18). A table of PMDs that several processes have together counts as one mapping of
its pages. try_to_unmap() changes its one entry, flushes the TLB of the process that it came by, and
sees that nothing maps the page any more. The others' processors go on using the page, which is
copied meanwhile and freed: what they write is lost. 017b1660df89 (4.19) first takes the table away
from each process but the last, with a flush of all that it covers.

The same table, unmapped by one process (2.6.20 to 5.15, CVE-2021-4002): what was taken away with it
is not flushed. a4a118f2eead (5.16) does.

Fork (to 4.19): a child may get a table that a third process has filled, not its parent's. The
entry there was set and counted once more, for ever. 5e41540c8a0f (4.20) leaves it alone.

hugetlb_usage (4.4 to 5.14): a child begins with its parent's. 13db8c50477d (5.15).
"""

from __future__ import annotations

import pytest

from rmap.mm.bits import MAP_NORESERVE
from rmap.mm.bug import KernelBug
from rmap.mm.page import compound_mapcount
from rmap.mm.profile import profile
from rmap.mm.tlb import tlb_lookup
from rmap.model import HugetlbFile, Machine, Process, Segfault

HUGE = 2 << 20
GIGA = 1 << 30
BASE = 1 << 40


def sharing(**quirks: bool) -> tuple[Machine, HugetlbFile, Process, Process]:
    """Two processes, on two CPUs, that share the table of a file of huge pages."""
    m = Machine(ram=8192, cpus=2, swap=0, profile=profile("4.18", **quirks))
    m.hugetlb.pool(4)
    f = m.hugetlb.file("f", 512)
    p, q = m.spawn("p", cpu=0), m.spawn("q", cpu=1)
    for process in (p, q):
        process.mmap(GIGA, kind="file", file=f, addr=BASE, flags=MAP_NORESERVE)
        process.write(BASE, b"before")
    assert list(m.kernel.pmd_sharers.values()) == [1]
    return m, f, p, q


@pytest.mark.parametrize("fixed", [False, True])
def test_d29_what_is_written_to_a_page_that_was_moved_is_lost(fixed: bool) -> None:
    m, _, p, q = sharing(hugetlb_unmap_unshares=fixed)
    old = p.pages(BASE, 1)[0]
    assert m.migrate([old]).moved.keys() == {old}
    assert p.pages(BASE, 1) != [old]
    # Its processor still reaches the old page.
    assert (tlb_lookup(m.kernel, 1, q.mm, BASE) != 0) is not fixed
    q.write(BASE, b"after!")
    assert p.read(BASE, 6) == (b"after!" if fixed else b"before")
    assert m.check() == [] if fixed else "tlb" in {one.invariant for one in m.check()}


@pytest.mark.parametrize("fixed", [False, True])
def test_d29_a_process_goes_on_using_memory_that_is_broken(fixed: bool) -> None:
    m, _, p, q = sharing(hugetlb_unmap_unshares=fixed)
    page = p.pages(BASE, 1)[0]
    m.memory_failure(page)
    assert p.pages(BASE, 1) == [0]
    assert (tlb_lookup(m.kernel, 1, q.mm, BASE) != 0) is not fixed


@pytest.mark.parametrize("fixed", [False, True])
def test_cve_2021_4002_a_process_reads_what_it_has_unmapped(fixed: bool) -> None:
    m, _, p, q = sharing(hugetlb_unshare_flushes=fixed)
    q.munmap(BASE, GIGA)
    assert (tlb_lookup(m.kernel, 1, q.mm, BASE) != 0) is not fixed
    if fixed:
        with pytest.raises(Segfault):
            q.read(BASE, 6)
    else:
        assert q.read(BASE, 6) == b"before"
    assert p.read(BASE, 6) == b"before"


@pytest.mark.parametrize("fixed", [False, True])
def test_a_child_counts_a_mapping_that_is_there_already(fixed: bool) -> None:
    m = Machine(ram=8192, cpus=2, swap=0, profile=profile("4.18", hugetlb_fork_skips_shared=fixed))
    m.hugetlb.pool(4)
    f = m.hugetlb.file("f", 512)
    other, p = m.spawn("other", cpu=1), m.spawn("p", cpu=0)
    other.mmap(GIGA, kind="file", prot="r", file=f, addr=BASE, flags=MAP_NORESERVE)
    p.mmap(GIGA, kind="file", file=f, addr=BASE, flags=MAP_NORESERVE)
    p.write(BASE, b"x")
    assert other.read(BASE, 1) == b"x"
    page = p.pages(BASE, 1)[0]
    assert compound_mapcount(m.kernel, page) == 2, "two tables, as the mappings differ"
    # From now on they do not; and the child finds the other's table before its parent's.
    other.mprotect(BASE, GIGA, "rw")
    child = p.fork("child")
    assert list(m.kernel.pmd_sharers.values()) == [1]
    counted = compound_mapcount(m.kernel, page)
    assert counted == (2 if fixed else 3)
    for process in (child, p, other):
        process.exit()
    assert compound_mapcount(m.kernel, page) == counted - 2
    if fixed:
        f.truncate(0)
        assert m.check() == []
    else:
        with pytest.raises(KernelBug, match=r"inode\.c:444"):
            f.truncate(0)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_child_counts_its_parents_huge_pages_as_well(fixed: bool) -> None:
    kind = profile("4.18", hugetlb_usage_starts_at_zero=fixed)
    m = Machine(ram=8192, cpus=2, swap=0, profile=kind)
    m.hugetlb.pool(2)
    p = m.spawn("p")
    a = p.mmap(HUGE, kind="hugetlb")
    p.write(a, b"x")
    q = p.fork("q")
    assert q.mm.hugetlb_usage == (512 if fixed else 1024)

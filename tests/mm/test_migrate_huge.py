# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages move as a whole, whoever maps how much of them, or are split if there is no room."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE
from migrating import Moving

from rmap.mm import bits
from rmap.mm.bits import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from rmap.mm.bug import KernelBug
from rmap.mm.inject import FailPlan
from rmap.mm.page import compound_mapcount
from rmap.mm.pgtable import is_pmd_migration_entry, pmd_offset, pmd_trans_huge, pte_pfn, pte_write
from rmap.model import Process
from rmap.sync.core import scheduler

RAM = 8192
#: Which parts of a huge page have content.
MARKED = range(0, HPAGE_PMD_NR, 64)


@pytest.fixture
def f() -> Moving:
    return Moving(ram=RAM)


def huge(f: Moving, **how: object) -> tuple[int, int]:
    """A huge page of the first process, anonymous unless said otherwise; its address, its head."""
    f.m.thp.enabled = "always"
    a = f.p.mmap(2 * HPAGE_PMD_SIZE, addr=ARENA, **how)  # type: ignore[arg-type]  # kind and file
    for i in MARKED:
        f.p.write(a + i * PAGE, b"part %d" % i)
    f.m.thp.enabled = "never"
    head = f.page(f.p, a)
    assert f.flags(head, bits.PG_head)
    return a, head


def is_intact(p: Process, a: int) -> bool:
    return all(p.read(a + i * PAGE, 9).rstrip(b"\0") == b"part %d" % i for i in MARKED)


def pmd(f: Moving, p: Process, a: int) -> int:
    return int(f.k.pt[pmd_offset(f.k, p.mm, a)])


def test_a_pmd_moves_with_its_page(f: Moving) -> None:
    a, head = huge(f)
    thps = f.k.vm_stat[bits.NR_ANON_THPS]

    def in_place() -> None:
        assert is_pmd_migration_entry(pmd(f, f.p, a))
        assert f.k.vm_stat[bits.NR_ANON_THPS] == thps - 1
        assert f.anon(f.p) == HPAGE_PMD_NR
        assert f.k.pg_refcount[head] == 1

    new = f.while_moving(head, in_place).moved[head]
    assert pmd_trans_huge(pmd(f, f.p, a))
    assert pte_pfn(pmd(f, f.p, a)) == new
    assert pte_write(pmd(f, f.p, a))
    assert (compound_mapcount(f.k, new), f.k.pg_refcount[new]) == (1, 1)
    assert f.k.vm_stat[bits.NR_ANON_THPS] == thps
    assert is_intact(f.p, a)
    assert f.sound()
    f.p.munmap(a, HPAGE_PMD_SIZE)
    assert f.sound()


def test_a_fork_copies_the_entry_of_a_pmd(f: Moving) -> None:
    a, head = huge(f)
    born: list[Process] = []

    def fork() -> None:
        born.append(f.p.fork())
        assert is_pmd_migration_entry(pmd(f, born[0], a))
        assert f.anon(born[0]) == HPAGE_PMD_NR

    new = f.while_moving(head, fork).moved[head]
    assert compound_mapcount(f.k, new) == 2
    assert not pte_write(pmd(f, f.p, a))
    assert not pte_write(pmd(f, born[0], a))
    assert f.sound()
    born[0].write(a, b"PART")
    assert is_intact(f.p, a)
    assert f.sound()


def test_who_unmaps_meanwhile_gets_nothing_back(f: Moving) -> None:
    a, head = huge(f)
    c = f.p.fork()

    def unmap() -> None:
        c.munmap(a, 2 * HPAGE_PMD_SIZE)
        assert f.anon(c) == 0

    new = f.while_moving(head, unmap).moved[head]
    assert compound_mapcount(f.k, new) == 1
    assert f.sound()


def test_who_unmaps_a_part_meanwhile_breaks_v4_18(f: Moving) -> None:
    """Splitting the PMD's entry counts 512 mappings that nobody has, and one less of the whole."""
    a, head = huge(f)
    with pytest.raises(KernelBug, match="compound_mapcount goes below zero"):
        f.while_moving(head, lambda: f.p.munmap(a, 8 * PAGE))
    for task in (f.p.task, scheduler().current, f.m._kthread):
        task.held.clear()


def test_since_5_9_who_unmaps_a_part_meanwhile_has_ptes_for_the_rest() -> None:
    """The PMD's entry is split into 512 entries, which name the parts of the page."""
    f = Moving(ram=RAM, split_spares_migrating=True)
    a, head = huge(f)

    def unmap() -> None:
        f.p.munmap(a, 8 * PAGE)
        assert not is_pmd_migration_entry(pmd(f, f.p, a))
        assert f.entry_page(f.p, a + 64 * PAGE) == head + 64

    new = f.while_moving(head, unmap).moved[head]
    assert f.page(f.p, a + 64 * PAGE) == new + 64
    assert compound_mapcount(f.k, new) == 0
    assert f.p.read(a + 64 * PAGE, 7) == b"part 64"
    assert f.sound()


def test_ptes_that_map_a_huge_page_move_with_it(f: Moving) -> None:
    """The parent has a PMD, the child, which has written, 511 entries and a page of its own."""
    a, head = huge(f)
    c = f.p.fork()
    c.mprotect(a, PAGE, "r")
    assert not pmd_trans_huge(pmd(f, c, a))
    assert pmd_trans_huge(pmd(f, f.p, a))
    new = f.moved(head)
    assert pmd_trans_huge(pmd(f, f.p, a))
    assert [f.page(c, a + i * PAGE) for i in (0, 1, 511)] == [new, new + 1, new + 511]
    assert f.k.pg_refcount[new] == 1 + HPAGE_PMD_NR
    assert is_intact(f.p, a)
    assert is_intact(c, a)
    # Both counted their first mapping of a page that was mapped nowhere: NR_ANON_MAPPED has its
    # parts twice, since only a split sets PG_double_map.
    assert f.k.vm_stat[bits.NR_ANON_MAPPED] == 2 * HPAGE_PMD_NR
    assert f.sound()


def test_without_a_huge_page_to_go_to_it_is_split_and_the_parts_move(f: Moving) -> None:
    a, head = huge(f)
    f.m.inject = FailPlan.from_text("migration_target:nth=1")
    result = f.m.migrate([head])
    f.m.inject = None
    assert f.stat("THP_SPLIT_PAGE") == 1
    assert not pmd_trans_huge(pmd(f, f.p, a))
    assert len(result.moved) == HPAGE_PMD_NR
    assert not f.flags(head, bits.PG_head)
    assert is_intact(f.p, a)
    assert f.stat("NR_ISOLATED") == 0
    assert f.sound()


def test_a_pinned_huge_page_stays(f: Moving) -> None:
    a, head = huge(f)
    with f.p.pin(a, PAGE):
        assert f.m.migrate([head + 3]).stayed == (head,)
    assert pmd_trans_huge(pmd(f, f.p, a))
    assert (compound_mapcount(f.k, head), f.k.pg_refcount[head]) == (1, 1)
    assert f.sound()


def test_an_mlocked_huge_page_is_mlocked_at_its_new_place(f: Moving) -> None:
    a, head = huge(f)
    f.p.mlock(a, HPAGE_PMD_SIZE)
    assert f.stat("NR_MLOCK") == HPAGE_PMD_NR
    new = f.moved(head)
    assert f.flags(new, bits.PG_mlocked)
    assert f.stat("NR_MLOCK") == HPAGE_PMD_NR
    assert f.sound()


def test_a_huge_page_of_shared_memory_moves_with_all_its_entries(f: Moving) -> None:
    file = f.m.file("shm", 2 * HPAGE_PMD_NR, shmem=True, huge="always")
    a, head = huge(f, kind="file", file=file)
    q = f.m.spawn("q")
    b = q.mmap(2 * HPAGE_PMD_SIZE, kind="file", file=file, addr=ARENA)
    q.read(b + PAGE, 1)
    new = f.moved(head)
    assert [file.mapping.i_pages[i] for i in (0, 1, 511)] == [new, new + 1, new + 511]
    assert f.page(q, b + PAGE) == new + 1
    assert is_intact(f.p, a)
    assert is_intact(q, b)
    assert f.sound()


def test_a_huge_page_that_goes_to_a_device_is_split_first(f: Moving) -> None:
    gpu = f.m.device(600)
    a, head = huge(f)
    assert gpu.pull(f.p, a, HPAGE_PMD_SIZE) == HPAGE_PMD_NR
    assert gpu.free == 600 - HPAGE_PMD_NR
    assert f.sound()
    assert is_intact(f.p, a)
    assert f.k.pg_refcount[head] == 0
    assert f.sound()


@pytest.mark.parametrize("base", ["6.1", "6.12"])
def test_later_kernels_keep_a_huge_page_exclusive(base: str) -> None:
    f = Moving(ram=RAM, base=base)
    a, head = huge(f)
    assert f.flags(head, bits.PG_anon_exclusive)
    new = f.moved(head)
    assert f.flags(new, bits.PG_anon_exclusive)
    f.p.fork()
    newer = f.moved(new)
    assert not f.flags(newer, bits.PG_anon_exclusive)
    assert is_intact(f.p, a)
    assert f.sound()


# ---------------------------------------------------------------- hugetlb


def hugetlb(f: Moving, kind: str = "hugetlb") -> tuple[int, int]:
    """A hugetlb page of a pool of two; its address, its head."""
    f.m.hugetlb.pool(2)
    a = f.p.mmap(HPAGE_PMD_SIZE, kind=kind)
    f.p.write(a + 7 * PAGE, b"huge")
    return a, f.page(f.p, a)


@pytest.mark.parametrize("kind", ["hugetlb", "hugetlbshared"])
def test_a_hugetlb_page_moves_to_another_of_its_pool(f: Moving, kind: str) -> None:
    a, head = hugetlb(f, kind)
    c = f.p.fork()
    c.read(a, 1)
    new = f.moved(head)
    assert f.page(f.p, a) == f.page(c, a) == new
    assert compound_mapcount(f.k, new) == 2
    assert f.p.read(a + 7 * PAGE, 4) == c.read(a + 7 * PAGE, 4) == b"huge"
    assert f.m.hugetlb.pages().free == 1
    assert f.sound()
    c.write(a, b"C")
    assert f.sound()


def test_a_hugetlb_page_may_move_to_one_that_is_made_for_that(f: Moving) -> None:
    a, head = hugetlb(f)
    b = f.p.mmap(HPAGE_PMD_SIZE, kind="hugetlb")
    f.p.write(b, b"other")
    assert f.m.hugetlb.pages().free == 0
    new = f.moved(head)
    assert f.page(f.p, a) == new
    assert (f.m.hugetlb.pages().total, f.m.hugetlb.pages().free) == (2, 0)
    assert f.k.pg_refcount[head] == 0
    assert f.sound()


def test_a_pinned_hugetlb_page_stays(f: Moving) -> None:
    a, head = hugetlb(f)
    with f.p.pin(a, PAGE):
        assert f.m.migrate([head]).stayed == (head,)
    assert f.page(f.p, a) == head
    assert f.m.hugetlb.pages().free == 1
    assert f.sound()


def test_who_faults_on_a_hugetlb_page_waits_for_it(f: Moving) -> None:
    a, head = hugetlb(f)
    seen: list[str] = []

    def in_place() -> None:
        seen.append("entry" if is_pmd_migration_entry(pmd(f, f.p, a)) else "")
        child = f.p.fork()
        seen.append("entry" if is_pmd_migration_entry(pmd(f, child, a)) else "")

    new = f.while_moving(head, in_place).moved[head]
    assert seen == ["entry", "entry"]
    assert compound_mapcount(f.k, new) == 2
    assert f.sound()


def test_v4_18_moves_no_page_of_a_gigabyte() -> None:
    f = Moving(ram=3 << 18)
    f.m.hugetlb.pool(1, size="1G")
    a = f.p.mmap(1 << 30, kind="hugetlb1G")
    f.p.write(a, b"giant")
    head = f.page(f.p, a)
    assert f.m.migrate([head]).stayed == (head,)
    assert f.p.read(a, 5) == b"giant"

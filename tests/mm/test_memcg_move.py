# SPDX-License-Identifier: GPL-2.0-only
"""A process changes its cgroup, and what it is charged for goes along, of whatever kind it is."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE
from migrating import Moving

from rmap.mm import bits
from rmap.mm.bits import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from rmap.mm.memcg_move import mem_cgroup_move_task
from rmap.model import Process, SyscallError
from rmap.model.cgroup import Cgroup

RAM = 8192


@pytest.fixture
def f() -> Moving:
    return Moving(ram=RAM)


def groups(f: Moving) -> tuple[Cgroup, Cgroup, Process]:
    """Two cgroups and a process in the first."""
    one, two = f.m.cgroup("one"), f.m.cgroup("two")
    return one, two, f.m.spawn("q", one)


def huge(f: Moving, p: Process) -> tuple[int, int]:
    """A huge page of a process; its address, its head."""
    f.m.thp.enabled = "always"
    a = p.mmap(2 * HPAGE_PMD_SIZE, addr=ARENA)
    p.write(a, b"huge")
    f.m.thp.enabled = "never"
    return a, f.page(p, a)


def usage(*cgroups: Cgroup) -> tuple[int, ...]:
    return tuple(cgroup.usage for cgroup in cgroups)


def test_a_huge_page_moves_in_one_piece(f: Moving) -> None:
    one, two, q = groups(f)
    a, head = huge(f, q)
    b = q.mmap(3 * PAGE)
    q.touch(b, 3 * PAGE)
    assert usage(one, two) == (HPAGE_PMD_NR + 3, 0)
    assert two.attach(q) == HPAGE_PMD_NR + 3
    assert usage(one, two) == (0, HPAGE_PMD_NR + 3)
    assert f.k.pg_memcg[head] == two.memcg.ident
    assert f.flags(head, bits.PG_lru | bits.PG_head)
    assert q.read(a, 4) == b"huge"
    assert f.sound()
    q.exit()
    assert usage(one, two) == (0, 0)


def test_a_huge_page_that_is_shared_goes_with_who_moves_first(f: Moving) -> None:
    one, two, q = groups(f)
    huge(f, q)
    c = q.fork()
    assert two.attach(c) == HPAGE_PMD_NR
    assert one.attach(c) == HPAGE_PMD_NR
    assert two.attach(q) == HPAGE_PMD_NR
    assert f.sound()


def test_a_huge_page_of_which_ptes_map_parts_stays(f: Moving) -> None:
    """It has one charge, and an entry maps a part of it. A PMD's process would take all of it."""
    one, two, q = groups(f)
    a, head = huge(f, q)
    c = q.fork()
    c.munmap(a, PAGE)
    assert two.attach(c) == 0
    assert usage(one, two) == (HPAGE_PMD_NR, 0)
    assert f.k.pg_memcg[head] == one.memcg.ident
    assert two.attach(q) == HPAGE_PMD_NR
    assert usage(one, two) == (0, HPAGE_PMD_NR)
    assert f.sound()


def test_a_huge_page_that_is_just_migrating_stays(f: Moving) -> None:
    one, two, q = groups(f)
    _, head = huge(f, q)

    def attach() -> None:
        # The machine's own thread is the one that migrates.
        with f.m.running(f.p) as k:
            assert mem_cgroup_move_task(k, q.mm, two.memcg) == 0

    new = f.while_moving(head, attach).moved[head]
    assert f.k.pg_memcg[new] == one.memcg.ident
    assert usage(one, two) == (HPAGE_PMD_NR, 0)
    assert f.sound()


def test_a_huge_page_that_somebody_has_locked_stays(f: Moving) -> None:
    one, two, q = groups(f)
    _, head = huge(f, q)
    f.k.pg_flags[head] |= bits.PG_locked
    assert two.attach(q) == 0
    f.k.pg_flags[head] &= ~bits.PG_locked
    assert usage(one, two) == (HPAGE_PMD_NR, 0)
    assert f.sound()


def test_the_huge_zero_page_is_charged_to_nobody(f: Moving) -> None:
    _one, two, q = groups(f)
    f.m.thp.enabled = "always"
    a = q.mmap(2 * HPAGE_PMD_SIZE, addr=ARENA)
    q.read(a, 1)
    assert f.k.huge_zero_page
    assert two.attach(q) == 0
    assert f.sound()


def test_slots_of_swap_move_without_being_charged_as_memory(f: Moving) -> None:
    one, two, q = groups(f)
    a = q.mmap(4 * PAGE)
    for i in range(4):
        q.write(a + i * PAGE, b"%d" % i)
    q.madvise(a, 2 * PAGE, "pageout")
    assert usage(one, two) == (2, 0)
    assert two.attach(q) == 2
    assert usage(one, two) == (0, 2)
    # Whoever brings them back, they are the second one's.
    assert [q.read(a + i * PAGE, 1) for i in range(4)] == [b"0", b"1", b"2", b"3"]
    assert usage(one, two) == (0, 4)
    assert f.sound()


def test_there_must_be_room_for_what_is_in_swap_for_a_moment(f: Moving) -> None:
    """The target is charged for all that is counted before anything moves, slots as well."""
    one, two, q = groups(f)
    a = q.mmap(4 * PAGE)
    q.touch(a, 4 * PAGE)
    q.madvise(a, 2 * PAGE, "pageout")
    two.limit = 3
    with pytest.raises(SyscallError):
        two.attach(q)
    assert usage(one, two) == (2, 0)
    two.limit = 4
    assert two.attach(q) == 2
    assert usage(one, two) == (0, 2)
    assert f.sound()


def test_memory_on_a_device_moves_too(f: Moving) -> None:
    one, two, q = groups(f)
    gpu = f.m.device(8)
    a = q.mmap(4 * PAGE)
    q.touch(a, 4 * PAGE)
    assert gpu.pull(q, a, 2 * PAGE) == 2
    assert two.attach(q) == 4
    assert usage(one, two) == (0, 4)
    assert f.k.pg_memcg[gpu.page(q, a)] == two.memcg.ident
    assert f.sound()
    q.read(a, 2 * PAGE)
    assert usage(one, two) == (0, 4)
    q.exit()
    assert usage(one, two) == (0, 0)
    assert f.sound()


def test_pages_of_a_pool_are_no_memory_of_a_cgroup(f: Moving) -> None:
    one, two, q = groups(f)
    f.m.hugetlb.pool(1)
    a = q.mmap(HPAGE_PMD_SIZE, kind="hugetlb")
    q.write(a, b"x")
    assert two.attach(q) == 0
    assert usage(one, two) == (0, 0)
    assert f.sound()

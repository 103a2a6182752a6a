# SPDX-License-Identifier: GPL-2.0-only
"""Migration against faults, munmap, fork, mprotect and others, in every order that may differ.

The page is moved on one CPU while a process uses it on another. Whatever the order: no store is
lost, no migration entry is left, and the page is either moved or has all its mappings back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from faulting import PAGE
from racing import Race, Uneven

from rmap.mm import bits
from rmap.mm.anon_vma import page_get_anon_vma, put_anon_vma
from rmap.mm.fork import dup_mm
from rmap.mm.gup import get_user_pages, put_user_pages
from rmap.mm.lru import put_page, putback_lru_page
from rmap.mm.madvise import do_madvise
from rmap.mm.migrate.entries import remove_migration_ptes
from rmap.mm.migrate.migrate import (
    MigrationTarget,
    isolate_for_migration,
    migrate_pages,
    putback_movable_pages,
)
from rmap.mm.migrate.move import move_to_new_page
from rmap.mm.mm_types import Task
from rmap.mm.mmap import vm_munmap
from rmap.mm.mprotect import do_mprotect
from rmap.mm.page import lock_page, trylock_page, unlock_page
from rmap.mm.page_alloc import alloc_page
from rmap.mm.pgtable import is_migration_entry, is_swap_pte, pte_to_swp_entry
from rmap.mm.unmap import try_to_unmap
from rmap.model import Process
from rmap.sync.bits import RANK_PAGE_LOCK, WRITE_MODE
from rmap.sync.core import lock_acquired, lock_released
from rmap.sync.explore import EveryTrace, Exploration, World, explore

MIGRATE = bits.TTU_MIGRATION | bits.TTU_IGNORE_MLOCK | bits.TTU_IGNORE_ACCESS


def move(f: Race, page: int, moved: set[int] | None = None) -> None:
    """Move a page that is isolated already, in several passes; how many moved goes into `moved`."""
    pages = [page]
    before = int(f.k.vm_stat[bits.PGMIGRATE_SUCCESS])
    migrate_pages(f.k, pages, MigrationTarget(), bits.MIGRATE_SYNC, bits.MR_SYSCALL)
    putback_movable_pages(f.k, pages)
    if moved is not None:
        moved.add(int(f.k.vm_stat[bits.PGMIGRATE_SUCCESS]) - before)


def kmigrated() -> Task:
    return Task("kmigrated", 9, None, 0)


def no_entries(f: Race, *where: tuple[Process, int]) -> None:
    """No migration entry is left anywhere."""
    for p, a in where:
        pte = f.pte(p, a)
        assert not is_swap_pte(pte) or not is_migration_entry(pte_to_swp_entry(pte))


def one_page(**quirks: bool) -> tuple[Race, int, int]:
    """A page of one process, which runs on the second CPU."""
    f = Race(**quirks)
    f.p.cpu = 1
    a = f.map(1)
    f.p.write(a, b"before")
    page = f.page(f.p, a)
    with f.m.kthread("isolate") as k:
        assert isolate_for_migration(k, page) == 0
    return f, a, page


def against_a_store(moved: set[int] | None = None, **quirks: bool) -> World:
    """A store through an entry that may be a migration entry, or in a TLB."""
    f, a, page = one_page(**quirks)
    f.run("move", kmigrated(), f.kthread(partial(move, f, page, moved)))
    f.run("store", f.p.task, f.store(a, b"A"), f.load(a, 6))

    def finish() -> None:
        assert f.outcome["store"] == b"Aefore"
        assert f.p.read(a, 6) == b"Aefore"
        no_entries(f, (f.p, a))

    return f.world(finish)


def against_munmap(moved: set[int] | None = None, **quirks: bool) -> World:
    """The process unmaps the page: nothing of it is left."""
    f, a, page = one_page(**quirks)
    f.run("move", kmigrated(), f.kthread(partial(move, f, page, moved)))
    f.run("unmap", f.p.task, lambda task: vm_munmap(f.k, f.p.mm, a, PAGE))

    def finish() -> None:
        assert f.k.vm_stat[bits.NR_ANON_MAPPED] == 0
        assert f.rss(f.p) == (0, 0, 0, 0)

    return f.world(finish)


def against_fork(moved: set[int] | None = None, **quirks: bool) -> World:
    """The process forks: the child has the page, at its old place or at the new one."""
    f, a, page = one_page(**quirks)
    f.run("move", kmigrated(), f.kthread(partial(move, f, page, moved)))
    born: list[Process] = []

    def fork(task: Task) -> None:
        mm = dup_mm(f.k, f.p.mm)
        born.append(f.m.adopt(mm, "child", f.p.pid, 1))

    f.run("fork", f.p.task, fork)

    def finish() -> None:
        (child,) = born
        assert f.page(f.p, a) == f.page(child, a) != 0
        assert f.counts(f.page(f.p, a)) == (2, 2)
        child.write(a, b"child!")
        assert (f.p.read(a, 6), child.read(a, 6)) == (b"before", b"child!")
        no_entries(f, (f.p, a), (child, a))

    return f.world(finish)


def against_mprotect(moved: set[int] | None = None, **quirks: bool) -> World:
    """The process forbids itself to write: the page does not come back writable."""
    f, a, page = one_page(**quirks)
    f.run("move", kmigrated(), f.kthread(partial(move, f, page, moved)))
    f.run("protect", f.p.task, lambda task: do_mprotect(f.k, f.p.mm, a, PAGE, bits.PROT_READ))

    def finish() -> None:
        assert not f.pte(f.p, a) & bits._PAGE_RW
        assert f.p.read(a, 6) == b"before"
        no_entries(f, (f.p, a))

    return f.world(finish)


def against_dontneed(moved: set[int] | None = None, **quirks: bool) -> World:
    """The process gives the contents up: it reads zeros, whoever was first."""
    f, a, page = one_page(**quirks)
    f.run("move", kmigrated(), f.kthread(partial(move, f, page, moved)))
    f.run("give", f.p.task, lambda task: do_madvise(f.k, f.p.mm, a, PAGE, bits.MADV_DONTNEED))

    def finish() -> None:
        assert f.p.read(a, 6) == bytes(6)

    return f.world(finish)


def against_a_pin(moved: set[int] | None = None, **quirks: bool) -> World:
    """A device gets hold of the page: what it has is what the process maps from then on."""
    f, a, page = one_page(**quirks)
    f.run("move", kmigrated(), f.kthread(partial(move, f, page, moved)))

    f.run("pin", f.p.task, lambda task: list(get_user_pages(f.k, f.p.mm, a, 1, True)))

    def finish() -> None:
        assert f.outcome["pin"] == [f.page(f.p, a)]
        put_user_pages(f.k, f.outcome["pin"])
        assert f.p.read(a, 6) == b"before"
        no_entries(f, (f.p, a))

    return f.world(finish)


def against_the_exit_of_the_last_process(moved: set[int] | None = None, **quirks: bool) -> World:
    """The anon_vma is all but freed: the migration's reference keeps it until the entries are gone.

    A child of the process that made the page has it; both are gone in the end.
    """
    f, a, page = one_page(**quirks)
    child = f.p.fork()
    f.p.exit()
    f.run("move", kmigrated(), f.kthread(partial(move, f, page, moved)))
    f.run("exit", child.task, lambda task: vm_munmap(f.k, child.mm, a, PAGE))

    def finish() -> None:
        assert f.k.vm_stat[bits.NR_ANON_MAPPED] == 0

    return f.world(finish)


WORLDS: list[Callable[..., World]] = [
    against_a_store,
    against_munmap,
    against_fork,
    against_mprotect,
    against_dontneed,
    against_a_pin,
    against_the_exit_of_the_last_process,
]


def found(result: Exploration) -> list[str]:
    return [str(finding) for finding in result.findings]


# ---------------------------------------------------------------- every order


def first_half(act: str, **quirks: bool) -> World:
    """The mappings are replaced by entries while a process does something to its mapping."""
    f, a, page = one_page(**quirks)
    lock_page(f.k, page)
    anon_vma = page_get_anon_vma(f.k, page)
    lock_released(RANK_PAGE_LOCK, page, WRITE_MODE)

    def unmap(task: Task) -> None:
        lock_acquired(RANK_PAGE_LOCK, page, WRITE_MODE, True)
        try_to_unmap(f.k, page, MIGRATE)
        lock_released(RANK_PAGE_LOCK, page, WRITE_MODE)

    f.run("unmap", kmigrated(), unmap)
    f.run("process", f.p.task, ACTS[act](f, a))

    def finish() -> None:
        lock_acquired(RANK_PAGE_LOCK, page, WRITE_MODE, True)
        remove_migration_ptes(f.k, page, page, False)
        unlock_page(f.k, page)
        put_anon_vma(f.k, anon_vma)
        putback_movable_pages(f.k, [page])
        assert act == "unmap" or f.page(f.p, a) == page
        no_entries(f, *((p, a) for p in f.m.processes.values()))

    return f.world(finish)


def second_half(act: str, **quirks: bool) -> World:
    """The page moves, and the entries are replaced by mappings of the new one, meanwhile."""
    f, a, page = one_page(**quirks)
    lock_page(f.k, page)
    anon_vma = page_get_anon_vma(f.k, page)
    try_to_unmap(f.k, page, MIGRATE)
    new = int(alloc_page(f.k, bits.GFP_HIGHUSER))
    trylock_page(f.k, new)
    for locked in (page, new):
        lock_released(RANK_PAGE_LOCK, locked, WRITE_MODE)
    moved: list[int] = []

    def restore(task: Task) -> None:
        for locked in (page, new):
            lock_acquired(RANK_PAGE_LOCK, locked, WRITE_MODE, True)
        moved.append(move_to_new_page(f.k, new, page, bits.MIGRATE_ASYNC))
        remove_migration_ptes(f.k, page, page if moved[0] else new, False)
        unlock_page(f.k, new)
        unlock_page(f.k, page)

    f.run("restore", kmigrated(), restore)
    f.run("process", f.p.task, ACTS[act](f, a))

    def finish() -> None:
        # Whoever waits has a reference to the old page: then it stays.
        assert moved == [0] or (moved == [-bits.EAGAIN] and act == "load")
        put_anon_vma(f.k, anon_vma)
        if moved[0]:
            putback_movable_pages(f.k, [page])
            put_page(f.k, new)
        else:
            f.k.vm_stat[bits.NR_ISOLATED] -= 1
            f.k.pg_flags[page] &= ~bits.PG_isolated
            put_page(f.k, page)
            putback_lru_page(f.k, new)
        no_entries(f, *((p, a) for p in f.m.processes.values()))
        if act != "unmap":
            assert f.p.read(a, 6) == b"before"

    return f.world(finish)


def fork(f: Race, a: int) -> Callable[[Task], object]:
    def act(task: Task) -> None:
        f.m.adopt(dup_mm(f.k, f.p.mm), "child", f.p.pid, 1)

    return act


ACTS: dict[str, Callable[[Race, int], Callable[[Task], object]]] = {
    "load": lambda f, a: f.load(a, 6),
    "unmap": lambda f, a: lambda task: vm_munmap(f.k, f.p.mm, a, PAGE),
    "fork": fork,
    "protect": lambda f, a: lambda task: do_mprotect(f.k, f.p.mm, a, PAGE, bits.PROT_READ),
}


@pytest.mark.parametrize(
    ("make", "act"),
    [
        *((first_half, act) for act in ("unmap", "fork", "protect")),
        *((second_half, act) for act in ACTS),
    ],
)
def test_every_order_of_one_half_of_a_migration_and_a_use(
    make: Callable[..., World], act: str
) -> None:
    """Nothing is left out: whatever order may end otherwise than another has been run."""
    result = explore(partial(make, act), EveryTrace())
    assert result.complete
    assert found(result) == []
    assert result.runs > 1


@pytest.mark.parametrize("make", WORLDS)
def test_moving_a_page_while_it_is_used(make: Callable[..., World]) -> None:
    """Orders by lot, of CPUs whose speeds differ; in some the page moves."""
    moved: set[int] = set()
    result = explore(partial(make, moved), Uneven(4, 60))
    assert found(result) == []
    assert 1 in moved


@pytest.mark.parametrize("make", [against_a_store, against_fork])
@pytest.mark.parametrize("base", ["6.1"])
def test_moving_an_exclusive_page(make: Callable[..., World], base: str) -> None:
    result = explore(partial(make, None, base=base), Uneven(5, 40))
    assert found(result) == []

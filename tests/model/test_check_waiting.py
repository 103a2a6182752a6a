# SPDX-License-Identifier: GPL-2.0-only
"""Entries in the place of a page, put there by hand, and what is wrong with them found.

Like `tests.model.test_check`: migration, device memory, broken pages.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.bits import (
    SWP_DEVICE_READ,
    SWP_HWPOISON,
    SWP_MIGRATION_READ,
    SWP_PTE_OFFSET_SHIFT,
    SWP_PTE_TYPE_SHIFT,
)
from rmap.mm.lru import isolate_lru_page
from rmap.mm.tlb import flush_tlb_mm
from rmap.model import Process
from tests.model.huge_scene import HugeScene
from tests.model.scene import PAGE, Scene

Damage = Callable[[Scene], None]
DAMAGES: list[tuple[str, Damage]] = []


def breaks(invariant: str) -> Callable[[Damage], Damage]:
    """Say which invariant a damage violates."""

    def register(damage: Damage) -> Damage:
        DAMAGES.append((invariant, damage))
        return damage

    return register


def special(kind: int, page: int) -> int:
    """An entry of a special type for a page."""
    return kind << SWP_PTE_TYPE_SHIFT | page << SWP_PTE_OFFSET_SHIFT


def replace(s: Scene, process: Process, address: int, value: int) -> None:
    """Put something else into a page table, and flush what CPUs remember."""
    s.set_pte(process, address, value)
    with s.machine.running(process) as k:
        flush_tlb_mm(k, process.mm)


def let_wait(s: Scene) -> int:
    """Put migration entries in the place of a page that two mms map, as try_to_unmap() does."""
    address = s.anon + PAGE
    page = s.page(s.parent, address)
    for process in (s.parent, s.child):
        assert s.page(process, address) == page
        replace(s, process, address, special(SWP_MIGRATION_READ, page))
    s.k.pg_mapcount[page] = -1
    s.k.pg_refcount[page] = 1
    s.k.vm_stat[bits.NR_ANON_MAPPED] -= 1
    s.machine.pins[page] += 1
    s.k.pg_flags[page] |= bits.PG_locked
    return page


def to_device(s: Scene) -> int:
    """Let a page that only the parent has be one of a device's memory."""
    address = s.anon + 3 * PAGE
    page = s.page(s.parent, address)
    for process in (s.parent, s.child):
        replace(s, process, address, special(SWP_DEVICE_READ, page))
    unlink(s, page)
    s.k.pg_flags[page] |= bits.PG_zone_device | bits.PG_device_private
    s.k.pg_refcount[page] += 1  # the device's own
    return page


def unlink(s: Scene, page: int) -> None:
    """Take a page off its LRU list, by the kernel's own hand, and give its reference back."""
    with s.machine.kthread("isolate") as k:
        assert isolate_lru_page(k, page) == 0
        k.pg_flags[page] &= ~bits.PG_isolated
        k.pg_refcount[page] -= 1
        k.vm_stat[bits.NR_ISOLATED] = 0


def poison(s: Scene) -> int:
    """Let a page of the child alone be broken, and kept."""
    page = s.page(s.child, s.anon)
    replace(s, s.child, s.anon, special(SWP_HWPOISON, page))
    unlink(s, page)
    s.k.pg_flags[page] = s.k.pg_flags[page] & ~bits.PG_active | bits.PG_hwpoison
    s.k.pg_mapcount[page] = -1
    s.k.pg_refcount[page] = 1
    s.k.poisoned[page] = 1
    s.k.num_poisoned_pages = 1
    s.k.vm_stat[bits.NR_ANON_MAPPED] -= 1
    s.child.mm.rss_stat[bits.MM_ANONPAGES] -= 1
    return page


# ---------------------------------------------------------------- migration


@breaks("migration-entries")
def an_entry_waits_for_a_page_that_nobody_moves(s: Scene) -> None:
    s.k.pg_flags[let_wait(s)] &= ~bits.PG_locked


@breaks("reachable")
def an_entry_waits_where_no_walk_will_find_it(s: Scene) -> None:
    s.k.pg_index[let_wait(s)] += 1


@breaks("walks")
def an_entry_waits_in_a_vma_that_left_the_tree(s: Scene) -> None:
    let_wait(s)
    s.vma(s.parent, s.anon).anon_vma.rb_root.rb_node.rb_subtree_last = 0


@breaks("rss")
def an_entry_that_waits_is_not_counted(s: Scene) -> None:
    let_wait(s)
    s.parent.mm.rss_stat[bits.MM_ANONPAGES] -= 1


# ---------------------------------------------------------------- device memory


@breaks("device-private")
def an_entry_names_ram_as_device_memory(s: Scene) -> None:
    s.k.pg_flags[to_device(s)] &= ~bits.PG_device_private


@breaks("device-private")
def device_memory_is_mapped(s: Scene) -> None:
    page = to_device(s)
    s.set_pte(s.parent, s.anon + 3 * PAGE, page << bits.PAGE_SHIFT | 5)


@breaks("device-private")
def device_memory_is_on_a_list_of_reclaim(s: Scene) -> None:
    s.k.pg_flags[to_device(s)] |= bits.PG_lru


@breaks("device-private")
def device_memory_is_free_and_mapped(s: Scene) -> None:
    s.k.pg_refcount[to_device(s)] = 1


@breaks("mapcount")
def device_memory_is_not_mapped_by_its_entries(s: Scene) -> None:
    s.k.pg_mapcount[to_device(s)] = -1


@breaks("rss")
def device_memory_is_not_counted(s: Scene) -> None:
    to_device(s)
    s.child.mm.rss_stat[bits.MM_ANONPAGES] -= 1


# ---------------------------------------------------------------- broken memory


@breaks("hwpoison")
def a_broken_page_is_not_counted(s: Scene) -> None:
    poison(s)
    s.k.num_poisoned_pages = 0


@breaks("hwpoison")
def a_broken_page_is_given_back(s: Scene) -> None:
    s.k.pg_refcount[poison(s)] = 0


@breaks("refcount")
def the_reference_of_a_broken_page_is_not_kept(s: Scene) -> None:
    s.k.poisoned.pop(poison(s))


@breaks("rss")
def a_broken_page_still_counts(s: Scene) -> None:
    poison(s)
    s.child.mm.rss_stat[bits.MM_ANONPAGES] += 1


@pytest.mark.parametrize(
    ("invariant", "damage"), [pytest.param(name, run, id=run.__name__) for name, run in DAMAGES]
)
def test_damage_is_found(invariant: str, damage: Damage) -> None:
    scene = Scene()
    damage(scene)
    found = {violation.invariant for violation in scene.machine.check()}
    assert invariant in found


def test_a_page_that_is_locked_may_be_waited_for() -> None:
    scene = Scene()
    page = let_wait(scene)
    assert {str(one) for one in scene.machine.check()} == {
        f"at-rest: page {page:#x} is locked or isolated"
    }


@pytest.mark.parametrize("make", [to_device, poison])
def test_a_page_in_a_device_or_broken_is_right(make: Callable[[Scene], int]) -> None:
    scene = Scene()
    make(scene)
    assert check_kernel(scene.k, {}) == []


def test_a_huge_entry_that_waits_keeps_its_table() -> None:
    s = HugeScene()
    pmd = s.pmd(s.parent, s.private)
    s.k.pt[pmd] = special(SWP_MIGRATION_READ, s.alone)
    s.k.pg_lru_prev[s.alone + 1] = 0
    s.k.pg_refcount[s.alone] = 1
    s.k.pg_flags[s.alone] |= bits.PG_locked
    s.k.vm_stat[bits.NR_ANON_MAPPED] -= 512
    s.k.vm_stat[bits.NR_ANON_THPS] -= 1
    s.machine.pins[s.alone] += 1
    locked = f"at-rest: page {s.alone:#x} is locked or isolated"
    assert [str(one) for one in s.machine.check()] == [locked]
    s.k.pmd_huge_pte[pmd // 512].pop()
    assert "deposited" in {one.invariant for one in s.machine.check()}

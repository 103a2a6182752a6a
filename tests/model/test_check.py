# SPDX-License-Identifier: GPL-2.0-only
"""Every invariant of `rmap.check` is violated by a world that was broken on purpose.

The world is sound, and each `breaks` function below damages one thing in it, as a kernel with a
defect would. What it damages is damaged for good: each gets a world of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rmap.check import INVARIANTS, FlushViolation, FlushWatch, check_kernel, leftovers
from rmap.mm import bits
from rmap.mm.interval_tree import interval_tree_insert
from rmap.mm.lru import put_page
from rmap.mm.mm_types import AnonVmaChain
from rmap.mm.page import lock_page, unlock_page
from rmap.mm.page_dirty import set_page_writeback
from rmap.mm.pgtable import pte_lookup
from rmap.mm.swap import add_to_swap
from rmap.mm.tlb import try_to_unmap_flush
from rmap.mm.unmap import try_to_unmap
from rmap.model.machine import InvariantViolation
from tests.model import (
    test_check_huge,
    test_check_hugetlb,
    test_check_merged,
    test_check_waiting,
)
from tests.model.scene import PAGE, Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


Damage = Callable[[Scene], None]
DAMAGES: list[tuple[str, str, Damage]] = []


def breaks(invariant: str) -> Callable[[Damage], Damage]:
    """Say which invariant a damage violates."""

    def register(damage: Damage) -> Damage:
        DAMAGES.append((invariant, damage.__name__, damage))
        return damage

    return register


# ---------------------------------------------------------------- anon_vmas


@breaks("chain-or-none")
def a_vma_loses_its_anon_vma(s: Scene) -> None:
    s.vma(s.parent, s.anon).anon_vma = None


@breaks("own-on-chain")
def a_vma_owns_a_strangers_anon_vma(s: Scene) -> None:
    s.vma(s.parent, s.anon).anon_vma = s.vma(s.parent, s.own).anon_vma


@breaks("one-family")
def a_child_forgets_its_root(s: Scene) -> None:
    vma = s.vma(s.child, s.anon)
    vma.anon_vma_chain = vma.anon_vma_chain[:-1]


@breaks("one-family")
def a_chain_mixes_two_families(s: Scene) -> None:
    vma, other = s.vma(s.child, s.anon), s.vma(s.parent, s.own)
    vma.anon_vma_chain = other.anon_vma_chain + vma.anon_vma_chain


@breaks("edges")
def an_edge_is_left_in_a_tree(s: Scene) -> None:
    vma = s.vma(s.child, s.anon)
    vma.anon_vma_chain = vma.anon_vma_chain[1:]


@breaks("edges")
def an_edge_names_another_vma(s: Scene) -> None:
    s.vma(s.child, s.anon).anon_vma_chain[0].vma = s.vma(s.parent, s.anon)


@breaks("edges")
def an_edge_is_there_twice(s: Scene) -> None:
    vma = s.vma(s.child, s.anon)
    again = AnonVmaChain(vma)
    again.anon_vma = vma.anon_vma
    vma.anon_vma_chain = [again, *vma.anon_vma_chain]


@breaks("life")
def an_anon_vma_outlives_its_vmas(s: Scene) -> None:
    vma = s.vma(s.parent, s.locked)
    vma.anon_vma_chain = []
    vma.anon_vma.rb_root.rb_node = None


@breaks("life")
def an_anon_vma_is_freed_in_use(s: Scene) -> None:
    s.k.anon_vma_free.append(s.vma(s.parent, s.anon).anon_vma)


@breaks("anon-refcount")
def a_reference_to_a_root_is_dropped(s: Scene) -> None:
    s.vma(s.parent, s.anon).anon_vma.refcount -= 1


@breaks("degree")
def a_degree_is_one_too_low(s: Scene) -> None:
    s.vma(s.parent, s.anon).anon_vma.degree -= 1


@breaks("degree")
def an_owner_is_not_counted(s: Scene) -> None:
    s.vma(s.parent, s.anon).anon_vma.num_active_vmas -= 1


@breaks("same-chain")
def a_split_vma_has_a_shorter_chain(s: Scene) -> None:
    first, second = s.vma(s.parent, s.anon), s.vma(s.parent, s.anon + 6 * PAGE)
    assert first is not second
    assert first.anon_vma is second.anon_vma
    first.anon_vma_chain = first.anon_vma_chain[1:]


# ---------------------------------------------------------------- trees and lists of VMAs


@breaks("interval-trees")
def an_end_is_stale(s: Scene) -> None:
    s.vma(s.parent, s.anon).anon_vma.rb_root.rb_node.rb_subtree_last += 1


@breaks("interval-trees")
def the_leftmost_node_is_another(s: Scene) -> None:
    root = s.vma(s.parent, s.anon).anon_vma.rb_root
    root.rb_leftmost = root.rb_node.rb_right or root.rb_node.rb_left


@breaks("interval-trees")
def a_vma_moves_under_its_node(s: Scene) -> None:
    s.vma(s.parent, s.anon).vm_pgoff += 1


@breaks("interval-trees")
def two_red_nodes_follow_each_other(s: Scene) -> None:
    top = s.vma(s.parent, s.anon).anon_vma.rb_root.rb_node
    top.rb_red = True
    for child in (top.rb_left, top.rb_right):
        if child is not None:
            child.rb_red = True


@breaks("i-mmap")
def a_file_mapping_is_in_no_tree(s: Scene) -> None:
    s.file.mapping.i_mmap.rb_node = None
    s.file.mapping.i_mmap.rb_leftmost = None


@breaks("i-mmap")
def a_shared_mapping_is_not_counted(s: Scene) -> None:
    s.file.mapping.i_mmap_writable -= 1


@breaks("vma-list")
def the_list_skips_a_vma(s: Scene) -> None:
    s.parent.vmas[0].vm_next = s.parent.vmas[2]


@breaks("vma-list")
def two_vmas_overlap(s: Scene) -> None:
    s.parent.vmas[0].vm_end = s.parent.vmas[1].vm_start + PAGE


@breaks("vma-list")
def a_vma_is_not_counted(s: Scene) -> None:
    s.parent.mm.map_count -= 1


@breaks("vm-sizes")
def total_vm_is_wrong(s: Scene) -> None:
    s.parent.mm.total_vm += 1


# ---------------------------------------------------------------- pages


@breaks("tables")
def an_entry_lies_outside_of_every_vma(s: Scene) -> None:
    vma = s.parent.vmas[-1]
    vma.vm_end -= PAGE
    s.set_pte(s.parent, vma.vm_end, s.parent.pte(s.anon))


@breaks("tables")
def a_table_is_lost(s: Scene) -> None:
    s.k.pt_next += 1


@breaks("mapcount")
def a_mapping_is_counted_twice(s: Scene) -> None:
    s.k.pg_mapcount[s.page(s.parent, s.anon)] += 1


@breaks("refcount")
def a_mapping_has_no_reference(s: Scene) -> None:
    s.k.pg_refcount[s.page(s.parent, s.anon)] -= 1


@breaks("refcount")
def a_reference_is_nobodys(s: Scene) -> None:
    s.k.pg_refcount[s.page(s.parent, s.anon)] += 1


@breaks("reachable")
def a_page_names_an_anon_vma_that_its_vma_has_not(s: Scene) -> None:
    stranger = s.vma(s.parent, s.own).anon_vma
    s.k.pg_mapping[s.page(s.parent, s.anon)] = stranger.handle << 2 | 1


@breaks("reachable")
def a_page_has_another_index(s: Scene) -> None:
    s.k.pg_index[s.page(s.parent, s.anon + PAGE)] += 1


@breaks("reachable")
def a_file_page_has_lost_its_file(s: Scene) -> None:
    s.k.pg_mapping[s.page(s.parent, s.mapped)] = 0


@breaks("walks")
def a_walk_misses_a_mapping(s: Scene) -> None:
    root = s.vma(s.parent, s.anon).anon_vma.rb_root
    root.rb_node.rb_subtree_last = 0


@breaks("walks")
def a_walk_comes_to_a_vma_twice(s: Scene) -> None:
    vma = s.vma(s.child, s.anon)
    again = AnonVmaChain(vma)
    interval_tree_insert(again, vma.anon_vma.root.rb_root)


@breaks("copy-on-write")
def a_shared_page_is_writable(s: Scene) -> None:
    address = s.anon + PAGE
    assert s.page(s.parent, address) == s.page(s.child, address)
    s.set_pte(s.child, address, s.child.pte(address) | bits._PAGE_RW)


@breaks("copy-on-write")
def a_read_only_vma_has_a_writable_entry(s: Scene) -> None:
    address = s.anon + 6 * PAGE
    s.set_pte(s.parent, address, s.parent.pte(address) | bits._PAGE_RW)


@breaks("copy-on-write")
def a_private_mapping_writes_to_the_file(s: Scene) -> None:
    address = s.own + PAGE
    s.set_pte(s.parent, address, s.parent.pte(address) | bits._PAGE_RW)


@breaks("dirty-tracking")
def a_page_is_written_out_under_a_writer(s: Scene) -> None:
    s.k.pg_flags[s.page(s.parent, s.mapped)] &= ~bits.PG_dirty


@breaks("swap-cache")
def a_page_says_that_it_is_in_the_swap_cache(s: Scene) -> None:
    s.k.pg_flags[s.page(s.parent, s.anon)] |= bits.PG_swapcache


@breaks("file-pages")
def a_cached_page_is_elsewhere_in_the_file(s: Scene) -> None:
    s.k.pg_index[s.file.cached[0]] = 5


@breaks("file-pages")
def a_cached_page_is_not_counted(s: Scene) -> None:
    s.file.mapping.nrpages -= 1


@breaks("free-pages")
def a_free_page_is_lost(s: Scene) -> None:
    s.k.free_next += 1


@breaks("free-pages")
def a_free_page_keeps_its_mapping(s: Scene) -> None:
    s.k.pg_mapping[int(s.k.free_next)] = 5


@breaks("at-rest")
def a_page_stays_locked(s: Scene) -> None:
    s.k.pg_flags[s.page(s.parent, s.anon)] |= bits.PG_locked


@breaks("at-rest")
def a_root_stays_locked(s: Scene) -> None:
    s.vma(s.parent, s.anon).anon_vma.rwsem.count = 1


@breaks("at-rest")
def a_page_table_stays_locked(s: Scene) -> None:
    s.k.pt_locked[pte_lookup(s.k, s.parent.mm, s.anon) // 512] = 1


@breaks("at-rest")
def a_queue_stays_locked(s: Scene) -> None:
    s.k.split_queue_lock.locked = True


@breaks("at-rest")
def a_fault_on_a_huge_page_forgets_its_mutex(s: Scene) -> None:
    s.k.hugetlb_fault_mutexes[3].count = -1


@breaks("at-rest")
def a_scanner_keeps_its_lock(s: Scene) -> None:
    s.k.khugepaged.mm_lock.locked = True


# ---------------------------------------------------------------- counters


@breaks("rss")
def a_page_is_not_counted_in_its_mm(s: Scene) -> None:
    s.parent.mm.rss_stat[bits.MM_ANONPAGES] -= 1


@breaks("vmstat")
def a_mapped_page_is_not_counted_in_the_node(s: Scene) -> None:
    s.k.vm_stat[bits.NR_ANON_MAPPED] -= 1


@breaks("mlocked")
def a_page_is_locked_that_nobody_maps(s: Scene) -> None:
    page = s.page(s.parent, s.locked)
    assert s.k.pg_flags[page] & bits.PG_mlocked
    s.set_pte(s.parent, s.locked, 0)


@breaks("mlocked")
def a_munlock_forgets_a_page(s: Scene) -> None:
    s.vma(s.parent, s.locked).vm_flags &= ~bits.VM_LOCKED


@breaks("lru")
def a_page_is_active_on_the_inactive_list(s: Scene) -> None:
    s.k.pg_flags[s.page(s.parent, s.anon)] ^= bits.PG_active


@breaks("lru")
def a_list_has_another_length(s: Scene) -> None:
    s.group.memcg.lruvec.size[bits.LRU_ACTIVE_ANON] += 1


@breaks("memcg")
def a_page_is_charged_to_nobody(s: Scene) -> None:
    s.group.memcg.usage -= 1


@breaks("swap-count")
def an_entry_of_a_slot_is_not_counted(s: Scene) -> None:
    area = s.k.swap_areas[0]
    slot = int(np.flatnonzero(np.asarray(area.swap_map)[1:])[0]) + 1
    area.swap_map[slot] += 1


@breaks("swap-count")
def a_slot_in_use_is_free(s: Scene) -> None:
    area = s.k.swap_areas[0]
    slot = int(np.flatnonzero(np.asarray(area.swap_map)[1:])[0]) + 1
    area.swap_map[slot] = 0


@breaks("tlb")
def a_cpu_may_write_where_the_table_forbids_it(s: Scene) -> None:
    s.child.touch(s.anon, PAGE)
    s.set_pte(s.child, s.anon, s.child.pte(s.anon) & ~bits._PAGE_RW)


@breaks("tlb")
def a_cpu_uses_an_entry_that_is_gone(s: Scene) -> None:
    s.child.touch(s.anon, PAGE)
    s.set_pte(s.child, s.anon, 0)


@pytest.mark.parametrize(
    ("invariant", "damage"), [pytest.param(name, run, id=what) for name, what, run in DAMAGES]
)
def test_damage_is_found(scene: Scene, invariant: str, damage: Damage) -> None:
    assert scene.machine.check() == []
    damage(scene)
    found = {violation.invariant for violation in scene.machine.check()}
    assert invariant in found


def test_every_invariant_is_violated_by_some_damage() -> None:
    files = (test_check_huge, test_check_hugetlb, test_check_merged, test_check_waiting)
    others = {name for file in files for name, _ in file.DAMAGES}
    assert {name for name, _, _ in DAMAGES} | others == set(INVARIANTS)


def test_a_check_of_one_invariant_looks_at_nothing_else(scene: Scene) -> None:
    scene.k.pg_mapcount[scene.page(scene.parent, scene.anon)] += 1
    assert check_kernel(scene.k, only=["rss", "degree"]) == []
    (found,) = check_kernel(scene.k, only=["mapcount"])
    assert str(found).startswith("mapcount: page 0x")


def test_pins_are_references(scene: Scene) -> None:
    with scene.parent.pin(scene.anon, PAGE):
        assert scene.machine.check() == []
        assert check_kernel(scene.k, {}) != []
    assert check_kernel(scene.k, {}) == []


def test_a_machine_that_checks_itself_stops_at_the_operation(scene: Scene) -> None:
    scene.machine.invariants = True
    scene.parent.read(scene.anon, 1)
    scene.parent.mm.total_vm += 1
    with pytest.raises(InvariantViolation, match="after parent:\n  vm-sizes: mm"):
        scene.parent.read(scene.anon, 1)


def test_nothing_is_left_of_processes_that_exit(scene: Scene) -> None:
    assert len(leftovers(scene.k)) > 5
    scene.parent.exit()
    scene.child.exit()
    assert leftovers(scene.k) == []
    assert scene.machine.check() == []


def test_a_leaked_page_is_told(scene: Scene) -> None:
    page = scene.page(scene.parent, scene.anon)
    scene.k.pg_refcount[page] += 1
    scene.parent.exit()
    scene.child.exit()
    assert leftovers(scene.k) == [f"anonymous page {page:#x} has 1 references"]


# ---------------------------------------------------------------- in the middle of operations


def test_a_page_that_is_freed_before_its_flush_is_seen(scene: Scene) -> None:
    heard: list[str] = []
    scene.machine.trace(FlushWatch(scene.k, lambda name, args: heard.append(name)))
    scene.parent.munmap(scene.locked, PAGE)  # flushes before it frees
    assert "free_unref_page" in heard
    scene.child.write(scene.anon, b"x")
    page = scene.page(scene.child, scene.anon)
    with scene.machine.kthread("free") as k:
        # As if the entry had been emptied and the page given back, without a flush.
        scene.set_pte(scene.child, scene.anon, 0)
        k.pg_mapcount[page] -= 1
        with pytest.raises(FlushViolation, match="is freed, and CPU 1 may use it"):
            put_page(k, page)


def test_a_page_that_is_written_out_under_a_writer_is_seen(scene: Scene) -> None:
    scene.machine.trace(FlushWatch(scene.k))
    scene.file.writeback()
    scene.parent.write(scene.mapped, b"x")
    page = scene.page(scene.parent, scene.mapped)
    with scene.machine.kthread("flush") as k:
        lock_page(k, page)
        with pytest.raises(FlushViolation, match="is written out, and for writing CPU 0"):
            set_page_writeback(k, page)
        unlock_page(k, page)


def test_an_unmapped_page_whose_flush_nobody_can_tell_of_is_seen(scene: Scene) -> None:
    """I26: mprotect() and munmap() rely on mm->tlb_flush_batched."""
    watch = FlushWatch(scene.k)
    scene.machine.trace(watch)
    scene.child.write(scene.anon, b"x")
    page, vma = scene.page(scene.child, scene.anon), scene.vma(scene.child, scene.anon)
    scene.machine.page_referenced([page])
    scene.child.read(scene.anon, 1)
    with scene.machine.kthread("reclaim") as k:
        lock_page(k, page)
        flags = bits.TTU_BATCH_FLUSH | bits.TTU_IGNORE_ACCESS
        assert add_to_swap(k, page)
        assert try_to_unmap(k, page, flags)
        assert vma.vm_mm.tlb_flush_batched
        told = ("try_to_unmap_one", (page, vma, scene.anon, True))
        watch(*told)
        vma.vm_mm.tlb_flush_batched = False
        with pytest.raises(FlushViolation, match="nobody can tell that a flush is owed"):
            watch(*told)
        try_to_unmap_flush(k)
        watch(*told)
        unlock_page(k, page)

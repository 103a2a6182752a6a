# SPDX-License-Identifier: GPL-2.0-only
"""ksmd's rounds, who takes part in them, taking everything apart, and memory that is short."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faulting import ARENA, PAGE, WRITE
from merging import Merging

from rmap.mm import bits
from rmap.mm.access import AccessError
from rmap.mm.inject import FailPlan
from rmap.mm.ksm.slots import ksm_exit
from rmap.mm.page import PageKsm
from rmap.model import Machine, Process, SyscallError

# ---------------------------------------------------------------- rounds


def test_ksmd_goes_from_where_it_stopped_to_the_end_of_its_round() -> None:
    f = Merging()
    p = f.offer(*(b"%d" % i for i in range(5)))
    q = f.offer(b"x", b"y")
    looked = [f.m.ksm.scan(3) for _ in range(5)]
    # The third call comes to the end of the round, and a round begins only with the next.
    assert looked == [3, 3, 1, 3, 3]
    assert f.m.ksm.full_scans == 1
    assert f.m.ksm.scan() == 1
    assert f.m.ksm.full_scans == 2
    assert f.counted() == (0, 0, 7, 0)
    p.exit()
    q.exit()
    assert f.m.ksm.scan() == 0
    assert f.m.ksm.scan(0) == 0


def test_ksmd_passes_over_what_is_not_there_or_is_no_longer_offered() -> None:
    f = Merging()
    p = f.m.spawn("p")
    a = p.mmap(2048 * PAGE, addr=ARENA)
    for i in (0, 7, 1500):
        p.write(a + i * PAGE, b"x")
    p.read(a + 9 * PAGE, 1)
    p.madvise(a, 2048 * PAGE, "mergeable")
    assert f.m.ksm.scan() == 3
    assert f.ksm.rmap_items == 3
    p.munmap(a + 7 * PAGE, PAGE)
    assert f.m.ksm.scan() == 2
    assert f.ksm.rmap_items == 2
    assert f.of(p, 0) == f.of(p, 1500)
    p.madvise(a + 1024 * PAGE, 1024 * PAGE, "unmergeable")
    assert f.of(p, 0) != f.of(p, 1500)
    assert f.told(p, f.at(1500)) == WRITE
    assert f.m.ksm.scan() == 1
    assert f.ksm.rmap_items == 1
    assert f.sound()
    p.munmap(a, 2048 * PAGE)
    # Nothing is mergeable any more: the address space takes no part until it asks again.
    assert f.m.ksm.scan() == 0
    assert not p.mm.flags & bits.MMF_VM_MERGEABLE
    assert (f.ksm.mm_slots, f.ksm.rmap_items, p.mm.mm_count) == ([], 0, 1)
    assert f.gone()


def test_an_address_space_enters_once_and_its_child_with_it() -> None:
    f = Merging()
    p = f.offer(b"a", b"b")
    p.madvise(ARENA, PAGE, "mergeable")
    assert [slot.mm for slot in f.ksm.mm_slots] == [p.mm]
    assert p.mm.mm_count == 2
    p.madvise(ARENA, 2 * PAGE, "unmergeable")
    p.madvise(ARENA, 2 * PAGE, "mergeable")
    child = p.fork()
    assert [slot.mm for slot in f.ksm.mm_slots] == [p.mm, child.mm]
    other = f.m.spawn("other").fork()
    assert not other.mm.flags & bits.MMF_VM_MERGEABLE
    with f.m.kthread("exit") as k:
        assert ksm_exit(k, other.mm) == 0
    assert f.sound()


def test_who_enters_is_looked_at_after_all_others() -> None:
    """Behind ksmd's place; when everything is being taken apart, at the end instead."""
    f = Merging()
    p, q, r = (f.offer(b"%d" % i, b"%d" % i) for i in range(3))
    assert f.m.ksm.scan(3) == 3
    assert f.ksm.scan.mm_slot.mm is q.mm
    s = f.offer(b"s")
    assert [slot.mm for slot in f.ksm.mm_slots] == [p.mm, s.mm, q.mm, r.mm]
    f.ksm.run = bits.KSM_RUN_UNMERGE
    t = f.offer(b"t")
    assert [slot.mm for slot in f.ksm.mm_slots] == [p.mm, s.mm, q.mm, r.mm, t.mm]
    f.ksm.run = bits.KSM_RUN_MERGE
    # Who exits is the next one that ksmd goes to, if it has items there.
    gone = p.mm
    p.exit()
    assert [slot.mm for slot in f.ksm.mm_slots] == [s.mm, q.mm, gone, r.mm, t.mm]
    assert f.sound()
    assert f.gone()


# ---------------------------------------------------------------- the end of processes


def test_an_address_space_without_items_is_forgotten_at_once() -> None:
    f = Merging()
    p = f.offer(b"a")
    mm = p.mm
    p.exit()
    assert (f.ksm.mm_slots, f.ksm.slots_hash, mm.mm_count, f.k.mms) == ([], {}, 0, [f.p.mm])
    assert not mm.flags & bits.MMF_VM_MERGEABLE


def test_an_address_space_with_items_waits_for_ksmd() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page, anon_vma, mm = f.of(p), p.vmas[0].anon_vma, p.mm
    p.exit()
    assert (mm.mm_users, mm.mm_count) == (0, 1)
    assert [slot.mm for slot in f.ksm.mm_slots] == [mm, q.mm]
    # The item is on the node still, and pins an anon_vma without VMAs.
    assert anon_vma.refcount == 1
    assert anon_vma.rb_root.rb_node is None
    assert f.walked(page) == [("p2", 0)]
    assert f.sound()
    f.m.ksm.scan(1)
    assert mm.mm_count == 0
    assert anon_vma.refcount == 0
    assert mm not in f.k.mms
    assert f.sound()
    assert f.gone()


def test_ksmd_is_at_an_address_space_that_exits() -> None:
    f = Merging()
    p = f.offer(b"a", b"b", b"c")
    f.offer(b"a")
    f.m.ksm.scan(2)
    mm = p.mm
    assert f.ksm.scan.mm_slot.mm is mm
    p.exit()
    assert f.ksm.scan.mm_slot.mm is mm
    assert f.sound()
    assert f.m.ksm.scan(1) == 1
    assert mm not in f.k.mms
    assert f.ksm.rmap_items == 1
    assert f.gone()


def test_exec_leaves_the_merged_pages_of_the_old_program() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    page = f.of(q)
    p.exec("next")
    assert not p.mm.flags & bits.MMF_VM_MERGEABLE
    assert f.counts(page) == (1, 1)
    f.rounds(1)
    assert f.walked(page) == [("p2", 0)]
    assert f.sound()
    assert f.gone()


# ---------------------------------------------------------------- settings


def test_stopped_ksmd_looks_at_nothing_and_leaves_merged_pages_merged() -> None:
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    f.m.ksm.run = "stop"
    assert f.m.ksm.scan() == 0
    assert f.of(p) == f.of(q)
    p.write(ARENA, b"x")
    assert f.of(p) != f.of(q)
    assert f.m.ksm.run == "stop"
    assert f.sound()


def test_everything_is_taken_apart() -> None:
    f = Merging()
    p, q = f.offer(b"same", b"own"), f.offer(b"same")
    child = q.fork()
    f.rounds(3)
    f.m.ksm.run = "unmerge"
    pages = [f.of(p), f.of(q), f.of(child)]
    assert len(set(pages)) == 3
    assert not any(PageKsm(f.k, page) for page in pages)
    assert f.counted() == (0, 0, 0, 0)
    assert (f.ksm.rmap_items, f.m.ksm.full_scans, f.ksm.stable_tree) == (0, 0, [])
    # They take part still, once it is to merge again.
    assert len(f.ksm.mm_slots) == 3
    assert f.m.ksm.scan() == 0
    assert f.sound()
    f.m.ksm.run = "run"
    f.rounds(2)
    assert f.of(p) == f.of(q) == f.of(child)
    assert f.sound()
    assert f.gone()


def test_settings_that_cannot_be() -> None:
    f = Merging()
    with pytest.raises(ValueError, match="known: stop, run, unmerge"):
        f.m.ksm.run = "walk"
    with pytest.raises(SyscallError):
        f.m.ksm.max_page_sharing = 1
    f.offer(b"a", b"a")
    f.rounds()
    with pytest.raises(SyscallError) as refused:
        f.m.ksm.max_page_sharing = 7
    assert refused.value.errno == bits.EBUSY
    f.m.ksm.max_page_sharing = 256
    f.m.ksm.run = "unmerge"
    f.m.ksm.max_page_sharing = 7
    assert f.m.ksm.max_page_sharing == 7
    f.m.ksm.stable_node_chains_prune_millisecs = 5
    assert f.m.ksm.stable_node_chains_prune_millisecs == 5


def test_a_machine_that_merges_nothing_has_no_ksm() -> None:
    m = Machine(ram=64)
    p = m.spawn("p")
    p.write(p.mmap(PAGE), b"x")
    p.exit()
    assert m.kernel.ksm is None
    assert m.ksm.counters() == dict.fromkeys(m.ksm.counters(), 0)
    assert repr(m.ksm) == "<KSM: 0 pages for 0>"


# ---------------------------------------------------------------- moving


def test_mremap_takes_merged_pages_apart_before_it_moves_them() -> None:
    f = Merging()
    p, q = f.offer(b"same", b"other"), f.offer(b"same")
    f.rounds()
    page = f.of(p)
    p.mremap(ARENA, 2 * PAGE, 2 * PAGE, new_addr=ARENA + 64 * PAGE)
    assert f.of(p, 64) not in (0, page)
    assert f.of(q) == page
    assert p.vmas[0].vm_flags & bits.VM_MERGEABLE
    assert f.sound()
    f.rounds(2)
    assert f.of(p, 64) == page
    assert set(f.walked(page)) == {("p1", 64), ("p2", 0)}
    assert f.sound()


# ---------------------------------------------------------------- memory that is short


def test_no_memory_to_take_part() -> None:
    f = Merging()
    p = f.m.spawn("p")
    a = p.mmap(PAGE, addr=ARENA)
    p.write(a, b"x")
    f.m.inject = FailPlan.nth(1, "mm_slot")
    with pytest.raises(SyscallError) as refused:
        p.madvise(a, PAGE, "mergeable")
    # As if it were short only for the moment.
    assert refused.value.errno == bits.EAGAIN
    assert not p.vmas[0].vm_flags & bits.VM_MERGEABLE
    p.madvise(a, PAGE, "mergeable")
    f.m.inject = FailPlan.nth(1, "mm_slot")
    with pytest.raises(OSError, match="fork"):
        p.fork()
    assert len(f.ksm.mm_slots) == 1
    assert f.sound()
    f.m.inject = None
    assert f.gone()


def test_no_memory_for_an_item_ends_the_scan_where_it_is() -> None:
    f = Merging()
    f.offer(b"a", b"b", b"c")
    f.m.inject = FailPlan.nth(2, "rmap_item")
    assert f.m.ksm.scan() == 1
    assert f.ksm.scan.address == f.at(1)
    assert f.m.ksm.scan() == 2
    assert f.ksm.rmap_items == 3
    assert f.sound()


@pytest.mark.parametrize("nth", [1, 2])
def test_no_memory_for_a_node_takes_the_merge_back(nth: int) -> None:
    """The first is the node of the page, the second the chain that it needs beside another."""
    f = Merging(ksm_names_node_last=True)
    f.m.ksm.max_page_sharing = 2
    first = f.offer(b"same", b"same")
    f.rounds()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds(1)
    f.m.inject = FailPlan.nth(nth, "stable_node")
    f.rounds(1)
    assert f.m.inject.failed == 1
    pages = {f.of(first, 0), f.of(p), f.of(q)}
    assert len(pages) == 3
    assert not PageKsm(f.k, f.of(p))
    assert not PageKsm(f.k, f.of(q))
    assert f.counted()[:2] == (1, 1)
    assert f.sound()
    f.m.inject = None
    f.rounds(3)
    assert f.of(p) == f.of(q) != f.of(first, 0)
    assert f.sound()
    assert f.gone()


def unmerge(f: Merging, p: Process) -> None:
    f.m.ksm.run = "unmerge"


@pytest.mark.parametrize(
    ("act", "errno"),
    [
        (lambda f, p: p.madvise(ARENA, PAGE, "unmergeable"), bits.EAGAIN),
        (lambda f, p: p.mremap(ARENA, PAGE, PAGE, new_addr=ARENA + 64 * PAGE), bits.ENOMEM),
        (unmerge, bits.ENOMEM),
    ],
)
def test_no_memory_to_take_a_page_apart(act: Callable[..., object], errno: int) -> None:
    """madvise and mremap say so; ksm/run as well, and ksmd then stops."""
    f = Merging()
    p, q = f.offer(b"same"), f.offer(b"same")
    f.rounds()
    f.m.inject = FailPlan.nth(1, "page")
    with pytest.raises(SyscallError) as refused:
        act(f, p)
    assert refused.value.errno == errno
    assert f.of(p) == f.of(q)
    assert f.m.ksm.run == ("stop" if act is unmerge else "run")
    assert p.vmas[0].vm_flags & bits.VM_MERGEABLE
    assert f.sound()
    f.m.inject = None
    f.m.ksm.run = "run"
    assert f.gone()


def test_every_allocation_fails_once() -> None:
    """Offer, merge, fork, write, take apart and exit, with the n-th allocation failing."""
    failed = 0
    sites: set[str] = set()
    for nth in range(1, 120):
        f = Merging(ksm_names_node_last=True)
        f.m.ksm.max_page_sharing = 2
        plan = FailPlan.nth(nth)
        f.m.inject = plan
        for _ in range(3):
            try:
                p = f.offer(b"same", b"same", b"own")
                f.rounds(2)
                p.fork().write(ARENA, b"x")
                f.rounds(1)
                f.m.ksm.run = "unmerge"
            except (OSError, MemoryError, AccessError):
                failed += 1
            f.m.ksm.run = "run"
            assert f.sound()
        f.m.inject = None
        assert f.gone()
        sites.update(site for site, _ in plan.failures)
    assert failed > 50
    assert {"rmap_item", "stable_node", "mm_slot", "page", "vma", "anon_vma_chain"} <= sites

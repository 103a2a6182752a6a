# SPDX-License-Identifier: GPL-2.0-only
"""Merged pages under reclaim: aging, unmapping by their walk, swap out and in, swapoff, moving."""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE, READ
from merging import Merging

from rmap.mm import bits
from rmap.mm.bug import KernelBug
from rmap.mm.fault_swap import ksm_might_need_to_copy
from rmap.mm.inject import FailPlan
from rmap.mm.ksm.stable import get_ksm_page, ksm_migrate_page
from rmap.mm.lru import put_page
from rmap.mm.page import PageKsm, lock_page, unlock_page
from rmap.mm.page_alloc import alloc_page
from rmap.model import Process

PROFILES = ("4.18", "6.1", "6.12")


@pytest.fixture(params=PROFILES)
def f(request: pytest.FixtureRequest) -> Merging:
    return Merging(base=request.param)


def trio(f: Merging) -> tuple[Process, Process, Process, int]:
    """Two places merged, and a child of the second; the page."""
    p, q = f.offer(b"same", name="P"), f.offer(b"same", name="Q")
    f.rounds()
    d = q.fork("D")
    d.cpu = 1
    return p, q, d, f.of(p)


def swap_out(f: Merging, page: int) -> None:
    """Let reclaim have a page: not used, inactive, unmapped, written."""
    for _ in range(4):
        f.m.page_referenced([page])
        f.m.age(32)
        f.m.reclaim(32)


def test_aging_asks_every_place(f: Merging) -> None:
    p, q, d, page = trio(f)
    f.m.page_referenced([page])
    for users in ((), (p,), (q, d), (p, q, d)):
        for process in users:
            process.read(ARENA, 1)
        # Only a page that is not locked can be asked about: its walk needs the page lock.
        assert f.m.page_referenced([page]) == len(users)
    lock_page(f.k, page)
    assert f.m.page_referenced([page]) == 1
    unlock_page(f.k, page)
    assert f.sound()


def test_idle_tracking_sees_every_place(f: Merging) -> None:
    *_, d, page = trio(f)
    f.m.page_idle_mark([page])
    assert f.m.page_idle(page)
    d.read(ARENA, 1)
    assert not f.m.page_idle(page)
    assert f.sound()


def test_one_place_that_is_locked_keeps_the_page(f: Merging) -> None:
    _p, _q, d, _page = trio(f)
    d.mlock(ARENA, PAGE)
    kept = f.of(d)
    f.m.page_referenced([kept])
    assert not f.m.try_to_unmap(kept)
    assert f.of(d) == kept
    assert d.read(ARENA, 4) == b"same"
    assert f.sound()


def test_a_merged_page_goes_to_swap_from_all_its_places_and_comes_back_to_each(f: Merging) -> None:
    p, q, d, page = trio(f)
    f.m.page_referenced([page])
    assert f.m.try_to_unmap(page)
    assert f.counts(page)[0] == 0
    # It is in the swap cache, a merged page still, and comes back as that.
    assert f.node(page) is not None
    assert [f.rss(process)[2] for process in (p, q, d)] == [1, 1, 1]
    assert p.read(ARENA, 4) == b"same"
    assert f.of(p) == page
    assert f.told(p, ARENA) == READ
    assert f.counts(page)[0] == 1
    q.write(ARENA, b"Q")
    assert f.of(q) != page
    assert (q.read(ARENA, 4), d.read(ARENA, 4)) == (b"Qame", b"same")
    assert f.of(d) == page
    assert f.walked(page) == [("P", 0), ("D", 0)]
    assert f.sound()
    assert f.gone()


def test_a_page_that_left_memory_comes_back_as_a_page_like_any(f: Merging) -> None:
    p, q, d, page = trio(f)
    node = f.node(page)
    swap_out(f, page)
    assert f.k.pg_mapping[page] == 0
    assert [f.of(process) for process in (p, q, d)] == [0, 0, 0]
    assert [process.read(ARENA, 4) for process in (p, q, d)] == [b"same"] * 3
    # The first who reads it has it alone named after their anon_vma; the others get copies of it.
    assert f.named(f.of(p)).root is p.vmas[0].anon_vma.root
    assert len({f.of(p), f.of(q), f.of(d)}) >= 2
    assert f.sound()
    # ksmd finds the node stale, drops the items of it, and begins anew.
    f.rounds(3)
    assert node not in f.ksm.stable_tree
    assert f.sound()
    assert f.gone()


def test_a_place_whose_item_went_while_the_page_was_in_swap_is_missed() -> None:
    """Until ksmd comes by again. All that comes of it is that the page cannot be unmapped."""
    f = Merging()
    p, q = f.offer(b"same", b"tail", name="P"), f.offer(b"same", b"last", name="Q")
    f.rounds()
    page = f.of(p)
    f.m.page_referenced([page])
    assert f.m.try_to_unmap(page)
    f.rounds(1)
    assert f.node(page).hlist == {}
    assert p.read(ARENA, 4) == b"same"
    assert f.of(p) == page
    assert f.walked(page) == []
    assert f.node(page).unlisted == {ARENA}
    assert not f.m.try_to_unmap(page)
    assert f.m.check() == []
    f.rounds(1)
    assert f.walked(page) == [("P", 0)]
    assert q.read(ARENA, 4) == b"same"
    f.rounds(1)
    assert f.sound()
    assert f.gone()


@pytest.mark.parametrize("how", ["written", "gone"])
def test_a_child_is_missed_whose_parents_item_went_before_it_got_one(how: str) -> None:
    f = Merging()
    p, _q = f.offer(b"same", name="P"), f.offer(b"same", name="Q")
    f.rounds()
    page = f.of(p)
    child = p.fork("child")
    if how == "gone":
        p.exit()
    else:
        p.write(ARENA, b"mine")
    assert f.walked(page) == [("Q", 0), ("child", 0)]
    # ksmd comes to the parent, and not yet to the child.
    f.m.ksm.scan(1)
    missed = f.mapped(page) - set(f.walked(page))
    assert missed == {("child", 0)}
    assert f.node(page).unlisted == {ARENA}
    assert f.m.check() == []
    f.rounds(1)
    assert set(f.walked(page)) == {("Q", 0), ("child", 0)}
    assert child.read(ARENA, 4) == b"same"
    assert f.sound()
    assert f.gone()


def test_a_page_of_swap_is_copied_where_it_is_to_be_unmerged(f: Merging) -> None:
    p, q, d, page = trio(f)
    f.m.page_referenced([page])
    assert f.m.try_to_unmap(page)
    f.m.ksm.run = "unmerge"
    assert f.ksm.stable_tree == []
    # What is in swap was not taken apart, but is when it comes back.
    assert PageKsm(f.k, page)
    for process in (p, q, d):
        assert process.read(ARENA, 4) == b"same"
        assert not PageKsm(f.k, f.of(process))
    assert len({f.of(process) for process in (p, q, d)}) == 3
    assert f.sound()
    assert f.gone()


def test_no_memory_for_that_copy() -> None:
    f = Merging()
    p, _q, _d, page = trio(f)
    f.ksm.run = bits.KSM_RUN_UNMERGE
    lock_page(f.k, page)
    f.m.inject = FailPlan.nth(1, "page")
    assert ksm_might_need_to_copy(f.k, page, p.vmas[0], ARENA) == 0
    f.m.inject = None
    copy = ksm_might_need_to_copy(f.k, page, p.vmas[0], ARENA)
    assert f.k.content[copy] == b"same"
    unlock_page(f.k, copy)
    put_page(f.k, copy)
    unlock_page(f.k, page)
    f.ksm.run = bits.KSM_RUN_MERGE
    assert f.sound()


def test_swapoff_brings_a_merged_page_back_to_each_place(f: Merging) -> None:
    p, q, d, page = trio(f)
    f.m.page_referenced([page])
    assert f.m.try_to_unmap(page)
    f.m.swapoff()
    assert [process.read(ARENA, 4) for process in (p, q, d)] == [b"same"] * 3
    assert [f.rss(process)[2] for process in (p, q, d)] == [0, 0, 0]
    assert f.sound()
    f.rounds(3)
    assert f.sound()
    assert f.gone()


def test_a_node_follows_its_page_to_another_frame() -> None:
    """What migration does to a merged page: ksm_migrate_page()."""
    f = Merging()
    _p, _q, _d, old = trio(f)
    node = f.node(old)
    new = alloc_page(f.k, bits.GFP_HIGHUSER)
    for wrong, words in (("is not locked", ()), ("the new page is not", (old,))):
        for page in words:
            lock_page(f.k, page)
        with pytest.raises(KernelBug, match=wrong):
            ksm_migrate_page(f.k, new, old)
    lock_page(f.k, new)
    with pytest.raises(KernelBug, match="another mapping"):
        ksm_migrate_page(f.k, new, old)
    f.k.pg_mapping[new] = f.k.pg_mapping[old]
    ksm_migrate_page(f.k, new, old)
    assert node.kpfn == new
    assert f.node(new) is node
    # The old page is a merged one still, of no node: it is not walked, and not searched for.
    assert PageKsm(f.k, old)
    assert f.node(old) is None
    assert ksm_migrate_page(f.k, old, old) == 0
    with f.m.kthread("ksmd") as k:
        assert get_ksm_page(k, node, False) == new
    put_page(f.k, new)
    # And back, so that the world is whole again.
    f.k.pg_mapping[old] = f.k.pg_mapping[new]
    ksm_migrate_page(f.k, old, new)
    f.k.pg_mapping[new] = 0
    unlock_page(f.k, new)
    unlock_page(f.k, old)
    put_page(f.k, new)
    assert f.sound()
    assert f.gone()

# SPDX-License-Identifier: GPL-2.0-only
"""A limit to how many places share one page: chains of pages that hold the same."""

from __future__ import annotations

from collections import Counter

import pytest
from faulting import ARENA, PAGE
from merging import Merging

from rmap.mm import bits
from rmap.mm.ksm.stable import StableNode


def chained(count: int = 6, limit: int = 2) -> Merging:
    """So many places of the same in one process, with a limit."""
    f = Merging()
    f.m.ksm.max_page_sharing = limit
    f.offer(*[b"same"] * count, name="p")
    f.rounds(3)
    return f


def pages(f: Merging, count: int) -> list[int]:
    (p,) = (process for process in f.m.processes.values() if process.vmas)
    return [f.of(p, i) for i in range(count)]


@pytest.mark.parametrize("limit", [2, 3])
def test_as_many_places_as_the_limit_permits_share_a_page(limit: int) -> None:
    f = chained(6, limit)
    groups = Counter(pages(f, 6))
    assert set(groups.values()) == {limit}
    assert f.counted() == (6 // limit, 6 - 6 // limit, 0, 0)
    (chain,) = f.ksm.stable_tree
    assert chain.rmap_hlist_len == bits.STABLE_NODE_CHAIN
    assert {int(dup.kpfn) for dup in chain.dups} == set(groups)
    assert all(dup.chain is chain and dup.rmap_hlist_len == limit for dup in chain.dups)
    assert f.m.ksm.stable_node_chains == 1
    assert f.m.ksm.stable_node_dups == 6 // limit
    assert f.m.warnings == []
    assert f.sound()
    assert f.gone()


def test_what_is_left_over_finds_no_page_that_is_not_full() -> None:
    f = chained(5)
    assert sorted(Counter(pages(f, 5)).values()) == [1, 2, 2]
    # It waits in the unstable tree, for one more.
    assert f.counted() == (2, 2, 1, 0)
    q = f.offer(b"same", name="q")
    f.rounds(3)
    assert f.counted() == (3, 3, 0, 0)
    assert f.of(q) in pages_of_p(f)
    assert f.sound()
    assert f.gone()


def pages_of_p(f: Merging) -> set[int]:
    p = next(process for process in f.m.processes.values() if process.vmas)
    return {f.of(p, i) for i in range(5)}


def test_fork_asks_for_no_limit() -> None:
    f = chained(2)
    p = next(process for process in f.m.processes.values() if process.vmas)
    children = [p.fork() for _ in range(3)]
    f.rounds(2)
    page = f.of(p)
    assert {f.of(child, i) for child in children for i in (0, 1)} == {page}
    assert f.node(page).rmap_hlist_len == 8
    assert f.m.warnings == []
    assert f.counted() == (1, 7, 0, 0)
    assert f.sound()
    assert f.gone()


def test_a_place_that_becomes_free_is_taken_again() -> None:
    f = chained(4)
    p = next(process for process in f.m.processes.values() if process.vmas)
    first = f.of(p, 0)
    p.write(f.at(0), b"else")
    f.rounds(2)
    q = f.offer(b"same", name="q")
    f.rounds(2)
    assert f.of(q) == first
    assert f.sound()


def test_a_page_of_the_chain_that_is_gone_is_met_and_dropped() -> None:
    f = chained(4)
    p = next(process for process in f.m.processes.values() if process.vmas)
    gone = f.of(p, 0)
    both = [i for i in range(4) if f.of(p, i) == gone]
    for i in both:
        p.write(f.at(i), b"else%d" % i)
    f.rounds(3)
    assert f.k.pg_mapping[gone] & bits.PAGE_MAPPING_FLAGS != bits.PAGE_MAPPING_KSM
    # Until it is pruned, the chain stays one, though of one node.
    assert (f.m.ksm.stable_node_chains, f.m.ksm.stable_node_dups) == (1, 1)
    assert f.counted()[:2] == (1, 1)
    assert f.sound()


def test_a_chain_of_one_is_undone_when_it_is_time_to_look_through_it() -> None:
    f = chained(5, limit=3)
    p = next(process for process in f.m.processes.values() if process.vmas)
    groups = Counter(pages(f, 5))
    (full,) = (page for page, count in groups.items() if count == 3)
    for i in range(5):
        if f.of(p, i) == full:
            p.write(f.at(i), b"else%d" % i)
    f.rounds(2)
    assert f.m.ksm.stable_node_chains == 1
    f.m.ksm.stable_node_chains_prune_millisecs = 0
    q = f.offer(b"same", name="q")
    f.rounds(2)
    assert (f.m.ksm.stable_node_chains, f.m.ksm.stable_node_dups) == (0, 0)
    (node,) = (node for node in f.ksm.stable_tree if node.hlist)
    assert node.chain is None
    assert f.of(q) == node.kpfn
    assert f.counted()[:2] == (1, 2)
    assert f.sound()
    assert f.gone()


def leave(f: Merging, dup: StableNode, count: int) -> None:
    """Let processes write to all but so many of a page's places, and ksmd see it."""
    for item in list(dup.hlist)[count:]:
        address = int(item.address) & bits.PAGE_MASK
        f.m.process_of(item.mm).write(address, b"else%d" % address)
    f.rounds(2)


def test_when_it_is_time_the_fullest_page_with_room_is_chosen_and_comes_first() -> None:
    f = Merging()
    f.m.ksm.max_page_sharing = 5
    f.offer(*[b"same"] * 15, name="p")
    f.rounds(3)
    (chain,) = f.ksm.stable_tree
    first, second, third = chain.dups
    assert [len(dup.hlist) for dup in chain.dups] == [5, 5, 5]
    # A page that has got room for two is moved to the front, where the next search finds it.
    leave(f, third, 3)
    assert chain.dups == [third, first, second]
    leave(f, second, 2)
    leave(f, third, 1)
    assert [len(dup.hlist) for dup in chain.dups] == [1, 5, 2]
    # Until it is time, the first with room will do; then it is the fullest.
    q = f.offer(b"same", name="q")
    f.rounds(2)
    assert f.of(q) == third.kpfn
    leave(f, third, 1)
    f.m.ksm.stable_node_chains_prune_millisecs = 0
    r = f.offer(b"same", name="r")
    f.rounds(2)
    assert f.of(r) == second.kpfn
    assert chain.dups[0] is second
    assert f.sound()
    assert f.gone()


def test_a_chain_all_of_whose_pages_are_gone_goes_itself() -> None:
    f = chained(4)
    p = next(process for process in f.m.processes.values() if process.vmas)
    p.munmap(ARENA, 4 * PAGE)
    assert f.m.ksm.stable_node_chains == 1
    q = f.offer(b"new", name="q")
    f.rounds(2)
    assert f.of(q)
    assert (f.m.ksm.stable_node_chains, f.m.ksm.stable_node_dups) == (0, 0)
    assert f.ksm.stable_tree == []
    assert f.sound()
    assert f.gone()

# SPDX-License-Identifier: GPL-2.0-only
"""The interval tree against a sorted list, its invariants recomputed after every step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import make_kernel, make_mm

from rmap.mm.bits import PAGE_SHIFT
from rmap.mm.bug import KernelBug
from rmap.mm.interval_tree import (
    interval_tree_insert,
    interval_tree_insert_after,
    interval_tree_iter_first,
    interval_tree_iter_next,
    interval_tree_remove,
    node_last,
    node_start,
)
from rmap.mm.mm_types import IntervalNode, IntervalRoot, Vma

MM = make_mm(make_kernel())


def node(start: int, pages: int) -> IntervalNode:
    return IntervalNode(Vma(MM, 0, pages << PAGE_SHIFT, 0, start))


def in_order(at: IntervalNode | None) -> list[IntervalNode]:
    if at is None:
        return []
    return [*in_order(at.rb_left), at, *in_order(at.rb_right)]


def check(at: IntervalNode | None, parent: IntervalNode | None) -> tuple[int, int]:
    """Black height and largest end of a subtree, every rule of it asserted."""
    if at is None:
        return 1, -1
    assert at.rb_parent is parent
    assert at.rb_linked
    assert not (at.rb_red and parent is not None and parent.rb_red), "two reds in a row"
    left_height, left_last = check(at.rb_left, at)
    right_height, right_last = check(at.rb_right, at)
    assert left_height == right_height, "black heights differ"
    last = max(node_last(at), left_last, right_last)
    assert at.rb_subtree_last == last
    return left_height + (not at.rb_red), last


def check_tree(root: IntervalRoot, expected: list[IntervalNode]) -> None:
    assert root.rb_node is None or not root.rb_node.rb_red
    check(root.rb_node, None)
    nodes = in_order(root.rb_node)
    assert [id(n) for n in nodes] == [id(n) for n in expected]
    assert root.rb_leftmost is (expected[0] if expected else None)


def overlapping(root: IntervalRoot, start: int, last: int) -> list[int]:
    found = []
    at = interval_tree_iter_first(root, start, last)
    while at is not None:
        found.append(id(at))
        at = interval_tree_iter_next(at, start, last)
    return found


def test_an_empty_tree_has_nothing_to_find():
    root = IntervalRoot()
    check_tree(root, [])
    assert overlapping(root, 0, 1 << 40) == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 20), st.integers(1, 12)),
        st.tuples(st.just("after"), st.integers(0, 99), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, 99), st.just(0)),
        st.tuples(st.just("search"), st.integers(0, 40), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_does_what_a_sorted_list_does(steps):
    root = IntervalRoot()
    model: list[IntervalNode] = []
    for step, a, b in steps:
        if step == "insert":
            new = node(a, b)
            interval_tree_insert(new, root)
            # Of equal starts, the one inserted later comes later.
            place = sum(node_start(n) <= a for n in model)
            model.insert(place, new)
        elif step == "after" and model:
            prev = model[a % len(model)]
            new = node(node_start(prev), node_last(prev) - node_start(prev) + 1)
            interval_tree_insert_after(new, prev, root)
            model.insert(model.index(prev) + 1, new)
        elif step == "remove" and model:
            gone = model.pop(a % len(model))
            interval_tree_remove(gone, root)
            assert not gone.rb_linked
        elif step == "search":
            expected = [id(n) for n in model if node_start(n) <= a + b and node_last(n) >= a]
            assert overlapping(root, a, a + b) == expected
        check_tree(root, model)


def test_a_thousand_nodes_of_one_interval_stay_in_the_order_of_insertion():
    """What a fork server's children look like to their first page."""
    root = IntervalRoot()
    nodes = [node(7, 3) for _ in range(1000)]
    for n in nodes:
        interval_tree_insert(n, root)
    check_tree(root, nodes)
    assert overlapping(root, 9, 9) == [id(n) for n in nodes]
    for n in nodes[::2]:
        interval_tree_remove(n, root)
    check_tree(root, nodes[1::2])


def test_a_node_is_linked_once_and_removed_once():
    root = IntervalRoot()
    n = node(0, 1)
    interval_tree_insert(n, root)
    with pytest.raises(KernelBug, match="linked twice"):
        interval_tree_insert(n, root)
    interval_tree_remove(n, root)
    with pytest.raises(KernelBug, match="not linked"):
        interval_tree_remove(n, root)


def test_fork_inserts_only_behind_an_equal_start():
    root = IntervalRoot()
    n = node(5, 1)
    interval_tree_insert(n, root)
    with pytest.raises(KernelBug, match="starts differ"):
        interval_tree_insert_after(node(6, 1), n, root)


def test_a_changed_range_shows_in_what_the_node_remembers():
    """CONFIG_DEBUG_VM_RB: the tree compares through the VMA, so nobody else would notice."""
    root = IntervalRoot()
    n = node(5, 4)
    interval_tree_insert(n, root)
    assert (n.cached_start, n.cached_last) == (5, 8)
    n.vma.vm_pgoff = 9
    assert (n.cached_start, n.cached_last) != (node_start(n), node_last(n))

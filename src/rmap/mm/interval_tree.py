# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Augmented red-black interval trees (lib/rbtree.c, include/linux/interval_tree_generic.h).

One tree serves both instances of the kernel's generic one (mm/interval_tree.c, v4.18): the VMAs of
a file in ``mapping->i_mmap``, and the anon_vma_chains of an anon_vma in ``anon_vma->rb_root``. Both
are ordered by the start of the node's VMA in pages; of equal starts, the one inserted later comes
later. Each node knows the largest end in its subtree, so a search for what overlaps an interval
skips the subtrees that end before it.

The node's interval is read through its VMA at every comparison. So whoever changes the range of a
linked VMA must take it out first (anon_vma_interval_tree_pre_update_vma) and put it back.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import PAGE_SHIFT
    from rmap.mm.bug import BUG
    from rmap.mm.mm_types import IntervalNode, IntervalRoot
    from rmap.scalar import flag, i32, u64


def node_start(node: IntervalNode) -> u64:
    """First page of the node's interval: vma_start_pgoff(), avc_start_pgoff()."""
    return node.vma.vm_pgoff


def node_last(node: IntervalNode) -> u64:
    """Last page of the node's interval: vma_last_pgoff(), avc_last_pgoff()."""
    return node.vma.vm_pgoff + ((node.vma.vm_end - node.vma.vm_start) >> PAGE_SHIFT) - 1


# ---------------------------------------------------------------- augmentation and rotation


def compute_subtree_last(node: IntervalNode) -> u64:
    """Largest end in the subtree of a node, from its own and its children's."""
    last: u64 = node_last(node)
    if node.rb_left is not None and node.rb_left.rb_subtree_last > last:
        last = node.rb_left.rb_subtree_last
    if node.rb_right is not None and node.rb_right.rb_subtree_last > last:
        last = node.rb_right.rb_subtree_last
    return last


def _change_child(
    old: IntervalNode, new: IntervalNode, parent: IntervalNode, root: IntervalRoot
) -> i32:
    """Let the parent of `old` (or the root) point to `new`."""
    if parent is None:
        root.rb_node = new
    elif parent.rb_left is old:
        parent.rb_left = new
    else:
        parent.rb_right = new
    return 0


def _rotate(node: IntervalNode, left: flag, root: IntervalRoot) -> i32:
    """Move a node down to the left or right, its child up in its place."""
    parent: IntervalNode = node.rb_parent
    child: IntervalNode
    moved: IntervalNode
    if left:
        child = node.rb_right
        moved = child.rb_left
        node.rb_right = moved
        child.rb_left = node
    else:
        child = node.rb_left
        moved = child.rb_right
        node.rb_left = moved
        child.rb_right = node
    if moved is not None:
        moved.rb_parent = node
    child.rb_parent = parent
    node.rb_parent = child
    _change_child(node, child, parent, root)
    child.rb_subtree_last = node.rb_subtree_last
    node.rb_subtree_last = compute_subtree_last(node)
    return 0


# ---------------------------------------------------------------- insertion


def interval_tree_insert(node: IntervalNode, root: IntervalRoot) -> i32:
    """Link a node: smaller starts go left, equal and larger ones right.

    Raises `KernelBug` if it is linked already.
    """
    start: u64 = node_start(node)
    last: u64 = node_last(node)
    parent: IntervalNode = None
    at: IntervalNode = root.rb_node
    left: flag = False
    leftmost: flag = True
    while at is not None:
        parent = at
        if at.rb_subtree_last < last:
            at.rb_subtree_last = last
        left = start < node_start(at)
        if left:
            at = at.rb_left
        else:
            at = at.rb_right
            leftmost = False
    _link(node, parent, left, root, leftmost, start, last)
    return 0


def interval_tree_insert_after(node: IntervalNode, prev: IntervalNode, root: IntervalRoot) -> i32:
    """Link a node as the in-order successor of `prev`, which starts at the same page.

    mm/interval_tree.c:33 (v4.18): fork puts the child's VMA right behind the parent's.
    Raises `KernelBug` if the starts differ.
    """
    start: u64 = node_start(node)
    last: u64 = node_last(node)
    parent: IntervalNode
    if start != node_start(prev):
        BUG("interval_tree.c:41 vma_interval_tree_insert_after: the starts differ")
    left: flag = prev.rb_right is not None
    if left:
        parent = prev.rb_right
        if parent.rb_subtree_last < last:
            parent.rb_subtree_last = last
        while parent.rb_left is not None:
            parent = parent.rb_left
            if parent.rb_subtree_last < last:
                parent.rb_subtree_last = last
    else:
        parent = prev
    # The kernel leaves the ancestors alone, since both intervals are the same there. Recomputing
    # changes nothing then, and keeps the tree right for intervals that are not.
    _link(node, parent, left, root, False, start, last)
    return 0


def _link(
    node: IntervalNode,
    parent: IntervalNode,
    left: flag,
    root: IntervalRoot,
    leftmost: flag,
    start: u64,
    last: u64,
) -> i32:
    """Hang a node below `parent` and restore the colours."""
    if node.rb_linked:
        BUG("an interval tree node is linked twice")
    node.rb_left = None
    node.rb_right = None
    node.rb_parent = parent
    node.rb_red = True
    node.rb_linked = True
    node.rb_subtree_last = last
    node.cached_start = start
    node.cached_last = last
    if parent is None:
        root.rb_node = node
    elif left:
        parent.rb_left = node
    else:
        parent.rb_right = node
    if leftmost:
        root.rb_leftmost = node
    ancestor: IntervalNode = parent
    while ancestor is not None and ancestor.rb_subtree_last < last:
        ancestor.rb_subtree_last = last
        ancestor = ancestor.rb_parent
    _insert_colour(node, root)
    return 0


def _insert_colour(node: IntervalNode, root: IntervalRoot) -> i32:
    """Restore the red-black rules above a new red node (__rb_insert)."""
    parent: IntervalNode = node.rb_parent
    grand: IntervalNode
    uncle: IntervalNode
    left: flag
    while parent is not None and parent.rb_red:
        grand = parent.rb_parent
        left = parent is grand.rb_left
        uncle = grand.rb_right if left else grand.rb_left
        if uncle is not None and uncle.rb_red:
            parent.rb_red = False
            uncle.rb_red = False
            grand.rb_red = True
            node = grand
            parent = node.rb_parent
            continue
        if node is (parent.rb_right if left else parent.rb_left):
            _rotate(parent, left, root)
            node = parent
            parent = node.rb_parent
        parent.rb_red = False
        grand.rb_red = True
        _rotate(grand, not left, root)
    root.rb_node.rb_red = False
    return 0


# ---------------------------------------------------------------- removal


def interval_tree_remove(node: IntervalNode, root: IntervalRoot) -> i32:
    """Unlink a node. Raises `KernelBug` if it is not linked."""
    if not node.rb_linked:
        BUG("an interval tree node is removed that is not linked")
    if root.rb_leftmost is node:
        root.rb_leftmost = _next(node)
    _erase(node, root)
    node.rb_linked = False
    node.rb_left = None
    node.rb_right = None
    node.rb_parent = None
    return 0


def _next(node: IntervalNode) -> IntervalNode:
    """In-order successor (rb_next)."""
    parent: IntervalNode
    if node.rb_right is not None:
        node = node.rb_right
        while node.rb_left is not None:
            node = node.rb_left
        return node
    parent = node.rb_parent
    while parent is not None and node is parent.rb_right:
        node = parent
        parent = node.rb_parent
    return parent


def _erase(node: IntervalNode, root: IntervalRoot) -> i32:
    """Take a node out of the tree (__rb_erase_augmented), then restore colours."""
    child: IntervalNode
    hole_parent: IntervalNode
    removed_red: flag
    if node.rb_left is None or node.rb_right is None:
        child = node.rb_left if node.rb_left is not None else node.rb_right
        hole_parent = node.rb_parent
        removed_red = node.rb_red
        _change_child(node, child, hole_parent, root)
        if child is not None:
            child.rb_parent = hole_parent
    else:
        successor: IntervalNode = _next(node)
        child = successor.rb_right
        removed_red = successor.rb_red
        hole_parent = successor
        if successor is not node.rb_right:
            hole_parent = successor.rb_parent
            hole_parent.rb_left = child
            if child is not None:
                child.rb_parent = hole_parent
            successor.rb_right = node.rb_right
            successor.rb_right.rb_parent = successor
        successor.rb_left = node.rb_left
        successor.rb_left.rb_parent = successor
        successor.rb_red = node.rb_red
        successor.rb_parent = node.rb_parent
        successor.rb_subtree_last = node.rb_subtree_last
        _change_child(node, successor, node.rb_parent, root)
    # Every end from the hole up is stale: what reached furthest may have been what left.
    _recompute(hole_parent)
    if not removed_red:
        _erase_colour(child, hole_parent, root)
    return 0


def _recompute(node: IntervalNode) -> i32:
    """Recompute subtree ends from a node up to the root, whatever they were."""
    while node is not None:
        node.rb_subtree_last = compute_subtree_last(node)
        node = node.rb_parent
    return 0


def _erase_colour(node: IntervalNode, parent: IntervalNode, root: IntervalRoot) -> i32:
    """Restore the red-black rules where a black node left (____rb_erase_color)."""
    sibling: IntervalNode
    near: IntervalNode
    far: IntervalNode
    left: flag
    while parent is not None and (node is None or not node.rb_red):
        left = node is parent.rb_left
        sibling = parent.rb_right if left else parent.rb_left
        if sibling.rb_red:
            sibling.rb_red = False
            parent.rb_red = True
            _rotate(parent, left, root)
            sibling = parent.rb_right if left else parent.rb_left
        near = sibling.rb_left if left else sibling.rb_right
        far = sibling.rb_right if left else sibling.rb_left
        if (near is None or not near.rb_red) and (far is None or not far.rb_red):
            sibling.rb_red = True
            node = parent
            parent = node.rb_parent
            continue
        if far is None or not far.rb_red:
            near.rb_red = False
            sibling.rb_red = True
            _rotate(sibling, not left, root)
            sibling = parent.rb_right if left else parent.rb_left
            far = sibling.rb_right if left else sibling.rb_left
        sibling.rb_red = parent.rb_red
        parent.rb_red = False
        far.rb_red = False
        _rotate(parent, left, root)
        node = root.rb_node
        break
    if node is not None:
        node.rb_red = False
    return 0


# ---------------------------------------------------------------- search


def _subtree_search(node: IntervalNode, start: u64, last: u64) -> IntervalNode:
    """Leftmost node of a subtree that overlaps; the subtree's end is not before `start`."""
    while True:
        if node.rb_left is not None and node.rb_left.rb_subtree_last >= start:
            node = node.rb_left
            continue
        if node_start(node) <= last:
            if node_last(node) >= start:
                return node
            if node.rb_right is not None and node.rb_right.rb_subtree_last >= start:
                node = node.rb_right
                continue
        return None


def interval_tree_iter_first(root: IntervalRoot, start: u64, last: u64) -> IntervalNode:
    """First node, in order, whose interval overlaps ``[start, last]``; ``None`` if none does."""
    node: IntervalNode = root.rb_node
    if node is None or node.rb_subtree_last < start:
        return None
    if node_start(root.rb_leftmost) > last:
        return None
    return _subtree_search(node, start, last)


def interval_tree_iter_next(node: IntervalNode, start: u64, last: u64) -> IntervalNode:
    """The node after `node`, in order, that overlaps ``[start, last]``; ``None`` if none does."""
    right: IntervalNode = node.rb_right
    prev: IntervalNode
    while True:
        if right is not None and right.rb_subtree_last >= start:
            return _subtree_search(right, start, last)
        # Climb to the first ancestor that was entered from its left.
        while True:
            prev = node
            node = node.rb_parent
            if node is None:
                return None
            right = node.rb_right
            if prev is not right:
                break
        if node_start(node) > last:
            return None
        if node_last(node) >= start:
            return node

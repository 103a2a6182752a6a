# SPDX-License-Identifier: GPL-2.0-only
"""The interval trees: red-black, ordered, augmented, and over the right VMAs."""

from __future__ import annotations

from collections.abc import Iterator

from rmap.check.recount import Recount, name_vma, tree_nodes
from rmap.check.violation import invariant
from rmap.mm.bits import PAGE_SHIFT, VM_SHARED
from rmap.mm.mm_types import IntervalNode, IntervalRoot


def _interval(node: IntervalNode) -> tuple[int, int]:
    """First and last page of the node's VMA as it is now."""
    vma = node.vma
    pages = (vma.vm_end - vma.vm_start) >> PAGE_SHIFT
    return int(vma.vm_pgoff), int(vma.vm_pgoff) + int(pages) - 1


def _subtree(node: IntervalNode | None) -> Iterator[str]:
    """Problems of a subtree's links, ends and colours."""
    if node is None:
        return
    ends = [_interval(node)[1]]
    for child in (node.rb_left, node.rb_right):
        if child is not None:
            yield from _subtree(child)
            ends.append(int(child.rb_subtree_last))
            if child.rb_parent is not node:
                yield f"{child.vma} has the wrong parent"
            if child.rb_red and node.rb_red:
                yield f"{node.vma} and its child are both red"
    if max(ends) != node.rb_subtree_last:
        yield f"subtree_last of {node.vma} is {node.rb_subtree_last}, found {max(ends)}"
    if (node.cached_start, node.cached_last) != _interval(node):
        yield f"{node.vma} changed under its node, from page {node.cached_start:#x}"
    if not node.rb_linked:
        yield f"{node.vma} is in a tree and does not know it"


def _black_height(node: IntervalNode | None) -> int:
    """Black nodes on the way down; -1 if that depends on the way."""
    if node is None:
        return 1
    left, right = _black_height(node.rb_left), _black_height(node.rb_right)
    return -1 if left != right or left < 0 else left + (not node.rb_red)


def tree_problems(root: IntervalRoot) -> Iterator[str]:
    """Tell what is wrong with one tree."""
    nodes = tree_nodes(root)
    leftmost = nodes[0] if nodes else None
    if root.rb_leftmost is not leftmost:
        yield f"its leftmost node is not {leftmost and leftmost.vma}"
    starts = [_interval(node)[0] for node in nodes]
    if starts != sorted(starts):
        yield f"out of order: {starts}"
    if root.rb_node is not None:
        if root.rb_node.rb_red or root.rb_node.rb_parent is not None:
            yield "its topmost node is red, or has a parent"
        if _black_height(root.rb_node) < 0:
            yield "its paths have different black heights"
        yield from _subtree(root.rb_node)


@invariant("interval-trees", "every interval tree is ordered, augmented and balanced (I6)")
def interval_trees(facts: Recount) -> Iterator[str]:
    """I6."""
    for av in facts.live_anon_vmas:
        for problem in tree_problems(av.rb_root):
            yield f"tree of anon_vma {av.handle}: {problem}"
    for mapping in facts.mappings:
        for problem in tree_problems(mapping.i_mmap):
            yield f"i_mmap of {mapping.name}: {problem}"


@invariant("i-mmap", "a file's i_mmap holds exactly the VMAs that map it (I7)")
def i_mmap(facts: Recount) -> Iterator[str]:
    """I7."""
    expected: dict[int, set[int]] = {}
    for vma in facts.vmas:
        if vma.vm_file is not None:
            expected.setdefault(int(vma.vm_file.f_mapping.handle), set()).add(id(vma))
    for mapping in facts.mappings:
        nodes = tree_nodes(mapping.i_mmap)
        vmas = expected.get(int(mapping.handle), set())
        for node in nodes:
            if id(node.vma) not in vmas:
                yield f"i_mmap of {mapping.name} holds {name_vma(node.vma)}, which does not map it"
        missing = len(vmas - {id(node.vma) for node in nodes})
        if missing:
            yield f"i_mmap of {mapping.name} lacks {missing} VMAs that map it"
        shared = sum(1 for node in nodes if node.vma.vm_flags & VM_SHARED)
        if shared != mapping.i_mmap_writable:
            yield f"{mapping.name}: i_mmap_writable is {mapping.i_mmap_writable}, found {shared}"


@invariant("vma-list", "the VMAs of an mm are in order, apart, linked, and counted")
def vma_list(facts: Recount) -> Iterator[str]:
    """mm->mmap, vm_next, vm_prev, map_count, total_vm and locked_vm."""
    for mm in facts.mms:
        before = None
        for vma in mm.vmas:
            if vma.vm_mm is not mm or vma.vm_start >= vma.vm_end:
                yield f"{name_vma(vma)} is empty, or another mm's"
            if (vma.vm_start | vma.vm_end) & 4095:
                yield f"{name_vma(vma)} does not lie on page borders"
            if before is not None and before.vm_end > vma.vm_start:
                yield f"{name_vma(vma)} begins inside the one before"
            if vma.vm_prev is not before or (before is not None and before.vm_next is not vma):
                yield f"{name_vma(vma)} is not linked to the one before"
            before = vma
        if before is not None and before.vm_next is not None:
            yield f"{name_vma(before)} is the last and has a next"
        if mm.mmap is not (mm.vmas[0] if mm.vmas else None):
            yield f"mm {mm.ident}: mm->mmap is not the first VMA"
        if mm.map_count != len(mm.vmas):
            yield f"mm {mm.ident}: map_count {mm.map_count}, found {len(mm.vmas)}"

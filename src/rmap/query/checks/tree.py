# SPDX-License-Identifier: GPL-2.0-only
"""The interval trees of anon_vmas and files as they lie in memory.

Each is a red-black tree by the first index that a node covers, and each node says what the last
index is below it (lib/rbtree.c, mm/interval_tree.c). A walk that believes a wrong one misses VMAs,
and with them mappings.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage, Table
from rmap.query.checks.collect import Collector
from rmap.query.checks.objects import anon_vma_name, file_name, vma_name
from rmap.query.checks.registry import Fact, Outcome, check

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


@check("tree", "interval trees are in order, balanced, and know how far they reach")
def tree(image: MemoryImage, limit: int) -> Outcome:
    """Look at every node of every tree."""
    nodes = image.tables["tree_nodes"]
    if not len(nodes):
        return Outcome("nodes", skipped="the source does not see trees")
    found = Collector("tree", "nodes", len(nodes), limit)

    same = _same_tree(nodes)
    earlier = np.zeros(len(nodes), bool)
    earlier[1:] = same & (nodes["first"][1:] < nodes["first"][:-1])
    found.where(
        "order",
        earlier,
        lambda row: _describe(
            image, row, f"begins at index {int(nodes['first'][row]):#x}, before its predecessor"
        ),
    )
    wanted = subtree_last(nodes)
    wrong = nodes["subtree_last"] != wanted
    # One wrong number is repeated by nobody above it, unless it was the largest there.
    found.where(
        "subtree_last",
        wrong,
        lambda row: _describe(
            image,
            row,
            f"says that its subtree ends at index {int(nodes['subtree_last'][row]):#x}; "
            f"it ends at {int(wanted[row]):#x}",
        ),
    )
    found.where(
        "parent",
        ~nodes["parent_right"],
        lambda row: _describe(image, row, "names another parent than the node that it hangs on"),
    )
    red, parent = nodes["red"], nodes["parent"].astype(np.int64)
    above = np.where(parent >= 0, red[parent], True)
    found.where(
        "colour",
        red & above,
        lambda row: _describe(
            image, row, "is red, and so is its parent" if parent[row] >= 0 else "is a red root"
        ),
    )
    heights = black_heights(nodes)
    found.where(
        "balance",
        _uneven(nodes, heights),
        lambda row: _describe(
            image, row, "has more black nodes below it on one side than on the other"
        ),
    )
    return found.outcome("node")


def _same_tree(nodes: Table) -> Bools:
    """For each node but the first, whether it is in the tree of the one before."""
    return np.asarray(
        (nodes["anon_vma"][1:] == nodes["anon_vma"][:-1])
        & (nodes["file"][1:] == nodes["file"][:-1])
    )


def depths(nodes: Table) -> I64:
    """How far each node is from the root of its tree."""
    parent = nodes["parent"].astype(np.int64)
    depth = np.zeros(len(nodes), np.int64)
    at, rows = parent.copy(), np.flatnonzero(parent >= 0)
    for _ in range(len(nodes)):
        if not len(rows):
            break
        depth[rows] += 1
        at[rows] = parent[at[rows]]
        rows = rows[at[rows] >= 0]
    return depth


def subtree_last(nodes: Table) -> U64:
    """The last index below each node, recomputed from what the nodes cover."""
    last = nodes["last"].copy()
    parent = nodes["parent"].astype(np.int64)
    depth = depths(nodes)
    for level in range(int(depth.max(initial=0)), 0, -1):
        rows = np.flatnonzero(depth == level)
        np.maximum.at(last, parent[rows], last[rows])
    return last


def black_heights(nodes: Table) -> I64:
    """Black nodes on the way down on the left of each node, itself included."""
    height = np.zeros(len(nodes), np.int64)
    depth = depths(nodes)
    left = nodes["left"].astype(np.int64)
    for level in range(int(depth.max(initial=0)), -1, -1):
        rows = np.flatnonzero(depth == level)
        below = np.where(left[rows] >= 0, height[left[rows]], 0)
        height[rows] = below + ~nodes["red"][rows]
    return height


def _uneven(nodes: Table, height: I64) -> Bools:
    left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
    low = np.where(left >= 0, height[left], 0)
    high = np.where(right >= 0, height[right], 0)
    return np.asarray(low != high)


def _describe(image: MemoryImage, row: int, what: str) -> tuple[str, dict[str, Fact]]:
    nodes = image.tables["tree_nodes"]
    anon_vma, file = int(nodes["anon_vma"][row]), int(nodes["file"][row])
    owner = anon_vma_name(image, anon_vma) if anon_vma >= 0 else file_name(image, file)
    node = int(nodes["node"][row])
    vma = vma_name(image, int(nodes["vma"][row]))
    return f"tree of {owner}: the node {node:#x}, of {vma}, {what}", {"node": node, "owner": owner}

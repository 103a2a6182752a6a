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
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import (
    anon_vma_name,
    file_name,
    handle_of,
    users_of_vmas,
    vma_name,
)
from rmap.query.checks.registry import Fact, Mapper, Outcome, check

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


@check("tree", "interval trees are in order, balanced, and know how far they reach")
def tree(image: MemoryImage, limit: int) -> Outcome:
    """Look at every node of every tree."""
    nodes = image.tables["tree_nodes"]
    if not len(nodes):
        return Outcome("nodes", skipped=NO_STRUCTURE)
    found = Collector("tree", "nodes", len(nodes), limit)
    node = Subject(
        lambda row: _name(image, row),
        lambda row: _facts(image, row),
        lambda row: _affected(image, row),
    )
    first, said = nodes["first"], nodes["subtree_last"]
    earlier = np.zeros(len(nodes), bool)
    earlier[1:] = _same_tree(nodes) & (first[1:] < first[:-1])
    found.where(node, "order", earlier, lambda row: (
        f"begins at index {int(first[row]):#x}, before its predecessor"),
        np.roll(first, 1), first)  # fmt: skip
    depth = depths(nodes)
    wanted = subtree_last(nodes, depth)
    found.where(node, "subtree_last", said != wanted, lambda row: (
        f"says that its subtree ends at index {int(said[row]):#x}; it ends at "
        f"{int(wanted[row]):#x}"), wanted, said)  # fmt: skip
    found.where(node, "parent", ~nodes["parent_right"],
                "names another parent than the node that it hangs on")  # fmt: skip
    red, parent = nodes["red"], nodes["parent"].astype(np.int64)
    root = parent < 0
    found.where(node, "colour", red & ~root & red[parent], "is red, and so is its parent")
    found.where(node, "root", red & root, "is a red root")
    found.where(node, "balance", _uneven(nodes, black_heights(nodes, depth)),
                "has more black nodes below it on one side than on the other")  # fmt: skip
    _leftmost(image, found, node)
    return found.outcome("node")


def _leftmost(image: MemoryImage, found: Collector, node: Subject) -> None:
    """The node that each tree names as its first, where walks begin."""
    nodes = image.tables["tree_nodes"]
    begins = np.ones(len(nodes), bool)
    begins[1:] = ~_same_tree(nodes)
    said = np.zeros(len(nodes), np.uint64)
    for owner, table in (("anon_vma", image.tables["anon_vmas"]), ("file", image.files)):
        if "leftmost" not in table:
            begins &= nodes[owner] < 0
            continue
        rows = nodes[owner] >= 0
        said[rows] = table["leftmost"][nodes[owner][rows]]
    found.where(node, "leftmost", begins & (said != nodes["node"]), lambda row: (
        f"is the leftmost of its tree, which names {int(said[row]):#x}"),
        nodes["node"], said)  # fmt: skip


def _affected(image: MemoryImage, row: int) -> tuple[Mapper, ...]:
    """Those of the node itself, then the others of its tree, whom a walk may miss."""
    nodes = image.tables["tree_nodes"]
    same = (nodes["anon_vma"] == nodes["anon_vma"][row]) & (nodes["file"] == nodes["file"][row])
    own = users_of_vmas(image, nodes["vma"][row : row + 1])
    others = users_of_vmas(image, nodes["vma"][same])
    return (*own, *(one for one in others if one not in own))


def _facts(image: MemoryImage, row: int) -> dict[str, Fact]:
    nodes = image.tables["tree_nodes"]
    address = int(nodes["node"][row])
    anon_vma, file = int(nodes["anon_vma"][row]), int(nodes["file"][row])
    of_anon = anon_vma >= 0
    owner = (
        handle_of(image.tables["anon_vmas"], anon_vma, "anon_vma") if of_anon
        else handle_of(image.files, file, "address_space")
    )  # fmt: skip
    facts: dict[str, Fact] = {
        "object": "anon_vma_chain" if of_anon else "vma", "address": address, "node": address,
        "owner": _owner(image, row),
    }  # fmt: skip
    if "address" in owner:
        facts["owner_address"] = owner["address"]
    return facts


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
    while len(rows) and depth.max() <= len(nodes):
        depth[rows] += 1
        at[rows] = parent[at[rows]]
        rows = rows[at[rows] >= 0]
    return depth


def subtree_last(nodes: Table, depth: I64) -> U64:
    """The last index below each node, recomputed from what the nodes cover."""
    last = nodes["last"].copy()
    parent = nodes["parent"].astype(np.int64)
    for level in range(int(depth.max(initial=0)), 0, -1):
        rows = np.flatnonzero(depth == level)
        np.maximum.at(last, parent[rows], last[rows])
    return last


def black_heights(nodes: Table, depth: I64) -> I64:
    """Black nodes on the way down on the left of each node, itself included."""
    height = np.zeros(len(nodes), np.int64)
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


def _owner(image: MemoryImage, row: int) -> str:
    nodes = image.tables["tree_nodes"]
    anon_vma = int(nodes["anon_vma"][row])
    if anon_vma >= 0:
        return anon_vma_name(image, anon_vma)
    return file_name(image, int(nodes["file"][row]))


def _name(image: MemoryImage, row: int) -> str:
    nodes = image.tables["tree_nodes"]
    vma = vma_name(image, int(nodes["vma"][row]))
    return f"tree of {_owner(image, row)}: the node {int(nodes['node'][row]):#x}, of {vma},"

# SPDX-License-Identifier: GPL-2.0-only
"""Red-black trees of a dump, many at once, and what is wrong with them (lib/rbtree.c).

Trees are read level by level, all of them together. A node that was met before ends that branch: a
damaged tree may loop or run into another one. What a walk of the kernel would meet is what is
returned, in order; contradictions are returned beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.damage import Damage
from rmap.source.dump.records import U64, Bools, Layout, Records, read_records

if TYPE_CHECKING:
    pass

I64 = npt.NDArray[np.int64]
_BLACK = 1
_PARENT_MASK = np.uint64(0xFFFF_FFFF_FFFF_FFFC)
_NONE = -1


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of some trees. Rows of one tree are next to each other, in order.

    `tree` says of which tree (by its place among the roots), `node` is the address of the
    rb_node, `depth` counts from 0 at the root, `parent`, `left` and `right` are rows (-1 none, or
    not readable, or met before). `said_parent` is what the node says its parent's address is.
    `records` are the structs that the nodes lie in.
    """

    tree: I64
    node: U64
    depth: I64
    parent: I64
    left: I64
    right: I64
    red: Bools
    said_parent: U64
    records: Records


@dataclass(frozen=True, slots=True)
class Torn:
    """A link that leads nowhere: from a node (or, if 0, the root of the tree) to an address."""

    tree: int
    node: int
    to: int
    why: str
    kind: str

    def damage(self, kind: str, offset: int, owner: str, address: int) -> Damage:
        """The same, as damage of the struct that the node lies in, or of the tree's owner."""
        words = f"in the tree of {owner} {address:#x}: {self.to:#x} {self.why}"
        if self.node:
            return Damage(kind, self.node - offset, words, self.kind, found=self.to)
        return Damage(owner, address, words, self.kind, found=self.to)


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees, and links of them that could not be followed."""

    nodes: Nodes
    torn: tuple[Torn, ...]


def read_forest(layout: Layout, rb_offset: int, roots: U64) -> Forest:
    """Read the trees below some nodes.

    Parameters
    ----------
    layout
        The struct that the nodes lie in; its columns ``rb_left``, ``rb_right`` and ``rb_parent``
        are those of the node.
    rb_offset
        Where in it the node lies.
    roots
        Addresses of the topmost nodes, 0 for an empty tree.
    """
    layout.require("rb_left", "rb_right", "rb_parent")
    reader = _Reader(layout, rb_offset)
    frontier = np.flatnonzero(roots)
    reader.descend(frontier.astype(np.int64), roots[frontier])
    return reader.forest()


class _Reader:
    """Reads trees level by level."""

    def __init__(self, layout: Layout, rb_offset: int) -> None:
        self.layout = layout
        self.offset = np.uint64(rb_offset)
        self.seen: set[int] = set()
        self.torn: list[Torn] = []
        self.levels: list[tuple[I64, U64, I64, I64, Records]] = []

    def descend(self, tree: I64, node: U64) -> None:
        """Read a level and those below it. The columns: tree, node, parent's row, which side."""
        parent = np.full(len(tree), _NONE, np.int64)
        side = np.zeros(len(tree), np.int64)
        done = 0
        while len(node):
            keep = self._new(tree, node, parent)
            tree, node, parent, side = tree[keep], node[keep], parent[keep], side[keep]
            records = read_records(self.layout, node - self.offset)
            self._note_missing(tree, node, parent, records)
            there = records.present
            tree, node, parent, side = tree[there], node[there], parent[there], side[there]
            records = Records(records.address[there], records.values[there], there[there])
            self.levels.append((tree, node, parent, side, records))
            rows = np.arange(done, done + len(node), dtype=np.int64)
            done += len(node)
            left, right = records["rb_left"], records["rb_right"]
            below = np.concatenate([left, right])
            some = below != 0
            tree = np.concatenate([tree, tree])[some]
            parent = np.concatenate([rows, rows])[some]
            side = np.concatenate([np.zeros(len(left), np.int64), np.ones(len(right), np.int64)])
            side = side[some]
            node = below[some]

    def _from(self, parent: int) -> int:
        """The address of a node by its row."""
        for level in self.levels:
            if parent < len(level[1]):
                return int(level[1][parent])
            parent -= len(level[1])
        raise IndexError(parent)

    def _new(self, tree: I64, node: U64, parent: I64) -> Bools:
        """Which nodes are met for the first time; the others are links that go astray."""
        keep = np.ones(len(node), bool)
        for row, one in enumerate(node.tolist()):
            if one in self.seen:
                keep[row] = False
                above = int(parent[row])
                start = self._from(above) if above >= 0 else 0
                self.torn.append(Torn(int(tree[row]), start, one, "was met before", "loop"))
            self.seen.add(one)
        return keep

    def _note_missing(self, tree: I64, node: U64, parent: I64, records: Records) -> None:
        for row in np.flatnonzero(~records.present).tolist():
            above = int(parent[row])
            start = self._from(above) if above >= 0 else 0
            self.torn.append(
                Torn(int(tree[row]), start, int(node[row]), "is not in the dump", "missing")
            )

    def forest(self) -> Forest:
        """Bring the rows into the order of the trees."""
        tree, node, parent, side, records = _stack(self.levels, self.layout)
        count = len(node)
        children = np.full((2, count), _NONE, np.int64)
        linked = parent >= 0
        children[side[linked], parent[linked]] = np.flatnonzero(linked)
        depth = _depths([len(level[1]) for level in self.levels])
        order = _in_order(tree, parent, children)
        place = np.empty(count + 1, np.int64)
        place[order] = np.arange(count)
        place[count] = _NONE  # what -1 refers to
        word = records["rb_parent"][order]
        nodes = Nodes(
            tree[order], node[order], depth[order], place[parent[order]],
            place[children[0][order]], place[children[1][order]],
            word & np.uint64(_BLACK) == 0, word & _PARENT_MASK,
            Records(records.address[order], records.values[order], records.present[order]),
        )  # fmt: skip
        return Forest(nodes, tuple(self.torn))


def _stack(
    levels: list[tuple[I64, U64, I64, I64, Records]], layout: Layout
) -> tuple[I64, U64, I64, I64, Records]:
    none = np.zeros(0, np.int64)
    if not levels:
        empty = Records(np.zeros(0, "u8"), np.zeros(0, layout.dtype), np.zeros(0, bool))
        return none, np.zeros(0, "u8"), none, none, empty
    tree, node, parent, side = (np.concatenate([one[at] for one in levels]) for at in range(4))
    records = Records(
        np.concatenate([one[4].address for one in levels]),
        np.concatenate([one[4].values for one in levels]),
        np.concatenate([one[4].present for one in levels]),
    )
    return tree, node, parent, side, records


def _depths(sizes: list[int]) -> I64:
    return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)


def _in_order(tree: I64, parent: I64, children: npt.NDArray[np.int64]) -> I64:
    """The rows as a walk meets them: by tree, and within it left, node, right."""
    order: list[int] = []
    left, right = children[0].tolist(), children[1].tolist()
    tops = np.flatnonzero(parent < 0)
    for top in tops[np.argsort(tree[tops], kind="stable")].tolist():
        stack: list[int] = []
        at = top
        while stack or at >= 0:
            while at >= 0:
                stack.append(at)
                at = left[at]
            at = stack.pop()
            order.append(at)
            at = right[at]
    return np.array(order, np.int64)


def rb_columns(path: str) -> dict[str, str | tuple[str, ...]]:
    """The columns of a layout for the node at a member."""
    return {
        "rb_parent": f"{path}.__rb_parent_color",
        "rb_left": f"{path}.rb_left",
        "rb_right": f"{path}.rb_right",
    }


def red_violations(nodes: Nodes) -> I64:
    """Rows of red nodes whose parent is red as well, and of red roots."""
    above_red = np.where(nodes.parent >= 0, nodes.red[nodes.parent], True)
    return np.flatnonzero(nodes.red & above_red)


def black_heights(nodes: Nodes) -> I64:
    """Black nodes from each row down to its nearest missing child, -1 where sides differ."""
    height = np.zeros(len(nodes.node), np.int64)
    for level in range(int(nodes.depth.max(initial=-1)), -1, -1):
        rows = np.flatnonzero(nodes.depth == level)
        low = np.where(nodes.left[rows] >= 0, height[nodes.left[rows]], 0)
        high = np.where(nodes.right[rows] >= 0, height[nodes.right[rows]], 0)
        even = (low == high) & (low >= 0)
        height[rows] = np.where(even, low + ~nodes.red[rows], -1)
    return height

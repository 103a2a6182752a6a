# SPDX-License-Identifier: GPL-2.0-only
"""Maple trees of VMAs (lib/maple_tree.c, since 6.1), many at once.

Entries of a node are ranges: a pivot is the last index of its slot. The low bits of a pointer to a
node say of what kind it is, and so whether its slots are nodes or what the tree holds. Levels are
read one after the other, for all trees together; a node that was met before, or that lies beyond
the depth that a tree can have, ends that branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.damage import Damage
from rmap.source.dump.records import U64, Layout, read_records

if TYPE_CHECKING:
    from drgn import Program

_DENSE, _LEAF, _RANGE, _ARANGE = range(4)
_NODE_MASK = np.uint64(0xFFFF_FFFF_FFFF_FF00)
_TYPE_SHIFT, _TYPE_MASK = np.uint64(3), np.uint64(15)
_INTERNAL = np.uint64(2)
_MAX = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
#: More levels than a tree of a full address space can have.
_LEVELS = 31


@dataclass(frozen=True, slots=True)
class Leaves:
    """What the trees hold: which tree, the range of indices, the entry, the node that has it.

    `bad` are lost branches, with the trees' numbers as the rows of address spaces.
    """

    tree: npt.NDArray[np.int64]
    first: U64
    last: U64
    entry: U64
    node: U64
    bad: tuple[Damage, ...]


def is_node(entries: U64) -> npt.NDArray[np.bool_]:
    """Which entries are pointers to nodes: internal ones beyond the reserved range."""
    return ((entries & np.uint64(3)) == _INTERNAL) & (entries > np.uint64(4096))


def read_maple_trees(program: Program, roots: U64) -> Leaves:
    """Read the trees with these values of ``ma_root``."""
    node = Layout(
        program,
        "struct maple_node",
        {
            "pivot": "mr64.pivot", "slot": "mr64.slot", "end": "mr64.meta.end",
            "apivot": "ma64.pivot", "aslot": "ma64.slot", "aend": "ma64.meta.end",
        },
    ).require("pivot", "slot", "apivot", "aslot")  # fmt: skip
    reader = _Reader(node)
    tree = np.arange(len(roots), dtype=np.int64)
    nodes = is_node(roots)
    first, last = np.zeros(len(roots), "u8"), np.full(len(roots), _MAX)
    # A tree of one entry at index 0 is that entry.
    lone = ~nodes & (roots != 0)
    reader.found.append((tree[lone], first[lone], first[lone], roots[lone], first[lone]))
    reader.read(tree[nodes], roots[nodes], first[nodes], last[nodes])
    return reader.leaves()


class _Reader:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.seen: set[int] = set()
        self.bad: list[Damage] = []
        self.found: list[tuple[npt.NDArray[np.int64], U64, U64, U64, U64]] = []

    def _note(self, tree: int, entry: int, what: str, kind: str) -> None:
        node = entry & int(_NODE_MASK)
        self.bad.append(Damage("maple_node", node, what, kind, mm=int(tree)))

    def read(self, tree: npt.NDArray[np.int64], node: U64, first: U64, last: U64) -> None:
        """Read nodes, and what is below them down to the leaves."""
        for _ in range(_LEVELS):
            keep = self._new(tree, node)
            tree, node, first, last = tree[keep], node[keep], first[keep], last[keep]
            if not len(node):
                return
            tree, node, first, last = self._open(tree, node, first, last)
        for number, entry in zip(tree.tolist(), node.tolist(), strict=True):
            self._note(number, entry, "lies deeper than a tree can be", "loop")

    def _new(self, tree: npt.NDArray[np.int64], entry: U64) -> npt.NDArray[np.bool_]:
        keep = np.ones(len(entry), bool)
        for row, one in enumerate((entry & _NODE_MASK).tolist()):
            if one in self.seen:
                keep[row] = False
                self._note(int(tree[row]), one, "is met twice", "loop")
            self.seen.add(one)
        return keep

    def _open(
        self, tree: npt.NDArray[np.int64], entry: U64, first: U64, last: U64
    ) -> tuple[npt.NDArray[np.int64], U64, U64, U64]:
        """The nodes below some nodes, each with its range; what leaves hold is kept."""
        records = read_records(self.layout, entry & _NODE_MASK)
        kind = entry >> _TYPE_SHIFT & _TYPE_MASK
        parts = []
        for row, one in enumerate(kind.tolist()):
            if not records.present[row] or one not in (_LEAF, _RANGE, _ARANGE):
                why = (
                    "is of no kind that there is" if records.present[row] else "is not in the dump"
                )
                self._note(int(tree[row]), int(entry[row]), why, "missing")
                continue
            values = records.values[row]
            arange = one == _ARANGE
            pivots = values["apivot" if arange else "pivot"]
            slots = values["aslot" if arange else "slot"]
            end = int(values["aend"]) if arange else _range_end(pivots, values["end"], last[row])
            part, astray = _slots(int(tree[row]), pivots, slots, end, first[row], last[row])
            if astray:
                self._note(int(tree[row]), int(entry[row]), "has a pivot out of order", "order")
            if one == _LEAF:
                node = np.full(len(part[0]), entry[row] & _NODE_MASK)
                self.found.append((part[0], part[2], part[3], part[1], node))
            else:
                parts.append(part)
        if not parts:
            none = np.zeros(0, "u8")
            return np.zeros(0, np.int64), none, none, none
        node, first, last = (np.concatenate([part[at] for part in parts]) for at in (1, 2, 3))
        return np.concatenate([part[0] for part in parts]), node, first, last

    def leaves(self) -> Leaves:
        """All entries, by tree and index."""
        tree = np.concatenate([one[0] for one in self.found])
        first, last, entry, node = (
            np.concatenate([one[at] for one in self.found]) for at in (1, 2, 3, 4)
        )
        order = np.lexsort((first, tree))
        return Leaves(
            tree[order], first[order], last[order], entry[order], node[order], tuple(self.bad)
        )


def _range_end(pivots: U64, meta: int, last: np.uint64) -> int:
    """The last slot in use of a node without gaps (ma_data_end()).

    The metadata lies in the last slot, where there is room only if the last pivot is not used.
    """
    top = pivots[-1]
    if top == 0:
        return int(meta)
    return len(pivots) - 1 if top == last else len(pivots)


def _slots(
    tree: int, pivots: U64, slots: U64, end: int, first: np.uint64, last: np.uint64
) -> tuple[tuple[npt.NDArray[np.int64], U64, U64, U64], bool]:
    """Slots up to `end` with their ranges, and whether a pivot is not after the one before."""
    end = min(end, len(slots) - 1)
    high = np.append(pivots[:end], last)[: end + 1]
    # What a walk has reached; a range that goes back is none.
    reached = np.maximum.accumulate(high)
    low = np.empty(end + 1, "u8")
    low[0] = first
    low[1:] = reached[:-1] + np.uint64(1)
    right = (low <= high) & (high <= last) & (reached == high)
    used = slots[: end + 1] != 0
    keep = right & used
    count = int(keep.sum())
    part = np.full(count, tree, np.int64), slots[: end + 1][keep], low[keep], high[keep]
    return part, bool((~right & used).any())

# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas and their chains: from every VMA, and from every anonymous page.

Each anon_vma_chain is met twice in a healthy machine: in the list of its VMA, and in the interval
tree of its anon_vma. Both are read, independently, so that one without the other shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.pages import ANON, Pages
from rmap.source.dump.rbtree import Forest, rb_columns, read_forest
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records
from rmap.source.dump.spaces import Spaces

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
_ANON_VMA: dict[str, str | tuple[str, ...]] = {
    "root": "root", "parent": "parent", "refcount": "refcount.counter", "degree": "degree",
    "num_children": "num_children", "num_active_vmas": "num_active_vmas",
    "top": ("rb_root.rb_root.rb_node", "rb_root.rb_node"), "leftmost": "rb_root.rb_leftmost",
}  # fmt: skip
_CHAIN: dict[str, str | tuple[str, ...]] = {
    "vma": "vma", "anon_vma": "anon_vma", "next": "same_vma.next", "prev": "same_vma.prev",
    "subtree_last": "rb_subtree_last", **rb_columns("rb"),
}  # fmt: skip
#: Edges in one VMA's list beyond which it is taken to be endless.
_MOST_CHAINS = 1 << 20


@dataclass(frozen=True)
class AnonVmas:
    """anon_vmas (by address), the edges of VMAs' lists, and the trees.

    `listed` are edges in the order of lists: `listed_vma` the row of the VMA whose list it is,
    `position` its place there. `forest` has the trees of the anon_vmas, by their rows.
    """

    anon_vmas: Records
    listed: Records
    listed_vma: I64
    position: I64
    forest: Forest
    damage: tuple[tuple[str, int, str], ...]

    def row_of(self, addresses: U64) -> I64:
        """Rows of anon_vmas by address, -1 for others."""
        return rows_of(self.anon_vmas.address, addresses)


def rows_of(known: U64, wanted: U64) -> I64:
    """Where values lie in an ascending array, -1 for those that do not."""
    at = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    return np.where(known[at] == wanted, at, -1).astype(np.int64)


def chain_layout(program: Program) -> Layout:
    """The members of an anon_vma_chain."""
    return Layout(program, "struct anon_vma_chain", _CHAIN).require("vma", "anon_vma", "next")


def read_anon_vmas(program: Program, spaces: Spaces, pages: Pages, pinned: U64) -> AnonVmas:
    """Read all anon_vmas that VMAs, chains, pages or (`pinned`) KSM name, and their ancestors."""
    damage: list[tuple[str, int, str]] = []
    listed, vma, position = _lists(program, spaces, damage)
    named = pages.mapping & np.uint64(3) == ANON
    mapped = named & (pages.mapcount > 0)
    addresses = [
        listed["anon_vma"], spaces.vmas["anon_vma"], pages.mapping[mapped] - ANON, pinned,
    ]  # fmt: skip
    wanted = np.unique(np.concatenate(addresses))
    anon_vmas = _with_ancestors(program, wanted[wanted != 0], damage)
    tops = np.where(anon_vmas.present, anon_vmas["top"], np.uint64(0))
    offset = member_offset(program, "struct anon_vma_chain", "rb")
    assert offset is not None
    forest = read_forest(chain_layout(program), offset, tops)
    damage += [
        ("anon_vma", int(anon_vmas.address[torn.tree]), f"its tree: {torn.to:#x} {torn.why}")
        for torn in forest.torn
    ]
    return AnonVmas(anon_vmas, listed, vma, position, forest, tuple(damage))


def _with_ancestors(program: Program, wanted: U64, damage: list[tuple[str, int, str]]) -> Records:
    """The anon_vmas, and those that they name as root or parent, and so on."""
    layout = Layout(program, "struct anon_vma", _ANON_VMA).require("root", "parent", "top")
    while True:
        records = read_records(layout, wanted)
        there = records.present
        above = np.concatenate([records["root"][there], records["parent"][there]])
        more = np.union1d(wanted, above[above != 0])
        if len(more) == len(wanted):
            break
        wanted = more
    damage += [("anon_vma", int(at), "is not in the dump") for at in wanted[~records.present]]
    return records


def _lists(
    program: Program, spaces: Spaces, damage: list[tuple[str, int, str]]
) -> tuple[Records, I64, I64]:
    """The edges of all VMAs' lists, each list from its head on."""
    layout = chain_layout(program)
    link = member_offset(program, "struct anon_vma_chain", "same_vma")
    head = member_offset(program, "struct vm_area_struct", "anon_vma_chain")
    assert link is not None
    assert head is not None
    ends = spaces.vmas.address + np.uint64(head)
    vma = np.arange(len(spaces.vmas), dtype=np.int64)
    at = spaces.vmas["chain_next"]
    parts: list[tuple[Records, I64, I64]] = []
    seen: set[int] = set()
    for position in range(_MOST_CHAINS):
        go_on = (at != ends[vma]) & (at != 0)
        vma, at = vma[go_on], at[go_on]
        again = np.array([one in seen for one in at.tolist()], bool)
        damage += [
            ("anon_vma_chain", int(one) - link, "is met twice in lists") for one in at[again]
        ]
        vma, at = vma[~again], at[~again]
        if not len(at):
            break
        seen.update(at.tolist())
        records = read_records(layout, at - np.uint64(link))
        there = records.present
        damage += [("anon_vma_chain", int(one), "is not in the dump")
                   for one in records.address[~there]]  # fmt: skip
        records = Records(records.address[there], records.values[there], there[there])
        vma = vma[there]
        parts.append((records, vma, np.full(len(vma), position, np.int64)))
        at = records["next"]
    return _concatenated(parts, layout)


def _concatenated(
    parts: list[tuple[Records, I64, I64]], layout: Layout
) -> tuple[Records, I64, I64]:
    if not parts:
        none = np.zeros(0, np.int64)
        empty = Records(np.zeros(0, "u8"), np.zeros(0, layout.dtype), np.zeros(0, bool))
        return empty, none, none
    vma = np.concatenate([part[1] for part in parts])
    position = np.concatenate([part[2] for part in parts])
    order = np.lexsort((position, vma))
    records = Records(
        np.concatenate([part[0].address for part in parts])[order],
        np.concatenate([part[0].values for part in parts])[order],
        np.concatenate([part[0].present for part in parts])[order],
    )
    return records, vma[order], position[order]

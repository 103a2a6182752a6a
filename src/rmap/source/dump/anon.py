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

from rmap.source.dump.damage import Damage, missing, repeated
from rmap.source.dump.pages import ANON, Pages
from rmap.source.dump.rbtree import Forest, rb_columns, read_forest
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records, rows_of
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
#: Steps from an anon_vma that somebody names to its ancestors, which others name as well if all is
#: well: more of them lead through memory that has no anon_vmas.
_GENERATIONS = 64


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
    rb_offset: int
    damage: tuple[Damage, ...]

    def row_of(self, addresses: U64) -> I64:
        """Rows of anon_vmas by address, -1 for others."""
        return rows_of(self.anon_vmas.address, addresses)


def chain_layout(program: Program) -> Layout:
    """The members of an anon_vma_chain."""
    return Layout(program, "struct anon_vma_chain", _CHAIN).require("vma", "anon_vma", "next")


def read_anon_vmas(program: Program, spaces: Spaces, pages: Pages, pinned: U64) -> AnonVmas:
    """Read all anon_vmas that VMAs, chains, pages or (`pinned`) KSM name, and their ancestors."""
    damage: list[Damage] = []
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
        torn.damage("anon_vma_chain", offset, "anon_vma", int(anon_vmas.address[torn.tree]))
        for torn in forest.torn
    ]
    return AnonVmas(anon_vmas, listed, vma, position, forest, offset, tuple(damage))


def _with_ancestors(program: Program, wanted: U64, damage: list[Damage]) -> Records:
    """The anon_vmas, and those that they name as root or parent, and so on."""
    layout = Layout(program, "struct anon_vma", _ANON_VMA).require("root", "parent", "top")
    for _ in range(_GENERATIONS):
        records = read_records(layout, wanted)
        there = records.present
        above = np.concatenate([records["root"][there], records["parent"][there]])
        more = np.union1d(wanted, above[above != 0])
        if len(more) == len(wanted):
            break
        wanted = more
    damage += missing("anon_vma", wanted[~there])
    records = Records(wanted[there], records.values[there], there[there])
    for name in ("root", "parent"):
        lost = rows_of(records.address, records[name]) < 0
        damage += [
            Damage("anon_vma", int(at), f"its {name}, {int(to):#x}, is not in the dump",
                   found=int(to))
            for at, to in zip(records.address[lost], records[name][lost], strict=True)
        ]  # fmt: skip
    return records


def _lists(program: Program, spaces: Spaces, damage: list[Damage]) -> tuple[Records, I64, I64]:
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
        damage += repeated("anon_vma_chain", at[again] - np.uint64(link))
        vma, at = vma[~again], at[~again]
        if not len(at):
            break
        seen.update(at.tolist())
        records = read_records(layout, at - np.uint64(link))
        there = records.present
        damage += [
            Damage("vma", int(spaces.vmas.address[row]), f"its list of anon_vma_chains leads to "
                   f"{int(one):#x}, which is not in the dump", found=int(one),
                   mm=int(spaces.vma_mm[row]))
            for one, row in zip(records.address[~there], vma[~there], strict=True)
        ]  # fmt: skip
        records = Records(records.address[there], records.values[there], there[there])
        vma = vma[there]
        parts.append((records, vma, np.full(len(vma), position, np.int64)))
        at = records["next"]
    listed, owner, places = _concatenated(parts, layout)
    damage += _back_links(listed, owner, places, link, ends, spaces)
    return listed, owner, places


def _back_links(
    listed: Records, vma: I64, position: I64, link: int, ends: U64, spaces: Spaces
) -> list[Damage]:
    """Edges whose link back does not lead to the one before, or to the head of the list."""
    if "prev" not in (listed.values.dtype.names or ()) or not len(listed):
        return []
    links = listed.address + np.uint64(link)
    before = np.where(position == 0, ends[vma], np.roll(links, 1))
    said = listed["prev"]
    return [
        Damage("anon_vma_chain", int(listed.address[row]),
               "its link back does not lead to the one before it in the list of its VMA",
               "back link", int(before[row]), int(said[row]), int(spaces.vma_mm[vma[row]]))
        for row in np.flatnonzero(said != before).tolist()
    ]  # fmt: skip


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

# SPDX-License-Identifier: GPL-2.0-only
"""KSM: the nodes that merged pages name, and the places where they were merged (mm/ksm.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.pages import KSM, Pages
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
_NODE: dict[str, str | tuple[str, ...]] = {
    "kpfn": "kpfn", "first": "hlist.first", "length": "rmap_hlist_len",
}  # fmt: skip
_ITEM: dict[str, str | tuple[str, ...]] = {
    "anon_vma": "anon_vma", "mm": "mm", "address": "address", "next": "hlist.next", "head": "head",
}  # fmt: skip
_ADDRESS_MASK = np.uint64(0xFFFF_FFFF_FFFF_F000)
#: Items of one node beyond which its list is taken to be endless.
_MOST_ITEMS = 1 << 22


@dataclass(frozen=True)
class Merged:
    """Stable nodes by address, and their rmap items (`node` is the row of the node of each)."""

    nodes: Records
    items: Records
    node: I64
    damage: tuple[tuple[str, int, str], ...]

    @property
    def address(self) -> U64:
        """Where each item's page was merged, without the flags in the low bits."""
        return np.asarray(self.items["address"] & _ADDRESS_MASK)


def _struct(program: Program, name: str) -> str:
    """``struct ksm_rmap_item``, or as it was called until 5.19 without ``ksm_``."""
    kind = f"struct ksm_{name}"
    return kind if member_offset(program, kind, "hlist") is not None else f"struct {name}"


def read_ksm(program: Program, pages: Pages) -> Merged:
    """Read the nodes that pages name, and the lists of their items."""
    mapped = (pages.mapcount > 0) & (pages.mapping & KSM == KSM)
    named = np.unique(pages.mapping[mapped] & ~KSM)
    node_kind, item_kind = _struct(program, "stable_node"), _struct(program, "rmap_item")
    nodes = read_records(Layout(program, node_kind, _NODE), named[named != 0])
    damage = [
        ("stable_node", int(at), "is not in the dump") for at in nodes.address[~nodes.present]
    ]
    layout = Layout(program, item_kind, _ITEM)
    link = member_offset(program, item_kind, "hlist")
    owner = np.flatnonzero(nodes.present)
    parts: list[tuple[Records, I64]] = []
    at = nodes["first"][owner] if len(nodes) else np.zeros(0, "u8")
    seen: set[int] = set()
    while link is not None and len(seen) < _MOST_ITEMS:
        again = np.array([one in seen for one in at.tolist()], bool)
        damage += [("rmap_item", int(one) - link, "is met twice in lists")
                   for one in at[again & (at != 0)]]  # fmt: skip
        go_on = (at != 0) & ~again
        owner, at = owner[go_on], at[go_on]
        if not len(at):
            break
        seen.update(at.tolist())
        records = read_records(layout, at - np.uint64(link))
        there = records.present
        damage += [("rmap_item", int(one), "is not in the dump") for one in records.address[~there]]
        records = Records(records.address[there], records.values[there], there[there])
        owner = owner[there]
        parts.append((records, owner))
        at = records["next"]
    if not parts:
        empty = Records(np.zeros(0, "u8"), np.zeros(0, layout.dtype), np.zeros(0, bool))
        return Merged(nodes, empty, np.zeros(0, np.int64), tuple(damage))
    items = Records(
        np.concatenate([part[0].address for part in parts]),
        np.concatenate([part[0].values for part in parts]),
        np.concatenate([part[0].present for part in parts]),
    )
    return Merged(nodes, items, np.concatenate([part[1] for part in parts]), tuple(damage))

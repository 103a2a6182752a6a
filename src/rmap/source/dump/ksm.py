# SPDX-License-Identifier: GPL-2.0-only
"""KSM: the nodes that merged pages name, and the places where they were merged (mm/ksm.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.damage import Damage, repeated
from rmap.source.dump.pages import KSM, Pages
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records, rows_of

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
_NODE: dict[str, str | tuple[str, ...]] = {
    "kpfn": "kpfn", "first": "hlist.first", "length": "rmap_hlist_len",
}  # fmt: skip
_ITEM: dict[str, str | tuple[str, ...]] = {
    "anon_vma": "anon_vma", "mm": "mm", "address": "address", "next": "hlist.next", "head": "head",
    "list": "rmap_list",
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
    damage: tuple[Damage, ...]

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
    lost = np.isin(pages.mapping & ~KSM, nodes.address[~nodes.present]) & mapped
    damage = [
        Damage("page", pages.map.base + int(pages.map.pfn[row]) * pages.map.size,
               f"its node of KSM, {int(pages.mapping[row] & ~KSM):#x}, is not in the dump",
               found=int(pages.mapping[row] & ~KSM))
        for row in np.flatnonzero(lost).tolist()
    ]  # fmt: skip
    layout = Layout(program, item_kind, _ITEM)
    link = member_offset(program, item_kind, "hlist")
    owner = np.flatnonzero(nodes.present)
    parts: list[tuple[Records, I64]] = []
    at = nodes["first"][owner] if len(nodes) else np.zeros(0, "u8")
    seen: set[int] = set()
    while link is not None and len(seen) < _MOST_ITEMS:
        again = np.array([one in seen for one in at.tolist()], bool)
        damage += repeated("rmap_item", at[again & (at != 0)] - np.uint64(link))
        go_on = (at != 0) & ~again
        owner, at = owner[go_on], at[go_on]
        if not len(at):
            break
        seen.update(at.tolist())
        records = read_records(layout, at - np.uint64(link))
        there = records.present
        damage += [
            Damage("stable_node", int(nodes.address[row]), f"its item {one:#x} is not in the dump",
                   found=int(one))
            for one, row in zip(records.address[~there].tolist(), owner[~there], strict=True)
        ]  # fmt: skip
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
    node = np.concatenate([part[1] for part in parts])
    return Merged(nodes, items, node, (*damage, *_contradictions(nodes, items, node)))


def _contradictions(nodes: Records, items: Records, node: I64) -> list[Damage]:
    """Lists of another length than their node says, and items out of order.

    All items of an address space are in one list by ascending address, whichever nodes they are on.
    """
    damage = []
    counted = np.bincount(node, minlength=len(nodes))
    if "length" in (nodes.values.dtype.names or ()):
        for row in np.flatnonzero(nodes.present & (nodes["length"] != counted)).tolist():
            said = int(nodes["length"][row])
            damage.append(
                Damage("stable_node", int(nodes.address[row]),
                       f"says that it has {said} items, and has {counted[row]}", "length",
                       str(counted[row]), str(said))
            )  # fmt: skip
    if "list" not in (items.values.dtype.names or ()):
        return damage
    order = np.argsort(items.address)
    after = rows_of(items.address[order], items["list"])
    page = items["address"] & _ADDRESS_MASK
    for row in np.flatnonzero(after >= 0).tolist():
        other = int(order[after[row]])
        if items["mm"][other] != items["mm"][row] or page[other] <= page[row]:
            damage.append(
                Damage("rmap_item", int(items.address[row]),
                       f"of {int(page[row]):#x} stands before one of {int(page[other]):#x}",
                       "order", found=int(page[row]))
            )  # fmt: skip
    return damage

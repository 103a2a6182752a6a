# SPDX-License-Identifier: GPL-2.0-only
"""Trees and lists of a dump as they lie in memory, for the checks that look at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.image import TABLES, Table
from rmap.source.dump.damage import as_text
from rmap.source.dump.rbtree import Nodes
from rmap.source.dump.reading import Reading
from rmap.source.dump.records import U64, rows_of

I64 = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]


def structure(reading: Reading) -> dict[str, Table]:
    """Make the tables of structure."""
    vma_rows = _Rows(reading.spaces.vmas.address)
    return {
        "tree_nodes": _trees(reading, vma_rows),
        "chain_nodes": _lists(reading, vma_rows),
        "ksm_items": _items(reading),
        "damage": _damage(reading),
    }


class _Rows:
    """Rows of addresses that are in no order."""

    def __init__(self, addresses: U64) -> None:
        self.order = np.argsort(addresses, kind="stable")
        self.sorted = addresses[self.order]

    def of(self, wanted: U64) -> I64:
        """The row of each address, -1 for others."""
        found = rows_of(self.sorted, wanted)
        return np.where(found >= 0, self.order[found], -1) if len(self.sorted) else found


def _trees(reading: Reading, vma_rows: _Rows) -> Table:
    anon, files = reading.anon, reading.files
    of_anon = _nodes(anon.forest.nodes, 0)
    of_file = _nodes(files.forest.nodes, len(of_anon["node"]))
    edges = anon.forest.nodes.records
    of_anon["anon_vma"] = anon.forest.nodes.tree
    of_anon["file"] = np.full(len(edges), -1)
    of_anon["vma"] = vma_rows.of(edges["vma"])
    of_anon["claims"] = anon.row_of(edges["anon_vma"])
    vmas = files.forest.nodes.records
    of_file["anon_vma"] = np.full(len(vmas), -1)
    of_file["file"] = files.forest.nodes.tree
    of_file["vma"] = vma_rows.of(vmas.address)
    row = of_file["vma"]
    of_file["claims"] = np.where(row >= 0, files.of_vma[row], -1) if len(files.of_vma) else row
    spaces = reading.spaces.vmas
    first, last = _intervals(spaces["start"], spaces["end"], spaces["pgoff"])
    known = of_anon["vma"] >= 0
    none = np.uint64(0)
    of_anon["first"] = np.where(known, first[of_anon["vma"]], none) if len(first) else edges["vma"]
    of_anon["last"] = np.where(known, last[of_anon["vma"]], none) if len(last) else edges["vma"]
    of_anon["subtree_last"] = edges["subtree_last"]
    of_file["first"], of_file["last"] = _intervals(vmas["start"], vmas["end"], vmas["pgoff"])
    of_file["subtree_last"] = vmas["subtree_last"]
    schema = TABLES["tree_nodes"]
    joined = {c.name: np.concatenate([of_anon[c.name], of_file[c.name]]) for c in schema.columns}
    return Table(schema, {c.name: joined[c.name].astype(c.dtype) for c in schema.columns})


def _intervals(start: U64, end: U64, pgoff: U64) -> tuple[U64, U64]:
    """First and last index of VMAs."""
    return pgoff, pgoff + (end - start) // np.uint64(4096) - np.uint64(1)


def _nodes(nodes: Nodes, offset: int) -> Columns:
    """The links of a forest's nodes, whose rows begin at `offset`."""

    def shifted(rows: I64) -> I64:
        return np.where(rows >= 0, rows + offset, -1)

    above = np.where(nodes.parent >= 0, nodes.node[nodes.parent], np.uint64(0))
    return {
        "node": nodes.records.address,
        "parent": shifted(nodes.parent),
        "left": shifted(nodes.left),
        "right": shifted(nodes.right),
        "parent_right": nodes.said_parent == above,
        "red": nodes.red,
    }


def _lists(reading: Reading, vma_rows: _Rows) -> Table:
    anon = reading.anon
    return Table(
        TABLES["chain_nodes"],
        {
            "vma": anon.listed_vma.astype(np.int32),
            "position": anon.position.astype(np.int32),
            "node": anon.listed.address,
            "claims_vma": vma_rows.of(anon.listed["vma"]).astype(np.int32),
            "claims_anon_vma": anon.row_of(anon.listed["anon_vma"]).astype(np.int32),
        },
    )


def _items(reading: Reading) -> Table:
    merged = reading.merged
    if not len(merged.items):
        return Table.empty(TABLES["ksm_items"])
    mms = _Rows(reading.spaces.mm.address)
    kpfn = merged.nodes["kpfn"] if "kpfn" in (merged.nodes.values.dtype.names or ()) else None
    return Table(
        TABLES["ksm_items"],
        {
            "node": merged.nodes.address[merged.node],
            "pfn": kpfn[merged.node] if kpfn is not None else np.zeros(len(merged.node), "u8"),
            "mm": mms.of(merged.items["mm"]).astype(np.int32),
            "address": merged.address,
            "anon_vma": reading.anon.row_of(merged.items["anon_vma"]).astype(np.int32),
            "handle": merged.items.address,
        },
    )


def _damage(reading: Reading) -> Table:
    found = reading.damage
    return Table(
        TABLES["damage"],
        {
            "object": [one.object for one in found],
            "address": np.array([one.address & 0xFFFF_FFFF_FFFF_FFFF for one in found], "u8"),
            "what": [one.what for one in found],
            "kind": [one.kind for one in found],
            "expected": [as_text(one.expected) for one in found],
            "found": [as_text(one.found) for one in found],
            "mm": np.array([one.mm for one in found], np.int32),
        },
    )

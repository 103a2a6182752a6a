# SPDX-License-Identifier: GPL-2.0-only
"""What the source itself could not follow: links to no memory, loops, lists that cross.

And what contradicts itself where only the source sees it: links back that lead elsewhere, VMAs that
say something else than the tree they are in, tables that are no tables.
"""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage, Table
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import (
    users_of_anon_vma,
    users_of_file,
    users_of_mm,
    users_of_page,
    users_of_vmas,
)
from rmap.query.checks.registry import Fact, Mapper, Outcome, check


@check("damage", "every link leads to what it should")
def damage(image: MemoryImage, limit: int) -> Outcome:
    """Report what was met while the image was made."""
    table = image.tables["damage"]
    if str(image.machine["source"][0]) == "proc":
        return Outcome("links", skipped=NO_STRUCTURE)
    found = Collector("damage", "links", len(table), limit)
    link = Subject(
        lambda row: f"{table['object'][row]} {int(table['address'][row]):#x}:",
        lambda row: _facts(table, row),
        lambda row: _affected(image, table, row),
    )
    kinds = table["kind"].astype(str) if "kind" in table else np.full(len(table), "link")
    for kind in dict.fromkeys(kinds.tolist()):
        found.add(link, kind, np.flatnonzero(kinds == kind), lambda row: str(table["what"][row]))
    return found.outcome("link")


def _facts(table: Table, row: int) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "object": str(table["object"][row]), "address": int(table["address"][row]),
    }  # fmt: skip
    for name in ("expected", "found"):
        if name in table and table[name][row]:
            facts[name] = _number(str(table[name][row]))
    return facts


def _number(text: str) -> Fact:
    """What is written as one number is one."""
    try:
        return int(text, 16) if text.startswith("0x") else text
    except ValueError:
        return text


def _affected(image: MemoryImage, table: Table, row: int) -> tuple[Mapper, ...]:
    """Whom it affects, by the object that it is about."""
    if "mm" in table and table["mm"][row] >= 0:
        return users_of_mm(image, int(table["mm"][row]))
    kind, address = str(table["object"][row]), table["address"][row]
    if kind == "page":
        return _of_page(image, int(address))
    if kind == "anon_vma":
        return users_of_anon_vma(image, _row(image.tables["anon_vmas"], address))
    if kind == "address_space":
        return users_of_file(image, _row(image.files, address))
    if kind == "vma":
        return users_of_vmas(image, [_row(image.vmas, address)])
    if kind == "mm":
        return users_of_mm(image, _row(image.mms, address))
    if kind == "anon_vma_chain":
        nodes, listed = image.tables["tree_nodes"], image.tables["chain_nodes"]
        return users_of_vmas(image, np.concatenate([
            nodes["vma"][nodes["node"] == address], listed["vma"][listed["node"] == address],
        ]))  # fmt: skip
    if kind in ("stable_node", "rmap_item"):
        items = image.tables["ksm_items"]
        name = "node" if kind == "stable_node" else "handle"
        if name not in items:
            return ()
        mms = np.unique(items["mm"][items[name] == address])
        return tuple(one for mm in mms.tolist() for one in users_of_mm(image, mm))
    row = _row(image.processes, address) if kind == "task" else -1
    if row >= 0:
        process = image.processes.row(row)
        return (Mapper((process["pid"],), process["comm"], 0),)
    return ()


def _row(table: Table, address: np.uint64) -> int:
    """The row of an object by its address, -1 if there is none."""
    if "handle" not in table:
        return -1
    rows = np.flatnonzero(table["handle"] == address)
    return int(rows[0]) if len(rows) else -1


def _of_page(image: MemoryImage, address: int) -> tuple[Mapper, ...]:
    if "memmap" not in image.machine:
        return ()
    base, size = int(image.machine["memmap"][0]), int(image.machine["page_struct"][0])
    return users_of_page(image, (address - base) // size)

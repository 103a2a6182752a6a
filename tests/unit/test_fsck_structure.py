# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the kernel's own structures: each finds its defect in an image, and leaves a sound one.

The sound image is that of a machine; a defect is one value of one table that is another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Kpf, Pte, Vm
from rmap.model import Machine
from rmap.query.checks import CHECKS, Finding
from rmap.query.fsck import fsck

PAGE = 4096
HUGE = 512 * PAGE
#: Values of columns that only kernels of dumps have, which fit this machine.
MEMMAP = 0xFFFF_EA00_0000_0000


@pytest.fixture(scope="module")
def sound() -> MemoryImage:
    """Two processes with memory of their own, of both, of a file, and a huge page."""
    machine = Machine(ram=8192, swap=64, profile="4.18")
    machine.thp.enabled = "always"
    parent = machine.spawn("parent")
    address = parent.mmap(4 * PAGE)
    parent.write(address, b"x" * 4 * PAGE)
    huge = parent.mmap(2 * HUGE)
    parent.touch((huge + HUGE - 1) // HUGE * HUGE, HUGE, write=True)
    file = parent.mmap(2 * PAGE, kind="file", file=machine.file("data", 4))
    parent.write(file, b"y")
    child = parent.fork("child")
    child.write(address, b"z")
    child.fork("grandchild")
    image = machine.snapshot()
    more: dict[str, dict[str, Any]] = {
        "machine": {"memmap": np.array([MEMMAP], "u8"), "page_struct": np.array([64])},
        "pages": {"exclusive": _exclusive(image)},
        "compounds": _of_new_kernels(image),
        "anon_vmas": {"leftmost": _leftmost(image, "anon_vma", "anon_vmas")},
        "files": {"leftmost": _leftmost(image, "file", "files")},
        "mms": {"page_tables": np.full(len(image.mms), PAGE),
                "tables_found": PAGE - PAGE * _huge_entries(image)},
    }  # fmt: skip
    tables = {name: with_columns(table, more.get(name, {})) for name, table in image.tables.items()}
    return MemoryImage(tables)


def with_columns(table: Table, columns: dict[str, Any]) -> Table:
    known = {name: table[name] for name in table.column_names}
    return Table(TABLES[table.schema.name], known | columns)


def _exclusive(image: MemoryImage) -> Any:
    """What is mapped once, and anonymous."""
    anon = image.pages["flags"] & np.uint64(Kpf.ANON) != 0
    return anon & (image.reverse.count(image.pages["pfn"]) == 1)


def _huge_entries(image: MemoryImage) -> Any:
    anon = (image.ptes["order"] == 9) & (image.ptes["flags"] & np.uint32(Pte.FILE) == 0)
    return np.bincount(image.ptes["mm"][anon], minlength=len(image.mms))


def _of_new_kernels(image: MemoryImage) -> dict[str, Any]:
    entire = image.tables["compounds"]["entire"]
    return {"large": entire, "parts": np.where(entire > 0, 0x80_0000, 0).astype(np.int32)}


def _leftmost(image: MemoryImage, owner: str, table: str) -> Any:
    nodes = image.tables["tree_nodes"]
    first = np.zeros(len(image.tables[table]), "u8")
    for row in range(len(nodes) - 1, -1, -1):
        if nodes[owner][row] >= 0:
            first[nodes[owner][row]] = nodes["node"][row]
    return first


def changed(image: MemoryImage, table: str, column: str, row: int, value: Any) -> MemoryImage:
    """The image with one value that is another."""
    values = image.tables[table][column].copy()
    values[row] = value(values[row]) if callable(value) else value
    return MemoryImage({**image.tables, table: with_columns(image.tables[table], {column: values})})


def findings(image: MemoryImage) -> list[Finding]:
    return [one for result in fsck(image, limit=9999).results for one in result.outcome.findings]


def label(finding: Finding) -> str:
    return f"{finding.check}: {finding.facts.get('kind', finding.facts.get('counter'))}"


Where = Callable[[MemoryImage], int]


def mapped(flag: Kpf, order: int = 0, times: int | None = None) -> Where:
    """The row of a page that some entry maps, with a flag."""

    def row(image: MemoryImage) -> int:
        ptes = image.ptes
        rows = image.find_pages(ptes["pfn"][ptes["order"] == order])
        rows = rows[(image.pages["flags"][rows] & np.uint64(flag)) != 0]
        if times is not None:
            rows = rows[image.pages["mapcount"][rows] == times]
        return int(rows[0])

    return row


def first(table: str, condition: Callable[[Table], Any]) -> Where:
    """The first row of a table of which something holds."""
    return lambda image: int(np.flatnonzero(condition(image.tables[table]))[0])


def plus(delta: int) -> Callable[[Any], Any]:
    return lambda value: value + type(value)(delta)


def flagged(*flags: int) -> Callable[[Any], Any]:
    return lambda value: value | type(value)(sum(int(one) for one in flags))


def without(flag: int) -> Callable[[Any], Any]:
    return lambda value: value & ~type(value)(int(flag))


ANY = first("tree_nodes", lambda t: t["anon_vma"] >= 0)
FILE_NODE = first("tree_nodes", lambda t: t["file"] >= 0)
CHILD = first("tree_nodes", lambda t: t["parent"] >= 0)
FAMILY = first("anon_vmas", lambda t: t["root"] != t["anon_vma"])
ROOT = first("anon_vmas", lambda t: (t["root"] == t["anon_vma"]) & (t["refcount"] > 1))
OWNER = first("vmas", lambda t: t["anon_vma"] >= 0)
WRITABLE = first("ptes", lambda t: t["flags"] & np.uint32(Pte.WRITE) != 0)

DEFECTS: list[tuple[str, str, str, Where, Any]] = [
    ("anon_vma: refcount", "anon_vmas", "refcount", ROOT, plus(-1)),
    ("anon_vma: freed", "anon_vmas", "refcount", ROOT, 0),
    ("anon_vma: leaked", "anon_vmas", "refcount", ROOT, plus(9)),
    ("anon_vma: degree", "anon_vmas", "degree", ROOT, plus(1)),
    ("anon_vma: loop", "anon_vmas", "parent", FAMILY, lambda value: value),
    ("chain: own", "vmas", "anon_vma", OWNER, 2),
    ("chain: no anon_vma", "vmas", "anon_vma", OWNER, -1),
    ("chain: vma", "chain_nodes", "claims_vma", lambda image: 0, -1),
    ("chain: anon_vma", "chain_nodes", "claims_anon_vma", lambda image: 0, -1),
    ("chain: not in tree", "chain_nodes", "node", lambda image: 0, 0xDEAD),
    ("chain: claims", "tree_nodes", "claims", ANY, -1),
    ("chain: dangling", "tree_nodes", "vma", ANY, -1),
    ("huge: entire", "compounds", "entire", lambda image: 0, plus(1)),
    ("huge: large", "compounds", "large", lambda image: 0, plus(1)),
    ("huge: parts", "compounds", "parts", lambda image: 0, plus(1)),
    ("huge: order", "compounds", "order", lambda image: 0, 3),
    ("huge: head", "compounds", "pfn", lambda image: 0, plus(512)),
    ("i_mmap: foreign", "tree_nodes", "claims", FILE_NODE, -1),
    ("i_mmap: not in tree", "tree_nodes", "claims", FILE_NODE, -1),
    ("i_mmap: dangling", "tree_nodes", "vma", FILE_NODE, -1),
    ("i_mmap: writable", "files", "writable", lambda image: 0, plus(1)),
    ("mapcount: anon", "pages", "mapcount", mapped(Kpf.ANON), plus(1)),
    ("reach: index", "pages", "index", mapped(Kpf.ANON), plus(1)),
    ("reach: unreached", "tree_nodes", "vma", ANY, -1),
    ("reach: nobody", "pages", "anon_vma", mapped(Kpf.ANON), -1),
    ("reach: beyond", "ptes", "pfn", lambda image: 0, 1 << 40),
    ("rss: rss_anon", "mms", "rss_anon", lambda image: 0, plus(PAGE)),
    ("space: map_count", "mms", "map_count", lambda image: 0, plus(1)),
    ("space: total_vm", "mms", "total_vm", lambda image: 0, plus(1)),
    ("space: pgtables", "mms", "page_tables", lambda image: 0, plus(PAGE)),
    ("space: locked", "vmas", "flags", lambda image: 0, flagged(Vm.LOCKED)),
    ("state: free", "pages", "flags", mapped(Kpf.ANON), flagged(Kpf.BUDDY)),
    ("state: slab", "pages", "flags", mapped(Kpf.ANON), flagged(Kpf.SLAB)),
    ("state: a page table", "pages", "flags", mapped(Kpf.ANON), flagged(Kpf.PGTABLE)),
    ("state: negative", "pages", "mapcount", mapped(Kpf.ANON), -2),
    ("state: references", "pages", "refcount", mapped(Kpf.ANON), 0),
    ("state: lists", "pages", "flags", mapped(Kpf.ANON), flagged(Kpf.ACTIVE, Kpf.UNEVICTABLE)),
    ("state: reserved", "pages", "flags", mapped(Kpf.ANON), flagged(Kpf.RESERVED)),
    ("state: uptodate", "pages", "flags", mapped(Kpf.ANON), without(Kpf.UPTODATE)),
    ("state: exclusive", "pages", "exclusive", mapped(Kpf.ANON, times=2), True),
    ("state: write", "vmas", "flags",
     lambda image: int(image.pte_vma[WRITABLE(image)]), without(Vm.WRITE)),
    ("tree: subtree_last", "tree_nodes", "subtree_last", ANY, plus(1)),
    ("tree: parent", "tree_nodes", "parent_right", ANY, False),
    ("tree: root", "tree_nodes", "red", first("tree_nodes", lambda t: t["parent"] < 0), True),
    ("tree: leftmost", "anon_vmas", "leftmost",
     lambda image: int(image.tables["tree_nodes"]["anon_vma"][ANY(image)]), 0xDEAD),
]  # fmt: skip


def test_a_sound_image_has_no_findings(sound: MemoryImage) -> None:
    assert findings(sound) == []
    ran = {result.name for result in fsck(sound).results if not result.outcome.skipped}
    assert set(CHECKS) - ran <= {"swap"}


@pytest.mark.parametrize(
    ("wanted", "table", "column", "where", "value"), DEFECTS,
    ids=[f"{name}-{column}" for name, _, column, _, _ in DEFECTS],
)  # fmt: skip
def test_a_defect_is_found(
    sound: MemoryImage, wanted: str, table: str, column: str, where: Where, value: Any
) -> None:
    row = where(sound)
    if wanted == "anon_vma: loop":
        # Two that are each other's parent.
        rows = np.flatnonzero(sound.tables[table]["root"] != sound.tables[table]["anon_vma"])
        one, two = rows[:2].tolist()
        image = changed(changed(sound, table, column, one, two), table, column, two, one)
    else:
        image = changed(sound, table, column, row, value)
    assert wanted in {label(one) for one in findings(image)}


def test_a_finding_says_what_where_and_whom(sound: MemoryImage) -> None:
    row = mapped(Kpf.ANON, times=1)(sound)
    image = changed(sound, "pages", "refcount", row, 0)
    (finding,) = [one for one in findings(image) if one.check == "state"]
    pfn = int(sound.pages["pfn"][row])
    assert finding.facts == {
        "kind": "references", "object": "page", "pfn": pfn, "address": MEMMAP + 64 * pfn,
        "expected": 1, "found": 0,
    }  # fmt: skip
    assert [mapper.comm for mapper in finding.mappers]


def test_what_a_source_could_not_follow_is_a_finding(sound: MemoryImage) -> None:
    row = {"object": "mm", "address": 0x1000, "what": "is met twice", "kind": "loop",
           "expected": "", "found": "0x2000", "mm": 0}  # fmt: skip
    tables = {**sound.tables, "damage": Table.from_rows(TABLES["damage"], [row])}
    (finding,) = findings(MemoryImage(tables))
    assert (finding.check, finding.what) == ("damage", "mm 0x1000: is met twice")
    assert finding.facts["found"] == 0x2000
    assert finding.mappers[0].comm == "parent"

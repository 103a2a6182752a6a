# SPDX-License-Identifier: GPL-2.0-only
"""Trees and lists of a machine as they lie in its memory, for the checks that look at them.

Objects of a model have no addresses; each anon_vma_chain and each VMA is given a number instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rmap.check import Recount
from rmap.check.recount import tree_nodes
from rmap.image import TABLES, Table
from rmap.mm.bits import KSM_FLAG_MASK, MAPPING_HANDLE_SHIFT
from rmap.mm.ksm.stable import Ksm, StableNode
from rmap.mm.mm_types import AnonVmaChain, IntervalNode

Row = dict[str, Any]
Rows = Mapping[int, int]


class Structure:
    """Makes the tables of structure of one machine.

    `vma_rows`, `file_rows`, `anon_rows` are the rows of an image by the objects' ids or handles.
    """

    def __init__(self, facts: Recount, vma_rows: Rows, file_rows: Rows, anon_rows: Rows) -> None:
        self.facts = facts
        self.vma_rows = vma_rows
        self.file_rows = file_rows
        self.anon_rows = anon_rows
        self.numbers: dict[int, int] = {}

    def tables(self) -> dict[str, Table]:
        """Make the tables."""
        rows: dict[str, Iterable[Row]] = {
            "tree_nodes": self._trees(),
            "chain_nodes": self._lists(),
            "ksm_items": self._items(),
        }
        return {name: Table.from_rows(TABLES[name], listed) for name, listed in rows.items()}

    def _number(self, thing: object) -> int:
        """A number for an object, in the order in which they are met."""
        return self.numbers.setdefault(id(thing), len(self.numbers) + 1)

    # ------------------------------------------------------------ trees

    def _trees(self) -> list[Row]:
        rows: list[Row] = []
        for handle, row in self.anon_rows.items():
            nodes = self.facts.trees.get(handle, [])
            self._nodes(rows, nodes, {"anon_vma": row, "file": -1}, self._edge)
        for mapping in self.facts.mappings:
            owner = {"anon_vma": -1, "file": self.file_rows[int(mapping.handle)]}
            self._nodes(rows, tree_nodes(mapping.i_mmap), owner, self._of_file)
        return rows

    def _nodes(
        self,
        rows: list[Row],
        nodes: list[IntervalNode],
        owner: Row,
        describe: Callable[[IntervalNode], Row],
    ) -> None:
        """Add the nodes of one tree."""
        places = {id(node): len(rows) + at for at, node in enumerate(nodes)}
        above = {
            id(child): node
            for node in nodes
            for child in (node.rb_left, node.rb_right)
            if child is not None
        }

        def row_of(node: IntervalNode | None) -> int:
            return -1 if node is None else places.get(id(node), -1)

        for node in nodes:
            parent = above.get(id(node))
            vma = node.vma
            pages = (int(vma.vm_end) - int(vma.vm_start)) >> 12
            rows.append(
                {
                    **owner,
                    **describe(node),
                    "vma": self.vma_rows.get(id(vma), -1),
                    "parent": row_of(parent),
                    "left": row_of(node.rb_left),
                    "right": row_of(node.rb_right),
                    "parent_right": node.rb_parent is parent,
                    "red": bool(node.rb_red),
                    "first": int(vma.vm_pgoff),
                    "last": int(vma.vm_pgoff) + pages - 1,
                    "subtree_last": int(node.rb_subtree_last),
                }
            )

    def _edge(self, node: IntervalNode) -> Row:
        assert isinstance(node, AnonVmaChain)
        claims = self.anon_rows.get(int(node.anon_vma.handle), -1)
        return {"node": self._number(node), "claims": claims}

    def _of_file(self, node: IntervalNode) -> Row:
        file = node.vma.vm_file
        claims = -1 if file is None else self.file_rows.get(int(file.f_mapping.handle), -1)
        return {"node": self._number(node.vma), "claims": claims}

    # ------------------------------------------------------------ lists

    def _lists(self) -> Iterable[Row]:
        for row, vma in enumerate(self.facts.vmas):
            for position, avc in enumerate(vma.anon_vma_chain):
                yield {
                    "vma": row,
                    "position": position,
                    "node": self._number(avc),
                    "claims_vma": self.vma_rows.get(id(avc.vma), -1),
                    "claims_anon_vma": self.anon_rows.get(int(avc.anon_vma.handle), -1),
                }

    def _items(self) -> Iterable[Row]:
        ksm: Ksm | None = self.facts.kernel.ksm
        mms = {id(mm): row for row, mm in enumerate(self.facts.mms)}
        nodes: list[StableNode | None] = [] if ksm is None else ksm.stable_nodes
        for node in nodes:
            for item in node.hlist if node is not None else ():
                assert node is not None
                yield {
                    "node": int(node.handle) << MAPPING_HANDLE_SHIFT,
                    "pfn": int(node.kpfn),
                    "mm": mms.get(id(item.mm), -1),
                    "address": int(item.address) & ~KSM_FLAG_MASK,
                    "anon_vma": self.anon_rows.get(int(item.anon_vma.handle), -1),
                }

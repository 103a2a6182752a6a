# SPDX-License-Identifier: GPL-2.0-only
"""Address spaces: their VMAs, counters and page tables.

VMAs are found by the maple tree of the mm (since 6.1), or along its list. Both are walked with a
bound and each VMA is met once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.facts import Facts
from rmap.source.dump.mapletree import is_node, read_maple_trees
from rmap.source.dump.pagetables import Entries, PageTables
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records

if TYPE_CHECKING:
    from drgn import Program

_MM: dict[str, str | tuple[str, ...]] = {
    "pgd": "pgd", "users": "mm_users.counter", "count": "mm_count.counter",
    "map_count": "map_count", "locked": "locked_vm", "root": "mm_mt.ma_root", "first": "mmap",
    "start_brk": "start_brk", "brk": "brk", "start_stack": "start_stack",
    "hugetlb": "hugetlb_usage.counter", "total": "total_vm",
}  # fmt: skip
VMA: dict[str, str | tuple[str, ...]] = {
    "start": "vm_start", "end": "vm_end", "mm": "vm_mm", "pgoff": "vm_pgoff",
    "flags": ("vm_flags", "__vm_flags"), "file": "vm_file", "anon_vma": "anon_vma",
    "chain_next": "anon_vma_chain.next", "chain_prev": "anon_vma_chain.prev",
    "next": "vm_next", "ops": "vm_ops", "subtree_last": "shared.rb_subtree_last",
}  # fmt: skip
#: VMAs of one address space beyond which its list is taken to be endless.
_MOST_VMAS = 1 << 24


@dataclass(frozen=True)
class Spaces:
    """Address spaces and their VMAs; the VMAs ascend by (space, start).

    `mm` are the structs, in the order of the addresses given; `vma_mm` the row there of each VMA.
    `damage` is what could not be followed: object, address, what is wrong.
    """

    mm: Records
    vmas: Records
    vma_mm: npt.NDArray[np.int64]
    damage: tuple[tuple[str, int, str], ...]


def mm_layout(program: Program) -> Layout:
    """The members of an mm that are read."""
    return Layout(program, "struct mm_struct", _MM).require("pgd", "map_count")


def vma_layout(program: Program) -> Layout:
    """The members of a VMA that are read."""
    return Layout(program, "struct vm_area_struct", VMA).require("start", "end", "mm", "pgoff")


def read_spaces(program: Program, mms: list[int]) -> Spaces:
    """Read address spaces and their VMAs."""
    mm = read_records(mm_layout(program), mms)
    damage = [("mm", int(at), "is not in the dump") for at in mm.address[~mm.present]]
    owner, addresses = (
        _by_tree(program, mm, damage)
        if member_offset(program, "struct mm_struct", "mm_mt.ma_root") is not None
        else _by_list(program, mm, damage)
    )
    vmas = read_records(vma_layout(program), addresses)
    damage += [("vma", int(at), "is not in the dump") for at in vmas.address[~vmas.present]]
    keep = np.flatnonzero(vmas.present)
    keep = keep[np.lexsort((vmas["start"][keep], owner[keep]))]
    vmas = Records(vmas.address[keep], vmas.values[keep], vmas.present[keep])
    return Spaces(mm, vmas, owner[keep], tuple(damage))


def _by_tree(
    program: Program, mm: Records, damage: list[tuple[str, int, str]]
) -> tuple[npt.NDArray[np.int64], U64]:
    leaves = read_maple_trees(program, mm["root"])
    damage += [("maple_node", node, why) for _, node, why in leaves.bad]
    # What the kernel keeps for itself in a tree is no pointer (xa_is_zero() and its like).
    pointer = ~is_node(leaves.entry) & (leaves.entry & np.uint64(3) == 0)
    return leaves.tree[pointer], leaves.entry[pointer]


def _by_list(
    program: Program, mm: Records, damage: list[tuple[str, int, str]]
) -> tuple[npt.NDArray[np.int64], U64]:
    """The VMAs along mm->mmap and vm_next, until it ends, or comes to one that was met."""
    layout = Layout(program, "struct vm_area_struct", {"next": "vm_next"}).require("next")
    owner = np.flatnonzero(mm.present & (mm["first"] != 0)).astype(np.int64)
    at = mm["first"][owner]
    owners, found = [owner], [at]
    seen = set(at.tolist())
    while len(at) and len(seen) < _MOST_VMAS:
        records = read_records(layout, at)
        following = np.where(records.present, records["next"], np.uint64(0))
        again = np.array([one in seen for one in following.tolist()], bool)
        damage += [("vma", int(one), "is met twice in a list") for one in following[again]]
        go_on = (following != 0) & ~again
        owner, at = owner[go_on], following[go_on]
        seen.update(at.tolist())
        owners.append(owner)
        found.append(at)
    return np.concatenate(owners), np.concatenate(found)


def _direct_mapping(program: Program, facts: Facts) -> int:
    """Where the kernel maps all of physical memory: what says so, else what a page table says."""
    from drgn import FaultError
    from drgn.helpers.linux.mm import phys_to_virt

    base = facts.object("page_offset_base")
    if base is not None:
        try:
            return int(base.value_())
        except FaultError:
            pass  # the page that says so is not there; there is another way
    return int(phys_to_virt(program, 0).value_())


def read_page_tables(program: Program, facts: Facts, spaces: Spaces) -> list[Entries]:
    """The entries of each address space."""
    tables = PageTables(program, facts.levels)
    none = np.zeros(0, "u8")
    start = _direct_mapping(program, facts)
    found = []
    for row, pgd in enumerate(spaces.mm["pgd"].tolist()):
        if spaces.mm.present[row]:
            found.append(tables.entries(pgd - start))
        else:
            found.append(Entries(none, none, np.zeros(0, "u1"), none, none))
    return found

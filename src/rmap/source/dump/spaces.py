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

from rmap.source.dump.damage import Damage, missing, repeated
from rmap.source.dump.facts import Facts
from rmap.source.dump.mapletree import is_node, read_maple_trees
from rmap.source.dump.pagetables import Credible, Entries, PageTables, no_entries
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
_MM: dict[str, str | tuple[str, ...]] = {
    "pgd": "pgd", "users": "mm_users.counter", "count": "mm_count.counter",
    "map_count": "map_count", "locked": "locked_vm", "root": "mm_mt.ma_root", "first": "mmap",
    "start_brk": "start_brk", "brk": "brk", "start_stack": "start_stack",
    "hugetlb": "hugetlb_usage.counter", "total": "total_vm",
    "pgtables": "pgtables_bytes.counter",
}  # fmt: skip
VMA: dict[str, str | tuple[str, ...]] = {
    "start": "vm_start", "end": "vm_end", "mm": "vm_mm", "pgoff": "vm_pgoff",
    "flags": ("vm_flags", "__vm_flags"), "file": "vm_file", "anon_vma": "anon_vma",
    "chain_next": "anon_vma_chain.next", "chain_prev": "anon_vma_chain.prev",
    "next": "vm_next", "ops": "vm_ops", "subtree_last": "shared.rb_subtree_last",
}  # fmt: skip
#: VMAs of one address space beyond which its list is taken to be endless.
_MOST_VMAS = 1 << 24
_PAGE = 4096
_FLAGS = _PAGE - 1
#: Bytes of physical memory that x86-64 can have.
_MOST_MEMORY = 1 << 52


@dataclass(frozen=True)
class Spaces:
    """Address spaces and their VMAs; the VMAs ascend by (space, start).

    `mm` are the structs, in the order of the addresses given; `vma_mm` the row there of each VMA,
    `start` and `end` where it lies: as the mm's tree says, where there is one.
    `damage` is what could not be followed: object, address, what is wrong.
    """

    mm: Records
    vmas: Records
    vma_mm: I64
    start: U64
    end: U64
    damage: tuple[Damage, ...]


def mm_layout(program: Program) -> Layout:
    """The members of an mm that are read."""
    return Layout(program, "struct mm_struct", _MM).require("pgd", "map_count")


def vma_layout(program: Program) -> Layout:
    """The members of a VMA that are read."""
    return Layout(program, "struct vm_area_struct", VMA).require("start", "end", "mm", "pgoff")


def read_spaces(program: Program, mms: list[int]) -> Spaces:
    """Read address spaces and their VMAs."""
    place: tuple[U64, U64] | None
    mm = read_records(mm_layout(program), mms)
    damage = missing("mm", mm.address[~mm.present])
    if member_offset(program, "struct mm_struct", "mm_mt.ma_root") is not None:
        owner, addresses, first, last = _by_tree(program, mm, damage)
        place = (first, last + np.uint64(1))
    else:
        owner, addresses = _by_list(program, mm, damage)
        place = None
    vmas = read_records(vma_layout(program), addresses)
    damage += [
        Damage("vma", int(at), "is in the tree or list of an address space, and not in the dump",
               mm=int(row))
        for at, row in zip(vmas.address[~vmas.present], owner[~vmas.present], strict=True)
    ]  # fmt: skip
    start, end = (vmas["start"], vmas["end"]) if place is None else place
    _contradictions(mm, vmas, owner, start, end, damage)
    keep = _placed(vmas, owner, start, end, damage)
    vmas = Records(vmas.address[keep], vmas.values[keep], vmas.present[keep])
    return Spaces(mm, vmas, owner[keep], start[keep], end[keep], tuple(damage))


def _contradictions(
    mm: Records, vmas: Records, owner: I64, start: U64, end: U64, damage: list[Damage]
) -> None:
    """Note VMAs that say something else than the tree of their address space."""
    named = mm.address[owner] if len(mm) else np.zeros(len(owner), "u8")
    for row in np.flatnonzero(vmas.present & (vmas["mm"] != named)).tolist():
        damage.append(
            Damage("vma", int(vmas.address[row]), "names another address space than it is in",
                   "owner", int(named[row]), int(vmas["mm"][row]), int(owner[row]))
        )  # fmt: skip
    wrong = vmas.present & ((vmas["start"] != start) | (vmas["end"] != end))
    for row in np.flatnonzero(wrong).tolist():
        damage.append(
            Damage("vma", int(vmas.address[row]),
                   "begins or ends elsewhere than the tree of its address space says", "range",
                   f"{int(start[row]):#x}-{int(end[row]):#x}",
                   f"{int(vmas['start'][row]):#x}-{int(vmas['end'][row]):#x}", int(owner[row]))
        )  # fmt: skip


def _placed(vmas: Records, owner: I64, start: U64, end: U64, damage: list[Damage]) -> I64:
    """The rows of VMAs that lie after each other, each VMA once, by address space and start."""
    keep = np.flatnonzero(vmas.present)
    keep = keep[np.lexsort((start[keep], owner[keep]))]
    _, once = np.unique(vmas.address[keep], return_index=True)
    again = np.delete(keep, once)
    damage += [
        Damage("vma", int(vmas.address[row]), "is met twice in trees or lists of address spaces",
               "loop", mm=int(owner[row]))
        for row in again.tolist()
    ]  # fmt: skip
    keep = keep[np.sort(once)]
    good = np.zeros(len(keep), bool)
    space, reached = -1, 0
    low, high = start[keep].tolist(), end[keep].tolist()
    for at, row in enumerate(owner[keep].tolist()):
        reached = reached if row == space else 0
        space = row
        fits = reached <= low[at] < high[at] and not (low[at] | high[at]) & (_PAGE - 1)
        good[at] = fits
        reached = high[at] if fits else reached
    damage += [
        Damage("vma", int(vmas.address[row]), "overlaps another, or has no size that can be",
               "range", found=f"{int(start[row]):#x}-{int(end[row]):#x}", mm=int(owner[row]))
        for row in keep[~good].tolist()
    ]  # fmt: skip
    return keep[good]


def _by_tree(program: Program, mm: Records, damage: list[Damage]) -> tuple[I64, U64, U64, U64]:
    """The VMAs in the trees: whose they are, and the first and last address that each has."""
    roots = np.where(mm.present, mm["root"], np.uint64(0))
    leaves = read_maple_trees(program, roots)
    damage += leaves.bad
    # What the kernel keeps for itself in a tree is no pointer (xa_is_zero() and its like).
    pointer = ~is_node(leaves.entry) & (leaves.entry & np.uint64(3) == 0)
    return (
        leaves.tree[pointer], leaves.entry[pointer], leaves.first[pointer], leaves.last[pointer],
    )  # fmt: skip


def _by_list(program: Program, mm: Records, damage: list[Damage]) -> tuple[I64, U64]:
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
        damage += repeated("vma", following[again])
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


def read_page_tables(
    program: Program, facts: Facts, spaces: Spaces, credible: Credible | None = None
) -> list[Entries]:
    """The entries of each address space."""
    tables = PageTables(program, facts.levels, credible)
    start = _direct_mapping(program, facts)
    found = []
    for row, pgd in enumerate(spaces.mm["pgd"].tolist()):
        physical = (pgd - start) & ~_FLAGS
        if not spaces.mm.present[row]:
            found.append(no_entries())
        elif 0 <= physical < _MOST_MEMORY:
            found.append(tables.entries(physical))
        else:
            found.append(no_entries(np.array([pgd], "u8")))
    return found

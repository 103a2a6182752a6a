# SPDX-License-Identifier: GPL-2.0-only
"""Files: what VMAs map and pages belong to, their names, and the trees of VMAs that map them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.source.dump.anon import rows_of
from rmap.source.dump.pages import Pages
from rmap.source.dump.rbtree import Forest, rb_columns, read_forest
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records
from rmap.source.dump.spaces import VMA, Spaces

if TYPE_CHECKING:
    from drgn import Program

I64 = npt.NDArray[np.int64]
_MAPPING: dict[str, str | tuple[str, ...]] = {
    "host": "host", "top": ("i_mmap.rb_root.rb_node", "i_mmap.rb_node"),
    "leftmost": "i_mmap.rb_leftmost", "writable": "i_mmap_writable.counter", "nrpages": "nrpages",
    "flags": "flags",
}  # fmt: skip
_INODE: dict[str, str | tuple[str, ...]] = {
    "sb": "i_sb", "ino": "i_ino", "mapping": "i_mapping", "nlink": ("i_nlink", "__i_nlink"),
    "size": "i_size",
}  # fmt: skip
_FILE: dict[str, str | tuple[str, ...]] = {
    "mapping": "f_mapping", "inode": "f_inode", "dentry": ("f_path.dentry", "__f_path.dentry"),
}  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Address spaces of files by address, what is known of each, and their trees of VMAs.

    `of_vma` is the row of the file that a VMA maps, -1 none. `forest` has trees by row; its structs
    are VMAs. `device`, `inode`, `deleted` are columns, `path` names.
    """

    mappings: Records
    of_vma: I64
    device: U64
    inode: U64
    deleted: npt.NDArray[np.bool_]
    path: list[str]
    forest: Forest
    damage: tuple[tuple[str, int, str], ...]


def read_files(program: Program, spaces: Spaces, pages: Pages) -> Files:
    """Read the files that some VMA maps or some mapped page belongs to."""
    damage: list[tuple[str, int, str]] = []
    file_layout = Layout(program, "struct file", _FILE).require("mapping")
    named = spaces.vmas["file"]
    files = read_records(file_layout, np.unique(named[named != 0]))
    damage += [("file", int(at), "is not in the dump") for at in files.address[~files.present]]
    of_vma = rows_of(files.address, named)
    wanted = np.where(of_vma >= 0, files["mapping"][of_vma], np.uint64(0)) if len(files) else named
    mapped = (pages.mapcount > 0) & (pages.mapping & np.uint64(3) == 0) & (pages.mapping != 0)
    addresses = np.unique(np.concatenate([wanted, pages.mapping[mapped]]))
    layout = Layout(program, "struct address_space", _MAPPING).require("host", "top")
    mappings = read_records(layout, addresses[addresses != 0])
    damage += [
        ("address_space", int(at), "is not in the dump")
        for at in mappings.address[~mappings.present]
    ]
    device, inode, deleted = _inodes(program, mappings)
    path = _paths(program, files, mappings)
    vma = Layout(program, "struct vm_area_struct", VMA | rb_columns("shared.rb"))
    offset = member_offset(program, "struct vm_area_struct", "shared.rb")
    assert offset is not None
    tops = np.where(mappings.present, mappings["top"], np.uint64(0))
    forest = read_forest(vma, offset, tops)
    damage += [
        ("address_space", int(mappings.address[torn.tree]), f"its tree: {torn.to:#x} {torn.why}")
        for torn in forest.torn
    ]
    rows = rows_of(mappings.address, wanted)
    return Files(mappings, rows, device, inode, deleted, path, forest, tuple(damage))


def _inodes(program: Program, mappings: Records) -> tuple[U64, U64, npt.NDArray[np.bool_]]:
    """Device, number, and whether it has no name any more, of the hosts."""
    inodes = read_records(Layout(program, "struct inode", _INODE).require("sb", "ino"),
                          mappings["host"])  # fmt: skip
    blocks = read_records(Layout(program, "struct super_block", {"dev": "s_dev"}), inodes["sb"])
    there = mappings.present & inodes.present
    device = np.where(there & blocks.present, blocks["dev"], 0).astype("u8")
    number = np.where(there, inodes["ino"], 0).astype("u8")
    return device, number, np.asarray(there & (inodes["nlink"] == 0))


def _paths(program: Program, files: Records, mappings: Records) -> list[str]:
    """A path of each file: as it was opened, or any that its inode has."""
    names: dict[int, str] = {}
    for row in np.flatnonzero(files.present).tolist():
        mapping = int(files["mapping"][row])
        if mapping not in names:
            names[mapping] = _path_of_file(program, int(files.address[row]))
    return [
        names.get(at) or _path_of_inode(program, int(host))
        for at, host in zip(mappings.address.tolist(), mappings["host"].tolist(), strict=True)
    ]


def _path_of_file(program: Program, address: int) -> str:
    from drgn import FaultError, Object
    from drgn.helpers.linux.fs import d_path

    try:
        file: Any = Object(program, "struct file *", address)
        return str(d_path(file.f_path).decode("utf-8", "backslashreplace"))
    except (FaultError, LookupError, AttributeError, ValueError):
        return ""


def _path_of_inode(program: Program, address: int) -> str:
    from drgn import FaultError, Object
    from drgn.helpers.linux.fs import inode_path

    if not address:
        return ""
    try:
        found = inode_path(Object(program, "struct inode *", address))
    except (FaultError, LookupError, AttributeError, ValueError):
        return ""
    return "" if found is None else str(found.decode("utf-8", "backslashreplace"))

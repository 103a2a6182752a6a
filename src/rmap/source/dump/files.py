# SPDX-License-Identifier: GPL-2.0-only
"""Files: what VMAs map and pages belong to, their names, and the trees of VMAs that map them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Kpf
from rmap.source.dump.damage import Damage, missing
from rmap.source.dump.dentries import inode_paths
from rmap.source.dump.pages import Pages
from rmap.source.dump.rbtree import Forest, rb_columns, read_forest
from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records, rows_of
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
    "size": "i_size", "dentries": "i_dentry.first",
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
    rb_offset: int
    damage: tuple[Damage, ...]


def read_files(program: Program, spaces: Spaces, pages: Pages) -> Files:
    """Read the files that some VMA maps or some page of the page cache belongs to."""
    damage: list[Damage] = []
    file_layout = Layout(program, "struct file", _FILE).require("mapping")
    named = spaces.vmas["file"]
    files = read_records(file_layout, np.unique(named[named != 0]))
    damage += missing("file", files.address[~files.present])
    of_vma = rows_of(files.address, named)
    wanted = np.where(of_vma >= 0, files["mapping"][of_vma], np.uint64(0)) if len(files) else named
    of_file = (pages.mapping & np.uint64(3) == 0) & (pages.mapping != 0)
    mapped = of_file & (pages.mapcount > 0)
    cached = of_file & ~mapped & (pages.kpf & np.uint64(Kpf.LRU) != 0)
    layout = Layout(program, "struct address_space", _MAPPING).require("host", "top")
    addresses = np.unique(np.concatenate([wanted, pages.mapping[mapped]]))
    mappings = _sound(program, read_records(layout, addresses[addresses != 0]), damage)
    mappings = _with_cached(program, mappings, np.unique(pages.mapping[cached]), layout)
    inodes = read_records(Layout(program, "struct inode", _INODE).require("sb", "ino"),
                          mappings["host"])  # fmt: skip
    device, inode, deleted = _identities(program, mappings, inodes)
    path = _paths(program, files, mappings, inodes)
    vma = Layout(program, "struct vm_area_struct", VMA | rb_columns("shared.rb"))
    offset = member_offset(program, "struct vm_area_struct", "shared.rb")
    assert offset is not None
    tops = np.where(mappings.present, mappings["top"], np.uint64(0))
    forest = read_forest(vma, offset, tops)
    damage += [
        torn.damage("vma", offset, "address_space", int(mappings.address[torn.tree]))
        for torn in forest.torn
    ]
    rows = rows_of(mappings.address, wanted)
    return Files(mappings, rows, device, inode, deleted, path, forest, offset, tuple(damage))


def _sound(program: Program, mappings: Records, damage: list[Damage]) -> Records:
    """Those that are what they should be: their host names them as its own."""
    damage += missing("address_space", mappings.address[~mappings.present])
    inodes = read_records(Layout(program, "struct inode", _INODE).require("mapping"),
                          mappings["host"])  # fmt: skip
    good = mappings.present & inodes.present & (inodes["mapping"] == mappings.address)
    damage += [
        Damage("address_space", int(mappings.address[row]),
               "is none: what it names as its inode does not name it", "owner",
               int(mappings.address[row]), int(inodes["mapping"][row]))
        for row in np.flatnonzero(mappings.present & ~good).tolist()
    ]  # fmt: skip
    return Records(mappings.address[good], mappings.values[good], good[good])


def _with_cached(program: Program, mappings: Records, cached: U64, layout: Layout) -> Records:
    """Add files that are in the page cache only: those whose inode says that it is theirs.

    Nobody maps their pages, so what is not in the dump of them is nothing to complain of.
    """
    more = read_records(layout, np.setdiff1d(cached, mappings.address))
    inodes = read_records(Layout(program, "struct inode", _INODE), more["host"])
    keep = more.present & inodes.present & (inodes["mapping"] == more.address)
    address = np.concatenate([mappings.address, more.address[keep]])
    order = np.argsort(address)
    return Records(
        address[order],
        np.concatenate([mappings.values, more.values[keep]])[order],
        np.concatenate([mappings.present, more.present[keep]])[order],
    )


def _identities(
    program: Program, mappings: Records, inodes: Records
) -> tuple[U64, U64, npt.NDArray[np.bool_]]:
    """Device, number, and whether it has no name any more, of the hosts."""
    blocks = read_records(Layout(program, "struct super_block", {"dev": "s_dev"}), inodes["sb"])
    there = mappings.present & inodes.present
    device = np.where(there & blocks.present, blocks["dev"], 0).astype("u8")
    number = np.where(there, inodes["ino"], 0).astype("u8")
    return device, number, np.asarray(there & (inodes["nlink"] == 0))


def _paths(program: Program, files: Records, mappings: Records, inodes: Records) -> list[str]:
    """A path of each file: as it was opened, or any that its inode has."""
    names: dict[int, str] = {}
    for row in np.flatnonzero(files.present).tolist():
        mapping = int(files["mapping"][row])
        if mapping not in names:
            names[mapping] = _path_of_file(program, int(files.address[row]))
    unopened = np.array([not names.get(at) for at in mappings.address.tolist()], bool)
    first = np.where(unopened & inodes.present, inodes["dentries"], np.uint64(0))
    others = inode_paths(program, first)
    return [
        names.get(at) or other for at, other in zip(mappings.address.tolist(), others, strict=True)
    ]


def _path_of_file(program: Program, address: int) -> str:
    from drgn import FaultError, Object
    from drgn.helpers.linux.fs import d_path

    try:
        file: Any = Object(program, "struct file *", address)
        path = str(d_path(file.f_path).decode("utf-8", "backslashreplace"))
        if not path.startswith("["):
            return path
        # drgn gives the type of the file system where files make names up; the kernel says more.
        name = str(file.f_path.dentry.d_name.name.string_().decode("utf-8", "backslashreplace"))
        return f"anon_inode:{name}" if name.startswith("[") else f"/{name}"
    except (FaultError, LookupError, AttributeError, ValueError):
        return ""

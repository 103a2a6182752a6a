# SPDX-License-Identifier: GPL-2.0-only
"""Names of inodes, many at once: from directory entries, level by level (fs/dcache.c).

A name is that within its file system; where that is mounted it does not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmap.source.dump.records import U64, Layout, Records, member_offset, read_records

if TYPE_CHECKING:
    from drgn import Program

_DENTRY: dict[str, str | tuple[str, ...]] = {
    "parent": "d_parent", "name": "d_name.name", "length": "d_name.len",
    "inline": ("d_shortname.string", "d_iname"),
}  # fmt: skip
#: Directories above each other beyond which they are taken to have no end; names are not longer.
_DEEPEST = 256
_LONGEST = 255


def inode_paths(program: Program, first: U64) -> list[str]:
    """A path of each inode, "" for those without one that can be read.

    Parameters
    ----------
    first
        ``i_dentry.first`` of each inode, 0 for none.
    """
    alias = member_offset(program, "struct dentry", "d_u.d_alias")
    layout = Layout(program, "struct dentry", _DENTRY)
    if alias is None or not layout.has("parent") or not layout.has("inline"):
        return [""] * len(first)
    leaves = np.where(first != 0, first - np.uint64(alias), np.uint64(0))
    known = _with_parents(layout, np.unique(leaves[leaves != 0]))
    inline = member_offset(program, "struct dentry", "d_shortname.string")
    if inline is None:
        inline = member_offset(program, "struct dentry", "d_iname")
    assert inline is not None
    names = _names(program, known, inline)
    rows = {at: row for row, at in enumerate(known.address.tolist())}
    parents = known["parent"].tolist()
    paths: dict[int, str] = {0: ""}
    return [_path(at, rows, parents, names, paths) for at in leaves.tolist()]


def _with_parents(layout: Layout, wanted: U64) -> Records:
    """The entries, and all above them."""
    parts = []
    seen = wanted
    for _ in range(_DEEPEST):
        if not len(wanted):
            break
        parts.append(read_records(layout, wanted))
        above = parts[-1]["parent"][parts[-1].present]
        wanted = np.setdiff1d(above[above != 0], seen)
        seen = np.union1d(seen, wanted)
    if not parts:
        return read_records(layout, wanted)
    return Records(
        np.concatenate([part.address for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
    )


def _names(program: Program, entries: Records, inline: int) -> list[str | None]:
    """The name of each entry, ``None`` where it cannot be read."""
    import drgn

    texts = entries["inline"]
    width = texts.dtype.itemsize * (texts.shape[1] if texts.ndim > 1 else 1)
    data = np.ascontiguousarray(texts).tobytes()
    found: list[str | None] = []
    columns = zip(entries.address.tolist(), entries["name"].tolist(), entries["length"].tolist(),
                  entries.present.tolist(), strict=True)  # fmt: skip
    for row, (address, name, length, present) in enumerate(columns):
        text: bytes | None = None
        if present and length <= _LONGEST:
            if name == address + inline:
                text = data[row * width : row * width + min(length, width)]
            else:
                try:
                    text = program.read(name, length)
                except (drgn.FaultError, ValueError, OverflowError):
                    text = None
        found.append(None if text is None else text.decode("utf-8", "backslashreplace"))
    return found


def _path(
    leaf: int,
    rows: dict[int, int],
    parents: list[int],
    names: list[str | None],
    paths: dict[int, str],
) -> str:
    """The path of an entry; those of all directories on the way are kept."""
    way: list[int] = []
    at = leaf
    while at not in paths:
        row = rows.get(at)
        name = None if row is None else names[row]
        if row is None or name is None or len(way) > _DEEPEST or at in way:
            return ""
        if parents[row] == at:
            # The root of its file system; what has another name is not in a directory (a pipe).
            paths[at] = "/" if name == "/" else name
            break
        way.append(at)
        at = parents[row]
    for one in reversed(way):
        above = paths[at]
        paths[one] = f"{above.removesuffix('/')}/{names[rows[one]]}"
        at = one
    return paths[leaf]

# SPDX-License-Identifier: GPL-2.0-only
"""Every VMA of a file is in that file's tree, and nothing else is (mapping->i_mmap)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Vm
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import (
    file_name,
    handle_of,
    users_of_file,
    users_of_vmas,
    vma_name,
)
from rmap.query.checks.registry import Outcome, check

I32 = npt.NDArray[np.int32]


@check("i_mmap", "every VMA of a file is in the file's tree, and nothing else is")
def i_mmap(image: MemoryImage, limit: int) -> Outcome:
    """Compare VMAs with trees."""
    nodes, vmas = image.tables["tree_nodes"], image.vmas
    if not len(nodes):
        return Outcome("VMAs", skipped=NO_STRUCTURE)
    file, vma, owner = vmas["file"], nodes["vma"], nodes["file"]
    found = Collector("i_mmap", "VMAs", int((file >= 0).sum()), limit)
    known = (owner >= 0) & (vma >= 0)
    right = known & (nodes["claims"] == owner)
    linked = np.zeros(len(vmas), bool)
    linked[vma[right]] = True
    mapper = Subject(
        lambda row: f"{vma_name(image, row)}, which maps {file_name(image, int(file[row]))},",
        lambda row: {"vma": int(vmas["start"][row]), **handle_of(vmas, row, "vma")},
        lambda row: users_of_vmas(image, [row]),
    )
    found.where(mapper, "not in tree", (file >= 0) & ~linked,
                "is not in its tree: walks of its pages miss it")  # fmt: skip
    node = Subject(
        lambda row: f"tree of {file_name(image, int(owner[row]))}:",
        lambda row: {
            "object": "vma", "address": int(nodes["node"][row]), "node": int(nodes["node"][row]),
        },
        lambda row: users_of_vmas(image, vma[row : row + 1])
        or users_of_file(image, int(owner[row])),
    )  # fmt: skip
    found.where(node, "foreign", known & ~right, lambda row: (
        f"has {vma_name(image, int(vma[row]))}, which does not map it"))  # fmt: skip
    found.where(node, "dangling", (owner >= 0) & (vma < 0), lambda row: (
        f"has the VMA {int(nodes['node'][row]):#x}, which no address space has"))  # fmt: skip
    if "writable" in image.files:
        _writable(image, found, vma[right], owner[right])
    return found.outcome("VMA")


def _writable(image: MemoryImage, found: Collector, vma: I32, owner: I32) -> None:
    """i_mmap_writable: a shared VMA counts, since 6.7 only one that may be written to.

    A file that denies them (a sealed memfd) counts downwards from 0 instead.
    """
    files = image.files
    flags = image.vmas["flags"][vma]
    shared = flags & np.uint64(Vm.SHARED) != 0
    may_write = shared & (flags & np.uint64(Vm.MAYWRITE) != 0)
    least = np.bincount(owner[may_write], minlength=len(files))
    most = np.bincount(owner[shared], minlength=len(files))
    said = files["writable"].astype(np.int64)
    wrong = ((said < least) | (said > most)) & ~((said < 0) & (least == 0))
    file = Subject(
        lambda row: file_name(image, row),
        lambda row: {"file": row, **handle_of(files, row, "address_space")},
        lambda row: users_of_file(image, row),
    )
    found.where(file, "writable", wrong, lambda row: (
        f"counts {said[row]} shared mappings that may be written to, its tree has {least[row]}"),
        least, said)  # fmt: skip

# SPDX-License-Identifier: GPL-2.0-only
"""Every VMA of a file is in that file's tree, and nothing else is (mapping->i_mmap)."""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import file_name, vma_name
from rmap.query.checks.registry import Outcome, check


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
        lambda row: {"vma": int(vmas["start"][row])},
    )
    found.where(mapper, "not in tree", (file >= 0) & ~linked,
                "is not in its tree: walks of its pages miss it")  # fmt: skip
    node = Subject(
        lambda row: f"tree of {file_name(image, int(owner[row]))}:",
        lambda row: {"node": int(nodes["node"][row])},
    )
    found.where(node, "foreign", known & ~right, lambda row: (
        f"has {vma_name(image, int(vma[row]))}, which does not map it"))  # fmt: skip
    found.where(node, "dangling", (owner >= 0) & (vma < 0), lambda row: (
        f"has the VMA {int(nodes['node'][row]):#x}, which no address space has"))  # fmt: skip
    return found.outcome("VMA")

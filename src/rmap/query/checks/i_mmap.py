# SPDX-License-Identifier: GPL-2.0-only
"""Every VMA of a file is in that file's tree, and nothing else is (mapping->i_mmap)."""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.query.checks.collect import Collector
from rmap.query.checks.objects import file_name, vma_name
from rmap.query.checks.registry import Fact, Outcome, check


@check("i_mmap", "every VMA of a file is in the file's tree, and nothing else is")
def i_mmap(image: MemoryImage, limit: int) -> Outcome:
    """Compare VMAs with trees."""
    nodes, vmas = image.tables["tree_nodes"], image.vmas
    if not len(nodes):
        return Outcome("VMAs", skipped="the source does not see trees")
    mapping = vmas["file"] >= 0
    found = Collector("i_mmap", "VMAs", int(mapping.sum()), limit)
    of_file = nodes["file"] >= 0

    def of_vma(row: int, what: str) -> tuple[str, dict[str, Fact]]:
        name = file_name(image, int(vmas["file"][row]))
        return f"{vma_name(image, row)}, which maps {name}, {what}", {
            "vma": int(vmas["start"][row])
        }

    linked = np.zeros(len(vmas), bool)
    known = of_file & (nodes["vma"] >= 0)
    right = known & (nodes["claims"] == nodes["file"])
    linked[nodes["vma"][right]] = True
    found.where("not in tree", mapping & ~linked,
                lambda row: of_vma(row, "is not in its tree: walks of its pages miss it"))  # fmt: skip

    def of_node(row: int, what: str) -> tuple[str, dict[str, Fact]]:
        node = int(nodes["node"][row])
        return f"tree of {file_name(image, int(nodes['file'][row]))}: {what}", {"node": node}

    found.where("foreign", known & ~right,
                lambda row: of_node(row, f"has {vma_name(image, int(nodes['vma'][row]))}, "
                                    "which does not map it"))  # fmt: skip
    found.where("dangling", of_file & (nodes["vma"] < 0),
                lambda row: of_node(row, f"has the VMA {int(nodes['node'][row]):#x}, "
                                    "which no address space has"))  # fmt: skip
    return found.outcome("VMA")

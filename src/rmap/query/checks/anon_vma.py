# SPDX-License-Identifier: GPL-2.0-only
"""What anon_vmas count: references, children, VMAs that have them as their own.

An anon_vma has a reference while something is in its tree, a root one for each other anon_vma of its
family, and one for each place where KSM merged a page through it. Whoever is just using one has a
reference too (migration, a split), so one too many is possible in a dump of a running machine, and
one too few is not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.checks.collect import Collector
from rmap.query.checks.objects import anon_vma_name
from rmap.query.checks.registry import Fact, Outcome, check

I64 = npt.NDArray[np.int64]


@check("anon_vma", "anon_vmas count their references, children and VMAs, and form trees")
def anon_vma(image: MemoryImage, limit: int) -> Outcome:
    """Recount every anon_vma."""
    table, nodes = image.tables["anon_vmas"], image.tables["tree_nodes"]
    if not len(table) or not len(nodes):
        return Outcome("anon_vmas", skipped="the source does not see anon_vmas and their trees")
    found = Collector("anon_vma", "anon_vmas", len(table), limit)
    count = len(table)
    size = np.bincount(nodes["anon_vma"][nodes["anon_vma"] >= 0], minlength=count)
    root, parent = table["root"].astype(np.int64), table["parent"].astype(np.int64)
    own = np.arange(count)

    def says(row: int, what: str) -> tuple[str, dict[str, Fact]]:
        return f"{anon_vma_name(image, row)} {what}", {"anon_vma": row}

    wanted = _references(image, size, root)
    refcount = table["refcount"].astype(np.int64)
    found.where("freed", (refcount <= 0) & (size > 0),
                lambda row: says(row, f"has refcount {refcount[row]}, and {size[row]} VMAs in its tree"))  # fmt: skip
    found.where("refcount", (refcount > 0) & (refcount < wanted),
                lambda row: says(row, f"has refcount {refcount[row]}; {wanted[row]} references lead to it"))  # fmt: skip
    found.where("leaked", (refcount > wanted + 1),
                lambda row: says(row, f"has refcount {refcount[row]}, but only {wanted[row]} "
                                 "references lead to it"))  # fmt: skip
    found.where("root", root[root] != root,
                lambda row: says(row, "names a root that is none"))  # fmt: skip
    found.where("parent", root[parent] != root,
                lambda row: says(row, "has a parent of another family"))  # fmt: skip
    found.where("loop", _loops(parent) & (parent != own),
                lambda row: says(row, "is its own ancestor"))  # fmt: skip
    _counts(image, found, size, parent, says)
    return found.outcome("anon_vma")


def _references(image: MemoryImage, size: I64, root: I64) -> I64:
    """The references that are known to lead to each anon_vma."""
    count = len(size)
    alive = image.tables["anon_vmas"]["refcount"] > 0
    wanted = (size > 0).astype(np.int64)
    others = alive & (root != np.arange(count))
    wanted += np.bincount(root[others], minlength=count)
    items = image.tables["ksm_items"]["anon_vma"]
    return np.asarray(wanted + np.bincount(items[items >= 0], minlength=count))


def _loops(parent: I64) -> npt.NDArray[np.bool_]:
    """Which anon_vmas never come to one that is its own parent, going up."""
    at = parent.copy()
    for _ in range(max(1, len(parent).bit_length())):
        at = at[at]
    return np.asarray(parent[at] != at)


def _counts(image: MemoryImage, found: Collector, size: I64, parent: I64, says: object) -> None:
    """num_children and num_active_vmas (since 6.0), or their sum, degree."""
    table, vmas = image.tables["anon_vmas"], image.vmas
    if "anon_vma" not in vmas:
        return
    count = len(table)
    own = np.arange(count)
    held = vmas["anon_vma"][vmas["anon_vma"] >= 0]
    active = np.bincount(held, minlength=count)
    # A root is its own child, and an anon_vma stops being a child when its tree is empty.
    child = size > 0
    children = np.bincount(parent[child], minlength=count)
    names = (
        ("num_children", children), ("num_active_vmas", active), ("degree", children + active),
    )  # fmt: skip
    for name, wanted in names:
        if name not in table or (
            name == "degree" and "num_children" in table and not _degree_used(image)
        ):
            continue
        stored = table[name].astype(np.int64)

        def told(row: int, name: str = name, stored: I64 = stored, wanted: I64 = wanted
                 ) -> tuple[str, dict[str, Fact]]:  # fmt: skip
            return (
                f"{anon_vma_name(image, row)} has {name} {stored[row]}, counted {wanted[row]}",
                {"anon_vma": row, "stored": int(stored[row]), "counted": int(wanted[row])},
            )

        found.where(name, (stored != wanted) & (size + active > 0) & (own >= 0), told)


def _degree_used(image: MemoryImage) -> bool:
    """A model keeps all three; a kernel has degree or the other two."""
    return str(image.machine["source"][0]) == "model"

# SPDX-License-Identifier: GPL-2.0-only
"""What anon_vmas count: references, children, VMAs that have them as their own.

An anon_vma has a reference while something is in its tree, a root one for each other anon_vma of
its family, and one for each place where KSM merged a page through it. Whoever is just using one has
a reference too: migration one for each page that is on the move, others (a split) one at a time. So
that many too many are possible in a machine that was running, and one too few is not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Pte
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import anon_vma_name, handle_of, users_of_anon_vma
from rmap.query.checks.registry import Outcome, check

I64 = npt.NDArray[np.int64]


@check("anon_vma", "anon_vmas count their references, children and VMAs, and form trees")
def anon_vma(image: MemoryImage, limit: int) -> Outcome:
    """Recount every anon_vma."""
    table, nodes = image.tables["anon_vmas"], image.tables["tree_nodes"]
    if not len(table) or not len(nodes):
        return Outcome("anon_vmas", skipped=NO_STRUCTURE)
    found = Collector("anon_vma", "anon_vmas", len(table), limit)
    subject = Subject(
        lambda row: anon_vma_name(image, row),
        lambda row: {"anon_vma": row, **handle_of(table, row, "anon_vma")},
        lambda row: users_of_anon_vma(image, row),
    )
    owner = nodes["anon_vma"]
    size = np.bincount(owner[owner >= 0], minlength=len(table))
    root, parent = table["root"].astype(np.int64), table["parent"].astype(np.int64)
    refcount = table["refcount"].astype(np.int64)
    wanted = _references(image, size, root)
    found.where(subject, "freed", (refcount <= 0) & (size > 0), lambda row: (
        f"has refcount {refcount[row]}, and {size[row]} VMAs in its tree"),
        wanted, refcount)  # fmt: skip
    found.where(subject, "refcount", (refcount > 0) & (refcount < wanted), lambda row: (
        f"has refcount {refcount[row]}; {wanted[row]} references lead to it"),
        wanted, refcount)  # fmt: skip
    most = wanted + _on_the_move(image, len(table)) + 1
    found.where(subject, "leaked", refcount > most, lambda row: (
        f"has refcount {refcount[row]}, but only {wanted[row]} references lead to it"),
        wanted, refcount)  # fmt: skip
    found.where(subject, "root", root[root] != root, "names a root that is none", root[root], root)
    # Who has an empty tree, kept by KSM only, has left its parent, which may be freed by now.
    above = np.where(size > 0, parent, np.arange(len(table)))
    found.where(subject, "parent", (size > 0) & (root[above] != root),
                "has a parent of another family", root, root[above])  # fmt: skip
    found.where(subject, "loop", _never_ends(above), "is its own ancestor")
    if "anon_vma" in image.vmas:
        _counts(image, found, subject, size, parent)
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


def _on_the_move(image: MemoryImage, count: int) -> I64:
    """Pages of each anon_vma that migration entries name."""
    if "anon_vma" not in image.pages:
        return np.zeros(count, np.int64)
    entries = image.ptes
    moving = entries["flags"] & np.uint32(Pte.MIGRATION) != 0
    frames = np.unique(entries["pfn"][moving])
    owner = image.pages["anon_vma"][np.isin(image.pages["pfn"], frames)]
    return np.bincount(owner[owner >= 0], minlength=count)


def _never_ends(parent: I64) -> npt.NDArray[np.bool_]:
    """Which anon_vmas never come to one that is its own parent, going up."""
    at = parent.copy()
    for _ in range(len(parent).bit_length()):
        at = at[at]
    return np.asarray(parent[at] != at)


def _counts(image: MemoryImage, found: Collector, subject: Subject, size: I64, parent: I64) -> None:
    """num_children and num_active_vmas (since 6.0), or their sum, degree."""
    table, own = image.tables["anon_vmas"], image.vmas["anon_vma"]
    active = np.bincount(own[own >= 0], minlength=len(table))
    # A root is its own child; who has an empty tree is nobody's any more.
    children = np.bincount(parent[size > 0], minlength=len(table))
    counted = {
        "num_children": children, "num_active_vmas": active, "degree": children + active,
    }  # fmt: skip
    for name, wanted in counted.items():
        if name in table:
            stored = table[name].astype(np.int64)
            _count(found, subject, name, stored, wanted, (stored != wanted) & (size + active > 0))


def _count(
    found: Collector, subject: Subject, name: str, stored: I64, wanted: I64,
    wrong: npt.NDArray[np.bool_],
) -> None:  # fmt: skip
    found.where(
        subject, name, wrong, lambda row: f"has {name} {stored[row]}, counted {wanted[row]}",
        wanted, stored,
    )  # fmt: skip

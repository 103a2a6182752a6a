# SPDX-License-Identifier: GPL-2.0-only
"""What a reverse-map walk of each page would cost: VMAs visited against VMAs that map it.

`rmap_walk_anon()` (``mm/rmap.c:1767``) looks at every VMA in the interval tree of the anon_vma that
``page->mapping`` names, if the page's index lies in the VMA's range; `rmap_walk_file()`
(``mm/rmap.c:1819``) does the same with the file's tree. A VMA is in such a tree because it *might*
map the page. The image has the trees, so both numbers are computed here without a walk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage, Table
from rmap.image.flags import Kpf

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

#: What the pages of a `WalkCost` belong to.
KINDS = ("anon", "file", "shmem")


@dataclass(frozen=True, slots=True)
class Walks:
    """Rows of ``pages`` that a walk can start from, and what it would meet.

    Attributes
    ----------
    rows
        Rows of ``image.pages``: pages that somebody maps and whose owner is known.
    visited
        VMAs in the owner's tree whose range covers the page's index.
    found
        Page-table entries in those VMAs that map the page: all there are, if nothing is broken.
    """

    rows: I64
    visited: I64
    found: I64


@dataclass(frozen=True, slots=True)
class WalkCost:
    """The walks of all pages of one kind, added up; `most` is the most VMAs of one walk."""

    kind: str
    pages: int
    visited: int
    found: int
    most: int


def walks(image: MemoryImage) -> Walks:
    """Return the cost of a walk for every page that is mapped and whose owner is known.

    KSM pages, whose mapping is another structure, are not among them.
    """
    pages = image.pages
    if "index" not in pages:
        empty = np.empty(0, np.int64)
        return Walks(empty, empty, empty)
    parts = []
    for owner, edges in (
        ("anon_vma", image.tables["anon_vma_chains"]),
        ("file", image.tables["i_mmap"]),
    ):
        if owner in pages:
            parts += list(_of_trees(image, owner, edges))
    rows = np.concatenate([part[0] for part in parts] or [np.empty(0, np.int64)])
    visited = np.concatenate([part[1] for part in parts] or [np.empty(0, np.int64)])
    found = np.concatenate([part[2] for part in parts] or [np.empty(0, np.int64)])
    order = np.argsort(rows, kind="stable")
    return Walks(rows[order], visited[order], found[order])


def _of_trees(image: MemoryImage, owner: str, edges: Table) -> Iterator[tuple[I64, I64, I64]]:
    """Yield (rows of pages, VMAs visited, mappings found) for each owner of pages of one sort."""
    pages, vmas = image.pages, image.vmas
    rows = np.flatnonzero(pages[owner] >= 0)
    rows = rows[image.reverse.count(pages["pfn"][rows]) > 0]
    rows = rows[np.argsort(pages[owner][rows], kind="stable")]
    found = _found(image, rows, pages[owner][rows], edges["vma"], edges[owner])
    owners, firsts = np.unique(pages[owner][rows], return_index=True)
    edge_order = np.argsort(edges[owner], kind="stable")
    bounds = np.searchsorted(edges[owner][edge_order], [owners, owners + 1])
    length = (vmas["end"] - vmas["start"]) // np.uint64(image.page_size)
    splits = zip(np.split(rows, firsts[1:]), np.split(found, firsts[1:]), strict=True)
    for at, (group, group_found) in enumerate(splits if len(rows) else ()):
        tree = edges["vma"][edge_order[bounds[0, at] : bounds[1, at]]]
        start = np.sort(vmas["pgoff"][tree])
        end = np.sort(vmas["pgoff"][tree] + length[tree])
        index = pages["index"][group]
        visited = np.searchsorted(start, index, side="right") - np.searchsorted(
            end, index, side="right"
        )
        yield group, visited.astype(np.int64), group_found


def _found(image: MemoryImage, rows: I64, owners: I32, edge_vmas: I32, edge_owners: I32) -> I64:
    """Return how many entries map each page from a VMA that is in the tree of its owner."""
    mappings = image.reverse.mappings(image.pages["pfn"][rows])
    counts = np.diff(mappings.offsets)
    vma = image.vmas_of_ptes(mappings.rows).astype(np.int64)
    # An edge as one number; a mapping outside of all VMAs (-1) is below all of these.
    width = max(owners.max(initial=0), edge_owners.max(initial=0)) + 1
    wanted = vma * int(width) + np.repeat(owners, counts)
    known = np.unique(edge_vmas.astype(np.int64) * int(width) + edge_owners)
    reached = np.isin(wanted, known)
    place = np.repeat(np.arange(len(rows)), counts)
    return np.bincount(place[reached], minlength=len(rows)).astype(np.int64)


def walk_costs(image: MemoryImage) -> list[WalkCost]:
    """Add up the walks of an image by kind of page; kinds without pages are left out."""
    all_walks = walks(image)
    flags = image.pages["flags"][all_walks.rows]
    kind = np.where(flags & np.uint64(Kpf.SWAPBACKED), 2, 1)
    kind[(flags & np.uint64(Kpf.ANON)) != 0] = 0
    costs = []
    for number, name in enumerate(KINDS):
        chosen = kind == number
        if chosen.any():
            visited, found = all_walks.visited[chosen], all_walks.found[chosen]
            costs.append(
                WalkCost(name, int(chosen.sum()), int(visited.sum()), int(found.sum()),
                         int(visited.max()))
            )  # fmt: skip
    return costs

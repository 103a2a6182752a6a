# SPDX-License-Identifier: GPL-2.0-only
"""Forward against backward: does the walk from each page come by every entry that maps it?

The walk is that of rmap_walk() (mm/rmap.c): an anonymous page names an anon_vma, a page of a file
its file, and their trees the VMAs whose range of indices has the page's; a merged page names a node
with a list of places. An entry that no walk meets is one that the kernel will forget: when it frees
the page, moves it or writes it out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte
from rmap.query.checks.collect import Collector
from rmap.query.checks.mappers import mapper_of, name_users
from rmap.query.checks.objects import anon_vma_name, file_name
from rmap.query.checks.registry import Fact, Outcome, check

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@check("reach", "the walk from a page meets every entry that maps it")
def reach(image: MemoryImage, limit: int) -> Outcome:
    """Look at every entry that maps a page which is reverse-mapped."""
    if "index" not in image.pages or not len(image.tables["tree_nodes"]):
        return Outcome("entries", skipped="the source does not see page->mapping and trees")
    ptes, pages = image.ptes, image.pages
    counted = ptes["flags"] & np.uint32(Pte.PRESENT | Pte.SPECIAL) == np.uint32(Pte.PRESENT)
    rows = np.flatnonzero(counted)
    page = image.find_pages(ptes["pfn"][rows])
    rows, page = rows[page >= 0], page[page >= 0]
    found = Collector("reach", "entries", len(rows), limit)
    vma = image.pte_vma[rows].astype(np.int64)
    ksm = pages["flags"][page] & np.uint64(Kpf.KSM) != 0
    here = image.vmas["start"][vma]
    index = image.vmas["pgoff"][vma] + (ptes["address"][rows] - here) // np.uint64(image.page_size)
    met = np.zeros(len(rows), bool)
    for owner in ("anon_vma", "file"):
        edges = _edges(image, owner)
        whose = pages[owner][page].astype(np.int64)
        met |= (whose >= 0) & np.isin(whose << 32 | vma, edges)
    right = index == pages["index"][page]
    merged = ksm & _merged(image, rows, vma, pages["mapping"][page])
    owned = (pages["anon_vma"][page] >= 0) | (pages["file"][page] >= 0)
    inside = vma >= 0

    def says(at: int, what: str) -> tuple[str, dict[str, Fact]]:
        mapper = mapper_of(image, int(rows[at]))
        pfn = int(ptes["pfn"][rows[at]])
        who = name_users(mapper.pids, mapper.comm)
        return (
            f"page {pfn:#x}, mapped at {mapper.address:#x} by {who}: {what}",
            {"pfn": pfn, "address": mapper.address, "pid": mapper.pids[0]},
        )

    plain = ~ksm & owned & inside
    found.where(
        "unreached",
        plain & ~met,
        lambda at: says(
            at, f"{_owner(image, int(page[at]))}, which it names, does not lead to that VMA"
        ),
    )
    found.where(
        "index",
        plain & met & ~right,
        lambda at: says(
            at,
            f"its index is {int(pages['index'][page[at]]):#x}, and the place has {int(index[at]):#x}",
        ),
    )
    found.where(
        "merged",
        ksm & inside & ~merged,
        lambda at: says(at, "no place in the list of its node leads there"),
    )
    nobody = ~ksm & ~owned & inside & (pages["mapping"][page] != 0)
    found.where(
        "nobody",
        nobody,
        lambda at: says(
            at, f"it names {int(pages['mapping'][page[at]]):#x}, which is nothing that is known"
        ),
    )
    return found.outcome("entry")


def _owner(image: MemoryImage, page: int) -> str:
    row = int(image.pages["anon_vma"][page])
    return (
        anon_vma_name(image, row) if row >= 0 else file_name(image, int(image.pages["file"][page]))
    )


def _edges(image: MemoryImage, owner: str) -> I64:
    """(owner, VMA) of the trees, as one number each."""
    nodes = image.tables["tree_nodes"]
    known = (nodes[owner] >= 0) & (nodes["vma"] >= 0)
    return np.unique(
        nodes[owner][known].astype(np.int64) << 32 | nodes["vma"][known].astype(np.int64)
    )


def _merged(image: MemoryImage, rows: I64, vma: I64, mapping: npt.NDArray[np.uint64]) -> Bools:
    """Whether an item of the page's node has that address, and an anon_vma that leads to the VMA."""
    items, nodes = image.tables["ksm_items"], image.tables["tree_nodes"]
    met = np.zeros(len(rows), bool)
    known = items["anon_vma"] >= 0
    in_tree = (nodes["anon_vma"] >= 0) & (nodes["vma"] >= 0)
    order = np.argsort(nodes["anon_vma"][in_tree], kind="stable")
    owner = nodes["anon_vma"][in_tree][order]
    reached = nodes["vma"][in_tree][order].astype(np.int64)
    # (node, address, VMA) of every place that a walk over the items would look at.
    low = np.searchsorted(owner, items["anon_vma"][known])
    high = np.searchsorted(owner, items["anon_vma"][known], side="right")
    count = high - low
    which = np.repeat(np.flatnonzero(known), count)
    at = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    places = np.rec.fromarrays(
        [items["node"][which], items["address"][which], reached[at]], names="node,address,vma"
    )
    wanted = np.rec.fromarrays(
        [mapping & ~np.uint64(3), image.ptes["address"][rows], vma], names="node,address,vma"
    )
    if len(places):
        met = np.isin(wanted, places)
    return met

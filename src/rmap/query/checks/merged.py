# SPDX-License-Identifier: GPL-2.0-only
"""The places that KSM keeps: one for each address, and nodes that name the page that names them.

A place that leads to no mapping is no contradiction: ksmd takes it away when it comes by again.
"""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.image.flags import Kpf
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import users_of_mm, users_of_page
from rmap.query.checks.registry import Outcome, check

_TAGS = np.uint64(3)


@check("merged", "places of merged pages are there once, and nodes name the page that names them")
def merged(image: MemoryImage, limit: int) -> Outcome:
    """Look at every place, and at every merged page."""
    items, pages = image.tables["ksm_items"], image.pages
    if "mapping" not in pages:
        return Outcome("places", skipped=NO_STRUCTURE)
    found = Collector("merged", "places", len(items), limit)
    place = Subject(
        lambda row: (
            f"the place {int(items['address'][row]):#x} of the node {int(items['node'][row]):#x}"
        ),
        lambda row: {
            "object": "stable_node", "node": int(items["node"][row]),
            "address": int(items["address"][row]),
        },
        lambda row: users_of_mm(image, int(items["mm"][row])),
    )  # fmt: skip
    found.where(place, "anon_vma", items["anon_vma"] < 0, "names no anon_vma that is known")
    both = np.column_stack([items["mm"].astype(np.uint64), items["address"]])
    _, first = np.unique(both, axis=0, return_index=True)
    again = items["mm"] >= 0
    again[first] = False
    found.where(place, "duplicate", again, "is there twice in its address space")
    _nodes(image, found)
    return found.outcome("place")


def _nodes(image: MemoryImage, found: Collector) -> None:
    """Nodes that name another page than the one that names them."""
    items, pages = image.tables["ksm_items"], image.pages
    rows = np.flatnonzero(
        (pages["flags"] & np.uint64(Kpf.KSM) != 0) & (image.reverse.count(pages["pfn"]) > 0)
    )
    nodes, at = np.unique(items["node"], return_index=True)
    if not len(nodes):
        return
    named = pages["mapping"][rows] & ~_TAGS
    where = np.minimum(np.searchsorted(nodes, named), len(nodes) - 1)
    said = np.zeros(len(pages), np.uint64)
    said[rows] = items["pfn"][at[where]]
    wrong = (nodes[where] == named) & (said[rows] != 0) & (said[rows] != pages["pfn"][rows])
    page = Subject(
        lambda row: f"page {int(pages['pfn'][row]):#x}",
        lambda row: {
            "object": "stable_node", "address": int(pages["mapping"][row] & ~_TAGS),
            "pfn": int(pages["pfn"][row]),
        },
        lambda row: users_of_page(image, int(pages["pfn"][row])),
    )  # fmt: skip
    found.add(page, "kpfn", rows[wrong], lambda row: (
        f"names a node of KSM, which names page {int(said[row]):#x}"),
        pages["pfn"], said)  # fmt: skip

# SPDX-License-Identifier: GPL-2.0-only
"""Entries of one address space that map the same address.

An upper level of the page tables holds a huge entry or a table of smaller ones, never both. So two
entries that overlap mean a damaged table, or a source that read the level twice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.checks.mappers import mapper_of, name_users
from rmap.query.checks.registry import Finding, Outcome, Tally, check

I64 = npt.NDArray[np.int64]


@check("overlap", "no two page-table entries of an address space map the same address")
def overlap(image: MemoryImage, limit: int) -> Outcome:
    """Find entries that begin inside an entry before them."""
    wrong = _overlapping(image)
    sound = len(image.ptes) - len(wrong)
    tallies = (Tally("agree", "entry", sound), Tally("disagree", "entry", len(wrong)))
    return Outcome(
        unit="entries",
        examined=len(image.ptes),
        tallies=tuple(tally for tally in tallies if tally.count),
        total=len(wrong),
        findings=tuple(_finding(image, row) for row in wrong[:limit].tolist()),
    )


def _overlapping(image: MemoryImage) -> I64:
    """Rows of entries that begin before one of their predecessors ends."""
    ptes = image.ptes
    found = []
    # Addresses differ, so only a huge entry can reach over its successor.
    for mm in np.unique(ptes["mm"][ptes["order"] > 0]).tolist():
        first, last = int(image.pte_offsets[mm]), int(image.pte_offsets[mm + 1])
        address, order = ptes["address"][first:last], ptes["order"][first:last]
        final = address + (np.left_shift(np.uint64(image.page_size), order.astype(np.uint64)) - 1)
        reached = np.maximum.accumulate(final)
        found.append(first + 1 + np.flatnonzero(address[1:] <= reached[:-1]))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _finding(image: MemoryImage, row: int) -> Finding:
    mapper = mapper_of(image, row)
    order = int(image.ptes["order"][row])
    return Finding(
        "overlap",
        f"entry of order {order} at {mapper.address:#x} of {name_users(mapper.pids, mapper.comm)}: "
        "inside a huge entry that begins before it",
        {"address": mapper.address, "order": order, "pfn": int(image.ptes["pfn"][row])},
        (mapper,),
    )

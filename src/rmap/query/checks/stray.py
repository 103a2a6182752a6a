# SPDX-License-Identifier: GPL-2.0-only
"""Page-table entries that no VMA covers.

The kernel removes entries before their VMA goes, and splits a huge entry before a VMA ends in
it. An entry outside leaves its page unreachable for the reverse map.

A source that reads VMAs and page tables of a running process one after the other sees new
memory without its VMA, so strays are findings only in images that are exact or frozen.
"""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.query.checks.mappers import mapper_of, name_users
from rmap.query.checks.registry import Finding, Outcome, Tally, check

#: ``machine.consistency`` of images whose tables were read at one moment.
ONE_MOMENT = ("exact", "frozen")


@check("stray", "every page-table entry lies wholly in one VMA")
def stray(image: MemoryImage, limit: int) -> Outcome:
    """Find entries that begin outside all VMAs, or reach beyond the end of theirs."""
    ptes = image.ptes
    if not len(image.vmas):
        return Outcome("entries", skipped="the image has no VMAs")
    size = np.left_shift(np.uint64(image.page_size), ptes["order"].astype(np.uint64))
    vma = image.pte_vma
    room = image.vmas["end"][np.maximum(vma, 0)] - ptes["address"]
    astray = np.flatnonzero((vma < 0) | (size > room))
    certain = str(image.machine["consistency"][0]) in ONE_MOMENT
    verdict = "disagree" if certain else "changed"
    counts = {"agree": len(ptes) - len(astray), verdict: len(astray)}
    return Outcome(
        unit="entries",
        examined=len(ptes),
        tallies=tuple(Tally(name, "entry", count) for name, count in counts.items() if count),
        total=len(astray) if certain else 0,
        findings=tuple(_finding(image, row) for row in astray[: limit * certain].tolist()),
        hidden=0 if certain else len(astray),
        blind_spot="entries without VMA in an image of running processes: they may be just new",
    )


def _finding(image: MemoryImage, row: int) -> Finding:
    mapper = mapper_of(image, row)
    order, pfn = int(image.ptes["order"][row]), int(image.ptes["pfn"][row])
    where = "outside every VMA" if image.pte_vma[row] < 0 else "reaching beyond the end of its VMA"
    return Finding(
        "stray",
        f"entry of order {order} at {mapper.address:#x} of {name_users(mapper.pids, mapper.comm)}: "
        f"{where}",
        {"address": mapper.address, "order": order, "pfn": pfn},
        (mapper,),
    )

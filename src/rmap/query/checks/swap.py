# SPDX-License-Identifier: GPL-2.0-only
"""The use counts of swap slots against the page-table entries that hold them.

What is said of missing mappings in `rmap.query.checks.mapcount` holds here too: fewer references
than counted are unattributed if and only if somebody was not read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.checks.mappers import MAX_MAPPERS, mapper_of
from rmap.query.checks.registry import Finding, Outcome, Tally, check
from rmap.query.verdict import VERDICT_NAMES, Verdict, compare

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@check("swap", "each swap slot's count equals the page-table entries that hold it")
def swap(image: MemoryImage, limit: int) -> Outcome:
    """Compare the counts of the ``swap_slots`` table, if the source filled it."""
    slots = image.tables["swap_slots"]
    if not len(slots):
        return Outcome("slots", skipped="the source does not know the counts of swap slots")
    entries = np.union1d(slots["entry"], image.reverse_swap.mapped_pfns())
    found = image.reverse_swap.count(entries)
    counted = np.zeros(len(entries), np.int64)  # a slot that is not in the table is free
    counted[np.searchsorted(entries, slots["entry"])] = slots["count"]
    verdicts = compare(image, found, counted)
    wrong = np.flatnonzero(verdicts == Verdict.DISAGREE)
    unseen = verdicts == Verdict.UNATTRIBUTED
    return Outcome(
        unit="slots",
        examined=len(entries),
        tallies=tuple(
            Tally(VERDICT_NAMES[code], "slot", count)
            for code, count in enumerate(np.bincount(verdicts).tolist())
            if count
        ),
        total=len(wrong),
        findings=tuple(
            _finding(image, int(entries[i]), int(found[i]), int(counted[i]))
            for i in wrong[:limit].tolist()
        ),
        hidden=int((counted[unseen] - found[unseen]).sum()),
        blind_spot="references that the kernel counts and nobody readable holds",
    )


def _finding(image: MemoryImage, entry: int, found: int, counted: int) -> Finding:
    relation = "more" if found > counted else "fewer"
    rows = image.reverse_swap.mappings([entry]).rows[:MAX_MAPPERS].tolist()
    return Finding(
        "swap",
        f"swap slot {entry >> 5:#x} of area {entry & 31}: {found} references found, {relation} "
        f"than the {counted} counted",
        {"entry": entry, "found": found, "counted": counted},
        tuple(mapper_of(image, row) for row in rows),
    )

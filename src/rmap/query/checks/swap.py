# SPDX-License-Identifier: GPL-2.0-only
"""The use counts of swap slots against the page-table entries that hold them.

What is said of missing mappings in `rmap.query.checks.mapcount` holds here too: fewer references
than counted are unattributed if and only if somebody was not read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.checks.collect import Collector, Subject
from rmap.query.checks.mappers import MAX_MAPPERS, mapper_of
from rmap.query.checks.objects import page_facts, users_of_page
from rmap.query.checks.registry import Fact, Finding, Mapper, Outcome, Tally, check
from rmap.query.verdict import VERDICT_NAMES, Verdict, compare

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


@check("swap", "each swap slot's count equals what holds it, and its page is in the cache")
def swap(image: MemoryImage, limit: int) -> Outcome:
    """Compare the counts of the ``swap_slots`` table, if the source filled it."""
    slots = image.tables["swap_slots"]
    if not len(slots) and "cached" not in slots:
        return Outcome("slots", skipped="the source does not know the counts of swap slots")
    entries = np.union1d(slots["entry"], image.reverse_swap.mapped_pfns())
    found = image.reverse_swap.count(entries)
    counted = np.zeros(len(entries), np.int64)  # a slot that is not in the table is free
    counted[np.searchsorted(entries, slots["entry"])] = slots["count"]
    verdicts = compare(image, found, counted)
    verdicts[counted < 0] = Verdict.NOT_COMPARABLE
    wrong = np.flatnonzero(verdicts == Verdict.DISAGREE)
    unseen = verdicts == Verdict.UNATTRIBUTED
    tallies = [
        Tally(VERDICT_NAMES[code], "slot", count)
        for code, count in enumerate(np.bincount(verdicts).tolist())
        if count
    ]
    findings = [
        _finding(image, int(entries[i]), int(found[i]), int(counted[i]))
        for i in wrong[:limit].tolist()
    ]
    more = _of_cache(image, limit - len(findings))
    total = len(wrong) + sum(more.wrong.values())
    return Outcome(
        unit="slots",
        examined=len(entries),
        tallies=(*tallies, *(Tally("disagree", *pair) for pair in more.wrong.items())),
        total=total,
        findings=(*findings, *more.findings),
        hidden=int((counted[unseen] - found[unseen]).sum()),
        blind_spot="references that the kernel counts and nobody readable holds",
    )


def _of_cache(image: MemoryImage, limit: int) -> Collector:
    """Pages in the swap cache against slots that say so, and files that hold slots."""
    slots = image.tables["swap_slots"]
    found = Collector("swap", "slots", len(slots), max(limit, 0))
    slot = Subject(
        lambda row: _name(int(slots["entry"][row])),
        lambda row: {"object": "swap slot", "entry": int(slots["entry"][row]),
                     **_cache_facts(image, int(slots["cache_pfn"][row]))},
        lambda row: _users(image, row),
    )  # fmt: skip
    if "cached" in slots:
        unknown = (slots["cache_pfn"] >= 0) & ~slots["cached"]
        found.where(slot, "cache", unknown, lambda row: (
            f"does not say that the swap cache has its page {int(slots['cache_pfn'][row]):#x}"
        ))  # fmt: skip
    if "shmem" in slots:
        shmem, held = slots["shmem"], slots["shmem_found"]
        found.where(slot, "shmem", (held >= 0) & (held != shmem), lambda row: (
            f"counts {shmem[row]} references from shared memory, found {held[row]}"),
            held, shmem)  # fmt: skip
    return found


def _cache_facts(image: MemoryImage, pfn: int) -> dict[str, Fact]:
    return page_facts(image, pfn) | {"object": "swap slot"} if pfn >= 0 else {}


def _users(image: MemoryImage, row: int) -> tuple[Mapper, ...]:
    """Who holds a slot, or maps its page in the cache."""
    slots = image.tables["swap_slots"]
    rows = image.reverse_swap.mappings([int(slots["entry"][row])]).rows[:MAX_MAPPERS].tolist()
    pfn = int(slots["cache_pfn"][row])
    pages = users_of_page(image, pfn) if pfn >= 0 else ()
    return (*(mapper_of(image, one) for one in rows), *pages)


def _name(entry: int) -> str:
    return f"swap slot {entry >> 5:#x} of area {entry & 31}"


def _finding(image: MemoryImage, entry: int, found: int, counted: int) -> Finding:
    relation = "more" if found > counted else "fewer"
    rows = image.reverse_swap.mappings([entry]).rows[:MAX_MAPPERS].tolist()
    return Finding(
        "swap",
        f"{_name(entry)}: {found} references found, {relation} than the {counted} counted",
        {"entry": entry, "found": found, "counted": counted},
        tuple(mapper_of(image, row) for row in rows),
    )

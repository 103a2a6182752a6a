# SPDX-License-Identifier: GPL-2.0-only
"""Each page's mappings found in page tables, against the kernel's count.

The two records of a mapping, forward and backward, have to agree; `rmap.query.verdict` says how
a page is judged. What a judgement of counts cannot see, exactly:

* A mapping that is *missing* from the page tables hides as *unattributed* if and only if somebody
  was not read (a process denied, vanished, or rmap itself; or the image is of some processes
  only). It looks like a mapping of theirs. If everybody was read, it is a disagreement.
* A mapping *too many* hides if at least as many mappings of the same page are missing, for
  whichever reason: the numbers then cancel out, or leave the page unattributed.
* On pages that changed while they were read, or whose count is not comparable, anything hides.

So the mappings that can be missing unseen are at most those that the kernel counts and nobody
was found to hold, summed over the unattributed pages (:attr:`Outcome.hidden`), plus what is on
the pages not judged, whose number is in the tallies. A mapping too many that hides adds one to
both sides and is not in that bound.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.checks.mappers import mappers_of_page
from rmap.query.checks.objects import page_facts
from rmap.query.checks.registry import Finding, Outcome, Tally, check
from rmap.query.kinds import KIND_NAMES, Kind, classify
from rmap.query.verdict import VERDICT_NAMES, Verdict, judge

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

BLIND_SPOT = (
    "mappings that the kernel counts and nobody readable holds: as many may be missing from "
    "page tables unseen"
)


@check("mapcount", "every page's mappings found equal the kernel's count of them")
def mapcount(image: MemoryImage, limit: int) -> Outcome:
    """Judge every page that is mapped, by the page tables or by the kernel's count."""
    pfns, rows, found = _mapped_pages(image)
    kinds = np.full(len(pfns), Kind.OTHER, np.uint8)
    counted = np.full(len(pfns), -1, np.int64)
    known = rows >= 0
    kinds[known] = classify(image.pages["flags"][rows[known]])
    counted[known] = image.pages["mapcount"][rows[known]]
    verdicts = judge(image, rows, found, kinds)
    wrong = np.flatnonzero(verdicts == Verdict.DISAGREE)
    unseen = verdicts == Verdict.UNATTRIBUTED
    return Outcome(
        unit="pages",
        examined=len(pfns),
        tallies=_tallies(verdicts, kinds),
        total=len(wrong),
        findings=tuple(
            _finding(image, int(pfns[i]), KIND_NAMES[kinds[i]], int(found[i]), int(counted[i]))
            for i in wrong[:limit].tolist()
        ),
        hidden=int((counted[unseen] - found[unseen]).sum()),
        blind_spot=BLIND_SPOT,
    )


def _mapped_pages(image: MemoryImage) -> tuple[U64, I64, I64]:
    """Pages with a mapping found or counted, and zero pages: pfns, rows of ``pages``, found."""
    have = image.pages["pfn"]
    found = image.reverse.count(have)
    zero = classify(image.pages["flags"]) == Kind.ZERO
    rows = np.flatnonzero((found > 0) | (image.pages["mapcount"] != 0) | zero)
    pfns, found = have[rows], found[rows]
    mapped = image.reverse.mapped_pfns()
    foreign = mapped[image.find_pages(mapped) < 0]
    if not len(foreign):
        return pfns, rows, found
    return (
        np.concatenate((pfns, foreign)),
        np.concatenate((rows, np.full(len(foreign), -1, np.int64))),
        np.concatenate((found, image.reverse.count(foreign))),
    )


def _tallies(verdicts: U8, kinds: U8) -> tuple[Tally, ...]:
    """Count pages by verdict and kind, leaving out what does not occur."""
    width = len(KIND_NAMES)
    counts = np.bincount(verdicts.astype(np.int64) * width + kinds)
    return tuple(
        Tally(VERDICT_NAMES[at // width], KIND_NAMES[at % width], int(counts[at]))
        for at in np.flatnonzero(counts).tolist()
    )


def _finding(image: MemoryImage, pfn: int, kind: str, found: int, counted: int) -> Finding:
    relation = "more" if found > counted else "fewer"
    return Finding(
        "mapcount",
        f"page {pfn:#x} ({kind}): {found} mappings found, {relation} than the {counted} counted",
        {**page_facts(image, pfn), "kind": kind, "found": found, "counted": counted},
        mappers_of_page(image, pfn),
    )

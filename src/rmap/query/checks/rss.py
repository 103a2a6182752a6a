# SPDX-License-Identifier: GPL-2.0-only
"""The counters of each address space against a recount of its entries ("Bad rss-counter").

``mm_counter()`` (``include/linux/mm.h``) says which counter a page belongs to. Migration and
device entries count with their page, swap entries in the swap counter; hugetlb pages, zero page
and PFN maps count nowhere.

Only images of one moment are compared (consistency exact or frozen). Counters that ``/proc`` showed
before Linux 6.17 are not: until then ``status`` left out what CPUs or threads had not added yet.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Pte
from rmap.query.checks.mappers import name_users, users_of
from rmap.query.checks.registry import Finding, Outcome, Tally, check
from rmap.query.checks.stray import ONE_MOMENT
from rmap.query.sizes import MmSums, mm_sums
from rmap.query.usage import Counter, MappedPages

I64 = npt.NDArray[np.int64]

#: First release whose ``/proc/PID/status`` adds up all parts of the counters.
EXACT_SINCE = (6, 17)
COUNTERS = ("rss_anon", "rss_file", "rss_shmem", "swap")


@check("rss", "the counters of each address space equal a recount of its page tables")
def rss(image: MemoryImage, limit: int) -> Outcome:
    """Compare RssAnon, RssFile, RssShmem and VmSwap where they are known."""
    reason = _incomparable(image)
    if reason:
        return Outcome("counters", skipped=reason)
    counted = np.stack([image.mms[name] for name in COUNTERS], axis=1)
    found = recount(image)
    known = counted >= 0
    wrong = np.argwhere(known & (found != counted))
    return Outcome(
        unit="counters",
        examined=int(known.sum()),
        tallies=_tallies(known, found == counted),
        total=len(wrong),
        findings=tuple(
            _finding(image, mm, COUNTERS[c], int(found[mm, c]), int(counted[mm, c]))
            for mm, c in wrong[:limit].tolist()
        ),
    )


def _incomparable(image: MemoryImage) -> str:
    """Why counters cannot be compared in this image; empty if they can."""
    machine = image.machine.row(0)
    if machine["consistency"] not in ONE_MOMENT:
        return "processes ran while they were read; take a snapshot with --freeze"
    if machine["source"] == "proc" and _release(machine["kernel_release"]) < EXACT_SINCE:
        return f"/proc shows only approximate counters on Linux {machine['kernel_release']}"
    if not any((image.mms[name] >= 0).any() for name in COUNTERS):
        return "the image has no counters"
    return ""


def _release(text: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) if ``text`` is no release of Linux."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def recount(image: MemoryImage) -> I64:
    """Return what the counters of every mm should be, bytes: ``[mm, COUNTERS]``."""
    sums: MmSums = mm_sums(MappedPages(image), held=Pte.MIGRATION | Pte.DEVICE)
    kinds = [Counter.ANON, Counter.FILE, Counter.SHMEM]
    return np.concatenate((sums.rss[:, kinds], sums.swap[:, None]), axis=1)


def _tallies(known: npt.NDArray[np.bool_], equal: npt.NDArray[np.bool_]) -> tuple[Tally, ...]:
    tallies = (
        Tally(verdict, name, int((known[:, c] & (equal[:, c] == good)).sum()))
        for verdict, good in (("agree", True), ("disagree", False))
        for c, name in enumerate(COUNTERS)
    )
    return tuple(tally for tally in tallies if tally.count)


def _finding(image: MemoryImage, mm: int, counter: str, found: int, counted: int) -> Finding:
    pids, comm = users_of(image, mm)
    return Finding(
        "rss",
        f"{counter} of {name_users(pids, comm)}: {found} bytes in page tables, {counted} counted",
        {"pid": pids[0], "counter": counter, "found": found, "counted": counted,
         **({"address": int(image.mms["handle"][mm])} if "handle" in image.mms else {})},
    )  # fmt: skip

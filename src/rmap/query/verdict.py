# SPDX-License-Identifier: GPL-2.0-only
"""Found against counted: do the page tables agree with the kernel's count of a page?

*Found* is the number of page-table entries that map a page in the image, *counted* is what the
kernel says (``/proc/kpagecount``). The first of these that holds is the verdict:

==============  ==============================================================================
not comparable  the count is unknown; or the kernel only averages over a large folio
                (``machine.page_mapcount`` is false) and this page is part of one; or more
                entries of a hugetlb page were found than are counted: where processes share a
                page table of hugetlb pages, the kernel counts the table once
zero page       the kernel does not count the mappings of the zero page
changed         entries that map it changed while they were read
agree           found and counted are equal
unattributed    fewer found than counted, and somebody may have been overlooked: a process could
                not be read (denied, vanished, or rmap itself, which maps libraries like others),
                only some processes were asked for, or page tables are missing in a dump
disagree        anything else: more found than counted, or fewer though everybody was read
==============  ==============================================================================

So a mapping that is truly missing from the page tables hides as *unattributed* as soon as one
process could not be read; a mapping too many hides only behind as many missing ones of that page.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.kinds import Kind, is_large

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


class Verdict(IntEnum):
    """Verdicts; ``VERDICT_NAMES[code]`` is the name that users see."""

    AGREE = 0
    ZERO_PAGE = 1
    CHANGED = 2
    UNATTRIBUTED = 3
    NOT_COMPARABLE = 4
    DISAGREE = 5


#: Names by code.
VERDICT_NAMES = tuple(verdict.name.lower().replace("_", " ") for verdict in Verdict)

#: ``processes.status`` of those whose mappings may exist and are not in the image.
UNREAD_STATUSES = ("denied", "vanished", "self")


def somebody_unread(image: MemoryImage) -> bool:
    """Whether mappings may exist that the image cannot have: then a lower count proves nothing."""
    if str(image.machine["scope"][0]) != "machine":
        return True
    if "missing_tables" in image.machine and int(image.machine["missing_tables"][0]):
        return True
    return bool(np.isin(image.processes["status"].astype(str), UNREAD_STATUSES).any())


def compare(image: MemoryImage, found: I64, counted: I64) -> U8:
    """Return agree, unattributed or disagree for numbers that can be compared."""
    verdicts = np.full(len(found), Verdict.AGREE, np.uint8)
    verdicts[found > counted] = Verdict.DISAGREE
    less = Verdict.UNATTRIBUTED if somebody_unread(image) else Verdict.DISAGREE
    verdicts[found < counted] = less
    return verdicts


def judge(image: MemoryImage, rows: npt.ArrayLike, found: npt.ArrayLike, kinds: U8) -> U8:
    """Return the verdict on pages of an image.

    Parameters
    ----------
    rows
        ``int64[n]``: rows of ``image.pages``; -1 for a page of which the image knows nothing.
    found
        ``int64[n]``: entries that map each page, as ``image.reverse.count(pfns)`` gives them.
    kinds
        ``uint8[n]``: kind of each page (`rmap.query.kinds`).

    >>> judge(image, [0], image.reverse.count(image.pages["pfn"][:1]),
    ...       page_kinds(image)[:1]).tolist()  # doctest: +SKIP
    [0]
    """
    wanted, count = np.asarray(rows, np.int64), np.asarray(found, np.int64)
    if not len(image.pages):
        return np.full(len(wanted), Verdict.NOT_COMPARABLE, np.uint8)
    known = wanted >= 0
    row = np.maximum(wanted, 0)
    counted = image.pages["mapcount"][row].astype(np.int64)
    # The last that holds wins: the order of the table above, upside down.
    verdicts = compare(image, count, counted)
    verdicts[image.pages["changed"][row]] = Verdict.CHANGED
    verdicts[kinds == Kind.ZERO] = Verdict.ZERO_PAGE
    vague = ~known | (counted < 0) | ((kinds == Kind.HUGETLB) & (count > counted))
    if not bool(image.machine["page_mapcount"][0]):
        vague |= is_large(image.pages["flags"][row])
    verdicts[vague] = Verdict.NOT_COMPARABLE
    return verdicts

# SPDX-License-Identifier: GPL-2.0-only
"""Sums over the page frames of an image: by kind, and those mapped by somebody unseen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.kinds import KIND_NAMES, is_large, page_kinds
from rmap.query.usage import Counter, MappedPages, page_counters

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KindTotal:
    """The page frames of one kind. Sizes are in bytes."""

    kind: str
    size: int
    mapped: int  #: of pages that the kernel counts a mapping of
    found: int  #: of pages of which a mapping was found


@dataclass(frozen=True, slots=True)
class Unattributed:
    """Pages that the kernel counts more mappings of than were found, each page once. In bytes.

    Who holds the missing mappings: processes that could not be read, the reader itself (it maps
    the same libraries as others do), or, in an image of only some processes, all others. Pages
    whose mappings changed while they were read are left out, and so are large folios where the
    kernel only averages their mapcounts.
    """

    size: int  #: all of them, hugetlb included
    unfound: int  #: those of which no mapping at all was found
    mappings: int  #: mappings missing (a number, not bytes)
    anon: int
    file: int
    shmem: int
    hugetlb: int


def kind_totals(image: MemoryImage, pages: MappedPages) -> tuple[tuple[KindTotal, ...], bool]:
    """Return totals of all kinds that occur, and whether they cover all RAM."""
    kinds = page_kinds(image)
    weights = {
        "size": None,
        "mapped": image.pages["mapcount"] > 0,
        "found": found_by_row(image, pages) > 0,
    }
    count = len(KIND_NAMES)
    sizes = {
        name: np.bincount(kinds if chosen is None else kinds[chosen], minlength=count)
        * image.page_size
        for name, chosen in weights.items()
    }
    totals = tuple(
        KindTotal(kind, *(int(sizes[name][code]) for name in weights))
        for code, kind in enumerate(KIND_NAMES)
        if sizes["size"][code]
    )
    return totals, covers_ram(image)


def covers_ram(image: MemoryImage) -> bool:
    """Whether the image has a row for every page frame of its RAM ranges."""
    start, end = image.ram["start_pfn"], image.ram["end_pfn"]
    pfns = image.pages["pfn"]
    inside = np.searchsorted(pfns, end) - np.searchsorted(pfns, start)
    return bool(len(start)) and bool((inside == (end - start).astype(np.int64)).all())


def found_by_row(image: MemoryImage, pages: MappedPages) -> npt.NDArray[np.int32]:
    """Return the mappings found of every row of ``pages``."""
    found = np.zeros(len(image.pages), np.int32)
    known = pages.rows >= 0
    found[pages.rows[known]] = pages.found[known]
    return found


def unattributed(image: MemoryImage, pages: MappedPages) -> Unattributed:
    """Add up the pages of which mappings are missing."""
    found = found_by_row(image, pages)
    missing = image.pages["mapcount"].astype(np.int64) - found
    missing[image.pages["changed"]] = 0
    if not image.machine["page_mapcount"][0]:
        missing[is_large(image.pages["flags"])] = 0
    rows = np.flatnonzero(missing > 0)
    counter = page_counters(image.pages["flags"][rows])
    by_counter = np.bincount(counter, minlength=len(Counter)) * image.page_size
    return Unattributed(
        len(rows) * image.page_size,
        int(np.count_nonzero(found[rows] == 0)) * image.page_size,
        int(missing[rows].sum()),
        *by_counter.tolist(),
    )

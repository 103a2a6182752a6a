# SPDX-License-Identifier: GPL-2.0-only
"""Pages whose flags and counts contradict one another.

A page that is mapped is in use: not free, not slab, not a page table; it has a reference for each
mapping of it, and its mapping count is not negative.
"""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.image.flags import Kpf
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.registry import Outcome, check

#: What a page that is mapped cannot be.
_NOT_MAPPED = (("free", Kpf.BUDDY), ("slab", Kpf.SLAB), ("a page table", Kpf.PGTABLE))


@check("state", "a page's flags, references and mapping count do not contradict one another")
def state(image: MemoryImage, limit: int) -> Outcome:
    """Look at every page."""
    pages = image.pages
    if "refcount" not in pages:
        return Outcome("pages", skipped=NO_STRUCTURE)
    found = Collector("state", "pages", len(pages), limit)
    page = Subject(
        lambda row: f"page {int(pages['pfn'][row]):#x}",
        lambda row: {"pfn": int(pages["pfn"][row])},
    )
    flags, mapcount, refcount = pages["flags"], pages["mapcount"], pages["refcount"]
    mappings = image.reverse.count(pages["pfn"])
    for name, bit in _NOT_MAPPED:
        _mapped_as(found, page, name, flags & np.uint64(bit) != 0, mappings)
    found.where(page, "negative", mapcount < 0,
                lambda row: f"has a mapping count of {mapcount[row]}")  # fmt: skip
    small = flags & np.uint64(Kpf.COMPOUND_TAIL | Kpf.COMPOUND_HEAD) == 0
    found.where(page, "references", small & (mappings > refcount), lambda row: (
        f"has {refcount[row]} references and {mappings[row]} mappings"))  # fmt: skip
    free = flags & np.uint64(Kpf.BUDDY) != 0
    found.where(page, "lru", free & (flags & np.uint64(Kpf.LRU) != 0),
                "is free, and on an LRU list")  # fmt: skip
    found.where(page, "mlocked", free & (flags & np.uint64(Kpf.MLOCKED) != 0),
                "is free, and mlocked")  # fmt: skip
    both = np.uint64(Kpf.ACTIVE | Kpf.UNEVICTABLE)
    found.where(page, "lists", flags & both == both, "is active and unevictable at once")
    return found.outcome("page")


def _mapped_as(
    found: Collector, page: Subject, name: str, such: np.typing.NDArray[np.bool_],
    mappings: np.typing.NDArray[np.int64],
) -> None:  # fmt: skip
    found.where(
        page, name, such & (mappings > 0),
        lambda row: f"is {name}, and {mappings[row]} page-table entries map it",
    )  # fmt: skip

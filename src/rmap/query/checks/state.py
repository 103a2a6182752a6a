# SPDX-License-Identifier: GPL-2.0-only
"""Pages whose flags and counts contradict one another.

A page that is mapped is in use: not free, not slab, not a page table; it has a reference for each
mapping of it, and its mapping count is not negative.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf
from rmap.query.checks.collect import Collector
from rmap.query.checks.registry import Fact, Outcome, check

I64 = npt.NDArray[np.int64]
_NOT_MAPPED = {"free": Kpf.BUDDY, "slab": Kpf.SLAB, "a page table": Kpf.PGTABLE}


@check("state", "a page's flags, references and mapping count do not contradict one another")
def state(image: MemoryImage, limit: int) -> Outcome:
    """Look at every page."""
    pages = image.pages
    if "refcount" not in pages:
        return Outcome("pages", skipped="the source does not see references")
    found = Collector("state", "pages", len(pages), limit)
    flags, mapcount = pages["flags"], pages["mapcount"].astype(np.int64)
    mappings = image.reverse.count(pages["pfn"])
    refcount = pages["refcount"].astype(np.int64)

    def says(row: int, what: str) -> tuple[str, dict[str, Fact]]:
        pfn = int(pages["pfn"][row])
        return f"page {pfn:#x} {what}", {"pfn": pfn}

    for name, bit in _NOT_MAPPED.items():
        found.where(
            name,
            (flags & np.uint64(bit) != 0) & (mappings > 0),
            lambda row, name=name: says(
                row, f"is {name}, and {mappings[row]} page-table entries map it"
            ),
        )  # type: ignore[misc] # a default argument
    found.where("negative", mapcount < 0,
                lambda row: says(row, f"has a mapping count of {mapcount[row]}"))  # fmt: skip
    tail = flags & np.uint64(Kpf.COMPOUND_TAIL) != 0
    small = ~tail & (flags & np.uint64(Kpf.COMPOUND_HEAD) == 0)
    found.where("references", small & (mappings > refcount),
                lambda row: says(row, f"has {refcount[row]} references and {mappings[row]} mappings"))  # fmt: skip
    lru = flags & np.uint64(Kpf.LRU) != 0
    free = flags & np.uint64(Kpf.BUDDY) != 0
    found.where("lru", lru & free & ~tail, lambda row: says(row, "is free, and on an LRU list"))
    both = np.uint64(Kpf.ACTIVE | Kpf.UNEVICTABLE)
    found.where("lists", (flags & both == both) & ~tail,
                lambda row: says(row, "is active and unevictable at once"))  # fmt: skip
    mlocked = flags & np.uint64(Kpf.MLOCKED) != 0
    found.where("mlocked", mlocked & free, lambda row: says(row, "is free, and mlocked"))
    return found.outcome("page")

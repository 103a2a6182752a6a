# SPDX-License-Identifier: GPL-2.0-only
"""Regions as names of addresses, in output and in images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np

from rmap.image import TABLES, MemoryImage, Table
from rmap.scenario.expression import PAGE_SIZE

#: Where page index 0 lies, as in the conformance programs.
ARENA = 1 << 44


class RegionNames:
    """Finds the region that an address lies in or behind; regions have no end of their own."""

    def __init__(self, regions: Mapping[str, int]) -> None:
        placed = sorted((base, name) for name, base in regions.items())
        self.bases = [base for base, _ in placed]
        self.names = [name for _, name in placed]

    def find(self, address: int) -> tuple[str, int] | None:
        """Return the region and the page in it, None for an address in front of all."""
        index = (address - ARENA) // PAGE_SIZE
        at = bisect_right(self.bases, index) - 1
        if at < 0 or index < 0:
            return None
        return self.names[at], index - self.bases[at]

    def place(self, address: int) -> str:
        """Return ``A+3``, or the address in hexadecimal if no region is near."""
        found = self.find(address)
        return hex(address) if found is None else f"{found[0]}+{found[1]}"


def named(image: MemoryImage, regions: Mapping[str, int]) -> MemoryImage:
    """Return the image with its nameless anonymous VMAs named after their regions.

    They are called ``[anon:A]``, as ``prctl(PR_SET_VMA_ANON_NAME)`` would have it.
    """
    finder = RegionNames(regions)
    vmas = image.vmas
    names = vmas["name"].copy()
    for row in np.flatnonzero(vmas["file"] < 0).tolist():
        if not names[row]:
            found = finder.find(int(vmas["start"][row]))
            names[row] = f"[anon:{found[0]}]" if found else ""
    columns = {column: vmas[column] for column in vmas.column_names} | {"name": names}
    return MemoryImage(image.tables | {"vmas": Table(TABLES["vmas"], columns)})

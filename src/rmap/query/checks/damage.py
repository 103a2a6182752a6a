# SPDX-License-Identifier: GPL-2.0-only
"""What the source itself could not follow: links to no memory, loops, lists that cross."""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.registry import Outcome, check


@check("damage", "every link leads to what it should")
def damage(image: MemoryImage, limit: int) -> Outcome:
    """Report what was met while the image was made."""
    table = image.tables["damage"]
    if str(image.machine["source"][0]) == "proc":
        return Outcome("links", skipped=NO_STRUCTURE)
    found = Collector("damage", "links", len(table), limit)
    link = Subject(
        lambda row: f"{table['object'][row]} {int(table['address'][row]):#x}:",
        lambda row: {
            "object": str(table["object"][row]), "address": int(table["address"][row]),
        },
    )  # fmt: skip
    found.add(link, "link", np.arange(len(table)), lambda row: str(table["what"][row]))
    return found.outcome("link")

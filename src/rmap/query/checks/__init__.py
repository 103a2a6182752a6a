# SPDX-License-Identifier: GPL-2.0-only
"""The checks of ``rmap fsck``, one a module. Importing this package registers them all.

A new check is a module here that decorates its function with
:func:`rmap.query.checks.registry.check`, and a name in the import below.
"""

from __future__ import annotations

from rmap.query.checks import (
    anon_vma,
    chain,
    damage,
    huge,
    i_mmap,
    mapcount,
    merged,
    overlap,
    reach,
    rss,
    space,
    state,
    stray,
    swap,
    tree,
)
from rmap.query.checks.registry import CHECKS, Check, Finding, Mapper, Outcome, Tally, check

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Mapper",
    "Outcome",
    "Tally",
    "anon_vma",
    "chain",
    "check",
    "damage",
    "huge",
    "i_mmap",
    "mapcount",
    "merged",
    "overlap",
    "reach",
    "rss",
    "space",
    "state",
    "stray",
    "swap",
    "tree",
]

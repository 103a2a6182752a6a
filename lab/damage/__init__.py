# SPDX-License-Identifier: GPL-2.0-only
"""A bench of corruption: damage done to copies of a healthy dump, and whether fsck finds it."""

from __future__ import annotations

from lab.damage import of_pages, of_spaces, of_trees
from lab.damage.bench import Trial, try_all, try_kind
from lab.damage.kinds import KINDS, Hurt, Kind
from lab.damage.scene import NotHere, Scene, flip, flips

__all__ = [
    "KINDS",
    "Hurt",
    "Kind",
    "NotHere",
    "Scene",
    "Trial",
    "flip",
    "flips",
    "of_pages",
    "of_spaces",
    "of_trees",
    "try_all",
    "try_kind",
]

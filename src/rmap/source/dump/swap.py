# SPDX-License-Identifier: GPL-2.0-only
"""Swap areas: how often each slot is used (mm/swapfile.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.facts import Facts
from rmap.source.dump.records import U64

if TYPE_CHECKING:
    from drgn import Program

_AREAS = 32
_USED, _WRITEOK = 1, 2
_HAS_CACHE, _CONTINUED, _COUNT = 0x40, 0x80, 0x3F
_BAD, _SHMEM = 0x3F, 0xBF


def read_swap(program: Program, facts: Facts) -> tuple[U64, npt.NDArray[np.int32], list[int]]:
    """Entries in use (type | offset << 5), references to each, and areas that cannot be read."""
    import drgn

    entries: list[U64] = []
    counts: list[npt.NDArray[np.int32]] = []
    lost: list[int] = []
    areas = facts.object("swap_info")
    if areas is None:
        return np.zeros(0, "u8"), np.zeros(0, np.int32), lost
    for kind in range(_AREAS):
        try:
            area = areas[kind]
            if not area.value_() or not int(area.flags.value_()) & _USED:
                continue
            data = program.read(area.swap_map.value_(), int(area.max.value_()))
        except (drgn.FaultError, LookupError, AttributeError, ValueError):
            lost.append(kind)
            continue
        slots = np.frombuffer(data, np.uint8)
        used = np.flatnonzero((slots != 0) & (slots != _BAD))
        entries.append(np.uint64(kind) | used.astype("u8") << np.uint64(5))
        counts.append(_references(slots[used]))
    if not entries:
        return np.zeros(0, "u8"), np.zeros(0, np.int32), lost
    return np.concatenate(entries), np.concatenate(counts), lost


def _references(slots: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """References from page tables: -1 where a count goes on elsewhere, one for shmem."""
    counts = (slots & _COUNT).astype(np.int32)
    counts[slots & _CONTINUED != 0] = -1
    counts[slots & ~np.uint8(_HAS_CACHE) == _SHMEM & ~_HAS_CACHE] = 1
    return counts

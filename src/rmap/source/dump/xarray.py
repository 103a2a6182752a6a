# SPDX-License-Identifier: GPL-2.0-only
"""XArrays of a dump (lib/xarray.c): all entries of one, level by level, and never without end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmap.source.dump.damage import Damage
from rmap.source.dump.records import U64, Layout, read_records

if TYPE_CHECKING:
    from drgn import Program

_INTERNAL = np.uint64(2)
_LEVELS = 12
_SLOTS_SHIFT = np.uint64(6)


def read_xarray(program: Program, head: int, damage: list[Damage]) -> tuple[U64, U64]:
    """The indices of an XArray, and what it has there. `head` is its ``xa_head``."""
    layout = Layout(program, "struct xa_node", {"slots": "slots"}).require("slots")
    entry, index = np.array([head], "u8"), np.zeros(1, "u8")
    found: list[tuple[U64, U64]] = []
    seen: set[int] = set()
    for _ in range(_LEVELS):
        inner = (entry & np.uint64(3) == _INTERNAL) & (entry > np.uint64(4096))
        # Other internal entries stand for their siblings, or for a moment of a change.
        plain = (entry & np.uint64(3) != _INTERNAL) & (entry != 0)
        found.append((index[plain], entry[plain]))
        entry, index = entry[inner] - _INTERNAL, index[inner]
        again = np.array([one in seen for one in entry.tolist()], bool)
        damage += [Damage("xa_node", int(at), "is met twice", "loop") for at in entry[again]]
        entry, index = entry[~again], index[~again]
        seen.update(entry.tolist())
        nodes = read_records(layout, entry)
        damage += [Damage("xa_node", int(at), "is not in the dump") for at in entry[~nodes.present]]
        if not nodes.present.any():
            break
        slots = nodes["slots"][nodes.present]
        base = index[nodes.present]
        row, slot = np.nonzero(slots)
        entry = slots[row, slot]
        # An index is complete once the last level was reached: all leaves lie equally deep.
        index = base[row] << _SLOTS_SHIFT | slot.astype("u8")
    return (
        np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found]),
    )  # fmt: skip

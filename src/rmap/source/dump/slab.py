# SPDX-License-Identifier: GPL-2.0-only
"""Do objects lie where objects of their kind lie: in slab, and of the same cache (mm/slub.c)?

A pointer that was overwritten leads to memory of something else more often than to none. All
objects of one kind come from one cache; the struct page of the slab names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmap.image.flags import Kpf
from rmap.source.dump.damage import Damage
from rmap.source.dump.pages import Pages
from rmap.source.dump.records import U64, Bools, member_offset

if TYPE_CHECKING:
    from drgn import Program

#: Objects of a kind from which on most of them are taken to be right.
_FEW = 3


class Slabs:
    """Which cache an address belongs to.

    Parameters
    ----------
    program, pages
        The dump, and its pages.
    """

    def __init__(self, program: Program, pages: Pages) -> None:
        self.pages = pages
        offset = member_offset(program, "struct slab", "slab_cache")
        if offset is None:
            offset = member_offset(program, "struct page", "slab_cache")
        self.offset = offset
        self.base = _direct_map(program)

    def caches(self, addresses: U64) -> tuple[U64, Bools]:
        """The address of each one's cache (0 outside of slab), and whether its page is known."""
        memory = self.pages.map
        row = memory.row_of((addresses - np.uint64(self.base)) >> np.uint64(12))
        known = row >= 0
        if self.offset is None or not len(memory):
            return np.zeros(len(addresses), "u8"), np.zeros(len(addresses), bool)
        head = self.pages.head[row]
        column = np.dtype(
            {"names": ["at"], "formats": ["<u8"], "offsets": [self.offset],
             "itemsize": memory.values.dtype.itemsize}
        )  # fmt: skip
        named = np.ascontiguousarray(memory.values).view(column)["at"][head]
        slab = self.pages.kpf[row] & np.uint64(Kpf.SLAB) != 0
        return np.where(known & slab, named, np.uint64(0)), known

    def strays(self, kind: str, addresses: U64) -> list[Damage]:
        """Objects that are not in slab, or not of the cache that most of them are of."""
        if self.offset is None or len(addresses) < _FEW:
            return []
        caches, known = self.caches(addresses)
        values, counts = np.unique(caches[known], return_counts=True)
        if not len(values) or values[counts.argmax()] == 0:
            return []
        usual = values[counts.argmax()]
        wrong = known & (caches != usual)
        return [
            Damage(kind, int(at), "lies where there are no such objects", "slab",
                   expected=int(usual), found=int(cache))
            for at, cache in zip(addresses[wrong], caches[wrong], strict=True)
        ]  # fmt: skip


def _direct_map(program: Program) -> int:
    """Where the kernel has all memory in a row."""
    return int(program["page_offset_base"].value_())

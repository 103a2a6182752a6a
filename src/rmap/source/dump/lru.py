# SPDX-License-Identifier: GPL-2.0-only
"""LRU lists, looked at from their pages: does each link lead to one that leads back?

No list is walked, so none can be endless; all pages are looked at in one go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmap.image.flags import Kpf
from rmap.source.dump.damage import Damage
from rmap.source.dump.pages import Pages
from rmap.source.dump.records import U64, Bools, is_kernel_address, member_offset, read_word

if TYPE_CHECKING:
    from drgn import Program


def lru_damage(program: Program, pages: Pages) -> list[Damage]:
    """Look at all pages that are on a list."""
    memory = pages.map
    offset = member_offset(program, "struct page", "lru")
    if offset is None or not len(memory):
        return []
    on = pages.kpf & np.uint64(Kpf.LRU) != 0
    on &= pages.head == np.arange(len(memory))
    if _counts_mlocks(program):
        # Pages that cannot be evicted are on no list: the kernel counts there how often each is
        # locked (since 5.18).
        on &= pages.kpf & np.uint64(Kpf.UNEVICTABLE) == 0
    links = np.dtype(
        {"names": ["next", "prev"], "formats": ["<u8", "<u8"], "offsets": [offset, offset + 8],
         "itemsize": memory.values.dtype.itemsize}
    )  # fmt: skip
    link = np.ascontiguousarray(memory.values).view(links)
    here = np.uint64(memory.base + offset) + memory.pfn * np.uint64(memory.size)
    damage: list[Damage] = []
    for forth, back in (("next", "prev"), ("prev", "next")):
        row, known = _rows(pages, link[forth], offset)
        said = np.where(known, link[back][row], np.uint64(0))
        for at in np.flatnonzero(on & ~known).tolist():
            said[at] = _head(
                program, int(link[forth][at]) + (8 if forth == "next" else 0), int(here[at])
            )
        damage += [
            Damage("page", int(here[at]) - offset,
                   f"(frame {int(memory.pfn[at]):#x}) its lru.{forth} leads to what does not lead "
                   "back to it", "back link", int(here[at]), int(said[at]))
            for at in np.flatnonzero(on & (said != here)).tolist()
        ]  # fmt: skip
    return damage


def _counts_mlocks(program: Program) -> bool:
    return any(
        member_offset(program, kind, "mlock_count") is not None
        for kind in ("struct folio", "struct page")
    )


def _rows(pages: Pages, links: U64, offset: int) -> tuple[U64, Bools]:
    """The rows of the pages that links lead to, and which lead to a page at all."""
    memory = pages.map
    start = links - np.uint64(memory.base + offset)
    row = memory.row_of(start // np.uint64(memory.size))
    known = (row >= 0) & (start % np.uint64(memory.size) == 0)
    return np.where(known, row, 0), known


def _head(program: Program, address: int, missing: int) -> int:
    """What the head of a list says: `missing` if it is not in the dump, 0 if it cannot be one."""
    if not is_kernel_address(address):
        return 0
    word = read_word(program, address)
    return missing if word is None else word

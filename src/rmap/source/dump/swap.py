# SPDX-License-Identifier: GPL-2.0-only
"""Swap areas: how often each slot is used (mm/swapfile.c), and the slots that files hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rmap.source.dump.damage import Damage
from rmap.source.dump.facts import Facts
from rmap.source.dump.records import U64, Bools, Layout, member_offset, read_records, read_word
from rmap.source.dump.xarray import read_xarray

if TYPE_CHECKING:
    from drgn import Program

I32 = npt.NDArray[np.int32]
_AREAS = 32
_USED, _WRITEOK = 1, 2
_HAS_CACHE, _CONTINUED, _COUNT = 0x40, 0x80, 0x3F
_BAD, _SHMEM = 0x3F, 0xBF
#: The longest swap area that is read: what says more is garbage.
_LARGEST = 1 << 32
_PIECE = 1 << 24
#: Where a swap entry that is no entry of a page table has its type.
_TYPE_SHIFT = np.uint64(58)
_OFFSET_MASK = np.uint64((1 << 58) - 1)


@dataclass(frozen=True, slots=True)
class Swap:
    """Slots in use, ascending by entry (``type | offset << 5``).

    `count` are references from page tables (-1 where the count goes on elsewhere), `shmem` those of
    files, `cached` says that the swap cache has a page. `held` are entries that files were found to
    hold, ``None`` if that cannot be read.
    """

    entry: U64
    count: I32
    shmem: I32
    cached: Bools
    held: U64 | None


def entry_of(value: U64) -> U64:
    """Swap entries as ``page->private`` and XArrays have them, as the tables have them."""
    return np.asarray(value >> _TYPE_SHIFT | (value & _OFFSET_MASK) << np.uint64(5))


def read_swap(program: Program, facts: Facts, damage: list[Damage]) -> Swap:
    """Read the maps of all areas."""
    entries: list[U64] = [np.zeros(0, "u8")]
    maps: list[npt.NDArray[np.uint8]] = [np.zeros(0, "u1")]
    areas = facts.object("swap_info")
    for kind in range(_count(facts) if areas is not None else 0):
        slots = _slots(program, areas, kind, damage)
        used = np.flatnonzero((slots != 0) & (slots != _BAD))
        entries.append(np.uint64(kind) | used.astype("u8") << np.uint64(5))
        maps.append(slots[used])
    entry, slot = np.concatenate(entries), np.concatenate(maps)
    order = np.argsort(entry)
    entry, slot = entry[order], slot[order]
    shared = slot & ~np.uint8(_HAS_CACHE) == _SHMEM
    count = (slot & _COUNT).astype(np.int32)
    count[slot & _CONTINUED != 0] = -1
    count[shared] = 0
    cached = slot & _HAS_CACHE != 0
    return Swap(entry, count, shared.astype(np.int32), cached, _held(program, facts, damage))


def _count(facts: Facts) -> int:
    """How many areas there have been: the array has room for fewer than types are numbered."""
    import drgn

    try:
        number = facts.object("nr_swapfiles")
        return 0 if number is None else min(int(number.value_()), _AREAS)
    except drgn.FaultError:
        return 0


def _slots(program: Program, areas: object, kind: int, damage: list[Damage]
           ) -> npt.NDArray[np.uint8]:  # fmt: skip
    """The map of one area, empty if it is not in use."""
    import drgn

    none = np.zeros(0, "u1")
    try:
        area = areas[kind]  # type: ignore[index] # an array of drgn
        if not area.value_() or not int(area.flags.value_()) & _USED:
            return none
        start, length = int(area.swap_map.value_()), int(area.max.value_())
    except (drgn.FaultError, LookupError, AttributeError, ValueError, OverflowError):
        damage.append(Damage("swap area", kind, "is not in the dump"))
        return none
    if length > _LARGEST:
        damage.append(Damage("swap area", kind, "is longer than one can be", "length"))
        return none
    pieces = []
    for first in range(0, length, _PIECE):
        try:
            pieces.append(program.read(start + first, min(_PIECE, length - first)))
        except (drgn.FaultError, ValueError, OverflowError):
            damage.append(Damage("swap area", kind, "its map is not in the dump"))
            break
    return np.frombuffer(b"".join(pieces), np.uint8)


def _held(program: Program, facts: Facts, damage: list[Damage]) -> U64 | None:
    """The slots that files of shared memory hold: those in the list of files with any."""
    info = "struct shmem_inode_info"
    link = member_offset(program, info, "swaplist")
    head = member_offset(program, info, "vfs_inode.i_data.i_pages.xa_head")
    listed = facts.object("shmem_swaplist")
    if link is None or head is None or listed is None:
        return None
    layout = Layout(program, info, {"next": "swaplist.next",
                                    "head": "vfs_inode.i_data.i_pages.xa_head"})  # fmt: skip
    end = int(listed.address_)
    found = [np.zeros(0, "u8")]
    seen = {end}
    at = read_word(program, end)
    if at is None:
        return None
    while at not in seen:
        seen.add(at)
        record = read_records(layout, [at - link])
        if not record.present[0]:
            damage.append(Damage("shmem_inode_info", at - link, "is not in the dump"))
            return None
        _, values = read_xarray(program, int(record["head"][0]), damage)
        found.append(entry_of(values[values & np.uint64(1) != 0] >> np.uint64(1)))
        at = int(record["next"][0])
    if at != end:
        damage.append(Damage("shmem_inode_info", at - link, "is met twice in its list", "loop"))
    return np.concatenate(found)

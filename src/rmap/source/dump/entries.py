# SPDX-License-Identifier: GPL-2.0-only
"""What page-table entries of x86-64 mean, as the columns of the ``ptes`` table.

arch/x86/include/asm/pgtable.h and pgtable_64.h. Since the L1TF change (4.19) what an entry without
the present bit holds is stored inverted. Which types of swap entries are none is as in
`rmap.source.proc.swaptypes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Pte
from rmap.source.dump import pagetables as bits
from rmap.source.dump.records import U64

U32 = npt.NDArray[np.uint32]
_PFN_SHIFT = np.uint64(12)
_SWAP_TYPE_SHIFT = np.uint64(59)
_SWAP_OFFSET_SHIFT = np.uint64(9)
_SWAP_OFFSET_MASK = np.uint64((1 << 50) - 1)
#: Bits of a swap entry's offset that hold a frame number, where it does; above it are others.
_ENTRY_PFN_MASK = np.uint64((1 << 40) - 1)
_FRAMES = np.uint32(Pte.MIGRATION | Pte.DEVICE | Pte.HWPOISON)
_HARDWARE: tuple[tuple[int, Pte], ...] = (
    (bits.RW, Pte.WRITE), (bits.ACCESSED, Pte.YOUNG), (bits.DIRTY, Pte.DIRTY),
    (bits.SOFT_DIRTY, Pte.SOFT_DIRTY), (bits.SPECIAL, Pte.SPECIAL),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decoded:
    """For each entry what it maps or holds (``ptes.pfn``) and its ``ptes.flags``."""

    pfn: U64
    flags: U32


def decode(value: U64, order: npt.NDArray[np.uint8], types: U32) -> Decoded:
    """Decode entries.

    Parameters
    ----------
    value, order
        Entries, and log2 of the pages that each maps.
    types
        For each of the 32 types of swap entries the flag that it means, 0 a marker.
    """
    hardware = value & np.uint64(bits.PRESENT) != 0
    prot_none = ~hardware & (value & np.uint64(bits.PROTNONE) != 0)
    # Between the two steps of a change a huge entry may have neither.
    prot_none |= ~hardware & (order > 0) & (value & np.uint64(bits.PSE) != 0)
    present = hardware | prot_none
    plain = np.where(prot_none, ~value, value)
    pfn = (plain & np.uint64(bits.PFN_MASK)) >> _PFN_SHIFT
    huge = order.astype("u8")
    pfn = np.where(order > 0, pfn >> huge << huge, pfn)
    flags = np.where(present, np.uint32(Pte.PRESENT), np.uint32(0))
    flags[prot_none] |= np.uint32(Pte.PROT_NONE)
    for bit, meaning in _HARDWARE:
        flags[present & (value & np.uint64(bit) != 0)] |= np.uint32(meaning)
    absent = ~present
    kind = (value >> _SWAP_TYPE_SHIFT)[absent]
    offset = (~value >> _SWAP_OFFSET_SHIFT & _SWAP_OFFSET_MASK)[absent]
    meaning = types[kind.astype(np.int64)]
    frames = meaning & _FRAMES != 0
    pfn[absent] = np.where(frames, offset & _ENTRY_PFN_MASK, kind | offset << np.uint64(5))
    flags[absent] |= np.where(meaning == 0, np.uint32(Pte.GUARD), meaning)
    return Decoded(pfn, flags)

# SPDX-License-Identifier: GPL-2.0-only
"""The page-table entries of one address space, as the words of ``/proc/PID/pagemap`` have them.

A word of 64 bits stands for one page (``Documentation/admin-guide/mm/pagemap.rst``)::

    63 present   62 swapped   61 file page or shared memory   58 guard region   57 uffd-wp
    56 mapped exactly once   55 soft-dirty   54-0 page frame number, or swap type | offset << 5

A word does not tell whether a PTE or a PMD maps the page. Entries here have an order: a block of
pages that one PMD maps is one entry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from rmap.image.flags import Pte
from rmap.source.proc.kernelconfig import kernel_config
from rmap.source.proc.swaptypes import TYPE_BITS, flags_of_types

U64 = npt.NDArray[np.uint64]

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
PAGE_SHIFT = PAGE_SIZE.bit_length() - 1
#: A table holds a page of 8-byte entries, so each level adds this many bits (x86-64: 9).
PMD_ORDER = PAGE_SHIFT - 3
PUD_ORDER = 2 * PMD_ORDER
PMD_PAGES = 1 << PMD_ORDER

PM_PRESENT = np.uint64(1 << 63)
PM_SWAP = np.uint64(1 << 62)
PM_GUARD = np.uint64(1 << 58)
PM_EXCLUSIVE = np.uint64(1 << 56)
PM_FRAME = np.uint64((1 << 55) - 1)
#: A word with none of these says nothing (holes may have soft-dirty).
PM_ANY = PM_PRESENT | PM_SWAP | PM_GUARD
#: So many blocks are looked at together that their words stay in the processor's cache.
_BLOCKS_AT_ONCE = 64
_FLAGS_SHIFT = np.uint64(55)
_TYPE_MASK = np.uint64((1 << TYPE_BITS) - 1)


def _flags_of_top() -> npt.NDArray[np.uint32]:
    """Pte bits for each value of the 9 bits above the frame number."""
    bits = (
        (63, Pte.PRESENT),
        (61, Pte.FILE),
        (58, Pte.GUARD),
        (57, Pte.UFFD_WP),
        (56, Pte.EXCLUSIVE),
        (55, Pte.SOFT_DIRTY),
    )
    values = np.arange(1 << 9)
    table = np.zeros(1 << 9, np.uint32)
    for bit, flag in bits:
        table[values >> (bit - 55) & 1 == 1] |= np.uint32(flag)
    return table


_FLAGS_OF_TOP = _flags_of_top()


@cache
def _flags_of_type() -> npt.NDArray[np.uint32]:
    return flags_of_types(os.uname().release, kernel_config())


@dataclass(slots=True)
class Entries:
    """Entries by ascending address.

    ``addresses`` are those of their first pages, ``words`` the pagemap words of these, ``orders``
    0, or ``PMD_ORDER`` where one PMD maps the block.
    """

    addresses: U64
    words: U64
    orders: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.addresses)

    def take(self, rows: npt.NDArray[np.generic]) -> Entries:
        """Return the entries of an index array or a mask."""
        return Entries(self.addresses[rows], self.words[rows], self.orders[rows])


def no_entries() -> Entries:
    """The entries of an empty address space."""
    return Entries(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8))


def decode(words: U64) -> tuple[U64, npt.NDArray[np.uint32]]:
    """Return (frames, Pte flags) of pagemap words.

    The frame of a swapped page is its swap entry, type | offset << 5; that of a page under
    migration, poisoned or in device memory is the page's; a marker has 0.

    >>> frames, flags = decode(np.array([1 << 63 | 7, 1 << 62 | 3 << 5 | 2], np.uint64))
    >>> frames.tolist(), [Pte(int(f)).name for f in flags]
    ([7, 98], ['PRESENT', 'SWAP'])
    """
    frames = words & PM_FRAME
    flags = _FLAGS_OF_TOP[(words >> _FLAGS_SHIFT).astype(np.intp)]
    absent = np.flatnonzero(words & PM_PRESENT == 0)
    if len(absent):
        swap = words[absent] & PM_SWAP != 0
        meaning = _flags_of_type()[(frames[absent] & _TYPE_MASK).astype(np.intp)]
        meaning[~swap] = 0
        flags[absent] |= meaning
        of_page = absent[(meaning & np.uint32(Pte.SWAP)) == 0]
        frames[of_page] >>= np.uint64(TYPE_BITS)
        frames[absent[meaning == 0]] = 0
    return frames, flags


def frames_of(entries: Entries) -> U64:
    """Return the frames of all present entries, every page of a huge one, in no order."""
    present = entries.words >= PM_PRESENT
    every = bool(present.all())
    frames = (entries.words if every else entries.words[present]) & PM_FRAME
    huge = (entries.orders if every else entries.orders[present]) > 0
    if not huge.any():
        return frames
    blocks = frames[huge][:, None] + np.arange(PMD_PAGES, dtype=np.uint64)
    return np.concatenate((frames[~huge], blocks.ravel()))


def fold_candidates(addresses: U64, words: U64) -> npt.NDArray[np.intp]:
    """Return where a block of entries begins that one PMD could hold.

    That is: an aligned address and an aligned frame, and ``PMD_PAGES`` present ones in sequence.
    """
    last = PMD_PAGES - 1
    heads = np.flatnonzero(addresses & np.uint64((PMD_PAGES << PAGE_SHIFT) - 1) == 0)
    heads = heads[heads < len(addresses) - last]
    # The cheap questions first: few blocks pass them, and only those are looked through.
    heads = heads[addresses[heads + last] - addresses[heads] == np.uint64(last << PAGE_SHIFT)]
    wanted = words[heads] & (PM_PRESENT | PM_FRAME)
    heads = heads[(wanted >= PM_PRESENT) & (wanted & np.uint64(last) == 0)]
    good = [_in_sequence(block) for block in _blocks(words, heads)]
    return heads[np.concatenate(good)] if good else heads


def _blocks(words: U64, heads: npt.NDArray[np.intp]) -> Iterator[U64]:
    """Yield the words of many blocks at a time, one block a row."""
    pages = np.arange(PMD_PAGES)
    for first in range(0, len(heads), _BLOCKS_AT_ONCE):
        yield words[heads[first : first + _BLOCKS_AT_ONCE, None] + pages]


def _in_sequence(blocks: U64) -> npt.NDArray[np.bool_]:
    frames = blocks & (PM_PRESENT | PM_FRAME)
    steps = np.arange(PMD_PAGES, dtype=np.uint64)
    return np.asarray((frames - frames[:, :1] == steps).all(axis=1))


def fold(entries: Entries, heads: npt.NDArray[np.intp]) -> Entries:
    """Make the block at each of ``heads`` one entry of ``PMD_ORDER``.

    It is mapped exactly once if each of its pages is.
    """
    if not len(heads):
        return entries
    words, orders = entries.words.copy(), entries.orders.copy()
    common = [np.bitwise_and.reduce(block, axis=1) for block in _blocks(words, heads)]
    words[heads] &= np.concatenate(common) | ~PM_EXCLUSIVE
    orders[heads] = PMD_ORDER
    change = np.zeros(len(words) + 1, np.int8)  # summed up, 1 in the rest of each block
    change[heads + 1] += 1
    change[heads + PMD_PAGES] -= 1
    keep = np.cumsum(change[:-1], dtype=np.int8) == 0
    return Entries(entries.addresses[keep], words[keep], orders[keep])

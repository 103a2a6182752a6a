# SPDX-License-Identifier: GPL-2.0-only
"""Mapped pages and the entries that map them, ready for sums over a whole machine.

Two lengths occur: that of the page-table entries (27 million on a large machine) and that of the
distinct pages they map. A huge entry is one element among the entries; only pages are spread
out, and there are never more of those than there is RAM. So nothing grows with the *product*
of pages and mappings, as it would if every huge entry were expanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]


class Counter(IntEnum):
    """The counter of its address space that a page is charged to.

    ``mm_counter()`` (``include/linux/mm.h``): anonymous, of a file, or shared memory, which is
    backed by swap though it belongs to a file. hugetlb pages are in none of these; the kernel
    counts them apart (``hugetlb_usage``).
    """

    ANON = 0
    FILE = 1
    SHMEM = 2
    HUGETLB = 3


def page_counters(flags: U64) -> U8:
    """Return the :class:`Counter` of each page from its KPF flags.

    >>> [Counter(c).name for c in page_counters(np.array([0x5000, 0x800, 0x4000], np.uint64))]
    ['ANON', 'FILE', 'SHMEM']
    """
    counter = np.full(len(flags), Counter.FILE, np.uint8)
    counter[(flags & np.uint64(Kpf.SWAPBACKED)) != 0] = Counter.SHMEM
    counter[(flags & np.uint64(Kpf.ANON)) != 0] = Counter.ANON
    counter[(flags & np.uint64(Kpf.HUGE)) != 0] = Counter.HUGETLB
    return counter


def entry_counters(flags: npt.NDArray[np.uint32]) -> U8:
    """Return the :class:`Counter` that a page-table entry suggests where its page is unknown.

    An entry does not tell a file from shared memory: both count as file.
    """
    counter = np.where(flags & np.uint32(Pte.FILE), Counter.FILE, Counter.ANON).astype(np.uint8)
    counter[(flags & np.uint32(Pte.HUGETLB)) != 0] = Counter.HUGETLB
    return counter


@dataclass(frozen=True, slots=True)
class Level:
    """The entries of one order, by the block of ``2**order`` pages that they map."""

    order: int
    first: I64  #: position in ``MappedPages.pfns`` of each block's first page
    offsets: I64  #: entries of block *i* are ``offsets[i]`` to ``offsets[i + 1]``
    mms: I32  #: address space of each entry

    @property
    def counts(self) -> I64:
        """Number of entries of each block."""
        return np.diff(self.offsets)

    @property
    def pages(self) -> I64:
        """Positions of the pages of all blocks, one block after another."""
        if not self.order:
            return self.first
        return (self.first[:, None] + np.arange(1 << self.order)).ravel()

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Repeat each block's value for each of its pages, in the order of :attr:`pages`."""
        return np.repeat(values, 1 << self.order) if self.order else values

    def sum_pages(self, values: npt.NDArray[Any]) -> I64:
        """Add up a value of every mapped page over the pages of each block."""
        chosen = values[self.pages]
        return chosen.reshape(-1, 1 << self.order).sum(axis=1, dtype=np.int64)


class MappedPages:
    """Every page that some entry maps, and how often: found here, and counted by the kernel.

    Only mappings that the kernel counts: no zero page, no PFN maps. All arrays run over
    :attr:`pfns`, ascending.
    """

    def __init__(self, image: MemoryImage) -> None:
        self.image = image
        self.pfns: U64 = image.reverse.mapped_pfns()
        self.rows: I64 = image.find_pages(self.pfns)
        mms = image.ptes["mm"]
        self.levels = [
            Level(order, np.searchsorted(self.pfns, blocks).astype(np.int64), offsets, mms[rows])
            for order, blocks, offsets, rows in image.reverse.grouped()
        ]

    @cached_property
    def found(self) -> I32:
        """Mappings found."""
        found = np.zeros(len(self.pfns), np.int32)
        for level in self.levels:
            found[level.pages] += level.spread(level.counts.astype(np.int32))
        return found

    @cached_property
    def counted(self) -> I32:
        """Mappings that the kernel counts, -1 unknown."""
        if not len(self.image.pages):
            return np.full(len(self.pfns), -1, np.int32)
        return np.where(self.rows >= 0, self.image.pages["mapcount"][self.rows], np.int32(-1))

    @cached_property
    def mapcount(self) -> I32:
        """The kernel's count, and where it is unknown the number found: a lower bound."""
        return np.where(self.counted >= 0, self.counted, self.found)

    @cached_property
    def counters(self) -> U8:
        """The :class:`Counter` of each page."""
        counter = np.empty(len(self.pfns), np.uint8)
        known = self.rows >= 0
        counter[known] = page_counters(self.image.pages["flags"][self.rows[known]])
        if not known.all():
            mappings = self.image.reverse.mappings(self.pfns[~known])
            first = mappings.rows[mappings.offsets[:-1]]
            counter[~known] = entry_counters(self.image.ptes["flags"][first])
        return counter

    def owners(self, owner: I32) -> I32:
        """Return for each page the group that all found mappings are in, -1 if there is none.

        Parameters
        ----------
        owner
            For each mm the group that it belongs to alone, negative if there is none.
        """
        low = np.full(len(self.pfns), np.iinfo(np.int32).max, np.int32)
        high = np.full(len(self.pfns), -1, np.int32)
        for level in self.levels:
            owners, starts, pages = owner[level.mms], level.offsets[:-1], level.pages
            low[pages] = np.minimum(low[pages], level.spread(np.minimum.reduceat(owners, starts)))
            high[pages] = np.maximum(high[pages], level.spread(np.maximum.reduceat(owners, starts)))
        return np.where((low == high) & (low >= 0), low, -1).astype(np.int32)

    def masks(self, bits: U64) -> U64:
        """Return for each page the union of the ``bits`` of the address spaces that map it."""
        masks = np.zeros(len(self.pfns), np.uint64)
        for level in self.levels:
            masks[level.pages] |= level.spread(
                np.bitwise_or.reduceat(bits[level.mms], level.offsets[:-1])
            )
        return masks

# SPDX-License-Identifier: GPL-2.0-only
"""RSS, PSS, USS, GUSS and swap of groups, summed up in whole numbers.

`rmap.query.report` says what the sizes mean. Sums run first over the entries of each address
space, then over the address spaces of each group; everything stays an integer, in the kernel's
fixed point until the end, so the order of summation does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Pte
from rmap.query.groups import Grouping
from rmap.query.usage import Counter, MappedPages, entry_counters, page_counters

I64 = npt.NDArray[np.int64]

#: Fraction bits of the kernel's PSS (``fs/proc/task_mmu.c``).
PSS_SHIFT = 12
#: Entries that hold a page without mapping it: smaps counts them as resident and shared.
HELD = Pte.MIGRATION | Pte.DEVICE | Pte.HWPOISON


@dataclass(frozen=True, slots=True)
class Split:
    """A size by kind of page, in bytes. ``hugetlb`` stands apart: it is not in ``total``."""

    anon: int
    file: int
    shmem: int
    hugetlb: int
    total: int


@dataclass(frozen=True, slots=True)
class GroupSums:
    """Sizes of every group, in the order of the grouping, in bytes."""

    rss: list[Split]
    pss: list[Split]
    uss: list[Split]
    guss: list[Split]
    swap: I64
    swap_pss: I64
    estimated: I64


@dataclass(frozen=True, slots=True)
class MmSums:
    """Sizes of every address space: ``[mm, Counter]``, or ``[mm]``.

    ``rss``, ``uss``, ``swap`` and ``estimated`` in bytes, ``pss`` and ``swap_pss`` in bytes times
    ``2**PSS_SHIFT``.
    """

    rss: I64
    pss: I64
    uss: I64
    estimated: I64
    swap: I64
    swap_pss: I64


def mm_sums(pages: MappedPages, *, held: Pte = HELD) -> MmSums:
    """Add up the entries of every address space; ``held`` entries count without a mapping."""
    mms = len(pages.image.mms)
    sums = MmSums(
        *(np.zeros((mms, len(Counter)), np.int64) for _ in range(3)),
        *(np.zeros(mms, np.int64) for _ in range(3)),
    )
    _add_mapped(sums, pages)
    _add_held(sums, pages.image, held)
    _add_swapped(sums, pages.image)
    return sums


def proportional(size: int, shares: npt.NDArray[np.signedinteger]) -> I64:
    """Return ``floor((size << 12) / shares)`` for each of ``shares``; below 2, the whole.

    >>> proportional(4096, np.array([0, 1, 3])).tolist()
    [16777216, 16777216, 5592405]
    """
    return (size << PSS_SHIFT) // np.maximum(shares, 1).astype(np.int64)


def _add_mapped(sums: MmSums, pages: MappedPages) -> None:
    size = pages.image.page_size
    share = proportional(size, pages.mapcount)
    alone, unknown = pages.mapcount < 2, pages.counted < 0
    for level in pages.levels:
        # What one entry of each block adds; a block is of one folio, so its first page tells.
        kind = pages.counters[level.first].astype(np.int64)
        repeats = level.counts
        at = np.repeat(kind, repeats) + level.mms.astype(np.int64) * len(Counter)
        np.add.at(sums.rss.reshape(-1), at, np.int64(size << level.order))
        for target, values in ((sums.pss, share), (sums.uss, alone)):
            np.add.at(target.reshape(-1), at, np.repeat(level.sum_pages(values), repeats))
        if unknown.any():
            np.add.at(sums.estimated, level.mms, np.repeat(level.sum_pages(unknown), repeats))
    for pages_to_bytes in (sums.uss, sums.estimated):
        np.multiply(pages_to_bytes, size, out=pages_to_bytes)


def _add_held(sums: MmSums, image: MemoryImage, held: Pte) -> None:
    """Add migration and poison entries: whole, as the kernel cannot tell who else has them."""
    ptes = image.ptes
    flags = ptes["flags"]
    rows = np.flatnonzero(
        ((flags & np.uint32(held)) != 0) & ((flags & np.uint32(Pte.PRESENT)) == 0)
    )
    if not len(rows):
        return
    kind = entry_counters(flags[rows])
    page = image.find_pages(ptes["pfn"][rows])
    # Only a migration entry is sure to hold a pfn.
    known = (page >= 0) & ((flags[rows] & np.uint32(Pte.MIGRATION)) != 0)
    kind[known] = page_counters(image.pages["flags"][page[known]])
    at = (ptes["mm"][rows], kind)
    bytes_held = np.left_shift(np.int64(image.page_size), ptes["order"][rows].astype(np.int64))
    np.add.at(sums.rss, at, bytes_held)
    np.add.at(sums.pss, at, bytes_held << PSS_SHIFT)


def _add_swapped(sums: MmSums, image: MemoryImage) -> None:
    slots = image.tables["swap_slots"]
    for order, entries, offsets, rows in image.reverse_swap.grouped():
        repeats = np.diff(offsets)
        references = repeats
        if len(slots):
            place = np.minimum(np.searchsorted(slots["entry"], entries), len(slots) - 1)
            listed = slots["entry"][place] == entries
            references = np.where(listed, slots["count"][place], repeats)
        size = image.page_size << order
        mm = image.ptes["mm"][rows]
        np.add.at(sums.swap, mm, np.int64(size))
        np.add.at(sums.swap_pss, mm, np.repeat(proportional(size, references), repeats))


def group_sums(pages: MappedPages, by_mm: MmSums, grouping: Grouping) -> GroupSums:
    """Add up the address spaces of every group, and the pages that only the group maps."""

    def by_group(values: I64) -> I64:
        out = np.zeros((len(grouping), *values.shape[1:]), np.int64)
        np.add.at(out, grouping.member_groups, values[grouping.member_mms])
        return out

    return GroupSums(
        rss=_splits(by_group(by_mm.rss)),
        pss=_splits(by_group(by_mm.pss), PSS_SHIFT),
        uss=_splits(by_group(by_mm.uss)),
        guss=_splits(_unique(pages, grouping)),
        swap=by_group(by_mm.swap),
        swap_pss=by_group(by_mm.swap_pss) >> PSS_SHIFT,
        estimated=by_group(by_mm.estimated),
    )


def _unique(pages: MappedPages, grouping: Grouping) -> I64:
    """Bytes of pages that only one group maps: ``[group, Counter]``."""
    owner = pages.owners(grouping.owner)
    mine = np.flatnonzero((owner >= 0) & (pages.found >= pages.mapcount))
    unique = np.zeros((len(grouping), len(Counter)), np.int64)
    np.add.at(unique, (owner[mine], pages.counters[mine]), np.int64(pages.image.page_size))
    return unique


def _splits(sums: I64, shift: int = 0) -> list[Split]:
    """Make a :class:`Split` of each row, rounding each number for itself."""
    totals = sums[:, : Counter.HUGETLB].sum(axis=1, keepdims=True)
    rounded = np.concatenate((sums, totals), axis=1) >> shift
    return [
        Split(anon, file, shmem, hugetlb, total)
        for anon, file, shmem, hugetlb, total in rounded.tolist()
    ]

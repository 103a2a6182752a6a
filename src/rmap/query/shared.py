# SPDX-License-Identifier: GPL-2.0-only
"""The matrix of memory shared between groups: bytes of distinct pages that both map.

Every address space gets a set of bits, one for each named group that uses it and one for all
other processes; a page's bits are the union over its mappings. Few different unions occur,
so the matrix is a sum over those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.errors import QueryError
from rmap.query.groups import Grouping
from rmap.query.usage import MappedPages

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: One bit of 64 stands for all other processes.
MAX_NAMED = 63


@dataclass(frozen=True, slots=True)
class SharedMatrix:
    """``size[i, j]``: bytes of distinct pages (hugetlb included) that groups i and j both map.

    The diagonal is what a group maps at all, each page once. The matrix is symmetric. If
    ``others`` is true, a last row and column stand for all processes that were read and
    are in none of the groups named in ``keys``, taken as one group.
    """

    keys: tuple[str, ...]
    others: bool
    size: I64


def shared_matrix(
    pages: MappedPages, grouping: Grouping, order: Sequence[int], top: int
) -> SharedMatrix:
    """Compute the matrix for the first ``top`` groups of ``order``.

    Raises
    ------
    QueryError
        If ``top`` is not between 1 and 63.
    """
    if not 1 <= top <= MAX_NAMED:
        raise QueryError(f"cannot name {top} groups in the matrix; use a number from 1 to 63")
    named = list(order[:top])
    bits, others = _bits(pages, grouping, named)
    size = _count_pairs(pages.masks(bits), len(named) + others) * pages.image.page_size
    return SharedMatrix(tuple(grouping.keys[g] for g in named), others, size)


def _bits(pages: MappedPages, grouping: Grouping, named: list[int]) -> tuple[U64, bool]:
    """The bits of each address space, and whether there are processes in no named group."""
    place = np.full(len(grouping), len(named), np.int64)
    place[named] = np.arange(len(named))
    bits = np.zeros(len(pages.image.mms), np.uint64)
    member = np.left_shift(np.uint64(1), place[grouping.member_groups].astype(np.uint64))
    np.bitwise_or.at(bits, grouping.member_mms, member)
    inside = {row for group in grouping.rows for row in group}
    users = pages.image.processes["mm"]
    outside = [row for row in np.flatnonzero(users >= 0).tolist() if row not in inside]
    bits[users[outside]] |= np.uint64(1 << len(named))
    return bits, bool(outside) or len(named) < len(grouping)


def _count_pairs(masks: U64, width: int) -> I64:
    """For each pair of bits, the number of masks that have both."""
    pairs = np.zeros((width, width), np.int64)
    several = masks & (masks - np.uint64(1)) != 0
    for bit in range(width):
        pairs[bit, bit] = np.count_nonzero(masks == np.uint64(1 << bit))
    unions, counts = np.unique(masks[several], return_counts=True)
    shifts = np.arange(width, dtype=np.uint64)
    for start in range(0, len(unions), 1 << 16):
        chunk = slice(start, start + (1 << 16))
        has = (unions[chunk, None] >> shifts & np.uint64(1)).astype(np.float64)
        # Counts of pages stay far below 2**53, so floating point is exact, and has BLAS.
        pairs += (has.T @ (has * counts[chunk, None])).astype(np.int64)
    return pairs

# SPDX-License-Identifier: GPL-2.0-only
"""Small numpy idioms that more than one module needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

#: Up to this many times as many slots as values, an array over their span is used.
_DENSE = 32


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct values, ascending.

    Frame numbers are dense, so marking them in an array of their span is fastest; values that are
    not are sorted (``np.unique`` hashes them, which takes ten times as long).

    >>> distinct(np.array([3, 1, 3], np.uint64)).tolist()
    [1, 3]
    """
    if len(values) < 2:
        return values.copy()
    lowest = values.min()
    span = int(values.max()) - int(lowest) + 1
    if span <= _DENSE * len(values):
        marks = np.zeros(span, np.bool_)
        marks[(values - lowest).astype(np.int64, copy=False)] = True
        return np.flatnonzero(marks).astype(values.dtype) + lowest
    ordered = np.sort(values)
    keep = np.empty(len(ordered), np.bool_)
    keep[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=keep[1:])
    return ordered if keep.all() else ordered[keep]


def positions(sorted_values: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> I64:
    """Return where each of ``wanted`` stands in an ascending array, -1 where it does not.

    >>> positions(np.array([2, 4]), np.array([4, 5])).tolist()
    [1, -1]
    """
    if not len(sorted_values):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return np.where(sorted_values[at] == wanted, at, -1)


def ranges(starts: I64, counts: I64) -> I64:
    """Concatenate ``arange(start, start + count)`` for every pair.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)

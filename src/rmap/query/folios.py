# SPDX-License-Identifier: GPL-2.0-only
"""Large folios, put together from KPF_COMPOUND_HEAD and KPF_COMPOUND_TAIL.

The kernel shows of each page only whether it is a head, a tail or neither. A head and the tails
that follow it without a gap are one folio (or another compound page: hugetlb, slab). In an image
that holds only some pages a folio may be cut off: its size is then no power of two, and said to
be unknown. One that is cut exactly in half, again and again, cannot be told from a smaller one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf

I64 = npt.NDArray[np.int64]
_HEAD = np.uint64(Kpf.COMPOUND_HEAD)
_COMPOUND = np.uint64(Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL)

#: Size of a folio of which only a part is in the image.
UNKNOWN = 0


class Folios:
    """The compound pages of an image, found in one pass over its pages.

    >>> Folios(image).sizes(image.find_pages([0x200])).tolist()  # doctest: +SKIP
    [512]
    """

    def __init__(self, image: MemoryImage) -> None:
        flags, pfns = image.pages["flags"], image.pages["pfn"]
        rows = np.flatnonzero((flags & _COMPOUND) != 0)
        step = (np.diff(rows) == 1) & (np.diff(pfns[rows]) == 1)
        heads = (flags[rows] & _HEAD) != 0
        # What begins without a head is the rest of a folio whose head is not here.
        begins = heads.copy()
        begins[:1] = True
        begins[1:] |= ~step
        first = np.flatnonzero(begins)
        pages = np.diff(np.append(first, len(rows)))
        whole = heads[first] & (pages > 1) & (pages & (pages - 1) == 0)
        self._rows: I64 = rows[first]
        self._sizes = np.where(whole, pages, UNKNOWN).astype(np.int32)
        self._ends: I64 = self._rows + pages

    def sizes(self, rows: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the number of pages of the folio that each page belongs to.

        Parameters
        ----------
        rows
            ``int64[n]``: rows of ``image.pages``; -1 for a page that it does not have.

        Returns
        -------
        ``int32[n]``: 1 for a page by itself, :data:`UNKNOWN` where head or tails are missing.
        """
        wanted = np.asarray(rows, np.int64)
        alone = np.where(wanted >= 0, 1, UNKNOWN).astype(np.int32)
        if not len(self._rows):
            return alone
        at = np.searchsorted(self._rows, wanted, side="right") - 1
        inside = (at >= 0) & (wanted < self._ends[at])
        return np.where(inside, self._sizes[at], alone)

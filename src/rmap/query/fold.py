# SPDX-License-Identifier: GPL-2.0-only
"""Which element continues the one before it, so that both can be told as one run.

Pages continue if all that is said of them stays the same, and each mapping of the first goes on
to a mapping of the second: in the same VMA, with the same entry flags, one page further.

That is decided level by level of the reverse map. Two neighbours inside one block need no look at
the block's entries at all: whoever maps the block maps both. So a hugetlb segment that hundreds
of processes map costs a comparison of entries every 512 pages, not at every page.
"""

from __future__ import annotations

import numpy as np

from rmap.image import MemoryImage
from rmap.image.arrays import ranges
from rmap.image.flags import Kpf
from rmap.image.reverse import Level
from rmap.query.elements import Bools, Elements
from rmap.query.places import I64, U64, State

#: Where in its folio a page is: neighbours differ in that, and are folded all the same.
_PLACE_IN_FOLIO = np.uint64(Kpf.COMPOUND_HEAD | Kpf.COMPOUND_TAIL)
#: What has to be equal for a run to go on.
_EQUAL = ("target", "state", "vma", "framed", "alone", "kind", "mapcount", "refcount", "found",
          "verdict", "folio_pages")  # fmt: skip
#: Entries compared at a time: about 100 bytes each.
_CHUNK = 1 << 21


def continues(image: MemoryImage, elements: Elements) -> tuple[Bools, Bools]:
    """Tell how each element but the first relates to the one before.

    Returns
    -------
    ahead, same
        ``bool[n - 1]`` each. ``ahead``: it goes on, a page further. ``same``: it is the very same
        page (or swap entry) again, as in memory that KSM merged. Never both.
    """
    candidates = _facts_continue(image, elements)
    alone = elements.alone[1:]
    keyed = (elements.framed[1:] | (elements.state[1:] == State.SWAPPED)) & ~alone
    repeated = elements.key[1:] == elements.key[:-1]
    same = candidates & keyed & repeated
    ahead = candidates & ~same
    # A page that repeats has a run with its own kind; it is not the end or start of another.
    ahead[1:] &= ~same[:-1]
    ahead[:-1] &= ~same[1:]
    rows = np.flatnonzero(ahead & alone)
    ahead[rows] = _entries_alike(image, elements.pte[rows], elements.pte[rows + 1])
    frames = np.flatnonzero(ahead & keyed & elements.framed[1:])
    for level in (*image.reverse.levels, *image.reverse_special.levels):
        frames = frames[_level_continues(image, level, elements.key, frames, in_block=True)]
    swapped = np.flatnonzero(ahead & keyed & ~elements.framed[1:])
    if len(swapped):
        for level in image.reverse_swap.levels:
            swapped = swapped[_level_continues(image, level, elements.key, swapped, in_block=False)]
    goes_on = ahead & ~keyed
    goes_on[frames] = True
    goes_on[swapped] = True
    return goes_on, same


def _facts_continue(image: MemoryImage, elements: Elements) -> Bools:
    """Whether each element continues the one before, their mappings aside."""
    good = np.ones(max(len(elements) - 1, 0), np.bool_)
    for name in _EQUAL:
        column = getattr(elements, name)
        good &= column[1:] == column[:-1]
    flags = elements.flags & ~_PLACE_IN_FOLIO
    good &= flags[1:] == flags[:-1]
    length = elements.pages[:-1].astype(np.uint64) * np.uint64(image.page_size)
    return good & (elements.position[1:] == elements.position[:-1] + length)


def _entries_alike(image: MemoryImage, first: I64, second: I64) -> Bools:
    """Whether pairs of entries differ in nothing but address and page."""
    good = np.ones(len(first), np.bool_)
    for name in ("mm", "order", "flags"):
        column = image.ptes[name]
        good &= column[first] == column[second]
    return good


def _level_continues(
    image: MemoryImage, level: Level, keys: U64, rows: I64, *, in_block: bool
) -> Bools:
    """Whether the mappings at one level go on from elements ``rows`` to ``rows + 1``."""
    here, there = keys[rows], keys[rows + 1]
    first, count = level.bounds(here)
    then, count_then = level.bounds(there)
    good = count == count_then
    asked = good & (count > 0)
    if in_block and level.order:
        shift = np.uint64(level.order)
        inside = (here >> shift == there >> shift) & (there == here + np.uint64(1))
        good |= inside
        asked &= ~inside
    pairs = np.flatnonzero(asked)
    one_by_one = _Comparison(image, level, in_block)
    good[pairs] = one_by_one.compare(first[pairs], then[pairs], here[pairs], there[pairs])
    # Where the first entries go on, the others have to be looked at, if there are others.
    many = pairs[good[pairs] & (count[pairs] > 1)]
    if len(many):
        good[many] = one_by_one.compare_lists(
            first[many], then[many], count[many], here[many], there[many]
        )
    return good


class _Comparison:
    """Compares entries of one level."""

    def __init__(self, image: MemoryImage, level: Level, frames: bool) -> None:
        self.image = image
        self.level = level
        self.frames = frames

    def compare(self, first: I64, then: I64, here: U64, there: U64) -> Bools:
        """Whether entries at positions ``then`` map pages ``there`` where ``first`` go on to."""
        page = np.uint64(self.image.page_size)
        a, b = self.level.rows(first), self.level.rows(then)
        # Entries lie in order of addresses, so what goes on is the next row (or the same one).
        good = (b - a).astype(np.uint64) <= 1
        maybe = slice(None) if good.all() else np.flatnonzero(good)
        a, b = a[maybe], b[maybe]
        alike = _entries_alike(self.image, a, b) & ((a == b) | ~self.image.vma_borders[b])
        alike &= self._address(b, there[maybe]) == self._address(a, here[maybe]) + page
        good[maybe] = alike
        return good

    def _address(self, rows: I64, keys: U64) -> U64:
        """Return where each entry maps the page that is meant."""
        address = self.image.ptes["address"][rows]
        if self.frames and self.level.order:
            into = keys - self.image.ptes["pfn"][rows]
            address = address + into * np.uint64(self.image.page_size)
        return address

    def compare_lists(self, first: I64, then: I64, count: I64, here: U64, there: U64) -> Bools:
        """Whether all of ``count`` entries go on, for every pair of blocks.

        A page that is met again and again would be compared again and again, with all its
        entries; so each pair of blocks is compared once. And since the first entries of a pair go
        on already, no two pairs have the same second block: no entry is looked at more often than
        there are entries.
        """
        pairs = (first.astype(np.uint64) << np.uint64(32)) | then.astype(np.uint64)
        _, at, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        good = np.ones(len(at), np.bool_)
        cuts = np.searchsorted(np.cumsum(count[at]), np.arange(0, int(count[at].sum()), _CHUNK))
        bounds = np.unique(np.append(cuts, len(at)))
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            some = at[low:high]
            pair = np.repeat(np.arange(low, high), count[some])
            which = at[pair]
            step = ranges(np.zeros(len(some), np.int64), count[some])
            alike = self.compare(first[which] + step, then[which] + step, here[which], there[which])
            good[pair[~alike]] = False
        return good[inverse]

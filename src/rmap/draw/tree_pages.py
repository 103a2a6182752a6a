# SPDX-License-Identifier: GPL-2.0-only
"""Where the pages of a family lie in a picture: one axis of page indexes for all its VMAs.

All VMAs of a family number their pages in one space (``vm_pgoff``, ``page->index``), so pages that
processes share stand under one another. Stretches of indexes that no VMA covers are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rmap.draw.tree_view import View, short_name
from rmap.query.tree import Forest

_WIDTH = 440.0
_MOST = 18.0  # of one page
_ROOMY = 13.0  # wide enough for a number inside
_BREAK = 16.0
_MONO_10 = 6.1  # advance of the labels


@dataclass(frozen=True, slots=True)
class Stretch:
    """Indexes that VMAs cover without a gap: ``first`` to ``last``, and where they begin."""

    first: int
    last: int  #: one past
    left: float
    label: str


@dataclass(frozen=True, slots=True)
class PageAxis:
    """The axis: its stretches, and the width of a page."""

    stretches: tuple[Stretch, ...]
    page: float

    @property
    def width(self) -> float:
        """All of it."""
        if not self.stretches:
            return 0.0
        last = self.stretches[-1]
        return max(last.left + (last.last - last.first) * self.page, 120.0)

    @property
    def is_roomy(self) -> bool:
        """Whether a page is drawn for itself and has room for a number."""
        return self.page >= _ROOMY

    @property
    def gap(self) -> float:
        """Between pages, if they are drawn one by one."""
        return 1.0 if self.is_roomy else 0.0

    def place(self, index: int) -> float:
        """Return where an index lies; one outside of all stretches lies at their nearest end."""
        x = 0.0
        for stretch in self.stretches:
            if index < stretch.first:
                break
            x = stretch.left + (min(index, stretch.last) - stretch.first) * self.page
        return x

    def cells(self, first: int, last: int) -> Iterator[tuple[float, float]]:
        """Yield left and right of what is drawn for a range of indexes: one cell, or one a page."""
        if self.is_roomy:
            for index in range(first, last):
                left = self.place(index)
                yield left, left + self.page
        else:
            left = self.place(first)
            yield left, left + (last - first) * self.page


def page_axis(forest: Forest, shown: View) -> PageAxis:
    """Lay the axis of what is shown of a family."""
    size = forest.image.page_size
    spans = sorted((vma.pgoff, vma.pgoff + (vma.end - vma.start) // size) for vma in shown.vmas)
    merged: list[list[int]] = []
    for first, last in spans:
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    pages = sum(last - first for first, last in merged)
    page = min(_MOST, _WIDTH / pages) if pages else _MOST
    names = {vma.pgoff: short_name(vma.name) for vma in shown.vmas if vma.name}
    stretches: list[Stretch] = []
    left = 0.0
    for first, last in merged:
        label = f"{names[first]}+0" if first in names else hex(first)
        stretches.append(Stretch(first, last, left, label))
        width = (last - first) * page
        left += max(width, len(label) * _MONO_10) + _BREAK
    return PageAxis(tuple(stretches), page)

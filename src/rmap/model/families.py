# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas of a machine whose image has none: as far as pages tell them.

VMAs that map the same anonymous page (or hold the same swap slot) descend from one VMA, by fork or
by a split. In the kernel the page's index is the same in all of them, so their vm_pgoff are known
up to one number for the whole family. Who descends from whom is not to be seen; so each family gets
one anon_vma, its root, which all of its VMAs own. A walk over it visits every VMA that the real one
could visit, and perhaps some more; what it finds mapped is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass
class Families:
    """Which VMAs belong together, and where in the index space of their family each begins.

    `family` is a number for each VMA (the lowest VMA of the family), `pgoff` its vm_pgoff, and
    `misfits` the places of mappings that contradict the others and were left out.
    """

    family: I64
    pgoff: I64
    misfits: I64 = field(default_factory=lambda: np.zeros(0, np.int64))


def find_families(vma: I64, place: I64, what: I64, pgoff: I64, fixed: Bools) -> Families:
    """Join VMAs that hold the same thing.

    Parameters
    ----------
    vma, place, what
        A mapping each: the VMA, the page within it, and the page frame (or swap slot) there.
    pgoff, fixed
        Of each VMA: the vm_pgoff that it has by itself, and whether it is known to be that.
    """
    order = np.lexsort((vma, what))
    same = np.flatnonzero(what[order][1:] == what[order][:-1])
    first, second = order[same], order[same + 1]
    links = np.stack((vma[first], vma[second], place[first] - place[second]), axis=1)
    forest = _Forest(len(pgoff), pgoff, fixed)
    different, votes = np.unique(links, axis=0, return_counts=True)
    for one, other, shift in different[np.argsort(-votes, kind="stable")].tolist():
        forest.join(one, other, shift)
    family, start = forest.resolve()
    index = start[vma] + place
    # Of mappings that disagree about their page's index, the first is believed.
    _, first_of = np.unique(what, return_index=True)
    believed = index[first_of][np.searchsorted(what[first_of], what)]
    return Families(family, start, np.flatnonzero(index != believed))


class _Forest:
    """Sets of VMAs, each with how far it begins behind the representative of its set."""

    def __init__(self, count: int, pgoff: I64, fixed: Bools) -> None:
        self.above = list(range(count))
        self.shift = [0] * count
        self.pgoff = pgoff
        self.fixed = fixed

    def find(self, vma: int) -> tuple[int, int]:
        """The representative, and how far the VMA begins behind it in the index space."""
        path = []
        while self.above[vma] != vma:
            path.append(vma)
            vma = self.above[vma]
        total = 0
        for at in reversed(path):
            total += self.shift[at]
            self.above[at], self.shift[at] = vma, total
        return vma, total

    def join(self, one: int, other: int, shift: int) -> None:
        """Let `other` begin `shift` pages behind `one`. What contradicts is left as it is."""
        root, behind = self.find(one)
        second, also = self.find(other)
        if root == second:
            return
        distance = behind + shift - also
        if self.fixed[second] and not self.fixed[root]:
            root, second, distance = second, root, -distance
        elif self.fixed[second] and self.pgoff[second] - self.pgoff[root] != distance:
            return
        self.above[second], self.shift[second] = root, distance

    def resolve(self) -> tuple[I64, I64]:
        """Number and start of each VMA's family, no start below zero."""
        found = [self.find(vma) for vma in range(len(self.above))]
        roots = np.array([root for root, _ in found], np.int64)
        behind = np.array([shift for _, shift in found], np.int64)
        start = self.pgoff[roots] + behind if len(roots) else behind
        lowest = np.zeros(len(roots), np.int64)
        np.minimum.at(lowest, roots, start)
        # A family of files begins where they say; only free ones can be moved up.
        return roots, start - np.where(self.fixed[roots], 0, lowest[roots])

# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas of a machine that is made of an image: the image's if it has them, else guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.mm.anon_vma import anon_vma_alloc, anon_vma_free
from rmap.mm.bits import MAPPING_HANDLE_SHIFT, PAGE_MAPPING_ANON, PAGE_SHIFT
from rmap.mm.interval_tree import interval_tree_insert
from rmap.mm.mm_types import AnonVma, AnonVmaChain, Kernel, Vma
from rmap.model.families import find_families
from rmap.model.load_entries import Entries

I64 = npt.NDArray[np.int64]


@dataclass
class AnonLinks:
    """anon_vmas, and the edges that are to be made when the VMAs exist.

    `vma` and `anon_vma` are an edge each, `chain` and `tree` its places. `own` is the anon_vma of
    each VMA, -1 for none; `pgoff` its vm_pgoff. `misfits` are entries whose page cannot be where
    they say; `known` is whether the image had anon_vmas.
    """

    anon_vmas: list[AnonVma]
    vma: I64
    anon_vma: I64
    chain: I64
    tree: I64
    own: I64
    pgoff: I64
    misfits: I64
    known: bool

    def link(self, kernel: Kernel, vmas: Sequence[Vma]) -> None:
        """Tie the VMAs to their anon_vmas, and count what an anon_vma counts."""
        edges = []
        for row in range(len(self.vma)):
            avc = AnonVmaChain(vmas[int(self.vma[row])])
            avc.anon_vma = self.anon_vmas[int(self.anon_vma[row])]
            edges.append(avc)
        for row in np.lexsort((self.chain, self.vma)).tolist():
            edges[row].vma.anon_vma_chain.append(edges[row])
        for row in np.lexsort((self.tree, self.anon_vma)).tolist():
            interval_tree_insert(edges[row], edges[row].anon_vma.rb_root)
        for row, number in enumerate(self.own.tolist()):
            if number >= 0:
                vmas[row].anon_vma = self.anon_vmas[number]
        self._count(kernel)

    def _count(self, kernel: Kernel) -> None:
        """Degrees and references; what has neither is freed again."""
        for number in self.own[self.own >= 0].tolist():
            self.anon_vmas[number].num_active_vmas += 1
        for anon_vma in self.anon_vmas:
            if anon_vma.rb_root.rb_node is not None:
                anon_vma.refcount += 1
                anon_vma.parent.num_children += 1
            if anon_vma.root is not anon_vma:
                anon_vma.root.refcount += 1
        for anon_vma in self.anon_vmas:
            anon_vma.degree = anon_vma.num_active_vmas + anon_vma.num_children
            if not anon_vma.refcount:
                anon_vma_free(kernel, anon_vma)

    def words(self, image: MemoryImage, entries: Entries) -> I64:
        """page->mapping of the pages that anonymous entries map."""
        if self.known:
            rows = image.find_pages(entries.pfn)
            number = image.pages["anon_vma"][rows].astype(np.int64)
        else:
            number = self.own[entries.vma]
        handles = np.array([av.handle for av in self.anon_vmas] + [0], np.int64)
        return handles[number] << MAPPING_HANDLE_SHIFT | PAGE_MAPPING_ANON


def read_anon_vmas(kernel: Kernel, image: MemoryImage, entries: Entries) -> AnonLinks:
    """Make the anon_vmas of an image, and tell how its VMAs belong to them."""
    if len(image.tables["anon_vmas"]) and "anon_vma" in image.pages and "anon_vma" in image.vmas:
        return _known(kernel, image)
    return _guessed(kernel, image, entries)


def _make(kernel: Kernel, count: int) -> list[AnonVma]:
    """Take anon_vmas from the slab, not counted yet."""
    made = []
    for _ in range(count):
        anon_vma = anon_vma_alloc(kernel)
        assert anon_vma is not None, "nothing fails while an image is loaded"
        anon_vma.refcount = 0
        made.append(anon_vma)
    return made


def _known(kernel: Kernel, image: MemoryImage) -> AnonLinks:
    """The anon_vmas that the image has."""
    table, chains = image.tables["anon_vmas"], image.tables["anon_vma_chains"]
    made = _make(kernel, len(table))
    for row, anon_vma in enumerate(made):
        anon_vma.root = made[int(table["root"][row])]
        anon_vma.parent = made[int(table["parent"][row])]
    return AnonLinks(
        anon_vmas=made,
        vma=chains["vma"].astype(np.int64),
        anon_vma=chains["anon_vma"].astype(np.int64),
        chain=chains["chain_position"].astype(np.int64),
        tree=chains["tree_position"].astype(np.int64),
        own=image.vmas["anon_vma"].astype(np.int64),
        pgoff=image.vmas["pgoff"].astype(np.int64),
        misfits=np.zeros(0, np.int64),
        known=True,
    )


def _guessed(kernel: Kernel, image: MemoryImage, entries: Entries) -> AnonLinks:
    """One anon_vma for each family of VMAs that have anonymous memory (`rmap.model.families`)."""
    vmas = image.vmas
    told = vmas["pgoff"].astype(np.int64)
    fixed = (vmas["file"] >= 0) | (told > 0)
    start = np.where(fixed, told, (vmas["start"] >> np.uint64(PAGE_SHIFT)).astype(np.int64))
    rows = np.flatnonzero(entries.anon | ~entries.present)
    # Pages and slots in one number space, the slots below zero.
    what = np.where(entries.present, entries.pfn, -1 - entries.pfn)[rows]
    families = find_families(entries.vma[rows], entries.place[rows], what, start, fixed)
    owners = np.unique(entries.vma[rows])
    heads, number = np.unique(families.family[owners], return_inverse=True)
    own = np.full(len(vmas), -1, np.int64)
    own[owners] = number
    return AnonLinks(
        anon_vmas=_make(kernel, len(heads)),
        vma=owners,
        anon_vma=number.astype(np.int64),
        chain=np.zeros(len(owners), np.int64),
        tree=owners,
        own=own,
        pgoff=families.pgoff,
        misfits=rows[families.misfits],
        known=False,
    )

# SPDX-License-Identifier: GPL-2.0-only
"""Transparent huge pages, and memory that broke, of a machine that is made of a model's image.

Huge entries are taken apart with all others, and put together again here, where the image says all
that this takes: only a model's does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte
from rmap.mm import bits
from rmap.mm.bits import (
    _PAGE_PSE,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    NR_PAGETABLE,
    PAGE_SHIFT,
    PTE_PFN_MASK,
)
from rmap.mm.mm_types import Kernel, Mm
from rmap.mm.pgtable import pmd_offset

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]

TABLE = 512


def from_model(image: MemoryImage) -> bool:
    """Whether an image is of a model, and tells everything."""
    return str(image.machine["source"][0]) == "model"


class HugeLoader:
    """The huge pages of an image: `heads`, how often each is mapped whole, and the zero page.

    `folded` counts the huge entries that were put together again.
    """

    def __init__(self, kernel: Kernel, image: MemoryImage) -> None:
        self.kernel = kernel
        self.image = image
        self.heads: list[int] = []
        self.zero = 0
        self.whole: dict[int, int] = {}
        self.folded = 0
        if from_model(image):
            self._find()

    def _find(self) -> None:
        """Find heads with all their tails."""
        pages = self.image.pages
        flags = pages["flags"]
        huge = flags & np.uint64(Kpf.COMPOUND_HEAD | Kpf.HUGE) == np.uint64(Kpf.COMPOUND_HEAD)
        tails = np.flatnonzero(flags & np.uint64(Kpf.COMPOUND_TAIL) != 0)
        for row in np.flatnonzero(huge).tolist():
            pfn = int(pages["pfn"][row])
            first, last = np.searchsorted(tails, (row + 1, row + HPAGE_PMD_NR)).tolist()
            if pfn % HPAGE_PMD_NR or last - first != HPAGE_PMD_NR - 1:
                continue
            if int(flags[row]) & Kpf.ZERO_PAGE:
                self.zero = pfn
            else:
                self.heads.append(pfn)
                self.whole[pfn] = 0

    # ------------------------------------------------------------ page tables

    def fold(self, mms: Sequence[Mm]) -> None:
        """Put a huge entry in the place of the table that was made for it."""
        table = self.image.ptes
        huge = (table["order"] == HPAGE_PMD_ORDER) & (table["flags"] & np.uint32(Pte.PRESENT) != 0)
        for row in np.flatnonzero(huge).tolist():
            head, mm = int(table["pfn"][row]), mms[int(table["mm"][row])]
            known = head in self.whole
            if not known and head != self.zero:
                continue
            (at,) = self.image.find_pages(np.array([head], np.int64)).tolist()
            kept = not known or bool(int(self.image.pages["flags"][at]) & Kpf.ANON)
            if self._fold_one(mm, int(table["address"][row]), head, kept=kept):
                self.folded += 1
                if known:
                    self.whole[head] += 1
                else:
                    mm.has_huge_zero_page = True

    def _fold_one(self, mm: Mm, address: int, head: int, *, kept: bool) -> bool:
        """Fold one table, and keep it if the entry may have to be split; whether it was whole."""
        k = self.kernel
        pmd = int(pmd_offset(k, mm, address))
        row = (int(k.pt[pmd]) & PTE_PFN_MASK) >> PAGE_SHIFT if pmd else 0
        if not row:
            return False
        entries = np.asarray(k.pt)[row * TABLE : (row + 1) * TABLE]
        if not entries.all():
            return False
        rights = int(entries[0]) & ~PTE_PFN_MASK & ~bits._PAGE_SPECIAL
        entries[:] = 0
        k.pt[pmd] = head << PAGE_SHIFT | rights | _PAGE_PSE
        if kept:
            k.pmd_huge_pte.setdefault(pmd // TABLE, []).append(row)
        else:
            k.pt_free.append(row)
            k.vm_stat[NR_PAGETABLE] -= 1
            mm.nr_ptes -= 1
        return True

    # ------------------------------------------------------------ pages

    @property
    def tails(self) -> I64:
        """All tails, of the zero page too."""
        heads = np.array([*self.heads, *([self.zero] if self.zero else [])], np.int64)
        return (heads[:, None] + np.arange(1, HPAGE_PMD_NR)).ravel()

    def gather(self, counts: I64, refs: I64, flags: U32) -> I64:
        """Make compound pages of counts, references and flags that are each page's own.

        Changes the latter two, and returns _mapcount of every page, as a count.
        """
        mapcounts = counts.copy()
        anon = np.asarray(self.kernel.pg_mapping) & np.uint32(bits.PAGE_MAPPING_ANON) != 0
        tails = self.tails
        broken = flags[tails] & np.uint32(bits.PG_hwpoison)
        flags[tails] = np.uint32(bits.PG_tail) | broken
        for head in self.heads:
            block, whole = slice(head, head + HPAGE_PMD_NR), self.whole[head]
            by_pte = counts[block] - whole
            both = bool(whole and by_pte.any())
            refs[head] = refs[block].sum() - whole * (HPAGE_PMD_NR - 1)
            if anon[block].any():
                mapcounts[block] = by_pte + both
            flags[head] |= np.uint32(bits.PG_head)
            if both:
                flags[head + 1] |= np.uint32(bits.PG_double_map)
        if self.zero:
            flags[self.zero] = bits.PG_head
            refs[self.zero] = 1
        refs[tails] = 0
        return mapcounts

    def name(self) -> None:
        """Let heads name what their parts name, and belong to whom those do."""
        k = self.kernel
        for head in self.heads:
            block = slice(head, head + HPAGE_PMD_NR)
            mapping, index = np.asarray(k.pg_mapping), np.asarray(k.pg_index)
            owner = np.asarray(k.pg_memcg)
            named = np.flatnonzero(mapping[block])
            if len(named):
                place = int(named[0])
                mapping[head] = mapping[head + place]
                index[head] = index[head + place] - np.uint64(place)
            owner[head] = owner[block].max()
            mapping[head + 1 : head + HPAGE_PMD_NR] = 0
            owner[head + 1 : head + HPAGE_PMD_NR] = 0

    def tie(self) -> None:
        """Link tails to their heads, and say what heads say in their second page."""
        k = self.kernel
        for head in [*self.heads, *([self.zero] if self.zero else [])]:
            np.asarray(k.pg_lru_next)[head + 1 : head + HPAGE_PMD_NR] = head
            k.pg_private[head + 1] = HPAGE_PMD_ORDER
            k.pg_lru_prev[head + 1] = self.whole.get(head, 0)
        if self.zero:
            k.huge_zero_page = self.zero
            k.huge_zero_refcount = 1 + sum(bool(mm.has_huge_zero_page) for mm in k.mms)


def load_broken(kernel: Kernel, image: MemoryImage, owned: npt.NDArray[np.bool_], refs: I64,
                flags: U32) -> None:  # fmt: skip
    """Mark memory that broke, and keep what was in use of it."""
    if not from_model(image):
        return
    pages = image.pages
    for row in np.flatnonzero(pages["flags"] & np.uint64(Kpf.HWPOISON) != 0).tolist():
        page, free = int(pages["pfn"][row]), int(pages["flags"][row]) & Kpf.BUDDY
        kernel.num_poisoned_pages += 1
        if owned[page]:
            flags[page] |= np.uint32(bits.PG_hwpoison)
            refs[page] += 1
        elif not free:
            flags[page], refs[page] = bits.PG_hwpoison, 1
        if not free:
            kernel.poisoned[page] = 1


def mark_free_broken(kernel: Kernel, image: MemoryImage) -> None:
    """Mark memory that broke while nobody had it: the allocator passes it over."""
    if from_model(image):
        both = np.uint64(Kpf.HWPOISON | Kpf.BUDDY)
        rows = np.flatnonzero(image.pages["flags"] & both == both)
        flags = np.asarray(kernel.pg_flags)
        flags[image.pages["pfn"][rows].astype(np.int64)] |= np.uint32(bits.PG_hwpoison)

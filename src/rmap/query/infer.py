# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas that an image does not have, as far as its pages give them away.

``/proc`` shows page tables and no anon_vma. But VMAs that map the same anonymous page, or hold the
same swap slot, descend from one VMA, by fork or by a split; so the kernel has them on the anon_vmas
of one family, and the page names one of these. Which one, how many there are and who descends from
whom cannot be seen. Here each family has one anon_vma, its root, in the chain of all of its VMAs
and the owner of all of its pages, and no VMA has one of its own. What follows from that:

* two VMAs of one family here are of one family in the kernel (KSM pages are left out, since equal
  contents join strangers);
* a family here may be part of a larger one: relatives that share no page any more do not show;
* a walk here visits every VMA of the family that covers the page: what is known of the family, and
  possibly more of it than the kernel's walk, which starts from an anon_vma further down the tree.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import TABLES, MemoryImage, Table
from rmap.model.families import find_families
from rmap.model.load_entries import read_entries

I64 = npt.NDArray[np.int64]

#: What is not known of an anon_vma.
UNKNOWN = -1


def inferred(image: MemoryImage) -> MemoryImage:
    """Return the image with one anon_vma for each family of VMAs that share anonymous pages."""
    entries, _ = read_entries(image)
    vmas = image.vmas
    told = vmas["pgoff"].astype(np.int64)
    fixed = (vmas["file"] >= 0) | (told > 0)
    page = np.uint64(image.page_size)
    begins = np.where(fixed, told, (vmas["start"] // page).astype(np.int64))
    rows = np.flatnonzero(entries.anon | ~entries.present)
    # Pages and swap slots in one space of numbers, the slots below zero.
    what = np.where(entries.present, entries.pfn, -1 - entries.pfn)[rows]
    families = find_families(entries.vma[rows], entries.place[rows], what, begins, fixed)
    members = np.unique(entries.vma[rows])
    heads, number = np.unique(families.family[members], return_inverse=True)
    root = np.full(len(vmas), UNKNOWN, np.int64)
    root[members] = number
    columns = {name: vmas[name] for name in vmas.column_names}
    pgoff = np.where(root >= 0, families.pgoff, told).astype(np.uint64)
    columns |= {"pgoff": pgoff, "anon_vma": np.full(len(vmas), UNKNOWN, np.int32)}
    mapped = rows[entries.present[rows]]
    owner = root[entries.vma[mapped]]
    index = families.pgoff[entries.vma[mapped]] + entries.place[mapped]
    return MemoryImage(
        image.tables
        | {
            "vmas": Table(TABLES["vmas"], columns),
            "pages": _pages(image, entries.pfn[mapped], owner, index),
            "anon_vmas": _roots(len(heads)),
            "anon_vma_chains": _chains(members, number, pgoff),
        }
    )


def _pages(image: MemoryImage, pfns: I64, owner: I64, index: I64) -> Table:
    """The table of pages with an owner and an index for each page of a family."""
    table = image.pages
    columns = {name: table[name] for name in table.column_names}
    columns["anon_vma"] = np.full(len(table), UNKNOWN, np.int32)
    columns["index"] = np.zeros(len(table), np.uint64)
    rows = image.find_pages(pfns)
    columns["anon_vma"][rows[rows >= 0]] = owner[rows >= 0]
    columns["index"][rows[rows >= 0]] = index[rows >= 0].astype(np.uint64)
    return Table(TABLES["pages"], columns)


def _roots(count: int) -> Table:
    ids = np.arange(count, dtype=np.int32)
    unknown = np.full(count, UNKNOWN, np.int32)
    number = ids.astype(np.uint64) + np.uint64(1)  # what drawings call it
    columns = {"anon_vma": ids, "root": ids, "parent": ids, "refcount": unknown, "handle": number}
    return Table(TABLES["anon_vmas"], columns)


def _chains(members: I64, number: I64, pgoff: npt.NDArray[np.uint64]) -> Table:
    """An edge for each VMA; a tree is in the order of first pages, as an interval tree is."""
    order = np.lexsort((members, pgoff[members], number))
    firsts = np.searchsorted(number[order], number[order])
    return Table(
        TABLES["anon_vma_chains"],
        {
            "vma": members[order].astype(np.int32),
            "anon_vma": number[order].astype(np.int32),
            "chain_position": np.zeros(len(members), np.int32),
            "tree_position": (np.arange(len(members)) - firsts).astype(np.int32),
        },
    )

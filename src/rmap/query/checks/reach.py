# SPDX-License-Identifier: GPL-2.0-only
"""Forward against backward: does the walk from each page come by every entry that maps it?

The walk is that of rmap_walk() (mm/rmap.c): an anonymous page names an anon_vma, a page of a file
its file, and their trees the VMAs whose range of indices has the page's; a merged page names a node
with a list of places. An entry that no walk meets is one that the kernel will forget: when it frees
the page, moves it or writes it out.

Of merged pages it forgets some by design: a child of fork() has no place of its own in the list,
and ksmd may drop its parent's; a merged page that comes back from swap has none either. Those that
no walk meets are counted and are no findings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte, Vm
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.mappers import mapper_of, name_users
from rmap.query.checks.objects import anon_vma_name, entry_subject, file_name
from rmap.query.checks.registry import Fact, Outcome, check

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

FORGOTTEN = (
    "mappings of merged pages that no place in the list of the page's node leads to: the kernel "
    "permits that, so that one that was lost looks the same"
)


@dataclass(frozen=True, slots=True)
class _Entries:
    """Entries that the kernel counts as mappings of a page that is known: rows of the tables."""

    rows: I64
    page: I64
    vma: I64
    index: U64  #: where in the VMA's index space each entry is

    @classmethod
    def of(cls, image: MemoryImage) -> _Entries:
        ptes = image.ptes
        counted = ptes["flags"] & np.uint32(Pte.PRESENT | Pte.SPECIAL) == np.uint32(Pte.PRESENT)
        rows = np.flatnonzero(counted & (image.pte_vma >= 0))
        page = image.find_pages(ptes["pfn"][rows])
        rows, page = rows[page >= 0], page[page >= 0]
        vma = image.pte_vma[rows].astype(np.int64)
        offset = (ptes["address"][rows] - image.vmas["start"][vma]) // np.uint64(image.page_size)
        return cls(rows, page, vma, image.vmas["pgoff"][vma] + offset)


@check("reach", "the walk from a page meets every entry that maps it")
def reach(image: MemoryImage, limit: int) -> Outcome:
    """Look at every entry that maps a page which is reverse-mapped."""
    if "index" not in image.pages or not len(image.tables["tree_nodes"]):
        return Outcome("entries", skipped=NO_STRUCTURE)
    pages = image.pages
    entries = _Entries.of(image)
    page = entries.page
    found = Collector("reach", "entries", len(page), limit)
    subject = _subject(image, entries)
    ksm = pages["flags"][page] & np.uint64(Kpf.KSM) != 0
    owned = (pages["anon_vma"][page] >= 0) | (pages["file"][page] >= 0)
    met = _met(image, entries)
    index, wanted, word = pages["index"][page], entries.index, pages["mapping"][page]
    found.where(subject, "unreached", ~ksm & owned & ~met, lambda at: (
        f"{_owner(image, int(page[at]))}, which it names, does not lead to that VMA"))  # fmt: skip
    found.where(subject, "index", ~ksm & met & (index != wanted), lambda at: (
        f"its index is {int(index[at]):#x}, and the place has {int(wanted[at]):#x}"),
        wanted, index)  # fmt: skip
    found.leave_open(int((ksm & ~_merged(image, entries)).sum()), FORGOTTEN)
    found.where(subject, "nobody", ~ksm & ~owned & (word != 0), lambda at: (
        f"it names {int(word[at]):#x}, which is nothing that is known"))  # fmt: skip
    _beyond(image, found)
    return found.outcome("entry")


def _beyond(image: MemoryImage, found: Collector) -> None:
    """Entries that map what is no page of memory, in VMAs that map nothing but pages."""
    ptes, vmas, ram = image.ptes, image.vmas, image.ram
    if not len(ram):
        return
    devices = np.uint64(Vm.PFNMAP | Vm.MIXEDMAP | Vm.IO)
    rows = np.flatnonzero(
        (ptes["flags"] & np.uint32(Pte.PRESENT) != 0) & (image.pte_vma >= 0)
    )  # fmt: skip
    rows = rows[vmas["flags"][image.pte_vma[rows]] & devices == 0]
    at = np.searchsorted(ram["start_pfn"], ptes["pfn"][rows], side="right") - 1
    inside = (at >= 0) & (ptes["pfn"][rows] < ram["end_pfn"][np.maximum(at, 0)])
    entry = entry_subject(image)
    found.add(entry, "beyond", rows[~inside],
              lambda row: f"maps page {int(ptes['pfn'][row]):#x}, which is no memory")  # fmt: skip


def _subject(image: MemoryImage, entries: _Entries) -> Subject:
    pfns = image.ptes["pfn"][entries.rows]

    def name(at: int) -> str:
        mapper = mapper_of(image, int(entries.rows[at]))
        who = name_users(mapper.pids, mapper.comm)
        return f"page {int(pfns[at]):#x}, mapped at {mapper.address:#x} by {who}:"

    def facts(at: int) -> dict[str, Fact]:
        mapper = mapper_of(image, int(entries.rows[at]))
        return {
            "object": "entry", "pfn": int(pfns[at]), "address": mapper.address,
            "pid": mapper.pids[0],
        }  # fmt: skip

    return Subject(name, facts, lambda at: (mapper_of(image, int(entries.rows[at])),))


def _owner(image: MemoryImage, page: int) -> str:
    row = int(image.pages["anon_vma"][page])
    if row >= 0:
        return anon_vma_name(image, row)
    return file_name(image, int(image.pages["file"][page]))


def _met(image: MemoryImage, entries: _Entries) -> Bools:
    """Whether the tree of each page's owner has the entry's VMA."""
    nodes = image.tables["tree_nodes"]
    met = np.zeros(len(entries.rows), bool)
    for owner in ("anon_vma", "file"):
        known = (nodes[owner] >= 0) & (nodes["vma"] >= 0)
        edges = _pairs(nodes[owner][known], nodes["vma"][known])
        whose = image.pages[owner][entries.page]
        met |= (whose >= 0) & np.isin(_pairs(whose, entries.vma), edges)
    return met


def _pairs(owner: npt.NDArray[np.int32], vma: npt.NDArray[np.signedinteger]) -> I64:
    """Owner and VMA as one number each."""
    return np.asarray(owner.astype(np.int64) << 32 | vma.astype(np.int64))


def _merged(image: MemoryImage, entries: _Entries) -> Bools:
    """Whether an item of the page's node has the address, and an anon_vma that has the VMA."""
    items, nodes = image.tables["ksm_items"], image.tables["tree_nodes"]
    known = np.flatnonzero(items["anon_vma"] >= 0)
    in_tree = (nodes["anon_vma"] >= 0) & (nodes["vma"] >= 0)
    order = np.argsort(nodes["anon_vma"][in_tree], kind="stable")
    owner = nodes["anon_vma"][in_tree][order]
    # (node, address, VMA) of every place that a walk over the items would look at.
    low = np.searchsorted(owner, items["anon_vma"][known])
    count = np.searchsorted(owner, items["anon_vma"][known], side="right") - low
    which = np.repeat(known, count)
    at = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    vma = nodes["vma"][in_tree][order][at]
    places = _places(items["node"][which], items["address"][which], vma)
    # Few entries map merged pages, and to compare places costs more than to compare numbers.
    few = np.flatnonzero(image.pages["flags"][entries.page] & np.uint64(Kpf.KSM) != 0)
    node = image.pages["mapping"][entries.page[few]] & ~np.uint64(3)
    wanted = _places(node, image.ptes["address"][entries.rows[few]], entries.vma[few])
    merged = np.zeros(len(entries.rows), bool)
    merged[few] = np.isin(wanted, places)
    return merged


def _places(node: U64, address: U64, vma: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.void]:
    """Rows of three numbers that can be compared as a whole."""
    columns = np.ascontiguousarray(np.column_stack([node, address, vma.astype(np.uint64)]))
    return columns.view([("", np.uint64)] * 3).reshape(-1)

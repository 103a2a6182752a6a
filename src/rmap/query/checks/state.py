# SPDX-License-Identifier: GPL-2.0-only
"""Pages and entries whose flags and counts contradict one another.

A page that is mapped is in use: not free, not slab, not a page table. Each mapping holds a
reference, and so does the cache that it is in; its mapping count is not negative. An anonymous page
that is exclusive to one process is mapped once, and an entry that may be written maps such a page,
in a VMA that may be written.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte, Vm
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import entry_subject, page_facts, users_of_page
from rmap.query.checks.registry import Outcome, check

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
#: What a page that is mapped cannot be.
_NOT_MAPPED = (("free", Kpf.BUDDY), ("slab", Kpf.SLAB), ("a page table", Kpf.PGTABLE))
_MAPPED = np.uint32(Pte.PRESENT | Pte.SPECIAL)


@check("state", "a page's flags, references and mapping count do not contradict one another")
def state(image: MemoryImage, limit: int) -> Outcome:
    """Look at every page, and at every entry that may be written."""
    pages = image.pages
    if "refcount" not in pages:
        return Outcome("pages", skipped=NO_STRUCTURE)
    found = Collector("state", "pages", len(pages), limit)
    page = Subject(
        lambda row: f"page {int(pages['pfn'][row]):#x}",
        lambda row: page_facts(image, int(pages["pfn"][row])),
        lambda row: users_of_page(image, int(pages["pfn"][row])),
    )
    mapcount = pages["mapcount"]
    mappings = image.reverse.count(pages["pfn"])
    for name, bit in _NOT_MAPPED:
        such = _has(image, bit)
        found.where(page, name, such & (mappings > 0), partial(_mapped_as, name, mappings))
    found.where(page, "negative", mapcount < 0,
                lambda row: f"has a mapping count of {mapcount[row]}", None, mapcount)  # fmt: skip
    _references(image, found, page)
    free = _has(image, Kpf.BUDDY)
    found.where(page, "lru", free & _has(image, Kpf.LRU), "is free, and on an LRU list")
    found.where(page, "mlocked", free & _has(image, Kpf.MLOCKED), "is free, and mlocked")
    found.where(page, "lists", _has(image, Kpf.ACTIVE) & _has(image, Kpf.UNEVICTABLE),
                "is active and unevictable at once")  # fmt: skip
    used = _has(image, Kpf.ANON) & (mappings > 0)
    found.where(page, "reserved", used & _has(image, Kpf.RESERVED),
                "is anonymous and mapped, and reserved")  # fmt: skip
    own = used & ~_has(image, Kpf.COMPOUND_TAIL) & ~_has(image, Kpf.HWPOISON)
    found.where(page, "uptodate", own & ~_has(image, Kpf.UPTODATE),
                "is anonymous and mapped, and its contents are not there yet")  # fmt: skip
    _exclusive(image, found, page, mappings)
    _writable(image, found)
    return found.outcome("page")


def _mapped_as(name: str, mappings: I64, row: int) -> str:
    return f"is {name}, and {mappings[row]} page-table entries map it"


def _has(image: MemoryImage, flag: Kpf) -> Bools:
    return np.asarray(image.pages["flags"] & np.uint64(flag) != 0)


def _references(image: MemoryImage, found: Collector, page: Subject) -> None:
    """References that are known to be held, against those counted, on heads and small pages."""
    pages = image.pages
    wanted = known_references(image)
    refcount = pages["refcount"].astype(np.int64)
    # Whoever splits or moves a page takes all its references away for that moment, locked.
    frozen = (refcount == 0) & _has(image, Kpf.LOCKED)
    wrong = ~_has(image, Kpf.COMPOUND_TAIL) & ~frozen & (refcount >= -1) & (wanted > refcount)
    wrong |= ~_has(image, Kpf.COMPOUND_TAIL) & (refcount < -1)
    found.where(page, "references", wrong, lambda row: (
        f"has {refcount[row]} references; mappings and caches hold {wanted[row]}"),
        wanted, refcount)  # fmt: skip


def known_references(image: MemoryImage) -> I64:
    """What holds a reference to each page for sure: entries, and the cache that it is in."""
    pages, ptes, compounds = image.pages, image.ptes, image.tables["compounds"]
    head = heads(image)
    rows = np.flatnonzero(ptes["flags"] & _MAPPED == np.uint32(Pte.PRESENT))
    page = image.find_pages(ptes["pfn"][rows])
    wanted = np.bincount(head[page[page >= 0]], minlength=len(pages)).astype(np.int64)
    if "file" in pages:
        size = np.ones(len(pages), np.int64)
        at = image.find_pages(compounds["pfn"])
        size[at] = np.left_shift(1, compounds["order"].astype(np.int64))
        # Until 6.7 the page cache held one reference to a page of hugetlb, whatever its size.
        size[_has(image, Kpf.HUGE)] = 1
        own = ~_has(image, Kpf.COMPOUND_TAIL)
        wanted += np.where(own & (pages["file"] >= 0), size, 0)
    return wanted


def heads(image: MemoryImage) -> I64:
    """The row of the head of each page's compound page, its own for a small one."""
    pages, compounds = image.pages, image.tables["compounds"]
    head = np.arange(len(pages), dtype=np.int64)
    at = image.find_pages(compounds["pfn"])
    for row, order in zip(at.tolist(), compounds["order"].tolist(), strict=True):
        if row >= 0:
            end = int(np.searchsorted(pages["pfn"], pages["pfn"][row] + np.uint64(1 << order)))
            head[row:end] = row
    return head


def _exclusive(image: MemoryImage, found: Collector, page: Subject, mappings: I64) -> None:
    """PG_anon_exclusive: one process, so one mapping; and nothing that KSM merged."""
    if "exclusive" not in image.pages:
        return
    exclusive = image.pages["exclusive"]
    found.where(page, "exclusive", exclusive & (mappings > 1), lambda row: (
        f"is exclusive to one process, and {mappings[row]} entries map it"))  # fmt: skip
    found.where(page, "exclusive", exclusive & _has(image, Kpf.KSM),
                "is exclusive to one process, and merged")  # fmt: skip


def _writable(image: MemoryImage, found: Collector) -> None:
    """Entries that may be written: in VMAs that may, and anonymous pages only if exclusive."""
    ptes = image.ptes
    may = ptes["flags"] & np.uint32(Pte.WRITE) != 0
    rows = np.flatnonzero(may & (ptes["flags"] & _MAPPED == np.uint32(Pte.PRESENT)))
    rows = rows[image.pte_vma[rows] >= 0]
    entry = entry_subject(image)
    flags = image.vmas["flags"][image.pte_vma[rows]]
    found.add(entry, "write", rows[flags & np.uint64(Vm.WRITE) == 0],
              "may be written, and its VMA may not")  # fmt: skip
    if "exclusive" not in image.pages:
        return
    page = image.find_pages(ptes["pfn"][rows])
    anon = (page >= 0) & (image.pages["flags"][page] & np.uint64(Kpf.ANON) != 0)
    shared = anon & ~image.pages["exclusive"][page]
    found.add(entry, "writable", rows[shared], lambda row: (
        f"may be written, and its page {int(ptes['pfn'][row]):#x} is not exclusive"))  # fmt: skip

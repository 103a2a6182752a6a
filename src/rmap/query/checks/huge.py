# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages: entries against what the kernel counts of the whole, and heads against tails.

The head counts the entries that map all of it (_entire_mapcount, until 6.0 compound_mapcount).
Kernels since 6.10 also count all entries that map some of it (_large_mapcount), those since 6.2 its
parts that are mapped one by one (_nr_pages_mapped, which adds ENTIRELY_MAPPED).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.arrays import ranges
from rmap.image.flags import Kpf, Pte
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.mappers import mapper_of, name_users, users_of
from rmap.query.checks.objects import page_facts, users_of_page
from rmap.query.checks.registry import Outcome, check

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
#: What _nr_pages_mapped has beside the parts if entries map the whole.
ENTIRELY_MAPPED = 0x80_0000
_MAPPED = np.uint32(Pte.PRESENT | Pte.SPECIAL)


@check("huge", "huge pages count their mappings, whole and in parts, and have heads and tails")
def huge(image: MemoryImage, limit: int) -> Outcome:
    """Look at every compound page, and at every huge entry."""
    table = image.tables["compounds"]
    if "refcount" not in image.pages:
        return Outcome("huge pages", skipped=NO_STRUCTURE)
    found = Collector("huge", "huge pages", len(table), limit)
    page = Subject(
        lambda row: f"huge page {int(table['pfn'][row]):#x}",
        lambda row: page_facts(image, int(table["pfn"][row])),
        lambda row: users_of_page(image, int(table["pfn"][row])),
    )
    _counts(image, found, page)
    _tails(image, found)
    _entries(image, found)
    return found.outcome("huge page")


def _counts(image: MemoryImage, found: Collector, page: Subject) -> None:
    table = image.tables["compounds"]
    whole, parts, mapped = recount(image)
    hugetlb = _hugetlb(image)
    entire = table["entire"].astype(np.int64)
    # Processes that share a table of hugetlb are counted once.
    wrong = np.where(hugetlb, entire > whole, entire != whole)
    found.where(page, "entire", wrong, lambda row: (
        f"counts {entire[row]} mappings of the whole, found {whole[row]}"),
        whole, entire)  # fmt: skip
    if "large" in table:
        large, every = table["large"].astype(np.int64), whole + parts
        wrong = np.where(hugetlb, large > every, large != every)
        found.where(page, "large", wrong, lambda row: (
            f"counts {large[row]} mappings of any size, found {every[row]}"),
            every, large)  # fmt: skip
    if "parts" in table:
        said = table["parts"].astype(np.int64)
        wanted = mapped + np.where(whole > 0, ENTIRELY_MAPPED, 0)
        found.where(page, "parts", ~hugetlb & (said != wanted), lambda row: (
            f"says {said[row]:#x} of its parts that are mapped, counted {wanted[row]:#x}"),
            wanted, said)  # fmt: skip


def _hugetlb(image: MemoryImage) -> Bools:
    row = image.find_pages(image.tables["compounds"]["pfn"])
    return np.asarray(image.pages["flags"][row] & np.uint64(Kpf.HUGE) != 0)


def recount(image: MemoryImage) -> tuple[I64, I64, I64]:
    """Of each compound page: entries for the whole, smaller ones, pages that these map."""
    table, ptes = image.tables["compounds"], image.ptes
    count = len(table)
    if not count:
        none = np.zeros(0, np.int64)
        return none, none, none
    rows = np.flatnonzero(ptes["flags"] & _MAPPED == np.uint32(Pte.PRESENT))
    pfn, order = ptes["pfn"][rows], ptes["order"][rows]
    at = np.maximum(np.searchsorted(table["pfn"], pfn, side="right") - 1, 0)
    size = np.uint64(1) << table["order"][at].astype(np.uint64)
    inside = (pfn >= table["pfn"][at]) & (pfn - table["pfn"][at] < size)
    whole = inside & (order >= table["order"][at]) & (order > 0)
    part = inside & ~whole
    # A page that several map is one part; entries of a middle size map several.
    length = np.left_shift(1, order[part].astype(np.int64))
    first = pfn[part].astype(np.int64)
    pages = np.unique(ranges(first, length))
    owner = np.searchsorted(table["pfn"], pages.astype(np.uint64), side="right") - 1
    return (
        np.bincount(at[whole], minlength=count), np.bincount(at[part], minlength=count),
        np.bincount(owner, minlength=count),
    )  # fmt: skip


def _tails(image: MemoryImage, found: Collector) -> None:
    """Tails lie behind a head of theirs, and all behind a head are its tails."""
    pages, table = image.pages, image.tables["compounds"]
    flags = pages["flags"]
    tail = flags & np.uint64(Kpf.COMPOUND_TAIL) != 0
    plain = flags & np.uint64(Kpf.SLAB | Kpf.BUDDY | Kpf.RESERVED) == 0
    at = np.searchsorted(table["pfn"], pages["pfn"], side="right") - 1
    owned = at >= 0
    if len(table):
        size = np.uint64(1) << table["order"][np.maximum(at, 0)].astype(np.uint64)
        owned &= pages["pfn"] - table["pfn"][np.maximum(at, 0)] < size
    page = Subject(
        lambda row: f"page {int(pages['pfn'][row]):#x}",
        lambda row: page_facts(image, int(pages["pfn"][row])),
        lambda row: users_of_page(image, int(pages["pfn"][row])),
    )
    mapped = image.reverse.count(pages["pfn"]) > 0
    found.where(page, "head", tail & plain & mapped & ~owned, "is a tail, and has no head")
    if "anon_vma" in pages and len(table):
        # What a tail has it has from its head: another owner means that it names another head.
        head = np.where(owned, image.find_pages(table["pfn"][np.maximum(at, 0)]), -1)
        differs = pages["mapping"][head] != pages["mapping"]
        found.where(page, "head", tail & mapped & owned & (head >= 0) & differs,
                    "is a tail, and names another head than the one before it")  # fmt: skip
        found.where(page, "head", ~tail & owned & (at >= 0) & mapped
                    & (pages["pfn"] != table["pfn"][np.maximum(at, 0)]),
                    "lies behind a head, and is no tail")  # fmt: skip


def _entries(image: MemoryImage, found: Collector) -> None:
    """A huge entry maps a page that is at least as large."""
    ptes, table = image.ptes, image.tables["compounds"]
    big = (ptes["order"] > 0) & (ptes["flags"] & _MAPPED == np.uint32(Pte.PRESENT))
    rows = np.flatnonzero(big)
    size = np.zeros(len(rows), np.int64)
    if len(table):
        pfn = ptes["pfn"][rows]
        at = np.maximum(np.searchsorted(table["pfn"], pfn, side="right") - 1, 0)
        inside = (pfn >= table["pfn"][at]) & (
            pfn - table["pfn"][at] < np.uint64(1) << table["order"][at].astype(np.uint64)
        )
        size = np.where(inside, table["order"][at].astype(np.int64), 0)
    entry = Subject(
        lambda row: (
            f"the entry of order {int(ptes['order'][row])} at {int(ptes['address'][row]):#x} of "
            f"{name_users(*users_of(image, int(ptes['mm'][row])))}"
        ),
        lambda row: {
            "object": "entry", "address": int(ptes["address"][row]), "pfn": int(ptes["pfn"][row]),
        },
        lambda row: (mapper_of(image, row),),
    )  # fmt: skip
    found.add(entry, "order", rows[size < ptes["order"][rows]], lambda row: (
        f"maps page {int(ptes['pfn'][row]):#x}, which is no huge page of that size"))  # fmt: skip

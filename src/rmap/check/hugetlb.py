# SPDX-License-Identifier: GPL-2.0-only
"""Pools of huge pages, what is promised of them, and tables that address spaces share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from rmap.check.recount import Recount
from rmap.check.violation import invariant
from rmap.mm.bits import (
    HPAGE_RESV_OWNER,
    PAGE_SHIFT,
    PG_head,
    PG_huge,
    PG_private,
)
from rmap.mm.mm_types import AddressSpace, Hstate, Mm, ResvMap, Vma


def pool_pages(facts: Recount, pool: Hstate) -> list[int]:
    """Heads of all huge pages of a size."""
    heads = np.flatnonzero(facts.flagged(PG_huge) & facts.flagged(PG_head)).tolist()
    return [head for head in heads if facts.order(head) == pool.order]


@invariant("hugetlb-pool", "the counts and lists of a pool equal a recount of its pages")
def pools(facts: Recount) -> Iterator[str]:
    """nr_huge_pages, free_huge_pages, max_huge_pages and what is in use."""
    k = facts.kernel
    for pool in k.hstates:
        pages = pool_pages(facts, pool)
        temporary = sum(bool(k.pg_flags[page + 2] & PG_private) for page in pages)
        free = [int(page) for page in pool.hugepage_freelist]
        counts = {
            "nr_huge_pages": len(pages),
            "free_huge_pages": len(free),
            "max_huge_pages": len(pages) - pool.surplus_huge_pages - temporary,
        }
        for name, found in counts.items():
            if getattr(pool, name) != found:
                yield f"pool {pool.name}: {name} {getattr(pool, name)}, found {found}"
        idle = {page for page in pages if not k.pg_refcount[page]}
        active = {int(page) for page in pool.hugepage_activelist}
        if len(free) != len(set(free)) or set(free) != idle:
            yield f"pool {pool.name}: {len(free)} pages are listed as free, {len(idle)} are"
        if not active <= set(pages) - idle:
            yield f"pool {pool.name}: a page that is not in use is listed as active"
        for page in set(pages) - idle - active - set(k.poisoned):
            yield f"pool {pool.name}: page {page:#x} is in use and on no list"
        for page in free:
            if facts.hugetlb_counts[page]:
                yield f"pool {pool.name}: page {page:#x} is free and mapped"


def covered(regions: ResvMap, first: int = 0, end: int = 1 << 62) -> int:
    """How many huge pages of a range are in the regions of a map."""
    clipped = ((max(int(low), first), min(int(high), end)) for low, high in regions.regions)
    return sum(high - low for low, high in clipped if high > low)


def promised_to_file(facts: Recount, mapping: AddressSpace) -> int:
    """What of a file's map is reserved and not in its cache yet."""
    return covered(mapping.resv_map) - len(facts.pages_of(mapping)) if mapping.resv_map else 0


def promised_to_vma(vma: Vma) -> int:
    """What a private mapping that has reservations did not use of them yet."""
    if vma.resv_map is None or not vma.resv_flags & HPAGE_RESV_OWNER or vma.vm_file is None:
        return 0
    pool = vma.vm_file.f_mapping.hstate
    assert pool is not None
    order = int(pool.order)
    first = int(vma.vm_pgoff) >> order
    pages = int(vma.vm_end - vma.vm_start) >> (PAGE_SHIFT + order)
    return pages - covered(vma.resv_map, first, first + pages)


@invariant("hugetlb-reserves", "resv_huge_pages is what files and mappings were promised and lack")
def reserves(facts: Recount) -> Iterator[str]:
    """Every promise can be kept, and none was forgotten.

    But for such as came back with a surplus page that was not used after all, and is freed.
    """
    for pool in facts.kernel.hstates:
        files = [mapping for mapping in facts.mappings if mapping.hstate is pool]
        vmas = [vma for vma in facts.vmas if vma.resv_map is not None and vma.vm_file is not None]
        found = sum(promised_to_file(facts, mapping) for mapping in files)
        found += sum(promised_to_vma(vma) for vma in vmas if vma.vm_file.f_mapping.hstate is pool)
        if pool.resv_huge_pages != found:
            yield f"pool {pool.name}: resv_huge_pages {pool.resv_huge_pages}, found {found}"
        if pool.resv_huge_pages > pool.free_huge_pages + pool.broken_promises:
            yield (
                f"pool {pool.name}: {pool.resv_huge_pages} pages are promised, "
                f"{pool.free_huge_pages} free"
            )
        maps = [mapping.resv_map for mapping in files] + [vma.resv_map for vma in vmas]
        for regions in maps:
            if regions is not None and regions.adds_in_progress:
                yield f"pool {pool.name}: a region was asked for, and neither added nor given up"


@invariant("hugetlb-usage", "hugetlb_usage of an mm equals a recount of its huge pages")
def usage(facts: Recount) -> Iterator[str]:
    """HugetlbPages of /proc/PID/status, of which rss knows nothing.

    Not of a machine where tables are, or were, shared: there, whoever is first to touch a page
    counts it, and whoever is last to leave the table counts it off. Nor without the quirk
    `hugetlb_usage_starts_at_zero`, where a forked mm begins with its parent's.
    """
    k = facts.kernel
    if k.pmd_table_was_shared or not k.profile.hugetlb_usage_starts_at_zero:
        return
    found = Counter[int]()
    for entries, pages in (
        (facts.mapped, facts.mapped.pfn),
        (facts.migrating, facts.migrating.swap_offset),
    ):
        huge = facts.hugetlb[pages]
        for mm, count in zip(entries.mm[huge].tolist(), entries.pages[huge].tolist(), strict=True):
            found[mm] += count
    for number, mm in enumerate(facts.mms):
        if mm.hugetlb_usage != found[number]:
            yield f"{_name(mm)}: hugetlb_usage {mm.hugetlb_usage}, found {found[number]}"


def _name(mm: Mm) -> str:
    return f"mm {mm.ident} ({mm.comm})"


@invariant("pmd-sharing", "a table of PMDs that several address spaces have knows how many")
def sharing(facts: Recount) -> Iterator[str]:
    """pmd_sharers: so that the last one to leave it knows that it is the last."""
    level = 2
    used = Counter(facts.table_rows[level].tolist())
    found = {row: count - 1 for row, count in used.items() if count > 1}
    counted = {int(row): int(count) for row, count in facts.kernel.pmd_sharers.items()}
    for row in sorted(set(found) | set(counted)):
        if found.get(row, 0) != counted.get(row, 0):
            yield f"table {row}: {counted.get(row, 0)} further sharers, found {found.get(row, 0)}"

# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages: that head and tails belong together, and what huge entries need and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from rmap.check.entries import TABLE, Entries, joined
from rmap.check.recount import Recount
from rmap.check.violation import invariant
from rmap.mm.bits import (
    HPAGE_PMD_ORDER,
    SPLIT_QUEUED,
    PG_active,
    PG_dirty,
    PG_double_map,
    PG_head,
    PG_huge,
    PG_isolated,
    PG_locked,
    PG_lru,
    PG_mlocked,
    PG_swapcache,
    PG_tail,
    PG_unevictable,
    PG_writeback,
)

#: Flags that the kernel keeps in the head alone: a tail that has one is out of step.
HEAD_FLAGS = (
    PG_locked | PG_lru | PG_active | PG_unevictable | PG_mlocked | PG_writeback | PG_isolated
    | PG_swapcache | PG_dirty
)  # fmt: skip


@invariant("compound", "a compound page is a head and its tails, and flags are where they belong")
def compound(facts: Recount) -> Iterator[str]:
    """What prep_compound_page() makes of a run of pages, and only a split takes apart."""
    k = facts.kernel
    flags = np.asarray(k.pg_flags)
    claimed = np.zeros(len(flags), np.bool_)
    for head in facts.heads:
        order = facts.order(head)
        last = head + (1 << order) - 1
        if not order or last > k.nr_pages or head & ((1 << order) - 1):
            yield f"page {head:#x} is a head of order {order}, which does not fit there"
            continue
        if not flags[head] & PG_huge and order != HPAGE_PMD_ORDER:
            yield f"page {head:#x} is a huge page of order {order}"
        tails = slice(head + 1, last + 1)
        claimed[tails] = True
        lost = (flags[tails] & PG_tail == 0) | (np.asarray(k.pg_lru_next)[tails] != head)
        for page in (np.flatnonzero(lost) + head + 1).tolist()[:1]:
            yield f"page {page:#x} is no tail of page {head:#x}, which should be its head"
    stray = (flags & PG_tail != 0) & ~claimed | (flags & (PG_head | PG_tail) == PG_head | PG_tail)
    for page in np.flatnonzero(stray).tolist():
        yield f"page {page:#x} is a tail, and no head's"
    tail = facts.flagged(PG_tail)
    for page in np.flatnonzero(tail & (np.asarray(k.pg_refcount) != 0)).tolist():
        yield f"page {page:#x} is a tail and has {k.pg_refcount[page]} references of its own"
    for page in np.flatnonzero(tail & facts.flagged(HEAD_FLAGS)).tolist():
        yield f"page {page:#x} is a tail and has flags {flags[page] & HEAD_FLAGS:#x}, a head's"
    second = np.append(False, facts.flagged(PG_head)[:-1])
    for page in np.flatnonzero(facts.flagged(PG_double_map) & ~second).tolist():
        yield f"page {page:#x} has PG_double_map, and is not the second of a huge page"


@invariant("compound-mapcount", "compound_mapcount counts the huge entries of a page (I11)")
def compound_mapcount(facts: Recount) -> Iterator[str]:
    """I11, what is in the head's second page; what is in `_mapcount` is checked with that."""
    k = facts.kernel
    found = facts.pmd_counts + facts.hugetlb_counts
    for head in facts.heads:
        counted = int(k.pg_lru_prev[head + 1])
        if counted != found[head]:
            yield f"page {head:#x}: compound_mapcount {counted}, {found[head]} entries map it whole"
    lonely = facts.double_mapped & facts.anon & (facts.pmd_counts == 0)
    for head in np.flatnonzero(lonely).tolist():
        yield f"page {head:#x} has PG_double_map, and no huge entry maps it"
    whole = facts.mapped.huge
    for pfn, order, address in zip(
        whole.pfn.tolist(), whole.order.tolist(), whole.address.tolist(), strict=True
    ):
        if not k.pg_flags[pfn] & PG_head or facts.order(pfn) != order:
            yield f"an entry of order {order} at {address:#x} maps page {pfn:#x}, which is not that"


def needing_tables(facts: Recount) -> Entries:
    """Huge entries that must be splittable without an allocation: of anonymous memory."""
    zero = facts.special.huge
    whole = facts.mapped.huge
    whole = whole.where(facts.anon[whole.pfn] & ~facts.hugetlb[whole.pfn])
    moving = facts.migrating.huge
    moving = moving.where(facts.anon[moving.swap_offset] & ~facts.hugetlb[moving.swap_offset])
    return joined([zero, whole, moving])


@invariant("deposited", "for every huge entry of anonymous memory a table is kept, an empty one")
def deposited(facts: Recount) -> Iterator[str]:
    """pgtable_trans_huge_deposit(): so that a split cannot fail for want of a table."""
    pt = np.asarray(facts.kernel.pt).reshape(-1, TABLE)
    needed = Counter((needing_tables(facts).ptep // TABLE).tolist())
    for row in sorted(set(needed) | set(facts.deposited)):
        kept = facts.deposited.get(row, [])
        if len(kept) != needed[row]:
            yield f"table {row} of PMDs keeps {len(kept)} tables, for {needed[row]} huge entries"
        for table in kept:
            if pt[table].any():
                yield f"table {table} is kept for a split, and not empty"


@invariant("deferred-split", "what is queued to be split is an anonymous huge page in use")
def deferred_split(facts: Recount) -> Iterator[str]:
    """The queue of partly unmapped huge pages (mm/huge_memory.c)."""
    huge = facts.flagged(PG_head) & facts.anon & ~facts.hugetlb
    for page, state in facts.kernel.deferred_split_queue.items():
        if state != SPLIT_QUEUED:
            yield f"page {page:#x} was taken from the queue to be split, and not put back"
        if not huge[page] or facts.kernel.pg_refcount[page] <= 0:
            yield f"page {page:#x} is queued to be split, and no anonymous huge page in use"


@invariant("huge-zero-page", "the huge zero page has a reference of each mm that ever mapped it")
def huge_zero_page(facts: Recount) -> Iterator[str]:
    """huge_zero_refcount: one for the shrinker that keeps it, one for each mm until it exits."""
    k = facts.kernel
    users = sum(bool(mm.has_huge_zero_page) for mm in facts.mms)
    found = users + 1 if k.huge_zero_page else 0
    if k.huge_zero_refcount != found:
        yield f"huge_zero_refcount {k.huge_zero_refcount}, found {found}"
    if users and not k.huge_zero_page:
        yield f"{users} mms have a huge zero page that there is not"
    for number in np.unique(facts.special.huge.mm).tolist():
        mm = facts.mms[number]
        if not mm.has_huge_zero_page:
            yield f"mm {mm.ident} ({mm.comm}) maps the huge zero page and holds no reference"

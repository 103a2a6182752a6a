# SPDX-License-Identifier: GPL-2.0-only
"""TLBs: what a CPU may still use is what the page tables still grant (I25, I26)."""

from __future__ import annotations

from collections.abc import Iterator

from rmap.check.recount import Recount
from rmap.check.violation import invariant
from rmap.mm.bits import _PAGE_DIRTY, _PAGE_PRESENT, _PAGE_RW, PTE_PFN_MASK
from rmap.mm.pgtable import pte_lookup
from rmap.mm.tlb import tlb_entries


@invariant("tlb", "what a CPU remembers of page tables, they still grant (I25, I26)")
def tlb(facts: Recount) -> Iterator[str]:
    """At rest every batch of deferred flushes was made, so nothing stale may be left."""
    k = facts.kernel
    for cpu, mm, address, remembered in tlb_entries(k):
        at = pte_lookup(k, mm, address)
        entry = int(k.pt[at]) if at else 0
        if not entry & _PAGE_PRESENT or (entry ^ remembered) & PTE_PFN_MASK:
            problem = "maps another page, or none"
        elif remembered & _PAGE_RW and not entry & _PAGE_RW:
            problem = "is read-only now"
        elif remembered & _PAGE_RW and remembered & _PAGE_DIRTY and not entry & _PAGE_DIRTY:
            problem = "is clean now, and would not become dirty"
        else:
            continue
        yield (
            f"CPU {cpu} may use {remembered:#x} at {address:#x} of mm {mm.ident} ({mm.comm}): "
            f"the entry {problem}"
        )

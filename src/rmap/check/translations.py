# SPDX-License-Identifier: GPL-2.0-only
"""TLBs: what a CPU may still use is what the page tables still grant (I25, I26).

At rest, that is the invariant ``tlb``. In the middle of an operation more is owed: a page must be
out of every TLB when it is freed, nobody may be able to write to one that is being written out,
and whoever finds an entry empty has to be able to see that its flush is owed. `FlushWatch` looks at
these moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rmap.check.entries import TABLE, UPPER_LEVELS
from rmap.check.recount import Recount
from rmap.check.violation import invariant
from rmap.mm.bits import (
    _PAGE_DIRTY,
    _PAGE_PRESENT,
    _PAGE_PSE,
    _PAGE_RW,
    PAGE_MASK,
    PAGE_SHIFT,
    PTE_PFN_MASK,
)
from rmap.mm.mm_types import Kernel, Mm
from rmap.mm.pgtable import pte_present
from rmap.mm.tlb import tlb_entries, tlb_lookup


@invariant("tlb", "what a CPU remembers of page tables, they still grant (I25, I26)")
def tlb(facts: Recount) -> Iterator[str]:
    """At rest every batch of deferred flushes was made, so nothing stale may be left."""
    k = facts.kernel
    for cpu, mm, address, remembered in tlb_entries(k):
        entry = translation(k, mm, address)
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


def translation(k: Kernel, mm: Mm, address: int) -> int:
    """What a processor finds for an address: the entry of its small page, or what is there instead.

    A huge entry is given as one of the small page in it, as a TLB is filled.
    """
    base = int(mm.pgd) * TABLE
    value = 0
    for shift in (*UPPER_LEVELS, PAGE_SHIFT):
        value = int(k.pt[base + (address >> shift) % TABLE])
        if value & _PAGE_PSE and shift > PAGE_SHIFT and pte_present(value):
            return value + (address % (1 << shift) & PAGE_MASK)
        if not value & _PAGE_PRESENT:
            break
        base = ((value & PTE_PFN_MASK) >> PAGE_SHIFT) * TABLE
    return value


class FlushViolation(AssertionError):
    """A CPU could still use, or write to, a page when that had become wrong."""


class FlushWatch:
    """A tracer (`Machine.trace`) that looks into TLBs when a page is freed, written or unmapped.

    Raises `FlushViolation` in the middle of the operation that does it too early. Whatever else is
    traced is handed on to `then`.
    """

    def __init__(
        self, kernel: Kernel, then: Callable[[str, tuple[Any, ...]], object] | None = None
    ) -> None:
        self.kernel = kernel
        self.then = then

    def __call__(self, name: str, args: tuple[Any, ...]) -> None:
        """Hear of a kernel function."""
        if name == "free_unref_page":
            self.look(args[0], _PAGE_PRESENT, "is freed, and")
        elif name == "set_page_writeback":
            self.look(args[0], _PAGE_RW, "is written out, and for writing")
        elif name == "try_to_unmap_one":
            self.look_at_batch(args[1].vm_mm, args[2])
        if self.then is not None:
            self.then(name, args)

    def look_at_batch(self, mm: Mm, address: int) -> None:
        """Raise `FlushViolation` if an entry was emptied, not flushed, and its mm does not say so.

        I26: mprotect() and munmap() flush only what ``mm->tlb_flush_batched`` tells them of.
        """
        if mm.tlb_flush_batched or translation(self.kernel, mm, address) & _PAGE_PRESENT:
            return
        for tlb in self.kernel.tlbs:
            if tlb.loaded_mm is mm and tlb_lookup(self.kernel, tlb.cpu, mm, address):
                raise FlushViolation(
                    f"CPU {tlb.cpu} may use {address:#x} of mm {mm.ident} ({mm.comm}), which was "
                    "unmapped, and nobody can tell that a flush is owed"
                )

    def look(self, page: int, bit: int, what: str) -> None:
        """Raise `FlushViolation` if some CPU remembers the page with a bit set."""
        for cpu, mm, address, entry in tlb_entries(self.kernel):
            if (entry & PTE_PFN_MASK) >> PAGE_SHIFT == page and entry & bit:
                raise FlushViolation(
                    f"page {page:#x} {what} CPU {cpu} may use it at {address:#x} of mm "
                    f"{mm.ident} ({mm.comm})"
                )

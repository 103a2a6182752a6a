# SPDX-License-Identifier: GPL-2.0-only
"""Entries in the place of a page: that is being moved, is in a device's memory, or is broken.

That a walk over the page finds such an entry (but for a broken page's) is checked with all others,
by `rmap.check.pages`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.check.recount import Recount, name_vma
from rmap.check.violation import invariant
from rmap.mm.bits import PG_device_private, PG_hwpoison, PG_locked, PG_lru


@invariant("migration-entries", "a page that entries wait for is locked: it is being moved (I16)")
def migration_entries(facts: Recount) -> Iterator[str]:
    """I16. At rest nothing is being moved, so that there are none."""
    waiting = facts.migrating
    pages = facts.head[waiting.swap_offset]
    for row in np.flatnonzero(~facts.flagged(PG_locked)[pages]).tolist():
        where = f"{waiting.address[row]:#x} of {facts.mms[waiting.mm[row]]}"
        yield f"an entry waits at {where} for page {pages[row]:#x}, which nobody moves"


@invariant("device-private", "an entry for a device's memory names a page of a device, in use")
def device_private(facts: Recount) -> Iterator[str]:
    """Device-private pages: never mapped for the CPU, never on a list of reclaim."""
    k = facts.kernel
    private = facts.flagged(PG_device_private)
    entries = facts.on_device
    for row in np.flatnonzero(~private[entries.swap_offset]).tolist():
        yield f"an entry for device memory names page {entries.swap_offset[row]:#x}, which is RAM"
    for row in np.flatnonzero(private[facts.mapped.pfn]).tolist():
        vma = facts.vmas[facts.mapped.vma[row]]
        yield f"page {facts.mapped.pfn[row]:#x} of a device is mapped in {name_vma(vma)}"
    for page in np.flatnonzero(private & facts.flagged(PG_lru)).tolist():
        yield f"page {page:#x} of a device is on an LRU list"
    used = np.asarray(k.pg_refcount) > 1
    for page in np.flatnonzero(private & ~used & (facts.map_counts > 0)).tolist():
        yield f"page {page:#x} of a device is mapped and free"


@invariant("hwpoison", "a page that broke is marked, counted, and kept from everybody")
def hwpoison(facts: Recount) -> Iterator[str]:
    """PG_hwpoison, num_poisoned_pages, and the references that memory_failure() keeps."""
    k = facts.kernel
    broken = facts.flagged(PG_hwpoison)
    if k.num_poisoned_pages != int(broken.sum()):
        yield f"num_poisoned_pages {k.num_poisoned_pages}, found {int(broken.sum())}"
    held = np.asarray(k.pg_refcount) > 0
    for page in sorted(k.poisoned):
        if not held[page]:
            yield f"page {page:#x} was kept when it broke, and is free"

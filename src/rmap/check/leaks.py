# SPDX-License-Identifier: GPL-2.0-only
"""What is left of processes that have all exited: nothing must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from rmap.check.recount import Recount
from rmap.mm.bits import (
    PAGE_MAPPING_ANON,
    SWAP_HAS_CACHE,
    SWAP_MAP_BAD,
    PG_lru,
    PG_reserved,
    PG_zone_device,
)
from rmap.mm.mm_types import Kernel


def leftovers(kernel: Kernel, pins: Mapping[int, int] | None = None) -> list[str]:
    """Tell what a machine without processes still holds of them, a line each.

    Page caches stay, also the swap cache, as far as reclaim will find it on an LRU list, what was
    pinned, and what broke. Other anonymous memory, its anon_vmas, swap slots (but those of shared
    memory in files that exist), page tables and VMAs in the trees of files do not. What KSM knows
    of an address space goes only when ksmd comes by, and with it what is left of that.
    """
    return list(_leftovers(Recount(kernel, pins)))


def _leftovers(facts: Recount) -> Iterator[str]:
    k = facts.kernel
    if facts.mms:
        yield f"{len(facts.mms)} address spaces exist: {facts.mms[:4]}"
    if facts.live_anon_vmas:
        yield f"{len(facts.live_anon_vmas)} anon_vmas are allocated: {facts.live_anon_vmas[:4]}"
    if len(k.pt_free) != k.pt_next - 1:
        yield f"{k.pt_next - 1 - len(k.pt_free)} page tables are not given back"
    kept = set(facts.cached_pages) | set(facts.pins or ()) | set(facts.continuation_pages)
    kept |= set(np.flatnonzero(facts.flagged(PG_reserved | PG_zone_device)).tolist())
    kept |= {*k.poisoned, k.huge_zero_page}
    found = facts.flagged(PG_lru)
    found[list(k.poisoned)] = True
    cached = {page: slot for page, slot in facts.swap_cache.items() if found[page]}
    kept |= set(cached)
    for page in np.flatnonzero(np.asarray(k.pg_refcount)).tolist():
        if page not in kept:
            kind = "anonymous " if k.pg_mapping[page] & PAGE_MAPPING_ANON else ""
            yield f"{kind}page {page:#x} has {k.pg_refcount[page]} references"
    for area in facts.areas:
        for slot in np.flatnonzero(np.asarray(area.swap_map)).tolist():
            byte, key = int(area.swap_map[slot]), (int(area.type), slot)
            cache = byte == SWAP_HAS_CACHE and key in cached.values()
            if byte != SWAP_MAP_BAD and not cache and key not in facts.shmem_slots:
                yield f"slot {slot} of area {area.type} is in use ({area.swap_map[slot]:#x})"
    for mapping in facts.mappings:
        if mapping.i_mmap.rb_node is not None or mapping.i_mmap_writable:
            yield f"VMAs are left in the i_mmap of {mapping.name}"
    if k.ksm is not None and k.ksm.rmap_items:
        yield f"KSM has {k.ksm.rmap_items} items"
    if k.mmlist:
        yield f"mmlist holds {k.mmlist}"

# SPDX-License-Identifier: GPL-2.0-only
"""Every counter against a recount: of address spaces, of the node, of cgroups, of swap areas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.check.entries import I64, Bools, Entries
from rmap.check.recount import Recount, slot_count
from rmap.check.violation import invariant
from rmap.mm import bits
from rmap.mm.bits import (
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    MM_SWAPENTS,
    NR_LRU_LISTS,
    NR_MM_COUNTERS,
    PAGE_SHIFT,
    SWAP_HAS_CACHE,
    SWAP_MAP_BAD,
    SWAP_MAP_SHMEM,
    SWP_HWPOISON,
    VM_LOCKED,
    PG_active,
    PG_dirty,
    PG_head,
    PG_lru,
    PG_mlocked,
    PG_swapbacked,
    PG_unevictable,
    PG_writeback,
    PG_zone_device,
)
from rmap.mm.mm_types import LruVec, MemCgroup, SwapInfo

RSS = {
    MM_FILEPAGES: "MM_FILEPAGES",
    MM_ANONPAGES: "MM_ANONPAGES",
    MM_SWAPENTS: "MM_SWAPENTS",
    MM_SHMEMPAGES: "MM_SHMEMPAGES",
}
LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")


def _by_mm(facts: Recount, entries: Entries) -> I64:
    """How many pages the entries of each mm are for."""
    found = np.zeros(len(facts.mms), np.int64)
    np.add.at(found, entries.mm, entries.pages)
    return found


def expected_rss(facts: Recount) -> list[list[int]]:
    """What the counters of each mm should be, by the numbers of its members.

    Entries that wait for a page, or name a device's, count as that page; a broken page's does not.
    """
    other = facts.other.where(facts.other.swap_type != SWP_HWPOISON)
    backed = facts.flagged(PG_swapbacked)[facts.head]
    found = np.zeros((NR_MM_COUNTERS, len(facts.mms)), np.int64)
    found[MM_SWAPENTS] = _by_mm(facts, facts.swapped)
    for entries, pages in ((facts.mapped, facts.mapped.pfn), (other, other.swap_offset)):
        small = ~facts.hugetlb[pages]
        entries, pages = entries.where(small), pages[small]
        anon = facts.anon[pages]
        found[MM_ANONPAGES] += _by_mm(facts, entries.where(anon))
        # v4.18 takes a huge entry of shared memory for one of a file (fixed in 4.19).
        shmem = ~anon & backed[pages]
        if not facts.kernel.profile.shmem_pmd_counts_shmem:
            shmem &= entries.order == 0
        found[MM_SHMEMPAGES] += _by_mm(facts, entries.where(shmem))
        found[MM_FILEPAGES] += _by_mm(facts, entries.where(~anon & ~shmem))
    return found.T.tolist()


@invariant("rss", "the counters of an mm equal a recount of its entries (I21)")
def rss(facts: Recount) -> Iterator[str]:
    """I21."""
    for mm, found in zip(facts.mms, expected_rss(facts), strict=True):
        for member, name in RSS.items():
            if mm.rss_stat[member] != found[member]:
                yield (
                    f"mm {mm.ident} ({mm.comm}): {name} {mm.rss_stat[member]}, "
                    f"found {found[member]}"
                )


@invariant("vm-sizes", "total_vm, locked_vm and page tables of an mm equal a recount")
def vm_sizes(facts: Recount) -> Iterator[str]:
    """What the VMAs of an mm add up to; tables kept for splits count as its tables."""
    deposits = deposits_of(facts)
    for number, mm in enumerate(facts.mms):
        sizes = [((vma.vm_end - vma.vm_start) >> PAGE_SHIFT, vma) for vma in mm.vmas]
        locked = sum(size for size, vma in sizes if vma.vm_flags & VM_LOCKED)
        tables = sum(int((facts.table_mms[level] == number).sum()) for level in (1, 2, 3))
        tables += deposits[number]
        found = (sum(size for size, _ in sizes), locked, tables + 1)
        counted = (mm.total_vm, mm.locked_vm, mm.nr_ptes)
        if found != counted:
            yield (
                f"mm {mm.ident} ({mm.comm}): total_vm, locked_vm and tables "
                f"{', '.join(map(str, counted))}, found {', '.join(map(str, found))}"
            )


def deposits_of(facts: Recount) -> list[int]:
    """How many tables each mm keeps for when its huge entries are split."""
    owner = facts.pmd_table_owners
    found = [0] * len(facts.mms)
    for row, kept in facts.deposited.items():
        if row in owner:
            found[owner[row]] += len(kept)
    return found


@invariant("vmstat", "the statistics of the node equal a recount (I22, I23, I24)")
def vmstat(facts: Recount) -> Iterator[str]:
    """I22 to I24, and what is counted of files and swap."""
    stat = facts.kernel.vm_stat
    for name, found in expected_vmstat(facts).items():
        if stat[getattr(bits, name)] != found:
            yield f"{name} {stat[getattr(bits, name)]}, found {found}"


def expected_vmstat(facts: Recount) -> dict[str, int]:
    """What the statistics of the node should be."""
    k = facts.kernel
    mapped = (facts.map_counts > 0) & ~facts.hugetlb
    whole = facts.pmd_counts > 0
    shared = [mapping for mapping in facts.mappings if mapping.shmem]
    shmem = {page for mapping in shared for _, page in facts.pages_of(mapping)}
    cached = np.zeros(len(mapped), np.bool_)
    cached[list(set(facts.cached_pages) - shmem)] = True
    cached &= ~facts.hugetlb
    huge = facts.flagged(PG_head) & ~facts.hugetlb
    return {
        "NR_ANON_MAPPED": int((mapped & facts.anon).sum())
        + _counted_twice(facts)
        + int(k.anon_mapped_twice),
        "NR_FILE_MAPPED": int((mapped & ~facts.anon).sum()),
        "NR_ANON_THPS": int((whole & facts.anon).sum()),
        "NR_SHMEM_PMDMAPPED": int((whole & ~facts.anon).sum()),
        "NR_SHMEM_THPS": len(shmem & set(np.flatnonzero(huge).tolist())),
        "NR_MLOCK": _pages(facts, facts.flagged(PG_mlocked)),
        "NR_FILE_PAGES": int((~facts.hugetlb[list(facts.cached_pages)]).sum())
        + len(facts.swap_cache),
        "NR_SHMEM": len(shmem),
        "NR_FILE_DIRTY": int((facts.flagged(PG_dirty) & cached).sum()),
        "NR_WRITEBACK": _pages(facts, facts.flagged(PG_writeback)),
        "NR_ISOLATED": 0,
        "NR_FREE_PAGES": int(k.nr_free),
        "NR_PAGETABLE": len(np.unique(np.concatenate(facts.table_rows)))
        + len(facts.deposited_rows),
        "NR_SWAPCACHE": len(facts.swap_cache),
    } | {
        f"NR_{name.upper()}": sum(_length(facts, lists[number]) for _, lists in facts.lru)
        for number, name in enumerate(LISTS)
    }  # fmt: skip


def _pages(facts: Recount, chosen: Bools) -> int:
    """How many pages those are for which the flag stands, a huge one counted whole."""
    return int(facts.sizes[chosen].sum())


def _length(facts: Recount, listed: list[int]) -> int:
    """How many pages are on a list; a huge page is there as its head."""
    return int(facts.sizes[listed].sum()) if listed else 0


def _counted_twice(facts: Recount) -> int:
    """Pages that NR_ANON_MAPPED has once for a small entry and once for a huge one.

    Where a migration gave back both sorts of entries of a huge page, it has no PG_double_map, and
    each sort counts its own first mapping. When then the huge entry is split, the count for it
    stays, though its pages were counted already (`Kernel.anon_mapped_twice`).
    """
    both = (facts.pmd_counts > 0) & facts.anon & ~facts.double_mapped
    if not both.any():
        return 0
    part = both[facts.head] & (facts.pte_counts > 0)
    return int(part.sum())


@invariant("mlocked", "a page that is mlocked is mapped by a VMA that is locked (I24)")
def mlocked(facts: Recount) -> Iterator[str]:
    """The other way round is not so: a page may be in a locked VMA, and reclaim finds out.

    A huge page stays mlocked when who locked it gets a copy, and others have it still: v4.18
    munlocks only small pages then. Splitting its PMD ends that.
    """
    inside = facts.held.vma >= 0
    mapped, pages = facts.held.where(inside), facts.held_pages[inside]
    locked = np.array([bool(vma.vm_flags & VM_LOCKED) for vma in facts.vmas], np.bool_)
    held = np.zeros(len(facts.mapping), np.bool_)
    held[facts.head[pages[locked[mapped.vma]]]] = True
    held |= facts.pmd_counts > 0
    # munlock does not see pages that are in memory of a device; what unmaps them clears the mark.
    held |= facts.flagged(PG_zone_device)
    if facts.kernel.zero_page:
        # KSM mlocks the zero page when it takes the place of one in a locked VMA (mm/ksm.c, v4.18).
        held[facts.kernel.zero_page] = True
    for page in np.flatnonzero(facts.flagged(PG_mlocked) & ~held).tolist():
        yield f"page {page:#x} is mlocked, and no locked VMA maps it"


@invariant("lru", "a page with PG_lru is on the one list that its flags and cgroup say")
def lru(facts: Recount) -> Iterator[str]:
    """LRU lists, by their links alone, against the flags and the sizes."""
    k = facts.kernel
    seen: dict[int, int] = {}
    for lruvec, lists in facts.lru:
        for number in range(NR_LRU_LISTS):
            yield from _list_problems(facts, lruvec, number, lists[number], seen)
    for page in np.flatnonzero(facts.flagged(PG_lru)).tolist():
        if page not in seen:
            yield f"page {page:#x} has PG_lru and is on no list"
    for page in seen:
        if k.pg_refcount[page] <= 0:
            yield f"page {page:#x} is on a list and free"


def _list_problems(
    facts: Recount, lruvec: LruVec, number: int, pages: list[int], seen: dict[int, int]
) -> Iterator[str]:
    where = f"{LISTS[number]} of cgroup {lruvec.memcg.name}"
    k = facts.kernel
    if lruvec.size[number] != _length(facts, pages):
        yield f"{where}: size {lruvec.size[number]}, found {_length(facts, pages)}"
    # Where mlock is counted, the words that would link unevictable pages hold the counts.
    linked = number != bits.LRU_UNEVICTABLE or not k.profile.mlock_counts
    before = 0
    for page in pages:
        if page in seen:
            yield f"page {page:#x} is on two lists"
            return
        seen[page] = number
        if linked and k.pg_lru_prev[page] != before:
            yield f"{where}: page {page:#x} is not linked back to {before:#x}"
        before = page
        flags = int(k.pg_flags[page])
        if flags & PG_unevictable:
            right = bits.LRU_UNEVICTABLE
        else:
            right = bits.LRU_ACTIVE * bool(flags & PG_active)
            right += bits.LRU_FILE * (not flags & PG_swapbacked)
        if not flags & PG_lru or right != number:
            yield f"page {page:#x} is on {where} with flags {flags:#x}"
        if k.pg_memcg[page] != lruvec.memcg.ident:
            yield f"page {page:#x} is on {where} and belongs to cgroup {k.pg_memcg[page]}"
    if linked and lruvec.tail[number] != before:
        yield f"{where}: its tail is {lruvec.tail[number]:#x}, not {before:#x}"


def expected_memcg(facts: Recount) -> Iterator[tuple[MemCgroup, int, dict[str, int]]]:
    """Of each cgroup: its usage with those below, and its own statistics of file pages."""
    k = facts.kernel
    owner = np.asarray(k.pg_memcg)[facts.head]
    kinds = {
        "NR_FILE_MAPPED": (facts.map_counts > 0) & ~facts.anon & ~facts.hugetlb,
        "NR_WRITEBACK": facts.flagged(PG_writeback),
    }
    usage = [0] * len(k.memcgs)
    charged = np.bincount(owner, minlength=len(k.memcgs))
    for group, count in zip(k.memcgs, charged, strict=True):
        above: MemCgroup | None = group
        while above is not None:
            usage[above.ident] += int(count)
            above = above.parent
    for group in k.memcgs:
        own = owner == group.ident
        stats = {name: int((own & pages).sum()) for name, pages in kinds.items()}
        yield group, usage[group.ident], stats


@invariant("memcg", "a cgroup's usage and statistics equal a recount of its pages")
def memcg(facts: Recount) -> Iterator[str]:
    """Charges, which the root does not count; file pages that are mapped or being written."""
    for group, usage, stats in expected_memcg(facts):
        if group.parent is not None and group.usage != usage:
            yield f"cgroup {group.name}: usage {group.usage}, found {usage}"
        for name, found in stats.items():
            counted = group.stat[getattr(bits, name)]
            if counted != found:
                yield f"cgroup {group.name}: {name} {counted}, found {found}"


@invariant("swap-count", "a slot's count is the entries that hold it, and shared memory (I20)")
def swap_count(facts: Recount) -> Iterator[str]:
    """I20, and the slots in use of each area."""
    known = set(facts.slot_users) | set(facts.shmem_slots)
    for area in facts.areas:
        used = np.flatnonzero(np.asarray(area.swap_map))
        used = used[np.asarray(area.swap_map)[used] != SWAP_MAP_BAD]
        if area.inuse != len(used):
            yield f"area {area.type}: {area.inuse} slots in use, found {len(used)}"
        for slot in used.tolist():
            known.discard((int(area.type), slot))
            yield from _slot_problems(facts, area, slot)
    for type_, slot in sorted(known):
        yield f"slot {slot} of area {type_} is free, and entries or shared memory hold it"


def _slot_problems(facts: Recount, area: SwapInfo, slot: int) -> Iterator[str]:
    """Tell what is wrong with one slot that is in use."""
    key = (int(area.type), slot)
    entries, shmem = facts.slot_users[key], facts.shmem_slots[key]
    byte = int(area.swap_map[slot])
    if byte & ~SWAP_HAS_CACHE == SWAP_MAP_SHMEM:
        counted, right = "of shared memory", not entries and shmem == 1
    else:
        count = slot_count(area, slot)
        counted, right = f"count {count}", not shmem and count == entries
    where = f"slot {slot} of area {area.type} ({counted})"
    if not right:
        yield f"{where}: {entries} entries hold it, and shared memory {shmem} times"
    if bool(byte & SWAP_HAS_CACHE) != bool(area.cache[slot]):
        yield f"{where} has SWAP_HAS_CACHE or a page in the swap cache, and not both"

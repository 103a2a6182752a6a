# SPDX-License-Identifier: GPL-2.0-only
"""Pages: how often they are mapped and referenced, and that the reverse map leads to each mapping.

The central one is `reachable` (I13, I14): an entry that maps a page lies where the page's mapping
and index say it does. Together with the structure of the trees, which `rmap.check.topology` and
`rmap.check.trees` check, that is: a walk over the page finds exactly the entries that map it.
`walks` makes the walk as well, by the kernel's own search of the tree.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.check.entries import I64, U8
from rmap.check.recount import Recount, name_vma
from rmap.check.violation import invariant
from rmap.mm.bits import (
    _PAGE_DIRTY,
    _PAGE_RW,
    FREE_BLOCK_LISTED,
    HPAGE_PMD_ORDER,
    MAPPING_HANDLE_SHIFT,
    PAGE_MAPPING_FLAGS,
    SWAP_HAS_CACHE,
    VM_SHARED,
    VM_WRITE,
    PG_buddy,
    PG_dirty,
    PG_head,
    PG_hwpoison,
    PG_isolated,
    PG_locked,
    PG_reserved,
    PG_swapbacked,
    PG_swapcache,
    PG_tail,
    PG_zone_device,
)
from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.mm_types import IntervalNode, IntervalRoot, Kernel, Vma
from rmap.mm.page import page_private
from rmap.sync.locks import RwSem, SpinLock

#: Locks of which a machine has one, by their names in `Kernel`.
KERNEL_LOCKS = (
    "lru_lock", "swap_lock", "mmlist_lock", "private_lock", "tasklist_lock", "split_queue_lock",
    "hugetlb_lock",
)  # fmt: skip

#: Of a list of pages, so many are told.
TOLD = 4


def _told(pages: I64) -> str:
    more = f" and {len(pages) - TOLD} more" if len(pages) > TOLD else ""
    return ", ".join(f"{page:#x}" for page in pages[:TOLD].tolist()) + more


@invariant("tables", "page tables are trees of entries that lie in VMAs, and are counted")
def tables(facts: Recount) -> Iterator[str]:
    """Whatever a table holds lies in some VMA; a table hangs in one place; NR_PAGETABLE."""
    yield from facts.problems
    entries = facts.entries
    astray = entries.where(entries.vma < 0)
    for mm, address in zip(astray.mm[:TOLD].tolist(), astray.address.tolist(), strict=False):
        yield f"mm {facts.mms[mm].ident} has an entry at {address:#x}, outside every VMA"
    huge = entries.where((entries.order > 0) & (entries.vma >= 0))
    long = huge.where(huge.end > facts.vma_end[huge.vma]) if len(huge) else huge
    for number, address in zip(long.vma[:TOLD].tolist(), long.address.tolist(), strict=False):
        yield f"{name_vma(facts.vmas[number])} ends within a huge entry, at {address:#x}"
    rows = np.concatenate([*facts.table_rows, np.array(facts.deposited_rows, np.int64)])
    shared = np.isin(rows, list(facts.kernel.pmd_sharers))
    rows = np.concatenate((rows[~shared], np.unique(rows[shared])))
    if len(np.unique(rows)) != len(rows):
        yield "a page table hangs in two places"
    free = set(facts.kernel.pt_free)
    lost = free & set(rows.tolist())
    if lost or len(free) != len(facts.kernel.pt_free):
        yield f"page tables in use are on the free list, or twice on it: {sorted(lost)}"
    if len(rows) + len(free) != facts.kernel.pt_next - 1:
        yield f"of {facts.kernel.pt_next - 1} page tables {len(rows)} are used and {len(free)} free"


@invariant("mapcount", "a page's _mapcount counts the entries that map it (I10, I11)")
def mapcount(facts: Recount) -> Iterator[str]:
    """I10, and of the parts of huge pages that of I11 which is in `_mapcount`."""
    counted = np.asarray(facts.kernel.pg_mapcount).astype(np.int64) + 1
    expected = expected_mapcounts(facts)
    for page in np.flatnonzero(counted != expected).tolist():
        yield f"page {page:#x}: mapcount {counted[page]}, {expected[page]} entries map it"


def expected_mapcounts(facts: Recount) -> I64:
    """What `_mapcount` of each page should be, plus one: the entries that map just it.

    Of an anonymous huge page that both sorts of entries map (PG_double_map), one more; of one of
    a file, the entries that map the whole as well.
    """
    found = facts.pte_counts.copy()
    if facts.heads:
        part = facts.flagged(PG_head | PG_tail) & ~facts.hugetlb
        found[part & facts.anon & facts.double_mapped[facts.head]] += 1
        of_file = part & ~facts.anon
        found[of_file] += facts.pmd_counts[facts.head[of_file]]
    return found


@invariant("refcount", "a page's _refcount counts its mappings, its cache, and who pinned it (I12)")
def refcount(facts: Recount) -> Iterator[str]:
    """I12; exact if the pins are known. References to a compound page are its head's."""
    k = facts.kernel
    found = facts.pmd_counts + facts.hugetlb_counts
    np.add.at(found, facts.head, facts.pte_counts)
    for page, count in facts.cached_pages.items():
        found[facts.head[page]] += count
    for page in facts.swap_cache:
        found[page] += 1
    for page in facts.continuation_pages:
        found[page] += 1
    # A device has one to each page of its memory.
    found[facts.flagged(PG_zone_device)] += 1
    # Set aside for good, by a reference that is nobody's: the zero pages.
    found[facts.flagged(PG_reserved)] += 1
    if facts.huge_zero_page > 0:
        found[facts.huge_zero_page] += 1
    for page, count in (facts.pins or {}).items():
        found[facts.head[page]] += count
    # Taken by memory_failure(), so that nobody gets broken memory again.
    for page, count in k.poisoned.items():
        found[page] += count
    counted = np.asarray(k.pg_refcount).astype(np.int64)
    wrong = counted < found if facts.pins is None else counted != found
    for page in np.flatnonzero(wrong).tolist():
        yield f"page {page:#x}: refcount {counted[page]}, found {found[page]}"


@invariant("reachable", "an entry lies where its page's mapping and index say (I13, I14, I17)")
def reachable(facts: Recount) -> Iterator[str]:
    """I13 and I14, by page and VMA; also of pages that wait, or are in a device's memory."""
    held, pages = facts.held, facts.held_pages
    if not len(held):
        return
    index = facts.pgoff[pages]
    plain = facts.mapping[pages] & np.uint32(PAGE_MAPPING_FLAGS) != PAGE_MAPPING_FLAGS
    for row in np.flatnonzero((index != facts.held_pgoff) & plain & (held.vma >= 0)).tolist():
        yield (
            f"page {pages[row]:#x} has index {index[row]:#x}, and is mapped in "
            f"{name_vma(facts.vmas[held.vma[row]])} where that is {facts.held_pgoff[row]:#x}"
        )
    words = facts.mapping[pages].astype(np.int64)
    pairs = np.unique(np.stack((held.vma, words), axis=1), axis=0)
    for number, word in pairs[pairs[:, 0] >= 0].tolist():
        problem = _unreachable(facts, facts.vmas[number], word)
        if problem:
            row = int(np.flatnonzero((held.vma == number) & (words == word))[0])
            where = name_vma(facts.vmas[number])
            yield f"page {pages[row]:#x} is mapped in {where}: {problem}"


def _unreachable(facts: Recount, vma: Vma, word: int) -> str:
    """Why a page with such a mapping, mapped in the VMA, is not found there by a walk."""
    tag, handle = word & PAGE_MAPPING_FLAGS, word >> MAPPING_HANDLE_SHIFT
    if tag == PAGE_MAPPING_FLAGS:
        return ""
    if tag:
        if handle in facts.free_anon_vmas:
            return f"its anon_vma {handle} is freed"
        if handle not in [int(avc.anon_vma.handle) for avc in vma.anon_vma_chain]:
            return f"its anon_vma {handle} is not on the VMA's chain"
        return ""
    if not word:
        return "it has no mapping"
    if vma.vm_file is None or int(vma.vm_file.f_mapping.handle) != handle:
        return f"it is a page of {facts.kernel.mappings[handle].name}, which the VMA does not map"
    return ""


@invariant("walks", "a walk finds every entry that maps a page, each VMA once (I13, I14, I27)")
def walks(facts: Recount) -> Iterator[str]:
    """Both directions of the mapping, by the kernel's own search of the trees."""
    held = facts.held
    heads = facts.head[facts.held_pages]
    numbers = {id(vma): number for number, vma in enumerate(facts.vmas)}
    met: dict[int, set[int]] = {}
    for head in np.unique(heads).tolist():
        root = _root_of(facts, head)
        if root is not None:
            first = int(facts.pgoff[head])
            last = first + int(facts.sizes[head]) - 1
            visited = [numbers.get(id(vma), -1) for vma in _vmas_over(root, first, last)]
            met[head] = set(visited)
            if -1 in met[head]:
                yield f"a walk of page {head:#x} comes to a VMA that is no mm's"
            if len(visited) != len(met[head]):
                yield f"a walk of page {head:#x} comes to a VMA twice"
    into = (facts.pgoff[facts.held_pages] - facts.held_pgoff).astype(np.int64).tolist()
    rows = zip(facts.held_pages.tolist(), heads.tolist(), held.vma.tolist(), into, strict=True)
    for row, (page, head, number, off) in enumerate(rows):
        if head in met and (off or number not in met[head]):
            where = f"{held.address[row]:#x} in "
            where += name_vma(facts.vmas[number]) if number >= 0 else "no VMA"
            yield f"page {page:#x} is mapped at {where}, where no walk comes"


def _root_of(facts: Recount, page: int) -> IntervalRoot | None:
    """The tree that a walk over a page goes through."""
    word = int(facts.mapping[page])
    handle = word >> MAPPING_HANDLE_SHIFT
    if word & PAGE_MAPPING_FLAGS == PAGE_MAPPING_FLAGS or not word:
        return None
    owner = (facts.kernel.anon_vmas if word & PAGE_MAPPING_FLAGS else facts.kernel.mappings)[handle]
    if owner is None:
        return None
    return owner.rb_root if word & PAGE_MAPPING_FLAGS else owner.i_mmap


def _vmas_over(root: IntervalRoot, first: int, last: int) -> Iterator[Vma]:
    """VMAs in a tree that cover some of a range of pages, found as the kernel finds them."""
    node: IntervalNode | None = interval_tree_iter_first(root, first, last)
    while node is not None:
        yield node.vma
        node = interval_tree_iter_next(node, first, last)


def most_mapped(facts: Recount, pages: I64, order: U8) -> I64:
    """How often each page is mapped, of one of 2**order pages that part which is most often."""
    counts = facts.map_counts[pages]
    for row in np.flatnonzero(order).tolist():
        counts[row] = facts.map_counts[pages[row] : pages[row] + (1 << int(order[row]))].max()
    return counts


@invariant("copy-on-write", "what several may read, none of them may write")
def copy_on_write(facts: Recount) -> Iterator[str]:
    """A writable entry: only in a VMA that may be written; if private, of its own page alone."""
    writable = facts.mapped.where(facts.mapped.value & np.uint64(_PAGE_RW) != 0)
    shared = most_mapped(facts, writable.pfn, writable.order) > 1
    anon = facts.anon[writable.pfn]
    for row in range(len(writable)):
        vma = facts.vmas[writable.vma[row]]
        where = f"page {writable.pfn[row]:#x} is writable in {name_vma(vma)}"
        if not vma.vm_flags & VM_WRITE:
            yield f"{where}, which is not"
        elif not vma.vm_flags & VM_SHARED and not anon[row]:
            yield f"{where}, which is private, and belongs to a file"
        elif not vma.vm_flags & VM_SHARED and shared[row]:
            yield f"{where}, and mapped elsewhere too"


@invariant("dirty-tracking", "a file's page that somebody may write to is dirty, or is noticed")
def dirty_tracking(facts: Recount) -> Iterator[str]:
    """Where dirty pages are counted, a shared entry is writable or dirty only if its page is dirty.

    Otherwise a store would go unnoticed: page_mkclean() makes entries clean and read-only before a
    page is written out.
    """
    mapped = facts.mapped.where((facts.mapped.vma >= 0) & ~facts.anon[facts.mapped.pfn])
    marks = np.uint64(_PAGE_RW | _PAGE_DIRTY)
    dirty = facts.flagged(PG_dirty)
    for row in np.flatnonzero((mapped.value & marks != 0) & ~dirty[mapped.pfn]).tolist():
        vma = facts.vmas[mapped.vma[row]]
        file = vma.vm_file
        if vma.vm_flags & VM_SHARED and file is not None and file.f_mapping.writenotify:
            yield f"page {mapped.pfn[row]:#x} is clean, and not so in {name_vma(vma)}"


@invariant("swap-cache", "a page of the swap cache is swap-backed, and its slot knows it (I19)")
def swap_cache(facts: Recount) -> Iterator[str]:
    """I19."""
    k = facts.kernel
    flagged = set(np.flatnonzero(facts.flagged(PG_swapcache)).tolist())
    for page in sorted(flagged ^ set(facts.swap_cache)):
        yield f"page {page:#x} has PG_swapcache or is in the swap cache, and not both"
    for page, (type_, slot) in facts.swap_cache.items():
        if not facts.flagged(PG_swapbacked)[page]:
            yield f"page {page:#x} is in the swap cache and not PG_swapbacked"
        entry = int(page_private(k, page))
        if entry != type_ << 57 | slot:
            yield f"page {page:#x} of slot {slot} of area {type_} has private {entry:#x}"
        if not k.swap_areas[type_].swap_map[slot] & SWAP_HAS_CACHE:
            yield f"slot {slot} of area {type_} has page {page:#x} and not SWAP_HAS_CACHE"
        handle = int(facts.mapping[page]) >> MAPPING_HANDLE_SHIFT
        stale = facts.plain_anon[page] and handle in facts.free_anon_vmas
        if stale and facts.slot_users[type_, slot]:
            yield f"page {page:#x} of the swap cache names anon_vma {handle}, which is freed"


@invariant("file-pages", "a page of a page cache names its file and its place in it")
def file_pages(facts: Recount) -> Iterator[str]:
    """page->mapping and page->index of cached pages, and nrpages."""
    for mapping in facts.mappings:
        pages = facts.pages_of(mapping)
        order = mapping.hstate.order if mapping.hstate is not None else 0
        if len(pages) != mapping.nrpages:
            yield f"{mapping.name}: nrpages {mapping.nrpages}, found {len(pages)}"
        for index, page in pages:
            if facts.mapping[page] != mapping.handle << MAPPING_HANDLE_SHIFT:
                yield f"page {page:#x} in the cache of {mapping.name} has another mapping"
            if facts.pgoff[page] != index << order:
                where = f"page {page:#x} at {index:#x} of {mapping.name}"
                yield f"{where} has index {facts.pgoff[page]:#x}"


@invariant("free-pages", "a free page is unmapped, has no content, and is on the free list once")
def free_pages(facts: Recount) -> Iterator[str]:
    """The allocator's stack, and the state in which pages are freed."""
    k = facts.kernel
    free = (np.asarray(k.pg_refcount)[facts.head] == 0) & ~facts.hugetlb
    free[0] = False
    free[list(k.lost_pages)] = False
    listed: list[int] = []
    page = int(k.free_head)
    before = 0
    while page and len(listed) <= k.nr_pages:
        if k.pg_lru_prev[page] != before:
            yield f"free page {page:#x} does not lead back to {before:#x}"
        listed.append(page)
        before, page = page, int(k.pg_lru_next[page])
    yield from _free_blocks(k, np.array(listed, np.int64))
    listed.extend(range(int(k.free_next), int(k.free_last) + 1))
    expected = np.flatnonzero(free & ~facts.flagged(PG_hwpoison))
    if len(listed) != len(set(listed)) or not set(expected.tolist()) <= set(listed):
        yield f"{len(listed)} pages are on the free list, {len(expected)} have no reference"
    marks = np.asarray(k.pg_flags) & ~np.uint32(PG_buddy | PG_hwpoison)
    used = (facts.mapping != 0) | (marks != 0) | (np.asarray(k.pg_memcg) != 0)
    rows = np.array(listed, np.int64)
    for page in rows[~free[rows]].tolist():
        yield f"page {page:#x} is free and has {k.pg_refcount[page]} references"
    for page in rows[free[rows] & used[rows]].tolist():
        yield f"page {page:#x} is free and has flags, a mapping or a cgroup"
    if k.nr_free != len(listed):
        yield f"{k.nr_free} pages are counted free, found {len(listed)}"
    for page in k.content:
        if free[page]:
            yield f"page {page:#x} is free and has content"


def _free_blocks(k: Kernel, stacked: I64) -> Iterator[str]:
    """Each block counts its free pages, and one that is free as a whole is listed."""
    noted = np.asarray(k.block_free).astype(np.int64)
    counted = np.bincount(stacked >> HPAGE_PMD_ORDER, minlength=len(noted))
    for block in np.flatnonzero(noted & ~FREE_BLOCK_LISTED != counted).tolist():
        yield f"block {block} counts {noted[block]:#x} free pages, found {counted[block]}"
    listed = np.flatnonzero(noted & FREE_BLOCK_LISTED).tolist()
    if sorted(k.free_blocks) != listed:
        yield f"blocks {k.free_blocks} are listed as free, those marked are {listed}"


@invariant("at-rest", "no lock is held and no page isolated between operations (I28)")
def at_rest(facts: Recount) -> Iterator[str]:
    """Every lock of every object; PG_locked; the page-table locks."""
    k = facts.kernel
    for page in np.flatnonzero(facts.flagged(PG_locked | PG_isolated)).tolist():
        yield f"page {page:#x} is locked or isolated"
    for row in np.flatnonzero(np.asarray(k.pt_locked)).tolist():
        yield f"page table {row} is locked"
    for name, lock in _locks(facts):
        if lock.count if isinstance(lock, RwSem) else lock.locked:
            yield f"{name} is held"


def _locks(facts: Recount) -> Iterator[tuple[str, RwSem | SpinLock]]:
    """Every lock that is an object, and what to call it."""
    k = facts.kernel
    for mm in facts.mms:
        yield f"mmap_sem of mm {mm.ident}", mm.mmap_sem
        yield f"page_table_lock of mm {mm.ident}", mm.page_table_lock
    for mapping in facts.mappings:
        yield f"i_rwsem of {mapping.name}", mapping.i_rwsem
        yield f"i_mmap_rwsem of {mapping.name}", mapping.i_mmap_rwsem
        yield f"i_pages_lock of {mapping.name}", mapping.i_pages_lock
        if mapping.resv_map is not None:
            yield f"the lock of what {mapping.name} has reserved", mapping.resv_map.lock
    for vma in facts.vmas:
        if vma.resv_map is not None:
            yield f"the lock of what {name_vma(vma)} has reserved", vma.resv_map.lock
    for av in k.anon_vmas:
        if av is not None:
            yield f"rwsem of anon_vma {av.handle}", av.rwsem
    for area in k.swap_areas:
        yield f"the lock of swap area {area.type}", area.lock
    for memcg in k.memcgs:
        yield f"move_lock of cgroup {memcg.name}", memcg.move_lock
    for name in KERNEL_LOCKS:
        yield name, getattr(k, name)
    for number, mutex in enumerate(k.hugetlb_fault_mutexes):
        yield f"hugetlb_fault_mutex {number}", mutex
    yield "khugepaged_mm_lock", k.khugepaged.mm_lock
    if k.ksm is not None:
        yield "ksm_thread_mutex", k.ksm.thread_mutex
        yield "ksm_mmlist_lock", k.ksm.mmlist_lock

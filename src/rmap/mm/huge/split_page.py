# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""A huge page becomes 512 small ones: split_huge_page() (mm/huge_memory.c, v4.18).

Locks, outermost first: the page lock (the caller's); the page's anon_vma for write, or the i_mmap
of its file for read; page-table locks, one at a time; k.lru_lock, the i_pages lock of the file, and
k.split_queue_lock inside of each other, around the change itself.

Nobody may see half of it. All mappings are replaced by migration entries first, at which faults
wait for the page lock (a page of a file is simply unmapped, to be faulted in again); then the
references are frozen at 0, so that nobody can take one. Both succeed only if the caller's is the
one reference that is neither a mapping's nor a cache's. That the anon_vma is held for write keeps
away whoever walks the page without its lock, and whoever is about to split it, too.

Huge pages are never in the swap cache here, as reclaim splits them before.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import (
        anon_vma_lock_write,
        anon_vma_unlock_write,
        page_get_anon_vma,
        put_anon_vma,
    )
    from rmap.mm.bits import (
        EBUSY,
        HPAGE_PMD_NR,
        MAPPING_HANDLE_SHIFT,
        NR_SHMEM_THPS,
        PAGE_FLAGS_CLONED_AT_SPLIT,
        SHRINK_STOP,
        SPLIT_QUEUED,
        SPLIT_TAKEN,
        THP_SPLIT_PAGE,
        THP_SPLIT_PAGE_FAILED,
        TTU_IGNORE_ACCESS,
        TTU_IGNORE_MLOCK,
        TTU_RMAP_LOCKED,
        TTU_SPLIT_FREEZE,
        TTU_SPLIT_HUGE_PMD,
        ULONG_MAX,
        PG_dirty,
        PG_double_map,
        PG_head,
        PG_idle,
        PG_tail,
        PG_young,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.lru import lru_add_page_tail, put_page
    from rmap.mm.migrate.entries import remove_migration_ptes
    from rmap.mm.mm_inline import mem_cgroup_page_lruvec
    from rmap.mm.mm_types import AddressSpace, AnonVma, Kernel, LruVec
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageCompound,
        PageHuge,
        PageLocked,
        PageTransHuge,
        PageWriteback,
        SetPage,
        compound_head,
        compound_mapcount,
        get_page_unless_zero,
        page_count,
        page_index,
        page_mapping_word,
        page_ref_add,
        page_ref_freeze,
        page_ref_sub,
        page_ref_unfreeze,
        set_page_index,
        set_page_mapping,
        total_mapcount,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_cache import delete_from_page_cache_locked, page_cache_item
    from rmap.mm.unmap import try_to_unmap
    from rmap.scalar import flag, i32, i64, u32, u64
    from rmap.sync.bits import FIELD_PAGE_FLAGS, OP_RMW, RANK_PAGE_LOCK, WRITE_MODE
    from rmap.sync.core import lock_acquired, sched, sched_point


# ---------------------------------------------------------------- may it be split?


def extra_pins(k: Kernel, page: u64) -> i32:
    """References of a huge page that are the page cache's: one of each of its parts."""
    return 0 if PageAnon(k, page) else HPAGE_PMD_NR


def can_split_huge_page(k: Kernel, page: u64) -> flag:
    """Whether nobody but the caller, mappings and the cache has a reference to a huge page.

    mm/huge_memory.c (v4.18). As of now: somebody may take one a moment later.
    """
    return total_mapcount(k, page) == page_count(k, page) - extra_pins(k, page) - 1


# ---------------------------------------------------------------- mappings


def freeze_page(k: Kernel, page: u64) -> i32:
    """Replace all mappings of a huge page by migration entries, of a file's page by nothing.

    mm/huge_memory.c (v4.18). PMDs are split by the way. The rmap lock is held. That something
    could not be unmapped is a bug, as no mapping is spared; v4.18 looks at the head only. Since
    5.13 the split fails then, which since 5.19 a page does that was pinned a moment ago.
    """
    ttu_flags: i32 = TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS | TTU_RMAP_LOCKED | TTU_SPLIT_HUGE_PMD
    if PageAnon(k, page):
        ttu_flags |= TTU_SPLIT_FREEZE
    if not try_to_unmap(k, page, ttu_flags) and not k.profile.unmap_sees_all_parts:
        BUG_PAGE("huge_memory.c freeze_page: a mapping of the huge page remains", page)
    return 0


def unfreeze_page(k: Kernel, page: u64) -> i32:
    """Map the page again where `freeze_page` left entries (mm/huge_memory.c:2316, v4.18).

    `page` was the head: if the split has failed it still is, otherwise there are 512 small pages.
    """
    i: u64
    if PageTransHuge(k, page):
        return remove_migration_ptes(k, page, page, True)
    for i in range(HPAGE_PMD_NR):
        remove_migration_ptes(k, page + i, page + i, True)
    return 0


# ---------------------------------------------------------------- falling apart


def _split_tail(k: Kernel, head: u64, tail: u64, lruvec: LruVec, pages: list | None) -> i32:
    """Make a tail a page of its own (__split_huge_page_tail(), mm/huge_memory.c, v4.18).

    Flags first: who gets a reference may change them. Until 4.20 mapping and index came after the
    references, so that who took one could find a page of nobody's.
    """
    if k.pg_mapcount[tail] != -1:
        BUG_PAGE("huge_memory.c __split_huge_page_tail: a part is mapped", tail)
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, tail)
    flags: u32 = k.pg_flags[head]
    # What the first tail had for all of them goes as well.
    k.pg_flags[tail] = (k.pg_flags[tail] & ~(PG_tail | PG_double_map)) | (
        flags & PAGE_FLAGS_CLONED_AT_SPLIT
    )
    if sched.checking:
        # It is locked like its head, by whoever has that one.
        lock_acquired(RANK_PAGE_LOCK, tail, WRITE_MODE, True)
    # The words of the first tail that held the order and the count of PMDs are its own now.
    k.pg_private[tail] = 0
    if k.profile.split_sets_mapping_first:
        _name_tail(k, head, tail)
    # One reference of the caller's, one of the cache's.
    page_ref_unfreeze(k, tail, 1 if PageAnon(k, head) else 2)
    if flags & (PG_young | PG_idle):
        SetPage(k, tail, flags & (PG_young | PG_idle))
    if not k.profile.split_sets_mapping_first:
        _name_tail(k, head, tail)
    return lru_add_page_tail(k, head, tail, lruvec, pages)


def _name_tail(k: Kernel, head: u64, tail: u64) -> i32:
    """Give a tail the mapping of its head, and its own place there."""
    set_page_mapping(k, tail, page_mapping_word(k, head))
    return set_page_index(k, tail, page_index(k, head) + (tail - head))


def _split_fixup_memcg(k: Kernel, head: u64) -> i32:
    """Charge each part by itself to whom the whole was charged (mem_cgroup_split_huge_fixup())."""
    i: u64
    for i in range(1, HPAGE_PMD_NR):
        k.pg_memcg[head + i] = k.pg_memcg[head]
    return 0


def _beyond_end(k: Kernel, page: u64, mapping: AddressSpace) -> i32:
    """Take a part that lies behind the end of its file out of the page cache."""
    ClearPage(k, page, PG_dirty)
    delete_from_page_cache_locked(k, page, mapping, 0)
    # Not the last one: that is dropped when no lock is held any more.
    return page_ref_sub(k, page, 1)


def _split(k: Kernel, page: u64, mapping: AddressSpace | None, pages: list | None) -> i32:
    """Split a frozen huge page, of which `page` is a part (__split_huge_page()).

    k.lru_lock and, for a file's page, the i_pages lock are held, and given back. Every part but
    `page` is unlocked and its reference dropped; those that nothing mapped are free then.
    """
    head: u64 = compound_head(k, page)
    lruvec: LruVec = mem_cgroup_page_lruvec(k, head)
    end: u64 = ULONG_MAX if mapping is None else mapping.size_pages
    i: u64
    _split_fixup_memcg(k, head)
    for i in range(HPAGE_PMD_NR - 1, 0, -1):
        _split_tail(k, head, head + i, lruvec, pages)
        if mapping is not None and page_index(k, head + i) >= end:
            _beyond_end(k, head + i, mapping)
    ClearPage(k, head, PG_head)
    if mapping is None:
        page_ref_add(k, head, 1)
    else:
        page_ref_add(k, head, 2)
        mapping.i_pages_lock.unlock()
    k.lru_lock.unlock()
    unfreeze_page(k, head)
    for i in range(HPAGE_PMD_NR):
        if head + i != page:
            unlock_page(k, head + i)
            put_page(k, head + i)
    return 0


# ---------------------------------------------------------------- the function


def split_huge_page(k: Kernel, page: u64) -> i32:
    """`split_huge_page_to_list` for a huge page that is on the LRU, or whose isolator asks."""
    return split_huge_page_to_list(k, page, None)


def split_huge_page_to_list(k: Kernel, page: u64, pages: list | None) -> i32:
    """Split a huge page into small ones; 0, or -EBUSY if somebody else uses it.

    mm/huge_memory.c (v4.18). `page` is any part of it. The caller holds the page lock and one
    reference, and has them of `page` afterwards, and of no other part. If the page was isolated
    from the LRU, `pages` gets the tails, isolated too, each with a reference.

    What does not look at the page lock may have a reference: a pin of get_user_pages(), reclaim
    that has isolated the page. Then nothing is changed, but that PMDs may have been split.
    """
    head: u64 = compound_head(k, page)
    ret: i32
    if head == k.huge_zero_page:
        BUG_PAGE("huge_memory.c split_huge_page of the huge zero page", page)
    if not PageLocked(k, page):
        BUG_PAGE("huge_memory.c split_huge_page: the page is not locked", page)
    if not PageCompound(k, page) or PageHuge(k, page):
        BUG_PAGE("huge_memory.c split_huge_page of a page that is not huge", page)
    if PageWriteback(k, page):
        return -EBUSY
    if PageAnon(k, head):
        ret = _split_anon(k, page, head, pages)
    else:
        ret = _split_file(k, page, head, pages)
    k.vm_stat[THP_SPLIT_PAGE if ret == 0 else THP_SPLIT_PAGE_FAILED] += 1
    if k.tracer is not None:
        k.tracer("split_huge_page", (page, ret))
    return ret


def _split_anon(k: Kernel, page: u64, head: u64, pages: list | None) -> i32:
    """Split an anonymous huge page. Unmapped, its anon_vma may be gone, and it stays whole."""
    anon_vma: AnonVma = page_get_anon_vma(k, head)
    if anon_vma is None:
        return -EBUSY
    anon_vma_lock_write(anon_vma)
    ret: i32 = _freeze_and_split(k, page, head, None, pages)
    anon_vma_unlock_write(anon_vma)
    put_anon_vma(k, anon_vma)
    return ret


def _split_file(k: Kernel, page: u64, head: u64, pages: list | None) -> i32:
    """Split a huge page of a file, which truncation may have taken out of that."""
    word: u64 = page_mapping_word(k, head)
    if not word:
        return -EBUSY
    mapping: AddressSpace = k.mappings[word >> MAPPING_HANDLE_SHIFT]
    mapping.i_mmap_rwsem.down_read()
    ret: i32 = _freeze_and_split(k, page, head, mapping, pages)
    mapping.i_mmap_rwsem.up_read()
    return ret


def _freeze_and_split(
    k: Kernel, page: u64, head: u64, mapping: AddressSpace | None, pages: list | None
) -> i32:
    """Unmap, freeze the references, and split; or map again and return -EBUSY."""
    # Not for certain, but PMDs would be split in vain.
    if not can_split_huge_page(k, head):
        return -EBUSY
    extra: i32 = extra_pins(k, head)
    freeze_page(k, head)
    if compound_mapcount(k, head) and not k.profile.unmap_sees_all_parts:
        BUG_PAGE("huge_memory.c split_huge_page: a PMD maps the page yet", head)
    k.lru_lock.lock()
    if mapping is not None:
        mapping.i_pages_lock.lock()
        if page_cache_item(mapping, page_index(k, head)) != head:
            return _give_up(k, head, mapping)
    k.split_queue_lock.lock()
    mapped: i32 = total_mapcount(k, head)
    if mapped or not page_ref_freeze(k, head, 1 + extra):
        k.split_queue_lock.unlock()
        if k.debug_vm and mapped and not k.profile.unmap_sees_all_parts:
            BUG_PAGE("huge_memory.c split_huge_page: total_mapcount(head) > 0", head)
        return _give_up(k, head, mapping)
    k.deferred_split_queue.pop(head, None)
    if mapping is not None:
        k.vm_stat[NR_SHMEM_THPS] -= 1
    k.split_queue_lock.unlock()
    _split(k, page, mapping, pages)
    return 0


def _give_up(k: Kernel, head: u64, mapping: AddressSpace | None) -> i32:
    """Drop the locks, and map what was unmapped; -EBUSY."""
    if mapping is not None:
        mapping.i_pages_lock.unlock()
    k.lru_lock.unlock()
    unfreeze_page(k, head)
    return -EBUSY


# ---------------------------------------------------------------- when memory is short


def deferred_split_count(k: Kernel) -> i64:
    """How many huge pages are to be split (mm/huge_memory.c:2799, v4.18)."""
    return len(k.deferred_split_queue)


def deferred_split_scan(k: Kernel, nr_to_scan: i64) -> i64:
    """Split up to so many huge pages of the queue; how many were, or ``SHRINK_STOP``.

    mm/huge_memory.c (v4.18). Those that somebody has locked or pinned go back to its end.
    """
    taken: list = _take_deferred(k, nr_to_scan)
    split: i64 = 0
    page: u64
    for page in taken:
        if trylock_page(k, page):
            if split_huge_page(k, page) == 0:
                split += 1
            unlock_page(k, page)
        put_page(k, page)
    k.split_queue_lock.lock()
    for page in taken:
        if k.deferred_split_queue.get(page, SPLIT_QUEUED) == SPLIT_TAKEN:
            del k.deferred_split_queue[page]
            k.deferred_split_queue[page] = SPLIT_QUEUED
    empty: flag = len(k.deferred_split_queue) == 0
    k.split_queue_lock.unlock()
    if not split and empty:
        return SHRINK_STOP
    return split


def _take_deferred(k: Kernel, nr_to_scan: i64) -> list:
    """Take pages off the front of the queue, with a reference each; the last one comes first.

    One without references is about to be freed, and taken off for good.
    """
    taken: list = []
    page: u64
    k.split_queue_lock.lock()
    for page, where in list(k.deferred_split_queue.items()):
        if where == SPLIT_TAKEN:
            continue
        if get_page_unless_zero(k, page):
            k.deferred_split_queue[page] = SPLIT_TAKEN
            taken.insert(0, page)
        else:
            del k.deferred_split_queue[page]
        nr_to_scan -= 1
        if nr_to_scan <= 0:
            break
    k.split_queue_lock.unlock()
    return taken

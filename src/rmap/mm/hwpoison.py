# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Pages whose memory is broken: keeping them, and what becomes of each kind (mm/memory-failure.c).

Locks: the page lock is held by the caller of what deals with a page in use; inside it the LRU
lock, and i_pages_lock of a file or of swap.

A page that was in use stays so: one reference is kept for good, so that nobody gets it again. A
free one stays on the free list, and the allocator passes it over when it comes to it.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        EIO,
        MF_DELAYED,
        MF_FAILED,
        MF_IGNORED,
        MF_MSG_CLEAN_LRU,
        MF_MSG_CLEAN_MLOCKED_LRU,
        MF_MSG_CLEAN_SWAPCACHE,
        MF_MSG_CLEAN_UNEVICTABLE_LRU,
        MF_MSG_DIRTY_LRU,
        MF_MSG_DIRTY_MLOCKED_LRU,
        MF_MSG_DIRTY_SWAPCACHE,
        MF_MSG_DIRTY_UNEVICTABLE_LRU,
        MF_MSG_HUGE,
        MF_MSG_KERNEL,
        MF_MSG_UNKNOWN,
        MF_RECOVERED,
        PG_active,
        PG_dirty,
        PG_error,
        PG_head,
        PG_hwpoison,
        PG_isolated,
        PG_lru,
        PG_mlocked,
        PG_reserved,
        PG_swapbacked,
        PG_swapcache,
        PG_unevictable,
        PG_uptodate,
        PG_writeback,
    )
    from rmap.mm.hugetlb.file import remove_huge_page
    from rmap.mm.hugetlb.pool import dissolve_free_huge_page, hugetlb_acct_memory
    from rmap.mm.hugetlb.reserve import hugetlb_unreserve_pages
    from rmap.mm.lru import isolate_lru_page, put_page
    from rmap.mm.memcg import mem_cgroup_uncharge
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageHuge,
        PageTransHuge,
        SetPage,
        TestClearPage,
        TestSetPage,
        compound_head,
        get_page_unless_zero,
        lock_page,
        page_count,
        page_index,
        page_mapped,
        page_mapping,
        page_ref_unfreeze,
        unlock_page,
    )
    from rmap.mm.page_alloc import is_free_page
    from rmap.mm.shrink_page_list import remove_mapping
    from rmap.mm.swap_cache import delete_from_swap_cache
    from rmap.mm.truncate import truncate_inode_page
    from rmap.scalar import flag, i32, u32, u64

# Both say that a page is in the swap cache.
SWAPCACHE = cython.declare(cython.uint, PG_swapcache | PG_swapbacked)


# ---------------------------------------------------------------- marking and keeping


def test_set_page_hwpoison(k: Kernel, page: u64) -> flag:
    """Mark a page broken and count it; whether it was so before."""
    if TestSetPage(k, page, PG_hwpoison):
        return True
    k.num_poisoned_pages += 1
    return False


def test_clear_page_hwpoison(k: Kernel, page: u64) -> flag:
    """Take the mark off and count it less; whether it was there."""
    if not TestClearPage(k, page, PG_hwpoison):
        return False
    k.num_poisoned_pages -= 1
    return True


def get_hwpoison_page(k: Kernel, page: u64) -> flag:
    """Take a reference to a page that may be in any state; false if it has none, or by a refusal.

    A huge page of shared memory is refused: what handles these pages cannot deal with it.
    """
    head: u64 = compound_head(k, page)
    if PageTransHuge(k, head) and not PageHuge(k, head) and not PageAnon(k, head):
        return False
    if get_page_unless_zero(k, head):
        if head == compound_head(k, page):
            return True
        # It was split in between, and this would be another page's reference.
        put_page(k, head)
    return False


def keep(k: Kernel, page: u64) -> i32:
    """Note that a reference stays with the page for good."""
    page = compound_head(k, page)
    k.poisoned[page] = k.poisoned.get(page, 0) + 1
    return 0


def let_go(k: Kernel, page: u64) -> i32:
    """Give such a reference back."""
    page = compound_head(k, page)
    left: i32 = k.poisoned.get(page, 0) - 1
    if left > 0:
        k.poisoned[page] = left
    else:
        k.poisoned.pop(page, None)
    return put_page(k, page)


def is_free_buddy_page(k: Kernel, page: u64) -> flag:
    """Whether the page is the allocator's."""
    return is_free_page(k, page)


def action_result(k: Kernel, page: u64, kind: i32, result: i32) -> i32:
    """Note what kind of page it was (``MF_MSG_``), and what became of it."""
    k.mf_actions.append((page, kind, result))
    if k.tracer is not None:
        k.tracer("action_result", (page, kind, result))
    return 0


# ---------------------------------------------------------------- leaving LRU, file and swap


def delete_from_lru_cache(k: Kernel, page: u64) -> i32:
    """Take a page off its LRU list and out of its cgroup; -EIO if it is on none."""
    if isolate_lru_page(k, page):
        return -EIO
    ClearPage(k, page, PG_active)
    ClearPage(k, page, PG_unevictable)
    # Isolated for good: nobody puts it back.
    ClearPage(k, page, PG_isolated)
    mem_cgroup_uncharge(k, page)
    return put_page(k, page)


def truncate_error_page(k: Kernel, page: u64, mapping: AddressSpace) -> i32:
    """Take a page out of its file: read again, it is what was written to disk last.

    Shared memory has no disk: there the page becomes a hole, which reads as zeros. So it does in
    hugetlbfs, where the promise of the page is given back (hugetlbfs_error_remove_page()).
    """
    index: u64
    if mapping.hstate is None:
        truncate_inode_page(k, mapping, page)
        return MF_RECOVERED
    index = page_index(k, page)
    remove_huge_page(k, page, mapping)
    if hugetlb_unreserve_pages(k, mapping, index, index + 1, 1) < 0:
        hugetlb_acct_memory(k, mapping.hstate, 1)
    return MF_RECOVERED


def invalidate_inode_page(k: Kernel, page: u64) -> flag:
    """Drop a clean page that nothing maps from its file, if only we have it; whether it was.

    mm/truncate.c (v4.18). The page is locked, and the caller's reference stays.
    """
    mapping: AddressSpace = page_mapping(k, page)
    if mapping is None or k.pg_flags[page] & (PG_dirty | PG_writeback) or page_mapped(k, page):
        return False
    if k.pg_flags[page] & SWAPCACHE == SWAPCACHE:
        # What page->mapping names then is an anon_vma, or nothing: no file has it.
        return False
    if not remove_mapping(k, page, mapping):
        return False
    page_ref_unfreeze(k, page, 1)
    return True


# ---------------------------------------------------------------- kinds of pages


def _me_kernel(k: Kernel, page: u64) -> i32:
    """A page of the kernel's: nothing can be done."""
    return MF_IGNORED


def _me_unknown(k: Kernel, page: u64) -> i32:
    """A page of nobody knows whom."""
    return MF_FAILED


def _me_pagecache_clean(k: Kernel, page: u64) -> i32:
    """A page that can be had again, or that nobody can reach any more: forget it."""
    delete_from_lru_cache(k, page)
    if PageAnon(k, page):
        return MF_RECOVERED
    mapping: AddressSpace = page_mapping(k, page)
    if mapping is None:
        # Truncated, or migrated, since it was looked at.
        return MF_FAILED
    return truncate_error_page(k, page, mapping)


def _me_pagecache_dirty(k: Kernel, page: u64) -> i32:
    """A page whose contents are nowhere else: they are lost, and fsync() will say so, once."""
    mapping: AddressSpace = page_mapping(k, page)
    SetPage(k, page, PG_error)
    if mapping is not None:
        mapping.wb_err = -EIO
    return _me_pagecache_clean(k, page)


def _me_swapcache_dirty(k: Kernel, page: u64) -> i32:
    """A page that swap has no copy of yet stays in the swap cache, in wait for who has its entry.

    Who faults on the entry finds the page and is killed; shmem finds it not up to date, an error.
    """
    ClearPage(k, page, PG_dirty)
    ClearPage(k, page, PG_uptodate)
    if delete_from_lru_cache(k, page) == 0:
        return MF_DELAYED
    return MF_FAILED


def _me_swapcache_clean(k: Kernel, page: u64) -> i32:
    """A page that swap has a copy of: whoever has the entry reads that."""
    delete_from_swap_cache(k, page)
    if delete_from_lru_cache(k, page) == 0:
        return MF_RECOVERED
    return MF_FAILED


def _me_huge_page(k: Kernel, page: u64) -> i32:
    """A part of a hugetlb page, whose head is locked: it leaves its file, or goes to its pool.

    Of a huge page that is not one of hugetlb only the broken part is here, and that was split off.
    """
    head: u64 = compound_head(k, page)
    if not PageHuge(k, head):
        return MF_DELAYED
    mapping: AddressSpace = page_mapping(k, head)
    if mapping is not None:
        return truncate_error_page(k, head, mapping)
    unlock_page(k, head)
    if PageAnon(k, head):
        # Nobody can reach it: in the pool it can be taken apart.
        let_go(k, head)
    dissolve_free_huge_page(k, page)
    lock_page(k, head)
    return MF_RECOVERED


def _kind_of(flags: u32) -> i32:
    """What kind of page flags are those of (the table error_states); the first that fits."""
    dirty: flag = flags & PG_dirty != 0
    if flags & PG_reserved:
        return MF_MSG_KERNEL
    if flags & PG_head:
        return MF_MSG_HUGE
    if flags & SWAPCACHE == SWAPCACHE:
        return MF_MSG_DIRTY_SWAPCACHE if dirty else MF_MSG_CLEAN_SWAPCACHE
    if flags & PG_mlocked:
        return MF_MSG_DIRTY_MLOCKED_LRU if dirty else MF_MSG_CLEAN_MLOCKED_LRU
    if flags & PG_unevictable:
        return MF_MSG_DIRTY_UNEVICTABLE_LRU if dirty else MF_MSG_CLEAN_UNEVICTABLE_LRU
    if flags & PG_lru:
        return MF_MSG_DIRTY_LRU if dirty else MF_MSG_CLEAN_LRU
    return MF_MSG_UNKNOWN


def _act(k: Kernel, page: u64, kind: i32) -> i32:
    """Do what is to be done with a page of that kind."""
    if kind == MF_MSG_KERNEL:
        return _me_kernel(k, page)
    if kind == MF_MSG_HUGE:
        return _me_huge_page(k, page)
    if kind == MF_MSG_DIRTY_SWAPCACHE:
        return _me_swapcache_dirty(k, page)
    if kind == MF_MSG_CLEAN_SWAPCACHE:
        return _me_swapcache_clean(k, page)
    if MF_MSG_DIRTY_MLOCKED_LRU <= kind <= MF_MSG_CLEAN_LRU:
        # Dirty and clean take turns in the table.
        if (kind - MF_MSG_DIRTY_MLOCKED_LRU) % 2:
            return _me_pagecache_clean(k, page)
        return _me_pagecache_dirty(k, page)
    return _me_unknown(k, page)


def identify_page_state(k: Kernel, page: u64, page_flags: u32) -> i32:
    """Deal with a locked page by its kind; 0, or -EBUSY if its memory may still be used.

    By its flags now, or, if they say nothing (any more), by those it had before it was unmapped,
    which for a part of a hugetlb page are the head's; except that it is dirty if an entry was.
    """
    kind: i32 = _kind_of(k.pg_flags[page])
    if kind == MF_MSG_UNKNOWN:
        kind = _kind_of(page_flags | (k.pg_flags[page] & PG_dirty))
    return page_action(k, page, kind)


def page_action(k: Kernel, page: u64, kind: i32) -> i32:
    """Do that, and see whether nobody but us has a reference then."""
    result: i32 = _act(k, page, kind)
    count: i32 = page_count(k, page) - 1
    if kind == MF_MSG_DIRTY_SWAPCACHE and result == MF_DELAYED:
        count -= 1
    if count > 0:
        result = MF_FAILED
    action_result(k, page, kind, result)
    return 0 if result == MF_RECOVERED or result == MF_DELAYED else -EBUSY

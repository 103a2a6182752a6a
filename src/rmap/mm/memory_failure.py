# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Memory that breaks: memory_failure(), and taking it back (mm/memory-failure.c, v4.18).

Locks, outermost first: the page lock; inside it the rmap lock for read with tasklist_lock, to find
whom to tell; then what try_to_unmap() and the page's file or swap take. Nothing is held when the
signals are sent but the page lock. A huge page is split first, with the page lock alone held.

The page is unmapped everywhere, and what is left in the page tables kills whoever comes there, or,
where the contents can be had again, lets him read them anew. Merged pages (KSM) are more than v4.18
can handle, and it says so.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        ENXIO,
        HPAGE_PMD_ORDER,
        MF_ACTION_REQUIRED,
        MF_COUNT_INCREASED,
        MF_DELAYED,
        MF_IGNORED,
        MF_MSG_BUDDY,
        MF_MSG_DIFFERENT_COMPOUND,
        MF_MSG_FREE_HUGE,
        MF_MSG_KERNEL_HIGH_ORDER,
        MF_MSG_NON_PMD_HUGE,
        MF_MSG_TRUNCATED_LRU,
        MF_MSG_UNMAP_FAILED,
        MF_MUST_KILL,
        TTU_IGNORE_ACCESS,
        TTU_IGNORE_HWPOISON,
        TTU_IGNORE_MLOCK,
        PG_dirty,
        PG_lru,
        PG_reserved,
        PG_slab,
    )
    from rmap.mm.collect_procs import collect_procs, kill_procs
    from rmap.mm.huge.split_page import split_huge_page
    from rmap.mm.hugetlb.pool import dissolve_free_huge_page
    from rmap.mm.hwpoison import (
        action_result,
        get_hwpoison_page,
        identify_page_state,
        is_free_buddy_page,
        keep,
        let_go,
        test_clear_page_hwpoison,
        test_set_page_hwpoison,
    )
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AddressSpace, Kernel
    from rmap.mm.page import (
        PageAnon,
        PageCompound,
        PageDirty,
        PageHuge,
        PageHWPoison,
        PageKsm,
        PageLRU,
        PageSwapCache,
        PageTransHuge,
        SetPage,
        compound_head,
        compound_order,
        lock_page,
        page_count,
        page_mapped,
        page_mapping,
        page_mapping_word,
        unlock_page,
    )
    from rmap.mm.page_dirty import mapping_cap_account_dirty, wait_on_page_writeback
    from rmap.mm.page_mkclean import page_mkclean
    from rmap.mm.unmap import try_to_unmap
    from rmap.scalar import flag, i32, u32, u64


# ---------------------------------------------------------------- a page breaks


def memory_failure(k: Kernel, page: u64, flags: i32) -> i32:
    """Deal with a page whose memory is broken; 0 if nobody uses it any more, or -EBUSY.

    `flags` are ``MF_``: MF_COUNT_INCREASED hands a reference of the caller over,
    MF_ACTION_REQUIRED says that the running task cannot go on without the page, MF_MUST_KILL that
    it cannot go on in any case. -ENXIO: there is no such page. No lock is held by the caller.

    Kept references are noted in ``Kernel.poisoned``, what was done in ``Kernel.mf_actions`` and
    ``Kernel.kills``.
    """
    if page == 0 or page >= len(k.pg_flags):
        return -ENXIO
    error: i32 = _memory_failure(k, page, flags)
    if k.tracer is not None:
        k.tracer("memory_failure", (page, flags, error))
    return error


def _memory_failure(k: Kernel, page: u64, flags: i32) -> i32:
    """The same for a page that there is, up to its lock."""
    head: u64 = compound_head(k, page)
    if PageHuge(k, page):
        return memory_failure_hugetlb(k, page, flags)
    if test_set_page_hwpoison(k, page):
        # Known already; a reference that was handed over stays.
        if flags & MF_COUNT_INCREASED:
            keep(k, page)
        return 0
    if not flags & MF_COUNT_INCREASED and not get_hwpoison_page(k, page):
        if is_free_buddy_page(k, page):
            action_result(k, page, MF_MSG_BUDDY, MF_DELAYED)
            return 0
        # Part of something larger that is the kernel's own.
        action_result(k, page, MF_MSG_KERNEL_HIGH_ORDER, MF_IGNORED)
        return -EBUSY
    if PageTransHuge(k, head) and not _split_thp(k, page):
        return -EBUSY
    keep(k, page)
    lock_page(k, page)
    if PageCompound(k, page) and compound_head(k, page) != head:
        action_result(k, page, MF_MSG_DIFFERENT_COMPOUND, MF_IGNORED)
        unlock_page(k, page)
        return -EBUSY
    if not PageHWPoison(k, page):
        # Unpoisoned, under the page lock, before we had it. A defect: who did that has counted the
        # page less already, and may have taken our reference for the one that is kept.
        k.num_poisoned_pages -= 1
        unlock_page(k, page)
        let_go(k, page)
        return 0
    error: i32 = _broken_page_in_use(k, page, flags)
    unlock_page(k, page)
    return error


def memory_failure_hugetlb(k: Kernel, page: u64, flags: i32) -> i32:
    """Deal with a broken part of a hugetlb page: all of it goes, and its head is marked.

    mm/memory-failure.c (v4.18). Returned to the pool it is taken apart, if the pool can do without
    it, and only the broken part stays marked.
    """
    head: u64 = compound_head(k, page)
    if test_set_page_hwpoison(k, head):
        if flags & MF_COUNT_INCREASED:
            keep(k, head)
        return 0
    if not flags & MF_COUNT_INCREASED and not get_hwpoison_page(k, page):
        return _free_huge_page_breaks(k, page, head)
    keep(k, head)
    lock_page(k, head)
    if not PageHWPoison(k, head):
        k.num_poisoned_pages -= 1
        unlock_page(k, head)
        let_go(k, head)
        return 0
    error: i32 = -EBUSY
    page_flags: u32 = k.pg_flags[head]
    if compound_order(k, head) > HPAGE_PMD_ORDER:
        action_result(k, page, MF_MSG_NON_PMD_HUGE, MF_IGNORED)
    elif not hwpoison_user_mappings(k, head, flags):
        action_result(k, page, MF_MSG_UNMAP_FAILED, MF_IGNORED)
    else:
        error = identify_page_state(k, page, page_flags)
    unlock_page(k, head)
    return error


def _free_huge_page_breaks(k: Kernel, page: u64, head: u64) -> i32:
    """A hugetlb page in its pool breaks; 0. A tail is as good as forgotten.

    v4.18 marks the head once more to see whether another part was faster, and finds its own mark:
    the page stays in the pool, which gives out no page that is marked.
    """
    lock_page(k, head)
    if PageHWPoison(k, head) and page != head:
        k.num_poisoned_pages -= 1
        unlock_page(k, head)
        return 0
    unlock_page(k, head)
    dissolve_free_huge_page(k, page)
    action_result(k, page, MF_MSG_FREE_HUGE, MF_DELAYED)
    return 0


def _split_thp(k: Kernel, page: u64) -> flag:
    """Split a huge page that we have a reference to, so that only the broken part of it is lost.

    Whether it was split; if not, it is said not to be broken, and our reference is gone. Those of
    shared memory are not split.
    """
    lock_page(k, page)
    split: flag = PageAnon(k, page) and split_huge_page(k, page) == 0
    unlock_page(k, page)
    if not split:
        test_clear_page_hwpoison(k, page)
        put_page(k, page)
    return split


def _broken_page_in_use(k: Kernel, page: u64, flags: i32) -> i32:
    """Deal with a page that is locked and has a reference of ours; 0 or -EBUSY."""
    page_flags: u32 = k.pg_flags[page]
    if page_flags & PG_lru:
        # Under IO it could not be taken out of its file or of swap.
        wait_on_page_writeback(k, page)
        if not hwpoison_user_mappings(k, page, flags):
            action_result(k, page, MF_MSG_UNMAP_FAILED, MF_IGNORED)
            return -EBUSY
        if PageLRU(k, page) and not PageSwapCache(k, page) and not page_mapping_word(k, page):
            # Truncated before it was locked: whoever does that has a reference still.
            action_result(k, page, MF_MSG_TRUNCATED_LRU, MF_IGNORED)
            return -EBUSY
    return identify_page_state(k, page, page_flags)


def hwpoison_user_mappings(k: Kernel, page: u64, flags: i32) -> flag:
    """Unmap a broken page that is locked, and tell those who had it; whether nothing maps it.

    A page of the swap cache leaves ordinary swap entries: what they find there is decided when the
    page is dealt with. A clean page of a disk's file leaves nothing and kills nobody; that it is
    clean is known only after page_mkclean() has looked at every entry.
    """
    ttu: i32 = TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS
    kill: flag = True
    head: u64 = compound_head(k, page)
    if k.pg_flags[page] & (PG_reserved | PG_slab):
        return True
    if not PageLRU(k, head) and not PageHuge(k, page):
        return True
    if not page_mapped(k, head):
        return True
    if PageKsm(k, page):
        # Who has it is not known to what collects them.
        return False
    if PageSwapCache(k, page):
        ttu |= TTU_IGNORE_HWPOISON
    mapping: AddressSpace = page_mapping(k, head)
    if not flags & MF_MUST_KILL and not PageDirty(k, head) and mapping is not None:
        if mapping_cap_account_dirty(k, mapping):
            if page_mkclean(k, head):
                SetPage(k, head, PG_dirty)
            else:
                kill = False
                ttu |= TTU_IGNORE_HWPOISON
    # Unmapping destroys the places that it is found by.
    found: list = []
    if kill:
        found = collect_procs(k, head, flags & MF_ACTION_REQUIRED != 0)
    unmapped: flag = try_to_unmap(k, head, ttu)
    # Only now it is known whether an entry was dirty. What is lost must not be read again.
    forcekill: flag = PageDirty(k, head) or flags & MF_MUST_KILL != 0
    kill_procs(k, found, forcekill, not unmapped, page, flags)
    return unmapped


# ---------------------------------------------------------------- taking it back


def unpoison_memory(k: Kernel, page: u64) -> i32:
    """Let a page be used again, if nobody has it any more; 0, also where that cannot be yet.

    For tests only: whether memory is sound again is not asked. Entries that page tables have for
    it stay what they are; and a free page that the allocator has come across meanwhile is not put
    back on the free list. -ENXIO: there is no such page.
    """
    if page == 0 or page >= len(k.pg_flags):
        return -ENXIO
    head: u64 = compound_head(k, page)
    if not PageHWPoison(k, page):
        return 0
    if page_count(k, head) > 1 or page_mapped(k, head) or page_mapping(k, head) is not None:
        return 0
    if PageTransHuge(k, head) and not PageHuge(k, head):
        # memory_failure() is at work on it, and has not locked it yet.
        return 0
    if not get_hwpoison_page(k, page):
        test_clear_page_hwpoison(k, page)
        return 0
    lock_page(k, head)
    freeit: flag = test_clear_page_hwpoison(k, head)
    unlock_page(k, head)
    put_page(k, head)
    if freeit and not (head == k.zero_page and page_count(k, head) == 1):
        let_go(k, head)
    if k.tracer is not None:
        k.tracer("unpoison_memory", (page,))
    return 0

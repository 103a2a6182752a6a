# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Merging a page with one that holds the same (mm/ksm.c, v4.18).

Locks, outermost first: ksm.thread_mutex, which ksmd holds throughout; mm->mmap_sem for read, of one
address space at a time; the page lock of the page that goes, which is only tried for; the
page-table lock of its entry. The page that stays is locked by itself, to hang an item on its node.

Nobody may write to a page between the look at what it holds and its replacement. So its entry is
made read-only first, and that is given up if the references of the page tell of a user that has no
entry, such as a device that writes.
"""

from __future__ import annotations

import zlib

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import get_anon_vma, put_anon_vma
    from rmap.mm.bits import (
        _PAGE_DIRTY,
        _PAGE_RW,
        _PAGE_SPECIAL,
        EFAULT,
        MM_ANONPAGES,
        PAGE_MASK,
        PAGE_NOT_IN_VMA,
        PAGE_SIZE,
        SEQNR_MASK,
        UNSTABLE_FLAG,
        VM_LOCKED,
        PG_anon_exclusive,
        PG_dirty,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.content import page_bytes
    from rmap.mm.huge.split_page import split_huge_page
    from rmap.mm.ksm.stable import (
        Ksm,
        RmapItem,
        StableNode,
        is_page_sharing_candidate,
        ksm_of,
        page_stable_node,
        remove_rmap_item_from_tree,
        set_page_stable_node,
        stable_tree_append,
    )
    from rmap.mm.ksm.tree import memcmp_pages, stable_tree_insert, stable_tree_search
    from rmap.mm.ksm.unmerge import break_ksm, find_mergeable_vma, ksm_follow_page
    from rmap.mm.lru import mark_page_accessed, put_page
    from rmap.mm.memory import init_zero_pfn, is_zero_pfn
    from rmap.mm.mlock_page import (
        mlock_vma_page,
        mlock_vma_page_counted,
        munlock_vma_page_counted,
    )
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
        set_pte_at_notify,
    )
    from rmap.mm.munlock import munlock_vma_page
    from rmap.mm.page import (
        PageAnon,
        PageDirty,
        PageFlag,
        PageMlocked,
        PageSwapCache,
        PageTransCompound,
        SetPage,
        compound_head,
        get_page,
        lock_page,
        page_count,
        page_mapcount,
        page_mapped,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.page_vma_mapped import (
        PageVmaMappedWalk,
        page_vma_mapped_walk,
        page_vma_mapped_walk_done,
    )
    from rmap.mm.pgtable import (
        pfn_pte,
        pte_dirty,
        pte_lock,
        pte_offset,
        pte_unlock,
        pte_write,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_counts import (
        page_add_anon_rmap,
        page_remove_rmap,
        page_try_share_anon_rmap,
    )
    from rmap.mm.rmap_walk import mm_find_pmd, page_address_in_vma
    from rmap.mm.swap import try_to_free_swap
    from rmap.mm.tlb import mm_tlb_flush_pending, ptep_clear_flush
    from rmap.mm.vma import dec_mm_counter
    from rmap.scalar import flag, i32, i64, u32, u64


# ---------------------------------------------------------------- one entry


class OrigPte:
    """What write_protect_page() left in the entry: replace_page() insists on it."""

    def __init__(self) -> None:
        self.pte = 0


def write_protect_page(k: Kernel, vma: Vma, page: u64, orig_pte: OrigPte) -> i32:
    """Make the entry of a locked page read-only and clean; 0 or -EFAULT.

    Not if somebody has a reference who is neither an entry, the swap cache nor the caller: what
    they write would be lost.
    """
    mm: Mm = vma.vm_mm
    address: u64 = page_address_in_vma(k, page, vma)
    if address == PAGE_NOT_IN_VMA:
        return -EFAULT
    if PageTransCompound(k, page):
        BUG_PAGE("ksm.c write_protect_page: part of a huge page", page)
    pvmw: PageVmaMappedWalk = PageVmaMappedWalk(page, vma, address, 0)
    # No walk of the reverse map, so it is not counted as one's hit.
    pvmw.mapped = True
    error: i32 = -EFAULT
    mmu_notifier_invalidate_range_start(k, mm, address, address + PAGE_SIZE)
    if page_vma_mapped_walk(k, pvmw):
        if not pvmw.pte:
            BUG_PAGE("ksm.c write_protect_page: a PMD maps the page", page)
        error = _protect_entry(k, vma, page, pvmw.pte, address)
        orig_pte.pte = ptep_get(k, pvmw.pte)
        page_vma_mapped_walk_done(k, pvmw)
    mmu_notifier_invalidate_range_end(k, mm, address, address + PAGE_SIZE)
    return error


def _protect_entry(k: Kernel, vma: Vma, page: u64, ptep: u64, address: u64) -> i32:
    """The same under the page-table lock. 0 or -EFAULT, with the entry as it was.

    An entry that is read-only and clean needs nothing, unless it was made so by somebody whose
    flush is still to come: a CPU may then write through what it remembers of it.
    """
    mm: Mm = vma.vm_mm
    pte: u64 = ptep_get(k, ptep)
    exclusive: flag = k.profile.anon_exclusive and PageFlag(k, page, PG_anon_exclusive)
    pending: flag = k.profile.ksm_honours_flush_pending and mm_tlb_flush_pending(mm)
    if not (pte_write(pte) or pte_dirty(pte) or exclusive or pending):
        return 0
    swapped: i32 = 1 if PageSwapCache(k, page) else 0
    # Flushed before the references are counted: a fast get_user_pages() that has seen the entry
    # either has its reference by now, or will see that the entry has gone.
    pte = ptep_clear_flush(k, vma, address, ptep)
    if page_mapcount(k, page) + 1 + swapped != page_count(k, page):
        set_pte_at(k, mm, address, ptep, pte)
        return -EFAULT
    if exclusive and page_try_share_anon_rmap(k, page):
        set_pte_at(k, mm, address, ptep, pte)
        return -EFAULT
    if pte_dirty(pte):
        set_page_dirty(k, page)
    set_pte_at_notify(k, mm, address, ptep, pte & ~(_PAGE_RW | _PAGE_DIRTY))
    return 0


def replace_page(k: Kernel, vma: Vma, page: u64, kpage: u64, orig_pte: u64) -> i32:
    """Map `kpage` where a locked page is mapped, and let go of that; 0 or -EFAULT.

    -EFAULT if the entry is not what write_protect_page() left there. `kpage` may be the zero page.
    """
    mm: Mm = vma.vm_mm
    address: u64 = page_address_in_vma(k, page, vma)
    if address == PAGE_NOT_IN_VMA:
        return -EFAULT
    pmd: u64 = mm_find_pmd(k, mm, address)
    if not pmd:
        return -EFAULT
    error: i32 = -EFAULT
    mmu_notifier_invalidate_range_start(k, mm, address, address + PAGE_SIZE)
    ptep: u64 = pte_offset(k, pmd, address)
    pte_lock(k, ptep)
    if ptep_get(k, ptep) == orig_pte:
        _replace_entry(k, vma, page, kpage, ptep, address)
        error = 0
    pte_unlock(k, ptep)
    mmu_notifier_invalidate_range_end(k, mm, address, address + PAGE_SIZE)
    return error


def _replace_entry(k: Kernel, vma: Vma, page: u64, kpage: u64, ptep: u64, address: u64) -> i32:
    """The same under the page-table lock."""
    newpte: u64 = pfn_pte(kpage, vma.vm_page_prot)
    if is_zero_pfn(k, kpage):
        # No anonymous page any more, and counted by nobody.
        newpte |= _PAGE_SPECIAL
        dec_mm_counter(k, vma.vm_mm, MM_ANONPAGES)
    else:
        get_page(k, kpage)
        page_add_anon_rmap(k, kpage, vma, address, False)
        if k.profile.mlock_counts:
            mlock_vma_page_counted(k, kpage, vma, False)
    ptep_clear_flush(k, vma, address, ptep)
    set_pte_at_notify(k, vma.vm_mm, address, ptep, newpte)
    page_remove_rmap(k, page, False)
    if k.profile.mlock_counts:
        munlock_vma_page_counted(k, page, vma, False)
    if not page_mapped(k, page):
        try_to_free_swap(k, page)
    return put_page(k, page)


# ---------------------------------------------------------------- one page into another


def try_to_merge_one_page(k: Kernel, vma: Vma, page: u64, kpage: u64) -> i32:
    """Let a page become `kpage` in one VMA, or itself a merged page if that is 0; 0 or -EFAULT.

    mmap_sem is held, and both pages have a reference of the caller.
    """
    if page == kpage:
        # Merged, and forked since.
        return 0
    if not PageAnon(k, page):
        return -EFAULT
    # Locked, so that the swap cache is told right. It is not worth waiting for.
    if not trylock_page(k, page):
        return -EFAULT
    error: i32 = _merge_locked(k, vma, page, kpage)
    locked: u64 = page
    if vma.vm_flags & VM_LOCKED and kpage and not error and not k.profile.mlock_counts:
        locked = _move_mlock(k, page, kpage)
    unlock_page(k, locked)
    if k.tracer is not None:
        k.tracer("try_to_merge_one_page", (page, vma, kpage, error))
    return error


def _merge_locked(k: Kernel, vma: Vma, page: u64, kpage: u64) -> i32:
    """The same under the page lock."""
    orig_pte: OrigPte = OrigPte()
    if PageTransCompound(k, page) and split_huge_page(k, page):
        return -EFAULT
    if write_protect_page(k, vma, page, orig_pte):
        return -EFAULT
    if kpage:
        if memcmp_pages(k, page, kpage):
            return -EFAULT
        return replace_page(k, vma, page, kpage, orig_pte.pte)
    # A merged page, though of no node yet.
    set_page_stable_node(k, page, None)
    mark_page_accessed(k, page)
    if not PageDirty(k, page):
        # Its entries are clean: reclaim would drop it instead of writing it to swap.
        SetPage(k, page, PG_dirty)
    return 0


def _move_mlock(k: Kernel, page: u64, kpage: u64) -> u64:
    """Let the page that stays be mlocked instead of the one that goes; returns which is locked."""
    munlock_vma_page(k, page)
    if PageMlocked(k, kpage):
        return page
    unlock_page(k, page)
    lock_page(k, kpage)
    mlock_vma_page(k, kpage)
    return kpage


def try_to_merge_with_ksm_page(k: Kernel, rmap_item: RmapItem, page: u64, kpage: u64) -> i32:
    """Let the page at an item's address become `kpage` (0: a merged page); 0 or -EFAULT.

    The item is then in no tree, but has a reference to the anon_vma that its node's walk needs.
    """
    mm: Mm = rmap_item.mm
    error: i32 = -EFAULT
    mm.mmap_sem.down_read()
    vma: Vma = find_mergeable_vma(k, mm, rmap_item.address & PAGE_MASK)
    if vma is not None:
        error = try_to_merge_one_page(k, vma, page, kpage)
    if not error:
        remove_rmap_item_from_tree(k, rmap_item)
        # While mmap_sem keeps the VMA and its anon_vma.
        rmap_item.anon_vma = vma.anon_vma
        get_anon_vma(vma.anon_vma)
    mm.mmap_sem.up_read()
    return error


def break_cow(k: Kernel, rmap_item: RmapItem) -> i32:
    """Undo a merge whose item cannot be entered: drop its anon_vma, and copy the page."""
    mm: Mm = rmap_item.mm
    address: u64 = rmap_item.address & PAGE_MASK
    put_anon_vma(k, rmap_item.anon_vma)
    mm.mmap_sem.down_read()
    vma: Vma = find_mergeable_vma(k, mm, address)
    if vma is not None:
        break_ksm(k, vma, address)
    mm.mmap_sem.up_read()
    return 0


def try_to_merge_two_pages(
    k: Kernel, rmap_item: RmapItem, page: u64, tree_rmap_item: RmapItem, tree_page: u64
) -> u64:
    """Make a page a merged one, and let another become the same; the page, or 0."""
    if try_to_merge_with_ksm_page(k, rmap_item, page, 0):
        return 0
    if try_to_merge_with_ksm_page(k, tree_rmap_item, tree_page, page):
        # A merged page with one place is none.
        break_cow(k, rmap_item)
        return 0
    return page


# ---------------------------------------------------------------- the unstable tree


def calc_checksum(k: Kernel, page: u64) -> u32:
    """A number that changes when the page does: here a CRC; in the kernel jhash2()."""
    return zlib.crc32(page_bytes(k, page))


def get_mergeable_page(k: Kernel, rmap_item: RmapItem) -> u64:
    """The anonymous page at an item's address, with a reference; 0 if there is none any more."""
    mm: Mm = rmap_item.mm
    address: u64 = rmap_item.address & PAGE_MASK
    page: u64 = 0
    mm.mmap_sem.down_read()
    vma: Vma = find_mergeable_vma(k, mm, address)
    if vma is not None:
        page = ksm_follow_page(k, vma, address, 0)
    if page and not PageAnon(k, page):
        put_page(k, page)
        page = 0
    mm.mmap_sem.up_read()
    return page


class UnstableMatch:
    """An item of the unstable tree, and its page, which has a reference."""

    def __init__(self) -> None:
        self.rmap_item: RmapItem = None
        self.page = 0


def unstable_tree_search_insert(
    k: Kernel, rmap_item: RmapItem, page: u64, match: UnstableMatch
) -> flag:
    """Find an item whose page holds the same, or enter this one; whether one was found.

    The pages of this tree are not protected, and may have changed since they were entered. Then
    this search finds nothing where it might; the tree is made anew in the next round.
    """
    ksm: Ksm = ksm_of(k)
    low: i64 = 0
    high: i64 = len(ksm.unstable_tree)
    middle: i64
    order: i32
    tree_page: u64
    tree_rmap_item: RmapItem
    while low < high:
        middle = (low + high) >> 1
        tree_rmap_item = ksm.unstable_tree[middle]
        tree_page = get_mergeable_page(k, tree_rmap_item)
        if not tree_page:
            return False
        if tree_page == page:
            # Shared by fork, and not to be merged with itself.
            put_page(k, tree_page)
            return False
        order = memcmp_pages(k, page, tree_page)
        if order == 0:
            match.rmap_item = tree_rmap_item
            match.page = tree_page
            ksm.unstable_at = middle
            return True
        put_page(k, tree_page)
        if order < 0:
            high = middle
        else:
            low = middle + 1
    rmap_item.address |= UNSTABLE_FLAG | ksm.scan.seqnr & SEQNR_MASK
    ksm.unstable_tree.insert(low, rmap_item)
    ksm.pages_unshared += 1
    return False


# ---------------------------------------------------------------- one page of a scan


def cmp_and_merge_page(k: Kernel, page: u64, rmap_item: RmapItem) -> i32:
    """Look a page up in both trees, and merge it if it is found in one of them.

    The page has a reference of ksmd's. First among merged pages; if none holds the same, and the
    page has not changed since the last round, among those that might be merged.
    """
    node: StableNode = page_stable_node(k, page)
    bypass: flag = False
    if node is not None:
        if rmap_item.head is node:
            return 0
        if not is_page_sharing_candidate(k, node, 0):
            # What fork has shared beyond the limit, it has shared.
            bypass = True
    kpage: u64 = stable_tree_search(k, page)
    remove_rmap_item_from_tree(k, rmap_item)
    if kpage:
        if not try_to_merge_with_ksm_page(k, rmap_item, page, kpage):
            lock_page(k, kpage)
            stable_tree_append(k, rmap_item, page_stable_node(k, kpage), bypass)
            unlock_page(k, kpage)
        return put_page(k, kpage)
    checksum: u32 = calc_checksum(k, page)
    if rmap_item.oldchecksum != checksum:
        rmap_item.oldchecksum = checksum
        return 0
    ksm: Ksm = ksm_of(k)
    if ksm.use_zero_pages and checksum == 0 and _merge_with_zero_page(k, page, rmap_item):
        return 0
    return _merge_unstable(k, page, rmap_item)


def _merge_with_zero_page(k: Kernel, page: u64, rmap_item: RmapItem) -> flag:
    """Map the zero page instead of a page of zeros; whether that is all that is to be done.

    v4.18 does not ask whether the VMA is still there, and crashes if it is not (56df70a63ed5).
    """
    mm: Mm = rmap_item.mm
    error: i32 = 0
    zero: u64 = init_zero_pfn(k)
    if not zero:
        return False
    mm.mmap_sem.down_read()
    vma: Vma = find_mergeable_vma(k, mm, rmap_item.address & PAGE_MASK)
    if vma is not None:
        error = try_to_merge_one_page(k, vma, page, zero)
    elif not k.profile.ksm_zero_page_checks_vma:
        BUG("ksm.c cmp_and_merge_page: the VMA is gone, and NULL is followed")
    mm.mmap_sem.up_read()
    return error == 0


def _merge_unstable(k: Kernel, page: u64, rmap_item: RmapItem) -> i32:
    """Merge a page with one of the unstable tree, or enter it there."""
    match: UnstableMatch = UnstableMatch()
    if not unstable_tree_search_insert(k, rmap_item, page, match):
        return 0
    tree_rmap_item: RmapItem = match.rmap_item
    kpage: u64 = try_to_merge_two_pages(k, rmap_item, page, tree_rmap_item, match.page)
    # Two parts of one huge page hold it by two references, so that it could not be split.
    split: flag = PageTransCompound(k, page)
    if split:
        split = compound_head(k, page) == compound_head(k, match.page)
    put_page(k, match.page)
    if kpage:
        return _enter_merged(k, kpage, rmap_item, tree_rmap_item)
    if split and trylock_page(k, page):
        # Now it can be. The two are merged when ksmd comes by the next time.
        split_huge_page(k, page)
        unlock_page(k, page)
    return 0


def _enter_merged(k: Kernel, kpage: u64, rmap_item: RmapItem, tree_rmap_item: RmapItem) -> i32:
    """Enter a page that two were merged into in the stable tree, or take the merge back."""
    lock_page(k, kpage)
    node: StableNode = stable_tree_insert(k, kpage)
    if node is not None:
        stable_tree_append(k, tree_rmap_item, node, False)
        stable_tree_append(k, rmap_item, node, False)
    unlock_page(k, kpage)
    if node is None:
        break_cow(k, tree_rmap_item)
        break_cow(k, rmap_item)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""ksmd: over all mergeable memory, page by page, and round by round (mm/ksm.c, v4.18).

And what can be set in /sys/kernel/mm/ksm. Locks, outermost first: ksm.thread_mutex; mm->mmap_sem
for read, of the address space that is looked at; ksm.mmlist_lock where the list is stepped through.
A page is merged without mmap_sem of its own address space, which merging takes again.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EBUSY,
        EINVAL,
        KSM_RUN_MERGE,
        KSM_RUN_STOP,
        KSM_RUN_UNMERGE,
        PAGE_MASK,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        VM_MERGEABLE,
    )
    from rmap.mm.fork import mmdrop
    from rmap.mm.ksm.merge import cmp_and_merge_page
    from rmap.mm.ksm.slots import forget_slot, next_slot
    from rmap.mm.ksm.stable import (
        Ksm,
        KsmScan,
        MmSlot,
        RmapItem,
        alloc_rmap_item,
        free_rmap_item,
        ksm_of,
        ksm_test_exit,
        remove_rmap_item_from_tree,
        remove_unstable_items,
    )
    from rmap.mm.ksm.tree import remove_all_stable_nodes
    from rmap.mm.ksm.unmerge import ksm_follow_page, unmerge_ksm_pages
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.page import PageAnon
    from rmap.mm.pgtable import pmd_offset, pte_none, ptep_get
    from rmap.mm.vma import find_vma
    from rmap.scalar import flag, i32, i64, u64


class ScanStep:
    """What ksmd does next: a page, which has a reference, and its item; no item to stop."""

    def __init__(self) -> None:
        self.rmap_item: RmapItem = None
        self.page = 0


# ---------------------------------------------------------------- items of an address space


def get_next_rmap_item(k: Kernel, slot: MmSlot, address: u64) -> RmapItem | None:
    """The item of an address, at the cursor or made there; ``None`` without memory.

    Items of lower addresses are behind ksmd, who did not come by their pages: these are gone, or
    are no longer mergeable.
    """
    scan: KsmScan = ksm_of(k).scan
    rmap_item: RmapItem
    while scan.cursor < len(slot.rmap_list):
        rmap_item = slot.rmap_list[scan.cursor]
        if rmap_item.address & PAGE_MASK == address:
            return rmap_item
        if rmap_item.address > address:
            break
        del slot.rmap_list[scan.cursor]
        remove_rmap_item_from_tree(k, rmap_item)
        free_rmap_item(k, rmap_item)
    rmap_item = alloc_rmap_item(k, slot.mm, address)
    if rmap_item is not None:
        slot.rmap_list.insert(scan.cursor, rmap_item)
    return rmap_item


def remove_trailing_rmap_items(k: Kernel, slot: MmSlot, first: i64) -> i32:
    """Free all items of an address space from a place of its list on."""
    rmap_item: RmapItem
    trailing: list = slot.rmap_list[first:]
    del slot.rmap_list[first:]
    remove_unstable_items(k, trailing)
    for rmap_item in trailing:
        remove_rmap_item_from_tree(k, rmap_item)
        free_rmap_item(k, rmap_item)
    return 0


# ---------------------------------------------------------------- the next page


def scan_get_next_rmap_item(k: Kernel, step: ScanStep) -> i32:
    """Find the next anonymous page of mergeable memory; no item at the end of a round.

    Also none if there is no memory for an item: then the next scan begins with the same address.
    """
    ksm: Ksm = ksm_of(k)
    scan: KsmScan = ksm.scan
    slot: MmSlot
    step.rmap_item = None
    if not ksm.mm_slots:
        return 0
    if scan.mm_slot is None:
        # A new round, and so a new unstable tree.
        ksm.unstable_tree = []
        ksm.mmlist_lock.lock()
        scan.mm_slot = next_slot(k, None)
        ksm.mmlist_lock.unlock()
        _begin_slot(scan)
    while scan.mm_slot is not None:
        slot = scan.mm_slot
        if _scan_slot(k, slot, step):
            return 0
        _begin_slot(scan)
    scan.seqnr += 1
    return 0


def _begin_slot(scan: KsmScan) -> i32:
    """Begin with an address space's first address."""
    scan.address = 0
    scan.cursor = 0
    return 0


def _scan_slot(k: Kernel, slot: MmSlot, step: ScanStep) -> flag:
    """Look for the next page in one address space; false if it is done, and the next one is due.

    What items are left behind the last page are freed. An address space without mergeable memory,
    or whose last user is gone, is forgotten.
    """
    ksm: Ksm = ksm_of(k)
    scan: KsmScan = ksm.scan
    mm: Mm = slot.mm
    drop: flag = False
    mm.mmap_sem.down_read()
    vma: Vma = None if ksm_test_exit(mm) else find_vma(k, mm, scan.address)
    while vma is not None:
        if vma.vm_flags & VM_MERGEABLE and _scan_vma(k, slot, vma, step):
            mm.mmap_sem.up_read()
            return True
        vma = vma.vm_next
    if ksm_test_exit(mm):
        _begin_slot(scan)
    remove_trailing_rmap_items(k, slot, scan.cursor)
    ksm.mmlist_lock.lock()
    scan.mm_slot = next_slot(k, slot)
    if scan.address == 0:
        forget_slot(k, slot)
        drop = True
    mm.mmap_sem.up_read()
    ksm.mmlist_lock.unlock()
    if drop:
        mmdrop(k, mm)
    return False


def _scan_vma(k: Kernel, slot: MmSlot, vma: Vma, step: ScanStep) -> flag:
    """Look for the next page in one VMA; whether there is one, or no memory for its item."""
    scan: KsmScan = ksm_of(k).scan
    page: u64
    pmd: u64
    if scan.address < vma.vm_start:
        scan.address = vma.vm_start
    if vma.anon_vma is None:
        scan.address = vma.vm_end
    while scan.address < vma.vm_end and not ksm_test_exit(slot.mm):
        pmd = pmd_offset(k, slot.mm, scan.address)
        if not pmd or pte_none(ptep_get(k, pmd)):
            scan.address = (scan.address & PMD_MASK) + PMD_SIZE
            if scan.address > vma.vm_end:
                scan.address = vma.vm_end
            continue
        page = ksm_follow_page(k, vma, scan.address, 0)
        if page and PageAnon(k, page):
            step.page = page
            step.rmap_item = get_next_rmap_item(k, slot, scan.address)
            if step.rmap_item is None:
                put_page(k, page)
            else:
                scan.cursor += 1
                scan.address += PAGE_SIZE
            return True
        if page:
            put_page(k, page)
        scan.address += PAGE_SIZE
    return False


def ksm_do_scan(k: Kernel, scan_npages: i64) -> i64:
    """Look at so many pages, or at what is left of this round; returns at how many it looked.

    ksm.thread_mutex is held.
    """
    ksm: Ksm = ksm_of(k)
    step: ScanStep = ScanStep()
    done: i64 = 0
    ksm.thread_mutex.assert_held()
    while done < scan_npages:
        scan_get_next_rmap_item(k, step)
        if step.rmap_item is None:
            break
        cmp_and_merge_page(k, step.page, step.rmap_item)
        put_page(k, step.page)
        done += 1
    ksm.now += ksm.sleep_millisecs
    return done


def ksm_scan_thread(k: Kernel, pages_to_scan: i64) -> i64:
    """What ksmd does between two sleeps, if it is to merge; returns how many pages it looked at."""
    ksm: Ksm = ksm_of(k)
    done: i64 = 0
    ksm.thread_mutex.lock()
    if ksm.run & KSM_RUN_MERGE and ksm.mm_slots:
        done = ksm_do_scan(k, pages_to_scan)
    ksm.thread_mutex.unlock()
    return done


# ---------------------------------------------------------------- /sys/kernel/mm/ksm


def unmerge_and_remove_all_rmap_items(k: Kernel) -> i32:
    """Take all merged pages apart, and free all items and nodes; 0 or -ENOMEM.

    ksm.thread_mutex is held. On failure what has been done stays done.
    """
    ksm: Ksm = ksm_of(k)
    slot: MmSlot
    error: i32
    ksm.thread_mutex.assert_held()
    ksm.mmlist_lock.lock()
    ksm.scan.mm_slot = next_slot(k, None)
    ksm.mmlist_lock.unlock()
    while ksm.scan.mm_slot is not None:
        slot = ksm.scan.mm_slot
        error = _unmerge_slot(k, slot)
        if error:
            ksm.mmlist_lock.lock()
            ksm.scan.mm_slot = None
            ksm.mmlist_lock.unlock()
            return error
    # Some may still be mapped, where an address space is just going.
    remove_all_stable_nodes(k)
    ksm.scan.seqnr = 0
    return 0


def _unmerge_slot(k: Kernel, slot: MmSlot) -> i32:
    """Do that for one address space, and step to the next; 0 or -ENOMEM."""
    ksm: Ksm = ksm_of(k)
    mm: Mm = slot.mm
    drop: flag = False
    error: i32
    mm.mmap_sem.down_read()
    vma: Vma = mm.mmap
    while vma is not None and not ksm_test_exit(mm):
        if vma.vm_flags & VM_MERGEABLE and vma.anon_vma is not None:
            error = unmerge_ksm_pages(k, vma, vma.vm_start, vma.vm_end)
            if error:
                mm.mmap_sem.up_read()
                return error
        vma = vma.vm_next
    remove_trailing_rmap_items(k, slot, 0)
    mm.mmap_sem.up_read()
    ksm.mmlist_lock.lock()
    ksm.scan.mm_slot = next_slot(k, slot)
    if ksm_test_exit(mm):
        forget_slot(k, slot)
        drop = True
    ksm.mmlist_lock.unlock()
    if drop:
        mmdrop(k, mm)
    return 0


def run_store(k: Kernel, run: i32) -> i32:
    """Let ksmd rest (0), merge (1), or take everything apart and rest (2): 0 or -errno.

    Without the memory for the last, ksmd rests, and what is merged still stays so.
    """
    ksm: Ksm = ksm_of(k)
    error: i32 = 0
    if run < 0 or run > KSM_RUN_UNMERGE:
        return -EINVAL
    ksm.thread_mutex.lock()
    if ksm.run != run:
        ksm.run = run
        if run & KSM_RUN_UNMERGE:
            error = unmerge_and_remove_all_rmap_items(k)
            if error:
                ksm.run = KSM_RUN_STOP
    ksm.thread_mutex.unlock()
    return error


def max_page_sharing_store(k: Kernel, limit: i32) -> i32:
    """Set at how many places a page may be merged; -EBUSY while there are merged pages.

    Two is the least, as that is how a merged page begins.
    """
    ksm: Ksm = ksm_of(k)
    error: i32 = 0
    if limit < 2:
        return -EINVAL
    ksm.thread_mutex.lock()
    if ksm.max_page_sharing != limit:
        if ksm.pages_shared or remove_all_stable_nodes(k):
            error = -EBUSY
        else:
            ksm.max_page_sharing = limit
    ksm.thread_mutex.unlock()
    return error


def pages_volatile(k: Kernel) -> i64:
    """Pages that change too fast to be entered anywhere, as far as the counters tell."""
    ksm: Ksm = ksm_of(k)
    left: i64 = ksm.rmap_items - ksm.pages_shared - ksm.pages_sharing - ksm.pages_unshared
    return left if left > 0 else 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Take a page out of every page table: try_to_unmap(), and try_to_munlock(), which only looks.

mm/rmap.c:1333-1720 (v4.18). Locks, outermost first: the page lock (the caller's), the rmap lock for
read (or the caller's), page-table locks one at a time; inside of these the LRU, swap and mmlist
locks, those of dirty accounting, and memcg->move_lock.

What takes the place of an entry says where the page is to be found: a swap entry, a migration
entry, a poisoned one, or nothing where its file or nobody has it.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import page_lock_anon_vma_read
    from rmap.mm.bits import (
        _PAGE_SWP_EXCLUSIVE,
        MM_ANONPAGES,
        MM_SWAPENTS,
        PAGE_SIZE,
        PUD_MASK,
        PUD_SIZE,
        PVMW_SYNC,
        TTU_IGNORE_ACCESS,
        TTU_IGNORE_HWPOISON,
        TTU_IGNORE_MLOCK,
        TTU_MIGRATION,
        TTU_MUNLOCK,
        TTU_RMAP_LOCKED,
        TTU_SPLIT_FREEZE,
        TTU_SPLIT_HUGE_PMD,
        VM_LOCKED,
        PG_anon_exclusive,
        PG_swapbacked,
    )
    from rmap.mm.bug import BUG_PAGE, WARN_ONCE
    from rmap.mm.huge.split_pmd import (
        make_hwpoison_entry,
        make_migration_entry,
        set_pmd_migration_entry,
        split_huge_pmd_address,
    )
    from rmap.mm.hugetlb.pgtable import huge_pmd_unshare, huge_ptep_clear_flush, vma_shareable
    from rmap.mm.hugetlb.pool import hugetlb_count_add
    from rmap.mm.lru import put_page
    from rmap.mm.mlock_page import (
        mlock_vma_page,
        mlock_vma_page_counted,
        munlock_vma_page_counted,
    )
    from rmap.mm.mm_types import AnonVma, Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range,
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
        ptep_clear_flush_young_notify,
    )
    from rmap.mm.page import (
        PageAnon,
        PageCompound,
        PageDirty,
        PageDoubleMap,
        PageFlag,
        PageHuge,
        PageHWPoison,
        PageKsm,
        PageLocked,
        PageLRU,
        PageSwapBacked,
        PageSwapCache,
        PageTransCompound,
        SetPage,
        compound_head,
        compound_order,
        is_device_private_page,
        is_zone_device_page,
        page_count,
        page_mapcount,
        page_mapped,
        page_private,
        total_mapcount,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.page_vma_mapped import (
        PageVmaMappedWalk,
        page_vma_mapped_walk,
        page_vma_mapped_walk_done,
    )
    from rmap.mm.pgtable import (
        pte_dirty,
        pte_pfn,
        pte_soft_dirty,
        pte_swp_mksoft_dirty,
        pte_unused,
        pte_write,
        ptep_get,
        ptep_get_and_clear,
        set_pte_at,
        swp_entry_to_pte,
    )
    from rmap.mm.rmap_counts import page_remove_rmap, page_try_share_anon_rmap
    from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk, rmap_walk_locked
    from rmap.mm.swap_slots import swap_duplicate, swap_free
    from rmap.mm.tlb import (
        flush_tlb_range,
        ptep_clear_flush,
        set_tlb_ubc_flush_pending,
        should_defer_flush,
    )
    from rmap.mm.vma import (
        dec_mm_counter,
        inc_mm_counter,
        is_vma_temporary_stack,
        mm_counter,
        mm_counter_file,
        update_hiwater_rss,
        userfaultfd_armed,
    )
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.bits import RANK_PAGE_LOCK, WRITE_MODE
    from rmap.sync.core import assert_held


class TryToUnmapControl(RmapWalkControl):
    """The walk of `try_to_unmap`, with its ``TTU_`` flags."""

    def __init__(self, flags: i32) -> None:
        self.flags = flags
        self.skip_temporary_stacks = False
        self.pvmw = PageVmaMappedWalk(0, None, 0)

    def rmap_one(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Unmap the page from one VMA."""
        return try_to_unmap_one(k, page, vma, address, self)

    def done(self, k: Kernel, page: u64) -> flag:
        """page_mapcount_is_zero(): nothing maps any part of the page (mm/rmap.c:1648).

        Locks: none; the counts are atomic, and the page lock keeps them from coming back.
        """
        return not total_mapcount(k, page)  # L1650

    def anon_lock(self, k: Kernel, page: u64) -> AnonVma | None:
        """Lock the page's anon_vma if the page is still mapped."""
        return page_lock_anon_vma_read(k, page)

    def invalid_vma(self, k: Kernel, vma: Vma) -> flag:
        """invalid_migration_vma(): the stack that exec is still moving (mm/rmap.c:1643).

        Locks: needs the anon_vma's rwsem, by the walk, which keeps the VMA; takes none.
        """
        if not self.skip_temporary_stacks:
            return False
        return is_vma_temporary_stack(vma)  # L1645

    def visit(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Ask in one call what the base class asks in three, unless a subclass answers."""
        if type(self) is not TryToUnmapControl:
            return RmapWalkControl.visit(self, k, page, vma, address)
        if self.skip_temporary_stacks and self.invalid_vma(k, vma):
            return True
        if not try_to_unmap_one(k, page, vma, address, self):
            return False
        return total_mapcount(k, page) != 0  # L1650


class TryToMunlockControl(TryToUnmapControl):
    """The walk of `try_to_munlock`."""

    def done(self, k: Kernel, page: u64) -> flag:
        """page_not_mapped(): nothing maps the page (mm/rmap.c:1692).

        Locks: none; the counts are atomic.
        """
        return not page_mapped(k, page)  # L1694


# ---------------------------------------------------------------- one VMA


def try_to_unmap_one(k: Kernel, page: u64, vma: Vma, address: u64, rwc: TryToUnmapControl) -> flag:
    """Take the page out of one VMA's page tables; whether the walk is to go on.

    mm/rmap.c:1336 (v4.18). With TTU_MUNLOCK only look whether the VMA is VM_LOCKED and maps the
    page. The caller's reference keeps the page.

    Locks: needs the page lock and the rmap lock, by the walk; takes page-table locks, one at a
    time, and inside of them the LRU, swap and mmlist locks, and those of dirty accounting.
    """
    flags: i32 = rwc.flags
    if flags & TTU_MUNLOCK and not vma.vm_flags & VM_LOCKED:  # L1352
        return True
    if (  # L1355
        flags & TTU_MIGRATION
        and is_zone_device_page(k, page)
        and not is_device_private_page(k, page)
    ):
        return True
    if flags & TTU_SPLIT_HUGE_PMD:  # L1359
        split_huge_pmd_address(k, vma, address, flags & TTU_SPLIT_FREEZE != 0, page)
    # The worst case is a PMD; and of what is there, only what lies in the VMA.
    start: u64 = address
    end: u64 = address + _mapped_size(k, page)
    if end > vma.vm_end:
        end = vma.vm_end
    if k.profile.hugetlb_unmap_unshares and PageHuge(k, page) and vma_shareable(vma, address):
        start = address & PUD_MASK
        end = start + PUD_SIZE
    mmu_notifier_invalidate_range_start(k, vma.vm_mm, start, end)  # L1370
    pvmw: PageVmaMappedWalk = rwc.pvmw
    sync: i32 = PVMW_SYNC if k.profile.ttu_sync and flags & TTU_RMAP_LOCKED else 0
    pvmw.start(page, vma, address, sync)
    ret: flag = True
    while page_vma_mapped_walk(k, pvmw):  # L1372
        if not _unmap_entry(k, pvmw, page, vma, flags):
            ret = False
            page_vma_mapped_walk_done(k, pvmw)
            break
    mmu_notifier_invalidate_range_end(k, vma.vm_mm, start, end)  # L1624
    if k.tracer is not None:
        k.tracer("try_to_unmap_one", (page, vma, address, ret))
    return ret


def _unmap_entry(k: Kernel, pvmw: PageVmaMappedWalk, page: u64, vma: Vma, flags: i32) -> flag:
    """Decide about one entry that maps the page, and empty it (mm/rmap.c:1373-1470).

    The page-table lock is held. Whether to go on: not if the mapping has to stay.
    """
    if not pvmw.pte and flags & TTU_MIGRATION:  # L1375
        if PageHuge(k, page) or not PageTransCompound(k, page):  # L1376
            BUG_PAGE("rmap.c:1376 try_to_unmap_one: a PMD maps a page that is not a THP", page)
        return set_pmd_migration_entry(k, pvmw, page) == 0
    if not flags & TTU_IGNORE_MLOCK:  # L1388
        if vma.vm_flags & VM_LOCKED:  # L1389
            if not k.profile.mlock_under_ptl:
                page_vma_mapped_walk_done(k, pvmw)
            return _mlock_refuses(k, page, vma)
        if flags & TTU_MUNLOCK:  # L1402
            return True
    if not pvmw.pte:  # L1407
        BUG_PAGE("rmap.c:1407 try_to_unmap_one: a PMD maps the page", page)
    mm: Mm = vma.vm_mm
    address: u64 = pvmw.address
    if k.profile.hugetlb_unmap_unshares and PageHuge(k, page):
        if _unshare_table(k, pvmw, vma):
            return True
    if flags & TTU_MIGRATION and is_zone_device_page(k, page):  # L1413
        return _migrate_device_entry(k, pvmw, page, vma)
    if not flags & TTU_IGNORE_ACCESS:  # L1438
        if ptep_clear_flush_young_notify(k, vma, address, pvmw.pte):  # L1439
            return False
    subpage: u64 = pte_pfn(ptep_get(k, pvmw.pte))
    pteval: u64
    if should_defer_flush(k, mm, flags):  # L1449
        # Another CPU may go on writing through what it remembers, unless that entry was clean:
        # to make it dirty it has to look at the table, and finds nothing there.
        pteval = ptep_get_and_clear(k, mm, address, pvmw.pte)
        set_tlb_ubc_flush_pending(k, mm, pte_dirty(pteval))
    elif PageHuge(k, page):
        pteval = huge_ptep_clear_flush(k, vma, address, pvmw.pte, _mapped_size(k, page))
    else:
        pteval = ptep_clear_flush(k, vma, address, pvmw.pte)
    # The entry is gone, and with it what it knew.
    if pte_dirty(pteval):  # L1466
        set_page_dirty(k, page)
    update_hiwater_rss(k, mm)  # L1470
    return _replace_entry(k, pvmw, page, subpage, vma, pteval, flags)


def _mapped_size(k: Kernel, page: u64) -> u64:
    """Bytes of a small page, or of a compound one as a whole."""
    one: u64 = PAGE_SIZE
    return one << compound_order(k, page)


def _unshare_table(k: Kernel, pvmw: PageVmaMappedWalk, vma: Vma) -> flag:
    """Take a table of huge pages away from one of several mms that share it, if they do.

    mm/rmap.c (v4.19). The mm loses all of the table, and its CPUs may remember any part of it. The
    page stays mapped, once, until the walk comes to the last mm that has the table. In v4.18 the
    first one's entry is changed, which is everybody's: others go on with what their CPUs remember.
    """
    mm: Mm = vma.vm_mm
    start: u64 = pvmw.address & PUD_MASK
    if not huge_pmd_unshare(k, vma, pvmw.address, pvmw.pte):
        return False
    flush_tlb_range(k, mm, start, start + PUD_SIZE)
    mmu_notifier_invalidate_range(k, mm, start, start + PUD_SIZE)
    return True


def _mlock_refuses(k: Kernel, page: u64, vma: Vma) -> flag:
    """A VM_LOCKED VMA keeps the page, which is marked mlocked if that was missed (L1390-1400).

    The page-table lock keeps munlock away, so no mmap_sem is needed. PTEs that map a huge page
    never make it mlocked.
    """
    if not PageTransCompound(k, page):  # L1391
        if k.profile.mlock_counts:
            mlock_vma_page_counted(k, page, vma, False)
        else:
            mlock_vma_page(k, page)
    return False


def _replace_entry(
    k: Kernel,
    pvmw: PageVmaMappedWalk,
    page: u64,
    subpage: u64,
    vma: Vma,
    pteval: u64,
    flags: i32,
) -> flag:
    """Put something in the place of an entry that was emptied (mm/rmap.c:1472-1621).

    Whether to go on: not if the entry had to be put back.
    """
    mm: Mm = vma.vm_mm
    address: u64 = pvmw.address
    # v4.18 asks the head, so that every part of a huge page whose head is broken is lost with it.
    broken: u64 = subpage if k.profile.poison_by_subpage else page
    if PageHWPoison(k, broken) and not flags & TTU_IGNORE_HWPOISON:  # L1472
        _leave_poison(k, pvmw, page, subpage, mm)
    elif pte_unused(pteval) and not userfaultfd_armed(vma):  # L1485
        # The guest does not need the contents any more, and would be given zeroes. Where a
        # userfaultfd watches, postcopy would take the next fault for a page not yet copied.
        dec_mm_counter(k, mm, mm_counter(k, page))
        mmu_notifier_invalidate_range(k, mm, address, address + PAGE_SIZE)
    elif flags & (TTU_MIGRATION | TTU_SPLIT_FREEZE):  # L1500
        if not _leave_migration(k, pvmw, page, subpage, vma, pteval):
            return False
    elif PageAnon(k, page):  # L1527
        if not _leave_swap(k, pvmw, page, subpage, vma, pteval):
            return False
    else:
        # The page lock keeps the page in its file, so until invalidate_range_end nobody can map
        # another page here that a secondary MMU would take for this one: no call in between.
        dec_mm_counter(k, mm, mm_counter_file(k, page))  # L1610
    _discard(k, page, subpage, vma)
    return True


def _discard(k: Kernel, page: u64, subpage: u64, vma: Vma) -> i32:
    """Take the mapping out of the page's counts, and drop its reference (mm/rmap.c:1612)."""
    page_remove_rmap(k, subpage, PageHuge(k, page))  # L1620
    if k.profile.mlock_counts:
        munlock_vma_page_counted(k, subpage, vma, False)
    put_page(k, page)
    return 0


# ---------------------------------------------------------------- what takes an entry's place


def _leave_swap(
    k: Kernel, pvmw: PageVmaMappedWalk, page: u64, subpage: u64, vma: Vma, pteval: u64
) -> flag:
    """Leave the page's swap entry, or nothing for a lazily freed page (mm/rmap.c:1527-1591).

    Whether the mapping went; otherwise its entry is back, or (a defect) lost.
    """
    mm: Mm = vma.vm_mm
    address: u64 = pvmw.address
    entry: u64 = page_private(k, subpage)
    if PageSwapBacked(k, page) != PageSwapCache(k, page):  # L1534
        WARN_ONCE(k.warnings, "rmap.c:1535 try_to_unmap_one: swap-backed, but not in swap cache")
        if k.profile.warn_path_restores_pte:
            set_pte_at(k, mm, address, pvmw.pte, pteval)
        mmu_notifier_invalidate_range(k, mm, address, address + PAGE_SIZE)
        return False
    if not PageSwapBacked(k, page):  # L1545
        return _drop_lazyfree(k, pvmw, page, mm, pteval)
    if swap_duplicate(k, entry) < 0:  # L1565
        set_pte_at(k, mm, address, pvmw.pte, pteval)
        return False
    if arch_unmap_one(k, mm, vma, address, pteval) < 0:  # L1571
        if k.profile.arch_unmap_failure_frees_swap:
            swap_free(k, entry)
        set_pte_at(k, mm, address, pvmw.pte, pteval)
        return False
    exclusive: flag = k.profile.anon_exclusive and PageFlag(k, subpage, PG_anon_exclusive)
    if exclusive and page_try_share_anon_rmap(k, subpage) < 0:
        swap_free(k, entry)
        set_pte_at(k, mm, address, pvmw.pte, pteval)
        return False
    _remember_swapped(k, mm)
    dec_mm_counter(k, mm, MM_ANONPAGES)
    inc_mm_counter(k, mm, MM_SWAPENTS)
    swp_pte: u64 = swp_entry_to_pte(entry)
    if exclusive:
        swp_pte |= _PAGE_SWP_EXCLUSIVE
    if pte_soft_dirty(pteval):  # L1586
        swp_pte = pte_swp_mksoft_dirty(swp_pte)
    set_pte_at(k, mm, address, pvmw.pte, swp_pte)
    mmu_notifier_invalidate_range(k, mm, address, address + PAGE_SIZE)
    return True


def _drop_lazyfree(k: Kernel, pvmw: PageVmaMappedWalk, page: u64, mm: Mm, pteval: u64) -> flag:
    """Drop a page that MADV_FREE gave up, unless it was written to since (mm/rmap.c:1545-1562).

    Later kernels keep it also if somebody has a reference to it, such as a device that is about
    to write: what that writes would be lost.
    """
    address: u64 = pvmw.address
    clean: flag = not PageDirty(k, page)
    if clean and k.profile.lazyfree_checks_references:
        # One reference is the caller's, each mapping has one.
        clean = page_count(k, page) == 1 + page_mapcount(k, page)
    if clean:  # L1546
        mmu_notifier_invalidate_range(k, mm, address, address + PAGE_SIZE)
        dec_mm_counter(k, mm, MM_ANONPAGES)
        return True
    set_pte_at(k, mm, address, pvmw.pte, pteval)  # L1558
    SetPage(k, page, PG_swapbacked)
    return False


def _remember_swapped(k: Kernel, mm: Mm) -> i32:
    """Put an mm on the list of those that swapoff has to look through (mm/rmap.c:1577-1582)."""
    if not mm.on_mmlist:  # L1577
        k.mmlist_lock.lock()
        if not mm.on_mmlist:  # L1579
            mm.on_mmlist = True
            k.mmlist.insert(0, mm)
        k.mmlist_lock.unlock()
    return 0


def arch_unmap_one(k: Kernel, mm: Mm, vma: Vma, address: u64, pte: u64) -> i32:
    """Let the architecture save what it keeps beside a page; less than 0 if it cannot.

    Only sparc has such (ADI tags); here it fails when a plan of failures says so.
    """
    if k.inject is not None and k.inject.should_fail("arch_unmap_one"):
        return -1
    return 0


def _leave_migration(
    k: Kernel, pvmw: PageVmaMappedWalk, page: u64, subpage: u64, vma: Vma, pteval: u64
) -> flag:
    """Leave an entry at which faults wait until the page has moved (mm/rmap.c:1500-1526).

    rss stays: the page will be back. No call to secondary MMUs, whose faults wait as well.
    """
    mm: Mm = vma.vm_mm
    address: u64 = pvmw.address
    if arch_unmap_one(k, mm, vma, address, pteval) < 0:  # L1505
        set_pte_at(k, mm, address, pvmw.pte, pteval)
        return False
    exclusive: flag = k.profile.anon_exclusive and PageFlag(k, subpage, PG_anon_exclusive)
    if exclusive and page_try_share_anon_rmap(k, subpage) < 0:
        # Pinned: it cannot move anyway.
        set_pte_at(k, mm, address, pvmw.pte, pteval)
        return False
    swp_pte: u64 = swp_entry_to_pte(make_migration_entry(k, subpage, pte_write(pteval)))
    if exclusive and not pte_write(pteval):
        # A write entry says as much by itself.
        swp_pte |= _PAGE_SWP_EXCLUSIVE
    if pte_soft_dirty(pteval):  # L1520
        swp_pte = pte_swp_mksoft_dirty(swp_pte)
    set_pte_at(k, mm, address, pvmw.pte, swp_pte)
    return True


def _leave_poison(k: Kernel, pvmw: PageVmaMappedWalk, page: u64, subpage: u64, mm: Mm) -> i32:
    """Leave an entry that kills whoever touches the broken page (mm/rmap.c:1472-1484)."""
    pteval: u64 = swp_entry_to_pte(make_hwpoison_entry(k, subpage))
    if PageHuge(k, page):  # L1474
        one: u64 = 1
        pages: i64 = one << compound_order(k, page)
        hugetlb_count_add(mm, -pages)  # L1476
    else:
        dec_mm_counter(k, mm, mm_counter(k, page))
    set_pte_at(k, mm, pvmw.address, pvmw.pte, pteval)
    return 0


def _migrate_device_entry(k: Kernel, pvmw: PageVmaMappedWalk, page: u64, vma: Vma) -> flag:
    """Replace the special swap entry of a page in device memory (mm/rmap.c:1413-1435).

    No CPU can have used it, so there is no flush. v4.18 then takes the page frame number out of
    the entry as if it were present and uncounts a page that does not exist; that is a crash.
    """
    mm: Mm = vma.vm_mm
    pteval: u64 = ptep_get_and_clear(k, mm, pvmw.address, pvmw.pte)
    swp_pte: u64 = swp_entry_to_pte(make_migration_entry(k, page, False))
    if pte_soft_dirty(pteval):  # L1428
        swp_pte = pte_swp_mksoft_dirty(swp_pte)
    set_pte_at(k, mm, pvmw.address, pvmw.pte, swp_pte)
    if not k.profile.device_private_subpage:
        BUG_PAGE("rmap.c:1409 try_to_unmap_one: a device page's frame taken from a swap PTE", page)
    _discard(k, page, page, vma)
    return True


# ---------------------------------------------------------------- all VMAs


def try_to_unmap(k: Kernel, page: u64, flags: i32) -> flag:
    """Take a page out of all page tables; whether nothing maps it any more.

    mm/rmap.c:1663 (v4.18). The caller holds the page lock and a reference. `flags` are ``TTU_``;
    0 is what reclaim wants: mlocked and recently used mappings stay, and the first of them ends
    the attempt. What was unmapped before stays unmapped. With TTU_BATCH_FLUSH the caller calls
    try_to_unmap_flush() before it frees anything. Of a huge page that PTEs map, only the head's
    count is looked at.

    Locks: needs the page lock; takes the rmap lock for read (with TTU_RMAP_LOCKED the caller has
    it), and page-table locks inside of it.
    """
    return _try_to_unmap(k, page, TryToUnmapControl(flags))


def _try_to_unmap(k: Kernel, page: u64, rwc: TryToUnmapControl) -> flag:
    """try_to_unmap() with a control that may have served before."""
    flags: i32 = rwc.flags
    assert_held(RANK_PAGE_LOCK, compound_head(k, page), WRITE_MODE)
    rwc.skip_temporary_stacks = False
    if (  # L1680
        flags & (TTU_MIGRATION | TTU_SPLIT_FREEZE) and not PageKsm(k, page) and PageAnon(k, page)
    ):
        # exec moves a new stack's pages before its VMA. A migration entry that is missed
        # afterwards stays for ever, so such a VMA is left alone until exec is done.
        rwc.skip_temporary_stacks = k.profile.migration_skips_moving_stack
    if flags & TTU_RMAP_LOCKED:  # L1684
        rmap_walk_locked(k, page, rwc)
    else:
        rmap_walk(k, page, rwc)
    unmapped: flag = not page_mapcount(k, page)  # L1689
    if k.profile.unmap_sees_all_parts:
        unmapped = not page_mapped(k, page)
    if k.tracer is not None:
        k.tracer("try_to_unmap", (page, flags, unmapped))
    return unmapped


def try_to_munlock(k: Kernel, page: u64) -> i32:
    """Mark a page mlocked again if some VM_LOCKED VMA still maps it.

    mm/rmap.c:1706 (v4.18). Called by munlock, with the page locked, isolated from the LRU and
    PG_mlocked just cleared.

    Locks: needs the page lock, and the page off its LRU list; takes the rmap lock for read, and
    page-table locks inside of it. The caller may have mmap_sem for write.
    """
    if not PageLocked(k, page) or PageLRU(k, page):  # L1716
        BUG_PAGE("rmap.c:1716 try_to_munlock: the page is not locked, or on an LRU list", page)
    if PageCompound(k, page) and PageDoubleMap(k, compound_head(k, page)):  # L1717
        BUG_PAGE("rmap.c:1717 try_to_munlock: a huge page that PTEs map as well", page)
    rmap_walk(k, page, TryToMunlockControl(TTU_MUNLOCK))  # L1719
    return 0


def try_to_unmap_range(k: Kernel, pages: Any, flags: i32) -> i64:
    """`try_to_unmap` of many pages; returns how many of them nothing maps any more.

    `pages` is a contiguous array of u64 page frame numbers, each of a page that the caller has
    locked and has a reference to. The loop is compiled and makes no object a page.
    """
    numbers: cython.const[cython.ulonglong][::1] = memoryview(pages)
    rwc: TryToUnmapControl = TryToUnmapControl(flags)
    unmapped: i64 = 0
    i: cython.Py_ssize_t
    for i in range(numbers.shape[0]):
        if _try_to_unmap(k, numbers[i], rwc):
            unmapped += 1
    return unmapped

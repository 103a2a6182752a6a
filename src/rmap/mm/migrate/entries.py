# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Migration entries: waiting at them, and putting mappings back in their place.

The parts of mm/migrate.c (v4.18) that the splitting of huge pages shares with migration. Locks,
outermost first: the page lock of the old page and of the new one (the caller's; when a page stays
where it is they are the same), the rmap lock for read (or the caller's), page-table locks one at a
time, and inside of these what rmap and mlock need.

Since 5.19 the entry of a page that was exclusive says so: a write entry always, a read entry by
the bit that swap entries have for it (the kernel has one more type of entry).
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_PSE,
        _PAGE_SWP_EXCLUSIVE,
        PMD_MASK,
        PVMW_MIGRATION,
        PVMW_SYNC,
        RMAP_COMPOUND,
        RMAP_EXCLUSIVE,
        SWP_DEVICE_READ,
        SWP_DEVICE_WRITE,
        VM_LOCKED,
        PG_anon_exclusive,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.lru import put_page
    from rmap.mm.memory import maybe_mkwrite, wait_on_page_locked
    from rmap.mm.mlock_page import clear_page_mlock, mlock_vma_page, mlock_vma_page_counted
    from rmap.mm.mm_types import Kernel, Vma
    from rmap.mm.page import (
        PageAnon,
        PageDoubleMap,
        PageHuge,
        PageKsm,
        PageLocked,
        PageMlocked,
        PageTransCompound,
        PageTransHuge,
        compound_head,
        get_page,
        get_page_unless_zero,
        is_device_private_page,
        page_index,
    )
    from rmap.mm.page_vma_mapped import PageVmaMappedWalk, page_vma_mapped_walk
    from rmap.mm.pgtable import (
        is_migration_entry,
        is_pmd_migration_entry,
        is_swap_pte,
        is_write_migration_entry,
        pfn_pte,
        pte_lock,
        pte_mkold,
        pte_mksoft_dirty,
        pte_swp_soft_dirty,
        pte_to_swp_entry,
        pte_unlock,
        pte_write,
        ptep_get,
        set_pte_at,
        swp_entry,
        swp_entry_to_pte,
        swp_offset,
    )
    from rmap.mm.rmap_counts import (
        do_page_add_anon_rmap,
        hugepage_add_anon_rmap,
        page_add_anon_rmap,
        page_add_file_rmap,
        page_dup_rmap,
    )
    from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk, rmap_walk_locked
    from rmap.mm.vma import linear_page_index
    from rmap.scalar import flag, i32, u64


# ---------------------------------------------------------------- reading an entry


def migration_entry_to_page(k: Kernel, entry: u64) -> u64:
    """The page of a migration entry, which is locked as long as there is one (swapops.h)."""
    page: u64 = swp_offset(entry)
    if not PageLocked(k, page):
        BUG_PAGE("swapops.h:231 migration_entry_to_page: the page is not locked", page)
    return page


def make_device_private_entry(page: u64, write: flag) -> u64:
    """The swp_entry_t of a page in memory of a device (include/linux/swapops.h)."""
    return swp_entry(SWP_DEVICE_WRITE if write else SWP_DEVICE_READ, page)


# ---------------------------------------------------------------- waiting


def migration_entry_wait(k: Kernel, ptep: u64) -> i32:
    """Wait until a page that is being moved has arrived (mm/migrate.c, v4.18).

    Whoever moves it has it locked, and the entry keeps no reference: without one of our own the
    page could be freed while we wait. Takes the page-table lock; the caller holds mmap_sem.
    """
    pte_lock(k, ptep)
    pte: u64 = ptep_get(k, ptep)
    return _wait(k, ptep, pte, is_swap_pte(pte) and is_migration_entry(pte_to_swp_entry(pte)))


def pmd_migration_entry_wait(k: Kernel, pmd: u64) -> i32:
    """The same for a huge page that a PMD maps (mm/migrate.c, v4.18)."""
    pte_lock(k, pmd)
    pmde: u64 = ptep_get(k, pmd)
    return _wait(k, pmd, pmde, is_pmd_migration_entry(pmde))


def _wait(k: Kernel, slot: u64, value: u64, waits: flag) -> i32:
    """Drop the page-table lock, and wait for the page of the entry if it still is one."""
    page: u64 = 0
    if waits:
        page = migration_entry_to_page(k, pte_to_swp_entry(value))
        # Without any reference left the migration is about to end: look again at once.
        if not get_page_unless_zero(k, compound_head(k, page)):
            page = 0
    pte_unlock(k, slot)
    if page:
        wait_on_page_locked(k, page)
        put_page(k, page)
    return 0


# ---------------------------------------------------------------- putting mappings back


class RemoveMigration(RmapWalkControl):
    """The walk of `remove_migration_ptes`; `old` is the page that the entries name."""

    def __init__(self, old: u64) -> None:
        self.old = old

    def rmap_one(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Put back what one VMA has."""
        return remove_migration_pte(k, page, vma, address, self.old)


def remove_migration_ptes(k: Kernel, old: u64, new: u64, locked: flag) -> i32:
    """Let the entries that name `old` map `new`, wherever rmap finds any (mm/migrate.c, v4.18).

    The two are the same page if it was not moved. Both are locked, and `new` has `old`'s mapping
    and index. `locked`: the caller holds the rmap lock. The anon_vma must exist, which no mapping
    guarantees here: a reference, or the caller's lock on it, does.
    """
    if not PageLocked(k, old):
        BUG_PAGE("swapops.h:231 remove_migration_ptes: the old page is not locked", old)
    if k.tracer is not None:
        k.tracer("remove_migration_ptes", (old, new, locked))
    if locked:
        return rmap_walk_locked(k, new, RemoveMigration(old))
    return rmap_walk(k, new, RemoveMigration(old))


def remove_migration_pte(k: Kernel, page: u64, vma: Vma, address: u64, old: u64) -> flag:
    """Put back what a VMA has of a page; that is more than one entry for parts of a huge page.

    mm/migrate.c (v4.18). Every entry is looked at under its lock, for none may be missed. Always
    goes on. The protection is the VMA's as it is now: mprotect may have changed it meanwhile.
    """
    pvmw: PageVmaMappedWalk = PageVmaMappedWalk(old, vma, address, PVMW_SYNC | PVMW_MIGRATION)
    new: u64
    while page_vma_mapped_walk(k, pvmw):
        if PageKsm(k, page):
            # Wherever a merged page is mapped, it is the same page, and its index says nothing.
            new = page
        else:
            # Tails have no index: from the head's.
            new = page + linear_page_index(k, vma, pvmw.address) - page_index(k, old)
        if not pvmw.pte:
            if PageHuge(k, page) or not PageTransCompound(k, page):
                BUG_PAGE("migrate.c remove_migration_pte: a PMD entry of a small page", page)
            remove_migration_pmd(k, pvmw, new)
        elif PageHuge(k, new):
            _restore_hugetlb(k, pvmw, new)
        else:
            _restore_pte(k, pvmw, page, new)
    if k.tracer is not None:
        k.tracer("remove_migration_pte", (page, vma, address, old))
    return True


def _restore_pte(k: Kernel, pvmw: PageVmaMappedWalk, page: u64, new: u64) -> i32:
    """Map a page, or a part of a huge one, in the place of an entry. The table is locked."""
    vma: Vma = pvmw.vma
    old_pte: u64 = ptep_get(k, pvmw.pte)
    get_page(k, new)
    pte: u64 = _restored(k, pvmw.pte, new, vma)
    if is_device_private_page(k, new):
        pte = swp_entry_to_pte(make_device_private_entry(new, pte_write(pte)))
    # rss stayed as it was all the time.
    set_pte_at(k, vma.vm_mm, pvmw.address, pvmw.pte, pte)
    if PageAnon(k, new):
        _add_anon(k, new, vma, pvmw.address, False, _was_exclusive(k, old_pte))
    else:
        page_add_file_rmap(k, new, False)
    if k.profile.mlock_counts:
        return mlock_vma_page_counted(k, new, vma, False)
    if vma.vm_flags & VM_LOCKED and not PageTransCompound(k, new):
        mlock_vma_page(k, new)
    if k.profile.thp_migration_munlocks and PageTransHuge(k, page) and PageMlocked(k, page):
        # A PMD may have mlocked it before; what PTEs map as well must stay evictable.
        clear_page_mlock(k, page)
    return 0


def _restored(k: Kernel, slot: u64, new: u64, vma: Vma) -> u64:
    """The entry that maps `new` again: old, clean (the page knows), writable if it was."""
    value: u64 = ptep_get(k, slot)
    pte: u64 = pte_mkold(pfn_pte(new, vma.vm_page_prot))
    if pte_swp_soft_dirty(value):
        pte = pte_mksoft_dirty(pte)
    if is_write_migration_entry(pte_to_swp_entry(value)):
        pte = maybe_mkwrite(pte, vma)
    return pte


def _was_exclusive(k: Kernel, value: u64) -> i32:
    """``RMAP_EXCLUSIVE`` if the entry says that nobody else had the page, which v4.18 forgets."""
    if not k.profile.anon_exclusive:
        return 0
    if value & _PAGE_SWP_EXCLUSIVE or is_write_migration_entry(pte_to_swp_entry(value)):
        return RMAP_EXCLUSIVE
    return 0


def _add_anon(k: Kernel, new: u64, vma: Vma, address: u64, compound: flag, exclusive: i32) -> i32:
    """Count the mapping that is back, and what later kernels know of it."""
    if not exclusive:
        return page_add_anon_rmap(k, new, vma, address, compound)
    if compound:
        return do_page_add_anon_rmap(k, new, vma, address, RMAP_COMPOUND | exclusive)
    return do_page_add_anon_rmap(k, new, vma, address, exclusive)


def _restore_hugetlb(k: Kernel, pvmw: PageVmaMappedWalk, new: u64) -> i32:
    """Map a hugetlb page in the place of an entry of its size. The table is locked."""
    vma: Vma = pvmw.vma
    old_pte: u64 = ptep_get(k, pvmw.pte)
    get_page(k, new)
    pte: u64 = _restored(k, pvmw.pte, new, vma) | _PAGE_PSE
    set_pte_at(k, vma.vm_mm, pvmw.address, pvmw.pte, pte)
    if not PageAnon(k, new):
        return page_dup_rmap(k, new, True)
    hugepage_add_anon_rmap(k, new, vma, pvmw.address)
    if _was_exclusive(k, old_pte):
        k.pg_flags[new] |= PG_anon_exclusive
    return 0


def remove_migration_pmd(k: Kernel, pvmw: PageVmaMappedWalk, new: u64) -> i32:
    """Map a huge page in the place of its PMD entry, which a walk has found (huge_memory.c).

    v4.18. The lock of the PMD's table is held, and the page is locked.
    """
    vma: Vma = pvmw.vma
    start: u64 = pvmw.address & PMD_MASK
    old_pmd: u64 = ptep_get(k, pvmw.pmd)
    get_page(k, new)
    pmde: u64 = _restored(k, pvmw.pmd, new, vma) | _PAGE_PSE
    if PageAnon(k, new):
        _add_anon(k, new, vma, start, True, _was_exclusive(k, old_pmd))
    else:
        page_add_file_rmap(k, new, True)
    set_pte_at(k, vma.vm_mm, start, pvmw.pmd, pmde)
    if k.profile.mlock_counts:
        return mlock_vma_page_counted(k, new, vma, True)
    if not vma.vm_flags & VM_LOCKED:
        return 0
    if k.profile.thp_migration_munlocks and PageDoubleMap(k, new):
        return 0
    return mlock_vma_page(k, new)

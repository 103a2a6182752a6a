# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""migrate_vma(): move a range of a process's memory to or from a device (mm/migrate.c, v4.18).

Unlike migrate_pages() it goes by addresses, and takes what it gets: a page that cannot be locked or
is used otherwise stays. It copies memory by whatever its caller says, in between.

Locks, outermost first: mmap_sem for read (the caller's), which keeps the VMA's anon_vma as well;
page locks, only tried for; page-table locks; and what try_to_unmap() and the LRU take.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_prepare
    from rmap.mm.bits import (
        _PAGE_SWP_EXCLUSIVE,
        EINVAL,
        GFP_KERNEL,
        MIGRATE_PFN_DEVICE,
        MIGRATE_PFN_LOCKED,
        MIGRATE_PFN_MIGRATE,
        MIGRATE_PFN_SHIFT,
        MIGRATE_PFN_WRITE,
        MIGRATE_SYNC_NO_COPY,
        MM_ANONPAGES,
        PAGE_MASK,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        SWP_DEVICE_WRITE,
        TTU_IGNORE_ACCESS,
        TTU_IGNORE_MLOCK,
        TTU_MIGRATION,
        VM_HUGETLB,
        VM_SPECIAL,
        VM_UFFD_MISSING,
        VM_WRITE,
        PG_anon_exclusive,
        PG_uptodate,
    )
    from rmap.mm.huge.pgtable import is_huge_zero_pmd
    from rmap.mm.huge.split_page import split_huge_page
    from rmap.mm.huge.split_pmd import make_migration_entry, split_huge_pmd
    from rmap.mm.lru import (
        isolate_lru_page,
        lru_cache_add_active_or_unevictable,
        put_page,
        putback_lru_page,
    )
    from rmap.mm.memcg import mem_cgroup_try_charge, mem_cgroup_uncharge
    from rmap.mm.memory import is_zero_pfn, vm_normal_page
    from rmap.mm.migrate.entries import (
        make_device_private_entry,
        remove_migration_pte,
        remove_migration_ptes,
    )
    from rmap.mm.migrate.move import migrate_page
    from rmap.mm.mlock_page import munlock_vma_page_counted
    from rmap.mm.mm_types import AddressSpace, Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
        ptep_clear_flush_notify,
    )
    from rmap.mm.page import (
        PageCompound,
        PageFlag,
        PageTransCompound,
        get_page,
        is_device_private_page,
        is_zone_device_page,
        page_count,
        page_mapcount,
        page_mapped,
        page_mapping,
        page_mapping_word,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        is_device_private_entry,
        pfn_pte,
        pmd_offset,
        pmd_trans_huge,
        pte_alloc,
        pte_dirty,
        pte_lock,
        pte_mkdirty,
        pte_mkwrite,
        pte_none,
        pte_offset,
        pte_pfn,
        pte_present,
        pte_soft_dirty,
        pte_swp_mksoft_dirty,
        pte_to_swp_entry,
        pte_unlock,
        pte_write,
        ptep_get,
        ptep_get_and_clear,
        set_pte_at,
        swp_entry_to_pte,
        swp_offset,
        swp_type,
    )
    from rmap.mm.rmap_counts import (
        page_add_new_anon_rmap,
        page_remove_rmap,
        page_try_share_anon_rmap,
    )
    from rmap.mm.tlb import flush_tlb_range
    from rmap.mm.unmap import try_to_unmap
    from rmap.mm.vma import inc_mm_counter, vma_is_anonymous
    from rmap.scalar import flag, i32, i64, u64


class MigrateVmaOps:
    """struct migrate_vma_ops: what the caller does in between. Override both.

    `prepared`: how many pages (or places without one) were got hold of.
    """

    def __init__(self) -> None:
        self.prepared = 0

    def alloc_and_copy(self, k: Kernel, m: MigrateVma) -> i32:
        """Give each page that migrates a place in `dst`: a locked page with its contents."""
        return 0

    def finalize_and_map(self, k: Kernel, m: MigrateVma) -> i32:
        """Note which pages have migrated; they are about to be mapped."""
        return 0


class MigrateVma:
    """struct migrate_vma: a range on its way.

    `src` has a word for each page of the range, ``MIGRATE_PFN_`` flags and a page above them, or 0
    for what stays. `dst` has the pages that `alloc_and_copy` gave.
    """

    def __init__(self, vma: Vma, start: u64, end: u64) -> None:
        self.vma = vma
        self.start = start
        self.end = end
        self.src = []
        self.dst = []
        self.cpages = 0
        self.npages = 0

    def page(self, i: i64) -> u64:
        """The page at a place, 0 for none."""
        word: u64 = self.src[i]
        return word >> MIGRATE_PFN_SHIFT

    def migrates(self, i: i64) -> flag:
        """Whether what is at a place still is to migrate."""
        word: u64 = self.src[i]
        return word & MIGRATE_PFN_MIGRATE != 0

    def add(self, word: u64) -> i32:
        """Note what is at the next place."""
        self.src.append(word)
        self.dst.append(0)
        self.npages += 1
        if word & MIGRATE_PFN_MIGRATE:
            self.cpages += 1
        return 0

    def keep(self, i: i64) -> i32:
        """Let what is at a place stay there."""
        word: u64 = self.src[i]
        self.src[i] = word & ~MIGRATE_PFN_MIGRATE
        self.cpages -= 1
        return 0

    def forget(self, i: i64) -> i32:
        """Have no more to do with what is at a place."""
        self.src[i] = 0
        return 0


def migrate_vma(k: Kernel, ops: MigrateVmaOps, vma: Vma, start: u64, end: u64) -> i32:
    """Move what is in ``[start, end)`` of a VMA as `ops` says; 0 or -EINVAL.

    Success says nothing about any page: that is what `ops.finalize_and_map` is told.
    """
    vma.vm_mm.mmap_sem.assert_held_any()
    start &= PAGE_MASK
    end &= PAGE_MASK
    if vma.vm_flags & (VM_HUGETLB | VM_SPECIAL):
        return -EINVAL
    if start >= end or start < vma.vm_start or end > vma.vm_end:
        return -EINVAL
    m: MigrateVma = MigrateVma(vma, start, end)
    ops.prepared = 0
    migrate_vma_collect(k, m)
    migrate_vma_prepare(k, m)
    ops.prepared = m.cpages
    if not m.cpages:
        return 0
    migrate_vma_unmap(k, m)
    if not m.cpages:
        return 0
    ops.alloc_and_copy(k, m)
    migrate_vma_pages(k, m)
    ops.finalize_and_map(k, m)
    migrate_vma_finalize(k, m)
    if k.tracer is not None:
        k.tracer("migrate_vma", (vma, start, end))
    return 0


# ---------------------------------------------------------------- collecting


def migrate_vma_collect(k: Kernel, m: MigrateVma) -> i32:
    """Find what is in the range, with a reference to each page; what nothing is at may migrate too.

    Pages that can be locked at once get a migration entry here and now, which is all that a page
    needs that one process maps.
    """
    address: u64 = m.start
    stop: u64
    pmd: u64
    mm: Mm = m.vma.vm_mm
    mmu_notifier_invalidate_range_start(k, mm, m.start, m.end)
    while address < m.end:
        stop = (address & PMD_MASK) + PMD_SIZE
        if stop > m.end:
            stop = m.end
        pmd = pmd_offset(k, mm, address)
        if not pmd or pte_none(ptep_get(k, pmd)):
            _collect_hole(m, address, stop, MIGRATE_PFN_MIGRATE)
        elif not _make_small(k, m.vma, pmd, address):
            _collect_hole(m, address, stop, 0)
        elif pte_none(ptep_get(k, pmd)):
            _collect_hole(m, address, stop, MIGRATE_PFN_MIGRATE)
        else:
            _collect_table(k, m, pmd, address, stop)
        address = stop
    mmu_notifier_invalidate_range_end(k, mm, m.start, m.end)
    return 0


def _collect_hole(m: MigrateVma, address: u64, end: u64, word: u64) -> i32:
    """Note places without a page: to be filled at the device, or (0) to be left alone."""
    while address < end:
        m.add(word)
        address += PAGE_SIZE
    return 0


def _make_small(k: Kernel, vma: Vma, pmd: u64, address: u64) -> flag:
    """Split a huge page that a PMD maps; whether there is a table then, or nothing."""
    pte_lock(k, pmd)
    pmde: u64 = ptep_get(k, pmd)
    if not pmd_trans_huge(pmde):
        pte_unlock(k, pmd)
        return pte_none(pmde) or pte_present(pmde)
    page: u64 = pte_pfn(pmde)
    if is_huge_zero_pmd(k, pmde):
        pte_unlock(k, pmd)
        split_huge_pmd(k, vma, pmd, address)
        return not pmd_trans_huge(ptep_get(k, pmd))
    get_page(k, page)
    pte_unlock(k, pmd)
    error: i32 = 1
    if trylock_page(k, page):
        error = split_huge_page(k, page)
        unlock_page(k, page)
    put_page(k, page)
    return not error and not pmd_trans_huge(ptep_get(k, pmd))


def _collect_table(k: Kernel, m: MigrateVma, pmd: u64, address: u64, end: u64) -> i32:
    """migrate_vma_collect_pmd(): the entries of one table, under its lock."""
    first: u64 = address
    ptep: u64 = pte_offset(k, pmd, address)
    base: u64 = ptep
    unmapped: i64 = 0
    pte_lock(k, base)
    while address < end:
        unmapped += _collect_pte(k, m, address, ptep)
        address += PAGE_SIZE
        ptep += 1
    # v4.18 drops the lock first, and whoever zaps the entries then has nothing to flush.
    under_lock: flag = k.profile.device_collect_flushes_under_lock
    if unmapped and under_lock:
        flush_tlb_range(k, m.vma.vm_mm, first, end)
    pte_unlock(k, base)
    if unmapped and not under_lock:
        flush_tlb_range(k, m.vma.vm_mm, first, end)
    return 0


def _collect_pte(k: Kernel, m: MigrateVma, address: u64, ptep: u64) -> i64:
    """Note what an entry maps, and replace it if the page can be locked; 1 if a TLB may have it."""
    pte: u64 = ptep_get(k, ptep)
    entry: u64
    page: u64
    word: u64 = MIGRATE_PFN_MIGRATE
    if pte_none(pte):
        m.add(word)
        return 0
    if not pte_present(pte):
        entry = pte_to_swp_entry(pte)
        # Other special entries, and what is in swap, are left alone.
        if not is_device_private_entry(entry):
            m.add(0)
            return 0
        page = swp_offset(entry)
        word |= MIGRATE_PFN_DEVICE
        if swp_type(entry) == SWP_DEVICE_WRITE:
            word |= MIGRATE_PFN_WRITE
    else:
        if is_zero_pfn(k, pte_pfn(pte)):
            m.add(word)
            return 0
        page = vm_normal_page(k, m.vma, address, pte)
        if pte_write(pte):
            word |= MIGRATE_PFN_WRITE
    if not page or not page_mapping_word(k, page) or PageTransCompound(k, page):
        m.add(0)
        return 0
    # The reference also keeps everybody else from moving the page.
    get_page(k, page)
    word |= page << MIGRATE_PFN_SHIFT
    if not trylock_page(k, page):
        m.add(word)
        return 0
    if not _replace_pte(k, m, address, ptep, page, word & MIGRATE_PFN_WRITE != 0):
        unlock_page(k, page)
        put_page(k, page)
        m.add(0)
        return 0
    m.add(word | MIGRATE_PFN_LOCKED)
    return 1 if pte_present(pte) else 0


def _replace_pte(k: Kernel, m: MigrateVma, address: u64, ptep: u64, page: u64, write: flag) -> flag:
    """Leave a migration entry; whether it was done: not of a page that is pinned (5.19).

    v4.18 asks a special swap entry whether it is soft-dirty by the bit of present ones.
    """
    mm: Mm = m.vma.vm_mm
    pte: u64 = ptep_get_and_clear(k, mm, address, ptep)
    exclusive: flag = k.profile.anon_exclusive and PageFlag(k, page, PG_anon_exclusive)
    if exclusive and page_try_share_anon_rmap(k, page) < 0:
        set_pte_at(k, mm, address, ptep, pte)
        return False
    if k.profile.device_collect_keeps_dirty and pte_present(pte) and pte_dirty(pte):
        set_page_dirty(k, page)
    swp_pte: u64 = swp_entry_to_pte(make_migration_entry(k, page, write))
    if exclusive and not write:
        swp_pte |= _PAGE_SWP_EXCLUSIVE
    if pte_soft_dirty(pte):
        swp_pte = pte_swp_mksoft_dirty(swp_pte)
    set_pte_at(k, mm, address, ptep, swp_pte)
    page_remove_rmap(k, page, False)
    if k.profile.mlock_counts:
        munlock_vma_page_counted(k, page, m.vma, False)
    # Not the last reference: the caller has taken one.
    put_page(k, page)
    return True


# ---------------------------------------------------------------- getting hold of the pages


def migrate_vma_check_page(k: Kernel, page: u64) -> flag:
    """Whether nobody but page tables, the cache and we have references to the page."""
    extra: i32 = 1
    if PageCompound(k, page):
        return False
    if is_zone_device_page(k, page):
        # No CPU reaches it, so nobody can have pinned it.
        if is_device_private_page(k, page):
            return True
        extra += 1
    if page_mapping(k, page) is not None:
        extra += 1
    return page_count(k, page) - extra <= page_mapcount(k, page)


def _put_back(k: Kernel, page: u64) -> i32:
    """Give a page back that was got hold of: to the LRU, or to its device."""
    if is_zone_device_page(k, page):
        return put_page(k, page)
    return putback_lru_page(k, page)


def migrate_vma_prepare(k: Kernel, m: MigrateVma) -> i32:
    """Lock the pages, and isolate those that are on the LRU; what cannot be got stays."""
    i: i64
    page: u64
    word: u64
    replaced: flag
    for i in range(m.npages):
        page = m.page(i)
        if not page:
            continue
        word = m.src[i]
        replaced = word & MIGRATE_PFN_LOCKED != 0
        if not replaced:
            # Two that wait for each other's pages would wait for ever.
            if not trylock_page(k, page):
                m.keep(i)
                m.forget(i)
                put_page(k, page)
                continue
            m.src[i] = word | MIGRATE_PFN_LOCKED
        if not is_zone_device_page(k, page):
            if isolate_lru_page(k, page):
                _let_stay(k, m, i, page, replaced)
                continue
            # The isolation has a reference of its own.
            put_page(k, page)
        if not migrate_vma_check_page(k, page):
            if not is_zone_device_page(k, page):
                get_page(k, page)
                putback_lru_page(k, page)
            _let_stay(k, m, i, page, replaced)
    return 0


def _let_stay(k: Kernel, m: MigrateVma, i: i64, page: u64, replaced: flag) -> i32:
    """Give up a page that is locked and has our reference; its entry comes back if it is gone."""
    m.keep(i)
    m.forget(i)
    if replaced:
        remove_migration_pte(k, page, m.vma, m.start + i * PAGE_SIZE, page)
    unlock_page(k, page)
    return put_page(k, page)


def migrate_vma_unmap(k: Kernel, m: MigrateVma) -> i32:
    """Take the pages out of everybody else's page tables, too; what is in use otherwise stays."""
    i: i64
    page: u64
    for i in range(m.npages):
        page = m.page(i)
        if not page or not m.migrates(i):
            continue
        if page_mapped(k, page):
            try_to_unmap(k, page, TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS)
        if not page_mapped(k, page) and migrate_vma_check_page(k, page):
            continue
        m.keep(i)
        m.forget(i)
        remove_migration_ptes(k, page, page, False)
        unlock_page(k, page)
        _put_back(k, page)
    return 0


# ---------------------------------------------------------------- moving


def migrate_vma_pages(k: Kernel, m: MigrateVma) -> i32:
    """Let the new pages be what the old ones were, and put them where nothing was."""
    i: i64
    page: u64
    new: u64
    mapping: AddressSpace
    cached: flag
    notified: u64 = 0
    for i in range(m.npages):
        page = m.page(i)
        new = m.dst[i]
        if not m.migrates(i):
            continue
        if not new:
            m.keep(i)
            continue
        if not page:
            if not notified:
                notified = m.start + i * PAGE_SIZE
                mmu_notifier_invalidate_range_start(k, m.vma.vm_mm, notified, m.end)
            if not migrate_vma_insert_page(k, m, m.start + i * PAGE_SIZE, new):
                m.keep(i)
            continue
        mapping = page_mapping(k, page)
        # A device that no CPU reaches has only private memory, and none that is in swap as well.
        cached = mapping is not None and is_zone_device_page(k, new)
        if cached or migrate_page(k, mapping, new, page, MIGRATE_SYNC_NO_COPY):
            m.keep(i)
    if notified:
        mmu_notifier_invalidate_range_end(k, m.vma.vm_mm, notified, m.end)
    return 0


def migrate_vma_insert_page(k: Kernel, m: MigrateVma, address: u64, new: u64) -> flag:
    """Map a new page where nothing was, or the zero page; whether it was mapped.

    As a write fault does, which may have been faster.
    """
    vma: Vma = m.vma
    mm: Mm = vma.vm_mm
    if not vma_is_anonymous(vma):
        return False
    pmd: u64 = pmd_offset(k, mm, address)
    if pmd and pmd_trans_huge(ptep_get(k, pmd)):
        return False
    ptep: u64 = pte_alloc(k, mm, address)
    if not ptep or anon_vma_prepare(k, vma):
        return False
    if mem_cgroup_try_charge(k, new, mm.memcg, GFP_KERNEL):
        return False
    k.pg_flags[new] |= PG_uptodate
    pte: u64
    if is_zone_device_page(k, new):
        pte = swp_entry_to_pte(make_device_private_entry(new, vma.vm_flags & VM_WRITE != 0))
    else:
        pte = pfn_pte(new, vma.vm_page_prot)
        if vma.vm_flags & VM_WRITE:
            pte = pte_mkwrite(pte_mkdirty(pte))
    pte_lock(k, ptep)
    old: u64 = ptep_get(k, ptep)
    zero: flag = pte_present(old) and is_zero_pfn(k, pte_pfn(old))
    if (not pte_none(old) and not zero) or vma.vm_flags & VM_UFFD_MISSING:
        pte_unlock(k, ptep)
        mem_cgroup_uncharge(k, new)
        return False
    inc_mm_counter(k, mm, MM_ANONPAGES)
    page_add_new_anon_rmap(k, new, vma, address, False)
    if not is_zone_device_page(k, new):
        lru_cache_add_active_or_unevictable(k, new, vma)
    get_page(k, new)
    if zero:
        ptep_clear_flush_notify(k, vma, address, ptep)
    set_pte_at(k, mm, address, ptep, pte)
    pte_unlock(k, ptep)
    return True


def migrate_vma_finalize(k: Kernel, m: MigrateVma) -> i32:
    """Put mappings back, of the new page or the old one; unlock and give back all pages."""
    i: i64
    page: u64
    new: u64
    for i in range(m.npages):
        page = m.page(i)
        new = m.dst[i]
        if not page:
            if new:
                unlock_page(k, new)
                put_page(k, new)
            continue
        if not m.migrates(i) or not new:
            if new:
                unlock_page(k, new)
                put_page(k, new)
            new = page
        remove_migration_ptes(k, page, new, False)
        unlock_page(k, page)
        _put_back(k, page)
        if new != page:
            unlock_page(k, new)
            _put_back(k, new)
    return 0

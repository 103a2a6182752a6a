# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""What fork copies of the page tables: copy_page_range() of mm/memory.c:1171 (v4.18).

Locks: both mmap_sems are held for write by dup_mmap(). A table is copied under the page-table lock
of the child's table and, nested in it, that of the parent's; inside of those mmlist_lock and the
locks of swap. The child's VMA is in the trees of rmap before its first page is mapped, so no walk
can miss one.
"""

from __future__ import annotations

import cython
import numpy as np

from rmap.mm.mm_types import column

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        _PAGE_DIRTY,
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        _PAGE_RW,
        _PAGE_SPECIAL,
        _PAGE_SWP_EXCLUSIVE,
        ENOMEM,
        GFP_KERNEL,
        MM_ANONPAGES,
        MM_SWAPENTS,
        NR_MM_COUNTERS,
        PAGE_MAPPING_ANON,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        PTE_NONE_IGNORES,
        PTE_PFN_MASK,
        PUD_SHIFT,
        PUD_SIZE,
        SWP_DEVICE_READ,
        SWP_DEVICE_WRITE,
        SWP_MIGRATION_READ,
        VM_HUGETLB,
        VM_MIXEDMAP,
        VM_PFNMAP,
        VM_SHARED,
        PG_anon_exclusive,
        PG_head,
        PG_tail,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.content import copy_page_content
    from rmap.mm.huge.change import copy_huge_pmd
    from rmap.mm.hugetlb.copy import copy_hugetlb_page_range
    from rmap.mm.lru import lru_cache_add_active_or_unevictable, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import maybe_mkwrite, vm_normal_page
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageFlag,
        PageLocked,
        SetPage,
        get_page,
        page_maybe_dma_pinned,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.pgtable import (
        is_device_private_entry,
        is_migration_entry,
        is_write_migration_entry,
        non_swap_entry,
        pfn_pte,
        pmd_alloc,
        pmd_offset,
        pte_alloc,
        pte_lock,
        pte_mkdirty,
        pte_none,
        pte_offset,
        pte_swp_mksoft_dirty,
        pte_swp_soft_dirty,
        pte_to_swp_entry,
        pte_unlock,
        ptep_set_wrprotect,
        set_pte_at,
        swp_entry,
        swp_entry_to_pte,
        swp_offset,
        swp_type,
    )
    from rmap.mm.rmap_counts import page_add_new_anon_rmap, page_dup_rmap
    from rmap.mm.swap_slots import add_swap_count_continuation, swap_duplicate
    from rmap.mm.vma import add_mm_counter, is_cow_mapping, mm_counter, mm_counter_file
    from rmap.scalar import flag, i32, u64
    from rmap.sync.core import sched


class PageCopy:
    """One copy_page_range() on its way: the VMAs, and what its loop carries from entry to entry.

    `rss` is what the child's counters get at the end of each table. An entry that cannot be copied
    without memory ends the locked part: `entry` is a swap entry whose count needs another page,
    `prealloc` the page for an early copy, once there is one.
    """

    def __init__(self, k: Kernel, dst_vma: Vma, src_vma: Vma) -> None:
        self.dst_vma = dst_vma
        self.src_vma = src_vma
        self.dst_mm = dst_vma.vm_mm
        self.src_mm = src_vma.vm_mm
        self.cow = is_cow_mapping(src_vma.vm_flags)
        self.shared = src_vma.vm_flags & VM_SHARED != 0
        self.exclusive = k.profile.anon_exclusive
        self.pins = k.profile.fork_copies_pinned
        self.rss = column(NR_MM_COUNTERS, np.longlong)
        self.entry = 0
        self.prealloc = 0


def vma_needs_copy(src_vma: Vma) -> flag:
    """Whether faults of the child could not find the pages by themselves.

    Without an anon_vma every page is the file's, and copying would cost more than faulting.
    """
    if src_vma.vm_flags & (VM_HUGETLB | VM_PFNMAP | VM_MIXEDMAP):
        return True
    return src_vma.anon_vma is not None


def copy_page_range(k: Kernel, dst_vma: Vma, src_vma: Vma) -> i32:
    """Let a child's VMA map what the parent's maps; writable private pages become shared.

    Returns 0 or -ENOMEM; what was copied until then is left for exit_mmap() of the child. Both
    mmap_sems are held for write.
    """
    if not vma_needs_copy(src_vma):
        return 0
    if src_vma.vm_flags & VM_HUGETLB:
        return copy_hugetlb_page_range(k, dst_vma, src_vma)
    copy: PageCopy = PageCopy(k, dst_vma, src_vma)
    copy.src_mm.mmap_sem.assert_held_write()
    copy.dst_mm.mmap_sem.assert_held_write()
    # Write protection is all that others who follow the parent's tables have to hear of.
    if copy.cow:
        mmu_notifier_invalidate_range_start(k, copy.src_mm, src_vma.vm_start, src_vma.vm_end)
    error: i32 = _copy_tables(k, copy, src_vma.vm_start, src_vma.vm_end)
    if copy.cow:
        mmu_notifier_invalidate_range_end(k, copy.src_mm, src_vma.vm_start, src_vma.vm_end)
    if copy.prealloc:
        put_page(k, copy.prealloc)
    if k.tracer is not None:
        k.tracer("copy_page_range", (dst_vma, src_vma, error))
    return error


def _copy_tables(k: Kernel, copy: PageCopy, address: u64, end: u64) -> i32:
    """Copy table by table: copy_p4d_range() to copy_pmd_range(). What has no table is skipped."""
    src_pmd: u64
    dst_pmd: u64
    stop: u64
    value: u64
    error: i32
    while address < end:
        src_pmd = pmd_offset(k, copy.src_mm, address)
        if not src_pmd:
            address = ((address >> PUD_SHIFT) << PUD_SHIFT) + PUD_SIZE
            continue
        # The upper tables come first, even if nothing is found below them.
        dst_pmd = pmd_alloc(k, copy.dst_mm, address)
        if not dst_pmd:
            return -ENOMEM
        stop = (address & PMD_MASK) + PMD_SIZE
        if stop > end:
            stop = end
        value = k.pt[src_pmd]
        if value & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT and not pte_none(value):
            if stop - address != PMD_SIZE:
                BUG("memory.c:1117 copy_pmd_range: a VMA has a part of a huge page's PMD")
            error = copy_huge_pmd(k, copy.dst_vma, copy.src_vma, dst_pmd, src_pmd, address)
            if error == -ENOMEM:
                return error
            if not error:
                address = stop
                continue
            # There is a table now.
            value = k.pt[src_pmd]
        if not pte_none(value):
            error = copy_pte_range(k, copy, src_pmd, address, stop)
            if error:
                return error
        address = stop
    return 0


def copy_pte_range(k: Kernel, copy: PageCopy, src_pmd: u64, address: u64, end: u64) -> i32:
    """Copy the entries of one table, as often interrupted as memory is needed (memory.c:1028)."""
    dst_pte: u64
    src_pte: u64
    stopped_at: u64 = end
    error: i32 = 0
    while address != end:
        dst_pte = pte_alloc(k, copy.dst_mm, address)
        if not dst_pte:
            return -ENOMEM
        src_pte = pte_offset(k, src_pmd, address)
        address = _copy_locked(k, copy, dst_pte, src_pte, address, end)
        if address != end:
            # Memory that does not help will not help the next time.
            error = -ENOMEM if address == stopped_at else _get_memory(k, copy)
            if error:
                return error
            stopped_at = address
    return 0


def _copy_locked(
    k: Kernel, copy: PageCopy, dst_pte: u64, src_pte: u64, address: u64, end: u64
) -> u64:
    """Copy entries of one table under both locks; how far it came before memory was needed."""
    first_dst: u64 = dst_pte
    first_src: u64 = src_pte
    pte: u64
    wants: i32
    i: i32
    for i in range(NR_MM_COUNTERS):
        copy.rss[i] = 0
    pte_lock(k, first_dst)
    pte_lock(k, first_src)
    while address != end:
        pte = k.pt[src_pte]
        if pte & ~PTE_NONE_IGNORES:
            if pte & (_PAGE_PRESENT | _PAGE_PROTNONE):
                wants = copy_present_pte(k, copy, dst_pte, src_pte, pte, address)
            else:
                wants = copy_nonpresent_pte(k, copy, dst_pte, src_pte, pte, address)
            if wants:
                break
        address += PAGE_SIZE
        dst_pte += 1
        src_pte += 1
    pte_unlock(k, first_src)
    for i in range(NR_MM_COUNTERS):
        if copy.rss[i]:
            add_mm_counter(k, copy.dst_mm, i, copy.rss[i])
    pte_unlock(k, first_dst)
    return address


def _get_memory(k: Kernel, copy: PageCopy) -> i32:
    """Get what an entry could not be copied without, now that no lock is held. 0 or -ENOMEM."""
    page: u64
    if copy.entry:
        if add_swap_count_continuation(k, copy.entry, GFP_KERNEL) < 0:
            return -ENOMEM
        copy.entry = 0
        return 0
    page = alloc_page(k, GFP_KERNEL)
    if not page:
        return -ENOMEM
    if mem_cgroup_try_charge(k, page, copy.src_mm.memcg, GFP_KERNEL):
        put_page(k, page)
        return -ENOMEM
    copy.prealloc = page
    return 0


# ---------------------------------------------------------------- entries without a page


def copy_nonpresent_pte(
    k: Kernel, copy: PageCopy, dst_pte: u64, src_pte: u64, pte: u64, address: u64
) -> i32:
    """Copy a swap entry of whatever kind; 1 if its count is full (copy_one_pte, memory.c:916)."""
    entry: u64 = pte_to_swp_entry(pte)
    page: u64
    exclusive: flag
    if not non_swap_entry(entry):
        if swap_duplicate(k, entry) < 0:
            copy.entry = entry
            return 1
        # So that swapoff finds the child as well.
        if not copy.dst_mm.on_mmlist:
            _list_after(k, copy.dst_mm, copy.src_mm)
        if copy.exclusive and pte & _PAGE_SWP_EXCLUSIVE:
            pte &= ~_PAGE_SWP_EXCLUSIVE
            set_pte_at(k, copy.src_mm, address, src_pte, pte)
        copy.rss[MM_SWAPENTS] += 1
    elif is_migration_entry(entry):
        page = swp_offset(entry)
        if not PageLocked(k, page):
            BUG_PAGE("swapops.h:231 migration_entry_to_page: the page is not locked", page)
        copy.rss[mm_counter(k, page)] += 1
        exclusive = copy.exclusive and pte & _PAGE_SWP_EXCLUSIVE != 0
        if copy.cow and (exclusive or is_write_migration_entry(entry)):
            # When the page has moved it is to be mapped read-only, in both.
            entry = swp_entry(SWP_MIGRATION_READ, page)
            if pte_swp_soft_dirty(pte):
                pte = pte_swp_mksoft_dirty(swp_entry_to_pte(entry))
            else:
                pte = swp_entry_to_pte(entry)
            set_pte_at(k, copy.src_mm, address, src_pte, pte)
    elif is_device_private_entry(entry):
        page = swp_offset(entry)
        # Mapped like a page of ordinary memory, although the processor cannot reach it.
        get_page(k, page)
        copy.rss[mm_counter(k, page)] += 1
        page_dup_rmap(k, page, False)
        if copy.exclusive:
            ClearPage(k, page, PG_anon_exclusive)
        if swp_type(entry) == SWP_DEVICE_WRITE and copy.cow:
            pte = swp_entry_to_pte(swp_entry(SWP_DEVICE_READ, page))
            set_pte_at(k, copy.src_mm, address, src_pte, pte)
    set_pte_at(k, copy.dst_mm, address, dst_pte, pte)
    return 0


def _list_after(k: Kernel, mm: Mm, before: Mm) -> i32:
    """Put an mm on the list of those that may have swap entries, behind another."""
    k.mmlist_lock.lock()
    if not mm.on_mmlist:
        k.mmlist.insert(k.mmlist.index(before) + 1 if before.on_mmlist else 0, mm)
        mm.on_mmlist = True
    k.mmlist_lock.unlock()
    return 0


# ---------------------------------------------------------------- entries with a page


def copy_present_pte(
    k: Kernel, copy: PageCopy, dst_pte: u64, src_pte: u64, pte: u64, address: u64
) -> i32:
    """Share a page with the child; 2 if it has to be copied and there is no page for that yet."""
    page: u64 = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    if pte & _PAGE_SPECIAL or page == 0 or page > k.nr_pages:
        page = vm_normal_page(k, copy.src_vma, address, pte)
    if page:
        if copy.pins and page_needs_cow_for_dma(k, copy, page):
            return _copy_present_page(k, copy, page, dst_pte, address)
        if copy.exclusive and PageFlag(k, page, PG_anon_exclusive):
            ClearPage(k, page, PG_anon_exclusive)
        if sched.exploring or k.pg_flags[page] & (PG_head | PG_tail):
            get_page(k, page)
            page_dup_rmap(k, page, False)
            copy.rss[mm_counter(k, page)] += 1
        else:
            _share_small_page(k, copy, page)
    if copy.cow and pte & _PAGE_RW:
        ptep_set_wrprotect(k, copy.src_mm, address, src_pte)
        pte = pte & ~_PAGE_RW
    # Of a shared page, whoever dirtied it writes it back.
    if copy.shared:
        pte = pte & ~_PAGE_DIRTY
    set_pte_at(k, copy.dst_mm, address, dst_pte, pte & ~_PAGE_ACCESSED)
    return 0


def _share_small_page(k: Kernel, copy: PageCopy, page: u64) -> i32:
    """The same three calls as for any page, with nobody to see them one by one: this is hot."""
    if k.pg_refcount[page] <= 0:
        BUG_PAGE("mm.h:875 get_page of a page without references", page)
    k.pg_refcount[page] += 1
    k.pg_mapcount[page] += 1
    if k.pg_mapping[page] & PAGE_MAPPING_ANON:
        copy.rss[MM_ANONPAGES] += 1
    else:
        copy.rss[mm_counter_file(k, page)] += 1
    return 0


def page_needs_cow_for_dma(k: Kernel, copy: PageCopy, page: u64) -> flag:
    """Whether the page may be pinned, so that the parent must keep it for itself.

    include/linux/mm.h (since 5.9). A pin takes many references; so many others look the same. A
    page that is shared already was not kept for anybody (since 5.19).
    """
    if not copy.cow or not page_maybe_dma_pinned(k, page) or not PageAnon(k, page):
        return False
    return not copy.exclusive or PageFlag(k, page, PG_anon_exclusive)


def _copy_present_page(k: Kernel, copy: PageCopy, page: u64, dst_pte: u64, address: u64) -> i32:
    """Copy a pinned page for the child at once: copy_present_page(), mm/memory.c (since 5.9).

    Shared, it would be copied for whoever writes first; if that is the parent, its device goes on
    with a page that is not the parent's any more.
    """
    if not copy.prealloc:
        return 2
    new: u64 = copy.prealloc
    copy.prealloc = 0
    copy_page_content(k, new, page)
    SetPage(k, new, PG_uptodate)
    page_add_new_anon_rmap(k, new, copy.dst_vma, address, False)
    lru_cache_add_active_or_unevictable(k, new, copy.dst_vma)
    copy.rss[mm_counter(k, new)] += 1
    pte: u64 = maybe_mkwrite(pte_mkdirty(pfn_pte(new, copy.dst_vma.vm_page_prot)), copy.dst_vma)
    set_pte_at(k, copy.dst_mm, address, dst_pte, pte)
    return 0

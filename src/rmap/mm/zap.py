# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Taking pages out of page tables, and the tables after them (parts of mm/memory.c, v4.18).

Locks: mapping->i_mmap_rwsem (unmap_mapping_pages: for write; unlink_file_vma), the root's
anon_vma->rwsem (unlink_anon_vmas), then page-table locks, and inside of those what the LRU, swap
and the memcg need. A page is freed only after the flush of the entries that mapped it: that is
what the `MmuGather` is for.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import unlink_anon_vmas
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        _PAGE_DIRTY,
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        HPAGE_PMD_SIZE,
        MAPPING_HANDLE_SHIFT,
        MM_ANONPAGES,
        MM_SWAPENTS,
        NR_MM_COUNTERS,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        PTE_NONE_IGNORES,
        PUD_SHIFT,
        PUD_SIZE,
        ULONG_MAX,
        VM_HUGETLB,
        VM_MIXEDMAP,
        VM_PFNMAP,
        VM_SEQ_READ,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.huge.change import zap_huge_pmd
    from rmap.mm.huge.pgtable import pmd_trans_unstable
    from rmap.mm.huge.split_pmd import __split_huge_pmd
    from rmap.mm.hugetlb.unmap import unmap_hugepage_range_final
    from rmap.mm.i_mmap import unlink_file_vma
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.lru import mark_page_accessed, put_page
    from rmap.mm.memory import print_bad_pte, vm_normal_page
    from rmap.mm.mlock_page import munlock_vma_page_counted
    from rmap.mm.mm_types import AddressSpace, IntervalNode, Kernel, Mm, Vma
    from rmap.mm.mmu_gather import (
        MmuGather,
        tlb_adjust_range,
        tlb_finish_mmu,
        tlb_flush_mmu_free,
        tlb_flush_mmu_tlbonly,
        tlb_gather_mmu,
        tlb_remove_page,
    )
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import (
        PageAnon,
        PageLocked,
        compound_head,
        page_mapping_word,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        free_pgd_range,
        is_device_private_entry,
        is_migration_entry,
        non_swap_entry,
        pmd_offset,
        pte_lock,
        pte_none,
        pte_offset,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get_and_clear,
        swp_offset,
    )
    from rmap.mm.rmap_counts import page_remove_rmap
    from rmap.mm.swap import free_swap_and_cache
    from rmap.mm.tlb import flush_tlb_batched_pending, flush_tlb_range
    from rmap.mm.vma import (
        add_mm_counter,
        mm_counter,
        mm_counter_file,
        update_hiwater_rss,
        vma_pages,
    )
    from rmap.scalar import flag, i32, u32, u64


class ZapDetails:
    """struct zap_details: leave alone what is not a page of `check_mapping`, if that is set.

    A zap with details, whatever they say, leaves entries alone that are not present.
    """

    def __init__(self, check_mapping: AddressSpace | None) -> None:
        self.check_mapping = check_mapping


# ---------------------------------------------------------------- zapping


def unmap_vmas(k: Kernel, tlb: MmuGather, vma: Vma | None, start: u64, end: u64) -> i32:
    """Unmap ``[start, end)`` in a list of VMAs that begins with `vma`. The caller flushes."""
    mm: Mm = tlb.mm
    mmu_notifier_invalidate_range_start(k, mm, start, end)
    while vma is not None and vma.vm_start < end:
        unmap_single_vma(k, tlb, vma, start, end, None)
        vma = vma.vm_next
    mmu_notifier_invalidate_range_end(k, mm, start, end)
    return 0


def zap_page_range(k: Kernel, vma: Vma, start: u64, size: u64) -> i32:
    """Unmap a range, of the VMA and of those behind it as far as it reaches.

    Flushed even where nothing was found: another CPU with mmap_sem for read may have emptied the
    entries a moment ago, and not flushed yet.
    """
    mm: Mm = vma.vm_mm
    end: u64 = start + size
    tlb: MmuGather = tlb_gather_mmu(k, mm, start, end)
    update_hiwater_rss(k, mm)
    mmu_notifier_invalidate_range_start(k, mm, start, end)
    while vma is not None and vma.vm_start < end:
        unmap_single_vma(k, tlb, vma, start, end, None)
        flush_tlb_range(k, mm, start, end)
        vma = vma.vm_next
    mmu_notifier_invalidate_range_end(k, mm, start, end)
    return tlb_finish_mmu(k, tlb, start, end)


def zap_page_range_single(k: Kernel, vma: Vma, start: u64, size: u64, details: ZapDetails) -> i32:
    """Unmap a range of one VMA, as far as `details` permit."""
    mm: Mm = vma.vm_mm
    end: u64 = start + size
    tlb: MmuGather = tlb_gather_mmu(k, mm, start, end)
    update_hiwater_rss(k, mm)
    mmu_notifier_invalidate_range_start(k, mm, start, end)
    unmap_single_vma(k, tlb, vma, start, end, details)
    mmu_notifier_invalidate_range_end(k, mm, start, end)
    return tlb_finish_mmu(k, tlb, start, end)


def unmap_single_vma(
    k: Kernel, tlb: MmuGather, vma: Vma, start: u64, end: u64, details: ZapDetails
) -> i32:
    """Unmap what a VMA has of ``[start, end)``."""
    first: u64 = start if start > vma.vm_start else vma.vm_start
    last: u64 = end if end < vma.vm_end else vma.vm_end
    if first >= last:
        return 0
    if vma.vm_flags & VM_HUGETLB:
        return unmap_hugepage_range_final(k, tlb, vma, first, last)
    unmap_page_range(k, tlb, vma, first, last, details)
    if vma.vm_flags & (VM_PFNMAP | VM_MIXEDMAP) and not tlb.fullmm:
        # A driver finds whom it has to unmap by rmap, which forgets the VMA before the last flush.
        if k.profile.pfnmap_flushed_before_unlink:
            tlb_flush_mmu_tlbonly(k, tlb)
    return 0


def unmap_page_range(
    k: Kernel, tlb: MmuGather, vma: Vma, address: u64, end: u64, details: ZapDetails
) -> i32:
    """Unmap a range inside of a VMA, table by table; absent upper tables are skipped whole."""
    mm: Mm = vma.vm_mm
    pmd: u64
    stop: u64
    while address < end:
        pmd = pmd_offset(k, mm, address)
        if not pmd:
            address = ((address >> PUD_SHIFT) << PUD_SHIFT) + PUD_SIZE
            continue
        stop = (address & PMD_MASK) + PMD_SIZE
        if stop > end:
            stop = end
        zap_pmd(k, tlb, vma, pmd, address, stop, details)
        address = stop
    return 0


def zap_pmd(
    k: Kernel, tlb: MmuGather, vma: Vma, pmd: u64, address: u64, end: u64, details: ZapDetails
) -> i32:
    """Unmap a range below one PMD. A huge page of which more stays is split before."""
    pmde: u64 = k.pt[pmd]
    if pmde & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT:
        if pte_none(pmde):
            return 0
        if end - address != HPAGE_PMD_SIZE:
            __split_huge_pmd(k, vma, pmd, address, False, 0)
        elif zap_huge_pmd(k, tlb, vma, pmd, address):
            return 0
        # It is a table now; or nothing, or with others about, something huge again.
        if pmd_trans_unstable(k, pmd):
            return 0
    while address != end:
        address = zap_pte_range(k, tlb, vma, pmd, address, end, details)
    return 0


def zap_pte_range(
    k: Kernel, tlb: MmuGather, vma: Vma, pmd: u64, address: u64, end: u64, details: ZapDetails
) -> u64:
    """Empty entries of one table, with its lock held; returns how far it came.

    It stops early when no more pages can be kept. A dirty page of a file is flushed for before the
    lock is dropped: once the entry is seen empty, the page may be cleaned and must not be written
    to through a stale translation.
    """
    mm: Mm = tlb.mm
    force_flush: flag = False
    ptep: u64 = pte_offset(k, pmd, address)
    first: u64 = ptep
    i: i32
    for i in range(NR_MM_COUNTERS):
        tlb.rss[i] = 0
    pte_lock(k, first)
    flush_tlb_batched_pending(k, mm)
    pte: u64
    step: i32
    while address != end:
        pte = k.pt[ptep]
        # pte_none() and pte_present(), without a call for each of 512 entries.
        if pte & ~PTE_NONE_IGNORES:
            if pte & (_PAGE_PRESENT | _PAGE_PROTNONE):
                step = zap_present_pte(k, tlb, vma, address, ptep, pte, details)
                if step:
                    force_flush = True
                if step > 1:
                    address += PAGE_SIZE
                    break
            else:
                zap_absent_pte(k, tlb, vma, address, ptep, pte, details)
        address += PAGE_SIZE
        ptep += 1
    for i in range(NR_MM_COUNTERS):
        if tlb.rss[i]:
            add_mm_counter(k, mm, i, tlb.rss[i])
    if force_flush:
        tlb_flush_mmu_tlbonly(k, tlb)
    pte_unlock(k, first)
    if force_flush:
        tlb_flush_mmu_free(k, tlb)
    return address


def zap_present_pte(
    k: Kernel, tlb: MmuGather, vma: Vma, address: u64, ptep: u64, pte: u64, details: ZapDetails
) -> i32:
    """Empty a present entry; 1 if a flush must come under the lock, 2 if no page can be kept."""
    page: u64 = vm_normal_page(k, vma, address, pte)
    if details is not None and page and not _page_wanted(k, details, page):
        return 0
    pte = ptep_get_and_clear(k, tlb.mm, address, ptep)
    tlb_adjust_range(tlb, address, address + PAGE_SIZE)
    if not page:
        return 0
    flush: i32 = 0
    if PageAnon(k, page):
        tlb.rss[MM_ANONPAGES] -= 1
    else:
        if pte & _PAGE_DIRTY:
            flush = 1
            set_page_dirty(k, page)
        if pte & _PAGE_ACCESSED and not vma.vm_flags & VM_SEQ_READ:
            mark_page_accessed(k, page)
        tlb.rss[mm_counter_file(k, page)] -= 1
    page_remove_rmap(k, page, False)
    if k.profile.mlock_counts:
        munlock_vma_page_counted(k, page, vma, False)
    if k.pg_mapcount[page] < -1:
        print_bad_pte(k, vma, address, pte, page)
    if tlb_remove_page(tlb, page):
        return 2
    return flush


def _page_wanted(k: Kernel, details: ZapDetails, page: u64) -> flag:
    """Whether the page is one of the mapping that is to be unmapped: not a private copy."""
    mapping: AddressSpace = details.check_mapping
    word: u32
    if mapping is None:
        return True
    word = page_mapping_word(k, compound_head(k, page))
    return word == mapping.handle << MAPPING_HANDLE_SHIFT


def _entry_wanted(k: Kernel, details: ZapDetails, entry: u64) -> flag:
    """Whether an entry that holds no page is to be zapped: of none, or of private copies too.

    v4.18 leaves all of them whenever only the pages of a file are zapped, even with the copies.
    """
    if not k.profile.zap_drops_swapped_copies:
        return False
    if is_migration_entry(entry):
        return _page_wanted(k, details, swp_offset(entry))
    return details.check_mapping is None


def zap_absent_pte(
    k: Kernel, tlb: MmuGather, vma: Vma, address: u64, ptep: u64, pte: u64, details: ZapDetails
) -> i32:
    """Empty an entry that holds a swap entry of whatever kind."""
    entry: u64 = pte_to_swp_entry(pte)
    page: u64
    if non_swap_entry(entry) and is_device_private_entry(entry):
        page = swp_offset(entry)
        if details is not None and not _page_wanted(k, details, page):
            return 0
        ptep_get_and_clear(k, tlb.mm, address, ptep)
        tlb.rss[mm_counter(k, page)] -= 1
        page_remove_rmap(k, page, False)
        if k.profile.mlock_counts:
            munlock_vma_page_counted(k, page, vma, False)
        put_page(k, page)
        return 0
    if details is not None and not _entry_wanted(k, details, entry):
        return 0
    if not non_swap_entry(entry):
        tlb.rss[MM_SWAPENTS] -= 1
    elif is_migration_entry(entry):
        page = swp_offset(entry)
        if not PageLocked(k, page):
            BUG_PAGE("swapops.h migration_entry_to_page: the page is not locked", page)
        tlb.rss[mm_counter(k, page)] -= 1
    if not free_swap_and_cache(k, entry):
        print_bad_pte(k, vma, address, pte, 0)
    ptep_get_and_clear(k, tlb.mm, address, ptep)
    return 0


# ---------------------------------------------------------------- pages of a file


def unmap_mapping_pages(
    k: Kernel, mapping: AddressSpace, start: u64, nr: u64, even_cows: flag
) -> i32:
    """Unmap `nr` pages of a file from `start` on, wherever they are mapped; 0 is all behind.

    With `even_cows` the private copies go as well, as when the file is truncated.
    """
    last: u64 = start + nr - 1 if nr and start + nr - 1 >= start else ULONG_MAX
    details: ZapDetails = ZapDetails(None if even_cows else mapping)
    mapping.i_mmap_rwsem.down_write()
    node: IntervalNode = interval_tree_iter_first(mapping.i_mmap, start, last)
    vma: Vma
    while node is not None:
        vma = node.vma
        unmap_mapping_vma(k, vma, start, last, details)
        node = interval_tree_iter_next(node, start, last)
    mapping.i_mmap_rwsem.up_write()
    return 0


def unmap_mapping_vma(k: Kernel, vma: Vma, start: u64, last: u64, details: ZapDetails) -> i32:
    """Unmap what a VMA maps of the pages `start` to `last` of its file."""
    end: u64 = vma.vm_pgoff + vma_pages(vma) - 1
    first: u64 = start if start > vma.vm_pgoff else vma.vm_pgoff
    if last < end:
        end = last
    address: u64 = vma.vm_start + ((first - vma.vm_pgoff) << PAGE_SHIFT)
    return zap_page_range_single(k, vma, address, (end - first + 1) << PAGE_SHIFT, details)


# ---------------------------------------------------------------- page tables


def free_pgtables(k: Kernel, tlb: MmuGather, vma: Vma | None, floor: u64, ceiling: u64) -> i32:
    """Unlink a list of VMAs, which are unmapped, from rmap, and free their page tables.

    Tables that reach below `floor` or above `ceiling` (0 is the end of the address space) stay.
    Rmap first: a walk that is under way may still look into the tables.
    """
    following: Vma
    start: u64
    while vma is not None:
        following = vma.vm_next
        start = vma.vm_start
        unlink_anon_vmas(k, vma)
        unlink_file_vma(vma)
        # VMAs close together are likely to share tables: one descent for all of them.
        while following is not None and following.vm_start <= vma.vm_end + PMD_SIZE:
            if (vma.vm_flags | following.vm_flags) & VM_HUGETLB:
                break
            vma = following
            following = vma.vm_next
            unlink_anon_vmas(k, vma)
            unlink_file_vma(vma)
        free_pgd_range(
            k,
            tlb.mm,
            start,
            vma.vm_end,
            floor,
            ceiling if following is None else following.vm_start,
        )
        vma = following
    return 0

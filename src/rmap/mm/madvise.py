# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""madvise (mm/madvise.c, v4.18; MADV_COLD and MADV_PAGEOUT as in v5.4).

Locks: `do_madvise` takes mm->mmap_sem, for write if the advice changes flags of VMAs and for read
if it is about pages. MADV_FREE and its like take page-table locks, under which they only try for
page locks.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        _PAGE_DIRTY,
        EAGAIN,
        EINVAL,
        ENOMEM,
        MADV_COLD,
        MADV_DODUMP,
        MADV_DOFORK,
        MADV_DONTDUMP,
        MADV_DONTFORK,
        MADV_DONTNEED,
        MADV_FREE,
        MADV_HUGEPAGE,
        MADV_HWPOISON,
        MADV_KEEPONFORK,
        MADV_MERGEABLE,
        MADV_NORMAL,
        MADV_PAGEOUT,
        MADV_RANDOM,
        MADV_SEQUENTIAL,
        MADV_SOFT_OFFLINE,
        MADV_UNMERGEABLE,
        MADV_WILLNEED,
        MADV_WIPEONFORK,
        MAX_MAP_COUNT,
        MM_SWAPENTS,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        TASK_SIZE,
        VM_DONTCOPY,
        VM_DONTDUMP,
        VM_HUGEPAGE,
        VM_HUGETLB,
        VM_IO,
        VM_LOCKED,
        VM_NOHUGEPAGE,
        VM_PFNMAP,
        VM_RAND_READ,
        VM_SEQ_READ,
        VM_SHARED,
        VM_SPECIAL,
        VM_WIPEONFORK,
        PG_dirty,
    )
    from rmap.mm.filemap import page_cache_read
    from rmap.mm.huge.advise import (
        cold_huge_pmd,
        cool_page,
        madvise_free_huge_pmd,
        split_own_huge_page,
    )
    from rmap.mm.huge.mm_slot import khugepaged_enter_vma_merge
    from rmap.mm.inject_error import madvise_inject_error
    from rmap.mm.ksm.unmerge import ksm_madvise
    from rmap.mm.lru import (
        mark_page_lazyfree,
        put_page,
    )
    from rmap.mm.memory import vm_normal_page
    from rmap.mm.mm_types import AddressSpace, Kernel, Mm, Vma
    from rmap.mm.mmap import page_align
    from rmap.mm.mmu_gather import (
        MmuGather,
        tlb_adjust_range,
        tlb_finish_mmu,
        tlb_gather_mmu,
    )
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import (
        ClearPage,
        PageCompound,
        PageDirty,
        PageSwapCache,
        page_mapcount,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.pgtable import (
        non_swap_entry,
        pmd_offset,
        pmd_trans_huge,
        pte_lock,
        pte_none,
        pte_offset,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get_and_clear,
        set_pte_at,
    )
    from rmap.mm.swap import free_swap_and_cache, try_to_free_swap
    from rmap.mm.swap_cache import read_swap_cache
    from rmap.mm.tlb import flush_tlb_batched_pending
    from rmap.mm.vma import add_mm_counter, find_vma, update_hiwater_rss, vma_is_anonymous
    from rmap.mm.vma_adjust import VmaPointer, split_vma_at
    from rmap.mm.vma_merge import vma_merge
    from rmap.mm.vmscan import reclaim_pages
    from rmap.mm.zap import zap_page_range
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- flags of VMAs


def madvise_behavior(
    k: Kernel, vma: Vma, prev: VmaPointer, start: u64, end: u64, behavior: i32
) -> i32:
    """Give a part of a VMA the flags that an advice asks for (mm/madvise.c:50, v4.18).

    `prev` is the VMA before `start`, and becomes the one that the part is in now. Returns 0 or a
    negative errno.
    """
    mm: Mm = vma.vm_mm
    error: i32 = _refused(vma, behavior)
    if error:
        return error
    flags: i64 = _new_flags(k, vma, start, end, behavior)
    if flags < 0:
        # Kernel resources are short for the moment.
        return -EAGAIN
    new_flags: u64 = flags
    if new_flags == vma.vm_flags:
        prev.vma = vma
        return 0
    pgoff: u64 = vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT)
    merged: Vma = vma_merge(
        k,
        mm,
        prev.vma,
        start,
        end,
        new_flags,
        vma.anon_vma,
        vma.vm_file,
        pgoff,
        vma.vm_userfaultfd_ctx,
    )
    if merged is not None:
        prev.vma = merged
        merged.vm_flags = new_flags
        return 0
    prev.vma = vma
    if start != vma.vm_start:
        error = _split(k, mm, vma, start, 1)
        if error:
            return error
    if end != vma.vm_end:
        error = _split(k, mm, vma, end, 0)
        if error:
            return error
    vma.vm_flags = new_flags
    return 0


def _split(k: Kernel, mm: Mm, vma: Vma, address: u64, new_below: i32) -> i32:
    """Split a VMA; -ENOMEM if there are too many, -EAGAIN if memory is short for the moment."""
    if mm.map_count >= MAX_MAP_COUNT:
        return -ENOMEM
    error: i32 = split_vma_at(k, mm, vma, address, new_below)
    return -EAGAIN if error == -ENOMEM else error


def _refused(vma: Vma, behavior: i32) -> i32:
    """Why the advice cannot be taken, as a negative errno; 0."""
    if behavior == MADV_DOFORK and vma.vm_flags & VM_IO:
        return -EINVAL
    if behavior == MADV_WIPEONFORK and (vma.vm_file is not None or vma.vm_flags & VM_SHARED):
        return -EINVAL
    if behavior == MADV_DODUMP and vma.vm_flags & VM_SPECIAL:
        return -EINVAL
    return 0


def _new_flags(k: Kernel, vma: Vma, start: u64, end: u64, behavior: i32) -> i64:
    """The flags of the VMA after an advice; the same if the advice does not matter for it.

    -ENOMEM if KSM or khugepaged could not take it.
    """
    vm_flags: u64 = vma.vm_flags
    if behavior == MADV_NORMAL:
        return vm_flags & ~(VM_RAND_READ | VM_SEQ_READ)
    if behavior == MADV_SEQUENTIAL:
        return (vm_flags & ~VM_RAND_READ) | VM_SEQ_READ
    if behavior == MADV_RANDOM:
        return (vm_flags & ~VM_SEQ_READ) | VM_RAND_READ
    if behavior == MADV_DONTFORK:
        return vm_flags | VM_DONTCOPY
    if behavior == MADV_DOFORK:
        return vm_flags & ~VM_DONTCOPY
    if behavior == MADV_WIPEONFORK:
        return vm_flags | VM_WIPEONFORK
    if behavior == MADV_KEEPONFORK:
        return vm_flags & ~VM_WIPEONFORK
    if behavior == MADV_DONTDUMP:
        return vm_flags | VM_DONTDUMP
    if behavior == MADV_DODUMP:
        return vm_flags & ~VM_DONTDUMP
    if behavior == MADV_MERGEABLE or behavior == MADV_UNMERGEABLE:
        return ksm_madvise(k, vma, start, end, behavior)
    if behavior == MADV_HUGEPAGE:
        vm_flags = (vm_flags & ~VM_NOHUGEPAGE) | VM_HUGEPAGE
        return -ENOMEM if khugepaged_enter_vma_merge(k, vma, vm_flags) else vm_flags
    return (vm_flags & ~VM_HUGEPAGE) | VM_NOHUGEPAGE


# ---------------------------------------------------------------- MADV_WILLNEED


def madvise_willneed(k: Kernel, vma: Vma, start: u64, end: u64) -> i32:
    """Bring contents into the caches, without mapping them (mm/madvise.c:262, v4.18)."""
    if vma.vm_file is None:
        return _swapin_walk(k, vma, start, end)
    mapping: AddressSpace = vma.vm_file.f_mapping
    if mapping.hstate is not None:
        # There is nowhere that hugetlbfs could read from.
        return 0
    index: u64 = ((start - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff
    last: u64 = ((end - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff
    if last > mapping.size_pages:
        last = mapping.size_pages
    item: i64
    while index < last:
        item = mapping.i_pages.get(index, 0)
        if item < 0:
            # Of shmem, in swap.
            _read_ahead(k, vma, -item)
        elif item == 0 and not mapping.shmem:
            page_cache_read(k, mapping, index, vma.vm_mm.memcg)
        index += 1
    return 0


def _read_ahead(k: Kernel, vma: Vma, entry: u64) -> i32:
    """Read a page into the swap cache, and leave it there."""
    page: u64 = read_swap_cache(k, entry, vma.vm_mm.memcg)
    if page:
        put_page(k, page)
    return 0


def _swapin_walk(k: Kernel, vma: Vma, address: u64, end: u64) -> i32:
    """Read what swap entries name into the swap cache: swapin_walk_pmd_entry()."""
    ptep: u64
    pte: u64
    while address < end:
        ptep = _pte_of(k, vma.vm_mm, address)
        if not ptep:
            address = (address & PMD_MASK) + PMD_SIZE
            continue
        # Reading may wait, so the lock is held for one entry at a time.
        pte_lock(k, ptep)
        pte = k.pt[ptep]
        pte_unlock(k, ptep)
        if not pte_none(pte) and not pte_present(pte):
            if not non_swap_entry(pte_to_swp_entry(pte)):
                _read_ahead(k, vma, pte_to_swp_entry(pte))
        address += PAGE_SIZE
    return 0


def _pte_of(k: Kernel, mm: Mm, address: u64) -> u64:
    """The entry of an address; 0 if there is no table, but nothing or a huge page."""
    pmd: u64 = pmd_offset(k, mm, address)
    if not pmd:
        return 0
    return pte_offset(k, pmd, address)


# ---------------------------------------------------------------- MADV_DONTNEED, MADV_FREE


def madvise_dontneed_free(k: Kernel, vma: Vma, start: u64, end: u64, behavior: i32) -> i32:
    """Give pages up: at once, or when memory is short (mm/madvise.c:527, v4.18)."""
    if vma.vm_flags & (VM_LOCKED | VM_HUGETLB | VM_PFNMAP):
        return -EINVAL
    if behavior == MADV_DONTNEED:
        return zap_page_range(k, vma, start, end - start)
    return madvise_free_single_vma(k, vma, start, end)


def madvise_free_single_vma(k: Kernel, vma: Vma, start: u64, end: u64) -> i32:
    """Make the anonymous pages of a range clean, so that reclaim may drop them.

    mm/madvise.c:452 (v4.18). Whoever writes to one before that makes it dirty, and keeps it.
    """
    if not vma_is_anonymous(vma):
        return -EINVAL
    mm: Mm = vma.vm_mm
    address: u64 = start
    stop: u64
    tlb: MmuGather = tlb_gather_mmu(k, mm, start, end)
    update_hiwater_rss(k, mm)
    mmu_notifier_invalidate_range_start(k, mm, start, end)
    while address < end:
        stop = (address & PMD_MASK) + PMD_SIZE
        if stop > end:
            stop = end
        _free_pte_range(k, tlb, vma, address, stop)
        address = stop
    mmu_notifier_invalidate_range_end(k, mm, start, end)
    return tlb_finish_mmu(k, tlb, start, end)


def _free_pte_range(k: Kernel, tlb: MmuGather, vma: Vma, address: u64, end: u64) -> i32:
    """Do that for the entries of one table (madvise_free_pte_range(), mm/madvise.c:307)."""
    mm: Mm = vma.vm_mm
    pmd: u64 = pmd_offset(k, mm, address)
    pte: u64
    page: u64
    swapped: i64 = 0
    if pmd and pmd_trans_huge(k.pt[pmd]):
        if madvise_free_huge_pmd(k, tlb, vma, pmd, address, end):
            return 0
    ptep: u64 = _pte_of(k, mm, address)
    if not ptep:
        return 0
    first: u64 = ptep
    pte_lock(k, first)
    flush_tlb_batched_pending(k, mm)
    while address < end:
        pte = k.pt[ptep]
        if pte_none(pte):
            page = 0
        elif not pte_present(pte):
            # To fault in a zeroed page is less work than to read this one.
            page = 0
            if not non_swap_entry(pte_to_swp_entry(pte)):
                swapped += 1
                free_swap_and_cache(k, pte_to_swp_entry(pte))
                set_pte_at(k, mm, address, ptep, 0)
        else:
            page = vm_normal_page(k, vma, address, pte)
        if page and PageCompound(k, page):
            # Only if no part that others map would be lost to them; and then once more.
            if not split_own_huge_page(k, first, page):
                break
            continue
        if page and _make_clean(k, page):
            if pte & (_PAGE_ACCESSED | _PAGE_DIRTY):
                _make_old(k, tlb, mm, address, ptep, _PAGE_ACCESSED | _PAGE_DIRTY)
            mark_page_lazyfree(k, page)
        ptep += 1
        address += PAGE_SIZE
    if swapped:
        add_mm_counter(k, mm, MM_SWAPENTS, -swapped)
    pte_unlock(k, first)
    return 0


def _make_clean(k: Kernel, page: u64) -> flag:
    """Take PG_dirty and the copy in swap from a page that nobody else maps; whether it is clean.

    A page that never was in swap is not PG_dirty, so one that fork shares comes through as well.
    """
    if not PageSwapCache(k, page) and not PageDirty(k, page):
        return True
    if not trylock_page(k, page):
        return False
    clean: flag = page_mapcount(k, page) == 1
    if clean and PageSwapCache(k, page):
        clean = try_to_free_swap(k, page)
    if clean:
        ClearPage(k, page, PG_dirty)
    unlock_page(k, page)
    return clean


def _make_old(k: Kernel, tlb: MmuGather, mm: Mm, address: u64, ptep: u64, bits: u64) -> i32:
    """Clear bits of an entry, which the processor may be setting; flushed at the end."""
    pte: u64 = ptep_get_and_clear(k, mm, address, ptep)
    set_pte_at(k, mm, address, ptep, pte & ~bits)
    return tlb_adjust_range(tlb, address, address + PAGE_SIZE)


# ---------------------------------------------------------------- MADV_COLD, MADV_PAGEOUT


def madvise_cold_or_pageout(k: Kernel, vma: Vma, start: u64, end: u64, pageout: flag) -> i32:
    """Make pages the first that reclaim looks at, or reclaim them now (v5.4)."""
    if vma.vm_flags & (VM_LOCKED | VM_HUGETLB | VM_PFNMAP):
        return -EINVAL
    mm: Mm = vma.vm_mm
    stop: u64
    pages: list
    tlb: MmuGather = tlb_gather_mmu(k, mm, start, end)
    address: u64 = start
    while address < end:
        stop = (address & PMD_MASK) + PMD_SIZE
        if stop > end:
            stop = end
        pages = []
        _cold_pte_range(k, tlb, vma, address, stop, pages if pageout else None)
        if pages:
            reclaim_pages(k, pages)
        address = stop
    return tlb_finish_mmu(k, tlb, start, end)


def _cold_pte_range(
    k: Kernel, tlb: MmuGather, vma: Vma, address: u64, end: u64, pages: list | None
) -> i32:
    """Do that for the entries of one table; what is to be reclaimed is isolated into `pages`."""
    mm: Mm = vma.vm_mm
    pmd: u64 = pmd_offset(k, mm, address)
    page: u64
    if pmd and pmd_trans_huge(k.pt[pmd]):
        if cold_huge_pmd(k, tlb, vma, pmd, address, end, pages):
            return 0
    ptep: u64 = _pte_of(k, mm, address)
    if not ptep:
        return 0
    first: u64 = ptep
    pte_lock(k, first)
    flush_tlb_batched_pending(k, mm)
    while address < end:
        page = 0
        if pte_present(k.pt[ptep]):
            page = vm_normal_page(k, vma, address, k.pt[ptep])
        if page and PageCompound(k, page):
            # A huge page is dear, and only split for its one owner; then that part once more.
            if not split_own_huge_page(k, first, page):
                break
            continue
        if page and k.profile.cold_spares_shared and page_mapcount(k, page) != 1:
            page = 0
        if page:
            if k.pt[ptep] & _PAGE_ACCESSED:
                _make_old(k, tlb, mm, address, ptep, _PAGE_ACCESSED)
            cool_page(k, page, pages)
        ptep += 1
        address += PAGE_SIZE
    pte_unlock(k, first)
    return 0


# ---------------------------------------------------------------- the system call


def madvise_behavior_valid(behavior: i32) -> flag:
    """Whether there is such an advice."""
    if MADV_NORMAL <= behavior <= MADV_DONTNEED or behavior == MADV_FREE:
        return True
    if MADV_DONTFORK <= behavior <= MADV_DODUMP or _injects_error(behavior):
        return True
    return MADV_WIPEONFORK <= behavior <= MADV_PAGEOUT


def _injects_error(behavior: i32) -> flag:
    """Whether it is not an advice about memory, but a fault in it."""
    return behavior == MADV_HWPOISON or behavior == MADV_SOFT_OFFLINE


def madvise_need_mmap_write(behavior: i32) -> flag:
    """Whether an advice changes VMAs (mm/madvise.c:32, v4.18)."""
    return not (
        behavior == MADV_WILLNEED
        or behavior == MADV_DONTNEED
        or behavior == MADV_FREE
        or behavior == MADV_COLD
        or behavior == MADV_PAGEOUT
    )


def madvise_vma(k: Kernel, vma: Vma, prev: VmaPointer, start: u64, end: u64, behavior: i32) -> i32:
    """Take an advice about a part of a VMA (mm/madvise.c:676, v4.18); 0 or a negative errno."""
    if madvise_need_mmap_write(behavior):
        return madvise_behavior(k, vma, prev, start, end, behavior)
    prev.vma = vma
    if behavior == MADV_WILLNEED:
        return madvise_willneed(k, vma, start, end)
    if behavior == MADV_COLD or behavior == MADV_PAGEOUT:
        return madvise_cold_or_pageout(k, vma, start, end, behavior == MADV_PAGEOUT)
    return madvise_dontneed_free(k, vma, start, end, behavior)


def do_madvise(k: Kernel, mm: Mm, start: u64, length: u64, behavior: i32) -> i32:
    """The system call madvise() (mm/madvise.c:794, v4.18). Returns 0 or a negative errno.

    Holes are passed over, unlike in mprotect() and mlock(), and reported by -ENOMEM at the end.
    """
    if not madvise_behavior_valid(behavior) or start & (PAGE_SIZE - 1):
        return -EINVAL
    if length == 0:
        return 0
    length = page_align(length)
    if length == 0 or start > TASK_SIZE or length > TASK_SIZE:
        return -EINVAL
    if _injects_error(behavior):
        return madvise_inject_error(k, mm, start, start + length, behavior)
    write: flag = madvise_need_mmap_write(behavior)
    if write:
        mm.mmap_sem.down_write()
    else:
        mm.mmap_sem.down_read()
    error: i32 = _advise_range(k, mm, start, start + length, behavior)
    if write:
        mm.mmap_sem.up_write()
    else:
        mm.mmap_sem.up_read()
    return error


def _advise_range(k: Kernel, mm: Mm, start: u64, end: u64, behavior: i32) -> i32:
    """Go from VMA to VMA."""
    vma: Vma = find_vma(k, mm, start)
    prev: VmaPointer = VmaPointer(None)
    stop: u64
    error: i32
    unmapped_error: i32 = 0
    if vma is not None:
        prev.vma = vma if start > vma.vm_start else vma.vm_prev
    while vma is not None:
        if start < vma.vm_start:
            unmapped_error = -ENOMEM
            start = vma.vm_start
            if start >= end:
                return -ENOMEM
        stop = vma.vm_end if vma.vm_end < end else end
        error = madvise_vma(k, vma, prev, start, stop, behavior)
        if error:
            return error
        start = stop
        if start < prev.vma.vm_end:
            start = prev.vma.vm_end
        if start >= end:
            return unmapped_error
        vma = prev.vma.vm_next
    return -ENOMEM

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""mlock and munlock of ranges (mm/mlock.c, v4.18).

Locks: `do_mlock` and `do_munlock` take mm->mmap_sem for write. Munlocking takes page-table locks to
collect pages, and then, one after the other and not inside those, k.lru_lock, page locks, and what
the walk of try_to_munlock() needs. Pages are faulted in after mmap_sem was given back.

VM_LOCKED is cleared before the pages are looked at, so that the walk which asks whether another VMA
still locks the page does not find this one. With `mlock_counts` (v5.18) there is no such walk:
pages count the VMAs.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EAGAIN,
        EFAULT,
        EINVAL,
        ENOMEM,
        HPAGE_PMD_NR,
        NR_MLOCK,
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE,
        PAGEVEC_SIZE,
        PMD_MASK,
        PMD_SIZE,
        ULONG_MAX,
        UNEVICTABLE_PGMUNLOCKED,
        UNEVICTABLE_PGRESCUED,
        UNEVICTABLE_PGSTRANDED,
        VM_HUGETLB,
        VM_IO,
        VM_LOCKED,
        VM_LOCKED_MASK,
        VM_SPECIAL,
        PG_mlocked,
        PG_unevictable,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.gup import __mm_populate
    from rmap.mm.huge.pgtable import is_huge_zero_pmd, pmd_trans_huge_lock
    from rmap.mm.lru import page_evictable, put_page, putback_lru_page
    from rmap.mm.memory import vm_normal_page
    from rmap.mm.mlock_page import mlock_page, munlock_page
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.munlock import (
        munlock_isolate_lru_page,
        munlock_isolated_page,
        munlock_vma_page,
    )
    from rmap.mm.page import (
        PageCompound,
        PageFlag,
        PageMlocked,
        PageTail,
        TestClearPage,
        get_page,
        lock_page,
        page_mapcount,
        unlock_page,
    )
    from rmap.mm.pgtable import (
        pmd_offset,
        pmd_present,
        pmd_trans_huge,
        pte_lock,
        pte_offset,
        pte_pfn,
        pte_present,
        pte_unlock,
    )
    from rmap.mm.vma import find_vma
    from rmap.mm.vma_adjust import VmaPointer, split_vma
    from rmap.mm.vma_merge import vma_merge
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- munlocking pages


def munlock_vma_pages_all(k: Kernel, vma: Vma) -> i32:
    """Munlock all pages of a VMA (mm/internal.h:302, v4.18)."""
    return munlock_vma_pages_range(k, vma, vma.vm_start, vma.vm_end)


def munlock_vma_pages_range(k: Kernel, vma: Vma, start: u64, end: u64) -> i32:
    """Munlock the pages that a VMA maps in a range (mm/mlock.c:439, v4.18).

    The VMA is all of the range or is about to go: it is VM_LOCKED no more from here on.
    """
    vma.vm_flags &= ~VM_LOCKED_MASK
    pages: list
    while start < end:
        pages = []
        start = _pin_pages(k, vma, start, end, pages)
        if not pages:
            continue
        if PageCompound(k, pages[0]):
            start += _munlock_compound(k, pages[0]) * PAGE_SIZE
        else:
            _munlock_pagevec(k, pages)
    return 0


def _pin_pages(k: Kernel, vma: Vma, start: u64, end: u64, pages: list) -> u64:
    """Take a reference to the next page of a table, or to a pagevec of small ones.

    follow_page() and __munlock_pagevec_fill(), mm/mlock.c:373 (v4.18). Returns how far it came:
    behind the last page, or the end of the table. Zero pages are left out. A huge page, or part of
    one, comes alone.
    """
    stop: u64 = (start & PMD_MASK) + PMD_SIZE
    if stop > end:
        stop = end
    pmd: u64 = pmd_offset(k, vma.vm_mm, start)
    if not pmd:
        return stop
    page: u64
    if pmd_trans_huge(k.pt[pmd]) and pmd_trans_huge_lock(k, pmd):
        page = _pin_huge(k, k.pt[pmd], start)
        pte_unlock(k, pmd)
        if not page:
            return stop
        pages.append(page)
        return start + PAGE_SIZE
    ptep: u64 = pte_offset(k, pmd, start)
    if not ptep:
        return stop
    first: u64 = ptep
    pte_lock(k, first)
    while start < stop and len(pages) < PAGEVEC_SIZE:
        page = 0
        if pte_present(k.pt[ptep]):
            page = vm_normal_page(k, vma, start, k.pt[ptep])
        if page and PageCompound(k, page) and pages:
            break
        ptep += 1
        start += PAGE_SIZE
        if page:
            get_page(k, page)
            pages.append(page)
            if PageCompound(k, page):
                break
    pte_unlock(k, first)
    return start


def _pin_huge(k: Kernel, pmd: u64, address: u64) -> u64:
    """The page at an address below a huge PMD, with a reference; 0 if it is none to munlock."""
    if not pmd_present(pmd) or is_huge_zero_pmd(k, pmd):
        return 0
    page: u64 = pte_pfn(pmd) + (address >> PAGE_SHIFT & (HPAGE_PMD_NR - 1))
    get_page(k, page)
    return page


def _munlock_compound(k: Kernel, page: u64) -> i64:
    """Munlock a huge page when its head is met; returns how many more pages that was for.

    The reference is given up. Where PTEs map it, it is not mlocked.
    """
    rest: i64 = 0
    if PageTail(k, page):
        if k.debug_vm and PageMlocked(k, page):
            BUG_PAGE("mlock.c munlock_vma_pages_range: a tail of a page that is mlocked", page)
    else:
        lock_page(k, page)
        rest = munlock_vma_page(k, page)
        unlock_page(k, page)
    put_page(k, page)
    return rest


def _munlock_pagevec(k: Kernel, pages: list) -> i32:
    """Munlock pages, all of them with a reference that is given up (mm/mlock.c:290, v4.18).

    Isolated under one hold of the LRU lock; then one by one under the page lock, with a walk for
    those that others map as well.
    """
    isolated: list = []
    others: list = []
    page: u64
    k.lru_lock.lock()
    for page in pages:
        if _isolate_mlocked(k, page):
            isolated.append(page)
        else:
            others.append(page)
    k.lru_lock.unlock()
    for page in others:
        put_page(k, page)
    for page in isolated:
        lock_page(k, page)
        if page_mapcount(k, page) <= 1 and page_evictable(k, page):
            # Nobody else can want it locked: no walk, and straight back.
            if TestClearPage(k, page, PG_unevictable):
                k.vm_stat[UNEVICTABLE_PGRESCUED] += 1
            k.vm_stat[UNEVICTABLE_PGMUNLOCKED] += 1
            unlock_page(k, page)
            putback_lru_page(k, page)
        else:
            # One more, since putting it back drops one and it has to be unlocked yet.
            get_page(k, page)
            munlock_isolated_page(k, page)
            unlock_page(k, page)
            put_page(k, page)
    return 0


def _isolate_mlocked(k: Kernel, page: u64) -> i32:
    """Take PG_mlocked off a page and the page off its list; 1 if both could be done."""
    if not TestClearPage(k, page, PG_mlocked):
        return 0
    k.vm_stat[NR_MLOCK] -= 1
    if munlock_isolate_lru_page(k, page, False):
        return 1
    # Whoever has it will find out by itself where it belongs.
    if PageFlag(k, page, PG_unevictable):
        k.vm_stat[UNEVICTABLE_PGSTRANDED] += 1
    else:
        k.vm_stat[UNEVICTABLE_PGMUNLOCKED] += 1
    return 0


# ---------------------------------------------------------------- v5.18


def mlock_vma_pages_range(k: Kernel, vma: Vma, start: u64, end: u64, newflags: u64) -> i32:
    """Set the flags of a VMA that is locked or unlocked, and count it in its pages so.

    mm/mlock.c, v5.18. VM_IO tells whoever maps a page meanwhile to leave the counting to this.
    """
    stop: u64
    if newflags & VM_LOCKED:
        newflags |= VM_IO
    vma.vm_flags = newflags
    while start < end:
        stop = (start & PMD_MASK) + PMD_SIZE
        if stop > end:
            stop = end
        _mlock_pte_range(k, vma, start, stop)
        start = stop
    vma.vm_flags &= ~VM_IO
    return 0


def _mlock_pte_range(k: Kernel, vma: Vma, start: u64, end: u64) -> i32:
    """Do that for one table, or the huge page that a PMD maps: mlock_pte_range()."""
    pmd: u64 = pmd_offset(k, vma.vm_mm, start)
    if not pmd:
        return 0
    locked: flag = vma.vm_flags & VM_LOCKED != 0
    if pmd_trans_huge(k.pt[pmd]) and pmd_trans_huge_lock(k, pmd):
        if pmd_present(k.pt[pmd]) and not is_huge_zero_pmd(k, k.pt[pmd]):
            _count_mlock(k, pte_pfn(k.pt[pmd]), locked)
        return pte_unlock(k, pmd)
    ptep: u64 = pte_offset(k, pmd, start)
    if not ptep:
        return 0
    first: u64 = ptep
    page: u64
    pte_lock(k, first)
    while start < end:
        page = 0
        if pte_present(k.pt[ptep]):
            page = vm_normal_page(k, vma, start, k.pt[ptep])
        if page and not PageCompound(k, page):
            _count_mlock(k, page, locked)
        start += PAGE_SIZE
        ptep += 1
    return pte_unlock(k, first)


def _count_mlock(k: Kernel, page: u64, locked: flag) -> i32:
    """Count one VMA more or less that locks a page."""
    return mlock_page(k, page) if locked else munlock_page(k, page)


# ---------------------------------------------------------------- ranges


def mlock_fixup(k: Kernel, vma: Vma, prev: VmaPointer, start: u64, end: u64, newflags: u64) -> i32:
    """Give a part of a VMA other ``VM_LOCKED`` flags (mm/mlock.c:517, v4.18).

    `prev` is the VMA before `start`, and becomes the one that the part is in now. Returns 0 or
    -ENOMEM.
    """
    mm: Mm = vma.vm_mm
    oldflags: u64 = vma.vm_flags
    error: i32
    if newflags == oldflags or oldflags & (VM_SPECIAL | VM_HUGETLB):
        prev.vma = vma
        return 0
    pgoff: u64 = vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT)
    merged: Vma = vma_merge(
        k,
        mm,
        prev.vma,
        start,
        end,
        newflags,
        vma.anon_vma,
        vma.vm_file,
        pgoff,
        vma.vm_userfaultfd_ctx,
    )
    if merged is not None:
        vma = merged
    prev.vma = vma
    if merged is None:
        if start != vma.vm_start:
            error = split_vma(k, mm, vma, start, 1)
            if error:
                return error
        if end != vma.vm_end:
            error = split_vma(k, mm, vma, end, 0)
            if error:
                return error
    pages: i64 = (end - start) >> PAGE_SHIFT
    if not newflags & VM_LOCKED:
        mm.locked_vm -= pages
    elif not oldflags & VM_LOCKED:
        mm.locked_vm += pages
    if k.profile.mlock_counts:
        if newflags & oldflags & VM_LOCKED:
            # Counted already; to count it twice would be wrong.
            vma.vm_flags = newflags
        else:
            mlock_vma_pages_range(k, vma, start, end, newflags)
    elif newflags & VM_LOCKED:
        # Pages that reclaim takes before the populate that follows are brought back by it.
        vma.vm_flags = newflags
    else:
        munlock_vma_pages_range(k, vma, start, end)
    return 0


def apply_vma_lock_flags(k: Kernel, mm: Mm, start: u64, length: u64, flags: u64) -> i32:
    """Give all VMAs of a range other ``VM_LOCKED`` flags (mm/mlock.c:582, v4.18).

    Returns 0 or a negative errno: -ENOMEM at the first hole, with what is before it done.
    """
    mm.mmap_sem.assert_held_write()
    if length > ULONG_MAX - start:
        return -EINVAL
    end: u64 = start + length
    if end == start:
        return 0
    vma: Vma = find_vma(k, mm, start)
    if vma is None or vma.vm_start > start:
        return -ENOMEM
    prev: VmaPointer = VmaPointer(vma if start > vma.vm_start else vma.vm_prev)
    stop: u64
    error: i32
    while True:
        stop = vma.vm_end if vma.vm_end < end else end
        error = mlock_fixup(k, vma, prev, start, stop, (vma.vm_flags & ~VM_LOCKED_MASK) | flags)
        if error:
            return error
        start = stop
        if start < prev.vma.vm_end:
            start = prev.vma.vm_end
        if start >= end:
            return 0
        vma = prev.vma.vm_next
        if vma is None or vma.vm_start != start:
            return -ENOMEM


def do_mlock(k: Kernel, mm: Mm, start: u64, length: u64, flags: u64 = 0) -> i32:
    """The system call mlock() (mm/mlock.c:670, v4.18). Returns 0 or a negative errno.

    `flags` are the ``VM_`` flags to set, VM_LOCKED unless told otherwise; with VM_LOCKONFAULT
    beside it nothing is brought in now. No limit applies.
    """
    if not flags:
        flags = VM_LOCKED
    if length > ULONG_MAX - 2 * PAGE_SIZE:
        return -EINVAL
    length = (length + (start & (PAGE_SIZE - 1)) + (PAGE_SIZE - 1)) & PAGE_MASK
    start &= PAGE_MASK
    mm.mmap_sem.down_write()
    error: i32 = apply_vma_lock_flags(k, mm, start, length, flags)
    mm.mmap_sem.up_write()
    if error:
        return error
    error = __mm_populate(k, mm, start, length, False)
    # The values that POSIX wants.
    if error == -EFAULT:
        return -ENOMEM
    if error == -ENOMEM:
        return -EAGAIN
    return error


def do_munlock(k: Kernel, mm: Mm, start: u64, length: u64) -> i32:
    """The system call munlock() (mm/mlock.c:738, v4.18). Returns 0 or a negative errno."""
    if length > ULONG_MAX - 2 * PAGE_SIZE:
        return -EINVAL
    length = (length + (start & (PAGE_SIZE - 1)) + (PAGE_SIZE - 1)) & PAGE_MASK
    start &= PAGE_MASK
    mm.mmap_sem.down_write()
    error: i32 = apply_vma_lock_flags(k, mm, start, length, 0)
    mm.mmap_sem.up_write()
    return error

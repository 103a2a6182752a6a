# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""khugepaged: looks for small pages that had better be huge ones (mm/khugepaged.c, v4.18).

Locks: khugepaged_mm_lock around the list of address spaces; mmap_sem of the one it is at, for read,
which is only tried for, and given up by whatever collapses; the lock of the page table looked at.

There is no thread: `khugepaged_do_scan` is one round of it. The allocation of a huge page is made
for each collapse, as with NUMA; after the second that fails, a round ends.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        HPAGE_PMD_NR,
        HPAGE_PMD_SIZE,
        PAGE_SHIFT,
        PTRS_PER_PTE,
        SCAN_ALLOC_HUGE_PAGE_FAIL,
        SCAN_EXCEED_NONE_PTE,
        SCAN_EXCEED_SWAP_PTE,
        SCAN_LACK_REFERENCED_PAGE,
        SCAN_PAGE_ANON,
        SCAN_PAGE_COMPOUND,
        SCAN_PAGE_COUNT,
        SCAN_PAGE_LOCK,
        SCAN_PAGE_LRU,
        SCAN_PAGE_NULL,
        SCAN_PAGE_RO,
        SCAN_PMD_NULL,
        SCAN_PTE_NON_PRESENT,
        SCAN_SUCCEED,
        THP_NEVER,
        PG_lru,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.huge.collapse import collapse_huge_page, hugepage_vma_check, pte_is_young
    from rmap.mm.huge.collapse_shmem import collapse_shmem
    from rmap.mm.huge.mm_slot import hugepage_end, hugepage_start, khugepaged_test_exit
    from rmap.mm.huge.shmem_huge import shmem_huge_enabled
    from rmap.mm.memory import is_zero_pfn, vm_normal_page
    from rmap.mm.mm_types import AddressSpace, File, Kernel, Khugepaged, Mm, Vma
    from rmap.mm.mmap import fput
    from rmap.mm.page import (
        PageAnon,
        PageCompound,
        PageFlag,
        PageLocked,
        PageSwapCache,
        PageTransCompound,
        page_count,
        page_mapcount,
    )
    from rmap.mm.page_cache import page_cache_item
    from rmap.mm.pgtable import (
        is_swap_pte,
        pte_lock,
        pte_none,
        pte_offset,
        pte_pfn,
        pte_present,
        pte_unlock,
        pte_write,
        ptep_get,
    )
    from rmap.mm.rmap_walk import mm_find_pmd
    from rmap.mm.vma import find_vma, linear_page_index, userfaultfd_armed
    from rmap.mm.vma_adjust import get_file
    from rmap.scalar import flag, i32, i64, u64


class Scan:
    """A look at 512 PTEs: where, and what has been found until now.

    `unmapped` counts entries in swap, `none_or_zero` those with nothing to copy. `released` says
    that mmap_sem was given up, for an attempt to collapse.
    """

    def __init__(self, mm: Mm, vma: Vma, address: u64) -> None:
        self.mm = mm
        self.vma = vma
        self.address = address
        self.unmapped = 0
        self.none_or_zero = 0
        self.referenced = 0
        self.writable = False
        self.released = False


class Round:
    """One round: for how many pages, how many it has looked at, whether mmap_sem was given up.

    `failed` says that the last attempt found no huge page to collapse into.
    """

    def __init__(self, pages: i64) -> None:
        self.pages = pages
        self.progress = 0
        self.released = False
        self.failed = False


# ---------------------------------------------------------------- anonymous memory


def khugepaged_scan_pmd(k: Kernel, scan: Scan) -> i32:
    """Look at the page table of 2 MiB, and collapse what it maps if that seems worth it.

    mmap_sem is held for read, and given up if ``scan.released`` says so. Returns what was found, or
    if a collapse was tried, how that went.
    """
    pmd: u64 = mm_find_pmd(k, scan.mm, scan.address)
    result: i32 = SCAN_PMD_NULL
    if pmd:
        result = _scan_table(k, scan, pte_offset(k, pmd, scan.address))
    if k.tracer is not None:
        k.tracer("khugepaged_scan_pmd", (scan.mm, scan.address, result))
    if result == SCAN_SUCCEED:
        scan.released = True
        result = collapse_huge_page(k, scan.mm, scan.address, scan.referenced)
    return result


def _scan_table(k: Kernel, scan: Scan, first: u64) -> i32:
    """Look at the entries of a table, until one of them forbids to collapse it."""
    result: i32 = SCAN_SUCCEED
    ptep: u64 = first
    pte_lock(k, first)
    while result == SCAN_SUCCEED and ptep < first + PTRS_PER_PTE:
        result = _scan_pte(
            k, scan, ptep_get(k, ptep), scan.address + ((ptep - first) << PAGE_SHIFT)
        )
        ptep += 1
    pte_unlock(k, first)
    if result != SCAN_SUCCEED:
        return result
    if not scan.writable:
        return SCAN_PAGE_RO
    return SCAN_SUCCEED if scan.referenced else SCAN_LACK_REFERENCED_PAGE


def _scan_pte(k: Kernel, scan: Scan, pte: u64, address: u64) -> i32:
    """Look at one entry: SCAN_SUCCEED, or what is in the way."""
    if is_swap_pte(pte):
        # Migration and poison entries pass for swap here.
        scan.unmapped += 1
        if scan.unmapped > k.khugepaged.max_ptes_swap:
            return SCAN_EXCEED_SWAP_PTE
        return SCAN_SUCCEED
    if pte_none(pte) or is_zero_pfn(k, pte_pfn(pte)):
        scan.none_or_zero += 1
        if userfaultfd_armed(scan.vma) or scan.none_or_zero > k.khugepaged.max_ptes_none:
            return SCAN_EXCEED_NONE_PTE
        return SCAN_SUCCEED
    if not pte_present(pte):
        return SCAN_PTE_NON_PRESENT
    if pte_write(pte):
        scan.writable = True
    page: u64 = vm_normal_page(k, scan.vma, address, pte)
    result: i32 = _scan_page(k, page)
    if result == SCAN_SUCCEED and pte_is_young(k, scan.mm, scan.address, pte, page):
        scan.referenced += 1
    return result


def _scan_page(k: Kernel, page: u64) -> i32:
    """Look at one page: SCAN_SUCCEED, or why it cannot be moved into a huge one."""
    if not page:
        return SCAN_PAGE_NULL
    if PageCompound(k, page):
        return SCAN_PAGE_COMPOUND
    if not PageFlag(k, page, PG_lru):
        return SCAN_PAGE_LRU
    if PageLocked(k, page):
        return SCAN_PAGE_LOCK
    if not PageAnon(k, page):
        return SCAN_PAGE_ANON
    if page_count(k, page) != 1 + PageSwapCache(k, page):
        return SCAN_PAGE_COUNT
    return SCAN_SUCCEED


# ---------------------------------------------------------------- shared memory


def khugepaged_scan_shmem(k: Kernel, mm: Mm, mapping: AddressSpace, start: u64) -> i32:
    """Look at 512 places of a file, and collapse them if enough of them are taken.

    No lock is held. Returns the result of the scan, or of the collapse.
    """
    present: i32 = 0
    swap: i32 = 0
    result: i32 = SCAN_SUCCEED
    index: u64 = start
    item: i64
    while result == SCAN_SUCCEED and index < start + HPAGE_PMD_NR:
        item = page_cache_item(mapping, index)
        if item < 0:
            swap += 1
            if swap > k.khugepaged.max_ptes_swap:
                result = SCAN_EXCEED_SWAP_PTE
        elif item > 0:
            result = _scan_cached(k, item)
            present += 1
        index += 1
    if result == SCAN_SUCCEED and present < HPAGE_PMD_NR - k.khugepaged.max_ptes_none:
        result = SCAN_EXCEED_NONE_PTE
    if k.tracer is not None:
        k.tracer("khugepaged_scan_shmem", (mm, mapping, start, result))
    if result == SCAN_SUCCEED:
        result = collapse_shmem(k, mm, mapping, start)
    return result


def _scan_cached(k: Kernel, page: u64) -> i32:
    """Look at one page of a file: SCAN_SUCCEED, or what is in the way. Its age is not asked."""
    if PageTransCompound(k, page):
        return SCAN_PAGE_COMPOUND
    if not PageFlag(k, page, PG_lru):
        return SCAN_PAGE_LRU
    if page_count(k, page) != 1 + page_mapcount(k, page):
        return SCAN_PAGE_COUNT
    return SCAN_SUCCEED


# ---------------------------------------------------------------- rounds


def khugepaged_do_scan(k: Kernel, pages: i64) -> i64:
    """Go on through the address spaces for so many pages; returns how many huge pages it made."""
    state: Khugepaged = k.khugepaged
    before: i64 = state.pages_collapsed
    round: Round = Round(pages)
    passes: i32 = 0
    failures: i32 = 0
    while round.progress < pages and k.thp_enabled != THP_NEVER:
        if state.scan_mm is None:
            passes += 1
        if not state.mm_head or passes > 1:
            break
        khugepaged_scan_mm_slot(k, round)
        if round.failed:
            # The thread sleeps for a while, and goes on; if it happens again, it gives up.
            failures += 1
            if failures > 1:
                break
    return state.pages_collapsed - before


def khugepaged_scan_mm_slot(k: Kernel, round: Round) -> i32:
    """Look at one address space, from where the last look ended, until the first attempt."""
    state: Khugepaged = k.khugepaged
    state.mm_lock.lock()
    if state.scan_mm is None:
        state.scan_mm = state.mm_head[0]
        state.scan_address = 0
    state.mm_lock.unlock()
    mm: Mm = state.scan_mm
    vma: Vma = None
    round.failed = False
    if mm.mmap_sem.down_read_trylock():
        round.released = False
        round.progress += 1
        if not khugepaged_test_exit(mm):
            vma = find_vma(k, mm, state.scan_address)
        while vma is not None and _scan_vma(k, round, mm, vma):
            vma = vma.vm_next
        if not round.released:
            mm.mmap_sem.up_read()
    return _leave_mm(state, mm, vma is None)


def _leave_mm(state: Khugepaged, mm: Mm, done: flag) -> i32:
    """Turn to the next address space, if this one is `done` or has died."""
    at: i32
    state.mm_lock.lock()
    if state.scan_mm is not mm:
        BUG("khugepaged.c khugepaged_scan_mm_slot: somebody else scans")
    if done or khugepaged_test_exit(mm):
        at = state.mm_head.index(mm) + 1
        if at < len(state.mm_head):
            state.scan_mm = state.mm_head[at]
            state.scan_address = 0
        else:
            state.scan_mm = None
            state.full_scans += 1
        if khugepaged_test_exit(mm):
            state.mm_head.remove(mm)
            mm.vm_hugepage = False
    return state.mm_lock.unlock()


def _scan_vma(k: Kernel, round: Round, mm: Mm, vma: Vma) -> flag:
    """Look at a VMA, from where the last look ended; whether to go on with the next."""
    state: Khugepaged = k.khugepaged
    end: u64 = hugepage_end(vma)
    result: i32
    round.progress += 1
    if not hugepage_vma_check(k, vma) or hugepage_start(vma) >= end or state.scan_address > end:
        return True
    if state.scan_address < hugepage_start(vma):
        state.scan_address = hugepage_start(vma)
    while state.scan_address < end:
        if khugepaged_test_exit(mm):
            return False
        if vma.vm_file is not None and not shmem_huge_enabled(k, vma):
            return True
        result = _scan_at(k, round, mm, vma, state.scan_address)
        state.scan_address += HPAGE_PMD_SIZE
        round.progress += HPAGE_PMD_NR
        if round.released:
            round.failed = result == SCAN_ALLOC_HUGE_PAGE_FAIL
            return False
        if round.progress >= round.pages:
            return False
    return True


def _scan_at(k: Kernel, round: Round, mm: Mm, vma: Vma, address: u64) -> i32:
    """Look at 2 MiB of a VMA, of a file or of anonymous memory; returns what came of it."""
    scan: Scan
    file: File = vma.vm_file
    result: i32
    if file is None:
        scan = Scan(mm, vma, address)
        result = khugepaged_scan_pmd(k, scan)
        round.released = scan.released
        return result
    pgoff: u64 = linear_page_index(k, vma, address)
    get_file(file)
    mm.mmap_sem.up_read()
    round.released = True
    result = khugepaged_scan_shmem(k, mm, file.f_mapping, pgoff)
    fput(k, file)
    return result

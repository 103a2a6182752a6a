# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Page faults on huge anonymous memory (mm/huge_memory.c, v4.18).

Locks: mmap_sem for read is held by whoever handles the fault. Inside it are taken what
anon_vma_prepare() takes; then the lock of the PMD's table, and inside of that what the LRU needs.
The page lock is tried for under the lock of the table, and waited for only outside of it.

Each of these returns VM_FAULT_ bits; VM_FAULT_FALLBACK says that the fault is to be handled for a
small page instead, in a table, which there may be by now.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_prepare
    from rmap.mm.bits import (
        COW_COPIES,
        FAULT_FLAG_UNSHARE,
        FAULT_FLAG_WRITE,
        GFP_HIGHUSER,
        GFP_KERNEL,
        HPAGE_PMD_NR,
        HPAGE_PMD_SIZE,
        MM_ANONPAGES,
        PAGE_SIZE,
        PMD_MASK,
        PTRS_PER_PTE,
        THP_FAULT_ALLOC,
        THP_FAULT_FALLBACK,
        VM_FAULT_FALLBACK,
        VM_FAULT_OOM,
        VM_FAULT_WRITE,
        VM_SHARED,
        VM_UFFD_MISSING,
        PG_anon_exclusive,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.content import copy_page_content
    from rmap.mm.huge.mm_slot import khugepaged_enter
    from rmap.mm.huge.pgtable import (
        alloc_hugepage_direct_gfpmask,
        alloc_transhuge_page,
        is_huge_zero_pmd,
        mk_huge_pmd,
        mm_get_huge_zero_page,
        pgtable_trans_huge_deposit,
        pgtable_trans_huge_withdraw,
        pmd_populate,
        set_huge_zero_page,
        transhuge_range_fits,
        transparent_hugepage_enabled,
    )
    from rmap.mm.huge.split_pmd import __split_huge_pmd, split_huge_pmd
    from rmap.mm.lru import lru_cache_add_active_or_unevictable, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import VmFault, maybe_mkwrite, ptep_set_access_flags, wait_on_page_locked
    from rmap.mm.mlock_page import munlock_vma_page_counted
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range,
        mmu_notifier_invalidate_range_only_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import (
        PageFlag,
        PageHead,
        PageSwapCache,
        SetPage,
        get_page,
        get_page_unless_zero,
        lock_page,
        page_count,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.pgtable import (
        pfn_pte,
        pte_alloc_row,
        pte_free_row,
        pte_lock,
        pte_mkdirty,
        pte_mkyoung,
        pte_modify,
        pte_none,
        pte_pfn,
        pte_unlock,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_counts import page_add_new_anon_rmap, page_move_anon_rmap, page_remove_rmap
    from rmap.mm.swap import reuse_swap_page, try_to_free_swap
    from rmap.mm.tlb import pmdp_huge_clear_flush
    from rmap.mm.uffd import handle_userfault, userfaultfd_missing
    from rmap.mm.vma import add_mm_counter, vma_is_anonymous
    from rmap.scalar import flag, i32, u64


# ---------------------------------------------------------------- the first access


def do_huge_pmd_anonymous_page(k: Kernel, vmf: VmFault) -> i32:
    """Map a huge page where nothing is, or the huge zero page for a read (huge_memory.c:675)."""
    vma: Vma = vmf.vma
    if not transhuge_range_fits(vma, vmf.address):
        return VM_FAULT_FALLBACK
    if anon_vma_prepare(k, vma):
        return VM_FAULT_OOM
    if khugepaged_enter(k, vma, vma.vm_flags):
        return VM_FAULT_OOM
    if not vmf.flags & FAULT_FLAG_WRITE and k.thp_use_zero_page:
        return _map_huge_zero_page(k, vmf)
    page: u64 = alloc_transhuge_page(k, alloc_hugepage_direct_gfpmask(k, vma))
    if not page:
        k.vm_stat[THP_FAULT_FALLBACK] += 1
        return VM_FAULT_FALLBACK
    return _map_new_huge_page(k, vmf, page)


def _map_huge_zero_page(k: Kernel, vmf: VmFault) -> i32:
    """Map the huge zero page, unless another thread or userfaultfd comes in between."""
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    row: u64 = pte_alloc_row(k, mm)
    if not row:
        return VM_FAULT_OOM
    zero: u64 = mm_get_huge_zero_page(k, mm)
    if not zero:
        pte_free_row(k, mm, row)
        k.vm_stat[THP_FAULT_FALLBACK] += 1
        return VM_FAULT_FALLBACK
    missing: flag = False
    mapped: flag = False
    pte_lock(k, vmf.pmd)
    if pte_none(ptep_get(k, vmf.pmd)):
        missing = userfaultfd_missing(vma)
        if not missing:
            mapped = set_huge_zero_page(k, row, mm, vma, vmf.address, vmf.pmd, zero)
    pte_unlock(k, vmf.pmd)
    if not mapped:
        pte_free_row(k, mm, row)
    if missing:
        return handle_userfault(k, vmf, VM_UFFD_MISSING)
    return 0


def _map_new_huge_page(k: Kernel, vmf: VmFault, page: u64) -> i32:
    """Map a new huge page: __do_huge_pmd_anonymous_page(), mm/huge_memory.c:550 (v4.18)."""
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    start: u64 = vmf.address & PMD_MASK
    if mem_cgroup_try_charge(k, page, mm.memcg, alloc_hugepage_direct_gfpmask(k, vma)):
        put_page(k, page)
        k.vm_stat[THP_FAULT_FALLBACK] += 1
        return VM_FAULT_FALLBACK
    row: u64 = pte_alloc_row(k, mm)
    if not row:
        put_page(k, page)
        return VM_FAULT_OOM
    pte_lock(k, vmf.pmd)
    empty: flag = pte_none(ptep_get(k, vmf.pmd))
    if not empty or userfaultfd_missing(vma):
        pte_unlock(k, vmf.pmd)
        put_page(k, page)
        pte_free_row(k, mm, row)
        return handle_userfault(k, vmf, VM_UFFD_MISSING) if empty else 0
    _map_whole(k, vma, start, vmf.pmd, page)
    pgtable_trans_huge_deposit(k, mm, vmf.pmd, row)
    add_mm_counter(k, mm, MM_ANONPAGES, HPAGE_PMD_NR)
    pte_unlock(k, vmf.pmd)
    k.vm_stat[THP_FAULT_ALLOC] += 1
    if k.tracer is not None:
        k.tracer("do_huge_pmd_anonymous_page", (page, vma, start))
    return 0


def _map_whole(k: Kernel, vma: Vma, start: u64, pmd: u64, page: u64) -> i32:
    """Map a new huge page by a PMD that is empty, to be written to. Its table is locked."""
    entry: u64 = maybe_mkwrite(pte_mkdirty(mk_huge_pmd(page, vma.vm_page_prot)), vma)
    page_add_new_anon_rmap(k, page, vma, start, True)
    lru_cache_add_active_or_unevictable(k, page, vma)
    return set_pte_at(k, vma.vm_mm, start, pmd, entry)


def _remove_whole(k: Kernel, vma: Vma, page: u64) -> i32:
    """Take the PMD of a huge page, which is gone, out of its counts."""
    page_remove_rmap(k, page, True)
    if k.profile.mlock_counts:
        munlock_vma_page_counted(k, page, vma, True)
    return 0


# ---------------------------------------------------------------- accesses to what is there


def huge_pmd_set_accessed(k: Kernel, vmf: VmFault, orig_pmd: u64) -> i32:
    """A fault that needs no more than the accessed or dirty bit (mm/huge_memory.c:1031, v4.18)."""
    write: flag = vmf.flags & FAULT_FLAG_WRITE != 0
    pte_lock(k, vmf.pmd)
    if ptep_get(k, vmf.pmd) == orig_pmd:
        _set_access_flags(k, vmf, pte_mkdirty(orig_pmd) if write else orig_pmd, write)
    return pte_unlock(k, vmf.pmd)


def _set_access_flags(k: Kernel, vmf: VmFault, entry: u64, dirty: flag) -> flag:
    """Make a PMD young, and what else `entry` says: pmdp_set_access_flags(), which flushes not."""
    start: u64 = vmf.address & PMD_MASK
    return ptep_set_access_flags(k, vmf.vma, start, vmf.pmd, pte_mkyoung(entry), dirty)


def do_huge_pmd_numa_page(k: Kernel, vmf: VmFault, pmd: u64) -> i32:
    """Make a PMD usable again that forbids what its VMA permits (mm/huge_memory.c:1438, v4.18).

    There is one node, so the page is where it belongs, and no split has to be kept away meanwhile.
    Only somebody who has the page locked, as migration does, is waited for.
    """
    vma: Vma = vmf.vma
    page: u64 = 0
    pte_lock(k, vmf.pmd)
    if ptep_get(k, vmf.pmd) != pmd:
        return pte_unlock(k, vmf.pmd)
    page = pte_pfn(pmd)
    if not trylock_page(k, page):
        if not get_page_unless_zero(k, page):
            return pte_unlock(k, vmf.pmd)
        pte_unlock(k, vmf.pmd)
        wait_on_page_locked(k, page)
        return put_page(k, page)
    entry: u64 = pte_mkyoung(pte_modify(pmd, vma.vm_page_prot))
    set_pte_at(k, vma.vm_mm, vmf.address & PMD_MASK, vmf.pmd, entry)
    unlock_page(k, page)
    return pte_unlock(k, vmf.pmd)


# ---------------------------------------------------------------- writes


def wp_huge_pmd(k: Kernel, vmf: VmFault, orig_pmd: u64) -> i32:
    """A write to a PMD that forbids it (mm/memory.c:3924, v4.18).

    A private mapping of a file is copied page by page: its PMD is unmapped.
    """
    vma: Vma = vmf.vma
    if vma_is_anonymous(vma):
        if k.profile.anon_exclusive:
            return do_huge_pmd_wp_page_exclusive(k, vmf, orig_pmd)
        return do_huge_pmd_wp_page(k, vmf, orig_pmd)
    if vma.vm_flags & VM_SHARED:
        BUG("memory.c:3932 wp_huge_pmd: a shared mapping that forbids writing")
    __split_huge_pmd(k, vma, vmf.pmd, vmf.address, False, 0)
    return VM_FAULT_FALLBACK


def do_huge_pmd_wp_page(k: Kernel, vmf: VmFault, orig_pmd: u64) -> i32:
    """Reuse a huge page that nobody else has a part of, or copy it (mm/huge_memory.c:1199)."""
    vma: Vma = vmf.vma
    page: u64 = 0
    ret: i32
    if vma.anon_vma is None:
        BUG("huge_memory.c:1213 do_huge_pmd_wp_page: the VMA has no anon_vma")
    if not is_huge_zero_pmd(k, orig_pmd):
        page = pte_pfn(orig_pmd)
        ret = _reuse_huge_page(k, vmf, orig_pmd, page)
        if ret >= 0:
            return ret
    new: u64 = 0
    if transparent_hugepage_enabled(k, vma):
        new = alloc_transhuge_page(k, alloc_hugepage_direct_gfpmask(k, vma))
    if new:
        return _copy_huge_page(k, vmf, orig_pmd, page, new)
    k.vm_stat[THP_FAULT_FALLBACK] += 1
    if not page:
        split_huge_pmd(k, vma, vmf.pmd, vmf.address)
        return VM_FAULT_FALLBACK
    ret = do_huge_pmd_wp_page_fallback(k, vmf, orig_pmd, page)
    if ret & VM_FAULT_OOM:
        # Not even 512 small ones: with luck there is the one that is needed now.
        split_huge_pmd(k, vma, vmf.pmd, vmf.address)
        ret |= VM_FAULT_FALLBACK
    put_page(k, page)
    return ret


def _lock_huge_page(k: Kernel, vmf: VmFault, orig_pmd: u64, page: u64) -> flag:
    """Lock a page under the lock of the PMD's table; whether the PMD is still what it was.

    If it is not, neither lock is held afterwards.
    """
    if trylock_page(k, page):
        return True
    get_page(k, page)
    pte_unlock(k, vmf.pmd)
    lock_page(k, page)
    pte_lock(k, vmf.pmd)
    same: flag = ptep_get(k, vmf.pmd) == orig_pmd
    if not same:
        unlock_page(k, page)
        pte_unlock(k, vmf.pmd)
    put_page(k, page)
    return same


def _reuse_huge_page(k: Kernel, vmf: VmFault, orig_pmd: u64, page: u64) -> i32:
    """Make the PMD writable if no other entry maps any part of the page, or has it in swap.

    The page goes on naming the anon_vma that it names. -2 if it has to be copied: it has a
    reference then, and no lock is held.
    """
    pte_lock(k, vmf.pmd)
    if ptep_get(k, vmf.pmd) != orig_pmd:
        return pte_unlock(k, vmf.pmd)
    if not PageHead(k, page):
        BUG_PAGE("huge_memory.c:1221 do_huge_pmd_wp_page: a PMD maps no huge page", page)
    if not _lock_huge_page(k, vmf, orig_pmd, page):
        return 0
    if reuse_swap_page(k, page):
        _make_writable(k, vmf, orig_pmd)
        unlock_page(k, page)
        pte_unlock(k, vmf.pmd)
        return VM_FAULT_WRITE
    unlock_page(k, page)
    get_page(k, page)
    pte_unlock(k, vmf.pmd)
    return -2


def _make_writable(k: Kernel, vmf: VmFault, orig_pmd: u64) -> i32:
    """Let the PMD be written through; the lock of its table is held."""
    _set_access_flags(k, vmf, maybe_mkwrite(pte_mkdirty(orig_pmd), vmf.vma), True)
    if k.tracer is not None:
        k.tracer("do_huge_pmd_wp_page", (pte_pfn(orig_pmd), vmf.vma, vmf.address, False))
    return 0


def do_huge_pmd_wp_page_exclusive(k: Kernel, vmf: VmFault, orig_pmd: u64) -> i32:
    """do_huge_pmd_wp_page() since v5.19: a page that is ours is reused, any other PMD split.

    The small page that was written to is then copied by itself (since v5.8). The page is ours if it
    is marked so, or if the PMD has its only reference.
    """
    vma: Vma = vmf.vma
    page: u64 = pte_pfn(orig_pmd)
    ours: flag
    if vma.anon_vma is None:
        BUG("huge_memory.c do_huge_pmd_wp_page: the VMA has no anon_vma")
    if is_huge_zero_pmd(k, orig_pmd):
        __split_huge_pmd(k, vma, vmf.pmd, vmf.address, False, 0)
        return VM_FAULT_FALLBACK
    pte_lock(k, vmf.pmd)
    if ptep_get(k, vmf.pmd) != orig_pmd:
        return pte_unlock(k, vmf.pmd)
    ours = PageFlag(k, page, PG_anon_exclusive)
    if not ours:
        if not _lock_huge_page(k, vmf, orig_pmd, page):
            return 0
        ours = _huge_page_is_ours(k, vma, page)
        unlock_page(k, page)
    if ours:
        if not vmf.flags & FAULT_FLAG_UNSHARE:
            _make_writable(k, vmf, orig_pmd)
        return pte_unlock(k, vmf.pmd)
    pte_unlock(k, vmf.pmd)
    __split_huge_pmd(k, vma, vmf.pmd, vmf.address, False, 0)
    return VM_FAULT_FALLBACK


def _huge_page_is_ours(k: Kernel, vma: Vma, page: u64) -> flag:
    """Whether a huge page, which is locked, belongs to one process, by its references."""
    if PageFlag(k, page, PG_anon_exclusive):
        return True
    if PageSwapCache(k, page):
        try_to_free_swap(k, page)
    if page_count(k, page) != 1:
        return False
    page_move_anon_rmap(k, page, vma)
    return True


# ---------------------------------------------------------------- copying


def _copy_huge_page(k: Kernel, vmf: VmFault, orig_pmd: u64, page: u64, new: u64) -> i32:
    """Give the process a copy of the page, of which the caller took a reference, or of zeros.

    mm/huge_memory.c:1281-1351 (v4.18).
    """
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    start: u64 = vmf.address & PMD_MASK
    ret: i32 = 0
    if mem_cgroup_try_charge(k, new, mm.memcg, alloc_hugepage_direct_gfpmask(k, vma)):
        put_page(k, new)
        split_huge_pmd(k, vma, vmf.pmd, vmf.address)
        if page:
            put_page(k, page)
        k.vm_stat[THP_FAULT_FALLBACK] += 1
        return VM_FAULT_FALLBACK
    k.vm_stat[THP_FAULT_ALLOC] += 1
    if page:
        copy_huge_content(k, new, page)
    mmu_notifier_invalidate_range_start(k, mm, start, start + HPAGE_PMD_SIZE)
    pte_lock(k, vmf.pmd)
    if page:
        put_page(k, page)
    if ptep_get(k, vmf.pmd) != orig_pmd:
        put_page(k, new)
    else:
        # A CPU must have dropped the old translation before it can find the new one.
        pmdp_huge_clear_flush_notify(k, vma, start, vmf.pmd)
        _map_whole(k, vma, start, vmf.pmd, new)
        if not page:
            add_mm_counter(k, mm, MM_ANONPAGES, HPAGE_PMD_NR)
        else:
            _remove_whole(k, vma, page)
            put_page(k, page)
        ret = VM_FAULT_WRITE
    pte_unlock(k, vmf.pmd)
    mmu_notifier_invalidate_range_only_end(k, mm, start, start + HPAGE_PMD_SIZE)
    if k.tracer is not None:
        k.tracer("do_huge_pmd_wp_page", (page, vma, vmf.address, ret != 0))
    return ret


def copy_huge_content(k: Kernel, dst: u64, src: u64) -> i32:
    """Make a huge page hold what another holds: copy_user_huge_page()."""
    i: u64
    for i in range(HPAGE_PMD_NR):
        copy_page_content(k, dst + i, src + i)
    k.vm_stat[COW_COPIES] += HPAGE_PMD_NR
    return 0


def pmdp_huge_clear_flush_notify(k: Kernel, vma: Vma, start: u64, pmd: u64) -> u64:
    """Empty a PMD, flush its range here and in secondary MMUs, and return what it was."""
    old: u64 = pmdp_huge_clear_flush(k, vma, start, pmd)
    mmu_notifier_invalidate_range(k, vma.vm_mm, start, start + HPAGE_PMD_SIZE)
    return old


def do_huge_pmd_wp_page_fallback(k: Kernel, vmf: VmFault, orig_pmd: u64, page: u64) -> i32:
    """Copy a huge page into 512 small ones, for want of a huge one (mm/huge_memory.c:1077).

    VM_FAULT_OOM if there are not so many, and nothing changed.
    """
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    start: u64 = vmf.address & PMD_MASK
    pages: list = _alloc_copies(k, mm)
    if not pages:
        return VM_FAULT_OOM
    i: u64
    for i in range(HPAGE_PMD_NR):
        copy_page_content(k, pages[i], page + i)
    k.vm_stat[COW_COPIES] += HPAGE_PMD_NR
    mmu_notifier_invalidate_range_start(k, mm, start, start + HPAGE_PMD_SIZE)
    pte_lock(k, vmf.pmd)
    same: flag = ptep_get(k, vmf.pmd) == orig_pmd
    if same:
        pmdp_huge_clear_flush_notify(k, vma, start, vmf.pmd)
        _map_copies(k, vma, start, vmf.pmd, pages)
        _remove_whole(k, vma, page)
    pte_unlock(k, vmf.pmd)
    mmu_notifier_invalidate_range_only_end(k, mm, start, start + HPAGE_PMD_SIZE)
    if not same:
        _put_copies(k, pages)
        return 0
    put_page(k, page)
    return VM_FAULT_WRITE


def _alloc_copies(k: Kernel, mm: Mm) -> list:
    """512 small pages, charged; an empty list if there are not so many."""
    pages: list = []
    page: u64
    while len(pages) < HPAGE_PMD_NR:
        page = alloc_page(k, GFP_HIGHUSER)
        if page and mem_cgroup_try_charge(k, page, mm.memcg, GFP_KERNEL):
            put_page(k, page)
            page = 0
        if not page:
            _put_copies(k, pages)
            return []
        SetPage(k, page, PG_uptodate)
        pages.append(page)
    return pages


def _put_copies(k: Kernel, pages: list) -> i32:
    """Give pages back that were not needed."""
    page: u64
    for page in pages:
        put_page(k, page)
    return 0


def _map_copies(k: Kernel, vma: Vma, start: u64, pmd: u64, pages: list) -> i32:
    """Fill the table that was set aside with small pages, and hang it where the PMD was."""
    mm: Mm = vma.vm_mm
    row: u64 = pgtable_trans_huge_withdraw(k, mm, pmd)
    address: u64 = start
    page: u64
    ptep: u64
    i: u64
    for i in range(HPAGE_PMD_NR):
        page = pages[i]
        ptep = row * PTRS_PER_PTE + i
        page_add_new_anon_rmap(k, page, vma, address, False)
        lru_cache_add_active_or_unevictable(k, page, vma)
        if not pte_none(ptep_get(k, ptep)):
            BUG("huge_memory.c:1163 do_huge_pmd_wp_page_fallback: the table is not empty")
        set_pte_at(
            k, mm, address, ptep, maybe_mkwrite(pte_mkdirty(pfn_pte(page, vma.vm_page_prot)), vma)
        )
        address += PAGE_SIZE
    return pmd_populate(k, mm, pmd, row)

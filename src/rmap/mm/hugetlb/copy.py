# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""What fork copies of huge pages: copy_hugetlb_page_range() of mm/hugetlb.c (v4.18).

Locks: both mmap_sems are held for write by dup_mmap(); i_mmap_rwsem by `huge_pte_alloc`, for a
moment; the page-table lock of the child's entry and, nested in it, that of the parent's.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        SWP_MIGRATION_READ,
        PG_anon_exclusive,
        PG_private,
    )
    from rmap.mm.hugetlb.fault import copy_huge_page
    from rmap.mm.hugetlb.pgtable import (
        huge_pte_alloc,
        huge_pte_offset,
        is_hugetlb_entry_migration,
        make_huge_pte,
    )
    from rmap.mm.hugetlb.pool import (
        hstate_vma,
        huge_page_size,
        hugetlb_count_add,
        pages_per_huge_page,
    )
    from rmap.mm.hugetlb.reserve import alloc_huge_page, restore_reserve_on_error
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import Kernel, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import ClearPage, PageAnon, PageFlag, get_page, page_maybe_dma_pinned
    from rmap.mm.pgtable import (
        is_write_migration_entry,
        pte_lock,
        pte_none,
        pte_pfn,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        ptep_set_wrprotect,
        set_pte_at,
        swp_entry,
        swp_entry_to_pte,
        swp_offset,
    )
    from rmap.mm.rmap_counts import hugepage_add_new_anon_rmap, page_dup_rmap
    from rmap.mm.vma import is_cow_mapping
    from rmap.scalar import flag, i32, i64, u64


def copy_hugetlb_page_range(k: Kernel, dst_vma: Vma, src_vma: Vma) -> i32:
    """Let a child's VMA map the huge pages that the parent's maps; 0 or a negative errno.

    Tables that both share need no copying. Both mmap_sems are held for write.
    """
    src_vma.vm_mm.mmap_sem.assert_held_write()
    dst_vma.vm_mm.mmap_sem.assert_held_write()
    cow: flag = is_cow_mapping(src_vma.vm_flags)
    start: u64 = src_vma.vm_start
    end: u64 = src_vma.vm_end
    if cow:
        mmu_notifier_invalidate_range_start(k, src_vma.vm_mm, start, end)
    error: i32 = _copy_range(k, dst_vma, src_vma, cow)
    if cow:
        mmu_notifier_invalidate_range_end(k, src_vma.vm_mm, start, end)
    if k.tracer is not None:
        k.tracer("copy_hugetlb_page_range", (dst_vma, src_vma, error))
    return error


def _copy_range(k: Kernel, dst_vma: Vma, src_vma: Vma, cow: flag) -> i32:
    """Copy entry by entry."""
    size: u64 = huge_page_size(hstate_vma(src_vma))
    address: u64 = src_vma.vm_start
    src_pte: u64
    dst_pte: u64
    error: i32
    while address < src_vma.vm_end:
        src_pte = huge_pte_offset(k, src_vma.vm_mm, address, size)
        if src_pte:
            dst_pte = huge_pte_alloc(k, dst_vma.vm_mm, address, size)
            if not dst_pte:
                return -ENOMEM
            if dst_pte != src_pte and not _is_shared(k, dst_pte):
                error = _copy_entry(k, dst_vma, src_vma, dst_pte, src_pte, address, cow)
                if error:
                    return error
        address += size
    return 0


def _is_shared(k: Kernel, dst_pte: u64) -> flag:
    """Whether the child has got a table of somebody else, not of its parent, with a page in it.

    v4.18 does not look: it sets the entry again, and counts a mapping that does not exist.
    """
    return k.profile.hugetlb_fork_skips_shared and not pte_none(ptep_get(k, dst_pte))


def _copy_entry(
    k: Kernel, dst_vma: Vma, src_vma: Vma, dst_pte: u64, src_pte: u64, address: u64, cow: flag
) -> i32:
    """Copy one entry under both locks, as often as a pinned page needs a copy made without them."""
    error: i32 = 0
    entry: u64
    new: i64 = 0
    copied: u64 = 0
    while True:
        pte_lock(k, dst_pte)
        pte_lock(k, src_pte)
        entry = ptep_get(k, src_pte)
        if new and entry == copied:
            _install_copy(k, dst_vma, dst_pte, new, address)
            new = 0
        elif not pte_none(entry) and pte_present(entry):
            copied = entry
            if not new and _needs_copy(k, pte_pfn(entry), cow):
                pte_unlock(k, src_pte)
                pte_unlock(k, dst_pte)
                new = alloc_huge_page(k, dst_vma, address, True)
                if new < 0:
                    return new
                copy_huge_page(k, new, pte_pfn(entry), hstate_vma(dst_vma))
                continue
            _share(k, dst_vma, src_vma, dst_pte, src_pte, address, cow)
        elif not pte_none(entry):
            _copy_special(k, dst_vma, src_vma, dst_pte, src_pte, address, cow)
        pte_unlock(k, src_pte)
        pte_unlock(k, dst_pte)
        break
    if new:
        # The parent's page is another one by now.
        restore_reserve_on_error(k, hstate_vma(dst_vma), dst_vma, address, new)
        put_page(k, new)
    return error


def _needs_copy(k: Kernel, page: u64, cow: flag) -> flag:
    """Whether the page may be pinned, so that the parent must keep it for itself (since 5.12)."""
    if not cow or not k.profile.fork_copies_pinned or not PageAnon(k, page):
        return False
    if not page_maybe_dma_pinned(k, page):
        return False
    return not k.profile.anon_exclusive or PageFlag(k, page, PG_anon_exclusive)


def _install_copy(k: Kernel, vma: Vma, ptep: u64, page: u64, address: u64) -> i32:
    """Map a copy that was made for the child: hugetlb_install_page(), since 5.12."""
    pages: i64 = pages_per_huge_page(hstate_vma(vma))
    hugepage_add_new_anon_rmap(k, page, vma, address)
    set_pte_at(k, vma.vm_mm, address, ptep, make_huge_pte(vma, page, True))
    ClearPage(k, page, PG_private)
    return hugetlb_count_add(vma.vm_mm, pages)


def _share(
    k: Kernel, dst_vma: Vma, src_vma: Vma, dst_pte: u64, src_pte: u64, address: u64, cow: flag
) -> i32:
    """Let both map the page, for reading only if it is private."""
    pages: i64 = pages_per_huge_page(hstate_vma(dst_vma))
    if cow:
        ptep_set_wrprotect(k, src_vma.vm_mm, address, src_pte)
    entry: u64 = ptep_get(k, src_pte)
    page: u64 = pte_pfn(entry)
    get_page(k, page)
    page_dup_rmap(k, page, True)
    if k.profile.anon_exclusive and PageAnon(k, page):
        ClearPage(k, page, PG_anon_exclusive)
    set_pte_at(k, dst_vma.vm_mm, address, dst_pte, entry)
    return hugetlb_count_add(dst_vma.vm_mm, pages)


def _copy_special(
    k: Kernel, dst_vma: Vma, src_vma: Vma, dst_pte: u64, src_pte: u64, address: u64, cow: flag
) -> i32:
    """Copy the entry of a page that is being moved, or broken. Nothing is counted for it."""
    pte: u64 = ptep_get(k, src_pte)
    entry: u64 = pte_to_swp_entry(pte)
    if cow and is_hugetlb_entry_migration(pte) and is_write_migration_entry(entry):
        pte = swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, swp_offset(entry)))
        set_pte_at(k, src_vma.vm_mm, address, src_pte, pte)
    return set_pte_at(k, dst_vma.vm_mm, address, dst_pte, pte)

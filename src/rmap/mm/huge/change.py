# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""What system calls do to PMDs that map huge pages: copy, zap, move, protect (mm/huge_memory.c).

v4.18. Locks: the lock of the PMD's table, which all take; copying takes the parent's inside
of the child's, and moving the new place's inside of the old one's. mmap_sem is held by the callers.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_SOFT_DIRTY,
        _PAGE_SWP_EXCLUSIVE,
        _PAGE_SWP_SOFT_DIRTY,
        EAGAIN,
        ENOMEM,
        HPAGE_PMD_NR,
        HPAGE_PMD_SIZE,
        MM_ANONPAGES,
        MM_CP_TRY_CHANGE_WRITABLE,
        PMD_MASK,
        SWP_MIGRATION_READ,
        VM_SHARED,
        VM_WRITE,
        PG_anon_exclusive,
    )
    from rmap.mm.bug import BUG, BUG_PAGE, WARN
    from rmap.mm.huge.pgtable import (
        is_huge_zero_pmd,
        mm_get_huge_zero_page,
        pgtable_trans_huge_deposit,
        pgtable_trans_huge_withdraw,
        pmd_protnone,
        pmd_trans_huge_lock,
        set_huge_zero_page,
        zap_deposited_table,
    )
    from rmap.mm.huge.split_pmd import __split_huge_pmd
    from rmap.mm.mlock_page import munlock_vma_page_counted
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmu_gather import MmuGather, tlb_adjust_range, tlb_flush_mmu, tlb_remove_page
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageFlag,
        PageHead,
        get_page,
        page_mapcount,
        page_maybe_dma_pinned,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        is_pmd_migration_entry,
        is_swap_pmd,
        is_write_migration_entry,
        pmd_present,
        pmd_trans_huge,
        pte_alloc_row,
        pte_dirty,
        pte_free_row,
        pte_lock,
        pte_mkold,
        pte_mkwrite,
        pte_modify,
        pte_none,
        pte_pfn,
        pte_swp_mksoft_dirty,
        pte_swp_soft_dirty,
        pte_to_swp_entry,
        pte_unlock,
        pte_write,
        pte_wrprotect,
        ptep_get,
        ptep_get_and_clear,
        ptep_set_wrprotect,
        ptl_of,
        set_pte_at,
        swp_entry,
        swp_entry_to_pte,
        swp_offset,
    )
    from rmap.mm.rmap_counts import page_dup_rmap, page_remove_rmap
    from rmap.mm.tlb import flush_tlb_range, pmdp_invalidate
    from rmap.mm.vma import add_mm_counter, mm_counter_huge_file, vma_is_anonymous
    from rmap.scalar import flag, i32, u64


def migration_pmd_read(k: Kernel, pmd: u64, keeps_exclusive: flag) -> u64:
    """A PMD that waits for a huge page, without the right to write to it afterwards.

    Since 5.19 it may go on saying that the page is this process's alone.
    """
    new: u64 = swp_entry_to_pte(swp_entry(SWP_MIGRATION_READ, swp_offset(pte_to_swp_entry(pmd))))
    if pte_swp_soft_dirty(pmd):
        new = pte_swp_mksoft_dirty(new)
    if keeps_exclusive and k.profile.anon_exclusive:
        new |= _PAGE_SWP_EXCLUSIVE
    return new


# ---------------------------------------------------------------- fork


def copy_huge_pmd(
    k: Kernel, dst_vma: Vma, src_vma: Vma, dst_pmd: u64, src_pmd: u64, address: u64
) -> i32:
    """Let a child map the huge page that the parent maps; neither may write to it then.

    mm/huge_memory.c:918 (v4.18). Returns 0, -ENOMEM, or -EAGAIN if there is a table by now. Both
    mmap_sems are held for write.
    """
    mm: Mm = dst_vma.vm_mm
    # Faults find the pages of a file by themselves.
    if not vma_is_anonymous(dst_vma):
        return 0
    row: u64 = pte_alloc_row(k, mm)
    if not row:
        return -ENOMEM
    pte_lock(k, dst_pmd)
    pte_lock(k, src_pmd)
    pmd: u64 = ptep_get(k, src_pmd)
    ret: i32 = 0
    pinned: flag = False
    if is_swap_pmd(pmd):
        _copy_migration_pmd(k, mm, src_vma.vm_mm, dst_pmd, src_pmd, row, address)
    elif not pmd_trans_huge(pmd):
        pte_free_row(k, mm, row)
        ret = -EAGAIN
    elif is_huge_zero_pmd(k, pmd):
        set_huge_zero_page(k, row, mm, dst_vma, address, dst_pmd, mm_get_huge_zero_page(k, mm))
    elif _needs_own_copy(k, pte_pfn(pmd)):
        pte_free_row(k, mm, row)
        pinned = True
        ret = -EAGAIN
    else:
        _share_huge_page(k, mm, src_vma.vm_mm, dst_pmd, src_pmd, row, address)
    pte_unlock(k, src_pmd)
    pte_unlock(k, dst_pmd)
    if pinned:
        # Page by page, those that are pinned are copied at once.
        __split_huge_pmd(k, src_vma, src_pmd, address, False, 0)
    if k.tracer is not None:
        k.tracer("copy_huge_pmd", (dst_vma, src_vma, address, ret))
    return ret


def _needs_own_copy(k: Kernel, page: u64) -> flag:
    """Whether the page may be pinned, so that the parent must keep it for itself (since 5.9)."""
    if not k.profile.fork_copies_pinned or not page_maybe_dma_pinned(k, page):
        return False
    return not k.profile.anon_exclusive or PageFlag(k, page, PG_anon_exclusive)


def _copy_migration_pmd(
    k: Kernel, mm: Mm, src_mm: Mm, dst_pmd: u64, src_pmd: u64, row: u64, address: u64
) -> i32:
    """Let the child wait for the page, too. When it has moved, both map it read-only."""
    pmd: u64 = ptep_get(k, src_pmd)
    if not is_pmd_migration_entry(pmd):
        BUG("huge_memory.c:947 copy_huge_pmd: a PMD that is no migration entry")
    read: u64 = migration_pmd_read(k, pmd, False)
    if pmd != read:
        set_pte_at(k, src_mm, address, src_pmd, read)
    add_mm_counter(k, mm, MM_ANONPAGES, HPAGE_PMD_NR)
    pgtable_trans_huge_deposit(k, mm, dst_pmd, row)
    return set_pte_at(k, mm, address, dst_pmd, read)


def _share_huge_page(
    k: Kernel, mm: Mm, src_mm: Mm, dst_pmd: u64, src_pmd: u64, row: u64, address: u64
) -> i32:
    """Map the page by a PMD of the child's too, old and not to be written through."""
    pmd: u64 = ptep_get(k, src_pmd)
    page: u64 = pte_pfn(pmd)
    if not PageHead(k, page):
        BUG_PAGE("huge_memory.c:984 copy_huge_pmd: a PMD maps no huge page", page)
    if k.profile.anon_exclusive:
        ClearPage(k, page, PG_anon_exclusive)
    get_page(k, page)
    page_dup_rmap(k, page, True)
    add_mm_counter(k, mm, MM_ANONPAGES, HPAGE_PMD_NR)
    pgtable_trans_huge_deposit(k, mm, dst_pmd, row)
    ptep_set_wrprotect(k, src_mm, address, src_pmd)
    return set_pte_at(k, mm, address, dst_pmd, pte_mkold(pte_wrprotect(pmd)))


# ---------------------------------------------------------------- munmap, exit


def zap_huge_pmd(k: Kernel, tlb: MmuGather, vma: Vma, pmd: u64, address: u64) -> flag:
    """Empty a PMD that maps a huge page, or waits for one (mm/huge_memory.c:1697, v4.18).

    Returns whether there was one. The page is freed after the flush, as small ones are.
    """
    mm: Mm = tlb.mm
    page: u64
    if not pmd_trans_huge_lock(k, pmd):
        return False
    orig_pmd: u64 = ptep_get_and_clear(k, mm, address, pmd)
    tlb_adjust_range(tlb, address, address + HPAGE_PMD_SIZE)
    if is_huge_zero_pmd(k, orig_pmd):
        # Nothing counted the mapping, and the address space has its one reference until it ends.
        zap_deposited_table(k, mm, pmd)
        pte_unlock(k, pmd)
        return True
    present: flag = pmd_trans_huge(orig_pmd)
    if present:
        page = pte_pfn(orig_pmd)
        page_remove_rmap(k, page, True)
        if k.profile.mlock_counts:
            munlock_vma_page_counted(k, page, vma, True)
        if page_mapcount(k, page) < 0 or not PageHead(k, page):
            BUG_PAGE("huge_memory.c:1735 zap_huge_pmd: the page is not huge, or not mapped", page)
    else:
        page = swp_offset(pte_to_swp_entry(orig_pmd))
    if PageAnon(k, page):
        zap_deposited_table(k, mm, pmd)
        add_mm_counter(k, mm, MM_ANONPAGES, -HPAGE_PMD_NR)
    else:
        if present and k.profile.zap_dirties_huge_shmem and pte_dirty(orig_pmd):
            set_page_dirty(k, page)
        add_mm_counter(k, mm, mm_counter_huge_file(k, page), -HPAGE_PMD_NR)
    pte_unlock(k, pmd)
    if k.tracer is not None:
        k.tracer("zap_huge_pmd", (page, vma, address))
    if present and tlb_remove_page(tlb, page):
        tlb_flush_mmu(k, tlb)
    return True


# ---------------------------------------------------------------- mremap


def move_huge_pmd(
    k: Kernel, vma: Vma, old_addr: u64, new_addr: u64, old_end: u64, old_pmd: u64, new_pmd: u64
) -> i32:
    """Move a PMD that maps a huge page, or waits for one (mm/huge_memory.c:1771, v4.18).

    Returns 0 if it cannot be moved as a whole, 1 if it was, 2 if it was and the caller has to flush
    before anybody relies on its being gone. A dirty one is flushed for under the lock, and with
    `mremap_flushes_under_lock` every one that is present. mmap_sem is held for write.
    """
    mm: Mm = vma.vm_mm
    if (old_addr | new_addr) & ~PMD_MASK or old_end - old_addr < HPAGE_PMD_SIZE:
        return 0
    if not pte_none(k.pt[new_pmd]):
        WARN(k.warnings, "huge_memory.c:1788 move_huge_pmd: something is at the new place")
        return 0
    if not pmd_trans_huge_lock(k, old_pmd):
        return 0
    nested: flag = ptl_of(old_pmd) != ptl_of(new_pmd)
    if nested:
        pte_lock(k, new_pmd)
    pmd: u64 = ptep_get_and_clear(k, mm, old_addr, old_pmd)
    present: flag = pmd_present(pmd)
    under_lock: flag = k.profile.mremap_flushes_under_lock
    force_flush: flag = present and (under_lock or pte_dirty(pmd))
    if nested and vma_is_anonymous(vma):
        # What is set aside is so by the table that the PMD is in.
        row: u64 = pgtable_trans_huge_withdraw(k, mm, old_pmd)
        pgtable_trans_huge_deposit(k, mm, new_pmd, row)
    pmd |= _PAGE_SOFT_DIRTY if present else _PAGE_SWP_SOFT_DIRTY
    set_pte_at(k, mm, new_addr, new_pmd, pmd)
    if force_flush and under_lock:
        flush_tlb_range(k, mm, old_addr, old_addr + HPAGE_PMD_SIZE)
    if nested:
        pte_unlock(k, new_pmd)
    if force_flush and not under_lock:
        flush_tlb_range(k, mm, old_addr, old_addr + HPAGE_PMD_SIZE)
    pte_unlock(k, old_pmd)
    return 1 if force_flush or under_lock else 2


# ---------------------------------------------------------------- mprotect


def change_huge_pmd(
    k: Kernel, vma: Vma, pmd: u64, address: u64, newprot: u64, cp_flags: i32
) -> i32:
    """Give a PMD that maps a huge page other protection bits (mm/huge_memory.c:1844, v4.18).

    Returns 0 if there is none, 1 if nothing has to be flushed for, else how many pages it maps. The
    PMD is made unusable for a moment, so that no CPU's dirty bit is lost.
    """
    mm: Mm = vma.vm_mm
    entry: u64
    if not pmd_trans_huge_lock(k, pmd):
        return 0
    old: u64 = ptep_get(k, pmd)
    if is_swap_pmd(old):
        if not is_pmd_migration_entry(old):
            BUG("huge_memory.c:1866 change_huge_pmd: a PMD that is no migration entry")
        if is_write_migration_entry(pte_to_swp_entry(old)):
            # Whether it may be written to again is found out by a fault on the page.
            set_pte_at(k, mm, address, pmd, migration_pmd_read(k, old, vma_is_anonymous(vma)))
        pte_unlock(k, pmd)
        return 1
    entry = pte_modify(pmdp_invalidate(k, vma, address, pmd), newprot)
    if vma_is_anonymous(vma) and pte_write(entry):
        BUG("huge_memory.c:1931 change_huge_pmd: private memory became writable without a fault")
    if cp_flags & MM_CP_TRY_CHANGE_WRITABLE and can_change_pmd_writable(k, vma, entry):
        entry = pte_mkwrite(entry)
    set_pte_at(k, mm, address, pmd, entry)
    pte_unlock(k, pmd)
    return HPAGE_PMD_NR


def can_change_pmd_writable(k: Kernel, vma: Vma, pmd: u64) -> flag:
    """Whether a write fault would make the PMD writable, and do nothing else (v6.2)."""
    if not k.profile.mprotect_writes_clean or pmd_protnone(pmd) or not vma.vm_flags & VM_WRITE:
        return False
    if vma.vm_flags & VM_SHARED:
        return pte_dirty(pmd)
    page: u64 = pte_pfn(pmd)
    return PageAnon(k, page) and PageFlag(k, page, PG_anon_exclusive)

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""mremap, and the moving of page tables that exec uses as well (mm/mremap.c, v4.18).

Locks: `do_mremap` takes mm->mmap_sem for write. Moving entries takes, if a walk could meet the new
VMA before the old one, mapping->i_mmap_rwsem and the root's anon_vma->rwsem; then the page-table
locks of the old place and of the new. Without the former a walk that meets the old VMA first sees a
page at its old place, or else will find it at the new one: it may see it twice, but not miss it.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_lock_write, anon_vma_unlock_write, unlink_anon_vmas
    from rmap.mm.bits import (
        _PAGE_DIRTY,
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        _PAGE_SOFT_DIRTY,
        _PAGE_SWP_SOFT_DIRTY,
        EFAULT,
        EINVAL,
        ENOMEM,
        MAP_FIXED,
        MAX_MAP_COUNT,
        MREMAP_DONTUNMAP,
        MREMAP_FIXED,
        MREMAP_MAYMOVE,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_SIZE,
        PTE_NONE_IGNORES,
        TASK_SIZE,
        ULONG_MAX,
        VM_ACCOUNT,
        VM_DONTEXPAND,
        VM_HUGETLB,
        VM_LOCKED,
        VM_LOCKED_MASK,
        VM_MAYSHARE,
        VM_MERGEABLE,
        VM_PFNMAP,
        VM_SHARED,
        VM_UFFD_MISSING,
        VM_UFFD_WP,
    )
    from rmap.mm.gup import mm_populate
    from rmap.mm.huge.change import move_huge_pmd
    from rmap.mm.huge.pgtable import pmd_trans_unstable
    from rmap.mm.huge.split_pmd import split_huge_pmd
    from rmap.mm.ksm.unmerge import unmerge_ksm_pages
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmap import do_munmap, page_align
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.pgtable import (
        pmd_alloc,
        pmd_offset,
        pte_alloc_map,
        pte_lock,
        pte_offset,
        pte_unlock,
        ptep_get_and_clear,
        ptl_of,
        set_pte_at,
    )
    from rmap.mm.tlb import flush_tlb_batched_pending, flush_tlb_range
    from rmap.mm.unmapped_area import get_file_area, get_unmapped_area
    from rmap.mm.vma import find_vma, vma_is_anonymous, vma_pages
    from rmap.mm.vma_adjust import split_vma, vma_adjust
    from rmap.mm.vma_merge import VmaCopy, copy_vma, vma_merge
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.core import sched


class Remap:
    """One mremap() on its way: what is moved where, and what is to be done once it is."""

    def __init__(self, mm: Mm, addr: u64, old_len: u64, new_len: u64, flags: u64) -> None:
        self.mm = mm
        self.addr = addr
        self.old_len = old_len
        self.new_len = new_len
        self.flags = flags
        self.new_addr = 0
        self.locked = False


# ---------------------------------------------------------------- moving entries


def take_rmap_locks(vma: Vma) -> i32:
    """Keep all walks out that could come by the VMA (mm/mremap.c:84)."""
    if vma.vm_file is not None:
        vma.vm_file.f_mapping.i_mmap_rwsem.down_write()
    if vma.anon_vma is not None:
        anon_vma_lock_write(vma.anon_vma)
    return 0


def drop_rmap_locks(vma: Vma) -> i32:
    """Let them in again (mm/mremap.c:92)."""
    if vma.anon_vma is not None:
        anon_vma_unlock_write(vma.anon_vma)
    if vma.vm_file is not None:
        vma.vm_file.f_mapping.i_mmap_rwsem.up_write()
    return 0


def move_ptes(
    k: Kernel,
    vma: Vma,
    old_pmd: u64,
    old_addr: u64,
    old_end: u64,
    new_pte: u64,
    new_addr: u64,
    need_rmap_locks: flag,
) -> flag:
    """Move the entries of one table (mm/mremap.c:116, v4.18); whether a flush is still owed.

    A dirty entry is flushed for while its lock is held, or page_mkclean() could find the new entry
    clean while a CPU still writes through the old translation. For others v4.18 flushes when all
    is moved: too late, since the page can be freed through the new address once that lock is
    dropped (CVE-2018-18281). `mremap_flushes_under_lock` is the repair.
    """
    mm: Mm = vma.vm_mm
    if need_rmap_locks:
        take_rmap_locks(vma)
    old_pte: u64 = pte_offset(k, old_pmd, old_addr)
    first: u64 = old_pte
    other: u64 = new_pte
    address: u64 = old_addr
    pte: u64
    force_flush: flag = False
    nested: flag = ptl_of(old_pte) != ptl_of(new_pte)
    present: u64 = _PAGE_PRESENT | _PAGE_PROTNONE
    under_lock: flag = k.profile.mremap_flushes_under_lock
    moved: u64
    pte_lock(k, first)
    if nested:
        pte_lock(k, other)
    flush_tlb_batched_pending(k, mm)
    while address < old_end:
        pte = k.pt[old_pte]
        if pte & ~PTE_NONE_IGNORES:
            if sched.exploring:
                pte = ptep_get_and_clear(k, mm, address, old_pte)
            else:
                k.pt[old_pte] = 0
            if pte & present:
                # The flag of entries that were written to, at an address where they were not.
                moved = pte | _PAGE_SOFT_DIRTY
                if pte & _PAGE_DIRTY or under_lock:
                    force_flush = True
            else:
                moved = pte | _PAGE_SWP_SOFT_DIRTY
            if sched.exploring:
                set_pte_at(k, mm, new_addr, new_pte, moved)
            else:
                k.pt[new_pte] = moved
        address += PAGE_SIZE
        new_addr += PAGE_SIZE
        old_pte += 1
        new_pte += 1
    if force_flush and under_lock:
        flush_tlb_range(k, mm, old_addr, old_end)
    if nested:
        pte_unlock(k, other)
    if force_flush and not under_lock:
        flush_tlb_range(k, mm, old_addr, old_end)
    pte_unlock(k, first)
    if need_rmap_locks:
        drop_rmap_locks(vma)
    return not force_flush and not under_lock


def move_page_tables(
    k: Kernel,
    vma: Vma,
    old_addr: u64,
    new_vma: Vma,
    new_addr: u64,
    length: u64,
    need_rmap_locks: flag,
) -> u64:
    """Move the entries of a range of a VMA elsewhere (mm/mremap.c:196, v4.18).

    Returns how many bytes of the range were moved: all of `length` unless memory for tables ran
    out. mmap_sem is held for write, or nobody knows the mm yet.
    """
    mm: Mm = vma.vm_mm
    start: u64 = old_addr
    end: u64 = old_addr + length
    extent: u64
    room: u64
    old_pmd: u64
    new_pmd: u64
    new_pte: u64
    step: i32
    need_flush: flag = False
    locks: flag = need_rmap_locks and k.profile.rmap_locks_in_mremap
    mmu_notifier_invalidate_range_start(k, mm, start, end)
    while old_addr < end:
        extent = PMD_SIZE - (old_addr & (PMD_SIZE - 1))
        if extent > end - old_addr:
            extent = end - old_addr
        old_pmd = pmd_offset(k, mm, old_addr)
        if old_pmd and k.pt[old_pmd]:
            new_pmd = pmd_alloc(k, mm, new_addr)
            if not new_pmd:
                break
            if k.pt[old_pmd] & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT:
                step = _move_whole(k, vma, old_addr, new_addr, extent, old_pmd, new_pmd, locks)
                if step:
                    if step == 2:
                        need_flush = True
                    old_addr += extent
                    new_addr += extent
                    continue
            new_pte = pte_alloc_map(k, mm, new_pmd, new_addr)
            if not new_pte:
                break
            # Not beyond the table of the new place either.
            room = PMD_SIZE - (new_addr & (PMD_SIZE - 1))
            if extent > room:
                extent = room
            if move_ptes(k, vma, old_pmd, old_addr, old_addr + extent, new_pte, new_addr, locks):
                need_flush = True
        old_addr += extent
        new_addr += extent
    if need_flush:
        flush_tlb_range(k, mm, start, old_addr)
    mmu_notifier_invalidate_range_end(k, mm, start, end)
    if k.tracer is not None:
        k.tracer("move_page_tables", (vma, new_vma, start, old_addr - start, locks))
    return old_addr - start


def _move_whole(
    k: Kernel,
    vma: Vma,
    old_addr: u64,
    new_addr: u64,
    extent: u64,
    old_pmd: u64,
    new_pmd: u64,
    need_rmap_locks: flag,
) -> i32:
    """Move the PMD of a huge page, or split it if that cannot be; see `move_huge_pmd`.

    Not 0 if nothing is left to be moved here.
    """
    step: i32 = 0
    if extent == PMD_SIZE:
        if need_rmap_locks:
            take_rmap_locks(vma)
        step = move_huge_pmd(k, vma, old_addr, new_addr, old_addr + extent, old_pmd, new_pmd)
        if need_rmap_locks:
            drop_rmap_locks(vma)
        if step:
            return step
    split_huge_pmd(k, vma, old_pmd, old_addr)
    return 1 if pmd_trans_unstable(k, old_pmd) else 0


# ---------------------------------------------------------------- moving a VMA


def move_vma(k: Kernel, r: Remap, vma: Vma) -> i64:
    """Move a range of a VMA to ``r.new_addr``, where nothing is (mm/mremap.c:262, v4.18).

    Returns the new address or a negative errno.
    """
    mm: Mm = r.mm
    vm_flags: u64 = vma.vm_flags
    result: i64 = r.new_addr
    error: i32
    # What follows splits VMAs, and is too late to give up if it may not.
    if mm.map_count >= MAX_MAP_COUNT - 3:
        return -ENOMEM
    if vm_flags & VM_MERGEABLE and vma.anon_vma is not None:
        # At their new address, KSM would not find its pages again.
        error = unmerge_ksm_pages(k, vma, r.addr, r.addr + r.old_len)
        if error:
            return error
    if r.flags & MREMAP_DONTUNMAP and k.profile.dontunmap_splits_source:
        error = _split_locked_source(k, r, vma)
        if error:
            return error
        vma = find_vma(k, mm, r.addr)
    copy: VmaCopy = VmaCopy(vma)
    copy.keep_apart = r.flags & MREMAP_DONTUNMAP != 0 and k.profile.dontunmap_splits_source
    pgoff: u64 = vma.vm_pgoff + ((r.addr - vma.vm_start) >> PAGE_SHIFT)
    new_vma: Vma = copy_vma(k, copy, r.new_addr, r.new_len, pgoff)
    if new_vma is None:
        return -ENOMEM
    vma = copy.vma
    moved: u64 = move_page_tables(
        k, vma, r.addr, new_vma, r.new_addr, r.old_len, copy.need_rmap_locks
    )
    mm.total_vm += r.new_len >> PAGE_SHIFT
    if moved < r.old_len:
        # Back, which needs no new tables; then away with the new place instead of the old.
        move_page_tables(k, new_vma, r.new_addr, vma, r.addr, moved, True)
        _unmap_moved(k, mm, new_vma, r.new_addr, r.new_len, vm_flags & VM_ACCOUNT)
        result = -ENOMEM
    else:
        if k.profile.mremap_drops_userfaultfd:
            new_vma.vm_userfaultfd_ctx = None
            new_vma.vm_flags &= ~(VM_UFFD_MISSING | VM_UFFD_WP)
        if r.flags & MREMAP_DONTUNMAP:
            # What is locked is as much as before: the one range for the other.
            _leave_source(k, r, vma, new_vma)
            return result
        _unmap_moved(k, mm, vma, r.addr, r.old_len, vm_flags & VM_ACCOUNT)
    if vm_flags & VM_LOCKED:
        mm.locked_vm += r.new_len >> PAGE_SHIFT
        r.locked = True
    return result


def _unmap_moved(k: Kernel, mm: Mm, vma: Vma, start: u64, length: u64, account: u64) -> i32:
    """Unmap what was moved away. The promise of its memory went with it, and is not taken back."""
    before: flag = start > vma.vm_start
    after: flag = start + length < vma.vm_end
    vma.vm_flags &= ~account
    if do_munmap(k, mm, start, length) < 0:
        # No memory to split it: all of it stays, without a promise.
        return 0
    if before or after:
        vma.vm_flags |= account
    if before and after:
        vma.vm_next.vm_flags |= account
    return 0


def _split_locked_source(k: Kernel, r: Remap, vma: Vma) -> i32:
    """Let a locked range that will be left behind unlocked be a VMA of its own."""
    error: i32 = 0
    if not vma.vm_flags & VM_LOCKED:
        return 0
    if r.addr > vma.vm_start:
        error = split_vma(k, r.mm, vma, r.addr, 1)
    if not error and r.addr + r.old_len < vma.vm_end:
        error = split_vma(k, r.mm, vma, r.addr + r.old_len, 0)
    return error


def _leave_source(k: Kernel, r: Remap, vma: Vma, new_vma: Vma) -> i32:
    """Leave the old range mapped, without pages (MREMAP_DONTUNMAP, v5.7).

    It is not locked any more, since the pages that are faulted in will not be either.
    """
    vma.vm_flags &= ~VM_LOCKED_MASK
    if not k.profile.dontunmap_unlinks_anon_vma or new_vma is vma:
        return 0
    if vma.vm_start != r.addr or vma.vm_end != r.addr + r.old_len:
        return 0
    unlink_anon_vmas(k, vma)
    vma.anon_vma = None
    if k.profile.dontunmap_splits_source and vma_is_anonymous(vma):
        # As if it had just been mapped.
        vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT
    return 0


# ---------------------------------------------------------------- the system call


def do_mremap(
    k: Kernel, mm: Mm, addr: u64, old_len: u64, new_len: u64, flags: u64, new_addr: u64
) -> i64:
    """The system call mremap() (mm/mremap.c:516, v4.18). Returns the address or a negative errno.

    Lengths are in bytes; `new_addr` counts with MREMAP_FIXED.
    """
    known: u64 = MREMAP_FIXED | MREMAP_MAYMOVE
    if k.profile.mremap_dontunmap:
        known |= MREMAP_DONTUNMAP
    if flags & ~known or addr & (PAGE_SIZE - 1):
        return -EINVAL
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE:
        return -EINVAL
    old_len = page_align(old_len)
    new_len = page_align(new_len)
    if new_len == 0:
        return -EINVAL
    if flags & MREMAP_DONTUNMAP and old_len != new_len:
        return -EINVAL
    r: Remap = Remap(mm, addr, old_len, new_len, flags)
    mm.mmap_sem.down_write()
    result: i64
    if k.profile.mremap_looks_at_source_first and not _is_mapped(k, mm, addr):
        result = -EFAULT
    elif flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        result = mremap_to(k, r, new_addr)
    elif old_len >= new_len:
        result = _shrink(k, r)
        if result == 0:
            result = addr
    else:
        result = _expand(k, r)
    mm.mmap_sem.up_write()
    if r.locked and result >= 0 and new_len > old_len:
        addr = result
        mm_populate(k, mm, addr + old_len, new_len - old_len)
    return result


def _is_mapped(k: Kernel, mm: Mm, addr: u64) -> flag:
    """Whether there is a VMA at the address."""
    vma: Vma = find_vma(k, mm, addr)
    return vma is not None and vma.vm_start <= addr


def _shrink(k: Kernel, r: Remap) -> i32:
    """Unmap the end of the old range that the new length leaves over; 0 or a negative errno."""
    if r.old_len == r.new_len:
        return 0
    return do_munmap(k, r.mm, r.addr + r.new_len, r.old_len - r.new_len)


def vma_to_resize(k: Kernel, r: Remap) -> i64:
    """Whether the range is of one VMA that may be resized so; 0 or a negative errno.

    mm/mremap.c:355 (v4.18).
    """
    vma: Vma = find_vma(k, r.mm, r.addr)
    if vma is None or vma.vm_start > r.addr:
        return -EFAULT
    # Old length 0 makes a second mapping of shared memory. Of private memory that made no sense.
    if r.old_len == 0 and not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        return -EINVAL
    if vma.vm_flags & VM_HUGETLB:
        return -EINVAL
    if r.flags & MREMAP_DONTUNMAP and vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EINVAL
    if r.old_len > vma.vm_end - r.addr:
        return -EFAULT
    if r.new_len == r.old_len:
        return 0
    pgoff: u64 = ((r.addr - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff
    if pgoff > ULONG_MAX - (r.new_len >> PAGE_SHIFT):
        return -EINVAL
    if vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EFAULT
    return 0


def mremap_to(k: Kernel, r: Remap, new_addr: u64) -> i64:
    """Move to a given address, in the place of what is there (mm/mremap.c:419, v4.18).

    With MREMAP_DONTUNMAP alone the address is a wish, and nothing is replaced.
    """
    mm: Mm = r.mm
    error: i64
    place: u64 = 0
    if new_addr & (PAGE_SIZE - 1):
        return -EINVAL
    if r.new_len > TASK_SIZE or new_addr > TASK_SIZE - r.new_len:
        return -EINVAL
    if r.addr + r.old_len > new_addr and new_addr + r.new_len > r.addr:
        return -EINVAL
    if r.flags & MREMAP_FIXED:
        place = MAP_FIXED
        error = do_munmap(k, mm, new_addr, r.new_len)
        if error:
            return error
    if r.old_len > r.new_len:
        error = _shrink(k, r)
        if error:
            return error
        r.old_len = r.new_len
    error = vma_to_resize(k, r)
    if error:
        return error
    error = get_unmapped_area(k, mm, new_addr, r.new_len, place)
    if error < 0:
        return error
    r.new_addr = error
    return move_vma(k, r, find_vma(k, mm, r.addr))


def vma_expandable(k: Kernel, vma: Vma, delta: u64) -> flag:
    """Whether nothing is in the way of growing a VMA (mm/mremap.c:491, v4.18)."""
    if delta > TASK_SIZE - vma.vm_end:
        return False
    return vma.vm_next is None or vma.vm_next.vm_start >= vma.vm_end + delta


def _expand(k: Kernel, r: Remap) -> i64:
    """Grow the range where it is, or move it to where there is room."""
    mm: Mm = r.mm
    error: i64 = vma_to_resize(k, r)
    if error:
        return error
    vma: Vma = find_vma(k, mm, r.addr)
    delta: u64 = r.new_len - r.old_len
    if r.addr + r.old_len == vma.vm_end and vma_expandable(k, vma, delta):
        return _expand_in_place(k, r, vma, delta)
    if not r.flags & MREMAP_MAYMOVE:
        return -ENOMEM
    pgoff: u64 = vma.vm_pgoff + ((r.addr - vma.vm_start) >> PAGE_SHIFT)
    error = get_file_area(k, mm, 0, r.new_len, pgoff, 0, vma.vm_file)
    if error < 0:
        return error
    r.new_addr = error
    return move_vma(k, r, vma)


def _expand_in_place(k: Kernel, r: Remap, vma: Vma, delta: u64) -> i64:
    """Grow a VMA into the hole behind it; returns its address or -ENOMEM.

    v4.18 leaves it beside a next VMA that it could be merged with.
    """
    mm: Mm = r.mm
    end: u64 = vma.vm_end + delta
    if k.profile.mremap_expand_merges:
        vma = vma_merge(
            k,
            mm,
            vma,
            vma.vm_end,
            end,
            vma.vm_flags,
            vma.anon_vma,
            vma.vm_file,
            vma.vm_pgoff + vma_pages(vma),
            vma.vm_userfaultfd_ctx,
        )
        if vma is None:
            return -ENOMEM
    elif vma_adjust(k, vma, vma.vm_start, end, vma.vm_pgoff, None):
        return -ENOMEM
    mm.total_vm += delta >> PAGE_SHIFT
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm += delta >> PAGE_SHIFT
        r.locked = True
    return r.addr

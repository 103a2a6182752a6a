# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Address spaces are made, copied and given up: dup_mmap() and its like (kernel/fork.c, v4.18).

Locks of dup_mmap(), outermost first: the parent's mmap_sem, the child's (nested, and never
contended: nobody knows the child yet), both for write; for each VMA the root's anon_vma->rwsem,
then mapping->i_mmap_rwsem, then what copy_page_range() takes. mmput() takes mmlist_lock, and with
the last user what exit_mmap() takes.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_fork, anon_vma_prepare
    from rmap.mm.bits import (
        ENOMEM,
        NR_MM_COUNTERS,
        VM_DONTCOPY,
        VM_HUGETLB,
        VM_LOCKED_MASK,
        VM_NOHUGEPAGE,
        VM_SHARED,
        VM_UFFD_MISSING,
        VM_UFFD_WP,
        VM_WIPEONFORK,
    )
    from rmap.mm.bug import BUG, WARN
    from rmap.mm.copy import copy_page_range
    from rmap.mm.huge.mm_slot import khugepaged_exit, khugepaged_fork
    from rmap.mm.huge.pgtable import mm_put_huge_zero_page
    from rmap.mm.hugetlb.reserve import reset_vma_resv_huge_pages
    from rmap.mm.interval_tree import interval_tree_insert_after
    from rmap.mm.ksm.slots import ksm_exit, ksm_fork
    from rmap.mm.mm_types import AddressSpace, Kernel, MemCgroup, Mm, Vma
    from rmap.mm.mmap import exit_mmap
    from rmap.mm.pgtable import pte_alloc_row, pte_free_row
    from rmap.mm.tlb import flush_tlb_mm
    from rmap.mm.vma import get_mm_rss, vm_area_dup, vma_link_list, vma_pages
    from rmap.mm.vma_adjust import get_file
    from rmap.scalar import i32


def mm_alloc(k: Kernel, name: str, memcg: MemCgroup) -> Mm | None:
    """Make an empty address space with one user; ``None`` without memory (kernel/fork.c:935)."""
    if k.inject is not None and k.inject.should_fail("mm"):
        return None
    mm: Mm = Mm(k, k.next_serial(), 0)
    mm.pgd = pte_alloc_row(k, mm)
    if not mm.pgd:
        return None
    mm.comm = name
    mm.memcg = memcg
    k.mms.append(mm)
    return mm


# ---------------------------------------------------------------- fork


def dup_mm(k: Kernel, oldmm: Mm) -> Mm | None:
    """Copy an address space for a forked process; ``None`` without memory (kernel/fork.c:1294).

    Private pages become shared until somebody writes to them. What a failing copy has made is
    torn down as by an exit.
    """
    mm: Mm = mm_alloc(k, oldmm.comm, oldmm.memcg)
    if mm is None:
        return None
    # Copied as a whole, then what a new mm must not inherit is made anew: locks, counts, VMAs,
    # notifiers, mlockall(). That leaves it owing the flushes that the parent owes.
    mm.start_brk = oldmm.start_brk
    mm.brk = oldmm.brk
    mm.tlb_flush_batched = oldmm.tlb_flush_batched
    mm.def_flags = oldmm.def_flags & VM_NOHUGEPAGE
    if not k.profile.hugetlb_usage_starts_at_zero:
        mm.hugetlb_usage = oldmm.hugetlb_usage
    if dup_mmap(k, mm, oldmm):
        mmput(k, mm)
        return None
    mm.hiwater_rss = get_mm_rss(k, mm)
    return mm


def dup_mmap(k: Kernel, mm: Mm, oldmm: Mm) -> i32:
    """Copy the VMAs and page tables of `oldmm` (kernel/fork.c:396). Returns 0 or -ENOMEM.

    On failure the child has what was copied until then.
    """
    oldmm.mmap_sem.down_write()
    mm.mmap_sem.down_write()
    mm.total_vm = oldmm.total_vm
    error: i32 = ksm_fork(k, mm, oldmm)
    if not error:
        error = khugepaged_fork(k, mm, oldmm)
    mpnt: Vma = oldmm.mmap
    while mpnt is not None and not error:
        if mpnt.vm_flags & VM_DONTCOPY:
            mm.total_vm -= vma_pages(mpnt)
        else:
            error = _dup_vma(k, mm, mpnt)
        mpnt = mpnt.vm_next
    if k.tracer is not None:
        k.tracer("dup_mmap", (mm, oldmm, error))
    mm.mmap_sem.up_write()
    # The parent's entries were write-protected, which its CPUs may not have heard of.
    flush_tlb_mm(k, oldmm)
    oldmm.mmap_sem.up_write()
    return error


def _dup_vma(k: Kernel, mm: Mm, mpnt: Vma) -> i32:
    """Give the child a copy of a VMA, and what it maps. Returns 0 or -ENOMEM.

    It is in the trees of rmap before its pages are mapped, and stays there on failure of the last
    step, for exit_mmap().
    """
    vma: Vma = vm_area_dup(k, mpnt)
    if vma is None:
        return -ENOMEM
    vma.vm_mm = mm
    dup_userfaultfd(vma)
    error: i32 = _dup_anon_vma(k, vma, mpnt)
    if error:
        return error
    vma.vm_flags &= ~VM_LOCKED_MASK
    vma.vm_next = None
    vma.vm_prev = None
    if vma.vm_flags & VM_HUGETLB:
        reset_vma_resv_huge_pages(vma)
    _dup_file(vma, mpnt)
    vma_link_list(k, mm, vma)
    if vma.vm_flags & VM_WIPEONFORK:
        return 0
    return copy_page_range(k, vma, mpnt)


def dup_userfaultfd(vma: Vma) -> i32:
    """Let nobody wait for the child's faults: no userfaultfd here asks to be told of forks."""
    vma.vm_userfaultfd_ctx = None
    vma.vm_flags &= ~(VM_UFFD_MISSING | VM_UFFD_WP)
    return 0


def _dup_anon_vma(k: Kernel, vma: Vma, mpnt: Vma) -> i32:
    """Tie the child's VMA to the anon_vmas of the parent's, or to none that it wipes."""
    if not vma.vm_flags & VM_WIPEONFORK:
        return anon_vma_fork(k, vma, mpnt)
    vma.anon_vma = None
    if k.profile.wipeonfork_prepares_nothing:
        return 0
    # In v4.18 the copy still has the parent's neighbours, and may share the anon_vma of one that
    # is wiped as well: two processes then own one anon_vma.
    return anon_vma_prepare(k, vma)


def _dup_file(vma: Vma, mpnt: Vma) -> i32:
    """Enter the child's VMA into the tree of its file, right behind the parent's."""
    if vma.vm_file is None:
        return 0
    mapping: AddressSpace = vma.vm_file.f_mapping
    get_file(vma.vm_file)
    mapping.i_mmap_rwsem.down_write()
    if vma.vm_flags & VM_SHARED:
        mapping.i_mmap_writable += 1
    interval_tree_insert_after(vma.shared, mpnt.shared, mapping.i_mmap)
    mapping.i_mmap_rwsem.up_write()
    return 0


# ---------------------------------------------------------------- the end


def mmput(k: Kernel, mm: Mm) -> i32:
    """Let go of an address space; with its last user, all that it maps goes (kernel/fork.c:974)."""
    if mm.mm_users <= 0:
        BUG("fork.c:974 mmput: the mm has no users")
    mm.mm_users -= 1
    if mm.mm_users:
        return 0
    ksm_exit(k, mm)
    # Before the page tables go, khugepaged must be out of them.
    khugepaged_exit(k, mm)
    exit_mmap(k, mm)
    mm_put_huge_zero_page(k, mm)
    if mm.on_mmlist:
        k.mmlist_lock.lock()
        k.mmlist.remove(mm)
        mm.on_mmlist = False
        k.mmlist_lock.unlock()
    return mmdrop(k, mm)


def mmdrop(k: Kernel, mm: Mm) -> i32:
    """Let go of an address space that maps nothing; with the last who does, its topmost table goes.

    ksmd refers to those that it goes over, until it comes by and finds that their users have left.
    """
    mm.mm_count -= 1
    if mm.mm_count:
        return 0
    pte_free_row(k, mm, mm.pgd)
    check_mm(k, mm)
    mm.pgd = 0
    mm.dead = True
    k.mms.remove(mm)
    return 0


def check_mm(k: Kernel, mm: Mm) -> i32:
    """Warn of pages and tables that the dead address space still counts (kernel/fork.c:586)."""
    i: i32
    for i in range(NR_MM_COUNTERS):
        if mm.rss_stat[i]:
            WARN(k.warnings, f"fork.c:595 check_mm: rss counter {i} is {mm.rss_stat[i]}, not 0")
    if mm.nr_ptes:
        WARN(k.warnings, f"fork.c:600 check_mm: {mm.nr_ptes} page tables are left")
    return 0

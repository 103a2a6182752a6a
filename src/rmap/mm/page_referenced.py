# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Has anybody used this page lately? page_referenced().

mm/rmap.c:744-880 (v4.18). Locks, outermost first: the page lock, if the page is of a file (the
caller's, or tried for here; a plain anonymous page is walked without); the rmap lock for read;
page-table locks one at a time.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import page_lock_anon_vma_read
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        MAPPING_HANDLE_SHIFT,
        PAGE_MAPPING_ANON,
        PAGE_MAPPING_FLAGS,
        PAGE_SHIFT,
        RMAP_VMAS_MAPPED,
        RMAP_VMAS_VISITED,
        RMAP_WALKS,
        VM_LOCKED,
        VM_SEQ_READ,
        PG_head,
        PG_idle,
        PG_tail,
        PG_young,
    )
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.mlock_page import mlock_vma_page_counted
    from rmap.mm.mm_types import AnonVma, IntervalNode, Kernel, MemCgroup, Vma
    from rmap.mm.mmu_notifier import pmdp_clear_flush_young_notify, ptep_clear_flush_young_notify
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageKsm,
        PageTransCompound,
        TestClearPage,
        page_mapped,
        page_rmapping,
        total_mapcount,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_vma_mapped import (
        PageVmaMappedWalk,
        page_vma_mapped_walk,
        page_vma_mapped_walk_done,
    )
    from rmap.mm.pgtable import pmd_offset, pte_offset, pte_pfn, pte_present, ptl_of
    from rmap.mm.rmap_walk import RmapWalkControl, rmap_walk
    from rmap.mm.tlb import flush_tlb_page
    from rmap.mm.vma import mm_match_cgroup
    from rmap.scalar import flag, i32, i64, u32, u64
    from rmap.sync.core import sched
    from rmap.sync.locks import RwSem


class PageReferencedArg(RmapWalkControl):
    """struct page_referenced_arg, and the walk it is for.

    `mapcount` is how many mappings are still to be seen, `referenced` in how many VMAs the page
    was used, `vm_flags` those of these VMAs (and VM_LOCKED of one that holds it in memory). With
    `memcg`, only mappings of that memcg and those below it are looked at. One object serves any
    number of calls, one after another.
    """

    def __init__(self) -> None:
        self.mapcount = 0
        self.referenced = 0
        self.vm_flags = 0
        self.memcg: MemCgroup = None
        self.pvmw = PageVmaMappedWalk(0, None, 0)

    def rmap_one(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Look at one VMA."""
        return page_referenced_one(k, page, vma, address, self)

    def anon_lock(self, k: Kernel, page: u64) -> AnonVma | None:
        """Lock without the page lock, if the page is still mapped."""
        return page_lock_anon_vma_read(k, page)

    def invalid_vma(self, k: Kernel, vma: Vma) -> flag:
        """invalid_page_referenced_vma(): another memcg's VMAs (mm/rmap.c:815, v4.18).

        Locks: needs the rmap lock of the walk, which keeps the VMA; takes none.
        """
        if self.memcg is None:
            return False
        if not mm_match_cgroup(vma.vm_mm, self.memcg):  # L820
            return True
        return False

    def visit(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Ask in one call what the base class asks in three, unless a subclass answers."""
        if type(self) is not PageReferencedArg:
            return RmapWalkControl.visit(self, k, page, vma, address)
        if self.memcg is not None and self.invalid_vma(k, vma):
            return True
        return page_referenced_one(k, page, vma, address, self)


def page_referenced_one(
    k: Kernel, page: u64, vma: Vma, address: u64, pra: PageReferencedArg
) -> flag:
    """See whether one VMA used the page, and forget that it did (mm/rmap.c:753, v4.18).

    Returns whether to go on: not once the page is found locked in memory, or all mappings have
    been seen.

    Locks: needs the rmap lock of the walk; takes page-table locks, one at a time.
    """
    pvmw: PageVmaMappedWalk = pra.pvmw
    pvmw.start(page, vma, address, 0)
    referenced: i32 = 0
    while page_vma_mapped_walk(k, pvmw):  # L764
        address = pvmw.address
        if vma.vm_flags & VM_LOCKED and not _never_mlocked(k, pvmw):  # L767
            if k.profile.mlock_counts:
                # Whoever mapped it should have counted it, and missed to.
                mlock_vma_page_counted(k, page, vma, not pvmw.pte)
            page_vma_mapped_walk_done(k, pvmw)
            pra.vm_flags |= VM_LOCKED
            return False
        if pvmw.pte:  # L773
            if ptep_clear_flush_young_notify(k, vma, address, pvmw.pte):  # L774
                # Who reads from one end to the other does not come back. If others use the page,
                # their mappings tell.
                if not vma.vm_flags & VM_SEQ_READ:  # L784
                    referenced += 1
        elif pmdp_clear_flush_young_notify(k, vma, address, pvmw.pmd):  # L788
            referenced += 1
        pra.mapcount -= 1
    if referenced:  # L799
        ClearPage(k, page, PG_idle)
    if TestClearPage(k, page, PG_young):  # L801
        # Idle tracking took the accessed bit before we came.
        referenced += 1
    if referenced:  # L804
        pra.referenced += 1
        pra.vm_flags |= vma.vm_flags
    if k.tracer is not None:
        k.tracer("page_referenced_one", (page, vma, address, referenced))
    if not pra.mapcount:  # L809
        return False
    return True


def _never_mlocked(k: Kernel, pvmw: PageVmaMappedWalk) -> flag:
    """Whether an entry maps part of a huge page, by which a VM_LOCKED VMA does not hold it (v5.18).

    Before, such a page was left alone here, though nothing that PTEs map of it is ever mlocked.
    """
    return k.profile.mlock_counts and pvmw.pte != 0 and PageTransCompound(k, pvmw.page)


def page_referenced(
    k: Kernel, page: u64, is_locked: flag, memcg: MemCgroup | None, pra: PageReferencedArg
) -> i32:
    """In how many VMAs the page was used since last asked; that they were is forgotten.

    mm/rmap.c:836 (v4.18). `is_locked` says that the caller holds the page lock, `memcg` on whose
    behalf memory is reclaimed (``None``: everybody's). Afterwards ``pra.vm_flags`` has the flags
    of the VMAs that used it. Returns 1 also where it could not find out. `page` is not a tail.

    Locks: needs none for an anonymous page, and tries the page lock of others; with `is_locked` the
    caller has it. Takes the rmap lock for read, and page-table locks inside of it.

    >>> from rmap.mm.mm_types import Kernel
    >>> from rmap.mm.profile import profile
    >>> page_referenced(Kernel(16, profile("4.18")), 3, False, None, PageReferencedArg())
    0
    """
    we_locked: flag = False
    pra.mapcount = total_mapcount(k, page)
    pra.referenced = 0
    pra.memcg = None
    pra.vm_flags = 0
    if not page_mapped(k, page):  # L853
        return 0
    if not page_rmapping(k, page):  # L856
        return 0
    if not is_locked and (not PageAnon(k, page) or PageKsm(k, page)):  # L859
        we_locked = trylock_page(k, page)
        if not we_locked:  # L861
            return 1
    if memcg is not None:  # L870
        # What others do with the page is not this memcg's concern.
        pra.memcg = memcg
    rmap_walk(k, page, pra)
    if we_locked:  # L877
        unlock_page(k, page)
    return pra.referenced


# ---------------------------------------------------------------- many pages


def page_referenced_range(k: Kernel, pages: Any, memcg: MemCgroup | None = None) -> i64:
    """`page_referenced` of many pages, without the page lock; returns the sum.

    `pages` is a contiguous array of u64 page frame numbers. The loop is compiled and makes no
    object a page, which is what aging a large memory takes.
    """
    numbers: cython.const[cython.ulonglong][::1] = memoryview(pages)
    pra: PageReferencedArg = PageReferencedArg()
    total: i64 = 0
    count: i32
    i: cython.Py_ssize_t
    for i in range(numbers.shape[0]):
        count = -1
        if memcg is None:
            count = _referenced_plainly(k, numbers[i], pra)
        if count < 0:
            count = page_referenced(k, numbers[i], False, memcg, pra)
        total += count
    return total


def _referenced_plainly(k: Kernel, page: u64, pra: PageReferencedArg) -> i32:
    """`page_referenced` of a small anonymous page while nobody looks on; -1 if it is not so plain.

    What the calls above come to where no lock is contended, watched or checked, in one loop of a
    tenth of the instructions; a VMA about which anything is special takes the calls after all. A
    test holds the two against each other.
    """
    if sched.exploring or sched.checking or k.tracer is not None or k.notifier_log is not None:
        return -1
    word: u32 = k.pg_mapping[page]
    unusual: u32 = PG_head | PG_tail | PG_idle | PG_young
    if word & PAGE_MAPPING_FLAGS != PAGE_MAPPING_ANON or k.pg_flags[page] & unusual:
        return -1
    pra.mapcount = k.pg_mapcount[page] + 1
    pra.referenced = 0
    pra.vm_flags = 0
    pra.memcg = None
    if not pra.mapcount:
        return 0
    anon_vma: AnonVma = k.anon_vmas[word >> MAPPING_HANDLE_SHIFT]
    rwsem: RwSem = anon_vma.root.rwsem
    if rwsem.count < 0:
        return -1
    rwsem.count += 1
    index: u64 = k.pg_index[page]
    visited: i64 = 0
    node: IntervalNode = interval_tree_iter_first(anon_vma.rb_root, index, index)
    while node is not None:
        visited += 1
        if not _vma_referenced_plainly(k, page, index, node.vma, pra):
            break
        node = interval_tree_iter_next(node, index, index)
    rwsem.count -= 1
    k.vm_stat[RMAP_WALKS] += 1
    k.vm_stat[RMAP_VMAS_VISITED] += visited
    return pra.referenced


def _vma_referenced_plainly(
    k: Kernel, page: u64, index: u64, vma: Vma, pra: PageReferencedArg
) -> flag:
    """One step of `_referenced_plainly`; whether to go on."""
    address: u64 = vma.vm_start + ((index - vma.vm_pgoff) << PAGE_SHIFT)
    if vma.vm_flags & (VM_LOCKED | VM_SEQ_READ) or vma.vm_mm.notifier is not None:
        return page_referenced_one(k, page, vma, address, pra)
    pmd: u64 = pmd_offset(k, vma.vm_mm, address)
    if not pmd:
        return True
    ptep: u64 = pte_offset(k, pmd, address)
    if not ptep or k.pt_locked[ptl_of(ptep)]:
        return page_referenced_one(k, page, vma, address, pra)
    pte: u64 = k.pt[ptep]
    if not pte_present(pte) or pte_pfn(pte) != page:
        return True
    k.vm_stat[RMAP_VMAS_MAPPED] += 1
    if pte & _PAGE_ACCESSED:
        k.pt[ptep] = pte ^ _PAGE_ACCESSED
        if not k.profile.clear_young_keeps_tlb:
            flush_tlb_page(k, vma, address)
        pra.referenced += 1
        pra.vm_flags |= vma.vm_flags
    pra.mapcount -= 1
    return pra.mapcount != 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Walks of the reverse map: every VMA that may map a page, in the order of its tree.

mm/rmap.c:683-742 and 1731-1880 (v4.18), and the walk of merged pages of mm/ksm.c. Locks, outermost
first: the page lock, which the caller holds for a page of a file and for a merged one; then, unless
the caller says that it holds it, mapping->i_mmap_rwsem or the rwsem of the anon_vma's root, for
read, over the whole walk (of a merged page, over each of its items). What is done with each VMA may
take page-table locks inside.

>>> class Visitor(RmapWalkControl):
...     def rmap_one(self, k, page, vma, address):
...         print(vma, hex(address))
...         return True  # go on
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_lock_read, anon_vma_unlock_read
    from rmap.mm.bits import (
        KSM_FLAG_MASK,
        MAPPING_HANDLE_SHIFT,
        PAGE_NOT_IN_VMA,
        RMAP_VMAS_VISITED,
        RMAP_WALKS,
        ULONG_MAX,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.ksm.stable import RmapItem, StableNode, page_stable_node
    from rmap.mm.mm_types import (
        AddressSpace,
        AnonVma,
        IntervalNode,
        IntervalRoot,
        Kernel,
        Mm,
        Vma,
    )
    from rmap.mm.page import (
        PageAnon,
        PageKsm,
        PageLocked,
        hpage_nr_pages,
        page_anon_vma,
        page_mapping,
        page_mapping_word,
        page_to_pgoff,
    )
    from rmap.mm.pgtable import pmd_offset, pmd_present, pmd_trans_huge, ptep_get
    from rmap.mm.vma import vma_address, vma_page_address
    from rmap.scalar import flag, i32, i64, u64


class RmapWalkControl:
    """struct rmap_walk_control: what a walk does with each VMA. Override what matters."""

    def rmap_one(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """Work on one VMA, in which the page lies at `address` if it is mapped; go on?"""
        return True

    def done(self, k: Kernel, page: u64) -> flag:
        """Whether the walk can end; asked after each VMA."""
        return False

    def anon_lock(self, k: Kernel, page: u64) -> AnonVma | None:
        """Find the page's anon_vma and lock it for read; ``None`` if there is nothing to walk.

        This does not ask whether the page is mapped, as migration walks pages that are not. So
        whoever uses it sees to it that the anon_vma exists: by mmap_sem, or by a reference.
        """
        anon_vma: AnonVma = page_anon_vma(k, page)
        if anon_vma is None:  # L1746
            return None
        anon_vma_lock_read(anon_vma)
        return anon_vma

    def invalid_vma(self, k: Kernel, vma: Vma) -> flag:
        """Whether to pass over a VMA without working on it."""
        return False

    def visit(self, k: Kernel, page: u64, vma: Vma, address: u64) -> flag:
        """What a walk does at each VMA: the three questions above, in the kernel's order; go on?

        A control that is asked very often may answer them in one method.
        """
        if self.invalid_vma(k, vma):  # L1793 L1847
            return True
        if not self.rmap_one(k, page, vma, address):  # L1796 L1850
            return False
        if self.done(k, page):  # L1798 L1852
            return False
        return True


# ---------------------------------------------------------------- addresses


def page_address_in_vma(k: Kernel, page: u64, vma: Vma) -> u64:
    """Where in the VMA the page would be mapped; ``PAGE_NOT_IN_VMA`` if it does not belong there.

    mm/rmap.c:687 (v4.18). Page tables are not looked at. KSM pages belong nowhere.

    Locks: needs that the VMA stays: mmap_sem or an rmap lock; and the page lock, lest the page's
    mapping change.
    """
    if PageAnon(k, page):  # L690
        page__anon_vma: AnonVma = page_anon_vma(k, page)
        # The root, since the page may name any of the family that the VMA is tied to.
        if (  # L696
            vma.anon_vma is None
            or page__anon_vma is None
            or vma.anon_vma.root is not page__anon_vma.root
        ):
            return PAGE_NOT_IN_VMA
    elif page_mapping_word(k, page):  # L699
        handle: u64 = page_mapping_word(k, page) >> MAPPING_HANDLE_SHIFT
        if vma.vm_file is None or vma.vm_file.f_mapping.handle != handle:  # L700
            return PAGE_NOT_IN_VMA
    else:
        return PAGE_NOT_IN_VMA
    address: u64 = vma_page_address(k, page, vma)
    if address < vma.vm_start or address >= vma.vm_end:  # L705
        return PAGE_NOT_IN_VMA
    return address


def mm_find_pmd(k: Kernel, mm: Mm, address: u64) -> u64:
    """The PMD of an address if a table of PTEs hangs below it, else 0 (mm/rmap.c:710, v4.18).

    Locks: needs that the mm's tables stay: mmap_sem or an rmap lock. Only its PMD lock makes what
    is read stable.
    """
    pmd: u64 = pmd_offset(k, mm, address)
    if not pmd:  # L719 L727
        return 0
    # Read once: a huge page's PMD may be emptied and set again without the anon_vma lock, and
    # would pass for a table if it were looked at twice.
    pmde: u64 = ptep_get(k, pmd)
    if not pmd_present(pmde) or pmd_trans_huge(pmde):  # L738
        return 0
    return pmd


# ---------------------------------------------------------------- walks


def rmap_walk_anon_lock(k: Kernel, page: u64, rwc: RmapWalkControl) -> AnonVma:
    """Lock the page's anon_vma as the walk wants it: its own way, or the default.

    mm/rmap.c:1731 (v4.18).

    Locks: takes the root's rwsem for read, which the caller keeps.
    """
    return rwc.anon_lock(k, page)  # L1736


def rmap_walk_anon(k: Kernel, page: u64, rwc: RmapWalkControl, locked: flag) -> i32:
    """Walk the VMAs of an anonymous page (mm/rmap.c:1767, v4.18).

    `locked`: the caller holds the anon_vma's lock. try_to_munlock() comes here with mmap_sem of
    one of the VMAs held for write, so vm_flags of that one are not looked at again; it is not
    VM_LOCKED any more.

    Locks: takes the root's rwsem for read; if `locked`, needs it instead, for read or write.
    """
    anon_vma: AnonVma
    if locked:  # L1774
        anon_vma = page_anon_vma(k, page)
        if anon_vma is None:  # L1777
            BUG_PAGE("rmap.c:1777 rmap_walk_anon: the page names no anon_vma", page)
        anon_vma.root.rwsem.assert_held_any()
    else:
        anon_vma = rmap_walk_anon_lock(k, page, rwc)
    if anon_vma is None:  # L1781
        return 0
    _walk_tree(k, page, rwc, anon_vma.rb_root)
    if not locked:  # L1802
        anon_vma_unlock_read(anon_vma)
    return 0


def rmap_walk_file(k: Kernel, page: u64, rwc: RmapWalkControl, locked: flag) -> i32:
    """Walk the VMAs that map the place of a page in its file (mm/rmap.c:1819, v4.18).

    `locked`: the caller holds i_mmap_rwsem. The page lock keeps truncation from taking the page
    out of the file, and so the address space from going away.

    Locks: needs the page lock; takes i_mmap_rwsem for read, or, if `locked`, needs it.
    """
    mapping: AddressSpace = page_mapping(k, page)
    if k.debug_vm and not PageLocked(k, page):  # L1832
        BUG_PAGE("rmap.c:1832 rmap_walk_file: the page is not locked", page)
    if mapping is None:  # L1834
        return 0
    if not locked:  # L1839
        mapping.i_mmap_rwsem.down_read()
    else:
        mapping.i_mmap_rwsem.assert_held_any()
    _walk_tree(k, page, rwc, mapping.i_mmap)
    if not locked:  # L1857
        mapping.i_mmap_rwsem.up_read()
    return 0


def _walk_tree(k: Kernel, page: u64, rwc: RmapWalkControl, tree: IntervalRoot) -> i32:
    """Work on every VMA of a tree that overlaps the page, in order, until told to stop.

    mm/rmap.c:1784-1800 and 1837-1854: the two walks differ only in their trees.
    """
    pgoff_start: u64 = page_to_pgoff(k, page)
    pgoff_end: u64 = pgoff_start + hpage_nr_pages(k, page) - 1
    visited: i64 = 0
    node: IntervalNode = interval_tree_iter_first(tree, pgoff_start, pgoff_end)
    while node is not None:  # L1786 L1841
        visited += 1
        if not rwc.visit(k, page, node.vma, vma_address(k, page, node.vma)):
            break
        node = interval_tree_iter_next(node, pgoff_start, pgoff_end)
    k.vm_stat[RMAP_VMAS_VISITED] += visited
    return 0


def rmap_walk_ksm(k: Kernel, page: u64, rwc: RmapWalkControl) -> i32:
    """Walk the VMAs of a merged page: where ksmd merged it, then where fork copied it since.

    mm/ksm.c (v4.18). The page lock keeps the node and its items as they are. Each item is one
    address, and is looked for in every VMA that the item's anon_vma has a tie to, at whatever
    offset: first in the VMA of the item's own address space, and when all items have been tried,
    in those of others.
    """
    if not PageKsm(k, page):
        BUG_PAGE("ksm.c rmap_walk_ksm: not a merged page", page)
    if not PageLocked(k, page):
        BUG_PAGE("ksm.c rmap_walk_ksm: the page is not locked", page)
    node: StableNode = page_stable_node(k, page)
    if node is None:
        return 0
    rmap_item: RmapItem
    forks: i32
    more: flag
    for forks in range(2):
        for rmap_item in reversed(node.hlist):
            anon_vma_lock_read(rmap_item.anon_vma)
            more = _walk_item(k, page, rmap_item, forks == 1, rwc)
            anon_vma_unlock_read(rmap_item.anon_vma)
            if not more:
                return 0
    return 0


def _walk_item(
    k: Kernel, page: u64, rmap_item: RmapItem, forks: flag, rwc: RmapWalkControl
) -> flag:
    """Work on the VMAs over an item's address: those of its address space, or those of others."""
    address: u64 = rmap_item.address & ~KSM_FLAG_MASK
    visited: i64 = 0
    more: flag = True
    vma: Vma
    tree: IntervalRoot = rmap_item.anon_vma.rb_root
    node: IntervalNode = interval_tree_iter_first(tree, 0, ULONG_MAX)
    while node is not None and more:
        vma = node.vma
        if vma.vm_start <= address < vma.vm_end and (vma.vm_mm is not rmap_item.mm) == forks:
            visited += 1
            more = rwc.visit(k, page, vma, address)
        node = interval_tree_iter_next(node, 0, ULONG_MAX)
    k.vm_stat[RMAP_VMAS_VISITED] += visited
    return more


def rmap_walk(k: Kernel, page: u64, rwc: RmapWalkControl) -> i32:
    """Work on every VMA that may map the page, taking the lock that protects their tree.

    mm/rmap.c:1861 (v4.18). A page of a file (or of shared memory) is locked by the caller, and so
    is one that KSM merged.

    Locks: needs the page lock, but for an anonymous page that is not merged; takes the rmap lock
    for read. `rmap_one` runs under it and may take page-table locks.
    """
    k.vm_stat[RMAP_WALKS] += 1
    if k.tracer is not None:
        k.tracer("rmap_walk", (page,))
    if PageKsm(k, page):  # L1863
        return rmap_walk_ksm(k, page, rwc)
    if PageAnon(k, page):  # L1865
        return rmap_walk_anon(k, page, rwc, False)
    return rmap_walk_file(k, page, rwc, False)


def rmap_walk_locked(k: Kernel, page: u64, rwc: RmapWalkControl) -> i32:
    """`rmap_walk` for a caller who holds the lock that it would take (mm/rmap.c:1872, v4.18).

    Locks: needs the rmap lock, for read or write, and the page lock of a page of a file.
    """
    k.vm_stat[RMAP_WALKS] += 1
    if k.tracer is not None:
        k.tracer("rmap_walk_locked", (page,))
    if PageKsm(k, page):  # L1875
        BUG_PAGE("rmap.c:1875 rmap_walk_locked: a KSM page", page)
    if PageAnon(k, page):  # L1876
        return rmap_walk_anon(k, page, rwc, True)
    return rmap_walk_file(k, page, rwc, True)

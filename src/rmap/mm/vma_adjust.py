# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Moving the borders of VMAs: __vma_adjust() and the split of a VMA (mm/mmap.c, v4.18).

Locks, outermost first: mm->mmap_sem (the caller's, for write), mapping->i_mmap_rwsem of the file,
the rwsem of the root anon_vma. The ranges of a VMA and of its neighbour change together under both,
so a walk that holds either sees every page in exactly one VMA that is in its tree.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import (
        anon_vma_clone,
        anon_vma_interval_tree_post_update_vma,
        anon_vma_interval_tree_pre_update_vma,
        anon_vma_lock_write,
        anon_vma_merge,
        anon_vma_unlock_write,
        unlink_anon_vmas,
    )
    from rmap.mm.bits import (
        EINVAL,
        ENOMEM,
        HPAGE_PMD_SIZE,
        MAX_MAP_COUNT,
        PAGE_SHIFT,
        PMD_MASK,
        VM_HUGETLB,
    )
    from rmap.mm.bug import BUG, WARN
    from rmap.mm.huge.split_pmd import split_huge_pmd_address
    from rmap.mm.hugetlb.pool import hstate_vma, huge_page_size
    from rmap.mm.hugetlb.reserve import hugetlb_vm_op_open
    from rmap.mm.i_mmap import remove_shared_vm_struct, vma_link_file
    from rmap.mm.interval_tree import interval_tree_insert, interval_tree_remove
    from rmap.mm.mm_types import AddressSpace, AnonVma, File, Kernel, Mm, Vma
    from rmap.mm.vma import (
        find_vma_intersection,
        vm_area_dup,
        vma_is_anonymous,
        vma_link_list,
        vma_unlink_list,
    )
    from rmap.scalar import i32, i64, u64


class VmaPointer:
    """A struct vm_area_struct ** of the kernel: a VMA that the callee replaces."""

    def __init__(self, vma: Vma | None) -> None:
        self.vma = vma


class VmaAdjustment:
    """One __vma_adjust() on its way: the VMA whose range changes, and what happens to the next.

    `adjust_next` is by how many pages the next VMA's start moves. `remove_next` is 0 if it stays,
    1 if `vma` takes it over (cases 1 and 7 of vma_merge), 2 if it takes over the one behind it as
    well (case 6), 3 if the next one takes over the first (case 8); both have changed places then.
    """

    def __init__(self, vma: Vma, start: u64, end: u64, pgoff: u64, insert: Vma | None) -> None:
        self.vma = vma
        self.next = vma.vm_next
        self.insert = insert
        self.file = vma.vm_file
        self.start = start
        self.end = end
        self.pgoff = pgoff
        self.adjust_next = 0
        self.remove_next = 0


# ---------------------------------------------------------------- lists and trees of VMAs


def get_file(file: File) -> i32:
    """Take a reference to a file."""
    file.f_count += 1
    return 0


def vma_link(k: Kernel, mm: Mm, vma: Vma) -> i32:
    """Put a new VMA into the list of its mm and the tree of its file (mm/mmap.c:624)."""
    mapping: AddressSpace = None
    if vma.vm_file is not None:
        mapping = vma.vm_file.f_mapping
        mapping.i_mmap_rwsem.down_write()
    vma_link_list(k, mm, vma)
    vma_link_file(vma)
    if mapping is not None:
        mapping.i_mmap_rwsem.up_write()
    return 0


def insert_vm_struct(k: Kernel, mm: Mm, vma: Vma) -> i32:
    """Put a VMA made by hand into an mm; -ENOMEM if its range is taken (mm/mmap.c:3122).

    Anonymous memory gets the index space of its address, in which nothing was faulted yet.
    """
    mm.mmap_sem.assert_held_write()
    if find_vma_intersection(k, mm, vma.vm_start, vma.vm_end) is not None:
        return -ENOMEM
    if vma_is_anonymous(vma):
        if vma.anon_vma is not None:
            BUG("mmap.c:3145 insert_vm_struct: the VMA has an anon_vma already")
        vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT
    return vma_link(k, mm, vma)


# ---------------------------------------------------------------- huge pages at the new borders


def _split_huge_pmd_at(k: Kernel, vma: Vma, address: u64) -> i32:
    """Split the PMD that a new border would cut, which no VMA has a part of."""
    base: u64 = address & PMD_MASK
    if address == base or base < vma.vm_start or base + HPAGE_PMD_SIZE > vma.vm_end:
        return 0
    return split_huge_pmd_address(k, vma, address, False, 0)


def vma_adjust_trans_huge(k: Kernel, vma: Vma, start: u64, end: u64, adjust_next: i64) -> i32:
    """See to it that no border of a VMA will lie inside a PMD that maps a huge page.

    mm/huge_memory.c:2412 (v4.18). Before the borders move, and before any rmap lock is taken.
    """
    _split_huge_pmd_at(k, vma, start)
    _split_huge_pmd_at(k, vma, end)
    if adjust_next > 0:
        _split_huge_pmd_at(k, vma.vm_next, vma.vm_next.vm_start + (adjust_next << PAGE_SHIFT))
    return 0


# ---------------------------------------------------------------- __vma_adjust


def vma_adjust(k: Kernel, vma: Vma, start: u64, end: u64, pgoff: u64, insert: Vma | None) -> i32:
    """Change the range of a VMA that takes over no other one (include/linux/mm.h:2309)."""
    return vma_adjust_expand(k, vma, start, end, pgoff, insert, None)


def vma_adjust_expand(
    k: Kernel,
    vma: Vma,
    start: u64,
    end: u64,
    pgoff: u64,
    insert: Vma | None,
    expand: Vma | None,
) -> i32:
    """Give a VMA another range, at the cost of its neighbours: __vma_adjust() (mm/mmap.c:689).

    Parameters
    ----------
    insert
        A new VMA for the part that `vma` loses, put in place at the same moment.
    expand
        Of `vma` and the next one, which grows into the other; that decides which one survives.

    Returns 0 or -ENOMEM, nothing changed. mmap_sem is held for write.
    """
    vma.vm_mm.mmap_sem.assert_held_write()
    a: VmaAdjustment = VmaAdjustment(vma, start, end, pgoff, insert)
    if a.next is not None and insert is None:
        error: i32 = _plan(k, a, expand)
        if error:
            return error
    while True:
        vma_adjust_trans_huge(k, vma, a.start, a.end, a.adjust_next)
        _change_ranges(k, a)
        if not a.remove_next:
            return 0
        _free_removed(k, a)
        if a.remove_next != 2:
            return 0
        # Case 6: the same again with the one behind.
        a.next = a.vma.vm_next
        a.remove_next = 1
        a.end = a.next.vm_end


def _plan(k: Kernel, a: VmaAdjustment, expand: Vma | None) -> i32:
    """Decide what happens to the next VMA, and let who grows have the other's anon_vmas."""
    vma: Vma = a.vma
    next: Vma = a.next
    exporter: Vma = None
    importer: Vma = None
    if a.end >= next.vm_end:
        if next is expand:
            if a.end != next.vm_end or a.file is not next.vm_file:
                WARN(k.warnings, "mmap.c:706 __vma_adjust: not all of the VMA is taken over")
            a.remove_next = 3
            a.vma = next
            a.next = vma
        else:
            if expand is not vma:
                WARN(k.warnings, "mmap.c:721 __vma_adjust: a VMA grows that was not to")
            a.remove_next = 1 if a.end == next.vm_end else 2
            if a.remove_next == 2 and a.end != next.vm_next.vm_end:
                WARN(k.warnings, "mmap.c:728 __vma_adjust: the third VMA is cut")
            # To the end of the next one first, also in case 6.
            a.end = next.vm_end
        exporter = a.next
        importer = a.vma
        if a.remove_next == 2 and next.anon_vma is None:
            # The VMA between has none to give, but the one behind may.
            exporter = next.vm_next
    elif a.end > next.vm_start:
        # Case 5: the next VMA loses its beginning.
        a.adjust_next = (a.end - next.vm_start) >> PAGE_SHIFT
        exporter = next
        importer = vma
    elif a.end < vma.vm_end:
        # Case 4: the next VMA gains the end of this one.
        lost: i64 = (vma.vm_end - a.end) >> PAGE_SHIFT
        a.adjust_next = -lost
        exporter = vma
        importer = next
    if a.adjust_next and expand is not importer:
        WARN(k.warnings, "mmap.c:757 __vma_adjust: a VMA grows that was not to")
    return _import_anon_vmas(k, exporter, importer)


def _import_anon_vmas(k: Kernel, exporter: Vma | None, importer: Vma) -> i32:
    """Tie a VMA that is about to get another's faulted pages to the latter's anon_vmas.

    Returns 0 or -ENOMEM. It comes before any range changes, so that no page is ever in a VMA that
    its anon_vma does not reach.
    """
    if exporter is None or exporter.anon_vma is None or importer.anon_vma is not None:
        return 0
    importer.anon_vma = exporter.anon_vma
    return anon_vma_clone(k, importer, exporter)


def _change_ranges(k: Kernel, a: VmaAdjustment) -> i32:
    """Change the ranges, under the locks of both reverse maps."""
    vma: Vma = a.vma
    next: Vma = a.next
    mapping: AddressSpace = None
    if a.file is not None:
        mapping = a.file.f_mapping
        mapping.i_mmap_rwsem.down_write()
        if a.insert is not None:
            # Before the ranges change: meanwhile two VMAs have its pages, but never none.
            vma_link_file(a.insert)
    anon_vma: AnonVma = vma.anon_vma
    if anon_vma is None and a.adjust_next:
        anon_vma = next.anon_vma
    if anon_vma is not None:
        if a.adjust_next and next.anon_vma is not None and next.anon_vma is not anon_vma:
            WARN(k.warnings, "mmap.c:796 __vma_adjust: the next VMA has another anon_vma")
        anon_vma_lock_write(anon_vma)
        anon_vma_interval_tree_pre_update_vma(k, vma)
        if a.adjust_next:
            anon_vma_interval_tree_pre_update_vma(k, next)
    if mapping is not None:
        interval_tree_remove(vma.shared, mapping.i_mmap)
        if a.adjust_next:
            interval_tree_remove(next.shared, mapping.i_mmap)

    _set_ranges(a)

    if mapping is not None:
        if a.adjust_next:
            interval_tree_insert(next.shared, mapping.i_mmap)
        interval_tree_insert(vma.shared, mapping.i_mmap)
    if a.remove_next:
        # Before the locks are dropped, or a walk would find its pages in two VMAs.
        vma_unlink_list(k, vma.vm_mm, next)
        if mapping is not None:
            remove_shared_vm_struct(next, mapping)
    elif a.insert is not None:
        vma_link_list(k, vma.vm_mm, a.insert)
    if anon_vma is not None:
        anon_vma_interval_tree_post_update_vma(k, vma)
        if a.adjust_next:
            anon_vma_interval_tree_post_update_vma(k, next)
        anon_vma_unlock_write(anon_vma)
    if mapping is not None:
        mapping.i_mmap_rwsem.up_write()
    return 0


def _set_ranges(a: VmaAdjustment) -> i32:
    """Store the new ranges."""
    pages: u64
    a.vma.vm_start = a.start
    a.vma.vm_end = a.end
    a.vma.vm_pgoff = a.pgoff
    if a.adjust_next > 0:
        pages = a.adjust_next
        a.next.vm_start += pages << PAGE_SHIFT
        a.next.vm_pgoff += pages
    elif a.adjust_next < 0:
        pages = -a.adjust_next
        a.next.vm_start -= pages << PAGE_SHIFT
        a.next.vm_pgoff -= pages
    return 0


def _free_removed(k: Kernel, a: VmaAdjustment) -> i32:
    """Untie and free the VMA that was taken over, once no lock is held."""
    if a.file is not None:
        # The survivor has a reference of its own, so this is never the last one.
        a.file.f_count -= 1
    if a.next.anon_vma is not None:
        anon_vma_merge(k, a.vma, a.next)
    return 0


# ---------------------------------------------------------------- split


def split_vma_at(k: Kernel, mm: Mm, vma: Vma, address: u64, new_below: i32) -> i32:
    """Cut a VMA in two at an address inside it: __split_vma() (mm/mmap.c:2640).

    With `new_below` the new VMA is the lower part, so that `vma` goes on as the upper one. Does
    not look at the limit of VMAs. Returns 0, or -ENOMEM or -EINVAL, undone. The new VMA has the
    chain of the old one before the border moves, so that its pages are never out of reach.
    """
    if vma.vm_flags & VM_HUGETLB and address & (huge_page_size(hstate_vma(vma)) - 1):
        # hugetlb_vm_op_split(): not through a huge page.
        return -EINVAL
    new: Vma = vm_area_dup(k, vma)
    if new is None:
        return -ENOMEM
    if new_below:
        new.vm_end = address
    else:
        new.vm_start = address
        new.vm_pgoff += (address - vma.vm_start) >> PAGE_SHIFT
    error: i32 = anon_vma_clone(k, new, vma)
    if error:
        return error if k.profile.failed_clone_fails_split else 0
    if new.vm_file is not None:
        get_file(new.vm_file)
    if new.vm_flags & VM_HUGETLB:
        hugetlb_vm_op_open(new)
    if new_below:
        pgoff: u64 = vma.vm_pgoff + ((address - new.vm_start) >> PAGE_SHIFT)
        error = vma_adjust(k, vma, address, vma.vm_end, pgoff, new)
    else:
        error = vma_adjust(k, vma, vma.vm_start, address, vma.vm_pgoff, new)
    if error:
        if new.vm_file is not None:
            new.vm_file.f_count -= 1
        unlink_anon_vmas(k, new)
        return error
    if k.tracer is not None:
        k.tracer("split_vma", (vma, new, address))
    return 0


def split_vma(k: Kernel, mm: Mm, vma: Vma, address: u64, new_below: i32) -> i32:
    """Cut a VMA in two, unless the mm has as many as it may (mm/mmap.c:2698)."""
    if mm.map_count >= MAX_MAP_COUNT:
        return -ENOMEM
    return split_vma_at(k, mm, vma, address, new_below)

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Which VMAs become one: vma_merge() with its eight cases, and the copy that mremap moves to.

mm/mmap.c (v4.18). Locks: mm->mmap_sem for write (the caller's); then those of `vma_adjust`.

Of a range ``[addr, end)`` that is new or about to change (``=``), with `prev` before it and the
VMAs around it, what grows and what goes::

    case 1   PPPP====NNNN    P takes the hole and N       case 5   PPPP====NN      N loses its front
    case 2   PPPP====        P takes the hole             case 6   PPPP====NNNN    P takes both
    case 3       ====NNNN    N takes the hole             case 7   PPPP====XXXX    P takes one VMA
    case 4   PP====NNNN      N takes the end of P         case 8   XXXX====NNNN    N takes one VMA
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_clone
    from rmap.mm.bits import PAGE_SHIFT, VM_SPECIAL
    from rmap.mm.bug import BUG, WARN
    from rmap.mm.huge.mm_slot import khugepaged_enter_vma_merge
    from rmap.mm.mm_types import AnonVma, File, Kernel, Mm, Vma
    from rmap.mm.vma import (
        can_vma_merge_after,
        can_vma_merge_before,
        find_vma_intersection,
        find_vma_prev,
        is_mergeable_anon_vma,
        vm_area_dup,
        vma_is_anonymous,
    )
    from rmap.mm.vma_adjust import get_file, vma_adjust_expand, vma_link
    from rmap.scalar import flag, u64


class VmaCopy:
    """What copy_vma() works on: the VMA that is moved, which it may replace, and its answer.

    `need_rmap_locks` says that a walk may meet the new VMA before the old one, so that it could
    miss a page that is on its way unless the locks of rmap keep it out. `keep_apart` asks for a
    copy that is not merged with its source.
    """

    def __init__(self, vma: Vma) -> None:
        self.vma = vma
        self.need_rmap_locks = False
        self.keep_apart = False


# ---------------------------------------------------------------- merge


def vma_merge(
    k: Kernel,
    mm: Mm,
    prev: Vma | None,
    addr: u64,
    end: u64,
    vm_flags: u64,
    anon_vma: AnonVma | None,
    file: File | None,
    pgoff: u64,
    ctx: object,
) -> Vma | None:
    """Let a range be part of its neighbours, if they are alike (mm/mmap.c:1127, v4.18).

    The range is a hole, or (part of) the VMA behind `prev` or of `prev` itself, which is about to
    get `vm_flags`. Returns the VMA that it is in now, ``None`` if it is as it was, be it that
    there was no memory.
    """
    next: Vma = mm.mmap if prev is None else prev.vm_next
    area: Vma = next
    pages: u64 = (end - addr) >> PAGE_SHIFT
    merged: Vma
    # Such a mapping knows itself where its pages come from.
    if vm_flags & VM_SPECIAL:
        return None
    if area is not None and area.vm_end == end:
        # Cases 6, 7, 8: the VMA itself is the range.
        next = area.vm_next
    if k.debug_vm and not _range_is_sane(prev, area, addr, end):
        WARN(k.warnings, "mmap.c:1152 vma_merge: the range is not where it should be")

    before: flag = False
    after: flag = False
    if prev is not None and prev.vm_end == addr:
        before = can_vma_merge_after(k, prev, vm_flags, anon_vma, file, pgoff, ctx)
    if next is not None and end == next.vm_start:
        after = can_vma_merge_before(k, next, vm_flags, anon_vma, file, pgoff + pages, ctx)

    if before and after and is_mergeable_anon_vma(prev.anon_vma, next.anon_vma, None):
        # Cases 1, 6.
        merged = _grow(k, prev, prev.vm_start, next.vm_end, prev.vm_pgoff, prev, vm_flags)
    elif before:
        # Cases 2, 5, 7.
        merged = _grow(k, prev, prev.vm_start, end, prev.vm_pgoff, prev, vm_flags)
    elif not after:
        return None
    elif prev is not None and addr < prev.vm_end:
        # Case 4.
        merged = _grow(k, prev, prev.vm_start, addr, prev.vm_pgoff, next, vm_flags)
    else:
        # Cases 3, 8.
        merged = _grow(k, area, addr, next.vm_end, next.vm_pgoff - pages, next, vm_flags)
    if k.tracer is not None and merged is not None:
        k.tracer("vma_merge", (merged, addr, end))
    return merged


def _range_is_sane(prev: Vma | None, area: Vma | None, addr: u64, end: u64) -> flag:
    """Whether the caller named the VMA before the range, and a range of one VMA."""
    if prev is not None and addr <= prev.vm_start:
        return False
    return addr < end and (area is None or end <= area.vm_end)


def _grow(
    k: Kernel, vma: Vma, start: u64, end: u64, pgoff: u64, result: Vma, vm_flags: u64
) -> Vma | None:
    """Adjust the ranges; returns the VMA that has it all, ``None`` without memory.

    What has grown may have room for huge pages. If there is no memory for that to be noted, then
    it is not.
    """
    if vma_adjust_expand(k, vma, start, end, pgoff, None, result):
        return None
    khugepaged_enter_vma_merge(k, result, vm_flags)
    return result


def vma_merge_new_range(
    k: Kernel,
    mm: Mm,
    prev: Vma | None,
    addr: u64,
    end: u64,
    vm_flags: u64,
    file: File | None,
    pgoff: u64,
    ctx: object,
) -> Vma | None:
    """Let a new mapping, which fills a hole, be part of its neighbours.

    v4.18 asks `vma_merge`. With `mmap_fill_asks_next_first` the next VMA is asked first, and the
    previous one only whether it goes together with that (mmap_region() of v6.1).
    """
    if not k.profile.mmap_fill_asks_next_first:
        return vma_merge(k, mm, prev, addr, end, vm_flags, None, file, pgoff, ctx)
    next: Vma = mm.mmap if prev is None else prev.vm_next
    pages: u64 = (end - addr) >> PAGE_SHIFT
    taker: Vma = None
    taken: AnonVma = None
    if vm_flags & VM_SPECIAL:
        return None
    if (
        next is not None
        and next.vm_start == end
        and can_vma_merge_before(k, next, vm_flags, None, file, pgoff + pages, ctx)
    ):
        taker = next
        taken = next.anon_vma
    if (
        prev is not None
        and prev.vm_end == addr
        and can_vma_merge_after(k, prev, vm_flags, taken, file, pgoff, ctx)
    ):
        end = end if taker is None else next.vm_end
        return _grow(k, prev, prev.vm_start, end, prev.vm_pgoff, prev, vm_flags)
    if taker is None:
        return None
    return _grow(k, next, addr, next.vm_end, next.vm_pgoff - pages, next, vm_flags)


# ---------------------------------------------------------------- the copy for mremap


def copy_vma(k: Kernel, copy: VmaCopy, addr: u64, length: u64, pgoff: u64) -> Vma | None:
    """Make the VMA that mremap moves pages to (mm/mmap.c:3185, v4.18); ``None`` without memory.

    It has the anon_vmas of the source, and the same page offsets unless nothing was faulted yet:
    then the offset follows the address, for a better chance to merge.
    """
    vma: Vma = copy.vma
    mm: Mm = vma.vm_mm
    start: u64 = vma.vm_start
    faulted_in: flag = True
    new: Vma
    if vma_is_anonymous(vma) and vma.anon_vma is None:
        pgoff = addr >> PAGE_SHIFT
        faulted_in = False
    if find_vma_intersection(k, mm, addr, addr + length) is not None:
        return None
    prev: Vma = find_vma_prev(k, mm, addr)
    new = _merge_copy(k, copy, prev, addr, addr + length, pgoff)
    if new is None:
        copy.need_rmap_locks = False
        return _link_copy(k, vma, addr, length, pgoff)
    if new.vm_start <= start < new.vm_end:
        # The source itself has become part of it, which only unfaulted memory can.
        if faulted_in:
            BUG("mmap.c:3230 copy_vma: a faulted VMA merges with its own copy")
        copy.vma = new
    copy.need_rmap_locks = new.vm_pgoff <= copy.vma.vm_pgoff
    return new


def _merge_copy(
    k: Kernel, copy: VmaCopy, prev: Vma | None, addr: u64, end: u64, pgoff: u64
) -> Vma | None:
    """Let the copy be part of the VMAs that are beside its place already."""
    vma: Vma = copy.vma
    # Beside its source a copy is merged with nothing, not even with what is on its other side.
    if copy.keep_apart and (addr == vma.vm_end or end == vma.vm_start):
        return None
    return vma_merge(
        k,
        vma.vm_mm,
        prev,
        addr,
        end,
        vma.vm_flags,
        vma.anon_vma,
        vma.vm_file,
        pgoff,
        vma.vm_userfaultfd_ctx,
    )


def _link_copy(k: Kernel, vma: Vma, addr: u64, length: u64, pgoff: u64) -> Vma | None:
    """Duplicate the VMA at another address, in the trees behind the source; or no memory."""
    new: Vma = vm_area_dup(k, vma)
    if new is None:
        return None
    new.vm_start = addr
    new.vm_end = addr + length
    new.vm_pgoff = pgoff
    if anon_vma_clone(k, new, vma):
        return None
    if new.vm_file is not None:
        get_file(new.vm_file)
    vma_link(k, vma.vm_mm, new)
    return new

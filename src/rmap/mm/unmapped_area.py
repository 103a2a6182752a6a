# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Where to map what nobody gave an address: get_unmapped_area() and its like (mm/mmap.c, v4.18).

No locks are taken; mmap_sem is held by the caller.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EINVAL,
        ENOMEM,
        HPAGE_PMD_SIZE,
        MAP_FIXED,
        MAP_SHARED,
        MMAP_BASE,
        PAGE_MASK,
        PAGE_SIZE,
        PMD_MASK,
        STACK_GUARD_GAP,
        TASK_SIZE,
        ULONG_MAX,
        VM_GROWSDOWN,
    )
    from rmap.mm.huge.shmem_huge import mount_huge, shmem_area_offset
    from rmap.mm.hugetlb.pool import huge_page_size
    from rmap.mm.mm_types import File, Kernel, Mm, Vma
    from rmap.mm.vma import find_vma, vma_slot
    from rmap.scalar import i32, i64, u64


def vm_start_gap(vma: Vma) -> u64:
    """The lowest address that belongs to a VMA, with the gap that a stack keeps below itself."""
    if not vma.vm_flags & VM_GROWSDOWN:
        return vma.vm_start
    return vma.vm_start - STACK_GUARD_GAP if vma.vm_start > STACK_GUARD_GAP else 0


def get_unmapped_area(k: Kernel, mm: Mm, addr: u64, length: u64, flags: u64) -> i64:
    """Choose the address of a mapping; a negative errno if there is no room (mm/mmap.c:2031).

    The address that is asked for, if it is MAP_FIXED or free; otherwise below everything that was
    mapped so, and if there is no room, from below (arch/x86/kernel/sys_x86_64.c).
    """
    vma: Vma
    if length > TASK_SIZE:
        return -ENOMEM
    if flags & MAP_FIXED:
        if addr > TASK_SIZE - length:
            return -ENOMEM
        if addr & (PAGE_SIZE - 1):
            return -EINVAL
        return addr
    addr &= PAGE_MASK
    if addr and addr <= TASK_SIZE - length:
        vma = find_vma(k, mm, addr)
        if vma is None or addr + length <= vm_start_gap(vma):
            return addr
    return _find_unmapped(mm, length, 0)


def hugetlb_get_unmapped_area(
    k: Kernel, mm: Mm, file: File, addr: u64, length: u64, flags: u64
) -> i64:
    """The same for a file of huge pages, whose mappings are aligned to these.

    arch/x86/mm/hugetlbpage.c (v4.18).
    """
    size: u64 = huge_page_size(file.f_mapping.hstate)
    vma: Vma
    if length & (size - 1):
        return -EINVAL
    if length > TASK_SIZE:
        return -ENOMEM
    if flags & MAP_FIXED:
        return get_unmapped_area(k, mm, addr, length, flags) if not addr & (size - 1) else -EINVAL
    addr = (addr + size - 1) & ~(size - 1)
    if addr and addr <= TASK_SIZE - length:
        vma = find_vma(k, mm, addr)
        if vma is None or addr + length <= vm_start_gap(vma):
            return addr
    return _find_unmapped(mm, length, size - 1)


def _find_unmapped(mm: Mm, length: u64, mask: u64) -> i64:
    """A place that nobody asked for, at an address without the bits of `mask`."""
    found: i64 = _unmapped_area_topdown(mm, length, PAGE_SIZE, MMAP_BASE, mask)
    if found < 0:
        found = _unmapped_area(mm, length, TASK_SIZE // 3 & PAGE_MASK, TASK_SIZE, mask)
    return found


def get_file_area(
    k: Kernel, mm: Mm, addr: u64, length: u64, pgoff: u64, flags: u64, file: File | None
) -> i64:
    """The same for whatever is mapped: shared memory is shifted so that PMDs can map it.

    get_unmapped_area() with shmem_get_unmapped_area() (mm/shmem.c, v4.18). `file` is ``None`` for
    anonymous memory, be it shared.
    """
    found: i64 = get_unmapped_area(k, mm, addr, length, flags)
    huge: i32 = k.shmem_enabled
    if found < 0 or addr or flags & MAP_FIXED:
        return found
    if file is not None:
        if not file.f_mapping.shmem:
            return found
        huge = mount_huge(k, file.f_mapping)
    elif not flags & MAP_SHARED:
        return found
    place: u64 = found
    offset: u64 = shmem_area_offset(k, huge, length, pgoff)
    if offset == ULONG_MAX or place & ~PMD_MASK == offset:
        return found
    inflated: i64 = get_unmapped_area(k, mm, 0, length + HPAGE_PMD_SIZE - PAGE_SIZE, flags)
    if inflated < 0:
        return found
    place = inflated
    if place & ~PMD_MASK > offset:
        place += HPAGE_PMD_SIZE
    place = (place & PMD_MASK) + offset
    return found if place > TASK_SIZE - length else place


def _unmapped_area_topdown(mm: Mm, length: u64, low: u64, high: u64, mask: u64) -> i64:
    """The highest place in ``[low, high)`` for so many bytes, without bits of `mask`.

    The hole must do for any start, so that it is as large as the worst one needs.
    """
    needed: u64 = length + mask
    above: i64 = vma_slot(mm, high)
    top: u64 = high
    slot: i64
    vma: Vma
    if above < len(mm.vmas):
        vma = mm.vmas[above]
        if vm_start_gap(vma) < top:
            top = vm_start_gap(vma)
    for slot in range(above - 1, -1, -1):
        vma = mm.vmas[slot]
        if top >= low + needed and top - needed >= vma.vm_end:
            return (top - length) & ~mask
        if vm_start_gap(vma) < top:
            top = vm_start_gap(vma)
    if top < low + needed:
        return -ENOMEM
    return (top - length) & ~mask


def _unmapped_area(mm: Mm, length: u64, low: u64, high: u64, mask: u64) -> i64:
    """The lowest place in ``[low, high)`` for so many bytes, without bits of `mask`."""
    needed: u64 = length + mask
    bottom: u64 = low
    slot: i64
    vma: Vma
    for slot in range(vma_slot(mm, low), len(mm.vmas)):
        vma = mm.vmas[slot]
        if bottom + needed <= vm_start_gap(vma) and bottom + needed <= high:
            return (bottom + mask) & ~mask
        if vma.vm_end > bottom:
            bottom = vma.vm_end
    if bottom + needed > high:
        return -ENOMEM
    return (bottom + mask) & ~mask

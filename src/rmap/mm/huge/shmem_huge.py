# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Which files of shared memory are made of huge pages, and where (mm/shmem.c, v4.18).

A file is on a mount, which has an option huge= (`AddressSpace.huge`): that says for which of its
places a huge page is allocated. Shared anonymous memory is on the kernel's own mount, whose option
is the setting shmem_enabled; the values "deny" and "force" of that hold for every mount. Nothing is
locked here.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        GFP_HIGHUSER,
        HPAGE_PMD_NR,
        HPAGE_PMD_SIZE,
        PAGE_SHIFT,
        SGP_HUGE,
        SGP_NOHUGE,
        SHMEM_HUGE_ALWAYS,
        SHMEM_HUGE_DENY,
        SHMEM_HUGE_FORCE,
        SHMEM_HUGE_NEVER,
        SHMEM_HUGE_WITHIN_SIZE,
        ULONG_MAX,
        VM_HUGEPAGE,
        PG_swapbacked,
    )
    from rmap.mm.huge.mm_slot import hugepage_end, hugepage_start, khugepaged_enter
    from rmap.mm.huge.pgtable import alloc_transhuge_page
    from rmap.mm.mm_types import AddressSpace, Kernel, Vma
    from rmap.mm.page import SetPage, trylock_page
    from rmap.mm.page_cache import page_cache_has_any
    from rmap.scalar import flag, i32, u64


def mount_huge(k: Kernel, mapping: AddressSpace) -> i32:
    """The option huge= of the mount that a file is on, one of ``SHMEM_HUGE_``."""
    if mapping.host.anonymous:
        return k.shmem_enabled
    return mapping.huge


def _within_size(mapping: AddressSpace, index: u64) -> flag:
    """Whether the file reaches to the next border of 2 MiB at or behind an index."""
    border: u64 = (index + HPAGE_PMD_NR - 1) // HPAGE_PMD_NR * HPAGE_PMD_NR
    return mapping.size_pages >= HPAGE_PMD_NR and mapping.size_pages >= border


def shmem_wants_huge(k: Kernel, mapping: AddressSpace, index: u64, sgp_huge: i32) -> flag:
    """Whether a hole is to be filled with a huge page, if there is one.

    `sgp_huge` is SGP_HUGE or SGP_NOHUGE where a VMA says so (the choice in shmem_getpage_gfp()).
    """
    if not mapping.shmem or k.shmem_enabled == SHMEM_HUGE_DENY or sgp_huge == SGP_NOHUGE:
        return False
    huge: i32 = mount_huge(k, mapping)
    if k.shmem_enabled == SHMEM_HUGE_FORCE or huge == SHMEM_HUGE_ALWAYS:
        return True
    if huge == SHMEM_HUGE_NEVER:
        return False
    if huge == SHMEM_HUGE_WITHIN_SIZE and _within_size(mapping, index):
        return True
    return sgp_huge == SGP_HUGE


def shmem_huge_enabled(k: Kernel, vma: Vma) -> flag:
    """Whether khugepaged may collapse what a VMA maps of shared memory."""
    mapping: AddressSpace = vma.vm_file.f_mapping
    if k.shmem_enabled == SHMEM_HUGE_FORCE:
        return True
    if k.shmem_enabled == SHMEM_HUGE_DENY:
        return False
    huge: i32 = mount_huge(k, mapping)
    if huge == SHMEM_HUGE_NEVER:
        return False
    if huge == SHMEM_HUGE_ALWAYS:
        return True
    if huge == SHMEM_HUGE_WITHIN_SIZE and _within_size(mapping, vma.vm_pgoff):
        return True
    return vma.vm_flags & VM_HUGEPAGE != 0


def shmem_alloc_hugepage(k: Kernel, mapping: AddressSpace, index: u64) -> u64:
    """Allocate a huge page for the aligned places around an index, locked; 0 if it cannot be had.

    Nothing may be in the cache there yet, be it only in swap.
    """
    if page_cache_has_any(mapping, index // HPAGE_PMD_NR * HPAGE_PMD_NR):
        return 0
    page: u64 = alloc_transhuge_page(k, GFP_HIGHUSER)
    if not page:
        return 0
    trylock_page(k, page)
    SetPage(k, page, PG_swapbacked)
    return page


def shmem_area_offset(k: Kernel, huge: i32, length: u64, pgoff: u64) -> u64:
    """Where in 2 MiB a mapping of shared memory had better begin, so that PMDs can map it.

    `huge` is the option of the mount. Returns ``ULONG_MAX`` if it does not matter: the conditions
    of shmem_get_unmapped_area().
    """
    if k.shmem_enabled == SHMEM_HUGE_DENY or length < HPAGE_PMD_SIZE:
        return ULONG_MAX
    if k.shmem_enabled != SHMEM_HUGE_FORCE and huge == SHMEM_HUGE_NEVER:
        return ULONG_MAX
    offset: u64 = pgoff % HPAGE_PMD_NR << PAGE_SHIFT
    if offset and offset + length < 2 * HPAGE_PMD_SIZE:
        return ULONG_MAX
    return offset


def khugepaged_enter_file(k: Kernel, vma: Vma) -> i32:
    """Let khugepaged look at a new mapping of shared memory that has room for a huge page.

    shmem_mmap(). That there was no memory to note it is not told.
    """
    if vma.vm_file is not None and vma.vm_file.f_mapping.shmem:
        if hugepage_start(vma) < hugepage_end(vma):
            khugepaged_enter(k, vma, vma.vm_flags)
    return 0

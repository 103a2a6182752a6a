# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""mmap, munmap, brk, and the end of an address space (mm/mmap.c, v4.18).

`vm_mmap_pgoff`, `vm_munmap` and `sys_brk` are what a system call does: they take mm->mmap_sem for
write, give it back, and then fault in what was asked for. `do_mmap`, `do_munmap` and `do_brk_flags`
want it held for write. Inside it: mapping->i_mmap_rwsem, the root's anon_vma->rwsem, page-table
locks (`vma_adjust`, `zap`). `exit_mmap` needs no lock: nobody else knows the mm any more.

Memory that is promised (VM_ACCOUNT) is marked as such but never refused: overcommit is on.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EEXIST,
        EINVAL,
        ENOMEM,
        EOVERFLOW,
        EPERM,
        MAP_FIXED,
        MAP_FIXED_NOREPLACE,
        MAP_GROWSDOWN,
        MAP_HUGE_MASK,
        MAP_HUGE_SHIFT,
        MAP_HUGETLB,
        MAP_LOCKED,
        MAP_NONBLOCK,
        MAP_NORESERVE,
        MAP_POPULATE,
        MAP_PRIVATE,
        MAP_SHARED,
        MAP_TYPE,
        MAX_MAP_COUNT,
        MMAP_MIN_ADDR,
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_SHIFT,
        PROT_EXEC,
        PROT_READ,
        PROT_WRITE,
        PUD_SHIFT,
        TASK_SIZE,
        ULONG_MAX,
        VM_ACCOUNT,
        VM_DATA_DEFAULT_FLAGS,
        VM_EXEC,
        VM_GROWSDOWN,
        VM_HUGETLB,
        VM_LOCKED,
        VM_LOCKED_MASK,
        VM_MAYEXEC,
        VM_MAYREAD,
        VM_MAYSHARE,
        VM_MAYWRITE,
        VM_NORESERVE,
        VM_READ,
        VM_SHARED,
        VM_SOFTDIRTY,
        VM_SPECIAL,
        VM_WRITE,
    )
    from rmap.mm.filemap import make_file
    from rmap.mm.gup import mm_populate
    from rmap.mm.huge.shmem_huge import khugepaged_enter_file
    from rmap.mm.hugetlb.file import (
        hugetlb_align,
        hugetlb_file_setup,
        hugetlbfs_evict_inode,
        hugetlbfs_file_mmap,
        is_file_hugepages,
    )
    from rmap.mm.hugetlb.pool import size_to_hstate
    from rmap.mm.hugetlb.reserve import hugetlb_vm_op_close
    from rmap.mm.mlock import munlock_vma_pages_all
    from rmap.mm.mm_types import File, Hstate, Kernel, Mm, Vma
    from rmap.mm.mmu_gather import MmuGather, tlb_finish_mmu, tlb_gather_mmu
    from rmap.mm.truncate import truncate_inode_pages
    from rmap.mm.unmapped_area import (
        get_file_area,
        get_unmapped_area,
        hugetlb_get_unmapped_area,
        vm_start_gap,
    )
    from rmap.mm.vma import (
        find_vma,
        find_vma_intersection,
        find_vma_prev,
        update_hiwater_rss,
        vm_area_alloc,
        vma_pages,
        vma_set_page_prot,
        vma_slot,
    )
    from rmap.mm.vma_adjust import get_file, split_vma_at, vma_link
    from rmap.mm.vma_merge import vma_merge_new_range
    from rmap.mm.zap import free_pgtables, unmap_vmas
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- mmap


def page_align(length: u64) -> u64:
    """Round up to whole pages: PAGE_ALIGN(). 0 for what does not fit into 64 bits."""
    if length > ULONG_MAX - (PAGE_SIZE - 1):
        return 0
    return (length + (PAGE_SIZE - 1)) & PAGE_MASK


def calc_vm_prot_bits(prot: u64) -> u64:
    """The ``VM_`` flags of a protection (include/linux/mman.h)."""
    vm_flags: u64 = 0
    if prot & PROT_READ:
        vm_flags |= VM_READ
    if prot & PROT_WRITE:
        vm_flags |= VM_WRITE
    if prot & PROT_EXEC:
        vm_flags |= VM_EXEC
    return vm_flags


def calc_vm_flag_bits(flags: u64) -> u64:
    """The ``VM_`` flags of the flags of mmap()."""
    vm_flags: u64 = 0
    if flags & MAP_GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    if flags & MAP_LOCKED:
        vm_flags |= VM_LOCKED
    return vm_flags


def vm_mmap_pgoff(
    k: Kernel, mm: Mm, addr: u64, length: u64, prot: u64, flags: u64, file: File | None, pgoff: u64
) -> i64:
    """The system call mmap() (mm/util.c:346, v4.18). Returns the address, or a negative errno.

    Parameters
    ----------
    addr, length
        In bytes; the address is a wish unless `flags` has MAP_FIXED.
    pgoff
        Where in the file, in pages.

    MAP_HUGETLB asks for huge pages, of the size that `flags` has at MAP_HUGE_SHIFT.
    """
    made: File = None
    if file is not None:
        if is_file_hugepages(file):
            length = hugetlb_align(file, length)
        elif flags & MAP_HUGETLB:
            return -EINVAL
    elif flags & MAP_HUGETLB:
        if not hstate_sizelog(k, flags):
            return -EINVAL
        made = _hugetlb_anon_file(k, length, flags)
        if made is None:
            return -ENOMEM
        file = made
        length = hugetlb_align(file, length)
    mm.mmap_sem.down_write()
    mapped: i64 = do_mmap(k, mm, addr, length, prot, flags, file, pgoff)
    populate: flag = flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE
    if flags & MAP_LOCKED or mm.def_flags & VM_LOCKED:
        populate = True
    mm.mmap_sem.up_write()
    if made is not None:
        fput(k, made)
    if populate and mapped >= 0:
        # What cannot be faulted in now will be later, or not; mmap() does not tell.
        mm_populate(k, mm, mapped, page_align(length))
    return mapped


def hstate_sizelog(k: Kernel, flags: u64) -> i32:
    """log2 of the page size that the flags of a mapping with MAP_HUGETLB ask for; 0 for none."""
    shift: i32 = flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK
    if shift == 0 or shift == PMD_SHIFT:
        return PMD_SHIFT
    return PUD_SHIFT if shift == PUD_SHIFT else 0


def _hugetlb_anon_file(k: Kernel, length: u64, flags: u64) -> File | None:
    """Make the file behind a mapping with MAP_HUGETLB that has none (HUGETLB_ANON_FILE).

    Mapping it promises its pages, not making it.
    """
    h: Hstate = size_to_hstate(k, hstate_sizelog(k, flags) - PAGE_SHIFT)
    pages: u64 = (length + PAGE_SIZE - 1) >> PAGE_SHIFT
    file: File = hugetlb_file_setup(k, "anon_hugepage", h, pages, VM_NORESERVE)
    if file is not None:
        file.anonymous = True
    return file


def do_mmap(
    k: Kernel, mm: Mm, addr: u64, length: u64, prot: u64, flags: u64, file: File | None, pgoff: u64
) -> i64:
    """Check what is to be mapped, and map it (mm/mmap.c:1352, v4.18).

    Returns the address, or a negative errno. mmap_sem is held for write.
    """
    mm.mmap_sem.assert_held_write()
    if length == 0:
        return -EINVAL
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        addr &= PAGE_MASK
        if addr and addr < MMAP_MIN_ADDR:
            addr = MMAP_MIN_ADDR
    length = page_align(length)
    if length == 0:
        return -ENOMEM
    if pgoff > ULONG_MAX - (length >> PAGE_SHIFT):
        return -EOVERFLOW
    if mm.map_count > MAX_MAP_COUNT:
        return -ENOMEM
    if flags & MAP_TYPE == MAP_SHARED and file is None:
        # An object of its own, mapped from its beginning.
        pgoff = 0
    place: i64
    if is_file_hugepages(file):
        place = hugetlb_get_unmapped_area(k, mm, file, addr, length, flags)
    else:
        place = get_file_area(k, mm, addr, length, pgoff, flags, file)
    if place < 0:
        return place
    addr = place
    if addr < MMAP_MIN_ADDR:
        return -EPERM
    if flags & MAP_FIXED_NOREPLACE:
        if find_vma_intersection(k, mm, addr, addr + length) is not None:
            return -EEXIST

    vm_flags: u64 = calc_vm_prot_bits(prot) | calc_vm_flag_bits(flags) | mm.def_flags
    vm_flags |= VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    kind: u64 = flags & MAP_TYPE
    if kind == MAP_SHARED:
        vm_flags |= VM_SHARED | VM_MAYSHARE
    elif kind != MAP_PRIVATE:
        return -EINVAL
    elif file is None:
        # Pages are indexed by where they are first faulted in.
        pgoff = addr >> PAGE_SHIFT
    if vm_flags & VM_GROWSDOWN and (file is not None or kind == MAP_SHARED):
        return -EINVAL
    if flags & MAP_NORESERVE:
        vm_flags |= VM_NORESERVE
    return mmap_region(k, mm, file, addr, length, vm_flags, pgoff)


def accountable_mapping(vm_flags: u64) -> flag:
    """Whether a mapping promises memory that a file does not have: private and writable."""
    return vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE


def mmap_region(
    k: Kernel, mm: Mm, file: File | None, addr: u64, length: u64, vm_flags: u64, pgoff: u64
) -> i64:
    """Map a range in the place of what is there, as part of a neighbour or as a VMA of its own.

    mm/mmap.c:1679 (v4.18). Returns the address, or -ENOMEM; what was there is gone then.
    """
    end: u64 = addr + length
    while find_vma_intersection(k, mm, addr, end) is not None:
        if do_munmap(k, mm, addr, length):
            return -ENOMEM
    if accountable_mapping(vm_flags) and not is_file_hugepages(file):
        vm_flags |= VM_ACCOUNT
    prev: Vma = find_vma_prev(k, mm, addr)
    vma: Vma = vma_merge_new_range(k, mm, prev, addr, end, vm_flags, file, pgoff, None)
    error: i32 = 0
    if vma is None:
        vma = vm_area_alloc(k, mm, addr, end, vm_flags, pgoff)
        if vma is None:
            return -ENOMEM
        error = _call_mmap(k, mm, vma, file)
        if error:
            return error
    mm.total_vm += length >> PAGE_SHIFT
    if vm_flags & VM_LOCKED:
        if vma.vm_flags & (VM_SPECIAL | VM_HUGETLB):
            vma.vm_flags &= ~VM_LOCKED_MASK
        else:
            mm.locked_vm += length >> PAGE_SHIFT
    # For whoever looks at soft-dirty bits: a new mapping is new as a whole.
    vma.vm_flags |= VM_SOFTDIRTY
    vma_set_page_prot(k, vma)
    if k.tracer is not None:
        k.tracer("mmap_region", (vma, addr, end))
    return addr


def _call_mmap(k: Kernel, mm: Mm, vma: Vma, file: File | None) -> i32:
    """Give a new VMA its file, let that map itself, and link the VMA; 0 or a negative errno."""
    error: i32
    if file is not None:
        if is_file_hugepages(file):
            error = hugetlbfs_file_mmap(k, file, vma)
            if error:
                return error
        get_file(file)
        vma.vm_file = file
    elif vma.vm_flags & VM_SHARED:
        vma.vm_file = shmem_zero_setup(k, (vma.vm_end - vma.vm_start) >> PAGE_SHIFT)
    vma_link(k, mm, vma)
    return khugepaged_enter_file(k, vma)


def shmem_zero_setup(k: Kernel, pages: u64) -> File:
    """Make the file behind a mapping that is shared and anonymous (mm/shmem.c:4069, v4.18).

    Its one reference is the VMA's; with the last, its pages go.
    """
    file: File = make_file(k, "dev/zero", pages, True)
    file.anonymous = True
    return file


def fput(k: Kernel, file: File) -> i32:
    """Drop a reference to a file; one that has no name ends with the last.

    The kernel waits for the return to user space with that; here no lock is in the way.
    """
    file.f_count -= 1
    if file.f_count == 0 and file.anonymous:
        if is_file_hugepages(file):
            hugetlbfs_evict_inode(k, file.f_mapping)
        else:
            truncate_inode_pages(k, file.f_mapping, 0)
            if file.f_mapping.shrinkable:
                k.shmem_shrinklist.remove(file.f_mapping)
        k.files.remove(file)
        k.mappings[file.f_mapping.handle] = None
    return 0


# ---------------------------------------------------------------- munmap


def vm_munmap(k: Kernel, mm: Mm, start: u64, length: u64) -> i32:
    """The system call munmap() (mm/mmap.c:2818, v4.18). Returns 0 or a negative errno."""
    mm.mmap_sem.down_write()
    error: i32 = do_munmap(k, mm, start, length)
    mm.mmap_sem.up_write()
    return error


def do_munmap(k: Kernel, mm: Mm, start: u64, length: u64) -> i32:
    """Unmap a range, splitting the VMAs at its ends (mm/mmap.c:2713, v4.18).

    Returns 0, also if nothing was mapped there, or -EINVAL or -ENOMEM; VMAs that were split by
    then stay so. mmap_sem is held for write.
    """
    mm.mmap_sem.assert_held_write()
    if start & (PAGE_SIZE - 1) or start > TASK_SIZE or length > TASK_SIZE - start:
        return -EINVAL
    length = page_align(length)
    if length == 0:
        return -EINVAL
    end: u64 = start + length
    vma: Vma = find_vma_intersection(k, mm, start, end)
    if vma is None:
        return 0
    prev: Vma = vma.vm_prev
    error: i32
    if start > vma.vm_start:
        # One VMA may become two for a moment beyond the limit, but not stay so.
        if end < vma.vm_end and mm.map_count >= MAX_MAP_COUNT:
            return -ENOMEM
        error = split_vma_at(k, mm, vma, start, 0)
        if error:
            return error
        prev = vma
    last: Vma = find_vma(k, mm, end)
    if last is not None and end > last.vm_start:
        error = split_vma_at(k, mm, last, end, 1)
        if error:
            return error
    vma = mm.mmap if prev is None else prev.vm_next

    if mm.locked_vm:
        _munlock_vmas(k, mm, vma, end)
    _detach_vmas(mm, vma, prev, end)
    _unmap_region(k, mm, vma, prev, start, end)
    _remove_vma_list(k, mm, vma)
    return 0


def _munlock_vmas(k: Kernel, mm: Mm, vma: Vma | None, end: u64) -> i32:
    """Count what goes away as locked no more, and munlock its pages.

    With `mlock_counts`, whoever unmaps a page of a VM_LOCKED VMA uncounts it.
    """
    while vma is not None and vma.vm_start < end:
        if vma.vm_flags & VM_LOCKED:
            mm.locked_vm -= vma_pages(vma)
            if not k.profile.mlock_counts:
                munlock_vma_pages_all(k, vma)
        vma = vma.vm_next
    return 0


def _detach_vmas(mm: Mm, vma: Vma, prev: Vma | None, end: u64) -> i32:
    """Take the VMAs up to `end` out of the mm's list, into one that begins with `vma`.

    detach_vmas_to_be_unmapped(), mm/mmap.c:2605 (v4.18).
    """
    first: i64 = vma_slot(mm, vma.vm_start)
    count: i64 = 0
    tail: Vma = None
    while vma is not None and vma.vm_start < end:
        tail = vma
        count += 1
        vma = vma.vm_next
    del mm.vmas[first : first + count]
    mm.map_count -= count
    if prev is None:
        mm.mmap = vma
    else:
        prev.vm_next = vma
    if vma is not None:
        vma.vm_prev = prev
    tail.vm_next = None
    return 0


def _unmap_region(k: Kernel, mm: Mm, vma: Vma, prev: Vma | None, start: u64, end: u64) -> i32:
    """Unmap the pages of detached VMAs, then untie them from rmap, then free their page tables.

    mm/mmap.c:2582 (v4.18).
    """
    next: Vma = mm.mmap if prev is None else prev.vm_next
    tlb: MmuGather = tlb_gather_mmu(k, mm, start, end)
    update_hiwater_rss(k, mm)
    unmap_vmas(k, tlb, vma, start, end)
    free_pgtables(
        k,
        tlb,
        vma,
        0 if prev is None else prev.vm_end,
        0 if next is None else next.vm_start,
    )
    tlb_finish_mmu(k, tlb, start, end)
    return 0


def _remove_vma_list(k: Kernel, mm: Mm, vma: Vma | None) -> i32:
    """Free detached VMAs (mm/mmap.c:2558, v4.18)."""
    while vma is not None:
        mm.total_vm -= vma_pages(vma)
        vma = remove_vma(k, vma)
    return 0


def remove_vma(k: Kernel, vma: Vma) -> Vma | None:
    """Free a VMA that is in no list and no tree; returns the next one (mm/mmap.c:167, v4.18)."""
    next: Vma = vma.vm_next
    if vma.vm_flags & VM_HUGETLB:
        hugetlb_vm_op_close(k, vma)
    if vma.vm_file is not None:
        fput(k, vma.vm_file)
    return next


# ---------------------------------------------------------------- brk


def sys_brk(k: Kernel, mm: Mm, brk: u64) -> u64:
    """Set the end of the heap (mm/mmap.c:183, v4.18). Returns the end, moved or not."""
    mm.mmap_sem.down_write()
    moved: flag = False
    old: u64 = page_align(mm.brk)
    new: u64 = page_align(brk)
    if brk >= mm.start_brk and brk < TASK_SIZE:
        moved = _move_brk(k, mm, brk, old, new)
    if moved:
        mm.brk = brk
    populate: flag = moved and new > old and mm.def_flags & VM_LOCKED != 0
    brk = mm.brk
    mm.mmap_sem.up_write()
    if populate:
        mm_populate(k, mm, old, new - old)
    return brk


def _move_brk(k: Kernel, mm: Mm, brk: u64, old: u64, new: u64) -> flag:
    """Unmap or map what lies between the old end and the new one; whether that worked."""
    if old == new:
        return True
    if brk <= mm.brk:
        return do_munmap(k, mm, new, old - new) == 0
    next: Vma = find_vma(k, mm, old)
    if next is not None and new + PAGE_SIZE > vm_start_gap(next):
        return False
    return do_brk_flags(k, mm, old, new - old, 0) == 0


def do_brk_flags(k: Kernel, mm: Mm, addr: u64, length: u64, flags: u64) -> i32:
    """Map anonymous memory by the shortest way (mm/mmap.c:2937, v4.18).

    `flags` are ``VM_`` flags beyond the usual, which only VM_EXEC may be. Returns 0 or a negative
    errno. mmap_sem is held for write.
    """
    mm.mmap_sem.assert_held_write()
    if flags & ~VM_EXEC:
        return -EINVAL
    flags |= VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT | mm.def_flags
    place: i64 = get_unmapped_area(k, mm, addr, length, MAP_FIXED)
    if place < 0:
        return -ENOMEM
    end: u64 = addr + length
    while find_vma_intersection(k, mm, addr, end) is not None:
        if do_munmap(k, mm, addr, length):
            return -ENOMEM
    if mm.map_count > MAX_MAP_COUNT:
        return -ENOMEM
    prev: Vma = find_vma_prev(k, mm, addr)
    pgoff: u64 = addr >> PAGE_SHIFT
    vma: Vma = vma_merge_new_range(k, mm, prev, addr, end, flags, None, pgoff, None)
    if vma is None:
        vma = vm_area_alloc(k, mm, addr, end, flags, pgoff)
        if vma is None:
            return -ENOMEM
        vma_link(k, mm, vma)
    mm.total_vm += length >> PAGE_SHIFT
    if flags & VM_LOCKED:
        mm.locked_vm += length >> PAGE_SHIFT
    vma.vm_flags |= VM_SOFTDIRTY
    return 0


# ---------------------------------------------------------------- exit


def exit_mmap(k: Kernel, mm: Mm) -> i32:
    """Take an address space apart whose last user has gone (mm/mmap.c:3042, v4.18)."""
    vma: Vma = mm.mmap
    if mm.locked_vm:
        while vma is not None:
            if vma.vm_flags & VM_LOCKED and not k.profile.mlock_counts:
                munlock_vma_pages_all(k, vma)
            vma = vma.vm_next
    vma = mm.mmap
    if vma is None:
        # dup_mmap() may have failed before the first one.
        return 0
    tlb: MmuGather = tlb_gather_mmu(k, mm, 0, ULONG_MAX)
    unmap_vmas(k, tlb, vma, 0, ULONG_MAX)
    free_pgtables(k, tlb, vma, 0, 0)
    tlb_finish_mmu(k, tlb, 0, ULONG_MAX)
    while vma is not None:
        vma = remove_vma(k, vma)
    mm.mmap = None
    mm.vmas = []
    mm.map_count = 0
    mm.total_vm = 0
    mm.locked_vm = 0
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Shared memory and tmpfs: pages that live in the page cache or in swap (mm/shmem.c, v4.18).

Locks: the page lock of the page, be it in the page cache or in the swap cache; inside it
mapping->i_pages_lock and what swap needs. A page moves between page cache and swap cache only
while it is locked.

The kernel has a list of the inodes with pages in swap (shmem_swaplist), which swapoff searches;
here it searches all shmem files.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        AOP_WRITEPAGE_ACTIVATE,
        EAGAIN,
        EEXIST,
        EINVAL,
        EIO,
        ENOMEM,
        GFP_HIGHUSER,
        GFP_KERNEL,
        HPAGE_PMD_NR,
        NR_FILE_PAGES,
        NR_SHMEM,
        PGMAJFAULT,
        SGP_CACHE,
        SGP_HUGE,
        SGP_NOHUGE,
        SGP_READ,
        SGP_WRITE,
        VM_FAULT_LOCKED,
        VM_FAULT_MAJOR,
        VM_FAULT_OOM,
        VM_FAULT_SIGBUS,
        VM_HUGEPAGE,
        VM_NOHUGEPAGE,
        VM_UFFD_MISSING,
        PG_dirty,
        PG_referenced,
        PG_swapbacked,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.huge.shmem_huge import shmem_alloc_hugepage, shmem_wants_huge
    from rmap.mm.lru import lru_cache_add, mark_page_accessed, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge, mem_cgroup_try_charge_swap
    from rmap.mm.memory import VmFault
    from rmap.mm.mm_types import AddressSpace, Kernel, MemCgroup, SwapInfo
    from rmap.mm.page import (
        ClearPage,
        PageFlag,
        PageHead,
        PageLocked,
        PageSwapCache,
        SetPage,
        lock_page,
        mod_lruvec_page_state,
        page_index,
        page_mapped,
        page_mapping,
        page_private,
        set_page_mapping,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.page_cache import (
        add_to_page_cache_locked,
        delete_from_page_cache,
        find_lock_entry,
        page_cache_item,
        radix_to_swp_entry,
        swp_to_radix_entry,
    )
    from rmap.mm.page_dirty import set_page_dirty, wait_on_page_writeback
    from rmap.mm.swap import free_swap_and_cache, get_swap_page, swap_writepage
    from rmap.mm.swap_cache import (
        add_to_swap_cache,
        delete_from_swap_cache,
        lookup_swap_cache,
        read_swap_cache,
    )
    from rmap.mm.swap_slots import (
        get_swap_device,
        put_swap_device,
        put_swap_page,
        swap_free,
        swap_shmem_alloc,
    )
    from rmap.mm.uffd import handle_userfault, userfaultfd_missing
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- getting a page


def shmem_fault(k: Kernel, vmf: VmFault) -> i32:
    """Get the page of a fault, locked, in ``vmf.page``. Returns VM_FAULT_ bits."""
    mapping: AddressSpace = vmf.vma.vm_file.f_mapping
    vmf.fault_type = VM_FAULT_LOCKED
    sgp: i32 = SGP_CACHE
    if vmf.vma.vm_flags & VM_NOHUGEPAGE:
        sgp = SGP_NOHUGE
    elif vmf.vma.vm_flags & VM_HUGEPAGE:
        sgp = SGP_HUGE
    page: i64 = shmem_getpage(k, mapping, vmf.pgoff, sgp, vmf.vma.vm_mm.memcg, vmf)
    if page == -ENOMEM:
        return VM_FAULT_OOM
    if page < 0:
        return VM_FAULT_SIGBUS
    vmf.page = page
    return vmf.fault_type


def shmem_getpage(
    k: Kernel, mapping: AddressSpace, index: u64, sgp: i32, memcg: MemCgroup, vmf: VmFault | None
) -> i64:
    """The page at an index, locked, with a reference; a negative errno if it cannot be had.

    0 for a hole that SGP_READ finds, and for a userfault, whose result is then in
    ``vmf.fault_type``. -EINVAL: beyond the end of the file. Of a huge page it is the one page at
    the index, and the head that is locked. shmem_getpage_gfp().
    """
    item: i64
    page: i64
    sgp_huge: i32 = sgp
    if sgp == SGP_NOHUGE or sgp == SGP_HUGE:
        sgp = SGP_CACHE
    while True:
        item = find_lock_entry(k, mapping, index)
        if sgp <= SGP_CACHE and index >= mapping.size_pages:
            if item > 0:
                unlock_page(k, item)
                put_page(k, item)
            return -EINVAL
        if item > 0:
            if sgp == SGP_WRITE:
                mark_page_accessed(k, item)
            return item
        if item == 0 and sgp == SGP_READ:
            return 0
        if item < 0:
            page = _swap_in(k, mapping, index, item, memcg, vmf)
        elif vmf is not None and userfaultfd_missing(vmf.vma):
            vmf.fault_type = handle_userfault(k, vmf, VM_UFFD_MISSING)
            return 0
        else:
            page = _add_new_page(k, mapping, index, sgp, sgp_huge, memcg)
        if page == -EEXIST:
            # Somebody was faster, or the slot is another one now: look again.
            continue
        if page > 0 and sgp == SGP_WRITE and item < 0:
            mark_page_accessed(k, page)
        return page


def _add_new_page(
    k: Kernel, mapping: AddressSpace, index: u64, sgp: i32, sgp_huge: i32, memcg: MemCgroup
) -> i64:
    """Fill a hole with a zeroed page, which is locked; a negative errno if that fails.

    With a huge page, if the file is to have one here; with a small one if that cannot be had,
    charged or entered.
    """
    head: u64 = 0
    inside: u64 = 0
    error: i32 = 0
    if shmem_wants_huge(k, mapping, index, sgp_huge):
        head = shmem_alloc_hugepage(k, mapping, index)
        inside = index % HPAGE_PMD_NR
        if head and _enter_new_page(k, mapping, index - inside, head, sgp, memcg):
            head = 0
    if head:
        shmem_note_end(k, mapping)
    else:
        inside = 0
        head = alloc_page(k, GFP_HIGHUSER)
        if not head:
            return -ENOMEM
        trylock_page(k, head)
        SetPage(k, head, PG_swapbacked)
        error = _enter_new_page(k, mapping, index, head, sgp, memcg)
        if error:
            return error
    if index >= mapping.size_pages:
        # Truncated since we looked; with the page locked it stays as it is now.
        ClearPage(k, head, PG_dirty)
        delete_from_page_cache(k, head)
        unlock_page(k, head)
        put_page(k, head)
        return -EINVAL
    return head + inside


def _enter_new_page(
    k: Kernel, mapping: AddressSpace, index: u64, page: u64, sgp: i32, memcg: MemCgroup
) -> i32:
    """Make a new page, locked and of zeros, the file's at an index; if that fails it is freed."""
    if sgp == SGP_WRITE:
        SetPage(k, page, PG_referenced)
    error: i32 = mem_cgroup_try_charge(k, page, memcg, GFP_KERNEL)
    if not error:
        error = add_to_page_cache_locked(k, page, mapping, index, 0)
    if error:
        unlock_page(k, page)
        put_page(k, page)
        return error
    lru_cache_add(k, page)
    SetPage(k, page, PG_uptodate)
    return 0


def shmem_note_end(k: Kernel, mapping: AddressSpace) -> i32:
    """Note a file if a huge page reaches beyond its end, which may be split for memory.

    To be found by `shmem_unused_huge_shrink` of `rmap.mm.huge.shmem_shrink`. The kernel notes every
    file that is truncated, and finds out later.
    """
    inside: u64 = mapping.size_pages % HPAGE_PMD_NR
    item: i64 = page_cache_item(mapping, mapping.size_pages - inside)
    if inside and item > 0 and PageHead(k, item) and not mapping.shrinkable:
        mapping.shrinkable = True
        k.shmem_shrinklist.append(mapping)
    return 0


def _swap_in(
    k: Kernel, mapping: AddressSpace, index: u64, item: i64, memcg: MemCgroup, vmf: VmFault
) -> i64:
    """Bring a page back from swap, locked; a negative errno if that fails."""
    entry: u64 = radix_to_swp_entry(item)
    area: SwapInfo = get_swap_device(k, entry)
    if area is None:
        return -EEXIST if page_cache_item(mapping, index) != item else -EINVAL
    page: i64 = _swap_in_kept(k, mapping, index, item, memcg, vmf)
    put_swap_device(k, area)
    return page


def _swap_in_kept(
    k: Kernel, mapping: AddressSpace, index: u64, item: i64, memcg: MemCgroup, vmf: VmFault
) -> i64:
    """The same with the swap area kept in use."""
    entry: u64 = radix_to_swp_entry(item)
    page: u64 = lookup_swap_cache(k, entry)
    if not page:
        if vmf is not None:
            vmf.fault_type |= VM_FAULT_MAJOR
            k.vm_stat[PGMAJFAULT] += 1
            vmf.vma.vm_mm.memcg.stat[PGMAJFAULT] += 1
        page = read_swap_cache(k, entry, None)
        if not page:
            return -EEXIST if page_cache_item(mapping, index) != item else -ENOMEM
    # The page and the entry must still be each other's when the page is locked.
    lock_page(k, page)
    error: i32 = 0
    swapped: flag = PageSwapCache(k, page) and page_private(k, page) == entry
    if not swapped or page_cache_item(mapping, index) != item:
        error = -EEXIST
    elif not PageFlag(k, page, PG_uptodate):
        error = -EIO
    if not error:
        wait_on_page_writeback(k, page)
        error = mem_cgroup_try_charge(k, page, memcg, GFP_KERNEL)
    if not error:
        error = add_to_page_cache_locked(k, page, mapping, index, item)
        if error:
            # The file was truncated, which only tries to lock the page: do the rest for it.
            delete_from_swap_cache(k, page)
    if error:
        unlock_page(k, page)
        put_page(k, page)
        return error
    delete_from_swap_cache(k, page)
    set_page_dirty(k, page)
    swap_free(k, entry)
    return page


# ---------------------------------------------------------------- to swap and back


def shmem_writepage(k: Kernel, page: u64) -> i32:
    """Move a locked, unmapped page of shmem to swap, which writes and unlocks it; returns 0.

    AOP_WRITEPAGE_ACTIVATE, with the page still locked, if there is no swap to be had.
    """
    if not PageLocked(k, page):
        BUG_PAGE("shmem.c shmem_writepage: the page is not locked", page)
    mapping: AddressSpace = page_mapping(k, page)
    if mapping.unevictable or not _move_to_swap(k, page, mapping):
        set_page_dirty(k, page)
        return AOP_WRITEPAGE_ACTIVATE
    if page_mapped(k, page):
        BUG_PAGE("shmem.c shmem_writepage: the page is mapped", page)
    if k.tracer is not None:
        k.tracer("shmem_writepage", (page, mapping))
    swap_writepage(k, page)
    return 0


def _move_to_swap(k: Kernel, page: u64, mapping: AddressSpace) -> flag:
    """Let a page leave the page cache for the swap cache; whether there was a slot for it."""
    entry: u64 = get_swap_page(k, page)
    if not entry:
        return False
    if mem_cgroup_try_charge_swap(k, page, entry) or add_to_swap_cache(k, page, entry):
        put_swap_page(k, page, entry)
        return False
    swap_shmem_alloc(k, entry)
    shmem_delete_from_page_cache(k, page, mapping, swp_to_radix_entry(entry))
    return True


def shmem_delete_from_page_cache(k: Kernel, page: u64, mapping: AddressSpace, item: i64) -> i32:
    """Put the swap entry in the page's place in the page cache."""
    index: u64 = page_index(k, page)
    mapping.i_pages_lock.lock()
    if page_cache_item(mapping, index) != page:
        BUG_PAGE("shmem.c shmem_delete_from_page_cache: another page is in its place", page)
    mapping.i_pages[index] = item
    set_page_mapping(k, page, 0)
    mapping.nrpages -= 1
    mod_lruvec_page_state(k, page, NR_FILE_PAGES, -1)
    mod_lruvec_page_state(k, page, NR_SHMEM, -1)
    mapping.i_pages_lock.unlock()
    return put_page(k, page)


def shmem_unuse(k: Kernel, entry: u64, page: u64) -> i32:
    """Bring the page of a swap entry back for swapoff, if a shmem file has it.

    The page is locked and has a reference: both are given back. Returns 0, also if no file has
    the entry, or -ENOMEM.
    """
    error: i32 = 0
    mapping: AddressSpace
    if PageSwapCache(k, page) and page_private(k, page) == entry:
        error = mem_cgroup_try_charge(k, page, k.memcgs[0], GFP_KERNEL)
        if not error:
            for mapping in k.mappings:
                if mapping is None or not mapping.shmem:
                    continue
                error = _unuse_mapping(k, mapping, entry, page)
                if error != -EAGAIN:
                    break
        if error != -ENOMEM:
            error = 0
    unlock_page(k, page)
    put_page(k, page)
    return error


def _unuse_mapping(k: Kernel, mapping: AddressSpace, entry: u64, page: u64) -> i32:
    """The same for one file; -EAGAIN if it has not got the entry."""
    item: i64 = swp_to_radix_entry(entry)
    index: u64 = 0
    found: flag = False
    at: u64
    for at, kept in mapping.i_pages.items():
        if kept == item:
            index = at
            found = True
            break
    if not found:
        return -EAGAIN
    error: i32 = add_to_page_cache_locked(k, page, mapping, index, item)
    if error == -ENOMEM:
        return error
    # Also if the entry was truncated away meanwhile: whoever did that could not lock the page.
    delete_from_swap_cache(k, page)
    set_page_dirty(k, page)
    if not error:
        swap_free(k, entry)
    return error


def shmem_free_swap(k: Kernel, mapping: AddressSpace, index: u64, item: i64) -> i32:
    """Forget what a file has in swap at an index, if it is still that; -EAGAIN if not."""
    mapping.i_pages_lock.lock()
    if page_cache_item(mapping, index) != item:
        mapping.i_pages_lock.unlock()
        return -EAGAIN
    del mapping.i_pages[index]
    mapping.i_pages_lock.unlock()
    free_swap_and_cache(k, radix_to_swp_entry(item))
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Files: faults on them, read and write, truncation (mm/filemap.c, v4.18).

Locks, in this order: inode->i_rwsem (write and truncate only), the page lock, mapping's
i_mmap_rwsem (for unmapping what is truncated), then the page-table locks and i_pages_lock.

A disk is ``mapping.backing``, from which a page is read when it is first wanted: alone, there is
no readahead. Shared memory has no disk; its part stands in `rmap.mm.shmem`.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EEXIST,
        EIO,
        ENOMEM,
        ENOSPC,
        FAULT_FLAG_TRIED,
        GFP_HIGHUSER,
        GFP_KERNEL,
        PAGE_SHIFT,
        PAGE_SIZE,
        PGMAJFAULT,
        SGP_READ,
        SGP_WRITE,
        VM_FAULT_LOCKED,
        VM_FAULT_MAJOR,
        VM_FAULT_OOM,
        VM_FAULT_RETRY,
        VM_FAULT_SIGBUS,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import page_read, page_write, set_page_bytes
    from rmap.mm.lru import lru_cache_add, mark_page_accessed, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import VmFault, lock_page_or_retry
    from rmap.mm.mm_types import AddressSpace, File, Kernel, MemCgroup
    from rmap.mm.page import (
        PageFlag,
        PageLocked,
        SetPage,
        compound_head,
        lock_page,
        page_index,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.page_cache import (
        add_to_page_cache_locked,
        find_get_page,
        find_lock_entry,
        page_in_mapping,
    )
    from rmap.mm.page_dirty import set_page_dirty, wait_on_page_writeback
    from rmap.mm.shmem import shmem_fault, shmem_getpage, shmem_note_end
    from rmap.mm.tlb import current_task
    from rmap.mm.truncate import truncate_inode_pages, truncate_inode_pages_range
    from rmap.mm.zap import unmap_mapping_pages
    from rmap.scalar import i32, i64, u64


def make_file(k: Kernel, name: str, pages: u64, shmem: bool) -> File:
    """Make a file of so many pages, nothing of it cached: of zeros on disk, or holes of shmem.

    Dirty pages of a disk's file are counted, so that its first write through each entry is
    noticed (`AddressSpace.writenotify`); those of shmem are not.
    """
    mapping: AddressSpace = AddressSpace(len(k.mappings), name, shmem=shmem)
    mapping.size_pages = pages
    mapping.writenotify = not shmem
    file: File = File(name, k.next_serial(), mapping)
    mapping.host = file
    k.mappings.append(mapping)
    k.files.append(file)
    return file


# ---------------------------------------------------------------- faults


def vma_fault(k: Kernel, vmf: VmFault) -> i32:
    """vma->vm_ops->fault(): the page of a fault, by the kind of the file."""
    if vmf.vma.vm_file.f_mapping.shmem:
        return shmem_fault(k, vmf)
    return filemap_fault(k, vmf)


def filemap_fault(k: Kernel, vmf: VmFault) -> i32:
    """Get the page of a fault, locked, in ``vmf.page``, reading it if it is not cached.

    Returns VM_FAULT_ bits; beyond the end of the file VM_FAULT_SIGBUS.
    """
    mapping: AddressSpace = vmf.vma.vm_file.f_mapping
    ret: i32 = 0
    error: i32
    page: u64
    if vmf.pgoff >= mapping.size_pages:
        return VM_FAULT_SIGBUS
    while True:
        page = find_get_page(k, mapping, vmf.pgoff)
        if not page:
            ret = _count_major(k, vmf)
            error = page_cache_read(k, mapping, vmf.pgoff, vmf.vma.vm_mm.memcg)
            if error == 0:
                continue
            return VM_FAULT_OOM if error == -ENOMEM else VM_FAULT_SIGBUS
        if not lock_page_or_retry(k, page, vmf.vma.vm_mm, vmf.flags):
            put_page(k, page)
            return ret | VM_FAULT_RETRY
        if page_in_mapping(k, page, mapping):
            break
        # Truncated before we had it locked.
        unlock_page(k, page)
        put_page(k, page)
    if page_index(k, page) != vmf.pgoff:
        BUG_PAGE("filemap.c filemap_fault: the page has another index", page)
    # A page that was there but could not be read, and a file that has become shorter.
    if not PageFlag(k, page, PG_uptodate) or vmf.pgoff >= mapping.size_pages:
        unlock_page(k, page)
        put_page(k, page)
        return VM_FAULT_SIGBUS
    vmf.page = page
    return ret | VM_FAULT_LOCKED


def _count_major(k: Kernel, vmf: VmFault) -> i32:
    """Count a fault that has to read."""
    if not vmf.flags & FAULT_FLAG_TRIED:
        k.vm_stat[PGMAJFAULT] += 1
        vmf.vma.vm_mm.memcg.stat[PGMAJFAULT] += 1
    return VM_FAULT_MAJOR


def page_cache_read(k: Kernel, mapping: AddressSpace, index: u64, memcg: MemCgroup) -> i32:
    """Read a page into the cache; 0, also if somebody else was faster, or a negative errno."""
    page: u64 = alloc_page(k, GFP_HIGHUSER)
    if not page:
        return -ENOMEM
    error: i32 = add_to_page_cache_lru(k, page, mapping, index, memcg)
    if error == 0:
        readpage(k, page, mapping)
    put_page(k, page)
    return 0 if error == -EEXIST else error


def add_to_page_cache_lru(
    k: Kernel, page: u64, mapping: AddressSpace, index: u64, memcg: MemCgroup
) -> i32:
    """Enter a new page into the cache and the LRU, locked; if that fails, unlocked: -errno."""
    trylock_page(k, page)
    error: i32 = mem_cgroup_try_charge(k, page, memcg, GFP_KERNEL)
    if not error:
        error = add_to_page_cache_locked(k, page, mapping, index, 0)
    if error:
        unlock_page(k, page)
        return error
    lru_cache_add(k, page)
    return 0


def readpage(k: Kernel, page: u64, mapping: AddressSpace) -> i32:
    """Read a locked page from disk, and unlock it (a_ops->readpage)."""
    fill_page(k, page, mapping)
    return unlock_page(k, page)


def fill_page(k: Kernel, page: u64, mapping: AddressSpace) -> i32:
    """Read a page that stays locked."""
    if not PageLocked(k, page):
        BUG_PAGE("filemap.c readpage: the page is not locked", page)
    data: bytes = mapping.backing.get(page_index(k, page), b"")
    set_page_bytes(k, page, data)
    return SetPage(k, page, PG_uptodate)


# ---------------------------------------------------------------- read and write


def _running_memcg(k: Kernel) -> MemCgroup:
    """Whose pages a read or write makes: the running task's, or the root's."""
    if current_task(k).mm is None:
        return k.memcgs[0]
    return current_task(k).mm.memcg


def file_read(k: Kernel, file: File, offset: i64, length: i64) -> bytes:
    """Read from a file by way of the page cache; shorter at the end of the file.

    Raises ``MemoryError`` if there is no page to read into.
    """
    mapping: AddressSpace = file.f_mapping
    end: i64 = min(offset + length, mapping.size_pages << PAGE_SHIFT)
    parts: list = []
    count: i64
    inside: i64
    page: i64
    while offset < end:
        inside = offset % PAGE_SIZE
        count = min(PAGE_SIZE - inside, end - offset)
        page = _page_to_read(k, mapping, offset >> PAGE_SHIFT)
        if page < 0:
            raise MemoryError(f"reading {file.name}: no page, error {page}")
        if page:
            mark_page_accessed(k, page)
            parts.append(page_read(k, page, inside, count))
            put_page(k, page)
        else:
            parts.append(bytes(count))
        offset += count
    return b"".join(parts)


def _page_to_read(k: Kernel, mapping: AddressSpace, index: u64) -> i64:
    """The page at an index, unlocked and up to date; 0 for a hole, a negative errno."""
    page: i64
    error: i32
    if mapping.shmem:
        page = shmem_getpage(k, mapping, index, SGP_READ, _running_memcg(k), None)
        if page > 0:
            unlock_page(k, page)
        return page
    while True:
        page = find_get_page(k, mapping, index)
        if page:
            break
        error = page_cache_read(k, mapping, index, _running_memcg(k))
        if error:
            return error
    if PageFlag(k, page, PG_uptodate):
        return page
    # Somebody reads it this moment, and unlocks it when that is done.
    lock_page(k, page)
    unlock_page(k, page)
    if PageFlag(k, page, PG_uptodate):
        return page
    put_page(k, page)
    return -EIO


def file_write(k: Kernel, file: File, offset: i64, data: bytes) -> i64:
    """Write to a file's page cache; returns how many bytes, or a negative errno if none.

    A file does not grow by that: -ENOSPC beyond its end.
    """
    mapping: AddressSpace = file.f_mapping
    done: i64 = 0
    count: i64
    inside: i64
    page: i64 = -ENOSPC
    mapping.i_rwsem.down_write()
    while done < len(data):
        inside = (offset + done) % PAGE_SIZE
        count = min(PAGE_SIZE - inside, len(data) - done)
        page = _page_to_write(k, mapping, (offset + done) >> PAGE_SHIFT, count == PAGE_SIZE)
        if page < 0:
            break
        page_write(k, page, inside, data[done : done + count])
        SetPage(k, compound_head(k, page), PG_uptodate)
        set_page_dirty(k, page)
        unlock_page(k, page)
        mark_page_accessed(k, page)
        put_page(k, page)
        done += count
    mapping.i_rwsem.up_write()
    if done or not data:
        return done
    return page


def _page_to_write(k: Kernel, mapping: AddressSpace, index: u64, whole: bool) -> i64:
    """The page at an index, locked; up to date unless it is written as a `whole`. Or -errno."""
    item: i64
    page: u64
    error: i32
    if index >= mapping.size_pages:
        return -ENOSPC
    if mapping.shmem:
        return shmem_getpage(k, mapping, index, SGP_WRITE, _running_memcg(k), None)
    while True:
        item = find_lock_entry(k, mapping, index)
        if item:
            break
        page = alloc_page(k, GFP_HIGHUSER)
        if not page:
            return -ENOMEM
        error = add_to_page_cache_lru(k, page, mapping, index, _running_memcg(k))
        if error == 0:
            item = page
            break
        put_page(k, page)
        if error != -EEXIST:
            return error
    if not whole and not PageFlag(k, item, PG_uptodate):
        fill_page(k, item, mapping)
    wait_on_page_writeback(k, item)
    return item


# ---------------------------------------------------------------- truncation


def truncate(k: Kernel, file: File, pages: u64) -> i32:
    """Make a file `pages` long: what lies behind leaves page tables, page cache, disk and swap.

    truncate_setsize(), shmem_setattr(). Unmapped twice: first all at once, which is quick; then,
    when the pages are gone from the cache, what a fault has mapped meanwhile, private copies above
    all. A huge page in which the file ends now stays, zeroed behind the end.
    """
    mapping: AddressSpace = file.f_mapping
    mapping.i_rwsem.down_write()
    shrinks: bool = pages < mapping.size_pages
    mapping.size_pages = pages
    if shrinks:
        unmap_mapping_pages(k, mapping, pages, 0, True)
        truncate_inode_pages(k, mapping, pages)
        unmap_mapping_pages(k, mapping, pages, 0, True)
        if mapping.shmem:
            shmem_note_end(k, mapping)
        for index in list(mapping.backing):
            if index >= pages:
                del mapping.backing[index]
    mapping.i_rwsem.up_write()
    return 0


def punch_hole(k: Kernel, file: File, start: u64, pages: u64) -> i32:
    """Let `pages` pages of a file from `start` on hold zeros again, and take no memory or disk.

    fallocate() with FALLOC_FL_PUNCH_HOLE. Private copies stay what they are. Only whole huge pages
    go; of others the part in the hole is zeroed.
    """
    mapping: AddressSpace = file.f_mapping
    if pages == 0:
        return 0
    mapping.i_rwsem.down_write()
    unmap_mapping_pages(k, mapping, start, pages, False)
    truncate_inode_pages_range(k, mapping, start, start + pages)
    for index in list(mapping.backing):
        if start <= index < start + pages:
            del mapping.backing[index]
    mapping.i_rwsem.up_write()
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Files whose page cache is huge pages (fs/hugetlbfs/inode.c, v4.18).

Locks, outermost first: the inode's i_rwsem (inside of mmap_sem, where the file is being mapped),
a mutex of `Kernel.hugetlb_fault_mutexes`, the page lock, i_mmap_rwsem, and then i_pages_lock or
what unmapping takes. The page cache counts in huge pages, and is in no statistics.

Such a file has no disk: what is in its pages is all there is, and they are never swapped out.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        EEXIST,
        EINVAL,
        HUGETLB_FAULT_MUTEXES,
        MAPPING_HANDLE_SHIFT,
        PAGE_SHIFT,
        PAGE_SIZE,
        ULONG_MAX,
        VM_DONTEXPAND,
        VM_HUGETLB,
        VM_SHARED,
        VM_WRITE,
        PG_dirty,
        PG_private,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import page_read
    from rmap.mm.hugetlb.pool import huge_page_shift, huge_page_size, hugetlb_acct_memory
    from rmap.mm.hugetlb.reserve import (
        hugetlb_reserve_pages,
        hugetlb_unreserve_pages,
        resv_map_alloc,
        resv_map_put,
    )
    from rmap.mm.hugetlb.unmap import unmap_hugepage_range
    from rmap.mm.interval_tree import interval_tree_iter_first, interval_tree_iter_next
    from rmap.mm.lru import put_page
    from rmap.mm.mm_types import AddressSpace, File, Hstate, IntervalNode, Kernel, ResvMap, Vma
    from rmap.mm.page import (
        ClearPage,
        PageFlag,
        get_page,
        lock_page,
        page_index,
        page_mapped,
        set_page_index,
        set_page_mapping,
        unlock_page,
    )
    from rmap.mm.page_cache import find_get_page, page_cache_item, page_in_mapping
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.locks import RwSem


# ---------------------------------------------------------------- files


def hugetlb_file_setup(k: Kernel, name: str, h: Hstate, pages: u64, vm_flags: u64) -> File | None:
    """Make a file of `pages` small pages, rounded up; ``None`` without memory.

    Unless `vm_flags` has VM_NORESERVE all of it is promised to whoever will map it, as for memory
    of System V.
    """
    resv: ResvMap = resv_map_alloc(k)
    if resv is None:
        return None
    mapping: AddressSpace = AddressSpace(len(k.mappings), name, hstate=h)
    mapping.resv_map = resv
    one: u64 = 1
    mapping.size_pages = ((pages + (one << h.order) - 1) >> h.order) << h.order
    if hugetlb_reserve_pages(k, mapping, 0, mapping.size_pages >> h.order, None, vm_flags):
        resv_map_put(resv)
        return None
    file: File = File(name, k.next_serial(), mapping)
    mapping.host = file
    k.mappings.append(mapping)
    k.files.append(file)
    return file


def is_file_hugepages(file: File | None) -> flag:
    """Whether a file is one of hugetlbfs."""
    return file is not None and file.f_mapping.hstate is not None


def hugetlb_align(file: File, length: u64) -> u64:
    """A length in bytes rounded up to pages of the file."""
    size: u64 = huge_page_size(file.f_mapping.hstate)
    return (length + size - 1) & ~(size - 1)


def hugetlbfs_file_mmap(k: Kernel, file: File, vma: Vma) -> i32:
    """Map a file into a VMA that is not linked yet: promise it its pages; 0 or a negative errno.

    A writable mapping makes the file as long as it reaches.
    """
    mapping: AddressSpace = file.f_mapping
    h: Hstate = mapping.hstate
    vma.vm_flags |= VM_HUGETLB | VM_DONTEXPAND
    one: u64 = 1
    if vma.vm_pgoff & ((one << h.order) - 1):
        return -EINVAL
    end: u64 = vma.vm_pgoff + ((vma.vm_end - vma.vm_start) >> PAGE_SHIFT)
    mapping.i_rwsem.down_write()
    error: i32 = hugetlb_reserve_pages(
        k, mapping, vma.vm_pgoff >> h.order, end >> h.order, vma, vma.vm_flags
    )
    if not error and vma.vm_flags & VM_WRITE and mapping.size_pages < end:
        mapping.size_pages = end
    mapping.i_rwsem.up_write()
    return error


# ---------------------------------------------------------------- page cache


def hugetlb_fault_mutex(
    k: Kernel, vma: Vma | None, mapping: AddressSpace, idx: u64, address: u64
) -> RwSem:
    """The mutex of the faults on one page: of a file's offset, or of a private address.

    hugetlb_fault_mutex_hash(): pages that have nothing to do with one another may share one.
    """
    key: u64
    if vma is None or vma.vm_flags & VM_SHARED:
        key = mapping.handle * 31 + idx
    else:
        key = vma.vm_mm.ident * 31 + (address >> huge_page_shift(mapping.hstate))
    return k.hugetlb_fault_mutexes[key % HUGETLB_FAULT_MUTEXES]


def find_lock_huge_page(k: Kernel, mapping: AddressSpace, idx: u64) -> u64:
    """The page that a file has at an offset, locked, with a reference; 0 if it has none there.

    find_lock_page(), of a cache that counts in huge pages.
    """
    page: u64
    while True:
        page = find_get_page(k, mapping, idx)
        if not page:
            return 0
        lock_page(k, page)
        if page_in_mapping(k, page, mapping):
            if page_index(k, page) != idx:
                BUG_PAGE("filemap.c pagecache_get_page: the page has another index", page)
            return page
        # It left the file before we had it locked.
        unlock_page(k, page)
        put_page(k, page)


def huge_add_to_page_cache(k: Kernel, page: u64, mapping: AddressSpace, idx: u64) -> i32:
    """Enter a new page into a file, locked; -EEXIST if there is one, and then not locked.

    The page was taken on a promise, if there was one, and has used it up now.
    """
    lock_page(k, page)
    get_page(k, page)
    mapping.i_pages_lock.lock()
    if page_cache_item(mapping, idx):
        mapping.i_pages_lock.unlock()
        unlock_page(k, page)
        put_page(k, page)
        return -EEXIST
    set_page_mapping(k, page, mapping.handle << MAPPING_HANDLE_SHIFT)
    set_page_index(k, page, idx)
    mapping.i_pages[idx] = page
    mapping.nrpages += 1
    mapping.i_pages_lock.unlock()
    return ClearPage(k, page, PG_private)


def remove_huge_page(k: Kernel, page: u64, mapping: AddressSpace) -> i32:
    """Take a locked page out of its file, and drop the cache's reference."""
    if page_mapped(k, page):
        BUG_PAGE("filemap.c unaccount_page_cache_page: the page is mapped", page)
    ClearPage(k, page, PG_dirty)
    ClearPage(k, page, PG_uptodate)
    mapping.i_pages_lock.lock()
    del mapping.i_pages[page_index(k, page)]
    mapping.nrpages -= 1
    set_page_mapping(k, page, 0)
    mapping.i_pages_lock.unlock()
    if k.tracer is not None:
        k.tracer("remove_huge_page", (page, mapping))
    return put_page(k, page)


def hugetlbfs_read(k: Kernel, file: File, offset: i64, length: i64) -> bytes:
    """Read from a file; zeros where it has no page, shorter at its end."""
    mapping: AddressSpace = file.f_mapping
    order: i32 = mapping.hstate.order
    one: u64 = 1
    end: i64 = min(offset + length, mapping.size_pages << PAGE_SHIFT)
    parts: list = []
    inside: i64
    count: i64
    index: u64
    page: u64
    while offset < end:
        inside = offset % PAGE_SIZE
        count = min(PAGE_SIZE - inside, end - offset)
        index = offset >> PAGE_SHIFT
        page = find_get_page(k, mapping, index >> order)
        if page:
            parts.append(page_read(k, page + (index & ((one << order) - 1)), inside, count))
            put_page(k, page)
        else:
            parts.append(bytes(count))
        offset += count
    return b"".join(parts)


# ---------------------------------------------------------------- truncation


def hugetlb_vmdelete_list(k: Kernel, mapping: AddressSpace, start: u64, end: u64) -> i32:
    """Unmap ``[start, end)`` of a file everywhere, private copies too; in small pages, 0 is no end.

    i_mmap_rwsem is held for write.
    """
    last: u64 = end - 1 if end else ULONG_MAX
    node: IntervalNode = interval_tree_iter_first(mapping.i_mmap, start, last)
    vma: Vma
    first: u64
    stop: u64
    while node is not None:
        vma = node.vma
        first = vma.vm_start
        if vma.vm_pgoff < start:
            first += (start - vma.vm_pgoff) << PAGE_SHIFT
        stop = vma.vm_end
        if end and ((end - vma.vm_pgoff) << PAGE_SHIFT) + vma.vm_start < stop:
            stop = ((end - vma.vm_pgoff) << PAGE_SHIFT) + vma.vm_start
        unmap_hugepage_range(k, vma, first, stop, 0)
        node = interval_tree_iter_next(node, start, last)
    return 0


def _unmap_file(k: Kernel, mapping: AddressSpace, start: u64, end: u64) -> i32:
    """The same, with i_mmap_rwsem."""
    mapping.i_mmap_rwsem.down_write()
    hugetlb_vmdelete_list(k, mapping, start, end)
    mapping.i_mmap_rwsem.up_write()
    return 0


def remove_inode_hugepages(k: Kernel, mapping: AddressSpace, start: u64, end: u64) -> i32:
    """Take the pages ``[start, end)`` out of a file, and what is promised of them; in huge pages.

    Up to ``ULONG_MAX`` the file is truncated: nothing may be mapped there any more, for what is
    unmapped lies beyond its end. In a hole a fault may have been faster than we.
    """
    truncate_op: flag = end == ULONG_MAX
    order: i32 = mapping.hstate.order
    freed: i64 = 0
    idx: u64
    page: i64
    mutex: RwSem
    for idx in sorted(mapping.i_pages):
        if idx < start or idx >= end:
            continue
        mutex = hugetlb_fault_mutex(k, None, mapping, idx, 0)
        mutex.down_write()
        page = find_get_page(k, mapping, idx)
        if page and page_mapped(k, page):
            if truncate_op:
                BUG_PAGE("inode.c:444 remove_inode_hugepages: a truncated page is mapped", page)
            _unmap_file(k, mapping, idx << order, (idx + 1) << order)
        if page:
            _remove_one(k, mapping, idx, page, truncate_op)
            freed += 1
        mutex.up_write()
    if truncate_op:
        hugetlb_unreserve_pages(k, mapping, start, ULONG_MAX, freed)
    return 0


def _remove_one(k: Kernel, mapping: AddressSpace, idx: u64, page: u64, truncate_op: flag) -> i32:
    """Take one page out, with the reference that the search took."""
    lock_page(k, page)
    if PageFlag(k, page, PG_private):
        BUG_PAGE("inode.c:462 remove_inode_hugepages: a page of a file has a promise", page)
    remove_huge_page(k, page, mapping)
    if not truncate_op and hugetlb_unreserve_pages(k, mapping, idx, idx + 1, 1) < 0:
        # Without memory to take it out of the map it stays promised, as the map says.
        hugetlb_acct_memory(k, mapping.hstate, 1)
    unlock_page(k, page)
    return put_page(k, page)


def hugetlb_vmtruncate(k: Kernel, file: File, pages: u64) -> i32:
    """Make a file `pages` small pages long; 0, or -EINVAL if these are no huge ones."""
    mapping: AddressSpace = file.f_mapping
    one: u64 = 1
    if pages & ((one << mapping.hstate.order) - 1):
        return -EINVAL
    mapping.i_rwsem.down_write()
    mapping.size_pages = pages
    _unmap_file(k, mapping, pages, 0)
    remove_inode_hugepages(k, mapping, pages >> mapping.hstate.order, ULONG_MAX)
    mapping.i_rwsem.up_write()
    return 0


def hugetlbfs_punch_hole(k: Kernel, file: File, offset: u64, length: u64) -> i32:
    """Take the huge pages that lie within a range of bytes out of a file, which keeps its size."""
    mapping: AddressSpace = file.f_mapping
    shift: i32 = huge_page_shift(mapping.hstate)
    size: u64 = huge_page_size(mapping.hstate)
    first: u64 = (offset + size - 1) >> shift
    end: u64 = (offset + length) >> shift
    if end <= first:
        return 0
    mapping.i_rwsem.down_write()
    _unmap_file(k, mapping, first << mapping.hstate.order, end << mapping.hstate.order)
    remove_inode_hugepages(k, mapping, first, end)
    mapping.i_rwsem.up_write()
    return 0


def hugetlbfs_unlink(k: Kernel, file: File) -> i32:
    """Take a file's name away: it ends with its last mapping, or now if it has none."""
    file.anonymous = True
    file.f_count -= 1
    if file.f_count == 0:
        hugetlbfs_evict_inode(k, file.f_mapping)
        k.files.remove(file)
        k.mappings[file.f_mapping.handle] = None
    return 0


def hugetlbfs_evict_inode(k: Kernel, mapping: AddressSpace) -> i32:
    """A file ends that nobody has open or mapped: give its pages and promises back."""
    remove_inode_hugepages(k, mapping, 0, ULONG_MAX)
    resv_map_put(mapping.resv_map)
    return 0

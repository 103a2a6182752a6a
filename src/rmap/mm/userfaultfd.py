# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""userfaultfd: whose missing pages user space provides, and providing them.

fs/userfaultfd.c (register, unregister) and mm/userfaultfd.c (copy, zeropage) of v4.18; the waiting
half is `rmap.mm.uffd`.

Locks: mm->mmap_sem, for write to register, for read to provide pages; inside it what splitting and
merging VMAs take, or the page lock of a shmem page and the page-table lock.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_prepare
    from rmap.mm.bits import (
        _PAGE_SPECIAL,
        EBUSY,
        EEXIST,
        EFAULT,
        EINVAL,
        ENOENT,
        ENOMEM,
        GFP_HIGHUSER,
        GFP_KERNEL,
        MM_ANONPAGES,
        PAGE_MASK,
        PAGE_SIZE,
        TASK_SIZE,
        VM_SHARED,
        VM_UFFD_MISSING,
        VM_UFFD_WP,
        VM_WRITE,
        PG_swapbacked,
        PG_uptodate,
    )
    from rmap.mm.content import set_page_bytes
    from rmap.mm.lru import lru_cache_add, lru_cache_add_active_or_unevictable, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import init_zero_pfn
    from rmap.mm.mlock_page import mlock_vma_page_counted
    from rmap.mm.mm_types import AddressSpace, Kernel, Mm, Vma
    from rmap.mm.page import SetPage, trylock_page, unlock_page
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.page_cache import add_to_page_cache_locked, delete_from_page_cache
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        pfn_pte,
        pmd_offset,
        pmd_trans_huge,
        pte_alloc,
        pte_lock,
        pte_mkdirty,
        pte_mkwrite,
        pte_none,
        pte_unlock,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_counts import page_add_file_rmap, page_add_new_anon_rmap
    from rmap.mm.uffd import UserfaultfdCtx, userfaultfd_missing, wake_userfault
    from rmap.mm.vma import (
        find_vma,
        inc_mm_counter,
        linear_page_index,
        mm_counter_file,
        vma_is_anonymous,
    )
    from rmap.mm.vma_adjust import split_vma
    from rmap.mm.vma_merge import vma_merge
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- registering


def vma_can_userfault(vma: Vma) -> flag:
    """Whether somebody may be asked for the pages of a VMA: of anonymous memory and of shmem."""
    return vma_is_anonymous(vma) or vma.vm_file.f_mapping.shmem


def validate_range(start: u64, length: u64) -> i32:
    """Whether a range is one of whole pages in user space: 0 or -EINVAL."""
    if start & ~PAGE_MASK or length & ~PAGE_MASK or not length:
        return -EINVAL
    if start >= TASK_SIZE or length > TASK_SIZE - start:
        return -EINVAL
    return 0


def userfaultfd_register(k: Kernel, mm: Mm, start: u64, length: u64, ctx: UserfaultfdCtx) -> i32:
    """Ask `ctx` for missing pages in a range; 0 or a negative errno.

    -ENOMEM if no VMA lies at or behind the start, -EINVAL if none in the range or one of a file,
    -EBUSY if somebody else is asked already.
    """
    end: u64 = start + length
    error: i32 = validate_range(start, length)
    if error:
        return error
    mm.mmap_sem.down_write()
    vma: Vma = find_vma(k, mm, start)
    error = check_register(vma, end, ctx)
    if not error:
        ctx.mm = mm
        error = set_userfaultfd(k, mm, vma, start, end, ctx)
    mm.mmap_sem.up_write()
    return error


def check_register(vma: Vma, end: u64, ctx: UserfaultfdCtx) -> i32:
    """Whether all VMAs from `vma` up to `end` can be registered; `ctx` ``None``: unregistered."""
    if vma is None:
        return -ENOMEM
    if vma.vm_start >= end:
        return -EINVAL
    while vma is not None and vma.vm_start < end:
        if not vma_can_userfault(vma):
            return -EINVAL
        if ctx is not None and vma.vm_userfaultfd_ctx is not None:
            if vma.vm_userfaultfd_ctx is not ctx:
                return -EBUSY
        vma = vma.vm_next
    return 0


def set_userfaultfd(k: Kernel, mm: Mm, vma: Vma, start: u64, end: u64, ctx: UserfaultfdCtx) -> i32:
    """Let `ctx` (``None``: nobody) be asked for the pages of ``[start, end)``, VMA by VMA.

    Each is merged with neighbours that are now like it, or split off. The offset given to
    vma_merge() is that of the VMA even where the range begins inside of it, which in this version
    merely prevents a merge.
    """
    asked: u64 = VM_UFFD_MISSING | VM_UFFD_WP
    prev: Vma = vma if vma.vm_start < start else vma.vm_prev
    stop: u64
    flags: u64
    error: i32
    while vma is not None and vma.vm_start < end:
        flags = vma.vm_flags & ~asked
        if ctx is not None:
            flags |= VM_UFFD_MISSING
        if vma.vm_userfaultfd_ctx is not ctx or vma.vm_flags != flags:
            if vma.vm_start > start:
                start = vma.vm_start
            stop = end if end < vma.vm_end else vma.vm_end
            if userfaultfd_missing(vma):
                # Nobody would ever wake who still waits for a page of this range.
                wake_userfault(k, vma.vm_userfaultfd_ctx, start, stop)
            prev = vma_merge(
                k, mm, prev, start, stop, flags, vma.anon_vma, vma.vm_file, vma.vm_pgoff, ctx
            )
            if prev is not None:
                vma = prev
            else:
                error = _isolate_range(k, mm, vma, start, end)
                if error:
                    return error
            vma.vm_flags = flags
            vma.vm_userfaultfd_ctx = ctx
        prev = vma
        start = vma.vm_end
        vma = vma.vm_next
    return 0


def _isolate_range(k: Kernel, mm: Mm, vma: Vma, start: u64, end: u64) -> i32:
    """Split off what a VMA has in front of `start` and behind `end`; 0 or a negative errno."""
    error: i32 = 0
    if vma.vm_start < start:
        error = split_vma(k, mm, vma, start, 1)
    if not error and vma.vm_end > end:
        error = split_vma(k, mm, vma, end, 0)
    return error


def userfaultfd_unregister(k: Kernel, mm: Mm, start: u64, length: u64) -> i32:
    """Ask nobody any more for pages of a range; who waits for one is let go. 0 or -errno."""
    end: u64 = start + length
    error: i32 = validate_range(start, length)
    if error:
        return error
    mm.mmap_sem.down_write()
    vma: Vma = find_vma(k, mm, start)
    error = check_register(vma, end, None)
    if not error:
        error = set_userfaultfd(k, mm, vma, start, end, None)
    mm.mmap_sem.up_write()
    return error


def userfaultfd_release(k: Kernel, ctx: UserfaultfdCtx) -> i32:
    """The userfaultfd is closed: its VMAs are unregistered, and all who wait are let go."""
    mm: Mm = ctx.mm
    vma: Vma
    ctx.released = True
    if mm is not None:
        mm.mmap_sem.down_write()
        vma = mm.mmap
        while vma is not None:
            if vma.vm_userfaultfd_ctx is ctx:
                set_userfaultfd(k, mm, vma, vma.vm_start, vma.vm_end, None)
                # Merging may have replaced it: begin anew, with one fewer.
                vma = mm.mmap
            else:
                vma = vma.vm_next
        mm.mmap_sem.up_write()
    return wake_userfault(k, ctx, 0, TASK_SIZE)


# ---------------------------------------------------------------- providing pages


def mcopy_atomic(k: Kernel, mm: Mm, start: u64, data: bytes) -> i64:
    """Provide pages from `start` on that begin with `data` (UFFDIO_COPY), and wake who waits.

    Returns how many bytes, or a negative errno if not one page: -EEXIST if one is there already,
    -ENOENT if the range is not in one VMA that is registered.
    """
    pages: u64 = (len(data) + PAGE_SIZE - 1) // PAGE_SIZE
    return _mfill_atomic(k, mm, start, pages if pages else 1, data)


def mfill_zeropage(k: Kernel, mm: Mm, start: u64, length: u64 = PAGE_SIZE) -> i64:
    """Provide zeroed pages (UFFDIO_ZEROPAGE); returns as `mcopy_atomic` does."""
    return _mfill_atomic(k, mm, start, length // PAGE_SIZE, None)


def _mfill_atomic(k: Kernel, mm: Mm, start: u64, pages: u64, data: bytes) -> i64:
    """Provide `pages` pages of `data`, or of zeros if that is ``None``."""
    error: i32 = validate_range(start, pages * PAGE_SIZE)
    if error:
        return error
    mm.mmap_sem.down_read()
    copied: i64 = 0
    vma: Vma = find_vma(k, mm, start)
    error = _check_fill(k, vma, start, start + pages * PAGE_SIZE)
    ctx: UserfaultfdCtx = None if error else vma.vm_userfaultfd_ctx
    size: i64 = pages * PAGE_SIZE
    while not error and copied < size:
        error = mfill_atomic_pte(
            k, vma, start + copied, None if data is None else data[copied : copied + PAGE_SIZE]
        )
        if not error:
            copied += PAGE_SIZE
    mm.mmap_sem.up_read()
    if copied:
        wake_userfault(k, ctx, start, start + copied)
        return copied
    return error


def _check_fill(k: Kernel, vma: Vma, start: u64, end: u64) -> i32:
    """Whether pages may be provided in a range of a VMA; gives it its anon_vma."""
    if vma is None or vma.vm_userfaultfd_ctx is None:
        return -ENOENT
    if start < vma.vm_start or end > vma.vm_end:
        return -ENOENT
    if _fills_anonymous(k, vma) and anon_vma_prepare(k, vma):
        return -ENOMEM
    return 0


def _fills_anonymous(k: Kernel, vma: Vma) -> flag:
    """Whether a page provided is a process's own.

    In v4.18 it is the file's in every mapping of shmem, in private ones as well, and there even
    writable.
    """
    if vma_is_anonymous(vma):
        return True
    return k.profile.uffd_copies_private_shmem and not vma.vm_flags & VM_SHARED


def mfill_atomic_pte(k: Kernel, vma: Vma, address: u64, data: bytes) -> i32:
    """Provide one page. 0 or a negative errno: -EEXIST also where a huge page is mapped."""
    pmd: u64 = pmd_offset(k, vma.vm_mm, address)
    if pmd and pmd_trans_huge(k.pt[pmd]):
        return -EEXIST
    if not _fills_anonymous(k, vma):
        return shmem_mfill_atomic_pte(k, vma, address, b"" if data is None else data)
    if data is None:
        return mfill_zeropage_pte(k, vma, address)
    return mcopy_atomic_pte(k, vma, address, data)


def _provided_pte(vma: Vma, page: u64) -> u64:
    """The entry for a page that was provided: writable and dirty if the VMA is writable."""
    entry: u64 = pfn_pte(page, vma.vm_page_prot)
    if vma.vm_flags & VM_WRITE:
        entry = pte_mkwrite(pte_mkdirty(entry))
    return entry


def _check_pte(k: Kernel, vma: Vma, address: u64, ptep: u64) -> i32:
    """Whether an entry may be filled; its table is locked. 0, -EFAULT or -EEXIST.

    -EFAULT, with quirk ``uffd_checks_file_size``, beyond the end of the file, which may have been
    truncated only just now.
    """
    if k.profile.uffd_checks_file_size and vma.vm_file is not None:
        if linear_page_index(k, vma, address) >= vma.vm_file.f_mapping.size_pages:
            return -EFAULT
    if not pte_none(ptep_get(k, ptep)):
        return -EEXIST
    return 0


def mcopy_atomic_pte(k: Kernel, vma: Vma, address: u64, data: bytes) -> i32:
    """Map a new anonymous page that begins with `data`."""
    mm: Mm = vma.vm_mm
    page: u64 = alloc_page(k, GFP_HIGHUSER)
    if not page:
        return -ENOMEM
    set_page_bytes(k, page, data)
    SetPage(k, page, PG_uptodate)
    ptep: u64 = 0
    if not mem_cgroup_try_charge(k, page, mm.memcg, GFP_KERNEL):
        ptep = pte_alloc(k, mm, address)
    if not ptep:
        put_page(k, page)
        return -ENOMEM
    pte_lock(k, ptep)
    error: i32 = _check_pte(k, vma, address, ptep)
    if error:
        pte_unlock(k, ptep)
        put_page(k, page)
        return error
    inc_mm_counter(k, mm, MM_ANONPAGES)
    page_add_new_anon_rmap(k, page, vma, address, False)
    lru_cache_add_active_or_unevictable(k, page, vma)
    set_pte_at(k, mm, address, ptep, _provided_pte(vma, page))
    pte_unlock(k, ptep)
    if k.tracer is not None:
        k.tracer("mcopy_atomic_pte", (page, vma, address))
    return 0


def mfill_zeropage_pte(k: Kernel, vma: Vma, address: u64) -> i32:
    """Map the zero page."""
    mm: Mm = vma.vm_mm
    zero: u64 = init_zero_pfn(k)
    ptep: u64 = pte_alloc(k, mm, address)
    if not zero or not ptep:
        return -ENOMEM
    pte_lock(k, ptep)
    error: i32 = _check_pte(k, vma, address, ptep)
    if not error:
        set_pte_at(k, mm, address, ptep, pfn_pte(zero, vma.vm_page_prot) | _PAGE_SPECIAL)
    pte_unlock(k, ptep)
    return error


def shmem_mfill_atomic_pte(k: Kernel, vma: Vma, address: u64, data: bytes) -> i32:
    """Fill a hole of a shmem file with a page that begins with `data`, and map it."""
    mm: Mm = vma.vm_mm
    mapping: AddressSpace = vma.vm_file.f_mapping
    index: u64 = linear_page_index(k, vma, address)
    page: u64 = alloc_page(k, GFP_HIGHUSER)
    if not page:
        return -ENOMEM
    set_page_bytes(k, page, data)
    trylock_page(k, page)
    SetPage(k, page, PG_swapbacked | PG_uptodate)
    error: i32 = 0
    if k.profile.uffd_checks_file_size and index >= mapping.size_pages:
        error = -EFAULT
    if not error:
        error = mem_cgroup_try_charge(k, page, mm.memcg, GFP_KERNEL)
    if not error:
        error = add_to_page_cache_locked(k, page, mapping, index, 0)
    if not error:
        lru_cache_add(k, page)
        error = _map_shmem_page(k, vma, address, page)
        if error:
            delete_from_page_cache(k, page)
    unlock_page(k, page)
    if error:
        put_page(k, page)
    return error


def _map_shmem_page(k: Kernel, vma: Vma, address: u64, page: u64) -> i32:
    """Map a page that has just become a file's; 0 or a negative errno."""
    mm: Mm = vma.vm_mm
    ptep: u64 = pte_alloc(k, mm, address)
    if not ptep:
        return -ENOMEM
    pte_lock(k, ptep)
    error: i32 = _check_pte(k, vma, address, ptep)
    if error:
        pte_unlock(k, ptep)
        return error
    inc_mm_counter(k, mm, mm_counter_file(k, page))
    page_add_file_rmap(k, page, False)
    if k.profile.mlock_counts:
        mlock_vma_page_counted(k, page, vma, False)
    if k.profile.uffd_dirties_shmem and not vma.vm_flags & VM_WRITE:
        # The entry will not say that the content is nowhere else.
        set_page_dirty(k, page)
    set_pte_at(k, mm, address, ptep, _provided_pte(vma, page))
    return pte_unlock(k, ptep)

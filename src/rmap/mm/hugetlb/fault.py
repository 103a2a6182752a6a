# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Faults on huge pages: the first access, and copy on write (mm/hugetlb.c, v4.18).

Locks, outermost first: mm->mmap_sem for read (the caller's); what `huge_pte_alloc` takes, and gives
back; the mutex of the fault; the page lock of the page in the file, that of the page that is
mapped by trylock; what anon_vma_prepare() or unmapping takes; the page-table lock, which is dropped
and taken again around allocations.

The mutex makes two faults on the same page take one page out of the pool, not two of which one
comes too late: with a small pool that would be a failure for nothing.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_prepare
    from rmap.mm.bits import (
        _PAGE_DIRTY,
        _PAGE_RW,
        _PAGE_SOFT_DIRTY,
        ENOMEM,
        FAULT_FLAG_UNSHARE,
        FAULT_FLAG_WRITE,
        HPAGE_RESV_OWNER,
        HPAGE_RESV_UNMAPPED,
        VM_FAULT_HWPOISON,
        VM_FAULT_HWPOISON_LARGE,
        VM_FAULT_OOM,
        VM_FAULT_SIGBUS,
        VM_MAYSHARE,
        VM_SHARED,
        VM_WRITE,
        PG_private,
        PG_uptodate,
    )
    from rmap.mm.content import clear_page_content, copy_page_content
    from rmap.mm.hugetlb.file import (
        find_lock_huge_page,
        huge_add_to_page_cache,
        hugetlb_fault_mutex,
    )
    from rmap.mm.hugetlb.pgtable import (
        huge_pte_alloc,
        huge_pte_offset,
        huge_ptep_clear_flush,
        is_hugetlb_entry_hwpoisoned,
        is_hugetlb_entry_migration,
        make_huge_pte,
    )
    from rmap.mm.hugetlb.pool import (
        hstate_vma,
        huge_page_size,
        hugetlb_count_add,
        pages_per_huge_page,
        set_page_huge_active,
        vma_hugecache_offset,
    )
    from rmap.mm.hugetlb.reserve import (
        alloc_huge_page,
        is_vma_resv_set,
        restore_reserve_on_error,
        vma_end_reservation,
        vma_needs_reservation,
    )
    from rmap.mm.hugetlb.unmap import unmap_ref_private
    from rmap.mm.lru import put_page
    from rmap.mm.memory import ptep_set_access_flags, wait_on_page_locked
    from rmap.mm.migrate.entries import migration_entry_wait
    from rmap.mm.mm_types import AddressSpace, Hstate, Kernel, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range,
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
    )
    from rmap.mm.page import (
        ClearPage,
        PageAnon,
        PageHWPoison,
        SetPage,
        get_page,
        lock_page,
        page_mapcount,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.pgtable import (
        pte_lock,
        pte_mkdirty,
        pte_mkyoung,
        pte_none,
        pte_pfn,
        pte_present,
        pte_unlock,
        pte_write,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_counts import (
        hugepage_add_new_anon_rmap,
        page_dup_rmap,
        page_move_anon_rmap,
        page_remove_rmap,
    )
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.locks import RwSem


class HugeFault:
    """A fault on a huge page: where, in which mapping, and the entry as it was seen.

    `address` is that of the page, `idx` its offset in the file, `pagecache_page` the page that
    the file has there, locked, if the fault has looked for it.
    """

    def __init__(self, vma: Vma, address: u64, flags: u64) -> None:
        self.vma = vma
        self.mm = vma.vm_mm
        self.h = hstate_vma(vma)
        self.size = huge_page_size(self.h)
        self.address = address & ~(self.size - 1)
        self.flags = flags
        self.mapping: AddressSpace = vma.vm_file.f_mapping
        self.idx = vma_hugecache_offset(self.h, vma, self.address)
        self.ptep = 0
        self.entry = 0
        self.pagecache_page = 0
        self.result = 0

    def wants_own(self) -> flag:
        """Whether the fault is one that makes a page this process's own."""
        return self.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) != 0


def hugetlb_fault(k: Kernel, vma: Vma, address: u64, flags: u64) -> i32:
    """Resolve a fault at an address of a hugetlb VMA; returns ``VM_FAULT_`` bits.

    mmap_sem is held for read, and stays so.
    """
    vma.vm_mm.mmap_sem.assert_held_any()
    f: HugeFault = HugeFault(vma, address, flags)
    entry: u64
    f.ptep = huge_pte_offset(k, f.mm, f.address, f.size)
    if f.ptep:
        entry = ptep_get(k, f.ptep)
        if is_hugetlb_entry_migration(entry):
            migration_entry_wait(k, f.ptep)
            return 0
        if is_hugetlb_entry_hwpoisoned(entry):
            return VM_FAULT_HWPOISON_LARGE
    else:
        f.ptep = huge_pte_alloc(k, f.mm, f.address, f.size)
        if not f.ptep:
            return VM_FAULT_OOM
    mutex: RwSem = hugetlb_fault_mutex(k, vma, f.mapping, f.idx, f.address)
    mutex.down_write()
    f.entry = ptep_get(k, f.ptep)
    ret: i32 = 0
    wait_for: u64 = 0
    if pte_none(f.entry):
        ret = hugetlb_no_page(k, f)
    elif pte_present(f.entry):
        ret = _get_copies_ready(k, f)
        if not ret:
            wait_for = _fault_present(k, f)
            ret = f.result
    mutex.up_write()
    if wait_for:
        # Somebody migrates it. No reference is taken: the mapping's is enough, until that goes.
        wait_on_page_locked(k, wait_for)
    if k.tracer is not None:
        k.tracer("hugetlb_fault", (vma, f.address, flags, ret))
    return ret


def _get_copies_ready(k: Kernel, f: HugeFault) -> i32:
    """Before the page-table lock is taken: what a copy needs, and the page in the file, locked."""
    if not f.wants_own() or pte_write(f.entry):
        return 0
    # Asked now, as the map may need memory; the copy asks once more, and does not.
    if vma_needs_reservation(k, f.h, f.vma, f.address) < 0:
        return VM_FAULT_OOM
    vma_end_reservation(k, f.h, f.vma, f.address)
    if not f.vma.vm_flags & VM_MAYSHARE:
        f.pagecache_page = find_lock_huge_page(k, f.mapping, f.idx)
    return 0


def _fault_present(k: Kernel, f: HugeFault) -> u64:
    """A fault on an entry that maps a page. Returns a page to wait for, as it could not be locked.

    The result is left in ``f.result``.
    """
    wait_for: u64 = 0
    page: u64 = pte_pfn(f.entry)
    ours: flag = page != f.pagecache_page
    f.result = 0
    pte_lock(k, f.ptep)
    if ptep_get(k, f.ptep) == f.entry:
        if ours and not trylock_page(k, page):
            wait_for = page
        else:
            get_page(k, page)
            f.result = _use_present(k, f)
            if ours:
                unlock_page(k, page)
            put_page(k, page)
    pte_unlock(k, f.ptep)
    if f.pagecache_page:
        unlock_page(k, f.pagecache_page)
        put_page(k, f.pagecache_page)
    return wait_for


def _use_present(k: Kernel, f: HugeFault) -> i32:
    """Make a present entry permit what was asked for. Its table is locked, and its page."""
    entry: u64 = f.entry
    if f.wants_own() and not pte_write(entry):
        return hugetlb_cow(k, f)
    if f.flags & FAULT_FLAG_WRITE:
        entry = pte_mkdirty(entry)
    entry = pte_mkyoung(entry)
    ptep_set_access_flags(k, f.vma, f.address, f.ptep, entry, f.flags & FAULT_FLAG_WRITE != 0)
    return 0


# ---------------------------------------------------------------- the first access


def hugetlb_no_page(k: Kernel, f: HugeFault) -> i32:
    """Map a page where none is mapped yet: the file's, or a new one. The mutex is held."""
    vma: Vma = f.vma
    if is_vma_resv_set(vma, HPAGE_RESV_UNMAPPED):
        # What was here is gone, to the owner's benefit. Zeros would be a lie.
        return VM_FAULT_SIGBUS
    anon_rmap: flag = False
    page: i64
    while True:
        page = find_lock_huge_page(k, f.mapping, f.idx)
        if page:
            if PageHWPoison(k, page):
                return _back_out(k, f, page, VM_FAULT_HWPOISON)
            break
        if f.idx >= f.mapping.size_pages >> f.h.order:
            return VM_FAULT_SIGBUS
        page = alloc_huge_page(k, vma, f.address, False)
        if page < 0:
            return VM_FAULT_OOM if page == -ENOMEM else VM_FAULT_SIGBUS
        _clear_huge_page(k, page, f.h)
        if not vma.vm_flags & VM_MAYSHARE:
            lock_page(k, page)
            if anon_vma_prepare(k, vma):
                return _back_out(k, f, page, VM_FAULT_OOM)
            anon_rmap = True
            break
        if not huge_add_to_page_cache(k, page, f.mapping, f.idx):
            break
        # Somebody else was faster, with another mapping of the file.
        put_page(k, page)
    if f.flags & FAULT_FLAG_WRITE and not vma.vm_flags & VM_SHARED:
        if vma_needs_reservation(k, f.h, vma, f.address) < 0:
            return _back_out(k, f, page, VM_FAULT_OOM)
        vma_end_reservation(k, f.h, vma, f.address)
    return _map_page(k, f, page, anon_rmap)


def _map_page(k: Kernel, f: HugeFault, page: u64, anon_rmap: flag) -> i32:
    """Map a locked page, unless the file has become shorter or the entry is not empty any more."""
    vma: Vma = f.vma
    ret: i32 = 0
    pages: i64 = pages_per_huge_page(f.h)
    pte_lock(k, f.ptep)
    if f.idx >= f.mapping.size_pages >> f.h.order:
        pte_unlock(k, f.ptep)
        return _back_out(k, f, page, VM_FAULT_SIGBUS)
    if not pte_none(ptep_get(k, f.ptep)):
        pte_unlock(k, f.ptep)
        return _back_out(k, f, page, 0)
    if anon_rmap:
        ClearPage(k, page, PG_private)
        hugepage_add_new_anon_rmap(k, page, vma, f.address)
    else:
        page_dup_rmap(k, page, True)
    writable: flag = vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED
    f.entry = make_huge_pte(vma, page, writable)
    set_pte_at(k, f.mm, f.address, f.ptep, f.entry)
    hugetlb_count_add(f.mm, pages)
    if f.flags & FAULT_FLAG_WRITE and not vma.vm_flags & VM_SHARED:
        # The copy (or, of a new page, the permission) at once, without another fault.
        f.pagecache_page = page
        ret = hugetlb_cow(k, f)
    pte_unlock(k, f.ptep)
    unlock_page(k, page)
    return ret


def _back_out(k: Kernel, f: HugeFault, page: u64, ret: i32) -> i32:
    """Give a locked page back that will not be mapped; returns `ret`."""
    unlock_page(k, page)
    restore_reserve_on_error(k, f.h, f.vma, f.address, page)
    put_page(k, page)
    return ret


def _clear_huge_page(k: Kernel, page: u64, h: Hstate) -> i32:
    """Make a page out of the pool one of zeros, in use: clear_huge_page()."""
    i: u64
    if k.content:
        for i in range(pages_per_huge_page(h)):
            clear_page_content(k, page + i)
    SetPage(k, page, PG_uptodate)
    return set_page_huge_active(k, page)


# ---------------------------------------------------------------- copy on write


def hugetlb_cow(k: Kernel, f: HugeFault) -> i32:
    """Give the process a page of its own for one that others may have; ``VM_FAULT_`` bits.

    The table is locked, and so are the page and the one in the file; the lock of the table is
    dropped in between, and held again at the end.
    """
    vma: Vma = f.vma
    old: u64 = pte_pfn(f.entry)
    outside_reserve: flag
    new: i64
    while True:
        if page_mapcount(k, old) == 1 and PageAnon(k, old):
            return _reuse(k, f, old)
        # The owner's promises are for pages that it has not touched yet. Only a page that it
        # shares with a child is copied on none; one of the file has its promise still.
        outside_reserve = is_vma_resv_set(vma, HPAGE_RESV_OWNER) and old != f.pagecache_page
        get_page(k, old)
        pte_unlock(k, f.ptep)
        new = alloc_huge_page(k, vma, f.address, outside_reserve)
        if new >= 0:
            return _copy(k, f, old, new)
        put_page(k, old)
        if not outside_reserve:
            pte_lock(k, f.ptep)
            return VM_FAULT_OOM if new == -ENOMEM else VM_FAULT_SIGBUS
        unmap_ref_private(k, vma, old, f.address)
        if not _retake(k, f):
            return 0


def _retake(k: Kernel, f: HugeFault) -> flag:
    """Lock the table again; whether the entry is what it was."""
    ptep: u64
    pte_lock(k, f.ptep)
    ptep = huge_pte_offset(k, f.mm, f.address, f.size)
    return ptep == f.ptep and ptep_get(k, ptep) == f.entry


def _reuse(k: Kernel, f: HugeFault, page: u64) -> i32:
    """Nobody else maps the page: it is this process's (set_huge_ptep_writable())."""
    page_move_anon_rmap(k, page, f.vma)
    if f.flags & FAULT_FLAG_UNSHARE:
        return 0
    entry: u64 = ptep_get(k, f.ptep) | _PAGE_RW | _PAGE_DIRTY | _PAGE_SOFT_DIRTY
    ptep_set_access_flags(k, f.vma, f.address, f.ptep, entry, True)
    return 0


def _copy(k: Kernel, f: HugeFault, old: u64, new: u64) -> i32:
    """Copy a page, and map the copy if nothing has changed meanwhile. The table is locked after."""
    vma: Vma = f.vma
    end: u64 = f.address + f.size
    ret: i32 = 0
    if anon_vma_prepare(k, vma):
        # A page of the file may be mapped in a VMA that has no anon_vma yet.
        ret = VM_FAULT_OOM
    else:
        copy_huge_page(k, new, old, f.h)
        mmu_notifier_invalidate_range_start(k, f.mm, f.address, end)
        if _retake(k, f):
            ClearPage(k, new, PG_private)
            huge_ptep_clear_flush(k, vma, f.address, f.ptep, f.size)
            mmu_notifier_invalidate_range(k, f.mm, f.address, end)
            set_pte_at(k, f.mm, f.address, f.ptep, _copied_entry(f, new))
            page_remove_rmap(k, old, True)
            hugepage_add_new_anon_rmap(k, new, vma, f.address)
            # What is given back below is the mapping's reference to the old one.
            new = old
        pte_unlock(k, f.ptep)
        mmu_notifier_invalidate_range_end(k, f.mm, f.address, end)
    restore_reserve_on_error(k, f.h, vma, f.address, new)
    put_page(k, new)
    put_page(k, old)
    pte_lock(k, f.ptep)
    if k.tracer is not None:
        k.tracer("hugetlb_cow", (old, new, vma, f.address))
    return ret


def _copied_entry(f: HugeFault, new: u64) -> u64:
    """The entry of a copy: writable, unless it was only to be unshared."""
    return make_huge_pte(f.vma, new, not f.flags & FAULT_FLAG_UNSHARE)


def copy_huge_page(k: Kernel, new: u64, old: u64, h: Hstate) -> i32:
    """Make a page out of the pool one with another's contents, in use: copy_user_huge_page()."""
    i: u64
    if k.content:
        for i in range(pages_per_huge_page(h)):
            copy_page_content(k, new + i, old + i)
    SetPage(k, new, PG_uptodate)
    return set_page_huge_active(k, new)

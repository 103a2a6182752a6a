# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Faults on files and shared memory where no entry is yet (mm/memory.c, v4.18).

Locks: mmap_sem for read is held. The file gives its page locked, so that it cannot be truncated
before the entry is set; then comes the page-table lock (that of the table of PMDs, for a huge page
as a whole). Fault-around only tries for page locks, as it has the page-table lock already.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_prepare
    from rmap.mm.bits import (
        FAULT_FLAG_WRITE,
        GFP_HIGHUSER,
        GFP_KERNEL,
        HPAGE_PMD_NR,
        MM_ANONPAGES,
        PAGE_SHIFT,
        PMD_MASK,
        PTRS_PER_PTE,
        THP_FILE_MAPPED,
        VM_FAULT_DONE_COW,
        VM_FAULT_ERROR,
        VM_FAULT_FALLBACK,
        VM_FAULT_HWPOISON,
        VM_FAULT_LOCKED,
        VM_FAULT_NOPAGE,
        VM_FAULT_OOM,
        VM_FAULT_RETRY,
        VM_SHARED,
        PG_hwpoison,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import copy_page_content
    from rmap.mm.fault_wp import do_page_mkwrite, fault_dirty_shared_page
    from rmap.mm.filemap import vma_fault
    from rmap.mm.huge.pgtable import mk_huge_pmd, transhuge_vma_suitable
    from rmap.mm.lru import lru_cache_add_active_or_unevictable, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import VmFault, maybe_mkwrite
    from rmap.mm.mlock_page import mlock_vma_page_counted
    from rmap.mm.mm_types import AddressSpace, Kernel, Mm, Vma
    from rmap.mm.page import (
        PageFlag,
        PageHWPoison,
        PageLocked,
        PageTransCompound,
        SetPage,
        compound_head,
        get_page_unless_zero,
        lock_page,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.page_cache import page_cache_item, page_in_mapping
    from rmap.mm.pgtable import (
        pfn_pte,
        pmd_trans_huge,
        pte_alloc_map,
        pte_lock,
        pte_mkdirty,
        pte_none,
        pte_unlock,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_counts import page_add_file_rmap, page_add_new_anon_rmap
    from rmap.mm.vma import (
        add_mm_counter,
        inc_mm_counter,
        mm_counter_file,
        mm_counter_huge_file,
        vma_pages,
    )
    from rmap.scalar import flag, i32, i64, u64


def do_fault(k: Kernel, vmf: VmFault) -> i32:
    """Resolve a fault on a VMA with a file, where there is no entry. Returns VM_FAULT_ bits."""
    if not vmf.flags & FAULT_FLAG_WRITE:
        return do_read_fault(k, vmf)
    if not vmf.vma.vm_flags & VM_SHARED:
        return do_cow_fault(k, vmf)
    return do_shared_fault(k, vmf)


def _failed(ret: i32) -> flag:
    """Whether a step has ended the fault: by an error, or because there is nothing left to do."""
    return ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY) != 0


def do_read_fault(k: Kernel, vmf: VmFault) -> i32:
    """Map the file's page for reading; with fault-around, its cached neighbours as well."""
    ret: i32
    if k.fault_around > 1:
        ret = do_fault_around(k, vmf)
        if ret:
            return ret
    ret = file_fault(k, vmf)
    if _failed(ret):
        return ret
    ret |= finish_fault(k, vmf)
    unlock_page(k, vmf.page)
    if _failed(ret):
        put_page(k, vmf.page)
    return ret


def do_cow_fault(k: Kernel, vmf: VmFault) -> i32:
    """Map a private copy of the file's page, which never was mapped itself."""
    if anon_vma_prepare(k, vmf.vma):
        return VM_FAULT_OOM
    vmf.cow_page = alloc_page(k, GFP_HIGHUSER)
    if not vmf.cow_page:
        return VM_FAULT_OOM
    if mem_cgroup_try_charge(k, vmf.cow_page, vmf.vma.vm_mm.memcg, GFP_KERNEL):
        put_page(k, vmf.cow_page)
        return VM_FAULT_OOM
    ret: i32 = file_fault(k, vmf)
    if _failed(ret):
        put_page(k, vmf.cow_page)
        return ret
    if ret & VM_FAULT_DONE_COW:
        return ret
    copy_page_content(k, vmf.cow_page, vmf.page)
    SetPage(k, vmf.cow_page, PG_uptodate)
    ret |= finish_fault(k, vmf)
    unlock_page(k, vmf.page)
    put_page(k, vmf.page)
    if _failed(ret):
        put_page(k, vmf.cow_page)
    return ret


def do_shared_fault(k: Kernel, vmf: VmFault) -> i32:
    """Map the file's page for writing, after the file has had its say (page_mkwrite)."""
    vma: Vma = vmf.vma
    ret: i32 = file_fault(k, vmf)
    if _failed(ret):
        return ret
    mkwrite: i32
    if vma.vm_file.f_mapping.writenotify:
        unlock_page(k, vmf.page)
        mkwrite = do_page_mkwrite(k, vmf)
        if mkwrite & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
            put_page(k, vmf.page)
            return mkwrite
    ret |= finish_fault(k, vmf)
    if _failed(ret):
        unlock_page(k, vmf.page)
        put_page(k, vmf.page)
        return ret
    fault_dirty_shared_page(k, vma, vmf.page)
    return ret


def file_fault(k: Kernel, vmf: VmFault) -> i32:
    """Get the page from the file, locked and with a reference, in ``vmf.page``: __do_fault()."""
    ret: i32 = vma_fault(k, vmf)
    if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE | VM_FAULT_RETRY | VM_FAULT_DONE_COW):
        return ret
    if PageHWPoison(k, vmf.page):
        if ret & VM_FAULT_LOCKED:
            unlock_page(k, vmf.page)
        put_page(k, vmf.page)
        return VM_FAULT_HWPOISON
    if not ret & VM_FAULT_LOCKED:
        lock_page(k, vmf.page)
    elif not PageLocked(k, vmf.page):
        BUG_PAGE("memory.c __do_fault: the file's page is not locked", vmf.page)
    return ret


# ---------------------------------------------------------------- setting the entry


def finish_fault(k: Kernel, vmf: VmFault) -> i32:
    """Set the entry for the file's page, or for the copy of it; the page-table lock is dropped.

    The entry takes over the reference.
    """
    page: u64 = vmf.page
    if vmf.flags & FAULT_FLAG_WRITE and not vmf.vma.vm_flags & VM_SHARED:
        page = vmf.cow_page
    ret: i32 = alloc_set_pte(k, vmf, page)
    if vmf.pte:
        pte_unlock(k, vmf.pte)
    return ret


def alloc_set_pte(k: Kernel, vmf: VmFault, page: u64) -> i32:
    """Set the entry of the fault's address, making its table if need be.

    Returns with the page-table lock held if ``vmf.pte`` is set. VM_FAULT_NOPAGE: another thread
    was faster.
    """
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    write: flag = vmf.flags & FAULT_FLAG_WRITE != 0
    if pte_none(k.pt[vmf.pmd]) and PageTransCompound(k, page):
        if not do_set_pmd(k, vmf, page):
            return 0
    if not vmf.pte:
        if pmd_trans_huge(k.pt[vmf.pmd]):
            # Another thread has mapped a huge page meanwhile.
            return VM_FAULT_NOPAGE
        vmf.pte = pte_alloc_map(k, mm, vmf.pmd, vmf.address)
        if not vmf.pte:
            return VM_FAULT_OOM
        pte_lock(k, vmf.pte)
    if not pte_none(ptep_get(k, vmf.pte)):
        return VM_FAULT_NOPAGE
    entry: u64 = pfn_pte(page, vma.vm_page_prot)
    if write:
        entry = maybe_mkwrite(pte_mkdirty(entry), vma)
    if write and not vma.vm_flags & VM_SHARED:
        inc_mm_counter(k, mm, MM_ANONPAGES)
        page_add_new_anon_rmap(k, page, vma, vmf.address, False)
        lru_cache_add_active_or_unevictable(k, page, vma)
    else:
        inc_mm_counter(k, mm, mm_counter_file(k, page))
        page_add_file_rmap(k, page, False)
        if k.profile.mlock_counts:
            mlock_vma_page_counted(k, page, vma, False)
    set_pte_at(k, mm, vmf.address, vmf.pte, entry)
    if k.tracer is not None:
        k.tracer("alloc_set_pte", (page, vma, vmf.address, write))
    return 0


def do_set_pmd(k: Kernel, vmf: VmFault, page: u64) -> i32:
    """Map the whole huge page that `page` is part of by the PMD; 0, or VM_FAULT_FALLBACK.

    mm/memory.c:3308 (v4.18). The PMD takes over the reference. No page table is put aside for the
    time when it is split: PTEs of a file can be faulted in again.
    """
    vma: Vma = vmf.vma
    haddr: u64 = vmf.address & PMD_MASK
    write: flag = vmf.flags & FAULT_FLAG_WRITE != 0
    if not transhuge_vma_suitable(vma, haddr):
        return VM_FAULT_FALLBACK
    page = compound_head(k, page)
    pte_lock(k, vmf.pmd)
    if not pte_none(ptep_get(k, vmf.pmd)):
        pte_unlock(k, vmf.pmd)
        return VM_FAULT_FALLBACK
    entry: u64 = mk_huge_pmd(page, vma.vm_page_prot)
    if write:
        entry = maybe_mkwrite(pte_mkdirty(entry), vma)
    add_mm_counter(k, vma.vm_mm, mm_counter_huge_file(k, page), HPAGE_PMD_NR)
    page_add_file_rmap(k, page, True)
    if k.profile.mlock_counts:
        mlock_vma_page_counted(k, page, vma, True)
    set_pte_at(k, vma.vm_mm, haddr, vmf.pmd, entry)
    k.vm_stat[THP_FILE_MAPPED] += 1
    pte_unlock(k, vmf.pmd)
    if k.tracer is not None:
        k.tracer("do_set_pmd", (page, vma, haddr, write))
    return 0


# ---------------------------------------------------------------- fault-around


def do_fault_around(k: Kernel, vmf: VmFault) -> i32:
    """Map what the page cache has around the address, within its table and VMA.

    VM_FAULT_NOPAGE if that has mapped the address itself, else 0.
    """
    vma: Vma = vmf.vma
    address: u64 = vmf.address
    pgoff: u64 = vmf.pgoff
    span: u64 = k.fault_around << PAGE_SHIFT
    first: u64 = address // span * span
    if first < vma.vm_start:
        first = vma.vm_start
    start: u64 = pgoff - ((address - first) >> PAGE_SHIFT)
    end: u64 = start + k.fault_around - 1
    in_table: u64 = PTRS_PER_PTE - (first >> PAGE_SHIFT & (PTRS_PER_PTE - 1))
    if end > start + in_table - 1:
        end = start + in_table - 1
    if end > vma.vm_pgoff + vma_pages(vma) - 1:
        end = vma.vm_pgoff + vma_pages(vma) - 1
    vmf.address = first
    filemap_map_pages(k, vmf, start, end)
    ret: i32 = 0
    if pmd_trans_huge(k.pt[vmf.pmd]):
        ret = VM_FAULT_NOPAGE
    elif vmf.pte:
        vmf.pte = (
            vmf.pte + ((address - first) >> PAGE_SHIFT) - ((vmf.address - first) >> PAGE_SHIFT)
        )
        if not pte_none(ptep_get(k, vmf.pte)):
            ret = VM_FAULT_NOPAGE
        pte_unlock(k, vmf.pte)
    vmf.address = address
    vmf.pte = 0
    return ret


def filemap_map_pages(k: Kernel, vmf: VmFault, start: u64, end: u64) -> i32:
    """Map pages `start` to `end` of the file, as far as they are cached and nobody is busy with.

    mm/filemap.c (v4.18). ``vmf.address`` is that of `start`, and at return that of the last page
    looked at; the page-table lock is held then if ``vmf.pte`` is set.
    """
    mapping: AddressSpace = vmf.vma.vm_file.f_mapping
    index: u64
    base: u64 = vmf.address
    address: u64
    page: i64
    for index in range(start, end + 1):
        page = page_cache_item(mapping, index)
        if page <= 0 or not get_page_unless_zero(k, compound_head(k, page)):
            continue
        address = base + ((index - start) << PAGE_SHIFT)
        if vmf.pte:
            vmf.pte += (address - vmf.address) >> PAGE_SHIFT
        vmf.address = address
        if not _map_cached_page(k, vmf, mapping, index, page):
            put_page(k, page)
        if pmd_trans_huge(k.pt[vmf.pmd]):
            break
    return 0


def _map_cached_page(k: Kernel, vmf: VmFault, mapping: AddressSpace, index: u64, page: u64) -> flag:
    """Map one page of the cache if it is whole, still there and not locked; whether it was.

    Of a huge page only the head names the file, so that one is mapped as a whole, or but its head.
    """
    mapped: flag = False
    head: u64 = compound_head(k, page)
    if page_cache_item(mapping, index) != page or PageFlag(k, page, PG_hwpoison):
        return False
    if not PageFlag(k, head, PG_uptodate) or not trylock_page(k, page):
        return False
    if head == page and page_in_mapping(k, page, mapping) and PageFlag(k, page, PG_uptodate):
        if index < mapping.size_pages:
            mapped = alloc_set_pte(k, vmf, page) == 0
    unlock_page(k, page)
    return mapped

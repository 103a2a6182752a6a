# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Faults on entries that are not present: swap-in, and waiting for migration (mm/memory.c, v4.18).

Locks: mmap_sem for read is held; the page lock of the swap cache's page, then the page-table lock,
and inside it what rmap, the LRU and swap need. A page is found without any of them, so after each
lock what was believed is looked at once more.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_SWP_EXCLUSIVE,
        FAULT_FLAG_WRITE,
        GFP_HIGHUSER,
        GFP_KERNEL,
        KSM_RUN_UNMERGE,
        MM_ANONPAGES,
        MM_SWAPENTS,
        PGMAJFAULT,
        RMAP_EXCLUSIVE,
        VM_FAULT_ERROR,
        VM_FAULT_HWPOISON,
        VM_FAULT_MAJOR,
        VM_FAULT_OOM,
        VM_FAULT_RETRY,
        VM_FAULT_SIGBUS,
        VM_FAULT_WRITE,
        VM_LOCKED,
        PG_dirty,
        PG_swapbacked,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import copy_page_content
    from rmap.mm.fault_wp import do_wp_page
    from rmap.mm.ksm.stable import StableNode, ksm_of, page_stable_node
    from rmap.mm.lru import (
        activate_page,
        lru_cache_add,
        lru_cache_add_active_or_unevictable,
        page_pagemap,
        put_page,
    )
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import (
        VmFault,
        lock_page_or_retry,
        maybe_mkwrite,
        print_bad_pte,
    )
    from rmap.mm.migrate.entries import migration_entry_wait
    from rmap.mm.mlock_page import mlock_vma_page_counted
    from rmap.mm.mm_types import AnonVma, DevicePagemap, Kernel, Mm, SwapInfo, Vma
    from rmap.mm.page import (
        PageFlag,
        PageHWPoison,
        PageKsm,
        PageMlocked,
        PageSwapCache,
        PageWriteback,
        SetPage,
        page_anon_vma,
        page_count,
        page_index,
        page_private,
        set_page_private,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.pgtable import (
        is_device_private_entry,
        is_hwpoison_entry,
        is_migration_entry,
        non_swap_entry,
        pfn_pte,
        pte_lock,
        pte_mkdirty,
        pte_mksoft_dirty,
        pte_swp_soft_dirty,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        set_pte_at,
        swp_offset,
        swp_type,
    )
    from rmap.mm.rmap_counts import do_page_add_anon_rmap, page_add_new_anon_rmap
    from rmap.mm.swap import reuse_swap_page, try_to_free_swap
    from rmap.mm.swap_cache import lookup_swap_cache, read_swap_cache, swap_readpage
    from rmap.mm.swap_slots import (
        get_swap_device,
        put_swap_device,
        swap_count,
        swap_free,
        vm_swap_full,
    )
    from rmap.mm.vma import dec_mm_counter, inc_mm_counter, linear_page_index
    from rmap.scalar import flag, i32, u64


class SwapFault:
    """What do_swap_page() keeps between its steps.

    `page` is what will be mapped, `swapcache` the page of the swap cache if it went through that;
    they differ if KSM needed a copy. `ret` is the fault's result so far.
    """

    def __init__(self) -> None:
        self.entry = 0
        self.page = 0
        self.swapcache = 0
        self.ret = 0


def do_swap_page(k: Kernel, vmf: VmFault) -> i32:
    """Bring in what the entry, which is not present, stands for. Returns VM_FAULT_ bits.

    No lock is held but mmap_sem, which VM_FAULT_RETRY says was given up.
    """
    entry: u64 = pte_to_swp_entry(vmf.orig_pte)
    if non_swap_entry(entry):
        return do_non_swap_entry(k, vmf, entry)
    area: SwapInfo = get_swap_device(k, entry)
    if area is None:
        # Gone, and with it the entry, since that was read.
        return 0
    ret: i32 = _swap_in(k, vmf, entry)
    put_swap_device(k, area)
    return ret


def _swap_in(k: Kernel, vmf: VmFault, entry: u64) -> i32:
    """The same for an entry of a slot. Returns VM_FAULT_ bits."""
    s: SwapFault = SwapFault()
    s.entry = entry
    if not _find_page(k, vmf, s):
        return s.ret
    if PageHWPoison(k, s.page):
        put_page(k, s.page)
        return VM_FAULT_HWPOISON
    if not lock_page_or_retry(k, s.page, vmf.vma.vm_mm, vmf.flags):
        put_page(k, s.page)
        return s.ret | VM_FAULT_RETRY
    # While nobody had it locked, it may have left the swap cache, and come back for another slot.
    if s.swapcache and (not PageSwapCache(k, s.page) or page_private(k, s.page) != entry):
        return _give_up(k, s)
    s.page = ksm_might_need_to_copy(k, s.page, vmf.vma, vmf.address)
    if not s.page:
        s.ret = VM_FAULT_OOM
        s.page = s.swapcache
        return _give_up(k, s)
    if mem_cgroup_try_charge(k, s.page, vmf.vma.vm_mm.memcg, GFP_KERNEL):
        s.ret = VM_FAULT_OOM
        return _give_up(k, s)
    pte_lock(k, vmf.pte)
    if ptep_get(k, vmf.pte) != vmf.orig_pte:
        pte_unlock(k, vmf.pte)
        return _give_up(k, s)
    if not PageFlag(k, s.page, PG_uptodate):
        s.ret = VM_FAULT_SIGBUS
        pte_unlock(k, vmf.pte)
        return _give_up(k, s)
    if k.profile.anon_exclusive:
        _map_exclusive(k, vmf, s)
    else:
        _map_page(k, vmf, s)
    return _finish(k, vmf, s)


def do_non_swap_entry(k: Kernel, vmf: VmFault, entry: u64) -> i32:
    """A fault on an entry that is no swap slot."""
    if is_migration_entry(entry):
        migration_entry_wait(k, vmf.pte)
        return 0
    if is_hwpoison_entry(entry):
        return VM_FAULT_HWPOISON
    if is_device_private_entry(entry):
        return device_private_entry_fault(k, vmf, swp_offset(entry))
    print_bad_pte(k, vmf.vma, vmf.address, vmf.orig_pte, 0)
    return VM_FAULT_SIGBUS


def device_private_entry_fault(k: Kernel, vmf: VmFault, page: u64) -> i32:
    """A fault on a page that only a device reaches: its driver brings it back (kernel/memremap.c).

    The entry may have changed since it was looked at, and the page belong to nobody by now.
    """
    pagemap: DevicePagemap = page_pagemap(k, page)
    if pagemap is None:
        BUG_PAGE("memremap.c device_private_entry_fault: no device has this memory", page)
    return pagemap.fault(k, vmf.vma, vmf.address, page)


# ---------------------------------------------------------------- finding the page


def _find_page(k: Kernel, vmf: VmFault, s: SwapFault) -> flag:
    """Find the page in the swap cache or read it; false, with the result set, if that fails."""
    s.page = lookup_swap_cache(k, s.entry)
    s.swapcache = s.page
    if s.page:
        return True
    area: SwapInfo = k.swap_areas[swp_type(s.entry)]
    if area.synchronous and swap_count(k, s.entry) == 1:
        # Nobody else wants it, and reading takes no time in which somebody could come.
        s.page = _read_alone(k, s.entry)
    else:
        s.page = read_swap_cache(k, s.entry, None)
        s.swapcache = s.page
    if not s.page:
        # Out of memory, unless another thread has brought it in.
        pte_lock(k, vmf.pte)
        s.ret = VM_FAULT_OOM if ptep_get(k, vmf.pte) == vmf.orig_pte else 0
        pte_unlock(k, vmf.pte)
        return False
    s.ret = VM_FAULT_MAJOR
    k.vm_stat[PGMAJFAULT] += 1
    vmf.vma.vm_mm.memcg.stat[PGMAJFAULT] += 1
    return True


def _read_alone(k: Kernel, entry: u64) -> u64:
    """Read a slot into a page that never enters the swap cache; 0 if there is no memory."""
    page: u64 = alloc_page(k, GFP_HIGHUSER)
    if not page:
        return 0
    trylock_page(k, page)
    SetPage(k, page, PG_swapbacked)
    set_page_private(k, page, entry)
    lru_cache_add(k, page)
    swap_readpage(k, page)
    return page


def ksm_might_need_to_copy(k: Kernel, page: u64, vma: Vma, address: u64) -> u64:
    """The page, if it may be mapped at that address; else a locked copy of it, 0 without memory.

    mm/ksm.c (v4.18). A page that still names the anon_vma of its last mapping must be of the same
    family and index, or rmap would look for it in the wrong place. A merged page may be mapped
    anywhere, while pages may be merged.
    """
    anon_vma: AnonVma = page_anon_vma(k, page)
    node: StableNode
    if PageKsm(k, page):
        node = page_stable_node(k, page)
        if node is not None and not ksm_of(k).run & KSM_RUN_UNMERGE:
            node.unlisted.add(address)
            return page
    elif anon_vma is None:
        return page
    elif anon_vma.root is vma.anon_vma.root:
        if page_index(k, page) == linear_page_index(k, vma, address):
            return page
    if not PageFlag(k, page, PG_uptodate):
        return page
    new_page: u64 = alloc_page(k, GFP_HIGHUSER)
    if new_page:
        copy_page_content(k, new_page, page)
        SetPage(k, new_page, PG_dirty | PG_uptodate)
        trylock_page(k, new_page)
    return new_page


# ---------------------------------------------------------------- mapping it


def _map_page(k: Kernel, vmf: VmFault, s: SwapFault) -> i32:
    """Put the page into the entry; the page lock and the page-table lock are held.

    Whether it may be written to is asked while the entry still counts in swap, and the page does
    not yet as mapped; the swap cache is given up only after the entry has left it.
    """
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    page: u64 = s.page
    exclusive: i32 = 0
    inc_mm_counter(k, mm, MM_ANONPAGES)
    dec_mm_counter(k, mm, MM_SWAPENTS)
    pte: u64 = pfn_pte(page, vma.vm_page_prot)
    if vmf.flags & FAULT_FLAG_WRITE and reuse_swap_page(k, page):
        pte = maybe_mkwrite(pte_mkdirty(pte), vma)
        vmf.flags &= ~FAULT_FLAG_WRITE
        s.ret |= VM_FAULT_WRITE
        exclusive = RMAP_EXCLUSIVE
    if pte_swp_soft_dirty(vmf.orig_pte):
        pte = pte_mksoft_dirty(pte)
    set_pte_at(k, mm, vmf.address, vmf.pte, pte)
    vmf.orig_pte = pte
    if s.swapcache and page != s.swapcache:
        page_add_new_anon_rmap(k, page, vma, vmf.address, False)
        lru_cache_add_active_or_unevictable(k, page, vma)
    else:
        do_page_add_anon_rmap(k, page, vma, vmf.address, exclusive)
        activate_page(k, page)
    swap_free(k, s.entry)
    if vm_swap_full(k) or vma.vm_flags & VM_LOCKED or PageMlocked(k, page):
        try_to_free_swap(k, page)
    return 0


def _map_exclusive(k: Kernel, vmf: VmFault, s: SwapFault) -> i32:
    """The same since v5.19: the entry remembers whether the page was this process's alone.

    The slot is given back first, so that the references tell whether anybody else has the page.
    """
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    page: u64 = s.page
    flags: i32 = 0
    exclusive: flag = _certainly_exclusive(k, vmf, s)
    swap_free(k, s.entry)
    if _should_free_swap(k, vmf, s):
        try_to_free_swap(k, page)
    inc_mm_counter(k, mm, MM_ANONPAGES)
    dec_mm_counter(k, mm, MM_SWAPENTS)
    pte: u64 = pfn_pte(page, vma.vm_page_prot)
    if not PageKsm(k, page) and (exclusive or page_count(k, page) == 1):
        if vmf.flags & FAULT_FLAG_WRITE:
            pte = maybe_mkwrite(pte_mkdirty(pte), vma)
            vmf.flags &= ~FAULT_FLAG_WRITE
        flags = RMAP_EXCLUSIVE
    if pte_swp_soft_dirty(vmf.orig_pte):
        pte = pte_mksoft_dirty(pte)
    vmf.orig_pte = pte
    if s.swapcache and page != s.swapcache:
        page_add_new_anon_rmap(k, page, vma, vmf.address, False)
        lru_cache_add_active_or_unevictable(k, page, vma)
    else:
        do_page_add_anon_rmap(k, page, vma, vmf.address, flags)
        if k.profile.mlock_counts:
            mlock_vma_page_counted(k, page, vma, False)
    return set_pte_at(k, mm, vmf.address, vmf.pte, pte)


def _certainly_exclusive(k: Kernel, vmf: VmFault, s: SwapFault) -> flag:
    """Whether nobody else can have the page: a fresh one, or the entry says so."""
    if PageKsm(k, s.page):
        return False
    if s.page != s.swapcache:
        return True
    if not vmf.orig_pte & _PAGE_SWP_EXCLUSIVE:
        return False
    area: SwapInfo = k.swap_areas[swp_type(s.entry)]
    # A page under writeback whose device wants it stable must not be written to.
    return not (PageWriteback(k, s.page) and area.stable_writes)


def _should_free_swap(k: Kernel, vmf: VmFault, s: SwapFault) -> flag:
    """Whether the slot is better given up at once: should_try_to_free_swap() (v6.1)."""
    if not PageSwapCache(k, s.page):
        return False
    if vm_swap_full(k) or vmf.vma.vm_flags & VM_LOCKED or PageMlocked(k, s.page):
        return True
    if not vmf.flags & FAULT_FLAG_WRITE or PageKsm(k, s.page):
        return False
    # Ours and the swap cache's: without the latter the write needs no copy.
    return page_count(k, s.page) == 2


def _finish(k: Kernel, vmf: VmFault, s: SwapFault) -> i32:
    """Unlock, and copy if the fault was a write that the page could not be reused for."""
    ret: i32 = s.ret
    unlock_page(k, s.page)
    if s.swapcache and s.page != s.swapcache:
        # Locked until now, so that the slot could not be used anew before the entry was checked.
        unlock_page(k, s.swapcache)
        put_page(k, s.swapcache)
    if k.tracer is not None:
        k.tracer("do_swap_page", (s.page, vmf.vma, vmf.address, s.entry))
    if vmf.flags & FAULT_FLAG_WRITE:
        ret |= do_wp_page(k, vmf)
        if ret & VM_FAULT_ERROR:
            ret &= VM_FAULT_ERROR
        return ret
    pte_unlock(k, vmf.pte)
    return ret


def _give_up(k: Kernel, s: SwapFault) -> i32:
    """Unlock and put whatever was found; returns the fault's result."""
    unlock_page(k, s.page)
    put_page(k, s.page)
    if s.swapcache and s.page != s.swapcache:
        unlock_page(k, s.swapcache)
        put_page(k, s.swapcache)
    return s.ret

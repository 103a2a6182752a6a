# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Writes to entries that forbid them: copy on write, reuse, shared pages (mm/memory.c, v4.18).

Locks: mmap_sem for read and the page-table lock are held at entry to `do_wp_page`; it drops the
latter. The page lock is tried for under the page-table lock, and waited for only outside of it.
`wp_page_copy` takes what anon_vma_prepare() and munlock take, then the page-table lock once more.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_prepare
    from rmap.mm.bits import (
        COW_COPIES,
        FAULT_FLAG_UNSHARE,
        GFP_HIGHUSER,
        GFP_KERNEL,
        MM_ANONPAGES,
        PAGE_SIZE,
        PGREUSE,
        VM_FAULT_ERROR,
        VM_FAULT_LOCKED,
        VM_FAULT_NOPAGE,
        VM_FAULT_OOM,
        VM_FAULT_WRITE,
        VM_LOCKED,
        VM_MAYSHARE,
        VM_SHARED,
        VM_WRITE,
        PG_anon_exclusive,
        PG_uptodate,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.content import copy_page_content
    from rmap.mm.lru import lru_cache_add_active_or_unevictable, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import (
        VmFault,
        is_zero_pfn,
        maybe_mkwrite,
        ptep_set_access_flags,
        vm_normal_page,
    )
    from rmap.mm.mlock_page import munlock_vma_page_counted
    from rmap.mm.mm_types import AddressSpace, Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_only_end,
        mmu_notifier_invalidate_range_start,
        ptep_clear_flush_notify,
        set_pte_at_notify,
    )
    from rmap.mm.munlock import munlock_vma_page
    from rmap.mm.page import (
        PageAnon,
        PageFlag,
        PageKsm,
        PageLocked,
        PageMlocked,
        PageSwapCache,
        SetPage,
        compound_head,
        get_page,
        lock_page,
        page_count,
        page_mapping,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        pfn_pte,
        pte_lock,
        pte_mkdirty,
        pte_mkyoung,
        pte_pfn,
        pte_unlock,
        ptep_get,
    )
    from rmap.mm.rmap_counts import page_add_new_anon_rmap, page_move_anon_rmap, page_remove_rmap
    from rmap.mm.swap import free_swap_cache, reuse_swap_page, try_to_free_swap
    from rmap.mm.vma import dec_mm_counter, inc_mm_counter, mm_counter_file
    from rmap.scalar import flag, i32, u64


def do_wp_page(k: Kernel, vmf: VmFault) -> i32:
    """Resolve a write to a present entry that forbids it: reuse the page, or copy it.

    The lock of the entry's table is held, and dropped. Returns VM_FAULT_ bits.
    """
    vma: Vma = vmf.vma
    if k.profile.anon_exclusive:
        return do_wp_page_exclusive(k, vmf)
    vmf.page = vm_normal_page(k, vma, vmf.address, vmf.orig_pte)
    shared: flag = vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED
    if not vmf.page:
        if shared:
            BUG("memory.c wp_pfn_shared: a shared entry without a page")
        pte_unlock(k, vmf.pte)
        return wp_page_copy(k, vmf)
    # Anonymous pages first: in shared memory they cannot be, and dirty accounting is not for them.
    ret: i32
    if PageAnon(k, vmf.page) and not PageKsm(k, vmf.page):
        ret = wp_page_anon(k, vmf)
        if ret >= 0:
            return ret
    elif shared:
        return wp_page_shared(k, vmf)
    get_page(k, vmf.page)
    pte_unlock(k, vmf.pte)
    return wp_page_copy(k, vmf)


def wp_page_anon(k: Kernel, vmf: VmFault) -> i32:
    """Reuse an anonymous page if nobody else maps it or has it in a swap entry.

    Otherwise -2, with the page-table lock held. Mappings and swap entries are what counts;
    references do not, so a page that is pinned is reused as well.
    """
    page: u64 = vmf.page
    if not trylock_page(k, page):
        get_page(k, page)
        pte_unlock(k, vmf.pte)
        lock_page(k, page)
        pte_lock(k, vmf.pte)
        if ptep_get(k, vmf.pte) != vmf.orig_pte:
            unlock_page(k, page)
            pte_unlock(k, vmf.pte)
            put_page(k, page)
            return 0
        put_page(k, page)
    total: i32 = reuse_swap_page(k, page)
    if not total:
        unlock_page(k, page)
        return -2
    if total == 1:
        # All ours: walks need not look at our relatives any more. The page lock keeps those out
        # that must not see the anon_vma change.
        page_move_anon_rmap(k, page, vmf.vma)
    unlock_page(k, page)
    wp_page_reuse(k, vmf)
    return VM_FAULT_WRITE


def do_wp_page_exclusive(k: Kernel, vmf: VmFault) -> i32:
    """do_wp_page() since v5.19: a page is reused if it is marked exclusive, or can be shown to be.

    A page that is not marked must have this entry as its one reference, the swap cache's being
    given up if that is all there is. Shared mappings never hold anonymous pages.
    """
    vma: Vma = vmf.vma
    vmf.page = vm_normal_page(k, vma, vmf.address, vmf.orig_pte)
    page: u64 = vmf.page
    if vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        if not page:
            BUG("memory.c wp_pfn_shared: a shared entry without a page")
        return wp_page_shared(k, vmf)
    if page and PageAnon(k, page) and _page_is_ours(k, vma, page):
        if vmf.flags & FAULT_FLAG_UNSHARE:
            pte_unlock(k, vmf.pte)
        else:
            wp_page_reuse(k, vmf)
        return 0
    if page:
        get_page(k, page)
    pte_unlock(k, vmf.pte)
    return wp_page_copy(k, vmf)


def _page_is_ours(k: Kernel, vma: Vma, page: u64) -> flag:
    """Whether an anonymous page belongs to one process, which then owns it by its anon_vma too.

    Three references is the most that can be given up: entry, swap cache, and an LRU batch, of
    which there are none here.
    """
    if PageFlag(k, page, PG_anon_exclusive):
        return True
    head: u64 = compound_head(k, page)
    if PageKsm(k, page) or page_count(k, head) > 3:
        return False
    if page_count(k, head) > (2 if PageSwapCache(k, head) else 1):
        return False
    if not trylock_page(k, head):
        return False
    if PageSwapCache(k, head):
        try_to_free_swap(k, head)
    if PageKsm(k, page) or page_count(k, head) != 1:
        unlock_page(k, head)
        return False
    page_move_anon_rmap(k, page, vma)
    unlock_page(k, head)
    return True


def wp_page_reuse(k: Kernel, vmf: VmFault) -> i32:
    """Let the entry be written through; drops the page-table lock."""
    entry: u64 = maybe_mkwrite(pte_mkdirty(pte_mkyoung(vmf.orig_pte)), vmf.vma)
    ptep_set_access_flags(k, vmf.vma, vmf.address, vmf.pte, entry, True)
    k.vm_stat[PGREUSE] += 1
    if k.tracer is not None:
        k.tracer("wp_page_reuse", (vmf.page, vmf.vma, vmf.address))
    return pte_unlock(k, vmf.pte)


# ---------------------------------------------------------------- copying


def wp_page_copy(k: Kernel, vmf: VmFault) -> i32:
    """Give the process a copy of the page, of which the caller took a reference; no lock is held.

    The old entry is flushed everywhere before the old page's mapcount drops. Otherwise another
    process could find itself the only user and write, while a CPU still reads the page here.
    """
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    old_page: u64 = vmf.page
    new_page: u64 = _alloc_copy(k, vmf, old_page)
    if not new_page:
        if old_page:
            put_page(k, old_page)
        return VM_FAULT_OOM
    start: u64 = vmf.address
    mmu_notifier_invalidate_range_start(k, mm, start, start + PAGE_SIZE)
    pte_lock(k, vmf.pte)
    copied: flag = ptep_get(k, vmf.pte) == vmf.orig_pte
    if copied:
        _replace_page(k, vmf, old_page, new_page)
        # What has lost a reference now is the old page.
        new_page = old_page
    if new_page:
        put_page(k, new_page)
    pte_unlock(k, vmf.pte)
    mmu_notifier_invalidate_range_only_end(k, mm, start, start + PAGE_SIZE)
    if old_page:
        if copied:
            _after_copy(k, vma, old_page)
        put_page(k, old_page)
    if k.tracer is not None:
        k.tracer("wp_page_copy", (old_page, vma, vmf.address, copied))
    return VM_FAULT_WRITE if copied else 0


def _alloc_copy(k: Kernel, vmf: VmFault, old_page: u64) -> u64:
    """A charged copy of the page, or a zeroed one of the zero page; 0 if there is no memory."""
    if anon_vma_prepare(k, vmf.vma):
        return 0
    page: u64 = alloc_page(k, GFP_HIGHUSER)
    if not page:
        return 0
    if not is_zero_pfn(k, pte_pfn(vmf.orig_pte)):
        if not old_page:
            BUG("memory.c cow_user_page: an entry without a page, and not the zero page")
        copy_page_content(k, page, old_page)
        k.vm_stat[COW_COPIES] += 1
    if mem_cgroup_try_charge(k, page, vmf.vma.vm_mm.memcg, GFP_KERNEL):
        put_page(k, page)
        return 0
    SetPage(k, page, PG_uptodate)
    return page


def _replace_page(k: Kernel, vmf: VmFault, old_page: u64, new_page: u64) -> i32:
    """Put the copy where the old page was; the page-table lock is held."""
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    if old_page:
        if not PageAnon(k, old_page):
            dec_mm_counter(k, mm, mm_counter_file(k, old_page))
            inc_mm_counter(k, mm, MM_ANONPAGES)
    else:
        inc_mm_counter(k, mm, MM_ANONPAGES)
    entry: u64 = pfn_pte(new_page, vma.vm_page_prot)
    if not vmf.flags & FAULT_FLAG_UNSHARE:
        entry = maybe_mkwrite(pte_mkdirty(entry), vma)
    # Never two entries at once: a CPU that still has the old one is made to drop it first.
    ptep_clear_flush_notify(k, vma, vmf.address, vmf.pte)
    page_add_new_anon_rmap(k, new_page, vma, vmf.address, False)
    lru_cache_add_active_or_unevictable(k, new_page, vma)
    set_pte_at_notify(k, mm, vmf.address, vmf.pte, entry)
    if old_page:
        page_remove_rmap(k, old_page, False)
        if k.profile.mlock_counts:
            munlock_vma_page_counted(k, old_page, vma, False)
    return 0


def _after_copy(k: Kernel, vma: Vma, old_page: u64) -> i32:
    """Let the old page go as far as this process kept it: from mlock, and later from swap."""
    if k.profile.anon_exclusive:
        free_swap_cache(k, old_page)
    if k.profile.mlock_counts or not vma.vm_flags & VM_LOCKED:
        return 0
    lock_page(k, old_page)
    if PageMlocked(k, old_page):
        munlock_vma_page(k, old_page)
    return unlock_page(k, old_page)


# ---------------------------------------------------------------- shared pages


def wp_page_shared(k: Kernel, vmf: VmFault) -> i32:
    """Let a shared page be written to, after its file has had its say (page_mkwrite)."""
    vma: Vma = vmf.vma
    page: u64 = vmf.page
    ret: i32
    get_page(k, page)
    if vma.vm_file.f_mapping.writenotify:
        pte_unlock(k, vmf.pte)
        ret = do_page_mkwrite(k, vmf)
        if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
            put_page(k, page)
            return ret
        ret = finish_mkwrite_fault(k, vmf)
        if ret & (VM_FAULT_ERROR | VM_FAULT_NOPAGE):
            unlock_page(k, page)
            put_page(k, page)
            return ret
    else:
        wp_page_reuse(k, vmf)
        lock_page(k, page)
    fault_dirty_shared_page(k, vma, page)
    put_page(k, page)
    return VM_FAULT_WRITE


def finish_mkwrite_fault(k: Kernel, vmf: VmFault) -> i32:
    """Make the entry writable; VM_FAULT_NOPAGE if it has changed, and the CPU looks again."""
    pte_lock(k, vmf.pte)
    if ptep_get(k, vmf.pte) != vmf.orig_pte:
        pte_unlock(k, vmf.pte)
        return VM_FAULT_NOPAGE
    wp_page_reuse(k, vmf)
    return 0


def do_page_mkwrite(k: Kernel, vmf: VmFault) -> i32:
    """Tell the file that one of its pages becomes writable: filemap_page_mkwrite().

    VM_FAULT_LOCKED with the page locked and dirty; VM_FAULT_NOPAGE, unlocked, if it has been
    truncated. It is dirty before the entry is writable, lest writeback miss the write to come.
    """
    page: u64 = vmf.page
    lock_page(k, page)
    mapping: AddressSpace = page_mapping(k, page)
    if mapping is not vmf.vma.vm_file.f_mapping:
        unlock_page(k, page)
        return VM_FAULT_NOPAGE
    set_page_dirty(k, page)
    return VM_FAULT_LOCKED


def fault_dirty_shared_page(k: Kernel, vma: Vma, page: u64) -> i32:
    """Make a shared page dirty that is about to be written to; it is locked, and unlocked."""
    if not PageLocked(k, page):
        BUG_PAGE("memory.c fault_dirty_shared_page: the page is not locked", page)
    set_page_dirty(k, page)
    if PageAnon(k, page):
        BUG_PAGE("memory.c fault_dirty_shared_page: an anonymous page in shared memory", page)
    return unlock_page(k, page)

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Taking a swap area out of use: bring back everything that is in it (mm/swapfile.c, v4.18).

Slot by slot: the page is read and locked, and looked for in every address space that may have swap
entries (k.mmlist), VMA by VMA. Where the page still names an anon_vma there is only one address in
a VMA where its entry can be; a page read afresh names none, and each entry is compared.

Locks: the page lock is held while mmap_sem is tried for; if that fails it is given up, and taken
again inside mmap_sem. Then page-table locks, and swap locks inside them. mmlist_lock is held only
to look at the list.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_SWP_EXCLUSIVE,
        EINTR,
        EINVAL,
        ENOMEM,
        GFP_KERNEL,
        MM_ANONPAGES,
        MM_SWAPENTS,
        PAGE_NOT_IN_VMA,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        RMAP_EXCLUSIVE,
        SWAP_HAS_CACHE,
        SWAP_MAP_BAD,
        SWAP_MAP_SHMEM,
        PG_dirty,
    )
    from rmap.mm.fault_swap import ksm_might_need_to_copy
    from rmap.mm.fork import mmput
    from rmap.mm.lru import activate_page, lru_cache_add_active_or_unevictable, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.mlock_page import mlock_vma_page_counted
    from rmap.mm.mm_types import Kernel, Mm, SwapInfo, Vma
    from rmap.mm.page import (
        PageDirty,
        PageSwapCache,
        SetPage,
        get_page,
        lock_page,
        page_anon_vma,
        page_private,
        unlock_page,
    )
    from rmap.mm.page_dirty import wait_on_page_writeback
    from rmap.mm.pgtable import (
        is_swap_pte,
        pfn_pte,
        pmd_offset,
        pte_lock,
        pte_mkold,
        pte_offset,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        set_pte_at,
        swp_entry,
    )
    from rmap.mm.rmap_counts import do_page_add_anon_rmap, page_add_new_anon_rmap
    from rmap.mm.rmap_walk import page_address_in_vma
    from rmap.mm.shmem import shmem_unuse
    from rmap.mm.swap import swap_writepage
    from rmap.mm.swap_cache import delete_from_swap_cache, read_swap_cache
    from rmap.mm.swap_slots import (
        free_swap_count_continuations,
        swap_count,
        swap_free,
        wait_for_swap_users,
    )
    from rmap.mm.vma import dec_mm_counter, inc_mm_counter
    from rmap.scalar import flag, i32, i64, u64


def swapoff(k: Kernel, kind: i32) -> i32:
    """Take the swap area of type `kind` out of use; 0 or -errno (mm/swapfile.c:2497, v4.18).

    -EINVAL: there is none; -ENOMEM: what is in it does not fit into memory, and it stays in use;
    -EINTR: an entry is counted that nobody has. There the kernel would look for it until it is
    interrupted, as this is after one fruitless round.
    """
    area: SwapInfo = None
    if kind >= 0 and kind < len(k.swap_areas):
        area = k.swap_areas[kind]
    if area is None or area.pages == 0 or not area.writeok:
        return -EINVAL
    k.swap_lock.lock()
    area.writeok = False
    k.swap_lock.unlock()
    error: i32 = try_to_unuse(k, area)
    if error:
        area.writeok = True
        return error
    wait_for_swap_users(k, area)
    free_swap_count_continuations(k, area)
    k.swap_lock.lock()
    k.swap_areas[kind] = SwapInfo(kind, 0)
    k.swap_lock.unlock()
    return 0


def find_next_to_unuse(k: Kernel, area: SwapInfo, last: i64) -> i64:
    """The first slot in use behind `last`, going round; 0 if none is left (mm/swapfile.c:2006)."""
    offset: i64 = last
    steps: i64 = 0
    count: i32
    while steps < area.pages:
        steps += 1
        offset = offset + 1 if offset + 1 < area.pages else 1
        count = area.swap_map[offset]
        if count and count & ~SWAP_HAS_CACHE != SWAP_MAP_BAD:
            return offset
    return 0


def try_to_unuse(k: Kernel, area: SwapInfo) -> i32:
    """Bring back every page that is in a swap area; 0 or -errno (mm/swapfile.c:2051, v4.18)."""
    offset: i64 = 0
    before: i64
    error: i32
    fruitless: i64 = 0
    while True:
        offset = find_next_to_unuse(k, area, offset)
        if offset == 0:
            return 0
        before = swap_count(k, swp_entry(area.type, offset))
        error = _unuse_slot(k, area, offset)
        if error:
            return error
        if before and swap_count(k, swp_entry(area.type, offset)) >= before:
            fruitless += 1
        else:
            fruitless = 0
        if fruitless > area.inuse:
            return -EINTR


def _unuse_slot(k: Kernel, area: SwapInfo, offset: i64) -> i32:
    """Bring back the page of one slot to all who have its entry; 0 or -ENOMEM."""
    entry: u64 = swp_entry(area.type, offset)
    page: u64 = read_swap_cache(k, entry, None)
    if not page:
        # Freed meanwhile, which is as well; otherwise there is no memory to read it into.
        return -ENOMEM if area.swap_map[offset] else 0
    wait_on_page_writeback(k, page)
    lock_page(k, page)
    wait_on_page_writeback(k, page)
    if area.swap_map[offset] & ~SWAP_HAS_CACHE == SWAP_MAP_SHMEM:
        # This gives the page back, too.
        return shmem_unuse(k, entry, page)
    error: i32 = _unuse_mms(k, area, entry, page)
    if not error:
        _leave_area(k, area, entry, page)
    unlock_page(k, page)
    put_page(k, page)
    return error


def _unuse_mms(k: Kernel, area: SwapInfo, entry: u64, page: u64) -> i32:
    """Look for an entry in every address space that may have any, until it is not counted."""
    k.mmlist_lock.lock()
    mms: list = list(k.mmlist)
    k.mmlist_lock.unlock()
    error: i32
    mm: Mm
    for mm in mms:
        if not swap_count(k, entry):
            break
        if mm.mm_users == 0:
            continue
        mm.mm_users += 1
        error = unuse_mm(k, mm, entry, page)
        mmput(k, mm)
        if error:
            return error
    return 0


def _leave_area(k: Kernel, area: SwapInfo, entry: u64, page: u64) -> i32:
    """Take the page out of the swap cache, written first if somebody still has the entry.

    To leave it there would let reclaim use the slot again as soon as the page is unlocked. Who has
    the entry reads another page; that is how a swapped KSM page comes back to each of its places.
    """
    if swap_count(k, entry) and PageDirty(k, page) and PageSwapCache(k, page):
        swap_writepage(k, page)
        lock_page(k, page)
        wait_on_page_writeback(k, page)
    if PageSwapCache(k, page) and page_private(k, page) == entry:
        delete_from_swap_cache(k, page)
    # Its entries were made clean, but what it holds is nowhere else now.
    return SetPage(k, page, PG_dirty)


def unuse_mm(k: Kernel, mm: Mm, entry: u64, page: u64) -> i32:
    """Look for an entry in an address space; 0 or -ENOMEM (mm/swapfile.c:1969, v4.18)."""
    if not mm.mmap_sem.down_read_trylock():
        # Active, the page is unlikely to be unmapped again while it is not locked.
        activate_page(k, page)
        unlock_page(k, page)
        mm.mmap_sem.down_read()
        lock_page(k, page)
    result: i32 = 0
    vma: Vma = mm.mmap
    while vma is not None:
        if vma.anon_vma is not None:
            result = unuse_vma(k, vma, entry, page)
            if result:
                break
        vma = vma.vm_next
    mm.mmap_sem.up_read()
    return result if result < 0 else 0


def unuse_vma(k: Kernel, vma: Vma, entry: u64, page: u64) -> i32:
    """Look for an entry in a VMA: 1 if it was replaced, 0, or -ENOMEM (mm/swapfile.c:1939)."""
    address: u64 = vma.vm_start
    end: u64 = vma.vm_end
    if page_anon_vma(k, page) is not None:
        address = page_address_in_vma(k, page, vma)
        if address == PAGE_NOT_IN_VMA:
            return 0
        end = address + PAGE_SIZE
    pmd: u64
    ptep: u64
    pte: u64
    result: i32
    while address < end:
        pmd = pmd_offset(k, vma.vm_mm, address)
        ptep = pte_offset(k, pmd, address) if pmd else 0
        if not ptep:
            address = (address & PMD_MASK) + PMD_SIZE
            continue
        pte = ptep_get(k, ptep)
        if is_swap_pte(pte) and pte_to_swp_entry(pte) == entry:
            result = unuse_pte(k, vma, ptep, address, entry, page)
            if result:
                return result
        address += PAGE_SIZE
    return 0


def unuse_pte(k: Kernel, vma: Vma, ptep: u64, address: u64, entry: u64, page: u64) -> i32:
    """Map the page in place of its entry: 1, 0 if that changed, or -ENOMEM (mm/swapfile.c:1753)."""
    swapcache: u64 = page
    page = ksm_might_need_to_copy(k, page, vma, address)
    if not page:
        return -ENOMEM
    result: i32 = -ENOMEM
    if mem_cgroup_try_charge(k, page, vma.vm_mm.memcg, GFP_KERNEL) == 0:
        pte_lock(k, ptep)
        result = _replace_pte(k, vma, ptep, address, entry, page, page != swapcache)
        pte_unlock(k, ptep)
    if page != swapcache:
        unlock_page(k, page)
        put_page(k, page)
    if k.tracer is not None:
        k.tracer("unuse_pte", (page, vma, address, result))
    return result


def _replace_pte(
    k: Kernel, vma: Vma, ptep: u64, address: u64, entry: u64, page: u64, copied: flag
) -> i32:
    """The part of unuse_pte() under the page-table lock."""
    pte: u64 = ptep_get(k, ptep)
    if not is_swap_pte(pte) or pte_to_swp_entry(pte) != entry:
        return 0
    exclusive: i32 = 0
    if k.profile.anon_exclusive and pte & _PAGE_SWP_EXCLUSIVE:
        exclusive = RMAP_EXCLUSIVE
    dec_mm_counter(k, vma.vm_mm, MM_SWAPENTS)
    inc_mm_counter(k, vma.vm_mm, MM_ANONPAGES)
    get_page(k, page)
    set_pte_at(k, vma.vm_mm, address, ptep, pte_mkold(pfn_pte(page, vma.vm_page_prot)))
    if copied:
        page_add_new_anon_rmap(k, page, vma, address, False)
        lru_cache_add_active_or_unevictable(k, page, vma)
    else:
        do_page_add_anon_rmap(k, page, vma, address, exclusive)
        if k.profile.mlock_counts:
            mlock_vma_page_counted(k, page, vma, False)
    swap_free(k, entry)
    activate_page(k, page)
    return 1

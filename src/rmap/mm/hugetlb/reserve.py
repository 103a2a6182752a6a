# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Which huge pages a mapping was promised, and taking a page on such a promise (mm/hugetlb.c).

v4.18. Locks: `ResvMap.lock` by what is called ``region_``; `Kernel.hugetlb_lock` by what takes or
promises pages. Neither inside the other.

A shared mapping's promises are its file's: its map holds every offset that was promised or is in
use. A private mapping's are of whoever made it (HPAGE_RESV_OWNER), not of its children, and its
map holds what of them is used up: the same question has the opposite answer there.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        ENOSPC,
        HPAGE_RESV_OWNER,
        HPAGE_RESV_UNMAPPED,
        VM_MAYSHARE,
        VM_NORESERVE,
        PG_private,
    )
    from rmap.mm.bug import BUG
    from rmap.mm.hugetlb.pool import (
        alloc_surplus_huge_page,
        available_huge_pages,
        dequeue_huge_page,
        hstate_vma,
        hugetlb_acct_memory,
        vma_hugecache_offset,
    )
    from rmap.mm.mm_types import AddressSpace, Hstate, Kernel, ResvMap, Vma
    from rmap.mm.page import ClearPage, PageFlag, SetPage
    from rmap.scalar import flag, i32, i64, u64


# ---------------------------------------------------------------- regions


def resv_map_alloc(k: Kernel) -> ResvMap | None:
    """Make an empty map with one user; ``None`` without memory."""
    if k.inject is not None and k.inject.should_fail("hugetlb_region"):
        return None
    return ResvMap(k.next_serial())


def resv_map_put(resv: ResvMap) -> i32:
    """Drop a user of a map; with the last it is empty."""
    resv.refs -= 1
    if resv.refs == 0:
        resv.regions = []
    return 0


def _covered(resv: ResvMap, first: u64, end: u64) -> i64:
    """How many offsets of ``[first, end)`` are in the map."""
    count: i64 = 0
    low: u64
    high: u64
    for low, high in resv.regions:
        if low < first:
            low = first
        if high > end:
            high = end
        if low < high:
            count += high - low
    return count


def region_chg(k: Kernel, resv: ResvMap, first: u64, end: u64) -> i64:
    """How many offsets of ``[first, end)`` the map lacks; or -ENOMEM.

    Announces that they will be added: `region_add` or `region_abort` has to follow. A descriptor
    is kept ready for it, which is the one thing that can fail.
    """
    resv.lock.lock()
    while resv.adds_in_progress + 1 > resv.region_cache_count:
        resv.lock.unlock()
        if k.inject is not None and k.inject.should_fail("hugetlb_region"):
            return -ENOMEM
        resv.lock.lock()
        resv.region_cache_count += 1
    resv.adds_in_progress += 1
    missing: i64 = end - first
    missing -= _covered(resv, first, end)
    resv.lock.unlock()
    return missing


def region_add(k: Kernel, resv: ResvMap, first: u64, end: u64) -> i64:
    """Add ``[first, end)`` to the map; returns how many offsets of it were not there."""
    resv.lock.lock()
    added: i64 = end - first
    added -= _covered(resv, first, end)
    merged: list = []
    low: u64
    high: u64
    for low, high in resv.regions:
        # What touches the new region becomes part of it.
        if high < first or low > end:
            merged.append((low, high))
            continue
        if low < first:
            first = low
        if high > end:
            end = high
    merged.append((first, end))
    merged.sort()
    resv.regions = merged
    _end_add(resv)
    resv.lock.unlock()
    return added


def region_abort(k: Kernel, resv: ResvMap, first: u64, end: u64) -> i32:
    """Do not add what `region_chg` announced."""
    resv.lock.lock()
    _end_add(resv)
    resv.lock.unlock()
    return 0


def _end_add(resv: ResvMap) -> i32:
    """Count one announced addition less."""
    if resv.adds_in_progress <= 0:
        BUG("hugetlb.c region_abort: nothing was announced to be added")
    resv.adds_in_progress -= 1
    return 0


def region_del(k: Kernel, resv: ResvMap, first: u64, end: u64) -> i64:
    """Take ``[first, end)`` out of the map; returns how many offsets were there, or -ENOMEM.

    It needs memory only to cut a region in two, and then does nothing without. ``ULONG_MAX`` is
    the end of everything, with which it never does.
    """
    resv.lock.lock()
    deleted: i64 = _covered(resv, first, end)
    left: list = []
    low: u64
    high: u64
    for low, high in resv.regions:
        if low < first and high > end and not _spare_region(k, resv):
            resv.lock.unlock()
            return -ENOMEM
        if high <= first or low >= end:
            left.append((low, high))
            continue
        if low < first:
            left.append((low, first))
        if high > end:
            left.append((end, high))
    resv.regions = left
    resv.lock.unlock()
    return deleted


def _spare_region(k: Kernel, resv: ResvMap) -> flag:
    """Get a descriptor for the second half of a region: one that no addition may need, or memory.

    The lock of the map is held, and dropped if memory is asked for.
    """
    if resv.region_cache_count > resv.adds_in_progress:
        resv.region_cache_count -= 1
        return True
    resv.lock.unlock()
    given: flag = k.inject is None or not k.inject.should_fail("hugetlb_region")
    resv.lock.lock()
    return given


def region_count(k: Kernel, resv: ResvMap, first: u64, end: u64) -> i64:
    """How many offsets of ``[first, end)`` are in the map."""
    resv.lock.lock()
    count: i64 = _covered(resv, first, end)
    resv.lock.unlock()
    return count


# ---------------------------------------------------------------- whose promises


def vma_resv_map(vma: Vma) -> ResvMap | None:
    """The map that a VMA goes by: its file's if it is shared, else its own, if it has one."""
    if vma.vm_flags & VM_MAYSHARE:
        return vma.vm_file.f_mapping.resv_map
    return vma.resv_map


def is_vma_resv_set(vma: Vma, bit: u64) -> flag:
    """Whether a private mapping is its pages' owner, or has lost one (``HPAGE_RESV_``)."""
    return vma.resv_flags & bit != 0


def set_vma_unmapped(vma: Vma) -> i32:
    """Remember that a page was taken away from the mapping, so that nobody finds zeros there."""
    vma.resv_flags |= HPAGE_RESV_UNMAPPED
    return 0


def reset_vma_resv_huge_pages(vma: Vma) -> i32:
    """Let a child's private mapping have no promises: they are its parent's."""
    if not vma.vm_flags & VM_MAYSHARE:
        vma.resv_map = None
        vma.resv_flags = 0
    return 0


def vma_has_reserves(vma: Vma, chg: i64) -> flag:
    """Whether a page for the VMA may be one that was promised; `chg` 0 says that this one was."""
    if vma.vm_flags & VM_NORESERVE:
        # By somebody else, of a file that both share.
        return vma.vm_flags & VM_MAYSHARE != 0 and chg == 0
    if vma.vm_flags & VM_MAYSHARE or is_vma_resv_set(vma, HPAGE_RESV_OWNER):
        # Not where the file was punched or truncated: that took the promise with it.
        return chg == 0
    return False


def _turned(vma: Vma, ret: i64) -> i64:
    """An answer about a private mapping's own map, turned into the one for a shared mapping's."""
    if vma.vm_flags & VM_MAYSHARE:
        return ret
    if is_vma_resv_set(vma, HPAGE_RESV_OWNER) and ret >= 0:
        return 0 if ret else 1
    return ret if ret < 0 else 0


def vma_needs_reservation(k: Kernel, h: Hstate, vma: Vma, address: u64) -> i64:
    """Whether the page of an address has to be asked for (1) or was promised (0); or -ENOMEM.

    `vma_commit_reservation` or `vma_end_reservation` has to follow.
    """
    resv: ResvMap = vma_resv_map(vma)
    if resv is None:
        return 1
    idx: u64 = vma_hugecache_offset(h, vma, address)
    return _turned(vma, region_chg(k, resv, idx, idx + 1))


def vma_commit_reservation(k: Kernel, h: Hstate, vma: Vma, address: u64) -> i64:
    """The page is there: note that, and return what `vma_needs_reservation` would say now."""
    resv: ResvMap = vma_resv_map(vma)
    if resv is None:
        return 1
    idx: u64 = vma_hugecache_offset(h, vma, address)
    return _turned(vma, region_add(k, resv, idx, idx + 1))


def vma_end_reservation(k: Kernel, h: Hstate, vma: Vma, address: u64) -> i32:
    """Nothing came of it."""
    resv: ResvMap = vma_resv_map(vma)
    if resv is None:
        return 0
    idx: u64 = vma_hugecache_offset(h, vma, address)
    return region_abort(k, resv, idx, idx + 1)


def vma_add_reservation(k: Kernel, h: Hstate, vma: Vma, address: u64) -> i64:
    """Let the page of an address count as promised again, after one that was taken went back."""
    resv: ResvMap = vma_resv_map(vma)
    if resv is None:
        return 1
    idx: u64 = vma_hugecache_offset(h, vma, address)
    if vma.vm_flags & VM_MAYSHARE:
        return region_add(k, resv, idx, idx + 1)
    region_abort(k, resv, idx, idx + 1)
    return _turned(vma, region_del(k, resv, idx, idx + 1))


def restore_reserve_on_error(k: Kernel, h: Hstate, vma: Vma, address: u64, page: u64) -> i32:
    """Before a page is given back that was taken and not used: correct the map, if need be.

    The page brings its promise back to the pool. Where the map cannot be told, it must not.
    """
    if not PageFlag(k, page, PG_private):
        return 0
    rc: i64 = vma_needs_reservation(k, h, vma, address)
    if rc < 0:
        return ClearPage(k, page, PG_private)
    if rc == 0:
        return vma_end_reservation(k, h, vma, address)
    if vma_add_reservation(k, h, vma, address) < 0:
        ClearPage(k, page, PG_private)
    return 0


# ---------------------------------------------------------------- promising


def hugetlb_reserve_pages(
    k: Kernel, mapping: AddressSpace, first: u64, end: u64, vma: Vma | None, vm_flags: u64
) -> i32:
    """Promise a mapping, or (without a VMA) a file, all of ``[first, end)``; 0 or -ENOMEM.

    Offsets are in huge pages. What others promised already costs nothing, if it is shared.
    """
    if vm_flags & VM_NORESERVE:
        return 0
    h: Hstate = mapping.hstate
    shared: flag = vma is None or vma.vm_flags & VM_MAYSHARE != 0
    resv: ResvMap
    chg: i64
    if shared:
        resv = mapping.resv_map
        chg = region_chg(k, resv, first, end)
        if chg < 0:
            return -ENOMEM
    else:
        resv = resv_map_alloc(k)
        if resv is None:
            return -ENOMEM
        chg = end - first
        vma.resv_map = resv
        vma.resv_flags |= HPAGE_RESV_OWNER
    if hugetlb_acct_memory(k, h, chg) < 0:
        if shared:
            region_abort(k, resv, first, end)
        else:
            resv_map_put(resv)
            vma.resv_map = None
            vma.resv_flags = 0
        return -ENOMEM
    added: i64
    if shared:
        added = region_add(k, resv, first, end)
        if chg > added:
            # Somebody promised a part of it meanwhile.
            hugetlb_acct_memory(k, h, added - chg)
    return 0


def hugetlb_unreserve_pages(
    k: Kernel, mapping: AddressSpace, first: u64, end: u64, freed: i64
) -> i64:
    """Take a file's promises for ``[first, end)`` back, of which `freed` were kept; or -ENOMEM."""
    chg: i64 = region_del(k, mapping.resv_map, first, end)
    if chg < 0:
        return chg
    hugetlb_acct_memory(k, mapping.hstate, freed - chg)
    return 0


def hugetlb_vm_op_open(vma: Vma) -> i32:
    """A VMA was split: both parts go by one map."""
    if vma.resv_map is not None and is_vma_resv_set(vma, HPAGE_RESV_OWNER):
        vma.resv_map.refs += 1
    return 0


def hugetlb_vm_op_close(k: Kernel, vma: Vma) -> i32:
    """A VMA goes away: take back what it was promised and did not use."""
    resv: ResvMap = vma_resv_map(vma)
    if resv is None or not is_vma_resv_set(vma, HPAGE_RESV_OWNER):
        return 0
    h: Hstate = hstate_vma(vma)
    first: u64 = vma_hugecache_offset(h, vma, vma.vm_start)
    end: u64 = vma_hugecache_offset(h, vma, vma.vm_end)
    reserve: i64 = end - first
    reserve -= region_count(k, resv, first, end)
    resv_map_put(resv)
    vma.resv_map = None
    vma.resv_flags = 0
    if reserve:
        hugetlb_acct_memory(k, h, -reserve)
    return 0


# ---------------------------------------------------------------- taking a page


def alloc_huge_page(k: Kernel, vma: Vma, address: u64, avoid_reserve: flag) -> i64:
    """Take a page for an address of a VMA, with a reference; -ENOMEM or -ENOSPC if it gets none.

    One that the VMA was promised, if it was and unless `avoid_reserve`; else a free one that
    nobody was promised; else a surplus page. Contents are whatever they were. No lock is held
    but the fault's mutex.
    """
    h: Hstate = hstate_vma(vma)
    map_chg: i64 = vma_needs_reservation(k, h, vma, address)
    if map_chg < 0:
        return -ENOMEM
    gbl_chg: i64 = 1 if map_chg or avoid_reserve else 0
    k.hugetlb_lock.lock()
    page: u64 = _dequeue_for(k, h, vma, avoid_reserve, gbl_chg)
    if not page:
        k.hugetlb_lock.unlock()
        page = alloc_surplus_huge_page(k, h)
        if not page:
            vma_end_reservation(k, h, vma, address)
            return -ENOSPC
        k.hugetlb_lock.lock()
        h.hugepage_activelist[page] = True
        if not avoid_reserve and vma_has_reserves(vma, gbl_chg):
            _take_promise(k, h, page)
    k.hugetlb_lock.unlock()
    map_commit: i64 = vma_commit_reservation(k, h, vma, address)
    if map_chg > map_commit:
        # Promised between the question and now: the page was taken, and promised as well.
        hugetlb_acct_memory(k, h, -1)
    if k.tracer is not None:
        k.tracer("alloc_huge_page", (page, vma, address, avoid_reserve))
    return page


def _dequeue_for(k: Kernel, h: Hstate, vma: Vma, avoid_reserve: flag, chg: i64) -> u64:
    """Take a free page for a VMA, unless all are promised to others; 0 if so, or if none is free.

    dequeue_huge_page_vma(). hugetlb_lock is held.
    """
    if available_huge_pages(h) == 0:
        if avoid_reserve or not vma_has_reserves(vma, chg):
            return 0
    page: u64 = dequeue_huge_page(k, h)
    if page and not avoid_reserve and vma_has_reserves(vma, chg):
        _take_promise(k, h, page)
    return page


def _take_promise(k: Kernel, h: Hstate, page: u64) -> i32:
    """The page is one that was promised; given back unused, it is so again."""
    SetPage(k, page, PG_private)
    h.resv_huge_pages -= 1
    return 0

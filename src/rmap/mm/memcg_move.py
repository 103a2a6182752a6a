# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""A process moves to another cgroup and takes its charges along (mm/memcontrol.c, v4.18).

What memory.move_charge_at_immigrate of the first version of cgroups asks for, with all its bits:
anonymous memory, swap entries, and the pages of files in the range of a mapping. In the second
version nothing moves.

Locks, outermost first: mmap_sem for read; page-table locks, one table at a time; the page lock,
only tried for; memcg->move_lock. While it goes on, `lock_page_memcg` takes that lock, too.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        GFP_KERNEL,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        SWP_OFFSET_MASK,
        SWP_TYPE_SHIFT,
    )
    from rmap.mm.lru import isolate_lru_page, put_page, putback_lru_page
    from rmap.mm.memcg import mem_cgroup_move_account, page_counter_uncharge, try_charge
    from rmap.mm.memory import vm_normal_page
    from rmap.mm.mm_types import Kernel, MemCgroup, Mm, SwapInfo, Vma
    from rmap.mm.page import PageTransCompound, get_page_unless_zero, page_mapped
    from rmap.mm.page_cache import find_get_page
    from rmap.mm.pgtable import (
        is_swap_pte,
        non_swap_entry,
        pmd_offset,
        pte_lock,
        pte_none,
        pte_offset,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
    )
    from rmap.mm.swap_cache import lookup_swap_cache
    from rmap.mm.vma import linear_page_index
    from rmap.scalar import flag, i32, i64, u64


class MoveCharge:
    """struct move_charge_struct: from where, whereto, what is charged there in advance."""

    def __init__(self, source: MemCgroup, target: MemCgroup) -> None:
        self.source = source
        self.target = target
        self.precharge = 0
        self.moved = 0


def mem_cgroup_move_task(k: Kernel, mm: Mm, target: MemCgroup) -> i64:
    """Move an address space to another cgroup, with its charges; how many pages, or -ENOMEM.

    mem_cgroup_can_attach() and mem_cgroup_move_task(). Pages that are locked or isolated stay
    behind, as in the kernel. On -ENOMEM nothing has moved.
    """
    mc: MoveCharge = MoveCharge(mm.memcg, target)
    if target is mc.source:
        return 0
    mm.mmap_sem.down_read()
    _walk(k, mm, mc, True)
    mm.mmap_sem.up_read()
    if try_charge(k, target, GFP_KERNEL, mc.precharge):
        return -ENOMEM
    mc.source.moving_account += 1
    mm.mmap_sem.down_read()
    _walk(k, mm, mc, False)
    mm.mmap_sem.up_read()
    mc.source.moving_account -= 1
    page_counter_uncharge(target, mc.precharge)
    mm.memcg = target
    return mc.moved


def _walk(k: Kernel, mm: Mm, mc: MoveCharge, counting: flag) -> i32:
    """Go through all page tables, to count what will move, or to move it."""
    vma: Vma = mm.mmap
    address: u64
    pmd: u64
    ptep: u64
    while vma is not None:
        address = vma.vm_start
        while address < vma.vm_end:
            pmd = pmd_offset(k, mm, address)
            ptep = pte_offset(k, pmd, address) if pmd else 0
            if not ptep:
                address = (address & PMD_MASK) + PMD_SIZE
                continue
            pte_lock(k, ptep)
            _move_pte(k, vma, address, ptep_get(k, ptep), mc, counting)
            pte_unlock(k, ptep)
            address += PAGE_SIZE
        vma = vma.vm_next
    return 0


def _move_pte(k: Kernel, vma: Vma, address: u64, pte: u64, mc: MoveCharge, counting: flag) -> i32:
    """Move what one entry stands for, if it is charged to the source."""
    page: u64 = _target_page(k, vma, address, pte)
    if page:
        if k.pg_memcg[page] == mc.source.ident:
            if counting:
                mc.precharge += 1
            elif mc.precharge > 0:
                _move_page(k, page, mc)
        put_page(k, page)
    elif is_swap_pte(pte) and not non_swap_entry(pte_to_swp_entry(pte)) and not counting:
        _move_swap_account(k, pte_to_swp_entry(pte), mc)
    return 0


def _target_page(k: Kernel, vma: Vma, address: u64, pte: u64) -> u64:
    """The page of an entry, mapped, in the swap cache or in its file, with a reference; or 0."""
    page: u64
    if pte_present(pte):
        page = vm_normal_page(k, vma, address, pte)
        if page and page_mapped(k, page) and get_page_unless_zero(k, page):
            return page
        return 0
    if is_swap_pte(pte):
        if non_swap_entry(pte_to_swp_entry(pte)):
            return 0
        return lookup_swap_cache(k, pte_to_swp_entry(pte))
    if pte_none(pte) and vma.vm_file is not None:
        return find_get_page(k, vma.vm_file.f_mapping, linear_page_index(k, vma, address))
    return 0


def _move_page(k: Kernel, page: u64, mc: MoveCharge) -> i32:
    """Move the charge of a page, off the LRU for the time being."""
    if PageTransCompound(k, page) or isolate_lru_page(k, page):
        return 0
    if mem_cgroup_move_account(k, page, mc.source, mc.target) == 0:
        mc.precharge -= 1
        mc.moved += 1
    return putback_lru_page(k, page)


def _move_swap_account(k: Kernel, entry: u64, mc: MoveCharge) -> i32:
    """Let a slot's memory be the target's, when it is read again."""
    area: SwapInfo = k.swap_areas[entry >> SWP_TYPE_SHIFT]
    offset: u64 = entry & SWP_OFFSET_MASK
    if area.swap_cgroup[offset] == mc.source.ident + 1:
        area.swap_cgroup[offset] = mc.target.ident + 1
    return 0

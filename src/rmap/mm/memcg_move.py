# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""A process moves to another cgroup and takes its charges along (mm/memcontrol.c, v4.18).

What memory.move_charge_at_immigrate of the first version of cgroups asks for, with all its bits:
anonymous memory, huge pages as a whole, pages on devices, swap entries, and the pages of files in
the range of a mapping. In the second version nothing moves.

Locks, outermost first: mmap_sem for read; page-table locks, one table at a time; the page lock,
only tried for; memcg->move_lock. While it goes on, `lock_page_memcg` takes that lock, too.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        GFP_KERNEL,
        HPAGE_PMD_NR,
        PAGE_SIZE,
        PMD_MASK,
        PMD_SIZE,
        SWP_OFFSET_MASK,
        SWP_TYPE_SHIFT,
        VM_HUGETLB,
    )
    from rmap.mm.huge.pgtable import is_huge_zero_pmd, pmd_trans_huge_lock
    from rmap.mm.lru import isolate_lru_page, put_page, putback_lru_page
    from rmap.mm.memcg import mem_cgroup_move_account, page_counter_uncharge, try_charge
    from rmap.mm.memory import vm_normal_page
    from rmap.mm.mm_types import Kernel, MemCgroup, Mm, SwapInfo, Vma
    from rmap.mm.page import (
        PageTransCompound,
        compound_head,
        get_page,
        get_page_unless_zero,
        hpage_nr_pages,
        is_zone_device_page,
        page_mapped,
    )
    from rmap.mm.page_cache import find_get_page
    from rmap.mm.pgtable import (
        is_device_private_entry,
        is_swap_pmd,
        is_swap_pte,
        non_swap_entry,
        pmd_offset,
        pte_lock,
        pte_none,
        pte_offset,
        pte_pfn,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        ptep_get,
        swp_offset,
    )
    from rmap.mm.swap_cache import lookup_swap_cache
    from rmap.mm.vma import linear_page_index
    from rmap.scalar import flag, i32, i64, u64


class MoveCharge:
    """struct move_charge_struct: from where, whereto, what is charged there in advance.

    `precharge` is what is left of that, in pages. `moved` are pages whose charge has moved, and
    `moved_swap` slots of swap, which are charged as swap: what memory was charged for them comes
    back in the end.
    """

    def __init__(self, source: MemCgroup, target: MemCgroup) -> None:
        self.source = source
        self.target = target
        self.precharge = 0
        self.moved = 0
        self.moved_swap = 0


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
    page_counter_uncharge(target, mc.precharge + mc.moved_swap)
    mm.memcg = target
    return mc.moved


def _walk(k: Kernel, mm: Mm, mc: MoveCharge, counting: flag) -> i32:
    """Go through all page tables, to count what will move, or to move it (walk_page_range())."""
    vma: Vma = mm.mmap
    address: u64
    stop: u64
    pmd: u64
    while vma is not None:
        address = vma.vm_start
        # Pages of hugetlb are charged to no memory cgroup.
        while address < vma.vm_end and not vma.vm_flags & VM_HUGETLB:
            stop = (address & PMD_MASK) + PMD_SIZE
            if stop > vma.vm_end:
                stop = vma.vm_end
            pmd = pmd_offset(k, mm, address)
            if pmd and pmd_trans_huge_lock(k, pmd):
                _move_pmd(k, ptep_get(k, pmd), mc, counting)
                pte_unlock(k, pmd)
            elif pmd and pte_offset(k, pmd, address):
                _walk_table(k, vma, pmd, address, stop, mc, counting)
            address = stop
        vma = vma.vm_next
    return 0


def _walk_table(
    k: Kernel, vma: Vma, pmd: u64, address: u64, end: u64, mc: MoveCharge, counting: flag
) -> i32:
    """Go through a table of PTEs: mem_cgroup_count_precharge_pte_range(), ..._move_charge_..."""
    ptep: u64 = pte_offset(k, pmd, address)
    base: u64 = ptep
    pte_lock(k, base)
    while address < end:
        if not counting and mc.precharge == 0:
            # More than was counted: one by one, as long as that goes well.
            pte_unlock(k, base)
            if try_charge(k, mc.target, GFP_KERNEL, 1):
                return 0
            mc.precharge = 1
            pte_lock(k, base)
        _move_pte(k, vma, address, ptep_get(k, ptep), mc, counting)
        address += PAGE_SIZE
        ptep += 1
    return pte_unlock(k, base)


# ---------------------------------------------------------------- entries


def _move_pmd(k: Kernel, pmde: u64, mc: MoveCharge, counting: flag) -> i32:
    """Move a huge page that a PMD maps, in one piece. The lock of the PMD's table is held.

    One that is just migrating stays behind, and so does one for which not enough is charged.
    """
    if is_swap_pmd(pmde) or is_huge_zero_pmd(k, pmde):
        return 0
    page: u64 = pte_pfn(pmde)
    if k.pg_memcg[page] != mc.source.ident:
        return 0
    if counting:
        mc.precharge += HPAGE_PMD_NR
    elif mc.precharge >= HPAGE_PMD_NR:
        get_page(k, page)
        _move_page(k, page, mc)
        put_page(k, page)
    return 0


def _move_pte(k: Kernel, vma: Vma, address: u64, pte: u64, mc: MoveCharge, counting: flag) -> i32:
    """Move what one entry stands for, if it is charged to the source.

    Parts of a huge page that PTEs map are not moved: they have one charge.
    """
    page: u64 = _target_page(k, vma, address, pte)
    if page:
        if k.pg_memcg[compound_head(k, page)] == mc.source.ident:
            if counting:
                mc.precharge += 1
            elif not PageTransCompound(k, page):
                _move_page(k, page, mc)
        put_page(k, page)
    elif is_swap_pte(pte) and not non_swap_entry(pte_to_swp_entry(pte)):
        _move_swap_account(k, pte_to_swp_entry(pte), mc, counting)
    return 0


def _target_page(k: Kernel, vma: Vma, address: u64, pte: u64) -> u64:
    """The page of an entry, with a reference: mapped, in the swap cache, of a device, in its file.

    get_mctgt_type(); 0 if there is none.
    """
    page: u64
    entry: u64
    if pte_present(pte):
        page = vm_normal_page(k, vma, address, pte)
        if page and page_mapped(k, page) and get_page_unless_zero(k, compound_head(k, page)):
            return page
        return 0
    if is_swap_pte(pte):
        entry = pte_to_swp_entry(pte)
        if is_device_private_entry(entry):
            # Mapped, it cannot be free.
            page = swp_offset(entry)
            get_page(k, page)
            return page
        if non_swap_entry(entry):
            return 0
        return lookup_swap_cache(k, entry)
    if pte_none(pte) and vma.vm_file is not None:
        return find_get_page(k, vma.vm_file.f_mapping, linear_page_index(k, vma, address))
    return 0


def _move_page(k: Kernel, page: u64, mc: MoveCharge) -> i32:
    """Move the charge of a page, or of a huge one, off the LRU for the time being.

    A page in memory of a device is on no list.
    """
    nr: i64 = hpage_nr_pages(k, page)
    device: flag = is_zone_device_page(k, page)
    if not device and isolate_lru_page(k, page):
        return 0
    if mem_cgroup_move_account(k, page, mc.source, mc.target) == 0:
        mc.precharge -= nr
        mc.moved += nr
    return 0 if device else putback_lru_page(k, page)


def _move_swap_account(k: Kernel, entry: u64, mc: MoveCharge, counting: flag) -> i32:
    """Let a slot's memory be the target's, when it is read again."""
    area: SwapInfo = k.swap_areas[entry >> SWP_TYPE_SHIFT]
    offset: u64 = entry & SWP_OFFSET_MASK
    if area.swap_cgroup[offset] != mc.source.ident + 1:
        return 0
    if counting:
        mc.precharge += 1
        return 0
    area.swap_cgroup[offset] = mc.target.ident + 1
    mc.precharge -= 1
    mc.moved_swap += 1
    return 0

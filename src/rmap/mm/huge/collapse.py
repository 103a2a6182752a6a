# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""khugepaged makes one huge page of anonymous small ones (mm/khugepaged.c, v4.18).

Locks, outermost first: mm->mmap_sem, for read while pages come in from swap, then for write; the
rwsem of the anon_vma's root for write, from before the PMD is emptied until the pages are isolated
and locked; inside of it the lock of the PMD's table, and after that of the table of PTEs. The page
locks are only tried for. While the PMD is empty, faults wait for mmap_sem and walks of the reverse
map for the anon_vma; from then on for the page locks, as the pages can still be found on no list.

Every profile collapses as v4.18 does, which wants half of the PTEs young, and no page shared.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_lock_write, anon_vma_unlock_write
    from rmap.mm.bits import (
        FAULT_FLAG_ALLOW_RETRY,
        GFP_KERNEL,
        GFP_TRANSHUGE,
        GFP_TRANSHUGE_LIGHT,
        HPAGE_PMD_NR,
        HPAGE_PMD_SIZE,
        MM_ANONPAGES,
        NR_ISOLATED,
        PAGE_SHIFT,
        PAGE_SIZE,
        PTRS_PER_PTE,
        SCAN_ADDRESS_RANGE,
        SCAN_ALLOC_HUGE_PAGE_FAIL,
        SCAN_ANY_PROCESS,
        SCAN_CGROUP_CHARGE_FAIL,
        SCAN_DEL_PAGE_LRU,
        SCAN_EXCEED_NONE_PTE,
        SCAN_FAIL,
        SCAN_LACK_REFERENCED_PAGE,
        SCAN_PAGE_COMPOUND,
        SCAN_PAGE_COUNT,
        SCAN_PAGE_LOCK,
        SCAN_PAGE_NULL,
        SCAN_PAGE_RO,
        SCAN_PMD_NULL,
        SCAN_PTE_NON_PRESENT,
        SCAN_SUCCEED,
        SCAN_SWAP_CACHE_PAGE,
        SCAN_VMA_CHECK,
        SCAN_VMA_NULL,
        THP_ALWAYS,
        THP_COLLAPSE_ALLOC,
        THP_COLLAPSE_ALLOC_FAILED,
        VM_FAULT_ERROR,
        VM_FAULT_RETRY,
        VM_HUGEPAGE,
        VM_HUGETLB,
        VM_NOHUGEPAGE,
        VM_SPECIAL,
        PG_referenced,
        PG_uptodate,
        PG_young,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.content import clear_page_content, copy_page_content
    from rmap.mm.fault_swap import do_swap_page
    from rmap.mm.huge.mm_slot import hugepage_end, hugepage_start, khugepaged_test_exit
    from rmap.mm.huge.pgtable import (
        alloc_transhuge_page,
        mk_huge_pmd,
        pgtable_trans_huge_deposit,
        pmd_populate,
    )
    from rmap.mm.lru import (
        isolate_lru_page,
        lru_cache_add_active_or_unevictable,
        put_page,
        putback_lru_page,
    )
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import VmFault, is_zero_pfn, maybe_mkwrite, vm_normal_page
    from rmap.mm.mlock_page import munlock_vma_page_counted
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.mmu_notifier import (
        mmu_notifier_invalidate_range_end,
        mmu_notifier_invalidate_range_start,
        mmu_notifier_test_young,
    )
    from rmap.mm.page import (
        PageAnon,
        PageCompound,
        PageFlag,
        PageSwapCache,
        SetPage,
        mod_node_page_state,
        page_count,
        page_mapcount,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.pgtable import (
        is_swap_pte,
        pte_lock,
        pte_mkdirty,
        pte_none,
        pte_offset,
        pte_pfn,
        pte_present,
        pte_unlock,
        pte_write,
        pte_young,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_counts import page_add_new_anon_rmap, page_remove_rmap
    from rmap.mm.rmap_walk import mm_find_pmd
    from rmap.mm.swap import free_page_and_swap_cache, reuse_swap_page
    from rmap.mm.tlb import pmdp_collapse_flush
    from rmap.mm.vma import (
        add_mm_counter,
        find_vma,
        is_vma_temporary_stack,
        linear_page_index,
        userfaultfd_armed,
    )
    from rmap.scalar import flag, i32, u64


class Collapse:
    """One attempt: where (`vma` and `pmd` as they were looked up last), the huge page, the result.

    `referenced` is how many of the PTEs were young when they were scanned.
    """

    def __init__(self, mm: Mm, address: u64, referenced: i32) -> None:
        self.mm = mm
        self.address = address
        self.referenced = referenced
        self.vma: Vma = None
        self.pmd = 0
        self.page = 0
        self.result = SCAN_FAIL


# ---------------------------------------------------------------- what may be collapsed


def hugepage_vma_check(k: Kernel, vma: Vma) -> flag:
    """Whether khugepaged may make huge pages in a VMA."""
    if not vma.vm_flags & VM_HUGEPAGE and k.thp_enabled != THP_ALWAYS:
        return False
    if vma.vm_flags & VM_NOHUGEPAGE:
        return False
    if vma.vm_file is not None and vma.vm_file.f_mapping.shmem:
        start: u64 = vma.vm_start >> PAGE_SHIFT
        return start % HPAGE_PMD_NR == vma.vm_pgoff % HPAGE_PMD_NR
    if vma.anon_vma is None or vma.vm_file is not None:
        return False
    if is_vma_temporary_stack(vma):
        return False
    return vma.vm_flags & (VM_SPECIAL | VM_HUGETLB) == 0


def hugepage_vma_revalidate(k: Kernel, c: Collapse) -> i32:
    """Look the VMA up again, after mmap_sem was given up; 0, or why it will not do any more."""
    if khugepaged_test_exit(c.mm):
        return SCAN_ANY_PROCESS
    c.vma = find_vma(k, c.mm, c.address)
    if c.vma is None:
        return SCAN_VMA_NULL
    if c.address < hugepage_start(c.vma) or c.address + HPAGE_PMD_SIZE > hugepage_end(c.vma):
        return SCAN_ADDRESS_RANGE
    if not hugepage_vma_check(k, c.vma):
        return SCAN_VMA_CHECK
    return 0


def khugepaged_alloc_page(k: Kernel) -> u64:
    """Take a huge page to collapse into, working hard for it if ``defrag`` is set; 0 if none."""
    gfp: u64 = GFP_TRANSHUGE if k.khugepaged.defrag else GFP_TRANSHUGE_LIGHT
    page: u64 = alloc_transhuge_page(k, gfp)
    k.vm_stat[THP_COLLAPSE_ALLOC if page else THP_COLLAPSE_ALLOC_FAILED] += 1
    return page


# ---------------------------------------------------------------- the collapse


def collapse_huge_page(k: Kernel, mm: Mm, address: u64, referenced: i32) -> i32:
    """Make the 2 MiB at an address one huge page. Returns SCAN_SUCCEED, or why it could not be.

    mmap_sem is held for read at the call, and released at return. If it fails, everything is as it
    was, but for what came in from swap.
    """
    c: Collapse = Collapse(mm, address, referenced)
    mm.mmap_sem.assert_held_any()
    # To find a huge page may take long, and needs nothing of the address space.
    mm.mmap_sem.up_read()
    c.page = khugepaged_alloc_page(k)
    if not c.page:
        return _collapsed(k, c, SCAN_ALLOC_HUGE_PAGE_FAIL)
    if mem_cgroup_try_charge(k, c.page, mm.memcg, GFP_KERNEL):
        return _collapsed(k, c, SCAN_CGROUP_CHARGE_FAIL)
    mm.mmap_sem.down_read()
    result: i32 = _prepare(k, c)
    mm.mmap_sem.up_read()
    if result != SCAN_SUCCEED:
        return _collapsed(k, c, result)
    # From here on nobody can fault; the others are kept away lock by lock.
    mm.mmap_sem.down_write()
    result = _collapse(k, c)
    mm.mmap_sem.up_write()
    return _collapsed(k, c, result)


def _collapsed(k: Kernel, c: Collapse, result: i32) -> i32:
    """End the attempt: give a huge page back that was not used."""
    if result == SCAN_SUCCEED:
        k.khugepaged.pages_collapsed += 1
    elif c.page:
        put_page(k, c.page)
    if k.tracer is not None:
        k.tracer("collapse_huge_page", (c.mm, c.address, c.page, result))
    return result


def _prepare(k: Kernel, c: Collapse) -> i32:
    """Look whether it still can be done, and bring in what is in swap; mmap_sem is held."""
    result: i32 = hugepage_vma_revalidate(k, c)
    if result:
        return result
    c.pmd = mm_find_pmd(k, c.mm, c.address)
    if not c.pmd:
        return SCAN_PMD_NULL
    if not _collapse_swapin(k, c):
        return SCAN_FAIL
    return SCAN_SUCCEED


def _collapse_swapin(k: Kernel, c: Collapse) -> flag:
    """Fault in what is in swap; whether to go on. __collapse_huge_page_swapin().

    v4.18 gives up here if less than half of the PTEs were young, though nothing be in swap.
    """
    if c.referenced < HPAGE_PMD_NR // 2:
        return False
    ret: i32
    vmf: VmFault = VmFault(c.vma, c.address, FAULT_FLAG_ALLOW_RETRY)
    address: u64
    for address in range(c.address, c.address + HPAGE_PMD_SIZE, PAGE_SIZE):
        vmf.vma = c.vma
        vmf.address = address
        vmf.pgoff = linear_page_index(k, c.vma, address)
        vmf.pmd = c.pmd
        vmf.pte = pte_offset(k, c.pmd, address)
        vmf.orig_pte = ptep_get(k, vmf.pte)
        if not is_swap_pte(vmf.orig_pte):
            continue
        ret = do_swap_page(k, vmf)
        if ret & VM_FAULT_RETRY:
            # It has given mmap_sem up.
            c.mm.mmap_sem.down_read()
            if hugepage_vma_revalidate(k, c) or mm_find_pmd(k, c.mm, c.address) != c.pmd:
                return False
        if ret & VM_FAULT_ERROR:
            return False
    return True


def _collapse(k: Kernel, c: Collapse) -> i32:
    """Isolate the pages, copy them, and map the huge page. mmap_sem is held for write."""
    mm: Mm = c.mm
    mm.mmap_sem.assert_held_write()
    result: i32 = hugepage_vma_revalidate(k, c)
    if result:
        return result
    if mm_find_pmd(k, mm, c.address) != c.pmd:
        return SCAN_FAIL
    vma: Vma = c.vma
    if vma.anon_vma is None:
        # A VMA of shmem that has come in the place of this one, over the same page table.
        BUG("khugepaged.c collapse_huge_page: the VMA has no anon_vma")
    anon_vma_lock_write(vma.anon_vma)
    first: u64 = pte_offset(k, c.pmd, c.address)
    mmu_notifier_invalidate_range_start(k, mm, c.address, c.address + HPAGE_PMD_SIZE)
    pte_lock(k, c.pmd)
    # No CPU may have translations of both sizes for an address.
    pmdp_collapse_flush(k, vma, c.address, c.pmd)
    pte_unlock(k, c.pmd)
    mmu_notifier_invalidate_range_end(k, mm, c.address, c.address + HPAGE_PMD_SIZE)
    pte_lock(k, first)
    isolated: flag = _collapse_isolate(k, c, first)
    pte_unlock(k, first)
    if not isolated:
        pte_lock(k, c.pmd)
        if not pte_none(ptep_get(k, c.pmd)):
            BUG("khugepaged.c collapse_huge_page: the PMD was set meanwhile")
        pmd_populate(k, mm, c.pmd, first // PTRS_PER_PTE)
        pte_unlock(k, c.pmd)
        anon_vma_unlock_write(vma.anon_vma)
        return c.result
    # Whoever walks the reverse map now waits for one of the page locks.
    anon_vma_unlock_write(vma.anon_vma)
    _collapse_copy(k, c, first)
    SetPage(k, c.page, PG_uptodate)
    _map_huge(k, c, first // PTRS_PER_PTE)
    return SCAN_SUCCEED


def _map_huge(k: Kernel, c: Collapse, row: u64) -> i32:
    """Map the new huge page by the PMD, and set the table of PTEs, now empty, aside for a split."""
    vma: Vma = c.vma
    entry: u64 = mk_huge_pmd(c.page, vma.vm_page_prot)
    entry = maybe_mkwrite(pte_mkdirty(entry), vma)
    pte_lock(k, c.pmd)
    if not pte_none(ptep_get(k, c.pmd)):
        BUG("khugepaged.c collapse_huge_page: the PMD was set meanwhile")
    page_add_new_anon_rmap(k, c.page, vma, c.address, True)
    lru_cache_add_active_or_unevictable(k, c.page, vma)
    pgtable_trans_huge_deposit(k, c.mm, c.pmd, row)
    set_pte_at(k, c.mm, c.address, c.pmd, entry)
    return pte_unlock(k, c.pmd)


# ---------------------------------------------------------------- the small pages


def _is_none_or_zero(k: Kernel, pte: u64) -> flag:
    """Whether there is no page in an entry that would have to be copied."""
    return pte_none(pte) or (pte_present(pte) and is_zero_pfn(k, pte_pfn(pte)))


def _collapse_isolate(k: Kernel, c: Collapse, first: u64) -> flag:
    """Lock and isolate the pages of a table; whether all could be. __collapse_huge_page_isolate().

    The table is locked. If not, those that were are released, and the result says why.
    """
    writable: flag = False
    referenced: i32 = 0
    empty: i32 = 0
    pte: u64
    page: u64
    ptep: u64 = first
    c.result = SCAN_SUCCEED
    while ptep < first + PTRS_PER_PTE:
        pte = ptep_get(k, ptep)
        if _is_none_or_zero(k, pte):
            empty += 1
            if userfaultfd_armed(c.vma) or empty > k.khugepaged.max_ptes_none:
                c.result = SCAN_EXCEED_NONE_PTE
        else:
            page = _page_to_isolate(k, c, pte, c.address + ((ptep - first) << PAGE_SHIFT))
            if page:
                if pte_write(pte):
                    writable = True
                if pte_is_young(k, c.mm, c.address, pte, page):
                    referenced += 1
        if c.result != SCAN_SUCCEED:
            _release_ptes(k, first, ptep)
            return False
        ptep += 1
    if writable and referenced:
        return True
    c.result = SCAN_LACK_REFERENCED_PAGE if writable else SCAN_PAGE_RO
    _release_ptes(k, first, ptep)
    return False


def pte_is_young(k: Kernel, mm: Mm, address: u64, pte: u64, page: u64) -> flag:
    """Whether an entry counts as used lately: by CPUs, by what was noted of its page, by devices.

    The address is that of the 2 MiB, for which alone v4.18 asks secondary MMUs.
    """
    if pte_young(pte) or PageFlag(k, page, PG_young | PG_referenced):
        return True
    return mmu_notifier_test_young(k, mm, address)


def _page_to_isolate(k: Kernel, c: Collapse, pte: u64, address: u64) -> u64:
    """Lock and isolate the page of an entry; 0 if it must stay, and then the result says why."""
    page: u64 = 0
    if not pte_present(pte):
        c.result = SCAN_PTE_NON_PRESENT
        return 0
    page = vm_normal_page(k, c.vma, address, pte)
    if not page:
        c.result = SCAN_PAGE_NULL
        return 0
    if PageCompound(k, page):
        c.result = SCAN_PAGE_COMPOUND
        return 0
    if not PageAnon(k, page):
        BUG_PAGE("khugepaged.c __collapse_huge_page_isolate: the page is not anonymous", page)
    if not trylock_page(k, page):
        c.result = SCAN_PAGE_LOCK
        return 0
    # The mapping's reference and the swap cache's: anything else is a pin, or another process.
    if page_count(k, page) != 1 + PageSwapCache(k, page):
        c.result = SCAN_PAGE_COUNT
    elif not pte_write(pte) and PageSwapCache(k, page) and not reuse_swap_page(k, page):
        c.result = SCAN_SWAP_CACHE_PAGE
    elif isolate_lru_page(k, page):
        c.result = SCAN_DEL_PAGE_LRU
    else:
        mod_node_page_state(k, NR_ISOLATED, 1)
        return page
    unlock_page(k, page)
    return 0


def _release_pte_page(k: Kernel, page: u64) -> i32:
    """Unlock a page and put it back on its list."""
    mod_node_page_state(k, NR_ISOLATED, -1)
    unlock_page(k, page)
    return putback_lru_page(k, page)


def _release_ptes(k: Kernel, first: u64, stop: u64) -> i32:
    """Release the pages of the entries from `first` to before `stop`, last ones first."""
    pte: u64
    while stop > first:
        stop -= 1
        pte = ptep_get(k, stop)
        if not _is_none_or_zero(k, pte):
            _release_pte_page(k, pte_pfn(pte))
    return 0


def _collapse_copy(k: Kernel, c: Collapse, first: u64) -> i32:
    """Copy the pages into the huge one, empty their entries and let them go; pages that were not
    there are zeros, and count from now on. __collapse_huge_page_copy().
    """
    mm: Mm = c.mm
    pte: u64
    source: u64
    i: u64
    for i in range(PTRS_PER_PTE):
        pte = ptep_get(k, first + i)
        if _is_none_or_zero(k, pte):
            clear_page_content(k, c.page + i)
            add_mm_counter(k, mm, MM_ANONPAGES, 1)
            if not pte_none(pte):
                pte_lock(k, first)
                set_pte_at(k, mm, c.address + (i << PAGE_SHIFT), first + i, 0)
                pte_unlock(k, first)
            continue
        source = pte_pfn(pte)
        copy_page_content(k, c.page + i, source)
        if page_mapcount(k, source) != 1:
            BUG_PAGE("khugepaged.c __collapse_huge_page_copy: the page is mapped twice", source)
        _release_pte_page(k, source)
        pte_lock(k, first)
        set_pte_at(k, mm, c.address + (i << PAGE_SHIFT), first + i, 0)
        page_remove_rmap(k, source, False)
        if k.profile.mlock_counts:
            munlock_vma_page_counted(k, source, c.vma, False)
        pte_unlock(k, first)
        free_page_and_swap_cache(k, source)
    return 0

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Page faults: where they begin, and those on anonymous memory (mm/memory.c, v4.18).

Locks: mm->mmap_sem for read is held by whoever calls `handle_mm_fault`, and given up by it only
with VM_FAULT_RETRY. A first write takes what anon_vma_prepare() takes; then comes the page-table
lock, and inside it what the LRU needs. What was seen without that lock is looked at again with it.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.anon_vma import anon_vma_prepare
    from rmap.mm.bits import (
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        _PAGE_SPECIAL,
        FAULT_FLAG_UNSHARE,
        FAULT_FLAG_WRITE,
        GFP_HIGHUSER,
        GFP_KERNEL,
        MM_ANONPAGES,
        PGFAULT,
        VM_ACCESS_FLAGS,
        VM_FAULT_FALLBACK,
        VM_FAULT_OOM,
        VM_FAULT_SIGBUS,
        VM_HUGETLB,
        VM_SHARED,
        VM_UFFD_MISSING,
        VM_WRITE,
        PG_uptodate,
    )
    from rmap.mm.fault_file import do_fault
    from rmap.mm.fault_swap import do_swap_page
    from rmap.mm.fault_wp import do_wp_page
    from rmap.mm.huge.fault import (
        do_huge_pmd_anonymous_page,
        do_huge_pmd_numa_page,
        huge_pmd_set_accessed,
        wp_huge_pmd,
    )
    from rmap.mm.huge.pgtable import pmd_protnone, transparent_hugepage_enabled
    from rmap.mm.hugetlb.fault import hugetlb_fault
    from rmap.mm.lru import lru_cache_add_active_or_unevictable, put_page
    from rmap.mm.memcg import mem_cgroup_try_charge
    from rmap.mm.memory import VmFault, init_zero_pfn, ptep_set_access_flags
    from rmap.mm.migrate.entries import pmd_migration_entry_wait
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.page_alloc import alloc_page
    from rmap.mm.pgtable import (
        is_swap_pmd,
        pfn_pte,
        pmd_alloc,
        pte_alloc_map,
        pte_lock,
        pte_mkdirty,
        pte_mkwrite,
        pte_mkyoung,
        pte_modify,
        pte_none,
        pte_offset,
        pte_present,
        pte_unlock,
        pte_write,
        ptep_get,
        set_pte_at,
    )
    from rmap.mm.rmap_counts import page_add_new_anon_rmap
    from rmap.mm.uffd import handle_userfault, userfaultfd_missing
    from rmap.mm.vma import inc_mm_counter, vma_is_anonymous
    from rmap.scalar import i32, u64


def handle_mm_fault(k: Kernel, vma: Vma, address: u64, flags: u64) -> i32:
    """Resolve a fault at an address of the VMA, which permits the access.

    `flags` are FAULT_FLAG_ bits; returns VM_FAULT_ bits, with which the access is tried again
    unless VM_FAULT_ERROR is among them. mmap_sem is held for read, unless VM_FAULT_RETRY is.
    """
    vma.vm_mm.mmap_sem.assert_held_any()
    vmf: VmFault = VmFault(vma, address, flags)
    vmf.aim(k, address, flags)
    return handle_fault(k, vmf)


def handle_fault(k: Kernel, vmf: VmFault) -> i32:
    """The same for a fault that is already described: __handle_mm_fault()."""
    k.vm_stat[PGFAULT] += 1
    vma: Vma = vmf.vma
    if k.tracer is not None:
        k.tracer("handle_mm_fault", (vma, vmf.address, vmf.flags))
    if vma.vm_flags & VM_HUGETLB:
        return hugetlb_fault(k, vma, vmf.address, vmf.flags)
    vmf.pmd = pmd_alloc(k, vma.vm_mm, vmf.address)
    if not vmf.pmd:
        return VM_FAULT_OOM
    pmde: u64 = k.pt[vmf.pmd]
    ret: i32 = VM_FAULT_FALLBACK
    if pte_none(pmde):
        if k.thp_enabled and vma_is_anonymous(vma) and transparent_hugepage_enabled(k, vma):
            ret = do_huge_pmd_anonymous_page(k, vmf)
    elif pmde & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT:
        ret = handle_huge_fault(k, vmf, pmde)
    if not ret & VM_FAULT_FALLBACK:
        return ret
    return handle_pte_fault(k, vmf)


def handle_huge_fault(k: Kernel, vmf: VmFault, pmde: u64) -> i32:
    """A fault where a PMD maps a huge page, or waits for one (mm/memory.c:4060, v4.18).

    VM_FAULT_FALLBACK if there is a table now, or room for one.
    """
    if is_swap_pmd(pmde):
        pmd_migration_entry_wait(k, vmf.pmd)
        return 0
    if pmd_protnone(pmde) and vmf.vma.vm_flags & VM_ACCESS_FLAGS:
        return do_huge_pmd_numa_page(k, vmf, pmde)
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not pte_write(pmde):
        return wp_huge_pmd(k, vmf, pmde)
    return huge_pmd_set_accessed(k, vmf, pmde)


def handle_pte_fault(k: Kernel, vmf: VmFault) -> i32:
    """Look at the entry, without a lock, and go by what it is; each way looks at it again."""
    vmf.pte = 0
    if not pte_none(k.pt[vmf.pmd]):
        vmf.pte = pte_offset(k, vmf.pmd, vmf.address)
        if not vmf.pte:
            # A huge page by now: look from the start.
            return 0
        vmf.orig_pte = ptep_get(k, vmf.pte)
        if pte_none(vmf.orig_pte):
            vmf.pte = 0
    if not vmf.pte:
        if vma_is_anonymous(vmf.vma):
            return do_anonymous_page(k, vmf)
        return do_fault(k, vmf)
    if not pte_present(vmf.orig_pte):
        return do_swap_page(k, vmf)
    protnone: u64 = vmf.orig_pte & (_PAGE_PRESENT | _PAGE_PROTNONE)
    if protnone == _PAGE_PROTNONE and vmf.vma.vm_flags & VM_ACCESS_FLAGS:
        return do_numa_page(k, vmf)
    return handle_present_pte(k, vmf)


def handle_present_pte(k: Kernel, vmf: VmFault) -> i32:
    """A fault on a present entry: a write it forbids, or one that somebody else has resolved."""
    pte_lock(k, vmf.pte)
    entry: u64 = vmf.orig_pte
    if ptep_get(k, vmf.pte) != entry:
        pte_unlock(k, vmf.pte)
        return 0
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not pte_write(entry):
        return do_wp_page(k, vmf)
    if vmf.flags & FAULT_FLAG_WRITE:
        entry = pte_mkdirty(entry)
    entry = pte_mkyoung(entry)
    ptep_set_access_flags(
        k, vmf.vma, vmf.address, vmf.pte, entry, vmf.flags & FAULT_FLAG_WRITE != 0
    )
    pte_unlock(k, vmf.pte)
    return 0


def do_numa_page(k: Kernel, vmf: VmFault) -> i32:
    """Make an entry usable again that forbids what its VMA permits, as NUMA balancing leaves it.

    There is one node, so the page is where it belongs. Its writability went with the hint, and a
    write takes a fault of its own.
    """
    vma: Vma = vmf.vma
    pte_lock(k, vmf.pte)
    if ptep_get(k, vmf.pte) == vmf.orig_pte:
        pte: u64 = pte_mkyoung(pte_modify(vmf.orig_pte, vma.vm_page_prot))
        set_pte_at(k, vma.vm_mm, vmf.address, vmf.pte, pte)
    pte_unlock(k, vmf.pte)
    return 0


# ---------------------------------------------------------------- anonymous memory


def do_anonymous_page(k: Kernel, vmf: VmFault) -> i32:
    """The first access to a page of anonymous memory: the zero page for a read, else a new one."""
    vma: Vma = vmf.vma
    if vma.vm_flags & VM_SHARED:
        return VM_FAULT_SIGBUS
    vmf.pte = pte_alloc_map(k, vma.vm_mm, vmf.pmd, vmf.address)
    if not vmf.pte:
        # No memory for a table; or a huge page came first.
        return VM_FAULT_OOM if pte_none(k.pt[vmf.pmd]) else 0
    if not vmf.flags & FAULT_FLAG_WRITE:
        return _map_zero_page(k, vmf)
    if anon_vma_prepare(k, vma):
        return VM_FAULT_OOM
    page: u64 = alloc_page(k, GFP_HIGHUSER)
    if not page:
        return VM_FAULT_OOM
    if mem_cgroup_try_charge(k, page, vma.vm_mm.memcg, GFP_KERNEL):
        put_page(k, page)
        return VM_FAULT_OOM
    # Zeroed before anybody can see it by the entry.
    k.pg_flags[page] |= PG_uptodate
    return _map_anonymous_page(k, vmf, page)


def _map_zero_page(k: Kernel, vmf: VmFault) -> i32:
    """Map the zero page, of which neither rmap nor rss know anything."""
    vma: Vma = vmf.vma
    zero: u64 = init_zero_pfn(k)
    if not zero:
        return VM_FAULT_OOM
    pte_lock(k, vmf.pte)
    if not pte_none(ptep_get(k, vmf.pte)):
        pte_unlock(k, vmf.pte)
        return 0
    if userfaultfd_missing(vma):
        pte_unlock(k, vmf.pte)
        return handle_userfault(k, vmf, VM_UFFD_MISSING)
    entry: u64 = pfn_pte(zero, vma.vm_page_prot) | _PAGE_SPECIAL
    set_pte_at(k, vma.vm_mm, vmf.address, vmf.pte, entry)
    return pte_unlock(k, vmf.pte)


def _map_anonymous_page(k: Kernel, vmf: VmFault, page: u64) -> i32:
    """Map a new page, unless another thread or userfaultfd comes in between."""
    vma: Vma = vmf.vma
    mm: Mm = vma.vm_mm
    entry: u64 = pfn_pte(page, vma.vm_page_prot)
    if vma.vm_flags & VM_WRITE:
        entry = pte_mkwrite(pte_mkdirty(entry))
    pte_lock(k, vmf.pte)
    if not pte_none(ptep_get(k, vmf.pte)):
        pte_unlock(k, vmf.pte)
        put_page(k, page)
        return 0
    if userfaultfd_missing(vma):
        pte_unlock(k, vmf.pte)
        put_page(k, page)
        return handle_userfault(k, vmf, VM_UFFD_MISSING)
    inc_mm_counter(k, mm, MM_ANONPAGES)
    page_add_new_anon_rmap(k, page, vma, vmf.address, False)
    lru_cache_add_active_or_unevictable(k, page, vma)
    set_pte_at(k, mm, vmf.address, vmf.pte, entry)
    pte_unlock(k, vmf.pte)
    if k.tracer is not None:
        k.tracer("do_anonymous_page", (page, vma, vmf.address))
    return 0

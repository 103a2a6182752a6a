# SPDX-License-Identifier: GPL-2.0-only
"""Processes that share pages, made by hand: what the tests of walks look at.

Everything is done with the kernel's own parts, but without faults and system calls, so that a test
can make what these would not: entries with any bits, at any place.
"""

from __future__ import annotations

from kernels import RW, make_kernel, make_mm, map_pages, prepare, writing

from rmap.mm.anon_vma import anon_vma_fork
from rmap.mm.bits import (
    _PAGE_ACCESSED,
    _PAGE_DIRTY,
    _PAGE_NX,
    _PAGE_PRESENT,
    _PAGE_PSE,
    _PAGE_RW,
    _PAGE_USER,
    GFP_HIGHUSER,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    MAPPING_HANDLE_SHIFT,
    MM_ANONPAGES,
    PAGE_SHIFT,
    PAGE_SIZE,
    VM_SHARED,
    PG_swapbacked,
    PG_uptodate,
)
from rmap.mm.huge.pgtable import pgtable_trans_huge_deposit, zap_deposited_table
from rmap.mm.huge.split_pmd import split_huge_pmd_address
from rmap.mm.i_mmap import vma_link_file
from rmap.mm.lru import lru_cache_add, put_page
from rmap.mm.mm_types import AddressSpace, File, Kernel, Mm, Vma
from rmap.mm.page import (
    compound_order,
    get_page,
    lock_page,
    unlock_page,
)
from rmap.mm.page_alloc import alloc_page, alloc_pages
from rmap.mm.pgtable import (
    pfn_pte,
    pmd_alloc,
    pte_alloc,
    pte_alloc_row,
    pte_lock,
    pte_lookup,
    pte_pfn,
    pte_unlock,
    ptep_get_and_clear,
    set_pte_at,
)
from rmap.mm.rmap_counts import (
    page_add_anon_rmap,
    page_add_file_rmap,
    page_add_new_anon_rmap,
    page_dup_rmap,
    page_remove_rmap,
)
from rmap.mm.tlb import make_cpus
from rmap.mm.vma import mm_counter, vm_area_alloc, vm_area_dup, vma_link_list
from rmap.sync.core import scheduler

#: Entries as a fault makes them: read only and old, and the bits that use adds.
CLEAN = _PAGE_PRESENT | _PAGE_USER | _PAGE_NX
YOUNG = _PAGE_ACCESSED
DIRTY = _PAGE_DIRTY
WRITE = _PAGE_RW
USED = CLEAN | YOUNG | DIRTY | WRITE
#: Where the memory of these worlds begins, in pages.
BASE = 0x100


def world(pages: int = 256, cpus: int = 2, **quirks: bool) -> Kernel:
    """A kernel with CPUs, and nothing running."""
    k = make_kernel(pages, **quirks)
    make_cpus(k, cpus)
    return k


def hugetlb_file(k: Kernel, size: int = 0) -> File:
    """A file of huge pages, of the smaller size or (1) the larger, that no tree knows."""
    return File("huge", 1, AddressSpace(1, "huge", hstate=k.hstates[size]))


def crashed() -> None:
    """Forget the locks that a `KernelBug` left held: whoever ran is dead, as after an oops."""
    current = scheduler().current
    current.held.clear()
    current.rcu_depth = 0


def address_of(vma: Vma, page: int) -> int:
    """The address of a VMA's page, counted from its start."""
    return int(vma.vm_start + page * PAGE_SIZE)


def pte_of(k: Kernel, vma: Vma, page: int = 0) -> int:
    """The entry of a VMA's page, by value; 0 if there is no table."""
    ptep = pte_lookup(k, vma.vm_mm, address_of(vma, page))
    return int(k.pt[ptep]) if ptep else 0


def poke(k: Kernel, vma: Vma, pte: int, page: int = 0) -> None:
    """Store an entry, counting nothing."""
    set_pte_at(k, vma.vm_mm, address_of(vma, page), at(k, vma, page), pte)


def at(k: Kernel, vma: Vma, page: int = 0) -> int:
    """The place of the entry of a VMA's page, in a table that is made if it is missing."""
    return int(pte_alloc(k, vma.vm_mm, address_of(vma, page)))


# ---------------------------------------------------------------- anonymous memory


def process(k: Kernel, pages: int = 4, comm: str = "p0", flags: int = RW) -> Vma:
    """A process with anonymous memory, which is not touched yet."""
    return map_pages(k, make_mm(k, comm), BASE, pages, flags)


def touch(k: Kernel, vma: Vma, page: int = 0, bits: int = USED) -> int:
    """First write to an anonymous page; returns the page."""
    if vma.anon_vma is None:
        prepare(k, vma)
    pfn = alloc_page(k, GFP_HIGHUSER)
    ptep = at(k, vma, page)
    k.pg_flags[pfn] |= PG_uptodate
    pte_lock(k, ptep)
    page_add_new_anon_rmap(k, pfn, vma, address_of(vma, page), False)
    set_pte_at(k, vma.vm_mm, address_of(vma, page), ptep, pfn_pte(pfn, bits))
    vma.vm_mm.rss_stat[MM_ANONPAGES] += 1
    pte_unlock(k, ptep)
    lru_cache_add(k, pfn)
    return int(pfn)


def fork(k: Kernel, parent: Vma, comm: str) -> Vma:
    """A child that shares what the parent has touched; returns its VMA."""
    child = make_mm(k, comm)
    vma = vm_area_dup(k, parent)
    vma.vm_mm = child
    vma.anon_vma = None
    with writing(parent.vm_mm, child):
        if parent.anon_vma is not None:
            assert anon_vma_fork(k, vma, parent) == 0
        vma_link_list(k, child, vma)
    for page in range((vma.vm_end - vma.vm_start) >> PAGE_SHIFT):
        pte = pte_of(k, parent, page)
        if pte & _PAGE_PRESENT:
            poke(k, parent, pte & ~_PAGE_RW, page)
            poke(k, vma, pte & ~(_PAGE_RW | _PAGE_ACCESSED), page)
            get_page(k, pte_pfn(pte))
            page_dup_rmap(k, pte_pfn(pte), False)
            child.rss_stat[mm_counter(k, pte_pfn(pte))] += 1
    return vma


def family(k: Kernel, children: int, pages: int = 4) -> tuple[int, list[Vma]]:
    """A page that a process and so many children of it map, all of them young; and their VMAs."""
    vmas = [process(k, pages)]
    page = touch(k, vmas[0])
    for number in range(children):
        vmas.append(fork(k, vmas[0], f"p{number + 1}"))
        poke(k, vmas[-1], pfn_pte(page, CLEAN | YOUNG | DIRTY))
    return page, vmas


def remap(k: Kernel, page: int, vma: Vma, at_page: int = 0, bits: int = CLEAN) -> None:
    """Map an anonymous page once more, as swap-in does."""
    ptep = at(k, vma, at_page)
    lock_page(k, page)
    pte_lock(k, ptep)
    page_add_anon_rmap(k, page, vma, address_of(vma, at_page), False)
    set_pte_at(k, vma.vm_mm, address_of(vma, at_page), ptep, pfn_pte(page, bits))
    vma.vm_mm.rss_stat[MM_ANONPAGES] += 1
    get_page(k, page)
    pte_unlock(k, ptep)
    unlock_page(k, page)


# ---------------------------------------------------------------- files


def make_file(k: Kernel, name: str = "f", *, shmem: bool = False) -> File:
    """A file with nothing in its page cache."""
    mapping = AddressSpace(len(k.mappings), name, shmem=shmem)
    k.mappings.append(mapping)
    mapping.host = File(name, len(k.mappings), mapping)
    return mapping.host


def cache(k: Kernel, file: File, index: int) -> int:
    """Read a page of a file into the page cache; returns the page."""
    page = int(alloc_page(k, GFP_HIGHUSER))
    k.pg_flags[page] |= PG_uptodate | (PG_swapbacked if file.f_mapping.shmem else 0)
    k.pg_mapping[page] = file.f_mapping.handle << MAPPING_HANDLE_SHIFT
    k.pg_index[page] = index
    file.f_mapping.i_pages[index] = page
    file.f_mapping.nrpages += 1
    lru_cache_add(k, page)
    return page


def map_file(
    k: Kernel,
    file: File,
    comm: str = "p0",
    pages: int = 4,
    flags: int = RW | VM_SHARED,
    pgoff: int = 0,
    mm: Mm | None = None,
    first: int = BASE,
) -> Vma:
    """A process (or one that is there) that maps a file from page `pgoff` on."""
    if mm is None:
        mm = make_mm(k, comm)
    start = first << PAGE_SHIFT
    vma = vm_area_alloc(k, mm, start, start + (pages << PAGE_SHIFT), flags, pgoff)
    vma.vm_file = file
    with writing(mm):
        vma_link_list(k, mm, vma)
        file.f_mapping.i_mmap_rwsem.down_write()
        vma_link_file(vma)
        file.f_mapping.i_mmap_rwsem.up_write()
    return vma


def map_cached(k: Kernel, page: int, vma: Vma, bits: int = CLEAN) -> None:
    """Map a page of the page cache where it belongs in a VMA of its file."""
    number = k.pg_index[page] - vma.vm_pgoff
    ptep = at(k, vma, number)
    pte_lock(k, ptep)
    page_add_file_rmap(k, page, False)
    get_page(k, page)
    set_pte_at(k, vma.vm_mm, address_of(vma, number), ptep, pfn_pte(page, bits))
    vma.vm_mm.rss_stat[mm_counter(k, page)] += 1
    pte_unlock(k, ptep)


# ---------------------------------------------------------------- huge pages


def touch_huge(k: Kernel, vma: Vma, bits: int = USED) -> int:
    """First write to an anonymous huge page, which a PMD maps; returns its head."""
    prepare(k, vma)
    head = int(alloc_pages(k, GFP_HIGHUSER, HPAGE_PMD_ORDER))
    assert head, "no 512 free pages in a row"
    assert compound_order(k, head) == HPAGE_PMD_ORDER
    pmd = pmd_alloc(k, vma.vm_mm, vma.vm_start)
    row = pte_alloc_row(k, vma.vm_mm)
    pte_lock(k, pmd)
    pgtable_trans_huge_deposit(k, vma.vm_mm, pmd, row)
    page_add_new_anon_rmap(k, head, vma, vma.vm_start, True)
    set_pte_at(k, vma.vm_mm, vma.vm_start, pmd, pfn_pte(head, bits | _PAGE_PSE))
    vma.vm_mm.rss_stat[MM_ANONPAGES] += HPAGE_PMD_NR
    pte_unlock(k, pmd)
    k.pg_flags[head] |= PG_uptodate
    lru_cache_add(k, head)
    return head


def split_by_hand(k: Kernel, vma: Vma, head: int) -> None:
    """Let PTEs map a huge page where a PMD does."""
    split_huge_pmd_address(k, vma, vma.vm_start, False, head)


def fork_huge(k: Kernel, parent: Vma, comm: str) -> Vma:
    """A child that maps the huge page of its parent by a PMD of its own; its VMA."""
    vma = fork(k, parent, comm)
    theirs, ours = (int(pmd_alloc(k, v.vm_mm, v.vm_start)) for v in (parent, vma))
    head = pte_pfn(k.pt[theirs])
    row = pte_alloc_row(k, vma.vm_mm)
    pte_lock(k, ours)
    get_page(k, head)
    page_dup_rmap(k, head, True)
    pgtable_trans_huge_deposit(k, vma.vm_mm, ours, row)
    k.pt[theirs] &= ~_PAGE_RW
    set_pte_at(k, vma.vm_mm, vma.vm_start, ours, k.pt[theirs] & ~_PAGE_ACCESSED)
    vma.vm_mm.rss_stat[mm_counter(k, head)] += HPAGE_PMD_NR
    pte_unlock(k, ours)
    return vma


def unmap_huge(k: Kernel, vma: Vma) -> None:
    """Unmap a huge page that a PMD maps, as zap does."""
    pmd = pmd_alloc(k, vma.vm_mm, vma.vm_start)
    pte_lock(k, pmd)
    head = pte_pfn(ptep_get_and_clear(k, vma.vm_mm, vma.vm_start, pmd))
    page_remove_rmap(k, head, True)
    vma.vm_mm.rss_stat[mm_counter(k, head)] -= HPAGE_PMD_NR
    zap_deposited_table(k, vma.vm_mm, pmd)
    pte_unlock(k, pmd)
    put_page(k, head)


def unmap_part(k: Kernel, vma: Vma, page: int) -> None:
    """Unmap one part of what is mapped by PTEs, as zap does."""
    ptep = at(k, vma, page)
    pte_lock(k, ptep)
    pfn = pte_pfn(ptep_get_and_clear(k, vma.vm_mm, address_of(vma, page), ptep))
    page_remove_rmap(k, pfn, False)
    vma.vm_mm.rss_stat[MM_ANONPAGES] -= 1
    pte_unlock(k, ptep)
    put_page(k, pfn)

# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages that were put into page tables by hand, for tests of what looks at them.

No fault, split or collapse is asked: each state is what the kernel's arithmetic says it must be,
written down here. So the checks are tested by something else than the code that they check.
"""

from __future__ import annotations

from rmap.mm.anon_vma import __anon_vma_prepare as anon_vma_prepare
from rmap.mm.bits import (
    _PAGE_DIRTY,
    _PAGE_PRESENT,
    _PAGE_PSE,
    _PAGE_RW,
    _PAGE_USER,
    HPAGE_PMD_NR,
    HPAGE_PMD_ORDER,
    HPAGE_PMD_SIZE,
    MM_ANONPAGES,
    MM_FILEPAGES,
    MM_SHMEMPAGES,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    NR_FILE_MAPPED,
    NR_FILE_PAGES,
    NR_SHMEM,
    NR_SHMEM_PMDMAPPED,
    NR_SHMEM_THPS,
    PAGE_SHIFT,
    PAGE_SIZE,
    PG_dirty,
    PG_double_map,
    PG_swapbacked,
    PG_uptodate,
)
from rmap.mm.mm_types import Vma
from rmap.mm.page_alloc import alloc_pages
from rmap.mm.pgtable import pmd_alloc, pte_alloc, pte_alloc_row
from rmap.mm.profile import KernelProfile
from rmap.model import Machine, Process

HUGE = HPAGE_PMD_SIZE
BASE = 0x4000_0000
TABLE = 512
LEAF = _PAGE_PRESENT | _PAGE_USER | _PAGE_PSE
SMALL = _PAGE_PRESENT | _PAGE_USER


class HugeScene:
    """A parent and its child with three huge pages.

    `alone` is anonymous memory that the parent maps by one huge entry; `both` is mapped by a huge
    entry of the parent and by small ones of the child; `box` is shared memory, whole in the parent
    and three pages of it in the child. At `zero` the parent maps the huge zero page.
    """

    def __init__(self, profile: str | KernelProfile = "4.18") -> None:
        self.machine = Machine(ram=8192, cpus=2, swap=64, profile=profile)
        self.k = self.machine.kernel
        self.file = self.machine.file("box", HPAGE_PMD_NR, shmem=True)
        self.parent = self.machine.spawn("parent")
        self.private = BASE
        self.shared = BASE + 8 * HUGE
        self.parent.mmap(4 * HUGE, addr=self.private)
        self.parent.mmap(HUGE, "rw", "file", self.file, addr=self.shared)
        with self.machine.running(self.parent) as k:
            self.parent.mm.mmap_sem.down_read()
            anon_vma_prepare(k, self.vma(self.parent, self.private))
            self.parent.mm.mmap_sem.up_read()
        self.child = self.parent.fork("child")
        self.alone = self.new_page(self.parent, self.private)
        self.both = self.new_page(self.parent, self.private + HUGE)
        self.box = self.shmem_page()
        self.map_whole(self.parent, self.private, self.alone, _PAGE_RW | _PAGE_DIRTY)
        self.map_whole(self.parent, self.private + HUGE, self.both)
        self.map_parts(self.child, self.private + HUGE, self.both, HPAGE_PMD_NR)
        self.map_whole(self.parent, self.shared, self.box)
        self.map_parts(self.child, self.shared, self.box, 3)
        self.zero = self.private + 2 * HUGE
        self.map_zero_page(self.parent, self.zero)
        self.count()

    # ------------------------------------------------------------ making

    def new_page(self, process: Process, address: int) -> int:
        """A huge page that a VMA's anon_vma may name, mapped by nobody yet."""
        with self.machine.kthread("alloc") as k:
            page = alloc_pages(k, 1, HPAGE_PMD_ORDER)
        assert page
        vma = self.vma(process, address)
        self.k.pg_mapping[page] = vma.anon_vma.root.handle << 2 | 1
        self.k.pg_index[page] = vma.vm_pgoff + (address - vma.vm_start) // PAGE_SIZE
        self.k.pg_flags[page] |= PG_swapbacked | PG_uptodate | PG_dirty
        self.k.pg_refcount[page] = 0
        return int(page)

    def shmem_page(self) -> int:
        """A huge page in the page cache of the file."""
        with self.machine.kthread("alloc") as k:
            page = alloc_pages(k, 1, HPAGE_PMD_ORDER)
        assert page
        mapping = self.file.mapping
        for number in range(HPAGE_PMD_NR):
            mapping.i_pages[number] = page + number
        mapping.nrpages += HPAGE_PMD_NR
        self.k.pg_mapping[page] = mapping.handle << 2
        self.k.pg_index[page] = 0
        self.k.pg_flags[page] |= PG_swapbacked | PG_uptodate | PG_dirty
        self.k.pg_refcount[page] = HPAGE_PMD_NR
        return int(page)

    def map_whole(self, process: Process, address: int, page: int, rights: int = 0) -> None:
        """Map a huge page by one entry; a table is kept for one of anonymous memory."""
        k = self.k
        pmd = pmd_alloc(k, process.mm, address)
        k.pt[pmd] = page << PAGE_SHIFT | LEAF | rights
        k.pg_lru_prev[page + 1] += 1
        k.pg_refcount[page] += 1
        if k.pg_mapping[page] & 1:
            self.keep_table(process, pmd)
            return
        for number in range(HPAGE_PMD_NR):
            k.pg_mapcount[page + number] += 1

    def keep_table(self, process: Process, pmd: int) -> None:
        """Keep a page table for when the entry is split."""
        row = pte_alloc_row(self.k, process.mm)
        self.k.pmd_huge_pte.setdefault(pmd // TABLE, []).append(row)

    def map_parts(self, process: Process, address: int, page: int, count: int) -> None:
        """Map the first pages of a huge page by small entries, after it was mapped whole."""
        k = self.k
        for number in range(count):
            pte = pte_alloc(k, process.mm, address + number * PAGE_SIZE)
            k.pt[pte] = (page + number) << PAGE_SHIFT | SMALL
            k.pg_mapcount[page + number] += 1
        k.pg_refcount[page] += count
        k.pg_flags[page + 1] |= PG_double_map
        if k.pg_mapping[page] & 1:
            for number in range(HPAGE_PMD_NR):
                k.pg_mapcount[page + number] += 1

    def map_zero_page(self, process: Process, address: int) -> None:
        """Map the huge zero page, which is one mm's and the shrinker's."""
        k = self.k
        with self.machine.kthread("alloc"):
            k.huge_zero_page = alloc_pages(k, 1, HPAGE_PMD_ORDER)
        k.huge_zero_refcount = 2
        process.mm.has_huge_zero_page = True
        pmd = pmd_alloc(k, process.mm, address)
        k.pt[pmd] = k.huge_zero_page << PAGE_SHIFT | LEAF
        self.keep_table(process, pmd)

    def count(self) -> None:
        """What the kernel counts of all this, by hand."""
        stat = self.k.vm_stat
        stat[NR_ANON_MAPPED] = 2 * HPAGE_PMD_NR
        stat[NR_ANON_THPS] = 2
        stat[NR_FILE_MAPPED] = HPAGE_PMD_NR
        stat[NR_FILE_PAGES] = stat[NR_SHMEM] = HPAGE_PMD_NR
        stat[NR_SHMEM_THPS] = stat[NR_SHMEM_PMDMAPPED] = 1
        self.k.memcgs[0].stat[NR_FILE_MAPPED] = HPAGE_PMD_NR
        self.parent.mm.rss_stat[MM_ANONPAGES] = 2 * HPAGE_PMD_NR
        self.child.mm.rss_stat[MM_ANONPAGES] = HPAGE_PMD_NR
        self.child.mm.rss_stat[MM_SHMEMPAGES] = 3
        # As v4.18 counts a huge entry of shared memory.
        member = MM_SHMEMPAGES if self.counts_shmem else MM_FILEPAGES
        self.parent.mm.rss_stat[member] = HPAGE_PMD_NR

    @property
    def counts_shmem(self) -> bool:
        """Whether huge entries of shared memory count as such."""
        return bool(self.k.profile.shmem_pmd_counts_shmem)

    # ------------------------------------------------------------ looking

    def vma(self, process: Process, address: int) -> Vma:
        """The VMA of an address."""
        vma = process.vma_at(address)
        assert vma is not None
        return vma

    def pmd(self, process: Process, address: int) -> int:
        """The place of an address's huge entry."""
        return int(pmd_alloc(self.k, process.mm, address))

    def pte(self, process: Process, address: int) -> int:
        """The place of an address's small entry."""
        return int(pte_alloc(self.k, process.mm, address))

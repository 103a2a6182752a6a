# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.huge.pgtable cimport is_huge_zero_pmd, pmd_trans_huge_lock
from rmap.mm.huge.split_page cimport split_huge_page
from rmap.mm.inline cimport ClearPage, get_page, PageFlag, pmd_present, pte_dirty, pte_lock
from rmap.mm.inline cimport pte_pfn, pte_unlock, pte_young, ptep_get, set_pte_at, TestClearPage
from rmap.mm.lru cimport deactivate_page, isolate_lru_page, mark_page_lazyfree, put_page
from rmap.mm.lru cimport putback_lru_page
from rmap.mm.mm_types cimport Kernel, Vma
from rmap.mm.mmu_gather cimport MmuGather, tlb_adjust_range
from rmap.mm.page cimport lock_page, page_mapcount, trylock_page, unlock_page
from rmap.mm.pgtable cimport pte_mkclean, pte_mkold
from rmap.mm.tlb cimport pmdp_invalidate

cpdef flag split_own_huge_page(Kernel k, u64 first, u64 page) except? -1
cpdef flag madvise_free_huge_pmd(
    Kernel k, MmuGather tlb, Vma vma, u64 pmd, u64 address, u64 end
) except? -1
cpdef flag cold_huge_pmd(
    Kernel k, MmuGather tlb, Vma vma, u64 pmd, u64 address, u64 end, list pages
) except? -1
cdef flag _split_waiting(Kernel k, u64 page) except? -1
cpdef i32 cool_page(Kernel k, u64 page, list pages) except -1

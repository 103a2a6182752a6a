# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.inline cimport compound_order, is_swap_pmd, pmd_trans_huge, pte_lock, pte_none
from rmap.mm.inline cimport pte_pfn, pte_unlock, ptep_get, set_pte_at
from rmap.mm.lru cimport put_page
from rmap.mm.memory cimport init_zero_pfn
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.page_alloc cimport alloc_pages
from rmap.mm.pgtable cimport assert_pte_locked, pte_free_row
from rmap.mm.vma cimport is_vma_temporary_stack

cpdef u64 mk_huge_pmd(u64 page, u64 prot) noexcept
cpdef flag pmd_protnone(u64 pmd) noexcept
cpdef flag pmd_trans_huge_lock(Kernel k, u64 pmd) except? -1
cpdef flag pmd_trans_unstable(Kernel k, u64 pmd) except? -1
cpdef i32 pgtable_trans_huge_deposit(Kernel k, Mm mm, u64 pmd, u64 row) except -1
cpdef u64 pgtable_trans_huge_withdraw(Kernel k, Mm mm, u64 pmd) except? 0
cpdef i32 zap_deposited_table(Kernel k, Mm mm, u64 pmd) except -1
cpdef i32 pmd_populate(Kernel k, Mm mm, u64 pmd, u64 row) except -1
cpdef flag transparent_hugepage_enabled(Kernel k, Vma vma) except? -1
cpdef flag transhuge_vma_suitable(Vma vma, u64 address) except? -1
cpdef flag transhuge_range_fits(Vma vma, u64 address) except? -1
cpdef u64 alloc_hugepage_direct_gfpmask(Kernel k, Vma vma) except? 0
cpdef u64 alloc_transhuge_page(Kernel k, u64 gfp) except? 0
cpdef i32 prep_transhuge_page(Kernel k, u64 page) except -1
cpdef flag is_huge_zero_page(Kernel k, u64 page) except? -1
cpdef flag is_huge_zero_pmd(Kernel k, u64 pmd) except? -1
cpdef u64 mm_get_huge_zero_page(Kernel k, Mm mm) except? 0
cpdef i32 mm_put_huge_zero_page(Kernel k, Mm mm) except -1
cpdef i64 shrink_huge_zero_page_scan(Kernel k) except? -1
cpdef flag set_huge_zero_page(
    Kernel k, u64 row, Mm mm, Vma vma, u64 address, u64 pmd, u64 zero
) except? -1

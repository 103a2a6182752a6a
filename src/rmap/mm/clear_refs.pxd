# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmu_gather cimport MmuGather, tlb_adjust_range, tlb_finish_mmu, tlb_gather_mmu
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page cimport ClearPage
from rmap.mm.pgtable cimport is_swap_pmd, is_swap_pte, pmd_offset, pmd_trans_huge, pte_lock
from rmap.mm.pgtable cimport pte_none, pte_offset, pte_pfn, pte_present, pte_unlock, ptep_get
from rmap.mm.pgtable cimport ptep_get_and_clear, set_pte_at
from rmap.mm.tlb cimport ptep_test_and_clear_young
from rmap.mm.vma cimport vma_set_page_prot

cpdef i32 clear_refs_write(Kernel k, Mm mm, i32 kind) except? -1
cdef i32 _forget_vmas(Kernel k, Mm mm) except -1
cdef flag _is_meant(Vma vma, i32 kind) except? -1
cdef i32 _clear_vma(Kernel k, Vma vma, flag soft) except -1
cdef i32 _clear_pmd(
    Kernel k, Vma vma, u64 pmd, u64 address, u64 end, flag soft
) except -1
cdef i32 _clear_one(Kernel k, Vma vma, u64 ptep, u64 address, flag soft) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, i64, u64
from rmap.mm.hugetlb.pgtable cimport huge_pmd_unshare, huge_pte_offset
from rmap.mm.hugetlb.pgtable cimport is_hugetlb_entry_migration
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size, pages_per_huge_page
from rmap.mm.mm_types cimport AddressSpace, Hstate, Kernel, Mm, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.pgtable cimport is_write_migration_entry, pte_lock, pte_modify, pte_none
from rmap.mm.pgtable cimport pte_present, pte_to_swp_entry, pte_unlock, ptep_get
from rmap.mm.pgtable cimport ptep_get_and_clear, set_pte_at, swp_entry, swp_entry_to_pte
from rmap.mm.pgtable cimport swp_offset
from rmap.mm.tlb cimport flush_tlb_range

cpdef i64 hugetlb_change_protection(Kernel k, Vma vma, u64 start, u64 end, u64 newprot) except? -1
cdef i32 _change_one(Kernel k, Vma vma, u64 address, u64 size, u64 newprot) except? -1

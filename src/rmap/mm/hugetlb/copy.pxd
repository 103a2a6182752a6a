# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.hugetlb.fault cimport copy_huge_page
from rmap.mm.hugetlb.pgtable cimport huge_pte_alloc, huge_pte_offset
from rmap.mm.hugetlb.pgtable cimport is_hugetlb_entry_migration, make_huge_pte
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size, hugetlb_count_add
from rmap.mm.hugetlb.pool cimport pages_per_huge_page
from rmap.mm.hugetlb.reserve cimport alloc_huge_page, restore_reserve_on_error
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport Kernel, Vma
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page cimport ClearPage, PageAnon, PageFlag, get_page, page_maybe_dma_pinned
from rmap.mm.pgtable cimport is_write_migration_entry, pte_lock, pte_none, pte_pfn, pte_present
from rmap.mm.pgtable cimport pte_to_swp_entry, pte_unlock, ptep_get, ptep_set_wrprotect
from rmap.mm.pgtable cimport set_pte_at, swp_entry, swp_entry_to_pte, swp_offset
from rmap.mm.rmap_counts cimport hugepage_add_new_anon_rmap, page_dup_rmap
from rmap.mm.vma cimport is_cow_mapping

cpdef i32 copy_hugetlb_page_range(Kernel k, Vma dst_vma, Vma src_vma) except? -1
cdef i32 _copy_range(Kernel k, Vma dst_vma, Vma src_vma, flag cow) except? -1
cdef flag _is_shared(Kernel k, u64 dst_pte) except? -1
cdef i32 _copy_entry(
    Kernel k, Vma dst_vma, Vma src_vma, u64 dst_pte, u64 src_pte, u64 address, flag cow
) except? -1
cdef flag _needs_copy(Kernel k, u64 page, flag cow) except? -1
cdef i32 _install_copy(Kernel k, Vma vma, u64 ptep, u64 page, u64 address) except? -1
cdef i32 _share(
    Kernel k, Vma dst_vma, Vma src_vma, u64 dst_pte, u64 src_pte, u64 address, flag cow
) except? -1
cdef i32 _copy_special(
    Kernel k, Vma dst_vma, Vma src_vma, u64 dst_pte, u64 src_pte, u64 address, flag cow
) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.hugetlb.pgtable cimport huge_pte_offset
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size
from rmap.mm.inline cimport PageFlag, pmd_offset, pmd_trans_huge, pte_lock, pte_none
from rmap.mm.inline cimport pte_offset, pte_present, pte_to_swp_entry, pte_unlock, ptep_get
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, Hstate, Kernel, Mm, Vma
from rmap.mm.page_cache cimport find_get_entry
from rmap.mm.pgtable cimport non_swap_entry
from rmap.mm.swap_cache cimport lookup_swap_cache
from rmap.mm.vma cimport find_vma, linear_page_index

cpdef i32 do_mincore(Kernel k, Mm mm, u64 start, u64 length, bytearray vec) except? -1
cdef i32 _look_at_hugetlb(
    Kernel k, Vma vma, u64 address, u64 end, u64 start, bytearray vec
) except -1
cdef i32 _look_at_range(
    Kernel k, Vma vma, u64 address, u64 end, u64 start, bytearray vec
) except -1
cdef i32 _fill(u64 address, u64 end, u64 start, bytearray vec) except -1
cdef i32 _look_at_table(
    Kernel k, Vma vma, u64 pmd, u64 address, u64 end, u64 start, bytearray vec
) except -1
cdef flag _in_memory(Kernel k, Vma vma, u64 address, u64 pte) except? -1
cdef flag _cached(Kernel k, AddressSpace mapping, u64 index) except? -1
cdef flag _uptodate(Kernel k, u64 page) except? -1

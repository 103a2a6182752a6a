# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG
from rmap.mm.hugetlb.pool cimport alloc_surplus_huge_page, available_huge_pages
from rmap.mm.hugetlb.pool cimport dequeue_huge_page, hstate_vma, hugetlb_acct_memory
from rmap.mm.hugetlb.pool cimport vma_hugecache_offset
from rmap.mm.mm_types cimport AddressSpace, Hstate, Kernel, ResvMap, Vma
from rmap.mm.page cimport ClearPage, PageFlag, SetPage

cpdef ResvMap resv_map_alloc(Kernel k)
cpdef i32 resv_map_put(ResvMap resv) except? -1
cdef i64 _covered(ResvMap resv, u64 first, u64 end) except? -1
cpdef i64 region_chg(Kernel k, ResvMap resv, u64 first, u64 end) except? -1
cpdef i64 region_add(Kernel k, ResvMap resv, u64 first, u64 end) except? -1
cpdef i32 region_abort(Kernel k, ResvMap resv, u64 first, u64 end) except? -1
cdef i32 _end_add(ResvMap resv) except? -1
cpdef i64 region_del(Kernel k, ResvMap resv, u64 first, u64 end) except? -1
cdef flag _spare_region(Kernel k, ResvMap resv) except? -1
cpdef i64 region_count(Kernel k, ResvMap resv, u64 first, u64 end) except? -1
cpdef ResvMap vma_resv_map(Vma vma)
cpdef flag is_vma_resv_set(Vma vma, u64 bit) except? -1
cpdef i32 set_vma_unmapped(Vma vma) except? -1
cpdef i32 reset_vma_resv_huge_pages(Vma vma) except? -1
cpdef flag vma_has_reserves(Vma vma, i64 chg) except? -1
cdef i64 _turned(Vma vma, i64 ret) except? -1
cpdef i64 vma_needs_reservation(Kernel k, Hstate h, Vma vma, u64 address) except? -1
cpdef i64 vma_commit_reservation(Kernel k, Hstate h, Vma vma, u64 address) except? -1
cpdef i32 vma_end_reservation(Kernel k, Hstate h, Vma vma, u64 address) except? -1
cpdef i64 vma_add_reservation(Kernel k, Hstate h, Vma vma, u64 address) except? -1
cpdef i32 restore_reserve_on_error(Kernel k, Hstate h, Vma vma, u64 address, u64 page) except? -1
cpdef i32 hugetlb_reserve_pages(
    Kernel k, AddressSpace mapping, u64 first, u64 end, Vma vma, u64 vm_flags
) except? -1
cpdef i64 hugetlb_unreserve_pages(
    Kernel k, AddressSpace mapping, u64 first, u64 end, i64 freed
) except? -1
cpdef i32 hugetlb_vm_op_open(Vma vma) except? -1
cpdef i32 hugetlb_vm_op_close(Kernel k, Vma vma) except? -1
cpdef i64 alloc_huge_page(Kernel k, Vma vma, u64 address, flag avoid_reserve) except? -1
cdef u64 _dequeue_for(Kernel k, Hstate h, Vma vma, flag avoid_reserve, i64 chg) except? 0
cdef i32 _take_promise(Kernel k, Hstate h, u64 page) except? -1

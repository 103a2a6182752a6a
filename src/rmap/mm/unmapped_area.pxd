# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, i64, u64
from rmap.mm.huge.shmem_huge cimport mount_huge, shmem_area_offset
from rmap.mm.hugetlb.pool cimport huge_page_size
from rmap.mm.mm_types cimport File, Kernel, Mm, Vma
from rmap.mm.vma cimport find_vma, vma_slot

cpdef u64 vm_start_gap(Vma vma) except? 0
cpdef i64 get_unmapped_area(Kernel k, Mm mm, u64 addr, u64 length, u64 flags) except? -1
cpdef i64 get_file_area(
    Kernel k, Mm mm, u64 addr, u64 length, u64 pgoff, u64 flags, File file
) except? -1
cpdef i64 hugetlb_get_unmapped_area(
    Kernel k, Mm mm, File file, u64 addr, u64 length, u64 flags
) except? -1
cdef i64 _find_unmapped(Mm mm, u64 length, u64 mask) except? -1
cdef i64 _unmapped_area_topdown(Mm mm, u64 length, u64 low, u64 high, u64 mask) except? -1
cdef i64 _unmapped_area(Mm mm, u64 length, u64 low, u64 high, u64 mask) except? -1

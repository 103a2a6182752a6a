# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.huge.mm_slot cimport hugepage_end, hugepage_start, khugepaged_enter
from rmap.mm.huge.pgtable cimport alloc_transhuge_page
from rmap.mm.mm_types cimport AddressSpace, Kernel, Vma
from rmap.mm.page cimport SetPage, trylock_page
from rmap.mm.page_cache cimport page_cache_has_any

cpdef i32 mount_huge(Kernel k, AddressSpace mapping) except -1
cdef flag _within_size(AddressSpace mapping, u64 index) except? -1
cpdef flag shmem_wants_huge(
    Kernel k, AddressSpace mapping, u64 index, i32 sgp_huge
) except? -1
cpdef flag shmem_huge_enabled(Kernel k, Vma vma) except? -1
cpdef u64 shmem_alloc_hugepage(Kernel k, AddressSpace mapping, u64 index) except? 0
cpdef u64 shmem_area_offset(Kernel k, i32 huge, u64 length, u64 pgoff) except? 1
cpdef i32 khugepaged_enter_file(Kernel k, Vma vma) except -1

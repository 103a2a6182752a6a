# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i64, u64
from rmap.mm.huge.split_page cimport split_huge_page
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.mmap cimport fput
from rmap.mm.page cimport PageHead, trylock_page, unlock_page
from rmap.mm.page_cache cimport find_get_page
from rmap.mm.vma_adjust cimport get_file

cpdef i64 shmem_unused_huge_count(Kernel k) except -1
cpdef i64 shmem_unused_huge_shrink(Kernel k, i64 nr_to_scan) except? -2
cdef flag _split_end(Kernel k, AddressSpace mapping) except? -1

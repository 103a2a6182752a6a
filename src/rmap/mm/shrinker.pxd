# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, i64
from rmap.mm.huge.pgtable cimport shrink_huge_zero_page_scan
from rmap.mm.huge.shmem_shrink cimport shmem_unused_huge_count, shmem_unused_huge_shrink
from rmap.mm.huge.split_page cimport deferred_split_count, deferred_split_scan
from rmap.mm.mm_types cimport Kernel

cdef class Shrinker:
    cdef public i64 nr_deferred
    cpdef i64 count_objects(self, Kernel k) except -1
    cpdef i64 scan_objects(self, Kernel k, i64 nr_to_scan) except? -2

cdef class DeferredSplitShrinker(Shrinker):
    cpdef i64 count_objects(self, Kernel k) except -1
    cpdef i64 scan_objects(self, Kernel k, i64 nr_to_scan) except? -2

cdef class HugeZeroPageShrinker(Shrinker):
    cpdef i64 count_objects(self, Kernel k) except -1
    cpdef i64 scan_objects(self, Kernel k, i64 nr_to_scan) except? -2

cdef class UnusedHugeShrinker(Shrinker):
    cpdef i64 count_objects(self, Kernel k) except -1
    cpdef i64 scan_objects(self, Kernel k, i64 nr_to_scan) except? -2

cpdef list shrinkers_of(Kernel k)
cpdef i64 shrink_slab(Kernel k, i32 priority) except -1
cpdef i64 do_shrink_slab(Kernel k, Shrinker shrinker, i32 priority) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.lru cimport put_page
from rmap.mm.migrate.migrate cimport MigrationTarget, isolate_for_migration, migrate_pages
from rmap.mm.migrate.migrate cimport putback_movable_pages
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport get_page_unless_zero, page_count, page_mapcount, page_mapping
from rmap.mm.page_alloc cimport isolate_free_page, run_available

cdef class CompactControl(MigrationTarget):
    cdef public i32 order, mode
    cdef public u64 migrate_pfn, free_pfn
    cdef public flag whole_zone
    cdef public list freepages, migratepages
    cdef public i64 moved

cpdef flag isolate_migratepages(Kernel k, CompactControl cc) except? -1
cpdef i32 isolate_freepages(Kernel k, CompactControl cc) except -1
cpdef i32 compaction_suitable(Kernel k, i32 order) except -1
cpdef i32 compact_zone(Kernel k, CompactControl cc) except -1
cpdef i32 try_to_compact_pages(Kernel k, i32 order, i32 mode) except -1
cpdef i64 compact_node(Kernel k) except -1
cpdef flag direct_compact(Kernel k, i32 order, flag wait) except? -1
cpdef i32 defer_compaction(Kernel k, i32 order) except -1
cpdef flag compaction_deferred(Kernel k, i32 order) except? -1
cpdef i32 compaction_defer_reset(Kernel k, i32 order) except -1
cdef i32 _isolate_block(Kernel k, CompactControl cc, u64 block_end) except -1
cdef flag _movable(Kernel k, CompactControl cc, u64 page) except? -1
cdef i32 _finished(Kernel k, CompactControl cc) except -1
cdef i32 _set_out(Kernel k, CompactControl cc) except -1
cdef flag _migrate_isolated(Kernel k, CompactControl cc) except? -1
cdef i32 _release_freepages(Kernel k, CompactControl cc) except -1

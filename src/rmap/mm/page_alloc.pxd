# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.inline cimport compound_order, set_page_mapping
from rmap.mm.mm_types cimport Kernel

cpdef i32 setup_per_zone_wmarks(Kernel k) except -1
cpdef u64 alloc_page(Kernel k, u64 gfp) except? 0
cpdef u64 alloc_pages(Kernel k, u64 gfp, i32 order) except? 0
cpdef flag is_free_page(Kernel k, u64 page) except? -1
cpdef i32 free_unref_page(Kernel k, u64 page) except -1
cpdef i32 free_compound_page(Kernel k, u64 head) except -1
cpdef i32 bad_page(Kernel k, u64 page) except -1
cdef flag _may_take(Kernel k, u64 gfp, i64 count) except? -1
cpdef flag run_available(Kernel k, i32 order) except? -1
cpdef flag isolate_free_page(Kernel k, u64 page) except? -1
cpdef i32 link_free_pages(Kernel k, pages) except -1
cdef u64 _make_run(Kernel k, u64 gfp, i32 order) except? 0
cdef u64 _take_if_enough(Kernel k, u64 gfp, i32 order) except? 0
cdef u64 _rmqueue(Kernel k) except? 0
cdef i32 _prep_new_page(Kernel k, u64 page) except -1
cdef i32 _prep_compound_page(Kernel k, u64 head, i32 order) except -1
cdef u64 _unused_run(Kernel k, u64 count) except? 0
cdef u64 _take_run(Kernel k, u64 count) except? 0
cdef u64 _take_block(Kernel k) except? 0
cdef flag _all_free(Kernel k, u64 start, u64 count) except? -1
cdef i32 _unlink_free(Kernel k, u64 page) except -1
cdef i32 _unlink_run(Kernel k, u64 start, u64 count) except -1
cdef i32 _push_free(Kernel k, u64 page) except -1

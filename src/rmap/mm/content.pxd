# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport i32, i64, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.mm_types cimport Kernel

cpdef bytes page_bytes(Kernel k, u64 page)
cpdef i32 set_page_bytes(Kernel k, u64 page, bytes data) except -1
cpdef bytes page_read(Kernel k, u64 page, i64 offset, i64 length)
cpdef i32 page_write(Kernel k, u64 page, i64 offset, bytes data) except -1
cpdef bytes load(Kernel k, u64 page, i64 offset, i64 length)
cpdef i32 store(Kernel k, u64 page, i64 offset, bytes data) except -1
cpdef i32 copy_page_content(Kernel k, u64 dst, u64 src) except -1
cpdef i32 clear_page_content(Kernel k, u64 page) except -1

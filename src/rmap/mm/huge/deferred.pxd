# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.inline cimport PageTransHuge
from rmap.mm.mm_types cimport Kernel

cpdef i32 deferred_split_huge_page(Kernel k, u64 page) except -1
cpdef flag is_split_deferred(Kernel k, u64 page) except? -1
cpdef i32 forget_deferred_split(Kernel k, u64 page) except -1

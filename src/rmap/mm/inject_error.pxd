# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, u64
from rmap.mm.gup cimport get_user_pages
from rmap.mm.inline cimport compound_head, compound_order, PageHWPoison
from rmap.mm.lru cimport put_page
from rmap.mm.memory_failure cimport memory_failure
from rmap.mm.mm_types cimport Kernel, Mm
from rmap.mm.soft_offline cimport soft_offline_page

cpdef i32 madvise_inject_error(Kernel k, Mm mm, u64 start, u64 end, i32 behavior) except? -1

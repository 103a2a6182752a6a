# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.sync.core cimport wait_until
from rmap.mm.bug cimport BUG, BUG_PAGE, WARN_ONCE
from rmap.mm.inline cimport ClearPage, compound_head, PageDirty, PageFlag, PageLocked
from rmap.mm.inline cimport PageSwapCache, TestClearPage, TestSetPage
from rmap.mm.lru cimport rotate_reclaimable_page
from rmap.mm.memcg cimport lock_page_memcg, unlock_page_memcg
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport lock_page
from rmap.mm.page cimport mod_lruvec_page_state, page_mapping, unlock_page

cpdef flag mapping_cap_account_dirty(Kernel k, AddressSpace mapping) except? -1
cpdef flag set_page_dirty(Kernel k, u64 page) except? -1
cdef flag _set_page_dirty_buffers(Kernel k, u64 page, AddressSpace mapping) except? -1
cpdef flag set_page_dirty_lock(Kernel k, u64 page) except? -1
cpdef i32 account_page_dirtied(Kernel k, u64 page) except -1
cpdef i32 account_page_cleaned(Kernel k, u64 page, AddressSpace mapping) except -1
cpdef i32 cancel_dirty_page(Kernel k, u64 page) except -1
cpdef flag set_page_writeback(Kernel k, u64 page) except? -1
cpdef i32 end_page_writeback(Kernel k, u64 page) except -1
cpdef i32 wait_on_page_writeback(Kernel k, u64 page) except -1
cpdef i32 wait_for_stable_page(Kernel k, u64 page) except -1

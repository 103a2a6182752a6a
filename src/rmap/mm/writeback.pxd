# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport page_bytes
from rmap.mm.inline cimport page_index, PageFlag, PageLocked, TestClearPage
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport get_page_unless_zero, lock_page
from rmap.mm.page cimport mod_lruvec_page_state, page_mapping, unlock_page
from rmap.mm.page_dirty cimport end_page_writeback, mapping_cap_account_dirty, set_page_dirty
from rmap.mm.page_dirty cimport set_page_writeback, wait_on_page_writeback
from rmap.mm.page_mkclean cimport page_mkclean

cpdef flag clear_page_dirty_for_io(Kernel k, u64 page) except? -1
cpdef i64 file_writepage(Kernel k, u64 page, AddressSpace mapping) except? -1
cpdef i64 write_cache_pages(Kernel k, AddressSpace mapping) except? -1
cdef flag _write_one(Kernel k, u64 page, AddressSpace mapping) except? -1
cpdef i64 wakeup_flusher_threads(Kernel k) except? -1

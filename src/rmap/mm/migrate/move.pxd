# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport copy_page_content
from rmap.mm.ksm.stable cimport ksm_migrate_page
from rmap.mm.memcg cimport mem_cgroup_migrate
from rmap.mm.migrate.entries cimport remove_migration_ptes
from rmap.mm.mm_types cimport AddressSpace, Kernel, SwapInfo
from rmap.mm.page cimport ClearPage, PageDirty, PageFlag, PageHuge, PageKsm, PageLocked
from rmap.mm.page cimport PageSwapBacked, PageSwapCache, PageWriteback, SetPage, TestClearPage
from rmap.mm.page cimport compound_order, hpage_nr_pages, is_zone_device_page, lock_page
from rmap.mm.page cimport page_count, page_index, page_mapping, page_mapping_word, page_private
from rmap.mm.page cimport page_ref_add, page_ref_freeze, page_ref_unfreeze, set_page_index
from rmap.mm.page cimport set_page_mapping, set_page_private
from rmap.mm.page_cache cimport page_cache_item
from rmap.mm.pgtable cimport swp_offset, swp_type
from rmap.mm.writeback cimport clear_page_dirty_for_io, file_writepage

cpdef i32 move_to_new_page(Kernel k, u64 new, u64 page, i32 mode) except? -1
cpdef i32 migrate_page(
    Kernel k, AddressSpace mapping, u64 new, u64 page, i32 mode
) except? -1
cpdef i32 fallback_migrate_page(
    Kernel k, AddressSpace mapping, u64 new, u64 page, i32 mode
) except? -1
cpdef i32 migrate_page_move_mapping(
    Kernel k, AddressSpace mapping, u64 new, u64 page
) except? -1
cpdef i32 migrate_page_states(Kernel k, u64 new, u64 page) except? -1
cdef i32 _writeout(Kernel k, AddressSpace mapping, u64 page) except? -1
cdef i32 _copy_identity(Kernel k, u64 new, u64 page) except -1
cdef flag _is_in(Kernel k, AddressSpace mapping, u64 page) except? -1
cdef i32 _entries_in_cache(Kernel k, u64 page) except -1
cdef i32 _replace_in(Kernel k, AddressSpace mapping, u64 new, u64 page) except -1
cdef i32 _copy_contents(Kernel k, u64 new, u64 page) except -1

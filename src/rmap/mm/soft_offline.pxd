# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, u64
from rmap.mm.huge.split_page cimport split_huge_page
from rmap.mm.hugetlb.pool cimport dissolve_free_huge_page
from rmap.mm.hwpoison cimport get_hwpoison_page, invalidate_inode_page, is_free_buddy_page
from rmap.mm.hwpoison cimport test_set_page_hwpoison
from rmap.mm.inline cimport compound_head, is_zone_device_page, PageAnon, PageHuge
from rmap.mm.inline cimport PageHWPoison, PageTransHuge
from rmap.mm.lru cimport put_page
from rmap.mm.migrate.migrate cimport MigrationTarget, isolate_for_migration, migrate_pages
from rmap.mm.migrate.migrate cimport putback_movable_pages
from rmap.mm.mm_types cimport Kernel
from rmap.mm.page cimport PageLRU, lock_page, unlock_page
from rmap.mm.page_dirty cimport wait_on_page_writeback

cpdef i32 soft_offline_page(Kernel k, u64 page, i32 flags) except? -1
cdef i32 _soft_offline_page(Kernel k, u64 page, i32 flags) except? -1
cdef i32 _get_any_page(Kernel k, u64 page, i32 flags) except? -1
cdef i32 _soft_offline_in_use_page(Kernel k, u64 page) except? -1
cdef i32 _soft_offline_small_page(Kernel k, u64 page) except? -1
cdef i32 _soft_offline_huge_page(Kernel k, u64 page) except? -1

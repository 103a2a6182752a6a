# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport clear_page_content
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, Kernel
from rmap.mm.page cimport PageFlag, PageTail, hpage_nr_pages, lock_page, page_index
from rmap.mm.page cimport page_mapped, trylock_page, unlock_page
from rmap.mm.page_cache cimport delete_from_page_cache, find_get_entry, find_lock_entry
from rmap.mm.page_cache cimport page_in_mapping
from rmap.mm.page_dirty cimport cancel_dirty_page, wait_on_page_writeback
from rmap.mm.shmem cimport shmem_free_swap
from rmap.mm.zap cimport unmap_mapping_pages

cpdef i32 truncate_inode_pages(Kernel k, AddressSpace mapping, u64 start) except -1
cpdef i32 truncate_inode_pages_range(Kernel k, AddressSpace mapping, u64 start, u64 end) except -1
cpdef i32 truncate_inode_page(Kernel k, AddressSpace mapping, u64 page) except -1
cpdef i32 shmem_undo_range(Kernel k, AddressSpace mapping, u64 start, u64 end) except -1
cdef flag _undo_entries(
    Kernel k, AddressSpace mapping, u64 start, u64 end, flag wait
) except? -1
cdef flag _undo_index(
    Kernel k, AddressSpace mapping, u64 index, u64 end, flag wait
) except? -1
cdef i32 _undo_page(
    Kernel k, AddressSpace mapping, u64 index, u64 page, u64 end, flag wait
) except? -2
cdef flag _reaches_out(Kernel k, u64 page, u64 index, u64 end) except? -1

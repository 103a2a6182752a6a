# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport page_read, page_write, set_page_bytes
from rmap.mm.lru cimport lru_cache_add, mark_page_accessed, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport VmFault, lock_page_or_retry
from rmap.mm.mm_types cimport AddressSpace, File, Kernel, MemCgroup
from rmap.mm.page cimport PageFlag, PageLocked, SetPage, compound_head, lock_page
from rmap.mm.page cimport page_index, trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.page_cache cimport add_to_page_cache_locked, find_get_page
from rmap.mm.page_cache cimport find_lock_entry, page_in_mapping
from rmap.mm.page_dirty cimport set_page_dirty, wait_on_page_writeback
from rmap.mm.shmem cimport shmem_fault, shmem_getpage, shmem_note_end
from rmap.mm.tlb cimport current_task
from rmap.mm.truncate cimport truncate_inode_pages, truncate_inode_pages_range
from rmap.mm.zap cimport unmap_mapping_pages

cpdef File make_file(Kernel k, str name, u64 pages, bint shmem)
cpdef i32 vma_fault(Kernel k, VmFault vmf) except -1
cdef i32 filemap_fault(Kernel k, VmFault vmf) except -1
cdef i32 _count_major(Kernel k, VmFault vmf) except -1
cpdef i32 page_cache_read(Kernel k, AddressSpace mapping, u64 index, MemCgroup memcg) except? -1
cpdef i32 add_to_page_cache_lru(
    Kernel k, u64 page, AddressSpace mapping, u64 index, MemCgroup memcg
) except? -1
cdef i32 fill_page(Kernel k, u64 page, AddressSpace mapping) except -1
cpdef i32 readpage(Kernel k, u64 page, AddressSpace mapping) except -1
cdef MemCgroup _running_memcg(Kernel k)
cpdef bytes file_read(Kernel k, File file, i64 offset, i64 length)
cdef i64 _page_to_read(Kernel k, AddressSpace mapping, u64 index) except? -1
cpdef i64 file_write(Kernel k, File file, i64 offset, bytes data) except? -1
cdef i64 _page_to_write(Kernel k, AddressSpace mapping, u64 index, bint whole) except? -1
cpdef i32 truncate(Kernel k, File file, u64 pages) except -1
cpdef i32 punch_hole(Kernel k, File file, u64 start, u64 pages) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport page_read
from rmap.mm.hugetlb.pool cimport huge_page_shift, huge_page_size, hugetlb_acct_memory
from rmap.mm.hugetlb.reserve cimport hugetlb_reserve_pages, hugetlb_unreserve_pages
from rmap.mm.hugetlb.reserve cimport resv_map_alloc, resv_map_put
from rmap.mm.hugetlb.unmap cimport unmap_hugepage_range
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.lru cimport put_page
from rmap.mm.mm_types cimport AddressSpace, File, Hstate, IntervalNode, Kernel, ResvMap, Vma
from rmap.mm.page cimport ClearPage, PageFlag, get_page, lock_page, page_index, page_mapped
from rmap.mm.page cimport set_page_index, set_page_mapping, unlock_page
from rmap.mm.page_cache cimport find_get_page, page_cache_item, page_in_mapping
from rmap.sync.locks cimport RwSem

cpdef File hugetlb_file_setup(Kernel k, str name, Hstate h, u64 pages, u64 vm_flags)
cpdef flag is_file_hugepages(File file) except? -1
cpdef u64 hugetlb_align(File file, u64 length) except? 0
cpdef i32 hugetlbfs_file_mmap(Kernel k, File file, Vma vma) except? -1
cpdef RwSem hugetlb_fault_mutex(Kernel k, Vma vma, AddressSpace mapping, u64 idx, u64 address)
cpdef u64 find_lock_huge_page(Kernel k, AddressSpace mapping, u64 idx) except? 0
cpdef i32 huge_add_to_page_cache(Kernel k, u64 page, AddressSpace mapping, u64 idx) except? -1
cpdef i32 remove_huge_page(Kernel k, u64 page, AddressSpace mapping) except? -1
cpdef bytes hugetlbfs_read(Kernel k, File file, i64 offset, i64 length)
cpdef i32 hugetlb_vmdelete_list(Kernel k, AddressSpace mapping, u64 start, u64 end) except? -1
cdef i32 _unmap_file(Kernel k, AddressSpace mapping, u64 start, u64 end) except? -1
cpdef i32 remove_inode_hugepages(Kernel k, AddressSpace mapping, u64 start, u64 end) except? -1
cdef i32 _remove_one(Kernel k, AddressSpace mapping, u64 idx, u64 page, flag truncate_op) except? -1
cpdef i32 hugetlb_vmtruncate(Kernel k, File file, u64 pages) except? -1
cpdef i32 hugetlbfs_punch_hole(Kernel k, File file, u64 offset, u64 length) except? -1
cpdef i32 hugetlbfs_unlink(Kernel k, File file) except? -1
cpdef i32 hugetlbfs_evict_inode(Kernel k, AddressSpace mapping) except? -1

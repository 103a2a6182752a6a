# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched, sched_point, wait_until
from rmap.mm.bug cimport BUG, WARN
from rmap.mm.lru cimport put_page
from rmap.mm.memcg cimport mem_cgroup_uncharge_swap
from rmap.mm.mm_types cimport AddressSpace, Kernel, SwapInfo
from rmap.mm.page cimport page_private
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.pgtable cimport non_swap_entry, swp_entry, swp_offset, swp_type

cpdef i32 swapon(Kernel k, i64 pages, i32 prio=*) except? -1
cpdef i64 total_swap_pages(Kernel k) except -1
cpdef i64 get_nr_swap_pages(Kernel k) except -1
cpdef SwapInfo get_swap_device(Kernel k, u64 entry)
cpdef i32 put_swap_device(Kernel k, SwapInfo area) except -1
cpdef i32 wait_for_swap_users(Kernel k, SwapInfo area) except -1
cpdef flag vm_swap_full(Kernel k) except? -1
cpdef SwapInfo swap_info(Kernel k, u64 entry)
cpdef i32 page_swapcount(Kernel k, u64 page) except -1
cpdef i64 swap_count(Kernel k, u64 entry) except -1
cpdef i32 swap_duplicate(Kernel k, u64 entry) except? -1
cpdef i32 swap_shmem_alloc(Kernel k, u64 entry) except? -1
cpdef i32 swapcache_prepare(Kernel k, u64 entry) except? -1
cdef i32 _swap_duplicate(Kernel k, u64 entry, i32 usage) except? -1
cpdef i32 swap_entry_put(Kernel k, SwapInfo area, u64 entry, i32 usage) except -1
cdef i32 _swap_range_free(Kernel k, SwapInfo area, u64 entry, i64 offset) except -1
cpdef i32 swap_free(Kernel k, u64 entry) except -1
cpdef i32 put_swap_page(Kernel k, u64 page, u64 entry) except -1
cpdef i32 add_swap_count_continuation(Kernel k, u64 entry, u64 gfp) except? -1
cdef flag _has_digits(SwapInfo area, i64 offset, i64 carry) except? -1
cdef flag _carry(SwapInfo area, i64 offset, i32 step) except? -1
cpdef i32 free_swap_count_continuations(Kernel k, SwapInfo area) except -1

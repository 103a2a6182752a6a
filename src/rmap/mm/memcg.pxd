# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport rcu_read_lock, rcu_read_unlock, sched
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.inline cimport add_page_to_lru_list, del_page_from_lru_list, hpage_nr_pages
from rmap.mm.inline cimport mem_cgroup_page_lruvec, page_lru, page_mapped, PageAnon
from rmap.mm.inline cimport PageSwapCache
from rmap.mm.mm_types cimport AddressSpace, Kernel, MemCgroup, SwapInfo
from rmap.mm.page cimport page_mapping
from rmap.mm.page cimport page_private, trylock_page, unlock_page

cpdef MemCgroup mem_cgroup_create(Kernel k, str name, MemCgroup parent, i64 limit)
cpdef flag mem_cgroup_is_descendant(MemCgroup memcg, MemCgroup root) except? -1
cpdef i32 memory_max_write(Kernel k, MemCgroup memcg, i64 limit) except -1
cpdef i32 mem_cgroup_try_charge(Kernel k, u64 page, MemCgroup memcg, u64 gfp) except? -1
cdef i32 _commit_charge(Kernel k, u64 page, MemCgroup memcg) except -1
cpdef i32 try_charge(Kernel k, MemCgroup memcg, u64 gfp, i64 nr_pages) except? -1
cdef MemCgroup _over_limit(MemCgroup memcg, i64 nr_pages)
cdef MemCgroup _swap_owner(Kernel k, u64 entry, MemCgroup memcg)
cpdef i32 mem_cgroup_uncharge(Kernel k, u64 page) except -1
cpdef i32 mem_cgroup_migrate(Kernel k, u64 old, u64 new) except -1
cpdef i32 page_counter_uncharge(MemCgroup memcg, i64 nr_pages) except -1
cpdef i32 mem_cgroup_try_charge_swap(Kernel k, u64 page, u64 entry) except? -1
cpdef i32 mem_cgroup_uncharge_swap(Kernel k, u64 entry) except -1
cpdef i32 lock_page_memcg(Kernel k, u64 page) except -1
cpdef i32 unlock_page_memcg(Kernel k, u64 page) except -1
cpdef i32 mem_cgroup_move_account(Kernel k, u64 page, MemCgroup source, MemCgroup target) except? -1
cdef i32 _move_stat(MemCgroup source, MemCgroup target, i32 item, i64 nr_pages) except -1

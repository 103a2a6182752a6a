# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport lock_acquired, sched, sched_point
from rmap.mm.anon_vma cimport anon_vma_lock_write, anon_vma_unlock_write
from rmap.mm.anon_vma cimport page_get_anon_vma, put_anon_vma
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.inline cimport ClearPage, compound_head, compound_mapcount
from rmap.mm.inline cimport mem_cgroup_page_lruvec, page_index, page_mapping_word, PageAnon
from rmap.mm.inline cimport PageCompound, PageHuge, PageLocked, PageTransHuge, SetPage
from rmap.mm.inline cimport total_mapcount
from rmap.mm.lru cimport lru_add_page_tail, put_page
from rmap.mm.migrate.entries cimport remove_migration_ptes
from rmap.mm.mm_types cimport AddressSpace, AnonVma, Kernel, LruVec
from rmap.mm.page cimport get_page_unless_zero, page_count, page_ref_add, page_ref_freeze
from rmap.mm.page cimport page_ref_sub, page_ref_unfreeze, PageWriteback, set_page_index
from rmap.mm.page cimport set_page_mapping, trylock_page, unlock_page
from rmap.mm.page_cache cimport delete_from_page_cache_locked, page_cache_item
from rmap.mm.unmap cimport try_to_unmap

cpdef i32 extra_pins(Kernel k, u64 page) except -1
cpdef flag can_split_huge_page(Kernel k, u64 page) except? -1
cdef i32 freeze_page(Kernel k, u64 page) except -1
cdef i32 unfreeze_page(Kernel k, u64 page) except -1
cdef i32 _split_tail(Kernel k, u64 head, u64 tail, LruVec lruvec, list pages) except -1
cdef i32 _name_tail(Kernel k, u64 head, u64 tail) except -1
cdef i32 _split_fixup_memcg(Kernel k, u64 head) except -1
cdef i32 _beyond_end(Kernel k, u64 page, AddressSpace mapping) except -1
cdef i32 _split(Kernel k, u64 page, AddressSpace mapping, list pages) except -1
cpdef i32 split_huge_page(Kernel k, u64 page) except? -1
cpdef i32 split_huge_page_to_list(Kernel k, u64 page, list pages) except? -1
cdef i32 _split_anon(Kernel k, u64 page, u64 head, list pages) except? -1
cdef i32 _split_file(Kernel k, u64 page, u64 head, list pages) except? -1
cdef i32 _freeze_and_split(
    Kernel k, u64 page, u64 head, AddressSpace mapping, list pages
) except? -1
cdef i32 _give_up(Kernel k, u64 head, AddressSpace mapping) except? -1
cpdef i64 deferred_split_count(Kernel k) except -1
cpdef i64 deferred_split_scan(Kernel k, i64 nr_to_scan) except? -2
cdef list _take_deferred(Kernel k, i64 nr_to_scan)

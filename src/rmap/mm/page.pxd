# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport lock_acquired, lock_released, sched, sched_point, wait_until
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.mm_types cimport AddressSpace, AnonVma, Kernel, MemCgroup, SwapInfo

cpdef flag PageFlag(Kernel k, u64 page, u32 bit) except? -1
cpdef i32 SetPage(Kernel k, u64 page, u32 bit) except -1
cpdef i32 ClearPage(Kernel k, u64 page, u32 bit) except -1
cpdef flag TestSetPage(Kernel k, u64 page, u32 bit) except? -1
cpdef flag TestClearPage(Kernel k, u64 page, u32 bit) except? -1
cpdef flag PageAnon(Kernel k, u64 page) except? -1
cpdef flag PageKsm(Kernel k, u64 page) except? -1
cpdef flag PageLocked(Kernel k, u64 page) except? -1
cpdef flag PageSwapCache(Kernel k, u64 page) except? -1
cpdef flag PageSwapBacked(Kernel k, u64 page) except? -1
cpdef flag PageDirty(Kernel k, u64 page) except? -1
cpdef flag PageMlocked(Kernel k, u64 page) except? -1
cpdef flag PageLRU(Kernel k, u64 page) except? -1
cpdef flag PageWriteback(Kernel k, u64 page) except? -1
cpdef flag PageHWPoison(Kernel k, u64 page) except? -1
cpdef flag PageHead(Kernel k, u64 page) except? -1
cpdef flag PageTail(Kernel k, u64 page) except? -1
cpdef flag PageCompound(Kernel k, u64 page) except? -1
cpdef flag PageTransCompound(Kernel k, u64 page) except? -1
cpdef flag PageTransHuge(Kernel k, u64 page) except? -1
cpdef flag PageHuge(Kernel k, u64 page) except? -1
cpdef flag PageDoubleMap(Kernel k, u64 page) except? -1
cpdef flag is_zone_device_page(Kernel k, u64 page) except? -1
cpdef flag is_device_private_page(Kernel k, u64 page) except? -1
cpdef u64 compound_head(Kernel k, u64 page) except? 0
cpdef i32 compound_order(Kernel k, u64 page) except? -1
cpdef u64 hpage_nr_pages(Kernel k, u64 page) except? 0
cpdef i32 compound_mapcount(Kernel k, u64 page) except? -1
cpdef flag compound_mapcount_inc_and_test(Kernel k, u64 head) except? -1
cpdef flag compound_mapcount_add_negative(Kernel k, u64 head) except? -1
cpdef i32 compound_mapcount_set(Kernel k, u64 head, i32 value) except -1
cpdef flag mapcount_inc_and_test(Kernel k, u64 page) except? -1
cpdef flag mapcount_add_negative(Kernel k, u64 page) except? -1
cpdef i32 mapcount_set(Kernel k, u64 page, i32 value) except -1
cpdef i32 page_mapcount(Kernel k, u64 page) except? -1
cpdef i32 total_mapcount(Kernel k, u64 page) except? -1
cpdef i32 page_trans_huge_mapcount(Kernel k, u64 page) except -1
cpdef flag page_mapped(Kernel k, u64 page) except? -1
cpdef i32 page_count(Kernel k, u64 page) except? -1
cpdef i32 get_page(Kernel k, u64 page) except -1
cpdef flag get_page_unless_zero(Kernel k, u64 page) except? -1
cpdef flag put_page_testzero(Kernel k, u64 page) except? -1
cpdef i32 page_ref_add(Kernel k, u64 page, i32 count) except -1
cpdef i32 page_ref_sub(Kernel k, u64 page, i32 count) except -1
cpdef flag page_ref_freeze(Kernel k, u64 page, i32 count) except? -1
cpdef flag page_maybe_dma_pinned(Kernel k, u64 page) except? -1
cpdef i32 page_add_pins(Kernel k, u64 page, i32 pins) except -1
cpdef i32 page_ref_unfreeze(Kernel k, u64 page, i32 count) except -1
cpdef u32 page_mapping_word(Kernel k, u64 page) except? 0
cpdef i32 set_page_mapping(Kernel k, u64 page, u32 word) except -1
cpdef u32 page_rmapping(Kernel k, u64 page) except? 0
cpdef AnonVma page_anon_vma(Kernel k, u64 page)
cpdef AddressSpace page_mapping(Kernel k, u64 page)
cpdef AddressSpace page_mapping_file(Kernel k, u64 page)
cpdef u64 page_index(Kernel k, u64 page) except? 0
cpdef i32 set_page_index(Kernel k, u64 page, u64 index) except -1
cpdef u64 page_to_pgoff(Kernel k, u64 page) except? 0
cpdef u64 page_private(Kernel k, u64 page) except? 0
cpdef i32 set_page_private(Kernel k, u64 page, u64 entry) except -1
cpdef i32 lock_page(Kernel k, u64 page) except -1
cpdef flag trylock_page(Kernel k, u64 page) except? -1
cpdef i32 unlock_page(Kernel k, u64 page) except -1
cpdef i32 mod_node_page_state(Kernel k, i32 item, i64 delta) except -1
cpdef i32 mod_lruvec_page_state(Kernel k, u64 page, i32 item, i64 delta) except -1
cpdef MemCgroup page_memcg(Kernel k, u64 page)

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.filemap cimport page_cache_read
from rmap.mm.huge.advise cimport cold_huge_pmd, cool_page, madvise_free_huge_pmd
from rmap.mm.huge.advise cimport split_own_huge_page
from rmap.mm.huge.mm_slot cimport khugepaged_enter_vma_merge
from rmap.mm.inject_error cimport madvise_inject_error
from rmap.mm.ksm.unmerge cimport ksm_madvise
from rmap.mm.lru cimport mark_page_lazyfree, put_page
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.mm_types cimport AddressSpace, Kernel, Mm, Vma
from rmap.mm.mmap cimport page_align
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.page cimport ClearPage, PageCompound, PageDirty, PageSwapCache
from rmap.mm.page cimport page_mapcount, trylock_page, unlock_page
from rmap.mm.pgtable cimport (
    non_swap_entry, pmd_offset, pmd_trans_huge, pte_lock, pte_none, pte_offset, pte_present,
    pte_to_swp_entry, pte_unlock, ptep_get_and_clear, set_pte_at,
)
from rmap.mm.swap cimport free_swap_and_cache, try_to_free_swap
from rmap.mm.swap_cache cimport read_swap_cache
from rmap.mm.tlb cimport flush_tlb_batched_pending
from rmap.mm.vma cimport add_mm_counter, find_vma, update_hiwater_rss, vma_is_anonymous
from rmap.mm.vma_adjust cimport VmaPointer, split_vma_at
from rmap.mm.vma_merge cimport vma_merge
from rmap.mm.vmscan cimport reclaim_pages
from rmap.mm.mmu_gather cimport MmuGather, tlb_adjust_range, tlb_finish_mmu, tlb_gather_mmu
from rmap.mm.zap cimport zap_page_range

cpdef i32 madvise_behavior(
    Kernel k, Vma vma, VmaPointer prev, u64 start, u64 end, i32 behavior
) except? -1
cdef i32 _split(Kernel k, Mm mm, Vma vma, u64 address, i32 new_below) except? -1
cdef i32 _refused(Vma vma, i32 behavior) except? -1
cdef i64 _new_flags(Kernel k, Vma vma, u64 start, u64 end, i32 behavior) except? -1

cdef i32 madvise_willneed(Kernel k, Vma vma, u64 start, u64 end) except? -1
cdef i32 _read_ahead(Kernel k, Vma vma, u64 entry) except -1
cdef i32 _swapin_walk(Kernel k, Vma vma, u64 address, u64 end) except -1
cdef u64 _pte_of(Kernel k, Mm mm, u64 address) except? 0

cdef i32 madvise_dontneed_free(Kernel k, Vma vma, u64 start, u64 end, i32 behavior) except? -1
cpdef i32 madvise_free_single_vma(Kernel k, Vma vma, u64 start, u64 end) except? -1
cdef i32 _free_pte_range(Kernel k, MmuGather tlb, Vma vma, u64 address, u64 end) except -1
cdef flag _make_clean(Kernel k, u64 page) except? -1
cdef i32 _make_old(Kernel k, MmuGather tlb, Mm mm, u64 address, u64 ptep, u64 bits) except -1
cdef i32 madvise_cold_or_pageout(Kernel k, Vma vma, u64 start, u64 end, flag pageout) except? -1
cdef i32 _cold_pte_range(
    Kernel k, MmuGather tlb, Vma vma, u64 address, u64 end, list pages
) except -1

cpdef flag madvise_behavior_valid(i32 behavior) noexcept
cdef flag _injects_error(i32 behavior) noexcept
cpdef flag madvise_need_mmap_write(i32 behavior) noexcept
cdef i32 madvise_vma(
    Kernel k, Vma vma, VmaPointer prev, u64 start, u64 end, i32 behavior
) except? -1
cpdef i32 do_madvise(Kernel k, Mm mm, u64 start, u64 length, i32 behavior) except? -1
cdef i32 _advise_range(Kernel k, Mm mm, u64 start, u64 end, i32 behavior) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.mm.lru cimport release_pages
from rmap.mm.inline cimport mmu_notifier_invalidate_range
from rmap.mm.mm_types cimport Kernel, Mm
from rmap.mm.swap cimport free_swap_cache
from rmap.mm.tlb cimport dec_tlb_flush_pending, flush_tlb_mm, flush_tlb_range
from rmap.mm.tlb cimport inc_tlb_flush_pending

cdef class MmuGather:
    cdef public Mm mm
    cdef public flag fullmm
    cdef public u64 start, end
    cdef public u32[::1] pages
    cdef public i64 nr
    cdef public i64[::1] rss
    cdef i32 grow(self) except -1

cpdef MmuGather tlb_gather_mmu(Kernel k, Mm mm, u64 start, u64 end)
cpdef i32 tlb_finish_mmu(Kernel k, MmuGather tlb, u64 start, u64 end) except -1
cpdef i32 tlb_adjust_range(MmuGather tlb, u64 start, u64 end) except -1
cpdef flag tlb_remove_page(MmuGather tlb, u64 page) except? -1
cpdef i32 tlb_flush_mmu_tlbonly(Kernel k, MmuGather tlb) except -1
cpdef i32 tlb_flush_mmu_free(Kernel k, MmuGather tlb) except -1
cpdef i32 tlb_flush_mmu(Kernel k, MmuGather tlb) except -1

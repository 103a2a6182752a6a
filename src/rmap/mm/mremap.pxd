# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched
from rmap.mm.anon_vma cimport anon_vma_lock_write, anon_vma_unlock_write, unlink_anon_vmas
from rmap.mm.gup cimport mm_populate
from rmap.mm.ksm.unmerge cimport unmerge_ksm_pages
from rmap.mm.huge.change cimport move_huge_pmd
from rmap.mm.huge.pgtable cimport pmd_trans_unstable
from rmap.mm.huge.split_pmd cimport split_huge_pmd
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmap cimport do_munmap, page_align
from rmap.mm.unmapped_area cimport get_file_area, get_unmapped_area
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_start
from rmap.mm.pgtable cimport (
    pmd_alloc, pmd_offset, pte_alloc_map, pte_lock, pte_offset, pte_unlock,
    ptep_get_and_clear, ptl_of, set_pte_at,
)
from rmap.mm.tlb cimport flush_tlb_batched_pending, flush_tlb_range
from rmap.mm.vma cimport find_vma, vma_is_anonymous, vma_pages
from rmap.mm.vma_adjust cimport split_vma, vma_adjust
from rmap.mm.vma_merge cimport VmaCopy, copy_vma, vma_merge

cdef class Remap:
    cdef public Mm mm
    cdef public u64 addr, old_len, new_len, flags, new_addr
    cdef public flag locked

cpdef i32 take_rmap_locks(Vma vma) except -1
cpdef i32 drop_rmap_locks(Vma vma) except -1
cdef flag move_ptes(
    Kernel k, Vma vma, u64 old_pmd, u64 old_addr, u64 old_end, u64 new_pte, u64 new_addr,
    flag need_rmap_locks,
) except? -1
cpdef u64 move_page_tables(
    Kernel k, Vma vma, u64 old_addr, Vma new_vma, u64 new_addr, u64 length, flag need_rmap_locks
) except? 0
cdef i32 _move_whole(
    Kernel k, Vma vma, u64 old_addr, u64 new_addr, u64 extent, u64 old_pmd, u64 new_pmd,
    flag need_rmap_locks,
) except -1
cdef i64 move_vma(Kernel k, Remap r, Vma vma) except? -1
cdef i32 _unmap_moved(Kernel k, Mm mm, Vma vma, u64 start, u64 length, u64 account) except -1
cdef i32 _split_locked_source(Kernel k, Remap r, Vma vma) except? -1
cdef i32 _leave_source(Kernel k, Remap r, Vma vma, Vma new_vma) except -1

cpdef i64 do_mremap(
    Kernel k, Mm mm, u64 addr, u64 old_len, u64 new_len, u64 flags, u64 new_addr
) except? -1
cdef flag _is_mapped(Kernel k, Mm mm, u64 addr) except? -1
cdef i32 _shrink(Kernel k, Remap r) except? -1
cdef i64 vma_to_resize(Kernel k, Remap r) except? -1
cdef i64 mremap_to(Kernel k, Remap r, u64 new_addr) except? -1
cdef flag vma_expandable(Kernel k, Vma vma, u64 delta) except? -1
cdef i64 _expand(Kernel k, Remap r) except? -1
cdef i64 _expand_in_place(Kernel k, Remap r, Vma vma, u64 delta) except? -1

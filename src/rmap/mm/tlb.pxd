# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport Context, sched, sched_point
from rmap.mm.bug cimport BUG
from rmap.mm.mm_types cimport Kernel, Mm, Task, TlbBatch, Vma
from rmap.mm.pgtable cimport pte_dirty, pte_pfn, ptep_get_and_clear

cdef class Tlb:
    cdef public i32 cpu
    cdef public u64 mask
    cdef public u64[::1] tags
    cdef public u64[::1] vpns
    cdef public u64[::1] ptes
    cdef public Mm loaded_mm
    cdef public i32 loaded_asid
    cdef public u64[::1] ctx_id
    cdef public u64[::1] ctx_tlb_gen
    cdef public u64[::1] ctx_tag
    cdef public i32 next_asid
    cdef public u64 next_tag
    cpdef i32 choose_new_asid(self, Mm mm) except -1
    cpdef i32 flush_asid(self, i32 asid) except -1
    cpdef i32 flush_one(self, u64 vpn) except -1

cpdef i32 make_cpus(Kernel k, i32 count, i32 entries=*) except -1
cpdef Task current_task(Kernel k)
cpdef i32 switch_mm(Kernel k, Task task, Mm mm) except -1
cpdef i32 leave_mm(Kernel k, i32 cpu) except -1
cpdef u64 tlb_lookup(Kernel k, i32 cpu, Mm mm, u64 address) except? 0
cpdef i32 tlb_fill(Kernel k, i32 cpu, Mm mm, u64 address, u64 pte) except -1
cpdef i32 tlb_announce_fill(i32 cpu) except -1
cpdef i32 tlb_insert(Kernel k, i32 cpu, Mm mm, u64 address, u64 pte) except -1
cpdef flag tlb_holds(Kernel k, i32 cpu, Mm mm, u64 address, u64 page, flag write) except? -1
cdef Tlb _tlb_of(Kernel k, i32 cpu, Mm mm)
cdef u64 _cpu_ident(i32 cpu) noexcept

cpdef i32 flush_tlb_mm(Kernel k, Mm mm) except -1
cpdef i32 flush_tlb_range(Kernel k, Mm mm, u64 start, u64 end) except -1
cpdef i32 flush_tlb_page(Kernel k, Vma vma, u64 address) except -1
cpdef u64 inc_mm_tlb_gen(Mm mm) except? 0
cdef i32 _flush_tlb_cpus(Kernel k, u64 cpus, Mm mm, u64 start, u64 end, u64 new_gen) except -1
cdef i32 _flush_tlb_func(Kernel k, Tlb tlb, Mm mm, u64 start, u64 end, u64 new_gen) except -1

cpdef i32 inc_tlb_flush_pending(Kernel k, Mm mm) except -1
cpdef i32 dec_tlb_flush_pending(Kernel k, Mm mm) except -1
cpdef flag mm_tlb_flush_pending(Mm mm) except? -1
cpdef u64 ptep_clear_flush(Kernel k, Vma vma, u64 address, u64 ptep) except? 0
cpdef flag ptep_test_and_clear_young(Kernel k, Vma vma, u64 address, u64 ptep) except? -1
cpdef flag ptep_clear_flush_young(Kernel k, Vma vma, u64 address, u64 ptep) except? -1
cpdef u64 pmdp_huge_clear_flush(Kernel k, Vma vma, u64 address, u64 pmdp) except? 0
cpdef u64 pmdp_collapse_flush(Kernel k, Vma vma, u64 address, u64 pmdp) except? 0
cpdef flag pmdp_clear_flush_young(Kernel k, Vma vma, u64 address, u64 pmdp) except? -1
cpdef u64 pmdp_invalidate(Kernel k, Vma vma, u64 address, u64 pmdp) except? 0

cpdef i32 try_to_unmap_flush(Kernel k) except -1
cpdef i32 try_to_unmap_flush_dirty(Kernel k) except -1
cpdef i32 set_tlb_ubc_flush_pending(Kernel k, Mm mm, flag writable) except -1
cpdef flag should_defer_flush(Kernel k, Mm mm, u64 flags) except? -1
cpdef i32 flush_tlb_batched_pending(Kernel k, Mm mm) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.pgtable cimport set_pte_at
from rmap.mm.tlb cimport pmdp_clear_flush_young, ptep_clear_flush
from rmap.mm.tlb cimport ptep_clear_flush_young, ptep_test_and_clear_young

cdef class MmuNotifier:
    cpdef i32 invalidate_range_start(self, Kernel k, Mm mm, u64 start, u64 end) except -1
    cpdef i32 invalidate_range_end(self, Kernel k, Mm mm, u64 start, u64 end) except -1
    cpdef i32 invalidate_range(self, Kernel k, Mm mm, u64 start, u64 end) except -1
    cpdef flag clear_flush_young(self, Kernel k, Mm mm, u64 start, u64 end) except? -1
    cpdef flag clear_young(self, Kernel k, Mm mm, u64 start, u64 end) except? -1
    cpdef flag test_young(self, Kernel k, Mm mm, u64 address) except? -1
    cpdef i32 change_pte(self, Kernel k, Mm mm, u64 address, u64 pte) except -1

cpdef i32 mmu_notifier_register(Kernel k, Mm mm, MmuNotifier notifier) except -1
cpdef i32 mmu_notifier_unregister(Kernel k, Mm mm, MmuNotifier notifier) except -1
cpdef i32 mmu_notifier_invalidate_range_start(Kernel k, Mm mm, u64 start, u64 end) except -1
cpdef i32 mmu_notifier_invalidate_range_end(Kernel k, Mm mm, u64 start, u64 end) except -1
cpdef i32 mmu_notifier_invalidate_range_only_end(Kernel k, Mm mm, u64 start, u64 end) except -1
cpdef i32 mmu_notifier_invalidate_range(Kernel k, Mm mm, u64 start, u64 end) except -1
cpdef flag ptep_clear_flush_young_notify(Kernel k, Vma vma, u64 address, u64 ptep) except? -1
cpdef flag ptep_clear_young_notify(Kernel k, Vma vma, u64 address, u64 ptep) except? -1
cpdef flag pmdp_clear_young_notify(Kernel k, Vma vma, u64 address, u64 pmdp) except? -1
cdef flag _tell_clear_young(Kernel k, Mm mm, u64 start, u64 end) except? -1
cpdef flag mmu_notifier_test_young(Kernel k, Mm mm, u64 address) except? -1
cpdef flag pmdp_clear_flush_young_notify(Kernel k, Vma vma, u64 address, u64 pmdp) except? -1
cpdef u64 ptep_clear_flush_notify(Kernel k, Vma vma, u64 address, u64 ptep) except? 0
cpdef i32 set_pte_at_notify(Kernel k, Mm mm, u64 address, u64 ptep, u64 pte) except -1

cdef i32 _log(Kernel k, str name, Mm mm, u64 start, u64 end) except -1
cdef i32 _tell_end(Kernel k, Mm mm, u64 start, u64 end, flag only_end) except -1
cdef flag _tell_clear_flush_young(Kernel k, Mm mm, u64 start, u64 end) except? -1

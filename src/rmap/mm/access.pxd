# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG
from rmap.mm.content cimport load, store
from rmap.mm.fault cimport handle_fault
from rmap.mm.memory cimport VmFault
from rmap.mm.mm_types cimport Kernel, Mm, Task, Vma
from rmap.mm.pgtable cimport leaf_lookup, leaf_part, pte_lookup, pte_pfn
from rmap.mm.stack cimport expand_stack
from rmap.mm.tlb cimport switch_mm, tlb_announce_fill, tlb_holds, tlb_insert, tlb_lookup
from rmap.mm.vma cimport vma_slot

cdef class Cpu:
    cdef public Task task
    cdef public Mm mm
    cdef public VmFault vmf
    cdef public i64 slot
    cpdef u64 translate(self, Kernel k, u64 address, flag write) except? 0
    cpdef u64 walk(self, Kernel k, u64 address, flag write) except? 0
    cpdef u64 walk_huge(self, Kernel k, u64 address, flag write) except? 0
    cpdef i32 fault(self, Kernel k, u64 address, flag write) except -1
    cpdef flag find(self, Kernel k, u64 address, flag write) except? -1

cdef i32 fail(u64 address, flag write, i32 ret) except -1
cpdef Cpu cpu_of(Kernel k, Task task)
cpdef u64 cpu_access(Kernel k, Task task, u64 address, flag write) except? 0
cpdef i64 touch_range(Kernel k, Task task, u64 start, u64 end, flag write) except? -1
cpdef bytes read_bytes(Kernel k, Task task, u64 address, i64 length)
cpdef i32 write_bytes(Kernel k, Task task, u64 address, bytes data) except -1
cdef u64 _reach(Kernel k, Cpu cpu, u64 address, flag write) except? 0

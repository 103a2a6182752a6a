# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.anon_vma cimport page_lock_anon_vma_read, page_unlock_anon_vma_read
from rmap.mm.inline cimport compound_head, compound_order, PageAnon, page_mapping_word
from rmap.mm.inline cimport page_to_pgoff
from rmap.mm.interval_tree cimport interval_tree_iter_first, interval_tree_iter_next
from rmap.mm.mm_types cimport AddressSpace, AnonVma, IntervalNode, IntervalRoot, Kernel, Task
from rmap.mm.mm_types cimport Vma
from rmap.mm.page cimport page_mapping
from rmap.mm.page_vma_mapped cimport page_mapped_in_vma
from rmap.mm.rmap_walk cimport page_address_in_vma
from rmap.mm.tlb cimport current_task

cdef class ToKill:
    cdef public Task task
    cdef public u64 address
    cdef public flag addr_valid

cdef class Kill:
    cdef public Task task
    cdef public i32 signal
    cdef public i32 code
    cdef public u64 address
    cdef public i32 addr_lsb

cpdef flag task_early_kill(Kernel k, Task task, flag force_early) except? -1
cpdef list collect_procs(Kernel k, u64 page, flag force_early)
cdef i32 _collect_procs_anon(Kernel k, u64 page, list found, flag force_early) except -1
cdef i32 _collect_procs_file(Kernel k, u64 page, list found, flag force_early) except -1
cdef i32 _collect_vmas(
    Kernel k, u64 page, Task task, IntervalRoot tree, list found, flag mapped
) except -1
cdef i32 _add_to_kill(Kernel k, Task task, u64 page, Vma vma, list found) except -1
cpdef i32 kill_procs(
    Kernel k, list found, flag forcekill, flag fail, u64 page, i32 flags
) except -1
cdef i32 kill_proc(Kernel k, Task task, u64 address, u64 page, i32 flags) except -1
cpdef i32 send_signal(
    Kernel k, Task task, i32 signal, i32 code, u64 address, i32 addr_lsb
) except -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.sync.core cimport sched, wait_until
from rmap.mm.bug cimport BUG
from rmap.mm.memory cimport VmFault
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.pgtable cimport pmd_offset, pte_lookup, pte_none, pte_write, ptep_get

cdef class UserfaultfdWaitQueue:
    cdef public u64 address, flags
    cdef public flag waken

cdef class UserfaultfdCtx:
    cdef public Mm mm
    cdef public flag sigbus
    cdef public flag released
    cdef public list pending
    cpdef flag deliver(self, Kernel k, u64 address, u64 flags) except? -1

cpdef flag userfaultfd_missing(Vma vma) except? -1
cpdef i32 handle_userfault(Kernel k, VmFault vmf, u64 reason) except -1
cdef i32 _wait(Kernel k, UserfaultfdCtx ctx, UserfaultfdWaitQueue uwq) except -1
cpdef flag userfaultfd_must_wait(Kernel k, Mm mm, u64 address, u64 reason) except? -1
cpdef i32 wake_userfault(Kernel k, UserfaultfdCtx ctx, u64 start, u64 end) except -1

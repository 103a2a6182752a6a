# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64
from rmap.mm.ksm.stable cimport Ksm, MmSlot, ksm_of
from rmap.mm.mm_types cimport Kernel, Mm

cpdef i32 ksm_enter(Kernel k, Mm mm) except? -1
cpdef i32 ksm_fork(Kernel k, Mm mm, Mm oldmm) except? -1
cpdef i32 ksm_exit(Kernel k, Mm mm) except -1
cpdef MmSlot next_slot(Kernel k, MmSlot slot)
cpdef i32 forget_slot(Kernel k, MmSlot slot) except -1

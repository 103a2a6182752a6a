# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.bug cimport BUG
from rmap.mm.mm_types cimport Kernel, Khugepaged, Mm, Vma

cpdef u64 hugepage_start(Vma vma) except? 0
cpdef u64 hugepage_end(Vma vma) except? 0
cpdef flag khugepaged_test_exit(Mm mm) except? -1
cpdef i32 khugepaged_enter(Kernel k, Vma vma, u64 vm_flags) except? -1
cpdef i32 khugepaged_enter_mm(Kernel k, Mm mm) except? -1
cpdef i32 khugepaged_enter_vma_merge(Kernel k, Vma vma, u64 vm_flags) except? -1
cpdef i32 khugepaged_fork(Kernel k, Mm mm, Mm oldmm) except? -1
cpdef i32 khugepaged_exit(Kernel k, Mm mm) except -1

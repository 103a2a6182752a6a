# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport i32, u64
from rmap.mm.anon_vma cimport (
    anon_vma_interval_tree_post_update_vma, anon_vma_interval_tree_pre_update_vma,
    anon_vma_lock_write, anon_vma_prepare, anon_vma_unlock_write,
)
from rmap.mm.huge.mm_slot cimport khugepaged_enter_vma_merge
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.vma cimport find_vma

cdef i32 acct_stack_growth(Vma vma, u64 size) except? -1
cpdef i32 expand_downwards(Kernel k, Vma vma, u64 address) except? -1
cdef i32 _grow(Kernel k, Mm mm, Vma vma, u64 address) except? -1
cpdef i32 expand_stack(Kernel k, Vma vma, u64 address) except? -1
cpdef Vma find_extend_vma(Kernel k, Mm mm, u64 address)

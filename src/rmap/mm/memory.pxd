# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.sync.core cimport wait_until
from rmap.mm.bug cimport WARN
from rmap.mm.inline cimport compound_head, linear_page_index, set_pte_at, SetPage
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.page cimport lock_page, trylock_page
from rmap.mm.page_alloc cimport alloc_page

cdef class VmFault:
    cdef public Vma vma
    cdef public u64 flags, address, pgoff
    cdef public u64 pmd, pte, orig_pte
    cdef public u64 page, cow_page
    cdef public i32 fault_type
    cpdef i32 aim(self, Kernel k, u64 address, u64 flags) except -1

cpdef u64 init_zero_pfn(Kernel k) except? 0
cpdef flag is_zero_pfn(Kernel k, u64 pfn) except? -1
cpdef i32 print_bad_pte(Kernel k, Vma vma, u64 address, u64 pte, u64 page) except -1
cpdef u64 vm_normal_page(Kernel k, Vma vma, u64 address, u64 pte) except? 0
cpdef u64 maybe_mkwrite(u64 pte, Vma vma) except? 0
cpdef flag ptep_set_access_flags(
    Kernel k, Vma vma, u64 address, u64 ptep, u64 entry, flag dirty
) except? -1
cpdef i32 wait_on_page_locked(Kernel k, u64 page) except -1
cpdef flag lock_page_or_retry(Kernel k, u64 page, Mm mm, u64 flags) except? -1

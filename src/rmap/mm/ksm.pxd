# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, u64
from rmap.mm.fault cimport handle_mm_fault
from rmap.mm.lru cimport put_page
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.mm_types cimport Kernel, Vma
from rmap.mm.page cimport PageKsm, get_page
from rmap.mm.pgtable cimport pte_lock, pte_lookup, pte_present, pte_unlock

cpdef i32 break_ksm(Kernel k, Vma vma, u64 address, u64 ptep) except? -1
cpdef i32 unmerge_ksm_pages(Kernel k, Vma vma, u64 start, u64 end) except? -1

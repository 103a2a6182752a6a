# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG
from rmap.mm.content cimport page_write
from rmap.mm.fork cimport mm_alloc, mmput
from rmap.mm.gup cimport get_user_pages, put_user_page
from rmap.mm.mm_types cimport Kernel, Mm, Task, Vma
from rmap.mm.mprotect cimport mprotect_fixup
from rmap.mm.mremap cimport move_page_tables
from rmap.mm.pgtable cimport free_pgd_range
from rmap.mm.stack cimport expand_downwards, expand_stack
from rmap.mm.tlb cimport switch_mm
from rmap.mm.vma cimport find_vma, vm_area_alloc
from rmap.mm.vma_adjust cimport VmaPointer, insert_vm_struct, vma_adjust
from rmap.mm.mmu_gather cimport MmuGather, tlb_finish_mmu, tlb_gather_mmu

cdef class LinuxBinprm:
    cdef public Mm mm
    cdef public Vma vma
    cdef public u64 p

cpdef LinuxBinprm bprm_mm_init(Kernel k, str name, Mm old)
cpdef i32 copy_strings(Kernel k, LinuxBinprm bprm, bytes strings) except? -1
cdef u64 _get_arg_page(Kernel k, LinuxBinprm bprm, u64 position) except? 0
cpdef i32 exec_mmap(Kernel k, Task task, Mm mm) except -1
cpdef i32 setup_arg_pages(Kernel k, LinuxBinprm bprm, u64 stack_top) except? -1
cpdef i32 shift_arg_pages(Kernel k, Vma vma, u64 shift) except? -1
cpdef i32 do_execve(Kernel k, Task task, str name, bytes strings=*, u64 stack_shift=*) except? -1
cdef i32 _place_stack(Kernel k, Vma vma, u64 shift) except? -1

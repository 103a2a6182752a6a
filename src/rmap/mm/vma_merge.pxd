# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport anon_vma_clone
from rmap.mm.bug cimport BUG, WARN
from rmap.mm.huge.mm_slot cimport khugepaged_enter_vma_merge
from rmap.mm.mm_types cimport AnonVma, File, Kernel, Mm, Vma
from rmap.mm.vma cimport (
    can_vma_merge_after, can_vma_merge_before, find_vma_intersection, find_vma_prev,
    is_mergeable_anon_vma, vm_area_dup, vma_is_anonymous,
)
from rmap.mm.vma_adjust cimport get_file, vma_adjust_expand, vma_link

cdef class VmaCopy:
    cdef public Vma vma
    cdef public flag need_rmap_locks
    cdef public flag keep_apart

cpdef Vma vma_merge(
    Kernel k, Mm mm, Vma prev, u64 addr, u64 end, u64 vm_flags, AnonVma anon_vma, File file,
    u64 pgoff, object ctx,
)
cdef flag _range_is_sane(Vma prev, Vma area, u64 addr, u64 end) except? -1
cdef Vma _grow(Kernel k, Vma vma, u64 start, u64 end, u64 pgoff, Vma result, u64 vm_flags)
cpdef Vma vma_merge_new_range(
    Kernel k, Mm mm, Vma prev, u64 addr, u64 end, u64 vm_flags, File file, u64 pgoff, object ctx
)
cpdef Vma copy_vma(Kernel k, VmaCopy copy, u64 addr, u64 length, u64 pgoff)
cdef Vma _merge_copy(Kernel k, VmaCopy copy, Vma prev, u64 addr, u64 end, u64 pgoff)
cdef Vma _link_copy(Kernel k, Vma vma, u64 addr, u64 length, u64 pgoff)

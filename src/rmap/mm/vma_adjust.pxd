# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport (
    anon_vma_clone, anon_vma_interval_tree_post_update_vma, anon_vma_interval_tree_pre_update_vma,
    anon_vma_lock_write, anon_vma_merge, anon_vma_unlock_write, unlink_anon_vmas,
)
from rmap.mm.bug cimport BUG, WARN
from rmap.mm.hugetlb.pool cimport hstate_vma, huge_page_size
from rmap.mm.hugetlb.reserve cimport hugetlb_vm_op_open
from rmap.mm.i_mmap cimport remove_shared_vm_struct, vma_link_file
from rmap.mm.interval_tree cimport interval_tree_insert, interval_tree_remove
from rmap.mm.mm_types cimport AddressSpace, AnonVma, File, Kernel, Mm, Vma
from rmap.mm.huge.split_pmd cimport split_huge_pmd_address
from rmap.mm.vma cimport (
    find_vma_intersection, vm_area_dup, vma_is_anonymous, vma_link_list, vma_unlink_list,
)

cdef class VmaPointer:
    cdef public Vma vma

cdef class VmaAdjustment:
    cdef public Vma vma, next, insert
    cdef public File file
    cdef public u64 start, end, pgoff
    cdef public i64 adjust_next
    cdef public i32 remove_next

cpdef i32 get_file(File file) except -1
cpdef i32 vma_link(Kernel k, Mm mm, Vma vma) except -1
cpdef i32 insert_vm_struct(Kernel k, Mm mm, Vma vma) except? -1
cdef i32 _split_huge_pmd_at(Kernel k, Vma vma, u64 address) except -1
cpdef i32 vma_adjust_trans_huge(Kernel k, Vma vma, u64 start, u64 end, i64 adjust_next) except -1
cpdef i32 vma_adjust(
    Kernel k, Vma vma, u64 start, u64 end, u64 pgoff, Vma insert
) except? -1
cpdef i32 vma_adjust_expand(
    Kernel k, Vma vma, u64 start, u64 end, u64 pgoff, Vma insert, Vma expand
) except? -1
cdef i32 _plan(Kernel k, VmaAdjustment a, Vma expand) except? -1
cdef i32 _import_anon_vmas(Kernel k, Vma exporter, Vma importer) except? -1
cdef i32 _change_ranges(Kernel k, VmaAdjustment a) except -1
cdef i32 _set_ranges(VmaAdjustment a) except -1
cdef i32 _free_removed(Kernel k, VmaAdjustment a) except -1
cpdef i32 split_vma_at(Kernel k, Mm mm, Vma vma, u64 address, i32 new_below) except? -1
cpdef i32 split_vma(Kernel k, Mm mm, Vma vma, u64 address, i32 new_below) except? -1

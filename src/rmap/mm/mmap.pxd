# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.filemap cimport make_file
from rmap.mm.gup cimport mm_populate
from rmap.mm.huge.shmem_huge cimport khugepaged_enter_file
from rmap.mm.hugetlb.file cimport hugetlb_align, hugetlb_file_setup, hugetlbfs_evict_inode
from rmap.mm.hugetlb.file cimport hugetlbfs_file_mmap, is_file_hugepages
from rmap.mm.hugetlb.pool cimport size_to_hstate
from rmap.mm.hugetlb.reserve cimport hugetlb_vm_op_close
from rmap.mm.mlock cimport munlock_vma_pages_all
from rmap.mm.mmu_gather cimport MmuGather, tlb_finish_mmu, tlb_gather_mmu
from rmap.mm.mm_types cimport File, Hstate, Kernel, Mm, Vma
from rmap.mm.truncate cimport truncate_inode_pages
from rmap.mm.unmapped_area cimport get_file_area, get_unmapped_area, hugetlb_get_unmapped_area
from rmap.mm.unmapped_area cimport vm_start_gap
from rmap.mm.vma cimport (
    find_vma, find_vma_intersection, find_vma_prev, update_hiwater_rss, vm_area_alloc, vma_pages,
    vma_set_page_prot, vma_slot,
)
from rmap.mm.vma_adjust cimport get_file, split_vma_at, vma_link
from rmap.mm.vma_merge cimport vma_merge_new_range
from rmap.mm.zap cimport free_pgtables, unmap_vmas

cpdef u64 page_align(u64 length) noexcept
cpdef u64 calc_vm_prot_bits(u64 prot) noexcept
cpdef u64 calc_vm_flag_bits(u64 flags) noexcept
cpdef i64 vm_mmap_pgoff(
    Kernel k, Mm mm, u64 addr, u64 length, u64 prot, u64 flags, File file, u64 pgoff
) except? -1
cpdef i64 do_mmap(
    Kernel k, Mm mm, u64 addr, u64 length, u64 prot, u64 flags, File file, u64 pgoff
) except? -1
cpdef flag accountable_mapping(u64 vm_flags) noexcept
cpdef i64 mmap_region(
    Kernel k, Mm mm, File file, u64 addr, u64 length, u64 vm_flags, u64 pgoff
) except? -1
cpdef i32 hstate_sizelog(Kernel k, u64 flags) except? -1
cdef File _hugetlb_anon_file(Kernel k, u64 length, u64 flags)
cdef i32 _call_mmap(Kernel k, Mm mm, Vma vma, File file) except? -1

cpdef File shmem_zero_setup(Kernel k, u64 pages)
cpdef i32 fput(Kernel k, File file) except -1

cpdef i32 vm_munmap(Kernel k, Mm mm, u64 start, u64 length) except? -1
cpdef i32 do_munmap(Kernel k, Mm mm, u64 start, u64 length) except? -1
cdef i32 _munlock_vmas(Kernel k, Mm mm, Vma vma, u64 end) except -1
cdef i32 _detach_vmas(Mm mm, Vma vma, Vma prev, u64 end) except -1
cdef i32 _unmap_region(Kernel k, Mm mm, Vma vma, Vma prev, u64 start, u64 end) except -1
cdef i32 _remove_vma_list(Kernel k, Mm mm, Vma vma) except -1
cpdef Vma remove_vma(Kernel k, Vma vma)

cpdef u64 sys_brk(Kernel k, Mm mm, u64 brk) except? 0
cdef flag _move_brk(Kernel k, Mm mm, u64 brk, u64 old, u64 new) except? -1
cpdef i32 do_brk_flags(Kernel k, Mm mm, u64 addr, u64 length, u64 flags) except? -1
cpdef i32 exit_mmap(Kernel k, Mm mm) except -1

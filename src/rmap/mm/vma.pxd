# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched, sched_point
from rmap.mm.bug cimport BUG, BUG_PAGE
from rmap.mm.mm_types cimport AnonVma, File, Kernel, MemCgroup, Mm, Vma
from rmap.mm.page cimport PageAnon, PageSwapBacked, hpage_nr_pages, page_to_pgoff

cpdef u64 vma_pages(Vma vma) except? 0
cpdef u64 linear_page_index(Kernel k, Vma vma, u64 address) except? 0
cpdef u64 vma_page_address(Kernel k, u64 page, Vma vma) except? 0
cpdef u64 vma_address(Kernel k, u64 page, Vma vma) except? 0
cpdef flag vma_is_anonymous(Vma vma) except? -1
cpdef flag is_cow_mapping(u64 vm_flags) noexcept
cpdef flag userfaultfd_armed(Vma vma) except? -1
cpdef flag is_vma_temporary_stack(Vma vma) except? -1
cpdef AnonVma vma_anon_vma(Vma vma)
cpdef i32 set_vma_anon_vma(Vma vma, AnonVma anon_vma) except -1

cpdef i64 vma_slot(Mm mm, u64 address) except? -1
cpdef Vma find_vma(Kernel k, Mm mm, u64 address)
cpdef Vma find_vma_prev(Kernel k, Mm mm, u64 address)
cpdef Vma find_vma_intersection(Kernel k, Mm mm, u64 start, u64 end)
cpdef i32 vma_link_list(Kernel k, Mm mm, Vma vma) except -1
cpdef i32 vma_unlink_list(Kernel k, Mm mm, Vma vma) except -1
cpdef Vma vm_area_alloc(Kernel k, Mm mm, u64 start, u64 end, u64 vm_flags, u64 vm_pgoff)
cpdef Vma vm_area_dup(Kernel k, Vma vma)

cpdef u64 vm_get_page_prot(u64 vm_flags) noexcept
cpdef flag vma_wants_writenotify(Vma vma) except? -1
cpdef i32 vma_set_page_prot(Kernel k, Vma vma) except -1

cpdef flag is_mergeable_vma(Kernel k, Vma vma, u64 vm_flags, File vm_file, object ctx) except? -1
cpdef flag is_mergeable_anon_vma(AnonVma anon_vma1, AnonVma anon_vma2, Vma vma) except? -1
cpdef flag can_vma_merge_before(
    Kernel k, Vma vma, u64 vm_flags, AnonVma anon_vma, File vm_file, u64 vm_pgoff, object ctx
) except? -1
cpdef flag can_vma_merge_after(
    Kernel k, Vma vma, u64 vm_flags, AnonVma anon_vma, File vm_file, u64 vm_pgoff, object ctx
) except? -1
cpdef flag anon_vma_compatible(Kernel k, Vma a, Vma b) except? -1
cpdef AnonVma reusable_anon_vma(Kernel k, Vma old, Vma a, Vma b)
cpdef AnonVma find_mergeable_anon_vma(Kernel k, Vma vma)

cpdef i64 get_mm_counter(Kernel k, Mm mm, i32 member) except? -1
cpdef i32 add_mm_counter(Kernel k, Mm mm, i32 member, i64 value) except -1
cpdef i32 inc_mm_counter(Kernel k, Mm mm, i32 member) except -1
cpdef i32 dec_mm_counter(Kernel k, Mm mm, i32 member) except -1
cpdef i32 mm_counter_file(Kernel k, u64 page) except -1
cpdef i32 mm_counter_huge_file(Kernel k, u64 page) except -1
cpdef i32 mm_counter(Kernel k, u64 page) except -1
cpdef i64 get_mm_rss(Kernel k, Mm mm) except? -1
cpdef i32 update_hiwater_rss(Kernel k, Mm mm) except -1
cpdef flag mm_match_cgroup(Mm mm, MemCgroup memcg) except? -1
cdef i64 _slot_of(Mm mm, Vma vma) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport sched
from rmap.mm.bug cimport BUG, WARN
from rmap.mm.gup cimport populate_vma_page_range
from rmap.mm.huge.change cimport change_huge_pmd
from rmap.mm.huge.pgtable cimport pmd_trans_unstable
from rmap.mm.huge.split_pmd cimport __split_huge_pmd
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.hugetlb.protect cimport hugetlb_change_protection
from rmap.mm.inline cimport is_device_private_entry, is_migration_entry, is_swap_pte
from rmap.mm.inline cimport mmu_notifier_invalidate_range_start, PageAnon, PageFlag, pmd_offset
from rmap.mm.inline cimport pte_lock, pte_offset, pte_swp_mksoft_dirty, pte_to_swp_entry, pte_unlock
from rmap.mm.inline cimport ptep_get_and_clear, set_pte_at, swp_entry_to_pte, swp_offset, swp_type
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.mmap cimport calc_vm_prot_bits, page_align
from rmap.mm.mmu_notifier cimport mmu_notifier_invalidate_range_end
from rmap.mm.pgtable cimport is_write_migration_entry, pte_swp_soft_dirty, swp_entry
from rmap.mm.tlb cimport dec_tlb_flush_pending, flush_tlb_batched_pending, flush_tlb_range
from rmap.mm.tlb cimport inc_tlb_flush_pending
from rmap.mm.vma cimport find_vma, vma_is_anonymous, vma_set_page_prot, vma_wants_writenotify
from rmap.mm.vma_adjust cimport VmaPointer, split_vma
from rmap.mm.vma_merge cimport vma_merge

cpdef i64 change_protection(
    Kernel k, Vma vma, u64 start, u64 end, u64 newprot, i32 cp_flags
) except? -1
cdef i64 _change_pmd_range(
    Kernel k, Vma vma, u64 address, u64 end, u64 newprot, i32 cp_flags
) except? -1
cdef i32 _change_huge(
    Kernel k, Vma vma, u64 pmd, u64 address, u64 end, u64 newprot, i32 cp_flags
) except -1
cdef i64 _change_pte_range(
    Kernel k, Vma vma, u64 pmd, u64 address, u64 end, u64 newprot, i32 cp_flags
) except? -1
cdef i64 _change_swap_pte(Kernel k, Vma vma, u64 address, u64 ptep, u64 pte) except? -1
cpdef flag can_change_pte_writable(Kernel k, Vma vma, u64 address, u64 pte) except? -1

cpdef i32 mprotect_fixup(
    Kernel k, Vma vma, VmaPointer prev, u64 start, u64 end, u64 newflags
) except? -1
cdef u64 _account(Kernel k, Vma vma, u64 newflags) except? 0
cdef i32 _cp_flags(Kernel k, Vma vma) except -1
cpdef i32 do_mprotect(Kernel k, Mm mm, u64 start, u64 length, u64 prot) except? -1
cdef i32 _protect_range(Kernel k, Mm mm, u64 start, u64 end, u64 prot_flags) except? -1

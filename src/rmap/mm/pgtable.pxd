# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.sync.core cimport assert_held, lock_acquired, lock_released
from rmap.sync.core cimport sched, sched_point, wait_until
from rmap.mm.bug cimport BUG
from rmap.mm.mm_types cimport Kernel, Mm, Vma

cpdef flag pte_none(u64 pte) noexcept
cpdef flag pte_present(u64 pte) noexcept
cpdef flag is_swap_pte(u64 pte) noexcept
cpdef flag pte_young(u64 pte) noexcept
cpdef flag pte_dirty(u64 pte) noexcept
cpdef flag pte_write(u64 pte) noexcept
cpdef flag pte_special(u64 pte) noexcept
cpdef flag pte_soft_dirty(u64 pte) noexcept
cpdef flag pte_unused(u64 pte) noexcept
cpdef u64 pte_pfn(u64 pte) noexcept
cpdef u64 pfn_pte(u64 pfn, u64 prot) noexcept
cpdef u64 pte_mkyoung(u64 pte) noexcept
cpdef u64 pte_mkold(u64 pte) noexcept
cpdef u64 pte_mkdirty(u64 pte) noexcept
cpdef u64 pte_mkclean(u64 pte) noexcept
cpdef u64 pte_mkwrite(u64 pte) noexcept
cpdef u64 pte_wrprotect(u64 pte) noexcept
cpdef u64 pte_mksoft_dirty(u64 pte) noexcept
cpdef u64 pte_modify(u64 pte, u64 prot) noexcept
cpdef flag pmd_present(u64 pmd) noexcept
cpdef flag pmd_trans_huge(u64 pmd) noexcept
cpdef flag is_swap_pmd(u64 pmd) noexcept
cpdef flag is_pmd_migration_entry(u64 pmd) noexcept

cpdef u64 swp_entry(i32 type, u64 offset) noexcept
cpdef i32 swp_type(u64 entry) noexcept
cpdef u64 swp_offset(u64 entry) noexcept
cpdef flag non_swap_entry(u64 entry) noexcept
cpdef u64 swp_entry_to_pte(u64 entry) noexcept
cpdef u64 pte_to_swp_entry(u64 pte) noexcept
cpdef u64 pte_swp_mksoft_dirty(u64 pte) noexcept
cpdef flag pte_swp_soft_dirty(u64 pte) noexcept
cpdef flag is_migration_entry(u64 entry) noexcept
cpdef flag is_write_migration_entry(u64 entry) noexcept
cpdef flag is_device_private_entry(u64 entry) noexcept
cpdef flag is_hwpoison_entry(u64 entry) noexcept

cpdef u64 pte_alloc_row(Kernel k, Mm mm) except? 0
cpdef i32 pte_free_row(Kernel k, Mm mm, u64 row) except -1
cpdef u64 pmd_offset(Kernel k, Mm mm, u64 address) except? 0
cpdef u64 pud_offset(Kernel k, Mm mm, u64 address) except? 0
cpdef u64 pud_alloc(Kernel k, Mm mm, u64 address) except? 0
cpdef u64 pmd_alloc(Kernel k, Mm mm, u64 address) except? 0
cpdef u64 pte_offset(Kernel k, u64 pmd, u64 address) except? 0
cpdef u64 pte_lookup(Kernel k, Mm mm, u64 address) except? 0
cpdef u64 leaf_lookup(Kernel k, Mm mm, u64 address) except? 0
cpdef u64 leaf_part(Kernel k, Mm mm, u64 address, u64 leaf) except? 0
cpdef u64 pte_alloc(Kernel k, Mm mm, u64 address) except? 0
cpdef u64 pte_alloc_map(Kernel k, Mm mm, u64 pmd, u64 address) except? 0
cpdef i32 free_pgd_range(Kernel k, Mm mm, u64 start, u64 end, u64 floor, u64 ceiling) except -1
cpdef u64 ptl_of(u64 pte) noexcept
cdef i32 _wait_for_table(Kernel k, u64 row) except -1
cpdef i32 pte_lock(Kernel k, u64 pte) except -1
cpdef i32 pte_unlock(Kernel k, u64 pte) except -1
cpdef i32 assert_pte_locked(Kernel k, u64 pte) except -1
cpdef u64 ptep_get(Kernel k, u64 pte) except? 0
cpdef i32 set_pte_at(Kernel k, Mm mm, u64 address, u64 ptep, u64 pte) except -1
cpdef u64 ptep_get_and_clear(Kernel k, Mm mm, u64 address, u64 ptep) except? 0
cpdef i32 ptep_set_wrprotect(Kernel k, Mm mm, u64 address, u64 ptep) except -1
cdef u64 _descend(Kernel k, u64 entry) except? 0
cdef u64 _descend_alloc(Kernel k, Mm mm, u64 entry) except? 0
cdef i32 _free_level(
    Kernel k, Mm mm, u64 base, i32 shift, u64 origin, u64 start, u64 end, u64 floor, u64 ceiling,
) except -1

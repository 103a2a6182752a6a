# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.gup cimport __mm_populate
from rmap.mm.huge.pgtable cimport is_huge_zero_pmd, pmd_trans_huge_lock
from rmap.mm.lru cimport page_evictable, put_page, putback_lru_page
from rmap.mm.memory cimport vm_normal_page
from rmap.mm.mlock_page cimport mlock_page, munlock_page
from rmap.mm.mm_types cimport Kernel, Mm, Vma
from rmap.mm.munlock cimport munlock_isolate_lru_page, munlock_isolated_page, munlock_vma_page
from rmap.mm.page cimport PageCompound, PageFlag, PageMlocked, PageTail, TestClearPage
from rmap.mm.page cimport get_page, lock_page, page_mapcount, unlock_page
from rmap.mm.pgtable cimport pmd_offset, pmd_present, pmd_trans_huge, pte_lock, pte_offset
from rmap.mm.pgtable cimport pte_pfn, pte_present, pte_unlock
from rmap.mm.vma cimport find_vma
from rmap.mm.vma_adjust cimport VmaPointer, split_vma
from rmap.mm.vma_merge cimport vma_merge

cpdef i32 munlock_vma_pages_all(Kernel k, Vma vma) except -1
cpdef i32 munlock_vma_pages_range(Kernel k, Vma vma, u64 start, u64 end) except -1
cdef u64 _pin_pages(Kernel k, Vma vma, u64 start, u64 end, list pages) except? 0
cdef u64 _pin_huge(Kernel k, u64 pmd, u64 address) except? 0
cdef i64 _munlock_compound(Kernel k, u64 page) except -1
cdef i32 _munlock_pagevec(Kernel k, list pages) except -1
cdef i32 _isolate_mlocked(Kernel k, u64 page) except -1

cpdef i32 mlock_vma_pages_range(Kernel k, Vma vma, u64 start, u64 end, u64 newflags) except -1
cdef i32 _mlock_pte_range(Kernel k, Vma vma, u64 start, u64 end) except -1
cdef i32 _count_mlock(Kernel k, u64 page, flag locked) except -1

cpdef i32 mlock_fixup(
    Kernel k, Vma vma, VmaPointer prev, u64 start, u64 end, u64 newflags
) except? -1
cpdef i32 apply_vma_lock_flags(Kernel k, Mm mm, u64 start, u64 length, u64 flags) except? -1
cpdef i32 do_mlock(Kernel k, Mm mm, u64 start, u64 length, u64 flags=*) except? -1
cpdef i32 do_munlock(Kernel k, Mm mm, u64 start, u64 length) except? -1

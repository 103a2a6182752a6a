# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.anon_vma cimport anon_vma_prepare
from rmap.mm.content cimport set_page_bytes
from rmap.mm.lru cimport lru_cache_add, lru_cache_add_active_or_unevictable, put_page
from rmap.mm.memcg cimport mem_cgroup_try_charge
from rmap.mm.memory cimport init_zero_pfn
from rmap.mm.mlock_page cimport mlock_vma_page_counted
from rmap.mm.mm_types cimport AddressSpace, Kernel, Mm, Vma
from rmap.mm.page cimport SetPage, trylock_page, unlock_page
from rmap.mm.page_alloc cimport alloc_page
from rmap.mm.page_cache cimport add_to_page_cache_locked, delete_from_page_cache
from rmap.mm.page_dirty cimport set_page_dirty
from rmap.mm.pgtable cimport pfn_pte, pmd_offset, pmd_trans_huge, pte_alloc, pte_lock
from rmap.mm.pgtable cimport pte_mkdirty, pte_mkwrite, pte_none, pte_unlock, ptep_get, set_pte_at
from rmap.mm.rmap_counts cimport page_add_file_rmap, page_add_new_anon_rmap
from rmap.mm.uffd cimport UserfaultfdCtx, userfaultfd_missing, wake_userfault
from rmap.mm.vma cimport find_vma, inc_mm_counter, linear_page_index, mm_counter_file
from rmap.mm.vma cimport vma_is_anonymous
from rmap.mm.vma_adjust cimport split_vma
from rmap.mm.vma_merge cimport vma_merge

cpdef flag vma_can_userfault(Vma vma) except? -1
cdef i32 validate_range(u64 start, u64 length) except? -1
cpdef i32 userfaultfd_register(
    Kernel k, Mm mm, u64 start, u64 length, UserfaultfdCtx ctx
) except? -1
cdef i32 check_register(Vma vma, u64 end, UserfaultfdCtx ctx) except? -1
cdef i32 set_userfaultfd(
    Kernel k, Mm mm, Vma vma, u64 start, u64 end, UserfaultfdCtx ctx
) except? -1
cdef i32 _isolate_range(Kernel k, Mm mm, Vma vma, u64 start, u64 end) except? -1
cpdef i32 userfaultfd_unregister(Kernel k, Mm mm, u64 start, u64 length) except? -1
cpdef i32 userfaultfd_release(Kernel k, UserfaultfdCtx ctx) except -1
cpdef i64 mcopy_atomic(Kernel k, Mm mm, u64 start, bytes data) except? -1
cpdef i64 mfill_zeropage(Kernel k, Mm mm, u64 start, u64 length=*) except? -1
cdef i64 _mfill_atomic(Kernel k, Mm mm, u64 start, u64 pages, bytes data) except? -1
cdef i32 _check_fill(Kernel k, Vma vma, u64 start, u64 end) except? -1
cdef flag _fills_anonymous(Kernel k, Vma vma) except? -1
cdef i32 mfill_atomic_pte(Kernel k, Vma vma, u64 address, bytes data) except? -1
cdef u64 _provided_pte(Vma vma, u64 page) except? 0
cdef i32 _check_pte(Kernel k, Vma vma, u64 address, u64 ptep) except? -1
cdef i32 mcopy_atomic_pte(Kernel k, Vma vma, u64 address, bytes data) except? -1
cdef i32 mfill_zeropage_pte(Kernel k, Vma vma, u64 address) except? -1
cdef i32 shmem_mfill_atomic_pte(Kernel k, Vma vma, u64 address, bytes data) except? -1
cdef i32 _map_shmem_page(Kernel k, Vma vma, u64 address, u64 page) except? -1

# SPDX-License-Identifier: GPL-2.0-only
from rmap.scalar cimport flag

cdef class KernelProfile:
    cdef public str name
    cdef public object reuse_rule
    # The quirks, in the order of QUIRKS.
    cdef public flag separate_reuse_counters
    cdef public flag clone_reuses_only_for_fork
    cdef public flag unlink_clears_anon_vma
    cdef public flag dup_clears_neighbours
    cdef public flag wipeonfork_prepares_nothing
    cdef public flag warn_path_restores_pte
    cdef public flag arch_unmap_failure_frees_swap
    cdef public flag lazyfree_checks_references
    cdef public flag device_private_subpage
    cdef public flag thp_migration_munlocks
    cdef public flag clear_young_keeps_tlb
    cdef public flag mremap_flushes_under_lock
    cdef public flag rmap_locks_in_mremap
    cdef public flag mmap_fill_asks_next_first
    cdef public flag mprotect_writes_exclusive
    cdef public flag mprotect_writes_clean
    cdef public flag mprotect_drops_account
    cdef public flag mremap_dontunmap
    cdef public flag dontunmap_unlinks_anon_vma
    cdef public flag dontunmap_splits_source
    cdef public flag mremap_expand_merges
    cdef public flag mremap_looks_at_source_first
    cdef public flag mremap_drops_userfaultfd
    cdef public flag uffd_copies_private_shmem
    cdef public flag uffd_dirties_shmem
    cdef public flag uffd_checks_file_size
    cdef public flag zap_drops_swapped_copies
    cdef public flag shmem_pmd_counts_shmem
    cdef public flag collapse_shmem_repairs
    cdef public flag cold_spares_shared
    cdef public flag page_mapped_recheck
    cdef public flag free_handshake
    cdef public flag flush_batched_pending
    cdef public flag mlock_counts
    cdef public flag swap_device_pinned
    cdef public flag new_anon_inactive
    cdef public flag fork_copies_pinned
    cdef public flag anon_exclusive

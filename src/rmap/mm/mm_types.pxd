# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u8, u16, u32, u64
from rmap.sync.core cimport Context
from rmap.sync.locks cimport RwSem, SpinLock
from rmap.mm.profile cimport KernelProfile

cdef class IntervalNode:
    cdef public Vma vma
    cdef public IntervalNode rb_left, rb_right, rb_parent
    cdef public flag rb_red
    cdef public flag rb_linked
    cdef public u64 rb_subtree_last
    cdef public u64 cached_start, cached_last

cdef class IntervalRoot:
    cdef public IntervalNode rb_node, rb_leftmost

cdef class AnonVma:
    cdef public u64 handle
    cdef public AnonVma root
    cdef public AnonVma parent
    cdef public RwSem rwsem
    cdef public i32 refcount
    cdef public i32 degree
    cdef public i32 num_children
    cdef public i32 num_active_vmas
    cdef public IntervalRoot rb_root
    cdef public u64 incarnation

cdef class AnonVmaChain(IntervalNode):
    cdef public AnonVma anon_vma

cdef class AddressSpace:
    cdef public u64 handle
    cdef public str name
    cdef public File host
    cdef public dict i_pages
    cdef public SpinLock i_pages_lock
    cdef public IntervalRoot i_mmap
    cdef public RwSem i_mmap_rwsem
    cdef public RwSem i_rwsem
    cdef public i32 i_mmap_writable
    cdef public i64 nrpages
    cdef public flag shmem
    cdef public Hstate hstate
    cdef public ResvMap resv_map
    cdef public flag unevictable
    cdef public flag writenotify, writes_to_migrate
    cdef public u64 size_pages
    cdef public i32 huge
    cdef public flag shrinkable
    cdef public dict backing
    cdef public i32 wb_err

cdef class Hstate:
    cdef public str name
    cdef public i32 order
    cdef public i64 max_huge_pages
    cdef public i64 nr_huge_pages
    cdef public i64 free_huge_pages
    cdef public i64 resv_huge_pages
    cdef public i64 surplus_huge_pages
    cdef public i64 nr_overcommit_huge_pages
    cdef public i64 broken_promises
    cdef public list hugepage_freelist
    cdef public dict hugepage_activelist

cdef class ResvMap:
    cdef public i32 refs
    cdef public SpinLock lock
    cdef public list regions
    cdef public i64 adds_in_progress
    cdef public i64 region_cache_count

cdef class File:
    cdef public str name
    cdef public u64 inode
    cdef public AddressSpace f_mapping
    cdef public i32 f_count
    cdef public flag anonymous

cdef class Vma:
    cdef public u64 ident
    cdef public Mm vm_mm
    cdef public u64 vm_start, vm_end, vm_pgoff, vm_flags, vm_page_prot
    cdef public Vma vm_next, vm_prev
    cdef public File vm_file
    cdef public AnonVma anon_vma
    cdef public list anon_vma_chain
    cdef public IntervalNode shared
    cdef public object vm_userfaultfd_ctx
    cdef public ResvMap resv_map
    cdef public u64 resv_flags
    cdef public str name

cdef class Mm:
    # What a walk looks at of every mm it comes to: one cache line.
    cdef public u64 pgd
    cdef public u64 pmd_tag, pmd_table
    cdef public u64 cpu_bitmap
    cdef public u64 tlb_gen
    cdef public object notifier
    cdef public u64 ident
    cdef public Kernel kernel
    cdef public Vma mmap
    cdef public list vmas
    cdef public i32 map_count
    cdef public RwSem mmap_sem
    cdef public SpinLock page_table_lock
    cdef public i64[::1] rss_stat
    cdef public i64 hiwater_rss
    cdef public i64 hugetlb_usage
    cdef public i64 locked_vm
    cdef public i64 total_vm
    cdef public i32 mm_users
    cdef public i32 mm_count
    cdef public u64 flags
    cdef public flag on_mmlist
    cdef public flag tlb_flush_batched
    cdef public i32 tlb_flush_pending
    cdef public u64 start_brk, brk
    cdef public u64 def_flags
    cdef public MemCgroup memcg
    cdef public str comm
    cdef public i64 nr_ptes
    cdef public flag vm_hugepage
    cdef public flag has_huge_zero_page
    cdef public flag dead

cdef class MemCgroup:
    cdef public i32 ident
    cdef public str name
    cdef public MemCgroup parent
    cdef public i64 usage, limit
    cdef public LruVec lruvec
    cdef public i64[::1] stat
    cdef public i32 moving_account
    cdef public SpinLock move_lock
    cdef public Context move_lock_task

cdef class LruVec:
    cdef public MemCgroup memcg
    cdef public u32[::1] head
    cdef public u32[::1] tail
    cdef public i64[::1] size
    cdef public i64[::1] recent_scanned
    cdef public i64[::1] recent_rotated

cdef class TlbBatch:
    cdef public u64 cpumask
    cdef public flag flush_required
    cdef public flag writable

cdef class Task(Context):
    cdef public i32 pid
    cdef public Mm mm
    cdef public TlbBatch tlb_ubc
    cdef public flag mce_process
    cdef public flag mce_early

cdef class SwapInfo:
    cdef public i32 type
    cdef public i64 pages
    cdef public u8[::1] swap_map
    cdef public u32[::1] cache
    cdef public dict slots
    cdef public i64 inuse
    cdef public i64 lowest
    cdef public flag writeok
    cdef public flag stable_writes
    cdef public flag synchronous
    cdef public AddressSpace address_space
    cdef public SpinLock lock
    cdef public dict continuation
    cdef public dict continuation_pages
    cdef public u16[::1] swap_cgroup
    cdef public i32 prio
    cdef public i64 turn
    cdef public flag deferred
    cdef public list pending
    cdef public i32 users
    cdef public flag dying

cdef class Khugepaged:
    cdef public flag defrag
    cdef public i64 pages_to_scan
    cdef public i32 max_ptes_none, max_ptes_swap
    cdef public i64 pages_collapsed
    cdef public i64 full_scans
    cdef public list mm_head
    cdef public Mm scan_mm
    cdef public u64 scan_address
    cdef public SpinLock mm_lock

cdef class Reclaimer:
    cpdef i64 try_to_free_pages(self, Kernel k, MemCgroup memcg, i64 wanted) except? -1
    cpdef flag compact(self, Kernel k, i32 order, flag wait) except? -1

cdef class DevicePagemap:
    cdef public u64 start, end
    cpdef i32 page_free(self, Kernel k, u64 page) except -1
    cpdef i32 fault(self, Kernel k, Vma vma, u64 address, u64 page) except -1

cdef class Kernel:
    cdef public KernelProfile profile
    cdef public object reuse_rule
    cdef public u64 nr_pages
    cdef public u32[::1] pg_flags
    cdef public u32[::1] pg_mapping
    cdef public u64[::1] pg_index
    cdef public i32[::1] pg_mapcount
    cdef public i32[::1] pg_refcount
    cdef public u32[::1] pg_private
    cdef public u32[::1] pg_lru_next
    cdef public u32[::1] pg_lru_prev
    cdef public u16[::1] pg_memcg
    cdef public u64[::1] pt
    cdef public u8[::1] pt_locked
    cdef public i64[::1] vm_stat
    cdef public list pt_free
    cdef public u64 pt_next
    cdef public u64 free_head
    cdef public u64 free_next
    cdef public u64 free_last
    cdef public u16[::1] block_free
    cdef public list free_blocks
    cdef public list device_pagemaps
    cdef public u64 compact_migrate_pfn
    cdef public u64 compact_free_pfn
    cdef public i32 compact_considered
    cdef public i32 compact_defer_shift
    cdef public i32 compact_order_failed
    cdef public i64 nr_free
    cdef public i64 watermark_high
    cdef public i64 watermark_low
    cdef public i64 watermark_min
    cdef public flag kswapd_woken
    cdef public i64 swappiness
    cdef public u64 zero_page
    cdef public u64 fault_around
    cdef public dict content
    cdef public list anon_vmas
    cdef public list anon_vma_free
    cdef public list mappings
    cdef public list files
    cdef public list mms
    cdef public list memcgs
    cdef public LruVec root_lruvec
    cdef public list swap_areas
    cdef public list tasks
    cdef public list mmlist
    cdef public SpinLock mmlist_lock
    cdef public SpinLock swap_lock
    cdef public SpinLock lru_lock
    cdef public SpinLock private_lock
    cdef public RwSem tasklist_lock
    cdef public list tlbs
    cdef public list warnings
    cdef public object inject
    cdef public object tracer
    cdef public object notifier_log
    cdef public Reclaimer reclaimer
    cdef public list shrinkers
    cdef public flag debug_vm
    cdef public flag in_reclaim
    cdef public u64 serial
    # Of rmap.mm.ksm.stable, which is above this module.
    cdef public object ksm
    cdef public i32 thp_enabled
    cdef public i32 thp_defrag
    cdef public flag thp_use_zero_page
    cdef public i32 shmem_enabled
    cdef public u64 huge_zero_page
    cdef public i64 huge_zero_refcount
    cdef public dict pmd_huge_pte
    cdef public dict deferred_split_queue
    cdef public i64 anon_mapped_twice
    cdef public set lost_pages
    cdef public SpinLock split_queue_lock
    cdef public Khugepaged khugepaged
    cdef public list hstates
    cdef public SpinLock hugetlb_lock
    cdef public list hugetlb_fault_mutexes
    cdef public dict pmd_sharers
    cdef public flag pmd_table_was_shared
    cdef public flag early_kill
    cdef public i64 num_poisoned_pages
    cdef public dict poisoned
    cdef public list mf_actions
    cdef public list kills
    cdef public list shmem_shrinklist
    cpdef grow_tables(self)
    cpdef add_device_memory(self, DevicePagemap pagemap, u64 flags)
    cpdef u64 next_serial(self)

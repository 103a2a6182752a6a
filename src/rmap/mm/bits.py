# SPDX-License-Identifier: GPL-2.0-only
"""Every constant of the model: sizes, page flags, PTE bits, VM flags, and the flags of calls.

This module is plain Python and never compiled. The compiled modules see the same constants as C
macros through ``bits.pxd``, which ``python tools/headers.py`` writes from this file and a test
compares with it. Values are those of x86-64 Linux v4.18 where a user can see them; the bit numbers
of page flags are our own, as they are the kernel's own from one configuration to the next.
"""

from __future__ import annotations

# Sizes (arch/x86/include/asm/page_types.h, pgtable_64_types.h).
PAGE_SHIFT = 12
PAGE_SIZE = 1 << 12
PAGE_MASK = 0xFFFF_FFFF_FFFF_F000
PTRS_PER_PTE = 512
PMD_SHIFT = 21
PMD_SIZE = 1 << 21
PMD_MASK = 0xFFFF_FFFF_FFE0_0000
PUD_SHIFT = 30
PUD_SIZE = 1 << 30
PUD_MASK = 0xFFFF_FFFF_C000_0000
PGDIR_SHIFT = 39
HPAGE_PMD_ORDER = 9
HPAGE_PMD_NR = 512
HPAGE_PMD_SIZE = 1 << 21
HPAGE_PUD_ORDER = 18
TASK_SIZE = 0x7FFF_FFFF_F000
ULONG_MAX = 0xFFFF_FFFF_FFFF_FFFF
# What page_address_in_vma() returns for nowhere: -EFAULT as an unsigned long.
PAGE_NOT_IN_VMA = 0xFFFF_FFFF_FFFF_FFF2

# struct page flags (include/linux/page-flags.h); PG_tail, PG_huge and PG_isolated stand for what
# the kernel tells by other means: compound_head, the destructor, and having left the LRU.
PG_locked = 1 << 0
PG_referenced = 1 << 1
PG_uptodate = 1 << 2
PG_dirty = 1 << 3
PG_lru = 1 << 4
PG_active = 1 << 5
PG_unevictable = 1 << 6
PG_writeback = 1 << 7
PG_reclaim = 1 << 8
PG_swapbacked = 1 << 9
PG_swapcache = 1 << 10
PG_mlocked = 1 << 11
PG_hwpoison = 1 << 12
PG_young = 1 << 13
PG_idle = 1 << 14
PG_head = 1 << 15
PG_tail = 1 << 16
PG_huge = 1 << 17
PG_double_map = 1 << 18
PG_buddy = 1 << 19
PG_reserved = 1 << 20
PG_slab = 1 << 21
PG_zone_device = 1 << 22
PG_device_private = 1 << 23
PG_anon_exclusive = 1 << 24
PG_isolated = 1 << 25
PG_table = 1 << 26
PG_error = 1 << 27
PG_workingset = 1 << 28
# Of a hugetlb page: of its head, that freeing it gives a reservation back; of its second page, that
# it is in use; of its third, that it is not of the pool.
PG_private = 1 << 29
# What free_pages_prepare() finds wrong on a page that is freed.
PAGE_FLAGS_CHECK_AT_FREE = (
    PG_locked | PG_lru | PG_active | PG_unevictable | PG_writeback | PG_mlocked | PG_isolated
)
# What a part of a huge page has of its head after a split.
PAGE_FLAGS_CLONED_AT_SPLIT = (
    PG_referenced
    | PG_swapbacked
    | PG_swapcache
    | PG_mlocked
    | PG_uptodate
    | PG_active
    | PG_locked
    | PG_unevictable
    | PG_dirty
)

# Low bits of page->mapping. A mapping is a handle shifted left by two, and one of these tags.
PAGE_MAPPING_ANON = 0x1
PAGE_MAPPING_MOVABLE = 0x2
PAGE_MAPPING_KSM = 0x3
PAGE_MAPPING_FLAGS = 0x3
MAPPING_HANDLE_SHIFT = 2

# Hardware and software bits of a page-table entry (arch/x86/include/asm/pgtable_types.h).
_PAGE_PRESENT = 1 << 0
_PAGE_RW = 1 << 1
_PAGE_USER = 1 << 2
_PAGE_ACCESSED = 1 << 5
_PAGE_DIRTY = 1 << 6
_PAGE_PSE = 1 << 7
_PAGE_PROTNONE = 1 << 8
_PAGE_SPECIAL = 1 << 9
_PAGE_SOFT_DIRTY = 1 << 11
_PAGE_DEVMAP = 1 << 58
_PAGE_NX = 1 << 63
# On no x86: pte_unused(), which only s390 has. A test or a scenario sets it by hand.
_PAGE_UNUSED = 1 << 52
_PAGE_SWP_SOFT_DIRTY = 1 << 1
# Of a swap entry since 5.19: the page was exclusive to this process.
_PAGE_SWP_EXCLUSIVE = 1 << 3
PTE_PFN_MASK = 0x000F_FFFF_FFFF_F000
# pte_none() forgives these two: an erratum lets processors set them in an empty entry.
PTE_NONE_IGNORES = _PAGE_ACCESSED | _PAGE_DIRTY
SWP_PTE_TYPE_SHIFT = 9
SWP_PTE_TYPE_MASK = 0x1F
SWP_PTE_OFFSET_SHIFT = 14

# swp_entry_t (include/linux/swapops.h): type in the top bits, offset below.
SWP_TYPE_SHIFT = 57
SWP_OFFSET_MASK = (1 << 57) - 1
# Bits of pg_private that hold the type of a swap entry; the offset stands above it.
PRIVATE_TYPE_BITS = 5
MAX_SWAPFILES = 27
# The handle of a swap area's address_space is this and its type: none of `Kernel.mappings`.
SWAPPER_SPACE = 1 << 32
SWP_HWPOISON = 27
SWP_MIGRATION_READ = 28
SWP_MIGRATION_WRITE = 29
SWP_DEVICE_WRITE = 30
SWP_DEVICE_READ = 31
# Bytes of swap_map (include/linux/swap.h).
SWAP_MAP_MAX = 0x3E
SWAP_MAP_BAD = 0x3F
SWAP_HAS_CACHE = 0x40
COUNT_CONTINUED = 0x80
SWAP_MAP_SHMEM = 0xBF
SWAP_CONT_MAX = 0x7F

# vm_flags (include/linux/mm.h).
VM_READ = 0x1
VM_WRITE = 0x2
VM_EXEC = 0x4
VM_SHARED = 0x8
VM_MAYREAD = 0x10
VM_MAYWRITE = 0x20
VM_MAYEXEC = 0x40
VM_MAYSHARE = 0x80
VM_GROWSDOWN = 0x100
VM_UFFD_MISSING = 0x200
VM_PFNMAP = 0x400
VM_UFFD_WP = 0x1000
VM_LOCKED = 0x2000
VM_IO = 0x4000
VM_SEQ_READ = 0x8000
VM_RAND_READ = 0x1_0000
VM_DONTCOPY = 0x2_0000
VM_DONTEXPAND = 0x4_0000
VM_LOCKONFAULT = 0x8_0000
VM_ACCOUNT = 0x10_0000
VM_NORESERVE = 0x20_0000
VM_HUGETLB = 0x40_0000
VM_WIPEONFORK = 0x200_0000
VM_DONTDUMP = 0x400_0000
VM_SOFTDIRTY = 0x800_0000
VM_MIXEDMAP = 0x1000_0000
VM_HUGEPAGE = 0x2000_0000
VM_NOHUGEPAGE = 0x4000_0000
VM_MERGEABLE = 0x8000_0000
VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC
VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP
VM_STACK_INCOMPLETE_SETUP = VM_RAND_READ | VM_SEQ_READ
VM_LOCKED_MASK = VM_LOCKED | VM_LOCKONFAULT
VM_DATA_DEFAULT_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
VM_STACK_FLAGS = VM_GROWSDOWN | VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC

# System calls (include/uapi/asm-generic/mman-common.h).
PROT_NONE = 0x0
PROT_READ = 0x1
PROT_WRITE = 0x2
PROT_EXEC = 0x4
MAP_SHARED = 0x1
MAP_PRIVATE = 0x2
MAP_TYPE = 0xF
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x100
MAP_LOCKED = 0x2000
MAP_NORESERVE = 0x4000
MAP_POPULATE = 0x8000
MAP_NONBLOCK = 0x1_0000
MAP_HUGETLB = 0x4_0000
# log2 of the page size of MAP_HUGETLB stands from this bit on; 0 is the default size, 2 MiB.
MAP_HUGE_SHIFT = 26
MAP_HUGE_MASK = 0x3F
MAP_HUGE_2MB = 21 << 26
MAP_HUGE_1GB = 30 << 26
MAP_FIXED_NOREPLACE = 0x10_0000
MREMAP_MAYMOVE = 1
MREMAP_FIXED = 2
MREMAP_DONTUNMAP = 4
MADV_NORMAL = 0
MADV_RANDOM = 1
MADV_SEQUENTIAL = 2
MADV_WILLNEED = 3
MADV_DONTNEED = 4
MADV_FREE = 8
MADV_DONTFORK = 10
MADV_DOFORK = 11
MADV_MERGEABLE = 12
MADV_UNMERGEABLE = 13
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_DONTDUMP = 16
MADV_DODUMP = 17
MADV_WIPEONFORK = 18
MADV_KEEPONFORK = 19
MADV_COLD = 20
MADV_PAGEOUT = 21
MADV_HWPOISON = 100
MADV_SOFT_OFFLINE = 101

# Layout and limits of an address space (mm/mmap.c, arch/x86/mm/mmap.c): the stack's limit and the
# gap kept below it, where mappings start from, downwards; nothing is randomised.
RLIMIT_STACK = 8 << 20
STACK_GUARD_GAP = 256 << 12
MMAP_BASE = TASK_SIZE - (128 << 20)
MMAP_MIN_ADDR = 1 << 16
MAX_MAP_COUNT = 65530
PAGEVEC_SIZE = 15

# Page faults (include/linux/mm.h).
FAULT_FLAG_WRITE = 0x1
FAULT_FLAG_MKWRITE = 0x2
FAULT_FLAG_ALLOW_RETRY = 0x4
FAULT_FLAG_RETRY_NOWAIT = 0x8
FAULT_FLAG_TRIED = 0x20
FAULT_FLAG_USER = 0x40
FAULT_FLAG_REMOTE = 0x80
FAULT_FLAG_UNSHARE = 0x400
VM_FAULT_OOM = 0x1
VM_FAULT_SIGBUS = 0x2
VM_FAULT_MAJOR = 0x4
VM_FAULT_WRITE = 0x8
VM_FAULT_HWPOISON = 0x10
VM_FAULT_HWPOISON_LARGE = 0x20
VM_FAULT_SIGSEGV = 0x40
VM_FAULT_NOPAGE = 0x100
VM_FAULT_LOCKED = 0x200
VM_FAULT_RETRY = 0x400
VM_FAULT_FALLBACK = 0x800
VM_FAULT_DONE_COW = 0x1000
VM_FAULT_UFFD = 0x1_0000
VM_FAULT_ERROR = (
    VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE
)

# get_user_pages() (include/linux/mm.h).
FOLL_WRITE = 0x1
FOLL_TOUCH = 0x2
FOLL_GET = 0x4
FOLL_FORCE = 0x10
FOLL_NOWAIT = 0x20
FOLL_POPULATE = 0x40
FOLL_SPLIT = 0x80
FOLL_HWPOISON = 0x100
FOLL_MIGRATION = 0x400
FOLL_TRIED = 0x800
FOLL_MLOCK = 0x1000
FOLL_COW = 0x4000
FOLL_PIN = 0x4_0000
# What a pin adds to the references of a page since 5.7, so that fork can tell it from others.
GUP_PIN_COUNTING_BIAS = 1 << 10

# enum ttu_flags (include/linux/rmap.h), and what the other calls of rmap take.
TTU_MIGRATION = 0x1
TTU_MUNLOCK = 0x2
TTU_SPLIT_HUGE_PMD = 0x4
TTU_IGNORE_MLOCK = 0x8
TTU_IGNORE_ACCESS = 0x10
TTU_IGNORE_HWPOISON = 0x20
TTU_BATCH_FLUSH = 0x40
TTU_RMAP_LOCKED = 0x80
TTU_SPLIT_FREEZE = 0x100
RMAP_EXCLUSIVE = 0x1
RMAP_COMPOUND = 0x2
PVMW_SYNC = 0x1
PVMW_MIGRATION = 0x2

# gfp flags (include/linux/gfp.h), as far as the model asks for them.
GFP_KERNEL = 0x1
GFP_NOWAIT = 0x2
GFP_ATOMIC = 0x4
GFP_NOWARN = 0x8
GFP_IO = 0x10
GFP_HIGHUSER = 0x21
# For a transparent huge page: whatever it takes; after waking kswapd; only if one lies ready.
GFP_TRANSHUGE = 0x29
GFP_TRANSHUGE_KSWAPD = 0x2A
GFP_TRANSHUGE_LIGHT = 0x28

# change_protection() (include/linux/mm.h): make dirty entries of a mapping that is written to
# writable, and, since 6.0, whatever else needs no write fault.
MM_CP_DIRTY_ACCT = 0x1
MM_CP_TRY_CHANGE_WRITABLE = 0x2

# Transparent huge pages (mm/huge_memory.c, mm/shmem.c): where memory is huge, how much a fault does
# to find a huge page, and for which files of shmem (`Kernel.shmem_enabled`, and a mount's huge=).
THP_NEVER = 0
THP_MADVISE = 1
THP_ALWAYS = 2
THP_DEFRAG_NEVER = 0
THP_DEFRAG_MADVISE = 1
THP_DEFRAG_ALWAYS = 2
THP_DEFRAG_DEFER = 3
THP_DEFRAG_DEFER_MADVISE = 4
SHMEM_HUGE_NEVER = 0
SHMEM_HUGE_ALWAYS = 1
SHMEM_HUGE_WITHIN_SIZE = 2
SHMEM_HUGE_ADVISE = 3
SHMEM_HUGE_DENY = 4
SHMEM_HUGE_FORCE = 5

# What is written to /proc/PID/clear_refs (fs/proc/task_mmu.c).
CLEAR_REFS_ALL = 1
CLEAR_REFS_ANON = 2
CLEAR_REFS_MAPPED = 3
CLEAR_REFS_SOFT_DIRTY = 4

# Kernel samepage merging (mm/ksm.c): what ksmd does (/sys/kernel/mm/ksm/run), what the low bits of
# an rmap_item's address say, and the length of a list that says that a stable node is a chain.
KSM_RUN_STOP = 0
KSM_RUN_MERGE = 1
KSM_RUN_UNMERGE = 2
SEQNR_MASK = 0xFF
UNSTABLE_FLAG = 0x100
STABLE_FLAG = 0x200
KSM_FLAG_MASK = 0x3FF
STABLE_NODE_CHAIN = -1024
# mm->flags (include/linux/sched/coredump.h): the address space is one that ksmd goes over.
MMF_VM_MERGEABLE = 1 << 16

# Translation caches (arch/x86/include/asm/tlbflush.h): address spaces that one CPU keeps apart,
# pages up to which a range is flushed page by page, entries of a CPU unless told otherwise.
TLB_NR_DYN_ASIDS = 6
TLB_SINGLE_PAGE_FLUSH_CEILING = 33
TLB_ENTRIES = 1024

# Getting a page of shmem (include/linux/shmem_fs.h): holes stay, are filled, are filled to be
# written; are filled, but with no huge page, or with one if the mount leaves that to advice; and
# what writepage returns for a page that had better stay (include/linux/fs.h).
SGP_READ = 0
SGP_CACHE = 1
SGP_WRITE = 2
SGP_NOHUGE = 3
SGP_HUGE = 4
AOP_WRITEPAGE_ACTIVATE = 0x8_0000

# Memory failure (include/linux/mm.h, include/uapi/asm-generic/siginfo.h): how it is called, what
# became of the page, what kind of page that was, and the signals that it sends.
MF_COUNT_INCREASED = 1
MF_ACTION_REQUIRED = 2
MF_MUST_KILL = 4
MF_SOFT_OFFLINE = 8
MF_IGNORED = 0
MF_FAILED = 1
MF_DELAYED = 2
MF_RECOVERED = 3
MF_MSG_KERNEL = 0
MF_MSG_KERNEL_HIGH_ORDER = 1
MF_MSG_DIFFERENT_COMPOUND = 2
MF_MSG_HUGE = 3
MF_MSG_FREE_HUGE = 4
MF_MSG_NON_PMD_HUGE = 5
MF_MSG_UNMAP_FAILED = 6
MF_MSG_DIRTY_SWAPCACHE = 7
MF_MSG_CLEAN_SWAPCACHE = 8
MF_MSG_DIRTY_MLOCKED_LRU = 9
MF_MSG_CLEAN_MLOCKED_LRU = 10
MF_MSG_DIRTY_UNEVICTABLE_LRU = 11
MF_MSG_CLEAN_UNEVICTABLE_LRU = 12
MF_MSG_DIRTY_LRU = 13
MF_MSG_CLEAN_LRU = 14
MF_MSG_TRUNCATED_LRU = 15
MF_MSG_BUDDY = 16
MF_MSG_UNKNOWN = 17
SIGBUS = 7
SIGKILL = 9
BUS_MCEERR_AR = 4
BUS_MCEERR_AO = 5

# Pages that one mmu_gather keeps before it must flush: 8 in itself, 19 pages of 510 pointers.
MAX_GATHER_PAGES = 9698

# What a private mapping of huge pages is to its reservations (mm/hugetlb.c): the one that made
# them, and one that lost a page to it.
HPAGE_RESV_OWNER = 0x1
HPAGE_RESV_UNMAPPED = 0x2
HUGETLB_FAULT_MUTEXES = 8

# mm_struct counters (include/linux/mm_types_task.h).
MM_FILEPAGES = 0
MM_ANONPAGES = 1
MM_SWAPENTS = 2
MM_SHMEMPAGES = 3
NR_MM_COUNTERS = 4

# Node statistics and events (include/linux/mmzone.h, vm_event_item.h).
NR_FREE_PAGES = 0
NR_INACTIVE_ANON = 1
NR_ACTIVE_ANON = 2
NR_INACTIVE_FILE = 3
NR_ACTIVE_FILE = 4
NR_UNEVICTABLE = 5
NR_ISOLATED = 6
NR_ANON_MAPPED = 7
NR_FILE_MAPPED = 8
NR_FILE_PAGES = 9
NR_FILE_DIRTY = 10
NR_WRITEBACK = 11
NR_SHMEM = 12
NR_SHMEM_THPS = 13
NR_SHMEM_PMDMAPPED = 14
NR_ANON_THPS = 15
NR_MLOCK = 16
NR_PAGETABLE = 17
NR_SWAPCACHE = 18
PGFAULT = 19
PGMAJFAULT = 20
PGLAZYFREE = 21
PGLAZYFREED = 22
PSWPIN = 23
PSWPOUT = 24
PGSCAN = 25
PGSTEAL = 26
PGACTIVATE = 27
PGDEACTIVATE = 28
PGREUSE = 29
UNEVICTABLE_PGMLOCKED = 30
UNEVICTABLE_PGMUNLOCKED = 31
TLB_FLUSH_LOCAL = 32
TLB_FLUSH_REMOTE = 33
RMAP_WALKS = 34
RMAP_VMAS_VISITED = 35
RMAP_VMAS_MAPPED = 36
COW_COPIES = 37
PGALLOC = 38
PGFREE = 39
UNEVICTABLE_PGCULLED = 40
UNEVICTABLE_PGRESCUED = 41
UNEVICTABLE_PGCLEARED = 42
UNEVICTABLE_PGSTRANDED = 43
PGROTATED = 44
ALLOCSTALL = 45
KSWAPD_RUNS = 46
THP_FAULT_ALLOC = 47
THP_FAULT_FALLBACK = 48
THP_COLLAPSE_ALLOC = 49
THP_COLLAPSE_ALLOC_FAILED = 50
THP_FILE_ALLOC = 51
THP_FILE_MAPPED = 52
THP_SPLIT_PAGE = 53
THP_SPLIT_PAGE_FAILED = 54
THP_DEFERRED_SPLIT_PAGE = 55
THP_SPLIT_PMD = 56
THP_ZERO_PAGE_ALLOC = 57
THP_ZERO_PAGE_ALLOC_FAILED = 58
THP_SWPOUT = 59
THP_SWPOUT_FALLBACK = 60
PGMIGRATE_SUCCESS = 61
PGMIGRATE_FAIL = 62
COMPACTSTALL = 63
COMPACTFAIL = 64
COMPACTSUCCESS = 65
COMPACTMIGRATE_SCANNED = 66
COMPACTFREE_SCANNED = 67
COMPACTISOLATED = 68
NR_VM_STATS = 69

# LRU lists (include/linux/mmzone.h).
LRU_INACTIVE_ANON = 0
LRU_ACTIVE_ANON = 1
LRU_INACTIVE_FILE = 2
LRU_ACTIVE_FILE = 3
LRU_UNEVICTABLE = 4
NR_LRU_LISTS = 5
LRU_ACTIVE = 1
LRU_FILE = 2

# Free memory: a block of the size of a huge page that is free as a whole is on a list, which the
# count of its free pages tells; a run of more pages than the costly order is not tried for long.
FREE_BLOCK_LISTED = 0x8000
PAGE_ALLOC_COSTLY_ORDER = 3

# Migration: how much of waiting is allowed, and what for (include/linux/migrate_mode.h, migrate.h).
MIGRATE_ASYNC = 0
MIGRATE_SYNC_LIGHT = 1
MIGRATE_SYNC = 2
MIGRATE_SYNC_NO_COPY = 3
MR_COMPACTION = 0
MR_MEMORY_FAILURE = 1
MR_MEMORY_HOTPLUG = 2
MR_SYSCALL = 3
# What migrate_vma() notes of each page of its range (include/linux/migrate.h).
MIGRATE_PFN_MIGRATE = 0x2
MIGRATE_PFN_LOCKED = 0x4
MIGRATE_PFN_WRITE = 0x8
MIGRATE_PFN_DEVICE = 0x10
MIGRATE_PFN_SHIFT = 6
# Compaction (include/linux/compaction.h): what came of an attempt, how long after failures the
# next one may be put off, and how many pages it isolates at once.
COMPACT_SKIPPED = 1
COMPACT_DEFERRED = 2
COMPACT_CONTINUE = 4
COMPACT_COMPLETE = 5
COMPACT_PARTIAL_SKIPPED = 6
COMPACT_CONTENDED = 7
COMPACT_SUCCESS = 8
COMPACT_MAX_DEFER_SHIFT = 6
COMPACT_CLUSTER_MAX = 32

# Reclaim (include/linux/swap.h, mmzone.h; mm/vmscan.c).
SWAP_CLUSTER_MAX = 32
DEF_PRIORITY = 12
MAX_RECLAIM_RETRIES = 16
MEM_CGROUP_RECLAIM_RETRIES = 5
# What is to become of a page that reclaim looks at: free it, or put it back, unlocked already, to
# be unlocked, or active and to be unlocked.
SHRINK_FREE = 0
SHRINK_KEEP = 1
SHRINK_KEEP_LOCKED = 2
SHRINK_ACTIVATE = 3
PAGEREF_RECLAIM = 0
PAGEREF_RECLAIM_CLEAN = 1
PAGEREF_KEEP = 2
PAGEREF_ACTIVATE = 3
PAGE_KEEP = 0
PAGE_ACTIVATE = 1
PAGE_SUCCESS = 2
PAGE_CLEAN = 3
SCAN_EQUAL = 0
SCAN_FRACT = 1
SCAN_ANON = 2
SCAN_FILE = 3

# Where a huge page is that is to be split: on the queue, or with a shrinker that works on it. What
# that shrinker returns if there is nothing to do, and how much one is asked for at a time.
SPLIT_QUEUED = 0
SPLIT_TAKEN = 1
SHRINK_STOP = -1
SHRINK_BATCH = 128
DEFAULT_SEEKS = 2

# What khugepaged finds where it looks, or tries to collapse (mm/khugepaged.c).
SCAN_FAIL = 0
SCAN_SUCCEED = 1
SCAN_PMD_NULL = 2
SCAN_EXCEED_NONE_PTE = 3
SCAN_PTE_NON_PRESENT = 4
SCAN_PAGE_RO = 5
SCAN_LACK_REFERENCED_PAGE = 6
SCAN_PAGE_NULL = 7
SCAN_PAGE_COUNT = 9
SCAN_PAGE_LRU = 10
SCAN_PAGE_LOCK = 11
SCAN_PAGE_ANON = 12
SCAN_PAGE_COMPOUND = 13
SCAN_ANY_PROCESS = 14
SCAN_VMA_NULL = 15
SCAN_VMA_CHECK = 16
SCAN_ADDRESS_RANGE = 17
SCAN_SWAP_CACHE_PAGE = 18
SCAN_DEL_PAGE_LRU = 19
SCAN_ALLOC_HUGE_PAGE_FAIL = 20
SCAN_CGROUP_CHARGE_FAIL = 21
SCAN_EXCEED_SWAP_PTE = 22
SCAN_TRUNCATED = 23

# errno values (include/uapi/asm-generic/errno-base.h).
EPERM = 1
ENOENT = 2
EINTR = 4
EIO = 5
ENXIO = 6
EAGAIN = 11
ENOMEM = 12
EACCES = 13
EFAULT = 14
EBUSY = 16
EEXIST = 17
EINVAL = 22
ENOSPC = 28
EMLINK = 31
ENOSYS = 38
EHWPOISON = 133
EOVERFLOW = 75

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""VMAs: where a page lies in one, their list, protections, who may merge, and rss counters.

include/linux/mm.h, mm/internal.h and the parts of mm/mmap.c (v4.18) that change no mapping: what
splits and merges VMAs stands in `rmap.mm.mmap`. The list of an mm changes under its mmap_sem held
for write; find_mergeable_anon_vma() reads its neighbours' anon_vma under mmap_sem held for read.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_ACCESSED,
        _PAGE_NX,
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_RW,
        _PAGE_USER,
        MM_ANONPAGES,
        MM_FILEPAGES,
        MM_SHMEMPAGES,
        PAGE_SHIFT,
        PAGE_SIZE,
        ULONG_MAX,
        VM_ACCESS_FLAGS,
        VM_EXEC,
        VM_GROWSDOWN,
        VM_HUGETLB,
        VM_MAYWRITE,
        VM_PFNMAP,
        VM_SHARED,
        VM_SOFTDIRTY,
        VM_STACK_INCOMPLETE_SETUP,
        VM_UFFD_MISSING,
        VM_UFFD_WP,
        VM_WRITE,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.mm_types import AnonVma, File, Kernel, MemCgroup, Mm, Vma
    from rmap.mm.page import PageAnon, PageSwapBacked, hpage_nr_pages, page_to_pgoff
    from rmap.scalar import flag, i32, i64, u64
    from rmap.sync.bits import FIELD_VMA_ANON_VMA, OP_READ, OP_WRITE
    from rmap.sync.core import sched, sched_point


# ---------------------------------------------------------------- addresses


def vma_pages(vma: Vma) -> u64:
    """Size of a VMA in pages."""
    return (vma.vm_end - vma.vm_start) >> PAGE_SHIFT


def linear_page_index(k: Kernel, vma: Vma, address: u64) -> u64:
    """Offset in pages of an address of the VMA, in its file or the anonymous index space.

    include/linux/pagemap.h:445 (v4.18). A hugetlb VMA counts in huge pages of its file's size.
    """
    order: i32
    if vma.vm_flags & VM_HUGETLB:
        order = vma.vm_file.f_mapping.hstate.order
        return ((address - vma.vm_start) >> (order + PAGE_SHIFT)) + (vma.vm_pgoff >> order)
    return ((address - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff


def vma_page_address(k: Kernel, page: u64, vma: Vma) -> u64:
    """Where the page would lie in the VMA if the VMA reached so far: __vma_address().

    mm/internal.h:327 (v4.18). Modulo 2**64, so a page in front of the VMA may come out behind it.
    """
    pgoff: u64 = page_to_pgoff(k, page)
    delta: u64
    if pgoff >= vma.vm_pgoff:
        delta = (pgoff - vma.vm_pgoff) << PAGE_SHIFT & ULONG_MAX
        return (vma.vm_start + delta) & ULONG_MAX
    delta = (vma.vm_pgoff - pgoff) << PAGE_SHIFT & ULONG_MAX
    if delta <= vma.vm_start:
        return vma.vm_start - delta
    return ULONG_MAX - (delta - vma.vm_start - 1)


def vma_address(k: Kernel, page: u64, vma: Vma) -> u64:
    """Address of a page that a walk found in the VMA: for a huge page, of its first page inside.

    mm/internal.h:335 (v4.18). Raises `KernelBug` if the page lies outside the VMA.
    """
    start: u64 = vma_page_address(k, page, vma)
    end: u64 = (start + PAGE_SIZE * (hpage_nr_pages(k, page) - 1)) & ULONG_MAX
    if k.debug_vm and (start >= vma.vm_end or end < vma.vm_start):
        # The last page of a huge one may lie inside while its first one is before the VMA.
        BUG_PAGE("internal.h:342 vma_address: the page is outside the VMA", page)
    return start if start > vma.vm_start else vma.vm_start


def vma_is_anonymous(vma: Vma) -> flag:
    """Whether the VMA has no file, neither a user's nor shared memory's."""
    return vma.vm_file is None


def is_cow_mapping(vm_flags: u64) -> flag:
    """Whether a write to the VMA's pages makes copies: private, and writable some day."""
    return vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE


def userfaultfd_armed(vma: Vma) -> flag:
    """Whether a userfaultfd waits for faults in the VMA."""
    return vma.vm_flags & (VM_UFFD_MISSING | VM_UFFD_WP) != 0


def is_vma_temporary_stack(vma: Vma) -> flag:
    """Whether exec is still setting this stack up, so that its pages may lie elsewhere.

    mm/rmap.c:1629 (v4.18).

    Locks: none; only exec sets the flags, in an mm that nobody else runs in.
    """
    if not vma.vm_flags & VM_GROWSDOWN:  # L1633
        return False
    if vma.vm_flags & VM_STACK_INCOMPLETE_SETUP == VM_STACK_INCOMPLETE_SETUP:  # L1636
        return True
    return False


def vma_anon_vma(vma: Vma) -> AnonVma:
    """READ_ONCE(vma->anon_vma): another thread's fault may set it."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_VMA_ANON_VMA, vma.ident)
    return vma.anon_vma


def set_vma_anon_vma(vma: Vma, anon_vma: AnonVma | None) -> i32:
    """Store vma->anon_vma."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_VMA_ANON_VMA, vma.ident)
    vma.anon_vma = anon_vma
    return 0


# ---------------------------------------------------------------- the list of an mm


def vma_slot(mm: Mm, address: u64) -> i64:
    """Position in ``mm.vmas`` of the first VMA that ends behind the address."""
    low: i64 = 0
    high: i64 = len(mm.vmas)
    middle: i64
    vma: Vma
    while low < high:
        middle = (low + high) >> 1
        vma = mm.vmas[middle]
        if vma.vm_end > address:
            high = middle
        else:
            low = middle + 1
    return low


def find_vma(k: Kernel, mm: Mm, address: u64) -> Vma:
    """First VMA that ends behind the address, ``None`` if there is none (mm/mmap.c:2186)."""
    slot: i64 = vma_slot(mm, address)
    if slot == len(mm.vmas):
        return None
    return mm.vmas[slot]


def find_vma_prev(k: Kernel, mm: Mm, address: u64) -> Vma:
    """The VMA before the one that `find_vma` returns; the last one if that is ``None``."""
    slot: i64 = vma_slot(mm, address)
    if slot == 0:
        return None
    return mm.vmas[slot - 1]


def find_vma_intersection(k: Kernel, mm: Mm, start: u64, end: u64) -> Vma:
    """First VMA that has a page in ``[start, end)``, ``None`` if there is none."""
    vma: Vma = find_vma(k, mm, start)
    if vma is not None and end <= vma.vm_start:
        return None
    return vma


def vma_link_list(k: Kernel, mm: Mm, vma: Vma) -> i32:
    """Put a VMA in its place by address, and count it. An overlap is a bug.

    mmap_sem is held for write.
    """
    mm.mmap_sem.assert_held_write()
    slot: i64 = vma_slot(mm, vma.vm_start)
    count: i64 = len(mm.vmas)
    prev: Vma = None if slot == 0 else mm.vmas[slot - 1]
    after: Vma = None if slot == count else mm.vmas[slot]
    if after is not None and after.vm_start < vma.vm_end:
        BUG("mmap.c:632 __vma_link: VMAs overlap")
    mm.vmas.insert(slot, vma)
    vma.vm_prev = prev
    vma.vm_next = after
    if prev is None:
        mm.mmap = vma
    else:
        prev.vm_next = vma
    if after is not None:
        after.vm_prev = vma
    mm.map_count += 1
    return 0


def vma_unlink_list(k: Kernel, mm: Mm, vma: Vma) -> i32:
    """Take a VMA out of the list, and count it no longer. One that is not there is a bug.

    mmap_sem is held for write. The VMA keeps its own vm_next and vm_prev, as in the kernel.
    """
    mm.mmap_sem.assert_held_write()
    slot: i64 = vma_slot(mm, vma.vm_start)
    if slot == len(mm.vmas) or mm.vmas[slot] is not vma:
        # A neighbour has grown over it: mostly the one before, which is found in its place.
        slot += 1
        if slot >= len(mm.vmas) or mm.vmas[slot] is not vma:
            slot = _slot_of(mm, vma)
    del mm.vmas[slot]
    if vma.vm_prev is None:
        mm.mmap = vma.vm_next
    else:
        vma.vm_prev.vm_next = vma.vm_next
    if vma.vm_next is not None:
        vma.vm_next.vm_prev = vma.vm_prev
    mm.map_count -= 1
    return 0


def _slot_of(mm: Mm, vma: Vma) -> i64:
    """Position of a VMA in the list by identity; not there is a bug."""
    i: i64
    for i in range(len(mm.vmas)):
        if mm.vmas[i] is vma:
            return i
    BUG("mmap.c:711 __vma_unlink: the VMA is not in the list of its mm")
    return 0


def vm_area_alloc(
    k: Kernel, mm: Mm, start: u64, end: u64, vm_flags: u64, vm_pgoff: u64
) -> Vma | None:
    """Make a VMA that is in no list yet, with the protection of its flags; ``None``: no memory."""
    if k.inject is not None and k.inject.should_fail("vma"):
        return None
    vma: Vma = Vma(mm, start, end, vm_flags, vm_pgoff)
    vma.ident = k.next_serial()
    vma.vm_page_prot = vm_get_page_prot(vm_flags)
    return vma


def vm_area_dup(k: Kernel, vma: Vma) -> Vma | None:
    """Copy a VMA, anon_vma included but with no chain, in no list or tree; ``None``: no memory.

    kernel/fork.c:319 (v4.18). The reference to the file is the caller's to take. In v4.18 the copy
    still points to the neighbours of the original.
    """
    if k.inject is not None and k.inject.should_fail("vma"):
        return None
    new: Vma = Vma(vma.vm_mm, vma.vm_start, vma.vm_end, vma.vm_flags, vma.vm_pgoff)
    new.ident = k.next_serial()
    new.vm_page_prot = vma.vm_page_prot
    new.vm_file = vma.vm_file
    new.anon_vma = vma.anon_vma
    if not k.profile.dup_clears_neighbours:
        new.vm_next = vma.vm_next
        new.vm_prev = vma.vm_prev
    new.vm_userfaultfd_ctx = vma.vm_userfaultfd_ctx
    new.resv_map = vma.resv_map
    new.resv_flags = vma.resv_flags
    new.name = vma.name
    return new


# ---------------------------------------------------------------- protections


def vm_get_page_prot(vm_flags: u64) -> u64:
    """Protection bits for entries of a VMA: private memory is never writable from the start.

    The table protection_map[] of mm/mmap.c:98 (v4.18) with x86's values, in which every entry
    starts out accessed.
    """
    prot: u64 = _PAGE_ACCESSED
    if not vm_flags & VM_ACCESS_FLAGS:
        return prot | _PAGE_PROTNONE
    prot |= _PAGE_PRESENT | _PAGE_USER
    if vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED:
        prot |= _PAGE_RW
    if not vm_flags & VM_EXEC:
        prot |= _PAGE_NX
    return prot


def vma_wants_writenotify(vma: Vma) -> flag:
    """Whether shared pages are mapped read-only first, so that the first write is noticed.

    mm/mmap.c:1620 (v4.18). Soft-dirty tracking, a configuration, asks for it as well.
    """
    if vma.vm_flags & (VM_WRITE | VM_SHARED) != VM_WRITE | VM_SHARED:
        return False
    if vma.vm_flags & VM_PFNMAP or vma.vm_file is None:
        return False
    return vma.vm_file.f_mapping.writenotify


def vma_set_page_prot(k: Kernel, vma: Vma) -> i32:
    """Set vm_page_prot by the VMA's flags and its file (mm/mmap.c:121, v4.18)."""
    vm_flags: u64 = vma.vm_flags
    if vma_wants_writenotify(vma):
        vm_flags &= ~VM_SHARED
    vma.vm_page_prot = vm_get_page_prot(vm_flags)
    return 0


# ---------------------------------------------------------------- who may merge


def is_mergeable_vma(k: Kernel, vma: Vma, vm_flags: u64, vm_file: File | None, ctx: object) -> flag:
    """Whether flags, file and userfaultfd agree with the VMA's; soft-dirty does not matter.

    mm/mmap.c:946 (v4.18).
    """
    if (vma.vm_flags ^ vm_flags) & ~VM_SOFTDIRTY:
        return False
    return vma.vm_file is vm_file and vma.vm_userfaultfd_ctx is ctx


def is_mergeable_anon_vma(
    anon_vma1: AnonVma | None, anon_vma2: AnonVma | None, vma: Vma | None
) -> flag:
    """Whether two anon_vmas may become one VMA's (mm/mmap.c:973, v4.18).

    One of them may be missing; but a VMA that was ever forked is left out, lest merging tie
    processes closer together. A VMA that never faulted has an empty chain, which is not one of
    length one: so it merges with a faulted neighbour only where `vma` is ``None``.
    """
    if (anon_vma1 is None or anon_vma2 is None) and (vma is None or len(vma.anon_vma_chain) == 1):
        return True
    return anon_vma1 is anon_vma2


def can_vma_merge_before(
    k: Kernel,
    vma: Vma,
    vm_flags: u64,
    anon_vma: AnonVma | None,
    vm_file: File | None,
    vm_pgoff: u64,
    ctx: object,
) -> flag:
    """Whether a range that ends at `vm_pgoff` may be put in front of the VMA (mm/mmap.c:999)."""
    if not is_mergeable_vma(k, vma, vm_flags, vm_file, ctx):
        return False
    if not is_mergeable_anon_vma(anon_vma, vma.anon_vma, vma):
        return False
    return vma.vm_pgoff == vm_pgoff


def can_vma_merge_after(
    k: Kernel,
    vma: Vma,
    vm_flags: u64,
    anon_vma: AnonVma | None,
    vm_file: File | None,
    vm_pgoff: u64,
    ctx: object,
) -> flag:
    """Whether a range that starts at `vm_pgoff` may be put behind the VMA (mm/mmap.c:1020)."""
    if not is_mergeable_vma(k, vma, vm_flags, vm_file, ctx):
        return False
    if not is_mergeable_anon_vma(anon_vma, vma.anon_vma, vma):
        return False
    return vma.vm_pgoff + vma_pages(vma) == vm_pgoff


def anon_vma_compatible(k: Kernel, a: Vma, b: Vma) -> flag:
    """Whether `b` follows `a` so that mprotect could make them one (mm/mmap.c:1215, v4.18)."""
    ignored: u64 = VM_ACCESS_FLAGS | VM_SOFTDIRTY
    if a.vm_end != b.vm_start or a.vm_file is not b.vm_file:
        return False
    if (a.vm_flags ^ b.vm_flags) & ~ignored:
        return False
    return b.vm_pgoff == a.vm_pgoff + ((b.vm_start - a.vm_start) >> PAGE_SHIFT)


def reusable_anon_vma(k: Kernel, old: Vma, a: Vma, b: Vma) -> AnonVma:
    """The anon_vma of `old`, one of `a` and `b`, if both may share it (mm/mmap.c:1245, v4.18).

    Only one that was never forked: the others of its tree would be missing from the sharer's
    chain. Another thread may be setting it up this moment, which is fine: it is a singleton then.
    """
    if anon_vma_compatible(k, a, b):
        anon_vma: AnonVma = vma_anon_vma(old)
        if anon_vma is not None and len(old.anon_vma_chain) == 1:
            return anon_vma
    return None


def find_mergeable_anon_vma(k: Kernel, vma: Vma) -> AnonVma:
    """The anon_vma of a neighbour that the VMA may share; ``None`` if there is none.

    mm/mmap.c:1265 (v4.18). Without it, VMAs that mprotect split before the first fault could never
    be merged again.
    """
    near: Vma = vma.vm_next
    anon_vma: AnonVma
    if near is not None:
        anon_vma = reusable_anon_vma(k, near, vma, near)
        if anon_vma is not None:
            return anon_vma
    near = vma.vm_prev
    if near is not None:
        return reusable_anon_vma(k, near, near, vma)
    return None


# ---------------------------------------------------------------- counters of an mm


def get_mm_counter(k: Kernel, mm: Mm, member: i32) -> i64:
    """One of the counters ``MM_`` of an mm, in pages."""
    return mm.rss_stat[member]


def add_mm_counter(k: Kernel, mm: Mm, member: i32, value: i64) -> i32:
    """Add to a counter of an mm; no per-task counts, so it is never out of date."""
    mm.rss_stat[member] += value
    return 0


def inc_mm_counter(k: Kernel, mm: Mm, member: i32) -> i32:
    """Count one page more."""
    mm.rss_stat[member] += 1
    return 0


def dec_mm_counter(k: Kernel, mm: Mm, member: i32) -> i32:
    """Count one page less."""
    mm.rss_stat[member] -= 1
    return 0


def mm_counter_file(k: Kernel, page: u64) -> i32:
    """Which counter a page of a file counts under: shmem's if it is swap-backed."""
    return MM_SHMEMPAGES if PageSwapBacked(k, page) else MM_FILEPAGES


def mm_counter_huge_file(k: Kernel, page: u64) -> i32:
    """The same for a PMD that maps a huge page: v4.18 takes all of them for pages of disk files.

    The sums of an mm stay right, but what a PMD has put into one counter PTEs may take out of the
    other.
    """
    if k.profile.shmem_pmd_counts_shmem:
        return mm_counter_file(k, page)
    return MM_FILEPAGES


def mm_counter(k: Kernel, page: u64) -> i32:
    """Which counter of an mm the page counts under (include/linux/mm.h:1610, v4.18)."""
    return MM_ANONPAGES if PageAnon(k, page) else mm_counter_file(k, page)


def get_mm_rss(k: Kernel, mm: Mm) -> i64:
    """Resident pages: of files, anonymous, shmem."""
    return mm.rss_stat[MM_FILEPAGES] + mm.rss_stat[MM_ANONPAGES] + mm.rss_stat[MM_SHMEMPAGES]


def update_hiwater_rss(k: Kernel, mm: Mm) -> i32:
    """Note the resident pages if there were never more; called before they become fewer."""
    rss: i64 = get_mm_rss(k, mm)
    if mm.hiwater_rss < rss:
        mm.hiwater_rss = rss
    return 0


def mm_match_cgroup(mm: Mm, memcg: MemCgroup) -> flag:
    """Whether the mm's memcg is `memcg` or below it."""
    at: MemCgroup = mm.memcg
    while at is not None:
        if at is memcg:
            return True
        at = at.parent
    return False

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Faulting pages in without an access: get_user_pages() and populating (mm/gup.c, v4.18).

Locks: mm->mmap_sem for read. `get_user_pages` and `mm_populate` take it; `populate_vma_page_range`
needs it held (for write will do), and `find_get_user_pages` says below what becomes of it. Inside
it is what a fault takes, and the page-table lock for looking at an entry.

A page that is got has a reference and no mapping count: it is not freed while it is held, but may
be unmapped, swapped out, or given to somebody else by COW, as in v4.18.
"""

from __future__ import annotations

import cython

from rmap.mm.uffd import UserfaultPending

if not cython.compiled:
    from rmap.mm.bits import (
        _PAGE_PRESENT,
        _PAGE_PROTNONE,
        _PAGE_PSE,
        EBUSY,
        EEXIST,
        EFAULT,
        EHWPOISON,
        EMLINK,
        ENOENT,
        ENOMEM,
        FAULT_FLAG_ALLOW_RETRY,
        FAULT_FLAG_RETRY_NOWAIT,
        FAULT_FLAG_TRIED,
        FAULT_FLAG_UNSHARE,
        FAULT_FLAG_WRITE,
        FOLL_COW,
        FOLL_FORCE,
        FOLL_GET,
        FOLL_HWPOISON,
        FOLL_MIGRATION,
        FOLL_MLOCK,
        FOLL_NOWAIT,
        FOLL_PIN,
        FOLL_POPULATE,
        FOLL_SPLIT,
        FOLL_TOUCH,
        FOLL_TRIED,
        FOLL_WRITE,
        GUP_PIN_COUNTING_BIAS,
        HPAGE_PMD_NR,
        PAGE_MASK,
        PAGE_SHIFT,
        PAGE_SIZE,
        PMD_MASK,
        VM_ACCESS_FLAGS,
        VM_FAULT_ERROR,
        VM_FAULT_HWPOISON,
        VM_FAULT_HWPOISON_LARGE,
        VM_FAULT_OOM,
        VM_FAULT_RETRY,
        VM_FAULT_UFFD,
        VM_FAULT_WRITE,
        VM_HUGETLB,
        VM_IO,
        VM_LOCKED,
        VM_LOCKONFAULT,
        VM_MAYREAD,
        VM_PFNMAP,
        VM_READ,
        VM_SHARED,
        VM_WRITE,
        PG_anon_exclusive,
    )
    from rmap.mm.bug import BUG, BUG_PAGE
    from rmap.mm.fault import handle_mm_fault
    from rmap.mm.huge.pgtable import is_huge_zero_page, pmd_protnone
    from rmap.mm.huge.split_page import split_huge_page
    from rmap.mm.huge.split_pmd import split_huge_pmd
    from rmap.mm.hugetlb.gup import follow_hugetlb_page
    from rmap.mm.lru import mark_page_accessed, put_page
    from rmap.mm.memory import is_zero_pfn, ptep_set_access_flags, vm_normal_page
    from rmap.mm.migrate.entries import migration_entry_wait, pmd_migration_entry_wait
    from rmap.mm.mlock_page import mlock_vma_page
    from rmap.mm.mm_types import Kernel, Mm, Vma
    from rmap.mm.page import (
        PageAnon,
        PageCompound,
        PageDirty,
        PageDoubleMap,
        PageFlag,
        PageHead,
        PageTransCompound,
        compound_mapcount,
        get_page,
        lock_page,
        page_add_pins,
        page_mapping_word,
        trylock_page,
        unlock_page,
    )
    from rmap.mm.page_dirty import set_page_dirty
    from rmap.mm.pgtable import (
        is_migration_entry,
        is_pmd_migration_entry,
        is_swap_pte,
        pmd_offset,
        pmd_trans_huge,
        pte_dirty,
        pte_lock,
        pte_lookup,
        pte_mkdirty,
        pte_mkyoung,
        pte_pfn,
        pte_present,
        pte_to_swp_entry,
        pte_unlock,
        pte_write,
        ptep_get,
    )
    from rmap.mm.stack import find_extend_vma
    from rmap.mm.vma import find_vma, is_cow_mapping
    from rmap.scalar import flag, i32, i64, u64


class GupState:
    """What a series of faults keeps: whether mmap_sem is still `locked`, and the pages got.

    `nonblocking` faults may give mmap_sem up; the series then ends, and `locked` is false.
    `page_mask` is by how many pages more than one the last look at the tables went, less one.
    """

    def __init__(self, nonblocking: bool) -> None:
        self.nonblocking = nonblocking
        self.locked = True
        self.pages: list = []
        self.flags = 0
        self.page_mask = 0


# ---------------------------------------------------------------- looking


def follow_page(k: Kernel, vma: Vma, address: u64, flags: u64) -> i64:
    """`follow_page_mask` for a caller that wants one page: follow_page(), include/linux/mm.h."""
    state: GupState = GupState(False)
    state.flags = flags
    return follow_page_mask(k, vma, address, state)


def follow_page_mask(k: Kernel, vma: Vma, address: u64, state: GupState) -> i64:
    """The page that an address maps, as `follow_page_pte` says, be it a part of a huge one.

    ``state.page_mask`` becomes by how many pages beyond its own the answer holds, less one: the
    rest of a huge page that a PMD maps (mm/gup.c:223, v4.18). With FOLL_SPLIT a huge page is split
    first, or its PMD at least; -EBUSY if that cannot be.
    """
    page: i64 = 0
    state.page_mask = 0
    if vma.vm_flags & VM_HUGETLB:
        return follow_hugetlb_page(k, vma, address, state.flags)
    pmd: u64 = pmd_offset(k, vma.vm_mm, address)
    if not pmd or k.pt[pmd] & (_PAGE_PRESENT | _PAGE_PSE) == _PAGE_PRESENT:
        return follow_page_pte(k, vma, address, state.flags)
    while state.flags & FOLL_MIGRATION and is_pmd_migration_entry(k.pt[pmd]):
        pmd_migration_entry_wait(k, pmd)
    if not pmd_trans_huge(k.pt[pmd]):
        # Nothing, or a page that is being moved: the fault waits for that. Or a table by now.
        return follow_page_pte(k, vma, address, state.flags)
    pte_lock(k, pmd)
    if not pmd_trans_huge(ptep_get(k, pmd)):
        pte_unlock(k, pmd)
        return follow_page_pte(k, vma, address, state.flags)
    if state.flags & FOLL_SPLIT:
        return _split_and_follow(k, vma, address, pmd, state.flags)
    page = follow_trans_huge_pmd(k, vma, address, pmd, state.flags)
    pte_unlock(k, pmd)
    if page > 0:
        state.page_mask = HPAGE_PMD_NR - 1
    return page


def _split_and_follow(k: Kernel, vma: Vma, address: u64, pmd: u64, flags: u64) -> i64:
    """Split the huge page that a PMD maps, whose lock is held and dropped (mm/gup.c:268-292)."""
    page: u64 = pte_pfn(k.pt[pmd])
    error: i32 = 0
    if is_huge_zero_page(k, page):
        pte_unlock(k, pmd)
        split_huge_pmd(k, vma, pmd, address)
    else:
        get_page(k, page)
        pte_unlock(k, pmd)
        lock_page(k, page)
        error = split_huge_page(k, page)
        unlock_page(k, page)
        put_page(k, page)
    return error if error else follow_page_pte(k, vma, address, flags)


def follow_trans_huge_pmd(k: Kernel, vma: Vma, address: u64, pmd: u64, flags: u64) -> i64:
    """The part of a huge page that an address maps by a PMD, whose lock is held.

    mm/huge_memory.c:1365 (v4.18). Results as of `follow_page_pte`. A huge page is mlocked as a
    whole, if this process alone maps it.
    """
    pmde: u64 = ptep_get(k, pmd)
    if not flags & FOLL_FORCE and pmd_protnone(pmde):
        return 0
    if flags & FOLL_WRITE and not can_follow_write_pmd(k, vma, pmde, flags):
        return 0
    head: u64 = pte_pfn(pmde)
    if not PageHead(k, head):
        BUG_PAGE("huge_memory.c:1387 follow_trans_huge_pmd: a PMD maps no huge page", head)
    if not pte_write(pmde) and gup_must_unshare(k, head, flags):
        return -EMLINK
    if flags & FOLL_TOUCH:
        young: u64 = pte_mkyoung(pmde)
        if flags & FOLL_WRITE:
            young = pte_mkdirty(young)
        ptep_set_access_flags(k, vma, address & PMD_MASK, pmd, young, flags & FOLL_WRITE != 0)
    if flags & FOLL_MLOCK and vma.vm_flags & VM_LOCKED:
        _mlock_huge(k, head)
    page: u64 = head + ((address & ~PMD_MASK) >> PAGE_SHIFT)
    if flags & FOLL_GET:
        get_page(k, page)
    return page


def can_follow_write_pmd(k: Kernel, vma: Vma, pmd: u64, flags: u64) -> flag:
    """`can_follow_write_pte` for the PMD of a huge page (mm/huge_memory.c:1358, v4.18)."""
    if pte_write(pmd):
        return True
    if not flags & FOLL_FORCE:
        return False
    if not k.profile.anon_exclusive:
        return flags & FOLL_COW != 0 and pte_dirty(pmd)
    if vma.vm_flags & VM_WRITE or not is_cow_mapping(vma.vm_flags):
        return False
    head: u64 = pte_pfn(pmd)
    return PageAnon(k, head) and PageFlag(k, head, PG_anon_exclusive)


def _mlock_huge(k: Kernel, head: u64) -> i32:
    """Mark a huge page mlocked that a VM_LOCKED VMA maps by a PMD (mm/huge_memory.c:1390-1430).

    Not one that others map too, or that PTEs map: its being mlocked could not be taken back when
    the PMD is split. Since mlock is counted, whoever maps the page does it.
    """
    if k.profile.mlock_counts:
        return 0
    if PageAnon(k, head) and compound_mapcount(k, head) != 1:
        return 0
    if PageDoubleMap(k, head) or not page_mapping_word(k, head):
        return 0
    if not trylock_page(k, head):
        return 0
    if page_mapping_word(k, head) and not PageDoubleMap(k, head):
        mlock_vma_page(k, head)
    return unlock_page(k, head)


def follow_page_pte(k: Kernel, vma: Vma, address: u64, flags: u64) -> i64:
    """The page that an address maps, if it may be used as `flags` (FOLL_) say.

    0 if a fault has to come first, -EMLINK if one that makes the page this process's alone;
    -EEXIST for an entry without a page. With FOLL_GET it has a reference. With FOLL_MIGRATION a
    page that is being moved is waited for.
    """
    ptep: u64 = pte_lookup(k, vma.vm_mm, address)
    if not ptep:
        return 0
    while flags & FOLL_MIGRATION and _is_moving(ptep_get(k, ptep)):
        migration_entry_wait(k, ptep)
    pte_lock(k, ptep)
    page: i64 = _page_of_entry(k, vma, address, ptep_get(k, ptep), flags)
    pte_unlock(k, ptep)
    return page


def _is_moving(pte: u64) -> flag:
    """Whether an entry stands for a page that is being moved."""
    return is_swap_pte(pte) and is_migration_entry(pte_to_swp_entry(pte))


def _page_of_entry(k: Kernel, vma: Vma, address: u64, pte: u64, flags: u64) -> i64:
    """The same for an entry, with the lock of its table held."""
    if not pte_present(pte):
        return 0
    if not flags & FOLL_FORCE and pte & (_PAGE_PRESENT | _PAGE_PROTNONE) == _PAGE_PROTNONE:
        return 0
    if flags & FOLL_WRITE and not can_follow_write_pte(k, vma, address, pte, flags):
        return 0
    page: u64 = vm_normal_page(k, vma, address, pte)
    if page and not pte_write(pte) and gup_must_unshare(k, page, flags):
        return -EMLINK
    if not page:
        if not is_zero_pfn(k, pte_pfn(pte)):
            return -EEXIST
        page = pte_pfn(pte)
    if flags & FOLL_GET:
        get_page(k, page)
    if flags & FOLL_TOUCH:
        if flags & FOLL_WRITE and not pte_dirty(pte) and not PageDirty(k, page):
            set_page_dirty(k, page)
        # Not the accessed bit, which could not be set without risking the dirty bit beside it.
        mark_page_accessed(k, page)
    if flags & FOLL_MLOCK and vma.vm_flags & VM_LOCKED:
        _mlock_followed(k, page)
    return page


def gup_must_unshare(k: Kernel, page: u64, flags: u64) -> flag:
    """Whether a page is to be made this process's alone before it is pinned for reading (v5.19).

    Otherwise a write would give the process another page, and the device went on reading this one.
    """
    if not k.profile.anon_exclusive or flags & (FOLL_WRITE | FOLL_PIN) != FOLL_PIN:
        return False
    return PageAnon(k, page) and not PageFlag(k, page, PG_anon_exclusive)


def can_follow_write_pte(k: Kernel, vma: Vma, address: u64, pte: u64, flags: u64) -> flag:
    """Whether a page may be written to: also one whose COW was forced, while it is still dirty.

    Since v5.19 it is seen by the page whether COW was done: it is this process's alone.
    """
    if pte_write(pte):
        return True
    if not flags & FOLL_FORCE:
        return False
    if not k.profile.anon_exclusive:
        return flags & FOLL_COW != 0 and pte_dirty(pte)
    if vma.vm_flags & VM_WRITE or not is_cow_mapping(vma.vm_flags):
        return False
    page: u64 = vm_normal_page(k, vma, address, pte)
    return page != 0 and PageAnon(k, page) and PageFlag(k, page, PG_anon_exclusive)


def _mlock_followed(k: Kernel, page: u64) -> i32:
    """Mark a page mlocked that was found or faulted in; somebody else's lock leaves it to reclaim.

    Since mlock is counted, whoever maps the page does it.
    """
    if k.profile.mlock_counts or PageTransCompound(k, page):
        return 0
    if page_mapping_word(k, page) and trylock_page(k, page):
        mlock_vma_page(k, page)
        unlock_page(k, page)
    return 0


# ---------------------------------------------------------------- faulting


def check_vma_flags(vma: Vma, flags: u64) -> i32:
    """Whether the VMA's pages may be got at all: 0 or -EFAULT."""
    if vma.vm_flags & (VM_IO | VM_PFNMAP):
        return -EFAULT
    if flags & FOLL_WRITE:
        if vma.vm_flags & VM_WRITE:
            return 0
        # By force only into a copy that is private, never into the file itself.
        if not flags & FOLL_FORCE or not is_cow_mapping(vma.vm_flags):
            return -EFAULT
        return 0
    if vma.vm_flags & VM_READ:
        return 0
    if not flags & FOLL_FORCE or not vma.vm_flags & VM_MAYREAD:
        return -EFAULT
    return 0


def faultin_page(k: Kernel, vma: Vma, address: u64, unshare: flag, state: GupState) -> i32:
    """Let a fault happen; 0 to look again, -EBUSY if mmap_sem was given up, or another errno.

    With `unshare` it is one that makes a page this process's alone, not to be written to. Raises
    `UserfaultPending`, with mmap_sem given up, if nobody would ever resolve it.
    """
    flags: u64 = 0
    if state.flags & (FOLL_POPULATE | FOLL_MLOCK) == FOLL_MLOCK:
        # mlock on fault: what is there is locked, and nothing brought in.
        return -ENOENT
    if state.flags & FOLL_WRITE:
        flags |= FAULT_FLAG_WRITE
    if unshare:
        flags |= FAULT_FLAG_UNSHARE
    if state.nonblocking:
        flags |= FAULT_FLAG_ALLOW_RETRY
    if state.flags & FOLL_NOWAIT:
        flags |= FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_RETRY_NOWAIT
    if state.flags & FOLL_TRIED:
        flags |= FAULT_FLAG_TRIED
    ret: i32 = handle_mm_fault(k, vma, address, flags)
    if ret & VM_FAULT_ERROR:
        if ret & VM_FAULT_OOM:
            return -ENOMEM
        if ret & (VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE) and state.flags & FOLL_HWPOISON:
            return -EHWPOISON
        return -EFAULT
    if ret & VM_FAULT_RETRY:
        if not flags & FAULT_FLAG_RETRY_NOWAIT:
            state.locked = False
        if ret & VM_FAULT_UFFD:
            raise UserfaultPending(address)
        return -EBUSY
    if ret & VM_FAULT_WRITE and not vma.vm_flags & VM_WRITE:
        # COW is done, and the entry stays read-only: the page may be taken as it is.
        state.flags |= FOLL_COW
    return 0


def find_get_user_pages(k: Kernel, mm: Mm, start: u64, count: u64, state: GupState) -> i64:
    """Look at `count` pages from `start` on, faulting in what is missing: __get_user_pages().

    Returns how many it came by, or a negative errno if not even one; with FOLL_GET they are added
    to ``state.pages``. mmap_sem is held, and at return still is if ``state.locked``.
    """
    mm.mmap_sem.assert_held_any()
    wanted: u64 = state.flags
    vma: Vma = None
    done: i64 = 0
    total: i64 = count
    step: i64
    inside: i64
    error: i64
    page: i64
    while done < total:
        if vma is None or start >= vma.vm_end:
            vma = _find_extend_vma(k, mm, start)
            if vma is None or check_vma_flags(vma, wanted):
                return done if done else -EFAULT
        state.flags = wanted
        page = _get_one(k, vma, start, state)
        if page < 0 and page != -EEXIST and page != -ENOENT:
            error = 0 if page == -EBUSY else page
            return done if done else error
        step = 1
        if wanted & FOLL_GET:
            if page > 0:
                state.pages.append(page)
        elif state.page_mask:
            # Nothing is to be done for the other parts of a huge page.
            inside = (start >> PAGE_SHIFT) & (HPAGE_PMD_NR - 1)
            step += state.page_mask - inside
            if step > total - done:
                step = total - done
        done += step
        start += step << PAGE_SHIFT
    return done


def _get_one(k: Kernel, vma: Vma, address: u64, state: GupState) -> i64:
    """One page: look, fault, look again, until there is one or an error."""
    page: i64
    error: i32
    while True:
        page = follow_page_mask(k, vma, address, state)
        if page and page != -EMLINK:
            return page
        error = faultin_page(k, vma, address, page == -EMLINK, state)
        if error:
            return error


def _find_extend_vma(k: Kernel, mm: Mm, address: u64) -> Vma:
    """The VMA of an address; a stack that grows for it and is VM_LOCKED is populated."""
    old: Vma = find_vma(k, mm, address)
    start: u64 = 0 if old is None else old.vm_start
    vma: Vma = find_extend_vma(k, mm, address)
    if vma is not None and vma.vm_start < start and vma.vm_flags & VM_LOCKED:
        populate_vma_page_range(k, vma, vma.vm_start, start)
    return vma


# ---------------------------------------------------------------- getting pages


def get_user_pages(k: Kernel, mm: Mm, start: u64, count: u64, write: bool) -> list:
    """Get references to the pages of `count` addresses from `start` on (_unlocked()).

    The list is shorter where a page cannot be had. Give each back by `put_user_page`. Raises
    `UserfaultPending` as an access does; what was got before is given back then.
    """
    return _get_pages(k, mm, start, count, FOLL_WRITE if write else 0)


def _get_pages(k: Kernel, mm: Mm, start: u64, count: u64, flags: u64) -> list:
    """The same, with whatever else `flags` ask for: __get_user_pages_locked()."""
    state: GupState = GupState(True)
    flags |= FOLL_GET | FOLL_TOUCH
    end: u64 = start + count * PAGE_SIZE
    got: i64
    start &= PAGE_MASK
    mm.mmap_sem.down_read()
    try:
        while start < end:
            state.flags = flags
            got = find_get_user_pages(k, mm, start, (end - start) >> PAGE_SHIFT, state)
            if got > 0:
                start += got << PAGE_SHIFT
            if state.locked:
                break
            # mmap_sem was given up for a page that ought to be there now: once more, and no more.
            mm.mmap_sem.down_read()
            state.locked = True
            state.nonblocking = False
            state.flags = flags | FOLL_TRIED
            if start < end and find_get_user_pages(k, mm, start, 1, state) != 1:
                break
            start += PAGE_SIZE
            state.nonblocking = True
    except UserfaultPending:
        put_user_pages(k, state.pages)
        raise
    mm.mmap_sem.up_read()
    return state.pages


def check_user_page_hwpoison(k: Kernel, mm: Mm, address: u64) -> flag:
    """Whether an address cannot be had because its memory is broken, as a hypervisor asks.

    virt/kvm/kvm_main.c (v4.18): only who asks by FOLL_HWPOISON is told by -EHWPOISON, and not
    -EFAULT. Takes mm->mmap_sem for read.
    """
    state: GupState = GupState(False)
    state.flags = FOLL_HWPOISON | FOLL_WRITE
    mm.mmap_sem.down_read()
    got: i64 = find_get_user_pages(k, mm, address & PAGE_MASK, 1, state)
    mm.mmap_sem.up_read()
    return got == -EHWPOISON


def put_user_page(k: Kernel, page: u64) -> i32:
    """Give back a reference that `get_user_pages` took."""
    return put_page(k, page)


def put_user_pages(k: Kernel, pages: list) -> i32:
    """Give back all of a list."""
    page: u64
    for page in pages:
        put_page(k, page)
    return 0


def pin_references(k: Kernel, page: u64) -> i32:
    """How many references one pin of the page takes."""
    if k.profile.fork_copies_pinned and not PageCompound(k, page):
        return GUP_PIN_COUNTING_BIAS
    return 1


def pin_user_pages(k: Kernel, mm: Mm, start: u64, count: u64, write: bool) -> list:
    """Get pages for a device that reads or writes them itself (mm/gup.c, since 5.7).

    As get_user_pages(), which is what v4.18 has for it; later pins are counted so that fork can
    tell a page that has any. Give each back by `unpin_user_page`.
    """
    pages: list = _get_pages(k, mm, start, count, FOLL_PIN | (FOLL_WRITE if write else 0))
    page: u64
    if k.profile.fork_copies_pinned:
        for page in pages:
            page_add_pins(k, page, 1)
    return pages


def unpin_user_page(k: Kernel, page: u64) -> i32:
    """Give back a page that `pin_user_pages` took."""
    if k.profile.fork_copies_pinned:
        page_add_pins(k, page, -1)
    return put_page(k, page)


# ---------------------------------------------------------------- populating


def populate_vma_page_range(k: Kernel, vma: Vma, start: u64, end: u64) -> i64:
    """Bring in a range of a VMA, and mlock it if the VMA is. mmap_sem is held, and stays so.

    Returns how many pages from `start` on are there, or a negative errno.
    """
    return _populate(k, vma, start, end, GupState(False))


def _populate(k: Kernel, vma: Vma, start: u64, end: u64, state: GupState) -> i64:
    """The same; a nonblocking `state` lets faults give mmap_sem up."""
    flags: u64 = FOLL_TOUCH | FOLL_POPULATE | FOLL_MLOCK
    if vma.vm_flags & VM_LOCKONFAULT:
        flags &= ~FOLL_POPULATE
    # Private memory gets its copies at once. Shared pages would only be made dirty for nothing.
    if vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        flags |= FOLL_WRITE
    # Whatever may be accessed at all can be locked; PROT_NONE cannot.
    if vma.vm_flags & VM_ACCESS_FLAGS:
        flags |= FOLL_FORCE
    if start < vma.vm_start or end > vma.vm_end or end < start:
        BUG("gup.c populate_vma_page_range: the range is not one of the VMA")
    state.flags = flags
    return find_get_user_pages(k, vma.vm_mm, start, (end - start) >> PAGE_SHIFT, state)


def __mm_populate(k: Kernel, mm: Mm, start: u64, length: u64, ignore_errors: bool) -> i32:
    """Bring in a range of an address space, VMA by VMA; takes mmap_sem. 0 or a negative errno."""
    end: u64 = (start + length + PAGE_SIZE - 1) & PAGE_MASK
    stop: u64
    got: i64
    vma: Vma = None
    state: GupState = GupState(True)
    state.locked = False
    start &= PAGE_MASK
    while start < end:
        if not state.locked:
            state.locked = True
            mm.mmap_sem.down_read()
            vma = find_vma(k, mm, start)
        elif start >= vma.vm_end:
            vma = vma.vm_next
        if vma is None or vma.vm_start >= end:
            break
        stop = end if end < vma.vm_end else vma.vm_end
        if vma.vm_flags & (VM_IO | VM_PFNMAP):
            start = stop
            continue
        if start < vma.vm_start:
            start = vma.vm_start
        got = _populate(k, vma, start, stop, state)
        if got >= 0:
            start += got << PAGE_SHIFT
        elif ignore_errors:
            start = stop
        else:
            mm.mmap_sem.up_read()
            return got
    if state.locked:
        mm.mmap_sem.up_read()
    return 0


def mm_populate(k: Kernel, mm: Mm, start: u64, length: u64) -> i32:
    """Bring in a range as far as that works, after an mmap that is to be locked or populated."""
    return __mm_populate(k, mm, start, length, True)

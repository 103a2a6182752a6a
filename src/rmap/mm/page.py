# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""struct page: flags, the tagged mapping, reference and mapping counts, the page lock.

include/linux/page-flags.h, mm.h, page_ref.h and mm/util.c of v4.18. A page is its frame number.

A page of a compound page keeps things where the kernel does, in the words that only the first
tail has to spare: a tail's ``pg_lru_next`` is the head; the first tail's ``pg_private`` is the
order, its ``pg_lru_prev`` the compound_mapcount (as a count, so that 0 is unmapped).
"""

from __future__ import annotations

from functools import partial

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        GUP_PIN_COUNTING_BIAS,
        HPAGE_PMD_NR,
        MAPPING_HANDLE_SHIFT,
        PAGE_MAPPING_ANON,
        PAGE_MAPPING_FLAGS,
        PAGE_MAPPING_KSM,
        PRIVATE_TYPE_BITS,
        SWP_OFFSET_MASK,
        SWP_TYPE_SHIFT,
        PG_device_private,
        PG_dirty,
        PG_double_map,
        PG_head,
        PG_huge,
        PG_hwpoison,
        PG_locked,
        PG_lru,
        PG_mlocked,
        PG_slab,
        PG_swapbacked,
        PG_swapcache,
        PG_tail,
        PG_writeback,
        PG_zone_device,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.mm_types import AddressSpace, AnonVma, Kernel, MemCgroup, SwapInfo
    from rmap.scalar import flag, i32, i64, u32, u64
    from rmap.sync.bits import (
        FIELD_INDEX,
        FIELD_MAPCOUNT,
        FIELD_MAPPING,
        FIELD_PAGE_FLAGS,
        FIELD_REFCOUNT,
        OP_READ,
        OP_RELEASE,
        OP_RMW,
        OP_TRY,
        OP_WRITE,
        RANK_PAGE_LOCK,
        WRITE_MODE,
    )
    from rmap.sync.core import lock_acquired, lock_released, sched, sched_point, wait_until


# ---------------------------------------------------------------- flags


def PageFlag(k: Kernel, page: u64, bit: u32) -> flag:
    """Whether a flag of the page is set, one of ``PG_``."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_PAGE_FLAGS, page)
    return k.pg_flags[page] & bit != 0


def SetPage(k: Kernel, page: u64, bit: u32) -> i32:
    """Set a flag of the page, atomically."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    k.pg_flags[page] |= bit
    return 0


def ClearPage(k: Kernel, page: u64, bit: u32) -> i32:
    """Clear a flag of the page, atomically."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    if k.pg_flags[page] & bit:
        k.pg_flags[page] ^= bit
    return 0


def TestSetPage(k: Kernel, page: u64, bit: u32) -> flag:
    """Set a flag of the page; whether it was set before."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    was: flag = k.pg_flags[page] & bit != 0
    k.pg_flags[page] |= bit
    return was


def TestClearPage(k: Kernel, page: u64, bit: u32) -> flag:
    """Clear a flag of the page; whether it was set before."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    if k.pg_flags[page] & bit:
        k.pg_flags[page] ^= bit
        return True
    return False


def PageAnon(k: Kernel, page: u64) -> flag:
    """Whether the page is anonymous; true of KSM pages as well (page-flags.h:417)."""
    return page_mapping_word(k, compound_head(k, page)) & PAGE_MAPPING_ANON != 0


def PageKsm(k: Kernel, page: u64) -> flag:
    """Whether the page is one that KSM merged."""
    return page_mapping_word(k, compound_head(k, page)) & PAGE_MAPPING_FLAGS == PAGE_MAPPING_KSM


def PageLocked(k: Kernel, page: u64) -> flag:
    """Whether somebody holds the page lock (of the head, for a compound page)."""
    return k.pg_flags[compound_head(k, page)] & PG_locked != 0


def PageSwapCache(k: Kernel, page: u64) -> flag:
    """Whether the page is in the swap cache: in v4.18 the flag counts only with PG_swapbacked."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_PAGE_FLAGS, page)
    both: u32 = PG_swapcache | PG_swapbacked
    return k.pg_flags[compound_head(k, page)] & both == both


def PageSwapBacked(k: Kernel, page: u64) -> flag:
    """Whether the page is anonymous or shmem, and not to be freed lazily."""
    return k.pg_flags[compound_head(k, page)] & PG_swapbacked != 0


def PageDirty(k: Kernel, page: u64) -> flag:
    """Whether the contents are newer than what is in the file or in swap."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_PAGE_FLAGS, page)
    return k.pg_flags[compound_head(k, page)] & PG_dirty != 0


def PageMlocked(k: Kernel, page: u64) -> flag:
    """Whether some VM_LOCKED VMA is believed to map the page."""
    return k.pg_flags[compound_head(k, page)] & PG_mlocked != 0


def PageLRU(k: Kernel, page: u64) -> flag:
    """Whether the page is on an LRU list."""
    return k.pg_flags[compound_head(k, page)] & PG_lru != 0


def PageWriteback(k: Kernel, page: u64) -> flag:
    """Whether the page is being written out."""
    return k.pg_flags[compound_head(k, page)] & PG_writeback != 0


def PageHWPoison(k: Kernel, page: u64) -> flag:
    """Whether the page's memory is broken."""
    return k.pg_flags[page] & PG_hwpoison != 0


def PageHead(k: Kernel, page: u64) -> flag:
    """Whether the page is the first of a compound page."""
    return k.pg_flags[page] & PG_head != 0


def PageTail(k: Kernel, page: u64) -> flag:
    """Whether the page belongs to a compound page and is not its first."""
    return k.pg_flags[page] & PG_tail != 0


def PageCompound(k: Kernel, page: u64) -> flag:
    """Whether the page belongs to a compound page."""
    return k.pg_flags[page] & (PG_head | PG_tail) != 0


def PageTransCompound(k: Kernel, page: u64) -> flag:
    """The same; in the kernel constantly false without transparent huge pages."""
    return k.pg_flags[page] & (PG_head | PG_tail) != 0


def PageTransHuge(k: Kernel, page: u64) -> flag:
    """Whether the page is the head of a compound page, hugetlb included. A tail is a bug."""
    if k.pg_flags[page] & PG_tail:
        BUG_PAGE("page-flags.h:622 PageTransHuge of a tail page", page)
    return k.pg_flags[page] & PG_head != 0


def PageHuge(k: Kernel, page: u64) -> flag:
    """Whether the page belongs to a hugetlb page."""
    return k.pg_flags[compound_head(k, page)] & PG_huge != 0


def PageDoubleMap(k: Kernel, page: u64) -> flag:
    """Whether a huge page is mapped by PMD and PTE at once (for a file page: was, some time)."""
    return k.pg_flags[page + 1] & PG_double_map != 0


def is_zone_device_page(k: Kernel, page: u64) -> flag:
    """Whether the page is memory of a device."""
    return k.pg_flags[page] & PG_zone_device != 0


def is_device_private_page(k: Kernel, page: u64) -> flag:
    """Whether the page is memory of a device that the CPU cannot reach."""
    return k.pg_flags[page] & PG_device_private != 0


# ---------------------------------------------------------------- compound pages


def compound_head(k: Kernel, page: u64) -> u64:
    """The first page of the compound page that `page` is part of, or itself."""
    if k.pg_flags[page] & PG_tail:
        return k.pg_lru_next[page]
    return page


def compound_order(k: Kernel, page: u64) -> i32:
    """log2 of the pages of a compound page, given its head; 0 for any other page."""
    if k.pg_flags[page] & PG_head:
        return k.pg_private[page + 1]
    return 0


def hpage_nr_pages(k: Kernel, page: u64) -> u64:
    """512 for the head of a huge page (whatever a hugetlb page's size is), else 1."""
    if PageTransHuge(k, page):
        return HPAGE_PMD_NR
    return 1


def compound_mapcount(k: Kernel, page: u64) -> i32:
    """How often the compound page is mapped whole, by PMDs. Not a compound page: a bug."""
    if not PageCompound(k, page):
        BUG_PAGE("mm.h:620 compound_mapcount of a page that is not compound", page)
    return k.pg_lru_prev[compound_head(k, page) + 1]


def compound_mapcount_inc_and_test(k: Kernel, head: u64) -> flag:
    """Count one more mapping of the whole; whether it is the first."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_MAPCOUNT, head + 1)
    k.pg_lru_prev[head + 1] += 1
    return k.pg_lru_prev[head + 1] == 1


def compound_mapcount_add_negative(k: Kernel, head: u64) -> flag:
    """Count one mapping of the whole less; whether it was the last. Below none is a bug."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_MAPCOUNT, head + 1)
    if k.pg_lru_prev[head + 1] == 0:
        BUG_PAGE("compound_mapcount goes below zero", head)
    k.pg_lru_prev[head + 1] -= 1
    return k.pg_lru_prev[head + 1] == 0


def compound_mapcount_set(k: Kernel, head: u64, value: i32) -> i32:
    """Set the stored compound_mapcount, which is one less than the mappings."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_MAPCOUNT, head + 1)
    k.pg_lru_prev[head + 1] = value + 1
    return 0


# ---------------------------------------------------------------- mapping counts


def mapcount_inc_and_test(k: Kernel, page: u64) -> flag:
    """atomic_inc_and_test(&page->_mapcount): whether this is the page's first PTE mapping."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_MAPCOUNT, page)
    k.pg_mapcount[page] += 1
    return k.pg_mapcount[page] == 0


def mapcount_add_negative(k: Kernel, page: u64) -> flag:
    """atomic_add_negative(-1, &page->_mapcount): whether that was the last PTE mapping."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_MAPCOUNT, page)
    k.pg_mapcount[page] -= 1
    return k.pg_mapcount[page] < 0


def mapcount_set(k: Kernel, page: u64, value: i32) -> i32:
    """Set the stored _mapcount, which is one less than the mappings."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_MAPCOUNT, page)
    k.pg_mapcount[page] = value
    return 0


def page_mapcount(k: Kernel, page: u64) -> i32:
    """How often this page is mapped, by PTE or as part of a huge page (mm/util.c, v4.18).

    >>> from rmap.mm.mm_types import Kernel
    >>> from rmap.mm.profile import profile
    >>> page_mapcount(Kernel(16, profile("4.18")), 3)
    0
    """
    if sched.exploring:
        sched_point(OP_READ, FIELD_MAPCOUNT, page)
    if k.debug_vm and k.pg_flags[page] & PG_slab:
        BUG_PAGE("mm.h:648 page_mapcount of a slab page", page)
    count: i32 = k.pg_mapcount[page] + 1
    if not PageCompound(k, page):
        return count
    if not PageAnon(k, page) and not PageHuge(k, page):
        return count
    head: u64 = compound_head(k, page)
    count += compound_mapcount(k, head)
    if PageDoubleMap(k, head):
        count -= 1
    return count


def total_mapcount(k: Kernel, page: u64) -> i32:
    """How many page-table entries map any part of the page (mm/huge_memory.c:2466, v4.18).

    `page` is not a tail.
    """
    if sched.exploring:
        sched_point(OP_READ, FIELD_MAPCOUNT, page)
    if PageTail(k, page):
        BUG_PAGE("huge_memory.c:2470 total_mapcount of a tail page", page)
    if not PageCompound(k, page):
        return k.pg_mapcount[page] + 1
    compound: i32 = compound_mapcount(k, page)
    if PageHuge(k, page):
        return compound
    count: i32 = compound
    i: u64
    for i in range(HPAGE_PMD_NR):
        count += k.pg_mapcount[page + i] + 1
    if not PageAnon(k, page):
        return count - compound * HPAGE_PMD_NR
    if PageDoubleMap(k, page):
        count -= HPAGE_PMD_NR
    return count


def page_trans_huge_mapcount(k: Kernel, page: u64) -> i32:
    """How often that part of a huge page is mapped that is mapped most often; `page` is any of it.

    mm/huge_memory.c (v4.18). 1 means that no part is shared. The total that the kernel counts
    by the way is `total_mapcount` of the head. Not a hugetlb page: that is a bug.
    """
    if sched.exploring:
        sched_point(OP_READ, FIELD_MAPCOUNT, page)
    if PageHuge(k, page):
        BUG_PAGE("huge_memory.c page_trans_huge_mapcount of a hugetlb page", page)
    if not PageTransCompound(k, page):
        return k.pg_mapcount[page] + 1
    head: u64 = compound_head(k, page)
    most: i32 = 0
    i: u64
    for i in range(HPAGE_PMD_NR):
        if k.pg_mapcount[head + i] + 1 > most:
            most = k.pg_mapcount[head + i] + 1
    if PageDoubleMap(k, head):
        most -= 1
    return most + compound_mapcount(k, head)


def page_mapped(k: Kernel, page: u64) -> flag:
    """Whether any page-table entry maps the page, or any part of a compound page (mm/util.c)."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_MAPCOUNT, page)
    if not PageCompound(k, page):
        return k.pg_mapcount[page] >= 0
    head: u64 = compound_head(k, page)
    if compound_mapcount(k, head) > 0:
        return True
    if PageHuge(k, head):
        return False
    i: u64
    for i in range(HPAGE_PMD_NR):
        if k.pg_mapcount[head + i] >= 0:
            return True
    return False


# ---------------------------------------------------------------- references


def page_count(k: Kernel, page: u64) -> i32:
    """References to the page (of the head, for a compound page)."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_REFCOUNT, page)
    return k.pg_refcount[compound_head(k, page)]


def get_page(k: Kernel, page: u64) -> i32:
    """Take a reference; the page must have one already. A free page is a bug."""
    head: u64 = compound_head(k, page)
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, head)
    if k.pg_refcount[head] <= 0:
        BUG_PAGE("mm.h:875 get_page of a page without references", page)
    k.pg_refcount[head] += 1
    return 0


def get_page_unless_zero(k: Kernel, page: u64) -> flag:
    """Take a reference unless the page is free or frozen; whether it was taken."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, page)
    if k.pg_refcount[page] == 0:
        return False
    k.pg_refcount[page] += 1
    return True


def put_page_testzero(k: Kernel, page: u64) -> flag:
    """Drop a reference; whether it was the last."""
    head: u64 = compound_head(k, page)
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, head)
    if k.pg_refcount[head] <= 0:
        BUG_PAGE("mm.h:441 put_page_testzero of a page without references", page)
    k.pg_refcount[head] -= 1
    return k.pg_refcount[head] == 0


def page_ref_add(k: Kernel, page: u64, count: i32) -> i32:
    """Take `count` references; the page must have one already."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, page)
    k.pg_refcount[page] += count
    return 0


def page_ref_sub(k: Kernel, page: u64, count: i32) -> i32:
    """Drop `count` references of several; the last one must go by `put_page`."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, page)
    if k.pg_refcount[page] <= count:
        BUG_PAGE("page_ref.h:104 page_ref_sub of references that the page does not have", page)
    k.pg_refcount[page] -= count
    return 0


def page_ref_freeze(k: Kernel, page: u64, count: i32) -> flag:
    """If the page has exactly `count` references, make it 0, so that nobody can take another."""
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, page)
    if k.pg_refcount[page] != count:
        return False
    k.pg_refcount[page] = 0
    return True


def page_ref_unfreeze(k: Kernel, page: u64, count: i32) -> i32:
    """Give a frozen page its references back."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_REFCOUNT, page)
    if k.pg_refcount[page] != 0:
        BUG_PAGE("page_ref.h:178 page_ref_unfreeze of a page that is not frozen", page)
    k.pg_refcount[page] = count
    return 0


def page_maybe_dma_pinned(k: Kernel, page: u64) -> flag:
    """Whether the page may be pinned (include/linux/mm.h, since 5.7).

    A pin of a small page takes many references; so many others look the same. Compound pages, which
    have many, count the pins of all their parts in a word of their second tail.
    """
    head: u64 = compound_head(k, page)
    if k.pg_flags[head] & PG_head:
        return k.pg_private[head + 2] != 0
    return page_count(k, head) >= GUP_PIN_COUNTING_BIAS


def page_add_pins(k: Kernel, page: u64, pins: i32) -> i32:
    """Count pins of a page beyond the reference that each of them has; fewer if `pins` is negative.

    >>> from rmap.mm.mm_types import Kernel
    >>> from rmap.mm.profile import profile
    >>> k = Kernel(16, profile("6.1"))
    >>> k.pg_refcount[3] = 2
    >>> page_add_pins(k, 3, 1), k.pg_refcount[3], page_maybe_dma_pinned(k, 3)
    (0, 1025, True)
    """
    head: u64 = compound_head(k, page)
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, head)
    if k.pg_flags[head] & PG_head:
        k.pg_private[head + 2] += pins
    else:
        k.pg_refcount[head] += pins * (GUP_PIN_COUNTING_BIAS - 1)
    return 0


# ---------------------------------------------------------------- mapping and index


def page_mapping_word(k: Kernel, page: u64) -> u32:
    """READ_ONCE(page->mapping): the tagged handle, 0 for none."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_MAPPING, page)
    return k.pg_mapping[page]


def set_page_mapping(k: Kernel, page: u64, word: u32) -> i32:
    """WRITE_ONCE(page->mapping, word)."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_MAPPING, page)
    k.pg_mapping[page] = word
    return 0


def page_rmapping(k: Kernel, page: u64) -> u32:
    """The handle in page->mapping, whatever it is of; 0 for none (mm/util.c:475, v4.18)."""
    return page_mapping_word(k, compound_head(k, page)) >> MAPPING_HANDLE_SHIFT


def page_anon_vma(k: Kernel, page: u64) -> AnonVma:
    """The anon_vma that the page names; ``None`` for file and KSM pages (mm/util.c:489, v4.18)."""
    word: u32 = page_mapping_word(k, compound_head(k, page))
    if word & PAGE_MAPPING_FLAGS != PAGE_MAPPING_ANON:
        return None
    return k.anon_vmas[word >> MAPPING_HANDLE_SHIFT]


def page_mapping(k: Kernel, page: u64) -> AddressSpace:
    """The page's address space: its file's, the swap cache's, or ``None`` (mm/util.c:501)."""
    page = compound_head(k, page)
    if k.pg_flags[page] & PG_slab:
        return None
    if PageSwapCache(k, page):
        area: SwapInfo = k.swap_areas[page_private(k, page) >> SWP_TYPE_SHIFT]
        return area.address_space
    word: u32 = page_mapping_word(k, page)
    if word & PAGE_MAPPING_ANON or not word:
        return None
    return k.mappings[word >> MAPPING_HANDLE_SHIFT]


def page_mapping_file(k: Kernel, page: u64) -> AddressSpace:
    """The address space of the file, ``None`` for a page of the swap cache (mm/util.c:528)."""
    if PageSwapCache(k, page):
        return None
    return page_mapping(k, page)


def page_index(k: Kernel, page: u64) -> u64:
    """page->index as it stands: pages into the file or the anonymous index space."""
    if sched.exploring:
        sched_point(OP_READ, FIELD_INDEX, page)
    return k.pg_index[page]


def set_page_index(k: Kernel, page: u64, index: u64) -> i32:
    """Store page->index."""
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_INDEX, page)
    k.pg_index[page] = index
    return 0


def page_to_pgoff(k: Kernel, page: u64) -> u64:
    """The offset of the page in pages, for a tail counted from its head (pagemap.h:420)."""
    if not PageCompound(k, page):
        return page_index(k, page)
    head: u64 = compound_head(k, page)
    if PageHuge(k, head):
        return page_index(k, head) << compound_order(k, head)
    return page_index(k, head) + (page - head)


def page_private(k: Kernel, page: u64) -> u64:
    """page->private of a page in the swap cache, as a swp_entry_t.

    The column has 32 bits: 5 of type and 27 of offset, 512 GiB of each swap area.
    """
    word: u64 = k.pg_private[page]
    return (word & 0x1F) << SWP_TYPE_SHIFT | word >> PRIVATE_TYPE_BITS


def set_page_private(k: Kernel, page: u64, entry: u64) -> i32:
    """Store a swp_entry_t in page->private; 0 clears it."""
    offset: u64 = entry & SWP_OFFSET_MASK
    if offset >> 27:
        BUG_PAGE("a swap offset beyond 512 GiB does not fit into page->private", page)
    k.pg_private[page] = entry >> SWP_TYPE_SHIFT | offset << PRIVATE_TYPE_BITS
    return 0


# ---------------------------------------------------------------- the page lock


def _page_unlocked(k: Kernel, head: u64) -> bool:
    return k.pg_flags[head] & PG_locked == 0


def lock_page(k: Kernel, page: u64) -> i32:
    """Take PG_locked of the head, waiting for its holder."""
    head: u64 = compound_head(k, page)
    if sched.exploring or k.pg_flags[head] & PG_locked:
        wait_until(RANK_PAGE_LOCK, head, partial(_page_unlocked, k, head))
    k.pg_flags[head] |= PG_locked
    if sched.checking:
        lock_acquired(RANK_PAGE_LOCK, head, WRITE_MODE, False)
    return 0


def trylock_page(k: Kernel, page: u64) -> flag:
    """Take PG_locked of the head if it is free; whether it was taken."""
    head: u64 = compound_head(k, page)
    if sched.exploring:
        sched_point(OP_TRY, RANK_PAGE_LOCK, head)
    if k.pg_flags[head] & PG_locked:
        return False
    k.pg_flags[head] |= PG_locked
    if sched.checking:
        lock_acquired(RANK_PAGE_LOCK, head, WRITE_MODE, True)
    return True


def unlock_page(k: Kernel, page: u64) -> i32:
    """Give PG_locked back. A page that is not locked is a bug (mm/filemap.c:1200)."""
    head: u64 = compound_head(k, page)
    if sched.exploring:
        sched_point(OP_RELEASE, RANK_PAGE_LOCK, head)
    if not k.pg_flags[head] & PG_locked:
        BUG_PAGE("filemap.c:1204 unlock_page of a page that is not locked", page)
    if sched.checking:
        lock_released(RANK_PAGE_LOCK, head, WRITE_MODE)
    k.pg_flags[head] ^= PG_locked
    return 0


# ---------------------------------------------------------------- statistics


def mod_node_page_state(k: Kernel, item: i32, delta: i64) -> i32:
    """Add to a statistic of the node, one of ``NR_``."""
    k.vm_stat[item] += delta
    return 0


def mod_lruvec_page_state(k: Kernel, page: u64, item: i32, delta: i64) -> i32:
    """Add to a statistic of the node and of the page's memcg."""
    k.vm_stat[item] += delta
    memcg: MemCgroup = k.memcgs[k.pg_memcg[compound_head(k, page)]]
    memcg.stat[item] += delta
    return 0


def page_memcg(k: Kernel, page: u64) -> MemCgroup:
    """The memcg that the page is charged to."""
    return k.memcgs[k.pg_memcg[compound_head(k, page)]]

# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
# Made by tools/headers.py from the modules that it names; do not edit.
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport lock_acquired, lock_released, sched, sched_point
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.mm_types cimport AddressSpace, Kernel, LruVec, MemCgroup, Mm, Vma
from rmap.mm.mmu_notifier cimport MmuNotifier, _log, _tell_clear_flush_young
from rmap.mm.pgtable cimport _wait_for_table
from rmap.mm.tlb cimport _flush_tlb_cpus

cdef inline i32 SetPage(Kernel k, u64 page, u32 bit) except -1:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    k.pg_flags[page] |= bit
    return 0

cdef inline i32 ClearPage(Kernel k, u64 page, u32 bit) except -1:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    if k.pg_flags[page] & bit:
        k.pg_flags[page] ^= bit
    return 0

cdef inline flag TestClearPage(Kernel k, u64 page, u32 bit) except? -1:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    if k.pg_flags[page] & bit:
        k.pg_flags[page] ^= bit
        return True
    return False

cdef inline flag TestSetPage(Kernel k, u64 page, u32 bit) except? -1:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PAGE_FLAGS, page)
    was: flag = k.pg_flags[page] & bit != 0
    k.pg_flags[page] |= bit
    return was

cdef inline flag PageFlag(Kernel k, u64 page, u32 bit) except? -1:
    if sched.exploring:
        sched_point(OP_READ, FIELD_PAGE_FLAGS, page)
    return k.pg_flags[page] & bit != 0

cdef inline flag PageHead(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & PG_head != 0

cdef inline u64 compound_head(Kernel k, u64 page) except? 0:
    if k.pg_flags[page] & PG_tail:
        return k.pg_lru_next[page]
    return page

cdef inline u32 page_mapping_word(Kernel k, u64 page) except? 0:
    if sched.exploring:
        sched_point(OP_READ, FIELD_MAPPING, page)
    return k.pg_mapping[page]

cdef inline flag PageAnon(Kernel k, u64 page) except? -1:
    return page_mapping_word(k, compound_head(k, page)) & PAGE_MAPPING_ANON != 0

cdef inline flag PageKsm(Kernel k, u64 page) except? -1:
    return page_mapping_word(k, compound_head(k, page)) & PAGE_MAPPING_FLAGS == PAGE_MAPPING_KSM

cdef inline flag PageLocked(Kernel k, u64 page) except? -1:
    return k.pg_flags[compound_head(k, page)] & PG_locked != 0

cdef inline flag PageSwapBacked(Kernel k, u64 page) except? -1:
    return k.pg_flags[compound_head(k, page)] & PG_swapbacked != 0

cdef inline flag PageSwapCache(Kernel k, u64 page) except? -1:
    if sched.exploring:
        sched_point(OP_READ, FIELD_PAGE_FLAGS, page)
    both: u32 = PG_swapcache | PG_swapbacked
    return k.pg_flags[compound_head(k, page)] & both == both

cdef inline flag PageDirty(Kernel k, u64 page) except? -1:
    if sched.exploring:
        sched_point(OP_READ, FIELD_PAGE_FLAGS, page)
    return k.pg_flags[compound_head(k, page)] & PG_dirty != 0

cdef inline flag PageMlocked(Kernel k, u64 page) except? -1:
    return k.pg_flags[compound_head(k, page)] & PG_mlocked != 0

cdef inline flag PageHWPoison(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & PG_hwpoison != 0

cdef inline flag PageTail(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & PG_tail != 0

cdef inline flag PageCompound(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & (PG_head | PG_tail) != 0

cdef inline flag PageTransCompound(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & (PG_head | PG_tail) != 0

cdef inline flag PageTransHuge(Kernel k, u64 page) except? -1:
    if k.pg_flags[page] & PG_tail:
        BUG_PAGE("page-flags.h:622 PageTransHuge of a tail page", page)
    return k.pg_flags[page] & PG_head != 0

cdef inline flag PageHuge(Kernel k, u64 page) except? -1:
    return k.pg_flags[compound_head(k, page)] & PG_huge != 0

cdef inline i32 compound_order(Kernel k, u64 page) except? -1:
    if k.pg_flags[page] & PG_head:
        return k.pg_private[page + 1]
    return 0

cdef inline u64 hpage_nr_pages(Kernel k, u64 page) except? 0:
    if PageTransHuge(k, page):
        return HPAGE_PMD_NR
    return 1

cdef inline flag mapcount_inc_and_test(Kernel k, u64 page) except? -1:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_MAPCOUNT, page)
    k.pg_mapcount[page] += 1
    return k.pg_mapcount[page] == 0

cdef inline flag mapcount_add_negative(Kernel k, u64 page) except? -1:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_MAPCOUNT, page)
    k.pg_mapcount[page] -= 1
    return k.pg_mapcount[page] < 0

cdef inline i32 compound_mapcount(Kernel k, u64 page) except? -1:
    if not PageCompound(k, page):
        BUG_PAGE("mm.h:620 compound_mapcount of a page that is not compound", page)
    return k.pg_lru_prev[compound_head(k, page) + 1]

cdef inline flag PageDoubleMap(Kernel k, u64 page) except? -1:
    return k.pg_flags[page + 1] & PG_double_map != 0

cdef inline i32 total_mapcount(Kernel k, u64 page) except? -1:
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

cdef inline flag page_mapped(Kernel k, u64 page) except? -1:
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

cdef inline u32 page_rmapping(Kernel k, u64 page) except? 0:
    return page_mapping_word(k, compound_head(k, page)) >> MAPPING_HANDLE_SHIFT

cdef inline u64 page_private(Kernel k, u64 page) except? 0:
    word: u64 = k.pg_private[page]
    return (word & 0x1F) << SWP_TYPE_SHIFT | word >> PRIVATE_TYPE_BITS

cdef inline i32 page_count(Kernel k, u64 page) except? -1:
    if sched.exploring:
        sched_point(OP_READ, FIELD_REFCOUNT, page)
    return k.pg_refcount[compound_head(k, page)]

cdef inline i32 mapcount_set(Kernel k, u64 page, i32 value) except -1:
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_MAPCOUNT, page)
    k.pg_mapcount[page] = value
    return 0

cdef inline i32 set_page_mapping(Kernel k, u64 page, u32 word) except -1:
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_MAPPING, page)
    k.pg_mapping[page] = word
    return 0

cdef inline i32 set_page_index(Kernel k, u64 page, u64 index) except -1:
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_INDEX, page)
    k.pg_index[page] = index
    return 0

cdef inline i32 get_page(Kernel k, u64 page) except -1:
    head: u64 = compound_head(k, page)
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, head)
    if k.pg_refcount[head] <= 0:
        BUG_PAGE("mm.h:875 get_page of a page without references", page)
    k.pg_refcount[head] += 1
    return 0

cdef inline flag put_page_testzero(Kernel k, u64 page) except? -1:
    head: u64 = compound_head(k, page)
    if sched.exploring:
        sched_point(OP_RMW, FIELD_REFCOUNT, head)
    if k.pg_refcount[head] <= 0:
        BUG_PAGE("mm.h:441 put_page_testzero of a page without references", page)
    k.pg_refcount[head] -= 1
    return k.pg_refcount[head] == 0

cdef inline u64 page_index(Kernel k, u64 page) except? 0:
    if sched.exploring:
        sched_point(OP_READ, FIELD_INDEX, page)
    return k.pg_index[page]

cdef inline u64 page_to_pgoff(Kernel k, u64 page) except? 0:
    if not PageCompound(k, page):
        return page_index(k, page)
    head: u64 = compound_head(k, page)
    if PageHuge(k, head):
        return page_index(k, head) << compound_order(k, head)
    return page_index(k, head) + (page - head)

cdef inline flag is_zone_device_page(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & PG_zone_device != 0

cdef inline flag is_device_private_page(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & PG_device_private != 0

cdef inline i32 mod_node_page_state(Kernel k, i32 item, i64 delta) except -1:
    k.vm_stat[item] += delta
    return 0

cdef inline flag page_is_file_cache(Kernel k, u64 page) except? -1:
    return k.pg_flags[page] & PG_swapbacked == 0

cdef inline i32 page_lru_base_type(Kernel k, u64 page) except -1:
    if k.pg_flags[page] & PG_swapbacked:
        return LRU_INACTIVE_ANON
    return LRU_INACTIVE_FILE

cdef inline i32 page_lru(Kernel k, u64 page) except -1:
    flags: u32 = k.pg_flags[page]
    if flags & PG_unevictable:
        return LRU_UNEVICTABLE
    lru: i32 = LRU_INACTIVE_ANON if flags & PG_swapbacked else LRU_INACTIVE_FILE
    return lru + LRU_ACTIVE if flags & PG_active else lru

cdef inline i32 page_off_lru(Kernel k, u64 page) except -1:
    lru: i32 = page_lru(k, page)
    flags: u32 = k.pg_flags[page]
    if flags & (PG_unevictable | PG_active) == PG_unevictable | PG_active:
        BUG_PAGE("mm_inline.h:93 a page is active and unevictable", page)
    if flags & (PG_unevictable | PG_active):
        k.pg_flags[page] = flags & ~(PG_unevictable | PG_active)
    return lru

cdef inline LruVec mem_cgroup_page_lruvec(Kernel k, u64 page):
    if not k.pg_memcg[page]:
        return k.root_lruvec
    memcg: MemCgroup = k.memcgs[k.pg_memcg[page]]
    return memcg.lruvec

cdef inline i32 update_lru_size(Kernel k, LruVec lruvec, i32 lru, i64 nr_pages) except -1:
    lruvec.size[lru] += nr_pages
    k.vm_stat[NR_INACTIVE_ANON + lru] += nr_pages
    return 0

cdef inline i32 add_page_to_lru_list(Kernel k, u64 page, LruVec lruvec, i32 lru) except -1:
    update_lru_size(k, lruvec, lru, hpage_nr_pages(k, page))
    if lru == LRU_UNEVICTABLE and k.profile.mlock_counts:
        return 0
    newest: u64 = lruvec.head[lru]
    k.pg_lru_next[page] = newest
    k.pg_lru_prev[page] = 0
    if newest:
        k.pg_lru_prev[newest] = page
    else:
        lruvec.tail[lru] = page
    lruvec.head[lru] = page
    return 0

cdef inline i32 del_page_from_lru_list(Kernel k, u64 page, LruVec lruvec, i32 lru) except -1:
    nr_pages: i64 = hpage_nr_pages(k, page)
    update_lru_size(k, lruvec, lru, -nr_pages)
    if lru == LRU_UNEVICTABLE and k.profile.mlock_counts:
        return 0
    newer: u64 = k.pg_lru_prev[page]
    older: u64 = k.pg_lru_next[page]
    if (k.pg_lru_next[newer] if newer else lruvec.head[lru]) != page:
        BUG_PAGE("list_debug.c:51 list_del corruption: the page is on another LRU list", page)
    if newer:
        k.pg_lru_next[newer] = older
    else:
        lruvec.head[lru] = older
    if older:
        k.pg_lru_prev[older] = newer
    else:
        lruvec.tail[lru] = newer
    return 0

cdef inline i32 update_page_reclaim_stat(LruVec lruvec, i32 file, i32 rotated) except -1:
    lruvec.recent_scanned[file] += 1
    lruvec.recent_rotated[file] += rotated
    return 0

cdef inline flag pte_none(u64 pte) noexcept:
    return pte & ~PTE_NONE_IGNORES == 0

cdef inline flag pte_present(u64 pte) noexcept:
    return pte & (_PAGE_PRESENT | _PAGE_PROTNONE) != 0

cdef inline flag is_swap_pte(u64 pte) noexcept:
    return not pte_none(pte) and not pte_present(pte)

cdef inline flag pte_young(u64 pte) noexcept:
    return pte & _PAGE_ACCESSED != 0

cdef inline flag pte_dirty(u64 pte) noexcept:
    return pte & _PAGE_DIRTY != 0

cdef inline flag pte_write(u64 pte) noexcept:
    return pte & _PAGE_RW != 0

cdef inline flag pte_soft_dirty(u64 pte) noexcept:
    return pte & _PAGE_SOFT_DIRTY != 0

cdef inline flag pte_unused(u64 pte) noexcept:
    return pte & _PAGE_UNUSED != 0

cdef inline u64 pte_pfn(u64 pte) noexcept:
    return (pte & PTE_PFN_MASK) >> PAGE_SHIFT

cdef inline u64 pfn_pte(u64 pfn, u64 prot) noexcept:
    return pfn << PAGE_SHIFT | prot

cdef inline u64 pte_mkdirty(u64 pte) noexcept:
    return pte | _PAGE_DIRTY | _PAGE_SOFT_DIRTY

cdef inline u64 pte_mkwrite(u64 pte) noexcept:
    return pte | _PAGE_RW

cdef inline u64 pte_mkyoung(u64 pte) noexcept:
    return pte | _PAGE_ACCESSED

cdef inline u64 pte_swp_mksoft_dirty(u64 pte) noexcept:
    return pte | _PAGE_SWP_SOFT_DIRTY

cdef inline flag pmd_present(u64 pmd) noexcept:
    return pmd & (_PAGE_PRESENT | _PAGE_PROTNONE | _PAGE_PSE) != 0

cdef inline flag pmd_trans_huge(u64 pmd) noexcept:
    return pmd & _PAGE_PSE != 0 and pmd & _PAGE_DEVMAP == 0

cdef inline flag is_swap_pmd(u64 pmd) noexcept:
    return not pte_none(pmd) and not pmd_present(pmd)

cdef inline i32 swp_type(u64 entry) noexcept:
    return entry >> SWP_TYPE_SHIFT

cdef inline u64 swp_offset(u64 entry) noexcept:
    return entry & SWP_OFFSET_MASK

cdef inline u64 swp_entry_to_pte(u64 entry) noexcept:
    kind: u64 = swp_type(entry)
    return kind << SWP_PTE_TYPE_SHIFT | swp_offset(entry) << SWP_PTE_OFFSET_SHIFT

cdef inline u64 pte_to_swp_entry(u64 pte) noexcept:
    kind: u64 = pte >> SWP_PTE_TYPE_SHIFT & SWP_PTE_TYPE_MASK
    return kind << SWP_TYPE_SHIFT | pte >> SWP_PTE_OFFSET_SHIFT

cdef inline flag is_migration_entry(u64 entry) noexcept:
    kind: i32 = swp_type(entry)
    return kind == SWP_MIGRATION_READ or kind == SWP_MIGRATION_WRITE

cdef inline flag is_device_private_entry(u64 entry) noexcept:
    kind: i32 = swp_type(entry)
    return kind == SWP_DEVICE_READ or kind == SWP_DEVICE_WRITE

cdef inline flag is_pmd_migration_entry(u64 pmd) noexcept:
    return is_swap_pmd(pmd) and is_migration_entry(pte_to_swp_entry(pmd))

cdef inline u64 _descend(Kernel k, u64 entry) except? 0:
    value: u64 = k.pt[entry]
    if value & (_PAGE_PRESENT | _PAGE_PSE) != _PAGE_PRESENT:
        return 0
    return ((value & PTE_PFN_MASK) >> PAGE_SHIFT) * PTRS_PER_PTE

cdef inline u64 pmd_offset(Kernel k, Mm mm, u64 address) except? 0:
    if mm.pmd_tag == (address >> PUD_SHIFT) + 1:
        return mm.pmd_table + (address >> PMD_SHIFT & 511)
    base: u64 = _descend(k, mm.pgd * PTRS_PER_PTE + (address >> PGDIR_SHIFT & 511))
    if not base:
        return 0
    base = _descend(k, base + (address >> PUD_SHIFT & 511))
    if not base:
        return 0
    mm.pmd_tag = (address >> PUD_SHIFT) + 1
    mm.pmd_table = base
    return base + (address >> PMD_SHIFT & 511)

cdef inline u64 pte_offset(Kernel k, u64 pmd, u64 address) except? 0:
    value: u64 = k.pt[pmd]
    if not value & _PAGE_PRESENT or value & _PAGE_PSE:
        return 0
    return ((value & PTE_PFN_MASK) >> PAGE_SHIFT) * PTRS_PER_PTE + (address >> PAGE_SHIFT & 511)

cdef inline u64 ptl_of(u64 pte) noexcept:
    return pte // PTRS_PER_PTE

cdef inline i32 pte_lock(Kernel k, u64 pte) except -1:
    row: u64 = pte // PTRS_PER_PTE
    if sched.exploring or k.pt_locked[row]:
        _wait_for_table(k, row)
    k.pt_locked[row] = 1
    if sched.checking:
        lock_acquired(RANK_PTL, row, WRITE_MODE, False)
    return 0

cdef inline i32 pte_unlock(Kernel k, u64 pte) except -1:
    row: u64 = pte // PTRS_PER_PTE
    if sched.exploring:
        sched_point(OP_RELEASE, RANK_PTL, row)
    if sched.checking:
        lock_released(RANK_PTL, row, WRITE_MODE)
    k.pt_locked[row] = 0
    return 0

cdef inline u64 ptep_get(Kernel k, u64 pte) except? 0:
    if sched.exploring:
        sched_point(OP_READ, FIELD_PTE, pte)
    return k.pt[pte]

cdef inline i32 set_pte_at(Kernel k, Mm mm, u64 address, u64 ptep, u64 pte) except -1:
    if sched.exploring:
        sched_point(OP_WRITE, FIELD_PTE, ptep)
    k.pt[ptep] = pte
    return 0

cdef inline u64 ptep_get_and_clear(Kernel k, Mm mm, u64 address, u64 ptep) except? 0:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PTE, ptep)
    pte: u64 = k.pt[ptep]
    k.pt[ptep] = 0
    return pte

cdef inline u64 inc_mm_tlb_gen(Mm mm) except? 0:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_TLB, mm.ident)
    mm.tlb_gen += 1
    return mm.tlb_gen

cdef inline i32 flush_tlb_page(Kernel k, Vma vma, u64 address) except -1:
    mm: Mm = vma.vm_mm
    new_gen: u64 = inc_mm_tlb_gen(mm)
    if mm.cpu_bitmap:
        _flush_tlb_cpus(k, mm.cpu_bitmap, mm, address, address + PAGE_SIZE, new_gen)
    return 0

cdef inline flag ptep_test_and_clear_young(Kernel k, Vma vma, u64 address, u64 ptep) except? -1:
    if sched.exploring:
        sched_point(OP_RMW, FIELD_PTE, ptep)
    pte: u64 = k.pt[ptep]
    if not pte & _PAGE_ACCESSED:
        return False
    k.pt[ptep] = pte ^ _PAGE_ACCESSED
    return True

cdef inline u64 ptep_clear_flush(Kernel k, Vma vma, u64 address, u64 ptep) except? 0:
    mm: Mm = vma.vm_mm
    pte: u64 = ptep_get_and_clear(k, mm, address, ptep)
    if pte & _PAGE_PRESENT or (pte & _PAGE_PROTNONE and mm.tlb_flush_pending):
        flush_tlb_page(k, vma, address)
    return pte

cdef inline flag ptep_clear_flush_young(Kernel k, Vma vma, u64 address, u64 ptep) except? -1:
    young: flag = ptep_test_and_clear_young(k, vma, address, ptep)
    if young and not k.profile.clear_young_keeps_tlb:
        flush_tlb_page(k, vma, address)
    return young

cdef inline flag should_defer_flush(Kernel k, Mm mm, u64 flags) except? -1:
    if not flags & TTU_BATCH_FLUSH:  # L633
        return False
    one: u64 = 1
    here: u64 = one << sched.current.cpu
    if sched.exploring:
        sched_point(OP_READ, FIELD_TLB, mm.ident)
    should_defer: flag = False
    if mm.cpu_bitmap & ~here:  # L637
        should_defer = True
    return should_defer

cdef inline i32 mmu_notifier_invalidate_range_start(Kernel k, Mm mm, u64 start, u64 end) except -1:
    if k.notifier_log is not None:
        _log(k, "invalidate_range_start", mm, start, end)
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            notifier.invalidate_range_start(k, mm, start, end)
    return 0

cdef inline i32 mmu_notifier_invalidate_range(Kernel k, Mm mm, u64 start, u64 end) except -1:
    if k.notifier_log is not None:
        _log(k, "invalidate_range", mm, start, end)
    notifier: MmuNotifier
    if mm.notifier is not None:
        for notifier in mm.notifier:
            notifier.invalidate_range(k, mm, start, end)
    return 0

cdef inline flag ptep_clear_flush_young_notify(Kernel k, Vma vma, u64 address, u64 ptep) except? -1:
    young: flag = ptep_clear_flush_young(k, vma, address, ptep)
    mm: Mm = vma.vm_mm
    if mm.notifier is None and k.notifier_log is None:
        return young
    if _tell_clear_flush_young(k, mm, address, address + PAGE_SIZE):
        young = True
    return young

cdef inline u64 linear_page_index(Kernel k, Vma vma, u64 address) except? 0:
    order: i32
    if vma.vm_flags & VM_HUGETLB:
        order = vma.vm_file.f_mapping.hstate.order
        return ((address - vma.vm_start) >> (order + PAGE_SHIFT)) + (vma.vm_pgoff >> order)
    return ((address - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff

cdef inline u64 vma_page_address(Kernel k, u64 page, Vma vma) except? 0:
    pgoff: u64 = page_to_pgoff(k, page)
    delta: u64
    if pgoff >= vma.vm_pgoff:
        delta = (pgoff - vma.vm_pgoff) << PAGE_SHIFT & ULONG_MAX
        return (vma.vm_start + delta) & ULONG_MAX
    delta = (vma.vm_pgoff - pgoff) << PAGE_SHIFT & ULONG_MAX
    if delta <= vma.vm_start:
        return vma.vm_start - delta
    return ULONG_MAX - (delta - vma.vm_start - 1)

cdef inline u64 vma_address(Kernel k, u64 page, Vma vma) except? 0:
    start: u64 = vma_page_address(k, page, vma)
    end: u64 = (start + PAGE_SIZE * (hpage_nr_pages(k, page) - 1)) & ULONG_MAX
    if k.debug_vm and (start >= vma.vm_end or end < vma.vm_start):
        # The last page of a huge one may lie inside while its first one is before the VMA.
        BUG_PAGE("internal.h:342 vma_address: the page is outside the VMA", page)
    return start if start > vma.vm_start else vma.vm_start

cdef inline flag userfaultfd_armed(Vma vma) except? -1:
    return vma.vm_flags & (VM_UFFD_MISSING | VM_UFFD_WP) != 0

cdef inline i32 mm_counter_file(Kernel k, u64 page) except -1:
    return MM_SHMEMPAGES if PageSwapBacked(k, page) else MM_FILEPAGES

cdef inline i32 mm_counter(Kernel k, u64 page) except -1:
    return MM_ANONPAGES if PageAnon(k, page) else mm_counter_file(k, page)

cdef inline i64 get_mm_rss(Kernel k, Mm mm) except? -1:
    return mm.rss_stat[MM_FILEPAGES] + mm.rss_stat[MM_ANONPAGES] + mm.rss_stat[MM_SHMEMPAGES]

cdef inline i32 update_hiwater_rss(Kernel k, Mm mm) except -1:
    rss: i64 = get_mm_rss(k, mm)
    if mm.hiwater_rss < rss:
        mm.hiwater_rss = rss
    return 0

cdef inline i32 inc_mm_counter(Kernel k, Mm mm, i32 member) except -1:
    mm.rss_stat[member] += 1
    return 0

cdef inline i32 dec_mm_counter(Kernel k, Mm mm, i32 member) except -1:
    mm.rss_stat[member] -= 1
    return 0

# SPDX-License-Identifier: GPL-2.0-only
"""Random operations on huge anonymous memory, against contents kept page by page.

After each operation everything is counted anew from all page tables: mappings of huge pages and of
their parts, references, rss, statistics, tables that are set aside, and what rmap finds.
"""

from __future__ import annotations

from huge import HUGE, frame, free_pages, head_at, huge_kernel
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kernels import Failing
from spaces import RW, Space

from rmap.check import check_kernel
from rmap.mm.bits import (
    HPAGE_PMD_NR,
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    NR_ANON_MAPPED,
    NR_ANON_THPS,
    PROT_READ,
    VM_FAULT_ERROR,
    VM_WRITE,
)
from rmap.mm.content import page_read, page_write
from rmap.mm.mm_types import Task
from rmap.mm.page import compound_head, total_mapcount
from rmap.mm.pgtable import pmd_offset, pmd_trans_huge, pte_lookup, pte_pfn, pte_present
from rmap.sync.core import assert_nothing_held, scheduler

#: Pages of the arena: three PMDs.
PAGES = 3 * HUGE
#: Where operations begin and end: at borders of huge pages, beside them, and in their middle.
PLACE = st.sampled_from(
    sorted({at + by for at in range(0, PAGES, HUGE) for by in (0, 1, 100, HUGE // 2, HUGE - 1)})
)
COUNT = st.sampled_from([1, 7, HUGE // 2, HUGE - 1, HUGE, HUGE + 1, 2 * HUGE])


class Process:
    """An address space, and what it ought to read: number of page to what was stored there."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.mapped: set[int] = set()
        self.content: dict[int, bytes] = {}

    def forget(self, first: int, count: int) -> None:
        """What was stored in a range is there no more."""
        for page in [page for page in self.content if first <= page < first + count]:
            del self.content[page]


class HugePages(RuleBasedStateMachine):
    """Up to three related processes, all of whose memory is huge where it can be."""

    profile = "4.18"

    def __init__(self) -> None:
        super().__init__()
        sched = scheduler()
        self.before = sched.current, sched.checking
        sched.current, sched.checking = Task("huge", 1, None), True

    def teardown(self) -> None:
        sched = scheduler()
        try:
            self.k.inject = None
            for process in self.processes:
                process.space.exit()
            assert check_kernel(self.k, {}) == []
            assert free_pages(self.k) == self.k.nr_pages
            assert self.k.pmd_huge_pte == {}
            assert_nothing_held()
        finally:
            sched.current, sched.checking = self.before

    @initialize()
    def start(self) -> None:
        self.k = huge_kernel(14 * HUGE, self.profile)
        self.processes = [Process(Space(self.k))]
        self.stores = 0

    WHO = st.integers(0, 2)

    def pick(self, who: int) -> Process:
        return self.processes[who % len(self.processes)]

    @rule(who=WHO, first=PLACE, count=COUNT)
    def mmap(self, who: int, first: int, count: int) -> None:
        process = self.pick(who)
        count = min(count, PAGES - first)
        assert process.space.mmap(first, count) > 0
        process.mapped |= set(range(first, first + count))
        process.forget(first, count)

    @rule(who=WHO)
    def mmap_all(self, who: int) -> None:
        self.mmap(who, 0, PAGES)

    def access(self, process: Process, page: int, write: bool) -> None:
        """Load or store; a load has to find what was stored last."""
        space = process.space
        if page not in process.mapped:
            return
        write = write and bool(space.vma(page).vm_flags & VM_WRITE)
        for _ in range(3):
            result = space.fault(page, write)
            if result == -1:
                # PROT_NONE
                return
            if result & VM_FAULT_ERROR:
                assert self.k.inject is not None
                return
        if write:
            self.stores += 1
            data = b"store %d" % self.stores
            page_write(self.k, frame(space, page), 0, data)
            process.content[page] = data
        self.expect(process, page)

    def expect(self, process: Process, page: int) -> None:
        pfn = frame(process.space, page)
        found = bytes(page_read(self.k, pfn, 0, 16)).rstrip(b"\0") if pfn else b""
        assert found == process.content.get(page, b""), f"page {page}"

    @rule(who=WHO, page=PLACE)
    def write(self, who: int, page: int) -> None:
        self.access(self.pick(who), page, True)

    @rule(who=WHO, page=PLACE)
    def read(self, who: int, page: int) -> None:
        self.access(self.pick(who), page, False)

    SITE = st.sampled_from(["huge_page", "page", "page_table", "memcg_charge"])

    @rule(who=WHO, page=PLACE, site=SITE, first=st.integers(1, 3))
    def write_with_little_memory(self, who: int, page: int, site: str, first: int) -> None:
        self.k.inject = Failing(first, site)
        self.access(self.pick(who), page, True)
        self.k.inject = None

    @rule(who=WHO, first=PLACE, count=COUNT)
    def munmap(self, who: int, first: int, count: int) -> None:
        process = self.pick(who)
        assert process.space.munmap(first, count) == 0
        process.mapped -= set(range(first, first + count))
        process.forget(first, count)

    @rule(who=WHO, first=PLACE, count=COUNT)
    def dontneed(self, who: int, first: int, count: int) -> None:
        process = self.pick(who)
        process.space.madvise(first, count, MADV_DONTNEED)
        process.forget(first, count)

    @rule(who=WHO, first=PLACE, count=COUNT, huge=st.booleans())
    def advise(self, who: int, first: int, count: int, huge: bool) -> None:
        space = self.pick(who).space
        space.madvise(first, count, MADV_HUGEPAGE if huge else MADV_NOHUGEPAGE)

    @rule(who=WHO, first=PLACE, count=COUNT, prot=st.sampled_from([0, PROT_READ, RW, RW]))
    def mprotect(self, who: int, first: int, count: int, prot: int) -> None:
        self.pick(who).space.mprotect(first, count, prot)

    @rule(who=WHO, first=PLACE, count=COUNT, to=PLACE)
    def mremap(self, who: int, first: int, count: int, to: int) -> None:
        process = self.pick(who)
        source = set(range(first, first + count))
        if not source <= process.mapped or to + count > PAGES:
            return
        if first < to + count and to < first + count:
            return
        result = process.space.mremap(first, count, to)
        # What was at the new place is gone, also if the source turns out to be in two VMAs.
        process.mapped -= set(range(to, to + count))
        process.forget(to, count)
        if result < 0:
            return
        process.mapped -= source
        process.mapped |= set(range(to, to + count))
        moved = {page: data for page, data in process.content.items() if page in source}
        process.forget(first, count)
        process.content |= {page - first + to: data for page, data in moved.items()}

    @precondition(lambda self: len(self.processes) < 3)
    @rule(who=WHO)
    def fork(self, who: int) -> None:
        parent = self.pick(who)
        child = Process(parent.space.fork())
        child.mapped = set(parent.mapped)
        child.content = dict(parent.content)
        self.processes.append(child)

    @precondition(lambda self: len(self.processes) > 1)
    @rule(who=WHO)
    def exit(self, who: int) -> None:
        process = self.pick(who)
        self.processes.remove(process)
        process.space.exit()

    @invariant()
    def everything_is_counted_right(self) -> None:
        assert check_kernel(self.k, {}) == []
        assert self.k.warnings == []
        assert_nothing_held()

    @invariant()
    def mappings_add_up(self) -> None:
        """The same counts once more, in the fewest words."""
        whole: dict[int, int] = {}
        parts: dict[int, int] = {}
        for process in self.processes:
            self.walk(process.space, whole, parts)
        for head, mapped in whole.items():
            in_parts = sum(parts.get(head + i, 0) for i in range(HPAGE_PMD_NR))
            assert total_mapcount(self.k, head) == mapped + in_parts
        assert self.k.vm_stat[NR_ANON_THPS] == len(whole)
        only = [pfn for pfn in parts if compound_head(self.k, pfn) not in whole]
        assert self.k.vm_stat[NR_ANON_MAPPED] == len(whole) * HPAGE_PMD_NR + len(only)

    def walk(self, space: Space, whole: dict[int, int], parts: dict[int, int]) -> None:
        """Count what an address space maps by PMDs and by PTEs."""
        for first in range(0, PAGES, HUGE):
            slot = pmd_offset(self.k, space.mm, space.at(first))
            if not slot or not self.k.pt[slot]:
                continue
            if pmd_trans_huge(self.k.pt[slot]):
                head = head_at(space, first)
                if head != self.k.huge_zero_page:
                    whole[head] = whole.get(head, 0) + 1
                continue
            base = pte_lookup(self.k, space.mm, space.at(first))
            for i in range(HUGE):
                pte = self.k.pt[base + i]
                if pte and pte_present(pte) and pte_pfn(pte) != self.k.zero_page:
                    parts[pte_pfn(pte)] = parts.get(pte_pfn(pte), 0) + 1

    @invariant()
    def contents_are_what_was_stored(self) -> None:
        for process in self.processes:
            for page in process.content:
                self.expect(process, page)


class HugePages61(HugePages):
    """The same by the rules of 6.1: exclusive pages, no huge copies."""

    profile = "6.1"


class HugePages612(HugePages):
    """The same by the rules of 6.12."""

    profile = "6.12"


SETTINGS = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestHugePages = HugePages.TestCase
TestHugePages.settings = SETTINGS
TestHugePages61 = HugePages61.TestCase
TestHugePages61.settings = SETTINGS
TestHugePages612 = HugePages612.TestCase
TestHugePages612.settings = SETTINGS

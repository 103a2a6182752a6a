# SPDX-License-Identifier: GPL-2.0-only
"""VMAs against an oracle that knows nothing of VMAs: what each page is, one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from kernels import make_kernel
from spaces import Space

from rmap.check import check_kernel
from rmap.mm.bits import (
    EFAULT,
    EINVAL,
    ENOMEM,
    MADV_DOFORK,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_KEEPONFORK,
    MADV_MERGEABLE,
    MADV_RANDOM,
    MADV_UNMERGEABLE,
    MADV_WIPEONFORK,
    PAGE_SHIFT,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    VM_DONTCOPY,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_RAND_READ,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WIPEONFORK,
    VM_WRITE,
)
from rmap.mm.filemap import make_file
from rmap.mm.mm_types import Mm, Task, Vma
from rmap.mm.tlb import make_cpus
from rmap.sync.core import assert_nothing_held, scheduler

PAGES = 40
TO_FLAGS = {PROT_NONE: 0, PROT_READ: VM_READ, PROT_READ | PROT_WRITE: VM_READ | VM_WRITE}
ADVICE = {
    MADV_DONTFORK: (VM_DONTCOPY, 0),
    MADV_DOFORK: (0, VM_DONTCOPY),
    MADV_WIPEONFORK: (VM_WIPEONFORK, 0),
    MADV_KEEPONFORK: (0, VM_WIPEONFORK),
    MADV_RANDOM: (VM_RAND_READ, 0),
    MADV_MERGEABLE: (VM_MERGEABLE, 0),
    MADV_UNMERGEABLE: (0, VM_MERGEABLE),
}


@dataclass(frozen=True)
class Page:
    """What a page of an address space is: flags, and, if of a file, which of its pages."""

    flags: int
    file: str = ""
    index: int = 0


#: The flags that the oracle follows.
FOLLOWED = VM_READ | VM_WRITE | VM_SHARED | VM_LOCKED
for _set, _clear in ADVICE.values():
    FOLLOWED |= _set | _clear


def layout_of(space: Space) -> dict[int, Page]:
    """What each page is by the VMAs."""
    found: dict[int, Page] = {}
    for vma in space.mm.vmas:
        first = space.page(vma.vm_start)
        for page in range(first, space.page(vma.vm_end)):
            assert page not in found, "VMAs overlap"
            name, index = "", 0
            if vma.vm_file is not None:
                name = vma.vm_file.name
                index = vma.vm_pgoff + page - first
            found[page] = Page(vma.vm_flags & FOLLOWED, name, index)
    return found


def could_merge(left: Vma, right: Vma) -> bool:
    """Whether two neighbours differ in nothing: what the kernel never leaves behind a change."""
    return (
        left.vm_end == right.vm_start
        and (left.vm_flags ^ right.vm_flags) & ~VM_SOFTDIRTY == 0
        and left.vm_file is right.vm_file
        and left.vm_pgoff + ((left.vm_end - left.vm_start) >> PAGE_SHIFT) == right.vm_pgoff
        and left.anon_vma is right.anon_vma
    )


def check_list(mm: Mm) -> None:
    """The list by address, the linked list and the count say the same."""
    linked = []
    vma, before = mm.mmap, None
    while vma is not None:
        assert vma.vm_prev is before
        linked.append(vma)
        vma, before = vma.vm_next, vma
    assert linked == list(mm.vmas)
    assert mm.map_count == len(linked)
    assert all(a.vm_end <= b.vm_start for a, b in pairwise(linked))
    assert mm.total_vm == sum(v.vm_end - v.vm_start for v in linked) >> PAGE_SHIFT
    locked = [v for v in linked if v.vm_flags & VM_LOCKED]
    assert mm.locked_vm == sum(v.vm_end - v.vm_start for v in locked) >> PAGE_SHIFT


class Layout(RuleBasedStateMachine):
    """Two processes, one of them forked from the other at some time, and two files."""

    profile = "4.18"

    def __init__(self) -> None:
        super().__init__()
        sched = scheduler()
        self.before = sched.current, sched.checking
        sched.current, sched.checking = Task("layout", 1, None), True

    def teardown(self) -> None:
        sched = scheduler()
        try:
            for space, _ in self.spaces:
                space.exit()
            assert check_kernel(self.k, {}) == []
            assert self.k.nr_free == self.k.nr_pages - (1 if self.k.zero_page else 0) - sum(
                len(file.f_mapping.i_pages) for file in self.files
            )
            assert_nothing_held()
        finally:
            sched.current, sched.checking = self.before

    @initialize()
    def start(self) -> None:
        self.k = make_kernel(4096, self.profile)
        make_cpus(self.k, 2)
        self.files = [make_file(self.k, name, 64, True) for name in ("F", "G")]
        self.spaces: list[tuple[Space, dict[int, Page]]] = [(Space(self.k), {})]
        self.changed: tuple[Space, dict[int, Page]] | None = None

    def pick(self, which: int, merges: bool = True) -> tuple[Space, dict[int, Page]]:
        """A process for the next operation, which merges what it changes, or may not."""
        space, pages = self.spaces[which % len(self.spaces)]
        self.changed = (space, dict(pages)) if merges else None
        return space, pages

    def mapped(self, pages: dict[int, Page], first: int, count: int) -> list[int]:
        """The pages from the first one up to the first hole."""
        run = []
        for page in range(first, first + count):
            if page not in pages:
                break
            run.append(page)
        return run

    WHO = st.integers(0, 1)
    FIRST = st.integers(0, PAGES - 1)
    COUNT = st.integers(1, 10)
    PROT = st.sampled_from(sorted(TO_FLAGS))

    @rule(who=WHO, first=FIRST, count=COUNT, prot=PROT, kind=st.integers(0, 4))
    def mmap(self, who: int, first: int, count: int, prot: int, kind: int) -> None:
        space, pages = self.pick(who)
        file = self.files[kind % 2] if kind else None
        shared = kind in (1, 2)
        if file is None:
            assert space.mmap(first, count, prot) == space.at(first)
        else:
            # At an index that goes on where a neighbour of the same file ends.
            assert space.mmap(first, count, prot, shared=shared, file=file, pgoff=first) > 0
        for page in range(first, first + count):
            flags = TO_FLAGS[prot] | (VM_SHARED if shared else 0)
            pages[page] = Page(flags, file.name if file else "", page if file else 0)
            if self.changed is not None:
                # Made anew, even if it was the same before.
                self.changed[1].pop(page, None)

    @rule(who=WHO, first=FIRST, count=COUNT)
    def munmap(self, who: int, first: int, count: int) -> None:
        space, pages = self.pick(who)
        assert space.munmap(first, count) == 0
        for page in range(first, first + count):
            pages.pop(page, None)

    @rule(who=WHO, first=FIRST, count=COUNT, prot=PROT)
    def mprotect(self, who: int, first: int, count: int, prot: int) -> None:
        space, pages = self.pick(who)
        run = self.mapped(pages, first, count)
        assert space.mprotect(first, count, prot) == (0 if len(run) == count else -ENOMEM)
        for page in run:
            flags = pages[page].flags & ~(VM_READ | VM_WRITE) | TO_FLAGS[prot]
            pages[page] = replace(pages[page], flags=flags)
        if any(pages[page].flags & VM_LOCKED for page in run):
            # A populate of locked memory may have come after the merge, and made twins.
            self.changed = None

    @rule(who=WHO, first=FIRST, count=COUNT, advice=st.sampled_from(sorted(ADVICE)))
    def madvise(self, who: int, first: int, count: int, advice: int) -> None:
        space, pages = self.pick(who)
        on, off = ADVICE[advice]
        expected = 0
        for page in range(first, first + count):
            if page not in pages:
                expected = -ENOMEM
                continue
            if advice == MADV_WIPEONFORK and pages[page].file:
                expected = -EINVAL
                break
            if advice == MADV_MERGEABLE and pages[page].flags & VM_SHARED:
                continue
            pages[page] = replace(pages[page], flags=pages[page].flags & ~off | on)
        assert space.madvise(first, count, advice) == expected

    @rule(who=WHO, first=FIRST, count=COUNT, lock=st.booleans())
    def mlock(self, who: int, first: int, count: int, lock: bool) -> None:
        space, pages = self.pick(who, merges=not lock)
        run = self.mapped(pages, first, count)
        result = space.mlock(first, count) if lock else space.munlock(first, count)
        unreadable = any(not pages[page].flags & (VM_READ | VM_WRITE) for page in run)
        if not (lock and unreadable and len(run) == count):
            assert result == (0 if len(run) == count else -ENOMEM)
        for page in run:
            flags = pages[page].flags & ~VM_LOCKED | (VM_LOCKED if lock else 0)
            pages[page] = replace(pages[page], flags=flags)

    @rule(
        who=WHO, first=FIRST, count=COUNT, to=FIRST, new=COUNT, same=st.booleans(),
        dontunmap=st.booleans(),
    )  # fmt: skip
    def mremap(
        self, who: int, first: int, count: int, to: int, new: int, same: bool, dontunmap: bool
    ) -> None:
        space, pages = self.pick(who, merges=False)
        dontunmap = dontunmap and self.k.profile.mremap_dontunmap
        new = count if same or dontunmap else new
        overlap = first < to + new and to < first + count
        result = space.mremap(first, count, to, new, dontunmap)
        if self.k.profile.mremap_looks_at_source_first and first not in pages:
            assert result == -EFAULT
            return
        if overlap:
            assert result == -EINVAL
            return
        for page in range(to, to + new):
            pages.pop(page, None)
        if count > new:
            for page in range(first + new, first + count):
                pages.pop(page, None)
            count = new
        if result < 0:
            return
        assert result == space.at(to)
        source = [pages[page] for page in range(first, first + count)]
        for i in range(new):
            last = source[-1]
            page = source[i] if i < count else replace(last, index=last.index + i - count + 1)
            pages[to + i] = page if page.file else replace(page, index=0)
        for page in range(first, first + count):
            if dontunmap:
                pages[page] = replace(pages[page], flags=pages[page].flags & ~VM_LOCKED)
            else:
                pages.pop(page)

    @rule(who=WHO, first=FIRST, count=COUNT, write=st.booleans())
    def touch(self, who: int, first: int, count: int, write: bool) -> None:
        space, pages = self.pick(who, merges=False)
        need = VM_WRITE if write else VM_READ
        for page in range(first, first + count):
            if page in pages and pages[page].flags & need:
                if pages[page].file and pages[page].index >= 64:
                    continue
                space.fault(page, write)

    @rule(who=WHO, first=FIRST, count=COUNT, advice=st.sampled_from([MADV_DONTNEED, MADV_FREE]))
    def discard(self, who: int, first: int, count: int, advice: int) -> None:
        space, _ = self.pick(who, merges=False)
        space.madvise(first, count, advice)

    @rule()
    def fork(self) -> None:
        self.changed = None
        if len(self.spaces) > 1:
            self.spaces.pop()[0].exit()
        space, pages = self.spaces[0]
        child = {
            page: replace(what, flags=what.flags & ~VM_LOCKED)
            for page, what in pages.items()
            if not what.flags & VM_DONTCOPY
        }
        self.spaces.append((space.fork(), child))

    @rule()
    def exit_parent(self) -> None:
        self.changed = None
        if len(self.spaces) > 1:
            self.spaces.pop(0)[0].exit()

    @invariant()
    def pages_are_what_they_were_made(self) -> None:
        for space, pages in self.spaces:
            check_list(space.mm)
            assert layout_of(space) == pages

    @invariant()
    def nothing_is_left_unmerged(self) -> None:
        if self.changed is None:
            return
        space, before = self.changed
        after = layout_of(space)
        for left, right in pairwise(space.mm.vmas):
            page = space.page(right.vm_start)
            if any(before.get(side) != after.get(side) for side in (page - 1, page)):
                assert not could_merge(left, right)

    @invariant()
    def everything_is_counted_right(self) -> None:
        assert check_kernel(self.k, {}) == []
        assert self.k.warnings == []


class Layout61(Layout):
    """The same under the rules of v6.1, with MREMAP_DONTUNMAP."""

    profile = "6.1"


class Layout612(Layout):
    """The same under the rules of v6.12."""

    profile = "6.12"


SETTINGS = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLayout = Layout.TestCase
TestLayout.settings = SETTINGS
TestLayout61 = Layout61.TestCase
TestLayout61.settings = SETTINGS
TestLayout612 = Layout612.TestCase
TestLayout612.settings = SETTINGS

# SPDX-License-Identifier: GPL-2.0-only
"""Walks of the reverse map: whom they meet, in which order, under which locks."""

from __future__ import annotations

import pytest
from handmade import (
    BASE,
    address_of,
    cache,
    crashed,
    family,
    fork,
    make_file,
    map_cached,
    map_file,
    process,
    pte_of,
    touch,
    world,
)
from hypothesis import given
from hypothesis import strategies as st
from kernels import make_mm, map_pages, prepare

from rmap.mm.bits import (
    PAGE_MAPPING_ANON,
    PAGE_MAPPING_KSM,
    PAGE_NOT_IN_VMA,
    PAGE_SHIFT,
    RMAP_VMAS_MAPPED,
    RMAP_VMAS_VISITED,
    RMAP_WALKS,
)
from rmap.mm.bug import KernelBug
from rmap.mm.mm_types import AnonVma, Kernel, Vma
from rmap.mm.page import PageLocked, lock_page, page_mapcount, unlock_page
from rmap.mm.page_vma_mapped import PageVmaMappedWalk, page_vma_mapped_walk
from rmap.mm.pgtable import pmd_alloc, pmd_offset, pte_pfn
from rmap.mm.rmap import LISTING, where
from rmap.mm.rmap_counts import page_remove_rmap
from rmap.mm.rmap_walk import (
    RmapWalkControl,
    mm_find_pmd,
    page_address_in_vma,
    rmap_walk,
    rmap_walk_locked,
)
from rmap.sync.core import LockViolation


class Visitor(RmapWalkControl):
    """Notes every VMA that a walk comes to, and at which address."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
        self.seen.append((vma.vm_mm.comm, (address >> PAGE_SHIFT) - BASE))
        return True

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


class Mapped(Visitor):
    """Notes only the VMAs that really map the page."""

    def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
        pvmw = PageVmaMappedWalk(page, vma, address)
        while page_vma_mapped_walk(k, pvmw):
            self.seen.append((vma.vm_mm.comm, (pvmw.address >> PAGE_SHIFT) - BASE))
        return True


def walked(k: Kernel, page: int, control: Visitor | None = None) -> list[str]:
    """The processes that a walk of a page meets."""
    control = control or Visitor()
    file = not k.pg_mapping[page] & 1
    if file:
        lock_page(k, page)
    rmap_walk(k, page, control)
    if file:
        unlock_page(k, page)
    return control.names


# ---------------------------------------------------------------- anonymous pages


@pytest.mark.parametrize("children", [0, 1, 15])
def test_a_walk_meets_everybody_who_shares_the_page_parents_first(children: int) -> None:
    k = world()
    page, vmas = family(k, children)
    assert walked(k, page, Mapped()) == [f"p{i}" for i in range(children + 1)]
    assert page_mapcount(k, page) == len(vmas)
    counts = [k.vm_stat[item] for item in (RMAP_WALKS, RMAP_VMAS_VISITED, RMAP_VMAS_MAPPED)]
    assert counts == [1, children + 1, children + 1]


def test_a_page_that_a_child_wrote_is_looked_for_only_in_it_and_its_children() -> None:
    k = world()
    parent = process(k)
    shared = touch(k, parent)
    child = fork(k, parent, "c")
    own = touch(k, child, 1)
    fork(k, child, "d")
    assert walked(k, shared) == ["p0", "c", "d"]
    assert walked(k, own) == ["c", "d"]


def test_vmas_that_do_not_map_the_page_are_visited_in_vain() -> None:
    """A page of the parent, written after the fork: children are in the tree all the same."""
    k = world()
    parent = process(k)
    touch(k, parent)
    for name in "abc":
        fork(k, parent, name)
    page = touch(k, parent, 1)
    assert walked(k, page, Mapped()) == ["p0"]
    assert k.vm_stat[RMAP_VMAS_VISITED] == 4
    assert k.vm_stat[RMAP_VMAS_MAPPED] == 1


def test_only_vmas_that_reach_to_the_page_are_visited() -> None:
    k = world()
    mm = make_mm(k)
    first = map_pages(k, mm, BASE, 2)
    page = touch(k, first)
    # A neighbour that shares the anon_vma, as after a split.
    second = map_pages(k, mm, BASE + 2, 2)
    prepare(k, second)
    assert second.anon_vma is first.anon_vma
    other = touch(k, second, 1)
    for pfn, expected in ((page, [("p", 0)]), (other, [("p", 3)])):
        visitor = Visitor()
        rmap_walk(k, pfn, visitor)
        assert visitor.seen == expected


class Stopping(Visitor):
    """Ends a walk in one of the two ways, after so many VMAs; passes over some."""

    def __init__(self, *, refuse: int = 99, done: int = 99, skip: str = "") -> None:
        super().__init__()
        self.refuse = refuse
        self.enough = done
        self.skip = skip

    def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
        super().rmap_one(k, page, vma, address)
        return len(self.seen) < self.refuse

    def done(self, k: Kernel, page: int) -> bool:
        return len(self.seen) >= self.enough

    def invalid_vma(self, k: Kernel, vma: Vma) -> bool:
        return vma.vm_mm.comm in self.skip.split()


@pytest.mark.parametrize("anonymous", [True, False])
def test_a_walk_ends_when_told_and_passes_over_whom_it_is_told_to(anonymous: bool) -> None:
    k = world()
    if anonymous:
        page, _ = family(k, 3)
    else:
        file = make_file(k)
        page = cache(k, file, 1)
        for i in range(4):
            map_cached(k, page, map_file(k, file, f"p{i}"))
    assert walked(k, page, Stopping(refuse=2)) == ["p0", "p1"]
    assert walked(k, page, Stopping(done=3)) == ["p0", "p1", "p2"]
    assert walked(k, page, Stopping(skip="p0 p2")) == ["p1", "p3"]
    assert walked(k, page, RecordingBase()) == []
    assert k.vm_stat[RMAP_VMAS_VISITED] == 2 + 3 + 4 + 4


class RecordingBase(Visitor):
    """Does with each VMA what the base class does: nothing."""

    rmap_one = RmapWalkControl.rmap_one


def test_the_default_lock_does_not_ask_whether_the_page_is_mapped() -> None:
    """Migration brings pages back that nothing maps."""
    k = world()
    page, _ = family(k, 1)
    page_remove_rmap(k, page, False)
    page_remove_rmap(k, page, False)
    assert walked(k, page) == ["p0", "p1"]


class OwnLock(Visitor):
    """Finds the anon_vma in its own way."""

    def __init__(self, anon_vma: AnonVma | None) -> None:
        super().__init__()
        self.anon_vma = anon_vma

    def anon_lock(self, k: Kernel, page: int) -> AnonVma | None:
        if self.anon_vma is not None:
            self.anon_vma.root.rwsem.down_read()
        return self.anon_vma


def test_a_control_may_lock_in_its_own_way_and_give_up() -> None:
    k = world()
    page, vmas = family(k, 2)
    assert walked(k, page, OwnLock(vmas[1].anon_vma)) == ["p1"]
    assert walked(k, page, OwnLock(None)) == []
    assert RmapWalkControl().anon_lock(k, cache(k, make_file(k), 0)) is None


def test_a_walk_under_the_callers_lock_takes_none() -> None:
    k = world()
    page, vmas = family(k, 2)
    visitor = Visitor()
    with pytest.raises(LockViolation, match="needs anon_vma->rwsem"):
        rmap_walk_locked(k, page, visitor)
    root = vmas[2].anon_vma.root
    root.rwsem.down_write()
    rmap_walk_locked(k, page, visitor)
    assert root.rwsem.count == -1
    root.rwsem.up_write()
    assert visitor.names == ["p0", "p1", "p2"]
    # Pages as only a bug could make them: of KSM, and with a tag but no anon_vma.
    stray = touch(k, vmas[0], 1)
    for word, check in ((PAGE_MAPPING_KSM, r"rmap.c:1875"), (PAGE_MAPPING_ANON, r"rmap.c:1777")):
        k.pg_mapping[stray] = word
        with pytest.raises(KernelBug, match=check):
            rmap_walk_locked(k, stray, visitor)


def test_a_merged_page_that_has_no_node_yet_is_walked_nowhere_and_locked_all_the_same() -> None:
    k = world()
    page, _ = family(k, 1)
    k.pg_mapping[page] = PAGE_MAPPING_KSM
    with pytest.raises(KernelBug, match=r"ksm.c rmap_walk_ksm: the page is not locked"):
        rmap_walk(k, page, Visitor())
    visitor = Visitor()
    lock_page(k, page)
    rmap_walk(k, page, visitor)
    unlock_page(k, page)
    assert visitor.seen == []


# ---------------------------------------------------------------- files


def test_the_vmas_of_a_file_are_met_by_where_they_start_in_it() -> None:
    k = world()
    file = make_file(k)
    page = cache(k, file, 5)
    for name, pgoff, pages in (("late", 5, 1), ("all", 0, 8), ("before", 0, 5), ("part", 3, 4)):
        map_file(k, file, name, pages, pgoff=pgoff)
    visitor = Visitor()
    lock_page(k, page)
    rmap_walk(k, page, visitor)
    unlock_page(k, page)
    assert visitor.seen == [("all", 5), ("part", 2), ("late", 0)]


def test_a_page_of_a_file_is_walked_only_while_it_is_locked() -> None:
    k = world()
    file = make_file(k)
    page = cache(k, file, 0)
    map_cached(k, page, map_file(k, file))
    with pytest.raises(KernelBug, match=r"rmap.c:1832"):
        rmap_walk(k, page, Visitor())
    visitor = Visitor()
    lock_page(k, page)
    with pytest.raises(LockViolation, match="needs mapping->i_mmap_rwsem"):
        rmap_walk_locked(k, page, visitor)
    file.f_mapping.i_mmap_rwsem.down_read()
    rmap_walk_locked(k, page, visitor)
    assert file.f_mapping.i_mmap_rwsem.count == 1
    file.f_mapping.i_mmap_rwsem.up_read()
    assert visitor.names == ["p0"]
    # Truncated meanwhile: in no file any more.
    k.pg_mapping[page] = 0
    rmap_walk(k, page, visitor)
    unlock_page(k, page)
    assert visitor.names == ["p0"]
    assert not PageLocked(k, page)


def test_rmap_one_runs_under_the_rmap_lock_and_no_other() -> None:
    k = world()
    page, vmas = family(k, 0)

    class Counting(Visitor):
        def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
            self.seen.append(("readers", vmas[0].anon_vma.root.rwsem.count))
            return True

    counting = Counting()
    rmap_walk(k, page, counting)
    assert counting.seen == [("readers", 1)]
    assert vmas[0].anon_vma.root.rwsem.count == 0


def test_a_bug_in_the_middle_leaves_the_machine_to_be_looked_at() -> None:
    k = world()
    page, vmas = family(k, 1)

    class Broken(Visitor):
        def rmap_one(self, k: Kernel, page: int, vma: Vma, address: int) -> bool:
            raise KernelBug("this one")

    with pytest.raises(KernelBug, match="this one"):
        rmap_walk(k, page, Broken())
    assert vmas[0].anon_vma.root.rwsem.count == 1, "held by the dead"
    crashed()


def test_walks_are_traced() -> None:
    k = world()
    page, _ = family(k, 0)
    traced: list[tuple[str, tuple[object, ...]]] = []
    k.tracer = lambda name, arguments: traced.append((name, arguments))
    rmap_walk(k, page, Visitor())
    assert traced == [("rmap_walk", (page,))]


# ---------------------------------------------------------------- addresses


def test_where_an_anonymous_page_would_be_in_a_vma_of_the_family() -> None:
    k = world()
    parent = process(k)
    page = touch(k, parent, 2)
    child = fork(k, parent, "c")
    stranger = process(k, comm="q")
    assert page_address_in_vma(k, page, parent) == address_of(parent, 2)
    assert page_address_in_vma(k, page, child) == address_of(child, 2)
    assert page_address_in_vma(k, page, stranger) == PAGE_NOT_IN_VMA
    prepare(k, stranger)
    assert page_address_in_vma(k, page, stranger) == PAGE_NOT_IN_VMA
    # Also where nothing maps it any more; but not where the VMA does not reach.
    child.vm_end = address_of(child, 2)
    assert page_address_in_vma(k, page, child) == PAGE_NOT_IN_VMA
    parent.vm_start, parent.vm_pgoff = address_of(parent, 3), parent.vm_pgoff + 3
    assert page_address_in_vma(k, page, parent) == PAGE_NOT_IN_VMA
    k.pg_mapping[page] = PAGE_MAPPING_KSM
    assert page_address_in_vma(k, page, child) == PAGE_NOT_IN_VMA


def test_where_a_page_of_a_file_would_be_in_a_vma() -> None:
    k = world()
    file, other = make_file(k, "f"), make_file(k, "g")
    page = cache(k, file, 3)
    vma = map_file(k, file, pgoff=1)
    assert page_address_in_vma(k, page, vma) == address_of(vma, 2)
    assert page_address_in_vma(k, page, map_file(k, other, "q")) == PAGE_NOT_IN_VMA
    assert page_address_in_vma(k, page, process(k)) == PAGE_NOT_IN_VMA
    assert page_address_in_vma(k, page, map_file(k, file, "r", pgoff=4)) == PAGE_NOT_IN_VMA
    k.pg_mapping[page] = 0
    assert page_address_in_vma(k, page, vma) == PAGE_NOT_IN_VMA


def test_mm_find_pmd_finds_tables_only() -> None:
    k = world()
    vma = process(k)
    mm = vma.vm_mm
    assert mm_find_pmd(k, mm, vma.vm_start) == 0
    pmd = pmd_alloc(k, mm, vma.vm_start)
    assert mm_find_pmd(k, mm, vma.vm_start) == 0
    touch(k, vma)
    assert mm_find_pmd(k, mm, vma.vm_start) == pmd == pmd_offset(k, mm, vma.vm_start)
    k.pt[pmd] |= 1 << 7
    assert mm_find_pmd(k, mm, vma.vm_start) == 0


# ---------------------------------------------------------------- a property, and the listing


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
def test_a_walk_meets_exactly_those_whose_page_tables_name_the_page(
    steps: list[tuple[int, bool]],
) -> None:
    """Processes fork and write in any order; walks of all pages against a search of all tables."""
    k = world()
    vmas = [process(k)]
    touch(k, vmas[0])
    for number, (who, forks) in enumerate(steps):
        vma = vmas[who % len(vmas)]
        if forks:
            vmas.append(fork(k, vma, f"p{len(vmas)}"))
        elif not pte_of(k, vma, 1 + number % 3):
            touch(k, vma, 1 + number % 3)
    expected: dict[int, set[tuple[str, int]]] = {}
    for vma in vmas:
        for place in range(4):
            pte = pte_of(k, vma, place)
            if pte:
                expected.setdefault(pte_pfn(pte), set()).add((vma.vm_mm.comm, place))
    for page, who_maps in expected.items():
        visitor = Mapped()
        rmap_walk(k, page, visitor)
        assert sorted(visitor.seen) == sorted(who_maps)
        assert page_mapcount(k, page) == len(who_maps)


def test_every_function_of_the_listing_is_where_the_table_says() -> None:
    from ast import FunctionDef, parse, walk
    from pathlib import Path

    import rmap.mm

    package = Path(rmap.mm.__path__[0])
    assert [line for line, _, _ in LISTING] == sorted(line for line, _, _ in LISTING)
    for line, name, module in LISTING:
        text = (package / f"{module}.py").read_text(encoding="utf-8")
        defined = {node.name for node in walk(parse(text)) if isinstance(node, FunctionDef)}
        # Callbacks are methods, whose docstrings name them.
        assert name in defined or f'"""{name}()' in text, (line, name)
    assert where("try_to_unmap") == "rmap.mm.unmap (mm/rmap.c:1663)"
    with pytest.raises(KeyError):
        where("try_to_migrate")

# SPDX-License-Identifier: GPL-2.0-only
"""Helpers for drgn: walks of single pages find what reading everything at once finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmap.image import MemoryImage
from rmap.image.flags import Pte
from rmap.query.kinds import Kind, page_kinds

from .reduced import Reduced

drgn = pytest.importorskip("drgn", reason="helpers for drgn need drgn")
PAGE = 4096


@pytest.fixture(scope="module")
def program(reduced: Reduced) -> Any:
    """A program as a user of drgn has one, with types and symbols attached."""
    from rmap.source.dump.program import open_dump

    return open_dump(reduced.path, reduced.debug)


@pytest.fixture(scope="module")
def helpers() -> Any:
    from rmap import drgn_helpers

    return drgn_helpers


@pytest.fixture(scope="module")
def spaces(program: Any) -> list[int]:
    """The mms in the order of the image's."""
    from rmap.source.dump.facts import Facts
    from rmap.source.dump.tasks import read_tasks

    return read_tasks(program, Facts(program)).mms()


def page_of(program: Any, pfn: int) -> Any:
    from drgn.helpers.linux.mm import pfn_to_page

    return pfn_to_page(program, pfn)


def expected(image: MemoryImage, spaces: list[int], pfn: int) -> list[tuple[int, int]]:
    """(mm, address) of all entries that map a frame."""
    ptes = image.ptes
    return sorted(
        (spaces[int(ptes["mm"][row])],
         int(ptes["address"][row]) + (pfn - int(ptes["pfn"][row])) * PAGE)
        for row in image.reverse.mappings(np.array([pfn], "u8")).rows.tolist()
    )  # fmt: skip


def samples(image: MemoryImage, each: int) -> Iterator[int]:
    """Some mapped frames of every kind, the first, the last and others between."""
    kinds = page_kinds(image)
    mapped = (image.pages["mapcount"] > 0) & (image.pages["mapping"] != 0)
    for kind in np.unique(kinds[mapped]).tolist():
        rows = np.flatnonzero(mapped & (kinds == kind))
        picked = rows[np.unique(np.linspace(0, len(rows) - 1, each).astype(int))]
        yield from image.pages["pfn"][picked].tolist()


def test_a_walk_finds_all_mappings_of_a_page(
    program: Any, helpers: Any, image: MemoryImage, spaces: list[int]
) -> None:
    walked = set()
    for pfn in samples(image, 60):
        page = page_of(program, pfn)
        found = sorted((vma.vm_mm.value_(), at) for vma, at in helpers.page_mappings(page))
        assert found == expected(image, spaces, pfn), hex(pfn)
        walked.add(int(page_kinds(image)[image.find_pages([pfn])[0]]))
    assert walked >= {Kind.ANON, Kind.ANON_HUGE, Kind.SHMEM, Kind.KSM, Kind.HUGETLB}


def test_candidates_are_more_than_mappings(program: Any, helpers: Any, image: MemoryImage) -> None:
    """Each mapping is a candidate, in the VMA that covers it."""
    candidates = mappings = 0
    for pfn in samples(image, 10):
        page = page_of(program, pfn)
        places = list(helpers.rmap_walk(page))
        assert all(
            vma.vm_start.value_() <= at < vma.vm_end.value_() and at % PAGE == 0
            for vma, at in places
        )
        candidates += len(places)
        mappings += len(list(helpers.page_mappings(page)))
    assert candidates > mappings > 0


def test_a_walk_of_a_whole_huge_page(program: Any, helpers: Any, image: MemoryImage) -> None:
    """Of 512 pages there is one address for each VMA, where they begin in it."""
    from drgn.helpers.linux.mm import compound_head, compound_nr

    row = int(np.flatnonzero(page_kinds(image) == Kind.ANON_HUGE)[0])
    head = compound_head(page_of(program, int(image.pages["pfn"][row])))
    count = compound_nr(head).value_()
    assert count == 512
    whole = {vma.value_(): at for vma, at in helpers.rmap_walk(head, count)}
    last = {vma.value_(): at for vma, at in helpers.rmap_walk(head + count - 1)}
    first = {vma.value_(): at for vma, at in helpers.rmap_walk(head)}
    assert whole.keys() >= last.keys() | first.keys()
    assert all(whole[vma] <= at for vma, at in last.items())
    assert all(whole[vma] == at for vma, at in first.items())


def test_what_a_page_belongs_to(program: Any, helpers: Any, image: MemoryImage) -> None:
    kinds = page_kinds(image)
    for pfn in samples(image, 5):
        row = int(image.find_pages([pfn])[0])
        page, word = page_of(program, pfn), int(image.pages["mapping"][row])
        anon_vma, mapping = helpers.page_anon_vma(page), helpers.page_mapping(page)
        node = helpers.page_stable_node(page)
        assert [bool(anon_vma), bool(mapping), bool(node)].count(True) == 1
        assert anon_vma.value_() + mapping.value_() + node.value_() == word & ~3
        assert helpers.PageAnon(page) == bool(anon_vma or node)
        assert helpers.PageKsm(page) == bool(node) == (kinds[row] == Kind.KSM)
        assert helpers.PageHugetlb(page) == (kinds[row] == Kind.HUGETLB)
        assert helpers.page_pgoff(page) == int(image.pages["index"][row])


def test_pages_of_nobody_have_no_places(program: Any, helpers: Any, image: MemoryImage) -> None:
    """Their words for mapping and index are used for other things, and are not followed."""
    kinds = page_kinds(image)
    looked = 0
    for kind in (Kind.SLAB, Kind.PGTABLE, Kind.FREE, Kind.OTHER):
        for row in np.flatnonzero((kinds == kind) & (image.pages["mapping"] == 0))[:40].tolist():
            page = page_of(program, int(image.pages["pfn"][row]))
            assert list(helpers.rmap_walk(page)) == []
            looked += 1
    assert looked > 100


def test_lists_and_trees_tell_of_the_same_edges(
    program: Any, helpers: Any, image: MemoryImage
) -> None:
    """What a VMA hangs on has it in its tree."""
    ptes = image.ptes
    anonymous = np.flatnonzero((image.pages["mapcount"] > 0) & (page_kinds(image) == Kind.ANON))
    pfn = int(image.pages["pfn"][anonymous[len(anonymous) // 2]])
    assert len(ptes)
    (vma, address), *_ = helpers.page_mappings(page_of(program, pfn))
    hangs_on = list(helpers.for_each_anon_vma(vma))
    assert helpers.page_anon_vma(page_of(program, pfn)).value_() in {a.value_() for a in hangs_on}
    first = vma.vm_pgoff.value_()
    for anon_vma in hangs_on:
        chains = list(helpers.anon_vma_interval_tree_foreach(anon_vma))
        assert vma.value_() in {chain.vma.value_() for chain in chains}
        assert all(chain.anon_vma.value_() == anon_vma.value_() for chain in chains)
        starts = [chain.vma.vm_pgoff.value_() for chain in chains]
        assert starts == sorted(starts)
        here = {one.value_() for one in helpers.for_each_anon_vma_vma(anon_vma, first, first)}
        assert vma.value_() in here
        before = helpers.for_each_anon_vma_vma(anon_vma, 0, first - 1)
        assert vma.value_() not in {one.value_() for one in before}
    assert helpers.mm_mapped_pfn(vma.vm_mm, address) == pfn
    assert helpers.mm_mapped_pfn(vma.vm_mm, 0) is None


def test_the_vmas_of_a_file(program: Any, helpers: Any, image: MemoryImage) -> None:
    row = int(np.flatnonzero((image.pages["mapcount"] > 1) & (page_kinds(image) == Kind.SHMEM))[0])
    page = page_of(program, int(image.pages["pfn"][row]))
    mapping, index = helpers.page_mapping(page), helpers.page_pgoff(page)
    everyone = [vma.value_() for vma in helpers.vma_interval_tree_foreach(mapping)]
    here = [vma.value_() for vma in helpers.vma_interval_tree_foreach(mapping, index, index)]
    assert set(here) <= set(everyone)
    assert len(everyone) == len(set(everyone)) >= len(here) > 1
    assert {vma.value_() for vma, _ in helpers.rmap_walk(page)} == set(here)


def test_items_of_ksm(program: Any, helpers: Any, image: MemoryImage) -> None:
    row = int(np.flatnonzero(page_kinds(image) == Kind.KSM)[0])
    page = page_of(program, int(image.pages["pfn"][row]))
    items = list(helpers.ksm_rmap_items(helpers.page_stable_node(page)))
    places = list(helpers.rmap_walk(page))
    assert len(places) == len({(vma.value_(), at) for vma, at in places})
    assert {item.address.value_() & ~(PAGE - 1) for item in items} >= {at for _, at in places}


def test_protected_entries_are_mappings(
    program: Any, helpers: Any, image: MemoryImage, spaces: list[int]
) -> None:
    """The processor takes them for absent, the kernel for present."""
    flags = image.ptes["flags"]
    rows = np.flatnonzero(flags & np.uint32(Pte.PROT_NONE) != 0)
    assert len(rows)
    for row in rows[:20].tolist():
        mm = drgn.Object(program, "struct mm_struct *", spaces[int(image.ptes["mm"][row])])
        found = helpers.mm_mapped_pfn(mm, int(image.ptes["address"][row]))
        assert found == int(image.ptes["pfn"][row])


def test_one_import_at_the_prompt(reduced: Reduced) -> None:
    names: dict[str, Any] = {}
    from rmap import drgn_helpers

    for name in drgn_helpers.__all__:
        names[name] = getattr(drgn_helpers, name)
        assert names[name].__doc__
    program = drgn.Program()
    program.set_core_dump(reduced.path)
    with pytest.raises(Exception, match="types and symbols"):
        # The types of this one are in a file beside it, and the symbols as well.
        names["attach_btf"](program, Path(reduced.debug[0]))


# Damage: a copy of the dump in which one word is another.


def poke(reduced: Reduced, program: Any, copy: Path, address: int, value: int) -> None:
    """Write a word at a kernel address into a copy of a dump."""
    from drgn.helpers.linux.mm import virt_to_phys

    from rmap.source.dump.segments import read_segments

    physical = virt_to_phys(program, address).value_()
    segments = read_segments(reduced.path)
    row = int(np.flatnonzero((segments.physical <= physical)
                             & (physical < segments.physical + segments.size))[0])  # fmt: skip
    offset = int(segments.offset[row]) + physical - int(segments.physical[row])
    if not copy.exists():
        copy.write_bytes(reduced.path.read_bytes())
    with copy.open("r+b") as file:
        file.seek(offset)
        file.write(value.to_bytes(8, "little"))


def shared_anonymous_page(image: MemoryImage) -> int:
    rows = np.flatnonzero((image.pages["mapcount"] > 1) & (page_kinds(image) == Kind.ANON))
    return int(image.pages["pfn"][rows[0]])


def test_a_tree_that_loops_is_told(
    reduced: Reduced, program: Any, helpers: Any, image: MemoryImage, tmp_path: Path
) -> None:
    from drgn.helpers import ValidationError

    from rmap.source.dump.program import open_dump

    pfn = shared_anonymous_page(image)
    root = helpers.page_anon_vma(page_of(program, pfn)).rb_root.rb_root.rb_node
    poke(reduced, program, tmp_path / "vmcore", root.rb_left.address_, root.value_())
    damaged = page_of(open_dump(tmp_path / "vmcore", reduced.debug), pfn)
    with pytest.raises(ValidationError, match=f"{root.value_():#x} is met twice"):
        list(helpers.rmap_walk(damaged))


def test_a_list_that_loops_is_told(
    reduced: Reduced, program: Any, helpers: Any, image: MemoryImage, tmp_path: Path
) -> None:
    from drgn.helpers import ValidationError

    from rmap.source.dump.program import open_dump

    pfn = shared_anonymous_page(image)
    vma, _ = next(helpers.page_mappings(page_of(program, pfn)))
    first = vma.anon_vma_chain.next
    poke(reduced, program, tmp_path / "vmcore", first.next.address_, first.value_())
    again = drgn.Object(open_dump(tmp_path / "vmcore", reduced.debug), "struct vm_area_struct *",
                        vma.value_())  # fmt: skip
    with pytest.raises(ValidationError, match="met twice"):
        list(helpers.for_each_anon_vma(again))


def test_a_link_to_nowhere_is_a_fault(
    reduced: Reduced, program: Any, helpers: Any, image: MemoryImage, tmp_path: Path
) -> None:
    from rmap.source.dump.program import open_dump

    pfn = shared_anonymous_page(image)
    root = helpers.page_anon_vma(page_of(program, pfn)).rb_root.rb_root.rb_node
    poke(reduced, program, tmp_path / "vmcore", root.rb_left.address_, 0xDEAD_0000_0000_0100)
    damaged = page_of(open_dump(tmp_path / "vmcore", reduced.debug), pfn)
    with pytest.raises(drgn.FaultError):
        list(helpers.rmap_walk(damaged))

# SPDX-License-Identifier: GPL-2.0-only
"""`rmap fsck`: each check finds its defect, leaves a sound image alone, and says what it misses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rmap.errors import QueryError
from rmap.image import MemoryImage
from rmap.image.flags import Pte
from rmap.query.checks import CHECKS, Outcome, check
from rmap.query.checks.mappers import MAX_MAPPERS
from rmap.query.fsck import fsck
from tests.images import FILE, PAGE, SPECIAL, ZERO, World, swap_entry

HEAP = 0x400000
TABLE = 0x7F0000000000


def outcome(image: MemoryImage, name: str, limit: int = 100) -> Outcome:
    (result,) = fsck(image, checks=[name], limit=limit).results
    return result.outcome


def tallies(found: Outcome) -> dict[tuple[str, str], int]:
    return {(tally.verdict, tally.kind): tally.count for tally in found.tallies}


def family(mapcount: int | None = None) -> World:
    """A shell and its child; they share three pages of a heap, and `mapcount` is of the first."""
    world = World()
    shell = world.process(100, "bash")
    shell.vma(HEAP, pages=4, name="[heap]").map(HEAP, 0x20, 0x21, 0x22)
    shell.fork(101)
    world.pages(0x21, 2)
    world.pages(0x20, mapcount=mapcount)
    return world


def test_sound_image_passes_every_check() -> None:
    world = family()
    world.process(7, "huge").vma(TABLE, pages=512).map_huge(TABLE, 0x200)
    world.folio(0x200, 9)
    world.mms[0].update(rss_anon=3 * PAGE, rss_file=0, rss_shmem=0, swap=0)
    world.swap_slots = [{"entry": swap_entry(9), "count": 0, "cache_pfn": -1}]
    report = fsck(world.build(consistency="frozen"))
    assert report.total == 0
    assert [r.name for r in report.results] == list(CHECKS)
    skipped = {r.name for r in report.results if r.outcome.skipped}
    assert skipped == {
        "anon_vma", "chain", "damage", "huge", "i_mmap", "merged", "reach", "space", "state",
        "tree",
    }  # fmt: skip
    assert not any(r.outcome.findings for r in report.results)
    assert all(t.verdict == "agree" for r in report.results for t in r.outcome.tallies)


def test_one_mapping_too_many_is_a_disagreement() -> None:
    found = outcome(family(mapcount=1).build(), "mapcount")
    (finding,) = found.findings
    assert found.total == 1
    assert finding.facts == {"pfn": 0x20, "kind": "anon", "found": 2, "counted": 1}
    assert finding.what == "page 0x20 (anon): 2 mappings found, more than the 1 counted"
    assert [(m.pids, m.comm, m.address) for m in finding.mappers] == [
        ((100,), "bash", HEAP), ((101,), "bash", HEAP),
    ]  # fmt: skip
    assert tallies(found) == {("agree", "anon"): 2, ("disagree", "anon"): 1}


def test_missing_mapping_is_a_disagreement_when_everybody_was_read() -> None:
    found = outcome(family(mapcount=5).build(), "mapcount")
    assert found.total == 1
    assert "fewer than the 5 counted" in found.findings[0].what
    assert found.hidden == 0


@pytest.mark.parametrize("status", ["denied", "vanished", "self"])
def test_missing_mapping_hides_behind_a_process_not_read_and_is_bounded(status: str) -> None:
    world = family(mapcount=5)
    world.process(1, "init", status=status)
    found = outcome(world.build(), "mapcount")
    assert found.total == 0
    assert tallies(found)["unattributed", "anon"] == 1
    assert found.hidden == 3, "five counted, two found"


def test_missing_mapping_hides_in_an_image_of_some_processes() -> None:
    found = outcome(family(mapcount=3).build(scope="processes"), "mapcount")
    assert (found.total, found.hidden) == (0, 1)


def test_kernel_thread_is_nobody_to_hide_behind() -> None:
    world = family(mapcount=3)
    world.process(2, "kthreadd", status="kernel")
    assert outcome(world.build(), "mapcount").total == 1


def test_mapping_too_many_hides_behind_as_many_missing() -> None:
    # What the check says of itself: an entry too many here, and one of an unread process, cancel.
    world = family(mapcount=2)
    world.process(1, "init", status="denied")
    assert outcome(world.build(), "mapcount").total == 0


def test_pages_that_are_not_judged() -> None:
    world = family(mapcount=9)
    world.frames[0x20]["changed"] = True
    process = world.process(50)
    process.vma(TABLE, pages=4).map(TABLE, 0x30, 0x30, flags=SPECIAL).map(TABLE + 2 * PAGE, 0x31)
    process.pte(TABLE + 3 * PAGE, 0x9999)  # a page that is not in the image
    world.pages(0x30, 1, ZERO)
    world.pages(0x31, 1, FILE, mapcount=-1)
    found = outcome(world.build(), "mapcount")
    assert found.total == 0
    assert found.examined == 6
    assert tallies(found) == {
        ("agree", "anon"): 2,
        ("changed", "anon"): 1,
        ("zero page", "zero"): 1,
        ("not comparable", "file"): 1,
        ("not comparable", "other"): 1,
    }


def test_page_inside_a_huge_entry_names_the_address_of_the_page() -> None:
    world = World()
    world.process(7, "db").vma(TABLE, pages=512).map_huge(TABLE, 0x200)
    world.folio(0x200, 9)
    world.pages(0x2FF, mapcount=0)
    (finding,) = outcome(world.build(), "mapcount").findings
    assert [m.address for m in finding.mappers] == [TABLE + 0xFF * PAGE]


def test_only_the_first_findings_are_described_and_all_are_counted() -> None:
    world = World()
    for pid in range(1, MAX_MAPPERS + 3):
        world.process(pid).vma(HEAP, pages=8).map(HEAP, *range(0x20, 0x28))
    world.pages(0x20, 8, mapcount=1)
    found = outcome(world.build(), "mapcount", limit=2)
    assert found.total == 8
    assert [f.facts["pfn"] for f in found.findings] == [0x20, 0x21]
    assert len(found.findings[0].mappers) == MAX_MAPPERS
    assert outcome(world.build(), "mapcount", limit=0).findings == ()


def test_entry_outside_every_vma() -> None:
    world = family()
    lost = world.process(9, "lost")
    lost.vma(HEAP, pages=1)
    lost.pte(HEAP + PAGE, 0x30)
    world.pages(0x30)
    found = outcome(world.build(consistency="exact"), "stray")
    (finding,) = found.findings
    assert (found.total, finding.facts["address"]) == (1, HEAP + PAGE)
    assert "0x401000 of pid 9 (lost): outside every VMA" in finding.what
    running = outcome(world.build(consistency="passes"), "stray")
    assert (running.total, running.findings, running.hidden) == (0, (), 1), "it may be just new"


def test_huge_entry_that_reaches_beyond_its_vma() -> None:
    world = World()
    world.process(9, "db").vma(TABLE, pages=300).map_huge(TABLE, 0x200)
    world.folio(0x200, 9)
    (finding,) = outcome(world.build(consistency="exact"), "stray").findings
    assert "reaching beyond the end of its VMA" in finding.what


def test_image_without_vmas_cannot_have_strays() -> None:
    assert outcome(World().build(), "stray").skipped == "the image has no VMAs"


def test_small_entries_inside_a_huge_one() -> None:
    world = World()
    process = world.process(9, "db")
    process.vma(TABLE, pages=1024).map_huge(TABLE, 0x200)
    process.pte(TABLE + PAGE, 0x20)
    process.pte(TABLE + 511 * PAGE, 0x21)
    process.pte(TABLE + 512 * PAGE, 0x22)  # just behind it
    other = world.process(10, "db")
    other.vma(TABLE, pages=512).map(TABLE + PAGE, 0x23)  # in another address space
    found = outcome(world.build(), "overlap")
    assert [f.facts["address"] for f in found.findings] == [TABLE + PAGE, TABLE + 511 * PAGE]
    assert tallies(found) == {("agree", "entry"): 3, ("disagree", "entry"): 2}


def counters_of_all_kinds(**counters: int) -> World:
    world = World()
    process = world.process(5, "mix", **counters)
    process.vma(HEAP, pages=8).map(HEAP, 0x20, 0x21).swap(HEAP + 2 * PAGE, 7)
    process.pte(HEAP + 3 * PAGE, 0x22, flags=Pte.SWAP | Pte.MIGRATION)
    process.pte(HEAP + 4 * PAGE, 0x23, flags=Pte.SWAP | Pte.HWPOISON)
    process.pte(HEAP + 5 * PAGE, 0x30, flags=SPECIAL)
    process.vma(TABLE, pages=1, path="/bin/mix").map(TABLE, 0x24)
    world.pages(0x20, 4)
    world.pages(0x24, 1, FILE)
    world.pages(0x30, 1, ZERO)
    return world


SOUND = {"rss_anon": 3 * PAGE, "rss_file": PAGE, "rss_shmem": 0, "swap": PAGE}


def test_counters_equal_a_recount() -> None:
    found = outcome(counters_of_all_kinds(**SOUND).build(consistency="frozen"), "rss")
    assert (found.total, found.examined) == (0, 4)


@pytest.mark.parametrize("counter", sorted(SOUND))
def test_bad_counter_is_found(counter: str) -> None:
    wrong = SOUND | {counter: SOUND[counter] + PAGE}
    found = outcome(counters_of_all_kinds(**wrong).build(consistency="exact"), "rss")
    (finding,) = found.findings
    expected: dict[str, Any] = {"pid": 5, "counter": counter}
    expected |= {"found": SOUND[counter], "counted": SOUND[counter] + PAGE}
    assert finding.facts == expected
    assert tallies(found)["disagree", counter] == 1


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"consistency": "passes"}, "--freeze"),
        ({"consistency": "frozen", "kernel_release": "6.16.3-arch1"}, "approximate"),
        ({"consistency": "frozen", "kernel_release": "strange"}, "approximate"),
    ],
)
def test_counters_that_prove_nothing_are_not_compared(machine: dict[str, str], reason: str) -> None:
    found = outcome(counters_of_all_kinds(**(SOUND | {"swap": 0})).build(**machine), "rss")
    assert reason in found.skipped
    assert found.total == 0


def test_counters_of_an_old_kernel_are_compared_in_a_dump() -> None:
    world = counters_of_all_kinds(**(SOUND | {"swap": 0}))
    image = world.build(consistency="exact", kernel_release="4.18.0", source="dump")
    assert outcome(image, "rss").total == 1


def test_unknown_counters() -> None:
    image = counters_of_all_kinds().build(consistency="exact")
    assert outcome(image, "rss").skipped == "the image has no counters"


def swapped_family(count: int) -> World:
    world = World()
    shell = world.process(100, "bash")
    shell.vma(HEAP, pages=2).swap(HEAP, 8)
    shell.fork(101)
    world.swap_slots = [{"entry": swap_entry(8), "count": count, "cache_pfn": -1}]
    return world


def test_swap_counts() -> None:
    assert outcome(swapped_family(2).build(), "swap").total == 0
    for count, words in ((1, "more than the 1 counted"), (3, "fewer than the 3 counted")):
        (finding,) = outcome(swapped_family(count).build(), "swap").findings
        assert finding.what == f"swap slot 0x8 of area 0: 2 references found, {words}"
        assert [m.pids for m in finding.mappers] == [(100,), (101,)]


def test_swap_references_of_unread_processes() -> None:
    world = swapped_family(6)
    world.process(1, status="denied")
    found = outcome(world.build(), "swap")
    assert (found.total, found.hidden) == (0, 4)
    assert tallies(found) == {("unattributed", "slot"): 1}


def test_swap_entry_of_a_slot_that_is_free() -> None:
    world = swapped_family(2)
    world.process(5).vma(HEAP, pages=1).swap(HEAP, 99)
    (finding,) = outcome(world.build(), "swap").findings
    assert finding.facts == {"entry": swap_entry(99), "found": 1, "counted": 0}


def test_swap_counts_that_the_source_does_not_know() -> None:
    world = swapped_family(1)
    world.swap_slots = []
    assert "does not know" in outcome(world.build(), "swap").skipped


def test_later_sources_add_checks() -> None:
    @check("always", "finds one thing")
    def always(image: MemoryImage, limit: int) -> Outcome:
        return Outcome("things", examined=1, total=1)

    try:
        image = family().build()
        assert Counter(r.name for r in fsck(image).results)["always"] == 1
        assert fsck(image).total == 1
        with pytest.raises(ValueError, match="'always' already"):
            check("always", "again")
    finally:
        del CHECKS["always"]


def test_requests_that_make_no_sense() -> None:
    with pytest.raises(QueryError, match="no check 'colour'; there are anon_vma"):
        fsck(family().build(), checks=["colour"])
    with pytest.raises(QueryError, match="cannot describe -1 findings"):
        fsck(family().build(), limit=-1)

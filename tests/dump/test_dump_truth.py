# SPDX-License-Identifier: GPL-2.0-only
"""What rmap reads in dumps of real kernels is what these kernels said of themselves."""

from __future__ import annotations

import numpy as np
import pytest

from lab.compare import COMPARISONS, in_areas, says_ksm_of_all
from lab.truth import Process
from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte

from .reduced import Reduced


def process(reduced: Reduced, name: str) -> Process:
    """The guest's process of a name (lab/workload.c)."""
    return next(one for one in reduced.truth.processes if one.name == name)


@pytest.mark.parametrize("comparison", list(COMPARISONS))
def test_agrees_with_the_guest(image: MemoryImage, reduced: Reduced, comparison: str) -> None:
    assert list(COMPARISONS[comparison](image, reduced.truth)) == []


def test_the_guest_wrote_much(reduced: Reduced) -> None:
    """So that agreement means something: every kind of page that the laboratory makes is there."""
    truth = reduced.truth
    flags = truth.flags[truth.mapcounts > 0]

    def some(wanted: Kpf, without: int = 0) -> bool:
        has = flags & np.uint64(wanted) == np.uint64(wanted)
        return bool((has & (flags & np.uint64(without) == 0)).any())

    assert sum(len(one.mappings) for one in truth.others) > 30_000
    assert some(Kpf.ANON, Kpf.THP)
    assert some(Kpf.ANON | Kpf.THP)
    assert some(Kpf.THP, Kpf.ANON)
    assert some(Kpf.HUGE)
    assert some(Kpf.HUGE | Kpf.ANON)
    assert some(Kpf.KSM | Kpf.ANON)
    assert some(Kpf.MLOCKED)
    assert some(Kpf.SWAPCACHE)
    assert some(Kpf.SWAPBACKED, Kpf.ANON)
    assert some(Kpf.LRU, Kpf.SWAPBACKED)
    assert sum(len(one.swap_entries) for one in truth.others) > 100
    assert {one.state for one in truth.processes} >= {"Z", "D", "S"}


def test_entries_of_every_size_and_protection(image: MemoryImage) -> None:
    entries = image.ptes
    flags = Pte(int(np.bitwise_or.reduce(entries["flags"])))
    assert {0, 9} <= set(entries["order"].tolist())
    assert Pte.PROT_NONE | Pte.SWAP | Pte.SPECIAL | Pte.HUGETLB | Pte.FILE in flags
    huge = (entries["order"] == 9) & (entries["flags"] & np.uint32(Pte.SPECIAL) != 0)
    assert huge.any(), "the huge zero page is nobody's page"


def test_entries_that_are_markers_or_name_broken_pages(
    image: MemoryImage, reduced: Reduced
) -> None:
    flags = image.ptes["flags"]
    assert (flags & np.uint32(Pte.GUARD) != 0).sum() == 3, "protected by userfaultfd, not there"
    broken = flags & np.uint32(Pte.HWPOISON) != 0
    # Debian's 6.1 for clouds knows no broken memory.
    assert broken.sum() == (reduced.series == "6.12")
    poisoned = image.pages["flags"] & np.uint64(Kpf.HWPOISON) != 0
    assert image.pages["pfn"][poisoned].tolist() == image.ptes["pfn"][broken].tolist()


def test_a_process_without_its_leader_keeps_its_memory(
    image: MemoryImage, reduced: Reduced
) -> None:
    headless = process(reduced, "headless")
    row = image.processes["pid"].tolist().index(headless.pid)
    assert headless.state == "Z"
    assert image.processes["mm"][row] >= 0
    assert image.processes["threads"][row] == 2


def test_processes_that_share_an_address_space(image: MemoryImage, reduced: Reduced) -> None:
    def mm(name: str) -> int:
        row = image.processes["pid"].tolist().index(process(reduced, name).pid)
        return int(image.processes["mm"][row])

    assert mm("sharing") == mm("sharer") >= 0
    assert mm("borrowing") == mm("borrower") >= 0
    assert mm("zombie") == -1
    assert mm("sharing") != mm("first")
    assert image.mms["users"][mm("sharing")] == 2


def test_merged_pages_are_told_from_others_whatever_proc_says(
    image: MemoryImage, reduced: Reduced
) -> None:
    merged = image.pages["flags"] & np.uint64(Kpf.KSM) != 0
    assert 0 < merged.sum() <= 8
    assert set(image.tables["ksm_items"]["pfn"].tolist()) == set(
        image.pages["pfn"][merged].tolist()
    )
    # What the kernel's own account says of anonymous pages can be wrong, by a bit.
    assert says_ksm_of_all(reduced.truth) == (reduced.series == "6.12")


def test_swapped_pages_are_counted_by_their_area(image: MemoryImage, reduced: Reduced) -> None:
    wanted: dict[int, int] = {}
    spaces: set[int] = set()
    for one in reduced.truth.others:
        row = image.processes["pid"].tolist().index(one.pid)
        mm = int(image.processes["mm"][row])
        slots = one.swap_entries[in_areas(one.swap_entries)]
        for _, entry, _ in slots.tolist() if mm not in spaces else []:
            wanted[entry] = wanted.get(entry, 0) + 1
        spaces.add(mm)
    table = image.swap_slots
    counts = dict(zip(table["entry"].tolist(), table["count"].tolist(), strict=True))
    assert {entry: counts[entry] for entry in wanted} == wanted
    cached = table["cache_pfn"] >= 0
    assert cached.any()
    frames = table["cache_pfn"][cached].astype("u8")
    rows = np.searchsorted(image.pages["pfn"], frames)
    assert (image.pages["flags"][rows] & np.uint64(Kpf.SWAPCACHE) != 0).all()

# SPDX-License-Identifier: GPL-2.0-only
"""Comparing what a snapshot found with what must be there, page by page."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rmap.image import MemoryImage
from rmap.image.arrays import ranges
from rmap.image.flags import Pte
from rmap.image.reverse import ReverseMap
from rmap.query.report import report

from . import kernel
from .world import PAGE, Process, Region, World

#: Where a run of pages is mapped: page i of it at page i of each of these regions.
Run = list[tuple[Process, Region]]
Places = set[tuple[int, int]]
_ATTEMPTS = 10


def places_of(image: MemoryImage, index: ReverseMap, key: int) -> Places:
    """(pid, address) of every mapping of page (or swap entry) ``key`` that the index has.

    An address space that several processes share is named by the lowest pid.
    """
    found: Places = set()
    for row in index.mappings(np.array([key], np.uint64)).of(0).tolist():
        entry = image.ptes.row(row)
        address = entry["address"] + (key - entry["pfn"]) * PAGE
        place = (int(image.mms["pid"][entry["mm"]]), address)
        assert place not in found, f"page {key:#x} is found twice at {place}"
        found.add(place)
    return found


def mapped_at(image: MemoryImage, process: Process, address: int) -> Places:
    """Everything that maps the page which ``process`` has at ``address``."""
    return places_of(image, image.reverse, kernel.pfn(process, address))


def expect(world: World, image: MemoryImage, *runs: Run) -> None:
    """Assert that the arena's pages are mapped exactly as ``runs`` say.

    Each page of each run must be found at exactly its places, as often as the kernel counts; and
    nothing else may be found in the arena.
    """
    assert_no_others(world, image, runs)
    for run in runs:
        process, region = run[0]
        for i, address in enumerate(region.addresses):
            wanted = {(p.pid, r.start + i * PAGE) for p, r in run}
            frame = kernel.pfn(process, address)
            found = places_of(image, image.reverse, frame)
            what = f"page {i} of {run}, pfn {frame:#x}"
            assert found == wanted, f"{what}: found {show(found)}, not {show(wanted)}"
            assert_counted(image, frame, len(found), what)
    assert_sizes(world, image)


def assert_counted(image: MemoryImage, frame: int, found: int, what: str) -> None:
    """Assert that the kernel counts ``found`` mappings of the page, and that the image says so."""
    counted = kernel.kpagecount(frame)
    if bool(image.machine["page_mapcount"][0]) or not is_large(frame):
        assert counted == found, f"{what}: the kernel counts {counted} mappings, {found} found"
    row = image.pages.row(int(image.find_pages([frame])[0]))
    assert row["pfn"] == frame, f"{what}: not in the table of pages"
    assert row["mapcount"] == counted, f"{what}: the image says {row['mapcount']}, not {counted}"
    assert row["flags"] == kernel.kpageflags(frame) or not row["changed"]


def is_large(frame: int) -> bool:
    """Whether the page is part of a larger folio."""
    return bool(kernel.kpageflags(frame) & (kernel.KPF_COMPOUND_HEAD | kernel.KPF_COMPOUND_TAIL))


def assert_sizes(world: World, image: MemoryImage) -> None:
    """Assert that the report's RSS, PSS, USS and swap are those of smaps_rollup, in whole kB.

    They are also computed plainly from the image, page by page. Puppets hold still, but they
    share a few pages (vDSO, perhaps libraries) with all others, who come and go between the
    readings: so some attempts are allowed, each with a fresh snapshot.
    """
    if not image.machine["page_mapcount"][0]:
        return  # the kernel itself then sums averages over folios
    by_pid = {process.pid: process for process in world.processes}
    for attempt in range(_ATTEMPTS):
        plain = {pid: sizes(image, pid) for pid in image.mms["pid"].tolist() if pid in by_pid}
        reported = {pid: reported_sizes(image, pid) for pid in plain}
        told = {pid: kernel.rollup_sizes(by_pid[pid]) for pid in plain}
        if plain == reported == told:
            return
        if attempt < _ATTEMPTS - 1:
            image = world.snapshot()
    raise AssertionError(f"sizes: plain {plain}, reported {reported}, smaps_rollup has {told}")


def reported_sizes(image: MemoryImage, pid: int) -> kernel.Sizes:
    """Sizes of a process in the report; the bytes of it rounded down to kB."""
    (group,) = report(image, pids=[pid]).groups
    return kernel.Sizes(
        rss=group.rss.total // 1024,
        pss=group.pss.total // 1024,
        uss=group.uss.total // 1024,
        swap=group.swap // 1024,
    )


def sizes(image: MemoryImage, pid: int) -> kernel.Sizes:
    """RSS, PSS, USS and swap of a process, page by page as the kernel adds them up.

    PSS is the sum of ``floor(2**24 / mapcount) / 4096`` bytes a page, and all are rounded down
    to kB at the end. hugetlb pages are in none of them.
    """
    mm = image.mms["pid"].tolist().index(pid)
    rows = slice(image.pte_offsets[mm], image.pte_offsets[mm + 1])
    flags, orders = image.ptes["flags"][rows], image.ptes["order"][rows]
    swapped = (flags & (Pte.SWAP | Pte.MIGRATION)) == Pte.SWAP
    counted = np.flatnonzero((flags & (Pte.PRESENT | Pte.SPECIAL)) == Pte.PRESENT)
    pages = 1 << orders[counted].astype(np.int64)
    first = np.repeat(image.ptes["pfn"][rows][counted], pages)
    within = ranges(np.zeros(len(pages), np.int64), pages)
    at = image.find_pages(first + within.astype(np.uint64))
    at = at[(image.pages["flags"][at] & np.uint64(kernel.KPF_HUGE)) == 0]
    mapcount = np.maximum(image.pages["mapcount"][at].astype(np.int64), 1)
    return kernel.Sizes(
        rss=len(at) * PAGE // 1024,
        pss=int(((PAGE << 12) // mapcount).sum()) >> 22,
        uss=int((mapcount == 1).sum()) * PAGE // 1024,
        swap=int(swapped.sum()) * PAGE // 1024,
    )


def assert_no_others(world: World, image: MemoryImage, runs: tuple[Run, ...]) -> None:
    """Assert that the image has no present page in the arena but those of ``runs``."""
    wanted = {
        (process.pid, address)
        for run in runs
        for process, region in run
        for address in region.addresses
    }
    found = set(present(world, image))
    assert found == wanted, (
        f"found but not expected: {show(found - wanted)}; "
        f"expected but not found: {show(wanted - found)}"
    )


def present(world: World, image: MemoryImage) -> Iterator[tuple[int, int]]:
    """Give (pid, address) of every page that the image has in the arena, zero pages left out."""
    for process, region, entry in arena_entries(world, image):
        if entry["flags"] & Pte.PRESENT and not entry["flags"] & Pte.SPECIAL:
            yield from ((process, address) for address in pages_of(entry) if address in region)


def arena_entries(world: World, image: MemoryImage) -> Iterator[tuple[int, range, dict[str, int]]]:
    """Give (pid, addresses, entry) of the arena, once for each address space."""
    pid_of_mm = dict(enumerate(image.mms["pid"].tolist()))
    by_pid = {process.pid: process for process in world.processes}
    for mm, pid in pid_of_mm.items():
        if pid not in by_pid:
            continue
        for region in by_pid[pid].arena:
            rows = image.find_ptes(mm, region.start, region.end)
            for row in range(rows.start, rows.stop):
                yield pid, region.addresses, image.ptes.row(row)


def pages_of(entry: dict[str, int]) -> range:
    """Address of each page that an entry maps."""
    size = PAGE << entry["order"]
    return range(entry["address"], entry["address"] + size, PAGE)


def show(places: Places) -> str:
    """Write places down shortly."""
    listed = [f"{pid}:{address:#x}" for pid, address in sorted(places)]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")

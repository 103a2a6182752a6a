# SPDX-License-Identifier: GPL-2.0-only
"""Holds an image that `rmap` made of a dump against what the guest wrote of itself.

Each comparison gives the differences that it found, as lines of text. What cannot agree, and why:

* the process that wrote the truth goes on changing its own memory, so that neither its mappings
  nor the mapcounts and flags of the pages that it maps are compared;
* ``[vsyscall]`` is no VMA, /proc shows it all the same;
* the flags of frames that are neither mapped nor on a list of the LRU nor in a cache are not
  compared: kpageflags of some kernels takes what slab and free pages hold for a mapping;
* smaps counts pages that are broken and that entries name still, the kernel's counters do not;
* kpageflags of some kernels (6.12) says KSM of every anonymous page: it tests for any of two bits
  where it means both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.packages import LabError
from lab.truth import EXCLUSIVE_BIT, FILE_BIT, U64, Process, Truth, read_truth
from rmap.errors import RmapError
from rmap.image import MemoryImage
from rmap.image.flags import VM_LETTERS, Kpf, Pte, Vm
from rmap.query.fsck import fsck
from rmap.source.dump import dump_image

#: Differences of one kind that are told one by one.
_LIMIT = 20
_TOLD = 8
#: Flags of pages that change by themselves.
_UNSTEADY = Kpf.REFERENCED | Kpf.ACTIVE
#: Flags of pages that are somebody's.
_LIVE = Kpf.LRU | Kpf.HUGE | Kpf.SWAPCACHE


def mappings(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """Which page each process has at which address."""
    for process in truth.others:
        found, wanted = _entries(image, process, Pte.PRESENT), process.mappings
        yield from _differ(process, "maps", found[:, :2], wanted[:, :2])


def swapped(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """Which entry of a swap area each process has at which address."""
    for process in truth.others:
        found, wanted = _entries(image, process, Pte.SWAP), process.swap_entries
        slots = wanted[in_areas(wanted)]
        yield from _differ(process, "has swapped", found[:, :2], slots[:, :2])


def special_entries(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """Which entries are markers, or name a page that is broken or on the move.

    They look to /proc like swapped pages of areas that there are not.
    """
    for process in truth.others:
        wanted = process.swap_entries
        wanted = wanted[~in_areas(wanted)]
        markers = _entries(image, process, Pte.GUARD)
        frames = _entries(image, process, Pte.HWPOISON | Pte.MIGRATION | Pte.DEVICE)
        marked = np.isin(wanted[:, 0], markers[:, 0])
        yield from _differ(process, "has a marker", markers[:, :2], wanted[marked][:, :2])
        others = wanted[~marked][:, :2] >> np.array([0, 5], "u8")
        yield from _differ(process, "names frame", frames[:, :2], others)


def in_areas(entries: U64) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which entries are of a swap area. The guest has one; types of other things are above 20."""
    return np.asarray(entries[:, 1] & np.uint64(31) < 8)


def entry_flags(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """Whether an entry maps a page of a file, and one that nobody else maps."""
    for process in truth.others:
        found, wanted = _entries(image, process, Pte.PRESENT), process.mappings
        if len(found) != len(wanted):
            continue  # told by mappings()
        for name, own, theirs in (
            ("file", Pte.FILE, FILE_BIT), ("exclusive", Pte.EXCLUSIVE, EXCLUSIVE_BIT),
        ):  # fmt: skip
            # The zero page is nobody's, and no page of a file.
            ours = found[:, 2] & np.uint64(own) != 0
            wrong = ours != (wanted[:, 2] & np.uint64(theirs) != 0)
            wrong &= found[:, 2] & np.uint64(Pte.SPECIAL) == 0
            wrong &= ~_of_recorder(truth, found[:, 1])
            for row in np.flatnonzero(wrong)[:_LIMIT].tolist():
                address, frame = int(found[row, 0]), int(found[row, 1])
                yield f"{process.pid} {process.name}: {address:#x} frame {frame:#x}: {name}"


def _of_recorder(truth: Truth, frames: U64) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.isin(frames, truth.frames[~truth.settled])


def mapcounts(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """How often each page frame is mapped."""
    rows = np.searchsorted(image.pages["pfn"], truth.frames)
    found = image.pages["mapcount"][rows]
    for at in np.flatnonzero((found != truth.mapcounts) & truth.settled)[:_LIMIT].tolist():
        yield f"frame {truth.frames[at]:#x}: mapcount {found[at]}, kpagecount {truth.mapcounts[at]}"
    mapped = image.pages["pfn"][image.pages["mapcount"] > 0]
    for frame in np.setdiff1d(mapped, truth.frames)[:_LIMIT].tolist():
        yield f"frame {frame:#x}: is mapped, which kpagecount does not say"


def page_flags(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """What each page frame is."""
    rows = np.searchsorted(image.pages["pfn"], truth.frames)
    found = image.pages["flags"][rows]
    live = truth.settled & ((truth.mapcounts > 0) | (truth.flags & np.uint64(_LIVE) != 0))
    differ = (found ^ truth.flags) & ~np.uint64(_UNSTEADY)
    if says_ksm_of_all(truth):
        differ &= ~np.uint64(Kpf.KSM)
    for at in np.flatnonzero((differ != 0) & live)[:_LIMIT].tolist():
        extra, lacks = Kpf(int(differ[at] & found[at])), Kpf(int(differ[at] & truth.flags[at]))
        yield f"frame {truth.frames[at]:#x}: has {extra!r}, lacks {lacks!r}"


def says_ksm_of_all(truth: Truth) -> bool:
    """Whether this kernel's kpageflags takes every anonymous page for a merged one."""
    anon = truth.flags & np.uint64(Kpf.ANON) != 0
    return bool((truth.flags[anon] & np.uint64(Kpf.KSM) != 0).all())


def areas(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """The VMAs of each process, as in its maps."""
    for process in truth.others:
        rows = _rows_of_vmas(image, process)
        wanted = [one for one in process.vmas if one.name != "[vsyscall]"]
        if len(rows) != len(wanted):
            yield f"{process.pid} {process.name}: {len(rows)} VMAs, maps has {len(wanted)}"
            continue
        for row, vma in zip(rows, wanted, strict=True):
            values = image.vmas.row(row)
            flags = Vm(values["flags"])
            letters = "".join(
                letter if flags & bit else "-"
                for letter, bit in (("r", Vm.READ), ("w", Vm.WRITE), ("x", Vm.EXEC))
            ) + ("s" if flags & Vm.SHARED else "p")  # fmt: skip
            shown = sorted(name for name, bit in VM_LETTERS.items() if flags & bit)
            said = sorted(name for name in vma.flags if name in VM_LETTERS)
            name = values["path"] or values["name"]
            file = values["file"]
            if file >= 0 and image.files["deleted"][file]:
                name += " (deleted)"
            offset = values["pgoff"] * 4096 if file >= 0 else 0
            ours = (values["start"], values["end"], letters, offset, values["device"],
                    values["inode"], name, shown)  # fmt: skip
            theirs = (vma.start, vma.end, vma.permissions, vma.offset, vma.device, vma.inode,
                      vma.name, said)  # fmt: skip
            if ours != theirs:
                yield f"{process.pid} {process.name}: VMA {ours}, maps and smaps {theirs}"


def _rows_of_vmas(image: MemoryImage, process: Process) -> list[int]:
    mm = _mm(image, process)
    return np.flatnonzero(image.vmas["mm"] == mm).tolist() if mm >= 0 else []


def rss(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """The counters of each address space against the sums of smaps, which are of its entries."""
    for process in truth.others:
        mm = _mm(image, process)
        if mm < 0:
            continue
        counters = image.mms.row(mm)
        broken = len(_entries(image, process, Pte.HWPOISON)) * 4096
        anon = sum(one.anonymous for one in process.vmas) - broken
        file = sum(one.rss for one in process.vmas) - anon - broken
        # smaps counts what shared memory has in the swap area too, of which no entry tells.
        entries = int(in_areas(process.swap_entries).sum()) * 4096
        for name, ours, theirs in (
            ("anonymous", counters["rss_anon"], anon),
            ("file and shmem", counters["rss_file"] + counters["rss_shmem"], file),
            ("swap", counters["swap"], entries),
        ):  # fmt: skip
            if ours != theirs:
                yield f"{process.pid} {process.name}: {name}: counts {ours}, smaps {theirs}"


def processes(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """Which processes there are, what they are called, and whether they have memory."""
    table = image.processes
    ours = {
        int(pid): (str(comm), bool(mm >= 0), str(status))
        for pid, comm, mm, status in zip(
            table["pid"], table["comm"], table["mm"], table["status"], strict=True
        )
    }
    for process in truth.processes:
        comm, has_memory, status = ours.pop(process.pid, ("", False, "not there"))
        zombie = process.state == "Z" and not process.vmas
        if has_memory != bool(process.vmas) or zombie != (status == "zombie"):
            yield f"{process.pid} {process.name}: {status}, memory {has_memory}"
        # Names of workers of the kernel are longer in /proc.
        if not process.name.startswith(comm[:15]):
            yield f"{process.pid}: is called {comm}, in /proc {process.name}"
    yield from (f"{pid} {one[0]}: is not in /proc" for pid, one in ours.items() if one[1])


def sound(image: MemoryImage, truth: Truth) -> Iterator[str]:
    """No check of ``rmap fsck`` finds anything."""
    for result in fsck(image).results:
        for finding in result.outcome.findings:
            yield f"fsck {result.name}: {finding}"


COMPARISONS: dict[str, Callable[[MemoryImage, Truth], Iterator[str]]] = {
    "processes": processes, "VMAs": areas, "mappings": mappings, "swap entries": swapped,
    "special entries": special_entries,
    "entry flags": entry_flags, "mapcounts": mapcounts, "page flags": page_flags, "rss": rss,
    "fsck": sound,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """What was compared."""

    processes: int
    mappings: int
    swapped: int
    frames: int


def size(truth: Truth) -> Size:
    """How much the guest wrote."""
    return Size(
        len(truth.processes), sum(len(one.mappings) for one in truth.others),
        sum(len(one.swap_entries) for one in truth.others), int(truth.settled.sum()),
    )  # fmt: skip


def compare(image: MemoryImage, truth: Truth) -> dict[str, list[str]]:
    """The differences by the name of the comparison."""
    return {name: list(function(image, truth)) for name, function in COMPARISONS.items()}


def _mm(image: MemoryImage, process: Process) -> int:
    rows = np.flatnonzero(image.processes["pid"] == process.pid)
    return int(image.processes["mm"][rows[0]]) if len(rows) else -1


def _entries(image: MemoryImage, process: Process, wanted: Pte) -> U64:
    """Rows of address, frame and flags of a process's pages, huge entries page by page."""
    mm = _mm(image, process)
    table = image.ptes
    rows = np.flatnonzero((table["mm"] == mm) & (table["flags"] & np.uint32(wanted) != 0))
    if mm < 0:
        rows = rows[:0]
    count = np.int64(1) << table["order"][rows].astype(np.int64)
    place = (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)).astype("u8")
    rows = np.repeat(rows, count)
    address, frame = table["address"][rows], table["pfn"][rows]
    return np.stack([address + place * np.uint64(4096), frame + place,
                     table["flags"][rows].astype("u8")], axis=1)  # fmt: skip


def _differ(process: Process, verb: str, found: U64, wanted: U64) -> Iterator[str]:
    ours, theirs = set(map(tuple, found.tolist())), set(map(tuple, wanted.tolist()))
    for who, some in (("rmap", ours - theirs), ("/proc", theirs - ours)):
        for address, frame in sorted(some)[:_LIMIT]:
            yield f"{process.pid} {process.name}: {verb} {frame:#x} at {address:#x}, {who} only"


def main(words: Sequence[str] | None = None) -> int:
    """Compare a dump with the truth beside it; returns 1 if they differ."""
    parser = argparse.ArgumentParser(prog="python -m lab.compare", description=__doc__)
    parser.add_argument("dump", type=Path)
    parser.add_argument("truth", type=Path, nargs="?", help="truth.log beside the dump")
    parser.add_argument("--debug", type=Path, action="append", default=[])
    given = parser.parse_args(words)
    try:
        truth = read_truth(given.truth or given.dump.parent / "truth.log")
        differences = compare(dump_image(given.dump, given.debug), truth)
    except (LabError, RmapError, OSError) as error:
        print(f"lab.compare: {error}", file=sys.stderr)
        return 2
    for name, lines in differences.items():
        print(f"{name}: {len(lines)} differences" if lines else f"{name}: equal")
        print("".join(f"  {line}\n" for line in lines[:_TOLD]), end="")
    print(size(truth))
    return 1 if any(differences.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

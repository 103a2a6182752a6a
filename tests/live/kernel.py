# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel says, read plainly and without the code under test."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .world import PAGE, Process, Region

PRESENT = 1 << 63
SWAPPED = 1 << 62
GUARD = 1 << 58
PFN = (1 << 55) - 1

KPF_COMPOUND_HEAD = 1 << 15
KPF_COMPOUND_TAIL = 1 << 16
KPF_HUGE = 1 << 17
KPF_KSM = 1 << 21
KPF_ZERO_PAGE = 1 << 24


def _word(path: str, index: int) -> int:
    with open(path, "rb", buffering=0) as file:
        return int(struct.unpack("=Q", os.pread(file.fileno(), 8, index * 8))[0])


def pagemap(process: Process, region: Region) -> list[int]:
    """Entries of /proc/PID/pagemap for each page of ``region``."""
    with open(process.proc / "pagemap", "rb", buffering=0) as file:
        data = os.pread(file.fileno(), region.pages * 8, region.start // PAGE * 8)
    return [word for (word,) in struct.iter_unpack("=Q", data)]


def pfn(process: Process, address: int) -> int:
    """Page frame number at ``address`` (the page must be there)."""
    entry = pagemap(process, Region(address, 1))[0]
    assert entry & PRESENT, f"{process} has no page at {address:#x}"
    return entry & PFN


def pfns(process: Process, region: Region) -> list[int]:
    """Page frame number of each page of ``region``."""
    return [pfn(process, address) for address in region.addresses]


def kpagecount(frame: int) -> int:
    """Times that the kernel says the page is mapped."""
    return _word("/proc/kpagecount", frame)


def kpageflags(frame: int) -> int:
    """KPF_ bits of the page."""
    return _word("/proc/kpageflags", frame)


def swapped(process: Process, region: Region) -> int:
    """Number of pages of ``region`` that stand as swap entries in the page table."""
    return sum(1 for entry in pagemap(process, region) if entry & SWAPPED)


def smaps(process: Process) -> Iterator[tuple[int, int, dict[str, int]]]:
    """Give (start, end, fields in kB) of each VMA in smaps."""
    bounds: tuple[int, int] | None = None
    fields: dict[str, int] = {}
    for line in (process.proc / "smaps").read_bytes().splitlines():
        first, _, rest = line.partition(b" ")
        if first.endswith(b":"):
            if rest.endswith(b" kB"):
                fields[first[:-1].decode()] = int(rest.split()[0])
        elif b"-" in first:
            if bounds:
                yield (*bounds, fields)
            start, _, end = first.partition(b"-")
            bounds, fields = (int(start, 16), int(end, 16)), {}
    if bounds:
        yield (*bounds, fields)


def smaps_of(process: Process, region: Region) -> dict[str, int]:
    """Sum of the smaps fields (kB) of the VMAs that touch ``region``."""
    total: dict[str, int] = {}
    for start, end, fields in smaps(process):
        if start < region.end and region.start < end:
            for name, value in fields.items():
                total[name] = total.get(name, 0) + value
    return total


@dataclass(frozen=True)
class Sizes:
    """Sizes of a process in kB."""

    rss: int
    pss: int
    uss: int
    swap: int


def rollup_sizes(process: Process) -> Sizes:
    """What smaps_rollup says."""
    fields: dict[str, int] = {}
    for line in (process.proc / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0])
    unshared = fields["Private_Clean"] + fields["Private_Dirty"]
    return Sizes(rss=fields["Rss"], pss=fields["Pss"], uss=unshared, swap=fields["Swap"])


def status_kb(pid: int, field: str) -> int:
    """A field of /proc/PID/status that is given in kB."""
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise KeyError(field)


def any_flag(frames: Iterable[int], flag: int) -> bool:
    """Whether any of the pages has ``flag``."""
    return any(kpageflags(frame) & flag for frame in frames)

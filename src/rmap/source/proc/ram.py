# SPDX-License-Identifier: GPL-2.0-only
"""Where RAM is: ranges of page frame numbers that have page descriptors."""

from __future__ import annotations

import os
import re

Ranges = list[tuple[int, int]]

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
#: Memory that was plugged in names its driver, and lies below the device: "System RAM (kmem)".
_IOMEM_LINE = re.compile(
    r"^ *([0-9a-f]{1,16})-([0-9a-f]{1,16}) : System RAM(?: \(.*\))?$", re.MULTILINE
)


def ram_ranges() -> Ranges:
    """Return the (first, end) frame numbers of RAM, ascending.

    From ``/proc/iomem``, which shows addresses to CAP_SYS_ADMIN; else the spans of the zones in
    ``/proc/zoneinfo``, which may have holes (frames there read as KPF_NOPAGE).
    """
    ranges = parse_iomem(_text("/proc/iomem"))
    return ranges or parse_zoneinfo(_text("/proc/zoneinfo"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # a container may hide either of them


def parse_iomem(text: str) -> Ranges:
    """Return the frames of the ``System RAM`` lines, whole frames only.

    >>> parse_iomem("00001000-0009fbff : System RAM\\n  00002000-00002fff : Kernel code\\n")
    [(1, 159)]
    """
    ranges = []
    for start, end in _IOMEM_LINE.findall(text):
        first = -(-int(start, 16) // _PAGE_SIZE)
        last = (int(end, 16) + 1) // _PAGE_SIZE
        if first < last:
            ranges.append((first, last))
    return united(ranges)


def parse_zoneinfo(text: str) -> Ranges:
    """Return the spans of the zones that have pages.

    >>> parse_zoneinfo("Node 0, zone DMA\\n spanned 4095\\n present 3998\\n start_pfn: 1\\n")
    [(1, 4096)]
    """
    ranges = []
    for zone in re.split(r"^Node ", text, flags=re.MULTILINE)[1:]:
        spanned = re.search(r"^\s+spanned\s+([0-9]+)$", zone, re.MULTILINE)
        start = re.search(r"^\s+start_pfn:\s+([0-9]+)$", zone, re.MULTILINE)
        if spanned and start and int(spanned[1]):
            ranges.append((int(start[1]), int(start[1]) + int(spanned[1])))
    return united(ranges)


def united(ranges: Ranges) -> Ranges:
    """Return the same frames as ascending ranges that neither overlap nor touch.

    >>> united([(8, 9), (1, 4), (3, 6), (6, 7)])
    [(1, 7), (8, 9)]
    """
    result: Ranges = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return result

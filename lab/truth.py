# SPDX-License-Identifier: GPL-2.0-only
"""What the guest wrote down of itself, out of its own /proc.

Lines, each a letter and its fields, numbers of memory in hexadecimal:

* ``P pid state name [recorder]``: a process, which the lines up to the next one are about;
* ``v rss anonymous swap hugetlb line of maps|flags``: a VMA with four sums of smaps in KiB;
* ``p address frame count bits``: entries of pagemap with the present bit, frames that ascend by
  one, and the bits of the entries from 55 on;
* ``s address entry count bits``: likewise swapped ones, by type | offset << 5, offsets that ascend;
* ``f frame count mapcount flags``: frames, what kpagecount and kpageflags say of each;
* ``E``: the end.

The recorder is a process like the others, but goes on changing its own memory while it writes.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.packages import LabError

U64 = npt.NDArray[np.uint64]
FILE_BIT, EXCLUSIVE_BIT = 1 << 6, 1 << 1
_PAGE = 4096
_SWAP_STEP = 32


@dataclass(frozen=True, slots=True)
class Vma:
    """A line of maps, sums of smaps in bytes, and the two-letter flags."""

    start: int
    end: int
    permissions: str
    offset: int
    device: int
    inode: int
    name: str
    rss: int
    anonymous: int
    swap: int
    hugetlb: int
    flags: tuple[str, ...]


@dataclass(slots=True)
class Process:
    """A process; `entries` and `swapped` are runs: address, frame or entry, count, bits."""

    pid: int
    state: str
    name: str
    recorder: bool
    vmas: list[Vma] = field(default_factory=list)
    entries: list[tuple[int, int, int, int]] = field(default_factory=list)
    swapped: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def mappings(self) -> U64:
        """Rows of address, frame and bits, one a page that is there."""
        return spread(self.entries, 1)

    @property
    def swap_entries(self) -> U64:
        """Rows of address, entry and bits, one a page that is swapped out."""
        return spread(self.swapped, _SWAP_STEP)


@dataclass(frozen=True, slots=True)
class Truth:
    """All processes, and of each page frame of note its mapcount and flags by its number."""

    processes: list[Process]
    frames: U64
    mapcounts: npt.NDArray[np.int64]
    flags: U64

    @property
    def others(self) -> list[Process]:
        """The processes that stood still."""
        return [one for one in self.processes if not one.recorder]

    @property
    def settled(self) -> npt.NDArray[np.bool_]:
        """Of each of the frames whether the recorder, which goes on, does not map it."""
        own = [one.mappings[:, 1] for one in self.processes if one.recorder]
        return ~np.isin(self.frames, np.concatenate(own)) if own else self.frames == self.frames


def spread(runs: list[tuple[int, int, int, int]], step: int) -> U64:
    """One row for each page of some runs."""
    table = np.array(runs, "u8").reshape(-1, 4)
    count = table[:, 2].astype(np.int64)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    rows = np.repeat(table, count, axis=0)
    rows[:, 0] += place.astype("u8") * np.uint64(_PAGE)
    rows[:, 1] += place.astype("u8") * np.uint64(step)
    return np.asarray(rows[:, [0, 1, 3]])


def read_truth(path: Path) -> Truth:
    """Read what a guest wrote, compressed or not. Raises `LabError` if it has no end."""
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8", "replace")
    processes: list[Process] = []
    frames: list[tuple[int, int, int, int]] = []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "P":
            pid, state, name, *recorder = rest.split(" ")
            processes.append(Process(int(pid), state, name, "recorder" in recorder))
        elif kind == "v":
            processes[-1].vmas.append(_vma(rest))
        elif kind in ("p", "s"):
            of = processes[-1].entries if kind == "p" else processes[-1].swapped
            address, frame, count, bits = (int(word, 16) for word in rest.split())
            of.append((address, frame, count, bits))
        elif kind == "f":
            first, count, mapcount, flags = (int(word, 16) for word in rest.split())
            frames += [(first + at, 0, mapcount, flags) for at in range(count)]
        elif kind == "E":
            table = np.array(frames, "u8").reshape(-1, 4)
            return Truth(processes, table[:, 0], table[:, 2].astype(np.int64), table[:, 3])
    raise LabError(f"{path}: what the guest wrote is cut short")


def _vma(text: str) -> Vma:
    line, _, flags = text.rpartition("|")
    rss, anonymous, swap, hugetlb, bounds, permissions, offset, device, inode, *name = line.split(
        None, 9
    )
    start, end = (int(word, 16) for word in bounds.split("-"))
    major, minor = (int(word, 16) for word in device.split(":"))
    return Vma(
        start, end, permissions, int(offset, 16), major << 20 | minor, int(inode), "".join(name),
        int(rss) * 1024, int(anonymous) * 1024, int(swap) * 1024, int(hugetlb) * 1024,
        tuple(flags.split()),
    )  # fmt: skip

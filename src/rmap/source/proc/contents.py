# SPDX-License-Identifier: GPL-2.0-only
"""What the address spaces hold: one pass over the ``maps`` and ``pagemap`` of every process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from rmap.source import Progress
from rmap.source.proc.entries import U64, Entries
from rmap.source.proc.files import Denied, Gone, read_file
from rmap.source.proc.maps import parse_vm_flags, vma_ranges
from rmap.source.proc.mms import group_by_mm
from rmap.source.proc.pagemap import BUFFER_PAGES, Pagemap
from rmap.source.proc.survey import Process, find_living_thread, look_at, survey

#: How often a process is read again that changes its program or its first thread meanwhile.
ATTEMPTS = 4


@dataclass(slots=True)
class Contents:
    """One address space: the text of ``maps``, the entries, and VM_ bits by start of a VMA.

    The entries of a last pass have what a PMD maps as one; those of others are one a page.
    """

    maps: bytes
    entries: Entries
    vm_flags: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Space:
    """An address space: the processes that use it, by ascending pid, and what it holds."""

    processes: list[Process]
    contents: Contents


@dataclass(slots=True)
class Pass:
    """What one pass found: every process, and the address spaces by their first process."""

    processes: list[Process]
    spaces: list[Space]


class _Exchanged(Exception):
    """The process executed another program, or is another one, since it was looked at."""


@dataclass(slots=True)
class Reader:
    """How to read an address space.

    ``compare`` is called with each (process id, entries one a page) of a ``last`` pass, before
    what a PMD maps is made one entry. With ``vm_flags`` exact VM_ bits are read too.
    """

    last: bool = False
    compare: Callable[[int, Entries], None] | None = None
    vm_flags: bool = False
    buffer: U64 = field(default_factory=lambda: np.empty(BUFFER_PAGES, np.uint64))

    def read(self, process: Process) -> Contents:
        """Read one address space, through another thread if the first one exits meanwhile.

        Raises `Gone`, `Denied` or `_Exchanged`.
        """
        for _ in range(ATTEMPTS):
            try:
                return self._read_through_task(process)
            except Gone:
                if not find_living_thread(process):
                    raise
        raise Gone(f"the threads of process {process.pid} exit one after another")

    def _read_through_task(self, process: Process) -> Contents:
        maps = read_file(process.pid, "maps", process.task)
        if not maps:  # what older kernels show of a process that is exiting
            raise Gone(f"process {process.pid} has no memory any more")
        with Pagemap(process.pid, process.task, self.buffer) as pagemap:
            entries = pagemap.read(vma_ranges(maps))
            folded = pagemap.fold_huge(entries) if self.last else entries
        exact = {}
        if self.vm_flags:
            exact = parse_vm_flags(read_file(process.pid, "smaps", process.task))
        if not process.is_same():
            raise _Exchanged
        if self.compare is not None:
            self.compare(process.pid, entries)
        return Contents(maps, folded, exact)


def read_pass(
    pids: Iterable[int], own: Collection[int], reader: Reader, progress: Progress, stage: str
) -> Pass:
    """Look at ``pids`` and read the address space of each that has one, shared ones once.

    A process that vanishes or refuses meanwhile has that as its state, and no contents.
    """
    processes = survey(pids, own)
    groups = group_processes(processes)
    spaces: list[Space] = []
    for number, group in enumerate(groups):
        progress(stage, number, len(groups))
        spaces.extend(_read_group(group, reader))
    progress(stage, len(groups), len(groups))
    spaces.sort(key=lambda space: space.processes[0].pid)
    return Pass(processes, spaces)


def group_processes(processes: Iterable[Process]) -> list[list[Process]]:
    """Group the readable processes by address space."""
    readers = {process.reader_id: process for process in processes if process.readable}
    layouts = {task: process.identity[1] for task, process in readers.items() if process.identity}
    groups = [[readers[task] for task in group] for group in group_by_mm(layouts)]
    return [sorted(group, key=lambda process: process.pid) for group in groups]


def _read_group(group: list[Process], reader: Reader) -> list[Space]:
    """Read the address space of a group through the first process that lets us.

    One that executes another program meanwhile leaves the group, and is read alone.
    """
    spaces = []
    members = list(group)
    while members:
        try:
            contents = reader.read(members[0])
        except Gone:
            members.pop(0).state = "vanished"
        except Denied:
            members.pop(0).state = "denied"
        except _Exchanged:
            alone = _read_alone(members.pop(0), reader)
            if alone is not None:
                spaces.append(alone)
        else:
            spaces.append(Space(members, contents))
            break
    return spaces


def _read_alone(process: Process, reader: Reader) -> Space | None:
    """Look at an exchanged process afresh and read it."""
    for _ in range(ATTEMPTS):
        process.become(look_at(process.pid))
        if not process.readable:
            return None
        try:
            return Space([process], reader.read(process))
        except _Exchanged:
            continue
        except Gone:
            break
        except Denied:
            process.state = "denied"
            return None
    process.state = "vanished"
    return None

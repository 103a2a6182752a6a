# SPDX-License-Identifier: GPL-2.0-only
"""The live machine as a `MemoryImage`."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from rmap.errors import MissingFeatureError, PrivilegeError, TargetError
from rmap.image.arrays import distinct
from rmap.image.image import MemoryImage
from rmap.image.schema import TABLES
from rmap.image.table import Table
from rmap.source import Progress, no_progress
from rmap.source.proc import tables
from rmap.source.proc.consistency import Changes, unsettled
from rmap.source.proc.contents import Pass, Reader, Space, read_pass
from rmap.source.proc.entries import PAGE_SIZE, U64, frames_of
from rmap.source.proc.files import list_pids
from rmap.source.proc.freeze import frozen
from rmap.source.proc.kernelconfig import keeps_page_mapcounts, kernel_config
from rmap.source.proc.kpage import KernelPages, merged, read_frames, read_ranges
from rmap.source.proc.privilege import require_pfns
from rmap.source.proc.ram import Ranges, ram_ranges
from rmap.source.proc.survey import Process, look_at


def snapshot(
    pids: Collection[int] | None = None,
    *,
    freeze: Collection[int] = (),
    ram: bool = True,
    vm_flags: bool = False,
    progress: Progress | None = None,
) -> MemoryImage:
    """Read the live machine.

    Parameters
    ----------
    pids
        Processes to read; None is all. With some only, mappings by others are not seen.
    freeze
        Processes to stop while reading (SIGSTOP); they are resumed whatever happens.
    ram
        Describe every page of RAM; otherwise only the pages that were found mapped.
    vm_flags
        Take exact VM_ bits from ``smaps``. That makes the kernel walk all page tables twice more;
        otherwise ``vmas.flags`` has the permissions and whether the VMA is shared.
    progress
        Told how far the reading has come.

    Returns
    -------
    The image. The reader itself is left out (status ``self``): reading changes its memory.

    Raises
    ------
    PrivilegeError
        Without CAP_SYS_ADMIN, or if a process of ``pids`` may not be read.
    TargetError
        If a process of ``pids`` or ``freeze`` does not exist, or is the reader itself.
    MissingFeatureError
        If the kernel lacks one of the files.

    >>> image = snapshot([1234], ram=False)  # doctest: +SKIP
    """
    require_pfns()
    started = time.time_ns()
    if pids is not None:
        for pid in pids:
            _require_process(pid)
    with frozen(freeze) as helpers:
        reading = _read(pids, {os.getpid(), *helpers}, ram, vm_flags, progress or no_progress)
    if pids is not None:
        _require_readable(reading.processes)
    machine = {
        "kernel_release": os.uname().release,
        "architecture": os.uname().machine,
        "page_size": PAGE_SIZE,
        "time_ns": started,
        "duration_ns": time.time_ns() - started,
        "source": "proc",
        "scope": "machine" if pids is None else "processes",
        "consistency": "frozen" if _all_frozen(reading.spaces, freeze) else "passes",
        "page_mapcount": keeps_page_mapcounts(kernel_config()),
    }
    return _image(Table.from_rows(TABLES["machine"], [machine]), reading)


def _image(machine: Table, reading: _Reading) -> MemoryImage:
    vmas, files = tables.vmas_and_files(reading.spaces)
    return MemoryImage(
        {
            "machine": machine,
            "ram": tables.ram_table(reading.ram),
            "processes": tables.processes_table(reading.processes, reading.spaces),
            "mms": tables.mms_table(reading.spaces),
            "vmas": vmas,
            "ptes": tables.ptes_table(reading.spaces, reading.pages, vmas),
            "pages": tables.pages_table(reading.pages, reading.changed),
            "files": files,
        }
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read: the second pass, those the first one saw only, and the kernel's counts."""

    processes: list[Process]
    spaces: list[Space]
    pages: KernelPages
    changed: U64
    ram: Ranges


def _read(
    pids: Collection[int] | None,
    own: set[int],
    ram: bool,
    vm_flags: bool,
    progress: Progress,
) -> _Reading:
    """Two passes over the page tables with the kernel's counts between them."""

    def wanted() -> list[int]:
        return list_pids() if pids is None else sorted(set(pids))

    before = read_pass(wanted(), own, Reader(), progress, "page tables")
    ranges = ram_ranges()
    if ram and not ranges:
        raise MissingFeatureError(
            "neither /proc/iomem nor /proc/zoneinfo tells where RAM is; name the processes to read"
        )
    progress("page counts", 0, 1)
    pages = read_ranges(ranges) if ram else read_frames(_frames(before.spaces, ranges))
    progress("page counts", 1, 1)
    changes = Changes((space.processes[0].pid, space.contents.entries) for space in before.spaces)
    before.spaces.clear()
    reader = Reader(last=True, compare=changes.compare, vm_flags=vm_flags)
    after = read_pass(wanted(), own, reader, progress, "page tables again")
    changed = changes.frames()
    if not ram:  # frames that only the second pass found are changed ones
        pages = merged(pages, _within(ranges, changed))
    faults = {process.pid: process.stat.faults for process in before.processes if process.stat}
    again = unsettled(after.spaces, pages, changed, faults)
    changed = distinct(np.concatenate((changed, again)))
    return _Reading(_everyone(before, after), after.spaces, pages, changed, ranges)


def _frames(spaces: Iterable[Space], ranges: Ranges) -> U64:
    parts = [frames_of(space.contents.entries) for space in spaces]
    return _within(ranges, distinct(np.concatenate([np.empty(0, np.uint64), *parts])))


def _within(ranges: Ranges, frames: U64) -> U64:
    """Return the ascending frames up to the end of RAM; what is beyond are devices."""
    end = ranges[-1][1] if ranges else 1 << 55
    return frames[: np.searchsorted(frames, np.uint64(end))]


def _everyone(before: Pass, after: Pass) -> list[Process]:
    """The processes of the second pass, and those that had vanished by then."""
    seen = {process.pid for process in after.processes}
    vanished = [process for process in before.processes if process.pid not in seen]
    for process in vanished:
        process.state = "vanished"
    return after.processes + vanished


def _require_process(pid: int) -> None:
    """Raise TargetError unless ``pid`` is a process (not a thread of one) other than we."""
    if pid == os.getpid():
        raise TargetError(f"process {pid} is rmap itself, and reading changes its memory")
    process = look_at(pid)
    if process.state == "vanished":
        raise TargetError(f"no such process: {pid}")
    if process.status is not None and process.status.tgid not in (-1, pid):
        raise TargetError(f"{pid} is a thread of process {process.status.tgid}: name that")


def _require_readable(processes: Iterable[Process]) -> None:
    for process in processes:
        if process.state == "denied":
            raise PrivilegeError(
                f"process {process.pid} may not be read, not even by this user; leave it out"
            )


def _all_frozen(spaces: list[Space], freeze: Collection[int]) -> bool:
    read = {process.pid for space in spaces for process in space.processes}
    return bool(read) and read <= set(freeze)

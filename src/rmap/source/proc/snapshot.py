# SPDX-License-Identifier: GPL-2.0-only
"""The live machine as a `MemoryImage`."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from rmap.errors import PrivilegeError, TargetError
from rmap.image.arrays import distinct, positions
from rmap.image.image import MemoryImage
from rmap.source import Progress, no_progress
from rmap.source.proc import tables
from rmap.source.proc.contents import Contents, changed_frames, frames_of, read_pass
from rmap.source.proc.files import list_pids
from rmap.source.proc.freeze import frozen
from rmap.source.proc.kpage import KernelPages, ram_ranges, read_frames, read_ranges
from rmap.source.proc.mms import group_by_mm
from rmap.source.proc.privilege import require_pfns
from rmap.source.proc.survey import Process, own_pids, survey

U64 = npt.NDArray[np.uint64]


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
        Take exact VM_ bits from ``smaps``. That makes the kernel walk all page tables once more;
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
        If a process of ``pids`` or ``freeze`` does not exist.
    MissingFeatureError
        If the kernel lacks one of the files.

    >>> image = snapshot([1234], ram=False)  # doctest: +SKIP
    """
    require_pfns()
    started = time.time_ns()
    with frozen(freeze) as helpers:
        if pids is not None:
            _require_existing(pids)
        own = own_pids(helpers)
        everyone = list_pids()
        processes = survey(everyone if pids is None else sorted(set(pids)), own)
        found = _read(processes, ram, progress or no_progress)
        if pids is not None:
            _require_read(processes)
        exact = _exact_flags(found, vm_flags)
    machine = {
        "kernel_release": os.uname().release,
        "architecture": os.uname().machine,
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "time_ns": started,
        "duration_ns": time.time_ns() - started,
        "source": "proc",
        "scope": "machine" if pids is None else "processes",
        "consistency": "frozen" if _all_frozen(processes, freeze) else "passes",
        "page_mapcount": keeps_page_mapcounts(),
    }
    return tables.build(machine, processes, found, exact)


def _require_existing(pids: Collection[int]) -> None:
    for pid in pids:
        if not os.path.exists(f"/proc/{pid}"):
            raise TargetError(f"no such process: {pid}")


def _require_read(processes: list[Process]) -> None:
    for process in processes:
        if process.state == "denied":
            raise PrivilegeError(
                f"process {process.pid} may not be read, not even by this user; leave it out"
            )


def _all_frozen(processes: list[Process], freeze: Collection[int]) -> bool:
    read = {process.pid for process in processes if process.readable}
    return bool(read) and read <= set(freeze)


def _read(processes: list[Process], ram: bool, progress: Progress) -> tables.Findings:
    """Two passes over the page tables with the kernel's counts between them."""
    groups = _groups(processes)
    by_pid = {process.pid: process for process in processes}
    leaders = [by_pid[group[0]] for group in groups]
    before = read_pass(leaders, progress, "page tables")
    progress("page counts", 0, 1)
    ranges = ram_ranges()
    pages = read_ranges(ranges) if ram else read_frames(_frames(before))
    progress("page counts", 1, 1)
    after = read_pass(leaders, progress, "page tables again", before)
    changed = changed_frames(before, after)
    if not ram:
        pages = _add_frames(pages, changed)
    for group in groups:
        for pid in group[1:]:
            by_pid[pid].state = by_pid[group[0]].state
    groups = [group for group in groups if group[0] in after]
    return tables.Findings(groups, after, pages, changed, ranges)


def _groups(processes: list[Process]) -> list[list[int]]:
    """Group the readable processes by address space."""
    return group_by_mm(
        {
            process.pid: process.stat.layout
            for process in processes
            if process.readable and process.stat is not None
        }
    )


def _frames(contents: Mapping[int, Contents]) -> U64:
    parts = [frames_of(content.words) for content in contents.values()]
    return distinct(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def _add_frames(pages: KernelPages, frames: U64) -> KernelPages:
    """Add frames that only the second pass found; they count as changed, whatever they hold."""
    extra = read_frames(frames[positions(pages.pfns, frames) < 0])
    pfns = np.concatenate((pages.pfns, extra.pfns))
    order = np.argsort(pfns, kind="stable")
    counts = np.concatenate((pages.counts, extra.counts))[order]
    return KernelPages(pfns[order], counts, np.concatenate((pages.flags, extra.flags))[order])


def _exact_flags(found: tables.Findings, wanted: bool) -> dict[int, dict[int, int]]:
    """VM_ bits by pid and VMA start: of all processes, or where a VM_PFNMAP is suspected.

    A VM_PFNMAP mapping of RAM looks like any other in pagemap, but the kernel does not count it.
    What gives it away is a mapped page with a count of 0.
    """
    pids = list(found.contents) if wanted else found.suspects()
    return {pid: tables.read_vm_flags(pid) for pid in pids}


def keeps_page_mapcounts() -> bool:
    """Whether the kernel counts mappings of every page of a large folio.

    With CONFIG_NO_PAGE_MAPCOUNT (since 6.15, experimental) ``kpagecount`` shows an average. Where
    ``/proc/config.gz`` does not tell, the common configuration is assumed.
    """
    import gzip

    try:
        with gzip.open("/proc/config.gz", "rb") as config:
            return b"\nCONFIG_NO_PAGE_MAPCOUNT=y\n" not in config.read()
    except OSError:
        return True

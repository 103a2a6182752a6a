# SPDX-License-Identifier: GPL-2.0-only
"""What memory is really shared: RSS, PSS, USS and the like of groups of processes.

The sizes and how they are computed, from pages and with the kernel's own arithmetic
(``smaps_account()``, ``fs/proc/task_mmu.c``), so that those of a stopped process equal its
``/proc/PID/smaps_rollup`` to the kilobyte, *read at the same moment*. PSS and USS depend on
everybody who maps the same pages, and rmap is one of them: while it reads, it maps the Python
interpreter and the C library, and with ``--freeze`` so does the process that guards those it
stopped. Where a target maps these too, its PSS is smaller during the snapshot than after it.

RSS
    Every mapping of a page counts: a page that an address space maps twice counts twice.
    Zero page, PFN maps and swapped pages are not in it.
PSS
    Each mapping counts 1/mapcount of the page, where mapcount is the *kernel's* count: processes
    that could not be read take their share. In fixed point: a mapping adds
    ``floor((page size << 12) / mapcount)``; the sum is rounded down to bytes (``>> 12``) once, at
    the end, for the total and for each kind alone. So the kinds may add up to a few bytes less
    than the total. smaps_rollup shows that total in kB, rounded down again.
USS
    Mappings of pages whose mapcount is below 2: Private_Clean + Private_Dirty.
GUSS
    The group-unique set: pages all of whose mappings are inside the group, each page once. It is
    what the machine loses if the *whole* group goes: anonymous memory is free at once, file pages
    stay in the page cache but nobody maps them, shmem lives until its file is deleted. A page
    is in it if every mapping found is of an address space that only the group uses, and the
    kernel counts no more than were found.
swap, SwapPSS
    Swap entries in page tables; divided by the references to the slot if they are known
    (``swap_slots``), else by those found, which is a lower bound of the references and makes
    SwapPSS an upper bound. smaps adds to Swap what a shared-memory file has swapped out, which
    no page table shows: it is not in here.

hugetlb memory is in none of the kernel's Rss, Pss and Uss. It stands apart in each size, and is
not in its total. Migration and poison entries count as smaps counts them: wholly in RSS and PSS,
not in USS. Where the kernel's mapcount is unknown (-1), the number of mappings found stands in
for it; :attr:`Group.estimated` says how much of the RSS rests on that. Where the kernel averages
mapcounts over a large folio (``machine.page_mapcount`` is false) PSS is still the kernel's, but USS
and GUSS of large folios are approximations.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from rmap.image import MemoryImage
from rmap.query.groups import By, Grouping, group_processes
from rmap.query.shared import SharedMatrix, shared_matrix
from rmap.query.sizes import GroupSums, MmSums, Split, group_sums, mm_sums
from rmap.query.totals import KindTotal, Unattributed, kind_totals, unattributed
from rmap.query.usage import MappedPages

#: Groups that the matrix names unless told otherwise; the rest is summed up.
DEFAULT_TOP = 12


@dataclass(frozen=True, slots=True)
class Group:
    """The memory of one group of processes. All sizes are in bytes."""

    key: str  #: pid, command, user or cgroup
    label: str  #: the command of a process; the key again for other groups
    pids: tuple[int, ...]  #: processes whose memory was read, ascending
    mms: int  #: address spaces
    rss: Split
    pss: Split
    uss: Split
    guss: Split
    swap: int
    swap_pss: int
    estimated: int  #: bytes of RSS (and hugetlb) whose mapcount the kernel did not tell


@dataclass(frozen=True, slots=True)
class Unread:
    """Processes whose memory is not in the report, for one reason."""

    status: str  #: kernel, zombie, vanished, denied, or self
    processes: tuple[tuple[int, str], ...]  #: (pid, comm), ascending


@dataclass(frozen=True, slots=True)
class Report:
    """What memory is really shared; see the module for what the sizes mean."""

    by: By
    groups: tuple[Group, ...]  #: largest PSS first, then by key
    total: Group  #: all of them as one group: shared address spaces once
    shared: SharedMatrix
    kinds: tuple[KindTotal, ...]  #: pages of the image by kind
    whole_machine: bool  #: ``kinds`` covers all RAM
    unattributed: Unattributed
    unread: tuple[Unread, ...]
    changed: int  #: bytes of pages whose mappings changed while they were read
    page_size: int  #: bytes


def report(
    image: MemoryImage,
    *,
    by: By = "process",
    pids: Collection[int] | None = None,
    top: int = DEFAULT_TOP,
) -> Report:
    """Add up the memory of groups of processes, and what they share.

    Parameters
    ----------
    by
        ``process``, ``command``, ``user`` or ``cgroup``.
    pids
        Group only these processes; all if None. Mappings of other processes still count as such.
    top
        Groups that the matrix of shared memory names, at most 63: those with the largest PSS.

    Raises
    ------
    QueryError
        If ``by`` or ``top`` is not possible.
    TargetError
        If a pid is not in the image or has no memory.
    PrivilegeError
        If the memory of one of ``pids`` could not be read.

    >>> from rmap.image import read_image
    >>> answer = report(read_image("machine.rmap"), by="command")       # doctest: +SKIP
    >>> answer.groups[0].label, answer.groups[0].pss.total              # doctest: +SKIP
    ('postgres', 183205888)
    """
    grouping = group_processes(image, by, pids)
    pages = MappedPages(image)
    by_mm = mm_sums(pages)
    groups, order = _groups(image, grouping, group_sums(pages, by_mm, grouping))
    total = _total(image, grouping.as_one(), pages, by_mm)
    kinds, whole = kind_totals(image, pages)
    return Report(
        by=by,
        groups=groups,
        total=total,
        shared=shared_matrix(pages, grouping, order, top),
        kinds=kinds,
        whole_machine=whole,
        unattributed=unattributed(image, pages),
        unread=_unread(image),
        changed=int(np.count_nonzero(image.pages["changed"])) * image.page_size,
        page_size=image.page_size,
    )


def _total(image: MemoryImage, union: Grouping, pages: MappedPages, by_mm: MmSums) -> Group:
    (total,), _ = _groups(image, union, group_sums(pages, by_mm, union))
    return total


def _groups(
    image: MemoryImage, grouping: Grouping, sums: GroupSums
) -> tuple[tuple[Group, ...], list[int]]:
    """Describe all groups, largest PSS first; also which group is at which place."""
    order = sorted(range(len(grouping)), key=lambda g: (-sums.pss[g].total, _natural(grouping, g)))
    mms = np.bincount(grouping.member_groups, minlength=len(grouping))
    pids, comms = image.processes["pid"], image.processes["comm"]
    return tuple(
        Group(
            key=grouping.keys[g],
            label=str(comms[grouping.rows[g][0]]) if grouping.by == "process" else grouping.keys[g],
            pids=tuple(pids[list(grouping.rows[g])].tolist()),
            mms=int(mms[g]),
            rss=sums.rss[g],
            pss=sums.pss[g],
            uss=sums.uss[g],
            guss=sums.guss[g],
            swap=int(sums.swap[g]),
            swap_pss=int(sums.swap_pss[g]),
            estimated=int(sums.estimated[g]),
        )
        for g in order
    ), order


def _natural(grouping: Grouping, group: int) -> tuple[int, str]:
    """Sort key: processes by pid, other groups by name."""
    key = grouping.keys[group]
    return (int(key) if grouping.by == "process" else 0, key)


def _unread(image: MemoryImage) -> tuple[Unread, ...]:
    """Processes without an address space in the image, by status; the most telling first."""
    processes = image.processes
    by_status: dict[str, list[tuple[int, str]]] = {}
    for row in np.flatnonzero(processes["mm"] < 0).tolist():
        entry = (int(processes["pid"][row]), str(processes["comm"][row]))
        by_status.setdefault(str(processes["status"][row]), []).append(entry)
    return tuple(Unread(status, tuple(by_status[status])) for status in sorted(by_status))

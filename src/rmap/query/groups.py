# SPDX-License-Identifier: GPL-2.0-only
"""Groups of processes: each process alone, or those of one command, user or cgroup.

Memory belongs to address spaces, and those belong to groups: an address space that several
processes of a group share (CLONE_VM) counts once in it, and one whose processes are in several
groups counts in each of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from rmap.errors import PrivilegeError, QueryError, TargetError
from rmap.image import MemoryImage

I64 = npt.NDArray[np.int64]

By = Literal["process", "command", "user", "cgroup"]

_COLUMN = {"process": "pid", "command": "comm", "user": "user", "cgroup": "cgroup"}
#: Owner of an address space that no single group has to itself.
NOT_OWNED = -1
#: Likewise, and some process that uses it is in no group at all.
_FOREIGN = -2


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which address spaces each group has.

    ``members`` are pairs (mm, group), each once, by ascending mm; ``owner[mm]`` is the group that
    all processes of the mm belong to, negative if there is no such group.
    """

    by: By
    keys: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]  #: rows of ``processes`` of each group
    member_mms: I64
    member_groups: I64
    owner: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.keys)

    def mms_of(self, group: int) -> I64:
        """Address spaces of one group, ascending."""
        return self.member_mms[self.member_groups == group]

    def as_one(self) -> Grouping:
        """Return all processes of all groups as a single group, called ``total``."""
        rows = tuple(sorted(row for group in self.rows for row in group))
        mms = np.unique(self.member_mms)
        # What several groups shared is the union's own, unless a process is in none of them.
        owner = np.full(len(self.owner), NOT_OWNED, np.int32)
        owner[mms[self.owner[mms] != _FOREIGN]] = 0
        groups = np.zeros(len(mms), np.int64)
        return Grouping("command", ("total",), (rows,), mms, groups, owner)


def group_processes(
    image: MemoryImage, by: By = "process", pids: Collection[int] | None = None
) -> Grouping:
    """Group the processes whose memory is in ``image``.

    Parameters
    ----------
    by
        What makes a group: each ``process`` for itself, or all of one ``command`` (comm),
        ``user`` or ``cgroup``.
    pids
        Only these processes; all if None.

    Raises
    ------
    QueryError
        If ``by`` is none of the four.
    TargetError
        If a pid is not in the image, or has no memory of its own.
    PrivilegeError
        If the memory of a process in ``pids`` could not be read.
    """
    if by not in get_args(By):
        raise QueryError(f"cannot group by {by!r}; use one of {', '.join(get_args(By))}")
    processes = image.processes
    chosen = np.flatnonzero(processes["mm"] >= 0)
    if pids is not None:
        chosen = _rows_of(image, pids)
    names: dict[str, list[int]] = {}
    for row, key in zip(chosen.tolist(), processes[_COLUMN[by]][chosen].tolist(), strict=True):
        names.setdefault(str(key), []).append(row)
    keys = tuple(names)
    rows = tuple(tuple(group) for group in names.values())
    group = np.repeat(np.arange(len(rows)), [len(r) for r in rows]).astype(np.int64)
    mm = processes["mm"][np.array([r for g in rows for r in g], np.int64)].astype(np.int64)
    pairs = np.unique(np.stack((mm, group), axis=1), axis=0).reshape(-1, 2)
    return Grouping(by, keys, rows, pairs[:, 0], pairs[:, 1], _owners(image, mm, group))


def _rows_of(image: MemoryImage, pids: Collection[int]) -> I64:
    """Rows of ``processes`` of the given pids, ascending; each must have memory."""
    processes = image.processes
    have = processes["pid"]
    wanted = sorted(set(pids))
    for pid in wanted:
        at = int(np.searchsorted(have, pid))
        if at == len(have) or have[at] != pid:
            raise TargetError(f"no process {pid} in this image; `rmap report` lists those it has")
        status = processes["status"][at]
        if processes["mm"][at] < 0 and status == "denied":
            raise PrivilegeError(f"process {pid} may not be read here, not even by this user")
        if processes["mm"][at] < 0:
            raise TargetError(f"process {pid} has no memory to report (status: {status})")
    return np.searchsorted(have, np.array(wanted, have.dtype)).astype(np.int64)


def _owners(image: MemoryImage, mm: I64, group: I64) -> npt.NDArray[np.int32]:
    """The one group that all processes of each mm are in; there may be processes in none."""
    count = len(image.mms)
    lowest = np.full(count, np.iinfo(np.int64).max, np.int64)
    highest = np.full(count, NOT_OWNED, np.int64)
    np.minimum.at(lowest, mm, group)
    np.maximum.at(highest, mm, group)
    users = image.processes["mm"][image.processes["mm"] >= 0]
    all_users = np.maximum(image.mms["users"], np.bincount(users, minlength=count))
    foreign = np.bincount(mm, minlength=count) < all_users
    owner = np.where(lowest == highest, highest, NOT_OWNED)
    return np.where(foreign, _FOREIGN, owner).astype(np.int32)

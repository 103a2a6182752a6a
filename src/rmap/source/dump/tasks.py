# SPDX-License-Identifier: GPL-2.0-only
"""Processes, their threads, and the address spaces that these use.

An address space may be reachable through a thread other than the leader only, and several processes
may share one (CLONE_VM, vfork). Zombies and kernel threads have none; a kernel thread that borrows
one for a moment (active_mm) does not own it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rmap.source.dump.facts import Facts
from rmap.source.dump.records import Layout, Records, read_records

if TYPE_CHECKING:
    from drgn import Object, Program

_T = TypeVar("_T")
_KTHREAD = 0x20_0000
_ZOMBIE, _DEAD = 0x20, 0x10
_TASK: dict[str, str | tuple[str, ...]] = {
    "pid": "pid", "tgid": "tgid", "mm": "mm", "flags": "flags", "comm": "comm",
    "exit_state": "exit_state", "parent": "real_parent", "start": ("start_boottime", "start_time"),
    "rss": ("rss_stat.count",),
}  # fmt: skip
#: Threads that a list of a damaged dump may have before it is taken to be endless.
_MOST_TASKS = 1 << 22


@dataclass
class Process:
    """A thread group: its leader, its threads, and the address space that one of them has."""

    pid: int
    ppid: int
    comm: str
    mm: int
    status: str
    uid: int
    cgroup: str
    cmdline: str
    start_time: int
    tasks: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Tasks:
    """All processes by pid, and the tasks that were read."""

    processes: list[Process]
    records: Records

    def mms(self) -> list[int]:
        """The address spaces, each once, in the order of the pids that use them."""
        return list(dict.fromkeys(one.mm for one in self.processes if one.mm))


def read_tasks(program: Program, facts: Facts) -> Tasks:
    """Read all processes."""
    import drgn
    from drgn.helpers.linux.pid import for_each_task

    found: dict[int, Object] = {}
    try:
        for task in for_each_task(program):
            found.setdefault(int(task.value_()), task)
            if len(found) > _MOST_TASKS:
                break
    except drgn.FaultError:
        # The list ends where memory does; what came before stands.
        pass
    layout = Layout(program, "struct task_struct", _TASK).require("pid", "tgid", "mm", "comm")
    records = read_records(layout, found)
    objects = list(found.values())
    groups: dict[int, list[int]] = {}
    for row in np.flatnonzero(records.present).tolist():
        groups.setdefault(int(records["tgid"][row]), []).append(row)
    processes = [
        _process(facts, records, objects, rows) for _, rows in sorted(groups.items())
    ]  # fmt: skip
    return Tasks(processes, records)


def _process(facts: Facts, records: Records, objects: list[Any], rows: list[int]) -> Process:
    """A thread group of its tasks' rows."""
    leader = next((row for row in rows if records["pid"][row] == records["tgid"][row]), rows[0])
    mm = next((int(records["mm"][row]) for row in rows if records["mm"][row]), 0)
    kernel = bool(int(records["flags"][leader]) & _KTHREAD)
    if kernel:
        mm = 0
    task = objects[leader]
    return Process(
        pid=int(records["tgid"][leader]),
        ppid=_tried(lambda: int(task.real_parent.tgid.value_()), -1),
        comm=_text(records["comm"][leader].tobytes()),
        mm=mm,
        status=_status(records, leader, kernel, mm),
        uid=_tried(lambda: int(task.real_cred.uid.val.value_()), -1),
        cgroup=_tried(lambda: _cgroup(facts, task), ""),
        cmdline=_tried(lambda: _cmdline(task), "") if mm else "",
        start_time=int(records["start"][leader]) // 10_000_000
        if "start" in _names(records)
        else -1,
        tasks=rows,
    )


def _names(records: Records) -> tuple[str, ...]:
    return records.values.dtype.names or ()


def _status(records: Records, leader: int, kernel: bool, mm: int) -> str:
    if kernel:
        return "kernel"
    if mm:
        return "ok"
    return "zombie" if int(records["exit_state"][leader]) & (_ZOMBIE | _DEAD) else "vanished"


def _tried(read: Callable[[], _T], otherwise: _T) -> _T:
    """What can be read of it, or the value for unknown where memory or the member is missing."""
    import drgn

    try:
        return read()
    except (drgn.FaultError, LookupError, AttributeError, ValueError, OverflowError):
        return otherwise


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("utf-8", "backslashreplace")


def _cgroup(facts: Facts, task: Any) -> str:
    """The path in the hierarchy that holds memory: v1's memory controller, else v2."""
    from drgn.helpers.linux.cgroup import cgroup_path

    number = facts.constant("memory_cgrp_id")
    sets = task.cgroups
    if number is not None:
        group = sets.subsys[number].cgroup
        if group.root.hierarchy_id.value_() != sets.dfl_cgrp.root.hierarchy_id.value_():
            return _text(cgroup_path(group))
    return _text(cgroup_path(sets.dfl_cgrp))


def _cmdline(task: Any) -> str:
    from drgn.helpers.linux.mm import cmdline

    words = cmdline(task) or []
    return " ".join(word.decode("utf-8", "backslashreplace") for word in words)

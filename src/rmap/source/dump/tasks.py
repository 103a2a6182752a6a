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

from rmap.source.dump.damage import Damage, missing
from rmap.source.dump.facts import Facts
from rmap.source.dump.records import Layout, Records, member_offset, read_records, read_word
from rmap.source.dump.xarray import read_xarray

if TYPE_CHECKING:
    from drgn import Program

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
_LARGEST_PID = 1 << 22
#: Bytes of arguments that exec() allows.
_LONGEST_CMDLINE = 6 << 20


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
    damage: tuple[Damage, ...]

    def mms(self) -> list[int]:
        """The address spaces, each once, in the order of the pids that use them."""
        return list(dict.fromkeys(one.mm for one in self.processes if one.mm))


def read_tasks(program: Program, facts: Facts) -> Tasks:
    """Read all processes: those in the list of tasks with their threads, and those with pids."""
    import drgn

    damage: list[Damage] = []
    listed, whole = _listed(program, damage)
    numbered = _numbered(program, damage)
    layout = Layout(program, "struct task_struct", _TASK).require("pid", "tgid", "mm", "comm")
    records = read_records(layout, dict.fromkeys([*listed, *numbered]))
    damage += missing("task", records.address[~records.present])
    judged = records.present & (whole | (records["pid"] == records["tgid"]))
    _compare(records.address[judged].tolist(), listed, numbered, damage)
    objects = [drgn.Object(program, "struct task_struct *", at) for at in records.address.tolist()]
    groups: dict[int, list[int]] = {}
    for row in np.flatnonzero(records.present).tolist():
        groups.setdefault(int(records["tgid"][row]), []).append(row)
    processes = [
        _process(facts, records, objects, rows)
        for pid, rows in sorted(groups.items()) if _is_pid(pid, records, rows)
    ]  # fmt: skip
    return Tasks(processes, records, tuple(damage))


def _is_pid(pid: int, records: Records, rows: list[int]) -> bool:
    """Whether tasks of a thread group are tasks: memory of something else has no names."""
    return 0 < pid <= _LARGEST_PID and any(
        records["comm"][row].tobytes()[:1] != b"" for row in rows
    )


def _listed(program: Program, damage: list[Damage]) -> tuple[list[int], bool]:
    """The tasks in the list that begins at init_task, each leader with its threads.

    And whether the dump has what leads to the threads of all of them.
    """
    link = member_offset(program, "struct task_struct", "tasks")
    first = program.symbol("init_task").address
    assert link is not None
    leaders = _ring(program, first + link, link, "tasks", "task", damage)
    links = _thread_links(program)
    if links is None:
        return leaders, False
    thread, signal, head = links
    found = []
    whole = True
    for leader in leaders:
        threads = []
        place = read_word(program, leader + signal)
        if place is None or read_word(program, place + head) is None:
            whole = False
        else:
            threads = _ring(program, place + head, thread, "threads", "task", damage)
        found += threads if leader in threads else [leader, *threads]
    return found, whole


def _thread_links(program: Program) -> tuple[int, int, int] | None:
    """Offsets of the list of threads: in a task, of what they share, and of its head there."""
    thread = member_offset(program, "struct task_struct", "thread_node")
    signal = member_offset(program, "struct task_struct", "signal")
    head = member_offset(program, "struct signal_struct", "thread_head")
    if thread is None or signal is None or head is None:
        return None
    return thread, signal, head


def _ring(
    program: Program, head: int, link: int, name: str, kind: str, damage: list[Damage]
) -> list[int]:
    """The structs in a list that begins and ends at a head, and what is wrong with its links."""
    found: list[int] = []
    seen = {head}
    before, at = head, read_word(program, head)
    while at is not None and at != head and len(found) < _MOST_TASKS:
        if at in seen:
            damage.append(
                Damage(kind, before - link, f"leads back to one met before in the list of {name}",
                       "loop", found=at - link)
            )  # fmt: skip
            break
        seen.add(at)
        following, back = read_word(program, at), read_word(program, at + 8)
        if following is None or back is None:
            damage.append(
                Damage(kind, before - link, f"leads to {at - link:#x} in the list of {name}, "
                       "which is not in the dump", found=at - link)
            )  # fmt: skip
            break
        found.append(at - link)
        if back != before:
            damage.append(
                Damage(kind, at - link, f"its link back in the list of {name} does not lead to the "
                       "one before", "back link", before - link, back - link)
            )  # fmt: skip
        before, at = at, following
    return found


def _numbered(program: Program, damage: list[Damage]) -> list[int]:
    """The tasks that have a pid in the first namespace, by the array of its pids (since 4.20)."""
    link = member_offset(program, "struct task_struct", "pid_links[0]")
    root = member_offset(program, "struct pid_namespace", "idr.idr_rt.xa_head")
    if link is None or root is None:
        return []
    head = read_word(program, program.symbol("init_pid_ns").address + root)
    if head is None:
        return []
    _, pids = read_xarray(program, head, damage)
    records = read_records(Layout(program, "struct pid", {"first": "tasks[0].first"}), pids)
    damage += missing("pid", records.address[~records.present])
    first = records["first"][records.present]
    return [at - link for at in first[first != 0].tolist()]


def _compare(
    tasks: list[int], listed: list[int], numbered: list[int], damage: list[Damage]
) -> None:
    """Note tasks that only one of the two ways leads to."""
    if not numbered:
        return
    one, two = set(listed), set(numbered)
    for at in tasks:
        if at not in one:
            damage.append(Damage("task", at, "is not in the list of tasks or threads", "unlisted"))
        elif at not in two:
            damage.append(Damage("task", at, "no pid leads to it", "unlisted"))


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
        tasks=[leader, *(row for row in rows if row != leader)],
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
    from drgn.helpers.linux.mm import access_remote_vm

    start, end = int(task.mm.arg_start.value_()), int(task.mm.arg_end.value_())
    if not start <= end <= start + _LONGEST_CMDLINE:
        return ""
    words = access_remote_vm(task.mm, start, end - start).split(b"\0")[:-1]
    return " ".join(word.decode("utf-8", "backslashreplace") for word in words)

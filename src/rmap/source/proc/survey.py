# SPDX-License-Identifier: GPL-2.0-only
"""Who is there: every process, what it says of itself, and through which thread to read it."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache

from rmap.source.proc.files import Denied, Gone, list_tasks, read_file
from rmap.source.proc.status import (
    Stat,
    Status,
    parse_cgroup,
    parse_cmdline,
    parse_stat,
    parse_status,
)

_DEAD = {"Z", "X", "x"}
#: Start time and layout of the address space: another one if the pid names another process by
#: now, or if the process has executed another program.
Identity = tuple[int, tuple[int, ...]]


@dataclass(slots=True)
class Process:
    """One process as a row of the image's table, and how to read its memory.

    ``task`` is a thread to read instead of the process: its first thread has exited. ``state``
    is the ``status`` column of the schema. ``identity`` is that of the task to be read.
    """

    pid: int
    state: str = "ok"
    task: int | None = None
    stat: Stat | None = None
    status: Status | None = None
    identity: Identity | None = None
    cmdline: str = ""
    cgroup: str = ""

    @property
    def readable(self) -> bool:
        """Whether its memory is (still) to be read."""
        return self.state == "ok"

    @property
    def reader_id(self) -> int:
        """The task through which its memory is read."""
        return self.pid if self.task is None else self.task

    @property
    def user(self) -> str:
        """Name of its user."""
        return "" if self.status is None else user_name(self.status.uid)

    def become(self, other: Process) -> None:
        """Take over all that was found out about the same pid later."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def is_same(self) -> bool:
        """Whether the pid still is the same process, and runs the same program.

        Raises `Gone` or `Denied`.
        """
        return _identity(_read_stat(self.pid, self.task)) == self.identity


@cache
def user_name(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def faults_of(pid: int) -> int | None:
    """Return how many page faults a process has taken; None if it is gone or refuses."""
    try:
        return _read_stat(pid).faults
    except (Gone, Denied):
        return None


def survey(pids: Iterable[int], own: Collection[int]) -> list[Process]:
    """Look at each process; those of ``own`` (the reader and its helpers) are marked ``self``.

    Never raises for a process that vanishes or refuses: its ``state`` says so.
    """
    return [look_at(pid, own) for pid in pids]


def look_at(pid: int, own: Collection[int] = ()) -> Process:
    """Look at one process. Never raises for one that vanishes or refuses."""
    process = Process(pid)
    try:
        process.stat = _read_stat(pid)
        process.identity = _identity(process.stat)
        process.status = parse_status(read_file(pid, "status"))
        process.cgroup = _optional(pid, "cgroup", parse_cgroup)
        process.cmdline = _optional(pid, "cmdline", parse_cmdline)
        if pid in own:
            process.state = "self"
        elif process.stat.kernel_thread:
            process.state = "kernel"
        elif process.stat.state in _DEAD and not find_living_thread(process):
            process.state = "zombie"
    except Gone:
        process.state = "vanished"
    except Denied:
        process.state = "denied"
    return process


def _read_stat(pid: int, task: int | None = None) -> Stat:
    text = read_file(pid, "stat", task)
    if not text:
        raise Gone(f"process {pid} has exited")
    return parse_stat(text)


def _identity(stat: Stat) -> Identity:
    return stat.start_time, stat.layout


def _optional(pid: int, name: str, parse: Callable[[bytes], str]) -> str:
    """A file that may be refused without harm: it only names the process."""
    try:
        return parse(read_file(pid, name))
    except Denied:
        return ""


def find_living_thread(process: Process) -> bool:
    """Read the process through a thread that lives, if its first one has exited.

    Returns whether there is one. Raises `Gone` if the whole process has vanished, `Denied`.
    """
    for task in list_tasks(process.pid):
        try:
            stat = _read_stat(process.pid, task)
            if stat.state not in _DEAD and task != process.reader_id:
                process.status = parse_status(read_file(process.pid, "status", task))
                process.identity = _identity(stat)
                process.task = task
                return True
        except Gone:
            continue
    return False

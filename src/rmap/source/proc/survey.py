# SPDX-License-Identifier: GPL-2.0-only
"""Who is there: every process, what it says of itself, and through which thread to read it."""

from __future__ import annotations

import os
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


@dataclass(slots=True)
class Process:
    """One process as a row of the image's table, and how to read its memory.

    ``task`` is a thread to read instead of the process: its first thread has exited. ``state``
    is the ``status`` column of the schema.
    """

    pid: int
    state: str = "ok"
    task: int | None = None
    stat: Stat | None = None
    status: Status | None = None
    cmdline: str = ""
    cgroup: str = ""

    @property
    def readable(self) -> bool:
        """Whether its memory is (still) to be read."""
        return self.state == "ok"

    @property
    def user(self) -> str:
        """Name of its user."""
        return "" if self.status is None else user_name(self.status.uid)


@cache
def user_name(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def survey(pids: Iterable[int], own: Collection[int]) -> list[Process]:
    """Look at each process; those of ``own`` (the reader and its helpers) are marked ``self``.

    Never raises for a process that vanishes or refuses: its ``state`` says so.
    """
    return [_look_at(Process(pid), pid in own) for pid in pids]


def _look_at(process: Process, own: bool) -> Process:
    try:
        process.stat = parse_stat(read_file(process.pid, "stat"))
        process.status = parse_status(read_file(process.pid, "status"))
        process.cgroup = _optional(process.pid, "cgroup", parse_cgroup)
        process.cmdline = _optional(process.pid, "cmdline", parse_cmdline)
        if own:
            process.state = "self"
        elif process.stat.state in _DEAD:
            _find_living_thread(process)
        elif process.status.rss_anon < 0:
            process.state = "kernel"
    except (Gone, ValueError):
        process.state = "vanished"
    except Denied:
        process.state = "denied"
    return process


def _optional(pid: int, name: str, parse: Callable[[bytes], str]) -> str:
    """A file that may be refused without harm: it only names the process."""
    try:
        return parse(read_file(pid, name))
    except Denied:
        return ""


def _find_living_thread(process: Process) -> None:
    """A zombie may be the first thread of a process whose other threads live on."""
    for task in list_tasks(process.pid):
        try:
            if parse_stat(read_file(process.pid, "stat", task)).state not in _DEAD:
                process.task = task
                process.status = parse_status(read_file(process.pid, "status", task))
                return
        except Gone:
            continue
    process.state = "zombie"


def own_pids(helpers: Collection[int]) -> set[int]:
    """The reader and its helpers: reading makes them copy their own pages, so they are left out."""
    return {os.getpid(), *helpers}

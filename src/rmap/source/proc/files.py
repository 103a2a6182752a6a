# SPDX-License-Identifier: GPL-2.0-only
"""Reading files of one process in ``/proc``, which may vanish or be refused at any moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class Gone(Exception):
    """The process has exited (or has no memory any more)."""


class Denied(Exception):
    """The process may not be read, not even by us. It is counted, and left alone."""


_GONE = {errno.ENOENT, errno.ESRCH}
_DENIED = {errno.EPERM, errno.EACCES}


@contextmanager
def process_errors() -> Iterator[None]:
    """Turn what ``/proc/PID`` says of a process into `Gone` or `Denied`; pass on the rest."""
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:
            raise Gone(str(error)) from error
        if error.errno in _DENIED:
            raise Denied(str(error)) from error
        raise


def read_file(pid: int, name: str, task: int | None = None) -> bytes:
    """Return ``/proc/PID/NAME`` (of a thread: ``/proc/PID/task/TID/NAME``).

    Raises
    ------
    Gone, Denied
        The process has exited, or may not be read.
    """
    with process_errors(), open(path_of(pid, name, task), "rb") as file:
        return file.read()


def path_of(pid: int, name: str, task: int | None = None) -> str:
    """Return the path of a file of a process, or of one of its threads."""
    return f"/proc/{pid}/{name}" if task is None else f"/proc/{pid}/task/{task}/{name}"


def list_pids() -> list[int]:
    """Return the ids of all processes, ascending."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def list_tasks(pid: int) -> list[int]:
    """Return the ids of a process's threads, ascending. Raises `Gone` or `Denied`."""
    with process_errors():
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))

# SPDX-License-Identifier: GPL-2.0-only
"""Reading files of one process in ``/proc``, which may vanish or be refused at any moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rmap.errors import MissingFeatureError


class Gone(Exception):
    """The process has exited (or has no memory any more)."""


class Denied(Exception):
    """The process may not be read, not even by us. It is counted, and left alone."""


class Malformed(MissingFeatureError):
    """A file of ``/proc`` is not of the documented form: a kernel that this rmap does not know."""


_GONE = {errno.ENOENT, errno.ESRCH}
_DENIED = {errno.EPERM, errno.EACCES}
#: More than one page of output for every file but maps and smaps of large processes.
_READ_BYTES = 1 << 16


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
    with process_errors():
        # Not by open(): its buffered file object costs more than these small files do.
        fd = os.open(path_of(pid, name, task), os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, _READ_BYTES)
            while more := os.read(fd, _READ_BYTES):  # maps comes in pieces of about a page
                text += more
        finally:
            os.close(fd)
    return text


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

# SPDX-License-Identifier: GPL-2.0-only
"""Stopping processes while they are read, and letting them go on whatever happens.

SIGSTOP by pidfd, so that a process id used again is not hit. A process that was stopped before
stays stopped. Three things see to the resuming: the ``finally`` of the context, handlers that
turn SIGTERM and SIGHUP into an exception while it lasts, and a guardian process that waits on a
pipe and resumes everything if we die without a word (SIGKILL).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from rmap.errors import PrivilegeError, RmapError, TargetError
from rmap.source.proc.files import Denied, Gone, list_tasks, read_file
from rmap.source.proc.status import parse_stat

#: A thread in uninterruptible sleep stops only when it wakes up.
STOP_TIMEOUT_S = 5.0
_STOPPED = {"T", "t", "Z", "X"}
_DONE = b"."


class Interrupted(RmapError):
    """A signal ended the reading while processes were stopped."""


@contextmanager
def frozen(pids: Collection[int]) -> Iterator[list[int]]:
    """Stop ``pids`` for the time of the context.

    Yields the ids of helper processes, which are to be left out of a snapshot.

    Raises
    ------
    TargetError
        If a process does not exist or does not stop in time.
    PrivilegeError
        If it may not be signalled.
    """
    if not pids:
        yield []
        return
    if os.getpid() in pids:
        raise TargetError(f"cannot freeze process {os.getpid()}: it is rmap itself")
    descriptors: dict[int, int] = {}
    restore = _signals_as_exceptions()
    guardian = None
    try:
        for pid in pids:
            if not _is_stopped(pid):
                descriptors[pid] = _open(pid)
        guardian = _Guardian(list(descriptors.values()))
        for pid, descriptor in descriptors.items():
            _send(descriptor, signal.SIGSTOP, pid)
        for pid in descriptors:
            _wait_stopped(pid)
        yield [guardian.pid]
    finally:
        for descriptor in descriptors.values():
            _resume(descriptor)
        if guardian is not None:
            guardian.dismiss()
        for descriptor in descriptors.values():
            os.close(descriptor)
        restore()


def _open(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise TargetError(f"no such process: {pid}") from None


def _send(descriptor: int, number: signal.Signals, pid: int) -> None:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        raise TargetError(f"process {pid} has exited") from None
    except PermissionError:
        raise PrivilegeError(
            f"may not stop process {pid}: run as its owner or as root, or leave out --freeze"
        ) from None


def _resume(descriptor: int) -> None:
    """Let a process go on; one that has exited needs nothing."""
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
    except ProcessLookupError:
        return
    except PermissionError:
        return  # it refused the stop as well, so it runs


def _states(pid: int) -> list[str]:
    states = []
    for task in list_tasks(pid):
        try:
            states.append(parse_stat(read_file(pid, "stat", task)).state)
        except Gone:
            continue  # a thread that has exited needs no stopping
    return states


def _is_stopped(pid: int) -> bool:
    try:
        return all(state in _STOPPED for state in _states(pid))
    except Gone:
        raise TargetError(f"no such process: {pid}") from None
    except Denied:
        raise PrivilegeError(f"process {pid} may not be read, not even by this user") from None


def _wait_stopped(pid: int) -> None:
    """Wait until every thread has stopped. Raises TargetError if that takes too long."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not _is_stopped(pid):
        if time.monotonic() > deadline:
            raise TargetError(
                f"process {pid} did not stop within {STOP_TIMEOUT_S:g} s (a thread waits in the "
                "kernel); try again, or leave out --freeze"
            )
        time.sleep(0.001)


def _signals_as_exceptions() -> Callable[[], None]:
    """Make SIGTERM and SIGHUP raise `Interrupted`; return what undoes it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"interrupted by {signal.Signals(number).name}; all was resumed")

    try:
        before = {
            number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
        }
    except ValueError:  # not in the main thread: signals are the main thread's business
        return lambda: None

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


class _Guardian:
    """A child process that resumes everything when its parent dies."""

    def __init__(self, descriptors: list[int]) -> None:
        read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._write_end)
            self._watch(read_end, descriptors)
        os.close(read_end)

    @staticmethod
    def _watch(read_end: int, descriptors: list[int]) -> None:
        """Wait for the parent's word or its end; never returns."""
        status = 1
        try:
            os.setsid()  # not reached by a Ctrl-C, nor by a kill of the parent's group
            if os.read(read_end, 1) != _DONE:
                for descriptor in descriptors:
                    _resume(descriptor)
            status = 0
        finally:
            os._exit(status)

    def dismiss(self) -> None:
        """Tell it that all is done, and wait for its end."""
        os.write(self._write_end, _DONE)
        os.close(self._write_end)
        os.waitpid(self.pid, 0)

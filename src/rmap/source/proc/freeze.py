# SPDX-License-Identifier: GPL-2.0-only
"""Stopping processes while they are read, and letting them go on whatever happens.

SIGSTOP by pidfd, so that a process id used again is not hit. Three things see to the resuming: the
``finally`` of the context; handlers that turn SIGTERM and SIGHUP into an exception while it lasts
(Ctrl-C is one already), after which the signal takes its course; and a guardian, a process that
waits on a pipe and resumes everything if we die without a word (SIGKILL).

A process that was stopped before stays stopped, and one that a debugger holds is left to it. What
cannot be known: if somebody else stops a process while it is frozen, it goes on with the rest. And
its parent sees it stop and go on, as with any SIGSTOP; a shell says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from rmap.errors import MissingFeatureError, PrivilegeError, RmapError, TargetError
from rmap.source.proc import guardian
from rmap.source.proc.files import Denied, Gone, list_tasks, read_file
from rmap.source.proc.status import parse_stat

#: A thread in uninterruptible sleep stops only when it wakes up.
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.001
#: Stopped by a signal, or by a debugger; the dead do nothing either.
_STOPPED = {"T", "t", "Z", "X", "x"}
Handler = Callable[[int, FrameType | None], None]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(RmapError):
    """A signal ended the reading while processes were stopped."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}; what was stopped was resumed")
        self.number = number


@contextmanager
def frozen(pids: Collection[int]) -> Iterator[list[int]]:
    """Stop ``pids`` for the time of the context.

    Yields the ids of helper processes, which are to be left out of a snapshot.

    Raises
    ------
    TargetError
        If a process does not exist, cannot be stopped, or does not stop in time.
    PrivilegeError
        If it may not be signalled.

    >>> with frozen([1234]):  # doctest: +SKIP
    ...     print(open("/proc/1234/stat").read())
    """
    if not pids:
        yield []
        return
    ended = None
    with _handled((signal.SIGTERM, signal.SIGHUP), _interrupt):
        try:
            with _stopped(sorted(set(pids))) as helpers:
                yield helpers
        except Interrupted as interrupted:
            ended = interrupted
    if ended is not None:
        signal.raise_signal(ended.number)  # now to whom it would have gone: usually our end
        raise ended


@contextmanager
def _stopped(pids: list[int]) -> Iterator[list[int]]:
    """Stop and resume; what interrupts us is held up while we resume."""
    targets: dict[int, int] = {}
    stopped: list[int] = []
    guard: _Guardian | None = None
    try:
        for pid in pids:
            if not _check(pid):
                targets[pid] = _open(pid)
        guard = _Guardian(list(targets.values()))
        for pid, target in targets.items():
            stopped.append(target)
            _stop(pid, target)
        _wait_stopped(targets)
        yield [guard.pid]
    finally:
        with _deferred():
            for target in stopped:
                # One that has exited needs nothing; one that refuses was not stopped by us.
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(target, signal.SIGCONT)
            for target in targets.values():
                os.close(target)
            if guard is not None:
                guard.dismiss()


def _check(pid: int) -> bool:
    """Return whether a process is stopped already. Raises for one that cannot be frozen."""
    if pid == os.getpid():
        raise TargetError(f"cannot freeze process {pid}: it is rmap itself")
    try:
        if parse_stat(read_file(pid, "stat")).kernel_thread:
            raise TargetError(f"cannot freeze process {pid}: it is a thread of the kernel")
        return _is_stopped(pid)
    except Gone:
        raise TargetError(f"no such process: {pid}") from None
    except Denied:
        raise PrivilegeError(f"process {pid} may not be read, not even by this user") from None


def _open(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise TargetError(f"no such process: {pid}") from None
    except OSError as error:
        if Path(f"/proc/{pid}").exists():
            raise TargetError(
                f"cannot freeze {pid}: it is a thread, name its process ({error.strerror})"
            ) from None
        raise MissingFeatureError(f"cannot freeze: pidfd_open: {error.strerror}") from None


def _stop(pid: int, target: int) -> None:
    try:
        signal.pidfd_send_signal(target, signal.SIGSTOP)
    except ProcessLookupError:
        raise TargetError(f"process {pid} has exited") from None
    except PermissionError:
        raise PrivilegeError(
            f"may not stop process {pid}: run as its owner or as root, or leave out --freeze"
        ) from None


def _is_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped. Raises `Gone` or `Denied`."""
    for task in list_tasks(pid):
        # A thread that has exited needs no stopping.
        with suppress(Gone):
            if parse_stat(read_file(pid, "stat", task)).state not in _STOPPED:
                return False
    return True


def _wait_stopped(pids: Collection[int]) -> None:
    """Wait until every thread of each process has stopped. Raises TargetError after a while."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for pid in pids:
        try:
            while not _is_stopped(pid):
                if time.monotonic() > deadline:
                    raise TargetError(
                        f"process {pid} did not stop within {STOP_TIMEOUT_S:g} s (a thread waits "
                        "in the kernel); try again, or leave out --freeze"
                    )
                time.sleep(_POLL_S)
        except Gone:
            raise TargetError(f"process {pid} has exited") from None


@contextmanager
def _deferred() -> Iterator[None]:
    """Hold back signals that would interrupt, and send them again at the end.

    By handlers: Python takes a signal in the main thread whichever thread it reaches, so blocking
    it there would not do.
    """
    pending: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pending.append(number)

    with _handled(_SIGNALS, note):
        yield
    for number in pending:
        signal.raise_signal(number)


@contextmanager
def _handled(numbers: Collection[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handle signals, but for those that are ignored.

    Signals are the main thread's business: in another one nothing is changed.
    """
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


class _Guardian:
    """A process that resumes everything when its parent dies."""

    def __init__(self, targets: list[int]) -> None:
        read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        command = [sys.executable, "-I", "-S", guardian.__file__, str(read_end)]
        try:
            self._process = subprocess.Popen(
                [*command, *map(str, targets)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=[read_end, *targets],
                start_new_session=True,
            )
        finally:
            os.close(read_end)
        try:
            self._require_ready()
        except BaseException:
            self.dismiss()
            raise

    def _require_ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.read(1) != guardian.DONE:
            raise MissingFeatureError(f"cannot freeze: {sys.executable} does not start")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """Tell it that all is done, and wait for its end."""
        with suppress(BrokenPipeError):  # it has ended already
            os.write(self._write_end, guardian.DONE)
        os.close(self._write_end)
        with self._process:
            self._process.wait()

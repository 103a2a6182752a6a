# SPDX-License-Identifier: GPL-2.0-only
"""Stopped processes go on, whatever happens to those who stopped them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmap.errors import PrivilegeError, TargetError
from rmap.source.proc import freeze, guardian
from rmap.source.proc.files import list_tasks, read_file
from rmap.source.proc.freeze import frozen
from rmap.source.proc.status import parse_stat

TIMEOUT_S = 10.0
SOURCE = Path(freeze.__file__).parents[3]

#: Freezes the process named by its argument until it is killed, and says when it has. Signals have
#: their effect in it even where the tests run without (nohup, a shell's background).
READER = """
import signal, sys, time
from rmap.source.proc.freeze import frozen
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
with frozen([int(sys.argv[1])]) as helpers:
    print(*helpers, flush=True)
    time.sleep(60)
"""
THREADED = """
import threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(flush=True)
time.sleep(60)
"""


def states(pid: int) -> set[str]:
    return {parse_stat(read_file(pid, "stat", task)).state for task in list_tasks(pid)}


def stopped(pid: int) -> bool:
    return states(pid) == {"T"}


def wait_for(what: str, pid: int, wanted: bool) -> None:
    end = time.monotonic() + TIMEOUT_S
    while stopped(pid) != wanted:
        assert time.monotonic() < end, f"{what}: still {states(pid)}"
        time.sleep(0.005)


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def reader(sleeper: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that has frozen the sleeper."""
    command = [sys.executable, "-c", READER, str(sleeper)]
    path = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        assert stopped(sleeper)
        yield process
        process.kill()


def test_a_frozen_process_stands_still_and_goes_on(sleeper: int) -> None:
    with frozen([sleeper, sleeper]) as helpers:
        assert stopped(sleeper)
        assert len(helpers) == 1
    wait_for("after the context", sleeper, False)
    assert not Path(f"/proc/{helpers[0]}").exists()


def test_nothing_to_freeze_takes_no_helper() -> None:
    with frozen([]) as helpers:
        assert helpers == []


def test_every_thread_has_stopped() -> None:
    command = [sys.executable, "-ISc", THREADED]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with frozen([process.pid]):
            assert len(list_tasks(process.pid)) == 4
            assert states(process.pid) == {"T"}
        wait_for("threads", process.pid, False)
        process.kill()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_goes_on_after_an_error(sleeper: int, error: type[BaseException]) -> None:
    seen: list[bool] = []

    def fail_while_frozen() -> None:
        with frozen([sleeper]):
            seen.append(stopped(sleeper))
            raise error

    with pytest.raises(error):
        fail_while_frozen()
    assert seen == [True]
    wait_for(error.__name__, sleeper, False)


def test_it_goes_on_after_control_c(sleeper: int) -> None:
    # What runs in the background of a shell ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), frozen([sleeper]):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for("Ctrl-C", sleeper, False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_it_goes_on_when_the_reader_is_ended(
    sleeper: int, reader: subprocess.Popen[str], number: signal.Signals
) -> None:
    reader.send_signal(number)
    assert reader.wait(TIMEOUT_S) == -number  # it ends of that signal, as it would have anyway
    wait_for(number.name, sleeper, False)


def test_a_handler_of_the_callers_gets_its_signal_after_the_resuming(sleeper: int) -> None:
    seen: list[bool] = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(stopped(sleeper)))
    try:
        with pytest.raises(freeze.Interrupted, match="SIGTERM"), frozen([sleeper]):
            signal.raise_signal(signal.SIGTERM)
        wait_for("SIGTERM", sleeper, False)
        assert len(seen) == 1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_process_that_was_stopped_before_stays_so(sleeper: int) -> None:
    os.kill(sleeper, signal.SIGSTOP)
    wait_for("SIGSTOP", sleeper, True)
    with frozen([sleeper]):
        assert stopped(sleeper)
    time.sleep(0.05)
    assert stopped(sleeper)


def test_a_process_that_ends_while_frozen_is_no_trouble(sleeper: int) -> None:
    with frozen([sleeper]):
        os.kill(sleeper, signal.SIGKILL)
    end = time.monotonic() + TIMEOUT_S
    while states(sleeper) != {"Z"}:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_all_or_none_are_frozen(sleeper: int) -> None:
    with pytest.raises(TargetError, match="no such process: 99999999"), frozen([sleeper, 99999999]):
        pytest.fail("it is not entered")
    wait_for("the other one", sleeper, False)


def test_what_cannot_be_frozen_is_named() -> None:
    with pytest.raises(TargetError, match="rmap itself"), frozen([os.getpid()]):
        pytest.fail("it is not entered")
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(TIMEOUT_S,))
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(TargetError, match="thread"), frozen([thread.native_id]):
            pytest.fail("it is not entered")
    finally:
        release.set()
        thread.join()


def test_the_kernels_own_threads_are_not_frozen() -> None:
    if not Path("/proc/2/stat").exists() or not parse_stat(read_file(2, "stat")).kernel_thread:
        pytest.skip("process 2 is not a thread of the kernel in this pid namespace")
    with pytest.raises(TargetError, match="thread of the kernel"), frozen([2]):
        pytest.fail("it is not entered")


def test_a_process_that_does_not_stop_is_given_up(
    sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "STOP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(freeze, "_is_stopped", lambda pid: False)
    with pytest.raises(TargetError, match="did not stop within"), frozen([sleeper]):
        pytest.fail("it is not entered")
    wait_for("given up", sleeper, False)


def test_a_process_that_may_not_be_signalled_is_named(
    sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with pytest.raises(PrivilegeError, match=f"may not stop process {sleeper}"), frozen([sleeper]):
        pytest.fail("it is not entered")


def test_freezing_from_another_thread_leaves_the_handlers_alone(sleeper: int) -> None:
    seen: list[bool] = []

    def work() -> None:
        with frozen([sleeper]):
            seen.append(stopped(sleeper) and signal.getsignal(signal.SIGTERM) is before)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(TIMEOUT_S)
    assert seen == [True]
    wait_for("thread", sleeper, False)


def test_the_guardian_leaves_everything_to_a_reader_that_is_done() -> None:
    read_end, write_end = os.pipe()
    command = [sys.executable, "-I", "-S", guardian.__file__, str(read_end)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[read_end]) as process:
        os.write(write_end, guardian.DONE)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == guardian.DONE
    os.close(read_end)
    os.close(write_end)

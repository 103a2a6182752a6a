# SPDX-License-Identifier: GPL-2.0-only
"""The only place where tests change the machine: it is put back, whatever happens.

A change is undone when its ``with`` block ends; should the interpreter leave before that (exit,
SIGTERM, SIGHUP), it is undone then. Only SIGKILL can prevent it.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

MM = Path("/sys/kernel/mm")
KSM = MM / "ksm"
THP = MM / "transparent_hugepage"
THP_ENABLED = THP / "enabled"
THP_ZERO_PAGE = THP / "use_zero_page"
THP_64K = THP / "hugepages-64kB" / "enabled"
NR_HUGEPAGES = Path("/proc/sys/vm/nr_hugepages")
#: Every setting that a test may change.
TOUCHED = (
    THP_ENABLED,
    THP_ZERO_PAGE,
    THP_64K,
    NR_HUGEPAGES,
    *(KSM / name for name in ("run", "sleep_millisecs", "pages_to_scan", "smart_scan")),
)

_LOCK_TIMEOUT = 120.0
_libc = ctypes.CDLL(None, use_errno=True)
_undo: list[Callable[[], None]] = []


class _Lock:
    """Keeps test runs on one machine from changing its settings at the same time.

    While nobody holds it, the settings are as they were found. It may be taken again by its
    holder. The kernel releases it with the process.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._handle = -1

    def __enter__(self) -> None:
        if self._depth == 0:
            self._acquire()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            os.close(self._handle)

    def _acquire(self) -> None:
        handle = os.open(MM, os.O_RDONLY)
        end = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(0.1)
                    continue
                os.close(handle)
                pytest.fail("another test run on this machine keeps its settings changed")
            self._handle = handle
            return


ALONE = _Lock()


def value_of(path: Path) -> str:
    """Value of a setting; of a list of choices (``always [madvise] never``) the chosen one."""
    text = path.read_text().strip()
    before, bracket, rest = text.partition("[")
    return rest.partition("]")[0] if bracket else before


def found() -> dict[str, str]:
    """State of everything that the tests may change, while nobody changes it."""
    with ALONE:
        state = {str(path): value_of(path) for path in TOUCHED if path.exists()}
        return state | {"/proc/swaps": Path("/proc/swaps").read_text()}


@contextmanager
def _until_undone(undo: Callable[[], None]) -> Iterator[None]:
    _undo.append(undo)
    try:
        yield
    finally:
        if undo in _undo:
            _undo.remove(undo)
            undo()


def restore_all() -> None:
    """Undo all that is not undone yet, the latest change first."""
    while _undo:
        _undo.pop()()


def _restore_and_end(number: int, frame: FrameType | None) -> None:
    restore_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def restore_at_exit() -> None:
    """Arrange that all is undone when the interpreter leaves."""
    atexit.register(restore_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _restore_and_end)


@contextmanager
def changed(path: Path, value: str) -> Iterator[None]:
    """Set ``path`` to ``value``; skip the test where there is no such setting."""
    if not path.exists():
        pytest.skip(f"this kernel has no {path}")
    with ALONE:
        before = value_of(path)
        if before == value:
            yield
            return
        try:
            path.write_text(value)
        except OSError as error:
            pytest.skip(f"{path} cannot be set: {error.strerror}")
        with _until_undone(partial(_write, path, before)):
            yield


def _write(path: Path, value: str) -> None:
    path.write_text(value)


@contextmanager
def huge_pages(count: int) -> Iterator[None]:
    """Reserve ``count`` more hugetlb pages; skip where they cannot be had."""
    if not NR_HUGEPAGES.exists():
        pytest.skip(f"this kernel has no {NR_HUGEPAGES}")
    with ALONE:
        wanted = int(value_of(NR_HUGEPAGES)) + count
        with changed(NR_HUGEPAGES, str(wanted)):
            have = int(value_of(NR_HUGEPAGES))
            if have < wanted:
                pytest.skip(f"the kernel reserved only {have} of {wanted} hugetlb pages")
            yield


@contextmanager
def swap_file(size: int) -> Iterator[None]:
    """Swap to a file of ``size`` bytes; skip where no file can be swapped to."""
    refused = ""
    for folder in (tempfile.gettempdir(), "/var/tmp", str(Path(__file__).parent)):
        number, path = tempfile.mkstemp(prefix="rmap-swap-", dir=folder)
        os.close(number)
        with ALONE, _until_undone(partial(os.unlink, path)):
            _make_swap(path, size)
            if _libc.swapon(path.encode(), 0) == 0:
                with _until_undone(partial(_swapoff, path)):
                    yield
                return
            refused = os.strerror(ctypes.get_errno())
    pytest.skip(f"swapon of a file is refused: {refused}")


def _swapoff(path: str) -> None:
    if _libc.swapoff(path.encode()):
        raise OSError(ctypes.get_errno(), f"swapoff {path}")


def _make_swap(path: str, size: int) -> None:
    """What mkswap does: a header page (include/linux/swap.h), and no holes."""
    page = os.sysconf("SC_PAGESIZE")
    header = bytearray(page)
    header[1024:1032] = (1).to_bytes(4, "little") + (size // page - 1).to_bytes(4, "little")
    header[-10:] = b"SWAPSPACE2"
    with open(path, "wb") as file:
        file.write(header)
        file.write(bytes(size - page))
        file.flush()
        os.fsync(file.fileno())

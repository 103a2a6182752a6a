# SPDX-License-Identifier: GPL-2.0-only
"""A small world of processes that a test makes, and in which it knows who maps what.

>>> with World(program) as world:                      # doctest: +SKIP
...     parent = world.process()
...     heap = parent.map_anon(8)
...     parent.write(heap)
...     child = parent.fork()
...     child.write(heap[0:2])
...     image = world.snapshot()

Every process is a puppet (puppet.c) that does one system call when told and then holds still, so
what a snapshot must find is known exactly. All of them end with the ``with`` block; should the
driver die, they end with it, and in any case after a minute.
"""

from __future__ import annotations

import itertools
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rmap.image import MemoryImage
from rmap.source.proc import snapshot

PAGE = mmap.PAGESIZE
MAP_FIXED_NOREPLACE = 0x100000

PROT_NONE = 0
READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
PRIVATE_ANON = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SHARED_ANON = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
MREMAP_MAYMOVE_FIXED = 3
REPLY_TIMEOUT = 10.0

_REQUEST = struct.Struct("=16s6q1024s")
_REPLY = struct.Struct("=qq")
_numbers = itertools.count()


@dataclass(frozen=True)
class Region:
    """Some pages in a row: a mapping, or a slice of one (``region[4:8]``)."""

    start: int
    pages: int

    def __getitem__(self, wanted: slice | int) -> Region:
        if isinstance(wanted, int):
            wanted = slice(wanted, wanted + 1)
        first, last, step = wanted.indices(self.pages)
        assert step == 1
        assert first < last
        return Region(self.start + first * PAGE, last - first)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.pages * PAGE

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + self.size

    @property
    def addresses(self) -> range:
        """The address of each page."""
        return range(self.start, self.end, PAGE)


class Process:
    """A process of the world, and the address ranges in which its test maps things."""

    def __init__(self, world: World, pid: int, channel: socket.socket | None) -> None:
        self.world = world
        self.pid = pid
        self.arena: list[Region] = []
        self.ended = False
        self.proc = Path(f"/proc/{pid}")
        self._channel = channel
        self._pidfd = os.pidfd_open(pid)

    def __repr__(self) -> str:
        return f"<{self.pid}>"

    # Asking for system calls.

    def call(self, verb: str, *arguments: int, text: bytes = b"") -> int:
        """Perform ``verb`` in the process.

        Raises
        ------
        OSError
            What the system call failed with.
        """
        self._request(verb, *arguments, text=text)
        return self._reply(verb)

    def _request(self, verb: str, *arguments: int, text: bytes = b"") -> None:
        assert self._channel is not None, f"{self} cannot be told anything"
        assert len(text) < 1024
        numbers = [*arguments, *[0] * (6 - len(arguments))]
        self._channel.send(_REQUEST.pack(verb.encode(), *numbers, text))

    def _reply(self, verb: str) -> int:
        assert self._channel is not None
        data = self._channel.recv(_REPLY.size)
        assert len(data) == _REPLY.size, f"{self} ended while it did {verb}"
        value, error = _REPLY.unpack(data)
        if error:
            raise OSError(error, f"{verb}: {os.strerror(error)}")
        return int(value)

    # Mapping memory.

    def map(
        self, pages: int, flags: int, *, fd: int = -1, page: int = 0, align: int = PAGE
    ) -> Region:
        """Map ``pages`` pages from page ``page`` of ``fd``, at a multiple of ``align``."""
        size, slack = pages * PAGE, align - PAGE
        if slack:  # find room for it first
            room = self.call("map", 0, size + slack, PROT_NONE, PRIVATE_ANON, -1, 0)
            self.call("unmap", room, size + slack)
            start = (room + slack) // align * align
            flags |= MAP_FIXED_NOREPLACE
        else:
            start = 0
        region = Region(self.call("map", start, size, READ_WRITE, flags, fd, page * PAGE), pages)
        self.arena.append(region)
        return region

    def map_anon(self, pages: int, *, align: int = PAGE) -> Region:
        """Map private anonymous memory."""
        return self.map(pages, PRIVATE_ANON, align=align)

    def map_shared(self, pages: int) -> Region:
        """Map shared anonymous memory."""
        return self.map(pages, SHARED_ANON)

    def map_file(
        self, path: Path | bytes, pages: int, *, page: int = 0, private: bool = False
    ) -> Region:
        """Map ``pages`` pages of a file, from page ``page`` on."""
        fd = self.open(path)
        return self.map(pages, mmap.MAP_PRIVATE if private else mmap.MAP_SHARED, fd=fd, page=page)

    def open(self, path: Path | bytes) -> int:
        """Open a file for reading and writing."""
        return self.call("open", os.O_RDWR, text=os.fsencode(path))

    def memfd(self, name: bytes, pages: int) -> int:
        """Make a memfd of ``pages`` pages."""
        fd = self.call("memfd", 0, text=name)
        self.call("truncate", fd, pages * PAGE)
        return fd

    def unmap(self, region: Region) -> None:
        """Unmap."""
        self.call("unmap", region.start, region.size)

    def move(self, region: Region) -> Region:
        """Move a mapping elsewhere (mremap)."""
        target = self.map(region.pages, PRIVATE_ANON)
        self.call(
            "move", region.start, region.size, region.size, MREMAP_MAYMOVE_FIXED, target.start
        )
        return target

    def protect(self, region: Region, protection: int) -> None:
        """Change the permissions (mprotect)."""
        self.call("protect", region.start, region.size, protection)

    def advise(self, region: Region, advice: int) -> None:
        """Advise (madvise)."""
        self.call("advise", region.start, region.size, advice)

    def lock(self, region: Region) -> None:
        """Lock in memory (mlock)."""
        self.call("lock", region.start, region.size)

    def write(self, region: Region, value: int = 1) -> None:
        """Fill each page with ``value``."""
        self.call("write", region.start, region.pages, PAGE, value)

    def read(self, region: Region) -> None:
        """Read a byte of each page."""
        self.call("read", region.start, region.pages, PAGE)

    # Other processes.

    def fork(self) -> Process:
        """Fork a child, which has the same arena."""
        child = self.world.adopt(self.call("fork"))
        child.arena = list(self.arena)
        return child

    def clone_vm(self, verb: str = "clone_vm") -> Process:
        """Make a process that shares this one's memory, and holds still (``vfork``: so do we)."""
        child = self.world.adopt(self.call(verb), mute=True)
        child.arena = list(self.arena)
        return child

    def leave_leader(self) -> None:
        """End the first thread; the process lives on in another, in whose directory its mm is."""
        tid = self.call("leave_leader")
        self.proc = self.proc / "task" / str(tid)
        wait_until(lambda: self.state == "Z", "the first thread does not end")

    def exit(self) -> None:
        """Exit, and wait until that is done."""
        self._request("exit")
        self.wait()

    def kill(self) -> None:
        """Kill (through the pidfd: never anybody who inherited the pid)."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self) -> None:
        """Wait until the process has ended."""
        ended = select.select([self._pidfd], [], [], REPLY_TIMEOUT)[0]
        assert ended, f"{self} does not end"
        self.ended = True

    def stop(self) -> None:
        """Stop (SIGSTOP), and wait until it stands still."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP)
        wait_until(lambda: self.state == "T", f"{self} does not stop")

    def resume(self) -> None:
        """Let a stopped process go on."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    @property
    def state(self) -> str:
        """The letter of /proc/PID/stat."""
        return Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()

    # Long work.

    def start_churn(self, milliseconds: int, fd: int) -> None:
        """Begin to map, fork, write, unmap at full speed for ``milliseconds``."""
        self._request("churn", milliseconds, fd, PAGE)

    def finish_churn(self) -> int:
        """Wait for the end of it, and return the number of rounds."""
        return self._reply("churn")

    def close(self) -> None:
        """Give back our ends."""
        os.close(self._pidfd)
        if self._channel is not None:
            self._channel.close()


class World:
    """Processes that live as long as a ``with`` block.

    Parameters
    ----------
    program
        The compiled puppet.c.
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        self._all: list[Process] = []

    def __enter__(self) -> Self:
        name = f"rmap-live-{os.getpid()}-{next(_numbers)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(b"\0" + name.encode())
        self._listener.listen()
        self._listener.settimeout(REPLY_TIMEOUT)
        self._popen = subprocess.Popen([self._program, name], close_fds=True)
        self.root = self.adopt(self._popen.pid)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._all[1:]):  # the root stays, to reap the others
            process.kill()
        for process in self._all[1:]:
            process.wait()
        self._popen.kill()
        self._popen.wait(REPLY_TIMEOUT)
        for process in self._all:
            process.close()
        self._listener.close()

    @property
    def processes(self) -> list[Process]:
        """Those that live, but for the one that only exists to start them."""
        return [process for process in self._all[1:] if not process.ended]

    def adopt(self, pid: int, *, mute: bool = False) -> Process:
        """Take in a new process, which connects to us unless it is ``mute``."""
        channel = None
        if not mute:
            channel = self._listener.accept()[0]
            channel.settimeout(REPLY_TIMEOUT)
            said = _REPLY.unpack(channel.recv(_REPLY.size))[0]
            assert said == pid, f"{said} connected, where {pid} was expected"
        self._all.append(Process(self, pid, channel))
        return self._all[-1]

    def process(self) -> Process:
        """Start a process that shares nothing with the others but its program."""
        return self.adopt(self.root.call("spawn"))

    def snapshot(self, *, freeze: Iterable[Process] = ()) -> MemoryImage:
        """Take a snapshot of these processes and of the pages that they map."""
        pids = [process.pid for process in self.processes]
        return snapshot(pids, freeze=[process.pid for process in freeze], ram=False)


def wait_until(
    condition: Callable[[], bool], complaint: str, seconds: float = REPLY_TIMEOUT
) -> None:
    """Wait until ``condition()`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, complaint
        time.sleep(0.005)


def places(process: Process, region: Region) -> Iterator[tuple[int, int]]:
    """Give (pid, address) of each page of ``region`` in ``process``."""
    return ((process.pid, address) for address in region.addresses)


def make_file(path: Path, pages: int) -> Path:
    """Write a file of ``pages`` pages, no two of them alike."""
    path.write_bytes(b"".join(bytes([1 + i % 255]) * PAGE for i in range(pages)))
    return path


@contextmanager
def churn(world: World, file: Path, milliseconds: int) -> Iterator[list[Process]]:
    """Have two processes map, fork, write, unmap at full speed while the block runs.

    They stop after ``milliseconds``; the block ends when they have.
    """
    workers = [world.process(), world.process()]
    for worker in workers:
        worker.start_churn(milliseconds, worker.open(file))
    yield workers
    for worker in workers:
        assert worker.finish_churn() > 0, f"{worker} did not get to its work"

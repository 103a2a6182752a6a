# SPDX-License-Identifier: GPL-2.0-only
"""Run a program of the corpus on the model, as the corpus's interpreter runs it on a kernel."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rmap.mm.bits import PAGE_SIZE
from rmap.mm.profile import KernelProfile
from rmap.model import BusError, FileHandle, Machine, Process, Segfault, SyscallError
from tools.conformance.corpus import World
from tools.conformance.language import FILE_PAGES, Operation, parse
from tools.conformance.world import ARENA, world

#: Which kernel: a profile, or the name of one.
Kind = str | KernelProfile
#: RAM of the machine in pages: enough that nothing is ever reclaimed.
RAM = 32768
_SIGBUS = 1007
_SIGSEGV = 1011
_NO_PROCESS = -9999


def run(text: str, profile: Kind) -> World:
    """Run a program to its end; returns the world that it leaves.

    >>> run("mmap P0 A 2 anon", "6.1")["vmas"]
    [[0, 128, 130, 'rw-p ac', 128, None, None, []]]
    """
    execution = Execution(profile)
    for operation in parse(text):
        execution.do(operation)
    return execution.world()


def worlds(text: str, profile: Kind) -> Iterator[tuple[Operation, World]]:
    """Run a program and describe the world after each operation."""
    execution = Execution(profile)
    for operation in parse(text):
        execution.do(operation)
        yield operation, execution.world()


class Execution:
    """A machine on which a program runs: its processes and files by name, and what failed."""

    def __init__(self, profile: Kind) -> None:
        self.machine = Machine(ram=RAM, cpus=1, swap=0, profile=profile)
        self.processes: dict[int, Process] = {0: self.machine.spawn("P0")}
        self.files: dict[str, FileHandle] = {}
        self.status: list[list[int]] = []

    def world(self) -> World:
        """Describe the machine as it is now."""
        mms = {number: process.mm for number, process in self.processes.items()}
        return world(self.machine.kernel, mms, self.status)

    def do(self, operation: Operation) -> None:
        """Do one operation; a failure of it is noted in `status`."""
        process = self.processes.get(operation.process)
        if process is None:
            self.fail(operation, _NO_PROCESS)
        elif operation.name in ("read", "write"):
            self.access(process, operation)
        elif operation.name == "fork":
            with self.noting(operation):
                self.processes[operation.child] = process.fork(f"P{operation.child}")
        elif operation.name == "exit":
            process.exit()
            del self.processes[operation.process]
        else:
            with self.noting(operation):
                self.system_call(process, operation)

    def fail(self, operation: Operation, code: int, pages: int = 0) -> None:
        """Note that an operation failed."""
        self.status.append([operation.number, code, pages])

    @contextmanager
    def noting(self, operation: Operation) -> Iterator[None]:
        """Note the errno of a system call that fails."""
        try:
            yield
        except SyscallError as error:
            self.fail(operation, -(error.errno or errno.EINVAL))

    def access(self, process: Process, operation: Operation) -> None:
        """Load from, or store into, each page; the first that may not be accessed ends it."""
        value = operation.number.to_bytes(4, "little")
        for done in range(operation.length):
            address = ARENA + (operation.page + done) * PAGE_SIZE
            try:
                if operation.name == "write":
                    process.write(address, value)
                else:
                    process.read(address, len(value))
            except Segfault:
                return self.fail(operation, _SIGSEGV, done)
            except BusError:
                return self.fail(operation, _SIGBUS, done)
        return None

    def system_call(self, process: Process, operation: Operation) -> None:
        """Do one of the operations that are a system call on a range."""
        address = ARENA + operation.page * PAGE_SIZE
        length = operation.length * PAGE_SIZE
        calls: dict[str, Callable[[], object]] = {
            "mmap": lambda: self.mmap(process, operation),
            "munmap": lambda: process.munmap(address, length),
            "mprotect": lambda: process.mprotect(address, length, operation.protection),
            "madvise": lambda: process.madvise(address, length, operation.advice),
            "mlock": lambda: process.mlock(address, length),
            "munlock": lambda: process.munlock(address, length),
            "mremap": lambda: process.mremap(
                address,
                length,
                operation.new_length * PAGE_SIZE,
                ARENA + operation.new_page * PAGE_SIZE,
                operation.dontunmap,
            ),
        }
        calls[operation.name]()

    def mmap(self, process: Process, operation: Operation) -> None:
        """Map a region at its place."""
        process.mmap(
            operation.length * PAGE_SIZE,
            operation.protection,
            operation.kind,
            self.file(operation.file) if operation.file else None,
            operation.pgoff,
            ARENA + operation.page * PAGE_SIZE,
        )

    def file(self, name: str) -> FileHandle:
        """Return a file by name, making it when it is named first: on tmpfs, all holes."""
        if name not in self.files:
            self.files[name] = self.machine.file(name, FILE_PAGES, shmem=True)
        return self.files[name]

# SPDX-License-Identifier: GPL-2.0-only
"""What an operation of a process can end with, besides a result.

`Segfault`, `BusError` and `OutOfMemory` are what a load or store ends with, `SyscallError` what a
system call returns as a negative number. `rmap.mm.bug.KernelBug` passes through all of them: it
is a defect of the modelled kernel, and the machine stays as it was at that moment.
"""

from __future__ import annotations

import os

from rmap.mm.access import BrokenMemory, BusError, OutOfMemory, Segfault
from rmap.mm.uffd import UserfaultPending

__all__ = [
    "BrokenMemory",
    "BusError",
    "OutOfMemory",
    "Segfault",
    "SyscallError",
    "UserfaultPending",
]


class SyscallError(OSError):
    """A system call failed: `errno` is the kernel's number, the text says what was asked for."""

    def __init__(self, errno: int, what: str) -> None:
        super().__init__(errno, f"{what}: {os.strerror(errno)}")


def check(result: int, what: str) -> int:
    """Return a kernel function's result. Raises `SyscallError` if it is a negative errno."""
    if result < 0:
        raise SyscallError(-result, what)
    return result

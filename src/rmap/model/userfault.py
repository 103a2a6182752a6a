# SPDX-License-Identifier: GPL-2.0-only
"""A range of memory whose missing pages somebody else provides (userfaultfd(2))."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rmap.mm import userfaultfd
from rmap.mm.bits import PAGE_MASK, PAGE_SIZE
from rmap.mm.mm_types import Kernel
from rmap.mm.uffd import UserfaultfdCtx
from rmap.model.errors import check

if TYPE_CHECKING:
    from rmap.model.process import Process

#: What a handler gets: the process that faulted and the page's address. It returns the page's
#: bytes, or ``None`` for a zeroed one.
Handler = Callable[["Process", int], "bytes | None"]


class Userfault(UserfaultfdCtx):
    """A registered range; made by `Process.userfaultfd`. `faults` are the addresses asked for.

    It is what the kernel knows of it as well: a userfaultfd that answers by its handler.
    """

    def __init__(
        self, process: Process, address: int, length: int, mode: str, handler: Handler | None
    ) -> None:
        super().__init__()
        if mode != "missing":
            raise ValueError(f"userfaultfd knows no mode {mode!r}, only missing")
        self.process = process
        self.handler = handler
        self.faults: list[int] = []
        with process.machine.running(process) as k:
            check(
                userfaultfd.userfaultfd_register(k, process.mm, address, length, self),
                f"userfaultfd at {address:#x}",
            )

    def deliver(self, k: Kernel, address: int, flags: int) -> bool:
        """Hear of a fault, and resolve it if there is a handler. Called by the kernel."""
        page = address & PAGE_MASK
        self.faults.append(page)
        if self.handler is None:
            return False
        data = self.handler(self.process, page)
        if data is None:
            self.zeropage(page)
        else:
            self.copy(page, data)
        return True

    def copy(self, address: int, data: bytes) -> None:
        """Put a page there that begins with `data` (UFFDIO_COPY). Raises `SyscallError`."""
        if len(data) > PAGE_SIZE:
            raise ValueError(f"{len(data)} bytes are more than a page")
        with self.process.machine.running(self.process) as k:
            copied = userfaultfd.mcopy_atomic(k, self.process.mm, address, data)
            check(int(copied), f"UFFDIO_COPY at {address:#x}")

    def zeropage(self, address: int) -> None:
        """Put the zero page there (UFFDIO_ZEROPAGE). Raises `SyscallError`."""
        with self.process.machine.running(self.process) as k:
            filled = userfaultfd.mfill_zeropage(k, self.process.mm, address)
            check(int(filled), f"UFFDIO_ZEROPAGE at {address:#x}")

    def unregister(self, address: int, length: int) -> None:
        """Let a range be filled with zeroed pages again. Raises `SyscallError`."""
        with self.process.machine.running(self.process) as k:
            check(
                userfaultfd.userfaultfd_unregister(k, self.process.mm, address, length),
                f"userfaultfd at {address:#x}",
            )

    def close(self) -> None:
        """Unregister everything, and let all who wait go."""
        with self.process.machine.running(self.process) as k:
            userfaultfd.userfaultfd_release(k, self)

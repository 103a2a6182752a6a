# SPDX-License-Identifier: GPL-2.0-only
"""A file of a machine: what is on disk, what is in the page cache, and who maps it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from rmap.mm import filemap, writeback
from rmap.mm.bits import PAGE_SHIFT, PAGE_SIZE
from rmap.mm.mm_types import AddressSpace, File
from rmap.model.errors import SyscallError, check

if TYPE_CHECKING:
    from rmap.model.machine import Machine


class FileHandle:
    """A file; made by `Machine.file`. `file` is the kernel's object.

    >>> from rmap.model import Machine
    >>> f = Machine(ram=64).file("data", pages=2)
    >>> f.write(4096, b"abc"), f.read(4096, 4)
    (3, b'abc\\x00')
    """

    def __init__(self, machine: Machine, file: File) -> None:
        self.machine = machine
        self.file = file

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.file.name)

    @property
    def mapping(self) -> AddressSpace:
        """The kernel's address_space: the page cache, and the tree of VMAs that map it."""
        return self.file.f_mapping

    @property
    def size(self) -> int:
        """Its size in bytes, a whole number of pages."""
        return int(self.mapping.size_pages) << PAGE_SHIFT

    @property
    def cached(self) -> dict[int, int]:
        """The page cache: offset in pages to page frame number."""
        return {index: page for index, page in sorted(self.mapping.i_pages.items()) if page > 0}

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes by way of the page cache, as read(2) does; short at the end of the file.

        Raises `SyscallError` if no page could be had.
        """
        with self.machine.kthread("read") as k:
            try:
                return bytes(filemap.file_read(k, self.file, offset, length))
            except MemoryError:
                raise SyscallError(errno.ENOMEM, f"read of {self.name}") from None

    def write(self, offset: int, data: bytes) -> int:
        """Write bytes into the page cache, as write(2) does; returns how many.

        Raises `SyscallError` if no page could be had, or beyond the end of the file.
        """
        with self.machine.kthread("write"):
            written = filemap.file_write(self.machine.kernel, self.file, offset, data)
            return check(int(written), f"write to {self.name}")

    def writeback(self) -> int:
        """Clean its dirty pages and write them to disk; returns how many (fsync(2)).

        Shared memory has no disk, and nothing to do. Raises `SyscallError`, once, if contents that
        were to be written are lost.
        """
        with self.machine.kthread("flush"):
            if self.mapping.shmem:
                return 0
            written = int(writeback.write_cache_pages(self.machine.kernel, self.mapping))
            error, self.mapping.wb_err = self.mapping.wb_err, 0
            check(int(error), f"fsync of {self.name}")
            return written

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long: what lies beyond leaves page cache and page tables."""
        with self.machine.kthread("truncate"):
            pages = (size + PAGE_SIZE - 1) >> PAGE_SHIFT
            filemap.truncate(self.machine.kernel, self.file, pages)

    def punch(self, offset: int, length: int) -> None:
        """Make whole pages a hole, which reads as zeros (fallocate(2), FALLOC_FL_PUNCH_HOLE).

        Private copies stay. Raises ``ValueError`` unless both numbers are of whole pages.
        """
        if offset % PAGE_SIZE or length % PAGE_SIZE:
            raise ValueError("a hole is of whole pages")
        with self.machine.kthread("punch"):
            start, pages = offset >> PAGE_SHIFT, length >> PAGE_SHIFT
            filemap.punch_hole(self.machine.kernel, self.file, start, pages)

    def disk(self, index: int) -> bytes:
        """Return what is on disk of one page, without its trailing zeros."""
        return bytes(self.mapping.backing.get(index, b"")).rstrip(b"\0")

    def __repr__(self) -> str:
        return f"<FileHandle {self.name}>"

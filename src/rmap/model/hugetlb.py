# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages out of a pool, and hugetlbfs: what /proc/sys/vm and mount(8) make of them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmap.mm.bits import PAGE_SHIFT, PAGE_SIZE, VM_NORESERVE
from rmap.mm.hugetlb import file as hugetlbfs
from rmap.mm.hugetlb import pool
from rmap.mm.mm_types import Hstate
from rmap.model.errors import SyscallError, check
from rmap.model.file import FileHandle

if TYPE_CHECKING:
    from rmap.model.machine import Machine


@dataclass(frozen=True, slots=True)
class HugePages:
    """What /proc/meminfo says of a pool (HugePages_Total and its like), in huge pages.

    `free` pages include those that are `reserved`; `surplus` ones are beyond the pool's size.
    """

    total: int
    free: int
    reserved: int
    surplus: int


class HugetlbFile(FileHandle):
    """A file of huge pages; made by `Hugetlb.file`. It can be mapped and read, and not written.

    Its page cache (`FileHandle.cached`) counts in huge pages.
    """

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes, zeros where no page is; short at the end of the file."""
        with self.machine.kthread("read") as k:
            return bytes(hugetlbfs.hugetlbfs_read(k, self.file, offset, length))

    def write(self, offset: int, data: bytes) -> int:
        """Raise `SyscallError`: hugetlbfs has no write(2)."""
        raise SyscallError(errno.EINVAL, f"write to {self.name}, which is of hugetlbfs")

    def writeback(self) -> int:
        """Do nothing: there is no disk."""
        return 0

    def truncate(self, size: int) -> None:
        """Make the file `size` bytes long, whole huge pages; what lies beyond is lost."""
        with self.machine.kthread("truncate") as k:
            pages = (size + PAGE_SIZE - 1) >> PAGE_SHIFT
            check(hugetlbfs.hugetlb_vmtruncate(k, self.file, pages), f"truncate {self.name}")

    def punch_hole(self, offset: int, length: int) -> None:
        """Give back the huge pages within a range; they are zeros when next touched."""
        with self.machine.kthread("fallocate") as k:
            hugetlbfs.hugetlbfs_punch_hole(k, self.file, offset, length)

    def unlink(self) -> None:
        """Remove its name: with the last mapping its pages go back to the pool."""
        with self.machine.kthread("unlink") as k:
            hugetlbfs.hugetlbfs_unlink(k, self.file)
        del self.machine.files[self.name]


class Hugetlb:
    """The pools of huge pages of a machine, as `Machine.hugetlb`.

    Memory of them is mapped by ``Process.mmap`` with the kinds ``hugetlb`` (private) and
    ``hugetlbshared``, or of a `file`. Sizes are ``"2M"`` and ``"1G"``.

    >>> from rmap.model import Machine
    >>> m = Machine(ram=4096)
    >>> m.hugetlb.pool(2)
    2
    >>> p = m.spawn("init")
    >>> a = p.mmap(4 << 20, kind="hugetlb")
    >>> p.write(a, b"huge")
    >>> m.hugetlb.pages()
    HugePages(total=2, free=1, reserved=1, surplus=0)
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def hstate(self, size: str = "2M") -> Hstate:
        """The kernel's object of a pool. Raises ``ValueError`` for a size that there is not."""
        for hstate in self.machine.kernel.hstates:
            if hstate.name == size:
                return hstate
        raise ValueError(f"no huge pages of size {size!r}; there are 2M and 1G")

    def pool(self, count: int, size: str = "2M") -> int:
        """Let a pool have `count` pages; returns how many it has (a write to nr_hugepages)."""
        hstate = self.hstate(size)
        with self.machine.kthread("sysctl") as k:
            return int(pool.set_max_huge_pages(k, hstate, count))

    def overcommit(self, count: int, size: str = "2M") -> None:
        """Let a pool make so many pages more when they are needed (nr_overcommit_hugepages)."""
        self.hstate(size).nr_overcommit_huge_pages = count

    def pages(self, size: str = "2M") -> HugePages:
        """How many pages a pool has, and what of them is free or promised."""
        h = self.hstate(size)
        return HugePages(
            int(h.nr_huge_pages),
            int(h.free_huge_pages),
            int(h.resv_huge_pages),
            int(h.surplus_huge_pages),
        )

    def file(self, name: str, pages: int, size: str = "2M") -> HugetlbFile:
        """Make a file of so many huge pages, none of which is there yet.

        Mapping it promises the mapping its pages, unless that has ``MAP_NORESERVE``.
        """
        if name in self.machine.files:
            raise ValueError(f"there is a file {name!r} already")
        hstate = self.hstate(size)
        with self.machine.kthread("create") as k:
            small = pages << hstate.order
            made = hugetlbfs.hugetlb_file_setup(k, name, hstate, small, VM_NORESERVE)
            if made is None:
                raise SyscallError(errno.ENOMEM, f"create {name}")
            handle = HugetlbFile(self.machine, made)
        self.machine.files[name] = handle
        return handle

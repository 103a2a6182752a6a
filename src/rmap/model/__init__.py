# SPDX-License-Identifier: GPL-2.0-only
"""The machine as its users see it: processes that map, write and fork, files, cgroups, reclaim.

Everything here is a thin skin over `rmap.mm`, where the work is done under the kernel's names;
``machine.kernel`` is the way there.

>>> from rmap.model import Machine
>>> m = Machine(ram=256, cpus=2, swap=64)
>>> parent = m.spawn("parent")
>>> area = parent.mmap(4 * 4096)
>>> parent.write(area, b"hello")
>>> child = parent.fork("child")
>>> child.read(area, 5)
b'hello'
>>> [mapping.process.name for mapping in m.who_maps(parent.pages(area, 4096)[0])]
['parent', 'child']
"""

from __future__ import annotations

from rmap.mm.bug import KernelBug
from rmap.mm.inject import FailPlan
from rmap.model.broken import Failure, Kill
from rmap.model.cgroup import Cgroup
from rmap.model.errors import (
    BrokenMemory,
    BusError,
    OutOfMemory,
    Segfault,
    SyscallError,
    UserfaultPending,
)
from rmap.model.file import FileHandle
from rmap.model.hugetlb import HugePages, Hugetlb, HugetlbFile
from rmap.model.machine import Machine, Mapping, Walk
from rmap.model.pin import Pin
from rmap.model.process import Process

__all__ = [
    "BrokenMemory",
    "BusError",
    "Cgroup",
    "FailPlan",
    "Failure",
    "FileHandle",
    "HugePages",
    "Hugetlb",
    "HugetlbFile",
    "KernelBug",
    "Kill",
    "Machine",
    "Mapping",
    "OutOfMemory",
    "Pin",
    "Process",
    "Segfault",
    "SyscallError",
    "UserfaultPending",
    "Walk",
]

# SPDX-License-Identifier: GPL-2.0-only
"""Small machines, written by hand, of which every number can be checked on paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Kpf, Pte, Vm

PAGE = 4096
LIBC = "/usr/lib/libc.so.6"

RW = Vm.READ | Vm.WRITE | Vm.MAYREAD | Vm.MAYWRITE
RX = Vm.READ | Vm.EXEC | Vm.MAYREAD | Vm.MAYEXEC
SHARED = RW | Vm.SHARED | Vm.MAYSHARE

ANON = Kpf.UPTODATE | Kpf.LRU | Kpf.MMAP | Kpf.ANON | Kpf.SWAPBACKED
FILE = Kpf.UPTODATE | Kpf.LRU | Kpf.MMAP
SHMEM = FILE | Kpf.SWAPBACKED
CACHE = Kpf.UPTODATE | Kpf.LRU

#: A name that would reprogram a terminal, forge a line, and be markup to some libraries.
EVIL_COMM = "\x1b[31mevil\nrow"
EVIL_PATH = "/tmp/[bold]x[/bold]\x1b]0;owned\x07\u202egnp.txt"


@dataclass
class Builder:
    """Collects the rows of an image; mapcounts are what the page tables say, unless given."""

    processes: list[dict[str, Any]] = field(default_factory=list)
    mms: list[dict[str, Any]] = field(default_factory=list)
    vmas: list[dict[str, Any]] = field(default_factory=list)
    ptes: list[dict[str, Any]] = field(default_factory=list)
    pages: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def process(self, pid: int, comm: str, *, uid: int = 1000, cgroup: str = "/user",
                status: str = "ok") -> int:  # fmt: skip
        """Add a process and, if it was read, its address space; return the mm."""
        mm = len(self.mms) if status == "ok" else -1
        if mm >= 0:
            self.mms.append(
                {"mm": mm, "pid": pid, "users": 1}
                | dict.fromkeys(("rss_anon", "rss_file", "rss_shmem", "swap", "locked"), -1)
            )
        self.processes.append(
            {"pid": pid, "ppid": 1, "mm": mm, "comm": comm, "cmdline": comm, "uid": uid,
             "user": {0: "root", 1000: "ada"}.get(uid, str(uid)), "cgroup": cgroup,
             "start_time": pid, "threads": 1, "status": status}
        )  # fmt: skip
        return mm

    def vma(self, mm: int, start: int, pages: int, flags: int, *, path: str = "", name: str = "",
            pgoff: int = 0) -> None:  # fmt: skip
        """Add a VMA; vmas and ptes are added by ascending (mm, address)."""
        file = -1
        if path:
            number = len(self.files)
            row = {"file": number, "device": 8 << 20 | 1, "inode": 100 + number, "path": path,
                   "deleted": False}  # fmt: skip
            file = self.files.setdefault(path, row)["file"]
        self.vmas.append(
            {"vma": len(self.vmas), "mm": mm, "start": start, "end": start + pages * PAGE,
             "flags": int(flags), "pgoff": pgoff, "device": (8 << 20 | 1) if path else 0,
             "inode": 100 + file if path else 0, "path": path, "name": name, "file": file}
        )  # fmt: skip

    def map(self, mm: int, address: int, pfn: int, *, order: int = 0, flags: int = Pte.PRESENT,
            ) -> None:  # fmt: skip
        """Add a page-table entry."""
        self.ptes.append(
            {"mm": mm, "address": address, "pfn": pfn, "order": order, "flags": int(flags)}
        )

    def page(self, pfn: int, flags: int, count: int = 1, *, mapcount: int | None = None,
             changed: bool = False) -> None:  # fmt: skip
        """Add pages; without ``mapcount`` the kernel counts what the page tables say."""
        for at in range(pfn, pfn + count):
            self.pages[at] = {"pfn": at, "flags": int(flags), "mapcount": mapcount,
                              "changed": changed}  # fmt: skip

    def _counted(self, pfn: int) -> int:
        return sum(
            entry["pfn"] <= pfn < entry["pfn"] + (1 << entry["order"])
            for entry in self.ptes
            if entry["flags"] & Pte.PRESENT and not entry["flags"] & Pte.SPECIAL
        )

    def build(self, ram: list[tuple[int, int]], *, scope: str = "machine") -> MemoryImage:
        """Return the image; RAM that no page was added for is free."""
        for start, end in ram:
            for pfn in range(start, end):
                if pfn not in self.pages and scope == "machine":
                    self.page(pfn, Kpf.BUDDY)
        pages = [self.pages[pfn] for pfn in sorted(self.pages)]
        for row in pages:
            if row["mapcount"] is None:
                row["mapcount"] = self._counted(row["pfn"])
        machine = {"kernel_release": "6.18.0", "architecture": "x86_64", "page_size": PAGE,
                   "time_ns": 1_790_000_000 * 10**9, "duration_ns": 12_345_678, "source": "proc",
                   "scope": scope, "consistency": "passes", "page_mapcount": True}  # fmt: skip
        rows = {"machine": [machine], "processes": self.processes, "mms": self.mms,
                "vmas": self.vmas, "ptes": self.ptes, "pages": pages,
                "files": list(self.files.values())}  # fmt: skip
        tables = {name: Table.from_rows(TABLES[name], listed) for name, listed in rows.items()}
        bounds = np.array(ram, np.uint64).reshape(-1, 2)
        tables["ram"] = Table(TABLES["ram"], {"start_pfn": bounds[:, 0], "end_pfn": bounds[:, 1]})
        return MemoryImage(tables)


def small_machine(*, broken: bool = False) -> MemoryImage:
    """Return three processes on 4 MiB of RAM.

    ==========  ======================================================================
    0x10-0x11   libc, mapped by 100, 101 and 666, the second page by 100 only
    0x20-0x23   anonymous memory of 100, forked to 101, which has its own copy of the last
    0x28        what 101 copied 0x23 to
    0x30        zero page, mapped by 100 as special
    0x40        shared memory of 100 and 101, and of a process that may not be read
    0x50        a KSM page, mapped twice by 100 and once by 666
    0x60        the file with the hostile name, mapped by 666
    0x70-0x73   page cache that nobody maps
    0x78        changed while it was read
    0x200-0x3ff a huge page, mapped by a PMD of 101
    swap 1      shared by 100 and 101
    ==========  ======================================================================

    With ``broken``, the kernel counts one mapping less of 0x20 than there is.
    """
    b = Builder()
    shell = b.process(100, "bash")
    child = b.process(101, "bash", cgroup="/user/job")
    evil = b.process(666, EVIL_COMM, uid=0, cgroup="/system")
    b.process(700, "secret", uid=0, cgroup="/system", status="denied")
    _map_shell(b, shell)
    _map_child(b, child)
    b.vma(evil, 0x7F0000000000, 2, RX, path=LIBC)
    b.map(evil, 0x7F0000000000, 0x10, flags=Pte.PRESENT | Pte.FILE)
    b.vma(evil, 0x7F0000010000, 1, SHARED, path=EVIL_PATH)
    b.map(evil, 0x7F0000010000, 0x60, flags=Pte.PRESENT | Pte.FILE)
    b.vma(evil, 0x7F0000020000, 1, RW | Vm.MERGEABLE)
    b.map(evil, 0x7F0000020000, 0x50)
    b.page(0x0, Kpf.RESERVED, 0x8)
    b.page(0x8, Kpf.SLAB, 0x4)
    b.page(0xC, Kpf.PGTABLE, 0x4)
    b.page(0x10, FILE, 2)
    b.page(0x20, ANON, 4)
    if broken:
        b.page(0x20, ANON, mapcount=1)
    b.page(0x28, ANON)
    b.page(0x30, Kpf.ZERO_PAGE | Kpf.RESERVED, mapcount=0)
    b.page(0x40, SHMEM, mapcount=3)
    b.page(0x50, ANON | Kpf.KSM)
    b.page(0x60, FILE)
    b.page(0x70, CACHE, 4)
    b.page(0x78, ANON, mapcount=2, changed=True)
    b.page(0x200, ANON | Kpf.THP | Kpf.COMPOUND_HEAD)
    b.page(0x201, ANON | Kpf.THP | Kpf.COMPOUND_TAIL, 511)
    return b.build([(0x0, 0x100), (0x200, 0x500)])


def _map_shell(b: Builder, mm: int) -> None:
    b.vma(mm, 0x400000, 4, RW, name="[heap]")
    for page in range(4):
        b.map(mm, 0x400000 + page * PAGE, 0x20 + page)
    b.vma(mm, 0x500000, 2, RW | Vm.MERGEABLE)
    b.map(mm, 0x500000, 0x50)
    b.map(mm, 0x501000, 0x50)
    b.vma(mm, 0x600000, 3, RW)
    b.map(mm, 0x600000, 0x30, flags=Pte.PRESENT | Pte.SPECIAL)
    b.map(mm, 0x601000, 1 << 5, flags=Pte.SWAP)
    b.map(mm, 0x602000, 0x78)
    b.vma(mm, 0x700000, 1, SHARED, path="/dev/shm/box")
    b.map(mm, 0x700000, 0x40, flags=Pte.PRESENT | Pte.FILE)
    b.vma(mm, 0x7F0000000000, 2, RX, path=LIBC)
    b.map(mm, 0x7F0000000000, 0x10, flags=Pte.PRESENT | Pte.FILE)
    b.map(mm, 0x7F0000001000, 0x11, flags=Pte.PRESENT | Pte.FILE)


def _map_child(b: Builder, mm: int) -> None:
    b.vma(mm, 0x400000, 4, RW, name="[heap]")
    for page in range(3):
        b.map(mm, 0x400000 + page * PAGE, 0x20 + page)
    b.map(mm, 0x403000, 0x28)
    b.vma(mm, 0x600000, 3, RW)
    b.map(mm, 0x601000, 1 << 5, flags=Pte.SWAP)
    b.vma(mm, 0x700000, 1, SHARED, path="/dev/shm/box")
    b.map(mm, 0x700000, 0x40, flags=Pte.PRESENT | Pte.FILE)
    b.vma(mm, 0x40000000, 1024, RW | Vm.HUGEPAGE)
    b.map(mm, 0x40000000, 0x200, order=9)
    b.vma(mm, 0x7F0000000000, 2, RX, path=LIBC)
    b.map(mm, 0x7F0000000000, 0x10, flags=Pte.PRESENT | Pte.FILE)

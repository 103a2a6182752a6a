# SPDX-License-Identifier: GPL-2.0-only
"""Builds small memory images as one would tell them.

::

    world = World()
    shell = world.process(100, "bash")
    heap = shell.vma(0x400000, pages=4, name="[heap]")
    heap.map(0x400000, 0x20, 0x21)          # two pages, at 0x400000 and 0x401000
    child = shell.fork(101)                 # same VMAs, same pages
    child.remap(0x401000, 0x28)             # the child wrote: its own copy
    world.pages(0x20, 2, ANON)
    image = world.build()

Rows may be told in any order. Mapcounts are what the page tables say, unless given. In an image
of the whole machine, RAM that nobody described is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Kpf, Pte, Vm
from rmap.image.validate import validate_image

PAGE = 4096
DISK = 8 << 20 | 1

ANON = Kpf.UPTODATE | Kpf.LRU | Kpf.MMAP | Kpf.ANON | Kpf.SWAPBACKED
FILE = Kpf.UPTODATE | Kpf.LRU | Kpf.MMAP
SHMEM = FILE | Kpf.SWAPBACKED
KSM = ANON | Kpf.KSM
ZERO = Kpf.ZERO_PAGE
HEAD = Kpf.THP | Kpf.COMPOUND_HEAD
TAIL = Kpf.THP | Kpf.COMPOUND_TAIL

PRESENT = Pte.PRESENT
FILE_PTE = Pte.PRESENT | Pte.FILE
SPECIAL = Pte.PRESENT | Pte.SPECIAL

Row = dict[str, Any]


def vm_flags(permissions: str) -> int:
    """VM_ bits as ``/proc/PID/maps`` tells them: ``"rw-p"``."""
    letters = {"r": Vm.READ, "w": Vm.WRITE, "x": Vm.EXEC, "s": Vm.SHARED | Vm.MAYSHARE}
    flags = 0
    for letter in permissions:
        flags |= int(letters.get(letter, 0))
    return flags


def swap_entry(offset: int, type_: int = 0) -> int:
    """A swap entry as ptes and swap_slots hold it."""
    return type_ | offset << 5


@dataclass
class Process:
    """A process and its address space."""

    world: World
    row: Row
    mm: int

    @property
    def pid(self) -> int:
        return int(self.row["pid"])

    def vma(self, start: int, pages: int, permissions: str = "rw-p", *, path: str = "",
            pgoff: int = 0, name: str = "", flags: int = 0, file: int | None = None,
            ) -> Vma:  # fmt: skip
        """Add a VMA; ``path`` makes a file, or ``file`` names one that was made."""
        if path and file is None:
            file = self.world.file(path)
        known = self.world.files[file] if file is not None else None
        row = {"mm": self.mm, "start": start, "end": start + pages * PAGE,
               "flags": vm_flags(permissions) | int(flags), "pgoff": pgoff,
               "device": known["device"] if known else 0,
               "inode": known["inode"] if known else 0, "path": known["path"] if known else "",
               "name": name, "file": -1 if file is None else file}  # fmt: skip
        self.world.vmas.append(row)
        return Vma(self, row)

    def pte(self, address: int, pfn: int, *, order: int = 0, flags: int = PRESENT) -> None:
        """Add an entry, in the place of one that is there."""
        self.world.ptes[self.mm, address] = {
            "mm": self.mm, "address": address, "pfn": pfn, "order": order, "flags": int(flags),
        }  # fmt: skip

    def remap(self, address: int, pfn: int, *, flags: int = PRESENT) -> None:
        """Put another page where one is, as a write to a shared page does."""
        assert (self.mm, address) in self.world.ptes, "nothing is mapped there"
        self.pte(address, pfn, flags=flags)

    def unmap(self, address: int) -> None:
        """Take an entry away."""
        del self.world.ptes[self.mm, address]

    def fork(self, pid: int, comm: str | None = None) -> Process:
        """A child that maps all that its parent maps."""
        child = self.world.process(pid, self.row["comm"] if comm is None else comm, ppid=self.pid)
        self.world.vmas += [{**v, "mm": child.mm} for v in self.world.vmas if v["mm"] == self.mm]
        for entry in [e for e in self.world.ptes.values() if e["mm"] == self.mm]:
            self.world.ptes[child.mm, entry["address"]] = {**entry, "mm": child.mm}
        return child

    def vfork(self, pid: int) -> Process:
        """Another process that uses the same address space (CLONE_VM)."""
        other = self.world.process(pid, self.row["comm"], ppid=self.pid, status="kernel")
        other.row.update(status="ok", mm=self.mm)
        self.world.mms[self.mm]["users"] += 1
        return Process(self.world, other.row, self.mm)


@dataclass
class Vma:
    """A VMA that was added."""

    process: Process
    row: Row

    @property
    def start(self) -> int:
        return int(self.row["start"])

    def map(self, address: int, *pfns: int, flags: int | None = None) -> Vma:
        """Map pages, one after the other; those of a file have ``Pte.FILE``."""
        if flags is None:
            flags = FILE_PTE if self.row["file"] >= 0 else PRESENT
        for number, pfn in enumerate(pfns):
            self.process.pte(address + number * PAGE, pfn, flags=flags)
        return self

    def map_huge(self, address: int, pfn: int, *, order: int = 9, flags: int | None = None) -> Vma:
        """Map a block by one entry."""
        if flags is None:
            flags = FILE_PTE if self.row["file"] >= 0 else PRESENT
        self.process.pte(address, pfn, order=order, flags=flags)
        return self

    def hang(self, *chain: int, own: bool = True) -> Vma:
        """Put the VMA on anon_vmas, newest first; the first is its own unless ``own`` is false."""
        self.row["anon_vma"] = chain[0] if own else -1
        self.process.world.chains += [
            (self.row, anon_vma, position) for position, anon_vma in enumerate(chain)
        ]
        return self

    def swap(self, address: int, *offsets: int) -> Vma:
        """Put swap entries, one after the other."""
        for number, offset in enumerate(offsets):
            self.process.pte(address + number * PAGE, swap_entry(offset), flags=Pte.SWAP)
        return self


@dataclass
class World:
    """A machine, told bit by bit."""

    machine: Row = field(default_factory=dict)
    ram: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0x1000)])
    processes: list[Row] = field(default_factory=list)
    mms: list[Row] = field(default_factory=list)
    vmas: list[Row] = field(default_factory=list)
    ptes: dict[tuple[int, int], Row] = field(default_factory=dict)
    frames: dict[int, Row] = field(default_factory=dict)
    files: list[Row] = field(default_factory=list)
    swap_slots: list[Row] = field(default_factory=list)
    anon_vmas: list[Row] = field(default_factory=list)
    #: (row of the VMA, anon_vma, place in the VMA's chain)
    chains: list[tuple[Row, int, int]] = field(default_factory=list)

    def process(self, pid: int, comm: str = "", *, ppid: int = 1, uid: int = 1000,
                cgroup: str = "/", status: str = "ok", **counters: int) -> Process:  # fmt: skip
        """Add a process; only one that is ``ok`` has an address space. ``counters`` are its."""
        mm = len(self.mms) if status == "ok" else -1
        row = {"pid": pid, "ppid": ppid, "mm": mm, "comm": comm, "cmdline": comm, "uid": uid,
               "user": "root" if uid == 0 else str(uid), "cgroup": cgroup, "start_time": pid,
               "threads": 1, "status": status}  # fmt: skip
        self.processes.append(row)
        if mm >= 0:
            known = dict.fromkeys(("rss_anon", "rss_file", "rss_shmem", "swap", "locked"), -1)
            self.mms.append({"mm": mm, "pid": pid, "users": 1} | known | counters)
        return Process(self, row, mm)

    def file(self, path: str, *, inode: int | None = None, device: int = DISK,
             deleted: bool = False) -> int:  # fmt: skip
        """The file at ``path``, the same one for the same path unless an inode is given."""
        for row in self.files:
            if inode is None and row["path"] == path:
                return int(row["file"])
        number = len(self.files)
        self.files.append(
            {"file": number, "device": device, "inode": 100 + number if inode is None else inode,
             "path": path, "deleted": deleted}
        )  # fmt: skip
        return number

    def anon_vma(self, parent: int | None = None, *, refcount: int = 1, degree: int = 1) -> int:
        """Add an anon_vma, a root unless it has a parent; its number is one more than its id."""
        number = len(self.anon_vmas)
        above = number if parent is None else parent
        root = number if parent is None else self.anon_vmas[parent]["root"]
        self.anon_vmas.append({"anon_vma": number, "root": root, "parent": above,
                               "handle": number + 1, "refcount": refcount,
                               "degree": degree})  # fmt: skip
        return number

    def pages(self, pfn: int, count: int = 1, flags: int = ANON, *, mapcount: int | None = None,
              changed: bool = False, **more: int) -> None:  # fmt: skip
        """Describe pages; without ``mapcount`` the kernel counts what the page tables say."""
        for at in range(pfn, pfn + count):
            self.frames[at] = {"pfn": at, "flags": int(flags), "mapcount": mapcount,
                               "changed": changed, **more}  # fmt: skip

    def folio(self, pfn: int, order: int, flags: int = ANON, *, mapcount: int | None = None,
              ) -> None:  # fmt: skip
        """Describe a large folio: a head and its tails."""
        self.pages(pfn, 1, flags | HEAD, mapcount=mapcount)
        self.pages(pfn + 1, (1 << order) - 1, flags | TAIL, mapcount=mapcount)

    def build(self, *, scope: str = "machine", validate: bool = True, **machine: Any,
              ) -> MemoryImage:  # fmt: skip
        """Return the image; ``machine`` overrides columns of that table."""
        moment = {"kernel_release": "6.18.0", "architecture": "x86_64", "page_size": PAGE,
                  "time_ns": 1_790_000_000 * 10**9, "duration_ns": 12_345_678, "source": "proc",
                  "scope": scope, "consistency": "passes", "page_mapcount": True}  # fmt: skip
        vmas = sorted(self.vmas, key=lambda row: (row["mm"], row["start"]))
        rows = {
            "machine": [moment | self.machine | machine],
            "ram": [{"start_pfn": start, "end_pfn": end} for start, end in self.ram],
            "processes": sorted(self.processes, key=lambda row: row["pid"]),
            "mms": self.mms,
            "vmas": [self._vma_row(number, row) for number, row in enumerate(vmas)],
            "ptes": [self.ptes[key] for key in sorted(self.ptes)],
            "pages": self._page_rows(scope),
            "files": self.files,
            "swap_slots": self.swap_slots,
            "anon_vmas": self.anon_vmas,
            "anon_vma_chains": self._edges(vmas),
        }
        tables = {name: Table.from_rows(TABLES[name], listed) for name, listed in rows.items()}
        image = MemoryImage(tables)
        if validate:
            validate_image(image, "the image of this test")
        return image

    def _vma_row(self, number: int, row: Row) -> Row:
        return {"vma": number, **({"anon_vma": -1} if self.anon_vmas else {}), **row}

    def _edges(self, vmas: list[Row]) -> list[Row]:
        """Chains as they were told; a tree is in the order of its VMAs' first pages."""
        places = {id(row): number for number, row in enumerate(vmas)}
        told = sorted(self.chains, key=lambda edge: edge[0]["pgoff"])
        counts: dict[int, int] = {}
        edges = []
        for row, anon_vma, position in told:
            edges.append({"vma": places[id(row)], "anon_vma": anon_vma, "chain_position": position,
                          "tree_position": counts.get(anon_vma, 0)})  # fmt: skip
            counts[anon_vma] = counts.get(anon_vma, 0) + 1
        return edges

    def _page_rows(self, scope: str) -> list[Row]:
        frames = dict(self.frames)
        if scope == "machine":
            for start, end in self.ram:
                for pfn in range(start, end):
                    frames.setdefault(
                        pfn,
                        {"pfn": pfn, "flags": int(Kpf.BUDDY), "mapcount": None, "changed": False},
                    )
        counts = counted(self.ptes.values())
        rows = [frames[pfn] for pfn in sorted(frames)]
        optional = {name for row in rows for name in row} - {"pfn", "flags", "mapcount", "changed"}
        unknown = {name: 0 if name in ("mapping", "index") else -1 for name in sorted(optional)}
        by_tables = [row | {"mapcount": counts.get(row["pfn"], 0)} for row in rows]
        return [
            unknown | (told if row["mapcount"] is None else row)
            for row, told in zip(rows, by_tables, strict=True)
        ]


def counted(entries: Iterable[Row]) -> dict[int, int]:
    """How often the kernel counts each page as mapped, told naively."""
    counts: dict[int, int] = {}
    for entry in entries:
        if entry["flags"] & Pte.PRESENT and not entry["flags"] & Pte.SPECIAL:
            for pfn in range(entry["pfn"], entry["pfn"] + (1 << entry["order"])):
                counts[pfn] = counts.get(pfn, 0) + 1
    return counts

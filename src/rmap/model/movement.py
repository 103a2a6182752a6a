# SPDX-License-Identifier: GPL-2.0-only
"""Pages that move: explicit migration, compaction, memory of devices, as a user asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmap.mm.bits import (
    MIGRATE_ASYNC,
    MIGRATE_SYNC,
    MIGRATE_SYNC_LIGHT,
    MR_SYSCALL,
    PAGE_SIZE,
    PGMIGRATE_FAIL,
)
from rmap.mm.content import page_read, page_write
from rmap.mm.lru import put_page
from rmap.mm.migrate.compaction import compact_node
from rmap.mm.migrate.device import DeviceMemory, migrate_to_device, migrate_to_ram
from rmap.mm.migrate.migrate import (
    MigrationTarget,
    isolate_for_migration,
    migrate_pages,
    putback_movable_pages,
)
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import compound_head, get_page_unless_zero
from rmap.mm.pgtable import (
    is_device_private_entry,
    is_swap_pte,
    pte_to_swp_entry,
    swp_offset,
)
from rmap.model.errors import check

if TYPE_CHECKING:
    from rmap.model.machine import Machine
    from rmap.model.process import Process

#: How long a migration may wait: for nothing, for page locks, also for pages that are written.
MODES = {"async": MIGRATE_ASYNC, "light": MIGRATE_SYNC_LIGHT, "sync": MIGRATE_SYNC}


#: One way between a device and RAM.
Move = Callable[[Kernel, DeviceMemory, Vma, int, int], int]


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of a migration: where each page went, and the pages that stayed."""

    moved: dict[int, int]
    stayed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compacted:
    """What came of a compaction: pages that moved, and blocks of 512 that are free now."""

    moved: int
    failed: int
    free_blocks: int


class _Recorder(MigrationTarget):
    """Takes any page, and keeps which page it was for."""

    def __init__(self) -> None:
        super().__init__()
        self.source: dict[int, int] = {}

    def new_page(self, k: Kernel, page: int) -> int:
        new = int(MigrationTarget.new_page(self, k, page))
        if new:
            self.source[new] = int(page)
        return new

    def put_new_page(self, k: Kernel, page: int) -> int:
        del self.source[int(page)]
        return int(MigrationTarget.put_new_page(self, k, page))


def migrate(machine: Machine, pages: Iterable[int], mode: str = "sync") -> Moved:
    """Move pages to any other place (move_pages(2)); see `Machine.migrate`."""
    recorder = _Recorder()
    asked: dict[int, None] = {}
    with machine.kthread("migrate") as k:
        listed: list[int] = []
        for page in dict.fromkeys(pages):
            head = int(compound_head(k, page))
            asked[head] = None
            if get_page_unless_zero(k, head):
                if head not in listed and isolate_for_migration(k, head) == 0:
                    listed.append(head)
                put_page(k, head)
        migrate_pages(k, listed, recorder, MODES[mode], MR_SYSCALL)
        putback_movable_pages(k, listed)
    moved = {page: new for new, page in recorder.source.items()}
    return Moved(moved, tuple(page for page in asked if page not in moved))


def compact(machine: Machine) -> Compacted:
    """Compact all memory; see `Machine.compact`."""
    with machine.kthread("compact") as k:
        before = int(k.vm_stat[PGMIGRATE_FAIL])
        moved = int(compact_node(k))
        failed = int(k.vm_stat[PGMIGRATE_FAIL]) - before
        return Compacted(moved, failed, len(k.free_blocks))


class Device:
    """A device with memory of its own, which no CPU reaches; made by `Machine.device`.

    >>> from rmap.model import Machine
    >>> m = Machine(ram=64)
    >>> p, gpu = m.spawn("init"), m.device(8)
    >>> a = p.mmap(4096)
    >>> p.write(a, b"x"), gpu.pull(p, a, 4096), gpu.read(p, a, 1), gpu.free
    (None, 1, b'x', 7)
    >>> p.read(a, 1), gpu.free  # the fault brings it back
    (b'x', 8)
    """

    def __init__(self, machine: Machine, pages: int) -> None:
        self.machine = machine
        self.memory = DeviceMemory(machine.kernel, pages)

    @property
    def free(self) -> int:
        """Pages that nobody has."""
        return len(self.memory.free_pages)

    def pull(self, process: Process, address: int, length: int) -> int:
        """Move a process's memory here, untouched memory too; returns how many pages came."""
        return self._move(process, address, length, migrate_to_device)

    def push(self, process: Process, address: int, length: int) -> int:
        """Move a process's memory back to RAM; returns how many pages went."""
        return self._move(process, address, length, migrate_to_ram)

    def _move(self, process: Process, address: int, length: int, move: Move) -> int:
        moved = 0
        with self.machine.running(process) as k:
            process.mm.mmap_sem.down_read()
            result = 0
            for vma in process.vmas:
                start, end = max(vma.vm_start, address), min(vma.vm_end, address + length)
                if start < end and result >= 0:
                    result = int(move(k, self.memory, vma, start, end))
                    moved += max(result, 0)
            process.mm.mmap_sem.up_read()
        check(min(result, 0), "migrate_vma")
        return moved

    def page(self, process: Process, address: int) -> int:
        """The page of the device that a process has at an address; 0 if it is not here."""
        pte = process.pte(address)
        if is_swap_pte(pte) and is_device_private_entry(pte_to_swp_entry(pte)):
            page = int(swp_offset(pte_to_swp_entry(pte)))
            return page if self.memory.start <= page <= self.memory.end else 0
        return 0

    def read(self, process: Process, address: int, length: int) -> bytes:
        """What the device reads at an address that is here. Raises ``KeyError`` if it is not."""
        page = self.page(process, address)
        if not page:
            raise KeyError(f"{address:#x} is not in the memory of the device")
        return bytes(page_read(self.machine.kernel, page, address % PAGE_SIZE, length))

    def write(self, process: Process, address: int, data: bytes) -> None:
        """Let the device write to memory that is here. Raises ``KeyError`` if it is not."""
        page = self.page(process, address)
        if not page:
            raise KeyError(f"{address:#x} is not in the memory of the device")
        page_write(self.machine.kernel, page, address % PAGE_SIZE, data)

# SPDX-License-Identifier: GPL-2.0-only
"""Pages that move: explicit migration and compaction, as a user of the machine asks for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmap.mm.bits import (
    MIGRATE_ASYNC,
    MIGRATE_SYNC,
    MIGRATE_SYNC_LIGHT,
    MR_SYSCALL,
    PGMIGRATE_FAIL,
)
from rmap.mm.lru import put_page
from rmap.mm.migrate.compaction import compact_node
from rmap.mm.migrate.migrate import (
    MigrationTarget,
    isolate_for_migration,
    migrate_pages,
    putback_movable_pages,
)
from rmap.mm.mm_types import Kernel
from rmap.mm.page import compound_head, get_page_unless_zero

if TYPE_CHECKING:
    from rmap.model.machine import Machine

#: How long a migration may wait: for nothing, for page locks, also for pages that are written.
MODES = {"async": MIGRATE_ASYNC, "light": MIGRATE_SYNC_LIGHT, "sync": MIGRATE_SYNC}


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

# SPDX-License-Identifier: GPL-2.0-only
"""A memory cgroup of a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.mm.memcg import memory_max_write
from rmap.mm.memcg_move import mem_cgroup_move_task
from rmap.mm.mm_types import MemCgroup
from rmap.model.errors import check
from rmap.model.sizes import pages_of
from rmap.model.stats import stats_of

if TYPE_CHECKING:
    from rmap.model.machine import Machine
    from rmap.model.process import Process


class Cgroup:
    """A memory cgroup; made by `Machine.cgroup`. `memcg` is the kernel's object."""

    def __init__(self, machine: Machine, memcg: MemCgroup) -> None:
        self.machine = machine
        self.memcg = memcg

    @property
    def name(self) -> str:
        """Its path: ``/`` is the root."""
        return str(self.memcg.name)

    @property
    def usage(self) -> int:
        """Pages charged to it and to those below it."""
        return int(self.memcg.usage)

    @property
    def limit(self) -> int | None:
        """Pages it may have, ``None`` if as many as there are. Settable, as sizes are told.

        What is above a new limit is reclaimed, as far as it can be.
        """
        return None if self.memcg.limit < 0 else int(self.memcg.limit)

    @limit.setter
    def limit(self, size: int | str | None) -> None:
        with self.machine.kthread("memory.max") as k:
            memory_max_write(k, self.memcg, -1 if size is None else pages_of(size))

    def attach(self, process: Process) -> int:
        """Move a process here with what it is charged for; returns how many pages that were.

        Raises `SyscallError` (ENOMEM) if it does not fit in, and then nothing has moved.
        """
        with self.machine.kthread("cgroup.procs") as k:
            moved = int(mem_cgroup_move_task(k, process.mm, self.memcg))
            return check(moved, f"moving {process.name} to {self.name}")

    def mem_stats(self) -> dict[str, int]:
        """Return the statistics that are kept for each cgroup, by the kernel's names."""
        return stats_of(self.memcg.stat)

    def __repr__(self) -> str:
        return f"<Cgroup {self.name}>"

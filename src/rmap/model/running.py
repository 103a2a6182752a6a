# SPDX-License-Identifier: GPL-2.0-only
"""One operation of the machine: who runs, and what must be so when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmap.mm import tlb
from rmap.mm.access import AccessError
from rmap.mm.mm_types import Kernel, Task
from rmap.mm.uffd import UserfaultPending
from rmap.sync.core import assert_nothing_held, scheduler

if TYPE_CHECKING:
    from rmap.model.machine import Machine

#: What an operation may end with. Anything else, a `KernelBug` above all, stops the kernel in the
#: middle: locks stay as they were, for inspection.
OUTCOMES = (AccessError, UserfaultPending, OSError, MemoryError)


class Running:
    """The ``with`` block of an operation. Operations of one task may nest."""

    __slots__ = ("machine", "saved", "task")

    def __init__(self, machine: Machine, task: Task) -> None:
        self.machine = machine
        self.task = task

    def __enter__(self) -> Kernel:
        sched = scheduler()
        self.saved = (sched.current, sched.checking)
        sched.current = self.task
        sched.checking = self.machine.checks
        kernel = self.machine.kernel
        if self.task.mm is not None:
            tlb.switch_mm(kernel, self.task, self.task.mm)
        return kernel

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        sched = scheduler()
        current, checking = self.saved
        nested = current is self.task
        stopped = kind is not None and not issubclass(kind, OUTCOMES)
        try:
            if self.machine.checks and not stopped and not nested:
                assert_nothing_held()
        finally:
            sched.current, sched.checking = current, checking
        if stopped or nested:
            return
        if self.machine.kernel.kswapd_woken:
            self.machine.run_kswapd()
        if self.machine.invariants and kind is None:
            self.machine.require_invariants(self.task.name)

# SPDX-License-Identifier: GPL-2.0-only
"""Machines whose CPUs run at once, in orders drawn by lot, for the tests of races."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faulting import Faulting

from rmap.check import check_kernel
from rmap.mm.access import read_bytes, write_bytes
from rmap.mm.mm_types import Task
from rmap.model import Process
from rmap.sync.explore import MAX_STEPS, Cpu, RandomWalk, Step, World


class Uneven(RandomWalk):
    """Draws for each run how fast each CPU is, up to a thousand times faster than another.

    With equal chances a short program is always over before a long one comes to its point.
    """

    def __init__(self, seed: int, runs: int) -> None:
        super().__init__(seed, runs)
        self.speed: dict[str, float] = {}

    def begin(self) -> bool:
        self.speed = {}
        return super().begin()

    def choose(self, enabled: Sequence[Step]) -> int:
        for step in enabled:
            if step.cpu not in self.speed:
                self.speed[step.cpu] = 10 ** float(self.random.uniform(0, 3))
        speeds = [self.speed[step.cpu] for step in enabled]
        return int(self.random.choice(len(enabled), p=[speed / sum(speeds) for speed in speeds]))


class Race(Faulting):
    """A small machine whose CPUs run at once; `outcome` collects what they saw."""

    def __init__(self, ram: int = 128, swap: int = 32, max_steps: int = MAX_STEPS, **quirks: bool):
        super().__init__(ram=ram, swap=swap, **quirks)
        self.max_steps = max_steps
        self.outcome: dict[str, object] = {}
        self.cpus: list[Cpu] = []

    def thread(self, p: Process, cpu: int) -> Task:
        """One more thread of a process, on a CPU."""
        return Task(f"{p.name}{cpu}", 100 + cpu, p.mm, cpu)

    def run(self, name: str, task: Task, *steps: Callable[[Task], object]) -> None:
        """Let a CPU take steps, one after the other; the last one's result is its outcome."""

        def all_steps() -> None:
            for step in steps:
                self.outcome[name] = step(task)

        self.cpus.append(Cpu(name, all_steps, task))

    def store(self, address: int, data: bytes) -> Callable[[Task], object]:
        return lambda task: write_bytes(self.k, task, address, data)

    def load(self, address: int, length: int) -> Callable[[Task], object]:
        return lambda task: read_bytes(self.k, task, address, length)

    def kthread(self, act: Callable[[], object]) -> Callable[[Task], object]:
        return lambda task: act()

    def page_out(self, page: int) -> None:
        """Let reclaim swap a page out, whoever maps it."""
        for _ in range(3):
            self.m.page_referenced([page])
            self.m.age(8)
            self.m.reclaim(8)

    def world(self, finish: Callable[[], object]) -> World:
        """The world; at its end `finish` is asked, and then everything is recounted."""

        def check() -> None:
            finish()
            violations = check_kernel(self.k)
            assert not violations, str(violations[0])
            assert self.m.warnings == [], str(self.m.warnings[0])

        return World(self.cpus, check, self.max_steps)

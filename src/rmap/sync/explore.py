# SPDX-License-Identifier: GPL-2.0-only
"""Runs simulated CPUs in every order that their accesses permit, and says which order breaks.

A *world* is some state with a few CPUs, each a function that runs on it. Every access that another
CPU can observe is announced through `rmap.sync` before it happens, and each announcement is a
place where another CPU may go on instead. Each CPU is a greenlet: it is left in the middle of
whatever it does, compiled or not, and resumed there.

A run is decided by its *schedule*, the order of CPUs: ``"walker*3 exit*2 walker"``. The same world
with the same schedule does the same, so a finding is replayed from that string. Who goes on is
decided by a `Strategy`; `Exhaustive` tries everything, `EveryTrace` everything that can make a
difference, `Replay` a given schedule, `RandomWalk` draws lots. Another strategy needs nothing from
this module but what `Strategy` says.

Limitations, in so many words. Memory is sequentially consistent: what a real CPU may reorder is not
explored. An access that the model does not announce is never interrupted. `Exhaustive` visits every
interleaving, equivalent ones too, so its cost grows exponentially with the length of the CPUs'
programs; when it was cut off by a limit, nothing is proved, and `Exploration.complete` says so.
`EveryTrace` takes accesses to different things for ones that commute; so what a CPU looks at
without announcing it, an assertion in the middle for one, may be run in too few orders.

>>> from rmap.sync.bits import RANK_SWAP
>>> from rmap.sync.locks import SpinLock
>>> def world():
...     lock = SpinLock(RANK_SWAP, 0)
...     def use():
...         lock.lock()
...         lock.unlock()
...     return World([Cpu("a", use), Cpu("b", use)])
>>> explore(world).findings
[]
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from greenlet import getcurrent, greenlet

from rmap.sync.bits import (
    OP_ACQUIRE,
    OP_ALLOC,
    OP_FREE,
    OP_READ,
    OP_RELEASE,
    OP_RMW,
    OP_TRY,
    OP_WRITE,
)
from rmap.sync.core import Context, Deadlock, assert_nothing_held, describe, scheduler

#: Steps of one run, after which it counts as one that never ends, unless its world permits more.
MAX_STEPS = 10_000
OPS = {
    OP_READ: "read",
    OP_WRITE: "write",
    OP_RMW: "update",
    OP_ACQUIRE: "lock",
    OP_TRY: "trylock",
    OP_RELEASE: "unlock",
    OP_ALLOC: "allocate",
    OP_FREE: "free",
}


class NotReproducible(RuntimeError):
    """The same schedule met other accesses than before: the world depends on more than it."""


class NeverEnds(AssertionError):
    """A run went on for more steps than its world permits."""


class Step(NamedTuple):
    """What a CPU is about to do: an operation (``OP_``) on a lock or field (`kind`, `ident`)."""

    cpu: str
    op: int
    kind: int
    ident: int

    def __str__(self) -> str:
        return f"{OPS[self.op]} {describe(self.kind, self.ident)}"


class Cpu:
    """A simulated CPU of a world: its name, what it does, and the task that it runs as."""

    def __init__(self, name: str, run: Callable[[], object], context: Context | None = None):
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"a CPU's name must be one word, for schedules: {name!r}")
        self.name = name
        self.run = run
        self.context = context or Context(name)


class World:
    """Some CPUs over common state. `finish` asserts what has to hold when all have ended."""

    def __init__(
        self,
        cpus: Sequence[Cpu],
        finish: Callable[[], object] | None = None,
        max_steps: int = MAX_STEPS,
    ) -> None:
        if len({cpu.name for cpu in cpus}) != len(cpus):
            raise ValueError("two CPUs of one name")
        self.cpus = list(cpus)
        self.finish = finish
        self.max_steps = max_steps


# ---------------------------------------------------------------- schedules


def schedule_text(names: Sequence[str]) -> str:
    """Write a schedule: ``["a", "a", "b"]`` is ``"a*2 b"``."""
    runs = [(name, len(list(group))) for name, group in groupby(names)]
    return " ".join(name if count == 1 else f"{name}*{count}" for name, count in runs)


def parse_schedule(text: str) -> list[str]:
    """Read a schedule. Raises ``ValueError`` for what is none.

    >>> parse_schedule("a*2 b")
    ['a', 'a', 'b']
    """
    names: list[str] = []
    for part in text.split():
        match = re.fullmatch(r"(\w+)(?:\*([1-9]\d*))?", part)
        if match is None:
            raise ValueError(f"schedule: {part!r} is not a CPU's name or NAME*COUNT")
        names += [match[1]] * int(match[2] or 1)
    return names


class Strategy(ABC):
    """Decides who goes on. One object decides all runs of an exploration."""

    @abstractmethod
    def begin(self) -> bool:
        """Prepare another run; false if there are no more."""

    @abstractmethod
    def choose(self, enabled: Sequence[Step]) -> int:
        """Which of the steps that are possible now is taken, by its position."""

    def exhausted(self) -> bool:
        """Whether all there is was tried, so that nothing found means there is nothing."""
        return False


class Exhaustive(Strategy):
    """Every schedule, depth first: each run repeats the last one up to its last open choice."""

    def __init__(self) -> None:
        self.choices: list[tuple[Sequence[Step], int]] = []
        self.depth = 0
        self.started = False

    def begin(self) -> bool:
        """Turn to the next schedule in order."""
        del self.choices[self.depth :]
        while self.started and self.choices:
            steps, taken = self.choices.pop()
            if taken + 1 < len(steps):
                self.choices.append((steps, taken + 1))
                break
        if self.started and not self.choices:
            return False
        self.started = True
        self.depth = 0
        return True

    def choose(self, enabled: Sequence[Step]) -> int:
        """Repeat the choice of last time, or the first one beyond it."""
        if self.depth == len(self.choices):
            self.choices.append((enabled, 0))
        steps, taken = self.choices[self.depth]
        if steps != enabled:
            raise NotReproducible(f"step {self.depth}: {enabled} where there were {steps}")
        self.depth += 1
        return taken

    def exhausted(self) -> bool:
        """Whether the last schedule was run."""
        return self.started and not any(taken + 1 < len(steps) for steps, taken in self.choices)


class Redundant(Exception):
    """This run can only end as one before has; it is left, and not counted."""


@dataclass
class _Node:
    """A state on the way of the current run: what was possible, what was taken, what need not be.

    `asleep` are steps that were taken from here, or before, and lead nowhere new as long as only
    steps that commute with them are taken.
    """

    steps: Sequence[Step]
    asleep: set[Step]
    taken: int


def commute(a: Step, b: Step) -> bool:
    """Whether two CPUs' steps do the same in either order: different things, or only reads.

    Pages that are taken and given back come from one place, whatever their numbers.
    """
    if a.cpu == b.cpu:
        return False
    if a.op in (OP_ALLOC, OP_FREE) and b.op in (OP_ALLOC, OP_FREE):
        return False
    if (a.kind, a.ident) != (b.kind, b.ident):
        return True
    return a.op == OP_READ and b.op == OP_READ


class EveryTrace(Strategy):
    """One schedule of each kind that differ in the order of steps that do not commute.

    Depth first, with sleep sets (Godefroid, 1996): what was tried at a state is not tried again
    behind steps that commute with it.
    """

    def __init__(self) -> None:
        self.nodes: list[_Node] = []
        self.depth = 0
        self.started = False

    def begin(self) -> bool:
        """Turn to the next schedule that may differ."""
        del self.nodes[self.depth :]
        while self.started and self.nodes:
            node = self.nodes[-1]
            node.asleep.add(node.steps[node.taken])
            awake = [place for place, step in enumerate(node.steps) if step not in node.asleep]
            if awake:
                node.taken = awake[0]
                break
            self.nodes.pop()
        if self.started and not self.nodes:
            return False
        self.started = True
        self.depth = 0
        return True

    def choose(self, enabled: Sequence[Step]) -> int:
        """Repeat the last run up to its open choice; behind it, the first step that is awake."""
        if self.depth == len(self.nodes):
            asleep: set[Step] = set()
            if self.nodes:
                before = self.nodes[-1]
                step = before.steps[before.taken]
                asleep = {other for other in before.asleep if commute(other, step)}
            awake = [place for place, step in enumerate(enabled) if step not in asleep]
            if not awake:
                raise Redundant
            self.nodes.append(_Node(enabled, asleep, awake[0]))
        node = self.nodes[self.depth]
        if node.steps != enabled:
            raise NotReproducible(f"step {self.depth}: {enabled} where there were {node.steps}")
        self.depth += 1
        return node.taken

    def exhausted(self) -> bool:
        """Whether there is nothing left that could differ."""
        return self.started and not any(
            step not in node.asleep and place != node.taken
            for node in self.nodes
            for place, step in enumerate(node.steps)
        )


class Replay(Strategy):
    """One run by a schedule; past its end, whoever comes first goes on."""

    def __init__(self, schedule: str) -> None:
        self.names = parse_schedule(schedule)
        self.at = -1

    def begin(self) -> bool:
        """The one run."""
        self.at += 1
        return self.at == 0

    def choose(self, enabled: Sequence[Step]) -> int:
        """The CPU that the schedule names. Raises `NotReproducible` if it cannot go on."""
        if self.at >= len(self.names):
            return 0
        name = self.names[self.at]
        self.at += 1
        for place, step in enumerate(enabled):
            if step.cpu == name:
                return place
        raise NotReproducible(f"step {self.at - 1} of the schedule: {name} cannot go on")


class RandomWalk(Strategy):
    """So many runs by lot."""

    def __init__(self, seed: int, runs: int) -> None:
        self.random = np.random.default_rng(seed)
        self.left = runs

    def begin(self) -> bool:
        """Count a run."""
        self.left -= 1
        return self.left >= 0

    def choose(self, enabled: Sequence[Step]) -> int:
        """Any."""
        return int(self.random.integers(len(enabled)))


# ---------------------------------------------------------------- one run


class _Thread:
    """A CPU on its way: its greenlet, and what it waits to do."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.greenlet = greenlet(cpu.run)
        self.step: Step | None = None
        self.free: Callable[[], bool] | None = None


@dataclass
class Run:
    """One run: the steps in their order, and the error that ended it, if any."""

    steps: list[Step] = field(default_factory=list)
    error: AssertionError | None = None

    @property
    def schedule(self) -> str:
        """The order of CPUs, for `replay`."""
        return schedule_text([step.cpu for step in self.steps])


class Engine:
    """Runs worlds: gives each CPU its turn, as the announcements come in."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.sched = scheduler()
        self.running: _Thread | None = None
        self.hub: Any = None

    def announce(self, op: int, kind: int, ident: int, free: Callable[[], bool] | None) -> None:
        """Called in a CPU before each access: stop there until the CPU's turn comes."""
        thread = self.running
        if thread is None or getcurrent() is not thread.greenlet:
            # No CPU of the world, so nobody that could wait.
            if free is not None and not free():
                raise Deadlock(f"waits for {describe(kind, ident)} outside the CPUs explored")
            return
        thread.step = Step(thread.cpu.name, op, kind, ident)
        thread.free = free
        self.hub.switch()

    def advance(self, thread: _Thread) -> None:
        """Let a CPU go on to its next announcement, or to its end."""
        self.running = thread
        self.sched.current = thread.cpu.context
        thread.step = None
        thread.greenlet.switch()
        if thread.greenlet.dead:
            assert_nothing_held()

    def run(self, world: World) -> Run:
        """Run a world once. An `AssertionError` of a CPU, or of the end, is the run's error."""
        run = Run()
        threads = [_Thread(cpu) for cpu in world.cpus]
        self.hub = getcurrent()
        before = (self.sched.current, self.sched.switch, self.sched.exploring)
        self.sched.switch = self.announce
        self.sched.exploring = True
        try:
            self._interleave(threads, run, world.max_steps)
            self.sched.exploring = False
            if world.finish is not None:
                self.sched.current = before[0]
                world.finish()
        except AssertionError as error:
            run.error = error
        finally:
            self.running = None
            self.sched.exploring = False
            for thread in threads:
                # Those that an error left behind unwind now, with nobody to switch to.
                if not thread.greenlet.dead:
                    self.sched.current = thread.cpu.context
                    thread.greenlet.throw()
            self.sched.current, self.sched.switch, self.sched.exploring = before
        return run

    def _interleave(self, threads: list[_Thread], run: Run, max_steps: int) -> None:
        # What comes before a CPU's first announcement is nobody else's to see.
        for thread in threads:
            self.advance(thread)
        while True:
            waiting = [thread for thread in threads if thread.step is not None]
            enabled = [thread for thread in waiting if thread.free is None or thread.free()]
            if not enabled:
                if waiting:
                    stuck = ", ".join(f"{thread.cpu.name} ({thread.step})" for thread in waiting)
                    raise Deadlock(f"nobody can go on: {stuck}")
                return
            if len(run.steps) == max_steps:
                raise NeverEnds(f"the run did not end within {max_steps} steps")
            steps = [thread.step for thread in enabled if thread.step is not None]
            place = self.strategy.choose(steps)
            run.steps.append(steps[place])
            self.advance(enabled[place])


# ---------------------------------------------------------------- many runs


@dataclass
class Finding:
    """An error, how many of the runs ended in it, and the first of them."""

    error: str
    count: int
    run: Run

    def __str__(self) -> str:
        return f"{self.error} ({self.count} runs)\nreplay: {self.run.schedule}\n{ladder(self.run)}"


@dataclass
class Exploration:
    """What many runs gave. Without findings, and `complete`, there are none to be had."""

    runs: int = 0
    steps: int = 0
    complete: bool = False
    findings: list[Finding] = field(default_factory=list)


def explore(
    make_world: Callable[[], World], strategy: Strategy | None = None, max_runs: int = 1_000_000
) -> Exploration:
    """Run worlds, each made anew, until the strategy has no more runs (default: `Exhaustive`)."""
    strategy = strategy or Exhaustive()
    engine = Engine(strategy)
    result = Exploration()
    by_error: dict[str, Finding] = {}
    while result.runs < max_runs and strategy.begin():
        try:
            run = engine.run(make_world())
        except Redundant:
            continue
        result.runs += 1
        result.steps += len(run.steps)
        if run.error is not None:
            text = error_text(run.error)
            if text not in by_error:
                by_error[text] = Finding(text, 0, run)
                result.findings.append(by_error[text])
            by_error[text].count += 1
    result.complete = strategy.exhausted()
    return result


def error_text(error: AssertionError) -> str:
    """What an error is, in one line, by which runs are told apart."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def replay(make_world: Callable[[], World], schedule: str) -> Run:
    """Run a world by a schedule, as a finding prints it.

    Raises ``ValueError`` for a schedule that is none, `NotReproducible` for one of another world.
    """
    strategy = Replay(schedule)
    engine = Engine(strategy)
    strategy.begin()
    return engine.run(make_world())


def ladder(run: Run) -> str:
    """Draw a run as kernel people do: a column for each CPU, time downwards."""
    names = list(dict.fromkeys(step.cpu for step in run.steps))
    width = max((len(str(step)) for step in run.steps), default=0) + 2
    lines = ["".join(name.ljust(width) for name in names).rstrip()]
    for step in run.steps:
        lines.append(" " * (width * names.index(step.cpu)) + str(step))
    if run.error is not None:
        lines.append(error_text(run.error))
    return "\n".join(lines)

# SPDX-License-Identifier: GPL-2.0-only
"""What a run leaves: the machine, what was printed, what failed, what was not as expected."""

from __future__ import annotations

from dataclasses import dataclass, field

from rmap.model import Machine
from rmap.scenario.errors import Place
from rmap.scenario.program import Program
from rmap.scenario.state import Reclaimed, State

#: Kinds of events, in the order of docs/scenarios.md.
EVENT_KINDS = ("output", "trace", "failure", "expect", "bug")


@dataclass(frozen=True, slots=True)
class Event:
    """A line that a run says: of which statement, of what kind, and what.

    ``output`` is what a statement printed, ``trace`` a kernel function, ``failure`` an operation
    that failed, ``expect`` an expectation that was not met, ``bug`` where the kernel stopped.
    """

    place: Place
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that failed: as the kernel says it (``SIGSEGV``, ``ENOMEM``), and where.

    `done` is how many pages were accessed before, of an access that was stopped by a signal.
    """

    place: Place
    operation: int
    text: str
    outcome: str
    detail: str
    done: int | None = None


@dataclass(slots=True)
class RunResult:
    """A finished run.

    Attributes
    ----------
    state
        The machine as the scenario left it (a kernel that stopped is as it was then), and what
        names stand for.
    tried
        Operations that failed and were allowed to (``try``); those are not in `failures`.
    held, broken
        Expectations that were met, and lines about those that were not.
    stopped
        Why the run ended before its last line; empty if it did not. `bug` is the check of the
        kernel that failed, empty if none did.
    violations
        Invariants that do not hold at the end; `violations_expected` if the scenario said so.
    """

    program: Program
    state: State
    operations: int = 0
    page_steps: int = 0
    failures: list[Failure] = field(default_factory=list)
    tried: int = 0
    held: int = 0
    broken: list[Event] = field(default_factory=list)
    reclaims: list[Reclaimed] = field(default_factory=list)
    log: list[Event] = field(default_factory=list)
    stopped: str = ""
    bug: str = ""
    bug_expected: bool = False
    violations: list[str] = field(default_factory=list)
    violations_expected: bool = False

    @property
    def machine(self) -> Machine:
        """The machine of the run."""
        return self.state.machine

    @property
    def regions(self) -> dict[str, int]:
        """Where regions were placed: their page indexes."""
        return self.state.regions

    @property
    def is_finding(self) -> bool:
        """Whether something is wrong: an expectation, an invariant, or a kernel that stopped.

        What the scenario itself expects (``expect BUG``, ``expect violations > 0``) is not.
        """
        broken = bool(self.violations) and not self.violations_expected
        return bool(self.broken) or broken or (bool(self.bug) and not self.bug_expected)

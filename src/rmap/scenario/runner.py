# SPDX-License-Identifier: GPL-2.0-only
"""Carries a scenario out.

An operation that the kernel refuses is noted and the run goes on, as a test of a kernel would; an
expectation that is not met is a finding, and the run goes on. What ends a run early is ``stop``, a
kernel that stopped (`KernelBug`), or a scenario that is wrong (`ScenarioError`).
"""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rmap.mm.bug import KernelBug
from rmap.mm.profile import UnknownQuirk, profile
from rmap.model import BusError, Machine, OutOfMemory, Segfault, SyscallError, UserfaultPending
from rmap.model.machine import InvariantViolation
from rmap.scenario import limits, output
from rmap.scenario.errors import Place, ScenarioError, WordError
from rmap.scenario.expression import Expression, Value
from rmap.scenario.grammar import Values, bind
from rmap.scenario.measure import MEASURES
from rmap.scenario.operations import OPERATIONS, Stopped
from rmap.scenario.program import (
    ANY,
    Call,
    Choose,
    Condition,
    Expect,
    ExpectOutcome,
    For,
    If,
    Let,
    Node,
    Print,
    Program,
    Query,
    Repeat,
    Side,
    Stop,
)
from rmap.scenario.quantities import RECLAIM_COUNTS
from rmap.scenario.result import Event, Failure, RunResult
from rmap.scenario.state import Budget, Reclaimed, State
from rmap.scenario.trace import trace_line
from rmap.scenario.words import Word
from rmap.sync.core import Deadlock, LockViolation

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
#: What the kernel stops at.
_BUGS = (KernelBug, LockViolation, Deadlock, InvariantViolation)
_SIGNALS = {Segfault: "SIGSEGV", BusError: "SIGBUS", OutOfMemory: "OOM", UserfaultPending: "WAITS"}
#: Machine of a scenario that does not say: 64 MiB, no swap, one CPU, as conformance programs have.
DEFAULTS = {"ram": 16_384, "swap": 0, "cpus": 1, "profile": "4.18", "seed": 0, "check": "end"}

Listener = Callable[[Event], object]


class _Stop(Exception):
    """The scenario said ``stop``, or its user did."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user of a scenario wants otherwise than it says; None leaves it."""

    profile: str | None = None
    seed: int | None = None
    quirks: Mapping[str, bool] = field(default_factory=dict)
    check: str | None = None
    trace: bool = False
    until: int | None = None  #: stop in front of this line


def run_scenario(
    program: Program, options: Options | None = None, listener: Listener | None = None
) -> RunResult:
    """Run a scenario to its end.

    Parameters
    ----------
    listener
        Is told each event when it happens; all of them are in the result's log as well.

    Raises
    ------
    ScenarioError
        For a line that cannot be carried out: an unknown name, a limit that is exceeded.

    >>> from rmap.scenario import parse
    >>> result = run_scenario(parse("mmap P0 A 4 anon\\nwrite P0 A 0 4\\nexpect rss P0 == 4\\n"))
    >>> result.operations, result.held
    (2, 1)
    """
    runner = _Runner(program, options or Options(), listener)
    runner.run()
    return runner.result


class _Runner:
    def __init__(self, program: Program, options: Options, listener: Listener | None) -> None:
        self.program = program
        self.listener = listener
        settings, quirks = _settings(program, options)
        self.check = settings["check"]
        self.until = options.until
        self.state = State(_machine(program, settings, quirks), settings["seed"])
        self.result = RunResult(program, self.state)
        self.steps = self.said = self.traced = 0
        self.untold: list[Event] = []
        self.here = Place(program.file, 1)
        if options.trace:
            self.state.machine.trace(self.trace)

    def run(self) -> None:
        """Carry everything out, and check the machine at the end."""
        result = self.result
        try:
            self.block(self.program.body)
        except _Stop:
            result.stopped = f"stopped in line {self.here.line}"
        finally:
            self.state.machine.trace(None)
        result.operations = self.state.operation
        result.page_steps = self.state.page_steps
        if self.check != "never" and not result.bug:
            result.violations = [str(found) for found in self.state.machine.check()]

    def block(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self.here = node.place
            if node.place.line == self.until:
                raise _Stop
            self.steps += 1
            try:
                if self.steps > limits.STEPS:
                    raise Budget(f"more than {limits.STEPS:,} statements carried out")
                self.node(node)
            except WordError as error:
                raise ScenarioError(node.place, str(error)) from None

    def node(self, node: Node) -> None:
        if isinstance(node, Call):
            self.call(node, "")
        elif isinstance(node, ExpectOutcome):
            self.call(node.call, node.outcome)
        elif isinstance(node, Expect):
            self.expect(node)
        elif isinstance(node, Let):
            self.state.variables[node.name] = self.let(node)
        elif isinstance(node, Print):
            self.say(node.place, "output", node.word.fill(self.state.scope))
        elif isinstance(node, Stop):
            raise _Stop
        else:
            self.steer(node)

    # ------------------------------------------------------------ steering

    def steer(self, node: Repeat | For | Choose | If) -> None:
        if isinstance(node, If):
            met, _ = self.holds(node.condition)
            self.block(node.body if met else node.otherwise)
        elif isinstance(node, Choose):
            drawn = self.state.scope.random.randrange(sum(weight for weight, _ in node.branches))
            for weight, branch in node.branches:
                drawn -= weight
                if drawn < 0:
                    self.block(branch)
                    break
        elif isinstance(node, Repeat):
            for _ in range(self.side(node.count)):
                self.turn(node)
        else:
            for value in self.values_of(node):
                self.state.variables[node.name] = value
                self.turn(node)

    def turn(self, node: Repeat | For) -> None:
        """Go once through a loop; an empty turn counts as well."""
        self.steps += 1
        if self.steps > limits.STEPS:
            raise Budget(f"more than {limits.STEPS:,} statements carried out")
        self.block(node.body)

    def values_of(self, node: For) -> Iterable[Value]:
        scope = self.state.scope
        if node.low is not None and node.high is not None:
            return range(node.low.number(scope), node.high.number(scope) + 1)
        return [_value(word.fill(scope)) for word in node.words]

    def let(self, node: Let) -> Value:
        scope = self.state.scope
        if node.any_process:
            living = self.state.living
            if not living:
                raise WordError("no process lives that could be chosen")
            return scope.random.choice(living)
        if node.words:
            return _value(scope.random.choice(node.words).fill(scope))
        assert node.side is not None
        if isinstance(node.side, Expression):
            return node.side.value(scope)
        return self.side(node.side)

    def side(self, side: Side) -> int:
        """Return the number that an expression or a quantity is now."""
        if isinstance(side, Expression):
            return side.number(self.state.scope)
        values, text = self.values(side)
        try:
            return MEASURES[side.spec.name](self.state, values)
        except SyscallError as error:
            raise WordError(f"{text}: {error.strerror}") from None

    def holds(self, condition: Condition) -> tuple[bool, int]:
        """Whether a condition is met, and what its left side is."""
        left, right = self.side(condition.left), self.side(condition.right)
        return _COMPARE[condition.operator](left, right), left

    def values(self, line: Call | Query) -> tuple[Values, str]:
        """Return the values of a line, and the line with its holes filled."""
        if line.values is not None:
            return line.values, line.text
        # Once: a hole may roll a die.
        words = [Word(word.fill(self.state.scope)) for word in line.words]
        text = " ".join([line.spec.name, *(word.text for word in words)])
        return bind(line.spec, words), text

    def expect(self, node: Expect) -> None:
        condition = node.condition
        met, left = self.holds(condition)
        if met:
            self.result.held += 1
            if isinstance(condition.left, Query) and condition.left.spec.name == "violations":
                self.result.violations_expected |= left > 0
            return
        right = ""
        if isinstance(condition.right, Query):
            right = f", {condition.right.text} is {self.side(condition.right)}"
        self.fail(
            node.place, f"expected {condition.text}, but {condition.left.text} is {left}{right}"
        )

    def fail(self, place: Place, text: str) -> None:
        self.result.broken.append(self.say(place, "expect", text))

    # ------------------------------------------------------------ operations

    def call(self, call: Call, expected: str) -> None:
        values, text = self.values(call)
        if not call.spec.operates:
            self.print(call, values)
            return
        if self.result.bug:
            self.say(call.place, "failure", f"{text}: the kernel has stopped; left out")
            return
        self.state.operation += 1
        ended = self.attempt(call, values, text)
        if not expected:
            self.unexpected(ended)
        elif expected != ANY:
            self.judge(ended, expected)
        elif ended.outcome == "BUG":
            self.unexpected(ended)
        elif ended.outcome != "ok":
            self.result.tried += 1

    def attempt(self, call: Call, values: Values, text: str) -> Failure:
        """Carry an operation out; return how it ended, which may be ``ok``."""
        ended = Failure(call.place, self.state.operation, text, "ok", "")
        if self.check == "each":
            self.state.charge_machine()
        try:
            if call.spec.name == "reclaim":
                self.reclaim(call.place, values)
            else:
                OPERATIONS[call.spec.name](self.state, values)
        except Stopped as stop:
            outcome = _signal(stop.error)
            ended = replace(ended, outcome=outcome, detail=str(stop.error), done=stop.done)
        except (Segfault, BusError, OutOfMemory, UserfaultPending) as error:
            ended = replace(ended, outcome=_signal(error), detail=str(error))
        except SyscallError as error:
            name = errno.errorcode.get(error.errno or 0, "fail")
            ended = replace(ended, outcome=name, detail=str(error.strerror))
        except MemoryError as error:
            ended = replace(ended, outcome="ENOMEM", detail=str(error))
        except _BUGS as error:
            check = error.check if isinstance(error, KernelBug) else str(error)
            self.result.bug = check
            self.result.stopped = f"the kernel stopped in line {call.place.line}: {check}"
            ended = replace(ended, outcome="BUG", detail=str(error))
        for remark in self.state.remarks:
            self.say(call.place, "output", remark)
        self.state.remarks.clear()
        self.tell()
        self.state.charge_growth()
        return ended

    def unexpected(self, ended: Failure) -> None:
        """Note how an operation ended of which nothing was expected."""
        if ended.outcome == "BUG":
            self.say(ended.place, "bug", f"{ended.text}: {ended.detail}")
        elif ended.outcome != "ok":
            self.result.failures.append(ended)
            pages = f" after {ended.done} pages" if ended.done is not None else ""
            text = f"{ended.text}: {ended.outcome}{pages}: {ended.detail}"
            self.say(ended.place, "failure", text)

    def judge(self, ended: Failure, wanted: str) -> None:
        """Compare how an operation ended with what was expected of it."""
        met = ended.outcome == wanted or (wanted == "fail" and ended.outcome not in ("ok", "BUG"))
        if ended.outcome == "BUG":
            self.result.bug_expected = met
            self.say(ended.place, "bug", f"{ended.text}: {ended.detail}")
        if met:
            self.result.held += 1
            return
        reason = f" ({ended.detail})" if ended.detail else ""
        self.fail(
            ended.place, f"expected {wanted} of {ended.text}, but it ended {ended.outcome}{reason}"
        )

    def reclaim(self, place: Place, values: Values) -> None:
        cgroup = self.state.cgroup(values.get("cgroup"))
        answer = self.state.machine.reclaim(values["pages"], cgroup)
        name = "/" if cgroup is None else cgroup.name
        done = Reclaimed(place, name, values["pages"], counts_of(answer))
        self.state.last_reclaim = done
        self.result.reclaims.append(done)

    # ------------------------------------------------------------ output

    def print(self, call: Call, values: Values) -> None:
        try:
            if call.spec.name == "show":
                lines: Iterable[str] = output.show(self.state, values, self.result.reclaims)
            else:
                lines = output.OUTPUTS[call.spec.name](self.state, values)
            for line in lines:
                self.say(call.place, "output", line)
        except SyscallError as error:
            raise WordError(str(error.strerror)) from None

    def say(self, place: Place, kind: str, text: str) -> Event:
        """Tell the listener, and keep it."""
        self.said += 1
        if self.said > limits.OUTPUT_LINES:
            raise Budget(f"more than {limits.OUTPUT_LINES:,} lines of output")
        self.tell()
        event = Event(place, kind, text)
        self.result.log.append(event)
        if self.listener is not None:
            self.listener(event)
        return event

    def tell(self) -> None:
        """Tell the listener what was traced. Not from inside the model: a listener may raise."""
        told, self.untold = self.untold, []
        for event in told:
            if self.listener is not None:
                self.listener(event)

    def trace(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Take a report of the model. Called from inside of it, so nothing is raised here."""
        self.traced += 1
        if self.traced > limits.TRACE_LINES:
            self.state.machine.trace(None)
            text = f"... the trace ends here, after {limits.TRACE_LINES:,} lines"
        else:
            text = trace_line(name, arguments, self.state.places.place, self.state.name_of)
        event = Event(self.here, "trace", text)
        self.result.log.append(event)
        self.untold.append(event)


def _settings(program: Program, options: Options) -> tuple[dict[str, Any], dict[str, bool]]:
    """Return what the scenario says of its machine, or its user instead."""
    settings: dict[str, Any] = dict(DEFAULTS)
    quirks: dict[str, bool] = {}
    for call in program.settings:
        values = call.values or {}
        if call.spec.name == "quirk":
            quirks[values["name"]] = values.get("on", True)
        else:
            (settings[call.spec.name],) = values.values()
    for name in ("profile", "seed", "check"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    return settings, quirks | dict(options.quirks)


def _machine(program: Program, settings: dict[str, Any], quirks: dict[str, bool]) -> Machine:
    try:
        kind = profile(settings["profile"], **quirks)
    except UnknownQuirk as error:
        guilty = [c for c in program.settings if c.spec.name in ("profile", "quirk")]
        place = guilty[-1].place if guilty else Place(program.file, 1)
        raise ScenarioError(place, str(error)) from None
    return Machine(
        ram=settings["ram"], swap=settings["swap"], cpus=settings["cpus"], profile=kind,
        seed=settings["seed"], invariants=settings["check"] == "each",
    )  # fmt: skip


def _signal(error: Exception) -> str:
    """What an access that failed is called, by the most special of its kinds that has a name."""
    return next(_SIGNALS[kind] for kind in type(error).__mro__ if kind in _SIGNALS)


def counts_of(answer: object) -> dict[str, int]:
    """Return the numbers of a result of reclaim by their names."""
    return {name: int(getattr(answer, name)) for name in RECLAIM_COUNTS}


def _value(text: str) -> Value:
    """A word that is a decimal number is one."""
    return int(text) if text.lstrip("-").isdecimal() and len(text) < 19 else text

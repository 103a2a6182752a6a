# SPDX-License-Identifier: GPL-2.0-only
"""Where a program goes wrong: the operation at which the model parts from the kernel.

A corpus tells only the end of a program. So the model is asked after every operation, and of each
fact that is wrong at the end it is told since when: the operation after which the model had the
kernel's final value for the last time. That is where to look, not a proof: the kernel may have had
another value there as well. Programs recorded in several lengths (``prefix-*``) bound it from both
sides, so of these only the shortest that differs is worth explaining.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tools.conformance.corpus import Program
from tools.conformance.execute import Kind, worlds
from tools.conformance.facts import Facts, describe, differing, facts
from tools.conformance.language import Operation

_PREFIX = re.compile(r"(prefix-.*)-(\d+)")
#: The value of a fact about something that is not there. No fact has it.
MISSING = object()


@dataclass(frozen=True)
class Difference:
    """A fact that is wrong at the end.

    `since` is the operation after which it was not right any more, or, if it never was, the one
    that gave it its final value; ``None`` if no operation ran. `once_right` tells which.
    """

    text: str
    since: Operation | None
    once_right: bool


@dataclass(frozen=True)
class Explanation:
    """What is wrong at the end of a program, and what stopped it, if something did."""

    program: Program
    differences: list[Difference]
    crash: str = ""

    @property
    def first(self) -> Operation | None:
        """The earliest operation since which something is wrong."""
        operations = [found.since for found in self.differences if found.since is not None]
        return min(operations, key=lambda operation: operation.number, default=None)

    def lines(self, limit: int = 12) -> list[str]:
        """Say it: the operation that is the first, then its facts, then the others'."""
        lines = [f"{self.program.name}: {self.crash}" if self.crash else self.program.name]
        first = self.first
        if first is not None:
            lines.append(f"  first at operation {first.number}: {first.text}")
        shown = sorted(self.differences, key=lambda found: found.since is not first)[:limit]
        for found in shown:
            since = f" [{_since(found)}]" if found.since is not first else ""
            lines.append(f"    {found.text}{since}")
        if len(self.differences) > limit:
            lines.append(f"    and {len(self.differences) - limit} more")
        return lines


def _since(found: Difference) -> str:
    if found.since is None:
        return "from the start"
    return f"{'since' if found.once_right else 'never right, last set by'} {found.since.number}"


def explain(program: Program, profile: Kind) -> Explanation:
    """Run a program operation by operation, and say where it parts from the kernel."""
    history: list[tuple[Operation, Facts]] = []
    crash = ""
    try:
        for operation, world in worlds(program.text, profile):
            history.append((operation, facts(world)))
    except Exception as error:  # noqa: BLE001  whatever stops the model is what is asked for
        crash = f"stops after operation {len(history)}: {type(error).__name__}: {error}"
    expected = facts(program.result)
    got = history[-1][1] if history else {}
    keys = differing(expected, got)
    found = [_difference(key, expected, history) for key in keys]
    return Explanation(program, found, crash)


def _difference(
    key: tuple[object, ...], expected: Facts, history: list[tuple[Operation, Facts]]
) -> Difference:
    """Say since when a fact is wrong."""
    if not history:
        return Difference(describe(key, expected, {}), None, False)
    values = [then.get(key, MISSING) for _, then in history]
    right = expected.get(key, MISSING)
    text = describe(key, expected, history[-1][1])
    was_right = [at for at, value in enumerate(values) if value == right]
    if was_right:
        return Difference(text, history[was_right[-1] + 1][0], True)
    # What is not to be there is right before the first operation, if not after it.
    other = [at for at, value in enumerate(values) if value != values[-1]]
    return Difference(text, history[other[-1] + 1 if other else 0][0], False)


def shortest(programs: Iterable[Program]) -> list[Program]:
    """Leave of the programs that are one program in several lengths only the shortest."""
    kept: dict[str, tuple[int, Program]] = {}
    for program in programs:
        match = _PREFIX.fullmatch(program.name)
        family, length = (match[1], int(match[2])) if match else (program.name, 0)
        if family not in kept or length < kept[family][0]:
            kept[family] = (length, program)
    return [program for _, program in kept.values()]

# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong with a scenario, and where."""

from __future__ import annotations

from dataclasses import dataclass

from rmap.errors import RmapError


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a scenario: the file as the user named it, and the line from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class ScenarioError(RmapError):
    """A line of a scenario that cannot be understood or carried out.

    The message is ``FILE:LINE: what is wrong; what to do``.
    """

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem


class WordError(ValueError):
    """What is wrong with one word; whoever knows the line makes it a `ScenarioError`."""

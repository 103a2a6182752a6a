# SPDX-License-Identifier: GPL-2.0-only
"""Findings of checks that ask several questions of many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.query.checks.registry import Fact, Finding, Mapper, Outcome, Tally

#: Why a check of the kernel's own structures did not run.
NO_STRUCTURE = "only dumps and models show the kernel's own structures"
#: What is wrong with a row, in words; the same for every row, or made of it.
What = str | Callable[[int], str]
#: What a row should say, or says: one of each row.
Values = npt.NDArray[Any] | None


def nobody(row: int) -> tuple[Mapper, ...]:
    """Whom a row affects, where there is no telling."""
    return ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What the rows are: how people call one, what programs get to know, whom it affects."""

    name: Callable[[int], str]
    facts: Callable[[int], dict[str, Fact]]
    affects: Callable[[int], tuple[Mapper, ...]] = nobody


class Collector:
    """Counts what is wrong, and describes the first of it.

    Parameters
    ----------
    check
        The name of the check.
    unit
        What it looks at, of which there are `examined`.
    limit
        At most so many findings are described.
    """

    def __init__(self, check: str, unit: str, examined: int, limit: int) -> None:
        self.check = check
        self.unit = unit
        self.examined = examined
        self.limit = limit
        self.findings: list[Finding] = []
        self.wrong: dict[str, int] = {}
        self.hidden = 0
        self.blind_spot = ""

    def add(
        self, subject: Subject, kind: str, rows: npt.NDArray[Any], what: What,
        expected: Values = None, found: Values = None,
    ) -> None:  # fmt: skip
        """Take rows that are wrong in one way, which is called `kind`."""
        if len(rows):
            self.wrong[kind] = self.wrong.get(kind, 0) + len(rows)
        for row in rows[: max(0, self.limit - len(self.findings))].tolist():
            words = what if isinstance(what, str) else what(row)
            facts: dict[str, Fact] = {"kind": kind, **subject.facts(row)}
            for name, values in (("expected", expected), ("found", found)):
                if values is not None:
                    facts[name] = values[row].item()
            self.findings.append(
                Finding(self.check, f"{subject.name(row)} {words}", facts, subject.affects(row),
                        "affects")
            )  # fmt: skip

    def where(
        self, subject: Subject, kind: str, wrong: npt.NDArray[np.bool_], what: What,
        expected: Values = None, found: Values = None,
    ) -> None:  # fmt: skip
        """The same, given for each row whether it is wrong."""
        self.add(subject, kind, np.flatnonzero(wrong), what, expected, found)

    def leave_open(self, count: int, blind_spot: str) -> None:
        """Say how much could not be decided."""
        self.hidden, self.blind_spot = count, blind_spot

    def outcome(self, right: str) -> Outcome:
        """The result; `right` is what is counted where nothing is wrong."""
        total = sum(self.wrong.values())
        tallies = [Tally("agree", right, max(self.examined - total, 0))]
        tallies += [Tally("disagree", kind, count) for kind, count in self.wrong.items()]
        return Outcome(
            unit=self.unit,
            examined=self.examined,
            tallies=tuple(tally for tally in tallies if tally.count),
            total=total,
            findings=tuple(self.findings),
            hidden=self.hidden,
            blind_spot=self.blind_spot,
        )

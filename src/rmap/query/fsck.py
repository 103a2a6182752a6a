# SPDX-License-Identifier: GPL-2.0-only
"""Does the image hang together? Runs the registered checks (`rmap.query.checks`).

A finding is something that cannot be true of a sound machine: ``rmap fsck`` leaves with exit
status 1 if there is one. What a check had to leave open is not a finding; it is counted in the
tallies, and each check bounds what may hide there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rmap.errors import QueryError
from rmap.image import MemoryImage
from rmap.query.checks import CHECKS, Outcome

#: Findings that each check describes unless told otherwise; it counts all.
DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check and what it found."""

    name: str
    doc: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class FsckReport:
    """The results of all checks, in the order in which they ran."""

    results: tuple[CheckResult, ...]

    @property
    def total(self) -> int:
        """Number of findings, also of those not described."""
        return sum(result.outcome.total for result in self.results)


def fsck(
    image: MemoryImage, *, checks: Collection[str] | None = None, limit: int = DEFAULT_LIMIT
) -> FsckReport:
    """Run checks on an image.

    Parameters
    ----------
    checks
        Names of the checks to run; None is all.
    limit
        At most this many findings of each check are described.

    Raises
    ------
    QueryError
        If there is no check of a name, or ``limit`` is negative.

    >>> from rmap.image import read_image
    >>> fsck(read_image("machine.rmap"), checks=["mapcount"]).total  # doctest: +SKIP
    0
    """
    unknown = sorted(set(checks or ()) - set(CHECKS))
    if unknown:
        raise QueryError(f"no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    if limit < 0:
        raise QueryError(f"cannot describe {limit} findings; use 0 or more")
    return FsckReport(
        tuple(
            CheckResult(check.name, check.doc, check.run(image, limit))
            for check in CHECKS.values()
            if checks is None or check.name in checks
        )
    )

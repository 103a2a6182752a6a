# SPDX-License-Identifier: GPL-2.0-only
"""docs/invariants.md names every invariant, and for each what really asks for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rmap.check import INVARIANTS
from rmap.sync.core import scheduler

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\bI(\d+)\b")
#: Rows of the tables: number or nothing, what holds, asked by, where it does not.
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and "asked by" not in line
]


def names(cell: str) -> list[str]:
    """What a text names, in backticks on one line."""
    return re.findall(r"`([^`\n]+)`", cell.replace("```", ""))


def test_there_is_a_row_for_each_of_the_twenty_eight() -> None:
    numbered = [row[0] for row in ROWS if row[0]]
    assert numbered == [f"I{number}" for number in range(1, 29)]
    assert all(len(row) == 4 for row in ROWS), [row for row in ROWS if len(row) != 4]


def test_every_row_names_a_check_or_a_test() -> None:
    for row in ROWS:
        assert set(names(row[2])) & set(INVARIANTS) or "::" in row[2], row


def test_every_check_has_a_row() -> None:
    named = {name for row in ROWS for name in names(row[2])}
    assert set(INVARIANTS) - named == set()


def test_a_check_is_in_the_rows_of_the_invariants_that_it_says_it_is_of() -> None:
    for one in INVARIANTS.values():
        for number in NUMBER.findall(one.doc):
            (row,) = [row for row in ROWS if row[0] == f"I{number}"]
            assert one.name in names(row[2]), (one.name, number)


TESTS = sorted({name for name in names(TEXT) if name.startswith("test_") and ".py" in name})


@pytest.mark.parametrize("name", TESTS)
def test_every_test_that_is_named_exists(name: str) -> None:
    file, _, test = name.partition("::")
    (path,) = (ROOT / "tests").rglob(file)
    assert not test or f"def {test}(" in path.read_text(encoding="utf-8")


def test_locks_are_checked_here_as_in_every_test(request: pytest.FixtureRequest) -> None:
    assert "locks_checked" in request.fixturenames
    assert scheduler().checking

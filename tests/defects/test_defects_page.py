# SPDX-License-Identifier: GPL-2.0-only
"""docs/defects.md names what there is: tests, quirks, and every story of this directory."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rmap.mm.profile import QUIRKS

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "defects.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip()[1:-1].split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| defect")
]


def functions(path: Path) -> set[str]:
    """The tests of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def named(file: str, test: str) -> bool:
    """Whether a file of that name has that test."""
    return any(test in functions(path) for path in TESTS.rglob(file))


NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", TEXT)))


def test_every_row_is_whole() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        assert len(row) == 5, row
        assert "::test_" in row[4], row


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    assert named(file, test)


def test_every_story_is_named() -> None:
    stories = {
        (path.name, test)
        for path in Path(__file__).parent.glob("test_defects_*.py")
        if path != Path(__file__)
        for test in functions(path)
    }
    assert stories <= set(NAMED), stories - set(NAMED)


def test_fixes_and_protections_are_quirks_that_are_so() -> None:
    known = {quirk.name: quirk for quirk in QUIRKS}
    for row in ROWS:
        for name in re.findall(r"`(\w+)`", row[3]):
            protection = known[name].since == "4.18"
            assert row[3].startswith("protection") is protection, row


def test_every_protection_is_told_of() -> None:
    told = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[3])}
    assert {quirk.name for quirk in QUIRKS if quirk.since == "4.18"} <= told


def test_what_a_quirk_changes_is_told_with_it_and_without() -> None:
    """Each defect is shown where its quirk is, and by a test that switches it."""
    for row in ROWS:
        files = {file for file, _ in re.findall(r"`(test_\w+\.py)::(test_\w+)`", row[4])}
        text = "".join(path.read_text() for file in files for path in TESTS.rglob(file))
        for name in re.findall(r"`(\w+)`", row[3]):
            assert re.search(rf"\b{name}( = |=|\")", text), (row[0], name)

# SPDX-License-Identifier: GPL-2.0-only
"""What the documents show is what the commands print, and draw, and what Python answers."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from rmap.sync.core import scheduler
from tools import sessions

ROOT = Path(__file__).resolve().parent.parent

SESSIONS = [one for document in sessions.DOCUMENTS for one in sessions.sessions(document)]


def test_there_are_sessions() -> None:
    per_document = {path: len(sessions.sessions(path)) for path in sessions.DOCUMENTS}
    assert per_document[ROOT / "README.md"] == 3
    assert per_document[ROOT / "docs" / "tutorial" / "README.md"] >= 12


@pytest.mark.parametrize("session", SESSIONS, ids=str)
def test_a_session(session: sessions.Session, tmp_path: Path) -> None:
    where = tmp_path if session.writes else session.document.parent
    assert sessions.carry_out(session, where) == session.shown
    if session.writes:
        kept = session.document.parent / session.writes
        assert (tmp_path / session.writes).read_bytes() == kept.read_bytes()


def test_every_picture_of_the_tutorial_is_made_by_a_session_of_it() -> None:
    document = ROOT / "docs" / "tutorial" / "README.md"
    shown = set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", document.read_text()))
    made = {session.writes for session in sessions.sessions(document)} - {None}
    assert shown == made == {path.name for path in document.parent.glob("*.svg")}


def test_the_python_of_the_page_on_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "reading-rmap.md"
    # As for the reader: operations check their locks, what is typed in between is nobody's.
    monkeypatch.setattr(scheduler(), "checking", False)
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 30
    assert result.failed == 0

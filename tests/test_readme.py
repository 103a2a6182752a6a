# SPDX-License-Identifier: GPL-2.0-only
"""What the README shows is what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rmap.cli.main import run

ROOT = Path(__file__).resolve().parent.parent
SESSIONS = re.findall(
    r"^```console\n\$ (.*)\n((?s:.*?))^```$", (ROOT / "README.md").read_text(), re.M
)


def test_there_are_sessions() -> None:
    assert len(SESSIONS) == 3


@pytest.mark.parametrize(("line", "shown"), SESSIONS, ids=[line for line, _ in SESSIONS])
def test_a_session_of_the_readme(
    line: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command, *arguments = shlex.split(line)
    assert command == "rmap"
    assert run(arguments) == 0
    assert capsys.readouterr().out == shown

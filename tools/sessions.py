# SPDX-License-Identifier: GPL-2.0-only
"""Write what commands print into the documents that show it: ``python tools/sessions.py``.

A session is a block that begins with a fence of ``console`` and a line ``$ rmap ...``; the rest of
the block is what that command prints on standard output. Pictures that a session writes lie beside
its document. ``--check`` changes nothing and names what differs, with exit status 1; a test does
the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rmap.cli.main import run

ROOT = Path(__file__).resolve().parent.parent
#: The documents with sessions; commands in them run where they lie.
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "tutorial" / "README.md",
    ROOT / "docs" / "reading-rmap.md",
)
_SESSION = re.compile(r"^```console\n\$ (?P<line>rmap .*)\n(?P<shown>(?s:.*?))^```$", re.M)


@dataclass(frozen=True)
class Session:
    """A command line of a document, with what the document says that it prints."""

    document: Path
    line: str
    shown: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {self.line}"

    @property
    def writes(self) -> str | None:
        """The name of the picture that it writes, if any."""
        words = shlex.split(self.line)
        return words[words.index("-o") + 1] if "-o" in words else None


def sessions(document: Path) -> list[Session]:
    """The sessions of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [Session(document, m["line"], m["shown"]) for m in _SESSION.finditer(text)]


def carry_out(session: Session, directory: Path) -> str:
    """Run a session's command in a directory; returns what it printed.

    Raises ``SystemExit`` if it fails.
    """
    printed = io.StringIO()
    with contextlib.chdir(directory), contextlib.redirect_stdout(printed):
        status = run(shlex.split(session.line)[1:])
    if status:
        raise SystemExit(f"sessions: {session} ended with status {status}")
    return printed.getvalue()


def refresh(document: Path) -> None:
    """Write a document anew, aside first, and the pictures of its sessions."""

    def fill(found: re.Match[str]) -> str:
        session = Session(document, found["line"], found["shown"])
        return f"```console\n$ {session.line}\n{carry_out(session, document.parent)}```"

    text = _SESSION.sub(fill, document.read_text(encoding="utf-8"))
    aside = document.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    aside.replace(document)


def differences(document: Path) -> Iterator[str]:
    """What a document shows that is not so any more: sessions, and pictures beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        for session in sessions(document):
            writes = session.writes
            where = Path(scratch) if writes else document.parent
            if carry_out(session, where) != session.shown:
                yield f"{session}: prints something else"
            if writes and not _equal(Path(scratch, writes), document.parent / writes):
                yield f"{session}: {writes} is another picture"


def _equal(made: Path, kept: Path) -> bool:
    return kept.exists() and made.read_bytes() == kept.read_bytes()


def main() -> int:
    """Refresh or check the documents; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, name what differs")
    if not parser.parse_args().check:
        for document in DOCUMENTS:
            refresh(document)
        return 0
    found = [line for document in DOCUMENTS for line in differences(document)]
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

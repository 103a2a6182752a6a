# SPDX-License-Identifier: GPL-2.0-only
"""Where scenarios come from: a file, standard input, or the package."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from rmap.errors import RmapError
from rmap.scenario.limits import TEXT_BYTES
from rmap.scenario.parser import parse
from rmap.scenario.program import Program

SUFFIX = ".rmap"


def shipped() -> dict[str, Traversable]:
    """Return the scenarios of the package by name, sorted, numbers by their value."""
    directory = files("rmap") / "data" / "scenarios"
    found = {
        entry.name.removesuffix(SUFFIX): entry
        for entry in directory.iterdir()
        if entry.name.endswith(SUFFIX)
    }
    return {name: found[name] for name in sorted(found, key=_natural)}


def _natural(name: str) -> list[tuple[int, str]]:
    """What to sort a name by, so that lesson 10 comes after lesson 9."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def load(name: str) -> Program:
    """Read and parse a scenario: a file, ``-`` for standard input, or the name of a shipped one.

    Raises
    ------
    RmapError
        If there is none of that name, or it cannot be read.
    ScenarioError
        If it is wrong.
    """
    if name == "-":
        return _parse(sys.stdin.buffer.read(TEXT_BYTES + 1), "-")
    path = Path(name)
    known = shipped()
    if not path.exists() and name.removesuffix(SUFFIX) in known:
        entry = known[name.removesuffix(SUFFIX)]
        return _parse(entry.read_bytes(), entry.name)
    try:
        with path.open("rb") as file:
            return _parse(file.read(TEXT_BYTES + 1), name)
    except FileNotFoundError:
        listed = ", ".join(known)
        raise RmapError(
            f"{name} is no file and no scenario that comes with rmap ({listed})"
        ) from None
    except OSError as error:
        raise RmapError(f"{name}: {error.strerror or error}") from error


def _parse(data: bytes, name: str) -> Program:
    try:
        return parse(data.decode(), name)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RmapError(f"{name}:{line}: not UTF-8 text; is it a scenario?") from None

# SPDX-License-Identifier: GPL-2.0-only
"""Programs with the state in which a kernel ended, from a corpus or a file of one's own."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Where the recorded corpora are, one for each kernel.
DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "conformance"
#: The kernels that were recorded: a profile of the model for each.
PROFILES = ("6.1", "6.12")

#: A state, as `tools.conformance.world` describes it.
World = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A program of the corpus: its text, the features it uses, and what a kernel made of it."""

    name: str
    tags: tuple[str, ...]
    text: str
    result: World


def corpus(profile: str) -> list[Program]:
    """Return the programs recorded on the kernel of a profile, ``"6.1"`` or ``"6.12"``."""
    return load(DATA / f"corpus-{profile}.jsonl.xz")


def load(path: Path) -> list[Program]:
    """Read programs from a file: one JSON object a line, or a single one; ``.xz`` is unpacked.

    Each object has ``program`` and ``result``, and may have ``name`` and ``tags``.
    Raises ``ValueError`` naming the file and the line of what is no such object.
    """
    packed = path.read_bytes()
    text = (lzma.decompress(packed) if path.suffix == ".xz" else packed).decode()
    try:
        objects = [json.loads(text)]
    except json.JSONDecodeError:
        objects = [_line(path, number, line) for number, line in enumerate(text.splitlines(), 1)]
    return [_program(path, number, found) for number, found in enumerate(objects, 1)]


def _line(path: Path, number: int, line: str) -> object:
    """Parse one line of a file of many objects."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number}: not JSON: {error}") from None


def _program(path: Path, number: int, found: object) -> Program:
    """Make a program of a JSON object."""
    if not isinstance(found, dict) or not isinstance(found.get("program"), str):
        raise ValueError(f"{path}:{number}: an object with 'program' and 'result' is expected")
    if not isinstance(found.get("result"), dict):
        raise ValueError(f"{path}:{number}: 'result' has to be a state, as in the corpus")
    name = str(found.get("name", f"{path.stem}-{number}"))
    return Program(name, tuple(found.get("tags", ())), found["program"], found["result"])

# SPDX-License-Identifier: GPL-2.0-only
"""Write docs/commands.md from the commands themselves: ``python tools/commands_doc.py``.

A test compares the file with what this module would write, so it cannot go stale. It is made from
the parameters, not from ``--help``, whose layout differs between versions of Typer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from rmap.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "docs" / "commands.md"

_INTRODUCTION = """\
# Commands

Made from the commands by `python tools/commands_doc.py`; do not edit.

Common to all:

* **Exit status**: 0 fine, 1 a finding (`rmap fsck`: a disagreement; `rmap run`: an expectation that
  is not met), 2 usage, 3 a missing permission or kernel feature; 130 after Ctrl-C, 141 if the
  reader of the output went away. What is wrong is said in one line on standard error.
* **`--format table`** is for people; sizes have units, `--raw` takes them away. What is not a
  terminal gets lines as long as they need to be; nothing is cut.
* **`--format json`** is one object whose `schema` names the command and a version that grows when
  a reader could break: `rmap.who/1`. Keys and rows have a fixed order. Addresses, page frame
  numbers and flag words are strings of hexadecimal digits (`"0x7f0000001000"`), since many JSON
  readers round numbers above 2^53; all else are plain numbers, sizes in bytes. What is not known
  is `null`.
* **`--format csv`** is one table with a header line, numbers as in JSON: a row a mapping (`who`),
  a group (`report`), a verdict of a check (`fsck`), a table (`snapshot`), a process (`run`), an
  anon_vma (`tree`), or what was asked for (`sql`).
* Names and paths come from whoever runs a program: control characters, and others that do not
  print, appear as `\\x1b` or `\\u202e` in tables and CSV. JSON has the exact text, escaped by its
  own rules.
* Progress and remarks go to standard error, progress only to a terminal; `-q` silences both.
  `NO_COLOR` takes away bold headings.
* `rmap --install-completion` teaches the shell the commands and options.
"""


def document() -> str:
    """The whole file."""
    group: Any = typer.main.get_command(app)
    parts = [_INTRODUCTION]
    parts += [_section(name, command) for name, command in group.commands.items()]
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(["rmap", name, "[OPTIONS]", *map(_argument, arguments)])
    lines = [f"## rmap {name}", "", command.help or "", "", "```", usage, "```", ""]
    if arguments:
        lines += ["| argument | |", "|---|---|"]
        lines += [f"| `{_argument(p)}` | {p.help or ''} |" for p in arguments] + [""]
    lines += ["| option | |", "|---|---|"]
    lines += [f"| `{_option(p)}` | {p.help or ''}{_default(p)} |" for p in options] + [""]
    lines += [*_epilog(command.epilog or ""), ""]
    return "\n".join(lines)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).strip("[]{}.")
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.is_flag:
        return names
    return f"{names} {parameter.metavar}".replace("|", "\\|")


def _default(parameter: Any) -> str:
    if parameter.required:
        return " Required."
    default = parameter.default
    value = getattr(default, "value", default)
    return (
        f" Default: {value}." if isinstance(value, str | int) and value not in ("", False) else ""
    )


def _epilog(epilog: str) -> list[str]:
    """The examples as a code block, what follows as text."""
    lines, inside = [], False
    for line in epilog.splitlines():
        if line == "\b":
            lines.append("```")
            inside = True
        elif inside and not line:
            lines += ["```", ""]
            inside = False
        else:
            lines.append(line)
    return [*lines, "```"] if inside else lines


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(document(), encoding="utf-8")
    sys.stderr.write(f"wrote {PATH.relative_to(ROOT)}\n")

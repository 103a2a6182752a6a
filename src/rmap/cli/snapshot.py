# SPDX-License-Identifier: GPL-2.0-only
"""``rmap snapshot``: write the live machine down as an image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmap.cli.common import (
    DebugOption,
    DumpOption,
    FormatOption,
    FreezeOption,
    PidsArgument,
    QuietOption,
    RawOption,
    emit,
    missing,
    open_image,
    refuse_foreign,
)
from rmap.cli.output import Column, Document, Format, Records, Unit

if TYPE_CHECKING:
    from rmap.image import MemoryImage

EPILOG = """\
Examples:

\b
  rmap snapshot -o machine.zip             the whole machine
  rmap snapshot -o two.zip 812 813         two processes and their pages
  rmap snapshot -o one.zip --freeze 812    stop it while it is read: exact

Needs CAP_SYS_ADMIN. An image is replaced, any other file is not. A name that ends
in / gives a directory instead of a zip file."""

_TABLE_COLUMNS = (Column("table", "TABLE"), Column("rows", "ROWS", Unit.COUNT))
#: Processes that should have been read and were not (`rmap.image.schema.PROCESSES`).
NOT_READ = ("vanished", "denied", "self")


def command(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The image to write.")
    ],
    pids: PidsArgument = None,
    dump: DumpOption = None,
    debug: DebugOption = None,
    freeze: FreezeOption = False,
    format: FormatOption = Format.TABLE,
    raw: RawOption = False,
    quiet: QuietOption = False,
) -> int:
    """Write the reverse map of the live machine, or of a crash dump, to an image."""
    from rmap.image import write_image

    refuse_foreign(output)
    wanted = pids or []
    image = open_image(
        None,
        dump=dump,
        debug=debug,
        pids=wanted or None,
        freeze=wanted if freeze else None,
        ram=not wanted,  # of a few processes, only their pages
        quiet=quiet,
    )
    write_image(image, output)
    emit(document(image, output), format, raw=raw)
    return 0


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def document(image: MemoryImage, output: str) -> Document:
    """Say what was written: the file, the tables, the processes that were not read."""
    processes = image.processes
    statuses = processes["status"].tolist()
    unread = [
        (int(pid), comm, status)
        for pid, comm, status in zip(processes["pid"], processes["comm"], statuses, strict=True)
        if status in NOT_READ
    ]
    machine = image.machine.row(0)
    facts: dict[str, Any] = {
        "file": os.fspath(output),
        "bytes": _size(Path(output)),
        "seconds": round(machine["duration_ns"] / 1e9, 3),
        "scope": machine["scope"],
        "consistency": machine["consistency"],
        "processes_read": statuses.count("ok"),
        "processes_not_read": len(unread),
        "pages_changed": int(image.pages["changed"].sum()),
        **missing(image),
    }
    tables = [(name, len(table)) for name, table in image.tables.items() if len(table)]
    return Document(
        "rmap.snapshot/1",
        [
            Records(
                "tables", (Column("table", "TABLE"), Column("rows", "ROWS", Unit.COUNT)), tables
            ),
            Records(
                "not_read",
                (
                    Column("pid", "PID", Unit.COUNT),
                    Column("comm", "COMMAND"),
                    Column("status", "WHY"),
                ),
                unread,
                title="Not read:" if unread else "Every process was read.",
            ),
        ],
        facts,
        heading=_heading(facts),
    )


def _heading(facts: dict[str, Any]) -> list[str]:
    from rmap.text import human_bytes

    return [
        f"Wrote {facts['file']}, {human_bytes(facts['bytes'])}: "
        f"{facts['processes_read']} processes read in {facts['seconds']:.2f} s, "
        f"{facts['processes_not_read']} not read, "
        f"{facts['pages_changed']} pages changed meanwhile."
    ]

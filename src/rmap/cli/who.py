# SPDX-License-Identifier: GPL-2.0-only
"""``rmap who``: who maps a page, an address, a file, a physical address."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from enum import IntFlag
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmap.cli.common import (
    DebugOption,
    DumpOption,
    FormatOption,
    FreezeOption,
    ImageOption,
    QuietOption,
    RawOption,
    complain,
    emit,
    identify,
    missing,
    open_image,
)
from rmap.cli.output import Column, Document, Format, Records, Unit
from rmap.cli.texts import Offsets, Radix, Texts, look_for_texts, print_texts
from rmap.errors import TargetError

if TYPE_CHECKING:
    from rmap.query.targets import Target
    from rmap.query.who import Mapping, Run, WhoAnswer

EPILOG = """\
Examples:

\b
  rmap who 812                             all that process 812 has in memory
  rmap who 812:0x7f31c0a00000              the page at an address
  rmap who 812:0x7f31c0a00000+64K          64 KiB from there
  rmap who /usr/lib/libc.so.6@0+4K         the first page of a file
  rmap who phys:0x12f4c6080                what a memory-error report prints
  rmap who pfn:0x12f4c6+16 --format json   16 page frames, for a program
  rmap who - < targets.txt                 a list, one target a line, read in one pass
  rmap who --dump vmcore 812:0x7f31c0a00000
  strings -t x memory.raw | rmap who --dump vmcore -
  strings -t x vmcore | rmap who --dump vmcore --offsets dump -

Lines of strings(1) are told from targets by their offsets, which stand at the right of seven
columns or more. What is at each offset is put between it and the text, with tabs around it.

Numbers are decimal, or hexadecimal with 0x. A target without an answer is told on standard
error; the others have theirs, and the exit status is that of the error."""


def command(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="PID[:ADDR[+LEN]], FILE[@OFFSET+LEN], pfn:N[+M], phys:ADDR[+LEN]; - for a list, "
            "or the output of strings -t d or -t x, on standard input.",
        ),
    ],
    image: ImageOption = None,
    dump: DumpOption = None,
    debug: DebugOption = None,
    freeze: FreezeOption = False,
    strings: Annotated[
        Radix | None,
        typer.Option(
            "--strings",
            metavar="d|x|o",
            help="Standard input is what strings -t prints, with offsets of this radix.",
        ),
    ] = None,
    offsets: Annotated[
        Offsets,
        typer.Option(
            "--offsets",
            metavar="physical|dump",
            help="Offsets of strings are physical addresses, as in a raw image of memory, or are "
            "of the dump, an ELF file.",
        ),
    ] = Offsets.PHYSICAL,
    format: FormatOption = Format.TABLE,
    raw: RawOption = False,
    quiet: QuietOption = False,
) -> int:
    """Who maps it: every mapping of a page, and whether the kernel counts as many."""
    from rmap.query.targets import FileTarget, ProcessTarget
    from rmap.query.who import who

    texts, given = _standard_input(targets, strings)
    if texts is not None:
        if freeze:
            raise TargetError("--freeze: texts name no process; drop it")
        read = open_image(image, dump=dump, debug=debug, quiet=quiet)
        return print_texts(read, texts, format=format, offsets=offsets, dump=dump, quiet=quiet)
    wanted = list(_parse(targets, given))
    named = [target.pid for target in wanted if isinstance(target, ProcessTarget)]
    of_processes = all(isinstance(target, ProcessTarget | FileTarget) for target in wanted)
    read = open_image(
        image,
        dump=dump,
        debug=debug,
        freeze=named if freeze else None,
        ram=not of_processes,
        quiet=quiet,
    )
    answer = who(read, wanted, identify=None if image or dump else identify, strict=False)
    if len(answer) or not answer.problems:
        emit(document(answer, format), format, raw=raw)
    for problem in answer.problems:
        complain("rmap who", str(problem.error))
    return max((problem.error.exit_status for problem in answer.problems), default=0)


def _standard_input(targets: Sequence[str], radix: Radix | None) -> tuple[Texts | None, bytes]:
    """Return texts if standard input has them, else what it has, if a target asks for it.

    Raises
    ------
    TargetError
        If other targets stand beside texts.
    """
    if "-" not in targets:
        if radix is not None:
            raise TargetError("--strings: texts come from standard input; write - for it")
        return None, b""
    found = look_for_texts(sys.stdin.buffer, radix)
    if isinstance(found, bytes):
        return None, found
    if len(targets) > 1:
        raise TargetError("standard input has texts of strings(1); ask for other targets apart")
    return found, b""


def _parse(texts: Sequence[str], given: bytes) -> Iterator[Target]:
    """Parse the targets; ``-`` stands for those ``given`` on standard input.

    Raises
    ------
    TargetError
        For the first that is not a target.
    """
    from rmap.query.targets import parse_target, parse_targets

    for text in texts:
        if text == "-":
            # Paths are bytes: what is not UTF-8 is kept as it is, as in arguments.
            yield from parse_targets(given.decode("utf-8", "surrogateescape").split("\n"))
            given = b""
        else:
            yield parse_target(text)


_RUN_COLUMNS = (
    Column("target", "TARGET"),
    Column("state", "STATE"),
    Column("pages", "PAGES", Unit.COUNT),
    Column("address", "ADDRESS", Unit.HEX),
    Column("path", "FILE"),
    Column("offset", "OFFSET", Unit.HEX),
    Column("pfn", "PFN", Unit.HEX),
    Column("last_pfn", "LAST PFN", Unit.HEX),
    Column("contiguous", "CONTIGUOUS", Unit.BOOL),
    Column("swap_entry", "SWAP ENTRY", Unit.HEX),
    Column("kind", "KIND"),
    Column("flags", "FLAGS"),
    Column("mapcount", "MAPCOUNT", Unit.COUNT),
    Column("refcount", "REFCOUNT", Unit.COUNT),
    Column("found", "FOUND", Unit.COUNT),
    Column("verdict", "VERDICT"),
)
_MAPPING_COLUMNS = (
    Column("pids", "PID"),
    Column("comm", "COMMAND"),
    Column("mapped_at", "MAPPED AT", Unit.HEX),
    Column("vma_start", "VMA START", Unit.HEX),
    Column("vma_end", "VMA END", Unit.HEX),
    Column("permissions", "PERM"),
    Column("name", "NAME"),
    Column("order", "ORDER", Unit.COUNT),
    Column("pte_flags", "PTE FLAGS"),
)
_TABLE_COLUMNS = (
    Column("target", "TARGET"),
    Column("at", "AT", Unit.HEX),
    Column("pages", "PAGES", Unit.COUNT),
    Column("pfn", "PFN"),
    Column("kind", "KIND"),
    Column("mapcount", "COUNTED", Unit.COUNT),
    Column("found", "FOUND", Unit.COUNT),
    Column("verdict", "VERDICT"),
    Column("pids", "PID"),
    Column("comm", "COMMAND"),
    Column("address", "MAPPED AT", Unit.HEX),
    Column("permissions", "PERM"),
    Column("name", "NAME"),
    Column("flags", "FLAGS"),
)


def document(answer: WhoAnswer, format: Format) -> Document:
    """Lay out an answer as ``format`` needs it.

    JSON has runs with their mappings inside, CSV a row a mapping that repeats what is said of its
    run, and a table says that in the first row only.
    """
    if format is Format.JSON:
        columns: Sequence[Column] = (*_RUN_COLUMNS, Column("mappings", ""))
        rows: Iterator[Sequence[Any]] = _nested_rows(answer)
    elif format is Format.CSV:
        columns, rows = (*_RUN_COLUMNS, *_MAPPING_COLUMNS), _flat_rows(answer)
    else:
        columns, rows = _TABLE_COLUMNS, _table_rows(answer)
    problems = [
        {"target": answer.targets[problem.target].text, "message": str(problem.error)}
        for problem in answer.problems
    ]
    return Document(
        "rmap.who/1",
        [Records("runs", columns, list(rows))],
        {"page_size": answer.image.page_size, "problems": problems, **missing(answer.image)},
        notes=[] if len(answer) else ["Nothing is mapped there."],
    )


@cache
def _names(flags: type[IntFlag], value: int) -> list[str]:
    """Names of flags; a machine has few combinations, and an answer many rows."""
    from rmap.image.flags import names

    return names(flags, value)


def _run_row(run: Run) -> tuple[Any, ...]:
    from rmap.image.flags import Kpf

    flags = None if run.flags is None else _names(Kpf, run.flags)
    named = {"target": run.text, "flags": flags}
    return tuple(named.get(c.key, getattr(run, c.key, None)) for c in _RUN_COLUMNS)


def _nested_rows(answer: WhoAnswer) -> Iterator[Sequence[Any]]:
    for run in answer:
        yield (*_run_row(run), [_mapping_object(mapping) for mapping in run.mappings])


def _flat_rows(answer: WhoAnswer) -> Iterator[Sequence[Any]]:
    nobody = (None,) * len(_MAPPING_COLUMNS)
    for run in answer:
        head = _run_row(run)
        for row in [_mapping_row(mapping) for mapping in run.mappings] or [nobody]:
            yield (*head, *row)


def _mapping_row(mapping: Mapping) -> tuple[Any, ...]:
    from rmap.image.flags import Pte

    named = {
        "pids": list(mapping.pids),
        "mapped_at": mapping.address,
        "pte_flags": _names(Pte, mapping.flags),
    }
    return tuple(named.get(c.key, getattr(mapping, c.key, None)) for c in _MAPPING_COLUMNS)


def _mapping_object(mapping: Mapping) -> dict[str, Any]:
    """A mapping inside a run in JSON, where it has its own address."""
    row = zip(_MAPPING_COLUMNS, _mapping_row(mapping), strict=True)
    return {
        "address" if column.key == "mapped_at" else column.key: (
            hex(value) if column.unit is Unit.HEX and value is not None else value
        )
        for column, value in row
    }


def _table_rows(answer: WhoAnswer) -> Iterator[Sequence[Any]]:
    from rmap.image.flags import Kpf

    blank = ("",) * 8
    for run in answer:
        head: Sequence[Any] = (
            run.text,
            run.offset if run.address is None else run.address,
            run.pages,
            _frames(run),
            run.kind or run.state,
            run.mapcount,
            run.found,
            run.verdict,
        )
        last = None if run.flags is None else ",".join(_names(Kpf, run.flags))
        for mapping in run.mappings:
            pids = ",".join(map(str, mapping.pids))
            yield (*head, pids, mapping.comm, mapping.address, mapping.permissions,
                   mapping.name, last)  # fmt: skip
            head, last = blank, ""
        if not run.mappings:
            yield (*head, *(None,) * 5, last)


def _frames(run: Run) -> str | None:
    """Return the frames of a run: the first, and how many follow it without a gap."""
    if run.pfn is None:
        return None if run.swap_entry is None else f"swap {run.swap_entry:#x}"
    if run.pages == 1:
        return f"{run.pfn:#x}"
    return f"{run.pfn:#x}+{run.pages}" if run.contiguous else f"{run.pfn:#x} and others"

# SPDX-License-Identifier: GPL-2.0-only
"""``rmap report``: what memory is really shared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmap.cli.common import (
    DebugOption,
    DumpOption,
    FormatOption,
    FreezeOption,
    ImageOption,
    PidsArgument,
    QuietOption,
    RawOption,
    emit,
    missing,
    open_image,
)
from rmap.cli.output import Audience, Column, Document, Format, Records, Unit
from rmap.text import human_bytes, printable

if TYPE_CHECKING:
    from rmap.query.report import Group, Report
    from rmap.query.sizes import Split

EPILOG = """\
Examples:

\b
  rmap report                              every process of this machine
  rmap report --by command                 all processes of one name as a group
  rmap report --by cgroup --format json    for a program
  rmap report 812 813                      two processes, and what they share

RSS: all that is mapped. PSS: each page divided by the number of its mappings. USS: pages
mapped once. GUSS: pages that only this group maps, so what comes back if all of it goes."""

#: Groups in a table unless told otherwise: a screen of them.
_TABLE_GROUPS = 20
#: Columns of the matrix of shared memory in a table.
_MATRIX_GROUPS = 8
_OTHERS = "(others)"


class By(StrEnum):
    """What ``--by`` takes."""

    PROCESS = "process"
    COMMAND = "command"
    USER = "user"
    CGROUP = "cgroup"


def command(
    pids: PidsArgument = None,
    by: Annotated[
        By,
        typer.Option(
            "--by",
            metavar="process|command|user|cgroup",
            help="What makes a group.",
            case_sensitive=False,
        ),
    ] = By.PROCESS,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=0, help="Groups to list; 0 is all. Tables list 20 if unset."
        ),
    ] = None,
    image: ImageOption = None,
    dump: DumpOption = None,
    debug: DebugOption = None,
    freeze: FreezeOption = False,
    format: FormatOption = Format.TABLE,
    raw: RawOption = False,
    quiet: QuietOption = False,
) -> int:
    """What memory is really shared: RSS, PSS, USS and the matrix of sharing."""
    from rmap.query.report import report

    stop = (pids or []) if freeze else None
    read = open_image(image, dump=dump, debug=debug, freeze=stop, quiet=quiet)
    answer = report(read, by=by.value, pids=pids or None)
    if limit is None:
        limit = _TABLE_GROUPS if format is Format.TABLE else 0
    emit(document(answer, limit, missing(read)), format, raw=raw)
    return 0


def document(
    answer: Report, limit: int = 0, lacks: Mapping[str, Mapping[str, int]] | None = None
) -> Document:
    """Lay out a report; ``limit`` is the number of groups to list, 0 all of them."""
    listed = answer.groups[:limit] if limit else answer.groups
    facts = {
        "by": answer.by,
        "page_size": answer.page_size,
        "groups_in_all": len(answer.groups),
        "total": dict(zip((c.key for c in _SIZES), _sizes(answer.total), strict=True)),
        "unattributed": _unattributed(answer),
        "changed_bytes": answer.changed,
        **(lacks or {}),
    }
    return Document(
        "rmap.report/1",
        [
            _groups(answer, listed),
            matrix(answer),
            pairs(answer),
            _kinds(answer),
            _unread(answer),
        ],
        facts,
        notes=_notes(answer),
    )


_PARTS = ("anon", "file", "shmem", "hugetlb")
_SIZE_NAMES = ("rss", "pss", "uss", "guss")
_SIZES = (
    *(Column(name, name.upper(), Unit.BYTES) for name in _SIZE_NAMES),
    Column("swap", "SWAP", Unit.BYTES),
    Column("swap_pss", "SWAP PSS", Unit.BYTES, detail=True),
    *(
        Column(f"{name}_{part}", "", Unit.BYTES, detail=True)
        for name in _SIZE_NAMES
        for part in _PARTS
    ),
    Column("estimated", "", Unit.BYTES, detail=True),
)


def _sizes(group: Group) -> list[int]:
    splits: list[Split] = [getattr(group, name) for name in _SIZE_NAMES]
    parts = [getattr(split, part) for split in splits for part in _PARTS]
    totals = [split.total for split in splits]
    return [*totals, group.swap, group.swap_pss, *parts, group.estimated]


def _groups(answer: Report, listed: Sequence[Group]) -> Records:
    single = answer.by == "process"
    columns = (
        Column("key", "PID" if single else answer.by.upper(), Unit.COUNT if single else Unit.TEXT),
        Column("label", "COMMAND", detail=not single),
        Column("processes", "PROCESSES", Unit.COUNT, detail=single),
        Column("pids", "", detail=True),
        *_SIZES,
    )
    rows = [
        (int(g.key) if single else g.key, g.label, len(g.pids), list(g.pids), *_sizes(g))
        for g in listed
    ]
    left = len(answer.groups) - len(listed)
    total = answer.total
    footer = ("total", "", len(total.pids), [], *_sizes(total))
    notes = [f"{left} more are in the total; --limit 0 lists all."] if left else []
    return Records("groups", columns, rows, notes=notes, footer=[footer])


def _names(answer: Report) -> list[str]:
    """Return the name of every row of the matrix: processes with their command."""
    labels = {group.key: group.label for group in answer.groups}
    names = [
        f"{key} {labels[key]}" if answer.by == "process" else key for key in answer.shared.keys
    ]
    return [*names, _OTHERS] if answer.shared.others else names


def matrix(answer: Report) -> Records:
    """The matrix for people: the largest groups against each other and all others."""
    names, size = _names(answer), answer.shared.size
    shown = list(range(min(_MATRIX_GROUPS, len(answer.shared.keys))))
    if answer.shared.others and len(shown) == len(answer.shared.keys):
        shown.append(len(names) - 1)
    columns = [Column("name", "")]
    columns += [Column(str(at), _short(printable(names[at])), Unit.BYTES) for at in shown]
    rows = [
        [names[row], *(int(size[row, at]) if row != at else None for at in shown)] for row in shown
    ]
    return Records(
        "matrix",
        columns,
        rows if len(shown) > 1 else [],
        title="Memory that both map (each page once):" if len(shown) > 1 else "",
        audience=Audience.PEOPLE,
    )


def _short(name: str) -> str:
    """Return both ends of a name, for the head of a narrow column; the row has it in full."""
    return name if len(name) <= 14 else f"{name[:6]}…{name[-7:]}"


def pairs(answer: Report) -> Records:
    """The same for programs: every pair that shares something, and each group with itself."""

    def listed() -> Iterator[tuple[Any, ...]]:
        single = answer.by == "process"
        keys: list[Any] = [int(key) if single else key for key in answer.shared.keys]
        keys += [None] if answer.shared.others else []  # all other processes
        for a, first in enumerate(keys):
            for b, second in enumerate(keys[a:], a):
                if answer.shared.size[a, b]:
                    yield first, second, int(answer.shared.size[a, b])

    columns = (Column("a", "A"), Column("b", "B"), Column("bytes", "BOTH MAP", Unit.BYTES))
    return Records("shared", columns, list(listed()), audience=Audience.PROGRAMS)


def _kinds(answer: Report) -> Records:
    columns = (
        Column("kind", "KIND"),
        Column("bytes", "SIZE", Unit.BYTES),
        Column("mapped_bytes", "MAPPED", Unit.BYTES),
        Column("found_bytes", "FOUND MAPPED", Unit.BYTES),
    )
    rows = [(kind.kind, kind.size, kind.mapped, kind.found) for kind in answer.kinds]
    what = "All of RAM" if answer.whole_machine else "The pages of this image"
    return Records("kinds", columns, rows, title=f"{what}, by kind:")


def _unread(answer: Report) -> Records:
    rows = [(pid, comm, group.status) for group in answer.unread for pid, comm in group.processes]
    columns = (Column("pid", "PID", Unit.COUNT), Column("comm", "COMMAND"), Column("status", "WHY"))
    return Records("unread", columns, rows, audience=Audience.PROGRAMS)


def _unattributed(answer: Report) -> dict[str, int]:
    found = answer.unattributed
    return {
        "bytes": found.size,
        "unfound_bytes": found.unfound,
        "mappings": found.mappings,
        **{f"{part}_bytes": getattr(found, part) for part in _PARTS},
    }


def _notes(answer: Report) -> list[str]:
    """What the numbers leave out, in a line each."""
    notes = []
    if answer.unattributed.size:
        notes.append(
            f"Unattributed: {human_bytes(answer.unattributed.size)} have mappings that the kernel "
            "counts and no process read here owns."
        )
    if answer.changed:
        notes.append(f"Changed while it was read: {human_bytes(answer.changed)}.")
    for group in answer.unread:
        if group.status not in ("kernel", "zombie"):
            names = ", ".join(f"{pid} {comm}" for pid, comm in group.processes[:5])
            more = f" and {len(group.processes) - 5} more" if len(group.processes) > 5 else ""
            notes.append(f"Not read ({group.status}): {names}{more}.")
    if answer.total.estimated:
        notes.append(
            f"Of {human_bytes(answer.total.estimated)} the kernel's count is not known; "
            "the mappings found stand in for it."
        )
    return notes

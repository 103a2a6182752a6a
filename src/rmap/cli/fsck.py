# SPDX-License-Identifier: GPL-2.0-only
"""``rmap fsck``: do the two records of every mapping agree?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmap.cli.common import (
    DebugOption,
    DumpOption,
    FormatOption,
    ImageOption,
    QuietOption,
    RawOption,
    emit,
    missing,
    open_image,
    remark,
)
from rmap.cli.output import Audience, Column, Document, Format, Records, Unit

if TYPE_CHECKING:
    from rmap.query.checks import Finding, Mapper
    from rmap.query.fsck import FsckReport

EPILOG = """\
Examples:

\b
  rmap fsck                        check this machine
  rmap fsck --image crash.zip      check an image
  rmap fsck --check mapcount       one check only
  rmap fsck --format json          for a program

Exit status 1 if there is a finding. What could not be judged (processes that may not be read,
pages that changed meanwhile) is counted and is no finding."""

_FINDING = 1


def command(
    check: Annotated[
        list[str] | None,
        typer.Option("--check", metavar="NAME", help="Only this check; may be repeated."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=0, help="Findings of each check to describe."),
    ] = 100,
    image: ImageOption = None,
    dump: DumpOption = None,
    debug: DebugOption = None,
    format: FormatOption = Format.TABLE,
    raw: RawOption = False,
    quiet: QuietOption = False,
) -> int:
    """Check every page's mappings against the kernel's count, and what else has to agree."""
    from rmap.query.fsck import fsck

    read = open_image(image, dump=dump, debug=debug, quiet=quiet)
    answer = fsck(read, checks=check, limit=limit)
    lacks = missing(read)
    if answer.total and any(count for counts in lacks.values() for count in counts.values()):
        remark("rmap: a finding may be no more than that what it leads to is missing", quiet=quiet)
    emit(document(answer, lacks), format, raw=raw)
    return _FINDING if answer.total else 0


def document(answer: FsckReport, lacks: Mapping[str, Mapping[str, int]] | None = None) -> Document:
    """Lay out the results: tallies of every check, then what was found."""
    return Document(
        "rmap.fsck/1",
        [_tallies(answer), _findings(answer), _objects(answer), *_skipped(answer)],
        {"findings_in_all": answer.total, "hidden": _hidden(answer), **(lacks or {})},
        notes=[*_notes(answer), _conclusion(answer)],
    )


def _tallies(answer: FsckReport) -> Records:
    columns = (
        Column("check", "CHECK"),
        Column("verdict", "VERDICT"),
        Column("kind", "KIND"),
        Column("count", "COUNT", Unit.COUNT),
        Column("unit", "OF"),
    )
    rows = [
        (result.name, tally.verdict, tally.kind, tally.count, result.outcome.unit)
        for result in answer.results
        for tally in result.outcome.tallies
    ]
    return Records("tallies", columns, rows)


def _all_findings(answer: FsckReport) -> Iterator[Finding]:
    for result in answer.results:
        yield from result.outcome.findings


def _findings(answer: FsckReport) -> Records:
    """The findings for people: a line each, and a line for each who maps the page."""
    columns = (Column("check", "CHECK"), Column("what", "FINDING"))
    rows: list[tuple[str, str]] = []
    for finding in _all_findings(answer):
        rows.append((finding.check, finding.what))
        rows += [("", f"  {finding.relation} {_mapper(mapper)}") for mapper in finding.mappers]
    described = sum(1 for _ in _all_findings(answer))
    left = answer.total - described
    notes = [f"{left} more findings; --limit raises the number described."] if left else []
    title = "Findings:" if rows or notes else ""
    return Records("report", columns, rows, title=title, notes=notes, audience=Audience.PEOPLE)


def _mapper(mapper: Mapper) -> str:
    pids = ",".join(map(str, mapper.pids))
    where = f" at {mapper.address:#x}" if mapper.address else ""
    return f"{pids} {mapper.comm}{where}"


def _objects(answer: FsckReport) -> Records:
    """The findings for programs."""
    columns = (
        Column("check", ""),
        Column("what", ""),
        Column("facts", ""),
        Column("mappers", ""),
    )
    rows: list[tuple[Any, ...]] = [
        (
            finding.check,
            finding.what,
            _facts(finding.facts),
            [
                {"pids": list(m.pids), "comm": m.comm, "address": hex(m.address)}
                for m in finding.mappers
            ],
        )
        for finding in _all_findings(answer)
    ]
    return Records("findings", columns, rows, audience=Audience.PROGRAMS)


#: Facts that are addresses, frames or swap entries, which all formats write in hexadecimal.
_HEX_FACTS = frozenset({"address", "pfn", "entry", "node", "vma", "owner_address"})


def _facts(facts: Mapping[str, int | str]) -> dict[str, int | str]:
    return {
        name: hex(value) if name in _HEX_FACTS and isinstance(value, int) else value
        for name, value in facts.items()
    }


def _skipped(answer: FsckReport) -> Iterator[Records]:
    """Why checks did not run, for people those of one reason on one line."""
    columns = (Column("check", "CHECK"), Column("why", "NOT RUN BECAUSE"))
    rows = [(r.name, r.outcome.skipped) for r in answer.results if r.outcome.skipped]
    reasons: dict[str, list[str]] = {}
    for name, why in rows:
        reasons.setdefault(why, []).append(name)
    grouped = [(", ".join(names), why) for why, names in reasons.items()]
    title = "Not run:" if rows else ""
    yield Records("skipped", columns, rows, audience=Audience.PROGRAMS)
    yield Records("skipped", columns, grouped, title=title, audience=Audience.PEOPLE)


def _hidden(answer: FsckReport) -> dict[str, int]:
    return {result.name: result.outcome.hidden for result in answer.results}


def _notes(answer: FsckReport) -> list[str]:
    """Bound what may have been missed."""
    return [
        f"{result.name}: {result.outcome.hidden} {result.outcome.blind_spot}."
        for result in answer.results
        if result.outcome.hidden
    ]


def _conclusion(answer: FsckReport) -> str:
    if answer.total:
        return f"{answer.total} finding{'s' if answer.total > 1 else ''}."
    return "No findings: what could be judged agrees."

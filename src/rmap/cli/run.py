# SPDX-License-Identifier: GPL-2.0-only
"""``rmap run``: carry a scenario out on the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmap.cli.common import (
    FormatOption,
    QuietOption,
    RawOption,
    emit,
    refuse_foreign,
    remark,
    say,
)
from rmap.cli.output import Audience, Column, Document, Format, Records, Unit
from rmap.cli.scenarios import (
    Check,
    ProfileOption,
    QuirkOption,
    SeedOption,
    UntilOption,
    options,
)
from rmap.errors import TargetError

if TYPE_CHECKING:
    from rmap.image import MemoryImage
    from rmap.scenario.report import Section
    from rmap.scenario.result import Event, RunResult

EPILOG = """\
Examples:

\b
  rmap run --list                          the scenarios that come with rmap
  rmap run fork-server                     one of them
  rmap run mine.rmap --image after.zip     a file; keep the memory it leaves
  rmap run cve-2022-42703 --quirk separate_reuse_counters
  rmap run - --trace < mine.rmap           every kernel function of interest

Exit status 1 if an expectation of the scenario is not met, an invariant is broken, or the kernel
stops. The language is in docs/scenarios.md."""

#: Processes that a table lists, and failures that are told one by one.
_PROCESSES = 20
_FAILURES = 20


def command(
    scenario: Annotated[
        str | None,
        typer.Argument(metavar="SCENARIO", help="A file, - for standard input, or a shipped one."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the scenarios that come with rmap.")
    ] = False,
    profile: ProfileOption = None,
    quirk: QuirkOption = None,
    seed: SeedOption = None,
    until: UntilOption = None,
    check: Annotated[
        Check | None,
        typer.Option(
            "--check", metavar="each|end|never", help="When invariants are recomputed.",
            case_sensitive=False,
        ),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Print a line for each kernel function of interest.")
    ] = False,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="Write the memory it leaves as an image."),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report",
            help="End with a report of processes, sharing, walks and statistics, or only with "
            "how the run went.",
        ),
    ] = True,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=0,
            help="Processes to list; 0 is all. Tables list 20 if unset.",
        ),
    ] = None,
    format: FormatOption = Format.TABLE,
    raw: RawOption = False,
    quiet: QuietOption = False,
) -> int:  # fmt: skip
    """Run a scenario on the model of the kernel's memory management."""
    if list_:
        emit(_listing(), format, raw=raw)
        return 0
    if scenario is None:
        raise TargetError("no scenario is named; `rmap run --list` lists those that come with rmap")
    from rmap.scenario.library import load

    program = load(scenario)
    from rmap.scenario.runner import run_scenario

    chosen = options(profile, quirk, seed, until, check=check.value if check else None, trace=trace)
    if image is not None:
        refuse_foreign(image)
    people = format is Format.TABLE
    result = run_scenario(program, chosen, Teller() if people else None)
    memory = _memory(result)
    if image is not None:
        _keep(memory, image)
        remark(f"Wrote {image}.", quiet=quiet)
    if limit is None:
        limit = _PROCESSES if people else 0
    tables = _report(result, memory, limit) if report else ()
    emit(document(result, tables, told=people), format, raw=raw)
    return 1 if result.is_finding else 0


def _listing() -> Document:
    from rmap.scenario.library import load, shipped

    columns = (Column("name", "NAME"), Column("title", "WHAT IT SHOWS"))
    rows = [(name, load(name).title) for name in shipped()]
    return Document("rmap.run.list/1", [Records("scenarios", columns, rows)])


def _memory(result: RunResult) -> MemoryImage:
    from rmap.scenario.naming import named

    return named(result.machine.snapshot(), result.regions)


def _keep(memory: MemoryImage, path: Path) -> None:
    from rmap.image import write_image

    write_image(memory, path)


class Teller:
    """Prints what happens when it happens; what a scenario prints stands by itself."""

    def __init__(self) -> None:
        self.failures = 0

    def __call__(self, event: Event) -> None:
        from rmap.text import printable

        text = printable(event.text)
        if event.kind == "trace":
            line = f"{event.place.line:>6}  {text}"
        elif event.kind == "output":
            line = text
        else:
            line = f"{event.place}: {text}"
        if event.kind == "failure":
            self.failures += 1
            if self.failures > _FAILURES:
                return
            if self.failures == _FAILURES:
                line += "; what else fails is counted (--format json lists all)"
        say(f"{line}\n")


def document(result: RunResult, report: Iterable[Records], *, told: bool) -> Document:
    """Lay the result of a run out; what was `told` already is not repeated to people."""
    people = Audience.PROGRAMS if told else Audience.ALL
    tables = [
        *report,
        _failures(result, Audience.PROGRAMS),
        _violations(result),
        _log(result, people),
    ]
    return Document("rmap.run/1", tables, _facts(result), heading=_heading(result, told))


def _report(result: RunResult, image: MemoryImage, limit: int) -> Iterator[Records]:
    """The sections on the machine that the run left."""
    from rmap.scenario import report

    state = result.state
    yield _records(report.processes(state, image), limit=limit)
    yield from _sharing(image)
    yield _records(report.sharing(state, image))
    yield _records(report.walks(state, image))
    yield _records(report.reclaim(state, result.reclaims))
    yield from _statistics(result)


def _records(section: Section, limit: int = 0) -> Records:
    columns = [Column(one.key, one.title, Unit(one.unit)) for one in section.fields]
    rows = section.rows[:limit] if limit else section.rows
    left = len(section.rows) - len(rows)
    notes = [f"{left:,} more are not listed; --limit 0 lists all."] if left else []
    if not section.rows and section.empty:
        return Records(section.name, columns, [], title=section.empty)
    return Records(section.name, columns, rows, title=f"{section.title}:", notes=notes)


def _sharing(image: MemoryImage) -> list[Records]:
    """Who shares how much with whom: a matrix for people, pairs for programs."""
    from rmap.cli.report import matrix, pairs
    from rmap.query.report import report

    if not len(image.processes):
        return []
    answer = report(image, by="process")
    size = answer.shared.size
    alone = size.sum() == size.trace()
    return [pairs(answer)] if alone else [matrix(answer), pairs(answer)]


def _statistics(result: RunResult) -> list[Records]:
    """All for programs, those that are not 0 for people."""
    from dataclasses import replace

    from rmap.scenario import report

    section = report.statistics(result.state)
    everything = _records(section)
    some = replace(everything, rows=[row for row in section.rows if row[1]])
    return [
        replace(everything, audience=Audience.PROGRAMS),
        replace(some, audience=Audience.PEOPLE),
    ]


def _failures(result: RunResult, audience: Audience) -> Records:
    columns = (
        Column("line", "LINE", Unit.COUNT),
        Column("operation", "OPERATION", Unit.COUNT),
        Column("text", "WHAT"),
        Column("outcome", "OUTCOME"),
        Column("pages_before", "PAGES BEFORE", Unit.COUNT),
        Column("detail", "DETAIL"),
    )
    rows = [
        (one.place.line, one.operation, one.text, one.outcome, one.done, one.detail)
        for one in result.failures
    ]
    return Records("failures", columns, rows, audience=audience)


def _violations(result: RunResult) -> Records:
    rows = [(text,) for text in result.violations]
    title = "Invariants that do not hold:" if rows else ""
    return Records("violations", (Column("violation", "VIOLATION"),), rows, title=title)


def _log(result: RunResult, audience: Audience) -> Records:
    columns = (
        Column("line", "LINE", Unit.COUNT),
        Column("kind", "KIND"),
        Column("text", "TEXT"),
    )
    rows = [(event.place.line, event.kind, event.text) for event in result.log]
    return Records("log", columns, rows, audience=audience)


def _facts(result: RunResult) -> dict[str, Any]:
    kernel = result.machine.kernel
    return {
        "scenario": result.program.file,
        "title": result.program.title,
        "profile": kernel.profile.name,
        "seed": result.state.seed,
        "ram_pages": int(kernel.nr_pages),
        "cpus": len(kernel.tlbs),
        "operations": result.operations,
        "failed_operations": len(result.failures),
        "failed_tries": result.tried,
        "expectations_met": result.held,
        "expectations_not_met": len(result.broken),
        "stopped": result.stopped or None,
        "kernel_bug": result.bug or None,
        "warnings": [repr(warning) for warning in result.machine.warnings],
        "page_steps": result.page_steps,
    }


def _heading(result: RunResult, told: bool) -> Sequence[str]:
    from rmap.text import human_bytes

    kernel = result.machine.kernel
    size = human_bytes(int(kernel.nr_pages) << 12)
    cpus = len(kernel.tlbs)
    first = (
        f"{result.program.file}: {result.operations:,} operations on {size} of RAM, "
        f"{cpus} CPU{'s' if cpus > 1 else ''}, profile {kernel.profile.name}, seed "
        f"{result.state.seed}."
    )
    second = (
        f"Expectations met: {result.held:,}, not met: {len(result.broken):,}. "
        f"Operations that failed: {len(result.failures):,}"
        f"{f', and {result.tried:,} that might' if result.tried else ''}."
    )
    lines = ["", first, second] if told and result.log else [first, second]
    if result.stopped:
        lines.append(f"The run ended early: {result.stopped}.")
    if result.machine.warnings:
        lines.append(f"The kernel warned {len(result.machine.warnings):,} times, first of: "
                     f"{result.machine.warnings[0].check}.")  # fmt: skip
    return lines

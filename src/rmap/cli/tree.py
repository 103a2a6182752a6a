# SPDX-License-Identifier: GPL-2.0-only
"""``rmap tree``: the anon_vma forest as a drawing."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmap.cli.common import (
    QuietOption,
    emit,
    open_image,
    refuse_unless_writable,
    remark,
    say,
)
from rmap.cli.output import Column, Document, Format, Records, Unit, write
from rmap.cli.scenarios import ProfileOption, QuirkOption, SeedOption, UntilOption, options
from rmap.errors import RmapError, TargetError

if TYPE_CHECKING:
    from rmap.image import MemoryImage
    from rmap.query.tree import Forest

EPILOG = """\
Examples:

\b
  rmap tree fork-server                    what a scenario leaves, in the terminal
  rmap tree fork-server -o forest.svg      as a picture; also .png
  rmap tree mine.rmap --until 12           as it was in front of line 12
  rmap tree machine.zip --pid 812          an image; families of one process
  rmap tree 812                            a live process: what its pages give away
  rmap tree redis-bgsave --format dot | dot -Tsvg > forest.svg

/proc shows no anon_vmas. Of a live process, and of images of live machines, families are
inferred from shared pages, and the drawing says so."""


class TreeFormat(StrEnum):
    """What ``--format`` takes."""

    TEXT = "text"
    TABLE = "table"  # what the other commands call it
    DOT = "dot"
    SVG = "svg"
    PNG = "png"
    JSON = "json"
    CSV = "csv"


#: What a name of a file says about its format.
_SUFFIXES = {
    ".svg": TreeFormat.SVG,
    ".png": TreeFormat.PNG,
    ".dot": TreeFormat.DOT,
    ".gv": TreeFormat.DOT,
    ".json": TreeFormat.JSON,
    ".csv": TreeFormat.CSV,
    ".txt": TreeFormat.TEXT,
}


def command(
    target: Annotated[
        str,
        typer.Argument(metavar="PID|SCENARIO|IMAGE", help="A process, a scenario, or an image."),
    ],
    pid: Annotated[
        list[str] | None,
        typer.Option(
            "--pid", metavar="PID",
            help="Only families of this process; of a scenario, its name. May be repeated.",
        ),
    ] = None,
    format: Annotated[
        TreeFormat | None,
        typer.Option(
            "--format", metavar="text|dot|svg|png|json|csv",
            help="What to draw; what FILE ends in, or text, if unset.", case_sensitive=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", min=0,
            help="Families, and anon_vmas and VMAs of one, to draw; 0 is all.",
        ),
    ] = 24,
    profile: ProfileOption = None,
    quirk: QuirkOption = None,
    seed: SeedOption = None,
    until: UntilOption = None,
    quiet: QuietOption = False,
) -> int:  # fmt: skip
    """Draw anon_vmas: their trees, the VMAs that hang on them, whose the pages are."""
    from rmap.query.tree import forest

    chosen = _format(format, output)
    if output is not None:
        refuse_unless_writable(output)
    run = options(profile, quirk, seed, until)
    image, source, pids = _read(target, pid or [], run, quiet)
    if not len(image.processes):
        remark(f"{source}: no process is left at its end; --until LINE stops before.", quiet=quiet)
    _write(forest(image, pids or None), source, chosen, output, limit, quiet)
    return 0


def _format(format: TreeFormat | None, output: Path | None) -> TreeFormat:
    """Return the format that was asked for, by name or by a file's.

    Raises
    ------
    RmapError
        If a file's name does not tell, or a picture would go to the terminal.
    """
    if format is not None:
        chosen = format
    elif output is None:
        chosen = TreeFormat.TEXT
    elif output.suffix.lower() in _SUFFIXES:
        chosen = _SUFFIXES[output.suffix.lower()]
    else:
        raise TargetError(f"{output}: name it {', '.join(_SUFFIXES)}, or say --format")
    if chosen is TreeFormat.PNG and output is None:
        raise TargetError("a PNG picture is for a file: name it with -o FILE.png")
    return chosen


def _read(
    target: str, names: list[str], run: Any, quiet: bool
) -> tuple[MemoryImage, str, list[int]]:
    """Return the image to draw, what to call it, and the processes that were asked for."""
    if target.isascii() and target.isdecimal():
        if len(target) > 10:
            raise TargetError(f"{target} is no PID; the highest is 4194304")
        image = open_image(None, ram=False, quiet=quiet)
        pids = [int(target), *map(_number, names)]
        return image, f"process {int(target)} of this machine", pids
    if _is_image(target):
        return open_image(Path(target)), target, [_number(name) for name in names]
    from rmap.scenario.library import load
    from rmap.scenario.naming import named
    from rmap.scenario.runner import run_scenario

    result = run_scenario(load(target), run)
    for event in result.broken:
        remark(f"{event.place}: {event.text}", quiet=quiet)
    if result.bug:
        remark(f"{result.program.file}: {result.stopped}", quiet=quiet)
    image = named(result.machine.snapshot(), result.regions)
    return image, result.program.file, [_pid_of(result.state.processes, name) for name in names]


def _is_image(target: str) -> bool:
    from rmap.image.store import is_image

    path = Path(target)
    try:
        # A directory is no scenario, and what it lacks as an image is told by its reader.
        return path.is_dir() or is_image(path)
    except OSError as error:
        raise RmapError(f"{target}: {error.strerror or error}") from error


def _number(name: str) -> int:
    if not (name.isascii() and name.isdecimal() and len(name) <= 10):
        raise TargetError(f"--pid {name}: not a process id")
    return int(name)


def _pid_of(processes: dict[str, Any], name: str) -> int:
    """The pid of a process of a scenario, by its name there or by its number."""
    found = processes.get(name)
    if found is None and not name.isdecimal():
        known = ", ".join(one for one, process in processes.items() if process.alive)
        raise TargetError(
            f"--pid {name}: no such process in the scenario; at its end live: {known}"
        )
    if found is not None and not found.alive:
        raise TargetError(f"--pid {name}: it has exited by then; --until LINE stops before")
    return int(name) if found is None else int(found.pid)


def _write(
    forest: Forest, source: str, format: TreeFormat, output: Path | None, limit: int, quiet: bool
) -> None:
    """Draw, and put the drawing where it belongs."""
    if format in (TreeFormat.JSON, TreeFormat.CSV):
        answer, kind = document(forest, source), Format(format.value)
        if output is None:
            emit(answer, kind)
            return
        drawing = _as_text(answer, kind)
    else:
        drawing = _drawing(forest, source, format, limit)
    if output is not None:
        from rmap.draw.tree_view import describe
        from rmap.files import write_whole

        write_whole(output, drawing)
        remark(describe(forest, source), quiet=quiet)
        remark(f"Wrote {output}.", quiet=quiet)
        return
    say(drawing.decode(), flush=True)


def _as_text(answer: Document, format: Format) -> bytes:
    import io

    out = io.StringIO()
    write(answer, format, out=out)
    return out.getvalue().encode()


def _drawing(forest: Forest, source: str, format: TreeFormat, limit: int) -> bytes:
    if format in (TreeFormat.TEXT, TreeFormat.TABLE):
        from rmap.draw.tree_text import tree_text

        return "".join(f"{line}\n" for line in tree_text(forest, source, limit)).encode()
    if format is TreeFormat.DOT:
        from rmap.draw.tree_dot import tree_dot

        return tree_dot(forest, source, limit).encode()
    from rmap.draw.tree_picture import draw_forest

    scene = draw_forest(forest, source, limit)
    if format is TreeFormat.PNG:
        from rmap.draw.png import to_png

        return to_png(scene)
    from rmap.draw.svg import to_svg

    return to_svg(scene).encode()


_NODES = (
    Column("family", "FAMILY", Unit.COUNT),
    Column("anon_vma", "ANON_VMA", Unit.COUNT),
    Column("parent", "PARENT", Unit.COUNT),
    Column("depth", "DEPTH", Unit.COUNT),
    Column("refcount", "REFCOUNT", Unit.COUNT),
    Column("degree", "DEGREE", Unit.COUNT),
    Column("num_children", "CHILDREN", Unit.COUNT),
    Column("num_active_vmas", "ACTIVE VMAS", Unit.COUNT),
    Column("freed", "FREED", Unit.BOOL),
    Column("tree", "TREE"),
    Column("owned_by", "OWNED BY"),
    Column("pages", "PAGES", Unit.COUNT),
)
_VMAS = (
    Column("family", "FAMILY", Unit.COUNT),
    Column("vma", "VMA", Unit.COUNT),
    Column("pid", "PID", Unit.COUNT),
    Column("comm", "COMMAND"),
    Column("start", "START", Unit.HEX),
    Column("end", "END", Unit.HEX),
    Column("pgoff", "PGOFF", Unit.HEX),
    Column("permissions", "PERM"),
    Column("name", "NAME"),
    Column("anon_vma", "ANON_VMA", Unit.COUNT),
    Column("chain", "CHAIN"),
)
_PAGES = (
    Column("family", "FAMILY", Unit.COUNT),
    Column("owner", "OWNER", Unit.COUNT),
    Column("index", "INDEX", Unit.HEX),
    Column("pages", "PAGES", Unit.COUNT),
    Column("pfn", "PFN", Unit.HEX),
    Column("mapcount", "MAPCOUNT", Unit.COUNT),
    Column("visited", "VISITED", Unit.COUNT),
    Column("found", "FOUND", Unit.COUNT),
    Column("mapped_by", "MAPPED BY"),
)
_FINDINGS = (
    Column("family", "FAMILY", Unit.COUNT),
    Column("rule", "RULE"),
    Column("text", "FINDING"),
)


def document(forest: Forest, source: str) -> Document:
    """Lay the whole forest out for programs; anon_vmas go by the number that drawings use."""
    numbers = {node.anon_vma: node.number for f in forest.families for node in f.nodes}
    findings = [
        (numbers[family.root], finding.rule, finding.text)
        for family in forest.families
        for finding in family.findings
    ]
    tables = [
        Records("anon_vmas", _NODES, list(_node_rows(forest, numbers))),
        Records("vmas", _VMAS, list(_vma_rows(forest, numbers))),
        Records("pages", _PAGES, list(_page_rows(forest, numbers))),
        Records("findings", _FINDINGS, findings),
    ]
    facts = {
        "of": source,
        "inferred": forest.inferred,
        "families": len(forest.families),
        "page_size": forest.image.page_size,
    }
    return Document("rmap.tree/1", tables, facts)


def _node_rows(forest: Forest, numbers: dict[int, int]) -> Iterator[tuple[Any, ...]]:
    for family in forest.families:
        for node in family.nodes:
            yield (
                numbers[family.root], node.number, numbers.get(node.parent), node.depth,
                None if node.refcount < 0 else node.refcount, node.degree, node.num_children,
                node.num_active_vmas, node.is_freed, list(node.tree), list(node.owners),
                node.pages,
            )  # fmt: skip


def _vma_rows(forest: Forest, numbers: dict[int, int]) -> Iterator[tuple[Any, ...]]:
    for family in forest.families:
        for vma in family.vmas:
            yield (
                numbers[family.root], vma.vma, vma.pid, vma.comm, vma.start, vma.end, vma.pgoff,
                vma.permissions, vma.name, numbers.get(vma.anon_vma),
                [numbers.get(anon_vma) for anon_vma in vma.chain],
            )  # fmt: skip


def _page_rows(forest: Forest, numbers: dict[int, int]) -> Iterator[tuple[Any, ...]]:
    for family in forest.families:
        for run in family.pages:
            yield (
                numbers[family.root], numbers[run.anon_vma], run.index, run.pages, run.pfn,
                run.mapcount, run.visited, run.found, list(run.vmas),
            )  # fmt: skip

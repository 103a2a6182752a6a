# SPDX-License-Identifier: GPL-2.0-only
"""What the commands share: options, where the image comes from, how an answer leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmap.cli.output import Document, Format, write
from rmap.errors import ImageError, RmapError, TargetError

if TYPE_CHECKING:
    from rmap.image import MemoryImage
    from rmap.source import Progress

ImageOption = Annotated[
    Path | None,
    typer.Option("--image", metavar="FILE", help="Ask this image, not the live machine."),
]
DumpOption = Annotated[
    Path | None,
    typer.Option(
        "--dump",
        metavar="VMCORE",
        help="Ask this crash dump, qmp:SOCKET (a paused guest of QEMU), or /proc/kcore.",
    ),
]
DebugOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--debug",
        metavar="FILE",
        help="A vmlinux, BTF or symbols of the dump's kernel; may be repeated. Most dumps need "
        "none.",
    ),
]
FreezeOption = Annotated[
    bool,
    typer.Option("--freeze", help="Stop the named processes while they are read."),
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        metavar="table|json|csv",
        help="How to print the answer.",
        case_sensitive=False,
    ),
]
RawOption = Annotated[bool, typer.Option("--raw", help="Plain numbers in tables: bytes, no units.")]
PidsArgument = Annotated[
    list[int] | None, typer.Argument(metavar="PID", min=1, help="Only these processes.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no remarks on standard error.")
]


class OutputClosed(Exception):
    """Whoever read our standard output went away.

    Not an OSError: Typer would turn a broken pipe into an exit status of 1, which is a finding.
    """


@contextmanager
def _to_the_reader() -> Iterator[None]:
    """Turn what can happen to standard output into what it means.

    Raises
    ------
    OutputClosed
        If the reader has gone.
    RmapError
        If it cannot be written, for instance to a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        raise RmapError(f"cannot write the answer: {error.strerror or error}") from error


def emit(document: Document, format: Format, *, raw: bool = False) -> None:
    """Write a document to standard output.

    Raises
    ------
    OutputClosed
        If the reader has gone.
    RmapError
        If it cannot be written, for instance to a full disk.
    """
    with _to_the_reader():
        write(document, format, raw=raw)
        sys.stdout.flush()


def say(text: str, *, flush: bool = False) -> None:
    """Write text to standard output, as a part of the answer. Raises as `emit` does."""
    with _to_the_reader():
        sys.stdout.write(text)
        if flush or sys.stdout.isatty():
            sys.stdout.flush()


def output(data: bytes) -> None:
    """Write bytes to standard output as they are. Raises as `emit` does."""
    with _to_the_reader():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def complain(who: str, message: str) -> None:
    """Say on one line of standard error what is wrong; ``who`` is the command."""
    from rmap.text import printable

    sys.stderr.write(f"{who}: {printable(' '.join(message.split()))}\n")


def remark(text: str, *, quiet: bool) -> None:
    """Tell the user something beside the answer, on standard error."""
    from rmap.text import printable

    if not quiet:
        sys.stderr.write(f"{printable(text)}\n")


def identify(path: str) -> tuple[int, int] | None:
    """Return (device, inode) of a file of this machine, None if there is none of that name."""
    from rmap.source.proc import file_identity

    try:
        return file_identity(path)
    except TargetError:
        return None


def refuse_unless_writable(path: Path) -> None:
    """Refuse an output file whose directory cannot take it, before the long work begins.

    Raises
    ------
    RmapError
        Saying what is the matter with the directory.
    """
    directory = path.parent
    if not directory.is_dir():
        raise RmapError(f"cannot write {path}: {directory} is not a directory")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise RmapError(f"cannot write {path}: {directory} is not writable")


def refuse_foreign(output: str | Path) -> None:
    """Refuse a place where an image cannot be written, before the long work begins.

    Raises
    ------
    ImageError
        If something that is not an image is there.
    RmapError
        If the directory is missing or may not be written.
    """
    from rmap.image.store import is_image

    path = Path(output)
    refuse_unless_writable(path)
    try:
        foreign = path.exists() and not is_image(path)
        empty = path.is_dir() and not any(path.iterdir())
    except OSError as error:
        raise ImageError(f"{output}: {error.strerror or error}") from error
    if foreign and not empty:
        raise ImageError(f"{output} exists and is not an rmap image; choose another name")


def open_image(
    path: Path | None,
    *,
    dump: Path | None = None,
    debug: Sequence[Path] | None = None,
    pids: Collection[int] | None = None,
    freeze: Collection[int] | None = None,
    ram: bool = True,
    quiet: bool = False,
) -> MemoryImage:
    """Return the image to ask: the file at ``path``, a crash dump, or else the live machine.

    Parameters
    ----------
    dump, debug
        A crash dump, and files that know its kernel.
    pids
        Of the live machine, read only these processes (None: all).
    freeze
        Stop these while they are read; None if that was not asked for.
    ram
        Of the live machine, describe all of RAM, not only the pages that somebody maps.

    Raises
    ------
    RmapError
        As the reader of images or the live source raise it; also for ``--freeze`` without a
        process to stop.
    """
    if debug and dump is None:
        raise TargetError("--debug names files for a dump; name that: --dump VMCORE")
    if path is not None and dump is not None:
        raise TargetError("--image and --dump both say what to ask: drop one")
    if (path is not None or dump is not None) and freeze is not None:
        option = "--image" if path is not None else "--dump"
        raise TargetError(f"--freeze stops live processes, {option} names a file: drop one")
    if path is not None:
        from rmap.image import read_image

        return _complete(read_image(path), quiet=quiet)
    if dump is not None:
        from rmap.source.dump import dump_image

        with _progress(quiet) as progress:
            read = dump_image(dump, debug or (), progress)
        return _complete(read, quiet=quiet)
    if freeze is not None and not freeze:
        raise TargetError("--freeze: no process is named; give the PIDs to stop")
    from rmap.source.proc import snapshot

    with _progress(quiet) as progress:
        return snapshot(pids, freeze=tuple(freeze or ()), ram=ram, progress=progress)


_MISSING = {
    "missing_pages": "descriptors of pages",
    "missing_tables": "page tables",
    "missing_objects": "other structures",
}


def missing(image: MemoryImage) -> dict[str, dict[str, int]]:
    """Return what a dump lacks, as a fact of an answer; nothing for what is no dump."""
    machine = image.machine
    counts = {name.partition("_")[2]: int(machine[name][0]) for name in _MISSING if name in machine}
    return {"missing": counts} if counts else {}


def _complete(image: MemoryImage, *, quiet: bool) -> MemoryImage:
    """Return an image; what its dump lacked is said, and that a kernel ran while it was read."""
    if str(image.machine["consistency"][0]) == "once":
        remark(
            "rmap: the kernel ran while its memory was read: what changed meanwhile does not fit "
            "together",
            quiet=quiet,
        )
    for counts in missing(image).values():
        parts = [
            f"{counts[name.partition('_')[2]]} {what}"
            for name, what in _MISSING.items()
            if counts[name.partition("_")[2]]
        ]
        if parts:
            remark(
                f"rmap: not in the dump: {', '.join(parts)}; the answer lacks what they would say",
                quiet=quiet,
            )
    return image


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress | None]:
    """Give a function that shows how far the reading is, on a terminal; None elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("processes", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield show

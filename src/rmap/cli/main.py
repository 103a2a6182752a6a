# SPDX-License-Identifier: GPL-2.0-only
"""``rmap``: the entry point, and what becomes of errors.

Whatever is wrong with what was typed or read, the user sees one line on standard error that says
what, where, and what to do, and the exit status of :mod:`rmap.errors`. Ctrl-C leaves quietly with
130, a reader that goes away (``| head``) with 141, as a C program would. A traceback is a defect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rmap.cli import fsck, report, snapshot, sql, tree, who
from rmap.cli import map as map_
from rmap.cli import run as run_
from rmap.cli.common import OutputClosed, complain
from rmap.errors import RmapError

_USAGE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141

# What Typer raises for a bad command line. It keeps the class to itself (its own copy of Click
# since 0.2x, Click's before), but not its subclass.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_EPILOG = """\
\b
Exit status: 0 fine, 1 a finding, 2 usage, 3 missing permission or kernel feature.
'rmap COMMAND --help' shows examples."""

app = typer.Typer(
    name="rmap",
    help="Linux's reverse mapping: given a physical page, who maps it, and where.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module, _name in (
    (who, "who"),
    (report, "report"),
    (fsck, "fsck"),
    (map_, "map"),
    (snapshot, "snapshot"),
    (sql, "sql"),
    (run_, "run"),
    (tree, "tree"),
):
    app.command(_name, epilog=_module.EPILOG)(_module.command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from rmap import version_line

        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show version and mode."
        ),
    ] = False,
) -> None:
    # No docstring: the help text is the one of the app.
    del version


def run(arguments: Sequence[str]) -> int:
    """Run ``rmap`` with ``arguments`` and return its exit status; errors become one line."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=list(arguments), prog_name="rmap", standalone_mode=False)
        sys.stdout.flush()
    except RmapError as error:
        return _complain(_name_of(arguments), str(error), error.exit_status)
    except _UsageError as error:
        return _usage(error, _name_of(arguments))
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except (OutputClosed, BrokenPipeError):
        # What is left in the buffer has nowhere to go; the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    return result if isinstance(result, int) else 0


def _usage(error: Exception, name: str) -> int:
    """Say what is wrong with the command line, and where help is."""
    message = str(getattr(error, "format_message", error.__str__)()).replace("Value error, ", "")
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        # A bare `rmap`: the message is the help itself.
        sys.stderr.write(f"{message}\n")
        return _USAGE
    return _complain(name, f"{message.rstrip('.')} (see: {name} --help)", _USAGE)


def _complain(name: str, message: str, status: int) -> int:
    complain(name, message)
    return status


def _name_of(arguments: Sequence[str]) -> str:
    """Return ``rmap COMMAND``, or ``rmap`` if the arguments name no command."""
    names = {command.name for command in app.registered_commands}
    found = next((argument for argument in arguments if not argument.startswith("-")), "")
    return f"rmap {found}" if found in names else "rmap"


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
"""Run the model against what kernels did: ``python -m tools.conformance``.

Prints for each profile how many programs agree, and for those that differ the operation at which
they part. Exit status 1 if one differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from rmap import version_line
from tools.conformance.corpus import PROFILES, Program, corpus, load
from tools.conformance.execute import run
from tools.conformance.explain import explain, shortest

EPILOG = """\
NAME is a program of the corpus, or a pattern ('hand-*'); or a file with programs and results of
your own: JSON objects {"program": ..., "result": ...} as in the corpus, one a line.
"""


def agrees(program: Program, profile: str) -> bool:
    """Whether the model ends where the kernel did. Stopping on the way is not agreeing."""
    try:
        return run(program.text, profile) == program.result
    except Exception:  # noqa: BLE001  explain() runs it again and shows what stops it
        return False


def chosen(names: list[str], profile: str) -> list[Program]:
    """Return the programs that are asked for: all of the corpus if none is named."""
    files = [Path(name) for name in names if Path(name).is_file()]
    patterns = [name for name in names if not Path(name).is_file()]
    programs = [program for file in files for program in load(file)]
    if patterns or not names:
        recorded = corpus(profile)
        for pattern in patterns or ["*"]:
            matching = [program for program in recorded if fnmatchcase(program.name, pattern)]
            if not matching:
                raise ValueError(f"no program and no file is called {pattern}")
            programs += matching
    return programs


def compare(programs: list[Program], profile: str, show: int) -> int:
    """Run programs, print what differs; returns how many do."""
    start = time.monotonic()
    different = [program for program in programs if not agrees(program, profile)]
    seconds = time.monotonic() - start
    print(
        f"profile {profile}: {len(programs) - len(different)} of {len(programs)} programs agree "
        f"({seconds:.1f} s)"
    )
    explanations = [explain(program, profile) for program in shortest(different)[:show]]
    for explanation in explanations:
        print("\n".join(explanation.lines()))
    hidden = [program.name for program in different]
    if hidden and show < len(shortest(different)):
        print(f"different, all of them: {' '.join(hidden)}")
    return len(different)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser("conformance", description=__doc__, epilog=EPILOG)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run (default: all)")
    parser.add_argument("--profile", action="append", help="6.1, 6.12 (default: both)")
    parser.add_argument("--show", type=int, default=5, help="differences to explain (5)")
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    print(version_line())
    different = 0
    try:
        for profile in options.profile or PROFILES:
            different += compare(chosen(options.names, profile), profile, options.show)
    except ValueError as error:
        parser.error(str(error))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())

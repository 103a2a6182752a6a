# SPDX-License-Identifier: GPL-2.0-only
"""Run the model against what kernels did: ``python -m tools.conformance``.

Prints for each profile how many programs agree, and for those that differ the operation at which
they part. Exit status 1 if one differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rmap import version_line
from rmap.mm.profile import PROFILES
from rmap.mm.profile import profile as make_profile
from tools.conformance.corpus import PROFILES as RECORDED
from tools.conformance.corpus import Program, corpus, load
from tools.conformance.execute import Kind, run
from tools.conformance.explain import explain, shortest

EPILOG = """\
NAME is a program of the corpus, or a pattern ('hand-*'); or a file with programs and results of
your own: JSON objects {"program": ..., "result": ...} as in the corpus, one a line.
"""


def agrees(program: Program, profile: Kind) -> bool:
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


def compare(programs: list[Program], profile: Kind, show: int) -> int:
    """Run programs, print what differs; returns how many do."""
    start = time.monotonic()
    different = [program for program in programs if not agrees(program, profile)]
    seconds = time.monotonic() - start
    name = profile if isinstance(profile, str) else profile.name
    print(
        f"profile {name}: {len(programs) - len(different)} of {len(programs)} programs agree "
        f"({seconds:.1f} s)"
    )
    families = shortest(different)
    for program in families[:show]:
        print("\n".join(explain(program, profile).lines()))
    if show < len(families):
        print(f"different, all of them: {' '.join(program.name for program in different)}")
    return len(different)


def weigh(programs: list[Program], name: str) -> None:
    """Switch off each quirk of a profile in turn, and print how many programs then differ."""
    print(f"profile {name}: programs that differ without")
    for quirk in PROFILES[name]:
        without = make_profile(name, **{quirk: False})
        different = [program.name for program in programs if not agrees(program, without)]
        example = f"  such as {min(different, key=len)}" if different else ""
        print(f"{len(different):6} {quirk}{example}", flush=True)


def switched(options: argparse.Namespace, name: str) -> Kind:
    """Return the profile that is asked for."""
    changes = dict.fromkeys(options.having, True) | dict.fromkeys(options.without, False)
    return make_profile(name, **changes) if changes else name


def parse_arguments(arguments: list[str] | None) -> tuple[argparse.ArgumentParser, Any]:
    """Return the parser, for its errors, and the options."""
    parser = argparse.ArgumentParser("conformance", description=__doc__, epilog=EPILOG)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run (default: all)")
    parser.add_argument(
        "--profile", action="append", choices=RECORDED, help="default: each that was recorded"
    )
    parser.add_argument("--show", type=int, default=5, help="differences to explain (5)")
    parser.add_argument(
        "--with", dest="having", action="append", default=[], metavar="QUIRK", help="switch it on"
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="QUIRK", help="switch it off"
    )
    parser.add_argument(
        "--quirks", action="store_true", help="how many programs tell each quirk of the profile"
    )
    return parser, parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser, options = parse_arguments(arguments)
    print(version_line())
    different = 0
    try:
        for name in options.profile or RECORDED:
            programs = chosen(options.names, name)
            if options.quirks:
                weigh(programs, name)
            else:
                different += compare(programs, switched(options, name), options.show)
    except ValueError as error:
        parser.error(str(error))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""What ``rmap run`` and ``rmap tree`` share: options of a run, and how a run is told."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from rmap.errors import RmapError

if TYPE_CHECKING:
    from rmap.scenario.runner import Options


class Check(StrEnum):
    """What ``--check`` takes."""

    EACH = "each"
    END = "end"
    NEVER = "never"


ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Which kernel, whatever the scenario says."),
]
QuirkOption = Annotated[
    list[str] | None,
    typer.Option("--quirk", metavar="NAME[=off]", help="Switch a behaviour; may be repeated."),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", min=0, help="Where chance starts.")
]
UntilOption = Annotated[
    int | None,
    typer.Option("--until", metavar="LINE", min=1, help="Stop in front of this line."),
]


def options(
    profile: str | None, quirks: Sequence[str] | None, seed: int | None, until: int | None,
    *, check: str | None = None, trace: bool = False,
) -> Options:  # fmt: skip
    """Return the options of a run.

    Raises
    ------
    RmapError
        If a profile or a quirk has a name that there is not.
    """
    from rmap.mm.profile import UnknownQuirk
    from rmap.mm.profile import profile as make_profile
    from rmap.scenario.runner import Options

    switched = {}
    for text in quirks or ():
        name, _, value = text.partition("=")
        if value not in ("", "on", "off"):
            raise RmapError(f"--quirk {text}: write {name}, {name}=on or {name}=off")
        switched[name] = value != "off"
    try:
        make_profile(profile or "4.18", **switched)
    except UnknownQuirk as error:
        raise RmapError(str(error)) from None
    return Options(profile, seed, switched, check, trace, until)

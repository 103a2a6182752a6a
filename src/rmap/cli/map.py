# SPDX-License-Identifier: GPL-2.0-only
"""``rmap map``: physical memory as a picture."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmap.cli.common import (
    DebugOption,
    DumpOption,
    ImageOption,
    QuietOption,
    open_image,
    refuse_unless_writable,
    remark,
)
from rmap.errors import TargetError

if TYPE_CHECKING:
    from rmap.image import MemoryImage

EPILOG = """\
Examples:

\b
  rmap map -o memory.html                  both panels; point at a cell to see what it holds
  rmap map -o kinds.svg --by kind          only what each stretch is
  rmap map --image m.zip -o sharing.png --by sharing"""

_SUFFIXES = (".svg", ".png", ".html")


class By(StrEnum):
    """What ``--by`` takes."""

    KIND = "kind"
    SHARING = "sharing"


def command(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The picture: .svg, .png or .html."),
    ],
    by: Annotated[
        By | None,
        typer.Option(
            "--by", metavar="kind|sharing", help="Draw only this panel.", case_sensitive=False
        ),
    ] = None,
    image: ImageOption = None,
    dump: DumpOption = None,
    debug: DebugOption = None,
    quiet: QuietOption = False,
) -> int:
    """Draw physical memory: what each stretch is, and how widely it is shared."""
    if output.suffix.lower() not in _SUFFIXES:
        raise TargetError(f"{output}: name it .svg, .png or .html, for what it shall be")
    refuse_unless_writable(output)
    _draw(
        open_image(image, dump=dump, debug=debug, quiet=quiet),
        output,
        [by.value] if by else ["kind", "sharing"],
        quiet,
    )
    return 0


def _draw(image: MemoryImage, output: Path, layers: list[str], quiet: bool) -> None:
    from rmap.draw.html import to_html
    from rmap.draw.memory import describe, draw_memory
    from rmap.draw.png import to_png
    from rmap.draw.svg import to_svg
    from rmap.files import write_whole
    from rmap.query.physmap import physmap

    memory = physmap(image)
    scene, data = draw_memory(image, memory, layers)
    suffix = output.suffix.lower()
    if suffix == ".png":
        picture = to_png(scene)
    else:
        text = to_html(scene, data) if suffix == ".html" else to_svg(scene)
        picture = text.encode()
    write_whole(output, picture)
    remark(describe(memory), quiet=quiet)
    remark(f"Wrote {output}.", quiet=quiet)

# SPDX-License-Identifier: GPL-2.0-only
"""Memory that was on the move when its machine was stopped.

The guest cannot write down what its page tables hold in the midst of that. But each page that the
mover moves says itself whose it is and at which address, and its child shares them all. So in each
of the two page tables each of these addresses has to lead to a page that says so: through an entry
that maps it, or through a migration entry, which names the page that is being left. The processor
that moves may have been stopped in the midst of changing an entry: before the new one is written,
when that address leads nowhere, or after that, before the page is counted as mapped once less.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.packages import LabError
from lab.reduce import PAGE, Core, open_core
from rmap.errors import RmapError
from rmap.image import MemoryImage
from rmap.image.flags import Pte
from rmap.query.fsck import fsck
from rmap.source.dump import dump_image

_MARK = struct.Struct("<QQQ")
_MAGIC = 0x7061_675F_6D6F_7665
MOVED = 2048


@dataclass(frozen=True, slots=True)
class Movement:
    """How many entries map a page, are migration entries, are being changed; what is wrong."""

    present: int
    migrating: int
    between: int
    wrong: tuple[str, ...]


def movement(image: MemoryImage, core: Core) -> Movement:
    """Look at the memory of the mover and its child. Raises `LabError` if they are not there."""
    table = image.processes
    names = dict(zip(table["comm"].tolist(), table["pid"].tolist(), strict=True))
    if not {"mover", "moved"} <= names.keys():
        raise LabError("nothing moves in this dump (python -m lab --move)")
    present = migrating = between = 0
    wrong: list[str] = []
    for name in ("mover", "moved"):
        space = int(table["mm"][table["pid"].tolist().index(names[name])])
        marked = 0
        for address, frame, flags in _entries(image, space):
            moving = bool(flags & Pte.MIGRATION)
            mark = _MARK.unpack_from(core.page(frame))
            said = mark == (_MAGIC, names["mover"], address)
            marked += said
            present += said and not moving
            migrating += said and moving
            if moving and not said:
                wrong.append(f"{name}: {address:#x}: migration entry for frame {frame:#x}, "
                             f"which says {mark}")  # fmt: skip
        if marked == MOVED - 1:
            between += 1
        elif marked != MOVED:
            wrong.append(f"{name}: {marked} of {MOVED} pages are where they say that they are")
    between += _counted_too_often(image)
    if between > 1:
        wrong.append(f"{between} entries are being changed at once")
    return Movement(present, migrating, between, tuple(wrong))


def _counted_too_often(image: MemoryImage) -> int:
    """Sum over the pages that migration entries name: how many mappings are counted too many."""
    entries, pages = image.ptes, image.pages
    small = entries["order"] == 0
    moving = small & (entries["flags"] & np.uint32(Pte.MIGRATION) != 0)
    there = small & (entries["flags"] & np.uint32(Pte.PRESENT) != 0)
    frames = np.unique(entries["pfn"][moving])
    found = np.bincount(
        np.searchsorted(frames, entries["pfn"][there & np.isin(entries["pfn"], frames)]),
        minlength=len(frames),
    )
    counted = pages["mapcount"][np.searchsorted(pages["pfn"], frames)]
    return int(np.abs(counted - found).sum())


def _entries(image: MemoryImage, space: int) -> list[tuple[int, int, int]]:
    """Address, frame and flags of a space's entries that lead to small pages."""
    entries = image.ptes
    wanted = np.uint32(Pte.PRESENT | Pte.MIGRATION)
    rows = (entries["mm"] == space) & (entries["order"] == 0) & (entries["flags"] & wanted != 0)
    return list(
        zip(*(entries[name][rows].tolist() for name in ("address", "pfn", "flags")), strict=True)
    )


def main(words: Sequence[str] | None = None) -> int:
    """Look at one dump; returns 1 if a page is not where it should be, or fsck finds something."""
    parser = argparse.ArgumentParser(prog="python -m lab.movement", description=__doc__)
    parser.add_argument("dump", type=Path, help="vmcore.elf of python -m lab --move")
    given = parser.parse_args(words)
    try:
        image = dump_image(given.dump)
        found = movement(image, open_core(given.dump))
    except (LabError, RmapError, OSError) as error:
        print(f"lab.movement: {error}", file=sys.stderr)
        return 2
    lines = [*found.wrong]
    if not found.between:
        for result in fsck(image).results:
            lines += [f"fsck {result.name}: {one.what}" for one in result.outcome.findings]
    print("".join(f"  {line}\n" for line in lines), end="")
    print(f"{found.present} entries map a page that moves, {found.migrating} are migration entries")
    print(f"{found.between} are neither yet ({PAGE * MOVED >> 10} KiB, two processes)")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

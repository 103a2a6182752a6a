# SPDX-License-Identifier: GPL-2.0-only
"""The reduced dumps of the repository, unpacked (tests/data/dumps/README.md)."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

from lab.truth import Truth, read_truth

DATA = Path(__file__).parents[1] / "data" / "dumps"
#: A kernel with the old way of counting huge pages and a new one: struct page, struct folio.
SERIES = ("6.1", "6.12")


@dataclass(frozen=True)
class Reduced:
    """A dump, the files that `rmap` takes by ``--debug``, and the guest's own account."""

    series: str
    path: Path
    debug: tuple[Path, ...]
    truth: Truth

    @property
    def options(self) -> list[str]:
        """What a command of `rmap` is told to read it."""
        return ["--dump", str(self.path), *(f"--debug={one}" for one in self.debug)]


def unpack(series: str, directory: Path) -> Reduced:
    """Unpack the dump of a series into a directory."""
    source = DATA / series
    for name in ("vmcore", "types.btf"):
        (directory / name).write_bytes(lzma.decompress((source / f"{name}.xz").read_bytes()))
    debug = (directory / "types.btf", source / "symbols.json")
    return Reduced(series, directory / "vmcore", debug, read_truth(source / "truth.xz"))

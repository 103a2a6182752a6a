# SPDX-License-Identifier: GPL-2.0-only
"""Make a dump small: keep of it only what `rmap` reads, and of the kernel's types what it needs.

The dump is opened through a program that notes which pages are touched while everything is read.
Other pages are left out. Symbols and types, most of what a dump holds otherwise, are kept beside
it: a file of addresses, and a BTF section with the types that were asked for. `rmap` takes both by
``--debug``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drgn import Architecture, Platform, Program, Symbol

from lab.btftrim import trim
from lab.packages import LabError
from rmap.errors import RmapError
from rmap.source import no_progress
from rmap.source.dump.btf import Btf
from rmap.source.dump.image import tables
from rmap.source.dump.program import GLOBALS, attach_symbols, attach_types
from rmap.source.dump.reading import read

PAGE = 4096
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_NOTE = struct.Struct("<III")
_LOAD, _NOTES = 1, 4
_NO_ADDRESS = (1 << 64) - 1
_VMCOREINFO = b"VMCOREINFO"


@dataclass(frozen=True)
class Core:
    """An ELF dump in memory: VMCOREINFO, and segments as physical address, offset and size."""

    data: bytes
    vmcoreinfo: bytes
    segments: tuple[tuple[int, int, int], ...]

    def page(self, frame: int) -> bytes:
        """A page by its frame number. Raises `LabError` if it is not in the dump."""
        for physical, offset, size in self.segments:
            at = frame * PAGE - physical
            if 0 <= at < size:
                return self.data[offset + at : offset + at + PAGE]
        raise LabError(f"frame {frame:#x} is not in the dump")


def open_core(path: Path) -> Core:
    """Read an ELF dump as QEMU writes it. Raises `LabError` if it is none with a VMCOREINFO."""
    data = path.read_bytes()
    if not data.startswith(b"\x7fELF\x02\x01"):
        raise LabError(f"{path}: no ELF dump of a 64-bit machine")
    header = _HEADER.unpack_from(data)
    segments, info = [], b""
    for number in range(header[10]):
        kind, _, offset, _, physical, size, _, _ = _SEGMENT.unpack_from(
            data, header[5] + number * _SEGMENT.size
        )
        if kind == _LOAD:
            segments.append((physical, offset, size))
        elif kind == _NOTES:
            info = _note(data[offset : offset + size]) or info
    if not info:
        raise LabError(f"{path}: no VMCOREINFO in it (was qemu_fw_cfg loaded in the guest?)")
    return Core(data, info, tuple(segments))


def _note(data: bytes) -> bytes:
    """VMCOREINFO out of a segment of notes, empty if it is not there."""
    at = 0
    while at + _NOTE.size <= len(data):
        name_size, size, _ = _NOTE.unpack_from(data, at)
        name = data[at + _NOTE.size : at + _NOTE.size + name_size].rstrip(b"\0")
        start = at + _NOTE.size + (name_size + 3 & ~3)
        if name == _VMCOREINFO:
            return data[start : start + size].rstrip(b"\0")
        at = start + (size + 3 & ~3)
    return b""


class Tracer:
    """A program over a dump that notes which page frames are read from: `seen`."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.noting = False
        self.seen: set[int] = set()
        platform = Platform(Architecture.X86_64)
        self.program = Program(platform, vmcoreinfo=core.vmcoreinfo)
        self.program.set_linux_kernel_custom(core.vmcoreinfo, False)
        self.names: set[str] = set()
        for physical, offset, size in core.segments:
            self.program.add_memory_segment(physical, size, partial(self._read, physical, offset),
                                            True)  # fmt: skip

    def note_symbols(self) -> None:
        """From now on note which names are asked for."""

        def find(
            program: Program, name: str | None, address: int | None, one: bool
        ) -> list[Symbol]:
            if name is not None:
                self.names.add(name)
            return []  # the next finder knows it

        self.program.register_symbol_finder("lab", find, enable_index=0)

    def _read(
        self, base: int, start: int, address: int, count: int, offset: int, physical: bool
    ) -> bytes:
        if self.noting:
            at = base + offset
            self.seen.update(range(at // PAGE, (at + count - 1) // PAGE + 1))
        return self.core.data[start + offset : start + offset + count]


def write_core(path: Path, core: Core, pages: dict[int, bytes]) -> None:
    """Write an ELF dump of some pages.

    Its segments say that they have no virtual address: one of 0 would turn a read through NULL
    into one of physical memory.
    """
    runs: list[tuple[int, int]] = []
    for frame in sorted(pages):
        if runs and sum(runs[-1]) == frame:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((frame, 1))
    name = _VMCOREINFO + b"\0\0"
    note = _NOTE.pack(len(_VMCOREINFO) + 1, len(core.vmcoreinfo), 0) + name + core.vmcoreinfo
    note += b"\0" * (-len(note) % 4)
    at = _HEADER.size + _SEGMENT.size * (len(runs) + 1)
    heads = [_SEGMENT.pack(_NOTES, 0, at, 0, 0, len(note), len(note), 4)]
    at = at + len(note) + PAGE - 1 & -PAGE
    for frame, count in runs:
        size = count * PAGE
        heads.append(_SEGMENT.pack(_LOAD, 7, at, _NO_ADDRESS, frame * PAGE, size, size, PAGE))
        at += size
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = _HEADER.pack(elf, 4, 62, 1, 0, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size,
                          len(heads), 0, 0, 0)  # fmt: skip
    front = header + b"".join(heads) + note
    front += b"\0" * (-len(front) % PAGE)
    path.write_bytes(front + b"".join(pages[frame] for frame in sorted(pages)))


def reduce(path: Path, output: Path) -> list[Path]:
    """Write the small dump and what belongs to it into a directory; returns the files.

    Raises `LabError` or `RmapError` if the dump cannot be read.
    """
    core = open_core(path)
    tracer = Tracer(core)
    program = tracer.program
    attach_symbols(program, None)
    types = attach_types(program, None)
    tracer.noting = True
    tracer.note_symbols()
    tables(read(program, no_progress), 0)
    symbols = {}
    for name in sorted(tracer.names | GLOBALS.keys()):
        try:
            symbols[name] = program.symbol(name).address
        except LookupError:
            continue  # not in this kernel
    output.mkdir(parents=True, exist_ok=True)
    dump, btf, names = output / "vmcore", output / "types.btf", output / "symbols.json"
    write_core(dump, core, {frame: core.page(frame) for frame in tracer.seen})
    btf.write_bytes(trim(types.btf, set(types.made)))
    names.write_text(json.dumps(symbols, indent=1) + "\n", encoding="utf-8")
    return [dump, btf, names]


def compress(path: Path) -> Path:
    """Put a file into xz; the file itself is gone after that."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    packed = path.with_name(path.name + ".xz")
    packed.write_bytes(lzma.compress(path.read_bytes(), lzma.FORMAT_XZ, filters=filters))
    path.unlink()
    return packed


def check_types(path: Path) -> int:
    """How many types a trimmed file holds; raises ``BtfError`` if it is none."""
    return len(Btf(path.read_bytes()))


def main(words: Sequence[str] | None = None) -> int:
    """Reduce a dump that `lab` made, with the truth beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.reduce", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("made", metavar="DIR", type=Path, help="what python -m lab left")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True)
    given = parser.parse_args(words)
    try:
        dump, btf, names = reduce(given.made / "vmcore.elf", given.output)
        print(f"{check_types(btf)} types")
        truth = given.output / "truth"
        truth.write_bytes((given.made / "truth.log").read_bytes().replace(b"\r\n", b"\n"))
        for path in [*map(compress, (dump, btf, truth)), names]:
            print(f"{path.stat().st_size:8} {path}")
    except (LabError, RmapError, OSError) as error:
        print(f"lab.reduce: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""Commands on the reduced dumps: what they print, and what they say is missing."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from goldens import Golden

from rmap.cli.main import run
from rmap.image import MemoryImage
from rmap.query.kinds import Kind, page_kinds
from rmap.source.dump.segments import read_segments

from .reduced import Reduced

RMAP = [sys.executable, "-m", "rmap.cli.main"]
PAGE = 4096


def first_of(image: MemoryImage, kind: Kind, mapcount: int) -> int:
    """Of the frames of a kind that are mapped so often at least, one that is least often."""
    counts = image.pages["mapcount"]
    rows = np.flatnonzero((page_kinds(image) == kind) & (counts >= mapcount))
    return int(image.pages["pfn"][rows[np.argmin(counts[rows])]])


@pytest.mark.parametrize("suffix", ["txt", "json", "csv"])
def test_who_maps_pages_of_a_dump(
    reduced: Reduced, image: MemoryImage, golden: Golden, suffix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    targets = [
        f"pfn:{first_of(image, Kind.ANON, 2):#x}",
        f"pfn:{first_of(image, Kind.ANON_HUGE, 1):#x}",
        f"phys:{first_of(image, Kind.SHMEM, 2) * PAGE + 0x80:#x}",
    ]
    format = "table" if suffix == "txt" else suffix
    status = run(["who", *reduced.options, *targets, "--format", format])
    out, _ = capsys.readouterr()
    assert status == 0
    golden.check_same(f"who-dump-{reduced.series}.{suffix}", out)
    if suffix == "json":
        answer = json.loads(out)
        assert all(run["verdict"] == "agree" for run in answer["runs"])
        assert answer["missing"].keys() == {"pages", "tables", "objects"}


def test_a_dump_that_is_whole_has_no_findings(
    reduced: Reduced, golden: Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["fsck", *reduced.options])
    out, _ = capsys.readouterr()
    assert status == 0
    golden.check_same(f"fsck-dump-{reduced.series}.txt", out)


def test_a_text_in_the_dump_is_found_in_its_process(
    reduced: Reduced, image: MemoryImage, tmp_path: Path
) -> None:
    """By physical address and by its place in the file, the answer is the same."""
    segments = read_segments(reduced.path)
    pfn = np.uint64(first_of(image, Kind.ANON, 2))
    physical = int(pfn) * PAGE + 0x123
    held = (segments.physical <= physical) & (physical < segments.physical + segments.size)
    lines = [f"{physical:7x} text\n"]
    options = [["-"]]
    if held.any():
        row = int(np.flatnonzero(held)[0])
        offset = physical - int(segments.physical[row]) + int(segments.offset[row])
        lines.append(f"{offset:7x} text\n")
        options.append(["-", "--offsets", "dump"])
    answers = []
    for line, more in zip(lines, options, strict=True):
        command = [*RMAP, "who", *reduced.options, "--strings", "x", "--format", "json", *more]
        result = subprocess.run(command, input=line.encode(), capture_output=True, check=True)
        (text,) = json.loads(result.stdout)["texts"]
        answers.append((text["physical"], text["kind"], text["mappings"]))
    assert answers[0][0] == hex(physical)
    assert len(answers[0][2]) >= 2
    assert all(one == answers[0] for one in answers)


def tables_of(reduced: Reduced) -> list[int]:
    """The physical addresses of the lowest page tables."""
    from rmap.source.dump.facts import Facts
    from rmap.source.dump.program import open_dump
    from rmap.source.dump.spaces import read_page_tables, read_spaces
    from rmap.source.dump.tasks import read_tasks

    program = open_dump(reduced.path, reduced.debug)
    facts = Facts(program)
    spaces = read_spaces(program, read_tasks(program, facts).mms())
    entries = read_page_tables(program, facts, spaces)
    small = [one.table[one.order == 0] for one in entries]
    return [int(at) for at in np.unique(np.concatenate(small)).tolist()]


def without(reduced: Reduced, pages: list[int]) -> bytes:
    """The dump without some pages: their addresses are those of no memory."""
    data = bytearray(reduced.path.read_bytes())
    table, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    kept = []
    for number in range(count):
        kind, flags, offset, virtual, physical, size, _, align = struct.unpack_from(
            "<IIQQQQQQ", data, table + 56 * number
        )
        if kind != 1:
            kept.append((kind, flags, offset, virtual, physical, size, size, align))
            continue
        gone = sorted(page for page in pages if physical <= page < physical + size)
        start = physical
        for end in [*gone, physical + size]:
            if end > start:
                kept.append((1, flags, offset + start - physical, virtual, start, end - start,
                             end - start, align))  # fmt: skip
            start = end + PAGE
    struct.pack_into("<Q", data, 32, len(data))
    struct.pack_into("<H", data, 56, len(kept))
    return bytes(data) + b"".join(struct.pack("<IIQQQQQQ", *one) for one in kept)


def test_what_a_torn_dump_lacks_is_said(
    reduced: Reduced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tenth of the page tables is gone: there is an answer, and it says what is not in it."""
    torn = tmp_path / "vmcore"
    torn.write_bytes(without(reduced, tables_of(reduced)[::10]))
    status = run(["who", "--dump", str(torn), *reduced.options[2:], "pfn:0+1024", "--format",
                  "json"])  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 0
    assert json.loads(out)["missing"]["tables"] > 0
    assert "page tables" in err
    assert err.startswith("rmap: not in the dump: ")


def test_a_vmlinux_of_another_kernel(
    reduced: Reduced, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "vmlinux"
    other.write_bytes(Path(sys.executable).read_bytes()[: 1 << 20])
    status = run(["who", "--dump", str(reduced.path), "--debug", str(other), "1"])
    out, err = capfd.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "name its vmlinux with --debug" in err

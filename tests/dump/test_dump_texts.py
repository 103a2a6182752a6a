# SPDX-License-Identifier: GPL-2.0-only
"""Texts that strings(1) found: whose memory each is in."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from goldens import Golden
from hypothesis import given
from hypothesis import strategies as st
from machines import LIBC, small_machine

from rmap.errors import ImageError, TargetError
from rmap.image import read_image, write_image
from rmap.query.spots import NO_MEMORY, Spots
from rmap.source.dump.segments import Segments, read_segments

RMAP = [sys.executable, "-m", "rmap.cli.main"]
PAGE = 4096


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small machine as a file."""
    path = tmp_path_factory.mktemp("texts") / "small.zip"
    write_image(small_machine(), path)
    return str(path)


def who(image: str, lines: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    """Ask about the texts of some lines."""
    command = [*RMAP, "who", "--image", image, "-", *more]
    return subprocess.run(command, input=lines, capture_output=True, check=False)


def as_strings(offsets: list[int], radix: str) -> bytes:
    """What strings -t prints, a text for each offset."""
    return b"".join(f"{at:7{radix}} text {n}\n".encode() for n, at in enumerate(offsets))


OFFSETS = [0x10_010, 0x11_123, 0x12_000, 0x40_123, 0x41_000, 0x42_FFF, 0x999_0000]


@pytest.mark.parametrize(("format", "suffix"), [("table", "txt"), ("json", "json"), ("csv", "csv")])
def test_each_text_is_told_whose_it_is(
    image: str, golden: Golden, format: str, suffix: str
) -> None:
    result = who(image, as_strings(OFFSETS, "x"), "--format", format, "-q")
    assert (result.returncode, result.stderr) == (0, b"")
    golden.check_same(f"who-texts.{suffix}", result.stdout.decode())
    if format == "json":
        texts = json.loads(result.stdout)["texts"]
        assert [text["text"] for text in texts] == [f"text {n}" for n in range(len(OFFSETS))]
        assert [int(text["physical"], 16) for text in texts] == OFFSETS


def test_the_address_is_that_of_the_byte(image: str) -> None:
    """What is said of a text in a page is what `who` says of the page, and how far into it."""
    read = read_image(Path(image))
    pfn = int(read.ptes["pfn"][0])
    line = as_strings([pfn * PAGE + 0x123], "x")
    result = who(image, line, "--strings", "x", "--format", "json")
    (text,) = json.loads(result.stdout)["texts"]
    plain = subprocess.run(
        [*RMAP, "who", "--image", image, f"pfn:{pfn:#x}", "--format", "json"],
        capture_output=True, check=True,
    )  # fmt: skip
    (run,) = json.loads(plain.stdout)["runs"]
    told = [(one["pids"], int(one["address"], 16)) for one in text["mappings"]]
    expected = [(one["pids"], int(one["address"], 16) + 0x123) for one in run["mappings"]]
    assert told == expected
    assert told


def test_decimal_and_hexadecimal_are_told_apart(image: str) -> None:
    decimal = who(image, as_strings(OFFSETS, "d"), "-q")
    hexadecimal = who(image, as_strings(OFFSETS, "x"), "-q")
    octal = who(image, as_strings(OFFSETS, "o"), "-q", "--strings", "o")

    def notes(result: subprocess.CompletedProcess[bytes]) -> list[bytes]:
        return [line.split(b"\t", 1)[1] for line in result.stdout.splitlines()]

    assert notes(decimal) == notes(hexadecimal) == notes(octal)
    assert b"decimal; if they are not: --strings x" in who(image, as_strings([16], "d")).stderr


def test_texts_pass_through_byte_by_byte(image: str) -> None:
    wild = b"  10010 \xff\x1b[31m\ttab \r\n  11000  leading\n\nno offset here\n  12000 last"
    result = who(image, wild, "--strings", "x")
    kept = [line.split(b"\t", 2)[-1] for line in result.stdout.split(b"\n")]
    assert kept == [b"\xff\x1b[31m\ttab \r", b" leading", b"", b"no offset here", b"last"]
    assert b"2 lines have no offset" in result.stderr


def test_a_letter_in_a_decimal_offset_is_refused(image: str) -> None:
    result = who(image, b"  10010 a\n  1a010 b\n", "--strings", "d")
    assert result.returncode == 2
    assert b"line 2: 1a010 is no decimal number" in result.stderr


def test_other_targets_stand_apart(image: str) -> None:
    result = who(image, as_strings([16], "d"), "pfn:1")
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"apart" in result.stderr
    command = [*RMAP, "who", "--image", image, "pfn:1", "--strings", "d"]
    result = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert b"write - for it" in result.stderr


def test_a_list_of_targets_stays_a_list(image: str) -> None:
    """Also of such whose names look a little like offsets."""
    for targets in (b"pfn:0x10\n100\n", b"100\n", b"       100 \n", b"# 1000000 pages\n100\n"):
        result = who(image, targets)
        assert result.stdout.startswith(b"TARGET"), targets


def test_lines_of_any_length(image: str) -> None:
    """A line of megabytes is passed on in pieces, and the next one is understood again."""
    long = b"x" * (3 << 20)
    result = who(image, b"  10010 " + long + b"\n  11000 next\n", "--strings", "x")
    first, second, _ = result.stdout.split(b"\n")
    assert first.endswith(long)
    assert second.endswith(b"\tnext")
    assert second.startswith(b"  11000\t")


def test_many_lines_come_in_batches(image: str) -> None:
    count = 20_000
    lines = b"".join(b"%7x text\n" % (0x10_000 + at) for at in range(count))
    result = who(image, lines, "-q")
    assert result.stdout.count(b"\n") == count
    assert all(line.endswith(b"\ttext") for line in result.stdout.splitlines())


def test_memory_that_is_not_there() -> None:
    spots = Spots(small_machine()).explain(np.array([0x10, 0xFFFF_FFFF], "u8"))
    assert [spot.kind == NO_MEMORY for spot in spots] == [False, True]
    assert spots[0].path == LIBC or spots[0].mappings


# Offsets of the dump itself.


def elf(loads: list[tuple[int, int, int]]) -> bytes:
    """An ELF file whose program headers are these: offset, size, physical address."""
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", identity, 4, 62, 1, 0, 64, 0, 0, 64, 56, len(loads),
                         0, 0, 0)  # fmt: skip
    entries = [
        struct.pack("<IIQQQQQQ", 1, 7, at, 0, address, size, size, 0) for at, size, address in loads
    ]
    return header + b"".join(entries)


def test_offsets_of_a_dump_are_looked_up_in_its_headers(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(elf([(0x3000, 0x1000, 0x10_0000), (0x1000, 0x2000, 0x5000)]))
    segments = read_segments(path)
    asked = np.array([0, 0x1000, 0x2FFF, 0x3000, 0x3FFF, 0x4000], "u8")
    physical, there = segments.addresses(asked)
    assert there.tolist() == [False, True, True, True, True, False]
    assert physical[there].tolist() == [0x5000, 0x6FFF, 0x10_0000, 0x10_0FFF]


def test_offsets_need_a_dump_that_is_memory(tmp_path: Path, image: str) -> None:
    compressed = tmp_path / "vmcore"
    compressed.write_bytes(b"KDUMP   " + bytes(4096))
    with pytest.raises(TargetError, match="no ELF file"):
        read_segments(compressed)
    compressed.write_bytes(elf([(0, 1, 2)])[:70])
    with pytest.raises(ImageError, match="cut short"):
        read_segments(compressed)
    result = who(image, as_strings([16], "d"), "--offsets", "dump")
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"--dump" in result.stderr


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=8),
    st.lists(st.integers(0, 500), max_size=20),
)
def test_every_byte_of_a_segment_is_found_and_no_other(
    sizes: list[tuple[int, int]], asked: list[int]
) -> None:
    at, ranges = 0, []
    for size, gap in sizes:
        at += gap
        ranges.append((at, size, 1000 + 3 * at))
        at += size
    columns = np.array(ranges, "u8")
    segments = Segments(columns[:, 0], columns[:, 1], columns[:, 2])
    physical, there = segments.addresses(np.array(asked, "u8"))
    for offset, address, is_there in zip(asked, physical.tolist(), there.tolist(), strict=True):
        held = [p + offset - o for o, s, p in ranges if o <= offset < o + s]
        assert held == ([address] if is_there else [])

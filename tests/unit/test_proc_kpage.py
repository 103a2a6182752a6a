# SPDX-License-Identifier: GPL-2.0-only
"""RAM ranges, and the kernel's view of frames read from its two files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.errors import MissingFeatureError
from rmap.image.flags import Kpf
from rmap.source.proc import kpage
from rmap.source.proc.kpage import (
    GAP,
    KernelPages,
    merged,
    read_frames,
    read_ranges,
    runs_of,
)
from rmap.source.proc.ram import parse_iomem, parse_zoneinfo, united

FRAMES = 5000
frame_sets = st.sets(st.integers(0, FRAMES - 1), max_size=200)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in place of kpagecount (3 times the frame) and kpageflags (7 times)."""
    place = tmp_path_factory.mktemp("proc")
    frames = np.arange(FRAMES, dtype=np.uint64)
    (place / "kpagecount").write_bytes((frames * np.uint64(3)).tobytes())
    (place / "kpageflags").write_bytes((frames * np.uint64(7)).tobytes())
    return place


@pytest.fixture(autouse=True)
def files(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpage, "KPAGECOUNT", str(kernel / "kpagecount"))
    monkeypatch.setattr(kpage, "KPAGEFLAGS", str(kernel / "kpageflags"))


def array(frames: set[int]) -> np.ndarray:
    return np.array(sorted(frames), np.uint64)


def expect_pages(pages: KernelPages, frames: set[int]) -> None:
    assert pages.pfns.tolist() == sorted(frames)
    assert pages.counts.tolist() == [3 * frame for frame in sorted(frames)]
    assert pages.flags.tolist() == [7 * frame for frame in sorted(frames)]


def test_frames_are_read_in_runs_with_short_gaps() -> None:
    @given(frame_sets)
    def check_frames(frames: set[int]) -> None:
        runs = runs_of(array(frames))
        covered = {frame for first, last in runs for frame in range(first, last)}
        assert frames <= covered
        assert all(second[0] - first[1] > GAP for first, second in itertools.pairwise(runs))
        expect_pages(read_frames(array(frames)), frames)

    check_frames()


def test_more_frames_are_read_where_some_are_missing() -> None:
    @given(frame_sets, frame_sets)
    def check_merged(first: set[int], second: set[int]) -> None:
        expect_pages(merged(read_frames(array(first)), array(second)), first | second)

    check_merged()


def test_long_ranges_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpage, "_CHUNK", 7)
    pages = read_ranges([(3, 100), (200, 203)])
    expect_pages(pages, {*range(3, 100), *range(200, 203)})


def test_frames_beyond_the_end_of_memory_are_no_pages() -> None:
    pages = read_ranges([(FRAMES - 2, FRAMES + 2)])
    assert pages.counts.tolist() == [3 * FRAMES - 6, 3 * FRAMES - 3, 0, 0]
    assert pages.flags[2:].tolist() == [Kpf.NOPAGE, Kpf.NOPAGE]


@given(frame_sets, st.lists(st.integers(0, 1 << 54), max_size=20), st.booleans())
def test_a_frame_is_found_at_its_row_or_not_at_all(
    frames: set[int], others: list[int], sparse: bool
) -> None:
    if sparse:  # frames of a device, far beyond: no table of that span is made
        frames = frames | {1 << 50}
    pages = KernelPages(
        array(frames), np.zeros(len(frames), np.int32), np.ones(len(frames), np.uint64)
    )
    asked = [*sorted(frames)[::2], *others]
    order = {frame: row for row, frame in enumerate(sorted(frames))}
    assert pages.find(np.array(asked, np.uint64)).tolist() == [order.get(f, -1) for f in asked]
    flags = [1 if f in order else int(Kpf.NOPAGE) for f in asked]
    assert pages.flags_of(np.array(asked, np.uint64)).tolist() == flags


def test_a_kernel_without_the_files_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpage, "KPAGECOUNT", "/proc/no-such-file")
    with pytest.raises(MissingFeatureError, match="CONFIG_PROC_PAGE_MONITOR"):
        read_ranges([(0, 1)])


def test_ram_is_what_iomem_calls_so_at_any_depth() -> None:
    text = (
        "00000000-00000fff : Reserved\n"
        "00001000-0009fbff : System RAM\n"
        "00100000-7fffffff : System RAM\n"
        "  01000000-022090c7 : Kernel code\n"
        "100000000-1ffffffff : dax0.0\n"
        "  140000000-17fffffff : System RAM (kmem)\n"
        "180000000-1bfffffff : System RAM\n"
    )
    assert parse_iomem(text) == [(1, 0x9F), (0x100, 0x80000), (0x140000, 0x1C0000)]


def test_iomem_without_addresses_tells_nothing_and_zones_do() -> None:
    assert parse_iomem("00000000-00000000 : System RAM\n") == []
    zones = (
        "Node 0, zone      DMA\n  pages free 1\n        spanned  4095\n        present  3998\n"
        "  start_pfn:           1\n"
        "Node 0, zone    DMA32\n        spanned  1044480\n  start_pfn:           4096\n"
        "Node 0, zone  Movable\n        spanned  0\n  start_pfn:           0\n"
    )
    assert parse_zoneinfo(zones) == [(1, 1048576)]


@given(st.text(alphabet="0123456789abcdef- :SystemRAMNodezonespanned\n", max_size=200))
def test_arbitrary_text_gives_ranges_or_none(text: str) -> None:
    for ranges in (parse_iomem(text), parse_zoneinfo(text)):
        assert all(first < last for first, last in ranges)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8))
def test_united_ranges_hold_the_same_frames(some: list[tuple[int, int]]) -> None:
    ranges = [(first, first + size) for first, size in some]
    result = united(ranges)
    covered = [frame for first, last in result for frame in range(first, last)]
    assert covered == sorted({frame for first, last in ranges for frame in range(first, last)})
    assert all(a[1] < b[0] for a, b in itertools.pairwise(result))

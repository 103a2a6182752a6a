# SPDX-License-Identifier: GPL-2.0-only
"""Words of pagemap: what they mean, which of them are one huge entry, and reading many."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.image.flags import Pte
from rmap.source.proc import pagemap as pagemap_module
from rmap.source.proc.entries import (
    PAGE_SHIFT,
    PMD_ORDER,
    PMD_PAGES,
    Entries,
    decode,
    fold,
    fold_candidates,
    frames_of,
)
from rmap.source.proc.files import Gone
from rmap.source.proc.pagemap import JOIN_PAGES, Pagemap, batches, join_ranges
from rmap.source.proc.scan import REGION
from rmap.source.proc.swaptypes import flags_of_types

PRESENT, SWAPPED, FILE, GUARD, UFFD_WP, ONCE = (1 << bit for bit in (63, 62, 61, 58, 57, 56))
PAGE = mmap.PAGESIZE


def test_present_words_have_their_bits_and_frame() -> None:
    words = np.array([PRESENT | FILE | ONCE | 0x1234, PRESENT | UFFD_WP | (1 << 55) - 1], np.uint64)
    frames, flags = decode(words)
    assert frames.tolist() == [0x1234, (1 << 55) - 1]
    assert Pte(int(flags[0])) == Pte.PRESENT | Pte.FILE | Pte.EXCLUSIVE
    assert Pte(int(flags[1])) == Pte.PRESENT | Pte.UFFD_WP


def test_absent_words_are_swapped_moving_poisoned_or_markers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = b"CONFIG_DEVICE_PRIVATE=y\nCONFIG_MIGRATION=y\nCONFIG_MEMORY_FAILURE=y\n"
    table = flags_of_types("6.8.0", every)
    monkeypatch.setattr("rmap.source.proc.entries._flags_of_type", lambda: table)
    types = [0, 22, 23, 24, 26, 27, 30, 31]
    words = [SWAPPED | 9 << 5 | kind for kind in types] + [SWAPPED | GUARD | 31]
    frames, flags = decode(np.array(words, np.uint64))

    meaning = [Pte.SWAP] * 2 + [Pte.HWPOISON] + [Pte.MIGRATION] * 2 + [Pte.DEVICE] * 2
    assert [Pte(int(f)) for f in flags] == [*meaning, Pte(0), Pte.GUARD]
    assert frames.tolist() == [9 << 5, 9 << 5 | 22, 9, 9, 9, 9, 9, 0, 0]


@pytest.mark.parametrize(
    ("release", "config", "swap_areas"),
    [
        ("6.8", None, 23),
        ("6.15-rc1", None, 24),
        ("6.15", b"CONFIG_MIGRATION=y\n", 28),
        ("6.15", b"", 31),
        ("weird", b"CONFIG_MEMORY_FAILURE=y\n", 30),
        ("6.1.0", b"CONFIG_MIGRATION=y\nCONFIG_PTE_MARKER=y\n", 27),
        ("5.19", b"CONFIG_MIGRATION=y\n", 28),
        ("5.10", b"CONFIG_MIGRATION=y\nCONFIG_DEVICE_PRIVATE=y\n", 28),
    ],
)
def test_the_configuration_says_how_many_types_are_swap(
    release: str, config: bytes | None, swap_areas: int
) -> None:
    table = flags_of_types(release, config)
    assert np.count_nonzero(table == np.uint32(Pte.SWAP)) == swap_areas
    assert (table[:swap_areas] == np.uint32(Pte.SWAP)).all()


def block(page: int, frame: int, count: int = PMD_PAGES, bits: int = PRESENT) -> Entries:
    """Entries of consecutive pages and frames."""
    steps = np.arange(count, dtype=np.uint64)
    return Entries(
        (np.uint64(page) + steps) << np.uint64(PAGE_SHIFT),
        (np.uint64(frame) + steps) | np.uint64(bits),
        np.zeros(count, np.uint8),
    )


def joined(*parts: Entries) -> Entries:
    return Entries(
        np.concatenate([part.addresses for part in parts]),
        np.concatenate([part.words for part in parts]),
        np.concatenate([part.orders for part in parts]),
    )


def naive_candidates(entries: Entries) -> list[int]:
    found = []
    pages = (entries.addresses >> np.uint64(PAGE_SHIFT)).tolist()
    words = entries.words.tolist()
    for head, page in enumerate(pages):
        frame = words[head] & (1 << 55) - 1
        if page % PMD_PAGES or frame % PMD_PAGES:
            continue
        wanted = [(page + i, frame + i, True) for i in range(PMD_PAGES)]
        here = zip(pages[head : head + PMD_PAGES], words[head : head + PMD_PAGES], strict=True)
        if [(p, w & (1 << 55) - 1, bool(w & PRESENT)) for p, w in here] == wanted:
            found.append(head)
    return found


pieces = st.builds(
    lambda slot, frame, count, bits, hole: (slot, frame, count, bits, hole),
    st.integers(0, 1),  # pages off the alignment
    st.sampled_from([PMD_PAGES, 2 * PMD_PAGES, 3 * PMD_PAGES + 1]),
    st.sampled_from([PMD_PAGES, PMD_PAGES - 1, 2 * PMD_PAGES + 3, 5]),
    st.sampled_from([PRESENT, PRESENT | ONCE, SWAPPED]),
    st.integers(0, PMD_PAGES - 1),  # where a frame is another one, in every third piece
)


@given(st.lists(pieces, max_size=5))
def test_blocks_that_a_pmd_could_hold_are_those_a_naive_search_finds(
    some: list[tuple[int, int, int, int, int]],
) -> None:
    parts = []
    for number, (off, frame, count, bits, hole) in enumerate(some):
        part = block(8 * number * PMD_PAGES + off, frame, count, bits)
        if hole % 3 == 0 and hole < count:
            part.words[hole] ^= np.uint64(1 << 30)
        parts.append(part)
    entries = joined(*parts) if parts else block(0, 0, 0)

    heads = fold_candidates(entries.addresses, entries.words)
    assert heads.tolist() == naive_candidates(entries)
    for chosen in (heads, heads[::2], heads[:0]):
        folded = fold(entries, chosen)
        assert folded.orders.tolist().count(PMD_ORDER) == len(chosen)
        assert len(folded) == len(entries) - len(chosen) * (PMD_PAGES - 1)
        assert sorted(frames_of(folded).tolist()) == sorted(frames_of(entries).tolist())


def test_a_block_is_mapped_once_if_all_its_pages_are() -> None:
    whole = block(0, 0, bits=PRESENT | ONCE)
    partly = block(PMD_PAGES, PMD_PAGES, bits=PRESENT | ONCE)
    partly.words[77] ^= np.uint64(ONCE)
    folded = fold(joined(whole, partly), np.array([0, PMD_PAGES]))
    _, flags = decode(folded.words)
    assert [bool(f & Pte.EXCLUSIVE) for f in flags.tolist()] == [True, False]
    assert folded.addresses.tolist() == [0, PMD_PAGES << PAGE_SHIFT]


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 3000)), max_size=8),
    st.integers(1, 5000),
)
def test_batches_hold_every_page_once_in_order(steps: list[tuple[int, int]], limit: int) -> None:
    ranges, at = [], 0
    for gap, size in steps:
        ranges.append((at + gap, at + gap + size))
        at += gap + size
    done = batches(ranges, limit)
    assert all(sum(last - first for first, last in batch) <= limit for batch in done)
    pages = [page for batch in done for first, last in batch for page in range(first, last)]
    assert pages == [page for first, last in ranges for page in range(first, last)]


def test_only_short_holes_are_read_along() -> None:
    near, far = JOIN_PAGES * PAGE, (JOIN_PAGES + 1) * PAGE
    assert join_ranges([(0, PAGE), (PAGE + near, 2 * PAGE + near)]) == [(0, JOIN_PAGES + 2)]
    assert len(join_ranges([(0, PAGE), (PAGE + far, 2 * PAGE + far)])) == 2


@given(st.dictionaries(st.integers(0, 400), st.sampled_from([0, 1 << 55, PRESENT | 5, SWAPPED])))
def test_a_read_finds_every_word_that_says_something(words: dict[int, int]) -> None:
    table = np.zeros(1 << 12, np.uint64)
    for page, word in words.items():
        table[3 * page] = word
    wanted = {p: w for p, w in enumerate(table.tolist()) if w >> 58}
    with MappedFile(table.tobytes()) as reader:
        found = reader.read(
            [(0, 100 * PAGE), (150 * PAGE, 1000 * PAGE), (1000 * PAGE, 1300 * PAGE)]
        )
    pages = (found.addresses >> np.uint64(PAGE_SHIFT)).tolist()
    assert dict(zip(pages, found.words.tolist(), strict=True)) == wanted


class MappedFile(Pagemap):
    """A reader of a file in place of a pagemap, with a buffer that is soon full."""

    def __init__(self, content: bytes) -> None:
        self._buffer = np.empty(37, np.uint64)
        self._fd = os.memfd_create("pagemap")
        os.write(self._fd, content)


def test_a_pagemap_that_ends_is_that_of_a_process_that_has_exited() -> None:
    with MappedFile(bytes(80)) as reader, pytest.raises(Gone):
        reader.read([(0, 11 * PAGE)])


def test_a_kernel_without_the_scan_is_read_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pagemap, "can_scan", True)
    monkeypatch.setattr(pagemap_module, "SCAN_PAGES", 64)
    table = np.zeros(512, np.uint64)
    table[[3, 300]] = PRESENT | 7
    with MappedFile(table.tobytes()) as reader:  # an ordinary file does not know the ioctl either
        found = reader.read([(0, 512 * PAGE)])
    assert (found.addresses // np.uint64(PAGE)).tolist() == [3, 300]
    assert not Pagemap.can_scan


@pytest.mark.live
def test_scanned_or_not_the_same_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with mmap.mmap(-1, 2048 * PAGE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        touched = [0, 1, 700, 1500, 2047]
        for page in touched:
            memory[page * PAGE] = 1
        start = int(np.frombuffer(memory, np.uint8).ctypes.data)
        ranges = [(start, start + 2048 * PAGE)]
        with Pagemap(os.getpid()) as reader:
            plain = reader.read(ranges)
            monkeypatch.setattr(pagemap_module, "SCAN_PAGES", 16)
            scanned = reader.read(ranges)
    assert ((plain.addresses - np.uint64(start)) // np.uint64(PAGE)).tolist() == touched
    assert plain.addresses.tolist() == scanned.addresses.tolist()
    assert plain.words.tolist() == scanned.words.tolist()


@pytest.mark.parametrize("huge", [[], [0], [0, 40]])
def test_only_what_the_kernel_says_a_pmd_maps_is_folded(
    monkeypatch: pytest.MonkeyPatch, huge: list[int]
) -> None:
    monkeypatch.setattr(Pagemap, "can_scan", True)
    entries = joined(block(0, 0), block(40 * PMD_PAGES, 8 * PMD_PAGES))

    def scan(fd: int, start: int, end: int, categories: int) -> np.ndarray:
        size = PMD_PAGES * PAGE
        found = [(n * size, (n + 1) * size, categories) for n in huge if start <= n * size < end]
        return np.array(found, REGION)

    monkeypatch.setattr(pagemap_module, "scan", scan)
    with MappedFile(b"") as reader:
        folded = reader.fold_huge(entries)
        alone = block(1, 1)
        assert reader.fold_huge(alone) is alone  # none of it could be
    blocks = (folded.addresses[folded.orders > 0] >> np.uint64(PAGE_SHIFT)) // np.uint64(PMD_PAGES)
    assert blocks.tolist() == huge
    assert len(folded) == 2 * PMD_PAGES - len(huge) * (PMD_PAGES - 1)


def test_the_files_of_a_process_that_never_was_are_gone() -> None:
    never = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    with pytest.raises(Gone):
        Pagemap(never)

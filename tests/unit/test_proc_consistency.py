# SPDX-License-Identifier: GPL-2.0-only
"""Two passes compared: whatever differs is changed, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.image.flags import Kpf
from rmap.source.proc import consistency
from rmap.source.proc.consistency import Changes, unsettled
from rmap.source.proc.contents import Contents, Space
from rmap.source.proc.entries import PAGE_SHIFT, Entries
from rmap.source.proc.kpage import KernelPages
from rmap.source.proc.survey import Process

PRESENT, SWAPPED, FILE, ONCE = (1 << bit for bit in (63, 62, 61, 56))

#: An address space as a test writes it: the word at each page number.
Words = dict[int, int]
words = st.dictionaries(
    st.integers(0, 30),
    st.one_of(
        st.builds(
            lambda frame, bits: PRESENT | frame | bits,
            st.integers(1, 9),
            st.sampled_from([0, ONCE]),
        ),
        st.builds(lambda slot: SWAPPED | slot, st.integers(0, 9)),
    ),
)
machines = st.dictionaries(st.integers(1, 5), words)


def entries_of(space: Words) -> Entries:
    pages = sorted(space)
    return Entries(
        np.array(pages, np.uint64) << np.uint64(PAGE_SHIFT),
        np.array([space[page] for page in pages], np.uint64),
        np.zeros(len(pages), np.uint8),
    )


def present_frames(some: Iterable[int]) -> set[int]:
    return {word & (1 << 55) - 1 for word in some if word & PRESENT}


def naive_changes(before: dict[int, Words], after: dict[int, Words]) -> set[int]:
    frames: set[int] = set()
    for pid in before.keys() | after.keys():
        old, new = before.get(pid), after.get(pid)
        if old is None or new is None:
            frames |= present_frames((old or new or {}).values())
            continue
        for page in old.keys() | new.keys():
            if old.get(page) != new.get(page):
                frames |= present_frames([old.get(page, 0), new.get(page, 0)])
    return frames


@given(machines, machines, st.data())
def test_frames_of_all_that_differs_are_changed(
    before: dict[int, Words], after: dict[int, Words], data: st.DataObject
) -> None:
    for pid in data.draw(st.sets(st.sampled_from(sorted(before) or [0]))):
        if pid in before:
            after[pid] = dict(before[pid])  # most of a machine stands still
    changes = Changes((pid, entries_of(space)) for pid, space in before.items())
    for pid, space in after.items():
        changes.compare(pid, entries_of(space))
    assert set(changes.frames().tolist()) == naive_changes(before, after)


def test_a_changed_number_of_mappings_elsewhere_is_seen() -> None:
    # Another process forked: our entry is the same, but for the bit "mapped exactly once".
    changes = Changes([(1, entries_of({5: PRESENT | ONCE | 8, 6: PRESENT | ONCE | 9}))])
    changes.compare(1, entries_of({5: PRESENT | 8, 6: PRESENT | ONCE | 9}))
    assert changes.frames().tolist() == [8]


def space_of(pid: int, space: Words) -> Space:
    return Space([Process(pid)], Contents(b"", entries_of(space)))


def kernel_pages(counts: dict[int, int], flags: int = 0) -> KernelPages:
    frames = sorted(counts)
    return KernelPages(
        np.array(frames, np.uint64),
        np.array([counts[frame] for frame in frames], np.int32),
        np.full(len(frames), flags, np.uint64),
    )


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[int, int], dict[int, int | None]]:
    """The kernel's counts, and processes' page faults, at the second look."""
    counts: dict[int, int] = {}
    faults: dict[int, int | None] = {}

    def read_frames(pfns: np.ndarray) -> KernelPages:
        return kernel_pages({frame: counts[frame] for frame in pfns.tolist()})

    monkeypatch.setattr(consistency, "read_frames", read_frames)
    monkeypatch.setattr(consistency, "faults_of", faults.get)
    return counts, faults


Later = tuple[dict[int, int], dict[int, int | None]]
NONE = np.empty(0, np.uint64)


def test_a_steady_excess_of_quiet_processes_is_a_finding(later: Later) -> None:
    counts, faults = later
    counts[8] = 1
    faults.update({1: 70, 2: 30})
    spaces = [space_of(1, {5: PRESENT | 8}), space_of(2, {5: PRESENT | 8, 6: PRESENT | 9})]
    found = unsettled(spaces, kernel_pages({8: 1, 9: 1}), NONE, {1: 70, 2: 30})
    assert found.tolist() == []


def test_an_excess_that_is_gone_at_the_second_look_was_a_change(later: Later) -> None:
    counts, faults = later
    counts[8] = 2
    faults.update({1: 70, 2: 30})
    spaces = [space_of(1, {5: PRESENT | 8}), space_of(2, {5: PRESENT | 8})]
    assert unsettled(spaces, kernel_pages({8: 1}), NONE, {1: 70, 2: 30}).tolist() == [8]


@pytest.mark.parametrize("now", [31, None])
def test_a_process_that_faulted_or_went_may_have_put_an_entry_back(
    later: Later, now: int | None
) -> None:
    counts, faults = later
    counts.update({8: 1, 7: 0})
    faults.update({1: 70, 2: now})
    spaces = [space_of(1, {5: PRESENT | 8, 6: PRESENT | 7}), space_of(2, {5: PRESENT | 8})]
    found = unsettled(spaces, kernel_pages({7: 0, 8: 1}), NONE, {1: 70, 2: 30})
    assert found.tolist() == [8]  # frame 7 is mapped by the quiet one only: it stays a finding


def test_what_the_kernel_does_not_count_and_known_changes_need_no_second_look(later: Later) -> None:
    spaces = [space_of(1, {5: PRESENT | 8, 6: PRESENT | 1 << 40})]
    zero = kernel_pages({8: 0}, flags=int(Kpf.ZERO_PAGE))
    assert unsettled(spaces, zero, NONE, {}).tolist() == []
    known = np.array([8], np.uint64)
    assert unsettled(spaces, kernel_pages({8: 0}), known, {}).tolist() == []

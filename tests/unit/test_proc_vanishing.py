# SPDX-License-Identifier: GPL-2.0-only
"""A machine whose processes vanish, refuse, or become others at any moment."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.source import no_progress
from rmap.source.proc import contents, files, mms, pagemap, survey
from rmap.source.proc.consistency import Changes
from rmap.source.proc.contents import Pass, Reader, read_pass
from rmap.source.proc.entries import Entries

PRESENT = 1 << 63
PIDS = [10, 20, 30, 40]
OWN, KERNEL, SHARER = 20, 30, 40
ERRORS = [errno.ESRCH, errno.ENOENT, errno.EACCES, errno.EPERM]
STATES = {"ok", "kernel", "zombie", "vanished", "denied", "self"}
Fates = dict[int, int]


def stat_line(pid: int, state: str = "S", layout: int = 0, flags: int = 0) -> bytes:
    fields = [0] * 49
    fields[9 - 4], fields[22 - 4], fields[26 - 4] = flags, 1000 + pid, layout
    return f"{pid} (p{pid}) {state} ".encode() + " ".join(map(str, fields)).encode() + b"\n"


class FakeProc:
    """Some processes in a directory; each opening of a file may fail as its fate says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened = 0
        self.fates: Fates = {}
        for pid in PIDS:
            # The one that shares has the memory (and so the layout) of the first.
            self.add(pid, pid, layout=10 if pid == SHARER else pid)

    def add(self, pid: int, task: int, layout: int, state: str = "S") -> None:
        """A thread; the process's own files are those of the thread of its id."""
        place = self.root / str(pid) / "task" / str(task)
        place.mkdir(parents=True, exist_ok=True)
        flags = 0x200000 if pid == KERNEL else 0
        (place / "stat").write_bytes(stat_line(pid, state, layout, flags))
        (place / "status").write_bytes(f"Tgid:\t{pid}\nUid:\t0\nRssAnon:\t4 kB\n".encode())
        (place / "cmdline").write_bytes(b"p\0")
        (place / "cgroup").write_bytes(b"0::/\n")
        dead = state == "Z"
        maps = b"" if dead else b"1000-9000 rw-p 00000000 00:00 0 \n"
        (place / "maps").write_bytes(maps)
        (place / "smaps").write_bytes(maps)
        words = np.zeros(16, np.uint64)
        words[1:4] = [PRESENT | 100 * layout + i for i in range(3)]
        (place / "pagemap").write_bytes(words.tobytes())

    def reset(self, fates: Fates) -> None:
        self.opened, self.fates = 0, fates

    def _fate(self) -> None:
        self.opened += 1
        code = self.fates.get(self.opened)
        if code is not None:
            raise OSError(code, os.strerror(code))

    def path_of(self, pid: int, name: str, task: int | None = None) -> str:
        self._fate()
        return str(self.root / str(pid) / "task" / str(task or pid) / name)

    def list_tasks(self, pid: int) -> list[int]:
        with files.process_errors():
            self._fate()
            return sorted(int(name) for name in os.listdir(self.root / str(pid) / "task"))

    def compare(self, first: int, second: int) -> int:
        """As kcmp: 10 and 40 share; it fails like any other look."""
        self._fate()
        same = {10: 10, 40: 10}
        a, b = same.get(first, first), same.get(second, second)
        return 0 if a == b else 1 if a < b else 2


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    proc = FakeProc(tmp_path)
    monkeypatch.setattr(files, "path_of", proc.path_of)
    monkeypatch.setattr(pagemap, "path_of", proc.path_of)
    monkeypatch.setattr(survey, "list_tasks", proc.list_tasks)
    monkeypatch.setattr(
        contents, "group_by_mm", lambda layouts: mms.group_by_mm(layouts, proc.compare)
    )
    return proc


def one_pass(reader: Reader | None = None) -> Pass:
    return read_pass(PIDS, {OWN}, reader or Reader(), no_progress, "reading")


def states(seen: Pass) -> dict[int, str]:
    return {process.pid: process.state for process in seen.processes}


def users(seen: Pass) -> list[list[int]]:
    return [[process.pid for process in space.processes] for space in seen.spaces]


def expect_sound(seen: Pass) -> None:
    """Every process is accounted for, and those with memory are exactly those that are ok."""
    assert sorted(states(seen)) == PIDS
    assert set(states(seen).values()) <= STATES
    with_memory = [pid for pids in users(seen) for pid in pids]
    assert sorted(with_memory) == [
        pid for pid, state in sorted(states(seen).items()) if state == "ok"
    ]
    for space in seen.spaces:
        layout = 10 if space.processes[0].pid in (10, SHARER) else space.processes[0].pid
        frames = (space.contents.entries.words & np.uint64((1 << 55) - 1)).tolist()
        assert frames == [100 * layout + i for i in range(3)]


def test_without_misfortune_all_are_read_and_shared_memory_once(fake: FakeProc) -> None:
    seen = one_pass()
    expect_sound(seen)
    assert states(seen) == {10: "ok", OWN: "self", KERNEL: "kernel", SHARER: "ok"}
    assert users(seen) == [[10, SHARER]]
    assert fake.opened > 10


def test_whatever_fails_at_any_moment_every_process_is_accounted_for(fake: FakeProc) -> None:
    moments = st.integers(1, 45)

    @given(st.dictionaries(moments, st.sampled_from(ERRORS), max_size=12))
    def check_misfortune(fates: Fates) -> None:
        fake.reset(fates)
        first = one_pass()
        changes = Changes((s.processes[0].pid, s.contents.entries) for s in first.spaces)
        second = one_pass(Reader(last=True, compare=changes.compare, vm_flags=True))
        changed = set(changes.frames().tolist())
        expect_sound(first)
        expect_sound(second)
        if users(first) == users(second):
            assert changed == set()
        elif not first.spaces or not second.spaces:  # memory that only one of them saw
            assert changed == {1000, 1001, 1002}

    check_misfortune()


@pytest.mark.parametrize("moment", range(1, 30))
@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_one_failure_costs_no_more_than_one_process(fake: FakeProc, moment: int, code: int) -> None:
    fake.reset({moment: code})
    seen = one_pass()
    expect_sound(seen)
    lost = [pid for pid, state in states(seen).items() if state in ("vanished", "denied")]
    assert len(lost) <= 1
    if code in (errno.EACCES, errno.EPERM):
        assert "vanished" not in states(seen).values()


def test_memory_is_read_through_another_process_that_shares_it(fake: FakeProc) -> None:
    (fake.root / "10" / "task" / "10" / "maps").write_bytes(b"")  # the first one is exiting
    seen = one_pass()
    assert states(seen)[10] == "vanished"
    assert users(seen) == [[SHARER]]


def test_two_zombie_leaders_do_not_share_the_nothing_they_have(fake: FakeProc) -> None:
    for pid, thread in ((10, 11), (SHARER, 41)):
        fake.add(pid, pid, layout=0, state="Z")
        fake.add(pid, thread, layout=thread)
    seen = one_pass()
    assert users(seen) == [[10], [SHARER]]
    frames = [space.contents.entries.words[0] & np.uint64(0xFFFF) for space in seen.spaces]
    assert [int(frame) for frame in frames] == [1100, 4100]


def test_a_zombie_without_threads_has_no_memory(fake: FakeProc) -> None:
    fake.add(10, 10, layout=0, state="Z")
    seen = one_pass()
    assert states(seen)[10] == "zombie"
    assert users(seen) == [[SHARER]]


def test_a_process_that_executes_another_program_is_read_as_what_it_became(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = contents.Pagemap.read
    done = []

    def read_and_exec(self: pagemap.Pagemap, ranges: list[tuple[int, int]]) -> Entries:
        entries = read(self, ranges)
        if not done:
            done.append(1)
            fake.add(10, 10, layout=77)
        return entries

    monkeypatch.setattr(contents.Pagemap, "read", read_and_exec)
    seen = one_pass()
    assert users(seen) == [[10], [SHARER]]
    assert int(seen.spaces[0].contents.entries.words[0] & np.uint64(0xFFFF)) == 7700
    assert int(seen.spaces[1].contents.entries.words[0] & np.uint64(0xFFFF)) == 1000


def test_a_directory_that_is_gone_is_a_process_that_is_gone(fake: FakeProc) -> None:
    shutil.rmtree(fake.root / "10")
    assert states(one_pass())[10] == "vanished"

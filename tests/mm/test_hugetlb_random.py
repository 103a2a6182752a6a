# SPDX-License-Identifier: GPL-2.0-only
"""Random operations on huge pages of small pools, with memory that fails: nothing is miscounted.

After every step all of `rmap.check` holds: pools, reservations, mapcounts and tables, each
recounted from scratch. What a process reads is what it, or whoever shares the memory, has written.
At the end nothing is left behind.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.mm.bits import MAP_NORESERVE
from rmap.model import BusError, FailPlan, HugePages, Machine, OutOfMemory, Process, SyscallError

HUGE = 2 << 20
GIGA = 1 << 30
#: Where each kind of mapping lies, so that tables of the shared one can be shared.
PRIVATE = 1 << 40
SHARED = 2 << 40
COPIES = 3 << 40
SLOTS = 3


@dataclass
class World:
    """A machine, its processes, and what each should read: address of a huge page to its text.

    A mapping is one of 3 huge pages, or of a shared file the whole gigabyte that holds them.
    """

    machine: Machine
    processes: list[Process] = field(default_factory=list)
    private: dict[tuple[int, int], bytes] = field(default_factory=dict)
    shared: dict[int, bytes] = field(default_factory=dict)

    def read(self, p: Process, address: int) -> bytes | None:
        """What is there, ``None`` if the page cannot be had, which is no error."""
        try:
            return p.read(address, 4)
        except (BusError, OutOfMemory):
            return None

    def write(self, p: Process, address: int, text: bytes) -> bool:
        try:
            p.write(address, text)
        except (BusError, OutOfMemory):
            return False
        return True


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "map",
                "map",
                "write",
                "write",
                "write",
                "read",
                "fork",
                "exit",
                "unmap",
                "protect",
                "pool",
                "overcommit",
                "truncate",
                "punch",
                "migrate",
                "fail",
            )
        ),
        st.integers(0, 5),
        st.integers(0, 3 * SLOTS - 1),
    ),
    max_size=25,
)


def place(slot: int) -> int:
    """The address of one of nine huge pages: three of each kind."""
    return (PRIVATE, SHARED, COPIES)[slot // SLOTS] + slot % SLOTS * HUGE


def step(w: World, name: str, who: int, slot: int) -> None:
    """Do one thing; what cannot be done is refused."""
    m = w.machine
    file = m.files["f"]
    p = w.processes[who % len(w.processes)] if w.processes else m.spawn("p")
    if p not in w.processes:
        w.processes.append(p)
    address = place(slot)
    base = address - slot % SLOTS * HUGE
    mapped = p.vma_at(address)
    if name == "map" and mapped is None and not (base == SHARED and p.vma_at(SHARED)):
        if base == SHARED:
            p.mmap(GIGA, kind="file", file=file, addr=SHARED, flags=MAP_NORESERVE)
        elif base == COPIES:
            p.mmap(HUGE, kind="fileprivate", file=file, pgoff=slot % SLOTS * 512, addr=address)
        else:
            p.mmap(HUGE, kind="hugetlb", addr=address)
    elif name in ("write", "read") and mapped is not None and mapped.vm_flags & 2:
        access(w, p, base, slot, name == "write", who)
    elif name == "fork" and len(w.processes) < 4:
        w.processes.append(p.fork("c"))
        for (pid, at), text in list(w.private.items()):
            if pid == p.pid:
                w.private[w.processes[-1].pid, at] = text
    elif name == "exit":
        p.exit()
        w.processes.remove(p)
    elif name == "unmap" and mapped is not None:
        p.munmap(base if base == SHARED else address, GIGA if base == SHARED else HUGE)
        w.private.pop((p.pid, address), None)
    elif name == "protect" and base == SHARED and mapped is not None:
        p.mprotect(SHARED, GIGA, "rw" if who % 2 else "r")
    elif name == "migrate" and mapped is not None:
        m.migrate([page for page in p.pages(address, 1) if page])
    else:
        other_step(w, name, who, slot)


def access(w: World, p: Process, base: int, slot: int, write: bool, who: int) -> None:
    """Write or read one huge page, and compare."""
    address = place(slot)
    key = (p.pid, address)
    if base == SHARED:
        if write:
            text = b"s%03d" % (who * 10 + slot)
            if w.write(p, address, text):
                w.shared[slot % SLOTS] = text
            return
        got = w.read(p, address)
        assert got in (None, w.shared.get(slot % SLOTS, bytes(4)))
        return
    if write:
        text = b"%d%03d" % (p.pid % 10, who * 10 + slot)
        if w.write(p, address, text):
            w.private[key] = text
        return
    got = w.read(p, address)
    if key in w.private:
        assert got in (None, w.private[key])
    elif base == COPIES:
        assert got in (None, w.shared.get(slot % SLOTS, bytes(4)))
    else:
        assert got in (None, bytes(4))


def other_step(w: World, name: str, who: int, slot: int) -> None:
    """Things that are no process's."""
    m = w.machine
    file = m.files["f"]
    if name == "pool":
        m.hugetlb.pool(who)
    elif name == "overcommit":
        m.hugetlb.overcommit(who % 3)
    elif name == "truncate":
        keep = slot % SLOTS
        file.truncate(keep * HUGE)
        file.truncate(GIGA)
        w.shared = {index: text for index, text in w.shared.items() if index < keep}
        w.private = {key: text for key, text in w.private.items() if key[1] < COPIES + keep * HUGE}
    elif name == "punch":
        file.punch_hole(slot % SLOTS * HUGE, HUGE)  # type: ignore[attr-defined]  # a HugetlbFile
        w.shared.pop(slot % SLOTS, None)
        w.private = {
            key: text for key, text in w.private.items() if key[1] != COPIES + slot % SLOTS * HUGE
        }
    elif name == "fail":
        m.inject = FailPlan.nth(1 + slot) if who % 2 else None


@pytest.mark.parametrize("kind", ["6.1", "6.12"])
@settings(max_examples=40)
@given(steps=STEPS)
def test_nothing_is_lost_or_miscounted(kind: str, steps: list[tuple[str, int, int]]) -> None:
    m = Machine(ram=8192, cpus=2, swap=0, profile=kind)
    m.hugetlb.file("f", 512)
    m.hugetlb.pool(3)
    before = m.kernel.nr_free + m.hugetlb.pages().total * 512
    w = World(m)
    for name, who, slot in steps:
        # What is refused, for want of memory or huge pages, must be so without a trace.
        with suppress(SyscallError, MemoryError):
            step(w, name, who, slot)
        assert m.check() == [], (name, who, slot)
    m.inject = None
    for p in list(w.processes):
        p.exit()
    m.files["f"].unlink()  # type: ignore[attr-defined]  # a HugetlbFile
    m.hugetlb.overcommit(0)
    m.hugetlb.pool(0)
    assert m.hugetlb.pages() == HugePages(0, 0, 0, 0)
    assert m.kernel.nr_free == before
    assert m.check() == []
    assert m.kernel.pmd_sharers == {}

# SPDX-License-Identifier: GPL-2.0-only
"""A machine of 1 TiB: time, peak memory and bytes per page, with small pages and with huge ones.

Eight processes map and touch all of it; one of them forks, and the child writes to a part; the
reverse map of every page is walked twice, first with every mapping young, then with none used; the
active list is aged; some pages are reclaimed to swap, and some of those are read back. (The machine
has a little more than that for copies, and for the kernel's reserve.) Times are per page of 4 KiB
in both. At the end the machine's own totals are compared with what was done. Each size of page has
a process of its own, whose peak is measured.

``--ram 64G`` takes a smaller machine. One that would not fit into the memory that is available is
halved until it does, and that is said.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import rmap
from rmap.model import Machine, Process
from rmap.model.sizes import pages_of

PAGE = 4096
GIB = 1 << 30
#: Small pages of a huge one.
HUGE = 512
PROCESSES = 8
#: What a page costs in the columns, in one page table, and in a part of them doubled by a fork.
EXPECTED_BYTES = 38 + 8 + 8
#: Parts of one process's memory, as one in so many: written by the child, and reclaimed.
WRITTEN = 64
RECLAIMED = 128
#: Left to the kernel: its watermarks, and what copies and faults need while memory is short.
RESERVE = 1 << 16
#: Pages that one call walks.
CHUNK = 1 << 20


class Failed(Exception):
    """The machine's totals are not those of what was done."""


def peak() -> float:
    """The most memory that this process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


class Clock:
    """Times steps and prints a line for each, with the peak of memory so far."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        print(f"  {'step':34} {'s':>8} {'ns/page':>9} {'peak GiB':>9}", flush=True)

    def step(self, what: str, pages: int, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        took = time.perf_counter() - start
        each = f"{took * 1e9 / pages:9.1f}"
        print(f"  {what:34} {took:8.1f} {each} {peak() / GIB:9.2f}", flush=True)


def require(what: str, found: int, low: int, high: int) -> None:
    """Raise `Failed` unless a total is between two bounds."""
    if not low <= found <= high:
        raise Failed(f"{what}: {found:,}, expected {low:,} to {high:,}")


def walk_all(machine: Machine, step: int, young: int) -> None:
    """Walk the reverse map of every page, or (`step` 512) huge page, and clear accessed bits.

    Raises `Failed` if not so many mappings were young.
    """
    end = machine.kernel.nr_pages + 1
    found = 0
    for start in range(step, end, CHUNK):
        pages = np.arange(start, min(start + CHUNK, end), step, dtype=np.ulonglong)
        found += machine.page_referenced(pages)
    require("mappings found young", found, young, young)


def measure(ram: int, huge: bool) -> None:
    """Run the whole life of a machine of `ram` pages. Raises `Failed`."""
    clock = Clock()
    each = ram // PROCESSES
    written, reclaimed = each // WRITTEN, each // RECLAIMED
    made: list[Machine] = []
    processes: list[Process] = []
    swap = 2 * reclaimed + 4096
    room = ram + written + RESERVE

    def boot() -> None:
        made.append(Machine(ram=room, cpus=1, swap=swap, checks=False))

    clock.step("boot", ram, boot)
    machine = made[0]
    if huge:
        machine.thp.enabled = "always"
    processes += [machine.spawn(f"p{number}") for number in range(PROCESSES)]
    size = each * PAGE
    places = [process.mmap(size, addr=1 << 40) for process in processes]

    def touch() -> None:
        for process, place in zip(processes, places, strict=True):
            process.touch(place, size)

    clock.step("touch every small page", ram, touch)
    require("anonymous pages mapped", machine.mem_stats()["nr_anon_mapped"], ram, ram)
    whole = machine.mem_stats()["nr_anon_thps"]
    require("huge pages", whole, ram // 512 if huge else 0, ram // 512 if huge else 0)
    clock.step("fork one of eight", each, lambda: processes.append(processes[0].fork("child")))
    child = processes[-1]
    clock.step("the child writes a part", written, lambda: child.touch(places[0], written * PAGE))
    step = HUGE if huge else 1
    young = ram // step + -(-written // step)
    clock.step("walk all pages, all of them young", ram, lambda: walk_all(machine, step, young))
    clock.step("walk all again, none young", ram, lambda: walk_all(machine, step, 0))
    clock.step("age the active list", ram, lambda: machine.age(2 * ram))
    clock.step("reclaim to swap", reclaimed, lambda: machine.reclaim(reclaimed))
    out = machine.mem_stats()["pswpout"]
    require("pages written to swap", out, reclaimed, swap)
    last = processes[PROCESSES - 1]

    def read_back() -> None:
        for process, place in zip(processes[:PROCESSES], places, strict=True):
            process.touch(place, reclaimed * PAGE, write=False)

    clock.step("read the start of each", PROCESSES * reclaimed, read_back)
    clock.step("unmap one", each, lambda: last.munmap(places[-1], size))

    def leave() -> None:
        for process in processes:
            process.exit()

    clock.step("exit of all", ram, leave)
    require("anonymous pages mapped", machine.mem_stats()["nr_anon_mapped"], 0, 0)
    took = time.perf_counter() - clock.start
    print(f"  {took:.0f} s, peak {peak() / GIB:.2f} GiB, {peak() / ram:.1f} bytes a page")


def available() -> int:
    """Bytes of memory that the running machine can give."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("bench_size: /proc/meminfo has no MemAvailable")


def fitting(wanted: int) -> int:
    """The pages of the largest machine that fits, halving what is wanted."""
    room = available() * 0.9
    pages = wanted
    while pages * EXPECTED_BYTES > room:
        pages //= 2
    return pages


def main() -> int:
    """Run one measurement, or both in processes of their own; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ram", default="1T", help="size of the machine (1T)")
    parser.add_argument("--quick", action="store_true", help="4G")
    parser.add_argument("--pages", choices=["4K", "2M"], help="only this size of page")
    asked = parser.parse_args()
    wanted = pages_of("4G" if asked.quick else asked.ram)
    pages = fitting(wanted)
    if "compiled" not in rmap.version_line():
        print("bench_size: the model runs uncompiled; these are not its figures", file=sys.stderr)
    if asked.pages:
        try:
            measure(pages, asked.pages == "2M")
        except Failed as failure:
            print(f"bench_size: {failure}", file=sys.stderr)
            return 1
        return 0
    if pages < wanted:
        print(f"only {available() / GIB:.0f} GiB are available: the machine is made smaller")
    status = 0
    for kind in ("4K", "2M"):
        print(f"\na machine of {pages * PAGE / GIB:,.0f} GiB, pages of {kind}", flush=True)
        command = [sys.executable, "-m", "benchmarks.bench_size", "--pages", kind]
        command += ["--ram", str(pages * PAGE)]
        status |= subprocess.run(command, check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())

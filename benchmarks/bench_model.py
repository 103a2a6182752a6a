# SPDX-License-Identifier: GPL-2.0-only
"""The model against the running kernel and a minimal C program: ns per 4 KiB page.

For 262,144 pages (1 GiB) mapped by 1, 2 and 16 processes, in PFN order and shuffled, and for one
page mapped by 1000 processes: first touch, mprotect, fork, copy-on-write, zap, aging
(`page_referenced`) and unmapping (`try_to_unmap`). The kernel's figures are those of real mmap,
stores, mprotect, fork and munmap on this machine (``c/kernel.c``); it cannot be asked to age or
unmap chosen pages, so walks have the bound only. The bound (``c/bound.c``) does the same to the
same structures in C, without locks, checks, LRU, cgroups, TLBs, or statistics. The last table
takes growing sizes: a cost that stays the same per page is linear. ``--quick`` takes a sixteenth.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rmap
from rmap.mm import lru, page_alloc, swap, unmap
from rmap.mm.bits import GFP_KERNEL
from rmap.mm.page import lock_page, unlock_page
from rmap.model import Machine, Process

HERE = Path(__file__).resolve().parent
PAGES = 262_144
PAGE = 4096
HUGE = 2 << 20
#: The exit status of ``c/kernel.c`` where memory did not become huge.
NO_HUGE_PAGES = 3
SHARERS = (1, 2, 16)
ROUNDS = 3
KERNEL_AIM = 0.2
BOUND_AIM = 2.0
WALKS = ("age", "unmap")
Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One world to measure in."""

    pages: int
    sharers: int
    shuffled: bool = False

    def __str__(self) -> str:
        order = "shuffled" if self.shuffled else "in PFN order"
        processes = "1 process" if self.sharers == 1 else f"{self.sharers} processes"
        pages = "1 page" if self.pages == 1 else f"{self.pages:,} pages"
        return f"{pages}, {processes}, {order}"


def timed(work: Callable[[], object], pages: int) -> float:
    """Nanoseconds per page that `work` takes."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / pages


def shuffle_free_pages(machine: Machine, count: int) -> None:
    """Let the allocator hand out pages in random order: take many, give them back shuffled."""
    kernel = machine.kernel
    with machine.kthread("shuffle"):
        pages = [page_alloc.alloc_page(kernel, GFP_KERNEL) for _ in range(count)]
        np.random.default_rng(1).shuffle(pages)
        for page in pages:
            lru.put_page(kernel, page)


def world(case: Case) -> tuple[Machine, Process]:
    """A machine with room for the pages, their copies and their swap slots."""
    room = 2 * case.pages + 4096
    machine = Machine(ram=room, cpus=1, swap=case.pages + 4096, checks=False)
    if case.shuffled:
        shuffle_free_pages(machine, room - 2048)
    return machine, machine.spawn("first")


def age(machine: Machine, processes: list[Process], address: int, case: Case) -> float:
    """Best time of a few rounds of aging all pages, all mappings young."""
    pages = np.array(processes[0].pages(address, case.pages * PAGE), np.ulonglong)
    best = float("inf")
    for _ in range(ROUNDS):
        for process in processes:
            process.touch(address, case.pages * PAGE, write=False)
        start = time.perf_counter_ns()
        young = machine.page_referenced(pages)
        best = min(best, (time.perf_counter_ns() - start) / case.pages)
        if young != case.pages * len(processes):
            raise SystemExit(f"bench_model: {young} mappings were young, expected all")
    return best


def unmap_all(machine: Machine, process: Process, address: int, case: Case) -> float:
    """Time of unmapping all pages to swap, from everybody; slots are taken beforehand."""
    kernel = machine.kernel
    pages = np.array(process.pages(address, case.pages * PAGE), np.ulonglong)
    with machine.kthread("reclaim"):
        for page in pages.tolist():
            lock_page(kernel, page)
            if not swap.add_to_swap(kernel, page):
                raise SystemExit("bench_model: no swap slot")
        took = timed(lambda: unmap.try_to_unmap_range(kernel, pages, 0x10), case.pages)
        for page in pages.tolist():
            unlock_page(kernel, page)
    if any(process.pages(address, case.pages * PAGE)):
        raise SystemExit("bench_model: pages are still mapped")
    return took


def model(case: Case) -> Figures:
    """Measure the model in one world."""
    machine, first = world(case)
    size = case.pages * PAGE
    half = (case.pages + 1) // 2
    address = first.mmap(size)
    took: Figures = {"touch": timed(lambda: first.touch(address, size), case.pages)}
    took["mprotect"] = timed(lambda: first.mprotect(address, size, "r"), case.pages)
    first.mprotect(address, size, "rw")
    processes = [first]
    processes += [first.fork(f"child {i}") for i in range(1, case.sharers)]
    took["age"] = age(machine, processes, address, case)
    children: list[Process] = []
    took["fork"] = timed(lambda: children.append(first.fork("last")), case.pages)
    last = children[0]
    took["cow"] = timed(lambda: last.touch(address, half * PAGE), half)
    took["zap_shared"] = timed(lambda: last.munmap(address, size), case.pages)
    last.exit()
    took["unmap"] = unmap_all(machine, first, address, case)
    took["zap"] = zap_alone(case)
    return took


def zap_alone(case: Case) -> float:
    """Time of unmapping memory that nobody else maps, so that its pages are freed."""
    _, process = world(case)
    address = process.mmap(case.pages * PAGE)
    process.touch(address, case.pages * PAGE)
    return timed(lambda: process.munmap(address, case.pages * PAGE), case.pages)


def run(program: Path, *arguments: int | str) -> Figures:
    """Run one of the C programs and read its lines of a name and a number."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}


def compiled(directory: Path) -> Iterator[Path]:
    """Compile the C programs: the kernel's, then the bound. Raises ``SystemExit``."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("bench_model: needs a C compiler for what it compares with")
    for name in ("kernel", "bound"):
        target = directory / name
        source = HERE / "c" / f"{name}.c"
        subprocess.run([compiler, "-O2", "-o", str(target), str(source)], check=True)
        yield target


def ratio(value: float, other: float | None, aim: float) -> str:
    """A ratio, with a mark where it misses the aim."""
    if not other:
        return f"{'-':>8} {'-':>8} "
    return f"{other:8.1f} {value / other:8.2f}{'!' if value / other > aim else ' '}"


def compare(case: Case, kernel_program: Path | None, bound_program: Path) -> None:
    """Measure a case, and print its table."""
    bound = run(bound_program, case.pages, case.sharers, int(case.shuffled))
    kernel = run(kernel_program, case.pages, max(case.sharers, 2)) if kernel_program else {}
    took = model(case)
    print(f"\n{case} (ns a page)")
    print(f"  {'':12} {'model':>8} {'kernel':>8} {'ratio':>8}  {'bound':>8} {'ratio':>8}")
    for name, value in took.items():
        against_kernel = ratio(value, kernel.get(name), KERNEL_AIM)
        aim = BOUND_AIM if name in WALKS else float("inf")
        print(f"  {name:12} {value:8.1f} {against_kernel} {ratio(value, bound.get(name), aim)}")
    if case.sharers > 1:
        per_mapping = took["age"] / case.sharers
        print(f"  age, per mapping: {per_mapping:.1f} (bound {bound['age'] / case.sharers:.1f})")


# ---------------------------------------------------------------- huge pages


def touch_huge(process: Process, address: int, count: int) -> None:
    """Write a byte to each huge page."""
    for at in range(address, address + count * HUGE, HUGE):
        process.touch(at, 1)


def model_huge(count: int, sharers: int) -> Figures:
    """Measure the model with so many huge pages, in ns per huge page."""
    size, half = count * HUGE, (count + 1) // 2
    machine = Machine(ram=3 * size // PAGE + 65536, cpus=1, swap=0, checks=False)
    machine.thp.enabled = "always"
    first = machine.spawn("first")
    address = first.mmap(size, addr=1 << 40)
    took: Figures = {"touch": timed(lambda: touch_huge(first, address, count), count)}
    require_huge(machine, count)
    took["mprotect"] = timed(lambda: first.mprotect(address, size, "r"), count)
    first.mprotect(address, size, "rw")
    processes = [first, *(first.fork(f"child {i}") for i in range(1, sharers))]
    heads = np.array(
        [first.pages(at, 1)[0] for at in range(address, address + size, HUGE)], np.ulonglong
    )
    for process in processes:
        for at in range(address, address + size, HUGE):
            process.touch(at, 1, write=False)
    took["age"] = timed(lambda: machine.page_referenced(heads), count)
    children: list[Process] = []
    took["fork"] = timed(lambda: children.append(first.fork("last")), count)
    last = children[0]
    took["cow"] = timed(lambda: touch_huge(last, address, half), half)
    took["zap_shared"] = timed(lambda: last.munmap(address, size), count)
    last.exit()
    for process in processes[1:]:
        process.exit()
    took["split"] = timed(lambda: split_all(first, address, count), count)
    first.munmap(address, size)
    address = first.mmap(size, addr=1 << 40)
    touch_huge(first, address, count)
    took["zap"] = timed(lambda: first.munmap(address, size), count)
    return took


def split_all(process: Process, address: int, count: int) -> None:
    """Unmap the first small page of each huge one, which splits the PMD."""
    for at in range(address, address + count * HUGE, HUGE):
        process.munmap(at, PAGE)


def require_huge(machine: Machine, count: int) -> None:
    """Stop unless memory is huge."""
    found = machine.mem_stats()["nr_anon_thps"]
    if found != count:
        raise SystemExit(f"bench_model: {found} huge pages, expected {count}")


def compare_huge(count: int, sharers: int, kernel_program: Path) -> None:
    """Measure huge pages, and print their table."""
    took = model_huge(count, sharers)
    try:
        kernel = run(kernel_program, count, max(sharers, 2), "huge")
    except subprocess.CalledProcessError as error:
        if error.returncode != NO_HUGE_PAGES:
            raise
        kernel = {}
    who = "1 process" if sharers == 1 else f"{sharers} processes"
    print(f"\n{count:,} huge pages of 2 MiB, {who} (ns a huge page)")
    print(f"  {'':12} {'model':>10} {'kernel':>11} {'ratio':>8}")
    for name, value in took.items():
        other = kernel.get(name)
        against = f"{other:11.1f} {value / other:8.2f}" if other else f"{'-':>11} {'-':>8}"
        print(f"  {name:12} {value:10.1f} {against}")
    if not kernel:
        print("  the running kernel gave no huge pages")


def linear(pages: int) -> None:
    """Print the cost per page over growing sizes."""
    sizes = [pages // 16, pages // 4, pages]
    figures = [model(Case(size, 2)) for size in sizes]
    print("\nover sizes, 2 processes, in PFN order (ns a page)")
    print(f"  {'':12}" + "".join(f" {size:>9,}" for size in sizes) + "   last/first")
    for name in figures[0]:
        row = [figure[name] for figure in figures]
        print(f"  {name:12}" + "".join(f" {x:9.1f}" for x in row) + f" {row[-1] / row[0]:10.2f}")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the size")
    pages = PAGES // 16 if parser.parse_args().quick else PAGES
    if "compiled" not in rmap.version_line():
        print("bench_model: the model runs uncompiled; these are not its figures", file=sys.stderr)
    print(f"aims: <= {KERNEL_AIM} of the kernel, walks <= {BOUND_AIM} of the bound; ! misses one")
    with tempfile.TemporaryDirectory() as directory:
        kernel_program, bound_program = compiled(Path(directory))
        for sharers in SHARERS:
            for shuffled in (False, True):
                compare(Case(pages, sharers, shuffled), kernel_program, bound_program)
        compare(Case(1, 1000), None, bound_program)
        for sharers in SHARERS:
            compare_huge(pages // 512, sharers, kernel_program)
    linear(pages)


if __name__ == "__main__":
    main()

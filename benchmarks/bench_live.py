# SPDX-License-Identifier: GPL-2.0-only
"""Reading the live machine, against the bare system calls that it cannot do without.

``snapshot 4 GiB``: one process with that much memory, against reading the same bytes of
``pagemap`` (twice, as a snapshot does), ``kpagecount`` and ``kpageflags`` and throwing them away.
``500 processes``: all of a machine with 500 forked processes and 4 million entries, RAM included.
``--quick`` takes a sixteenth of both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rmap.image import MemoryImage
from rmap.image.arrays import distinct
from rmap.source.proc import snapshot
from rmap.source.proc.kpage import runs_of
from rmap.source.proc.pagemap import CHUNK_PAGES, PAGE_SIZE

GIB = 1 << 30
LIFETIME_S = 300


#: The load is a process of its own, so that what we map is not inherited. It forks COUNT children
#: from a parent with PAGES touched pages; each writes every eighth again, so that some are shared
#: and some are not. All end when our end of the pipe closes, or after LIFETIME_S.
LOAD = """
import mmap, os, signal, sys
count, pages, lifetime = map(int, sys.argv[1:])
signal.alarm(lifetime)
memory = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(pages):
    memory[page * mmap.PAGESIZE] = 1
children = []
for _ in range(count):
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(lifetime)
        for page in range(0, pages, 8):
            memory[page * mmap.PAGESIZE] = 2
        os.write(done, b".")
        while True:
            signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(done)
    children.append(pid)
print(*children or [os.getpid()], flush=True)
sys.stdin.read()
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@contextmanager
def load(count: int, pages: int) -> Iterator[list[int]]:
    """Run ``count`` forked processes with ``pages`` pages (0: the one process itself)."""
    command = [sys.executable, "-ISc", LOAD, str(count), str(pages), str(LIFETIME_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield [int(word) for word in process.stdout.readline().split()]
        process.communicate()


def _read_bare(path: str, runs: list[tuple[int, int]]) -> None:
    buffer = memoryview(bytearray(CHUNK_PAGES * 8))
    descriptor = os.open(path, os.O_RDONLY)
    for first, last in runs:
        for start in range(first, last, CHUNK_PAGES):
            os.preadv(descriptor, [buffer[: min(CHUNK_PAGES, last - start) * 8]], start * 8)
    os.close(descriptor)


def _bare_seconds(pid: int, image: MemoryImage) -> float:
    vmas = image.vmas
    pages = [
        (int(a) // PAGE_SIZE, int(b) // PAGE_SIZE)
        for a, b in zip(vmas["start"], vmas["end"], strict=True)
    ]
    frames = runs_of(distinct(image.ptes["pfn"]))
    start = time.perf_counter()
    for _ in range(2):
        _read_bare(f"/proc/{pid}/pagemap", pages)
    _read_bare("/proc/kpagecount", frames)
    _read_bare("/proc/kpageflags", frames)
    return time.perf_counter() - start


def bench_one_large(size: int) -> None:
    """Print the row of one large process."""
    with load(0, size // PAGE_SIZE) as (pid,):
        ours, bare = [], []
        for _ in range(3):  # taken in turn, so that a slow moment hits both
            start = time.perf_counter()
            image = snapshot([pid], ram=False)
            ours.append(time.perf_counter() - start)
            bare.append(_bare_seconds(pid, image))
    ratio = min(ours) / min(bare)
    print(
        f"snapshot of a {size / GIB:g} GiB process: {min(ours):.3f} s for {len(image.ptes):,} "
        f"entries; bare reads {min(bare):.3f} s; ratio {ratio:.2f} (aim <= 1.5)"
    )


def bench_many(count: int, entries: int) -> None:
    """Print the row of many processes."""
    with load(1, 8) as (pid,):
        inherited = len(snapshot([pid], ram=False).ptes)  # what any Python brings along
    with load(count, entries // count - inherited):
        start = time.perf_counter()
        image = snapshot()
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        mapped = image.reverse.mapped_pfns()
        inverted = time.perf_counter() - start
    print(
        f"whole machine, {count} processes, {len(image.ptes):,} entries, {len(image.pages):,} "
        f"pages of RAM: snapshot {seconds:.2f} s, inversion {inverted:.2f} s "
        f"({len(mapped):,} pages mapped); end to end {seconds + inverted:.2f} s (aim <= 3)"
    )


def main() -> None:
    """Print all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the size")
    scale = 16 if parser.parse_args().quick else 1
    bench_one_large(4 * GIB // scale)
    bench_many(500 // scale, 4_000_000 // scale)


if __name__ == "__main__":
    main()

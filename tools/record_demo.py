# SPDX-License-Identifier: GPL-2.0-only
"""Record the image that ``rmap demo`` shows where the live machine may not be read.

It starts a small family of processes (a shop with three workers and a cache beside it), reads
them and the kernel's flags of all RAM, and writes ``src/rmap/data/demo-image.zip``. Only these
processes are in the image, and what would tell of the machine or its user is blanked: command
lines, cgroups, the local part of the kernel's release. Run as root where there is
``/usr/bin/python3``::

    python tools/record_demo.py
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from rmap.image import MemoryImage, Table, write_image
from rmap.source.proc import snapshot

TARGET = Path(__file__).resolve().parent.parent / "src" / "rmap" / "data" / "demo-image.zip"

#: What the family does: the shop loads its stock (a file and 24 MiB of its own memory, part of it
#: huge pages), forks three workers that share it and each rewrite a part, and passes orders to the
#: cache through shared memory.
FAMILY = """
import mmap, os, signal, sys, tempfile
signal.alarm(120)
PAGE = mmap.PAGESIZE
def name(text):
    with open("/proc/self/comm", "w") as comm:
        comm.write(text)
def touch(memory, first, last, value):
    for page in range(first, last):
        memory[page * PAGE] = value
def wait(done):
    os.write(done, b".")
    while True:
        signal.pause()
ready, done = os.pipe()
stock_file = tempfile.TemporaryFile(dir="/dev/shm")
stock_file.truncate(512 * PAGE)
orders = mmap.mmap(stock_file.fileno(), 512 * PAGE)
touch(orders, 0, 512, 1)
children = []
pid = os.fork()
if pid == 0:
    signal.alarm(120)
    name("cache")
    own = mmap.mmap(-1, 2048 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    touch(own, 0, 2048, 7)
    wait(done)
children.append(pid)
name("shop")
stock = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
stock.madvise(mmap.MADV_HUGEPAGE)
touch(stock, 0, len(stock) // PAGE, 2)
prices = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
prices.madvise(mmap.MADV_NOHUGEPAGE)
touch(prices, 0, len(prices) // PAGE, 3)
for worker in range(3):
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        name(f"shop-worker/{worker}")
        touch(prices, worker * 256, worker * 256 + 512, 4)
        wait(done)
    children.append(pid)
for _ in children:
    os.read(ready, 1)
print(os.getpid(), *children, flush=True)
sys.stdin.read()
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def blanked(image: MemoryImage) -> MemoryImage:
    """Return the image without what tells of the machine it was recorded on."""
    nobody = len(image.processes)
    release = image.machine["kernel_release"][0]
    changes = {
        "processes": {"cmdline": [""] * nobody, "cgroup": ["/"] * nobody},
        "machine": {"kernel_release": [release.partition("-")[0]]},
    }
    tables = dict(image.tables)
    for name, columns in changes.items():
        table = tables[name]
        kept = {column: table[column] for column in table.column_names}
        tables[name] = Table(table.schema, kept | columns)
    return MemoryImage(tables)


def main() -> None:
    """Start the family, record it, end it."""
    command = ["/usr/bin/python3", "-ISc", FAMILY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/"
    ) as family:
        assert family.stdout is not None
        pids = [int(word) for word in family.stdout.readline().split()]
        image = blanked(snapshot(pids, freeze=pids))
        family.communicate()
    TARGET.parent.mkdir(exist_ok=True)
    write_image(image, TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {len(image.ptes)} page-table entries")


if __name__ == "__main__":
    main()

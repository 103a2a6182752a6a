# SPDX-License-Identifier: GPL-2.0-only
"""Inverting page tables: from entries to the pages that they map.

27 million entries of 400 address spaces, as a large server has them: libraries that all map in
runs, heaps of their own in runs broken by copy-on-write, shared memory, and pages scattered at
random. The time is that of `rmap.image.ReverseMap`; the memory is what it takes at its peak
beyond the table, measured by the kernel's high-water mark of this process. ``--quick`` takes a
sixteenth.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from rmap.image import ReverseMap, Table
from rmap.image.flags import Pte
from rmap.image.schema import PTES

ENTRIES = 27_000_000
SPACES = 400
LIBRARY_PAGES = 12_000
#: Of the entries of a process that are its own, one in this many lies at random.
SCATTERED = 4


def pfns_of(space: int, entries: int, generator: np.random.Generator) -> np.ndarray:
    """Frames of one address space: the library's, then its own in runs, some of them scattered."""
    library = np.arange(min(LIBRARY_PAGES, entries // 3), dtype=np.uint64) + np.uint64(1 << 12)
    own = entries - len(library)
    first = (1 << 20) + space * entries
    frames = np.arange(first, first + own, dtype=np.uint64)
    scattered = generator.choice(own, own // SCATTERED, replace=False)
    frames[scattered] = generator.integers(1 << 20, (1 << 20) + SPACES * entries, len(scattered))
    return np.concatenate((library, frames))


def make_table(total: int) -> Table:
    """Build a pte table of about ``total`` entries."""
    generator = np.random.default_rng(27)
    each = total // SPACES
    pfns = np.concatenate([pfns_of(space, each, generator) for space in range(SPACES)])
    columns = {
        "mm": np.repeat(np.arange(SPACES, dtype=np.int32), each),
        "address": np.tile(np.arange(each, dtype=np.uint64) << np.uint64(12), SPACES),
        "pfn": pfns,
        "order": np.zeros(len(pfns), np.uint8),
        "flags": np.full(len(pfns), int(Pte.PRESENT), np.uint32),
    }
    return Table(PTES, columns)


def peak_bytes() -> int:
    """High-water mark of this process's memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the size")
    table = make_table(ENTRIES // 16 if parser.parse_args().quick else ENTRIES)
    # Whatever making the table left as a peak hides what comes: so the mark is reset first.
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5\n")
    before = peak_bytes()
    start = time.perf_counter()
    reverse = ReverseMap(table)
    seconds = time.perf_counter() - start
    peak = (peak_bytes() - before + table.nbytes) / table.nbytes
    start = time.perf_counter()
    mapped = reverse.mapped_pfns()
    print(
        f"inversion of {len(table):,} entries ({table.nbytes / 2**20:.0f} MiB): {seconds:.2f} s "
        f"(aim <= 2.5), peak {peak:.2f}x the table (aim <= 3), index {reverse.nbytes / 2**20:.0f} "
        f"MiB; {len(mapped):,} pages listed in {time.perf_counter() - start:.2f} s"
    )


if __name__ == "__main__":
    main()

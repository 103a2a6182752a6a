# SPDX-License-Identifier: GPL-2.0-only
"""Crash dumps: seconds and peak memory to open one, to ask of one page, and to read everything.

Against it stands the plain way: the kernel's own walk of every mapped page, one after the other,
with the helpers for drgn (`rmap.drgn_helpers`). Where that would take long, some pages are walked,
taken at random, and the time for all is reckoned from it; that is said. Both ways have to find as
many mappings.

    python -m benchmarks.bench_dump [VMCORE...]

Without a dump named, the reduced ones of the tests are read. Their guests had 128 MiB; larger ones
are made by ``python -m lab`` (``--memory 640 --bulk 360,24``).
"""

from __future__ import annotations

import argparse
import importlib.util
import lzma
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmap.image import MemoryImage

HERE = Path(__file__).resolve().parent
REDUCED = HERE.parent / "tests" / "data" / "dumps"
MIB = 1 << 20
#: Seconds that the plain way is given; and pages between two looks at the clock.
PATIENCE = 30.0
STEP = 64


class Failed(Exception):
    """Both ways do not find the same."""


def peak() -> float:
    """The most memory that this process has had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0 / MIB


def timed(what: str, work: Callable[[], Any], note: Callable[[Any, float], str]) -> Any:
    """Do something and print how long it took, and the peak of memory so far."""
    start = time.perf_counter()
    result = work()
    took = time.perf_counter() - start
    print(f"  {what:32} {took:9.3f} s {peak():8.0f} MiB  {note(result, took)}", flush=True)
    return result


def mapped_pages(image: MemoryImage) -> Any:
    """Frames that some process maps as the kernel counts it, whose own kind of page says by whom.

    Pages of a driver, of which the vDSO is one, belong to no file and no anon_vma: no walk can
    find who maps them.
    """
    pages = image.pages
    return pages["pfn"][(pages["mapcount"] > 0) & (pages["mapping"] != 0)]


def at_once(path: Path, debug: Sequence[Path], expected: Path) -> None:
    """Open, read everything, ask of one page, check all. What is found is left in `expected`."""
    from rmap.query.fsck import fsck
    from rmap.query.targets import parse_target
    from rmap.query.who import who
    from rmap.source import no_progress
    from rmap.source.dump.image import tables
    from rmap.source.dump.program import open_dump
    from rmap.source.dump.reading import read

    def everything() -> MemoryImage:
        return tables(read(program, no_progress), 0)

    def rate(image: MemoryImage, took: float) -> str:
        entries = len(image.ptes)
        return (
            f"{entries:,} entries of {len(image.mms)} address spaces, {entries / took:,.0f} a "
            f"second; {len(image.pages):,} page frames"
        )

    program = timed("open", lambda: open_dump(path, debug), lambda *_: "")
    image = timed("read everything", everything, rate)
    pfns = mapped_pages(image)
    counts = image.reverse.count(pfns)
    pfn = int(pfns[int(np.argmax(counts))])
    target = [parse_target(f"pfn:{pfn:#x}")]
    timed("who maps the page most mapped", lambda: who(image, target),
          lambda answer, _: f"{next(iter(answer)).found} mappings")  # fmt: skip
    timed("fsck", lambda: fsck(image), lambda answer, _: f"{answer.total} findings")
    np.save(expected, np.stack([pfns, counts.astype(np.uint64)]))


def page_by_page(path: Path, debug: Sequence[Path], expected: Path) -> None:
    """Walk the reverse map of pages by the helpers for drgn. Raises `Failed`."""
    from drgn.helpers.linux.mm import pfn_to_page

    from rmap.drgn_helpers import page_mappings
    from rmap.source.dump.program import open_dump

    pfns, counts = np.load(expected)
    program = timed("open", lambda: open_dump(path, debug), lambda *_: "")

    def walk(pfn: int) -> int:
        return sum(1 for _ in page_mappings(pfn_to_page(program, pfn)))

    most = int(pfns[int(np.argmax(counts))])
    timed("walk of the page most mapped", lambda: walk(most), lambda n, _: f"{n} mappings")
    order = np.random.default_rng(1).permutation(len(pfns))
    start = time.perf_counter()
    found = done = 0
    while done < len(order) and time.perf_counter() - start < PATIENCE:
        for pfn in pfns[order[done : done + STEP]].tolist():
            found += walk(pfn)
        done = min(done + STEP, len(order))
    took = time.perf_counter() - start
    there = int(counts[order[:done]].sum())
    if found != there:
        raise Failed(f"walks found {found} mappings, page tables have {there}")
    whole = took * len(order) / max(done, 1)
    said = "" if done == len(order) else f", reckoned from {done:,} of them"
    print(f"  {'walk of every mapped page':32} {whole:9.3f} s {peak():8.0f} MiB  {len(order):,} "
          f"pages, {found / took:,.0f} mappings a second{said}")  # fmt: skip


WAYS = {"at_once": at_once, "page_by_page": page_by_page}


def measure(path: Path, debug: Sequence[Path], name: str) -> int:
    """Measure one dump, each way in a process of its own; returns the exit status."""
    print(f"\n{name}: {path.stat().st_size / MIB:,.0f} MiB")
    with tempfile.TemporaryDirectory(prefix="rmap-bench-") as directory:
        for way, title in (("at_once", "all at once"), ("page_by_page", "page by page")):
            print(f" {title}", flush=True)
            words = [sys.executable, "-m", "benchmarks.bench_dump", "--way", way, str(path)]
            words += ["--expected", f"{directory}/expected.npy"]
            words += [f"--debug={one}" for one in debug]
            status = subprocess.run(words, cwd=HERE.parent, check=False).returncode
            if status:
                return status
    return 0


def measure_reduced() -> int:
    """Measure the dumps of the tests."""
    status = 0
    with tempfile.TemporaryDirectory(prefix="rmap-bench-") as directory:
        for source in sorted(one for one in REDUCED.iterdir() if one.is_dir()):
            made = Path(directory) / source.name
            made.mkdir()
            for name in ("vmcore", "types.btf"):
                (made / name).write_bytes(lzma.decompress((source / f"{name}.xz").read_bytes()))
            debug = (made / "types.btf", source / "symbols.json")
            status |= measure(made / "vmcore", debug, f"Linux {source.name}, reduced")
    return status


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_dump",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dumps", metavar="VMCORE", type=Path, nargs="*")
    parser.add_argument("--debug", metavar="FILE", type=Path, action="append", default=[])
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--expected", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if importlib.util.find_spec("drgn") is None:
        print("bench_dump: drgn is not installed (pip install 'linux-rmap[dump]')")
        return 0
    if given.way:
        try:
            WAYS[given.way](given.dumps[0], given.debug, given.expected)
        except Failed as error:
            print(f"bench_dump: {error}", file=sys.stderr)
            return 1
        return 0
    if not given.dumps:
        return measure_reduced()
    return max(measure(path, given.debug, os.fspath(path)) for path in given.dumps)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""Run benchmarks: ``python -m benchmarks [NAME...]``.

A benchmark is a module ``benchmarks/bench_NAME.py``. It prints what it measured with units, stops
by itself, and runs as its own process, one after another, so that neither the memory of one nor
its warm caches of Python objects are counted to the next. The exit status is 1 if any failed,
2 for a name that is none.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import rmap

HERE = Path(__file__).resolve().parent


def benchmarks(directory: Path) -> list[str]:
    """The names of all benchmarks, in order."""
    return sorted(path.stem.removeprefix("bench_") for path in directory.glob("bench_*.py"))


def processor() -> str:
    """The processor's name as ``/proc/cpuinfo`` has it, or the architecture."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main(wanted: list[str]) -> int:
    """Run the benchmarks named, or all; returns the exit status."""
    known = benchmarks(HERE)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        names = ", ".join(known) or "none yet"
        print(
            f"benchmarks: no such benchmark: {', '.join(unknown)}; known: {names}", file=sys.stderr
        )
        return 2
    cpus = len(os.sched_getaffinity(0))
    print(f"{rmap.version_line()} on Python {platform.python_version()}")
    print(f"Linux {platform.release()}, {cpus} CPUs: {processor()}")
    failed = []
    for name in wanted or known:
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.bench_{name}"]
        if subprocess.run(command, cwd=HERE.parent, check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - start:.1f} s in all")
    if failed:
        print(f"benchmarks: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

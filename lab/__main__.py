# SPDX-License-Identifier: GPL-2.0-only
"""One command: a dump of a real kernel, and the truth beside it."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab.guest import FORMATS, Guest, Machine, boot
from lab.initramfs import build
from lab.packages import Kernel, LabError, fetch, newest

EPILOG = """\
Leaves in DIR: vmcore.elf and vmcore.kdump, truth.log (what the guest's own /proc says, see
lab/truth.py), console.log, lab.json (package, version, seconds). Needs qemu-system-x86, seabios,
busybox-static, gcc, and apt for the kernel, which --packages keeps for the next time.
"""
_SECONDS = 60.0
_ATTEMPTS = 20


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m lab", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--kernel", metavar="PACKAGE", help="linux-image-...-unsigned of Debian")
    which.add_argument("--series", metavar="X.Y", help="its newest kernel that apt-cache knows")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True)
    parser.add_argument("--packages", metavar="DIR", type=Path, help="of packages (OUTPUT)")
    parser.add_argument("-m", "--memory", metavar="MIB", type=int, default=128)
    parser.add_argument("--bulk", metavar="MIB,PROCESSES", default="",
                        help="this much more memory, that as many processes share")  # fmt: skip
    parser.add_argument(
        "--move",
        action="store_true",
        help="stop it at a random moment while memory moves between nodes",
    )
    parser.add_argument("--seed", type=int, help="of that moment")
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"of {', '.join(FORMATS)}")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = arguments().parse_args(words)
    output: Path = given.output
    try:
        output.mkdir(parents=True, exist_ok=True)
        kernel = fetch(given.kernel or newest(given.series), given.packages or output)
        for line in make(kernel, given, output):
            print(line, flush=True)
    except (LabError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def make(kernel: Kernel, given: argparse.Namespace, output: Path) -> list[str]:
    """Boot, wait, dump; returns what there is to say of it."""
    parameters = [f"LAB_BULK={given.bulk}"] if given.bulk else []
    machine = Machine(given.memory, 1, 1, tuple(parameters))
    if given.move:
        machine = Machine(given.memory, 2, 2, ("LAB_MOVE=1", *parameters))
    initramfs = build(kernel, output)
    known: dict[str, object] = {
        "package": kernel.package, "version": kernel.version, "memory_mib": given.memory,
    }  # fmt: skip
    began = time.monotonic()
    with boot(kernel.image, initramfs, machine, output) as guest:
        guest.wait(_SECONDS)
        known["boot_seconds"] = round(time.monotonic() - began, 2)
        if given.move:
            known["dumps_until_caught"] = catch(guest, output / FORMATS["elf"], given.seed)
        else:
            guest.ask("stop")
            for form in given.formats.split(","):
                began = time.monotonic()
                path = guest.dump(form, output / FORMATS[form])
                known[f"{form}_seconds"] = round(time.monotonic() - began, 2)
                known[f"{form}_bytes"] = path.stat().st_size
    (output / "lab.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    console = (output / "console.log").read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in console if line.startswith(("without", "release", "merged"))]
    return [*said, *(f"{name} {value}" for name, value in known.items())]


def catch(guest: Guest, path: Path, seed: int | None) -> int:
    """Stop the machine at random moments until some page is on the move; returns how often.

    The last dump stays, whatever is in it.
    """
    # What only looks at dumps is not needed to make one.
    from lab.movement import movement
    from lab.reduce import open_core
    from rmap.source.dump import dump_image

    chance = random.Random(seed)
    for attempt in range(1, _ATTEMPTS + 1):
        time.sleep(chance.uniform(0.05, 0.5))
        guest.ask("stop")
        guest.dump("elf", path)
        found = movement(dump_image(path), open_core(path))
        if found.migrating and not found.between:
            return attempt
        guest.ask("cont")
    return _ATTEMPTS


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""``python -m lab.damage VMCORE``: does every kind of damage, and says which check found it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from lab.damage import KINDS, Scene, Trial, flip, flips, try_all
from rmap.errors import ImageError
from rmap.image.validate import validate_image
from rmap.query.fsck import fsck


def main() -> int:
    """Run the bench; the exit status is 1 if something was not found."""
    parser = argparse.ArgumentParser(prog="python -m lab.damage", description=__doc__)
    parser.add_argument("dump", type=Path, help="an ELF core of a healthy kernel")
    parser.add_argument("--debug", type=Path, action="append", default=[],
                        help="as for rmap: types and symbols of a reduced dump")  # fmt: skip
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this kind")
    parser.add_argument("--output", type=Path, help="write the damaged dump of one kind to a file")
    parser.add_argument("--flips", type=int, default=0, metavar="N", help="flip N random bits too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", action="store_true", help="show what the finding says")
    options = parser.parse_args()
    scene = Scene(options.dump, options.debug)
    if fsck(scene.image).total:
        print("the dump is not healthy", file=sys.stderr)
        return 1
    kinds = [KINDS[name] for name in options.kind or KINDS]
    if options.output:
        print(kinds[0].do(scene).what)
        scene.copy(options.output)
        return 0
    trials = [_shown(trial, options.words) for trial in try_all(scene, kinds)]
    tried = [trial for trial in trials if not trial.lacking]
    missed = [trial for trial in tried if not trial.good]
    print(f"{len(tried)} kinds of damage, {len(tried) - len(missed)} found and located, "
          f"{len(trials) - len(tried)} not possible in this dump")  # fmt: skip
    if options.flips:
        _flip(scene, options.flips, options.seed)
    return bool(missed)


def _shown(trial: Trial, words: bool) -> Trial:
    if trial.lacking:
        print(f"{trial.kind.name:22} -- {trial.lacking}")
        return trial
    state = "ok" if trial.good else "MISSED" if not trial.right else "NOBODY"
    print(f"{trial.kind.name:22} {state:6} {trial.seconds:5.2f} s  {', '.join(trial.right)}"
          f"{'' if trial.good else ' of ' + ', '.join(trial.found)}")  # fmt: skip
    if words or not trial.good:
        print(f"{'':22} {trial.hurt.what if trial.hurt else ''}\n{'':22} {trial.words}")
    return trial


def _flip(scene: Scene, count: int, seed: int) -> None:
    with scene.watching() as pieces:
        scene.look()
    longest, findings, refused = 0.0, 0, 0
    for at, bit in flips(scene, pieces, count, seed):
        flip(scene, at, bit)
        started = time.perf_counter()
        try:
            image = scene.look()
        except ImageError as error:
            print(f"bit {bit} of byte {at:#x}: {error}")
            refused += 1
        else:
            findings += bool(fsck(image).total)
            validate_image(image, f"bit {bit} of byte {at:#x}")
        longest = max(longest, time.perf_counter() - started)
        scene.undo()
    print(f"{count} bits flipped, {findings} found, {refused} not to be read at all, "
          f"none took more than {longest:.2f} s")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

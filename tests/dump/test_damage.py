# SPDX-License-Identifier: GPL-2.0-only
"""The bench of corruption: damage of every kind, done to a healthy dump, is found and located.

And whatever is wrong with a dump, reading it ends, soon, with an image or with an error in words.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("drgn", reason="reading dumps needs drgn")

from lab.damage import KINDS, Kind, Scene, flip, flips, try_kind
from rmap.cli.main import run
from rmap.errors import ImageError
from rmap.image import MemoryImage
from rmap.image.validate import validate_image
from rmap.query.fsck import fsck
from rmap.source.dump import dump_image

from .reduced import Reduced

#: Seconds that reading a damaged dump of 128 MiB may take on a slow machine.
SOON = 20
#: What these kernels do not have.
LACKING = {
    "6.1": {"degree", "large-mapcount", "nr-pages-mapped"},
    "6.12": {"degree"},
}
FLIPS = 100


@pytest.fixture(scope="module")
def scene(reduced: Reduced) -> Scene:
    return Scene(reduced.path, reduced.debug)


def test_the_dump_is_healthy(scene: Scene) -> None:
    assert fsck(scene.image).total == 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_damage_is_found_and_located(scene: Scene, reduced: Reduced, kind: Kind) -> None:
    trial = try_kind(scene, kind)
    assert bool(trial.lacking) == (kind.name in LACKING[reduced.series]), trial.lacking
    if trial.lacking:
        pytest.skip(trial.lacking)
    assert trial.hurt is not None
    assert trial.right, f"{trial.hurt.what}: not among {trial.found}"
    assert trial.affected, f"{trial.hurt.what}: {trial.words}"
    assert trial.seconds < SOON


def test_most_kinds_are_possible() -> None:
    assert len(KINDS) - max(map(len, LACKING.values())) >= 90


def test_what_was_damaged_can_be_undone(scene: Scene) -> None:
    assert fsck(scene.look()).total == 0


def test_a_damaged_copy_is_told_by_the_command(
    scene: Scene, reduced: Reduced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "vmcore"
    try:
        hurt = KINDS["chain-loop"].do(scene)
        scene.copy(copy)
    finally:
        scene.undo()
    status = run(["fsck", "--dump", str(copy), *reduced.options[2:]])
    out, _ = capsys.readouterr()
    assert status == 1
    assert any(f"{address:#x}" in out for address in hurt.named)
    assert "affects" in out


def sound_or_refused(read: Callable[[], MemoryImage], name: str) -> MemoryImage | None:
    """The image that is read, which has to be one; ``None`` if that was refused in words."""
    started = time.perf_counter()
    try:
        image = read()
    except ImageError:
        return None
    validate_image(image, name)
    fsck(image)
    assert time.perf_counter() - started < SOON, name
    return image


def test_no_flipped_bit_is_too_much(scene: Scene) -> None:
    with scene.watching() as pieces:
        scene.look()
    refused = 0
    for at, bit in flips(scene, pieces, FLIPS, seed=6):
        try:
            flip(scene, at, bit)
            refused += sound_or_refused(scene.look, f"bit {bit} of byte {at:#x}") is None
        finally:
            scene.undo()
    assert refused <= FLIPS // 20, "what everything begins with is a small part of a dump"


@pytest.mark.parametrize(
    "name", ["__highest_present_section_nr", "mem_section", "nr_swapfiles", "shmem_swaplist",
             "init_pid_ns", "swap_info"],
)  # fmt: skip
def test_no_flipped_bit_of_a_global_is_too_much(scene: Scene, name: str) -> None:
    at = scene.place(scene.program.symbol(name).address)
    looked = 0
    for bit in range(0, 64, 7):
        try:
            flip(scene, at + bit // 8, bit % 8)
            sound_or_refused(scene.look, f"bit {bit} of {name}")
            looked += 1
        finally:
            scene.undo()
    assert looked == 10


def test_no_truncation_is_too_much(reduced: Reduced, tmp_path: Path) -> None:
    data = reduced.path.read_bytes()
    chance = random.Random(reduced.series)
    path = tmp_path / "vmcore"
    read = partial(dump_image, path, reduced.debug)
    for length in (0, 1, 63, 64):
        path.write_bytes(data[:length])
        assert sound_or_refused(read, f"{length} bytes") is None
    for length in (chance.randrange(64, len(data)) for _ in range(15)):
        path.write_bytes(data[:length])
        image = sound_or_refused(read, f"{length} bytes")
        assert image is None or len(image.pages) > 0

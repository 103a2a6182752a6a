# SPDX-License-Identifier: GPL-2.0-only
"""Dumps of which pages are missing, as makedumpfile excludes them: what is there is read right."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from rmap.errors import ImageError
from rmap.image import MemoryImage
from rmap.image.flags import Pte
from rmap.query.fsck import fsck

from .reduced import Reduced

SEEDS = range(6)


def needed(reduced: Reduced) -> set[int]:
    """Frames without which no other can be found: the kernel's page tables, global variables.

    What is read on the way to the map of page frames in no more than a page is that.
    """
    from drgn.helpers.linux.mm import phys_to_virt

    from lab.reduce import Tracer, open_core
    from rmap.source.dump.memmap import read_memory_map
    from rmap.source.dump.program import attach, sort_debug_files

    class Small(Tracer):
        def _read(
            self, base: int, start: int, address: int, count: int, offset: int, physical: bool
        ) -> bytes:
            self.noting = count <= 4096
            return super()._read(base, start, address, count, offset, physical)

    tracer = Small(open_core(reduced.path))
    program = attach(tracer.program, "", sort_debug_files(reduced.debug))
    read_memory_map(program)
    phys_to_virt(program, 0)
    return tracer.seen


def thinned(reduced: Reduced, path: Path, share: float, seed: int) -> int:
    """Write the dump without a share of its pages, taken at random; returns how many are gone."""
    from lab.reduce import PAGE, open_core, write_core

    core = open_core(reduced.path)
    frames = [
        physical // PAGE + page
        for physical, _, size in core.segments
        for page in range(size // PAGE)
    ]
    spare = sorted(set(frames) - needed(reduced))
    gone = set(random.Random(seed).sample(spare, int(len(spare) * share)))
    write_core(path, core, {frame: core.page(frame) for frame in frames if frame not in gone})
    return len(gone)


def mapped(image: MemoryImage) -> set[tuple[int, int]]:
    """Address and frame of each entry that maps a page."""
    entries = image.ptes
    rows = entries["flags"] & np.uint32(Pte.PRESENT) != 0
    return set(zip(entries["address"][rows].tolist(), entries["pfn"][rows].tolist(), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_there_is_read_right(
    reduced: Reduced, image: MemoryImage, tmp_path: Path, seed: int
) -> None:
    """Nothing is made up, what is missing is counted, and nothing crashes."""
    from rmap.source.dump import dump_image

    path = tmp_path / "vmcore"
    gone = thinned(reduced, path, (seed + 1) * 0.04, seed)
    torn = dump_image(path, reduced.debug)
    assert mapped(torn) <= mapped(image)
    machine = torn.machine
    lost = sum(int(machine[f"missing_{name}"][0]) for name in ("pages", "tables", "objects"))
    whole = mapped(torn) == mapped(image) and len(torn.pages) == len(image.pages)
    assert whole or lost > 0, f"{gone} pages are gone, and nothing is said to be missing"
    assert fsck(torn).results


def test_page_frames_without_descriptors_are_counted(
    reduced: Reduced, image: MemoryImage, tmp_path: Path
) -> None:
    """64 descriptors lie in a page of the memory map: each page that is gone takes as many."""
    from rmap.source.dump import dump_image

    path = tmp_path / "vmcore"
    thinned(reduced, path, 0.2, seed=1)
    torn = dump_image(path, reduced.debug)
    missing = int(torn.machine["missing_pages"][0])
    assert missing > 0
    assert missing % 64 == 0
    assert len(torn.pages) + missing == len(image.pages)
    same = np.isin(image.pages["pfn"], torn.pages["pfn"])
    small = image.pages["flags"][same] & np.uint64(0x1_8000) == 0  # no compound page
    assert (torn.pages["mapcount"][small] == image.pages["mapcount"][same][small]).all()


def test_a_dump_without_what_leads_to_the_rest_is_refused(reduced: Reduced, tmp_path: Path) -> None:
    """In one line, and not with a traceback."""
    from lab.reduce import open_core, write_core
    from rmap.source.dump import dump_image

    core, path = open_core(reduced.path), tmp_path / "vmcore"
    refused = 0
    for frame in sorted(needed(reduced))[:12]:
        pages = {
            physical // 4096 + page: core.page(physical // 4096 + page)
            for physical, _, size in core.segments
            for page in range(size // 4096)
        }
        del pages[frame]
        write_core(path, core, pages)
        said = ""
        try:
            dump_image(path, reduced.debug)
        except ImageError as error:
            said = str(error)
        refused += bool(said)
        assert "\n" not in said
    assert refused


def test_fsck_says_that_findings_may_come_from_what_is_missing(
    reduced: Reduced, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rmap.cli.main import run

    path = tmp_path / "vmcore"
    thinned(reduced, path, 0.1, seed=2)
    debug = [f"--debug={one}" for one in reduced.debug]
    assert run(["fsck", "--dump", str(path), *debug]) == 1
    assert "what it leads to is missing" in capsys.readouterr().err
    assert run(["fsck", *reduced.options]) == 0
    assert "missing" not in capsys.readouterr().err


def test_threads_and_places_of_huge_pages_are_known_without_what_tells_of_them(
    reduced: Reduced, tmp_path: Path
) -> None:
    """Few symbols, as in a dump made small by hand, make no finding of a healthy dump."""
    import json

    from rmap.source.dump import dump_image

    types, symbols = reduced.debug
    names = ("hugetlb_fault", "hugetlb_basepage_index", "__basepage_index")
    kept = {
        name: address
        for name, address in json.loads(symbols.read_text(encoding="utf-8")).items()
        if name not in names
    }
    few = tmp_path / "few.json"
    few.write_text(json.dumps(kept), encoding="utf-8")
    image = dump_image(reduced.path, (types, few))
    assert fsck(image).total == 0

# SPDX-License-Identifier: GPL-2.0-only
"""An image of a machine tells what the machine knows, and every command works on it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rmap.cli.main import run
from rmap.image import MemoryImage, read_image, write_image
from rmap.image.flags import Kpf, Pte, Vm
from rmap.image.validate import validate_image
from rmap.mm import bits
from rmap.mm.page import page_mapcount
from rmap.model import Process
from rmap.query.fsck import fsck
from tests.model.scene import PAGE, Scene
from tests.model.soak import FIXED, walk
from tests.model.world import World


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def image(scene: Scene) -> MemoryImage:
    return scene.machine.snapshot()


def row_of(image: MemoryImage, process: Process) -> int:
    """The address space of a process."""
    return int(image.processes["mm"][image.processes["pid"] == process.pid][0])


def entry(image: MemoryImage, process: Process, address: int) -> dict[str, int]:
    rows = image.find_ptes(row_of(image, process), address, address + PAGE)
    return image.ptes.row(rows.start)


def vma_row(image: MemoryImage, process: Process, address: int) -> int:
    return int(image.find_vmas(row_of(image, process), [address])[0])


def test_it_obeys_every_rule_of_the_schema(image: MemoryImage) -> None:
    validate_image(image, "the snapshot")
    assert image.machine.row(0)["source"] == "model"


def test_it_has_every_table_that_a_model_can_fill(image: MemoryImage) -> None:
    # It has merged nothing, it has no huge pages, and nothing is damaged.
    empty = [name for name, table in image.tables.items() if not len(table)]
    assert empty == ["ksm_items", "compounds", "damage"]


def test_processes_and_their_sizes(scene: Scene, image: MemoryImage) -> None:
    assert image.processes["comm"].tolist() == ["parent", "child"]
    assert image.processes["ppid"].tolist() == [-1, scene.parent.pid]
    assert image.processes["cgroup"].tolist() == ["/group", "/group"]
    rss = scene.parent.mm.rss_stat
    sizes = image.mms.row(row_of(image, scene.parent))
    assert sizes["rss_anon"] == rss[bits.MM_ANONPAGES] * PAGE
    assert sizes["rss_shmem"] == rss[bits.MM_SHMEMPAGES] * PAGE
    assert sizes["swap"] == 2 * PAGE
    assert sizes["locked"] == PAGE


def test_vmas_are_told_as_they_are(scene: Scene, image: MemoryImage) -> None:
    told = image.vmas.row(vma_row(image, scene.parent, scene.mapped))
    assert told["path"] == "data"
    assert told["file"] >= 0
    assert told["flags"] & Vm.SHARED
    own = image.vmas.row(vma_row(image, scene.parent, scene.own))
    assert own["pgoff"] == 2
    anon = scene.vma(scene.parent, scene.anon)
    told = image.vmas.row(vma_row(image, scene.parent, scene.anon))
    assert (told["start"], told["end"], told["pgoff"]) == (
        anon.vm_start,
        anon.vm_end,
        anon.vm_pgoff,
    )


def test_entries_say_what_the_hardware_has(scene: Scene, image: MemoryImage) -> None:
    written = entry(image, scene.child, scene.anon)
    assert written["pfn"] == scene.page(scene.child, scene.anon)
    assert written["flags"] & (Pte.PRESENT | Pte.WRITE | Pte.DIRTY | Pte.EXCLUSIVE) == (
        Pte.PRESENT | Pte.WRITE | Pte.DIRTY | Pte.EXCLUSIVE
    )
    shared = entry(image, scene.child, scene.anon + PAGE)
    assert not shared["flags"] & (Pte.WRITE | Pte.EXCLUSIVE | Pte.FILE)
    assert entry(image, scene.parent, scene.mapped)["flags"] & Pte.FILE
    gone = entry(image, scene.parent, scene.swapped)
    assert gone["flags"] & Pte.SWAP
    slots = image.swap_slots["entry"].tolist()
    assert gone["pfn"] in slots
    assert image.swap_slots["count"][slots.index(gone["pfn"])] == 1


def test_pages_say_whose_they_are(scene: Scene, image: MemoryImage) -> None:
    k = scene.k
    for process, address, kind in (
        (scene.parent, scene.anon, Kpf.ANON | Kpf.SWAPBACKED),
        (scene.parent, scene.mapped, Kpf.MMAP),
        (scene.parent, scene.shared, Kpf.SWAPBACKED),
        (scene.parent, scene.locked, Kpf.MLOCKED | Kpf.UNEVICTABLE),
    ):
        pfn = scene.page(process, address)
        told = image.pages.row(int(image.find_pages([pfn])[0]))
        assert told["flags"] & kind == kind
        assert told["mapcount"] == page_mapcount(k, pfn)
        assert told["refcount"] == k.pg_refcount[pfn]
        assert told["index"] == k.pg_index[pfn]
    free = image.pages["flags"] & np.uint64(Kpf.BUDDY) != 0
    assert int(free.sum()) == k.nr_free


def test_chains_trees_and_counts_are_in_their_order(scene: Scene, image: MemoryImage) -> None:
    vma = scene.vma(scene.child, scene.anon)
    row = vma_row(image, scene.child, scene.anon)
    chains = image.tables["anon_vma_chains"]
    mine = chains["vma"] == row
    order = np.argsort(chains["chain_position"][mine])
    rows = chains["anon_vma"][mine][order].tolist()
    handles = image.tables["anon_vmas"]["handle"][rows].tolist()
    assert handles == [avc.anon_vma.handle for avc in vma.anon_vma_chain]
    own = image.tables["anon_vmas"].row(int(image.vmas["anon_vma"][row]))
    assert own["handle"] == vma.anon_vma.handle
    assert own["degree"] == vma.anon_vma.degree
    assert own["parent"] == own["root"] == rows[-1]
    in_root = chains["anon_vma"] == rows[-1]
    assert sorted(chains["tree_position"][in_root].tolist()) == list(range(in_root.sum()))
    tree = image.tables["i_mmap"]
    pids = image.processes["pid"][image.vmas["mm"][tree["vma"]]]
    assert set(pids.tolist()) == {scene.parent.pid, scene.child.pid}


def test_it_changes_nothing(scene: Scene) -> None:
    before = scene.machine.mem_stats()
    scene.machine.snapshot()
    assert scene.machine.mem_stats() == before
    assert scene.machine.check() == []


def test_it_outlives_the_machine() -> None:
    scene = Scene()
    image = scene.machine.snapshot()
    mapcount = image.pages["mapcount"].tolist()
    refcount = image.pages["refcount"].tolist()
    scene.parent.exit()
    scene.child.exit()
    assert image.pages["mapcount"].tolist() == mapcount
    assert image.pages["refcount"].tolist() == refcount


def test_fsck_finds_nothing_in_what_random_operations_leave() -> None:
    for seed in range(20):
        world = World(FIXED)
        for op in walk(seed)[1:]:
            world.do(op)
        image = world.machine.snapshot()
        validate_image(image, f"walk {seed}")
        assert [check.outcome.total for check in fsck(image).results] == [0] * len(
            fsck(image).results
        )


# ---------------------------------------------------------------- the commands


Rmap = Callable[..., tuple[int, str]]


@pytest.fixture
def rmap(image: MemoryImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Rmap:
    """Run a command on the image: exit status and what it printed."""
    path = tmp_path / "model.zip"
    write_image(image, path)

    def call(command: str, *arguments: str) -> tuple[int, str]:
        target = (str(path),) if command == "sql" else ("--image", str(path))
        status = run((command, *target, *arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out

    return call


def test_who_names_both_processes_of_a_shared_page(scene: Scene, rmap: Rmap) -> None:
    pfn = scene.page(scene.parent, scene.anon + PAGE)
    status, out = rmap("who", f"pfn:{pfn:#x}", "--format", "csv")
    assert status == 0
    mapped = [(row["pids"], int(row["mapped_at"], 0)) for row in csv.DictReader(out.splitlines())]
    address = scene.anon + PAGE
    assert mapped == [(str(scene.parent.pid), address), (str(scene.child.pid), address)]


def test_report_adds_up_what_processes_have(rmap: Rmap) -> None:
    status, out = rmap("report")
    assert status == 0
    assert "parent" in out
    assert "child" in out


def test_fsck_agrees_with_the_machine(rmap: Rmap) -> None:
    status, out = rmap("fsck")
    assert status == 0, out


def test_sql_reads_the_trees(scene: Scene, rmap: Rmap) -> None:
    status, out = rmap("sql", "select count(*) as edges from anon_vma_chains", "--format", "csv")
    assert status == 0
    assert out.split() == ["edges", str(len(scene.machine.snapshot().tables["anon_vma_chains"]))]


def test_map_draws_it(rmap: Rmap, tmp_path: Path) -> None:
    status, _ = rmap("map", "-o", str(tmp_path / "map.svg"))
    assert status == 0
    assert (tmp_path / "map.svg").read_text().startswith("<")


def test_a_file_of_it_is_the_same_image(image: MemoryImage, tmp_path: Path) -> None:
    write_image(image, tmp_path / "model.zip")
    again = read_image(tmp_path / "model.zip")
    assert all(again.tables[name].equals(table) for name, table in image.tables.items())

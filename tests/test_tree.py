# SPDX-License-Identifier: GPL-2.0-only
"""The anon_vma forest: what is computed of an image, and what is drawn."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import forests
import numpy as np
import pytest
from goldens import Golden
from hypothesis import given, settings
from hypothesis import strategies as st
from images import World

from rmap.draw.scene import Circle, Line, Rect, Scene, Text, text_width
from rmap.draw.svg import to_svg
from rmap.draw.tree_dot import tree_dot
from rmap.draw.tree_picture import draw_forest
from rmap.draw.tree_text import tree_text
from rmap.draw.tree_view import view
from rmap.errors import TargetError
from rmap.image import MemoryImage
from rmap.image.flags import Kpf, Pte
from rmap.query.infer import inferred
from rmap.query.tree import Forest, Strip, forest, strips
from rmap.query.walks import walk_costs, walks
from rmap.scenario import parse
from rmap.scenario.naming import named
from rmap.scenario.runner import run_scenario

WORLDS: dict[str, Callable[[], MemoryImage]] = {
    "generations": forests.generations,
    "server": forests.server,
    "unequal": forests.unequal,
    "several": forests.several,
}


def of(name: str) -> Forest:
    """The forest of a small machine."""
    return forest(WORLDS[name]())


# What is computed.


def test_a_family_by_generations() -> None:
    (family,) = of("generations").families
    assert [(n.number, n.depth, n.children, n.pages) for n in family.nodes] == [
        (1, 0, (1,), 3), (2, 1, (2,), 1), (3, 2, (), 1),
    ]  # fmt: skip
    assert [node.tree for node in family.nodes] == [(0, 1, 2), (1, 2), (2,)]
    assert [node.owners for node in family.nodes] == [(0,), (1,), (2,)]
    assert [(vma.comm, vma.anon_vma, vma.chain) for vma in family.vmas] == [
        ("P0", 0, (0,)), ("P1", 1, (1, 0)), ("P2", 2, (2, 1, 0)),
    ]  # fmt: skip
    assert family.pids == (1, 2, 3)
    runs = [(run.anon_vma, run.pages, run.vmas, run.visited, run.found) for run in family.pages]
    assert runs == [
        (0, 1, (0,), 3, 1), (0, 1, (0, 1), 3, 2), (0, 1, (0, 1, 2), 3, 3), (1, 1, (1, 2), 2, 2),
        (2, 1, (2,), 1, 1),
    ]  # fmt: skip
    assert family.findings == ()


def test_what_a_vma_holds() -> None:
    image = forests.generations()
    assert strips(image, 1) == [
        Strip("anon", 1, 1), Strip("anon", 2, 0), Strip("swap", 1, -1), Strip("none", 1, -1),
    ]  # fmt: skip
    assert strips(image, 1, by_sharing=True)[:2] == [
        Strip("anon", 1, 1, True), Strip("anon", 2, 0, True),
    ]  # fmt: skip
    assert strips(image, 0, by_sharing=True)[:2] == [
        Strip("anon", 1, 0, False), Strip("anon", 2, 0, True),
    ]  # fmt: skip
    image = forests.several()
    assert strips(image, 0) == [Strip("anon", 1, 0), Strip("zero", 1, -1), Strip("none", 298, -1)]


def test_what_must_not_be_is_found() -> None:
    (family,) = of("unequal").families
    found = {finding.rule: finding for finding in family.findings}
    assert "both have anon_vma 2 as their own" in found["same-chain"].text
    assert found["same-chain"].vmas == (0, 1)
    assert "page 0x41 names anon_vma 3" in found["owner-in-chain"].text
    assert "anon_vma 4 as its owner, which was freed" in found["allocated"].text
    assert len(family.findings) == 3
    for name in ("generations", "server", "several"):
        assert of(name).findings == ()


def test_a_vma_that_leads_to_a_freed_anon_vma_is_found() -> None:
    world = forests.model()
    gone = world.anon_vma(refcount=0)
    world.process(1, "P0").vma(forests.AREA, 1, pgoff=forests.INDEX).hang(gone)
    (finding,) = forest(world.build()).findings
    assert "leads to anon_vma 1, which was freed" in finding.text


def test_families_of_one_process() -> None:
    world = forests.model()
    for pid in (1, 2):
        root = world.anon_vma()
        world.process(pid, f"P{pid}").vma(forests.AREA, 1, pgoff=forests.INDEX).hang(root)
    image = world.build()
    assert [family.pids for family in forest(image).families] == [(1,), (2,)]
    assert [family.pids for family in forest(image, [2]).families] == [(2,)]
    with pytest.raises(TargetError, match="no process 9"):
        forest(image, [9])


def test_parents_that_go_in_circles_hide_nobody() -> None:
    """An image may come from anywhere."""
    world = forests.model()
    a, b, c = world.anon_vma(), world.anon_vma(), world.anon_vma()
    for anon_vma, parent in ((a, b), (b, a), (c, c)):
        world.anon_vmas[anon_vma].update(parent=parent, root=c)
    world.process(1, "P0").vma(forests.AREA, 1, pgoff=forests.INDEX).hang(a, b, c)
    (family,) = forest(world.build()).families
    assert sorted(node.anon_vma for node in family.nodes) == [a, b, c]
    assert tree_text(Forest(world.build(), (family,)), "a ring")


def test_pages_alike_are_one_run() -> None:
    world = forests.model()
    root = world.anon_vma()
    area = world.process(1, "P0").vma(forests.AREA, 9, pgoff=forests.INDEX).hang(root)
    area.map(forests.AREA, *range(0x20, 0x29))
    forests.own_pages(world, 0x20, root, *range(forests.INDEX, forests.INDEX + 9))
    (family,) = forest(world.build()).families
    assert [(run.index, run.pages, run.pfn) for run in family.pages] == [(forests.INDEX, 9, 0x20)]


# Against the model: its own walks and its own lists say the same.

_OPERATIONS = st.lists(
    st.one_of(
        st.builds("write {{p}} A {} {}".format, st.integers(0, 7), st.integers(1, 4)),
        st.builds("read {{p}} F {} {}".format, st.integers(0, 7), st.integers(1, 4)),
        st.builds("mprotect {{p}} A {} {} {}".format, st.integers(0, 7), st.integers(1, 3),
                  st.sampled_from(["r", "rw"])),
        st.builds("mremap {{p}} A {} {} B".format, st.integers(0, 7), st.integers(1, 3)),
        st.builds("munmap {{p}} A {} {}".format, st.integers(0, 7), st.integers(1, 2)),
        st.just("fork {p} C{n}"),
        st.just("exit {p}"),
    ),
    max_size=14,
)  # fmt: skip


@settings(max_examples=40)
@given(_OPERATIONS)
def test_a_forest_is_what_the_model_has(operations: list[str]) -> None:
    lines = ["ram 1M", "let n = 0", "mmap P0 A 8 anon", "mmap P0 F 8 file:f:0", "write P0 A 0 4"]
    for operation in operations:
        lines += ["if processes > 0", "let p = any process", "let n = n + 1"]
        lines += [f"try {operation}", "end"]
    state = run_scenario(parse("\n".join(lines))).state
    kernel = state.machine.kernel
    image = named(state.machine.snapshot(), state.regions)
    grown = forest(image)
    nodes = {node.number: node for family in grown.families for node in family.nodes}
    live = {av.handle: av for av in kernel.anon_vmas[1:] if av.refcount}
    assert set(nodes) == set(live)
    for number, node in nodes.items():
        assert node.num_active_vmas == len(node.owners) == live[number].num_active_vmas
        is_root = live[number].root is live[number]
        assert len(node.children) + is_root == live[number].num_children
    vmas = {vma.vma: vma for family in grown.families for vma in family.vmas}
    kernel_vmas = [vma for mm in kernel.mms for vma in mm.vmas]
    for row, vma in vmas.items():
        chain = [nodes[avc.anon_vma.handle].anon_vma for avc in kernel_vmas[row].anon_vma_chain]
        assert list(vma.chain) == chain
    check_walks(state.machine, image)


def check_walks(machine, image: MemoryImage) -> None:
    """Every page that is mapped costs what a walk of the model meets."""
    computed = walks(image)
    pfns = image.pages["pfn"][computed.rows].tolist()
    assert pfns == image.pages["pfn"][image.reverse.count(image.pages["pfn"]) > 0].tolist()
    for pfn, visited, found in zip(pfns, computed.visited, computed.found, strict=True):
        walk = machine.walk(pfn)
        assert (walk.visited, walk.mapped) == (visited, found)
    total = sum(cost.visited for cost in walk_costs(image))
    assert total == computed.visited.sum()


def test_an_image_without_owners_has_no_walks() -> None:
    world = World()
    world.process(1).vma(0x1000, 1).map(0x1000, 0x20)
    world.pages(0x20)
    assert len(walks(world.build()).rows) == 0
    assert walk_costs(world.build()) == []


# Inferred, where the source shows no anon_vmas.


def test_families_are_inferred_from_shared_pages() -> None:
    """As the live machine would show the generations: it has no anon_vmas and no vm_pgoff."""
    known = forests.generations()
    world = World()
    for row, pid in enumerate((1, 2, 3)):
        process = world.process(pid, f"P{row}", ppid=max(pid - 1, 1))
        process.vma(forests.AREA + row * 0, 5)
        for entry in range(*known.find_ptes(row, forests.AREA, forests.AREA + 0x5000).indices(99)):
            values = known.ptes.row(entry)
            process.pte(values["address"], values["pfn"], flags=values["flags"])
    stranger = world.process(4, "stranger")
    stranger.vma(forests.AREA, 1).map(forests.AREA, 0x77)
    for pfn in (0x20, 0x21, 0x22, 0x30, 0x31, 0x77):
        world.pages(pfn)
    image = world.build()
    grown = forest(image)
    assert grown.inferred
    assert [family.pids for family in grown.families] == [(1, 2, 3), (4,)]
    family = grown.families[0]
    assert [vma.chain for vma in family.vmas] == [(0,)] * 3
    assert {vma.anon_vma for vma in family.vmas} == {-1}
    assert [(run.pages, run.visited, run.found) for run in family.pages] == [
        (1, 3, 1), (1, 3, 2), (1, 3, 2), (1, 3, 1), (1, 3, 3),
    ]  # fmt: skip
    text = "\n".join(tree_text(grown, "this"))
    assert "Inferred: no anon_vma is visible in /proc" in text
    assert "Family 1: 3 VMAs of 3 processes" in text
    assert "\n  P0 1\n  ├─ P1 2\n  │  └─ P2 3\n  └─ stranger 4\n" in text
    assert "refcount" not in text


def test_what_moved_is_inferred_to_be_kin() -> None:
    """A child that was forked after its area moved has the same pages at other addresses."""
    world = World()
    world.process(1, "a").vma(0x100000, 4).map(0x101000, 0x21)
    world.process(2, "b").vma(0x900000, 4).map(0x901000, 0x21)
    world.pages(0x21)
    image = inferred(world.build())
    (family,) = forest(image).families
    assert len({vma.pgoff for vma in family.vmas}) == 1


def test_equal_contents_make_no_kin() -> None:
    """Pages that KSM merged are nobody's inheritance."""
    world = World()
    for pid in (1, 2):
        world.process(pid).vma(0x100000, 1).map(0x100000, 0x21)
    world.pages(0x21, 1, int(Kpf.KSM | Kpf.ANON | Kpf.UPTODATE))
    assert forest(world.build()).families == ()


def test_a_huge_page_joins_as_its_small_ones_do() -> None:
    world = World(ram=[(0, 0x1000)])
    world.process(1).vma(0x200000, 512).map_huge(0x200000, 0x200)
    world.process(2).vma(0x200000, 512).map(0x203000, 0x203)
    world.folio(0x200, 9)
    (family,) = forest(world.build()).families
    assert family.pids == (1, 2)


# What is drawn.


@pytest.mark.parametrize("name", WORLDS)
def test_drawings_are_what_they_were(golden: Golden, name: str) -> None:
    grown = of(name)
    golden.check_same(f"tree-{name}.txt", "".join(f"{line}\n" for line in tree_text(grown, name)))
    golden.check_same(f"tree-{name}.dot", tree_dot(grown, name))
    golden.check_same(f"tree-{name}.svg", to_svg(draw_forest(grown, name)))


def box(text: Text) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a text, as wide as a wide font would set it."""
    width = text_width(text.text, text.size, mono=text.mono)
    left = text.x - {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    return left, text.y - text.size * 0.75, left + width, text.y + text.size * 0.25


def check_legible(scene: Scene) -> None:
    """No text overlaps another or leaves the picture; shapes stay inside."""
    boxes = [(text.text, *box(text)) for text in scene.shapes if isinstance(text, Text)]
    for what, left, top, right, bottom in boxes:
        assert left >= 0, what
        assert top >= 0, what
        assert right <= scene.width, what
        assert bottom <= scene.height, what
    for (a, *first), (b, *second) in combinations(boxes, 2):
        apart = first[2] <= second[0] or second[2] <= first[0]
        apart = apart or first[3] <= second[1] or second[3] <= first[1]
        assert apart, f"{a!r} overlaps {b!r}"
    for shape in scene.shapes:
        if isinstance(shape, Rect):
            assert shape.x >= 0
            assert shape.x + shape.width <= scene.width
            assert shape.y + shape.height <= scene.height
        elif isinstance(shape, Line):
            assert max(shape.x1, shape.x2) <= scene.width
        elif isinstance(shape, Circle):
            assert shape.y + shape.radius <= scene.height


@pytest.mark.parametrize("name", WORLDS)
def test_a_picture_is_legible(name: str) -> None:
    check_legible(draw_forest(of(name), name))


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_picture_of_a_part_is_legible(limit: int) -> None:
    check_legible(draw_forest(of("server"), "server", limit))


def test_a_deep_and_wide_family_is_legible() -> None:
    world = forests.model()
    chain = [world.anon_vma(refcount=100, degree=3)]
    for depth in range(12):
        chain.append(world.anon_vma(chain[-1], degree=2))
        process = world.process(depth + 1, f"a process with a long name {depth}")
        area = process.vma(forests.AREA, 500, pgoff=forests.INDEX, name="[anon:a long name]")
        area.map(forests.AREA + depth * 0x9000, 0x20 + depth).hang(*reversed(chain))
        forests.own_pages(world, 0x20 + depth, chain[-1], forests.INDEX + 9 * depth)
    check_legible(draw_forest(forest(world.build()), "generations without end"))


def test_a_dot_for_every_chain_and_a_ring_for_every_own() -> None:
    scene = draw_forest(of("generations"), "generations")
    circles = [shape for shape in scene.shapes if isinstance(shape, Circle)]
    legend = 2
    rings = [circle for circle in circles if circle.width == 2.0]
    assert (len(circles) - legend, len(rings) - 1) == (6, 3)
    assert len({circle.x for circle in circles}) - legend == 3  # a column for each anon_vma


def test_siblings_alike_are_folded() -> None:
    (family,) = of("server").families
    shown = view(family)
    assert [node.number for node in shown.nodes] == [1, 2, 3, 4]
    assert [(folded.count, folded.like.number) for folded in shown.folded] == [(37, 2)]
    assert (len(shown.vmas), shown.left_vmas) == (4, 37)
    everything = view(family, 0)
    assert (len(everything.nodes), everything.folded, everything.left_vmas) == (41, (), 0)
    few = view(family, 2)
    assert (len(few.nodes), few.left_nodes, len(few.vmas)) == (2, 2, 2)


def test_what_a_finding_is_about_is_drawn_in_any_case() -> None:
    (family,) = of("unequal").families
    shown = view(family, 1)
    assert {vma.vma for vma in shown.vmas} == {0, 1}
    assert {node.number for node in shown.nodes} == {1, 2, 3, 4}
    text = "\n".join(tree_text(of("unequal"), "x", 1))
    assert text.count("!!") == 3


def test_an_empty_forest_says_so() -> None:
    empty = forest(forests.model().build())
    (line,) = tree_text(empty, "nothing.rmap")
    assert line == "nothing.rmap: no anon_vma, since nothing private was ever written."
    assert "no anon_vma" in to_svg(draw_forest(empty, "nothing.rmap"))
    assert tree_dot(empty, "nothing.rmap").startswith("digraph")


def test_names_from_elsewhere_do_no_harm() -> None:
    world = forests.model()
    root = world.anon_vma()
    evil = world.process(1, '\x1b[31m"</svg>\n\\')
    evil.vma(forests.AREA, 1, pgoff=forests.INDEX, path='/tmp/"];x\x1b').hang(root)
    grown = forest(world.build())
    assert all("\x1b" not in line and "\n" not in line for line in tree_text(grown, "x"))
    picture = ET.fromstring(to_svg(draw_forest(grown, "x")))
    assert "\x1b" not in "".join(picture.itertext())
    dot = tree_dot(grown, "x")
    assert "\x1b" not in dot
    for line in dot.splitlines():  # quotes are balanced: nothing leaves its string
        assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0, line


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", WORLDS)
def test_graphviz_takes_it(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        ["dot", "-Tsvg"], input=tree_dot(of(name), name), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "anon_vma 1" in result.stdout


def test_a_forest_of_a_thousand_children_is_quick() -> None:
    grown = forest(forests.server(1000))
    (family,) = grown.families
    assert len(family.nodes) == 1001
    assert family.pages[0].visited == 1001
    assert len(tree_text(grown, "server")) < 30
    assert np.count_nonzero(grown.image.ptes["flags"] & np.uint32(Pte.PRESENT)) == 1001

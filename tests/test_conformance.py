# SPDX-License-Identifier: GPL-2.0-only
"""The model against what real kernels did, and the harness that compares them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from worlds import complaints

import rmap
from tools.conformance.__main__ import main
from tools.conformance.corpus import PROFILES, Program, corpus, load
from tools.conformance.execute import run
from tools.conformance.explain import explain, shortest
from tools.conformance.facts import describe, differing, facts
from tools.conformance.language import LanguageError, parse
from tools.conformance.world import vma_flags

RECORDED = {profile: corpus(profile) for profile in PROFILES}
CASES = [
    pytest.param(profile, program, id=f"{profile}-{program.name}")
    for profile, programs in RECORDED.items()
    for program in programs
]


@pytest.mark.parametrize(("profile", "program"), CASES)
def test_model_ends_where_the_kernel_did(profile: str, program: Program) -> None:
    got = run(program.text, profile)
    if got != program.result:
        pytest.fail("\n".join(explain(program, profile).lines()))
    assert complaints(got) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_recorded_worlds_are_sound(profile: str) -> None:
    assert len(RECORDED[profile]) == 547
    found = {program.name: complaints(program.result) for program in RECORDED[profile]}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_an_unsound_world_is_noticed() -> None:
    """The check that all results pass finds each of these."""
    sound = next(p for p in RECORDED["6.1"] if p.name == "hand-mlock").result
    for path, value in [
        (("vmas", 0, 2), 140),
        (("vmas", 0, 7), []),
        (("anon_vmas", 0, 2), 9),
        (("anon_vmas", 0, 3), 9),
        (("anon_vmas", 0, 4), 9),
        (("anon_vmas", 0, 5), [0, 4, 5, 2, 1, 6]),
        (("pages", 4, 3), 1),
        (("pages", 4, 4), 3),
        (("pages", 4, 5), "xs"),
        (("pages", 4, 2), 130),
        (("ptes", 4, 3), 7),
        (("files", 0, 1), []),
    ]:
        world = copy.deepcopy(sound)
        place = world[path[0]][path[1]]
        assert place[path[2]] != value
        place[path[2]] = value
        assert complaints(world) != [], path


# ---------------------------------------------------------------- the harness


def test_programs_are_numbered_without_comments_and_regions_placed_in_order() -> None:
    operations = parse(
        """
        # two regions, the second at a place of its own
        mmap P0 A 8 anon
        mmap P0 B 4 fileprivate:F:3 ro at:500   # a file

        mremap P0 A 2 4 C 9 dontunmap
        write P0 B 1 2
        fork P0 P7
        """
    )
    assert [(op.number, op.name) for op in operations] == [
        (1, "mmap"),
        (2, "mmap"),
        (3, "mremap"),
        (4, "write"),
        (5, "fork"),
    ]
    first, second, moved, write, fork = operations
    assert (first.page, first.length, first.kind, first.protection) == (128, 8, "anon", "rw")
    assert (second.page, second.file, second.pgoff, second.protection) == (500, "F", 3, "r")
    assert (moved.page, moved.length, moved.new_page, moved.new_length) == (130, 4, 384, 9)
    assert moved.dontunmap
    assert (write.page, write.length) == (501, 2)
    assert fork.child == 7


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("munmap P0 A 0 1", "no region A"),
        ("mmap P0 A 1 anonymous", "anonymous is none of"),
        ("mmap P0 A 1 file", "a file and its page"),
        ("mmap P0 A 1 anon rx", "rx is no option"),
        ("mmap 0 A 1 anon", "0 is no process"),
        ("mmap P0 A", "not as documented"),
        ("mmap P0 A one anon", "not as documented"),
        ("sleep P0 A", "no region A"),
        ("mmap P0 A 1 anon\nmmap P0 A 1 anon at:5", "line 2: .* is at 128 already"),
        ("mmap P0 A 1 anon\nmadvise P0 A 0 1 please", "please is none of"),
        ("mmap P0 A 1 anon\nsleep P0 A 0 1", "no operation sleep"),
    ],
)
def test_a_bad_line_is_named(line: str, why: str) -> None:
    with pytest.raises(LanguageError, match=why):
        parse(line)


def test_facts_tell_the_field_and_not_the_numbering() -> None:
    """One more VMA at the front shifts every number; only what is new or different is told."""
    one = next(p for p in RECORDED["6.1"] if p.name == "hand-fork-once").result
    other = copy.deepcopy(one)
    assert facts(one) == facts(other)
    other["pages"][0][3] += 1
    keys = differing(facts(one), facts(other))
    assert keys == [("page", "P0:128", "mapcount")]
    assert describe(keys[0], facts(one), facts(other)) == (
        "page P0:128 mapcount: kernel 1, model 2"
    )


def test_every_field_of_a_world_is_a_fact() -> None:
    world = next(p for p in RECORDED["6.1"] if p.name == "hand-file-double").result
    changes: list[tuple[str, int, int, object]] = [
        *(("vmas", 3, column, -1) for column in range(6)),
        ("vmas", 3, 7, [0]),
        ("vmas", 3, 6, 0),
        *(("anon_vmas", 1, column, value) for column, value in enumerate((1, 1, 9, 9, 9))),
        ("anon_vmas", 1, 5, [0]),
        *(("pages", 2, column, -1) for column in range(7)),
        ("ptes", 2, 0, 9),
        ("ptes", 2, 1, 9),
        ("ptes", 2, 2, 0),
        ("ptes", 2, 3, 0),
        ("files", 0, 1, [0]),
        ("files", 0, 0, "G"),
    ]
    for part, row, column, value in changes:
        other = copy.deepcopy(world)
        assert other[part][row][column] != value, (part, row, column)
        other[part][row][column] = value
        assert differing(facts(world), facts(other)) != [], (part, row, column)
    assert facts({**world, "live": [0]}) != facts(world)
    assert facts({**world, "status": [[3, -12, 0]]}) != facts(world)


def test_flags_are_spelt_as_recorded() -> None:
    spelt = {vma[3] for program in RECORDED["6.1"] for vma in program.result["vmas"]}
    assert {"rw-p ac", "r--p", "---p", "rw-s", "rw-p lo ac"} <= spelt
    assert vma_flags(0) == "---p"
    assert vma_flags(0x2000 | 0x10_0000 | 0x3) == "rw-p lo ac"
    assert vma_flags(0x8 | 0x2_0000 | 0x1) == "r--s dc"


def test_programs_of_one_family_are_explained_by_the_shortest() -> None:
    names = ["prefix-1-mixed-30", "gen-7-mixed-30", "prefix-1-mixed-20", "prefix-2-files-30"]
    programs = [Program(name, (), "", {}) for name in names]
    assert [program.name for program in shortest(programs)] == [
        "prefix-1-mixed-20",
        "gen-7-mixed-30",
        "prefix-2-files-30",
    ]


# ---------------------------------------------------------------- the command


def own_program(path: Path, text: str, **changes: object) -> Path:
    """Write a program with the model's own result, some of it changed."""
    path.write_text(json.dumps({"program": text, "result": {**run(text, "6.1"), **changes}}))
    return path


def test_a_file_of_ones_own_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = own_program(tmp_path / "mine.json", "mmap P0 A 2 anon\nwrite P0 A 0 1")
    assert [program.name for program in load(file)] == ["mine-1"]
    assert main([str(file), "--profile", "6.1"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == rmap.version_line()
    assert "profile 6.1: 1 of 1 programs agree" in out


def test_a_difference_is_told_with_its_operation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "mmap P0 A 4 anon\nwrite P0 A 0 1\nfork P0 P1\nmunmap P0 A 2 2"
    world = run("\n".join(text.splitlines()[:3]), "6.1")
    file = own_program(tmp_path / "mine.json", text, vmas=world["vmas"])
    assert main([str(file), "--profile", "6.1"]) == 1
    out = capsys.readouterr().out
    assert "0 of 1 programs agree" in out
    assert "first at operation 4: munmap P0 A 2 2" in out
    assert "vma P0:128 end: kernel 132, model 130" in out


def test_what_stops_the_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = own_program(tmp_path / "mine.json", "mmap P0 A 4 anon")
    changed = json.loads(file.read_text())
    changed["program"] += "\nsleep P0 A 0 1"
    file.write_text(json.dumps(changed))
    assert main([str(file), "--profile", "6.1"]) == 1
    assert "LanguageError" in capsys.readouterr().out


def test_quirks_are_switched_and_weighed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the fix of CVE-2022-42703 the program that shows it ends elsewhere."""
    name = "hand-cve-2022-42703"
    assert main([name, "--profile", "6.1", "--without", "separate_reuse_counters"]) == 1
    out = capsys.readouterr().out
    assert "profile 6.1-separate_reuse_counters: 0 of 1 programs agree" in out
    assert main([name, "--profile", "6.1", "--quirks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"     1 separate_reuse_counters  such as {name}" in lines
    assert "     0 mlock_counts" in lines


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["no-such-program"])
    assert stopped.value.code == 2
    assert "no program and no file is called no-such-program" in capsys.readouterr().err


def test_a_file_that_holds_no_programs_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"program": "mmap P0 A 1 anon"}')
    with pytest.raises(ValueError, match=r"bad\.json:1: 'result' has to be a state"):
        load(tmp_path / "bad.json")
    (tmp_path / "worse.json").write_text('{"program"\n')
    with pytest.raises(ValueError, match=r"worse\.json:1: not JSON"):
        load(tmp_path / "worse.json")

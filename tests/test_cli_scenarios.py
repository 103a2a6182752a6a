# SPDX-License-Identifier: GPL-2.0-only
"""``rmap run`` and ``rmap tree`` as they are typed: answers, complaints, exit statuses."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import forests
import pytest
from goldens import Golden

from rmap.cli.main import run
from rmap.image import read_image, write_image
from rmap.scenario.library import shipped

RMAP = [sys.executable, "-m", "rmap.cli.main"]
Rmap = Callable[..., tuple[int, str, str]]

FAMILY = """\
# A family of three
ram 1M
swap 256K
mmap P0 A 4 anon
write P0 A 0 4
fork P0 P1
write P1 A 0 1
fork P1 P2
write P2 A 1 1
print The page that P2 wrote:
who P2 A 1
munmap P0 A 9 0
expect mapcount P0 A 3 == 3
"""


@pytest.fixture
def rmap(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Rmap:
    """Run a command in this process, in a directory with a scenario and an image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "family.rmap").write_text(FAMILY)
    write_image(forests.generations(), tmp_path / "generations.zip")

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(arguments)
        return (status, *capsys.readouterr())

    return call


def check_one_line(rmap: Rmap, status: int, says: str, *arguments: str) -> None:
    """Assert that a command fails with that status and one line that says so, and no answer."""
    actual, out, err = rmap(*arguments)
    assert (actual, out) == (status, "")
    assert err.count("\n") == 1, err
    assert err.startswith(f"rmap {arguments[0]}: ")
    assert says in err


# Golden outputs.


@pytest.mark.parametrize("suffix", ["txt", "json", "csv"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("run-family", ("run", "family.rmap")),
        ("run-cve", ("run", "cve-2022-42703")),
        ("run-list", ("run", "--list")),
        ("tree-family", ("tree", "family.rmap")),
        ("tree-image", ("tree", "generations.zip")),
        ("tree-cve", ("tree", "cve-2022-42703", "--until", "52", "--pid", "P5")),
    ],
)
def test_answers_are_what_they_were(
    rmap: Rmap, golden: Golden, name: str, arguments: tuple[str, ...], suffix: str
) -> None:
    status, out, err = rmap(*arguments, "--format", "table" if suffix == "txt" else suffix)
    assert (status, err) == (0, "")
    golden.check_same(f"{name}.{suffix}", out)
    if suffix == "json":
        assert json.loads(out)["schema"].startswith(f"rmap.{name.split('-')[0]}")
    if suffix == "csv":
        assert len({len(row) for row in csv.reader(io.StringIO(out))}) == 1


def test_the_language_is_documented_as_it_is() -> None:
    from tools import scenarios_doc

    text = scenarios_doc.PATH.read_text(encoding="utf-8")
    assert text == scenarios_doc.document(), "run: python tools/scenarios_doc.py"


def test_the_first_example_of_the_documentation_runs(rmap: Rmap) -> None:
    from tools import scenarios_doc

    text = scenarios_doc.PATH.read_text(encoding="utf-8")
    scenario, session = text.split("```")[1], text.split("```")[3]
    Path("child.rmap").write_text(scenario)
    shown = session.splitlines()[2:-1]
    status, out, _ = rmap("run", "child.rmap")
    assert status == 0
    assert out.splitlines()[: len(shown)] == shown


# Running.


def test_a_finding_is_an_exit_status(rmap: Rmap) -> None:
    Path("wrong.rmap").write_text("mmap P0 A 1 anon\nexpect rss P0 == 7\n")
    status, out, err = rmap("run", "wrong.rmap")
    assert (status, err) == (1, "")
    assert out.startswith("wrong.rmap:2: expected rss P0 == 7, but rss P0 is 0\n")
    assert "Expectations met: 0, not met: 1." in out


def test_a_scenario_is_read_from_standard_input() -> None:
    result = subprocess.run(
        [*RMAP, "run", "-", "--format", "csv"], input="spawn a\nspawn b\n", text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert [line.split(",")[1] for line in result.stdout.splitlines()] == ["name", "a", "b"]


def test_the_users_choice_of_kernel_counts(rmap: Rmap) -> None:
    def facts(*arguments: str) -> dict[str, object]:
        status, out, _ = rmap("run", *arguments, "--format", "json")
        assert status == 0
        return json.loads(out)

    broken = facts("cve-2022-42703")
    assert broken["profile"] == "4.18"
    assert broken["violations"]
    repaired = facts("cve-2022-42703", "--quirk", "separate_reuse_counters")
    assert (repaired["profile"], repaired["violations"]) == ("4.18+separate_reuse_counters", [])
    assert facts("cve-2022-42703", "--profile", "6.1")["violations"] == []
    assert facts("mapping-storm", "--seed", "3", "--check", "never")["seed"] == 3


def test_the_trace_names_kernel_functions(rmap: Rmap) -> None:
    status, out, _ = rmap("run", "family.rmap", "--trace")
    assert status == 0
    assert "     6  anon_vma_fork            vma new:A+0*4, parent P0:A+0*4, anon_vma 2\n" in out
    assert "page_remove_rmap" in out
    _, out, _ = rmap("run", "family.rmap", "--trace", "--format", "json")
    kinds = {event["kind"] for event in json.loads(out)["log"]}
    assert {"trace", "output", "failure"} <= kinds


def test_the_memory_that_is_left_is_an_image(rmap: Rmap) -> None:
    status, out, err = rmap("run", "family.rmap", "--image", "left.zip", "--until", "11")
    assert (status, err) == (0, "Wrote left.zip.\n")
    assert "The run ended early: stopped in line 11." in out
    image = read_image("left.zip")
    assert image.processes["comm"].tolist() == ["P0", "P1", "P2"]
    assert set(image.vmas["name"]) == {"[anon:A]"}
    assert rmap("fsck", "--image", "left.zip")[0] == 0
    status, out, _ = rmap("who", "--image", "left.zip", "3:0x100000081000")
    assert status == 0
    assert "P2" in out
    status, from_image, _ = rmap("tree", "left.zip")
    _, from_scenario, _ = rmap("tree", "family.rmap", "--until", "11")
    assert from_image.splitlines()[2:] == from_scenario.splitlines()[2:]


def test_many_failures_are_not_all_told(rmap: Rmap) -> None:
    Path("many.rmap").write_text("mmap P0 A 1 anon\nrepeat 30\nmunmap P0 A 0 0\nend\n")
    status, out, _ = rmap("run", "many.rmap")
    assert status == 0
    assert out.count("EINVAL") == 20
    assert "Operations that failed: 30." in out


def test_a_thousand_processes_are_not_all_listed(rmap: Rmap) -> None:
    Path("many.rmap").write_text("for i in 1..50\nspawn p{i}\nend\n")
    _, out, _ = rmap("run", "many.rmap")
    assert "30 more are not listed; --limit 0 lists all." in out
    _, out, _ = rmap("run", "many.rmap", "--limit", "0")
    assert "p50" in out
    _, out, _ = rmap("run", "many.rmap", "--format", "json")
    assert len(json.loads(out)["processes"]) == 50


def test_what_a_scenario_prints_does_no_harm(rmap: Rmap) -> None:
    Path("evil.rmap").write_text("print \x1b[2J\x07 done\n")
    status, out, _ = rmap("run", "evil.rmap")
    assert status == 0
    assert "\x1b" not in out
    assert out.startswith("\\x1b[2J\\x07 done\n")


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("no scenario is named; `rmap run --list`", ()),
        ("nosuch is no file and no scenario that comes with rmap (compaction-", ("nosuch",)),
        ("directory: Is a directory", ("directory",)),
        ("latin.rmap:2: not UTF-8 text", ("latin.rmap",)),
        ("wrong.rmap:1: there is no 'xyzzy'", ("wrong.rmap",)),
        ("no profile '2.4'; known: 4.18", ("family.rmap", "--profile", "2.4")),
        ("no quirk 'luck'; known: ", ("family.rmap", "--quirk", "luck")),
        ("--quirk luck=maybe: write luck, luck=on or luck=off",
         ("family.rmap", "--quirk", "luck=maybe")),
        ("cannot write no/x.zip", ("family.rmap", "--image", "no/x.zip")),
        ("--check", ("family.rmap", "--check", "often")),
        ("--seed", ("family.rmap", "--seed", "-1")),
        ("--until", ("family.rmap", "--until", "0")),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be(rmap: Rmap, says: str, arguments: tuple[str, ...]) -> None:
    Path("directory").mkdir()
    Path("latin.rmap").write_bytes(b"# fine\n# caf\xe9\n")
    Path("wrong.rmap").write_text("xyzzy\n")
    check_one_line(rmap, 2, says, "run", *arguments)


def test_an_image_replaces_nothing_but_an_image(rmap: Rmap) -> None:
    Path("diary.txt").write_text("dear diary")
    check_one_line(rmap, 2, "is not an rmap image", "run", "family.rmap", "--image", "diary.txt")
    assert Path("diary.txt").read_text() == "dear diary"


def test_a_reader_that_goes_away_is_no_error() -> None:
    text = "repeat 20000\nprint a line that nobody reads\nend\n"
    process = subprocess.Popen(
        [*RMAP, "run", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(text)
    process.stdin.close()
    assert process.stdout.readline() == "a line that nobody reads\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*RMAP, "run", "-"], input="print x\n", stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == "rmap run: cannot write the answer: No space left on device\n"


def test_shipped_scenarios_are_in_the_package() -> None:
    lessons = [name for name in shipped() if name.startswith("lesson-")]
    numbers = sorted(int(name.split("-")[1]) for name in lessons)
    assert numbers == list(range(1, len(lessons) + 1))
    assert [name for name in shipped() if name not in lessons] == [
        "compaction-under-fork", "cve-2022-42703", "fork-server", "ksm-host", "mapping-storm",
        "memcg-squeeze", "memory-error", "redis-bgsave", "shared-libraries", "thp-reclaim",
    ]  # fmt: skip


# Drawing.


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [("svg", b"<svg"), ("png", b"\x89PNG"), ("dot", b"digraph"), ("json", b"{"),
     ("csv", b"family,"), ("txt", b"family.rmap: 3 anon_vmas")],
)  # fmt: skip
def test_a_drawing_is_what_its_file_is_called(rmap: Rmap, suffix: str, begins: bytes) -> None:
    status, out, err = rmap("tree", "family.rmap", "-o", f"forest.{suffix}")
    assert (status, out) == (0, "")
    assert err.startswith("family.rmap: 3 anon_vmas in 1 family")
    assert err.endswith(f"Wrote forest.{suffix}.\n")
    assert Path(f"forest.{suffix}").read_bytes().startswith(begins)
    quiet = rmap("tree", "family.rmap", "-q", "-o", f"again.{suffix}")
    assert quiet == (0, "", "")
    assert Path(f"again.{suffix}").read_bytes() == Path(f"forest.{suffix}").read_bytes()


def test_a_picture_goes_to_standard_output(rmap: Rmap) -> None:
    status, out, err = rmap("tree", "family.rmap", "--format", "svg")
    assert (status, err) == (0, "")
    assert ET.fromstring(out).tag.endswith("svg")


def test_a_forest_of_one_process(rmap: Rmap) -> None:
    Path("two.rmap").write_text("spawn a\nspawn b\nmmap a A 1 anon\nwrite a A 0 1\n"
                                "mmap b B 1 anon\nwrite b B 0 1\n")  # fmt: skip
    _, out, _ = rmap("tree", "two.rmap", "--pid", "b", "--format", "json")
    assert {vma["comm"] for vma in json.loads(out)["vmas"]} == {"b"}
    _, out, _ = rmap("tree", "two.rmap", "--pid", "1", "--format", "json")
    assert {vma["comm"] for vma in json.loads(out)["vmas"]} == {"a"}


def test_a_scenario_that_leaves_nobody(rmap: Rmap) -> None:
    Path("gone.rmap").write_text("mmap P0 A 1 anon\nwrite P0 A 0 1\nexit P0\n")
    status, out, err = rmap("tree", "gone.rmap")
    assert (status, out) == (0, "gone.rmap: no anon_vma, since nothing private was ever written.\n")
    assert err == "gone.rmap: no process is left at its end; --until LINE stops before.\n"


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("name it .svg, .png", ("family.rmap", "-o", "forest.gif")),
        ("a PNG picture is for a file", ("family.rmap", "--format", "png")),
        ("cannot write no/x.svg", ("family.rmap", "-o", "no/x.svg")),
        ("nosuch is no file and no scenario", ("nosuch",)),
        ("--pid P9: no such process", ("family.rmap", "--pid", "P9")),
        ("--pid P0: it has exited by then", ("gone.rmap", "--pid", "P0")),
        ("no process 99 in this image", ("family.rmap", "--pid", "99")),
        ("--pid shop: not a process id", ("generations.zip", "--pid", "shop")),
        ("no process 99 in this image", ("generations.zip", "--pid", "99")),
        ("99999999999 is no PID", ("99999999999",)),
        ("cut.zip", ("cut.zip",)),
        ("directory", ("directory",)),
        ("wrong.rmap:1: there is no 'xyzzy'", ("wrong.rmap",)),
    ],
)
def test_a_drawing_that_cannot_be(rmap: Rmap, says: str, arguments: tuple[str, ...]) -> None:
    Path("directory").mkdir()
    Path("cut.zip").write_bytes(Path("generations.zip").read_bytes()[:2000])
    Path("gone.rmap").write_text("mmap P0 A 1 anon\nexit P0\nspawn P1\n")
    Path("wrong.rmap").write_text("xyzzy\n")
    check_one_line(rmap, 2, says, "tree", *arguments)


@pytest.mark.live
def test_a_live_family_is_inferred() -> None:
    """A process that forked: its child's memory is its own, and the drawing says what it is."""
    code = (
        "import os, signal, time; x = bytearray(1 << 22); child = os.fork()\n"
        "if not child: signal.pause()\n"
        "print(flush=True); input(); os.kill(child, signal.SIGKILL)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        result = subprocess.run(
            [*RMAP, "tree", str(process.pid), "--format", "json"], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    finally:
        process.communicate("\n")
    answer = json.loads(result.stdout)
    assert answer["inferred"] is True
    families: dict[int, set[int]] = {}
    for vma in answer["vmas"]:
        families.setdefault(vma["family"], set()).add(vma["pid"])
    assert any(process.pid in pids and len(pids) > 1 for pids in families.values())
    assert all(page["found"] <= page["visited"] for page in answer["pages"])


def test_output_that_is_no_terminal_has_no_colour() -> None:
    result = subprocess.run(
        [*RMAP, "tree", "cve-2022-42703"], capture_output=True, text=True, check=True,
        env=os.environ | {"FORCE_COLOR": "1"},
    )  # fmt: skip
    assert "\x1b" not in result.stdout

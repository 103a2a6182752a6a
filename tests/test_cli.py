# SPDX-License-Identifier: GPL-2.0-only
"""The command line as a user meets it: answers, complaints, exit statuses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from goldens import Golden
from machines import LIBC, small_machine

from rmap.cli.main import app, run
from rmap.image import read_image, write_image

ROOT = Path(__file__).resolve().parent.parent
RMAP = [sys.executable, "-m", "rmap.cli.main"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small machine as a file."""
    path = tmp_path_factory.mktemp("images") / "small.zip"
    write_image(small_machine(), path)
    return str(path)


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """The small machine, of which the kernel's count and the page tables disagree."""
    write_image(small_machine(broken=True), tmp_path / "broken.zip")
    return str(tmp_path / "broken.zip")


@pytest.fixture
def rmap(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: (exit status, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(arguments)
        return (status, *capsys.readouterr())

    return call


Rmap = Callable[..., tuple[int, str, str]]


def check_one_line(rmap: Rmap, status: int, says: str, *arguments: str) -> None:
    """Assert that a command fails with that status and one line that says so, and no answer."""
    actual, out, err = rmap(*arguments)
    assert (actual, out) == (status, "")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith("rmap")
    assert says in err


# Golden outputs: one for each command and format.


@pytest.mark.parametrize("suffix", ["txt", "json", "csv"])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sql", ("sql", "IMAGE", "select * from processes")),
        (
            "sql-mappings",
            (
                "sql",
                "IMAGE",
                "select pid, addr(address) as address, pages, bytes, permissions, path, swapped "
                "from mappings order by pid, mappings.address",
            ),
        ),
        ("sql-tables", ("sql", "IMAGE")),
        ("report", ("report", "--image", "IMAGE")),
        ("report-command", ("report", "--image", "IMAGE", "--by", "command")),
        ("report-cgroup", ("report", "--image", "IMAGE", "--by", "cgroup", "--raw")),
        ("who", ("who", "--image", "IMAGE", "100", "666:0x7f0000010000", LIBC, "phys:0x40123")),
        ("who-huge", ("who", "--image", "IMAGE", "101:0x40100000+8K", "pfn:0x200+512")),
        ("who-nothing", ("who", "--image", "IMAGE", "100:0x1000", "pfn:0x100")),
        ("fsck", ("fsck", "--image", "IMAGE")),
        ("fsck-one", ("fsck", "--image", "IMAGE", "--check", "overlap")),
        ("report-pids", ("report", "--image", "IMAGE", "101", "--limit", "1")),
    ],
)
def test_answers_are_what_they_were(
    rmap: Rmap, image: str, golden: Golden, name: str, arguments: tuple[str, ...], suffix: str
) -> None:
    format = "table" if suffix == "txt" else suffix
    given = [image if argument == "IMAGE" else argument for argument in arguments]
    status, out, err = rmap(*given, "--format", format)
    assert "\x1b" not in out
    if name == "who-nothing":  # nothing is there for the second target
        assert status == 2
        assert err.count("\n") == 1
    else:
        assert (status, err) == (0, "")
    golden.check_same(f"{name}.{suffix}", out)
    if suffix == "json":
        answer = json.loads(out)
        assert answer["schema"].startswith(f"rmap.{name.split('-')[0]}")


@pytest.mark.parametrize("suffix", ["txt", "json", "csv"])
def test_a_disagreement_is_a_finding(rmap: Rmap, broken: str, golden: Golden, suffix: str) -> None:
    format = "table" if suffix == "txt" else suffix
    status, out, err = rmap("fsck", "--image", broken, "--format", format)
    assert (status, err) == (1, "")
    golden.check_same(f"fsck-broken.{suffix}", out)


def test_findings_that_are_not_described_are_counted(rmap: Rmap, broken: str) -> None:
    status, out, _ = rmap("fsck", "--image", broken, "--limit", "0")
    assert status == 1
    assert "1 more findings; --limit" in out


# A list on standard input.


def piped(text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run rmap with that standard input."""
    return subprocess.run([*RMAP, *arguments], input=text, capture_output=True, check=False)


def test_a_list_of_targets_is_read_in_one_pass(image: str) -> None:
    text = b"# pages\n\npfn:0x10\n phys:0x40123 \n" + LIBC.encode() + b"@4K+4K\n"
    result = piped(text, "who", "-", "--image", image, "--format", "json")
    assert (result.returncode, result.stderr) == (0, b"")
    runs = json.loads(result.stdout)["runs"]
    assert [run["target"] for run in runs] == ["pfn:0x10", "phys:0x40123", f"{LIBC}@4K+4K"]
    assert [run["pfn"] for run in runs] == ["0x10", "0x40", "0x11"]


def test_thousands_of_targets(image: str) -> None:
    text = "".join(f"pfn:{at % 0x100:#x}\n" for at in range(5000)).encode()
    result = piped(text, "who", "-", "--image", image, "--format", "csv")
    assert result.returncode == 0
    targets = [line.split(b",")[0] for line in result.stdout.splitlines()[1:]]
    assert len(dict.fromkeys(targets)) == 0x100
    assert len(targets) >= 5000


def test_a_wrong_target_does_not_hide_the_others(image: str) -> None:
    result = piped(b"pfn:0x10\n999\n700\npfn:0x11\n", "who", "-", "--image", image)
    assert result.returncode == 3  # the process that may not be read weighs more than the typo
    assert b"pfn:0x10" in result.stdout
    assert b"pfn:0x11" in result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(b"rmap who: ") for line in lines)


def test_a_line_that_is_no_target_is_named(image: str) -> None:
    result = piped(b"pfn:1\npfn:zz\n", "who", "-", "--image", image)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"line 2" in result.stderr


def test_a_list_may_hold_any_bytes(image: str) -> None:
    result = piped(b"/tmp/\xff\x1b[2J\x00\n", "who", "-", "--image", image)
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.count(b"\n") == 1
    assert b"\x1b" not in result.stderr


# What is wrong is said in one line.


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("No such command 'whose'", ("whose",)),
        ("No such option: --colour", ("sql", "--colour")),
        ("Missing argument 'IMAGE'", ("sql",)),
        ("Missing option", ("map",)),
        ("--by", ("map", "-o", "x.svg", "--by", "luck")),
        ("'yaml' is not one of", ("sql", "x", "--format", "yaml")),
        ("name it .svg, .png or .html", ("map", "-o", "x.gif")),
        ("PID", ("snapshot", "-o", "x.zip", "init")),
        ("--by", ("report", "--by", "luck")),
        ("--limit", ("report", "--limit", "-1")),
        ("--limit", ("fsck", "--limit", "many")),
        ("TARGET", ("who",)),
    ],
)
def test_a_bad_command_line(rmap: Rmap, says: str, arguments: tuple[str, ...]) -> None:
    check_one_line(rmap, 2, says, *arguments)


def test_usage_errors_point_to_help(rmap: Rmap) -> None:
    assert rmap("sql")[2] == "rmap sql: Missing argument 'IMAGE' (see: rmap sql --help)\n"


def test_a_bare_rmap_shows_its_commands(rmap: Rmap) -> None:
    status, _, err = rmap()
    assert status == 2
    for command in app.registered_commands:
        assert f"\n  {command.name} " in err


@pytest.mark.parametrize("command", [str(command.name) for command in app.registered_commands])
def test_every_command_explains_itself_with_examples(rmap: Rmap, command: str) -> None:
    status, out, err = rmap(command, "--help")
    assert (status, err) == (0, "")
    assert f"  rmap {command}" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    "command",
    [
        ("sql", "FILE", "select 1"),
        ("map", "-o", "x.svg", "FILE"),
        ("report", "FILE"),
        ("fsck", "FILE"),
        ("who", "1", "FILE"),
    ],
)
def test_a_bad_image(
    rmap: Rmap, image: str, tmp_path: Path, command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    whole = Path(image).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text("not an image")
    (tmp_path / "directory").mkdir()
    for name in ("cut.zip", "text", "directory", "missing"):
        given = ["--image", name] if command[0] != "sql" else [name]
        arguments = [a for word in command for a in (given if word == "FILE" else [word])]
        check_one_line(rmap, 2, name, *arguments)
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize(
    ("status", "says", "arguments"),
    [
        (2, "no process 4", ("report", "4")),
        (3, "process 700 may not be read", ("report", "700")),
        (2, "--freeze", ("report", "--freeze", "100")),
        (2, "--freeze", ("who", "--freeze", "100")),
        (2, "no process 4", ("who", "4")),
        (3, "process 700", ("who", "700")),
        (2, "is not a page of RAM", ("who", "pfn:0x100000")),
        (2, "/no/such/file", ("who", "/no/such/file")),
        (2, "not a target", ("who", "100:there")),
        (2, "no check 'luck'", ("fsck", "--check", "luck")),
    ],
)
def test_what_an_image_cannot_answer(
    rmap: Rmap, image: str, status: int, says: str, arguments: tuple[str, ...]
) -> None:
    check_one_line(rmap, status, says, *arguments, "--image", image)


@pytest.mark.parametrize(
    "sql", ["selec 1", "select * from nowhere", "create table t (a int)", "select 1; select 2"]
)
def test_bad_sql(rmap: Rmap, image: str, sql: str) -> None:
    check_one_line(rmap, 2, "rmap sql: SQL: ", "sql", image, sql)


def test_an_output_that_cannot_be_written(rmap: Rmap, image: str, tmp_path: Path) -> None:
    where = str(tmp_path / "no" / "x.svg")
    check_one_line(rmap, 2, "is not a directory", "map", "--image", image, "-o", where)
    check_one_line(rmap, 2, "is not a directory", "snapshot", "-o", where)
    (tmp_path / "d.svg").mkdir()
    target = str(tmp_path / "d.svg")
    check_one_line(rmap, 2, f"cannot write {target}", "map", "-q", "--image", image, "-o", target)


def test_a_snapshot_replaces_nothing_but_an_image(rmap: Rmap, tmp_path: Path) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    check_one_line(rmap, 2, "is not an rmap image", "snapshot", "-o", str(diary))
    assert diary.read_text() == "dear diary"


def test_freezing_needs_someone_to_freeze(rmap: Rmap, tmp_path: Path) -> None:
    check_one_line(rmap, 2, "--freeze", "snapshot", "--freeze", "-o", str(tmp_path / "x.zip"))


def test_names_in_complaints_are_harmless(rmap: Rmap) -> None:
    status, _, err = rmap("sql", "/no\x1b[2J\nrmap: all is well")
    assert status == 2
    assert "\x1b" not in err
    assert err.count("\n") == 1


# Pictures.


@pytest.mark.parametrize(("suffix", "begins"), [
    ("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>"),
])  # fmt: skip
def test_a_picture_and_a_sentence(
    rmap: Rmap, image: str, tmp_path: Path, suffix: str, begins: bytes
) -> None:
    path = tmp_path / f"memory.{suffix}"
    status, out, err = rmap("map", "--image", image, "-o", str(path))
    assert (status, out) == (0, "")
    assert err.startswith("Of 4.0 MiB of RAM, ")
    assert f"Wrote {path}.\n" in err
    assert path.read_bytes().startswith(begins)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # nothing left aside
    assert rmap("map", "-q", "--image", image, "-o", str(path), "--by", "kind") == (0, "", "")


# As a program of its own.


def test_a_reader_that_goes_away_is_no_error(image: str) -> None:
    query = "select a.pfn from pages a cross join (from pages limit 100)"
    process = subprocess.Popen(
        [*RMAP, "sql", image, query], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().strip() == "pfn"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_a_full_disk_is_told(image: str) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*RMAP, "sql", image], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 2
    assert result.stderr == "rmap sql: cannot write the answer: No space left on device\n"


def test_a_terminal_sees_no_escape_of_a_stranger(image: str) -> None:
    """On a real terminal: the names of the small machine want to write to it, and may not."""
    leader, follower = pty.openpty()
    # A short answer: it fits into the terminal's buffer, which nobody reads meanwhile.
    query = "select comm, path from mappings where pid = 666"
    subprocess.run(
        [*RMAP, "sql", image, query], stdout=follower, stderr=subprocess.PIPE, check=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "\x1b" not in shown
    assert r"\x1b[31mevil\x0arow" in shown
    assert r"[bold]x[/bold]" in shown


def test_help_needs_no_heavy_library() -> None:
    """Start-up is quick because commands import what they need, when they need it."""
    code = (
        "import sys; from rmap.cli.main import run; run(['--help'])\n"
        "heavy = {'numpy', 'pyarrow', 'duckdb', 'rich', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_version_and_mode(rmap: Rmap) -> None:
    import rmap as package

    assert rmap("--version") == (0, f"{package.version_line()}\n", "")


def test_the_shell_completes_commands() -> None:
    result = subprocess.run(
        RMAP, capture_output=True, text=True, check=True,
        env=os.environ | {
            "_RMAP_COMPLETE": "complete_bash", "COMP_WORDS": "rmap s", "COMP_CWORD": "1"
        },
    )  # fmt: skip
    assert result.stdout.split() == ["snapshot", "sql"]


def test_the_documentation_of_commands_is_up_to_date() -> None:
    from tools import commands_doc

    text = commands_doc.PATH.read_text(encoding="utf-8")
    assert text == commands_doc.document(), "run: python tools/commands_doc.py"


def test_images_written_by_tests_are_whole(image: str) -> None:
    assert len(read_image(image).processes) == 4

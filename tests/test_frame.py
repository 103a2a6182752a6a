# SPDX-License-Identifier: GPL-2.0-only
"""The scripts around the package: the demo, the benchmark runner, continuous integration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.__main__ as runner
import rmap

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "tools" / "demo.sh"
CI = ROOT / ".ci" / "run"

# Stands in for the command: says what it was asked, and leaves as it is told to.
RECORDER = """#!/bin/sh
echo "asked: $*"
case $1 in
    snapshot) exit ${SNAPSHOT:-0} ;;
    sql) echo path; echo /lib/libc.so ;;
    fsck) exit ${FSCK:-0} ;;
esac
"""


def demo(tmp_path: Path, **statuses: str) -> tuple[int, str, list[str]]:
    """Exit status, output and questions of a demo with the stand-in for the command."""
    recorder = tmp_path / "rmap"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    done = subprocess.run(
        [str(DEMO)],
        env=os.environ | {"RMAP": str(recorder), "OUT": str(tmp_path / "out")} | statuses,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, re.findall(r"^asked: (.*)$", done.stdout, re.MULTILINE)


def test_the_demo_asks_one_image_of_this_machine(tmp_path: Path) -> None:
    status, output, asked = demo(tmp_path)
    image = f"{tmp_path}/out/machine.zip"
    assert status == 0
    assert asked == [
        f"snapshot -o {image}",
        f"report --image {image}",
        f"who --image {image} /lib/libc.so@0+4K",
        f"fsck --image {image}",
        f"map --image {image} -o {tmp_path}/out/memory.svg",
    ]
    assert "That was this machine;" in output


def test_where_the_machine_may_not_be_read_the_shipped_image_stands_in(tmp_path: Path) -> None:
    status, output, asked = demo(tmp_path, SNAPSHOT="3")
    assert status == 0
    assert asked[1] == "report --image src/rmap/data/demo-image.zip"
    assert "a recorded machine" in output


def test_a_finding_does_not_end_the_demo(tmp_path: Path) -> None:
    status, _, asked = demo(tmp_path, FSCK="1")
    assert (status, len(asked)) == (0, 5)


@pytest.mark.parametrize("failure", [{"SNAPSHOT": "1"}, {"FSCK": "2"}])
def test_any_other_failure_ends_it(tmp_path: Path, failure: dict[str, str]) -> None:
    status, output, _ = demo(tmp_path, **failure)
    assert status == int(*failure.values())
    assert "That was" not in output


@pytest.fixture
def two_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One benchmark that works and one that fails, in place of the real ones."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "bench_walk.py").write_text("print('walked: 7 ns')\n")
    (package / "bench_wait.py").write_text("raise SystemExit('nothing came')\n")
    monkeypatch.setattr(runner, "HERE", package)


@pytest.mark.usefixtures("two_benchmarks")
class TestBenchmarks:
    def test_all_run_and_a_failure_is_named(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert runner.main([]) == 1
        printed = capfd.readouterr()
        assert printed.out.startswith(rmap.version_line())
        assert "walked: 7 ns" in printed.out
        assert printed.err.splitlines() == ["nothing came", "benchmarks: failed: wait"]

    def test_one_can_be_chosen(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert runner.main(["walk"]) == 0
        assert "== wait" not in capfd.readouterr().out

    def test_an_unknown_name_is_a_usage_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert runner.main(["fly"]) == 2
        said = "benchmarks: no such benchmark: fly; known: wait, walk\n"
        assert capfd.readouterr() == ("", said)


def checkout(path: Path, user: int, python: str) -> subprocess.CompletedProcess[str]:
    """Run CI's script as `user`, in a tree where make and apt-get only say what they were asked."""
    for name, text in {
        "Makefile": "test lint:\n\t@echo make $@ $(PYTHON) required=$(RMAP_REQUIRE_EXT); cat\n",
        "bin/apt-get": '#!/bin/sh\necho "apt-get $*"\n',
        "bin/id": f"#!/bin/sh\necho {user}\n",
        ".ci/run": CI.read_text(),
        ".ci/dumps": "#!/bin/sh\necho dumps required=$RMAP_REQUIRE_EXT; cat\n",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
        (path / name).chmod(0o755)
    # Without what an outer make hands down: it would make this one more talkative.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        [str(path / ".ci" / "run")],
        env=environment | {"PYTHON": python, "PATH": f"{path}/bin:{os.environ['PATH']}"},
        input="never read\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_ci_requires_the_compiled_core_and_reads_no_input(tmp_path: Path) -> None:
    done = checkout(tmp_path, 0, sys.executable)
    assert done.returncode == 0, done.stderr
    ours = [
        line for line in done.stdout.splitlines() if not line.startswith(("apt-get", "== inst"))
    ]
    assert ours == [
        f"make test {sys.executable} required=1",
        f"make lint {sys.executable} required=1",
        "dumps required=1",
        "== .ci/run: tests and lint passed",
    ]


def test_ci_installs_what_is_missing(tmp_path: Path) -> None:
    done = checkout(tmp_path, 0, "no-such-python")
    asked = [line for line in done.stdout.splitlines() if line.startswith("apt-get")]
    assert asked[0] == "apt-get update -q"
    assert asked[1].endswith(" python3 python3-venv python3-dev")


def test_ci_says_what_is_missing_where_it_may_not_install(tmp_path: Path) -> None:
    done = checkout(tmp_path, 1000, "no-such-python")
    assert done.returncode == 3
    assert "python3 python3-venv python3-dev; install these" in done.stderr
    assert "make" not in done.stdout

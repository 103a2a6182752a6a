# SPDX-License-Identifier: GPL-2.0-only
"""The repository keeps its own rules, and the rules find what they are there to find."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPDX = "# SPDX-License-Identifier: GPL-2.0-only\n"


def load_tidy():
    """``tools/tidy.py``, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("tidy", ROOT / "tools" / "tidy.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tidy"] = module
    spec.loader.exec_module(module)
    return module


tidy = load_tidy()


def broken(path: str, text: str) -> list[tuple[int, str]]:
    """Line and rule of every problem in a file of this path and text."""
    found = tidy.problems(tidy.File(path, text))
    return [(problem.line, problem.what.partition(":")[0]) for problem in found]


def test_the_repository_is_tidy(capsys: pytest.CaptureFixture[str]) -> None:
    status = tidy.main()
    printed = capsys.readouterr().out
    assert status == 0, f"\n{printed}"


# A path, what follows the licence line in the file, and where which rule has to find something.
BAD = [
    ("tests/a.py", "x = 1" + " " * 200 + "\n", 2, "columns"),
    ("src/rmap/a.pxd", "x" * 101 + "\n", 2, "columns"),
    ("src/rmap/a.py", '"""Doc."""\n' + "x = 1\n" * 700, 700, "module_size"),
    ("tests/a.py", "def f():\n" + "    x = 1\n" * 70, 2, "function_size"),
    ("tests/a.py", "class C:\n  async def f(self):\n" + "    x = 1\n" * 70, 3, "function_size"),
    ("a.toml", "# TO" "DO: more\n", 2, "forbidden_words"),
    ("a.sh", "# a FIX" "ME\n", 2, "forbidden_words"),
    ("tests/a.py", "def f():\n    raise NotImplementedError\n", 3, "stubs"),
    ("tests/a.py", "def f():\n    raise NotImplementedError('later')\n", 3, "stubs"),
    ("a.md", "see /wo" "rk/notes\n", 2, "forbidden_words"),
    ("a.yml", "dir: /ro" "ot/x\n", 2, "forbidden_words"),
    ("a.md", "https://py" "pi.org/simple\n", 2, "forbidden_words"),
    ("a.md", "https://files.python" "hosted.org/x\n", 2, "forbidden_words"),
    ("tests/a.py", "try:\n    f()\nexcept:\n    g()\n", 4, "swallowed_exceptions"),
    ("tests/a.py", "try:\n    f()\nexcept Exception:\n    pass\n", 4, "swallowed_exceptions"),
    ("tests/a.py", "try:\n    f()\nexcept (OSError, Exception):\n    ...\n", 4,
     "swallowed_exceptions"),
    ("tests/a.py", "x = f()  # type: ig" "nore\n", 2, "unjustified_ignores"),
    ("tests/a.py", "x = f()  # type: ig" "nore[misc]\n", 2, "unjustified_ignores"),
    ("src/rmap/a.py", "x = 1\n", 1, "module_docstring"),
    ("tests/test_a.py", "def test_it():\n    f()\n", 2, "tests_that_assert"),
    ("tests/test_a.py", "class TestA:\n    def test_it(self):\n        f()\n", 3,
     "tests_that_assert"),
    ("src/rmap/a.py", '"""Doc."""\nimport pickle\n', 3, "nothing_evaluated"),
    ("src/rmap/a.py", '"""Doc."""\nfrom marshal import loads\n', 3, "nothing_evaluated"),
    ("src/rmap/a.py", '"""Doc."""\neval("1")\n', 3, "nothing_evaluated"),
    ("src/rmap/a.py", '"""Doc."""\nnp.load(f, allow_pickle=True)\n', 3, "nothing_evaluated"),
    ("src/rmap/image/a.py", '"""Doc."""\nfrom rmap.cli import main\n', 3, "imports_point_down"),
    ("src/rmap/image/a.py", '"""Doc."""\nfrom rmap import query\n', 3, "imports_point_down"),
    ("src/rmap/sync/a.py", '"""Doc."""\nfrom cython.cimports.rmap.mm.page import f\n', 3,
     "imports_point_down"),
    ("src/rmap/sync/a.pxd", "from rmap.mm.page cimport f\n", 2, "imports_point_down"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "line", "rule"), BAD)
def test_a_breach_is_found_where_it_is(path: str, text: str, line: int, rule: str) -> None:
    assert set(broken(path, SPDX + text)) == {(line, rule)}


GOOD = [
    ("src/rmap/a.py", '"""Doc."""\nx = "x"  # ' + "y" * 40 + "\n"),
    ("src/rmap/query/a.py", '"""Doc."""\nfrom rmap.image import MemoryImage\nimport rmap\n'),
    ("src/rmap/a.py", '"""Doc."""\nconnection.execute("select 1")\nre.compile("x")\n'),
    ("tests/a.py", "try:\n    f()\nexcept OSError:\n    pass\n"),
    ("tests/a.py", "try:\n    f()\nexcept Exception as error:\n    report(error)\n"),
    ("tests/a.py", "try:\n    f()\nexcept NotImplementedError:\n    g()\n"),
    ("tests/a.py", "x = f()  # type: ignore[misc]  # the library has no types\n"),
    ("tests/test_a.py", "def test_it():\n    with pytest.raises(ValueError):\n        f()\n"),
    ("tests/test_a.py", "def test_it():\n    np.testing.assert_array_equal(a, b)\n"),
    ("tests/test_a.py", "def test_it():\n    expect(world, [(process, page)])\n"),
    ("tests/test_a.py", "def helper():\n    f()\n"),
    ("docs/a.md", "x" * 300 + "\nmaps lines such as /usr/lib/x, cgroup /work.slice, XXXL\n"),
]


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_what_is_allowed_is_left_alone(path: str, text: str) -> None:
    assert broken(path, SPDX + text) == []


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("a.py", '"""Doc."""\n', 1),
        ("Makefile", "all:\n", 1),
        (".ci/run", "#!/bin/sh\necho\n", 2),
        ("a.c", f"int x;\n/* {SPDX} */\n", 1),
    ],
)
def test_a_source_names_its_licence_first(path: str, text: str, line: int) -> None:
    assert (line, "licence_line") in broken(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", SPDX),
        ("a.py", ""),
        ("a.sh", "#!/bin/sh\n" + SPDX),
        ("a.c", "/* SPDX-License-Identifier: GPL-2.0-only */\n"),
        ("README.md", "# rmap\n"),
        ("expected.json", "{}\n"),
    ],
)
def test_a_named_licence_and_other_kinds_of_file_are_fine(path: str, text: str) -> None:
    assert broken(path, text) == []


def test_problems_are_printed_as_file_and_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.sh").write_text("echo\n")
    (tmp_path / "image.zip").write_bytes(b"\xff\0")
    assert tidy.main(tmp_path) == 1
    assert capsys.readouterr().out.startswith("a.sh:1: licence_line: ")


def test_without_git_generated_files_are_left_out(tmp_path: Path) -> None:
    for name in (
        "src/a.py",
        ".ci/run",
        ".venv/b.py",
        "build/c.py",
        "src/x.egg-info/d.py",
        ".git/e",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert tidy.tracked(tmp_path) == [".ci/run", "src/a.py"]


def test_with_git_new_files_count_and_ignored_ones_do_not(tmp_path: Path) -> None:
    try:
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    except FileNotFoundError:
        pytest.skip("no git here")
    (tmp_path / ".gitignore").write_text("*.so\n")
    (tmp_path / "new.py").write_text("x")
    (tmp_path / "new.so").write_text("x")
    assert tidy.tracked(tmp_path) == [".gitignore", "new.py"]

# SPDX-License-Identifier: GPL-2.0-only
"""Compiled and uncompiled modules: which runs, and that no old binary runs for a new source.

A throw-away copy of the package gets two tiny compiled modules, one of which uses the header of
the other, and is built for real.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from rmap import _modes

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))
SPDX = "# SPDX-License-Identifier: GPL-2.0-only\n"

COUNTER = '''# cython: language_level=3, boundscheck=True
"""A counter with a C field."""
from __future__ import annotations
import cython


@cython.cclass
class Counter:
    def __init__(self) -> None:
        self.value = 40

    @cython.ccall
    def up(self) -> cython.int:
        self.value += 2
        return self.value
'''
COUNTER_PXD = """cdef class Counter:
    cdef public int value
    cpdef int up(self)
"""
USER = '''# cython: language_level=3
"""Uses the counter through its header."""
from __future__ import annotations
import cython

if cython.compiled:
    from cython.cimports.rmap.tiny.counter import Counter
else:
    from rmap.tiny.counter import Counter


def answer() -> int:
    counter: Counter = Counter()
    return counter.up()
'''
ANSWER = "import rmap.tiny.user as u; print(u.answer(), u.__file__.rpartition('.')[2])"
# A change that compiles to the same, and one that does not.
RENAMED = ("A counter with a C field.", "A counter.")
GROWN = ("self.value = 40", "self.value = 50")


class Tree:
    """A copy of the sources with the tiny package in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.package = path / "src" / "rmap"
        self.tiny = self.package / "tiny"

    def run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the tree. `environment` is added to one without our own switches."""
        own = ("RMAP_PURE", "RMAP_REQUIRE_EXT", "CC", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if name not in own}
        return subprocess.run(
            [sys.executable, *argv],
            cwd=self.path,
            env=kept | {"PYTHONPATH": str(self.path / "src")} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def build(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("setup.py", "--quiet", "build_ext", "--inplace", **environment)

    def ask(self, code: str, **environment: str) -> str:
        """What `code` prints; its last line on stderr if it fails."""
        done = self.run("-c", code, **environment)
        return (done.stderr if done.returncode else done.stdout).strip().rpartition("\n")[2]

    def edit(self, name: str, change: tuple[str, str]) -> None:
        """Replace text in a file and put its times back, as a checkout or a copy may do."""
        path = self.package / name
        before = path.stat()
        text = path.read_text()
        assert change[0] in text
        path.write_text(text.replace(*change))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def compiled(self) -> list[str]:
        return sorted(path.name for path in self.package.rglob(f"*{SUFFIX}"))


def plant(path: Path) -> Tree:
    """Lay out a tree to build in `path`, from this checkout."""
    tree = Tree(path)
    tree.tiny.mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, path)
    (path / "README.md").write_text("A copy.\n")
    for name in ("__init__.py", "_modes.py", "errors.py"):
        shutil.copy(ROOT / "src" / "rmap" / name, tree.package)
    (tree.package / "py.typed").touch()
    (tree.tiny / "__init__.py").write_text(SPDX)
    (tree.tiny / "counter.py").write_text(SPDX + COUNTER)
    (tree.tiny / "counter.pxd").write_text(SPDX + COUNTER_PXD)
    (tree.tiny / "user.py").write_text(SPDX + USER)
    return tree


needs_setuptools = pytest.mark.skipif(
    int(version("setuptools").partition(".")[0]) < 77,
    reason="building needs setuptools 77 or later, as make installs it",
)
needs_compiler = pytest.mark.skipif(
    not shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
    and os.environ.get("RMAP_REQUIRE_EXT", "") in ("", "0"),
    reason="no C compiler here",
)


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = plant(tmp_path_factory.mktemp("built"))
    done = tree.build(RMAP_REQUIRE_EXT="1")
    assert done.returncode == 0, done.stderr
    return tree


@pytest.fixture
def built(built_once: Tree, tmp_path: Path) -> Tree:
    shutil.copytree(built_once.path, tmp_path / "copy")
    return Tree(tmp_path / "copy")


@pytest.fixture
def planted(tmp_path: Path) -> Tree:
    return plant(tmp_path / "planted")


@needs_setuptools
@needs_compiler
class TestBuilt:
    def test_the_compiled_module_runs_unless_purity_is_asked_for(self, built: Tree) -> None:
        assert built.ask(ANSWER) == "42 so"
        assert built.ask(ANSWER, RMAP_PURE="0") == "42 so"
        assert built.ask(ANSWER, RMAP_PURE="1") == "42 py"

    def test_the_version_line_says_what_runs(self, built: Tree) -> None:
        ask = "import rmap; print(rmap.version_line())"
        number = version_of(built)
        assert built.ask(ask) == f"rmap {number} (compiled core: 2 modules)"
        assert built.ask(ask, RMAP_PURE="1") == f"rmap {number} (pure Python, by RMAP_PURE)"
        built.edit("tiny/user.py", ("counter.up()", "counter.up() + 1"))
        assert built.ask(ask).endswith(
            "(compiled core: 2 modules, 1 out of date: run 'make build')"
        )

    def test_the_compiled_modules_can_be_listed(self, built: Tree) -> None:
        ask = "import rmap._modes as m; print(*m.compiled_modules())"
        assert built.ask(ask) == "rmap.tiny.counter rmap.tiny.user"
        assert built.ask(ask, RMAP_PURE="1") == ""

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("tiny/counter.py", GROWN),
            ("tiny/counter.py", RENAMED),
            ("tiny/counter.pxd", ("int value", "long value")),
        ],
    )
    def test_an_edited_source_never_runs_as_its_old_binary(
        self, built: Tree, name: str, change: tuple[str, str]
    ) -> None:
        built.edit(name, change)
        said = built.ask("import rmap.tiny.counter")
        assert said == (
            f"rmap.errors.StaleModuleError: rmap.tiny.counter: {name} changed since the module was "
            "compiled; run 'make build' (or install again), or set RMAP_PURE=1 to run the source"
        )
        assert built.ask(ANSWER, RMAP_PURE="1").endswith(" py")
        assert built.build(RMAP_REQUIRE_EXT="1").returncode == 0
        assert built.ask(ANSWER) == ("52 so" if change is GROWN else "42 so")

    def test_the_header_of_another_module_counts_and_its_source_does_not(self, built: Tree) -> None:
        users = "import rmap._modes as m; f = m.recorded_modules(m.read_record()); print(*f[{!r}])"
        assert built.ask(users.format("rmap.tiny.user")) == (
            "tiny/counter.pxd tiny/user.pxd tiny/user.py"
        )
        built.edit("tiny/counter.pxd", ("int value", "long value"))
        assert "counter.pxd changed" in built.ask("import rmap.tiny.user")

    def test_a_header_added_later_counts_as_a_change(self, built: Tree) -> None:
        (built.tiny / "user.pxd").write_text(SPDX + "cpdef int answer()\n")
        assert "user.pxd changed" in built.ask("import rmap.tiny.user")

    def test_only_what_changed_is_built_again(self, built: Tree) -> None:
        times = {path: path.stat().st_mtime_ns for path in built.tiny.glob(f"*{SUFFIX}")}
        assert built.build().returncode == 0
        assert {path: path.stat().st_mtime_ns for path in times} == times
        built.edit("tiny/user.py", ("counter.up()", "counter.up() + 1"))
        assert built.build().returncode == 0
        changed = [path.name for path in times if path.stat().st_mtime_ns != times[path]]
        assert changed == [f"user{SUFFIX}"]
        assert built.ask(ANSWER) == "43 so"

    def test_a_compiled_module_without_a_record_is_refused(self, built: Tree) -> None:
        (built.package / _modes.RECORD_NAME).write_text("{ broken")
        assert "of which no build record tells the source" in built.ask(ANSWER)
        assert built.build().returncode == 0
        assert built.ask(ANSWER) == "42 so"

    def test_a_missing_compiled_module_is_not_replaced_in_silence(self, built: Tree) -> None:
        (built.tiny / f"user{SUFFIX}").unlink()
        assert "its compiled module is missing for this Python" in built.ask(ANSWER)

    def test_a_module_that_is_no_longer_compiled_loses_its_binary(self, built: Tree) -> None:
        built.edit("tiny/user.py", ("# cython: language_level=3\n", ""))
        built.edit("tiny/user.py", ("if cython.compiled:", "if False:"))
        assert built.build().returncode == 0
        assert built.compiled() == [f"{_modes.SUPPORT}{SUFFIX}", f"counter{SUFFIX}"]
        assert built.ask(ANSWER) == "42 py"

    def test_a_source_with_an_error_fails_the_build_and_is_no_reason_to_fall_back(
        self, built: Tree
    ) -> None:
        built.edit("tiny/user.py", ("return counter.up()", "return counter.nothing_like_it("))
        done = built.build()
        assert done.returncode == 1
        assert "falling back" not in done.stderr
        assert "user.py" in done.stderr

    def test_without_a_compiler_an_earlier_build_is_not_left_to_run(self, built: Tree) -> None:
        built.edit("tiny/counter.py", GROWN)
        assert built.build(CC="/bin/false").returncode == 0
        assert built.compiled() == []
        assert built.ask(ANSWER) == "52 py"

    def test_the_build_leaves_nothing_but_binaries_and_record_in_the_sources(
        self, built: Tree
    ) -> None:
        new = {path.name for path in built.package.rglob("*") if path.is_file()} - {
            path.name for path in plant(built.path / "fresh").package.rglob("*")
        }
        new = {name for name in new if not name.endswith(".pyc")}
        binaries = {f"{name}{SUFFIX}" for name in ("counter", "user", _modes.SUPPORT)}
        assert new == binaries | {_modes.RECORD_NAME}

    def test_the_check_costs_little(self, built: Tree) -> None:
        """The real core is some dozens of modules and headers: 30 of 40 KB are checked here."""
        files = {f"tiny/part{number}.pxd": "" for number in range(30)}
        for name in files:
            (built.package / name).write_text("#" * 40_000)
        recorded = _modes.digests(built.package, files)
        start = time.perf_counter()
        assert _modes.changed_files(built.package, recorded) == []
        assert time.perf_counter() - start < 0.2  # about 0.003 s; the rest is for a busy machine


@needs_setuptools
class TestWithoutCompiler:
    def test_it_falls_back_in_one_line(self, planted: Tree) -> None:
        done = planted.build(CC="/bin/false")
        assert done.returncode == 0
        lines = [line for line in done.stderr.splitlines() if "pure Python" in line]
        assert done.stderr.splitlines() == lines
        assert len(lines) == 1
        assert lines[0].startswith("rmap: core not compiled ('/bin/false' cannot compile")
        assert planted.compiled() == []
        assert planted.ask(ANSWER) == "42 py"
        assert planted.ask("import rmap; print(rmap.version_line())").endswith("(pure Python)")

    def test_a_compiler_that_is_not_there_is_the_same(self, planted: Tree) -> None:
        done = planted.build(CC="no-such-compiler")
        assert done.returncode == 0
        assert "no-such-compiler" in done.stderr
        assert planted.ask(ANSWER) == "42 py"

    def test_required_it_fails(self, planted: Tree) -> None:
        done = planted.build(CC="/bin/false", RMAP_REQUIRE_EXT="1")
        assert done.returncode == 1
        assert done.stderr.startswith(
            "rmap: the core cannot be compiled, as RMAP_REQUIRE_EXT asks: '/bin/false' cannot "
        )
        assert "Traceback" not in done.stderr


@needs_setuptools
@needs_compiler
@pytest.mark.slow
def test_a_wheel_holds_sources_headers_binaries_and_record(planted: Tree) -> None:
    (planted.package / "data").mkdir()
    (planted.package / "data" / "demo-image.zip").write_bytes(b"image")
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    wheel = ["-m", "pip", "wheel", "--quiet", *offline, "-w", "out", "."]
    done = planted.run(*wheel, RMAP_REQUIRE_EXT="1")
    assert done.returncode == 0, done.stderr
    (path,) = (planted.path / "out").glob("linux_rmap-*.whl")
    unpacked = planted.path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(unpacked)
    tiny = {file.name for file in (unpacked / "rmap" / "tiny").iterdir()}
    assert tiny == {
        "__init__.py",
        "counter.py",
        "counter.pxd",
        f"counter{SUFFIX}",
        "user.py",
        f"user{SUFFIX}",
    }
    assert {file.name for file in (unpacked / "rmap").iterdir()} >= {
        "py.typed",
        _modes.RECORD_NAME,
    }
    assert (unpacked / "rmap" / "data" / "demo-image.zip").read_bytes() == b"image"
    assert planted.ask(ANSWER, PYTHONPATH=str(unpacked)) == "42 so"


def test_a_module_is_compiled_if_its_first_lines_say_so(tmp_path: Path) -> None:
    asks = tmp_path / "asks.py"
    asks.write_text(SPDX + "# cython: language_level=3\nx = 1\n")
    late = tmp_path / "late.py"
    late.write_text(SPDX + "\n" * _modes.HEADER_LINES + "# cython: language_level=3\n")
    (tmp_path / "__init__.py").write_text("# cython: language_level=3\n")
    assert _modes.compiled_sources(tmp_path) == {f"{tmp_path.name}.asks": asks}
    assert not _modes.wants_compiling(late)


def test_this_very_run_is_what_the_environment_asks_for() -> None:
    """Whichever way the tests were started: no module of the package runs in the other form."""
    wanted = set(_modes.compiled_modules())
    loaded = {name: module for name, module in sys.modules.items() if name.startswith("rmap.")}
    # The support code has no form but the compiled one, and comes with the modules that are.
    assert (loaded.pop(f"rmap.{_modes.SUPPORT}", None) is not None) == bool(wanted & set(loaded))
    wrong = {
        name: module.__file__
        for name, module in loaded.items()
        if (module.__file__ or "").endswith(".so") != (name in wanted)
    }
    assert wrong == {}


def version_of(tree: Tree) -> str:
    return tree.ask("import rmap; print(rmap.__version__)")

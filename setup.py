# SPDX-License-Identifier: GPL-2.0-only
"""Build the compiled core; all else about the package stands in ``pyproject.toml``.

Compiled is every module below ``src/rmap`` with a ``# cython:`` comment in its first lines.
What has to be built again is decided by content, not by file times (see ``rmap._modes``).

``RMAP_REQUIRE_EXT=1``  a core that cannot be compiled is an error, not a fall-back.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import Cython
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

SOURCE = Path("src")
PACKAGE = SOURCE / "rmap"
C_DIR = Path("build") / "c"
COMPILE_ARGS = ["-O2", "-g0", "-Wno-sign-compare"]
LINK_ARGS = ["-s"]


def load_modes() -> ModuleType:
    """``rmap._modes`` by its path: the package itself is neither installed nor importable yet."""
    spec = importlib.util.spec_from_file_location("_modes", PACKAGE / "_modes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


modes = load_modes()
#: Cython's own support code, as one module that the others use: a copy of it in each would be
#: most of what there is to compile.
SHARED = f"rmap.{modes.SUPPORT}"
SHARED_C = C_DIR / f"{modes.SUPPORT}.c"


class BuildCore(build_ext):
    """``build_ext`` that builds what changed, records it, and can do without a compiler."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def run(self) -> None:
        """Build into ``build_lib``, or beside the sources if in place."""
        in_place = bool(self.inplace)
        package = PACKAGE if in_place else Path(self.build_lib) / PACKAGE.name
        record = modes.read_record(package) if in_place else {}
        current = self.current_modules(record)
        self.remove_compiled(package, keep=set(current))
        self.extensions = [ext for ext in self.extensions if ext.name not in current]
        # Written before the build as well: what a broken-off build leaves behind has no record.
        modes.write_record(package, current, self.built_with())
        if not self.extensions:
            return
        self.force = True
        before = source_digests()
        try:
            super().run()
        except (BaseError, CCompilerError, OSError) as error:
            self.inplace = in_place
            self.fall_back(error, package)
            return
        built = {ext.name: used_files(ext.name, before) for ext in self.extensions}
        modes.write_record(package, current | built, self.built_with())

    def built_with(self) -> list[str]:
        """What, besides the sources, decides the compiled modules."""
        suffix = self.get_ext_filename("")
        return [f"Cython {Cython.__version__}", suffix, *COMPILE_ARGS, *LINK_ARGS]

    def current_modules(self, record: dict[str, Any]) -> dict[str, dict[str, str]]:
        """The recorded modules that need no building."""
        if record.get("built_with") != self.built_with():
            return {}
        wanted = {ext.name for ext in self.extensions}
        return {
            name: files
            for name, files in modes.recorded_modules(record).items()
            if name in wanted
            and (SOURCE / self.get_ext_filename(name)).exists()
            and not modes.changed_files(PACKAGE, files)
        }

    def remove_compiled(self, package: Path, keep: set[str]) -> None:
        """Remove this Python's compiled modules below `package`, but for those in `keep`."""
        kept = {package.parent / self.get_ext_filename(name) for name in keep}
        for path in package.rglob(f"*{self.get_ext_filename('')}"):
            if path not in kept:
                path.unlink()

    def build_extensions(self) -> None:
        """Ask for a compiler, translate all modules to C, compile them."""
        self.probe_compiler()
        for ext, translated in zip(self.extensions, translate(self.extensions), strict=True):
            assert ext.name == translated.name
            ext.sources = translated.sources
        super().build_extensions()

    def probe_compiler(self) -> None:
        """Compile one line, so that a missing compiler shows before minutes of translation.

        Raises ``CompileError`` without a working compiler or without Python's headers.
        """
        with tempfile.TemporaryDirectory() as scratch:
            probe = Path(scratch, "probe.c")
            probe.write_text("#include <Python.h>\nint probe;\n", encoding="utf-8")
            try:
                self.compiler.compile([str(probe)], output_dir=scratch)
            except (BaseError, CCompilerError, OSError) as error:
                command = self.compiler.compiler_so[0]
                raise CompileError(f"{command!r} cannot compile a line with Python.h") from error

    def fall_back(self, error: Exception, package: Path) -> None:
        """Go on without compiled modules, in one line, or stop if they are required."""
        why = textwrap.shorten(str(error), 200)
        if os.environ.get("RMAP_REQUIRE_EXT", "") not in ("", "0"):
            raise SystemExit(f"rmap: the core cannot be compiled, as RMAP_REQUIRE_EXT asks: {why}")
        self.remove_compiled(package, keep=set())
        modes.write_record(package, {}, self.built_with())
        self.extensions = []
        print(
            f"rmap: core not compiled ({why}): falling back to pure Python, same results but 50 to "
            "400 times slower; install a C compiler and Python's headers, then build again",
            file=sys.stderr,
        )


def translate(extensions: list[Extension]) -> list[Extension]:
    """Translate the modules to C below ``build/``. Raises Cython's ``CompileError``."""
    from Cython.Build import cythonize

    forking = multiprocessing.get_start_method() == "fork"
    translated = cythonize(
        [Extension(ext.name, list(ext.sources)) for ext in extensions if ext.name != SHARED],
        include_path=[str(SOURCE)],
        build_dir=str(C_DIR),
        force=True,
        nthreads=os.cpu_count() if forking else 0,
        shared_utility_qualified_name=SHARED,
    )
    if any(ext.name == SHARED for ext in extensions):
        translated.append(Extension(SHARED, [generate_shared()]))
    order = {ext.name: number for number, ext in enumerate(extensions)}
    return sorted(translated, key=lambda ext: order[ext.name])


def generate_shared() -> str:
    """Write Cython's support code as a C file of its own; returns its path.

    Raises ``CompileError`` if Cython cannot.
    """
    SHARED_C.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cython", f"--generate-shared={SHARED_C}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"cython --generate-shared failed: {done.stderr.strip()}")
    return str(SHARED_C)


def source_digests() -> dict[str, str]:
    """The digests of all sources and headers of the package."""
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pxd")]
    return modes.digests(PACKAGE, (path.relative_to(PACKAGE).as_posix() for path in files))


def used_files(name: str, before: dict[str, str]) -> dict[str, str]:
    """The files of the package that module `name` is made of, with their digests in `before`.

    The header of the module itself is always among them: it may be added later.
    """
    from Cython.Build.Dependencies import create_dependency_tree

    if name == SHARED:
        return {}
    source = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
    reached = create_dependency_tree().all_dependencies(str(source))
    package = PACKAGE.resolve()
    inside = {Path(path).resolve() for path in reached} | {source.with_suffix(".pxd").resolve()}
    files = sorted(
        path.relative_to(package).as_posix() for path in inside if path.is_relative_to(package)
    )
    return {path: before.get(path, modes.ABSENT) for path in files}


setup(
    cmdclass={"build_ext": BuildCore},
    ext_modules=[
        Extension(
            name,
            [source.as_posix()],
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=LINK_ARGS,
        )
        for name, source in [*modes.compiled_sources(PACKAGE).items(), (SHARED, SHARED_C)]
    ],
)

# SPDX-License-Identifier: GPL-2.0-only
"""Compiled or not: which form of a module runs, and is the compiled one still true to its source.

A module whose first lines hold a ``# cython:`` comment may lie twice in the package, as ``page.py``
and, once built, as an extension module beside it. Python would take the extension module and ask
nothing, so an edited source would go on running as what it was at the last build. Hence:

* the build writes down, for each module it compiles, the SHA-256 of every file that went in
  (the source and all ``.pxd`` headers it reaches): ``_build_info.json`` in the package;
* an import finder compares that record with the files at the moment the module is imported, and
  refuses a compiled module that is not what its source says
  (:class:`rmap.errors.StaleModuleError`);
* ``RMAP_PURE=1`` makes the same finder take the sources, whatever is built.

Times of files are not looked at: they lie after a checkout, a copy or a clock step.
This file is also read by ``setup.py`` before anything is installed: standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import (
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from itertools import islice
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parent
RECORD_NAME = "_build_info.json"
RECORD_FORMAT = 1
# Cython itself reads directive comments only above the first statement.
HEADER_LINES = 5
ABSENT = "absent"
#: The module with Cython's own support code, which has no source of ours.
SUPPORT = "_cyutility"

# For each compiled module: its files, relative to the package, and their digests at the build.
Modules = dict[str, dict[str, str]]


def wants_compiling(source: Path) -> bool:
    """Whether `source` asks to be compiled: a ``# cython:`` comment in its first lines.

    Raises ``OSError`` if the file cannot be read.
    """
    with source.open(encoding="utf-8") as lines:
        return any(line.startswith("# cython:") for line in islice(lines, HEADER_LINES))


def compiled_sources(package: Path = PACKAGE) -> dict[str, Path]:
    """The sources below `package` that are to be compiled, by full module name, in order."""
    found = {}
    for source in sorted(package.rglob("*.py")):
        if source.name != "__init__.py" and wants_compiling(source):
            parts = source.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts)] = source
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file in hex, or ``"absent"``, so that a header added later counts as a change.

    Raises ``OSError`` if the file is there and cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ABSENT


def digests(package: Path, files: Iterable[str]) -> dict[str, str]:
    """The digest of each of `files`, which are named relative to `package`."""
    return {name: digest(package / name) for name in sorted(files)}


def read_record(package: Path = PACKAGE) -> dict[str, object]:
    """The build record of `package`; empty if there is none that this version understands.

    An unreadable record is the same as none: every compiled module is then refused, and the next
    build writes it anew.
    """
    try:
        record = json.loads((package / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or record.get("format") != RECORD_FORMAT:
        return {}
    return record


def recorded_modules(record: Mapping[str, object]) -> Modules:
    """The modules of a build record."""
    modules = record.get("modules")
    return dict(modules) if isinstance(modules, dict) else {}


def write_record(package: Path, modules: Modules, built_with: Sequence[str]) -> None:
    """Write the build record aside and rename it; with nothing compiled, there is no record."""
    path = package / RECORD_NAME
    if not modules:
        path.unlink(missing_ok=True)
        return
    record = {"format": RECORD_FORMAT, "built_with": list(built_with), "modules": modules}
    aside = path.with_suffix(f".{os.getpid()}.new")
    aside.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    aside.replace(path)


def changed_files(package: Path, recorded: Mapping[str, str]) -> list[str]:
    """The files among `recorded` that are no longer what they were at the build."""
    now = digests(package, recorded)
    return [name for name in now if now[name] != recorded[name]]


class ModuleFinder:
    """Finds the modules of one package before Python's own finders do: in the form that may run."""

    def __init__(self, package: Path, *, pure: bool) -> None:
        self.package = package
        self.pure = pure
        self.modules: Modules = {} if pure else recorded_modules(read_record(package))
        self._sources: dict[str, FileFinder] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of a module of the package, ``None`` for all others.

        Raises :class:`rmap.errors.StaleModuleError` if it is compiled and out of date.
        """
        if path is None or not fullname.startswith(f"{self.package.name}."):
            return None
        if self.pure:
            return self._find_source(fullname, path)
        spec = PathFinder.find_spec(fullname, path, target)
        compiled = spec is not None and isinstance(spec.loader, ExtensionFileLoader)
        if compiled or fullname in self.modules:
            reason = self.why_stale(fullname, compiled=compiled)
            if reason:
                # Here, not above: setup.py reads this file where no package is importable.
                from rmap.errors import StaleModuleError

                raise StaleModuleError(
                    f"{fullname}: {reason}; run 'make build' (or install again), "
                    "or set RMAP_PURE=1 to run the source"
                )
        return spec

    def why_stale(self, name: str, *, compiled: bool) -> str:
        """Why the compiled module `name` must not run; empty if it may."""
        recorded = self.modules.get(name)
        if recorded is None:
            return "there is a compiled module of which no build record tells the source"
        if not compiled:
            return "its compiled module is missing for this Python, others are there"
        changed = changed_files(self.package, recorded)
        return f"{', '.join(changed)} changed since the module was compiled" if changed else ""

    def _find_source(self, fullname: str, path: Sequence[str]) -> ModuleSpec | None:
        for entry in path:
            if entry not in self._sources:
                self._sources[entry] = FileFinder(entry, (SourceFileLoader, SOURCE_SUFFIXES))
            spec = self._sources[entry].find_spec(fullname)
            if spec is not None:
                return spec
        return None


def pure_requested() -> bool:
    """Whether the environment asks for the uncompiled modules (``RMAP_PURE``, not empty nor 0)."""
    return os.environ.get("RMAP_PURE", "") not in ("", "0")


def install() -> None:
    """Put the finder of this package first in ``sys.meta_path``; a second call changes nothing."""
    if not any(isinstance(finder, ModuleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, ModuleFinder(PACKAGE, pure=pure_requested()))


def our_modules() -> Modules:
    """The recorded modules that have a source."""
    recorded = recorded_modules(read_record())
    return {name: files for name, files in recorded.items() if name.rpartition(".")[2] != SUPPORT}


def compiled_modules() -> tuple[str, ...]:
    """Names of the modules that run compiled in this process when they are imported, in order."""
    return () if pure_requested() else tuple(sorted(our_modules()))


def describe() -> str:
    """In a few words what runs: ``compiled core: 12 modules``, or ``pure Python`` and why."""
    recorded = our_modules()
    if pure_requested() and recorded:
        return "pure Python, by RMAP_PURE"
    if not recorded:
        return "pure Python"
    stale = sum(bool(changed_files(PACKAGE, files)) for files in recorded.values())
    count = f"{len(recorded)} module{'s' if len(recorded) > 1 else ''}"
    return f"compiled core: {count}" + (f", {stale} out of date: run 'make build'" if stale else "")

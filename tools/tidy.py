# SPDX-License-Identifier: GPL-2.0-only
"""The repository's own rules, checked: ``python tools/tidy.py``, and a test of ``make test``.

What ruff and mypy check is not here. Each rule is a generator over one file's problems; a problem
is printed as ``file:line: what is wrong``, and the exit status is 1 if there is one.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPDX = "SPDX-License-Identifier: GPL-2.0-only"
SOURCE_SUFFIXES = {".py", ".pxd", ".sh", ".toml", ".yml", ".yaml", ".mk", ".c", ".h", ".bt"}
SOURCE_NAMES = {"Makefile"}
LINE_COLUMNS = 100
MODULE_LINES = 700
FUNCTION_LINES = 70

# What a walk leaves out where there is no git to ask: all that .gitignore names, and git's own.
NOT_OURS = {"build", "dist", "demo", "bench-results", "__pycache__"}

# The layers of docs/architecture.md, lowest first: a module imports its own layer and lower ones.
LAYERS = ("sync", "mm", "check", "image", "source", "model", "query", "scenario", "cli")

# Written in pieces, so that this file does not hold what it forbids.
FORBIDDEN = [
    (re.compile(pattern), why)
    for pattern, why in [
        (r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b", "finish it, or open an issue"),
        (r"(?<![\w.])/(wo" r"rk|ro" r"ot|fa" r"rm)/", "a path of one machine"),
        (r"(?<![\w.])/ho" r"me/[a-z]", "a path of one machine"),
        (
            r"(?i)\b(py" r"pi\.(org|io|python)|python" r"hosted\.|npm" r"js\.|crates\." r"io\b"
            r"|ana" r"conda\.(org|com)|proxy\.go" r"lang|ruby" r"gems\.|deb\.deb" r"ian\.)",
            "a host of a package registry",
        ),
    ]
]  # fmt: skip
UNSAFE_IMPORTS = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec"}
JUSTIFIED_IGNORE = re.compile(r"# type: ignore\[[\w-]+(, ?[\w-]+)*\] +# \S")


@dataclass(frozen=True)
class Problem:
    """One breach of a rule."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


Found = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class File:
    """A text file of the repository: its path from the root, and its text."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree. Raises ``SyntaxError``."""
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [node for node in self.nodes if isinstance(node, kinds)]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def is_source(self) -> bool:
        """Whether it is code or configuration, which bears the licence line."""
        known = self.suffix in SOURCE_SUFFIXES or self.name in SOURCE_NAMES
        return known or self.text.startswith("#!")

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to the installed package."""
        return self.path.startswith("src/")


def licence_line(file: File) -> Found:
    """Every source file names the licence first, after a shebang if there is one."""
    first = 1 if file.text.startswith("#!") else 0
    line = file.lines[first] if len(file.lines) > first else ""
    if file.is_source and file.text and SPDX not in line:
        yield first + 1, f"this line has to be: # {SPDX}"


def columns(file: File) -> Found:
    """Lines of code fit into 100 columns."""
    if file.suffix not in (".py", ".pxd"):
        return
    for number, line in enumerate(file.lines, 1):
        if len(line) > LINE_COLUMNS:
            yield number, f"{len(line)} columns; the limit is {LINE_COLUMNS}"


def module_size(file: File) -> Found:
    """One concept a file: a long one holds several."""
    if file.suffix == ".py" and len(file.lines) > MODULE_LINES:
        yield MODULE_LINES, f"{len(file.lines)} lines; split it, the limit is {MODULE_LINES}"


def function_size(file: File) -> Found:
    """A function fits on one screen."""
    if file.suffix != ".py":
        return
    for function in file.functions:
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > FUNCTION_LINES:
            yield (
                function.lineno,
                f"{function.name}: {length} lines; split it, {FUNCTION_LINES} fit",
            )


def forbidden_words(file: File) -> Found:
    """No unfinished work, nothing about the machine it was written on."""
    for number, line in enumerate(file.lines, 1):
        for pattern, why in FORBIDDEN:
            match = pattern.search(line)
            if match:
                yield number, f"{match.group()!r} ({why})"


def stubs(file: File) -> Found:
    """Nothing is left for later; a method that must be overridden is an ``abc.abstractmethod``."""
    if file.suffix != ".py":
        return
    for node in file.nodes:
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        name = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if called_name(name) == "NotImplementedError":
            yield node.lineno, "a stub: write it, or declare it abstract"


def swallowed_exceptions(file: File) -> Found:
    """No bare ``except:``, and no ``except Exception`` that does nothing."""
    if file.suffix != ".py":
        return
    for node in file.nodes:
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            yield node.lineno, "bare except: name what is expected"
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(called_name(name) in ("Exception", "BaseException") for name in caught)
        if broad and all(does_nothing(statement) for statement in node.body):
            yield node.lineno, "swallows every exception: name what is expected"


def does_nothing(statement: ast.stmt) -> bool:
    """Whether a statement is ``pass``, ``continue`` or a mere constant."""
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass | ast.Continue)


def unjustified_ignores(file: File) -> Found:
    """``type: ignore`` names its error codes, and a second comment gives the reason."""
    if file.suffix != ".py":
        return
    for token in tokenize.generate_tokens(io.StringIO(file.text).readline):
        found = token.type == tokenize.COMMENT and re.search(r"# *type: *ignore", token.string)
        if found and not JUSTIFIED_IGNORE.search(token.string):
            yield token.start[0], "write it as: # type: ignore[code]  # the reason"


def module_docstring(file: File) -> Found:
    """Every module of the package says what it is."""
    if file.is_ours and file.suffix == ".py" and not ast.get_docstring(file.tree):
        yield 1, "no module docstring"


def tests_that_assert(file: File) -> Found:
    """Every test asserts: a plain ``assert``, a ``pytest`` check, or a helper that says it does."""
    if not (file.name.startswith("test_") and file.suffix == ".py"):
        return
    for function in file.functions:
        if function.name.startswith("test") and not any(map(asserts, ast.walk(function))):
            yield function.lineno, f"{function.name} asserts nothing"


def asserts(node: ast.AST) -> bool:
    """Whether this node is an assertion."""
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = called_name(node.func)
    helper = name.startswith(("assert_", "check_", "expect_"))
    return helper or name in ("raises", "warns", "fail", "expect")


def called_name(node: ast.expr) -> str:
    """The last part of a dotted name; empty for other expressions."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def nothing_evaluated(file: File) -> Found:
    """The package unpickles and evaluates nothing: what it reads comes from anywhere."""
    if not (file.is_ours and file.suffix == ".py"):
        return
    for node in file.nodes:
        for name in imported_names(node):
            if name.partition(".")[0] in UNSAFE_IMPORTS:
                yield getattr(node, "lineno", 1), f"imports {name}: untrusted files are parsed"
        call = node.func if isinstance(node, ast.Call) else None
        if isinstance(call, ast.Name) and call.id in UNSAFE_CALLS:
            yield call.lineno, f"calls {call.id}: untrusted text is parsed"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield node.value.lineno, "allow_pickle: off it is anyway, and it stays off"


def imports_point_down(file: File) -> Found:
    """A layer of the package imports itself and the layers below it."""
    own = layer(file.path.removeprefix("src/").replace("/", ".")) if file.is_ours else None
    if own is None or file.suffix not in (".py", ".pxd"):
        return
    if file.suffix == ".pxd":
        names = [(n, re.findall(r"\brmap(?:\.\w+)+", line)) for n, line in enumerate(file.lines, 1)]
    else:
        names = [(getattr(node, "lineno", 1), imported_names(node)) for node in file.nodes]
    for number, imported in names:
        for name in imported:
            other = layer(name.removeprefix("cython.cimports."))
            if other is not None and LAYERS.index(other) > LAYERS.index(own):
                yield number, f"{own} imports {name}, which lies above it"


def layer(module: str) -> str | None:
    """The layer that a module of the package belongs to; ``None`` for what all may import."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "rmap" and parts[1] in LAYERS else None


def imported_names(node: ast.AST) -> list[str]:
    """The full names of what an import statement imports; none for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        # `from rmap import cli` names a module as much as `from rmap.cli import main` does.
        return list({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return []


RULES: tuple[Callable[[File], Found], ...] = (
    licence_line,
    columns,
    module_size,
    function_size,
    forbidden_words,
    stubs,
    swallowed_exceptions,
    unjustified_ignores,
    module_docstring,
    tests_that_assert,
    nothing_evaluated,
    imports_point_down,
)


def problems(file: File) -> list[Problem]:
    """All breaches in one file."""
    return [
        Problem(file.path, line, f"{rule.__name__}: {what}")
        for rule in RULES
        for line, what in rule(file)
    ]


def tracked(root: Path = ROOT) -> list[str]:
    """The repository's files, new ones included; without git, all that look like its own."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return sorted(walk(root))
    return sorted(name for name in names.decode().split("\0") if name and (root / name).is_file())


def walk(root: Path) -> Iterator[str]:
    """All files below `root` but those in hidden and generated directories."""
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts[:-1])
        generated = not NOT_OURS.isdisjoint(parts) or any(p.endswith(".egg-info") for p in parts)
        if path.is_file() and not hidden and not generated:
            yield "/".join(parts)


def read(root: Path, path: str) -> File | None:
    """The file at `path`; ``None`` if it is not text."""
    content = (root / path).read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else File(path, text)


def main(root: Path = ROOT) -> int:
    """Print every problem of the repository; returns the exit status."""
    files = [file for path in tracked(root) if (file := read(root, path))]
    found = [problem for file in files for problem in problems(file)]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-only
"""Account for every branch of mm/rmap.c: ``python tools/coverage_doc.py [--record | --check]``.

``tools/listing.toml`` names the functions and branches of the listing by line. In the model, a
statement that is one of them bears its line in a comment, ``# L1385``. With ``--record`` the tests
of the model run uncompiled under coverage, one context a test, and which test takes which outcome
of each branch is written to ``tests/data/rmap-coverage.json``. An outcome that is about huge pages,
merged ones, and so on, counts only in a test where the feature has made them. From the three,
``docs/rmap-coverage.md`` is made; ``--check`` says whether it is what they say.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LISTING = ROOT / "tools" / "listing.toml"
REACHED = ROOT / "tests" / "data" / "rmap-coverage.json"
DOCUMENT = ROOT / "docs" / "rmap-coverage.md"
MODEL = ROOT / "src" / "rmap" / "mm"
#: Where the tests are that may be named as reaching a branch.
TESTS = ("tests/mm", "tests/model")
#: What these reach depends on orders and operations drawn by lot, of which there are many.
BY_LOT = (
    "tests/mm/test_explore_[f-s]*.py", "tests/mm/*_random.py", "tests/model/test_state_machine.py",
)  # fmt: skip

BRANCH = re.compile(r"(?P<line>\d+) (?P<kind>do|if\+?)(?P<marks>( [TF]?@\w+)*) \| (?P<what>.+)")
MARKER = re.compile(r"L(\d+)\b")


class CoverageError(Exception):
    """The table, the marks in the source, or what was recorded do not fit together."""


@dataclass(frozen=True)
class Branch:
    """One branch of the listing. `features` maps an outcome to what has to have made the page."""

    function: str
    line: int
    kind: str
    what: str
    features: dict[str, str]

    @property
    def outcomes(self) -> tuple[str, ...]:
        """``taken`` and ``not taken`` of a decision, ``reached`` of a step."""
        if self.kind == "if":
            return ("taken", "not taken")
        return ("taken",) if self.kind == "if+" else ("reached",)


@dataclass
class Place:
    """Where in the model a branch is: its file, function, and the statement's lines."""

    path: str
    function: str
    line: int
    end: int
    body: int | None = None

    def outcome_of(self, arc: tuple[int, int], kind: str) -> str | None:
        """The outcome that a jump from one line to another is, if it is one of this place."""
        start, end = arc
        if kind == "do":
            return "reached" if end == (self.body or self.line) else None
        # A condition over several lines is left from the line of the operand that decides it.
        inside = range(self.line, self.end + 1)
        if self.body is None or start not in inside or end in inside:
            return None
        return "taken" if end == self.body else "not taken"


def parse_branch(function: str, text: str) -> Branch:
    """Read one line of the table. Raises `CoverageError`."""
    match = BRANCH.fullmatch(text)
    if not match:
        raise CoverageError(f"{LISTING.name}: {function}: not understood: {text!r}")
    kind = match["kind"]
    features: dict[str, str] = {}
    for mark in match["marks"].split():
        outcome, _, feature = mark.partition("@")
        names = {"T": ["taken"], "F": ["not taken"], "": ["taken", "not taken", "reached"]}
        features.update(dict.fromkeys(names[outcome], feature))
    return Branch(function, int(match["line"]), kind, match["what"], features)


def read_listing(path: Path = LISTING) -> list[tuple[str, int, list[Branch]]]:
    """The functions of the listing in order: name, line, branches. Raises `CoverageError`."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        (
            entry["name"],
            entry["line"],
            [parse_branch(entry["name"], text) for text in entry["branches"]],
        )
        for entry in table["function"]
    ]


def read_table(name: str, path: Path = LISTING) -> dict[str, Any]:
    """Another table of the file: ``features`` or ``by_hand``."""
    return dict(tomllib.loads(path.read_text(encoding="utf-8"))[name])


def made_by(test: str, feature: str, features: dict[str, Any]) -> bool:
    """Whether a test is in a module in which a feature makes its pages itself."""
    return Path(test.partition("::")[0]).stem.removeprefix("test_") in features[feature]


class Source:
    """One module of the model: its marks, and the statements they stand at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")

    @cached_property
    def functions(self) -> list[ast.FunctionDef]:
        """All functions and methods."""
        return [
            node for node in ast.walk(ast.parse(self.text)) if isinstance(node, ast.FunctionDef)
        ]

    def marks(self) -> Iterator[tuple[int, Place]]:
        """Every mark: the line of the listing, and the place. Raises `CoverageError`."""
        for number, line in enumerate(self.text.splitlines(), 1):
            _, hash_sign, comment = line.partition("# L")
            if not hash_sign:
                continue
            for found in MARKER.finditer("L" + comment):
                yield int(found[1]), self.place(number)

    def place(self, number: int) -> Place:
        """The statement at a line. Raises `CoverageError` if it is in no function."""
        inside = [f for f in self.functions if f.lineno <= number <= (f.end_lineno or f.lineno)]
        if not inside:
            raise CoverageError(f"{self.name}:{number}: a mark outside of any function")
        function = max(inside, key=lambda f: f.lineno)
        statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
        at = [s for s in statements if s is not function and s.lineno <= number <= head_end(s)]
        if not at:
            raise CoverageError(f"{self.name}:{number}: a mark that stands at no statement")
        statement = max(at, key=lambda s: s.lineno)
        body = statement.body[0].lineno if isinstance(statement, ast.If | ast.While) else None
        return Place(self.name, function.name, statement.lineno, head_end(statement), body)


def head_end(statement: ast.stmt) -> int:
    """The last line of a statement, or of the condition of a compound one."""
    if isinstance(statement, ast.If | ast.While):
        return statement.test.end_lineno or statement.lineno
    if isinstance(statement, ast.For):
        return statement.iter.end_lineno or statement.lineno
    return statement.end_lineno or statement.lineno


def places() -> dict[int, list[Place]]:
    """Where each line of the listing is in the model."""
    found: dict[int, list[Place]] = {}
    for path in sorted(MODEL.rglob("*.py")):
        for line, place in Source(path).marks():
            found.setdefault(line, []).append(place)
    return found


# ---------------------------------------------------------------- recording


def run_tests(selected: Iterable[str], data: Path) -> None:
    """Run tests uncompiled under coverage. Raises `CoverageError` if one fails."""
    command = [sys.executable, "-m", "coverage", "run", "--branch", f"--data-file={data}"]
    command += ["--include=src/rmap/mm/*", "-m", "pytest", "-q", "-p", "tools.coverage_plugin"]
    command += ["-p", "no:cacheprovider", "--hypothesis-seed=0"]
    command += [*(f"--ignore-glob=*/{pattern}" for pattern in BY_LOT), *selected]
    environment = os.environ | {"RMAP_PURE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise CoverageError(f"the tests fail:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")


def reached_arcs(data: Path) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Every jump that was made: the test, the module, and the two lines."""
    from coverage import CoverageData

    recorded = CoverageData(basename=str(data))
    recorded.read()
    for context in sorted(recorded.measured_contexts() - {""}):
        recorded.set_query_context(context)
        for name in recorded.measured_files():
            path = Path(name).resolve()
            for arc in recorded.arcs(name) or ():
                yield context, path.relative_to(ROOT).as_posix(), arc


def outcomes_by_test(data: Path, branches: list[Branch]) -> dict[str, set[str]]:
    """For each outcome of a branch, ``"1385 taken"``, the tests that take it."""
    where = places()
    wanted: dict[str, list[tuple[Branch, Place]]] = {}
    for branch in branches:
        for place in where.get(branch.line, ()):
            wanted.setdefault(place.path, []).append((branch, place))
    found: dict[str, set[str]] = {}
    for test, path, arc in reached_arcs(data):
        for branch, place in wanted.get(path, ()):
            outcome = place.outcome_of(arc, branch.kind)
            if outcome in branch.outcomes:
                found.setdefault(f"{branch.line} {outcome}", set()).add(test)
    return found


def telling_tests(found: dict[str, set[str]]) -> dict[str, str]:
    """One test for each outcome: of the tests of its module the one that takes the fewest others.

    Such a test is about this outcome; a long random walk takes them all and tells nothing. Where a
    feature has to have made the page, only tests in which it does.
    """
    found = of_features(found)
    reaches: dict[str, int] = {}
    for tests in found.values():
        for test in tests:
            reaches[test] = reaches.get(test, 0) + 1
    where = places()
    chosen = {}
    for outcome in sorted(found, key=lambda outcome: (int(outcome.split()[0]), outcome)):
        modules = [Path(place.path).stem for place in where[int(outcome.split()[0])]]
        chosen[outcome] = min(
            found[outcome],
            key=lambda test: (not any(f"/test_{m}" in test for m in modules), reaches[test], test),
        )
    return chosen


def of_features(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """What was found, without the tests that made by hand what a feature should have made."""
    features = read_table("features")
    wanted = {
        f"{branch.line} {outcome}": feature
        for _, _, group in read_listing()
        for branch in group
        for outcome, feature in branch.features.items()
    }
    left = {
        outcome: {
            test
            for test in tests
            if outcome not in wanted or made_by(test, wanted[outcome], features)
        }
        for outcome, tests in found.items()
    }
    return {outcome: tests for outcome, tests in left.items() if tests}


def record(selected: Iterable[str] = TESTS) -> dict[str, str]:
    """Run the tests and return one test for each outcome that any takes."""
    branches = [branch for _, _, group in read_listing() for branch in group]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "coverage")
        run_tests(selected, data)
        return telling_tests(outcomes_by_test(data, branches))


def confirm(reached: dict[str, str]) -> list[str]:
    """Run just the tests that are named, and return the outcomes that theirs does not take."""
    branches = [branch for _, _, group in read_listing() for branch in group]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "coverage")
        run_tests(sorted(set(reached.values())), data)
        found = outcomes_by_test(data, branches)
    return [outcome for outcome, test in reached.items() if test not in found.get(outcome, ())]


# ---------------------------------------------------------------- the document


def gaps(reached: dict[str, str]) -> list[str]:
    """What is not in the model, not reached by a test, or not by one of the feature it is about."""
    where = places()
    features = read_table("features")
    missing = []
    for _, _, branches in read_listing():
        for branch in branches:
            at = f"L{branch.line} {branch.function}"
            if branch.line not in where:
                missing.append(f"{at}: not in the model")
                continue
            for outcome in branch.outcomes:
                test = reached.get(f"{branch.line} {outcome}")
                feature = branch.features.get(outcome)
                if test is None:
                    missing.append(f"{at}: no test for: {outcome}")
                elif feature and not made_by(test, feature, features):
                    missing.append(f"{at}: {outcome}: not {feature}: {test}")
    return missing


def cell(branch: Branch, reached: dict[str, str], by_hand: dict[str, Any]) -> str:
    """The last column: the test of each outcome."""
    parts = []
    for outcome in branch.outcomes:
        key = f"{branch.line} {outcome}"
        file, _, test = reached.get(key, "").rpartition("::")
        name = f"`{file.partition('::')[0].rpartition('/')[2]}::{test}`" if file else "**none**"
        if key in by_hand:
            name += " (by hand)"
        parts.append(name if len(branch.outcomes) == 1 else f"{outcome}: {name}")
    return "<br>".join(parts)


def document(reached: dict[str, str]) -> str:
    """The text of ``docs/rmap-coverage.md``."""
    where = places()
    functions = read_listing()
    by_hand = read_table("by_hand")
    branches = [branch for _, _, group in functions for branch in group]
    outcomes = [(branch, outcome) for branch in branches for outcome in branch.outcomes]
    tested = sum(f"{branch.line} {outcome}" in reached for branch, outcome in outcomes)
    lines = [
        "# Every branch of mm/rmap.c",
        "",
        "Made by `python tools/coverage_doc.py --record`; do not edit. A test runs the tests named",
        "here, uncompiled and traced, and fails if one does not take its outcome.",
        "",
        f"{len(functions)} functions, {len(branches)} branches with {len(outcomes)} outcomes: "
        f"{tested} are reached by a test.",
        "",
        "Lines are those of the listing (v4.18). In the model, `# L1385` marks the statement.",
        "",
        "An outcome that is about a huge, merged, moving, broken or device's page is taken by a",
        "test in which faults, scans, system calls and errors of memory have made it one. *A bug*",
        "or *a warning* takes a caller that errs, which is then the test. Also by hand are:",
        "",
    ]
    lines += [f"* L{outcome.replace(' ', ', ', 1)}: {why}" for outcome, why in by_hand.items()]
    for name, line, group in functions:
        lines += ["", f"## `{name}` (mm/rmap.c:{line})", ""]
        lines += ["| line | what | in the model | tests |", "|---|---|---|---|"]
        for branch in group:
            here = {
                f"`{place.path.rpartition('/')[2]}`: `{place.function}`": None
                for place in where.get(branch.line, ())
            }
            tests = cell(branch, reached, by_hand)
            place = "<br>".join(here) or "**missing**"
            lines.append(f"| {branch.line} | {branch.what} | {place} | {tests} |")
    return "\n".join(lines) + "\n"


def read_reached() -> dict[str, str]:
    """What was recorded last."""
    return dict(json.loads(REACHED.read_text(encoding="utf-8")))


def main(arguments: list[str] | None = None) -> int:
    """Record, check, or write the document anew; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="run the tests first")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if not current")
    options = parser.parse_args(arguments)
    try:
        if options.record:
            REACHED.parent.mkdir(parents=True, exist_ok=True)
            REACHED.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
        reached = read_reached()
        text = document(reached)
        missing = gaps(reached)
    except (CoverageError, OSError, ValueError) as error:
        print(f"coverage_doc: {error}", file=sys.stderr)
        return 2
    stale = options.check and DOCUMENT.read_text(encoding="utf-8") != text
    if not options.check:
        DOCUMENT.write_text(text, encoding="utf-8")
    for line in missing:
        print(line)
    if stale:
        print(f"{DOCUMENT.name} is not current: run python tools/coverage_doc.py")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    sys.exit(main())

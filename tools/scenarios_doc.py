# SPDX-License-Identifier: GPL-2.0-only
"""Write docs/scenarios.md from the tables of the language: ``python tools/scenarios_doc.py``.

A test compares the file with what this module would write, and runs the scenarios in it.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from rmap.scenario import limits, quantities, statements
from rmap.scenario.grammar import Spec
from rmap.scenario.library import load, shipped
from rmap.scenario.parser import OUTCOMES
from rmap.scenario.runner import DEFAULTS
from rmap.scenario.state import FILE_PAGES, STRIDE

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "docs" / "scenarios.md"

_INTRODUCTION = """\
# Scenarios

Made by `python tools/scenarios_doc.py`; do not edit.

A scenario is a small program for the model of the kernel's memory management: processes map,
write and fork, the kernel reclaims, and in between one asks who maps what.

```
# A child that writes gets a copy
mmap P0 A 4 anon             # four pages of private memory, at a place called A
write P0 A 0 4
fork P0 P1
write P1 A 0 1
expect mapcount P0 A 0 == 1  # the page that P1 wrote to is P0's alone now
expect mapcount P0 A 1 == 2
walk P0 A 0 2
```

```console
$ rmap run child.rmap
P0 A+0: a walk of page 0x1, owned by anon_vma 1, visited 2 VMAs and found it in 1
P0 A+1: a walk of page 0x2, owned by anon_vma 1, visited 2 VMAs and found it in 2
...
```

`rmap run FILE` runs one, `rmap run --list` lists those that come with rmap, `rmap tree FILE` draws
the anon_vmas that it leaves. `--until LINE` stops in front of a line, `--trace` prints a line for
each kernel function of interest, `--image OUT` keeps the memory it leaves, which every other
command can be asked about.

## Lines

One statement a line; `#` begins a comment. Words are separated by blanks. A mistake is said with
its line and what to do, before anything runs if it can be known then, and ends with exit status 2.

* **Pages.** Memory is counted in pages of 4 KiB: `OFF`, `LEN` and all sizes. `64K`, `1M` and `2G`
  are as many pages as such sizes hold. Offsets may be negative and reach beyond a region's end:
  they are just addresses.
* **Regions.** A region is a name for a place, the same in all processes. The first `mmap` or
  `mremap` that names it places it: at page `N` if it says `at:N`, else {stride} pages after the one
  before it, or further if that is longer. `[heap]` is the region that `brk` moves the end of, and
  `[stack]` the lowest VMA of a process that grows down.
* **Processes.** `P0` is there from the start, all others are made by `fork` or `spawn`.
* **Files.** A file that is mapped and was not made by `file` is {file_pages} pages of shared
  memory.
* **What is stored.** Operations are numbered from 1, as they are carried out. A `write` stores that
  number at the start of each page, so that one can tell whose page is whose.
* **What fails.** An operation that the kernel refuses is told, counted, and the run goes on.
  `try STATEMENT` lets it fail without a word.

Without settings the machine has {ram} pages of RAM, no swap and one CPU, and is Linux {profile}.
The programs of the conformance corpus in `tests/data/conformance` are scenarios.

## Steering

| line | what it does |
|---|---|
| `let NAME = EXPRESSION` | Set a variable to a number, |
| `let NAME = QUANTITY ...` | to a quantity (below), |
| `let NAME = one of WORD...` | to one of some words, by chance, |
| `let NAME = any process` | or to the name of a living process, by chance. |
| `repeat N` ... `end` | Repeat the lines in between. |
| `for NAME in LOW..HIGH` ... `end` | Repeat them with each number, both ends included, |
| `for NAME in WORD...` ... `end` | or with each word. |
| `choose [WEIGHT]` ... `or [WEIGHT]` ... `end` | Carry out one of the parts, by chance. |
| `if CONDITION` ... `else` ... `end` | Carry out one of the parts, or nothing. |
| `expect CONDITION` | Exit status 1 if it is not so; the run goes on. |
| `expect OUTCOME: STATEMENT` | Likewise if the operation ends otherwise. |
| `try STATEMENT` | Carry an operation out that may fail. |
| `print TEXT` | Print the rest of the line. |
| `stop` | End here. |

`{{EXPRESSION}}` inside a word is replaced by its value: `fork P0 worker{{i + 1}}`. An expression
has numbers, variables, `+ - * / %` (division rounds down), parentheses, `min(a, b)`, `max(a, b)`
and `random(low, high)`, both ends included. Chance starts from `seed`, so a run can be repeated.

A condition is `LEFT == RIGHT`, likewise `!=`, `<`, `<=`, `>`, `>=`, where each side is an
expression or a quantity; or `[not] LEFT`, which compares with 0. An outcome is one of {outcomes},
or the name of an error such as `ENOMEM`. `fail` is any but `ok` and `BUG`; `WAITS` is an access
that waits for a page of userfaultfd; `BUG` is a kernel that stops (BUG_ON), and operations after it
are left out.
"""

_LIMITS = (
    ("bytes of text", limits.TEXT_BYTES),
    ("characters in a line", limits.LINE_CHARACTERS),
    ("blocks inside blocks", limits.DEPTH),
    ("statements carried out", limits.STEPS),
    (
        "pages touched, copied or visited; one that is accessed by itself counts 20, a link of a "
        "chain that fork copies 50, a new page table 512, a look at the machine all its pages",
        limits.PAGE_STEPS,
    ),
    ("lines of output", limits.OUTPUT_LINES),
    ("lines of trace, which is cut there", limits.TRACE_LINES),
    ("pages of RAM; of swap", limits.RAM_PAGES),
    ("pages of a file", limits.FILE_PAGES),
    ("CPUs", limits.CPUS),
    ("processes, those that exited included", limits.PROCESSES),
    ("regions; files; pins", limits.REGIONS),
    ("cgroups", limits.CGROUPS),
    ("page numbers, offsets and lengths", limits.PAGE_NUMBER),
    ("parts of an expression", limits.EXPRESSION_TOKENS),
)


def document() -> str:
    """The whole file."""
    introduction = _INTRODUCTION.format(
        stride=STRIDE, file_pages=FILE_PAGES, ram=f"{DEFAULTS['ram']:,}",
        profile=DEFAULTS["profile"], outcomes=", ".join(f"`{outcome}`" for outcome in OUTCOMES),
    )  # fmt: skip
    lines = [introduction, "## Statements", ""]
    lines += _tables(statements.GROUPS, "line")
    lines += [
        _wrap(
            "`KIND` is `anon` (private), `shared` (anonymous, shared with children), `stack` "
            "(private, grows down), `file:F:PGOFF` (shared) or `fileprivate:F:PGOFF`. `ADVICE` is "
            f"{_codes(statements.ADVICE)}. `SITE`, an allocation, is {_codes(statements.SITES)}. "
            f"`SECTION` is {_codes(statements.SECTIONS)}."
        ),
        "",
        "## Quantities",
        "",
        _wrap(
            "Measuring changes nothing: no page is faulted in, no walk counted. (`idle` alone "
            "looks at accessed bits and clears them, as reading the kernel's bitmap does.)"
        ),
        "",
    ]
    lines += _tables(quantities.GROUPS, "quantity")
    lines += [
        _wrap(
            f"`FLAG` is {_codes(quantities.PAGE_FLAGS)}. `outcome` takes "
            f"{_codes(quantities.RECLAIM_COUNTS)}. A page that is not mapped measures 0."
        ),
        "",
        "## Scenarios that come with rmap",
        "",
        "| name | what it shows |",
        "|---|---|",
        *(f"| `{name}` | {load(name).title} |" for name in shipped()),
        "",
        "## Limits",
        "",
        _wrap(
            "A scenario may come from a stranger; it ends, and its machine has a size. Whatever "
            "asks for more is refused with its line and exit status 2."
        ),
        "",
        "| at most | |",
        "|---:|---|",
        *(f"| {count:,} | {what} |" for what, count in _LIMITS),
        "",
    ]
    return "\n".join(lines)


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 100, break_on_hyphens=False))


def _codes(words: Iterable[str]) -> str:
    listed = [f"`{word}`" for word in words]
    return f"{', '.join(listed[:-1])} or {listed[-1]}"


def _tables(groups: Mapping[str, tuple[Spec, ...]], what: str) -> list[str]:
    lines = []
    for title, specs in groups.items():
        lines += [f"### {title}", "", f"| {what} | |", "|---|---|"]
        lines += [f"| `{_escape(spec.usage)}` | {spec.summary} |" for spec in specs]
        lines.append("")
    return lines


def _escape(usage: str) -> str:
    return usage.replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
    sys.stderr.write(f"wrote {PATH.relative_to(ROOT)}\n")

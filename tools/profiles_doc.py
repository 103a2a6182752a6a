# SPDX-License-Identifier: GPL-2.0-only
"""Write docs/profiles.md from the quirks: ``python tools/profiles_doc.py``.

A test compares the file with what this module would write, so it cannot go stale.
"""

from __future__ import annotations

from pathlib import Path

from rmap.mm.profile import PROFILES, QUIRKS, Quirk, profile

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "docs" / "profiles.md"

_INTRODUCTION = """\
# Profiles: which kernel the model is

Made from `src/rmap/mm/profile.py` by `python tools/profiles_doc.py`; do not edit.

The model is Linux v4.18, with its defects. What later kernels changed is a *quirk*, a named switch;
a profile is a set of them, and can be mixed:

```python
from rmap.mm.profile import profile
from rmap.model import Machine

Machine(profile="6.1")
Machine(profile=profile("4.18", separate_reuse_counters=True))  # with one fix
Machine(profile=profile("4.18", page_mapped_recheck=False))  # without a protection it has
```

Code asks for the quirk it depends on (`if k.profile.anon_exclusive:`), never for a version.

## Against real kernels

`tests/data/conformance` holds 547 programs and the state in which two real kernels ended after
each: VMAs, anon_vma chains and trees with all counts, page-table entries, pages with owner, index,
counts, flags and contents. Profile `6.1` is one of these kernels (6.1.192), `6.12` the other
(6.12.111). The tests insist that the model ends in the same state, in every field.

```
make conformance                                             # how many programs agree
python -m tools.conformance --profile 6.1 'hand-*'           # some of them
python -m tools.conformance mine.json                        # your own, with what a kernel did
python -m tools.conformance --profile 6.1 --without mlock_counts     # a kernel that never was
python -m tools.conformance --profile 6.1 --quirks           # how many programs tell each quirk
```

For a program that differs it prints the operation at which model and kernel part, and in what. The
language of the programs is described in `tools/conformance/language.py`, the form of a state in
`tools/conformance/world.py`.

What these programs cannot show: huge pages, swap, reclaim, KSM and several CPUs (the kernels were
recorded without them), the order of the LRU lists, the colours of the trees. LRU batches are none
in the model: it is always as after `lru_add_drain()`. A kernel whose mlock batch overflows before
its LRU batch counts a mlocked page once less, which no program of the corpus can tell.

## Quirks

*since* is the first release that has it; empty for what is in no release, or came and went. A
profile has what came until its release, but for what is listed as undone or backported.

"""


def document() -> str:
    """The whole file."""
    names = list(PROFILES)
    lines = [
        f"| quirk | since | {' | '.join(names)} | what it does |",
        f"|---|---|{'---|' * len(names)}---|",
    ]
    lines += [_row(quirk, names) for quirk in QUIRKS]
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _row(quirk: Quirk, names: list[str]) -> str:
    """A line of the table."""
    has = ["yes" if getattr(profile(name), quirk.name) else "" for name in names]
    what = quirk.why.replace("|", "\\|")
    return f"| `{quirk.name}` | {quirk.since} | {' | '.join(has)} | {what} |"


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")

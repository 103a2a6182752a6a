# SPDX-License-Identifier: GPL-2.0-only
"""What a scenario may ask for: bounds, so that a stranger's scenario ends.

Every bound is checked where the thing it bounds is asked for; docs/scenarios.md lists them, and a
test compares the two.
"""

from __future__ import annotations

#: Bytes of a scenario's text.
TEXT_BYTES = 1 << 20
#: Characters of one line.
LINE_CHARACTERS = 2000
#: Blocks inside blocks.
DEPTH = 16
#: Statements carried out, loops included.
STEPS = 1_000_000
#: Pages touched, copied by a fork, or visited by a walk, all together.
PAGE_STEPS = 100_000_000
#: Pages of RAM (16 GiB), and of all swap areas together.
RAM_PAGES = 4 << 20
SWAP_PAGES = 4 << 20
#: Pages of one file.
FILE_PAGES = 1 << 20
#: Simulated CPUs.
CPUS = 64
#: Processes, dead ones included; regions; files; cgroups; pins held.
PROCESSES = 32_768
REGIONS = 4096
FILES = 4096
CGROUPS = 1024
PINS = 4096
#: Lines of output: of print, who, walk and the like; and lines of the trace, which is cut there.
OUTPUT_LINES = 200_000
TRACE_LINES = 200_000
#: Magnitude of a number; nesting of an expression, and its numbers, names and signs.
NUMBER = 1 << 62
EXPRESSION_DEPTH = 40
EXPRESSION_TOKENS = 200
#: A page number, an offset, a length: what 47 bits of addresses hold, above the arena's start.
PAGE_NUMBER = 1 << 34

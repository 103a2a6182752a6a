# SPDX-License-Identifier: GPL-2.0-only
"""Names of the statistics that the kernel keeps of its memory (/proc/vmstat)."""

from __future__ import annotations

from collections.abc import Sequence

from rmap.mm import bits

_NAMES = list(vars(bits))
#: In the order of their numbers, which is that of their definition.
VM_STAT_NAMES: tuple[str, ...] = tuple(
    name.lower() for name in _NAMES[_NAMES.index("NR_FREE_PAGES") : _NAMES.index("NR_VM_STATS")]
)


def stats_of(counters: Sequence[int] | memoryview) -> dict[str, int]:
    """Return counters by name, in the kernel's order."""
    return {name: int(counters[number]) for number, name in enumerate(VM_STAT_NAMES)}

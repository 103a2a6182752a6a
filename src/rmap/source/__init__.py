# SPDX-License-Identifier: GPL-2.0-only
"""Sources of memory images: the live machine, and later crash dumps."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a long reading has come: a stage, steps done, steps in all."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def no_progress(stage: str, done: int, total: int) -> None:
    """The progress of nobody watching."""

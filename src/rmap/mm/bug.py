# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""What the kernel would stop at: `KernelBug`, and warnings that are collected.

Each names the check by the place in the kernel where it stands, so that it can be looked up. After
a `KernelBug` the machine stays as it was at that moment and can be inspected.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.scalar import i32, u64


class KernelBug(AssertionError):
    """A BUG_ON(), VM_BUG_ON() or an oops. `check` names it: where it is and what was not so."""

    def __init__(self, check: str, page: int | None = None) -> None:
        self.check = check
        self.page = page
        super().__init__(check if page is None else f"{check} (page {page:#x})")


class KernelWarning:
    """One WARN_ON(): the check, and the page it was about, if any."""

    def __init__(self, check: str, page: int | None = None) -> None:
        self.check = check
        self.page = page

    def __repr__(self) -> str:
        where = "" if self.page is None else f", {self.page:#x}"
        return f"KernelWarning({self.check!r}{where})"


def BUG(check: str) -> i32:
    """Stop as BUG() does. Raises `KernelBug`."""
    raise KernelBug(check)


def BUG_PAGE(check: str, page: u64) -> i32:
    """Stop as VM_BUG_ON_PAGE() does, naming the page. Raises `KernelBug`."""
    raise KernelBug(check, page)


def WARN(warnings: list, check: str) -> i32:
    """Note a warning, every time it happens."""
    warnings.append(KernelWarning(check))
    return 0


def WARN_ONCE(warnings: list, check: str) -> i32:
    """Note a warning the first time it happens."""
    for warning in warnings:
        if warning.check == check:
            return 0
    warnings.append(KernelWarning(check))
    return 0

# SPDX-License-Identifier: GPL-2.0-only
"""The errors that rmap reports to its user, each with the exit status of the command.

Every one of them carries a single line that says what was wrong, where, and what to do; the
command line prints that line and leaves with :attr:`RmapError.exit_status`. An exception that is
not an :class:`RmapError` is a defect of rmap itself.

=====  ==========================================================
0      fine
1      a finding (``rmap fsck`` found a disagreement)
2      usage: a bad argument, target, image or scenario
3      a missing permission, or a feature this kernel lacks
=====  ==========================================================
"""

from __future__ import annotations

from typing import ClassVar


class RmapError(Exception):
    """Base of all errors meant for the user.

    Parameters
    ----------
    message
        One line: what was wrong, where, what to do.

    >>> RmapError("no such process: 99").exit_status
    2
    """

    exit_status: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class TargetError(RmapError):
    """A target, an address or a range that cannot be understood or does not exist."""


class ImageError(RmapError):
    """A memory image that is truncated, foreign, inconsistent, or of a newer schema."""


class QueryError(RmapError):
    """A question that the image at hand cannot answer (an SQL error, a missing table)."""


class PrivilegeError(RmapError):
    """The caller may not read what it asked for; PFNs need CAP_SYS_ADMIN."""

    exit_status: ClassVar[int] = 3


class MissingFeatureError(RmapError):
    """The running kernel lacks something that the command cannot do without."""

    exit_status: ClassVar[int] = 3


class StaleModuleError(RmapError, ImportError):
    """A compiled module is not what its source says, and was not imported."""

# SPDX-License-Identifier: GPL-2.0-only
"""The command line: one file a command, from arguments to a query to a document.

No command knows anything about memory: :mod:`rmap.query` answers, :mod:`rmap.cli.output` prints.
Modules here import heavy libraries inside functions, so that ``rmap --help`` answers at once.
"""

from __future__ import annotations

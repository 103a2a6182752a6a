# SPDX-License-Identifier: GPL-2.0-only
"""Linux's reverse mapping as a Python package."""

from __future__ import annotations

__version__ = "0.1.0"

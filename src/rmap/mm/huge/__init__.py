# SPDX-License-Identifier: GPL-2.0-only
"""Transparent huge pages (mm/huge_memory.c and its like, v4.18)."""

from __future__ import annotations

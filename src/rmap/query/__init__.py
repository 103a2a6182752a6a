# SPDX-License-Identifier: GPL-2.0-only
"""Questions to a memory image: they read it, and never change it."""

from __future__ import annotations

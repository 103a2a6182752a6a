# SPDX-License-Identifier: GPL-2.0-only
"""Tests against the running kernel."""

from __future__ import annotations

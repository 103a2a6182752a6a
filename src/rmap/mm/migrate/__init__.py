# SPDX-License-Identifier: GPL-2.0-only
"""Moving pages: migration, compaction, memory of devices (mm/migrate.c, mm/compaction.c)."""

from __future__ import annotations

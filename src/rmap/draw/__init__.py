# SPDX-License-Identifier: GPL-2.0-only
"""Pictures: described once as a :class:`~rmap.draw.scene.Scene`, written as SVG, PNG or HTML."""

from __future__ import annotations

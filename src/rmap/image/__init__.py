# SPDX-License-Identifier: GPL-2.0-only
"""Memory images: the tables, their schema, their index by page, and their files."""

from __future__ import annotations

from rmap.image.image import MemoryImage
from rmap.image.reverse import Mappings, ReverseMap
from rmap.image.schema import SCHEMA_VERSION, TABLES
from rmap.image.store import read_image, write_image
from rmap.image.table import Table

__all__ = [
    "SCHEMA_VERSION",
    "TABLES",
    "Mappings",
    "MemoryImage",
    "ReverseMap",
    "Table",
    "read_image",
    "write_image",
]

# SPDX-License-Identifier: GPL-2.0-only
"""Tables, and the rules that an image from outside has to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rmap.errors import ImageError
from rmap.image import TABLES, MemoryImage, Table
from rmap.image.flags import Kpf, Vm, names, permissions
from rmap.image.schema import RAM
from rmap.image.validate import validate_image
from tests.images import World


def image() -> MemoryImage:
    world = World()
    first, second = world.process(1, "a"), world.process(2, "b")
    first.vma(0x400000, 4).map(0x400000, 0x20, 0x21)
    first.vma(0x800000, 512).map_huge(0x800000, 0x200)
    second.vma(0x400000, 4, path="/lib/x").map(0x400000, 0x20)
    return world.build()


def changed(name: str, columns: Mapping[str, Any]) -> MemoryImage:
    """The image with some columns of one table replaced."""
    tables = dict(image().tables)
    old = tables[name]
    tables[name] = Table(old.schema, {c: old[c] for c in old.column_names} | dict(columns))
    return MemoryImage(tables)


def test_a_sound_image_passes() -> None:
    found = image()
    validate_image(found, "here")
    assert len(found.ptes) == 4


@pytest.mark.parametrize(
    ("table", "columns", "said"),
    [
        ("ptes", {"mm": [0, 0, 0, 7]}, "mm names no row of mms"),
        ("ptes", {"address": [0x401000, 0x400000, 0x800000, 0x400000]}, "not in order"),
        ("ptes", {"address": [0x400000, 0x401001, 0x800000, 0x400000]}, "not page aligned"),
        ("ptes", {"order": [0, 0, 30, 0]}, "order above 24"),
        ("ptes", {"pfn": [0x20, 0x21, 0x201, 0x20]}, "not aligned to its size"),
        ("vmas", {"end": [0x400000, 0xA00000, 0x404000]}, "an empty range"),
        ("vmas", {"end": [0x900000, 0xA00000, 0x404000]}, "overlapping"),
        ("vmas", {"file": [-1, -1, 3]}, "file names no row of files"),
        ("vmas", {"vma": [0, 1, 1]}, "vma is not the row number"),
        ("processes", {"pid": [2, 1]}, "pid does not ascend"),
        ("mms", {"mm": [1, 0]}, "mm is not the row number"),
        ("machine", {"page_size": [5000]}, "a page size of 5000"),
    ],
)
def test_a_broken_rule_is_named(table: str, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=rf"^here: table {table} .*{said}"):
        validate_image(changed(table, columns), "here")


def test_two_machines_are_none() -> None:
    tables = dict(image().tables)
    tables["machine"] = Table.empty(TABLES["machine"])
    with pytest.raises(ImageError, match="has 0 rows, not 1"):
        validate_image(MemoryImage(tables), "here")


def test_ranges_of_ram_may_not_overlap() -> None:
    with pytest.raises(ImageError, match="ranges overlap"):
        validate_image(changed("ram", {"start_pfn": [1, 5], "end_pfn": [8, 9]}), "here")


class TestTable:
    def test_a_missing_or_unknown_column_is_refused(self) -> None:
        with pytest.raises(ImageError, match="lacks column end_pfn"):
            Table(RAM, {"start_pfn": [1]})
        with pytest.raises(ImageError, match="has no column colour"):
            Table(RAM, {"start_pfn": [1], "end_pfn": [2], "colour": [3]})

    def test_columns_are_of_one_length(self) -> None:
        with pytest.raises(ImageError, match="different lengths"):
            Table(RAM, {"start_pfn": [1, 2], "end_pfn": [2]})

    @pytest.mark.parametrize("value", [-1, 1.5])
    def test_a_value_that_does_not_fit_is_refused(self, value: float) -> None:
        with pytest.raises(ImageError, match=r"ram\.start_pfn: a value does not fit uint64"):
            Table(RAM, {"start_pfn": [value], "end_pfn": [2]})

    def test_rows_are_plain_values(self) -> None:
        table = Table.from_rows(RAM, [{"start_pfn": 1, "end_pfn": 9}])
        assert table.row(0) == {"start_pfn": 1, "end_pfn": 9}
        assert type(table.row(0)["end_pfn"]) is int
        assert len(table.take(np.array([False]))) == 0
        with pytest.raises(KeyError, match="no column 'colour'"):
            table["colour"]


def test_flags_have_names() -> None:
    assert names(Kpf, int(Kpf.ANON | Kpf.LRU)) == ["lru", "anon"]
    assert permissions(Vm.READ | Vm.MAYSHARE) == "r--s"

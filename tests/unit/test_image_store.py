# SPDX-License-Identifier: GPL-2.0-only
"""Image files: what is written is what is read, and what is damaged says so in one line."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmap.errors import ImageError, RmapError
from rmap.image import SCHEMA_VERSION, TABLES, MemoryImage, read_image, store, write_image
from tests.images import FILE, World


def story() -> MemoryImage:
    """A shell and its child: a library, a heap that the child has begun to copy, swap, a THP."""
    world = World()
    shell = world.process(100, "bash")
    shell.vma(0x7F0000000000, 4, "r-xp", path="/usr/lib/libc.so.6").map(0x7F0000000000, 0x10, 0x11)
    heap = shell.vma(0x400000, 4, name="[heap]")
    heap.map(0x400000, 0x20, 0x21).swap(0x402000, 5)
    shell.vma(0x600000, 512).map_huge(0x600000, 0x200)
    child = shell.fork(101, "sed")
    child.remap(0x401000, 0x28)
    world.pages(0x10, 2, FILE)
    return world.build()


def same(first: MemoryImage, second: MemoryImage) -> bool:
    return all(first.tables[name].equals(second.tables[name]) for name in TABLES)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "machine.zip"
    write_image(story(), path)
    return path


@pytest.mark.parametrize("name", ["machine.zip", "machine/"])
def test_what_is_written_is_what_is_read(tmp_path: Path, name: str) -> None:
    image = story()
    write_image(image, f"{tmp_path}/{name}")
    assert same(read_image(f"{tmp_path}/{name}"), image)
    assert os.listdir(tmp_path) == [name.rstrip("/")]


@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5),
    pfns=st.lists(st.integers(0, 2**52), unique=True, max_size=20),
)
@settings(max_examples=25)
def test_any_text_and_any_frame_survive(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], pfns: list[int]
) -> None:
    world = World()
    for number, name in enumerate(names):
        process = world.process(100 + number, name)
        area = process.vma(0x400000, 32, name=name)
        area.map(0x400000, *pfns)
    image = world.build(scope="processes")
    path = tmp_path_factory.mktemp("images") / "any.zip"
    write_image(image, path)
    assert same(read_image(path), image)


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        write_image(story(), tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_file_cut_anywhere_is_refused(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    cut = tmp_path / "cut.zip"
    for length in [*range(0, len(whole), 997), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"cut\.zip: "):
            read_image(cut)


def test_a_flipped_bit_is_noticed_or_harmless(written: Path, tmp_path: Path) -> None:
    whole = bytearray(written.read_bytes())
    image, flips = story(), random.Random(7)
    bad = tmp_path / "bad.zip"
    refused: list[str] = []
    for _ in range(150):
        at = flips.randrange(len(whole))
        whole[at] ^= 1 << flips.randrange(8)
        bad.write_bytes(whole)
        try:
            assert same(read_image(bad), image)
        except RmapError as error:
            refused.append(str(error))
        whole[:] = written.read_bytes()
    assert len(refused) > 100
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize("table", ["ptes", "processes"])
def test_a_directory_with_a_damaged_table_is_refused(tmp_path: Path, table: str) -> None:
    write_image(story(), f"{tmp_path}/machine/")
    path = tmp_path / "machine" / f"{table}.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-8])
    with pytest.raises(ImageError, match=f"table {table} is truncated"):
        read_image(tmp_path / "machine")
    path.write_bytes(b"x" * len(data))
    with pytest.raises(ImageError, match=f"table {table} is damaged"):
        read_image(tmp_path / "machine")
    path.unlink()
    with pytest.raises(ImageError, match=f"table {table} is missing"):
        read_image(tmp_path / "machine")


def rewrite_manifest(path: Path, **changes: Any) -> None:
    """Replace members of the manifest in a directory image."""
    file = path / store.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": SCHEMA_VERSION + 1}, "is newer than the"),
        ({"schema": "one"}, "states no schema version"),
        ({"format": "other"}, "not an rmap image"),
        ({"tables": ["ptes"]}, "lists no tables"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write_image(story(), f"{tmp_path}/machine/")
    rewrite_manifest(tmp_path / "machine", **changes)
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "machine")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ImageError, match="not an rmap image"):
        read_image(foreign)
    with pytest.raises(ImageError, match="no such image"):
        read_image(tmp_path / "nothing.zip")
    (tmp_path / "empty.zip").touch()
    with pytest.raises(ImageError, match="empty file"):
        read_image(tmp_path / "empty.zip")


def test_a_directory_that_is_no_image_is_never_replaced(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter").write_text("dear")
    with pytest.raises(ImageError, match="a directory that is not an image"):
        write_image(story(), f"{home}/")
    assert (home / "letter").read_text() == "dear"


def test_a_broken_off_write_leaves_the_old_image(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written.read_bytes()

    def full_disk(table: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_encode", full_disk)
    with pytest.raises(ImageError, match="No space left on device"):
        write_image(story(), written)
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]

# SPDX-License-Identifier: GPL-2.0-only
"""File pages: several mappings of one file, private copies, and files hard to name."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import pytest

from rmap.image import MemoryImage

from .expect import expect
from .world import PAGE, Process, Region, World, make_file

pytestmark = pytest.mark.live


def file_of(image: MemoryImage, process: Process, region: Region) -> dict[str, object]:
    """Row of the table of files for what ``process`` maps at ``region``."""
    mm = image.mms["pid"].tolist().index(process.pid)
    vma = int(image.find_vmas(mm, [region.start])[0])
    return image.files.row(int(image.vmas["file"][vma]))


def identity(path: Path) -> tuple[int, int]:
    """(device, inode) of a file, in the encoding of an image."""
    found = path.stat()
    return os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino


def test_a_file_mapped_twice_at_different_offsets(world: World, data_file: Path) -> None:
    process = world.process()
    low = process.map_file(data_file, 8, page=0)
    high = process.map_file(data_file, 8, page=4)
    process.read(low)
    process.read(high)

    expect(
        world,
        world.snapshot(),
        [(process, low[0:4])],
        [(process, low[4:8]), (process, high[0:4])],
        [(process, high[4:8])],
    )


def test_two_processes_map_different_parts_of_a_file(world: World, data_file: Path) -> None:
    one, other = world.process(), world.process()
    first = one.map_file(data_file, 16)
    second = other.map_file(data_file, 16, page=10)
    one.read(first)
    other.write(second)

    expect(
        world,
        world.snapshot(),
        [(one, first[0:10])],
        [(one, first[10:16]), (other, second[0:6])],
        [(other, second[6:16])],
    )


def test_a_private_mapping_leaves_the_file_where_it_is_written(
    world: World, data_file: Path
) -> None:
    parent = world.process()
    shared = parent.map_file(data_file, 8)
    private = parent.map_file(data_file, 8, private=True)
    parent.read(shared)
    parent.read(private)
    parent.write(private[0:2])
    child = parent.fork()
    child.write(private[2:4])

    # The child has the private mapping's pages, since that one holds copies; the shared one it
    # would fault in anew.
    expect(
        world,
        world.snapshot(),
        [(parent, private[0:2]), (child, private[0:2])],
        [(child, private[2:4])],
        [(parent, shared[0:2])],
        [(parent, shared[2:4]), (parent, private[2:4])],
        [(parent, shared[4:8]), (parent, private[4:8]), (child, private[4:8])],
    )


def test_part_of_a_file_is_unmapped_in_one_of_two_processes(world: World, data_file: Path) -> None:
    parent = world.process()
    region = parent.map_file(data_file, 12)
    child = parent.fork()
    parent.read(region)
    child.read(region)
    child.unmap(region[3:9])

    expect(
        world,
        world.snapshot(),
        [(parent, region[0:3]), (child, region[0:3])],
        [(parent, region[3:9])],
        [(parent, region[9:12]), (child, region[9:12])],
    )


def test_a_memfd_is_shared_between_strangers(world: World) -> None:
    owner, guest = world.process(), world.process()
    fd = owner.memfd(b"buffer", 8)
    ours = owner.map(8, mmap.MAP_SHARED, fd=fd)
    theirs = guest.map_file(Path(f"/proc/{owner.pid}/fd/{fd}"), 4, page=4)
    owner.write(ours)
    guest.read(theirs)

    image = world.snapshot()

    expect(world, image, [(owner, ours[0:4])], [(owner, ours[4:8]), (guest, theirs)])
    assert file_of(image, owner, ours) == file_of(image, guest, theirs)
    assert file_of(image, owner, ours)["path"] == "/memfd:buffer"


def test_shared_anonymous_memory(world: World) -> None:
    parent = world.process()
    memory = parent.map_shared(8)
    parent.write(memory[0:6])
    child = parent.fork()
    child.write(memory[2:8])

    # What the child has not touched it does not map: fork leaves shared memory to faults.
    expect(
        world,
        world.snapshot(),
        [(parent, memory[0:2])],
        [(parent, memory[2:6]), (child, memory[2:6])],
        [(child, memory[6:8])],
    )


def test_a_deleted_file_is_still_one_file(world: World, data_file: Path) -> None:
    one, other = world.process(), world.process()
    first, second = one.map_file(data_file, 4), other.map_file(data_file, 4)
    device_inode = identity(data_file)
    data_file.unlink()
    one.read(first)
    other.read(second)

    image = world.snapshot()

    expect(world, image, [(one, first), (other, second)])
    row = file_of(image, one, first)
    assert (row["device"], row["inode"]) == device_inode
    assert row["path"] == str(data_file)
    assert row["deleted"] is True


def test_a_file_replaced_under_its_name_is_another_file(world: World, tmp_path: Path) -> None:
    path = make_file(tmp_path / "config", 4)
    early, late = world.process(), world.process()
    old = early.map_file(path, 4)
    make_file(tmp_path / "new", 4).rename(path)
    new = late.map_file(path, 4)
    early.read(old)
    late.read(new)

    image = world.snapshot()

    expect(world, image, [(early, old)], [(late, new)])
    before, after = file_of(image, early, old), file_of(image, late, new)
    assert before["path"] == after["path"] == str(path)
    assert (before["deleted"], after["deleted"]) == (True, False)
    assert (after["device"], after["inode"]) == identity(path)


def test_two_names_of_one_file(world: World, data_file: Path) -> None:
    link = data_file.with_name("link")
    link.hardlink_to(data_file)
    one, other = world.process(), world.process()
    first, second = one.map_file(data_file, 4), other.map_file(link, 4)
    one.read(first)
    other.read(second)

    image = world.snapshot()

    expect(world, image, [(one, first), (other, second)])
    assert file_of(image, one, first) == file_of(image, other, second)


def test_truncation_unmaps_everywhere(world: World, data_file: Path) -> None:
    one, other = world.process(), world.process()
    first, second = one.map_file(data_file, 12), other.map_file(data_file, 12, private=True)
    one.read(first)
    other.read(second)
    other.write(second[2:6])
    os.truncate(data_file, 4 * PAGE)
    # If the end falls into a large folio, that is split, and its other pages are unmapped too.
    one.read(first[0:4])
    other.read(second[0:4])

    # Private copies of what is no longer in the file are gone as well.
    expect(
        world,
        world.snapshot(),
        [(one, first[0:2]), (other, second[0:2])],
        [(one, first[2:4])],
        [(other, second[2:4])],
    )


def test_a_file_in_shared_memory(world: World) -> None:
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        pytest.skip("/dev/shm cannot be written to")
    with tempfile.NamedTemporaryFile(dir=folder, prefix="rmap-live-") as file:
        path = make_file(Path(file.name), 8)
        one, other = world.process(), world.process()
        first, second = one.map_file(path, 8), other.map_file(path, 4, page=2, private=True)
        one.read(first)
        other.read(second)
        other.write(second[0])

        image = world.snapshot()

        expect(
            world,
            image,
            [(one, first[0:3])],
            [(other, second[0])],
            [(one, first[3:6]), (other, second[1:4])],
            [(one, first[6:8])],
        )
        row = file_of(image, one, first)
        assert (row["device"], row["inode"], row["path"]) == (*identity(path), str(path))


@pytest.mark.parametrize(
    "name",
    [
        "123",
        "7f0000000000-7f0000001000 rw-p",
        "[heap]",
        "a\nnewline",
        "tab\tand  blanks ",
        "not gone (deleted)",
        "back\\012slash",
        "\x1b[31mred",
        b"latin-\xe9".decode("utf-8", "surrogateescape"),
    ],
    ids=ascii,
)
def test_a_file_with_a_hostile_name(world: World, tmp_path: Path, name: str) -> None:
    path = make_file(tmp_path / name, 4)
    process = world.process()
    region = process.map_file(path, 4)
    process.read(region)

    image = world.snapshot()

    expect(world, image, [(process, region)])
    row = file_of(image, process, region)
    assert (row["device"], row["inode"]) == identity(path)
    # maps writes a newline as \012 and a backslash as it is: these two names look the same.
    raw = os.fsencode(path).replace(b"\\012", b"\n")
    assert row["path"] == raw.decode("utf-8", "backslashreplace")
    assert row["deleted"] is False


def test_a_file_seen_through_a_bind_mount(world: World, data_file: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outside, inside = world.process(), world.process()
    try:
        inside.call("bind", text=os.fsencode(data_file.parent) + b"\0" + os.fsencode(elsewhere))
    except OSError as error:
        pytest.skip(f"no mount namespace of our own: {error.strerror}")
    direct = outside.map_file(data_file, 4)
    bound = inside.map_file(elsewhere / data_file.name, 4)
    outside.read(direct)
    inside.read(bound)

    image = world.snapshot()

    expect(world, image, [(outside, direct), (inside, bound)])
    assert file_of(image, outside, direct) == file_of(image, inside, bound)

# SPDX-License-Identifier: GPL-2.0-only
"""Names for page-table entries: which processes, and where."""

from __future__ import annotations

from rmap.image import MemoryImage
from rmap.query.checks.registry import Mapper

#: Mappers that a finding lists; a library page has hundreds, and the first tell the story.
MAX_MAPPERS = 16


def users_of(image: MemoryImage, mm: int) -> tuple[tuple[int, ...], str]:
    """Return the pids that use address space ``mm``, ascending, and the first one's command."""
    rows = image.processes_of_mm.get(mm, [])
    if not rows:  # a source may know address spaces without processes
        return (int(image.mms["pid"][mm]),), ""
    pids = tuple(image.processes["pid"][rows].tolist())
    return pids, str(image.processes["comm"][rows[0]])


def mapper_of(image: MemoryImage, row: int, pfn: int | None = None) -> Mapper:
    """Describe row ``row`` of ``ptes``: where it begins, or where it maps page ``pfn``."""
    ptes = image.ptes
    pids, comm = users_of(image, int(ptes["mm"][row]))
    address = int(ptes["address"][row])
    if pfn is not None:
        address += (pfn - int(ptes["pfn"][row])) * image.page_size
    return Mapper(pids, comm, address)


def mappers_of_page(image: MemoryImage, pfn: int) -> tuple[Mapper, ...]:
    """Describe the first :data:`MAX_MAPPERS` mappings of a page."""
    rows = image.reverse.mappings([pfn]).rows[:MAX_MAPPERS].tolist()
    return tuple(mapper_of(image, row, pfn) for row in rows)


def name_users(pids: tuple[int, ...], comm: str) -> str:
    """Return processes in words.

    >>> name_users((7, 8), "cat"), name_users((9,), "")
    ('pids 7, 8 (cat)', 'pid 9')
    """
    words = f"pid{'s' if len(pids) > 1 else ''} {', '.join(map(str, pids))}"
    return f"{words} ({comm})" if comm else words

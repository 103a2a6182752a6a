# SPDX-License-Identifier: GPL-2.0-only
"""Image files: Parquet tables and a manifest, in one zip file or one directory.

::

    IMAGE/manifest.json      {"format": "rmap-image", "schema": 1, "tables": {...}}
    IMAGE/ptes.parquet       one file a table; the same names inside a zip

The manifest states each table's rows and bytes, so a truncated file is noticed before it is
believed; Parquet's own page checksums and the zip's guard the contents. Files are written
aside and renamed, so an image is whole or absent. Reading checks everything that the schema
promises (`rmap.image.validate`) and evaluates nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rmap.errors import ImageError
from rmap.image.image import MemoryImage
from rmap.image.schema import SCHEMA_VERSION, TABLES, TEXT, TableSchema
from rmap.image.table import Table, numpy_dtype
from rmap.image.validate import validate_image

FORMAT = "rmap-image"
MANIFEST = "manifest.json"
#: A manifest is a few kilobytes; anything larger is not one.
_MAX_MANIFEST_BYTES = 1 << 20
#: Tables of so many bytes as they are stored are read by several threads.
_WORTH_THREADS = 1 << 20
#: Columns of mostly ascending numbers: their differences are small, and take thirty times less
#: room than the numbers.
_ASCENDING = {"pfn", "address", "start", "end"}


def to_arrow(table: Table) -> pa.Table:
    """Return ``table`` as an Arrow table (text becomes string, absent columns stay absent)."""
    return pa.table(
        {
            name: pa.array(table[name], pa.string())
            if table.schema.column(name).dtype == TEXT
            else pa.array(table[name])
            for name in table.column_names
        }
    )


def _from_arrow(schema: TableSchema, arrow: pa.Table, where: str) -> Table:
    columns: dict[str, Any] = {}
    for name in arrow.column_names:
        try:
            column = schema.column(name)
        except KeyError:
            raise ImageError(f"{where}: unknown column {schema.name}.{name}") from None
        found = arrow.column(name)
        expected = pa.string() if column.dtype == TEXT else pa.from_numpy_dtype(column.dtype)
        if found.type != expected or found.null_count:
            raise ImageError(f"{where}: {schema.name}.{name} is {found.type}, not {expected}")
        columns[name] = found.to_numpy().astype(numpy_dtype(column), copy=False)
    try:
        return Table(schema, columns)
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from None


def _encode(table: Table) -> bytes:
    sink = pa.BufferOutputStream()
    names = set(table.column_names)
    pq.write_table(
        to_arrow(table),
        sink,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=sorted(names - _ASCENDING),
        column_encoding=dict.fromkeys(sorted(names & _ASCENDING), "DELTA_BINARY_PACKED"),
    )
    return sink.getvalue().to_pybytes()


def write_image(image: MemoryImage, path: str | os.PathLike[str]) -> None:
    """Write ``image`` to ``path``: a directory if the name ends in ``/``, else a zip file.

    Raises
    ------
    ImageError
        If the file or its directory cannot be written, or a directory of that name is not an
        image (it is never replaced).
    """
    as_directory = os.fspath(path).endswith("/")
    target = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as aside:
            new = Path(aside) / "new"
            (_write_directory if as_directory else _write_zip)(image, new)
            _replace(new, target, Path(aside) / "old")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"cannot write image {os.fspath(path)}: {reason}") from error


def _replace(new: Path, target: Path, old: Path) -> None:
    """Put ``new`` in the place of ``target``; a directory there must itself be an image."""
    if target.is_dir() and not target.is_symlink():
        if any(target.iterdir()) and not (target / MANIFEST).is_file():
            raise ImageError(f"cannot write image {target}: a directory that is not an image")
        target.rename(old)
    new.rename(target)


def _write_tables(image: MemoryImage, put: Callable[[str, bytes], None]) -> None:
    listing = {}
    for name, table in image.tables.items():
        data = _encode(table)
        put(f"{name}.parquet", data)
        listing[name] = {"file": f"{name}.parquet", "rows": len(table), "bytes": len(data)}
    manifest = {"format": FORMAT, "schema": SCHEMA_VERSION, "tables": listing}
    put(MANIFEST, json.dumps(manifest, indent=1).encode())


def _write_directory(image: MemoryImage, new: Path) -> None:
    new.mkdir()
    _write_tables(image, lambda name, data: _write_synced(new / name, data))
    new.chmod(0o755)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_zip(image: MemoryImage, new: Path) -> None:
    with new.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            # A fixed time stamp: the same image gives the same bytes.
            _write_tables(image, lambda name, data: archive.writestr(zipfile.ZipInfo(name), data))
        file.flush()
        os.fsync(file.fileno())


def read_image(path: str | os.PathLike[str]) -> MemoryImage:
    """Read the image at ``path`` (zip file or directory).

    Raises
    ------
    ImageError
        If it does not exist, is truncated, is not an image, is of a newer schema, or breaks a
        rule of the schema. The message names the file and the table.
    """
    source = Path(path)
    where = os.fspath(path)
    try:
        if source.is_dir():
            return _read_tables(lambda name: (source / name).read_bytes(), where)
        with zipfile.ZipFile(source) as archive:
            return _read_tables(archive.read, where)
    except zipfile.BadZipFile:
        hint = "truncated or not an rmap image" if source.stat().st_size else "empty file"
        raise ImageError(f"{where}: {hint}; make one with 'rmap snapshot -o FILE'") from None
    except FileNotFoundError as error:
        missing = "no such image" if not source.exists() else f"{error.filename} is missing"
        raise ImageError(f"{where}: {missing}") from None
    except (OSError, NotImplementedError, RuntimeError) as error:
        raise ImageError(f"{where}: cannot be read: {error}") from None


def _read_tables(read: Callable[[str], bytes], where: str) -> MemoryImage:
    manifest = _read_manifest(read, where)
    tables = {}
    for name, schema in TABLES.items():
        entry = manifest.get(name)
        if entry is not None:
            tables[name] = _read_table(schema, entry, read, where)
    image = MemoryImage(tables)
    validate_image(image, where)
    return image


def _read_manifest(read: Callable[[str], bytes], where: str) -> dict[str, dict[str, Any]]:
    """Return the table entries of the manifest, checked."""
    try:
        raw = read(MANIFEST)
    except (KeyError, FileNotFoundError):
        raise ImageError(f"{where}: not an rmap image (it has no {MANIFEST})") from None
    try:
        manifest = json.loads(raw) if len(raw) <= _MAX_MANIFEST_BYTES else None
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ImageError(f"{where}: not an rmap image ({MANIFEST} is not one of ours)")
    schema = manifest.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise ImageError(f"{where}: {MANIFEST} states no schema version")
    if schema > SCHEMA_VERSION:
        raise ImageError(
            f"{where}: image schema {schema} is newer than the {SCHEMA_VERSION} that this rmap "
            "reads; use a newer rmap"
        )
    tables = manifest.get("tables")
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ImageError(f"{where}: {MANIFEST} lists no tables")
    return tables


def _read_table(
    schema: TableSchema, entry: dict[str, Any], read: Callable[[str], bytes], where: str
) -> Table:
    # The file name is ours, never the manifest's: an image cannot point outside itself.
    name = f"{schema.name}.parquet"
    try:
        data = read(name)
    except (KeyError, FileNotFoundError):
        raise ImageError(f"{where}: table {schema.name} is missing") from None
    except zipfile.BadZipFile as error:
        raise ImageError(f"{where}: table {schema.name} is damaged ({error})") from None
    if len(data) != entry.get("bytes"):
        raise ImageError(
            f"{where}: table {schema.name} is truncated: {len(data)} bytes, "
            f"{entry.get('bytes')} expected"
        )
    try:
        # The bytes are in memory, so nothing is to be read ahead. Threads pay only for much, and a
        # process that ends while they are still starting is aborted.
        arrow = pq.read_table(
            pa.BufferReader(data),
            page_checksum_verification=True,
            pre_buffer=False,
            use_threads=len(data) >= _WORTH_THREADS,
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ImageError(f"{where}: table {schema.name} is damaged ({error})") from None
    if arrow.num_rows != entry.get("rows"):
        raise ImageError(
            f"{where}: table {schema.name} has {arrow.num_rows} rows, {entry.get('rows')} expected"
        )
    return _from_arrow(schema, arrow, where)


def remove_image(path: Path) -> None:
    """Remove an image, file or directory (used where a temporary one was written)."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_image(path: Path) -> bool:
    """Whether ``path`` looks like an image: cheap, reads only names."""
    if path.is_dir():
        return (path / MANIFEST).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return MANIFEST in archive.namelist()


def _validate_types() -> None:
    """Fail at import time if the schema names a dtype that Arrow cannot hold."""
    for schema in TABLES.values():
        for column in schema.columns:
            if column.dtype != TEXT:
                pa.from_numpy_dtype(np.dtype(column.dtype))


_validate_types()

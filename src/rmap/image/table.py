# SPDX-License-Identifier: GPL-2.0-only
"""A table of a memory image: named numpy columns of equal length, of the types of its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rmap.errors import ImageError
from rmap.image.schema import TEXT, Column, TableSchema

Array = npt.NDArray[Any]


def numpy_dtype(column: Column) -> np.dtype[Any]:
    """Return the numpy dtype that holds ``column`` (text is an array of ``str`` objects)."""
    return np.dtype(object if column.dtype == TEXT else column.dtype)


def _as_column(schema: TableSchema, column: Column, values: Any) -> Array:
    """Convert ``values`` to the column's dtype; a value that does not fit is an error."""
    dtype = numpy_dtype(column)
    array = np.asarray(values, dtype=object) if column.dtype == TEXT else np.asarray(values)
    if array.dtype == dtype:
        return array
    if array.size == 0:
        return np.empty(0, dtype)
    converted = array.astype(dtype)
    if not np.array_equal(converted, array):
        raise ImageError(f"column {schema.name}.{column.name}: a value does not fit {dtype}")
    return converted


class Table:
    """Columns of one table.

    Parameters
    ----------
    schema
        What the table is.
    columns
        One array (or sequence) a column, all of one length. Optional columns may be missing.

    Raises
    ------
    ImageError
        If a column is missing, unknown, of another length, or holds a value that does not fit.

    >>> from rmap.image.schema import RAM
    >>> ram = Table(RAM, {"start_pfn": [1], "end_pfn": [0x9f]})
    >>> len(ram), int(ram["end_pfn"][0])
    (1, 159)
    """

    __slots__ = ("_columns", "schema")

    def __init__(self, schema: TableSchema, columns: Mapping[str, Any]) -> None:
        self.schema = schema
        self._columns: dict[str, Array] = {}
        for column in schema.columns:
            if column.name in columns:
                self._columns[column.name] = _as_column(schema, column, columns[column.name])
            elif not column.optional:
                raise ImageError(f"table {schema.name} lacks column {column.name}")
        unknown = sorted(set(columns) - set(self._columns))
        if unknown:
            raise ImageError(f"table {schema.name} has no column {unknown[0]}")
        lengths = {name: len(array) for name, array in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise ImageError(f"table {schema.name} has columns of different lengths: {lengths}")

    @classmethod
    def empty(cls, schema: TableSchema) -> Table:
        """Return a table without rows (and without optional columns)."""
        return cls(schema, {c.name: [] for c in schema.columns if not c.optional})

    @classmethod
    def from_rows(cls, schema: TableSchema, rows: Iterable[Mapping[str, Any]]) -> Table:
        """Build a table from dictionaries, one a row: for small tables and for tests.

        An optional column is present if the first row has it.
        """
        rows = list(rows)
        if not rows:
            return cls.empty(schema)
        return cls(schema, {name: [row[name] for row in rows] for name in rows[0]})

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> Array:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"table {self.schema.name} has no column {name!r}") from None

    def __repr__(self) -> str:
        return f"<Table {self.schema.name}: {len(self)} rows>"

    @property
    def column_names(self) -> list[str]:
        """Names of the columns that are present, in the order of the schema."""
        return list(self._columns)

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns (text counts as pointers)."""
        return sum(array.nbytes for array in self._columns.values())

    def row(self, index: int) -> dict[str, Any]:
        """Return row ``index`` as a dictionary of plain Python values."""
        return {
            name: array[index].item() if isinstance(array[index], np.generic) else array[index]
            for name, array in self._columns.items()
        }

    def take(self, rows: Any) -> Table:
        """Return a table of the given rows (an index array, a mask or a slice)."""
        return Table(self.schema, {name: array[rows] for name, array in self._columns.items()})

    def equals(self, other: Table) -> bool:
        """Whether both hold the same columns with the same values in the same order."""
        return self.column_names == other.column_names and all(
            np.array_equal(array, other[name]) for name, array in self._columns.items()
        )

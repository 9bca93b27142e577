"""Rows of the lake as JSON has them."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """A result as one dictionary a row."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return [
        {name: plain(values[i]) for name, values in columns.items()} for i in range(table.num_rows)
    ]


def plain(value: Any) -> Any:
    """A value as JSON has it: times as ISO 8601, bytes as base64, maps as objects."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): plain(item) for key, item in value}
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)

"""Answers: rows as JSON with ids as strings, errors with their status, as JSON or as VOTable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
import pyarrow as pa
from starlette.responses import Response

from pipeline.access.votable import error as votable_error
from pipeline.errors import InputError, ModelError, NotFoundError, QueryError, SkysiftError, StoreError, one_line

IDS: Final = ("targetid", "spectrum_id")  # beyond 2⁵³: strings in JSON
VOTABLE: Final = "application/x-votable+xml"
_JSON_COLUMNS: Final = ("why", "network")
_QUERY_STATUS: Final = {"forbidden": 403, "too_large": 413, "timeout": 504, "changed": 409}


def status_of(error: SkysiftError) -> tuple[int, str]:
    """Return the HTTP status and the short code of an error."""
    if isinstance(error, QueryError):
        return _QUERY_STATUS.get(error.reason, 400), error.reason
    if isinstance(error, NotFoundError):
        return 404, "not_found"
    if isinstance(error, InputError):
        return (413 if error.reason == "too_large" else 422), error.reason
    if isinstance(error, StoreError):
        return 503, f"{store_of(error)}_down"
    if isinstance(error, ModelError):
        return 503, "no_model"
    return 500, "failed"


def store_of(error: SkysiftError) -> str:
    """Return which store an error is about."""
    text = str(error)
    return "postgres" if "PostgreSQL" in text else "milvus" if "Milvus" in text else "objects"


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return plain values as JSON; NaN becomes null."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS, default=str)
    return Response(body, status, headers, media_type="application/json")


def problem(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as JSON."""
    return json_answer({"error": {"code": code, "message": message}}, status, headers)


def vo_problem(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as VOTable, as DALI wants it."""
    return Response(votable_error(f"{code}: {message}"), status, headers, media_type=VOTABLE)


def explained(error: SkysiftError, *, vo: bool = False) -> Response:
    """Return an error of ours as an answer."""
    status, code = status_of(error)
    headers = {"Retry-After": "10"} if status == 503 else None
    return (vo_problem if vo else problem)(status, code, one_line(error), headers)


def records(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as plain values, ids as strings, columns that hold JSON as what they hold."""
    return [record(row) for row in rows.to_pylist()]


def record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one row as plain values."""
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if value is None or value != value:
        return None
    if name in IDS:
        return str(value)
    return json.loads(value) if name in _JSON_COLUMNS and isinstance(value, str) else value


def without(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a row without some columns."""
    gone = frozenset(names)
    return {name: value for name, value in row.items() if name not in gone}

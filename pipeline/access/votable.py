"""VOTable 1.4 (IVOA recommendation 2019): rows, an overflow, or an error, as TABLEDATA that any tool reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.access.columns import COMPUTED, column, vo_unit

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n<RESOURCE type="results">\n'
)
_TAIL = "</RESOURCE>\n</VOTABLE>\n"
_TYPES = {"int16": "short", "int32": "int", "int64": "long", "float": "float", "double": "double", "bool": "boolean"}
_XML_FORBIDS = "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF]))
_DROP = str.maketrans("", "", _XML_FORBIDS)


def votable(
    rows: pa.Table, descriptions: Mapping[str, str], header: Mapping[str, tuple[Any, str]], *, overflow: bool = False
) -> bytes:
    """Return rows as a VOTable; ``overflow`` says that there were more of them.

    Args:
        rows: the rows.
        descriptions: of the columns.
        header: provenance, key → (value, comment), written as INFO elements.
    """
    parts = [_HEAD, '<INFO name="QUERY_STATUS" value="OK"/>\n']
    parts += [f"<INFO name={quoteattr(key)} value={_attribute(value)}/>\n" for key, (value, _) in header.items()]
    parts.append('<TABLE name="results">\n')
    parts += [_field(field, descriptions) for field in rows.schema]
    parts.append("<DATA><TABLEDATA>\n")
    parts += list(_lines(rows))
    parts.append("</TABLEDATA></DATA>\n</TABLE>\n")
    if overflow:
        parts.append('<INFO name="QUERY_STATUS" value="OVERFLOW"/>\n')
    return "".join([*parts, _TAIL]).encode()


def error(message: str) -> bytes:
    """Return a VOTable that says what went wrong (DALI 1.1, section 4.2)."""
    return f'{_HEAD}<INFO name="QUERY_STATUS" value="ERROR">{_text(message)}</INFO>\n{_TAIL}'.encode()


def datatype(kind: pa.DataType) -> tuple[str, str]:
    """Return VOTable's datatype and arraysize of an Arrow type."""
    if pa.types.is_list(kind):
        return _TYPES[str(kind.value_type)], "*"
    if str(kind) in _TYPES:
        return _TYPES[str(kind)], ""
    return "unicodeChar", "*"


def _field(field: pa.Field, descriptions: Mapping[str, str]) -> str:
    kind, size = datatype(field.type)
    known = column(field.name)
    attributes = {
        "name": field.name,
        "datatype": kind,
        "arraysize": size,
        "unit": vo_unit(field.name),
        "ucd": known.ucd,
    }
    given = " ".join(f"{key}={_attribute(value)}" for key, value in attributes.items() if value)
    said = descriptions.get(field.name) or COMPUTED.get(field.name, "")
    inside = f"<DESCRIPTION>{_text(said)}</DESCRIPTION>" if said else ""
    return f"<FIELD {given}>{inside}</FIELD>\n"


def _lines(rows: pa.Table) -> Iterator[str]:
    cells = [_cells(rows[name]) for name in rows.column_names]
    for row in zip(*cells, strict=True):
        yield "<TR>" + "".join(f"<TD>{cell}</TD>" if cell else "<TD/>" for cell in row) + "</TR>\n"


def _cells(values: pa.ChunkedArray) -> list[str]:
    kind = values.type
    if pa.types.is_list(kind):
        return [" ".join(map(str, one)) if one is not None else "" for one in values.to_pylist()]
    if pa.types.is_string(kind):
        return [_text(one) if one else "" for one in values.to_pylist()]
    if pa.types.is_floating(kind):
        write = repr if kind == pa.float64() else "{:.9g}".format
        return ["" if one is None else "NaN" if one != one else write(one) for one in values.to_pylist()]
    return [one or "" for one in pc.cast(values, pa.string()).to_pylist()]


def _text(value: Any) -> str:
    return escape(str(value).translate(_DROP))


def _attribute(value: Any) -> str:
    return quoteattr(str(value).translate(_DROP))

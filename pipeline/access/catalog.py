"""Rows of the promoted catalog: rankings in pages, cones, objects, and what the columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.access.filters import Cone, Filters
from pipeline.errors import ModelError, NotFoundError, QueryError, StoreError
from pipeline.stores.reader import TABLES as TABLES  # part of this module, for others
from pipeline.stores.reader import Reader

BRIEF = ("rank", "targetid", "ra", "dec", "z", "snr", "anomaly_score", "p_value", "q_value", "extrapolated", "verdict",
         "artefact_probability", "explanation", "in_training", "survey", "program", "healpix", "coadd", "spectrum_id",
         "model_id")  # fmt: skip
MAX_PAGE = 10_000  # rows
LARGEST = 2**63  # ids are below
_COLUMNS = "SELECT {columns} FROM {source} {where} {order} LIMIT %s"


@dataclass(frozen=True)
class Model:
    """The promoted model."""

    model_id: str
    run_id: str
    data_hash: str
    created_at: Any
    promoted_at: Any
    network: dict[str, Any]
    n_train: int | None


def promoted(reader: Reader) -> Model:
    """Return the promoted model.

    Raises:
        ModelError: none is promoted.
    """
    import json

    found = reader.rows(
        "SELECT model_id, run_id, data_hash, created_at, promoted_at, network, n_train FROM promoted_model"
    ).to_pylist()
    if not found:
        raise ModelError("no model is promoted yet; train and score one with `skysift run`")
    return Model(**{**found[0], "network": json.loads(found[0]["network"] or "{}")})


def ranking(
    reader: Reader, filters: Filters, *, limit: int, after: int = 0, columns: Sequence[str] = BRIEF, model_id: str = ""
) -> pa.Table:
    """Return spectra in the order of rank, the strangest first.

    Ranks have no ties, so a page begins after the last one's rank, however many rows were read meanwhile.

    Args:
        reader: the catalog.
        filters: which spectra.
        limit: most rows, 1 to ``MAX_PAGE``.
        after: rank of the last row of the page before; 0: the first page.
        columns: of ``anomaly_catalog``, all of them being (); with a cone also ``separation``.
        model_id: of the page before; the empty string for any.

    Raises:
        QueryError: a filter or the limit is out of range, or another model has been promoted since.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise QueryError(f"limit is {limit}, expected 1 to {MAX_PAGE:,} rows a page", "out_of_range")
    if not 0 <= after < 2**31:
        raise QueryError(f"after is {after}, expected the rank of a page's last row", "out_of_range")
    conditions, given = filters.where()
    conditions.append("rank > %s")
    given.append(after)
    if model_id:
        current = promoted(reader).model_id
        if current != model_id:
            raise QueryError(
                f"model {current} has been promoted since the first page, which was of {model_id}; begin anew",
                "changed",
            )
        conditions.append("model_id = %s")
        given.append(model_id)
    source, place = _source(filters.cone)
    query = _COLUMNS.format(
        columns=", ".join(columns) or "*",
        source=source,
        where=f"WHERE {' AND '.join(conditions)}",
        order="ORDER BY rank",
    )
    return reader.rows(query, (*place, *given, limit))


def cone(
    reader: Reader, where: Cone, filters: Filters | None = None, *, limit: int, columns: Sequence[str] = BRIEF
) -> pa.Table:
    """Return spectra within a cone with their ``separation`` (deg), the nearest first."""
    conditions, given = (filters or Filters()).where()
    source, place = _source(where)
    query = _COLUMNS.format(
        columns=", ".join(("separation", *columns)) if columns else "*",
        source=source,
        where=f"WHERE {' AND '.join(conditions)}" if conditions else "",
        order="ORDER BY separation, spectrum_id",
    )
    return reader.rows(query, (*place, *given, limit))


def _source(where: Cone | None) -> tuple[str, tuple[float, ...]]:
    if where is None:
        return "anomaly_catalog", ()
    return "cone_search(%s, %s, %s)", (where.ra, where.dec, where.radius)


def spectra_of(reader: Reader, targetid: int) -> pa.Table:
    """Return all rows of a target, the best ranked first; one of several coadds may have many.

    Raises:
        NotFoundError: the catalog has none.
    """
    return _found(reader, "targetid", targetid, "TARGETID")


def spectrum(reader: Reader, spectrum_id: int) -> pa.Table:
    """Return the row of a spectrum.

    Raises:
        NotFoundError: the catalog has none.
    """
    return _found(reader, "spectrum_id", spectrum_id, "spectrum_id")


def _found(reader: Reader, column: str, value: int, what: str) -> pa.Table:
    if not -LARGEST <= value < LARGEST:
        raise NotFoundError(f"no spectrum has {what} {value}: ids have at most 63 bits")
    names = ", ".join(f"a.{name}" for name in reader.columns("anomaly_catalog"))
    rows = reader.rows(
        f"SELECT {names}, f.shard, f.row_group, f.row FROM anomaly_catalog a JOIN spectrum_files f USING (spectrum_id) "
        f"WHERE a.{column} = %s ORDER BY a.rank, spectrum_id",
        (value,),
    )
    if not rows.num_rows:
        promoted(reader)
        raise NotFoundError(f"no spectrum of the promoted catalog has {what} {value}; see `skysift status --unscored`")
    return rows


def of_ids(reader: Reader, spectrum_id: Sequence[int], columns: Sequence[str] = BRIEF) -> dict[int, dict[str, Any]]:
    """Return rows by spectrum_id, of those that the catalog has."""
    wanted = tuple(dict.fromkeys(("spectrum_id", *columns)))
    query = f"SELECT {', '.join(wanted)} FROM anomaly_catalog WHERE spectrum_id = ANY(%s)"
    return {row["spectrum_id"]: row for row in reader.rows(query, ([int(one) for one in spectrum_id],)).to_pylist()}


def tables(reader: Reader) -> dict[str, dict[str, Any]]:
    """Return the published tables: name → description, and columns: name → (type, description)."""
    return described_tables(reader.rows(DESCRIBED, (list(TABLES),)))


def described_tables(rows: pa.Table) -> dict[str, dict[str, Any]]:
    """Return what ``DESCRIBED`` found in the form of ``tables``."""
    found: dict[str, dict[str, Any]] = {name: {"description": "", "columns": {}} for name in TABLES}
    for row in rows.to_pylist():
        found[row["relation"]]["description"] = row["described"] or ""
        found[row["relation"]]["columns"][row["attribute"]] = (row["type"], row["comment"] or "")
    if missing := [name for name, told in found.items() if not told["columns"]]:
        raise StoreError(f"the database lacks {', '.join(missing)}; run `skysift db migrate`")
    return found


DESCRIBED = """
    SELECT c.relname::text AS relation, obj_description(c.oid, 'pg_class') AS described, a.attname::text AS attribute,
           format_type(a.atttypid, NULL) AS type, col_description(c.oid, a.attnum) AS comment
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum"""


def descriptions(told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return one description a column's name; those of ``anomaly_catalog`` go before others'."""
    found: dict[str, str] = {}
    for name in TABLES:
        for attribute, (_, comment) in told[name]["columns"].items():
            found.setdefault(attribute, comment)
    return found

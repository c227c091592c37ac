"""The manifest: which chunks a run is made of now, and their targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from psycopg2 import sql

from pipeline.chunks import TARGET_SCHEMA, Chunk, Coadd
from pipeline.errors import RunError
from pipeline.stores.postgres import Connection, Cursor, copy_rows, fetch_table, scalar, stage, transaction


@dataclass(frozen=True)
class ManifestChange:
    """What planning changed: chunks new to the run, already in it, and no longer in it."""

    added: int
    kept: int
    dropped: int


def store_manifest(conn: Connection, run_id: str, chunks: Iterable[Chunk], *, batch: int = 500) -> ManifestChange:
    """Make the run consist of these chunks, in one transaction; chunks in no run any more are forgotten.

    The spectra of forgotten chunks stay until ``catalog.stale_spectra`` finds that nothing replaces them.
    """
    with transaction(conn) as cur:
        cur.execute("CREATE TEMPORARY TABLE planned (chunk_id text PRIMARY KEY) ON COMMIT DROP")
        group: list[Chunk] = []
        for chunk in chunks:
            group.append(chunk)
            if len(group) == batch:
                _store_chunks(cur, group)
                group = []
        _store_chunks(cur, group)
        cur.execute(
            "DELETE FROM run_chunks WHERE run_id = %s AND chunk_id NOT IN (SELECT chunk_id FROM planned)", (run_id,)
        )
        dropped = cur.rowcount
        cur.execute(
            "INSERT INTO run_chunks (run_id, chunk_id) SELECT %s, chunk_id FROM planned ON CONFLICT DO NOTHING",
            (run_id,),
        )
        added = cur.rowcount
        cur.execute("SELECT count(*) FROM planned")
        kept = scalar(cur) - added
        cur.execute("DELETE FROM chunks c WHERE NOT EXISTS (SELECT FROM run_chunks r WHERE r.chunk_id = c.chunk_id)")
        cur.execute("ANALYZE chunks, targets, run_chunks")
    return ManifestChange(added, kept, dropped)


def _store_chunks(cur: Cursor, chunks: Sequence[Chunk]) -> None:
    if not chunks:
        return
    rows = [
        {"chunk_id": c.chunk_id, "coadd": c.coadd.name, "path": c.coadd.path, "size": c.coadd.size,
         "etag": c.coadd.etag, "survey": c.coadd.survey, "program": c.coadd.program, "healpix": c.coadd.healpix,
         "n_targets": c.targets.num_rows}
        for c in chunks
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, _CHUNK_SCHEMA)
    copy_rows(cur, "planned", table.select(["chunk_id"]))
    staging = stage(cur, "chunks", table)
    names = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    cur.execute(
        sql.SQL("INSERT INTO chunks ({0}) SELECT {0} FROM {1} ON CONFLICT DO NOTHING RETURNING chunk_id").format(
            names, sql.Identifier(staging)
        )
    )
    new = {chunk_id for (chunk_id,) in cur.fetchall()}
    targets = [_with_chunk(chunk) for chunk in chunks if chunk.chunk_id in new]
    if targets:
        copy_rows(cur, "targets", pa.concat_tables(targets))


_CHUNK_SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()), ("coadd", pa.string()), ("path", pa.string()), ("size", pa.int64()),
        ("etag", pa.string()), ("survey", pa.string()), ("program", pa.string()), ("healpix", pa.int64()),
        ("n_targets", pa.int64()),
    ]
)  # fmt: skip


def _with_chunk(chunk: Chunk) -> pa.Table:
    n = chunk.targets.num_rows
    table = chunk.targets.add_column(0, "ordinal", pa.array(range(n), pa.int32()))
    return table.add_column(0, "chunk_id", pa.repeat(chunk.chunk_id, n))


def load_chunks(conn: Connection, chunk_ids: Sequence[str]) -> list[Chunk]:
    """Return chunks with their targets, in the order of the ids.

    Raises:
        RunError: one of them is not in the manifest.
    """
    with transaction(conn) as cur:
        cur.execute(
            "SELECT chunk_id, coadd, path, size, etag, survey, program, healpix FROM chunks WHERE chunk_id = ANY(%s)",
            (list(chunk_ids),),
        )
        coadds = {chunk_id: Coadd(*rest) for chunk_id, *rest in cur.fetchall()}
        columns = ", ".join(TARGET_SCHEMA.names)
        rows = fetch_table(
            cur,
            f"SELECT chunk_id, {columns} FROM targets WHERE chunk_id = ANY(%s) ORDER BY chunk_id, ordinal",
            (list(chunk_ids),),
        )
    missing = next((chunk_id for chunk_id in chunk_ids if chunk_id not in coadds), None)
    if missing is not None:
        raise RunError(f"chunk {missing} is not in the manifest any more; plan the run again")
    targets = _split_by_chunk(rows)
    return [Chunk(chunk_id, coadds[chunk_id], targets[chunk_id]) for chunk_id in chunk_ids]


def _split_by_chunk(rows: pa.Table) -> dict[str, pa.Table]:
    encoded = rows["chunk_id"].combine_chunks().dictionary_encode()
    plain = rows.select(TARGET_SCHEMA.names).cast(TARGET_SCHEMA).combine_chunks()
    names, found = encoded.dictionary.to_pylist(), pc.value_counts(encoded.indices)
    counts = dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))
    split, start = {}, 0
    for index, name in enumerate(names):
        split[name] = plain.slice(start, counts[index])
        start += counts[index]
    return split

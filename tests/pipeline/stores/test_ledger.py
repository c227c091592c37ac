"""The manifest, the ledger, and whether the counts add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from pipeline.chunks import Chunk
from pipeline.errors import RunError
from pipeline.stores import accounts, catalog, ledger, manifest, registry, runs
from pipeline.stores.ledger import QUARANTINE_SCHEMA, Outcome
from pipeline.stores.postgres import Connection, scalar, transaction

pytestmark = pytest.mark.servers

MakeChunk = Callable[..., Chunk]
SpectraOf = Callable[..., pa.Table]


def _quarantine(chunk: Chunk, targetid: int | None, reason: str) -> dict[str, object]:
    return {
        "chunk_id": chunk.chunk_id,
        "coadd": chunk.coadd.name,
        "targetid": targetid,
        "spectrum_id": None,
        "reason": reason,
        "detail": f"{reason} it is",
    }


def _ingest(conn: Connection, chunk: Chunk, rows: pa.Table, lost: Sequence[dict[str, object]] = ()) -> None:
    n = chunk.targets.num_rows
    whole = any(row["targetid"] is None for row in lost)
    state = "failed" if whole else "done" if rows.num_rows else "empty"
    outcome = Outcome(chunk.chunk_id, state, n, rows.num_rows, n if whole else len(lost), seconds=1.0, bytes_read=9)
    with transaction(conn) as cur:
        catalog.upsert_spectra(cur, rows)
        quarantined = pa.Table.from_pylist(list(lost), QUARANTINE_SCHEMA)
        ledger.finish(cur, "r", "ingest", [outcome], quarantined=quarantined)


def _score(conn: Connection, chunk_id: str, ids: Sequence[int], n_in: int) -> None:
    with transaction(conn) as cur:
        catalog.upsert_scores(cur, "m1", pa.table({"spectrum_id": pa.array(ids, pa.int64())}))
        ledger.finish(cur, "r", "score", [Outcome(chunk_id, "done", n_in, len(ids), n_in - len(ids))], model_id="m1")


@pytest.fixture
def run(conn: Connection) -> Connection:
    runs.register_run(conn, "r", {}, "h")
    registry.register_model(conn, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    return conn


def test_chunks_come_back_as_stored(run: Connection, make_chunk: MakeChunk) -> None:
    chunks = [make_chunk(pixel, range(pixel * 10, pixel * 10 + 3)) for pixel in range(1, 8)]
    assert manifest.store_manifest(run, "r", chunks, batch=3) == manifest.ManifestChange(7, 0, 0)
    back = manifest.load_chunks(run, [chunk.chunk_id for chunk in reversed(chunks)])
    for old, new in zip(reversed(chunks), back, strict=True):
        assert (new.chunk_id, new.coadd) == (old.chunk_id, old.coadd)
        assert new.targets.schema == old.targets.schema
        assert new.targets["z"].to_pylist() == old.targets["z"].to_pylist()
        assert new.targets["ra"].to_pylist() == [None, 10.0, 10.0]  # the unknown position, NaN, is null
    assert manifest.load_chunks(run, []) == []
    with pytest.raises(RunError, match="chunk nosuch is not in the manifest any more; plan the run again"):
        manifest.load_chunks(run, ["nosuch"])


def test_planning_again_changes_only_the_difference(
    run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf
) -> None:
    a, b, c = (make_chunk(pixel, [pixel]) for pixel in (1, 2, 3))
    manifest.store_manifest(run, "r", [a, b])
    assert manifest.store_manifest(run, "r", [a, b]) == manifest.ManifestChange(0, 2, 0)
    _ingest(run, a, spectra_of(a))
    assert manifest.store_manifest(run, "r", [a, c]) == manifest.ManifestChange(1, 1, 1)
    assert [work.chunk_id for work in ledger.pending(run, "r", "ingest")] == [c.chunk_id]
    with transaction(run) as cur:
        cur.execute("SELECT count(*) FROM targets WHERE chunk_id = %s", (b.chunk_id,))
        assert scalar(cur) == 0


def test_a_chunk_of_another_run_is_kept(run: Connection, make_chunk: MakeChunk) -> None:
    runs.register_run(run, "s", {}, "h")
    a = make_chunk(1, [1])
    manifest.store_manifest(run, "s", [a])
    manifest.store_manifest(run, "r", [a])
    manifest.store_manifest(run, "r", [])
    assert [work.chunk_id for work in ledger.pending(run, "s", "ingest")] == [a.chunk_id]


def test_a_failing_plan_leaves_the_old_one(run: Connection, make_chunk: MakeChunk) -> None:
    manifest.store_manifest(run, "r", [make_chunk(1, [1])])

    def broken():  # type: ignore[no-untyped-def]
        yield make_chunk(2, [2])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        manifest.store_manifest(run, "r", broken(), batch=1)
    assert [work.coadd for work in ledger.pending(run, "r", "ingest")] == ["healpix/main/dark/1"]


def test_what_is_pending(run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf) -> None:
    done, empty, failed, waiting = (make_chunk(pixel, [pixel, pixel + 10]) for pixel in (1, 2, 3, 4))
    manifest.store_manifest(run, "r", [waiting, failed, empty, done])
    assert [work.n_rows for work in ledger.pending(run, "r", "ingest")] == [2, 2, 2, 2]
    _ingest(run, done, spectra_of(done, [0]), [_quarantine(done, 11, "not_in_file")])
    _ingest(run, empty, spectra_of(empty, []), [_quarantine(empty, t, "not_in_file") for t in (2, 12)])
    _ingest(run, failed, spectra_of(failed, []), [_quarantine(failed, None, "truncated")])

    def names(*arguments: str, **options: bool) -> list[str]:
        return [work.chunk_id for work in ledger.pending(run, "r", *arguments, **options)]

    assert names("ingest") == [waiting.chunk_id]
    assert names("ingest", retry_failed=True) == [failed.chunk_id, waiting.chunk_id]
    (work,) = ledger.pending(run, "r", "score", "m1")
    assert (work.chunk_id, work.n_rows) == (done.chunk_id, 1)
    assert [(w.chunk_id, w.n_rows) for w in ledger.finished(run, "r")] == [(done.chunk_id, 1)]
    _score(run, done.chunk_id, spectra_of(done, [0])["spectrum_id"].to_pylist(), 1)
    assert names("score", "m1") == []
    assert names("score", "m2") == [done.chunk_id]


def test_rows_and_done_come_together_or_not_at_all(
    run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf
) -> None:
    chunk = make_chunk(1, [1, 2])
    manifest.store_manifest(run, "r", [chunk])

    def cut_short() -> None:
        with transaction(run) as cur:
            catalog.upsert_spectra(cur, spectra_of(chunk))
            ledger.finish(cur, "r", "ingest", [Outcome(chunk.chunk_id, "done", 2, 2, 0)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert len(ledger.pending(run, "r", "ingest")) == 1
    with transaction(run) as cur:
        cur.execute("SELECT count(*) FROM spectra")
        assert scalar(cur) == 0


def test_finishing_twice_is_finishing_once(run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf) -> None:
    chunk = make_chunk(1, [1, 2, 3])
    manifest.store_manifest(run, "r", [chunk])
    for _ in range(2):
        _ingest(run, chunk, spectra_of(chunk, [0, 2]), [_quarantine(chunk, 2, "not_in_file")])
    found = accounts.reconcile(run, "r", "ingest")
    assert (found.n_in, found.n_out, found.n_quarantined) == (3, 2, 1)
    assert found.quarantine == {"not_in_file": 1}
    with transaction(run) as cur:
        cur.execute("SELECT attempts FROM ledger")
        assert scalar(cur) == 2
    _ingest(run, chunk, spectra_of(chunk))  # the retry that succeeds forgets the quarantine
    assert accounts.reconcile(run, "r", "ingest").quarantine == {}


def test_an_outcome_must_add_up(run: Connection, make_chunk: MakeChunk) -> None:
    chunk = make_chunk(1, [1, 2])
    manifest.store_manifest(run, "r", [chunk])
    with (
        pytest.raises(RunError, match="2 rows went in, but 1 came out and 0 were quarantined"),
        transaction(run) as cur,
    ):
        ledger.finish(cur, "r", "ingest", [Outcome(chunk.chunk_id, "done", 2, 1, 0)])


def test_reconcile_refuses_what_is_not_complete(run: Connection, make_chunk: MakeChunk) -> None:
    manifest.store_manifest(run, "r", [make_chunk(1, [1])])
    with pytest.raises(RunError, match="ingest of run r is not complete: 1 chunks are pending"):
        accounts.reconcile(run, "r", "ingest")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("DELETE FROM spectra WHERE targetid = 1", "2 rows came out, 1 are in the database"),
        ("DELETE FROM quarantine", "1 were quarantined, 0 have a reason"),
        ("UPDATE ledger SET n_in = 2, n_out = 1", "3 rows were to go in, 2 did"),
    ],
)
def test_reconcile_finds_what_is_lost(
    run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf, damage: str, message: str
) -> None:
    chunk = make_chunk(1, [1, 2, 3])
    manifest.store_manifest(run, "r", [chunk])
    _ingest(run, chunk, spectra_of(chunk, [0, 1]), [_quarantine(chunk, 3, "not_in_file")])
    accounts.reconcile(run, "r", "ingest")
    with transaction(run) as cur:
        cur.execute(damage)
    with pytest.raises(RunError, match=f"does not add up: .*{message}"):
        accounts.reconcile(run, "r", "ingest")


def test_reconcile_of_scores(run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf) -> None:
    chunk = make_chunk(1, [1, 2])
    manifest.store_manifest(run, "r", [chunk])
    rows = spectra_of(chunk)
    _ingest(run, chunk, rows)
    _score(run, chunk.chunk_id, rows["spectrum_id"].to_pylist(), 2)
    assert accounts.reconcile(run, "r", "score", "m1").n_out == 2
    with transaction(run) as cur:
        cur.execute("DELETE FROM scores WHERE spectrum_id = %s", (rows["spectrum_id"][0].as_py(),))
    with pytest.raises(RunError, match="2 rows came out, 1 are in the database"):
        accounts.reconcile(run, "r", "score", "m1")


def test_which_spectra_are_unscored_and_why(run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf) -> None:
    scored, failed, ingested, waiting = (make_chunk(p, [10 * p, 10 * p + 1, 10 * p + 2]) for p in (1, 2, 3, 4))
    manifest.store_manifest(run, "r", [scored, failed, ingested, waiting])
    _ingest(run, scored, spectra_of(scored, [0, 1]), [_quarantine(scored, 12, "not_in_file")])
    _ingest(run, failed, spectra_of(failed, []), [_quarantine(failed, None, "truncated")])
    _ingest(run, ingested, spectra_of(ingested))
    with transaction(run) as cur:
        ids = spectra_of(scored, [0])["spectrum_id"]
        catalog.upsert_scores(cur, "m1", pa.table({"spectrum_id": ids}))
        lost = pa.Table.from_pylist([_quarantine(scored, 11, "no_information")], QUARANTINE_SCHEMA)
        ledger.finish(cur, "r", "score", [Outcome(scored.chunk_id, "done", 2, 1, 1)], model_id="m1", quarantined=lost)
    rows = accounts.unscored(run, "r", "m1").to_pylist()
    assert [(row["targetid"], row["stage"], row["state"], row["reason"]) for row in rows] == [
        (11, "score", "quarantined", "no_information"),
        (12, "ingest", "quarantined", "not_in_file"),
        *((target, "ingest", "quarantined", "truncated") for target in (20, 21, 22)),
        *((target, "score", "pending", None) for target in (30, 31, 32)),
        *((target, "ingest", "pending", None) for target in (40, 41, 42)),
    ]
    assert rows[0]["detail"] == "no_information it is"
    assert len(accounts.unscored(run, "r", "")) == 12  # before there is a model


def test_a_changed_file_leaves_no_stale_spectrum(run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf) -> None:
    """The file comes again without target 1, with a bad target 2 and a new target 4."""
    old, new = make_chunk(1, [1, 2, 3]), make_chunk(1, [2, 3, 4], etag="b")
    manifest.store_manifest(run, "r", [old])
    _ingest(run, old, spectra_of(old))
    assert catalog.stale_spectra(run).tolist() == []
    manifest.store_manifest(run, "r", [new])
    first, second, third = spectra_of(old)["spectrum_id"].to_pylist()
    assert catalog.stale_spectra(run).tolist() == [first]  # the others stay until they are replaced
    _ingest(run, new, spectra_of(new, [1, 2]), [_quarantine(new, 2, "not_in_file")])
    assert catalog.stale_spectra(run).tolist() == sorted([first, second])
    with transaction(run) as cur:
        catalog.upsert_scores(cur, "m1", pa.table({"spectrum_id": [first, third]}))
    catalog.delete_spectra(run, catalog.stale_spectra(run))
    assert catalog.stale_spectra(run).tolist() == []
    accounts.reconcile(run, "r", "ingest")
    assert catalog.read_scores(run, "m1")["targetid"].to_pylist() == [3]


def test_a_file_that_went_bad_takes_its_old_spectra_along(
    run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf
) -> None:
    old, new = make_chunk(1, [1, 2]), make_chunk(1, [1, 2], etag="b")
    manifest.store_manifest(run, "r", [old])
    _ingest(run, old, spectra_of(old))
    manifest.store_manifest(run, "r", [new])
    _ingest(run, new, spectra_of(new, []), [_quarantine(new, None, "truncated")])
    assert len(catalog.stale_spectra(run)) == 2


def test_a_file_that_comes_back_is_ingested_again(
    run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf
) -> None:
    old, new = make_chunk(1, [1]), make_chunk(1, [1], etag="b")
    for chunk in (old, new, old):
        manifest.store_manifest(run, "r", [chunk])
        assert [work.chunk_id for work in ledger.pending(run, "r", "ingest")] == [chunk.chunk_id]
        _ingest(run, chunk, spectra_of(chunk))


def test_two_runs_share_a_file(run: Connection, make_chunk: MakeChunk, spectra_of: SpectraOf) -> None:
    """Another run's chunk of the same coadd takes the rows over; dropping it must not take them away."""
    runs.register_run(run, "s", {}, "h")
    mine, theirs = make_chunk(1, [1, 2, 3]), make_chunk(1, [1, 2])
    manifest.store_manifest(run, "r", [mine])
    manifest.store_manifest(run, "s", [theirs])
    _ingest(run, mine, spectra_of(mine))
    with transaction(run) as cur:
        catalog.upsert_spectra(cur, spectra_of(theirs))
        ledger.finish(cur, "s", "ingest", [Outcome(theirs.chunk_id, "done", 2, 2, 0)])
    accounts.reconcile(run, "r", "ingest")
    accounts.reconcile(run, "s", "ingest")
    manifest.store_manifest(run, "s", [])
    assert catalog.stale_spectra(run).tolist() == []
    accounts.reconcile(run, "r", "ingest")

"""Plan: the catalog through the science gate to a manifest in PostgreSQL, registered as the run's work."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import pyarrow as pa

from pipeline.catalog.gate import GateReport
from pipeline.catalog.rows import read_rows, write_rows
from pipeline.catalog.source import Source, find_source, gated_rows
from pipeline.config import Config
from pipeline.errors import MissingObject
from pipeline.keys import content_hash
from pipeline.manifest import Manifest, build_manifest
from pipeline.stores import runs
from pipeline.stores.manifest import store_manifest
from pipeline.stores.objects import ObjectStore
from pipeline.stores.postgres import Connection

_GATE_VERSION = "1"  # raise it when the gate's rules change, so that kept rows of older rules are not used


@dataclass(frozen=True)
class PlanResult:
    """What a plan found; chunks ``n_new`` to the run, ``n_unchanged`` in it already, ``n_dropped`` from it."""

    gate: GateReport
    n_coadds: int
    n_chunks: int
    n_targets: int
    n_new: int
    n_unchanged: int
    n_dropped: int
    missing: tuple[str, ...]  # coadds that the catalog lists and the survey lacks
    reused: bool  # the gated rows of an earlier plan were used
    seconds: float

    def lines(self) -> list[str]:
        """A summary for the terminal."""
        absent = f"; {len(self.missing)} coadds are listed but absent" if self.missing else ""
        work = f"{self.n_targets:,} targets in {self.n_coadds:,} coadds, {self.n_chunks:,} chunks"
        change = f"{self.n_new:,} new, {self.n_unchanged:,} unchanged, {self.n_dropped:,} dropped"
        return [*self.gate.lines(), f"{work} ({change}){absent}"]


def plan(config: Config, conn: Connection, survey: ObjectStore, objects: ObjectStore) -> PlanResult:
    """Make the run's manifest from the survey as it is now.

    Args:
        config: the run.
        conn: PostgreSQL, migrated; the caller holds ``runs.run_lock`` on it.
        survey: the survey's root.
        objects: where the gated rows are kept as Parquet (``plans/``), so that a catalog passes once only.

    Raises:
        InputError: the catalog is missing, damaged, lacks a column, or has no row left after the gate.
        RunError: the run is unfinished and what it would read has changed.
    """
    start = time.monotonic()
    rows, gate, reused = _rows(config, survey, objects)
    manifest = build_manifest(survey, rows, config.ingest.chunk_size)
    runs.register_run(conn, config.run, config.as_dict(), _inputs_hash(survey, manifest))
    runs.enter_stage(conn, config.run, "plan")
    change = store_manifest(conn, config.run, manifest.chunks)
    result = PlanResult(
        gate=gate,
        n_coadds=manifest.n_coadds,
        n_chunks=len(manifest.chunks),
        n_targets=manifest.n_targets,
        n_new=change.added,
        n_unchanged=change.kept,
        n_dropped=change.dropped,
        missing=manifest.missing,
        reused=reused,
        seconds=time.monotonic() - start,
    )
    runs.record_metrics(conn, config.run, "plan", _metrics(result))
    return result


def gate_report(config: Config, survey: ObjectStore, objects: ObjectStore) -> GateReport | None:
    """Return the gate's report as the run's last plan kept it, None when there is none for these inputs."""
    kept = _kept(objects, _rows_path(config, find_source(survey, config.survey)))
    return kept[1] if kept else None


def _rows(config: Config, survey: ObjectStore, objects: ObjectStore) -> tuple[pa.Table, GateReport, bool]:
    source = find_source(survey, config.survey)
    path = _rows_path(config, source)
    if kept := _kept(objects, path):
        return *kept, True
    rows, report = gated_rows(source, config.gate)
    write_rows(objects, path, rows, report)
    return rows, report, False


def _rows_path(config: Config, source: Source) -> str:
    gate = json.dumps(asdict(config.gate), sort_keys=True)
    return f"plans/{content_hash(_GATE_VERSION, source.identity, gate)}.parquet"


def _kept(objects: ObjectStore, path: str) -> tuple[pa.Table, GateReport] | None:
    try:
        return read_rows(objects, path)
    except MissingObject:
        return None
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):  # damaged: the catalog is read again
        return None


def _inputs_hash(survey: ObjectStore, manifest: Manifest) -> str:
    """Hash of all that the run reads: chunk ids hold each coadd's path, size and tag, and the targets."""
    return content_hash(survey.url, *(chunk.chunk_id for chunk in manifest.chunks), length=32)


def _metrics(result: PlanResult) -> dict[str, float | tuple[float, str]]:
    """The gate's counts in order; a cut that no row could be tested for has no value."""
    gate = result.gate
    metrics: dict[str, float | tuple[float, str]] = {"rows in catalog": (gate.rows, "rows")}
    for number, cut in enumerate(gate.cuts, 1):
        untested = cut.untested > 0 and not cut.removed
        metrics[f"cut {number:02d}: {cut.rule}"] = (float("nan") if untested else cut.removed, "rows removed")
    return metrics | {
        "rows kept": (gate.kept, "rows"),
        "coadds": (result.n_coadds, "files"),
        "coadds absent": (len(result.missing), "files"),
        "chunks": (result.n_chunks, "chunks"),
        "seconds": (result.seconds, "s"),
    }

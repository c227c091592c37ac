"""Evaluate: departures injected into held-out spectra on an actor pool, scored, calibrated; completeness to PostgreSQL.

Nothing of the survey's own results changes. The work is redone whole: it is minutes, and the seed decides all of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import cluster
from pipeline.catalog.known import read_known
from pipeline.errors import InputError, RunError
from pipeline.injection.completeness import tabulate
from pipeline.injection.departures import KINDS
from pipeline.injection.plan import Unit, Want, units, wants
from pipeline.injection.recovery import Found, Survey, blind_p_values, find_known, injected_objects, p_values
from pipeline.modelstore import load_model
from pipeline.progress import progress
from pipeline.session import Session
from pipeline.splits import split_of_model
from pipeline.stages.calibrate import COMPONENTS
from pipeline.stages.report import write_file
from pipeline.stages.score import SCORE_COLUMNS
from pipeline.stages.source import Work, arrays_of, cells, dataset, on_actors, pack, rows, unpack
from pipeline.stores import catalog, registry, runs
from pipeline.stores.completeness import read_completeness, replace_completeness
from pipeline.stores.objects import ObjectStore

MIN_HOSTS = 30  # held-out spectra, below which completeness would be that of a handful of objects
COLUMNS = ("spectrum_id", "targetid", "survey", "program", "healpix", "z", "snr", "shard", "p_value", "q_value", "rank",
           "in_training", *COMPONENTS)  # fmt: skip
_CELLS = {
    "flux": pa.float32(), "ivar": pa.float32(), "spectrum_id": pa.int64(), "z": pa.float64(), "snr": pa.float32(),
}  # fmt: skip


@dataclass(frozen=True)
class EvaluateSummary:
    """What was injected and what came of it; ``injections`` has a row each, see docs/evaluate.md."""

    injections: pa.Table
    completeness: pa.Table
    missed: dict[str, int]  # class → injections that no host could show
    n_hosts: int
    seconds: float


def read_survey(session: Session, model_id: str) -> Survey:
    """Return a model's calibrated survey.

    Raises:
        RunError: nothing is scored, something is not calibrated, or too few spectra are held out.
    """
    table = catalog.read_scores(session.conn, model_id, columns=COLUMNS)
    if not table.num_rows:
        raise RunError(f"model {model_id} has scored nothing yet: run `skysift score` first")
    if table["rank"].null_count == table.num_rows or table["q_value"].null_count == table.num_rows:
        raise RunError(f"the scores of model {model_id} are not calibrated: run `skysift calibrate` first")
    split = registry.find_model(session.conn, model_id).config["split"]
    healpix = table["healpix"].fill_null(-1).to_numpy()
    part = split_of_model(split, healpix, table["spectrum_id"].to_numpy())
    known = tuple(name for name in COMPONENTS if table[name].null_count < table.num_rows)
    survey = Survey(table, part == "calibrate", known)
    if survey.held_out.sum() < MIN_HOSTS:
        raise RunError(
            f"only {survey.held_out.sum()} scored spectra are held out from training (calibration sky pixels), at "
            f"least {MIN_HOSTS} are needed: use a larger survey"
        )
    return survey


@dataclass(frozen=True)
class Loader:
    """Runs in a read task: the held-out spectra of one unit's shards, with what is to be injected, as one row."""

    objects: ObjectStore
    name = "HeldOut"

    def __call__(self, unit: Unit) -> pa.Table:
        from pipeline.shards import read_shard

        parts: dict[str, list[Any]] = {name: [] for name in _CELLS}
        for path, keys in unit.shards:
            shard = read_shard(self.objects, path, tuple(_CELLS))
            chosen = np.isin(shard.spectrum_id_B, keys)
            if chosen.sum() < len(keys):
                where = self.objects.locate(path)
                raise InputError(f"{where}: lacks spectra that were scored: ingest its chunk again", "damaged_shard")
            columns = {
                name: shard.vectors(name) if name in ("flux", "ivar") else shard.numbers(name) for name in _CELLS
            }
            for name, values in columns.items():
                parts[name].append(values[chosen])
        together = {name: np.concatenate(values) for name, values in parts.items()}
        return pa.table({"wants": [pack(unit.table())]} | cells(together, _CELLS))


class Injector:
    """Runs in an actor: holds the model, injects what a unit wants into its spectra, and scores them."""

    def __init__(self, objects: ObjectStore, model_id: str, batch: int, seed: int, cuda: bool) -> None:
        import torch

        from pipeline.injection.scoring import yardstick

        torch.set_num_threads(1)
        self.model = load_model(objects, model_id).to("cuda" if cuda else "cpu")
        self.yardstick = yardstick(self.model)
        self.batch, self.seed = batch, seed

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.concat_tables([self._unit(table.slice(row, 1)) for row in range(table.num_rows)])

    def _unit(self, row: pa.Table) -> pa.Table:
        from pipeline.injection.scoring import hosts_of, injected_scores

        arrays = arrays_of(row, _CELLS)
        n = len(arrays["z"])
        flux_BL, ivar_BL = (arrays[name].reshape(n, -1) for name in ("flux", "ivar"))
        hosts = hosts_of(self.model, flux_BL, ivar_BL, arrays["z"], arrays["snr"])
        todo = [Want(**want) for want in unpack(row["wants"][0].as_py()).to_pylist()]
        fields = {name: SCORE_COLUMNS[name] for name in COMPONENTS}
        done = pa.concat_tables(
            injected_scores(self.model, self.yardstick, hosts, todo[at : at + self.batch], self.seed, fields)
            for at in range(0, len(todo), self.batch)
        )
        key = pa.array(arrays["spectrum_id"]).take(done["host"].combine_chunks())
        done = done.set_column(done.column_names.index("host"), "spectrum_id", key)
        return pa.table({"n": [len(todo)], "rows": pa.array([pack(done)], pa.large_binary())})


def evaluate(session: Session, model_id: str, survey: Survey, classes: Sequence[str], per_class: int,
             seed: int) -> EvaluateSummary:  # fmt: skip
    """Measure completeness by injection with one model and store it.

    Args:
        session: opened by ``session.driving``.
        model_id: the model.
        survey: its calibrated survey.
        classes: of ``departures.CLASSES``.
        per_class: injections of each.
        seed: decides what is injected where.

    Raises:
        RunError: the survey's calibration is not of its present scores.
        InputError: a shard is missing or damaged.
    """
    start = time.monotonic()
    load_model(session.objects, model_id)  # a bad one is named here, not by a dead actor
    p_values(survey, survey.table.slice(0, 0))  # and a stale calibration before the work
    held_out = survey.table.filter(pa.array(survey.held_out))
    work = units(held_out, wants(classes, per_class, seed), seed)
    done = pa.concat_tables(list(_injected(session, model_id, work, seed)))
    done = done.sort_by([(name, "ascending") for name in ("class", "significance", "spectrum_id")])
    whole = done.filter(done["spectrum_id"].is_valid())
    lost = done.filter(done["spectrum_id"].is_null())["class"].to_pylist()
    whole = whole.append_column("p_value", pa.array(p_values(survey, whole)))
    whole = whole.append_column("p_blind", pa.array(blind_p_values(survey, whole)))
    pooled = tuple(kind for kind, names in KINDS.items() if set(names) <= set(classes))
    table = tabulate(injected_objects(survey, whole), pooled=pooled)
    replace_completeness(session.conn, session.config.run, model_id, table, seed=seed)
    missed = {name: lost.count(name) for name in sorted(set(lost))}
    n_hosts = sum(len(keys) for unit in work for _, keys in unit.shards)
    summary = EvaluateSummary(whole, table, missed, n_hosts, time.monotonic() - start)
    runs.record_metrics(session.conn, session.config.run, "evaluate", _metrics(summary), model_id=model_id)
    return summary


def _injected(session: Session, model_id: str, work: Sequence[Unit], seed: int) -> Iterator[pa.Table]:
    config = session.config
    with (
        cluster.connected(config) as resources,
        progress("evaluate", sum(len(unit.wants) for unit in work), "injections") as bar,
    ):
        n_gpus = cluster.gpus(resources)
        largest = max(sum(len(keys) for _, keys in unit.shards) for unit in work)
        loaded = dataset(Work(Loader(session.objects), [[unit] for unit in work], row_bytes=largest * 63_000))
        arguments = (session.objects, model_id, config.score.batch, seed, bool(n_gpus))
        scored = on_actors(loaded, Injector, arguments, min(cluster.actors(config, resources), len(work)), n_gpus)
        for row in rows(scored):
            bar.advance(row["n"])
            yield unpack(row["rows"])


def evaluate_known(session: Session, model_id: str, survey: Survey, path: str, label: str, column: str) -> list[Found]:
    """Measure which known objects of a catalog the survey found, and store it; one entry a label.

    Raises:
        InputError: the catalog cannot be used, or none of its objects is in the survey.
    """
    known = read_known(path, label=label, column=column)
    found = [find_known(survey, one) for one in known]
    if not any(len(one.objects.z) for one in found):
        total = sum(one.n_known for one in found)
        raise InputError(
            f"{path}: none of its {total:,} objects is in the survey: is it of these targets?", "bad_catalog"
        )
    for one in found:
        if len(one.objects.z):
            replace_completeness(session.conn, session.config.run, model_id, tabulate(one.objects))
    return found


def write_files(
    session: Session, model_id: str, done: EvaluateSummary | None, found: Sequence[Found]
) -> list[Path]:  # fmt: skip
    """Write all that was measured for the run and model, by this call or before: a table and pictures.

    They go to ``{workspace}/reports/{run}/completeness``; returns their paths.

    Raises:
        StoreError: they cannot be written.
    """
    from pipeline.report import completeness as pictures
    from pipeline.report.style import png

    run = session.config.run
    table = read_completeness(session.conn, run, model_id)
    about = {"run": run, "model": model_id, "skysift": version("skysift")}
    files = {"completeness.ecsv": pictures.ecsv(table, about).encode()}
    for kind in ("physical", "artefact"):
        if kind in table["kind"].to_pylist():
            files[f"{kind}.png"] = png(pictures.curves(table, kind), 150)
            files["bands.png"] = png(pictures.bands(table), 150)
    if found:
        files["known.png"] = png(pictures.known_ranks({one.label: one.share for one in found}), 150)
    if done:
        sink = pa.BufferOutputStream()
        pq.write_table(done.injections, sink)
        files["injections.parquet"] = sink.getvalue().to_pybytes()
    folder = session.config.workspace / "reports" / run / "completeness"
    return [write_file(folder / name, data) for name, data in files.items()]


def _metrics(summary: EvaluateSummary) -> dict[str, float | tuple[float, str]]:
    found: dict[str, float | tuple[float, str]] = {
        "injections": (summary.injections.num_rows, "spectra"),
        "injections that no spectrum could show": (sum(summary.missed.values()), "spectra"),
        "held-out spectra": (summary.n_hosts, "spectra"),
        "seconds": (summary.seconds, "s"),
    }
    for row in summary.completeness.to_pylist():
        if row["class"].startswith("all_") and row["snr_low"] is None and row["z_low"] is None:
            band = "" if row["sigma_low"] is None else f", {row['sigma_low']:g}–{row['sigma_high']:g} σ"
            found[f"{row['kind']} recovered at {row['threshold']}{band}"] = row["completeness"]
    return found

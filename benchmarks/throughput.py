"""How fast skysift ingests and scores, end to end on real stores, against desispec and spender in the same run.

``skysift ingest`` and ``skysift score`` run as processes of their own on surveys of two sizes, made of the same
distinct quasars under more or fewer pixel names. Rates are of the steady state, from the ledger: spectra of all
transactions after the first one, over the time from the first to the last. Servers: Milvus 2.3.5 (the ``milvus``
wheel) and the embedded PostgreSQL. Needs the ``bench`` extra. Run: ``python -m benchmarks.throughput``.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import psutil

from benchmarks._hot_path import ingest_costs, score_costs
from benchmarks._machine import machine
from benchmarks._peers import desispec_rate, spender_rate
from benchmarks._processes import Ended, run_stage
from benchmarks._sky import SHARD_BYTES, Sky, require_room
from pipeline import config as configuration
from pipeline.servers import Servers
from pipeline.session import opened
from pipeline.stores import ledger, manifest, runs
from pipeline.stores.postgres import transaction

ROW_BYTES = (2751 + 2326 + 2881) * 3 * 4  # FLUX, IVAR and MASK of one spectrum
PROFILE_CHUNKS = 24
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    quasars: int
    copies: tuple[int, ...]  # pixel names of every coadd, for each size
    training: tuple[str, ...]
    peers: bool


FULL = Plan(10_000, (5, 20), ("train.max_spectra=4096", "train.fit.segments=1"), peers=True)
QUICK = Plan(1000, (2,), ("train.max_spectra=512", "train.fit.segments=1"), peers=False)


@dataclass(frozen=True)
class Measured:
    """One stage at one size."""

    stage: str
    spectra: int
    rate: float  # spectra/s in the steady state
    commits: int
    whole: Ended
    passed: float | None  # bytes passed over bytes needed
    costs: dict[str, float]  # µs of processor time a spectrum in the steady state, by role
    others: float  # cores that other programs kept busy meanwhile


def main() -> None:
    """Measure, print the tables, and write them where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 spectra, without the peers")
    parser.add_argument("--folder", type=Path, help="scratch folder, kept; default: a temporary one")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}/throughput*")
    arguments = parser.parse_args()
    with _scratch(arguments.folder) as folder:
        report, profile = measure(folder, QUICK if arguments.quick else FULL)
    sys.stdout.write("\n".join([*report, ""]))
    if arguments.write:
        title = _title(arguments.quick)
        (RESULTS / "throughput.md").write_text("\n".join(["# Throughput", "", *title, *report, ""]), encoding="utf-8")
        (RESULTS / "throughput_profile.txt").write_text("\n".join([*title, *profile, ""]), encoding="utf-8")


def measure(folder: Path, plan: Plan) -> tuple[list[str], list[str]]:
    """Run everything below ``folder``; returns the lines of the report and of the profile."""
    sky = Sky.simulated(folder, plan.quasars)
    require_room(folder, plan.quasars * sum(plan.copies) * SHARD_BYTES)
    results: list[Measured] = []
    peers: dict[str, float] = {}
    profile: list[str] = []
    model_id = ""
    with _servers(folder) as settings:
        for count, end in zip(plan.copies, accumulate(plan.copies), strict=True):
            name = f"copies-{count}"
            path = _config(folder / f"{name}.toml", sky.copied(name, range(end - count, end)), settings)
            run_stage("plan", path, name, servers={})
            results.append(_stage("ingest", path, name))
            if not model_id:
                run_stage("train", path, name, *_set(plan.training), servers={})
                model_id = _model(path, name)
            results.append(_stage("score", path, name, model_id))
        if plan.peers:  # beside the last size
            peers = {"desispec": desispec_rate(sky.coadds[: len(sky.coadds) // 2]), "spender": spender_rate()}
        costs = _costs(path, name, model_id, profile)
    return [*_table(results), *_peers(results, peers), *_by_role(results), *_breakdown(costs)], profile


def _stage(stage: str, path: Path, run: str, model_id: str = "") -> Measured:
    options = ["--model", model_id] if model_id else []
    ended = run_stage(stage, path, run, *options, servers=_server_processes(path.parent))
    with opened(configuration.load(path, [f"run={run}"])) as session, transaction(session.conn) as cur:
        cur.execute(
            """
            SELECT extract(epoch FROM l.updated_at)::float8, sum(l.n_out)::int, sum(l.bytes_read)::int8
            FROM ledger l JOIN run_chunks r USING (chunk_id)
            WHERE r.run_id = %s AND l.stage = %s AND l.model_id = %s GROUP BY 1 ORDER BY 1""",
            (run, stage, model_id),
        )
        times, counts, sizes = zip(*cur.fetchall(), strict=True)
    seconds, steady = max(times[-1] - times[0], 1e-9), max(sum(counts[1:]), 1)
    passed = sum(sizes) / (sum(counts) * ROW_BYTES) if stage == "ingest" else None
    used, others = ended.processor.between(times[0], times[-1])
    costs = {role: spent / steady * 1e6 for role, spent in used.items()}
    return Measured(stage, sum(counts), steady / seconds, len(counts), ended, passed, costs, others / seconds)


def _server_processes(folder: Path) -> dict[str, psutil.Process]:
    """Milvus, the only child of this process, and the embedded PostgreSQL, which is nobody's."""
    pid_file = folder / "workspace" / "postgres" / "postmaster.pid"
    milvus = next(one for one in psutil.Process().children() if one.name().startswith("milvus"))
    return {"Milvus": milvus, "PostgreSQL": psutil.Process(int(pid_file.read_text().split()[0]))}


def _model(path: Path, run: str) -> str:
    with opened(configuration.load(path, [f"run={run}"])) as session:
        found = runs.find_run(session.conn, run)
    return str(found.model_id) if found else ""


def _costs(path: Path, run: str, model_id: str, profile: list[str]) -> dict[str, dict[str, float]]:
    import torch

    torch.set_num_threads(1)
    with opened(configuration.load(path, [f"run={run}"])) as session:
        work = ledger.finished(session.conn, run)
        work = work[:: max(1, len(work) // PROFILE_CHUNKS)]
        chunks = manifest.load_chunks(session.conn, [item.chunk_id for item in work])
        return {
            "ingest": ingest_costs(session, chunks, profile),
            "score": score_costs(session, model_id, work, profile),
        }


@contextmanager
def _servers(folder: Path) -> Iterator[dict[str, str]]:
    """Keep a Milvus server and the workspace's PostgreSQL running; yields the stores' settings."""
    from milvus import MilvusServer, MilvusServerConfig

    server = MilvusServer(MilvusServerConfig(data_dir=str(folder / "milvus")))
    server.start()
    try:
        uri = f"http://127.0.0.1:{server.listen_port}"
        with Servers(folder / "workspace", milvus=uri) as servers:
            servers.postgres_url  # noqa: B018 - starts it
            yield {"workspace": str(folder / "workspace"), "milvus": uri}
    finally:
        server.stop()


def _config(path: Path, root: Path, stores: dict[str, str]) -> Path:
    lines = ["[survey]", f"root = {json.dumps(str(root))}", f"catalog = {json.dumps('zcatalog/copies.parquet')}"]
    lines += ["[stores]", *(f"{name} = {json.dumps(value)}" for name, value in stores.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _set(overrides: tuple[str, ...]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="skysift-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _title(quick: bool) -> list[str]:
    command = "python -m benchmarks.throughput" + (" --quick" if quick else "")
    return [f"{time.strftime('%Y-%m-%d')} · {machine()} · Python {platform.python_version()} · `{command}`", ""]


def _table(results: list[Measured]) -> list[str]:
    lines = ["| stage | spectra | spectra/s, steady | µs of processor a spectrum | cores busy with other things "
             "| whole command | commits | driver peak | largest worker peak | bytes passed / needed |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for one in results:
        peaks = one.whole.peaks
        passed = f"{one.passed:.3f}" if one.passed else ""
        lines.append(f"| {one.stage} | {one.spectra:,} | {one.rate:,.0f} | {sum(one.costs.values()):.0f} "
                     f"| {one.others:.1f} | {one.whole.seconds:.1f} s | {one.commits} | {peaks.driver / 1e6:.0f} MB "
                     f"| {peaks.worker / 1e6:.0f} MB | {passed} |")  # fmt: skip
    lines.append("")
    for stage in ("ingest", "score"):
        peaks_of_sizes = [one.whole.peaks for one in results if one.stage == stage]
        small, large = peaks_of_sizes[0], peaks_of_sizes[-1]
        lines.append(f"{stage}: peak memory, larger over smaller size: driver {large.driver / small.driver:.2f}, "
                     f"worker {large.worker / small.worker:.2f} ({large.count} workers)\n")  # fmt: skip
    return lines


def _peers(results: list[Measured], peers: dict[str, float]) -> list[str]:
    rates = {one.stage: one.rate for one in results}  # the larger size's
    against = {
        "desispec": ("ingest", "read_spectra + coadd_cameras, two processes"),
        "spender": ("score", "encoder, two threads"),
    }
    lines = [""]
    for name, rate in peers.items():
        stage, what = against[name]
        lines.append(f"{name} {what}: {rate:,.0f} spectra/s; {stage} is {rates[stage] / rate:.1f} times as fast")
    return lines


def _by_role(results: list[Measured]) -> list[str]:
    roles = sorted({role for one in results for role in one.costs})
    lines = ["", "Processor time in the steady state, µs a spectrum, all processes:", "",
             "| stage | spectra | " + " | ".join(roles) + " | all | so two idle cores do |",
             "|---" * (len(roles) + 4) + "|"]  # fmt: skip
    for one in results:
        total = sum(one.costs.values())
        parts = " | ".join(f"{one.costs.get(role, 0.0):.0f}" for role in roles)
        lines.append(f"| {one.stage} | {one.spectra:,} | {parts} | {total:.0f} | {2e6 / total:,.0f}/s |")
    return lines


def _breakdown(costs: dict[str, dict[str, float]]) -> list[str]:
    lines = ["", "µs a spectrum, one thread:", "", "| stage | " + "part | µs |", "|---|---|---|"]
    for stage, parts in costs.items():
        lines += [f"| {stage} | {name} | {value:.0f} |" for name, value in parts.items()]
        lines.append(f"| {stage} | all | {sum(parts.values()):.0f} |")
    return lines


if __name__ == "__main__":
    main()

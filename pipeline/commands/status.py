"""``skysift status``: where a run stands, and which of its spectra have no score and why."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click

from pipeline.commands.context import configured
from pipeline.config import Config

_STATES = ("done", "empty", "failed", "pending")


@click.command()
@configured
@click.option("-u", "--unscored", is_flag=True, help="List every spectrum without a score, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; ids are strings.")
def status(config: Config, unscored: bool, as_json: bool) -> None:
    """Say what of a run is done, empty, failed or pending, and why.

    \b
    skysift status                    the run named default
    skysift status -r demo -u         its unscored spectra, one a line
    """
    from pipeline.session import opened

    with opened(config) as session:
        found = gather(session.conn, config.run)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif unscored:
        _list_unscored(found["unscored"])
    else:
        _summary(found)


def gather(conn: Any, run_id: str) -> dict[str, Any]:
    """Everything status says, as plain values.

    Raises:
        RunError: there is no run of that name; the message names those there are.
    """
    from pipeline.report import data, trust
    from pipeline.stores import accounts, runs

    run = runs.require_run(conn, run_id)
    stages = {"ingest": accounts.counts(conn, run_id, "ingest")}
    if run.model_id:
        stages["score"] = accounts.counts(conn, run_id, "score", run.model_id)
    metrics = data.metrics(conn, run_id, run.model_id or "")
    waiting = accounts.unscored(conn, run_id, run.model_id or "")
    return {
        "run": run.run_id,
        "state": run.state,
        "stage": run.stage,
        "model": run.model_id,
        "message": run.message,
        "alarm": trust.alarm(metrics),
        "spectra": _planned(conn, run_id),
        "stages": {name: vars(counts) for name, counts in stages.items()},
        "unscored": [
            {name: str(value) if name == "targetid" else value for name, value in row.items()}
            for row in waiting.to_pylist()
        ],
    }


def _planned(conn: Any, run_id: str) -> int:
    from pipeline.stores.postgres import scalar, transaction

    with transaction(conn) as cur:
        cur.execute(
            "SELECT coalesce(sum(n_targets), 0) FROM run_chunks JOIN chunks USING (chunk_id) WHERE run_id = %s",
            (run_id,),
        )
        return int(scalar(cur))


def _summary(found: dict[str, Any]) -> None:
    model = f", model {found['model']}" if found["model"] else ""
    click.echo(f"run {found['run']}: {found['state']}, last stage {found['stage'] or 'none'}{model}")
    if found["message"]:
        click.echo(f"stopped because {found['message']}")
    if found["alarm"]:
        click.echo(found["alarm"])
    heads = [*(f"{state:>9}" for state in _STATES), *(f"{head:>12}" for head in ("rows in", "out", "kept back"))]
    click.echo(f"\n{'stage':<8}" + "".join(heads))
    for name, counts in found["stages"].items():
        chunks = "".join(f"{counts['chunks'].get(state, 0):>9,}" for state in _STATES)
        click.echo(f"{name:<8}{chunks}" + "".join(f"{counts[key]:>12,}" for key in ("n_in", "n_out", "n_quarantined")))
    click.echo("         (chunks by state, then spectra)")
    _unscored_summary(found)


def _unscored_summary(found: dict[str, Any]) -> None:
    rows = found["unscored"]
    click.echo(f"\n{len(rows):,} of {found['spectra']:,} spectra are unscored" + (":" if rows else ""))
    keys = [(row["state"], row["stage"], row["reason"] or "not reached yet") for row in rows]
    reasons = Counter(keys)
    examples = {key: row["detail"] for key, row in zip(keys, rows, strict=True)}
    for key, count in reasons.most_common():
        state, stage, reason = key
        click.echo(f"{count:>9,}  {reason} ({state} at {stage})")
        if examples[key]:
            click.echo(f"{'':>11}e.g. {examples[key]}")


def _list_unscored(rows: list[dict[str, Any]]) -> None:
    click.echo("targetid\tcoadd\tstage\tstate\treason\tdetail")
    for row in rows:
        names = ("targetid", "coadd", "stage", "state", "reason", "detail")
        click.echo("\t".join(str(row[name] or "") for name in names))

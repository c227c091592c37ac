"""The whole run, plan to report; each stage does only what the ledger says is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import cluster
from pipeline.errors import ModelError, SkysiftError, one_line
from pipeline.session import Session
from pipeline.stores import registry, runs
from pipeline.termination import Terminated

Say = Callable[[str], None]


def run(session: Session, say: Say, *, model: str = "") -> Path:
    """Plan, ingest, train (or take ``model``), score, calibrate and report; returns the report's path.

    Args:
        session: opened by ``session.driving``.
        say: receives a line for each stage that ended.
        model: an existing model's id or ``promoted``; empty: train one, unless the run's data already has one.

    Raises:
        ModelError: there is no such model.
        SkysiftError: a stage failed; the run is recorded as failed and the same command goes on from there.
    """
    from pipeline.stages.report import report

    chosen = registry.find_model(session.conn, model).model_id if model else ""  # a name is mistyped before the work
    with recorded(session):
        plan(session, say)
        with cluster.connected(session.config):  # one connection for all stages
            ingest(session, say)
            model_id = chosen or train(session, say)
            score(session, model_id, say)
            calibrate(session, model_id, say)
        runs.enter_stage(session.conn, session.config.run, "report")
        page = report(session)
        runs.end_run(session.conn, session.config.run)
    say(f"report      {page}")
    return page


def model_of_run(session: Session, model: str = "") -> str:
    """Return the id of the named model, else of the one that the run uses.

    Raises:
        ModelError: there is no such model, or the run has none yet.
    """
    known = runs.find_run(session.conn, session.config.run)
    name = model or (known.model_id if known else "") or ""
    if not name:
        raise ModelError(f"run {session.config.run} has no model yet: `skysift train`, or name one with --model")
    return registry.find_model(session.conn, name).model_id


@contextmanager
def recorded(session: Session) -> Iterator[None]:
    """Record a stage's failure with the run."""
    try:
        yield
    except (SkysiftError, Terminated) as error:
        if not session.conn.closed:
            session.conn.rollback()
            failure = one_line(error) if isinstance(error, SkysiftError) else "stopped by SIGTERM"
            runs.end_run(session.conn, session.config.run, failure=failure)
        raise


def plan(session: Session, say: Say) -> None:
    """Plan and say what the gate removed."""
    from pipeline.stages import plan as stage

    for line in stage.plan(session.config, session.conn, session.survey, session.objects).lines():
        say(line)


def ingest(session: Session, say: Say) -> None:
    """Ingest and say how much."""
    from pipeline.stages.ingest import ingest as stage

    done = stage(session)
    if not done.chunks:
        say("ingest      nothing new")
        return
    rate = done.n_out / max(done.seconds, 1e-9)
    lost = f", {done.n_quarantined:,} quarantined" if done.n_quarantined else ""
    say(f"ingest      {done.n_out:,} spectra{lost} in {done.seconds:.1f} s ({rate:,.0f}/s)")


def train(session: Session, say: Say) -> str:
    """Train unless the run's data has a model already; returns the model's id."""
    from pipeline.stages.train import train as stage

    done = stage(session)
    if done.reused:
        say(f"train       model {done.model_id} already fits these data")
    else:
        say(f"train       model {done.model_id} in {done.seconds:.1f} s, {done.segments} segments")
    return done.model_id


def score(session: Session, model_id: str, say: Say) -> None:
    """Score and say how much."""
    from pipeline.stages.score import score as stage

    done = stage(session, model_id)
    if not done.chunks:
        say("score       nothing new")
        return
    rate = done.n_out / max(done.seconds, 1e-9)
    lost = f", {done.n_quarantined:,} quarantined" if done.n_quarantined else ""
    say(f"score       {done.n_out:,} spectra{lost} in {done.seconds:.1f} s ({rate:,.0f}/s)")


def calibrate(session: Session, model_id: str, say: Say, *, force: bool = False) -> None:
    """Calibrate and say what came of it."""
    from pipeline.stages.calibrate import calibrate as stage

    runs.enter_stage(session.conn, session.config.run, "calibrate", model_id)
    done = stage(session, model_id, force=force)
    if done is None:
        say("calibrate   nothing new")
        return
    promoted = "; model promoted" if done.promoted else ""
    say(
        f"calibrate   {done.n_scored:,} spectra against {done.n_calibration:,} calibration spectra "
        f"in {done.seconds:.1f} s{promoted}"
    )
    say(f"            {done.look_elsewhere}")
    if done.verdicts:
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in done.verdicts.items())
        say(f"            candidates by verdict: {counts}")

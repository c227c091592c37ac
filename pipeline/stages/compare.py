"""Compare: several models' calibrated scores side by side, and the alarm when they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.disagreement import Disagreement, compare
from pipeline.errors import ModelsDisagree
from pipeline.report.trust import ALLOWED, FRACTION
from pipeline.session import Session
from pipeline.stores import catalog, registry, runs

STAGE = "compare"  # of the metrics
_COLUMNS = ("spectrum_id", "targetid", "coadd", "z", "anomaly_score", "p_value", "rank")


@dataclass(frozen=True)
class Comparison:
    """What was found among ``n_common`` spectra; ``flagged`` has a row for each strong disagreement.

    Columns of ``flagged``, the largest difference first: spectrum_id, targetid, coadd, z, and for each model its rank
    (``rank_{model}``) and the difference (``difference_{model}``, −ln p there less another's, nat).
    """

    models: tuple[str, ...]
    n_common: int
    found: Disagreement
    flagged: pa.Table
    allowed: float

    def require(self) -> None:
        """See that the models agree well enough.

        Raises:
            ModelsDisagree: on a larger fraction than ``score.max_disagreement`` they do not.
        """
        if self.found.fraction > self.allowed:
            raise ModelsDisagree(
                f"MODELS DISAGREE strongly on {self.flagged.num_rows:,} of {self.found.n_top:,} spectra that any of "
                f"{', '.join(self.models)} calls strange ({self.found.fraction:.1%}; score.max_disagreement is "
                f"{self.allowed:.1%}): believe only what all of them find, and train longer or on more spectra"
            )


def compare_models(session: Session, names: Sequence[str]) -> Comparison:
    """Compare calibrated models, flag what they disagree on in each one's scores, and record how alike they are.

    Raises:
        ModelError: a name stands for no model.
        RunError: there is no such run, models are fewer than two or have too little in common.
    """
    run, allowed = session.config.run, session.config.score.max_disagreement
    runs.require_run(session.conn, run)
    models = tuple(dict.fromkeys(registry.find_model(session.conn, name).model_id for name in names))
    tables = {name: catalog.read_scores(session.conn, name, columns=_COLUMNS) for name in models}
    keep = _common(tables)
    scores, p_values = (
        {name: tables[name][column].to_numpy()[keep[name]] for name in models}
        for column in ("anomaly_score", "p_value")
    )
    found = compare(scores, p_values)
    catalog.write_disagreement(
        session.conn, {name: _column(tables[name], keep[name], found.difference[name]) for name in models}
    )
    for name in models:
        runs.record_metrics(session.conn, run, STAGE, _metrics(found, name, allowed), model_id=name)
    return Comparison(models, len(found.strong), found, _flagged(tables, keep, found), allowed)


def _common(tables: dict[str, pa.Table]) -> dict[str, NDArray[np.int64]]:
    """Rows of each model's table (they are in the order of spectrum_id) that all models have calibrated."""
    ids = {}
    for name, table in tables.items():
        known = np.isfinite(np.asarray(table["p_value"].to_numpy(), np.float64))
        ids[name] = (table["spectrum_id"].to_numpy(), known)
    common: NDArray[np.int64] | None = None
    for key, known in ids.values():
        common = key[known] if common is None else np.intersect1d(common, key[known], assume_unique=True)
    return {name: np.searchsorted(key, common) for name, (key, _) in ids.items() if common is not None}


def _column(table: pa.Table, keep: NDArray[np.int64], difference: NDArray[np.float64]) -> pa.Table:
    values = np.full(table.num_rows, np.nan, np.float32)
    values[keep] = difference
    return pa.table({"spectrum_id": table["spectrum_id"], "disagreement": values})


def _flagged(tables: dict[str, pa.Table], keep: dict[str, NDArray[np.int64]], found: Disagreement) -> pa.Table:
    strong = np.flatnonzero(found.strong)
    size = np.max([np.abs(values[strong]) for values in found.difference.values()], axis=0)
    strong = strong[np.argsort(-size, kind="stable")]
    first = next(iter(tables))
    rows = tables[first].select(["spectrum_id", "targetid", "coadd", "z"]).take(pa.array(keep[first][strong]))
    for name, table in tables.items():
        rows = rows.append_column(f"rank_{name}", table["rank"].take(pa.array(keep[name][strong])))
        rows = rows.append_column(f"difference_{name}", pa.array(found.difference[name][strong]))
    return rows


def _metrics(found: Disagreement, name: str, allowed: float) -> dict[str, float | tuple[float, str]]:
    metrics: dict[str, float | tuple[float, str]] = {
        FRACTION: found.fraction,
        ALLOWED: allowed,
        "spectra compared": (len(found.strong), "spectra"),
        "strong disagreements": (int(found.strong.sum()), "spectra"),
    }
    for pair in found.pairs:
        if name in (pair.first, pair.second):
            other = pair.second if name == pair.first else pair.first
            metrics[f"with {other}: rank correlation of scores"] = pair.spearman
            metrics[f"with {other}: Jaccard index of the top 1%"] = pair.jaccard
    return metrics

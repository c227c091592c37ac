"""What a terminal shows: tables with few digits, and one spectrum as a short story with its shape in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.access.columns import column
from pipeline.report.reasons import chance, judged

if TYPE_CHECKING:
    from pipeline.access.spectra import Spectrum

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_DIGITS: Final = {"ra": ".4f", "dec": ".4f", "z": ".4f", "snr": ".1f", "separation": ".5f", "distance": ".3f",
                  "distance_percentile": ".3g", "anomaly_score": ".2f"}  # fmt: skip
_WIDTH: Final = 76
_LEAST: Final = 16  # characters of a text that is cut


def table(rows: pa.Table, width: int) -> str:
    """Return rows as text; a text that does not fit is cut, other columns that do not are named below the table."""
    from io import StringIO

    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = {name: [_cell(name, value) for value in rows[name].to_pylist()] for name in rows.column_names}
    shown: dict[str, int] = {}  # widths
    used = 0
    for name, values in cells.items():
        needs = max([len(_head(name)), *(len(one) for one in values)])
        left = width - used - 3
        if shown and needs > left:
            if not pa.types.is_string(rows.schema.field(name).type) or left < max(_LEAST, len(_head(name))):
                continue
            needs = left
        shown[name] = needs
        used += needs + 3
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name, widest in shown.items():
        number = pa.types.is_integer(rows.schema.field(name).type) or pa.types.is_floating(rows.schema.field(name).type)
        grid.add_column(_head(name), justify="right" if number else "left", no_wrap=True, max_width=widest)
    for at in range(rows.num_rows):
        grid.add_row(*(cells[name][at] for name in shown))
    text = StringIO()
    Console(file=text, width=max(width, used), color_system=None, markup=False, highlight=False).print(grid)
    missing = [name for name in cells if name not in shown]
    notes = [f"(not shown: {', '.join(missing)})"] if missing else []
    return "\n".join([text.getvalue().rstrip(), *([] if rows.num_rows else ["(no rows)"]), *notes])


def _head(name: str) -> str:
    unit = column(name).unit
    return f"{name} / {unit}" if unit else name


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:{_DIGITS.get(name, '.4g')}}"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"


def story(source: Spectrum, alike: Sequence[Mapping[str, Any]], total: int) -> str:
    """Return what is known of a spectrum in some twenty lines: where it is, how strange, why, and what it is like."""
    facts = source.facts
    rank = f"rank {facts['rank']:,} of {total:,}" if facts["rank"] else "not ranked"
    lines = [
        f"TARGETID {facts['targetid']}   {rank}",
        f"{_place(facts)}   z = {source.z:.4f}   S/N {_cell('snr', facts['snr'])} a pixel",
        f"{facts['coadd']}",
        "",
        f"How strange    p = {chance(_nan(facts['p_value']), bool(facts['extrapolated']))}, "
        f"q = {chance(_nan(facts['q_value']))}, score {_cell('anomaly_score', facts['anomaly_score'])}"
        + (" (trained on)" if facts["in_training"] else ""),
        f"What it is     {judged(facts['verdict'] or '', _nan(facts['artefact_probability'])) or 'no candidate'}",
    ]
    if facts["explanation"]:
        lines += [*_wrapped("Why            ", facts["explanation"])]
    lines += ["", "flux     " + spark(source.flux_L, source.good), "model    " + spark(_model(source), source.good),
              "residual " + spark(np.abs(source.residual), source.good, low=1.0), "         " + _axis()]  # fmt: skip
    if alike:
        lines += ["", "Ordinary spectra most like it"]
        lines += [f"  {one['targetid']}   z = {one['z']:.4f}   distance {one['distance']:.2f}" for one in alike]
    return "\n".join(lines)


def spark(values_L: NDArray[Any], good_L: NDArray[np.bool_], *, low: float = 0.0) -> str:
    """Return a curve as a line of blocks: medians of some hundred pixels each; blank where nothing is known."""
    values = np.where(good_L, values_L, np.nan).astype(float)
    size = len(values) // (_WIDTH - 9)
    bins = values[: size * (_WIDTH - 9)].reshape(-1, size)
    known = np.isfinite(bins).any(1)
    middle = np.full(len(bins), np.nan)
    middle[known] = np.nanmedian(bins[known], axis=1)
    top = np.nanpercentile(middle, 98) if known.any() else 1.0
    scaled = np.clip((middle - low) / max(float(top) - low, 1e-9), 0.0, 1.0)
    return "".join(_BLOCKS[1 + round(7 * one)] if np.isfinite(one) else " " for one in scaled.tolist())


def _axis() -> str:
    width = _WIDTH - 9
    marks = {round((lam - 3600.0) / 6224.0 * width): f"{lam}" for lam in (4000, 5000, 6000, 7000, 8000, 9000)}
    text = [" "] * (width + 4)
    for at, label in marks.items():
        text[at : at + len(label)] = label
    return "".join(text).rstrip() + " Å"


def _model(source: Spectrum) -> NDArray[Any]:
    return np.zeros_like(source.flux_L) if source.model_L is None else source.model_L


def _place(facts: Mapping[str, Any]) -> str:
    if facts["ra"] is None:
        return "no position"
    return f"RA {facts['ra']:.5f}  Dec {facts['dec']:+.5f}"


def _wrapped(head: str, text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def _nan(value: Any) -> float:
    return float("nan") if value is None else float(value)

"""Completeness: which share of known objects a threshold recovers, by class, significance, S/N and redshift.

Legend: N objects. Intervals are Wilson's (1927, JASA 22, 209), which stay within 0 and 1 and mean something at 0 of n;
they cover 68.3%, as a 1σ error bar does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIGMA: Final = (5.0, 8.0, 15.0, 25.0, 50.0)  # edges of the bands of noiseless significance
SNR: Final = (0.0, 1.0, 2.0, 4.0, 8.0, np.inf)  # of the median S/N a 0.8 Å pixel; the lowest takes negative ones
REDSHIFT: Final = (0.0, 0.8, 1.4, 2.1, 3.0, np.inf)
CUTS: Final = ((), ("sigma",), ("snr",), ("z",), ("sigma", "snr"), ("sigma", "z"), ("snr", "z"))
ALL: Final = "all_"  # before a kind: all its classes together
_EDGES = {"sigma": SIGMA, "snr": SNR, "z": REDSHIFT}

SCHEMA: Final = pa.schema(
    [("class", pa.string()), ("kind", pa.string()), ("threshold", pa.string())]
    + [(f"{axis}_{end}", pa.float64()) for axis in _EDGES for end in ("low", "high")]
    + [("n", pa.int32()), ("recovered", pa.int32())]
    + [(name, pa.float64()) for name in ("completeness", "low", "high")]
)


@dataclass(frozen=True)
class Objects:
    """N objects that a survey should find."""

    label: NDArray[np.str_]  # class
    kind: NDArray[np.str_]  # physical, artefact, control or catalog
    significance: Floats  # σ; NaN where it has no meaning
    snr: Floats
    z: Floats
    recovered: Mapping[str, NDArray[np.bool_]]  # threshold → which are beyond it


def wilson(recovered: NDArray[np.integer], n: NDArray[np.integer], z: float = 1.0) -> tuple[Floats, Floats]:
    """Return the ends of Wilson's interval for a share, ``z`` standard deviations to each side."""
    share = recovered / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4.0 * n * n))
    return np.clip(middle - half, 0.0, share), np.clip(middle + half, share, 1.0)  # rounding apart


def tabulate(objects: Objects, *, pooled: Sequence[str] = ()) -> pa.Table:
    """Return completeness with the columns of ``SCHEMA``: a row a class, threshold and cell that holds any object.

    Null edges mean that the axis is not cut. Kinds in ``pooled`` get a class of their own besides, ``all_`` and the
    kind's name.
    """
    rows = [row for name, chosen in _groups(objects, pooled) for row in _cells(objects, name, chosen)]
    table = {key: [row[key] for row in rows] for key in SCHEMA.names if key not in ("completeness", "low", "high")}
    n, recovered = np.array(table["n"], np.int64), np.array(table["recovered"], np.int64)
    low, high = wilson(recovered, n) if len(n) else (n, n)
    share = recovered / np.maximum(n, 1)
    return pa.table(table | {"completeness": share, "low": low, "high": high}).select(SCHEMA.names).cast(SCHEMA)


def _groups(objects: Objects, pooled: Sequence[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for name in sorted(set(objects.label.tolist())):
        yield name, objects.label == name
    for kind in pooled:
        if (objects.kind == kind).any():
            yield ALL + kind, objects.kind == kind


def _cells(objects: Objects, name: str, chosen: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    kind = str(objects.kind[np.argmax(chosen)])
    axes = {"sigma": objects.significance, "snr": objects.snr, "z": objects.z}
    for cut in CUTS:
        band = {axis: _band(axes[axis], _EDGES[axis]) for axis in cut}
        inside = chosen & np.all([places >= 0 for places in band.values()] or [chosen], axis=0)
        for cell in np.unique(np.stack([band[axis][inside] for axis in cut], 1), axis=0) if cut else [()]:
            rows = inside & np.all([band[axis] == place for axis, place in zip(cut, cell, strict=True)] or [chosen], 0)
            edges = {f"{axis}_{end}": None for axis in _EDGES for end in ("low", "high")}
            for axis, place in zip(cut, cell, strict=True):
                edges |= {f"{axis}_low": _EDGES[axis][place], f"{axis}_high": _EDGES[axis][place + 1]}
            for threshold, recovered in objects.recovered.items():
                counts = {"n": int(rows.sum()), "recovered": int((recovered & rows).sum())}
                yield {"class": name, "kind": kind, "threshold": threshold, **edges, **counts}


def _band(values: Floats, edges: tuple[float, ...]) -> NDArray[np.int64]:
    """Number of the band each value is in; the outer bands take what lies beyond; −1 for NaN."""
    place = np.clip(np.searchsorted(edges, np.nan_to_num(values), side="right") - 1, 0, len(edges) - 2)
    return np.where(np.isnan(values), -1, place)
